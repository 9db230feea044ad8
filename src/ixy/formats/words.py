"""Integers in files, of either byte order and at any alignment; and the columns of a table of packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

SECOND = 1_000_000_000  # ns
MAX_LENGTH = 262144  # bytes of a record: libpcap's MAXIMUM_SNAPLEN, above which it too calls a file damaged

# Rows of a table of packets, whose columns are packets: where the frame begins, its bytes in the file and on the wire,
# nanoseconds since 1970, and the number of the interface
OFFSET, LENGTH, ORIGINAL, TIME, INTERFACE, ROWS = range(6)


@compiled
def word(data: Bytes, at: int, big: bool) -> int:
    """The unsigned 32-bit word at `data[at:]`."""
    a, b, c, d = np.int64(data[at]), np.int64(data[at + 1]), np.int64(data[at + 2]), np.int64(data[at + 3])
    if big:
        return int(a << 24 | b << 16 | c << 8 | d)
    return int(d << 24 | c << 16 | b << 8 | a)


@compiled
def put_word(target: Bytes, at: int, value: int) -> None:
    """Write a 32-bit word, little-endian."""
    for byte in range(4):
        target[at + byte] = (value >> 8 * byte) & 0xFF
