"""`ixy demo`: a generator, the forwarder and a sink that checks, on two simulated cards."""

from __future__ import annotations

import time

from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import Limits, Opening, open_devices, repeat, stop_on_signals
from ixy.bus.simulated import machine
from ixy.path import touch
from ixy.sim.machine import SinkReport

_GENERATOR, _SINK = "demo-a", "demo-b"
_TOUCHED = 48  # the byte that `touch` raises by one
_PATIENCE = 5.0  # seconds without any progress


class _Passage:
    """Watches the packets from the generator to the sink."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._last = self.report()
        self._moved = time.monotonic()

    def report(self) -> SinkReport:
        return machine().sink_report(_GENERATOR, _SINK)

    def done(self) -> bool:
        """All packets have passed, or none has for so long that none will."""
        report, now = self.report(), time.monotonic()
        if report != self._last:
            self._last, self._moved = report, now
        return report.received >= self._count or now - self._moved > _PATIENCE


def demo(opening: Opening, *, count: int, size: int, batch: int, as_json: bool) -> int:
    """Send `count` packets of `size` bytes through the forwarder and check each one.

    Returns:
        0 if packets flowed and every one that arrived was complete, in order, and changed just so; else 1, or the code
        of the signal that stopped it.

    Raises:
        Error: as `ixy.open` and `ixy.Path`.
    """
    addresses = [f"sim:{_GENERATOR},gen={size},count={count}", f"sim:{_SINK},sink={_GENERATOR},touch={_TOUCHED}"]
    with stop_on_signals() as stop, open_devices(addresses, opening, stop) as (source, target):
        relay = Relay([(source, target)], touch, batch)
        with Report([source, target], [], as_json=as_json) as report:
            passage = _Passage(count)
            repeat(relay.run, passage.done, Limits(count), stop, report)
            relay.drain()
            report.results = found = verdict(passage.report())
    return stop.exit_code(Limits(count)) or int(not found["ok"])


def verdict(report: SinkReport) -> dict[str, int | bool]:
    """What the summary says of the packets, and whether all that arrived were as they should be."""
    return {
        "sent": report.sent,
        "received": report.received,
        "lost": report.sent - report.received,
        "wrong": report.wrong,
        "reordered": report.reordered,
        "ok": report.received > 0 and report.wrong == 0 and report.reordered == 0,
    }
