"""The checksums that a simulated 82599 checks and inserts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.sim.card.frame import half
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CRC32, CRC32C = 0xEDB88320, 0x82F63B78  # of Ethernet and of SCTP: polynomials, the lowest power in the highest bit
SCTP_CHECKSUM = 8  # where it is in the header; 32 bits


@compiled
def ones_sum(data: NDArray[np.uint8], start: int, end: int) -> int:
    """The sum of 16-bit words in [start, end), an odd byte padded with zero, folded to 16 bits (RFC 1071)."""
    total = 0
    at = start
    while at + 1 < end:
        total += half(data, at)
        at += 2
    if at < end:
        total += load_acquire(data, at) << 8
    return fold(total)


@compiled
def fold(total: int) -> int:
    """A sum of 16-bit words with the carries added back in."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@outlined
def crc(data: NDArray[np.uint8], start: int, end: int, polynomial: int, hole: int) -> int:
    """The 32-bit cyclic redundancy check of [start, end), with the four bytes from `hole` on taken as zeros."""
    value = 0xFFFFFFFF
    for i in range(start, end):
        value ^= 0 if hole <= i < hole + 4 else load_acquire(data, i)
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@compiled
def sctp_checksum(data: NDArray[np.uint8], start: int, end: int) -> int:
    """What the four bytes at SCTP_CHECKSUM of an SCTP packet have to be, the first one lowest (RFC 9260, 6.8)."""
    return crc(data, start, end, CRC32C, start + SCTP_CHECKSUM)


@compiled
def is_sctp_right(data: NDArray[np.uint8], start: int, end: int) -> bool:
    value = sctp_checksum(data, start, end)
    for i in range(4):
        if load_acquire(data, start + SCTP_CHECKSUM + i) != (value >> 8 * i) & 0xFF:
            return False
    return True
