"""Latency: from sending to receiving, at the throughput and at shares of it (RFC 2544, section 26.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ixy.apps.rfc2544.throughput import Found, Throughput, rates
from ixy.apps.tester import SHARES
from ixy.errors import ConfigurationError
from ixy.reporting.parts import Cell, Chart, Part, Table

if TYPE_CHECKING:
    from ixy.apps.rate import Rate
    from ixy.apps.rfc2544.trials import Attempt, Traffic, Trials
    from ixy.apps.tester import Delays, TrialResult

_MICROSECOND = 1000  # ns


class Latencies(NamedTuple):
    """The latencies with packets of one kind.

    Attributes:
        traffic: what was sent.
        found: the throughput, if it was looked for.
        attempts: by load, in hundredths of the throughput or of the rate that was given; none where there is none.
    """

    traffic: Traffic
    found: Found | None
    attempts: dict[int, Attempt]


@dataclass(frozen=True)
class Latency:
    """The test.

    Attributes:
        search: for the throughput.
        rate: instead of it; then nothing is looked for.
        loads: at which shares of it, in hundredths.
    """

    search: Throughput = field(default_factory=Throughput)
    rate: Rate | None = None
    loads: Sequence[int] = (100, 90, 50)

    name = "latency"
    title = "Latency"

    @property
    def trials(self) -> int:
        """How many there are with each kind of packets, about."""
        return len(self.loads) + (0 if self.rate else self.search.trials)

    @property
    def resolution(self) -> float:
        return self.search.resolution

    def check(self, traffic: Traffic) -> None:
        """
        Raises:
            ConfigurationError: the rate is more than the line takes, or a share of a line that has none.
        """
        pps = traffic.pps(self.rate) if self.rate else 0
        if traffic.line and pps > traffic.line:
            raise ConfigurationError(
                f"--rate {self.rate}: of the packets {traffic.name} the line takes {traffic.line} a second"
            )

    def measure(self, trials: Trials) -> Latencies:
        """Look for the throughput first."""
        found = None if self.rate else self.search.measure(trials)
        full = trials.traffic.pps(self.rate) if self.rate else found.rate if found else 0
        attempts = {load: trials.at_rate(max(full * load // 100, 1), f", {load} %") for load in self.loads if full}
        return Latencies(trials.traffic, found, attempts)

    def failed(self, found: Sequence[Latencies]) -> bool:
        """Whether there are packets that have no latency, as none arrived."""
        return any(not each.attempts or any(a.result.received == 0 for a in each.attempts.values()) for each in found)

    def parts(self, found: Sequence[Latencies]) -> Iterator[Part]:
        yield _summary(found)
        for load in self.loads:
            yield self._percentiles(load, [each for each in found if load in each.attempts])
        if throughputs := [each.found for each in found if each.found]:
            yield rates(throughputs, "Of which the loads are shares.")

    def _percentiles(self, load: int, found: Sequence[Latencies]) -> Table:
        of = "the rate that was given" if self.rate else "the throughput"
        latencies = [_microseconds(each.attempts[load].result.delays) for each in found]
        return Table(
            f"latency_{load}",
            f"Latency that so many of the packets do not exceed at {load} % of {of}, in µs",
            ["", *(each.traffic.name for each in found)],
            [[name, *(each[name] for each in latencies)] for name in ("min", *SHARES, "max")],
            _HOW,
            chart=Chart("µs", logarithmic=True) if found else None,
        )


_HOW = (
    "From the moment at which a packet is handed to the sending card until it is received, by this machine's clock, of "
    "each packet; a share of all is known within 1 %, least and most exactly. What the tester's own cards and polls "
    "take is part of it (RFC 2544, section 26.2; RFC 1242, section 3.8)."
)


def _summary(found: Sequence[Latencies]) -> Table:
    rows = [(each.traffic.name, load, attempt) for each in found for load, attempt in each.attempts.items()]
    return Table(
        "latency",
        "Latency and jitter, in µs",
        ["frame", "load, %", "Mpps", "min", "mean", "p99", "max", "jitter", "lost"],
        [[name, load, attempt.reached / 1e6, *_row(attempt.result), attempt.lost] for name, load, attempt in rows],
        f"{_HOW} Jitter: by how much the latency of a packet differs from that of the one before, a mean (RFC 3393).",
    )


def _row(result: TrialResult) -> list[Cell]:
    latencies = _microseconds(result.delays)
    return [*(latencies[name] for name in ("min", "mean", "p99", "max")), _microseconds(result.jitters)["mean"]]


def _microseconds(delays: Delays) -> dict[str, float | None]:
    """Of several packets, by name; None of none."""
    return {name: value / _MICROSECOND if delays.count else None for name, value in delays.as_dict().items()}
