"""I/O BARs: registers in the processor's I/O space, which a process reaches by reading and writing a file."""

from __future__ import annotations

import os

from ixy.bus.pci import explained


class FilePorts:
    """An I/O BAR behind a file: each access is one system call, and one of the device. Implements `ixy.bus.Ports`.

    Args:
        address: of the device, for messages.
        fd: the file.
        start: where the BAR begins in it.
    """

    def __init__(self, address: str, fd: int, start: int = 0) -> None:
        self.fd = fd
        self.start = start
        self._address = address

    def read(self, offset: int, size: int) -> int:
        """Read a register of 1, 2 or 4 bytes."""
        with explained(self._address, "read an I/O port"):
            return int.from_bytes(os.pread(self.fd, size, self.start + offset), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register of 1, 2 or 4 bytes."""
        with explained(self._address, "write an I/O port"):
            os.pwrite(self.fd, value.to_bytes(size, "little"), self.start + offset)
