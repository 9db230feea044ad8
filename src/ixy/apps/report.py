"""What a run tells its user: once a second the rates of each device, and a summary at the end."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ixy.clock import monotonic
from ixy.errors import Error
from ixy.sim.machine import machine
from ixy.sim.spec import parse_spec, writes_stdout
from ixy.sim.wires.cable import Cable
from ixy.sim.wires.stream import Stream
from ixy.streams import closed, is_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from ixy.apps.session import Confined
    from ixy.device import Device, Stats

log = logging.getLogger("ixy.apps")

_WIRE_OVERHEAD = 20  # bytes that each packet takes on the wire besides: preamble, start delimiter, gap (IEEE 802.3)
_SIMULATED = "sim:"


class Report:
    """Lines about devices, as text or as JSON objects. Leaving its `with` block prints the summary.

    Args:
        devices: which ones; they are open as long as the report is.
        addresses: as the user gave them; sinks that are plugged in are reported, and cables that impair.
        as_json: an object a line: `{"type": "rate", …}` once a second, `{"type": "summary", …}` at the end.
        file: that the application writes.

    The lines go to standard output. Where that is closed, or carries a capture, they go to standard error.

    Attributes:
        results: what the application itself counted, for the summary; "ok" is its verdict, if it has one.
        progress: asked once a second for what the application has counted so far.
        workers: what each of its workers has done, if it has some.
        sinks_content: whether, by the summary, no sink saw that a packet was lost or wrong.
        addresses: as they were given.
    """

    def __init__(
        self, devices: Sequence[Device], addresses: Sequence[str], *, as_json: bool, file: str | None = None
    ) -> None:
        self.results: dict[str, Any] = {}
        self.progress: Callable[[], dict[str, Any]] | None = None
        self.workers: list[dict[str, Any]] = []
        self.sinks_content = True
        self.addresses = addresses
        self._confined: dict[str, Any] = {}
        self._devices = devices
        self._sinks = _sinks(addresses)
        self._cables = _cables(addresses)
        self._as_json = as_json
        self._stream = _stream(addresses, file)
        self._width = max(len(device.address) for device in devices)
        self._up = [device.link.up for device in devices]
        self.start()

    def start(self) -> float:
        """Count time and rates from now on; the time, by the devices' clock in seconds."""
        self._started = self._last = monotonic()
        self._before = [device.stats() for device in self._devices]
        return self._started

    def say(self, lines: Sequence[str], value: dict[str, Any]) -> None:
        """Print something besides, as text or as JSON."""
        if self._as_json:
            self._print_json(value)
            return
        for line in lines:
            self._print(line)

    def confined(self, confined: Confined | None) -> None:
        """Say which privileges were given up, if that was done."""
        if confined is None:
            return
        self._confined = {"sandbox": confined.as_dict()}
        if not self._as_json:
            self._print(str(confined))

    def tick(self, now: float) -> None:
        """Print the rates if a second has passed since they were printed, and say whose link has changed meanwhile."""
        if now - self._last < 1:
            return
        self._tell_links()
        stats = [device.stats() for device in self._devices]
        rates = [_rates(old, new, now - self._last) for old, new in zip(self._before, stats, strict=True)]
        self._last, self._before = now, stats
        if self._as_json:
            devices = [{"device": device.address} | rate for device, rate in zip(self._devices, rates, strict=True)]
            counted = self.progress() if self.progress else {}
            self._print_json({"type": "rate", "seconds": round(now - self._started, 3), "devices": devices} | counted)
            return
        for device, rate in zip(self._devices, rates, strict=True):
            self._print(
                f"{device.address:{self._width}}"
                f"  in {_packets(rate['rx_mpps'])} {rate['rx_mbits']:9.1f} Mbit/s"
                f"  out {_packets(rate['tx_mpps'])} {rate['tx_mbits']:9.1f} Mbit/s"
            )

        if self.progress:
            self._print(_listed(self.progress()))

    def _tell_links(self) -> None:
        before, self._up = self._up, [device.link.up for device in self._devices]
        for device, was_up, up in zip(self._devices, before, self._up, strict=True):
            if up != was_up:
                log.warning("%s: link is %s", device.address, "up" if up else "down")

    def summarize(self) -> None:
        """Print what was counted in all."""
        devices = [{"device": device.address} | _totals(device) for device in self._devices]
        sinks = [found for found in (_found(*names) for names in self._sinks) if found]
        self.sinks_content = not any(found["lost"] or found["wrong"] for found in sinks)
        cables = [_done(ends, *way) for ends, way in self._cables.items()]
        seconds = round(monotonic() - self._started, 3)
        if self._as_json:
            workers = {"workers": self.workers} if self.workers else {}
            impaired = {"cables": cables} if cables else {}
            found = self.results | workers | {"devices": devices, "sinks": sinks} | impaired | self._confined
            self._print_json({"type": "summary", "seconds": seconds} | found)
            return
        self._print(f"after {seconds:.3f} s:")
        for totals in devices:
            self._print(_totals_line(totals, self._width))
        for counts in sinks:
            self._print(f"{counts.pop('generator')} → {counts.pop('sink')}: {_listed(counts)}")
        for counts in cables:
            self._print(f"{counts.pop('from')} → {counts.pop('to')}: {_listed(counts)}")
        for counts in self.workers:
            self._print(_worker_line(counts))
        if self.results:
            self._print(_said(self.results))

    def __enter__(self) -> Report:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, Error):
            self.summarize()

    def _print(self, line: str) -> None:
        if self._stream is not None:  # `print` would take standard output
            print(line, file=self._stream, flush=True)

    def _print_json(self, value: dict[str, Any]) -> None:
        self._print(json.dumps(value))


def _stream(addresses: Sequence[str], file: str | None) -> TextIO | None:
    """Where the lines go; None if neither stream is open."""
    carries_data = any(map(writes_stdout, addresses)) or (file is not None and is_output(file))
    return sys.stderr if carries_data or closed(1) else sys.stdout


def _packets(mpps: float) -> str:
    """Packets a second, of which a few thousand are to be seen too: `14.881 Mpps`, `1.0 kpps`."""
    return f"{mpps:7.3f} Mpps" if mpps >= 1 else f"{mpps * 1e3:7.1f} kpps"


def _rates(old: Stats, new: Stats, seconds: float) -> dict[str, float]:
    """Millions of packets and megabits a second, in and out, the latter as on the wire."""
    rates: dict[str, float] = {}
    for way in ("rx", "tx"):
        packets = getattr(new, f"{way}_packets") - getattr(old, f"{way}_packets")
        octets = getattr(new, f"{way}_bytes") - getattr(old, f"{way}_bytes")
        rates[f"{way}_mpps"] = round(packets / seconds / 1e6, 6)
        rates[f"{way}_mbits"] = round((octets + _WIRE_OVERHEAD * packets) * 8 / seconds / 1e6, 3)
    return rates


def _totals(device: Device) -> dict[str, Any]:
    """A device's counters; a simulated card also knows of DMA that it was refused."""
    totals: dict[str, Any] = asdict(device.stats())
    if device.address.startswith(_SIMULATED):
        totals["dma_refused"] = machine().dma_refused_to(device.address.removeprefix(_SIMULATED))
    return totals


def _totals_line(totals: dict[str, Any], width: int) -> str:
    line = (
        f"{totals['device']:{width}}  in {totals['rx_packets']} packets, {totals['rx_bytes']} bytes"
        f"; out {totals['tx_packets']} packets, {totals['tx_bytes']} bytes"
        f"; dropped {totals['rx_dropped']}, errors {totals['rx_errors']}"
        f", refused {totals['rx_refused']}, starved {totals['rx_starved']}"
    )
    return line + (f"; DMA refused {totals['dma_refused']}" if totals.get("dma_refused") else "")


def _worker_line(counts: dict[str, Any]) -> str:
    packets = _listed({name: counts[name] for name in ("received", "forwarded", "dropped")})
    return f"worker {counts['worker']} on core {counts['core']}: {packets}; {100 * counts['idle']:.1f} % of polls idle"


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def _said(results: dict[str, Any]) -> str:
    """What an application counted, and after it the verdict, if it has one: `sent 5, received 5: ok`."""
    counts = {name: count for name, count in results.items() if name != "ok"}
    if "ok" not in results:
        return _listed(counts)
    return f"{_listed(counts)}: {'ok' if results['ok'] else 'not ok'}"


def _sinks(addresses: Sequence[str]) -> list[tuple[str, str]]:
    """Simulated generators and the sinks that check their frames, by the names of their cards."""
    specs = [parse_spec(address) for address in addresses if address.startswith(_SIMULATED)]
    return [(spec.sink, spec.name) for spec in specs if spec.sink]


def _found(generator: str, sink: str) -> dict[str, Any] | None:
    """What a sink found; None where nothing came back to a generator's own, of which nobody expected it."""
    report = machine().sink_report(generator, sink)
    if generator == sink and report.received == 0:
        return None
    return {"generator": f"{_SIMULATED}{generator}", "sink": f"{_SIMULATED}{sink}"} | report._asdict()


def _cables(addresses: Sequence[str]) -> dict[tuple[str, str], tuple[str, bool]]:
    """The directions of simulated cables that impair, by both ends: a card, and whether it is the one that receives."""
    specs = [parse_spec(address) for address in addresses if address.startswith(_SIMULATED)]
    ways: dict[tuple[str, str], tuple[str, bool]] = {}
    for spec in specs:
        for wire in spec.wires:
            if isinstance(wire, (Cable, Stream)) and wire.impairments is not None:
                near = f"{_SIMULATED}{spec.name}"
                ways.setdefault((near, wire.far), (spec.name, False))
                ways.setdefault((wire.far, near), (spec.name, True))
    return ways


def _done(ends: tuple[str, str], card: str, arriving: bool) -> dict[str, Any]:
    """What a cable has done in one direction."""
    return {"from": ends[0], "to": ends[1]} | machine().impaired(card, arriving=arriving)._asdict()
