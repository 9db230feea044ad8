"""When packets are due that go at a rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ixy.pacing import due

START = 5_000_000_000  # ns: when the clock is first looked at
SECOND = 10**9


def started(rate: int) -> np.ndarray:
    """A schedule that began at START."""
    schedule = np.zeros(1, np.int64)
    assert due(schedule, 0, rate, 0, START) == 1  # the first packet is due at once
    return schedule


@given(st.integers(1, SECOND), st.integers(1, 10**6))
@example(1, 1)
@example(3, 1)
@example(3, 3)
@example(SECOND, 7)
@example(999_999_999, 999_999)
def test_each_packet_has_its_nanosecond(rate: int, number: int) -> None:
    """Packet n is due n / rate after the first: not a nanosecond earlier, and not one later than the first that can."""
    moment = START + -(-number * SECOND // rate)
    schedule = started(rate)
    assert due(schedule, 0, rate, number, moment - 1) == (1 if (moment - 1 - START) * rate // SECOND >= number else 0)
    assert due(schedule, 0, rate, number, moment) >= 1
    assert due(schedule, 0, rate, number + 1, moment) == ((moment - START) * rate // SECOND - number)


def test_count_by_the_second() -> None:
    """At 10 a second: the first at once, then one each 100 ms; none twice."""
    schedule = started(10)
    assert [due(schedule, 0, 10, 0, START + ms * 10**6) for ms in (99, 100, 199, 200, 1000)] == [1, 2, 2, 3, 11]
    assert due(schedule, 0, 10, 11, START + SECOND) == 0


@pytest.mark.parametrize(("rate", "most"), [(1, 64), (1000, 64), (64_000, 64), (100_000, 100), (10**9, 10**6)])
def test_a_stall_is_caught_up_within_a_bound(rate: int, most: int) -> None:
    """An hour later at most 64 packets, or those of a millisecond, go at once; then the rate holds from there on."""
    schedule, resumed = started(rate), START + 3600 * SECOND
    number = due(schedule, 0, rate, 1, resumed)
    assert number == min(most, 3600 * rate)
    sent = 1 + number
    assert due(schedule, 0, rate, sent, resumed) == 0
    # A millisecond, or the time of five packets, further on: just what the rate gives, give or take the one that is due
    later = resumed + max(SECOND // 1000, 5 * SECOND // rate)
    expected = (later - resumed) * rate // SECOND
    assert expected <= due(schedule, 0, rate, sent, later) <= expected + 1


def test_up_to_the_bound_nothing_is_given_up() -> None:
    """64 late packets are all sent, and the schedule is the same as before."""
    schedule = started(1000)
    before = schedule.copy()
    assert due(schedule, 0, 1000, 1, START + 64 * 10**6) == 64
    assert (schedule == before).all()
    assert due(schedule, 0, 1000, 1, START + 65 * 10**6) == 64
    assert (schedule > before).all()


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_any_rate_and_clock(rate: int, sent: int, now: int) -> None:
    """However large the numbers, what is due is between nothing and the bound."""
    schedule = np.ones(1, np.int64)
    assert 0 <= due(schedule, 0, rate, sent, now) <= max(64, 10**6)
