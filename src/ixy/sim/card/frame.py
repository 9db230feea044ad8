"""What a simulated 82599 sees in a frame before it knows what the frame carries: size, destination, VLAN tags.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CRC_BYTES = 4
MAC_BYTES = 12  # both addresses
TAG_BYTES = 4

_CTRL_EXT = reg.CTRL_EXT.offset // 4
_EXVET = reg.EXVET.offset // 4
_VLNCTRL = reg.VLNCTRL.offset // 4
_EXTENDED_VLAN = reg.CTRL_EXT.mask("EXTENDED_VLAN")


@compiled
def size_class(length: int) -> int:
    """Which of the six counters of sizes a frame belongs to (8.2.3.23.10)."""
    total = length + CRC_BYTES
    if total <= 64:
        return 0
    return 1 + (total > 127) + (total > 255) + (total > 511) + (total > 1023)


@compiled
def is_broadcast(source: NDArray[np.uint8], start: int) -> bool:
    for i in range(6):
        if source[start + i] != 0xFF:
            return False
    return True


@compiled
def half(data: NDArray[np.uint8], at: int) -> int:
    """16 bits in network order."""
    return (load_acquire(data, at) << 8) | load_acquire(data, at + 1)


@compiled
def word(data: NDArray[np.uint8], at: int) -> int:
    """32 bits in network order."""
    return (half(data, at) << 16) | half(data, at + 2)


@outlined
def tags(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int) -> tuple[int, int]:
    """How many bytes the outer and the inner VLAN tag of a frame have, 0 if it has none (7.4.1, 7.4.5).

    Where double VLAN is enabled, a frame without the outer tag has no inner one. Otherwise there are only inner tags.
    """
    outer = 0
    if load_acquire(registers, _CTRL_EXT) & _EXTENDED_VLAN:
        if half(frame, start + MAC_BYTES) != load_acquire(registers, _EXVET) >> 16:
            return 0, 0
        outer = TAG_BYTES
    inner = half(frame, start + MAC_BYTES + outer) == load_acquire(registers, _VLNCTRL) & 0xFFFF
    return outer, TAG_BYTES if inner else 0
