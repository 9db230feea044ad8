"""Physical addresses of this process's memory, for devices that no IOMMU translates for.

Source: Documentation/admin-guide/mm/pagemap.rst of the Linux kernel: one little-endian 64-bit entry per page of
virtual memory, bit 63 set while the page is in memory, bits 0 to 54 its page frame number.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ixy.errors import MemoryUnavailable, PermissionDenied

PAGEMAP = Path("/proc/self/pagemap")

_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_ADVICE = "no permission to see physical addresses: run as root (sudo), or bind the card to vfio-pci"


def physical_addresses(virtual: int, size: int, page_size: int) -> NDArray[np.int64]:
    """The physical address of each page of `size` bytes from virtual address `virtual`, shape (size / page_size,).

    Each page is looked up by itself: neighbours in virtual memory need not be neighbours in physical memory. The
    addresses stay true only for pages that the kernel does not move: huge pages.

    Args:
        virtual: aligned to `page_size`.
        page_size: in bytes, of the memory that is looked up.

    Raises:
        PermissionDenied: the process may not see page frame numbers (it lacks CAP_SYS_ADMIN).
        MemoryUnavailable: a page is not in memory.
    """
    try:
        fd = os.open(PAGEMAP, os.O_RDONLY)
    except PermissionError as error:
        raise PermissionDenied(_ADVICE) from error
    try:
        frames = [_frame(fd, address) for address in range(virtual, virtual + size, page_size)]
    finally:
        os.close(fd)
    return np.array(frames, np.int64) * mmap.PAGESIZE


def _frame(fd: int, address: int) -> int:
    """The number of the page frame behind a virtual address."""
    entry = int.from_bytes(os.pread(fd, 8, address // mmap.PAGESIZE * 8), "little")
    if not entry & _PRESENT:
        raise MemoryUnavailable("a page of DMA memory is not resident; lock it first")
    if not entry & _FRAME:  # hidden from whoever lacks CAP_SYS_ADMIN
        raise PermissionDenied(_ADVICE)
    return entry & _FRAME
