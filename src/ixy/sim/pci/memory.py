"""A virtual machine's memory, mapped so that a simulated device can read and write it by itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ixy.errors import MemoryUnavailable
from ixy.unsafe import Window

_PAGE = 4096
_ADDRESS_SPACE = 256 << 30  # reserved per machine; more memory than that cannot be mapped


@dataclass(frozen=True)
class Section:
    """A range of the guest's physical addresses and the part of a file that is its memory; sizes in bytes."""

    address: int
    size: int
    file_offset: int
    fd: int


@dataclass(frozen=True, eq=False)
class GuestMemory:
    """One layout of the guest's memory.

    Attributes:
        bytes: an array that holds the memory, at the places that `regions` gives; the rest of it must not be touched.
        regions: one row per range: the guest's physical address, the size, the place in `bytes`; shape (n, 3), int64.
    """

    bytes: NDArray[np.uint8]
    regions: NDArray[np.int64]

    def find(self, address: int, size: int) -> int:
        """The place in `bytes` of `size` bytes at `address`, or -1 where not all of them are memory."""
        for start, length, place in self.regions.tolist():
            if start <= address and address + size <= start + length:
                return place + address - start
        return -1


NO_MEMORY = GuestMemory(np.empty(0, np.uint8), np.empty((0, 3), np.int64))


class MemoryMap:
    """Maps the files behind a guest's memory, each one once, however often the layout changes."""

    def __init__(self) -> None:
        self._window = Window(_ADDRESS_SPACE, _PAGE)
        self._files: dict[tuple[int, int], tuple[int, int]] = {}  # (device, inode) → place in the window, size
        self._used = 0

    def lay(self, sections: Sequence[Section]) -> GuestMemory:
        """The layout made of `sections`. Their file descriptors may be closed afterwards.

        Raises:
            MemoryUnavailable: a section is not part of its file, or its file cannot be mapped.
        """
        rows = [(section.address, section.size, self._place(section)) for section in sections]
        return GuestMemory(self._window.bytes, np.array(rows, np.int64).reshape(-1, 3))

    def close(self) -> None:
        """Take all of the memory away. No layout may be used any more."""
        self._window.close()

    def _place(self, section: Section) -> int:
        status = os.fstat(section.fd)
        key = status.st_dev, status.st_ino
        if key not in self._files:
            self._files[key] = self._map(section.fd, status.st_size)
        place, size = self._files[key]
        if section.file_offset < 0 or section.file_offset + section.size > size:
            raise MemoryUnavailable(
                f"guest memory at {section.address:#x}+{section.size:#x} is not part of its file of {size:#x} bytes"
            )
        return place + section.file_offset

    def _map(self, fd: int, size: int) -> tuple[int, int]:
        if not _keeps_size(fd):
            raise MemoryUnavailable("guest memory is in a file that may shrink; give QEMU a memory-backend-memfd")
        end = self._used + -(-size // _PAGE) * _PAGE
        if size == 0 or end > self._window.size:
            raise MemoryUnavailable(f"cannot map {size:#x} bytes of guest memory")
        self._window.map(self._used, size, fd)
        place, self._used = self._used, end
        return place, size


def _keeps_size(fd: int) -> bool:
    """Whether the file is sealed against shrinking: memory behind the end of a file kills whoever touches it."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
