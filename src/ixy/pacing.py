"""When packets are due that are to be sent at a rate, or at the times that a capture recorded.

A sender that was held up, by a busy processor or a suspended machine, catches up within a bound; beyond it the schedule
moves on, as if it had started later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ixy.jit import compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECOND = 1_000_000_000  # ns
CATCH_UP_PACKETS = 64  # so many late packets may go at once,
CATCH_UP_TIME = SECOND // 1000  # or those of so many nanoseconds, if that is more


@compiled
def due(schedule: NDArray[np.int64], at: int, rate: int, sent: int, now: int) -> int:
    """How many packets should be sent now: packet n is due n / rate seconds after the first call.

    Args:
        schedule: its word `at` says when it started, in nanoseconds; 0 at first.
        rate: packets per second. More than one in a nanosecond counts as that.
        sent: how many were sent.
        now: by the clock, in nanoseconds; not 0.
    """
    rate = min(rate, SECOND)
    if schedule[at] == 0:
        schedule[at] = now
    number = due_by(now - schedule[at], rate) - sent
    most = max(CATCH_UP_PACKETS, rate // (SECOND // CATCH_UP_TIME))
    if number > most:
        schedule[at] = now - due_time(sent + most - 1, rate)
        number = most
    return max(number, 0)


@compiled
def excess(late: int, last: int) -> int:
    """By how much a schedule moves on that was held up: so that no more goes at once than may be caught up.

    Args:
        late: how late the next packet is, in nanoseconds.
        last: how late that is which comes `CATCH_UP_PACKETS` after it.
    """
    return max(min(last, late - CATCH_UP_TIME), 0)


@compiled
def due_by(elapsed: int, rate: int) -> int:
    """How many packets are due in the first `elapsed` nanoseconds; `rate` is at most one a nanosecond."""
    seconds = elapsed // SECOND
    return seconds * rate + (elapsed - seconds * SECOND) * rate // SECOND + 1


@compiled
def due_time(number: int, rate: int) -> int:
    """The first nanosecond in which packet `number` is due."""
    seconds = number // rate
    return seconds * SECOND + ((number - seconds * rate) * SECOND + rate - 1) // rate


# ---------------------------------------------------------------------------------------------------------------------
# A recording's own times, or others in their place

AS_RECORDED, BY_PACKETS, BY_BITS, AT_ONCE = range(4)  # what packets are due by


class Timing(NamedTuple):
    """When the packets of a recording are due.

    Attributes:
        kind: as they were recorded, by a rate of packets or of bits, or all at once.
        rate: packets or bits per second.
        speed: how many times as fast as recorded.
        max_gap: the most nanoseconds between two packets, as recorded; 0 for no bound.
    """

    kind: int = AS_RECORDED
    rate: int = 0
    speed: float = 1.0
    max_gap: int = 0


# Words of a plan: packets and bits before the next, its time, recorded and without what exceeds gaps, times that went
# back, and gaps that were shortened
NUMBER, BITS, RECORDED, POSITION, BACK, SHORTENED, PLAN = range(7)


@compiled
def planned(plan: NDArray[np.int64], timing: Timing, time: int, size: int) -> int:
    """When the next packet of a recording is due, in nanoseconds after the first; never before the one before it.

    Args:
        plan: shape (PLAN,), zeros at first.
        time: as recorded, in nanoseconds.
        size: bytes of its frame.
    """
    number, bits = plan[NUMBER], plan[BITS]
    gap = time - plan[RECORDED] if number > 0 else 0
    plan[NUMBER] += 1
    plan[BITS] += 8 * size
    plan[RECORDED] = time
    if gap < 0:
        plan[BACK] += 1
        gap = 0
    if 0 < timing.max_gap < gap:
        plan[SHORTENED] += 1
        gap = timing.max_gap
    plan[POSITION] += gap
    if timing.kind == BY_PACKETS:
        return due_time(number, timing.rate)
    if timing.kind == BY_BITS:
        seconds = bits // timing.rate
        return int(seconds * SECOND + int((bits - seconds * timing.rate) * (SECOND / timing.rate)))
    if timing.kind == AT_ONCE:
        return 0
    return int(plan[POSITION]) if timing.speed == 1.0 else int(plan[POSITION] / timing.speed)
