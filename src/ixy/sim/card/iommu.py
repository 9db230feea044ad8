"""The IOMMU of a virtual machine, as a card behind `x-pci-proxy-dev` has to see it.

QEMU's proxy gives a device the machine's physical memory as if no IOMMU stood before it. So the card walks the guest's
tables by itself, for each access anew: it caches nothing that the guest would have to invalidate.

Source: Intel Virtualization Technology for Directed I/O, revision 3.4: chapter 3 (legacy mode), 9.1, 9.3, 9.8, 10.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ixy.jit import outlined
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.qemu.qtest import Qtest

# Registers of the unit where q35 has it. Global status is the upper half of the word at 0x18 (10.4.4, 10.4.5, 10.4.6).
_COMMAND_AND_STATUS = 0xFED9_0018
_ROOT_TABLE = 0xFED9_0020
_ENABLED = 1 << 31 + 32

READ, WRITE = 1, 2  # what an access needs, as bits of a second-level entry (9.8)

_PRESENT = 1
_ADDRESS = 0x000F_FFFF_FFFF_F000
_PASS_THROUGH = 2  # translation type of a context entry (9.3)
_LARGE = 1 << 7


class Iommu:
    """The machine's VT-d unit, if it has one, before the function in one slot of the root bus."""

    def __init__(self, qtest: Qtest, slot: int) -> None:
        self._qtest = qtest
        self._requester = slot << 3  # function 0 of the device, on bus 0

    def look(self, take: Callable[[int, int], None]) -> None:
        """Ask where the tables are.

        As soon as QEMU answers, `take` gets the root table's address, or 0 while nothing is translated, and the number
        by which the unit knows the function.
        """

        def take_status(status: int) -> None:
            mask = _ADDRESS if status & _ENABLED else 0
            self._qtest.read64(_ROOT_TABLE, lambda root: take(root & mask, self._requester))

        self._qtest.read64(_COMMAND_AND_STATUS, take_status)


@outlined
def translate(
    words: NDArray[np.int64], allowed: NDArray[np.uint8], root: int, requester: int, address: int, access: int
) -> int:
    """The physical address behind an I/O address, or -1 if the IOMMU does not allow the access.

    Args:
        words: the machine's physical memory, from address 0.
        allowed: for each page whether it is memory.
        root: the root table's address.
        requester: bus, device and function number, 16 bits.
        access: `READ`, `WRITE` or both.
    """
    entry = table_entry(words, allowed, root + (requester >> 8) * 16)
    if entry & _PRESENT == 0:
        return -1
    context = (entry & _ADDRESS) + (requester & 0xFF) * 16
    entry = table_entry(words, allowed, context)
    kind = entry >> 2 & 3
    if entry & _PRESENT == 0 or kind > _PASS_THROUGH:
        return -1
    if kind == _PASS_THROUGH:
        return address
    levels = (table_entry(words, allowed, context + 8) & 7) + 2  # 1: 39 bits in 3 levels, 2: 48 in 4, 3: 57 in 5
    if levels > 5 or address < 0 or address >> (12 + 9 * levels) != 0:
        return -1
    return walk(words, allowed, entry & _ADDRESS, levels, address, access)


@outlined
def walk(
    words: NDArray[np.int64], allowed: NDArray[np.uint8], table: int, levels: int, address: int, access: int
) -> int:
    """Follow the second-level tables down to a page, which has 2 MiB or 1 GiB where a table says so (3.7)."""
    for level in range(levels - 1, -1, -1):
        shift = 12 + 9 * level
        entry = table_entry(words, allowed, table + (address >> shift & 511) * 8)
        if entry & access != access:
            return -1
        if level == 0 or (level <= 2 and entry & _LARGE != 0):
            inside = (1 << shift) - 1
            return (entry & _ADDRESS & ~inside) | (address & inside)
        table = entry & _ADDRESS
    return -1


@outlined
def table_entry(words: NDArray[np.int64], allowed: NDArray[np.uint8], address: int) -> int:
    """A word of a table, 0 (nothing is present) where there is no memory."""
    page = address >> 12
    if page < 0 or page >= allowed.size or load_acquire(allowed, page) == 0:
        return 0
    return load_acquire(words, address >> 3)
