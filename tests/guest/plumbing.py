"""A PCI device made for tests, and a guest that has it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from harness import Guest

from ixy.errors import Error
from ixy.sim.card.config import ConfigSpace
from ixy.sim.qemu.endpoint import Endpoint
from ixy.sim.qemu.memory import NO_MEMORY, GuestMemory, MemoryMap
from ixy.sim.qemu.proxy import Proxy, serve
from ixy.sim.qemu.qtest import Qtest, SlotInterrupts

SLOT = 8
ADDRESS = f"0000:00:{SLOT:02x}.0"
IDENTITY = 0x82599


class DeviceGoneError(Error):
    """What the test device raises when it is told to end."""


class TestDevice:
    """Eleven 32-bit registers.

    0: an identity. 1: scratch. 2, 3: an address. 4: writing a size inverts so many bytes there; reads 1 if that worked.
    8: writing raises an MSI-X vector. 9: the INTA line. 10: writing ends the device's process, as far as QEMU can see.
    """

    __test__ = False

    def __init__(self, interrupts: SlotInterrupts) -> None:
        self.endpoint = Endpoint(ConfigSpace(), self, interrupts)
        self.memory: GuestMemory = NO_MEMORY
        self._words = [0] * 11

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return IDENTITY
        return self._words[offset // 4] if offset < 44 and size == 4 else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= 44 or size != 4:
            return
        self._words[offset // 4] = value
        if offset == 16:
            self._words[4] = self._invert(self._words[2] | self._words[3] << 32, value)
        elif offset == 32:
            self.endpoint.signal(value)
        elif offset == 36:
            self.endpoint.set_line(bool(value))
        elif offset == 40:
            raise DeviceGoneError

    def reset(self) -> None:
        self._words = [0] * 11

    def set_memory(self, memory: GuestMemory) -> None:
        self.memory = memory

    def _invert(self, address: int, size: int) -> int:
        place = self.memory.find(address, size)
        if place < 0:
            return 0
        np.invert(self.memory.bytes[place : place + size], out=self.memory.bytes[place : place + size])
        return 1


def _serve_and_close(proxy: Proxy, qtest: Qtest) -> None:
    """Serve; at the end, or after an error, let go of QEMU, which else waits for an answer."""
    try:
        with suppress(DeviceGoneError):
            serve([proxy, qtest])
    finally:
        proxy.close()


@contextmanager
def guest_with_device(
    directory: Path, arguments: Sequence[str] = (), **options: Any
) -> Iterator[tuple[Guest, TestDevice]]:
    """A guest with a `TestDevice` at `ADDRESS`, served by a thread of this process."""
    device_side, proxy_side = socket.socketpair()
    qtest_side, interrupts_side = socket.socketpair()
    memory = MemoryMap()
    qtest = Qtest(interrupts_side)
    device = TestDevice(SlotInterrupts(qtest, SLOT))
    proxy = Proxy(proxy_side, device.endpoint, memory, ADDRESS)
    server = threading.Thread(target=_serve_and_close, args=(proxy, qtest))
    server.start()
    device_arguments = ["-device", f"x-pci-proxy-dev,id=nic0,fd={device_side.fileno()},addr={SLOT:#x}"]
    device_arguments += ["-chardev", f"socket,id=qtest,fd={qtest_side.fileno()}"]
    device_arguments += ["-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
    fds = [device_side.fileno(), qtest_side.fileno()]
    try:
        with device_side, qtest_side:
            guest = Guest(directory, [*device_arguments, *arguments], shared_memory=True, pass_fds=fds, **options)
        with guest:
            yield guest, device
    finally:
        server.join()
        interrupts_side.close()
        memory.close()
