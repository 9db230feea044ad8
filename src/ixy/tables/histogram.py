"""Histograms of numbers of any size, each known within 1 %: lengths, times.

Numbers below 64 are counted one by one; from there on, each power of two is divided into 64 equal parts. The sum of two
histograms is that of all that both have counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.arguments import number
from ixy.jit import compiled, shared
from ixy.record import Elements, array
from ixy.unsafe import bit_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 6
_PARTS = 1 << _BITS
_MOST = (1 << 63) - 1


def histogram() -> Elements[int]:
    """A field of a record that is a histogram, of 30 KB."""
    return array(PARTS)


@shared(compiled)
def observe(counters: Elements[int] | NDArray[np.int64], value: int, amount: int = 1) -> None:
    """Count a number, `amount` times at once; one below 0 as 0."""
    counters[_part(max(value, 0))] += amount


@shared(compiled)
def _part(value: int) -> int:
    """In which part of the histogram a number lies."""
    shift = max(bit_length(value) - _BITS - 1, 0)
    return shift * _PARTS + (value >> shift)


PARTS = _part(_MOST) + 1  # counters of one


def quantile(counters: Elements[int] | NDArray[np.int64], share: float) -> int:
    """The number that `share` of all that were counted do not exceed, 0.5 for the median, within 1 %; 0 if there are
    none.

    Raises:
        ConfigurationError: `share` is not within 0 and 1.
    """
    share = number("share", share, 0, 1)
    below = np.cumsum(np.asarray(counters))
    if below[-1] <= 0:
        return 0
    part = int(np.searchsorted(below, max(share * float(below[-1]), 1)))
    first, last = bounds(part)
    return first + (last - first + 1 >> 1)


def bounds(part: int) -> tuple[int, int]:
    """The first and the last number that a counter counts."""
    if part < 2 * _PARTS:
        return part, part
    shift = part // _PARTS - 1
    first = part - shift * _PARTS << shift
    return first, first + (1 << shift) - 1
