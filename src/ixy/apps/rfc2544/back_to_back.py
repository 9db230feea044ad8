"""Back-to-back frames: the longest burst of which no packet is lost (RFC 2544, section 26.4)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ixy.apps.rfc2544.search import Highest, highest
from ixy.reporting.parts import Chart, Part, Table

if TYPE_CHECKING:
    from ixy.apps.rfc2544.trials import Traffic, Trials


class Bursts(NamedTuple):
    """The longest bursts of packets of one kind.

    Attributes:
        traffic: what was sent.
        rate: packets a second of the longest one that was tried.
        found: the longest without loss, once for each repetition.
    """

    traffic: Traffic
    rate: int
    found: Sequence[Highest]

    @property
    def lengths(self) -> list[int]:
        """Packets in each direction."""
        return [each.attempt.reached if each.attempt else 0 for each in self.found]

    @property
    def limit(self) -> str:
        """What keeps them from being longer."""
        return "loss above it" if any(each.lossy for each in self.found) else "the trial's time"


@dataclass(frozen=True)
class BackToBack:
    """The test.

    Attributes:
        resolution: the result may be so much too low, as a share of it, or by a packet.
        repeat: how often the search is made.
    """

    resolution: float = 0.001
    repeat: int = 3

    name = "back-to-back"
    title = "Back-to-back frames"

    @property
    def trials(self) -> int:
        """How many there are with each kind of packets, about: a search goes from a million packets to one."""
        return 1 + self.repeat * math.ceil(math.log2(1e6))

    def check(self, traffic: Traffic) -> None:
        """Bursts can be of any packets."""

    def measure(self, trials: Trials) -> Bursts:
        """Begin with as many packets as can be sent in the time of a trial."""
        first = trials.longest()
        found = [highest(trials.burst, first, self._grain) for _ in range(self.repeat)]
        return Bursts(trials.traffic, round(min(first.result.rates.values())), found)

    def _grain(self, count: int) -> int:
        return round(self.resolution * count)

    def failed(self, found: Sequence[Bursts]) -> bool:
        """Whether there are packets of which not even one arrives."""
        return any(max(each.lengths) == 0 for each in found)

    def parts(self, found: Sequence[Bursts]) -> Iterator[Part]:
        yield Table(
            "back_to_back",
            "Longest burst without loss, in packets",
            ["frame", "packets", "least", "most", "ms", "Mpps within", "limited by"],
            [
                [
                    each.traffic.name,
                    round(statistics.mean(each.lengths)),
                    min(each.lengths),
                    max(each.lengths),
                    1e3 * statistics.mean(each.lengths) / each.rate if each.rate else None,
                    each.rate / 1e6,
                    each.limit,
                ]
                for each in found
            ],
            f"The mean of {self.repeat} searches, each of which ends to {100 * self.resolution:g} % or a packet (RFC "
            "2544, section 26.4, which has 50 searches). Packets follow each other as closely as the tester can send "
            "them: where that is less than the line takes, the device may have less room than it seems.",
            chart=Chart("packets"),
        )
