"""Runs in the guest: reach the test device through sysfs, and let it read and write this program's memory."""

import ctypes
import json
import mmap
import struct
import sys
import time
from pathlib import Path

device = Path("/sys/bus/pci/devices") / sys.argv[1]


def physical_address(memory: mmap.mmap) -> int:
    """Of the first page (Linux Documentation/admin-guide/mm/pagemap.rst)."""
    virtual = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(virtual // 4096 * 8)
        return (struct.unpack("<Q", pagemap.read(8))[0] & (1 << 55) - 1) * 4096


def dma(address: int) -> int:
    """Let the device invert 16 bytes at `address`; 1 if it could."""
    registers[2], registers[3] = address & 0xFFFFFFFF, address >> 32
    registers[4] = 16
    return registers[4]


(device / "enable").write_text("1")
with (device / "resource0").open("r+b", buffering=0) as resource:
    registers = memoryview(mmap.mmap(resource.fileno(), 512 << 10)).cast("I")
report = {
    "ids": [(device / name).read_text().strip() for name in ("vendor", "device", "class", "subsystem_device")],
    "resource": (device / "resource").read_text().splitlines(),
    "identity": registers[0],
    "end": registers[(512 << 10) // 4 - 1],
}
registers[1] = 0xCAFE
report["scratch"] = registers[1]

page = mmap.mmap(-1, 4096)
page[:16] = bytes(range(16))
address = physical_address(page)
report["dma_without_bus_master"] = dma(address)
with (device / "config").open("r+b", buffering=0) as config:
    config.seek(4)
    command = struct.unpack("<H", config.read(2))[0]
    config.seek(4)
    config.write(struct.pack("<H", command | 4))
report["dma"] = dma(address)
report["inverted"] = page[:16].hex()
report["dma_to_nowhere"] = dma(1 << 40)
started = time.perf_counter()
for _ in range(1000):
    registers[0]
report["read_microseconds"] = round((time.perf_counter() - started) * 1e3, 1)
(device / "reset").write_text("1")
report["scratch_after_reset"] = registers[1]
print(json.dumps(report))
