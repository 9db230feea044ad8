"""When packets are due that say how long after each the next one is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ixy.pacing import FINE_PARTS, GIVEN_UP, catch_up, gaps_of, new_pace, next_due, pass_gap

START = 5_000_000_000  # ns
SECOND = 10**9


def moments(pace: np.ndarray, gaps: list[tuple[int, int]]) -> list[int]:
    """When the packets before these gaps are due, for who is never late."""
    catch_up(pace, START)
    found: list[int] = []
    for gap, part in gaps:
        found.append(int(next_due(pace)) - START)
        pass_gap(pace, gap, part)
    return found


@given(st.integers(1, SECOND), st.integers(1, 200))
@example(3, 7)
@example(14_880_952, 200)
@example(SECOND, 10)
def test_a_rate_has_no_rounding(rate: int, count: int) -> None:
    """Packet n is due in the first nanosecond that is not before n / rate."""
    pace = new_pace(rate, SECOND / rate)
    assert moments(pace, [divmod(SECOND, rate)] * count) == [-(-n * SECOND // rate) for n in range(count)]


def test_long_packets_take_longer() -> None:
    """At 3 Gbit/s, frames of 84 and 1538 bytes on the wire: each waits for all bits before it."""
    sizes = [84, 1538, 84, 84, 1538] * 20
    pace = new_pace(3 * SECOND, 224.0)
    gaps = [divmod(8 * size * SECOND, 3 * SECOND) for size in sizes]
    before = [sum(sizes[:n]) for n in range(len(sizes))]
    assert moments(pace, gaps) == [-(-8 * octets // 3) for octets in before]


def test_a_burst_goes_at_once_and_then_owes_its_gaps() -> None:
    """Bursts of 4 at 3 packets a second: 4 at once, the next 4 four thirds of a second later."""
    pace = new_pace(3, SECOND / 3, burst=4)
    expected = [-(-4 * (n // 4) * SECOND // 3) for n in range(12)]
    assert moments(pace, [divmod(SECOND, 3)] * 12) == expected


def test_a_stall_is_caught_up_within_a_bound() -> None:
    """An hour late at 1000 a second: 64 packets are due at once, the rest of the hour is given up, and told."""
    pace = new_pace(1000, 10**6)
    assert moments(pace, [(10**6, 0)]) == [0]
    resumed = START + 3600 * SECOND
    catch_up(pace, resumed)
    due = 0
    while next_due(pace) <= resumed:
        pass_gap(pace, 10**6, 0)
        due += 1
    assert due == 64
    assert pace[GIVEN_UP] == 3600 * SECOND - 63 * 10**6 - 10**6
    assert next_due(pace) == resumed + 10**6


def test_random_gaps_are_those_of_a_poisson_process() -> None:
    """100,000 gaps of 1000 ns on average: mean and standard deviation agree within 1.5 %, as many are above the mean as
    e says, neighbours are unrelated; and the same seed draws the same."""
    pace = new_pace(FINE_PARTS, 1000.0, seed=1)
    gaps = np.diff(moments(pace, [(1000, 0)] * 100_001))
    assert abs(gaps.mean() - 1000) < 15
    assert abs(gaps.std() - 1000) < 15
    assert abs((gaps > 1000).mean() - 0.36788) < 0.005
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.01
    assert moments(new_pace(FINE_PARTS, 1000.0, seed=1), [(1000, 0)] * 50) == [0, *np.cumsum(gaps[:49])]
    assert moments(new_pace(FINE_PARTS, 1000.0, seed=2), [(1000, 0)] * 3) != [0, *np.cumsum(gaps[:2])]


def test_gaps_of_packets() -> None:
    """A frame of 84 bytes takes 67.2 ns at 10 Gbit/s, which with parts of a fifth of a nanosecond is exact."""
    assert gaps_of([672, 0, 12_304], 10 * SECOND, 5).tolist() == [[67, 1], [0, 0], [1230, 2]]
    assert gaps_of([1], 3, 3).tolist() == [[333_333_333, 1]]


def test_random_gaps_keep_fractions() -> None:
    """At 14.88 million a second the mean gap is no whole number of nanoseconds; over many packets that shows."""
    mean = Fraction(672, 10)
    whole, rest = divmod(mean, 1)
    pace = new_pace(FINE_PARTS, float(mean), seed=3)
    last = moments(pace, [(int(whole), int(rest * FINE_PARTS))] * 200_001)[-1]
    assert abs(last / 200_000 / 67.2 - 1) < 0.01
