"""When packets are due that are to be sent at a rate, in bursts, by chance, or at the times that a capture recorded.

There are two ways to say it. By a rate alone (`due`): packet n is due n / rate seconds after the first. By gaps
(`new_pace`): each packet says how long after it the next is due, as long packets do at a rate in bits, and those of a
capture.

A sender that was held up, by a busy processor or a suspended machine, catches up within a bound; beyond it the schedule
moves on, as if it had started later.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.draws import HALF, drawn
from ixy.jit import compiled

if TYPE_CHECKING:
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


# ---------------------------------------------------------------------------------------------------------------------
# Packets that differ in how long after each the next is due

NEXT, PART = 0, 1  # when the next packet is due, in ns; 0 at first; and a part of a nanosecond more,
PER = 2  # of which so many make a whole one
BOUND = 3  # how late a packet may be, in ns, and still be caught up with
GIVEN_UP = 4  # ns by which the schedule has moved on in all
BURST, LEFT = 5, 6  # so many packets go at once, and how many of these are left,
OWED, OWED_PART = 7, 8  # which owe the gaps behind them
CHANCE = 9  # a seed of 32 bits, plus 1, where gaps are random; else 0
DRAWS = 10  # how many gaps were drawn
PACE_WORDS = 16
CHANCE_PARTS = 1 << 16  # PER, where gaps are random


def new_pace(per: int, mean: float, *, burst: int = 1, seed: int | None = None) -> NDArray[np.int64]:
    """The words of a schedule in which each packet has a gap behind it, in ns and parts of one.

    Packet n is due when the gaps of all before it are over, after the first look at the clock: not a nanosecond
    earlier, and nothing is lost by rounding.

    Args:
        per: how many parts a nanosecond has.
        mean: how long a gap is, in ns: after a stall 64 packets go at once, or those of a millisecond.
        burst: so many packets are due at once, and after them all their gaps.
        seed: each gap is drawn from an exponential distribution with its length as the mean (a Poisson process); then
            `per` is `CHANCE_PARTS`.
    """
    words = np.zeros(PACE_WORDS, np.int64)
    words[PER] = per
    words[BOUND] = max(round((max(CATCH_UP_PACKETS, burst) - 1) * mean), CATCH_UP_TIME)
    words[BURST] = words[LEFT] = burst
    words[CHANCE] = 0 if seed is None else (seed & HALF) + 1
    return words


@compiled
def catch_up(pace: NDArray[np.int64], now: int) -> None:
    """A look at the clock. The first begins the schedule; one that is late beyond the bound moves it on."""
    if pace[NEXT] == 0:
        pace[NEXT] = now
    late = now - pace[NEXT] - pace[BOUND]
    if late > 0:
        pace[NEXT] += late
        pace[GIVEN_UP] += late


@compiled
def next_due(pace: NDArray[np.int64]) -> int:
    """The first nanosecond in which the next packet is due; 0 before the first look at the clock."""
    return pace[NEXT] + (pace[PART] > 0)


@compiled
def pass_gap(pace: NDArray[np.int64], gap: int, part: int) -> None:
    """A packet has gone: the next is due a gap later."""
    if pace[CHANCE] > 0:
        draw = drawn(pace[CHANCE] - 1, pace[DRAWS])
        pace[DRAWS] += 1
        # The middle of one of 2^32 parts of what is below 1: its logarithm is finite.
        parts = int(-math.log((draw + 0.5) / (HALF + 1)) * (gap * CHANCE_PARTS + part))
        gap, part = parts // CHANCE_PARTS, parts % CHANCE_PARTS
    pace[OWED] += gap
    pace[OWED_PART] += part
    if pace[OWED_PART] >= pace[PER]:
        pace[OWED_PART] -= pace[PER]
        pace[OWED] += 1
    pace[LEFT] -= 1
    if pace[LEFT] > 0:
        return
    pace[LEFT] = pace[BURST]
    pace[NEXT] += pace[OWED]
    pace[PART] += pace[OWED_PART]
    if pace[PART] >= pace[PER]:
        pace[PART] -= pace[PER]
        pace[NEXT] += 1
    pace[OWED] = pace[OWED_PART] = 0
