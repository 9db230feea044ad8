"""Integers in files, of either byte order and at any alignment; and the columns of a table of packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

SECOND = 1_000_000_000  # ns
AHEAD = (
    4096  # bytes: who goes from record to record has the next ones fetched, which a processor does within a page only
)
MAX_LENGTH = 262144  # bytes of a record: libpcap's MAXIMUM_SNAPLEN, above which it too calls a file damaged

# Rows of a table of packets, whose columns are packets: where the frame begins, its bytes in the file and on the wire,
# nanoseconds since 1970, and the number of the interface
OFFSET, LENGTH, ORIGINAL, TIME, INTERFACE, ROWS = range(6)


@compiled
def word(data: Bytes, at: int, big: bool) -> int:
    """The unsigned 32-bit word at `data[at:]`."""
    low = np.int64(data[at]) | np.int64(data[at + 1]) << 8  # which compilers know as one load
    value = int(low | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24)
    if big:
        return (value & 0xFF) << 24 | (value & 0xFF00) << 8 | value >> 8 & 0xFF00 | value >> 24
    return value


@compiled
def put_word(target: Bytes, at: int, value: int) -> None:
    """Write a 32-bit word, little-endian."""
    for byte in range(4):
        target[at + byte] = (value >> 8 * byte) & 0xFF
