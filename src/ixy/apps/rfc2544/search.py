"""The search for the highest number at which nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ixy.apps.rfc2544.trials import Attempt


class Highest(NamedTuple):
    """What a search has found.

    Attributes:
        attempt: the one that reached most without loss; None if there was loss at all that was tried.
        lossy: whether there was loss above it. Else nobody knows what there would have been: more was not offered.
    """

    attempt: Attempt | None
    lossy: bool


def highest(
    attempt: Callable[[int, str], Attempt], first: Attempt, grain: Callable[[int], int], tolerance: float = 0.0
) -> Highest:
    """Look for the highest number at which no more is lost than is tolerated, by halving what is between.

    An attempt that reaches less than was asked for ends the search: it says of what it has reached whether that is too
    much, and above that nothing can be tried.

    Args:
        attempt: tries a number; it is also told between which two it lies, in words.
        first: tried already, the most that there is.
        grain: so far may what was lossless lie from what was not, given the latter.
        tolerance: share of packets that may be lost.
    """
    if first.loss <= tolerance:
        return Highest(first, lossy=False)
    best: Attempt | None = None
    low, high = 0, first.reached
    while high - low > max(grain(high), 1):
        found = attempt((low + high) // 2, f", between {low} and {high}")
        if found.loss > tolerance:
            high = max(min(found.reached, high), low)
            continue
        if found.reached > low:
            low, best = found.reached, found
        if found.short:
            return Highest(best, lossy=False)
    return Highest(best, lossy=True)
