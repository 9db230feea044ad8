"""Runs in the guest: take the test device by VFIO and receive its interrupts (Linux include/uapi/linux/vfio.h)."""

import fcntl
import json
import mmap
import os
import select
import struct
import sys
import time
from pathlib import Path

SET_IOMMU, SET_CONTAINER, GET_DEVICE, SET_IRQS, RESET = 0x3B66, 0x3B68, 0x3B6A, 0x3B6E, 0x3B6F
TYPE1 = 1
INTX, MSIX = 0, 2
NONE, EVENTFD = 1 << 0, 1 << 2
UNMASK, TRIGGER = 1 << 4, 1 << 5
CONFIG, BAR_4 = 7 << 40, 4 << 40  # regions of the device's descriptor
RAISE, LINE = 8, 9  # registers of the device, by index of 32-bit words

name = sys.argv[1]
path = Path("/sys/bus/pci/devices") / name
(path / "driver_override").write_text("vfio-pci")
Path("/sys/bus/pci/drivers_probe").write_text(name)
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open(f"/dev/vfio/{(path / 'iommu_group').resolve().name}", os.O_RDWR)
fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
fcntl.ioctl(container, SET_IOMMU, TYPE1)
device = fcntl.ioctl(group, GET_DEVICE, bytearray(name.encode() + b"\0"))


def set_irqs(flags: int, index: int, fds: list[int]) -> None:
    data = struct.pack(f"{len(fds)}i", *fds)
    count = len(fds) or (1 if flags & UNMASK else 0)
    fcntl.ioctl(device, SET_IRQS, struct.pack("5I", 20 + len(data), flags, index, 0, count) + data)


def events(fd: int) -> int:
    """How often `fd` was signalled, after waiting for the first time."""
    if not select.select([fd], [], [], 10)[0]:
        return 0
    return struct.unpack("Q", os.read(fd, 8))[0]


registers = memoryview(mmap.mmap(device, 512 << 10, offset=0)).cast("I")
table = mmap.mmap(device, 16 << 10, offset=BAR_4)
report = {"identity": registers[0]}

command = struct.unpack("<H", os.pread(device, 2, CONFIG + 4))[0]
os.pwrite(device, struct.pack("<H", command | 4), CONFIG + 4)  # messages are writes of a bus master
vectors = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(64)]
set_irqs(EVENTFD | TRIGGER, MSIX, vectors)
counts = []
for vector in (0, 1, 63, 1):
    registers[RAISE] = vector
    counts.append(events(vectors[vector]))
report["msix"] = counts
started = time.perf_counter()
for _ in range(200):
    registers[RAISE] = 0
    events(vectors[0])
report["interrupt_microseconds"] = round((time.perf_counter() - started) * 1e6 / 200)

# Vector 5 is masked while it is raised, twice: it is pending, and comes once when the mask goes.
control = 5 * 16 + 12
table[control : control + 4] = struct.pack("I", 1)
registers[RAISE] = 5
registers[RAISE] = 5
report["pending"] = struct.unpack("Q", table[0x2000:0x2008])[0]
report["while_masked"] = len(select.select([vectors[5]], [], [], 0)[0])
table[control : control + 4] = struct.pack("I", 0)
report["unmasked"] = events(vectors[5])
report["still_pending"] = struct.unpack("Q", table[0x2000:0x2008])[0]
set_irqs(NONE | TRIGGER, MSIX, [])

# The line is a level: VFIO masks it on each interrupt, and it comes again for as long as it is asserted.
line = os.eventfd(0, os.EFD_NONBLOCK)
set_irqs(EVENTFD | TRIGGER, INTX, [line])
registers[LINE] = 1
first = events(line)
set_irqs(NONE | UNMASK, INTX, [])
again = events(line)
registers[LINE] = 0
set_irqs(NONE | UNMASK, INTX, [])
report["intx"] = [first, again, len(select.select([line], [], [], 0.5)[0])]

registers[1] = 0xCAFE
fcntl.ioctl(device, RESET)
report["scratch_after_reset"] = registers[1]
print(json.dumps(report))
