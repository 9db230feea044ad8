"""DMA memory: pinned pages that a device may read and write by itself.

All DMA memory of the process lies in one window of address space. Its first part holds packet buffers, so that a
buffer's number alone says where it lies, whichever device it came from; rings lie behind. Memory comes in units of
2 MiB, from huge pages where the system has some: the kernel neither swaps nor moves those. It is backed by anonymous
files, so a process that is killed leaves nothing behind, and another process can map it.

A device does not use pointers: `DmaMapping` says at which address a device sees the memory, and only the bus can tell.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import MemoryUnavailable
from ixy.once import once
from ixy.process import Owner
from ixy.unsafe import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUGE_PAGE = 2 << 20
PAGE = 4096

PACKET_REGION = 256 * 66 * HUGE_PAGE  # what mempools are carved from: 256 of them, two for each queue that a card has
RING_REGION = 512 * HUGE_PAGE  # what descriptor rings are carved from


@once
def window() -> Window:
    """The window of this process, reserved when it is first needed."""
    return Window(PACKET_REGION + RING_REGION, HUGE_PAGE)


class _InUse:
    """What of the window is in use, by offset. Memory is in here before it is mapped and until it is not any more.
    Who looks for a gap holds the lock meanwhile."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ranges: dict[int, range] = {}


@once
def _in_use() -> _InUse:
    return _InUse()


def in_use(offset: int) -> bool:
    """Whether there is memory at this place of the window."""
    return offset in _in_use().ranges


class DmaMemory:
    """Some huge pages' worth of memory.

    Attributes:
        offset: in the process's window, in bytes.
        size: in bytes, a multiple of 2 MiB.
        page_size: 2 MiB on huge pages, else 4 KiB.
        fd: the anonymous file behind the memory.
        bytes: the memory, shape (size,), uint8.
    """

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = -(-size // HUGE_PAGE) * HUGE_PAGE
        self._owner = Owner()
        self._files: list[int] = []
        self._range = range(offset, offset + self.size)
        _in_use().ranges[offset] = self._range
        try:
            self.page_size = self._place_somehow()
        except BaseException:
            self.close()
            raise
        self.fd = self._files[0]
        self.bytes: NDArray[np.uint8] = window().bytes[self.offset : self.offset + self.size]

    def _place_somehow(self) -> int:
        """On huge pages if there are some; the size of the pages."""
        try:
            self._place(os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        except (MemoryUnavailable, OSError):
            self._place(0)
            return PAGE
        return HUGE_PAGE

    def _place(self, flags: int) -> None:
        """Create the file and map it at its place in the window.

        Its size is final, or a process that it is shared with could shorten it, and the next access would be our end.
        """
        flags |= os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._files.extend(map(os.memfd_create, ("ixy",), (flags,)))  # in one step: no exception comes between
        fd = self._files[0]
        try:
            _resize(fd, self.size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            if flags & os.MFD_HUGETLB:
                # First take the huge pages: a mapping that fails for want of them leaves a hole in the window, into
                # which another thread's memory may fall.
                os.posix_fallocate(fd, 0, self.size)
            window().map(self.offset, self.size, fd)
        except BaseException:
            self._close_file()
            raise

    @property
    def virtual_address(self) -> int:
        """For the kernel's interfaces that ask for one: pagemap, VFIO."""
        return window().address(self.offset)

    def lock(self) -> None:
        """Keep the memory resident, for a device that is given physical addresses.

        Raises:
            MemoryUnavailable: the process may not lock so much.
        """
        window().lock(self.offset, self.size)

    def close(self) -> None:
        """Return the memory. No device may know it any more. A second call, or one in a forked child, does nothing, or
        goes on where the first was interrupted."""
        if not self._owner.mine():
            return
        if _in_use().ranges.get(self.offset) is self._range:
            window().unmap(self.offset, self.size)
            del _in_use().ranges[self.offset]  # from here on the place may be another's
        if self._files:
            self._close_file()

    def _close_file(self) -> None:
        tuple(map(os.close, map(self._files.pop, (0,))))  # in one step likewise: once, and no other file

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "_range") and not _ending():  # else it has nothing
            self.close()


def _resize(fd: int, size: int) -> None:
    """Give a file its size; raises `MemoryUnavailable` where the user may have no file as large as that."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        advice = "raise the limit on the size of files (ulimit -f)"
        raise MemoryUnavailable(f"no {size} bytes of memory in one file: {advice}") from error


def allocated() -> int:
    """How many bytes of DMA memory the process has."""
    return sum(map(len, list(_in_use().ranges.values())))


def allocate_rings(size: int) -> DmaMemory:
    """Memory for descriptor rings of `size` bytes in all, from the first gap that is large enough.

    Raises:
        MemoryUnavailable: there is no room, or the system gives no memory.
    """
    with _in_use().lock:
        offset = PACKET_REGION
        used = [place for place in list(_in_use().ranges.values()) if place.start >= PACKET_REGION]
        for place in sorted(used, key=lambda place: place.start):
            if place.start - offset >= size:
                break
            offset = place.stop
        if offset + size > PACKET_REGION + RING_REGION:
            raise MemoryUnavailable(f"no room for {size} bytes of descriptor rings: close a device first")
        return DmaMemory(offset, size)


@dataclass(frozen=True)
class DmaMapping:
    """Where a device sees a piece of DMA memory.

    Attributes:
        pages: the device's address of each page, shape (size / page_size,), int64. Neighbours need not be contiguous.
        page_size: in bytes.
        translated: the addresses are an IOMMU's; where the device goes past it, they name other memory.
        window: the device's address of the window's first byte, if it sees the whole window as the process does, each
            byte as far from the first; None where each page lies elsewhere.
    """

    pages: NDArray[np.int64]
    page_size: int
    translated: bool = False
    window: int | None = None

    @classmethod
    def linear(cls, memory: DmaMemory, window: int, translated: bool = False) -> DmaMapping:
        """That of a device that sees the window in one piece, from the address `window` on."""
        first = window + memory.offset
        pages = np.arange(first, first + memory.size, memory.page_size, dtype=np.int64)
        return cls(pages, memory.page_size, translated, window)

    def addresses(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The device's addresses of the bytes at `offsets` from the start of the memory."""
        return self.pages[offsets // self.page_size] + offsets % self.page_size

    def address(self, offset: int, size: int) -> int:
        """The device's address of `size` contiguous bytes at `offset`.

        Raises:
            MemoryUnavailable: the range crosses into a page that does not follow in the device's view.
        """
        first, last = offset // self.page_size, (offset + size - 1) // self.page_size
        steps = np.diff(self.pages[first : last + 1])
        if np.any(steps != self.page_size):
            raise MemoryUnavailable(f"{size} bytes of DMA memory are not contiguous for the device")
        return int(self.pages[first]) + offset % self.page_size
