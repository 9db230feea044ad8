"""When packets are due that are to be sent at a rate, in bursts, by chance, or at the times that a capture recorded.

A schedule is a row of gaps (`new_pace`, `pass_gap`): each packet says how long after it the next is due, in nanoseconds
and parts of one, so that nothing is lost by rounding. A packet's position is how long after the first it is due.

Who keeps a schedule looks at the clock by `late_by`, which has the one rule for who was held up, by a busy processor or
a suspended machine: he catches up within a bound, and beyond it the schedule moves on, as if it had started later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.draws import HALF, drawn
from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECOND = 1_000_000_000  # ns
CATCH_UP_PACKETS = 64  # so many late packets may go at once,
CATCH_UP_TIME = SECOND // 1000  # or those of so many nanoseconds, if that is more
NO_BOUND = 1 << 61  # ns, as a span: nothing is given up
_MOST = (1 << 63) - 1
_LONGEST = 1 << 62  # ns: no packet is due later after the first

# ---------------------------------------------------------------------------------------------------------------------
# The clock

STARTED = 0  # when the schedule started, by the clock in ns; 0 before the first look at it
GIVEN_UP = 1  # ns by which it has moved on in all
LATEST = 2  # the most ns that a packet was late
STALLS = 3  # how often packets were later than `CATCH_UP_TIME`,
HELD_UP = 4  # and whether the last look has found one so
KEEPING = 5  # words


@compiled
def late_by(words: NDArray[np.int64], at: int, position: int, span: int, now: int) -> int:
    """A look at the clock: how late the next packet is, in nanoseconds, less than 0 before it is due.

    The first look begins the schedule. One that finds the packet late beyond the bound moves the schedule on, so that
    no more than `CATCH_UP_PACKETS` go at once, or those of `CATCH_UP_TIME`.

    Args:
        words: their word `at` says when the schedule started, 0 at first.
        position: the packet's.
        span: how long after it that packet is due which is `CATCH_UP_PACKETS` - 1 behind it.
        now: by the clock, in nanoseconds; not 0.
    """
    if words[at] == 0:
        words[at] = now
    late = now - words[at] - position
    words[at] += max(late - max(span, CATCH_UP_TIME), 0)
    return late


@compiled
def look(keeping: NDArray[np.int64], position: int, span: int, now: int) -> int:
    """The same, which notes besides how late that was; how late the packet still is.

    Args:
        keeping: shape (KEEPING or more,), of all who keep the schedule; zeros at first.
    """
    before = keeping[STARTED]
    late = late_by(keeping, STARTED, position, span, now)
    if late > CATCH_UP_TIME:
        keeping[STALLS] += 1 - keeping[HELD_UP]
        keeping[GIVEN_UP] += keeping[STARTED] - before
    keeping[HELD_UP] = late > CATCH_UP_TIME
    keeping[LATEST] = max(keeping[LATEST], late)
    return int(now - keeping[STARTED] - position)


def lateness(keeping: NDArray[np.int64]) -> dict[str, float | int]:
    """What there is to tell at the end: by how much packets were late at most, how often they were later than may be
    caught up with in any case, and what the schedule has moved on by."""
    late, given_up = (round(int(keeping[word]) / 1000, 3) for word in (LATEST, GIVEN_UP))
    return {"late_us": late, "stalls": int(keeping[STALLS]), "given_up_us": given_up}


# ---------------------------------------------------------------------------------------------------------------------
# Gaps

NEXT, PART = KEEPING, KEEPING + 1  # the position of the next packet, in ns and parts of one,
PER = KEEPING + 2  # of which so many make a whole one
BOUND = KEEPING + 3  # how late a packet may be, in ns, and still be caught up with
BURST, LEFT = KEEPING + 4, KEEPING + 5  # so many packets go at once, and how many of these are left,
OWED, OWED_PART = KEEPING + 6, KEEPING + 7  # which owe the gaps behind them
CHANCE = KEEPING + 8  # a seed of 32 bits, plus 1, where gaps are random; else 0
DRAWS = KEEPING + 9  # how many gaps were drawn
PACE_WORDS = 16
FINE_PARTS = 1 << 16  # PER, where gaps are no whole parts of a rate


def new_pace(per: int, mean: float = 0.0, *, burst: int = 1, seed: int | None = None) -> NDArray[np.int64]:
    """The words of a schedule in which each packet has a gap behind it, and of who keeps it.

    Args:
        per: how many parts a nanosecond has.
        mean: how long a gap is, in ns: after a stall 64 packets go at once, or those of a millisecond.
        burst: so many packets are due at once, and after them all their gaps.
        seed: each gap is drawn from an exponential distribution with its length as the mean (a Poisson process); then
            `per` is `FINE_PARTS`.
    """
    words = np.zeros(PACE_WORDS, np.int64)
    words[PER] = per
    words[BOUND] = round((max(CATCH_UP_PACKETS, burst) - 1) * mean)
    words[BURST] = words[LEFT] = burst
    words[CHANCE] = 0 if seed is None else (seed & HALF) + 1
    return words


def gaps_of(units: Iterable[int], rate: int, per: int) -> NDArray[np.int64]:
    """How long so many units take at a rate, such as the bits of a packet: nanoseconds, and parts of one; shape (n, 2).

    Args:
        rate: units a second.
        per: parts that a nanosecond has; a gap is exact if that is the rate.
    """
    wholes = [divmod(unit * SECOND, rate) for unit in units]
    return np.array([(whole, rest * per // rate) for whole, rest in wholes], np.int64).reshape(-1, 2)


@compiled
def advance(words: NDArray[np.int64], at: int, gap: int, part: int, per: int) -> None:
    """Let `words[at:]`, nanoseconds and parts of one, of which there are `per`, be a gap later."""
    words[at] += gap
    words[at + 1] += part
    if words[at + 1] >= per:
        words[at + 1] -= per
        words[at] += 1


@compiled
def rounded_up(words: NDArray[np.int64], at: int) -> int:
    """The first nanosecond that is not before `words[at:]`."""
    return words[at] + (words[at + 1] > 0)


@compiled
def catch_up(pace: NDArray[np.int64], now: int) -> None:
    """A look at the clock, before packets are taken that are due."""
    look(pace, rounded_up(pace, NEXT), pace[BOUND], now)


@compiled
def next_due(pace: NDArray[np.int64]) -> int:
    """The first nanosecond in which the next packet is due, by the clock; 0 before the first look at it."""
    return pace[STARTED] + rounded_up(pace, NEXT)


@compiled
def pass_gap(pace: NDArray[np.int64], gap: int, part: int) -> None:
    """A packet has gone: the next is due a gap later."""
    if pace[CHANCE] > 0:
        draw = drawn(pace[CHANCE] - 1, pace[DRAWS])
        pace[DRAWS] += 1
        # The middle of one of 2^32 parts of what is below 1: its logarithm is finite.
        parts = int(-math.log((draw + 0.5) / (HALF + 1)) * (gap * FINE_PARTS + part))
        gap, part = parts // FINE_PARTS, parts % FINE_PARTS
    if pace[BURST] == 1:
        advance(pace, NEXT, gap, part, pace[PER])
        return
    advance(pace, OWED, gap, part, pace[PER])
    pace[LEFT] -= 1
    if pace[LEFT] == 0:
        pace[LEFT] = pace[BURST]
        advance(pace, NEXT, pace[OWED], pace[OWED_PART], pace[PER])
        pace[OWED] = pace[OWED_PART] = 0


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


# Words of a plan: packets before the next, the size of the last one and its time, times that went back, and gaps that
# were shortened
NUMBER, SIZE, RECORDED, BACK, SHORTENED, PLAN_WORDS = range(6)
_AGAIN = -_MOST - 1  # as the time of the packet before: there is no gap after the end of a file


class Plan(NamedTuple):
    """How far a recording's packets are planned.

    Attributes:
        words: shape (PLAN_WORDS,), int64.
        pace: see `new_pace`.
        gaps: behind a packet of each size, see `gaps_of`, where they are not those of the recording.
        timing: when packets are due.
    """

    words: NDArray[np.int64]
    pace: NDArray[np.int64]
    gaps: NDArray[np.int64]
    timing: Timing


def new_plan(timing: Timing, most: int) -> Plan:
    """The plan of a recording that begins, of frames of up to `most` bytes."""
    units = [8 * size if timing.kind == BY_BITS else 1 for size in range(most + 1 if timing.rate else 0)]
    per = timing.rate or FINE_PARTS
    return Plan(np.zeros(PLAN_WORDS, np.int64), new_pace(per), gaps_of(units, timing.rate, per), timing)


def begin_again(plan: Plan) -> None:
    """The recording begins once more, with the time that its last packet had."""
    plan.words[RECORDED] = _AGAIN


@compiled
def planned_all(plan: Plan, times: NDArray[np.int64], sizes: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
    """The positions of a recording's next packets, in nanoseconds; none is before that of the packet before it.

    Args:
        times: as recorded, in nanoseconds; shape (n,), as the others.
        sizes: bytes of their frames.
        positions: what is found.
    """
    words, pace, kind = plan.words, plan.pace, plan.timing.kind
    number, recorded, size = words[NUMBER], words[RECORDED], words[SIZE]
    following, part, per = pace[NEXT], pace[PART], pace[PER]
    for i in range(times.size):
        time = times[i]
        if number > 0 and kind != AT_ONCE:
            gap, more = _gap_between(plan, recorded, time) if kind == AS_RECORDED else _gap_behind(plan, size)
            following += min(gap, _LONGEST - following)
            part += more
            if part >= per:
                part -= per
                following += 1
        number, recorded, size = number + 1, time, sizes[i]
        positions[i] = following + (part > 0)
    words[NUMBER], words[RECORDED], words[SIZE] = number, recorded, size
    pace[NEXT], pace[PART] = following, part


@compiled
def _gap_behind(plan: Plan, size: int) -> tuple[int, int]:
    """How long after a packet of this size the next is due, by a rate: nanoseconds, and parts of one."""
    return int(plan.gaps[size, 0]), int(plan.gaps[size, 1])


@compiled
def _gap_between(plan: Plan, before: int, time: int) -> tuple[int, int]:
    """How long after the packet recorded before it one of this time is due, likewise."""
    words, timing = plan.words, plan.timing
    gap = 0 if before == _AGAIN else _passed(before, time)
    if gap < 0:
        words[BACK] += 1
        gap = 0
    if 0 < timing.max_gap < gap:
        words[SHORTENED] += 1
        gap = timing.max_gap
    if timing.speed == 1.0:
        return gap, 0
    scaled = min(gap / timing.speed, float(_LONGEST))
    whole = int(scaled)
    return whole, int((scaled - whole) * FINE_PARTS)


@compiled
def _passed(before: int, after: int) -> int:
    """Nanoseconds from one moment to another, as many as a word can tell; less than 0 if that is the earlier one."""
    if after < before:
        return -1
    if before < 0 and after > before + _MOST:
        return _MOST
    return after - before
