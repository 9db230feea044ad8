"""Throughput: the highest rate at which no packet is lost (RFC 2544, section 26.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ixy.apps.rfc2544.search import Highest, highest
from ixy.reporting.parts import Cell, Chart, Part, Table

if TYPE_CHECKING:
    from ixy.apps.rfc2544.trials import Attempt, Traffic, Trials

NAME = "throughput"


class Found(NamedTuple):
    """The throughput with packets of one kind.

    Attributes:
        traffic: what was sent.
        highest: the rate, and what keeps it from being higher.
    """

    traffic: Traffic
    highest: Highest

    @property
    def attempt(self) -> Attempt | None:
        """The trial that shows it, None if there was loss at any rate."""
        return self.highest.attempt

    @property
    def rate(self) -> int:
        """Packets a second in each direction."""
        return self.attempt.reached if self.attempt else 0

    @property
    def limit(self) -> str:
        """What keeps it from being higher."""
        if self.highest.lossy:
            return "loss above it" if self.attempt else "loss at any rate"
        line = self.traffic.line
        return "the line" if line is not None and self.rate >= line else "the tester"


@dataclass(frozen=True)
class Throughput:
    """The test.

    Attributes:
        resolution: the result may be so much too low, as a share of the highest rate that was tried, and so much less
            may be offered than was asked for.
        tolerance: share of packets that may be lost; the RFC has none.
    """

    resolution: float = 0.001
    tolerance: float = 0.0

    name = NAME
    title = "Throughput"

    @property
    def trials(self) -> int:
        """How many there are with each kind of packets, about."""
        return 1 + math.ceil(math.log2(1 / self.resolution))

    def check(self, traffic: Traffic) -> None:
        """All can be tried with any packets."""

    def measure(self, trials: Trials) -> Found:
        """Begin at the rate of the line, or at as much as can be sent if it has none."""
        first = trials.at_rate(trials.line)
        grain = round(self.resolution * first.reached)
        return Found(trials.traffic, highest(trials.at_rate, first, lambda _: grain, self.tolerance))

    def failed(self, found: Sequence[Found]) -> bool:
        """Whether there is something without a throughput."""
        return any(each.attempt is None for each in found)

    def parts(self, found: Sequence[Found]) -> Iterator[Part]:
        yield rates(found, self._how())

    def _how(self) -> str:
        lost = f"no more than {100 * self.tolerance:g} % of the packets" if self.tolerance else "no packet"
        return (
            f"The highest rate in each direction at which {lost} was lost, found by halving, to "
            f"{100 * self.resolution:g} % of the first rate that was tried (RFC 2544, section 26.1). Limited by the "
            "tester: more could not be offered, and the device may do better."
        )


def rates(found: Sequence[Found], how: str) -> Table:
    """The throughput with each kind of packets, beside what the line takes."""
    return Table(
        NAME,
        "Throughput",
        ["frame", "Mpps", "line, Mpps", "pps", "line, %", "limited by"],
        [[each.traffic.name, each.rate / 1e6, *_beside(each), each.limit] for each in found],
        how,
        chart=Chart("Mpps", curves=("Mpps", "line, Mpps")),
    )


def _beside(found: Found) -> list[Cell]:
    line = found.traffic.line
    return [line / 1e6 if line else None, found.rate, 100 * found.rate / line if line else None]
