"""How who keeps a schedule looks at the clock, and when the packets of a recording are due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.pacing import (
    AT_ONCE,
    BACK,
    BY_BITS,
    BY_PACKETS,
    KEEPING,
    SHORTENED,
    STARTED,
    Plan,
    Timing,
    begin_again,
    late_by,
    lateness,
    look,
    new_plan,
    planned_all,
)

START = 5_000_000_000  # ns: when the clock is first looked at
SECOND = 10**9
HOUR = 3600 * SECOND


# ---------------------------------------------------------------------------------------------------------------------
# Looks at the clock


def started() -> np.ndarray:
    """The words of who keeps a schedule that began at START."""
    keeping = np.zeros(KEEPING, np.int64)
    assert look(keeping, 0, 0, START) == 0
    assert keeping[STARTED] == START
    return keeping


def test_a_packet_is_early_or_late() -> None:
    """One that is due 100 ns after the first; nothing moves the schedule, and being early is told as nothing."""
    keeping = started()
    assert [look(keeping, 100, 0, START + t) for t in (0, 99, 100, 250)] == [-100, -1, 0, 150]
    assert keeping[STARTED] == START
    assert lateness(keeping) == {"late_us": 0.15, "stalls": 0, "given_up_us": 0}


@pytest.mark.parametrize(("rate", "most"), [(1, 64), (1000, 64), (63_000, 64), (100_000, 101), (10**9, 10**6 + 1)])
def test_a_stall_is_caught_up_within_a_bound(rate: int, most: int) -> None:
    """An hour later 64 packets are due at once, or those of a millisecond; the rest is given up, and told."""
    keeping, gap = started(), SECOND // rate
    late = look(keeping, gap, 63 * gap, START + HOUR)
    assert late // gap + 1 == min(most, 3600 * rate)
    assert lateness(keeping) == {"late_us": (HOUR - gap) / 1000, "stalls": 1, "given_up_us": (HOUR - gap - late) / 1000}


def test_up_to_the_bound_nothing_is_given_up() -> None:
    """A packet each 10 ms: at 630 ms too late the 64th is just due. That is told as late, and not as given up."""
    keeping = started()
    assert look(keeping, 0, 630 * 10**6, START + 630 * 10**6) == 630 * 10**6
    assert lateness(keeping) == {"late_us": 630_000.0, "stalls": 1, "given_up_us": 0}
    assert look(keeping, 0, 630 * 10**6, START + 630 * 10**6 + 5000) == 630 * 10**6
    assert lateness(keeping) == {"late_us": 630_005.0, "stalls": 1, "given_up_us": 5.0}


def test_stalls_are_counted_one_by_one() -> None:
    """Looks that find packets late one after the other are one stall; after one in time the next begins."""
    keeping = started()
    moments = [2, 3, 4, 10, 20, 22, 23, 30]  # ms, of packets that are due at
    positions = [0, 1, 2, 10, 18, 19, 20, 30]
    for moment, due in zip(moments, positions, strict=True):
        look(keeping, due * 10**6, SECOND, START + moment * 10**6)
    assert lateness(keeping) == {"late_us": 3000.0, "stalls": 2, "given_up_us": 0}


@given(st.integers(1, 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
def test_any_clock(now: int, position: int, span: int) -> None:
    """However large the numbers, a packet is never later than the bound once the schedule has moved on."""
    words = np.ones(1, np.int64)
    assert late_by(words, 0, position, span, now) == now - 1 - position
    assert late_by(words, 0, position, span, now) <= max(span, 10**6)


# ---------------------------------------------------------------------------------------------------------------------
# Recordings


def positions(timing: Timing, times: list[int], sizes: list[int] | None = None) -> list[int]:
    return go_on(new_plan(timing, 1514), times, sizes)


def go_on(plan: Plan, times: list[int], sizes: list[int] | None = None) -> list[int]:
    found = np.zeros(len(times), np.int64)
    planned_all(plan, np.array(times, np.int64), np.array(sizes or [60] * len(times), np.int64), found)
    return found.tolist()


TIMES = [10**18 + t for t in (0, 1, 17, 1_000_003, 1_000_003, 3_000_000_011)]


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (Timing(), [0, 1, 17, 1_000_003, 1_000_003, 3_000_000_011]),
        (Timing(speed=2.0), [0, 1, 9, 500_002, 500_002, 1_500_000_006]),
        (Timing(speed=0.5), [0, 2, 34, 2_000_006, 2_000_006, 6_000_000_022]),
        (Timing(max_gap=5), [0, 1, 6, 11, 11, 16]),
        (Timing(BY_PACKETS, 3), [0, 333_333_334, 666_666_667, SECOND, 1_333_333_334, 1_666_666_667]),
        (Timing(BY_BITS, 7), [0, *(-(-480 * n * SECOND // 7) for n in range(1, 6))]),
        (Timing(AT_ONCE), [0] * 6),
    ],
)
def test_when_packets_are_due(timing: Timing, expected: list[int]) -> None:
    """In the first nanosecond that is not before the moment."""
    assert positions(timing, TIMES) == expected


def test_long_frames_take_longer() -> None:
    """At 8 Gbit/s, a byte a nanosecond: each frame waits for all bytes before it."""
    assert positions(Timing(BY_BITS, 8 * SECOND), [0] * 4, [60, 1514, 61, 60]) == [0, 60, 1574, 1635]


def test_times_that_go_back_and_gaps_that_are_too_long() -> None:
    """Both are counted; what follows is due after them as it was recorded."""
    plan = new_plan(Timing(max_gap=100), 60)
    assert go_on(plan, [1000, 900, 905, 2000]) == [0, 0, 5, 105]
    assert (plan.words[BACK], plan.words[SHORTENED]) == (1, 1)
    begin_again(plan)
    assert go_on(plan, [1000]) == [105]


@pytest.mark.parametrize("timing", [Timing(), Timing(BY_BITS, 7), Timing(speed=0.3)])
@given(cut=st.integers(0, 6))
def test_a_recording_may_come_in_parts(timing: Timing, cut: int) -> None:
    """Packets that are planned in two parts are due when they would be due in one."""
    sizes = [60, 1514, 61, 60, 999, 60]
    plan = new_plan(timing, 1514)
    found = go_on(plan, TIMES[:cut], sizes[:cut]) + go_on(plan, TIMES[cut:], sizes[cut:])
    assert found == positions(timing, TIMES, sizes)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=20), st.sampled_from([1.0, 1e-6, 1e6]))
def test_any_times(times: list[int], speed: float) -> None:
    """Whatever a file says, no packet is due before the one before it, and none beyond what a word can tell."""
    found = positions(Timing(speed=speed), times)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] <= 2**62 + len(times)
