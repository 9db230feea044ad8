"""Integers in files, of either byte order and at any alignment; and the columns of a table of packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled
from ixy.unsafe import load_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

SECOND = 1_000_000_000  # ns
AHEAD = (
    4096  # bytes: who goes from record to record has the next ones fetched, which a processor does within a page only
)
ALIKE = 8  # records of one length in a row: after so many the next ones are taken as many at a time
MAX_LENGTH = 262144  # bytes of a record: libpcap's MAXIMUM_SNAPLEN, above which it too calls a file damaged

# Masked with this, a place in a file or a table is known to be positive, and the compiler leaves out what Python's
# negative indices would need: four times as much as all the rest.
INDEX = (1 << 62) - 1

# Rows of a table of packets, whose columns are packets: where the frame begins, its bytes in the file and on the wire,
# nanoseconds since 1970, and the number of the interface
OFFSET, LENGTH, ORIGINAL, TIME, INTERFACE, ROWS = range(6)


@compiled
def word(data: Bytes, at: int, big: bool) -> int:
    """The unsigned 32-bit word at `data[at:]`; the caller has checked that it is there."""
    value = load_word(data, at)
    if big:
        return (value & 0xFF) << 24 | (value & 0xFF00) << 8 | value >> 8 & 0xFF00 | value >> 24
    return value
