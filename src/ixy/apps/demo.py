"""`ixy demo`: a generator, the forwarder and a sink that checks, on two simulated cards."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import open_devices, repeat
from ixy.apps.settings import MAX_COUNT, MAX_RING
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.formats.frames import MAX_FRAME, MIN_FRAME
from ixy.path import touch
from ixy.sim.machine import SinkReport, machine

if TYPE_CHECKING:
    from ixy.apps.settings import Settings

_GENERATOR, _SINK = "demo-a", "demo-b"
_TOUCHED = 48  # the byte that `touch` raises by one
_PATIENCE = 2.0  # seconds without any progress


class _Passage:
    """Watches the packets on their way from the generator through the relay to the sink."""

    def __init__(self, relay: Relay, count: int) -> None:
        self._relay = relay
        self._count = count
        self._last: SinkReport | None = None  # until the first look, before which the data path may be compiled
        self._moved = 0.0

    def report(self) -> SinkReport:
        return machine().sink_report(_GENERATOR, _SINK)

    def done(self) -> bool:
        """All packets have passed or were dropped on the way, or none has moved for so long that none will."""
        report, now = self.report(), time.monotonic()
        if report != self._last:
            self._last, self._moved = report, now
        relayed = self._relay.counts()
        passed = report.sent == self._count == relayed.received and report.received == relayed.forwarded
        return passed or now - self._moved > _PATIENCE


def demo(settings: Settings, *, count: int, size: int) -> int:
    """Send `count` packets of `size` bytes through the forwarder and check each one.

    Returns:
        0 if packets flowed and every one that arrived was complete, in order, and changed just so; else 1, or the code
        of the signal that stopped it.

    Raises:
        ConfigurationError: `count` or `size` is out of bounds.
        Error: as `ixy.open` and `ixy.Path`.
    """
    count, size = integer("count", count, 1, MAX_COUNT), integer("size", size, MIN_FRAME, MAX_FRAME)
    addresses = [f"sim:{_GENERATOR},gen={size},count={count}", f"sim:{_SINK},sink={_GENERATOR},touch={_TOUCHED}"]
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        (source,) = stack.enter_context(open_devices(addresses[:1], settings))
        # A transmit ring with room for a whole receive ring: no packet is dropped for a burst that was waiting there.
        wide = replace(settings, ring=min(2 * settings.ring, MAX_RING))
        (target,) = stack.enter_context(open_devices(addresses[1:], wide))
        relay = Relay([(source, target)], touch, settings.batch)
        with Report([source, target], [], as_json=settings.as_json) as report:
            passage = _Passage(relay, count)
            repeat(relay.run, passage.done, settings, stop, report)
            relay.drain()
            report.results = found = verdict(passage.report(), count, stopped=bool(stop))
    return stop.exit_code(settings) or int(not found["ok"])


def verdict(report: SinkReport, count: int, *, stopped: bool) -> dict[str, int | bool]:
    """What the summary says of the packets, and whether all that arrived were as they should be.

    Args:
        count: packets that were to be sent.
        stopped: the run ended early, with packets under way; lost are those then that a later one overtook.
    """
    return {
        "sent": report.sent,
        "received": report.received,
        "lost": report.lost if stopped else report.sent - report.received,
        "wrong": report.wrong,
        "duplicated": report.duplicated,
        "reordered": report.reordered,
        "ok": report.received > 0
        and report.sent == count
        and report.wrong == report.duplicated == report.reordered == 0,
    }
