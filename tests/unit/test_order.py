"""The judge of order, beside a plain model of RFC 4737, for arrivals in any order, with loss and copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.tables import order
from ixy.tables.order import AGAIN, OUT_OF_REACH, WINDOW


class Judged(NamedTuple):
    kinds: list[int]
    next: int
    missing: int
    duplicated: int
    reordered: int
    too_late: int


def judged(numbers: Sequence[int]) -> Judged:
    """By the kernel; its words and window lie among others."""
    words, window = np.zeros(order.ORDER_WORDS + 9, np.int64), np.zeros(WINDOW + 9, np.int64)
    kinds = [int(order.arrive(words, 5, window, 4, number)) for number in numbers]
    assert not words[:5].any()
    assert not words[5 + order.ORDER_WORDS :].any()
    assert not window[:4].any()
    assert not window[4 + WINDOW :].any()
    row = words[5:].tolist()
    columns = (order.NEXT, order.MISSING, order.DUPLICATED, order.REORDERED, order.TOO_LATE)
    return Judged(kinds, *(row[column] for column in columns))


def by_definition(numbers: Sequence[int]) -> Judged:
    """RFC 4737: of packets without copies, in order of arrival, number i is reordered if it is below NextExp (3.3), and
    its extent is i - j for the smallest j with a higher number (4.2.2)."""
    arrived, kinds = list[int](), list[int]()
    expected = duplicated = reordered = too_late = 0
    for number in numbers:
        if number < expected - WINDOW:
            too_late += 1
            kinds.append(OUT_OF_REACH)
        elif number in arrived:
            duplicated += 1
            kinds.append(AGAIN)
        else:
            first = next((j for j, other in enumerate(arrived) if other > number), None)
            kinds.append(0 if first is None else len(arrived) - first)
            reordered += first is not None
            arrived.append(number)
            expected = max(expected, number + 1)
    return Judged(kinds, expected, expected - len(arrived), duplicated, reordered, too_late)


@pytest.mark.parametrize(
    ("numbers", "kinds"),
    [
        ([0, 1, 2, 3], [0, 0, 0, 0]),
        ([0, 1, 3, 4, 2], [0, 0, 0, 0, 2]),
        ([2, 1, 0], [0, 1, 2]),
        # RFC 4737, appendix of examples: 1, 2, 3, 7, 8, 9, 10, 4, 5, 6 and one early packet
        ([1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11], [0, 0, 0, 0, 0, 0, 0, 4, 5, 6, 0]),
        ([1, 2, 3, 5, 6, 7, 8, 9, 10, 4, 11], [0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0]),
        ([5, 5, 0, 0], [0, AGAIN, 1, AGAIN]),
    ],
)
def test_sequences_written_down(numbers: list[int], kinds: list[int]) -> None:
    assert judged(numbers).kinds == kinds


@given(st.lists(st.integers(0, 40), max_size=60))
def test_any_sequence(numbers: list[int]) -> None:
    assert judged(numbers) == by_definition(numbers)


@given(st.lists(st.tuples(st.integers(-8, 8), st.sampled_from([0, 0, 0, WINDOW - 1, WINDOW, WINDOW + 1])), max_size=40))
def test_across_the_window(steps: list[tuple[int, int]]) -> None:
    """Numbers that leap ahead about as far as the window reaches, and fall back as far."""
    numbers, at = list[int](), 0
    for step, leap in steps:
        at = max(at + leap + step, 0)
        numbers += [at, max(at - leap, 0)]
    assert judged(numbers) == by_definition(numbers)


def test_a_whole_window_missing_and_then_in_order() -> None:
    """Places of the window are taken again by later numbers: what they said of earlier ones is forgotten."""
    numbers = [0, WINDOW, *range(WINDOW + 1, WINDOW + 200), 150, 250, 1, WINDOW + 150]
    found = judged(numbers)
    assert found.kinds[-4:] == [OUT_OF_REACH, 200, OUT_OF_REACH, AGAIN]
    assert (found.missing, found.too_late) == (WINDOW - 2, 2)


def test_a_number_from_nowhere() -> None:
    """One far ahead ends no loop late, and one below 0 is out of reach."""
    assert judged([1 << 47, 0, -1]).kinds == [0, OUT_OF_REACH, OUT_OF_REACH]
    assert judged([-1, 0]).kinds == [OUT_OF_REACH, 0]
