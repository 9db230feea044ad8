"""In which order numbered packets arrive: which are missing, which come late, and which come twice (RFC 4737).

A packet is reordered if one with a higher number came before it (section 3.3). Its extent is how many packets arrived
since the first of those (section 4.2.2), that one included. Packets that come again are no part of this but counted.

A window has a word for each of the last 65,536 numbers: 0 if it has arrived, else one more than how many packets had
arrived when it was first passed over. While nothing is missing, the window is not touched: what lies in it is 0, but
for numbers below MARKED, whose words may still be those of numbers that are 65,536 lower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.int64]

# Words: the number after the highest that has arrived; how many below it have not; see above; and how many packets came
# again, came after one with a higher number, and were lower than the window reaches, so that nobody knows which
NEXT, MISSING, MARKED, DUPLICATED, REORDERED, TOO_LATE, ORDER_WORDS = range(7)

WINDOW = 1 << 16
_INDEX = WINDOW - 1

IN_ORDER, AGAIN, OUT_OF_REACH = 0, -1, -2  # of a packet


@compiled
def arrive(words: Words, at: int, window: Words, base: int, number: int) -> int:
    """A packet arrives: IN_ORDER, its extent if it is reordered, AGAIN or OUT_OF_REACH.

    Args:
        words: from `at` on, ORDER_WORDS of them, 0 at first.
        window: from `base` on, WINDOW words, likewise.
    """
    if number == words[at + NEXT] and number >= words[at + MARKED]:
        words[at + NEXT] = number + 1
        return IN_ORDER
    expected = words[at + NEXT]
    arrived = expected - words[at + MISSING]
    place = base + (number & _INDEX)
    if number >= expected:
        for passed in range(max(expected, number - _INDEX), number):
            window[base + (passed & _INDEX)] = arrived + 1
        if number > expected:
            words[at + MISSING] += number - expected
            words[at + MARKED] = number + WINDOW
        window[place] = 0
        words[at + NEXT] = number + 1
        return IN_ORDER
    if number < max(expected - WINDOW, 0):
        words[at + TOO_LATE] += 1
        return OUT_OF_REACH
    mark = window[place]
    if mark == 0:
        words[at + DUPLICATED] += 1
        return AGAIN
    window[place] = 0
    words[at + MISSING] -= 1
    words[at + REORDERED] += 1
    return arrived - mark + 1
