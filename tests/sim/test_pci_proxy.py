"""The proxy protocol at the level of bytes, with the test in QEMU's place.

The layout of messages is written out here from QEMU's include/hw/remote/mpqemu-link.h.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ixy.errors import MemoryUnavailable
from ixy.sim.card.config import ConfigSpace
from ixy.sim.qemu.endpoint import Endpoint
from ixy.sim.qemu.memory import NO_MEMORY, GuestMemory, MemoryMap
from ixy.sim.qemu.proxy import Proxy, ProxyError, serve
from ixy.sim.qemu.qtest import Qtest, SlotInterrupts

SYNC_SYSMEM, RET, CONFIG_WRITE, CONFIG_READ, BAR_WRITE, BAR_READ, SET_IRQFD, RESET = range(8)
PAGE = 4096


class Device:
    """One register, and whatever memory it was given."""

    def __init__(self) -> None:
        self.word = 0
        self.memory = NO_MEMORY

    def read(self, _offset: int, _size: int) -> int:
        return self.word

    def write(self, _offset: int, _size: int, value: int) -> None:
        self.word = value

    def reset(self) -> None:
        self.word = 0

    def set_memory(self, memory: GuestMemory) -> None:
        self.memory = memory


class Machine:
    """QEMU's side of a proxied device and of the qtest socket."""

    def __init__(self) -> None:
        self.socket, served = socket.socketpair()
        self.qtest_socket, interrupts = socket.socketpair()
        self.qtest = Qtest(interrupts)
        self.device = Device()
        self.endpoint = Endpoint(ConfigSpace(), self.device, SlotInterrupts(self.qtest, 8))
        self.memory = MemoryMap()
        self.proxy = Proxy(served, self.endpoint, self.memory, "0000:00:08.0")
        self._sockets = [self.socket, self.qtest_socket, interrupts]

    def send(self, command: int, body: bytes = b"", fds: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [struct.pack("<iIQ", command, 0, len(body)) + body], fds or [])

    def ask(self, command: int, body: bytes = b"") -> int:
        """Send a request, let the proxy answer it, return the value."""
        self.send(command, body)
        assert self.proxy.handle()
        kind, _, size, value = struct.unpack("<iIQQ", self.socket.recv(100))
        assert (kind, size) == (RET, 8)
        return value

    def set_memory(self, fd: int, *ranges: tuple[int, int, int]) -> bool:
        """Announce `ranges` of (address, size, offset in the file)."""
        columns = zip(*[*ranges, *[(0, 0, 0)] * (8 - len(ranges))], strict=True)
        self.send(SYNC_SYSMEM, b"".join(struct.pack("<8q", *column) for column in columns), [fd] * len(ranges))
        return self.proxy.handle()

    def close(self) -> None:
        self.proxy.close()
        self.memory.close()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()


def guest_file(size: int, *, sealed: bool = True) -> int:
    """A file as QEMU's memory-backend-memfd makes it."""
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def config(offset: int, size: int, value: int = 0) -> bytes:
    return struct.pack("<IIi", offset, value, size)


def bar(address: int, size: int, value: int = 0) -> bytes:
    return struct.pack("<QQIB3x", address, value, size, 1)


def open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_configuration_and_registers_are_reached(machine: Machine) -> None:
    """Place BAR 0, turn memory decoding on, write a register and read it back."""
    assert machine.ask(CONFIG_READ, config(0, 4)) == 0x10FB8086
    assert machine.ask(BAR_READ, bar(0xE0000100, 4)) == 0xFFFFFFFF
    machine.ask(CONFIG_WRITE, config(0x10, 4, 0xE0000000))
    machine.ask(CONFIG_WRITE, config(0x04, 2, 0x2))
    machine.ask(BAR_WRITE, bar(0xE0000100, 4, 0xFFFFFFFF_12345678))
    assert machine.ask(BAR_READ, bar(0xE0000100, 4)) == 0x12345678
    machine.ask(RESET)
    assert machine.device.word == 0
    assert machine.ask(CONFIG_READ, config(0x10, 4)) == 0xC


def test_the_guests_memory_is_mapped(machine: Machine) -> None:
    """Two ranges of one file, announced twice: the device sees what the file holds, and the other way round."""
    fd = guest_file(4 * PAGE)
    machine.ask(CONFIG_WRITE, config(0x04, 2, 0x4))
    for _ in range(2):
        assert machine.set_memory(fd, (0, PAGE, 0), (1 << 32, 2 * PAGE, 2 * PAGE))
    memory = machine.device.memory
    os.pwrite(fd, b"packet", 3 * PAGE)
    place = memory.find((1 << 32) + PAGE, 6)
    assert memory.bytes[place : place + 6].tobytes() == b"packet"
    memory.bytes[place] = ord("P")
    assert os.pread(fd, 6, 3 * PAGE) == b"Packet"
    assert memory.find(PAGE - 1, 2) == -1
    assert memory.find((1 << 32) + 2 * PAGE - 1, 1) >= 0
    assert memory.find((1 << 32) + 2 * PAGE - 1, 2) == -1
    os.close(fd)


def test_no_file_descriptor_stays_behind(machine: Machine) -> None:
    """QEMU sends new descriptors with every change of the layout, and two for interrupts."""
    fd = guest_file(PAGE)
    assert machine.set_memory(fd, (0, PAGE, 0))
    before = open_fds()
    for _ in range(10):
        assert machine.set_memory(fd, (0, PAGE, 0))
    machine.send(SET_IRQFD, fds=[fd, fd])
    assert machine.proxy.handle()
    assert open_fds() == before
    os.close(fd)


@pytest.mark.parametrize(
    ("size", "sealed", "message"),
    [(PAGE, True, "not part of its file"), (4 * PAGE, False, "may shrink"), (0, True, "not part of its file")],
)
def test_memory_that_could_fault_is_refused(machine: Machine, size: int, sealed: bool, message: str) -> None:
    """A file that is too short, could become so, or is empty: touching memory behind its end would kill the process."""
    fd = guest_file(size, sealed=sealed)
    with pytest.raises(MemoryUnavailable, match=message):
        machine.set_memory(fd, (0, 2 * PAGE, 0))
    os.close(fd)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (99, b""),
        (-1, b""),
        (RET, bytes(8)),
        (CONFIG_READ, b""),
        (BAR_READ, bytes(1 << 16)),
        (CONFIG_READ, config(0, 3)),
        (CONFIG_READ, config(0, -1)),
        (CONFIG_WRITE, config(0, 8)),
        (BAR_READ, bar(0, 0)),
        (BAR_WRITE, bar(0, 1 << 31)),
        (SYNC_SYSMEM, struct.pack("<8Q8Q8q", *[2**64 - 1] * 16, *[-1] * 8)),
    ],
)
def test_a_malformed_request_is_an_error_by_name(machine: Machine, command: int, body: bytes) -> None:
    fd = guest_file(PAGE)
    machine.send(command, body, [fd])
    with pytest.raises(ProxyError, match=r"0000:00:08\.0: QEMU"):
        machine.proxy.handle()
    os.close(fd)


def test_a_request_may_come_in_pieces(machine: Machine) -> None:
    """Nothing waits for the rest, and the answer comes with the last byte."""
    request = struct.pack("<iIQ", CONFIG_READ, 0, 12) + config(0, 2)
    for i in range(len(request)):
        with pytest.raises(BlockingIOError):
            machine.socket.recv(1, socket.MSG_DONTWAIT)
        machine.socket.send(request[i : i + 1])
        assert machine.proxy.handle()
    assert struct.unpack("<iIQQ", machine.socket.recv(100))[3] == 0x8086


def test_whoever_takes_no_answers_is_refused(machine: Machine) -> None:
    """Requests without end, no answer read: an error, and no endless memory or wait."""

    def flood() -> None:
        while True:
            machine.send(CONFIG_READ, config(0, 4))
            machine.proxy.handle()

    with pytest.raises(ProxyError, match="takes no answers"):
        flood()


@pytest.mark.parametrize("part", [b"", b"\x03\0\0\0"])
def test_service_ends_when_qemu_goes(machine: Machine, part: bytes) -> None:
    """Between requests or in the middle of one."""
    machine.socket.send(part)
    machine.socket.close()
    serve([machine.proxy, machine.qtest])


def test_service_ends_when_only_the_interrupts_way_goes(machine: Machine) -> None:
    machine.qtest_socket.close()
    serve([machine.proxy, machine.qtest])


def test_interrupts_are_qtest_commands(machine: Machine) -> None:
    """A message is a write; INTA of slot 8 is input 20 of the I/O APIC, shared with slot 12."""
    other = SlotInterrupts(machine.qtest, 12)
    interrupts = SlotInterrupts(machine.qtest, 8)
    interrupts.message(0xFEE01000, 0x41)
    interrupts.line(True)
    other.line(True)
    interrupts.line(False)
    other.line(False)
    assert machine.qtest_socket.recv(1000).decode().splitlines() == [
        "writel 0xfee01000 0x41",
        "set_irq_in /machine/q35/ioapic unnamed-gpio-in 20 1",
        "set_irq_in /machine/q35/ioapic unnamed-gpio-in 20 0",
    ]


def test_interrupts_never_wait_for_qemu(machine: Machine) -> None:
    """QEMU reads nothing for long: when it reads again, each vector's message is there and nothing is torn."""
    interrupts = SlotInterrupts(machine.qtest, 8)
    for i in range(100_000):
        interrupts.message(0xFEE00000, i % 64)
    collected: list[bytes] = []

    def read_all() -> None:
        while data := machine.qtest_socket.recv(65536):
            collected.append(data)
            machine.qtest_socket.send(b"OK\n")

    reader = threading.Thread(target=read_all)
    reader.start()
    interrupts.message(0xFEE00000, 0x99)
    while b"0x99\n" not in b"".join(collected[-2:]):
        machine.qtest.handle()
    machine.qtest_socket.shutdown(socket.SHUT_RDWR)
    reader.join()
    lines = b"".join(collected).decode().splitlines()
    assert set(lines) == {f"writel 0xfee00000 {data:#x}" for data in [*range(64), 0x99]}


def test_no_memory_has_no_place_for_anything() -> None:
    assert NO_MEMORY.find(0, 1) == -1
    assert GuestMemory(np.zeros(8, np.uint8), np.array([[0, 8, 0]])).find(0, 8) == 0
