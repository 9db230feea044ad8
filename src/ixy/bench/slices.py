"""Rates of programs that run, by short slices of time: those count in which they had their cores.

The kernel tells how long threads have run, and how long they have waited for a core (schedstat), the latter once a wait
is over. A program stood still if it did wait and ran for less than the slice. One whose threads wait for each other
runs all the time, and one that waits for packets waits for no core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

SLICE = 0.05  # seconds
_STILL = 0.02  # of a slice: for so long a program may stand still


class Sample(NamedTuple):
    """What was read at a moment.

    Attributes:
        at: the moment, ns.
        packets: how many were counted.
        schedules: of each program, how long it has run and waited, ns.
    """

    at: int
    packets: int
    schedules: list[tuple[int, int]]


class Rates(NamedTuple):
    """Packets per second.

    Attributes:
        rate: in the slices in which no program stood still, or in all if there are none.
        calm: how many of those there were,
        slices: and how many in all.
    """

    rate: float
    calm: int
    slices: int


def rates(counter: Callable[[], int], threads: Sequence[str], seconds: float) -> Rates:
    """Look at a counter of packets for so long.

    Args:
        threads: of each program, as a pattern below /proc: PID/task/*.
    """
    programs = [[path / "schedstat" for path in Path("/proc").glob(pattern)] for pattern in threads]
    samples = [_sample(counter, programs)]
    for number in range(max(round(seconds / SLICE), 1) + 1):  # one more: what has waited in the last, it tells
        due = samples[0].at / 1e9 + (number + 1) * SLICE
        time.sleep(max(due - time.monotonic(), 0))
        samples.append(_sample(counter, programs))
    *pairs, _ = pairwise(samples)
    disturbed = [span for pair in pairwise(samples) for span in _waits(*pair)]
    calm = [(a, b) for a, b in pairs if not any(begun < b.at and a.at < ended for begun, ended in disturbed)]
    return Rates(_rate_of(calm or pairs), len(calm), len(pairs))


def _sample(counter: Callable[[], int], programs: Sequence[Sequence[Path]]) -> Sample:
    return Sample(time.monotonic_ns(), counter(), [_schedule(threads) for threads in programs])


def _schedule(threads: Sequence[Path]) -> tuple[int, int]:
    """How long threads have run, and waited for a core. A kernel that does not tell says 0."""
    run = waited = 0
    for path in threads:
        try:
            words = path.read_text().split()
        except OSError:
            continue  # the thread has just ended
        run, waited = run + int(words[0]), waited + int(words[1])
    return run, waited


def _rate_of(pairs: Sequence[tuple[Sample, Sample]]) -> float:
    """How far the count has moved in slices, in a second."""
    return sum(b.packets - a.packets for a, b in pairs) / sum(b.at - a.at for a, b in pairs) * 1e9


def _waits(before: Sample, after: Sample) -> Iterator[tuple[int, int]]:
    """From when to when programs may have stood still: a wait that is told of now can have begun long ago."""
    passed = after.at - before.at
    for old, new in zip(before.schedules, after.schedules, strict=True):
        run, waited = new[0] - old[0], new[1] - old[1]
        if min(passed - run, waited) > _STILL * passed:
            yield before.at - waited, after.at
