"""Frame loss rate: what share of the packets is lost at which load (RFC 2544, section 26.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ixy.reporting.parts import Cell, Chart, Part, Table

if TYPE_CHECKING:
    from ixy.apps.rfc2544.trials import Attempt, Traffic, Trials


class Losses(NamedTuple):
    """The loss with packets of one kind.

    Attributes:
        traffic: what was sent.
        attempts: by load, in hundredths of the highest rate.
    """

    traffic: Traffic
    attempts: dict[int, Attempt]

    def at(self, load: int) -> Cell:
        """The share that was lost at a load, in hundredths; None if there was no trial, or less was offered."""
        attempt = self.attempts.get(load)
        return None if attempt is None or attempt.short else 100 * attempt.loss


@dataclass(frozen=True)
class FrameLoss:
    """The test.

    Attributes:
        resolution: so much less may be offered than was asked for, as a share of it.
        step: from one load to the next, in hundredths of the highest rate; 10 at most, by the RFC.
    """

    resolution: float = 0.001
    step: int = 10

    name = "frame-loss"
    title = "Frame loss rate"

    @property
    def trials(self) -> int:
        """How many there are with each kind of packets, at most."""
        return len(self._loads)

    @property
    def _loads(self) -> range:
        return range(100, 0, -self.step)

    def check(self, traffic: Traffic) -> None:
        """All loads can be tried with any packets."""

    def measure(self, trials: Trials) -> Losses:
        """Begin at the rate of the line, or at as much as can be sent if it has none, and end when two trials in a row
        lose nothing."""
        attempts = {100: trials.at_rate(trials.line, ", 100 % load")}
        top = trials.line or attempts[100].reached
        lossless = attempts[100].lost == 0
        for load in self._loads[1:]:
            attempts[load] = trials.at_rate(max(top * load // 100, 1), f", {load} % load")
            if lossless and attempts[load].lost == 0:
                break
            lossless = attempts[load].lost == 0
        return Losses(trials.traffic, attempts)

    def failed(self, found: Sequence[Losses]) -> bool:
        """A loss is a result."""
        del found
        return False

    def parts(self, found: Sequence[Losses]) -> Iterator[Part]:
        loads = sorted({load for each in found for load in each.attempts}, reverse=True)
        yield Table(
            "frame_loss",
            "Frame loss rate, in % of the packets",
            ["load, %", *(each.traffic.name for each in found)],
            [[load, *(each.at(load) for each in found)] for load in loads],
            "What was lost of the packets that were sent, by size and load, in hundredths of the line's rate, or of as "
            "much as could be sent if it has none; down to two trials in a row without loss (RFC 2544, section 26.3). "
            "A load that could not be offered has no figure.",
            chart=Chart("% lost"),
        )
