"""Make a test with each kind of packets, and report."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from ixy.apps.rate import line_rate
from ixy.apps.rfc2544.trials import Attempt, Traffic, Trials
from ixy.apps.session import confine, open_devices
from ixy.apps.signals import stop_on_signals
from ixy.apps.tester import Tester, Trial, TrialResult, mean_bits
from ixy.clock import monotonic
from ixy.errors import Error
from ixy.reporting import picture, terminal
from ixy.reporting.environment import date, describe, our_version
from ixy.reporting.parts import Part, Table
from ixy.reporting.progress import Told, progress
from ixy.reporting.report import Chapter, Report

if TYPE_CHECKING:
    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.apps.streams import Stream
    from ixy.device import Device

log = logging.getLogger("ixy.apps")

NOTHING_FOUND = 1  # exit code
_GREETING = Trial(None, None, 16)  # it shows whether there is a way, and who has to ask for addresses does
_OFTEN = 1.0  # seconds between two looks at a trial: each takes some of its time
_INTRODUCTION = (
    "A test of RFC 2544, *Benchmarking Methodology for Network Interconnect Devices*, by `ixy test {name}`. Sizes of "
    "frames are the RFC's, with the frame check sequence of 4 bytes, which the sizes of other commands are without. "
    "Rates, counts and bursts are those of one direction; losses are of {ways}. Packets that arrived with a wrong bit "
    "count as lost."
)


class Test(Protocol):
    """A test of RFC 2544.

    Attributes:
        name: as the command has it.
        title: as the report has it.
        resolution: share of a rate; what is offered within it is as good as asked for.
        trials: how many there are with each kind of packets, about.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def resolution(self) -> float: ...
    @property
    def trials(self) -> int: ...

    def check(self, traffic: Traffic) -> None:
        """
        Raises:
            ConfigurationError: the test cannot be made with these packets.
        """
        ...

    def measure(self, trials: Trials) -> Any:
        """Make the test with packets of one kind; what it found."""
        ...

    def failed(self, found: Sequence[Any]) -> bool:
        """Whether something was not to be found, so that the command has failed."""
        ...

    def parts(self, found: Sequence[Any]) -> Iterator[Part]:
        """What was found with all kinds; the table of results comes first."""
        ...


@dataclass(frozen=True)
class Conditions:
    """Under which trials are made.

    Attributes:
        seconds: that a trial takes; 60 by the RFC (section 24).
        settle: seconds for what lies between to learn before each, and to wait for packets after it; 2 by the RFC both,
            and 5 more before the next trial (section 23).
        both_ways: packets go in both directions at once.
        routed: what is between the ports changes headers, as a router does.
    """

    seconds: float = 2.0
    settle: float = 0.2
    both_ways: bool = False
    routed: bool = False


def run(
    test: Test,
    kinds: Mapping[str, Sequence[Stream]],
    addresses: Sequence[str],
    settings: Settings,
    conditions: Conditions,
    output: Path | None = None,
) -> int:
    """Make a test with each kind of packets, and report; the exit code.

    Args:
        kinds: streams, by the name of their row.
        addresses: of two devices; what is between them is tested.
        settings: with a limit, so that a signal ends the test before it.
        output: a directory for the report's files.

    Raises:
        ConfigurationError: the test cannot be made with some of the packets, which is found out before any is sent.
        Error: as `ixy.open` and `Tester`; the report cannot be written, which is found out before anything is measured;
            nothing that is sent arrives.
    """
    if output and (reason := picture.why_not()):
        log.warning("%s", reason)
    with stop_on_signals() as stop, open_devices(addresses, settings) as devices:
        line = min(map(line_rate, devices))
        traffics = {name: Traffic(name, mean_bits(streams), line) for name, streams in kinds.items()}
        for traffic in traffics.values():
            test.check(traffic)
        with _Session(test, devices, conditions, settings, output, stop) as session:
            testers = {name: session.tester(streams) for name, streams in kinds.items()}
            session.confine(settings, addresses)
            expected = test.trials * (conditions.seconds + 2 * conditions.settle)
            with progress(dict.fromkeys(kinds, expected), quiet=settings.as_json) as begin, stop.looked_at():
                for name, tester in testers.items():
                    session.measure(traffics[name], tester, begin(name))
        return stop.exit_code(settings) or (NOTHING_FOUND if test.failed(session.found) else 0)


class _Session:
    """A test that is being made. Leaving its `with` block reports what was measured until then.

    Attributes:
        found: with each kind of packets, so far.
    """

    def __init__(
        self,
        test: Test,
        devices: Sequence[Device],
        conditions: Conditions,
        settings: Settings,
        output: Path | None,
        stop: Stop,
    ) -> None:
        self.found: list[Any] = []
        self._attempts: list[Attempt] = []
        self._confined: dict[str, Any] = {}
        self._test, self._devices, self._conditions = test, devices, conditions
        self._batch, self._link_timeout, self._as_json = settings.batch, settings.link_timeout, settings.as_json
        self._output, self._stop = output, stop

    def __enter__(self) -> _Session:
        self._write()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        stopped = isinstance(error, _Stopped)
        if error is None or stopped or self._attempts:
            self._finish()
        return stopped

    def tester(self, streams: Sequence[Stream]) -> Tester:
        """What makes trials with packets of one kind, compiled.

        Raises:
            Error: as `Tester`.
        """
        conditions = self._conditions
        tester = Tester(
            self._devices,
            streams,
            batch=self._batch,
            both_ways=conditions.both_ways,
            routed=conditions.routed,
            settle=conditions.settle,
        )
        tester.prepare()
        return tester

    def confine(self, settings: Settings, addresses: Sequence[str]) -> None:
        """Give privileges up; files are still made for the report."""
        confined = confine(settings, addresses, [str(self._output)] if self._output else [])
        if confined is not None:
            self._confined = {"sandbox": confined.as_dict()}
            if not self._as_json:
                print(confined, flush=True)

    def measure(self, traffic: Traffic, tester: Tester, told: Told) -> None:
        """Make the test with packets of one kind.

        Raises:
            Error: nothing arrives, or as `Tester`.
            _Stopped: a signal ended it.
        """
        conditions = self._conditions
        watched = _Watched(tester, self._test.trials, conditions.seconds, told, self._stop)
        self._greet(watched)

        def after(attempt: Attempt) -> None:
            watched.done += 1
            self._attempts.append(attempt)
            self._say(attempt)

        trials = Trials(
            watched.run,
            traffic,
            ways=2 if conditions.both_ways else 1,
            seconds=conditions.seconds,
            resolution=self._test.resolution,
            before=watched.before,
            after=after,
        )
        self.found.append(self._test.measure(trials))
        with suppress(Error):  # a full disk is said at the end, and until then may have room again
            self._write()

    def _greet(self, watched: _Watched) -> None:
        """Send some packets until one arrives, for as long as a link is waited for: what lies between may be slow to
        start.

        Raises:
            Error: none does.
        """
        watched.before("is there a way?")
        deadline = monotonic() + self._link_timeout
        while watched.run(_GREETING).received == 0:
            if monotonic() >= deadline:
                a, b = (device.address for device in self._devices)
                raise Error(f"no packet comes from {a} to {b}: is what lies between them up, and does it forward?")

    def _say(self, attempt: Attempt) -> None:
        """Print what came of a trial; on a terminal a bar is enough."""
        if self._as_json:
            print(json.dumps({"type": "trial", "test": self._test.name, **attempt.as_dict()}), flush=True)
        elif log.isEnabledFor(logging.INFO) or not sys.stdout.isatty():
            print(attempt, flush=True)

    def _finish(self) -> None:
        """Print the results, and write the files, which may fail."""
        parts = list(self._test.parts(self.found))
        if self._as_json:
            results = [row for part in parts[:1] if isinstance(part, Table) for row in self._report().objects(part)]
            summary = {"type": "summary", "test": self._test.name, "stopped": bool(self._stop), "results": results}
            print(json.dumps(summary | self._confined), flush=True)
        else:
            _show(parts)
        files = self._write()
        if files and not self._as_json:
            print(f"written: {files[-1]}, {files[-2]}, and {len(files) - 2} tables and plots in {files[0].parent}")

    def _write(self) -> list[Path]:
        """Write the report's files, if they are wanted; which ones."""
        return self._report().write(self._output, pictures=True) if self._output else []

    def _report(self) -> Report:
        conditions = self._conditions
        a, b = self._devices
        introduction = _INTRODUCTION.format(
            name=self._test.name, ways="both directions together" if conditions.both_ways else "this direction"
        )
        facts = {
            "tested": f"what lies between {a.address} and {b.address}",
            "directions": "both at once" if conditions.both_ways else f"from {a.address} to {b.address}",
            "line": " and ".join(f"{rate / 1e9:g} Gbit/s" if rate else "no rate" for rate in map(line_rate, (a, b))),
            "trials": f"{conditions.seconds:g} s each, {conditions.settle:g} s before to learn addresses, and as much "
            "after for late packets; RFC: 60, 2, and 7 s",
            "machine": describe(),
            "ixy": our_version(),
            "date": date(),
        }
        chapters = [Chapter(self._test.title, list(self._test.parts(self.found))), Chapter("Trials", [self._trials()])]
        return Report(self._test.name, f"{self._test.title}, RFC 2544", introduction, facts, chapters)

    def _trials(self) -> Table:
        """All trials, in their order."""
        entries = [attempt.as_dict() for attempt in self._attempts]
        latencies = [entry.pop("latency_ns") for entry in entries]
        names = ("p50", "p99", "max")
        return Table(
            "trials",
            "All trials",
            [*(entries[0] if entries else ()), *(f"{name}, µs" for name in names)],
            [
                [*entry.values(), *(taken[name] / 1000 for name in names)]
                for entry, taken in zip(entries, latencies, strict=True)
            ],
            "In their order. Asked, and offered: packets a second, or packets of a burst, in each direction.",
        )


class _Watched:
    """Trials of which a user sees how far they are.

    Attributes:
        done: trials, so far.
    """

    def __init__(self, tester: Tester, expected: int, seconds: float, told: Told, stop: Stop) -> None:
        self.done = 0
        self._tester, self._stop, self._told = tester, stop, told
        self._expected, self._seconds = expected, seconds
        self._what = ""

    def before(self, what: str) -> None:
        """Say what comes next."""
        self._what = f"trial {self.done + 1}: {what}"
        self._told(self._share(0.0), self._what)

    def run(self, trial: Trial) -> TrialResult:
        """Make a trial.

        Raises:
            _Stopped: a signal ended it: it tells nothing.
        """
        began = last = monotonic()

        def tick(now: float) -> None:
            nonlocal last
            if now - last >= _OFTEN:
                last = now
                self._told(self._share((now - began) / self._seconds), self._what)

        self._tester.learn(self._stop)
        result = self._tester.run(trial, tick, self._stop)
        if self._stop:
            raise _Stopped
        return result

    def _share(self, part: float) -> float:
        return min((self.done + min(part, 1.0)) / self._expected, 1.0)


class _Stopped(Exception):
    """A signal has asked to end."""


def _show(parts: Sequence[Part]) -> None:
    """Tables and curves, on the terminal."""
    console = Console()
    for part in parts:
        if isinstance(part, Table) and part.rows:
            console.print(part.title, highlight=False)
            console.print(terminal.grid(part))
            if part.chart:
                console.print(terminal.plot(part))
