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
_ADDRESS_SPACE = 256 << 30  # reserved per machine; memory beyond this address cannot be mapped


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
    """Maps a guest's memory so that the place of a byte is its physical address.

    What a layout no longer has stays mapped until something else lies there, so that nobody who still reads it faults.

    Attributes:
        bytes: the array in which all layouts are.
    """

    def __init__(self) -> None:
        self._window = Window(_ADDRESS_SPACE, _PAGE)
        self._mapped: dict[int, tuple[int, int, int, int]] = {}  # address → size, device, inode, offset in the file
        self.bytes = self._window.bytes

    def lay(self, sections: Sequence[Section]) -> GuestMemory:
        """The layout made of `sections`. Their file descriptors may be closed afterwards.

        Raises:
            MemoryUnavailable: a section is not part of its file, or its file cannot be mapped.
        """
        for section in sections:
            self._map(section)
        rows = [(section.address, section.size, section.address) for section in sections]
        return GuestMemory(self.bytes, np.array(rows, np.int64).reshape(-1, 3))

    def close(self) -> None:
        """Take all of the memory away. No layout may be used any more."""
        self._window.close()

    def _map(self, section: Section) -> None:
        status = os.fstat(section.fd)
        wanted = section.size, status.st_dev, status.st_ino, section.file_offset
        if self._mapped.get(section.address) == wanted:
            return
        self._check(section, status.st_size)
        self._window.map(section.address, section.size, section.fd, section.file_offset)
        end = section.address + section.size
        for address, (size, *_) in list(self._mapped.items()):
            if address < end and section.address < address + size:
                del self._mapped[address]  # some of it lies under the new section
        self._mapped[section.address] = wanted

    def _check(self, section: Section, file_size: int) -> None:
        what = f"guest memory at {section.address:#x}+{section.size:#x}"
        if section.file_offset < 0 or section.file_offset + section.size > file_size:
            raise MemoryUnavailable(f"{what} is not part of its file of {file_size:#x} bytes")
        if not _keeps_size(section.fd):
            raise MemoryUnavailable("guest memory is in a file that may shrink; give QEMU a memory-backend-memfd")
        if section.size == 0 or section.address + section.size > self._window.size:
            raise MemoryUnavailable(f"{what} cannot be mapped: it lies beyond {_ADDRESS_SPACE >> 30} GiB or is empty")
        if (section.address | section.size | section.file_offset) % _PAGE:
            raise MemoryUnavailable(f"{what} cannot be mapped: it does not consist of whole pages")


def _keeps_size(fd: int) -> bool:
    """Whether the file is sealed against shrinking: memory behind the end of a file kills whoever touches it."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
