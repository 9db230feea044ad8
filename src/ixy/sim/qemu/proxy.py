"""The other end of QEMU's `x-pci-proxy-dev`: QEMU asks, a PCI function in this process answers.

The protocol is that of QEMU's multi-process mode (QEMU docs/system/multi-process.rst, include/hw/remote/mpqemu-link.h),
alike from version 5.2 on. QEMU waits for each answer, so at most one request is under way per function.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Protocol

from ixy.errors import Error
from ixy.sim.qemu.memory import GuestMemory, MemoryMap, Section


class ProxyError(Error):
    """QEMU, or whoever is at the other end, does not keep to the proxy protocol."""


class Function(Protocol):
    """A PCI function as the proxy sees it; `Endpoint` is one."""

    def config_read(self, offset: int, size: int) -> int: ...
    def config_write(self, offset: int, size: int, value: int) -> None: ...
    def decode(self, address: int, size: int) -> tuple[int, int] | None: ...
    def bar_read(self, bar: int, offset: int, size: int) -> int: ...
    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None: ...
    def reset(self) -> None: ...
    def set_memory(self, memory: GuestMemory) -> None: ...


class _Command(IntEnum):
    SYNC_SYSMEM = 0
    RET = 1
    PCI_CFGWRITE = 2
    PCI_CFGREAD = 3
    BAR_WRITE = 4
    BAR_READ = 5
    SET_IRQFD = 6
    DEVICE_RESET = 7


_HEADER = Struct("<iIQ")  # command, padding, size of the body
_REPLY = Struct("<iIQQ")
_MAX_FDS = 8
_MEMORY = Struct(f"<{_MAX_FDS}Q{_MAX_FDS}Q{_MAX_FDS}q")  # addresses, sizes, offsets in the files
_CONFIG = Struct("<IIi")  # offset, value, size
_BAR = Struct("<QQIB3x")  # address, value, size, whether it is memory
_BODY_SIZES = {
    _Command.SYNC_SYSMEM: _MEMORY.size,
    _Command.PCI_CFGWRITE: _CONFIG.size,
    _Command.PCI_CFGREAD: _CONFIG.size,
    _Command.BAR_WRITE: _BAR.size,
    _Command.BAR_READ: _BAR.size,
    _Command.SET_IRQFD: 0,
    _Command.DEVICE_RESET: 0,
}


class Proxy:
    """Answers QEMU's requests for one function.

    Args:
        sock: a UNIX stream socket, connected to QEMU's `-device x-pci-proxy-dev,fd=…`.
        function: what answers.
        memory: of the machine, shared by all of its functions.
        name: of the function, for messages.
    """

    def __init__(self, sock: socket.socket, function: Function, memory: MemoryMap, name: str) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._function = function
        self._memory = memory
        self._name = name
        self._received = b""
        self._fds: list[int] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def handle(self) -> bool:
        """Answer one request, when the socket is readable. False: QEMU has gone.

        Raises:
            ProxyError: the request is malformed. The socket is of no more use.
            MemoryUnavailable: the guest's memory cannot be mapped.
        """
        try:
            while (missing := self._missing()) > 0:
                data, fds, _, _ = socket.recv_fds(self._socket, missing, _MAX_FDS)
                self._received += data
                self._fds += fds
                if not data:
                    return False
            self._answer()
        except BlockingIOError:
            return True  # the rest of the request is still on its way
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def close(self) -> None:
        """Close the socket. QEMU then answers the guest's accesses with ones and an error of its own."""
        self._close_fds()
        self._socket.close()

    def _missing(self) -> int:
        """How many bytes the request under way still needs."""
        if len(self._received) < _HEADER.size:
            return _HEADER.size - len(self._received)
        command, _, size = _HEADER.unpack_from(self._received)
        if size != _BODY_SIZES.get(command):
            raise ProxyError(f"{self._name}: QEMU sent command {command} with {size} bytes, which no protocol has")
        return _HEADER.size + size - len(self._received)

    def _answer(self) -> None:
        """Do what the complete request asks."""
        command, _, _ = _HEADER.unpack_from(self._received)
        body, self._received = self._received[_HEADER.size :], b""
        try:
            if command == _Command.SYNC_SYSMEM:
                self._set_memory(body)
            elif command in (_Command.PCI_CFGREAD, _Command.PCI_CFGWRITE):
                self._access_config(command, body)
            elif command in (_Command.BAR_READ, _Command.BAR_WRITE):
                self._access_bar(command, body)
            elif command == _Command.DEVICE_RESET:
                self._function.reset()
                self._reply(0)
        finally:
            self._close_fds()  # those of SET_IRQFD too: interrupts go another way, which needs no KVM

    def _set_memory(self, body: bytes) -> None:
        values = _MEMORY.unpack(body)
        addresses, sizes, offsets = (values[i : i + _MAX_FDS] for i in range(0, len(values), _MAX_FDS))
        sections = [Section(*parts) for parts in zip(addresses, sizes, offsets, self._fds, strict=False)]
        if any(section.address + section.size > 1 << 63 for section in sections):
            raise ProxyError(f"{self._name}: QEMU's guest memory lies beyond 63 bits")
        self._function.set_memory(self._memory.lay(sections))

    def _access_config(self, command: int, body: bytes) -> None:
        offset, value, size = _CONFIG.unpack(body)
        self._check_size(size, 4)
        if command == _Command.PCI_CFGREAD:
            self._reply(self._function.config_read(offset, size))
        else:
            self._function.config_write(offset, size, value & (1 << 8 * size) - 1)
            self._reply(0)

    def _access_bar(self, command: int, body: bytes) -> None:
        """A read that no BAR claims gives ones, and such a write vanishes, as on the bus."""
        address, value, size, _ = _BAR.unpack(body)
        self._check_size(size, 8)
        place = self._function.decode(address, size)
        ones = (1 << 8 * size) - 1
        if command == _Command.BAR_READ:
            self._reply(self._function.bar_read(*place, size) if place else ones)
        else:
            self._reply(0)  # before the work: a write is posted, as on PCI Express
            if place:
                self._function.bar_write(*place, size, value & ones)

    def _check_size(self, size: int, largest: int) -> None:
        if size not in (1, 2, 4, 8) or size > largest:
            raise ProxyError(f"{self._name}: QEMU asked for an access of {size} bytes")

    def _reply(self, value: int) -> None:
        try:
            self._socket.send(_REPLY.pack(_Command.RET, 0, 8, value))
        except BlockingIOError:
            raise ProxyError(f"{self._name}: QEMU sends requests but takes no answers") from None

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


class Party(Protocol):
    """Something with a file descriptor to wait for, such as `Proxy` and `Qtest`."""

    def fileno(self) -> int: ...

    def handle(self) -> bool:
        """Do what there is to do, without waiting. False: the other end has gone."""
        ...


def serve(parties: Iterable[Party]) -> None:
    """Let each party handle what comes for it, until the other end of one has gone.

    Raises:
        Error: what `handle` raises.
    """
    with selectors.DefaultSelector() as selector:
        for party in parties:
            selector.register(party, selectors.EVENT_READ, party)
        while all(key.data.handle() for key, _ in selector.select()):
            pass
