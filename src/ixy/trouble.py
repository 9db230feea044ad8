"""What goes wrong in a kernel, in words: the same compiled and interpreted.

Compiled code raises an exception with a constant text. The numbers that belong into it it leaves in words of the path,
and `told` puts them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.counts import TROUBLE, TROUBLE_WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKET = "packet {0} of a batch of {1}"
BYTE = "byte {0} of a packet of {1} bytes"
SLICE = "{0} bytes are assigned to a slice of {1}"
LENGTH = "packet.length = {0}: it can be 1 to {1}"
HEADER_END = ": the header ends at byte {0} of a packet of {1} bytes"  # behind the field's name
NO_HEADER = "{}: the packet has no such header"
ELEMENT = "element {0} of an array of {1}"
RANDOM_BELOW = "ixy.random({0}): it takes 1 to {1}"


def told(error: IndexError, counts: NDArray[np.int64]) -> bool:
    """Put the numbers of compiled code into the text of its exception; whether there were any."""
    trouble = counts[TROUBLE : TROUBLE + TROUBLE_WORDS]
    first, second, there = trouble.tolist()
    trouble[:] = 0
    if there:
        error.args = (str(error).format(first, second),)
    return bool(there)
