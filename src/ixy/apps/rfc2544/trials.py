"""Trials with packets of one kind, and what came of each."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from ixy.apps.rate import Rate
from ixy.apps.tester import Trial, TrialResult
from ixy.errors import ConfigurationError

# Called before a trial, with what it is, and after it, with what came of it
Before = Callable[[str], None]
After = Callable[["Attempt"], None]


class Traffic(NamedTuple):
    """The packets of a row of results.

    Attributes:
        name: of the row: the frames' size with their check sequence, or the name of a file of streams.
        bits: that a packet takes on the wire, on average.
        line_bits: a second, that the line takes, 0 if it has no rate.
    """

    name: str
    bits: float
    line_bits: int

    @property
    def line(self) -> int | None:
        """Packets a second that the line takes in each direction, None if it has no rate."""
        return int(self.line_bits / self.bits) or None

    def pps(self, rate: Rate) -> int:
        """A rate in packets a second.

        Raises:
            ConfigurationError: it is a share of a line that has no rate.
        """
        if rate.unit == "pps":
            return int(rate.amount)
        if rate.unit == "%" and not self.line_bits:
            raise ConfigurationError(f"the line has no rate of which {rate} could be: say so many pps or Mbps")
        return int(float(rate.amount) * (self.line_bits / 100 if rate.unit == "%" else 1) / self.bits)


class Attempt(NamedTuple):
    """What came of a trial.

    Attributes:
        traffic: what was sent.
        asked: packets a second in each direction, or packets of a burst in each; None for as many as can be.
        reached: what was offered of that. What is missing is the tester's fault, and no loss.
        result: what was counted.
        is_burst: which of the two it is.
    """

    traffic: Traffic
    asked: int | None
    reached: int
    result: TrialResult
    is_burst: bool = False

    @property
    def lost(self) -> int:
        """Packets that did not arrive as they were sent: one with a wrong bit was not forwarded (section 10)."""
        return self.result.lost + self.result.total("corrupted")

    @property
    def loss(self) -> float:
        """Their share."""
        return self.lost / self.result.sent if self.result.sent else 0.0

    @property
    def short(self) -> bool:
        """Whether less was offered than was asked for."""
        return self.asked is not None and self.reached < self.asked

    def as_dict(self) -> dict[str, Any]:
        """For programs: packets, packets a second, and nanoseconds."""
        result, unit = self.result, "packets" if self.is_burst else "pps"
        counts = {name: result.total(name) for name in ("sent", "received", "duplicated", "reordered", "corrupted")}
        return {
            "frame": self.traffic.name,
            "asked": self.asked,
            "offered": self.reached,
            "unit": unit,
            "seconds": round(result.seconds, 6),
            **counts,
            "lost": self.lost,
            "loss": self.loss,
            "latency_ns": result.delays.as_dict(),
        }

    def __str__(self) -> str:
        unit = "packets at once" if self.is_burst else "pps"
        asked = f" of {self.asked}" if self.short else ""
        lost = f"{self.lost} lost ({100 * self.loss:.4g} %)" if self.lost else "none lost"
        return f"{self.traffic.name:>5}: {self.reached}{asked} {unit}, {self.result.sent} sent, {lost}"


class Trials:
    """Trials with packets of one kind.

    Args:
        run: makes a trial.
        traffic: what it sends.
        ways: in how many directions.
        seconds: that a trial at a rate takes.
        resolution: share of a rate; what is offered within it is as good as asked for.
        before, after: told of each trial.
    """

    def __init__(
        self,
        run: Callable[[Trial], TrialResult],
        traffic: Traffic,
        *,
        ways: int,
        seconds: float,
        resolution: float,
        before: Before = lambda _: None,
        after: After = lambda _: None,
    ) -> None:
        self.traffic = traffic
        self._ways, self._seconds = ways, seconds
        self._run = run
        self._resolution = resolution
        self._before, self._after = before, after

    @property
    def line(self) -> int | None:
        """Packets a second that the line takes in each direction, None if it has no rate."""
        return self.traffic.line

    def at_rate(self, rate: int | None, why: str = "") -> Attempt:
        """A trial with so many packets a second in each direction, None for as many as can be.

        A rate that was not reached is tried once more: something may have come between.

        Args:
            why: said before it.
        """
        attempt = self._at_rate(rate, why)
        return self._at_rate(rate, f"{why}, once more") if attempt.short else attempt

    def _at_rate(self, rate: int | None, why: str) -> Attempt:
        self._before(f"{'as many as can be' if rate is None else f'{rate} pps'}{why}")
        result = self._run(Trial(None if rate is None else Rate(Decimal(rate)), self._seconds))
        offered = round(min(result.rates.values()))
        if rate is not None and (result.behind == 0 or offered >= rate * (1 - self._resolution)):
            offered = rate
        return self._done(Attempt(self.traffic, rate, offered, result))

    def longest(self) -> Attempt:
        """A trial with a burst of as many packets as can be sent in the time of a trial."""
        self._before("packets at once, as many as can be")
        result = self._run(Trial(None, self._seconds))
        return self._done(Attempt(self.traffic, None, result.sent // self._ways, result, is_burst=True))

    def burst(self, count: int, why: str = "") -> Attempt:
        """A trial with so many packets in each direction, one right behind the other."""
        self._before(f"{count} packets at once{why}")
        return self._done(Attempt(self.traffic, count, count, self._run(Trial(None, None, count)), True))

    def _done(self, attempt: Attempt) -> Attempt:
        self._after(attempt)
        return attempt
