"""`ixy test`: one trial, and its report."""

from __future__ import annotations

import csv
import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.apps.compose import DEFAULT_FILL, compose
from ixy.apps.rate import bounded
from ixy.apps.report import Report
from ixy.apps.session import confine, open_devices
from ixy.apps.signals import stop_on_signals
from ixy.apps.streams import MAX_FLOWS, Choice, Stream, parse_sizes, payload_start
from ixy.apps.streamtable import SIGNATURE_BYTES, table_of
from ixy.apps.tester import SHARES, Tester, Trial
from ixy.arguments import integer
from ixy.clock import monotonic
from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME, MIN_FRAME
from ixy.headers import Ipv4Address, Ipv6Address
from ixy.packets.buffers import BUFFER_SIZE
from ixy.streams import closed
from ixy.tables.histogram import bounds

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from typing import TextIO

    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.apps.tester import Delays, StreamResult, TrialResult

log = logging.getLogger("ixy.apps")

_BARS = 16  # of a histogram on the terminal
_WIDTH = 40  # characters of the longest
_GREETING = Trial(None, None, 16)
_ASKING = 2.0  # seconds (RFC 2544, section 23)


# ---------------------------------------------------------------------------------------------------------------------
# What is sent


def usual_stream(
    sizes: str | None,
    *,
    ipv6: bool = False,
    vlan: int | None = None,
    flows: int | None = None,
    longest: int = MAX_FRAME,
) -> Stream:
    """UDP datagrams with checksums.

    Args:
        sizes: of a frame in bytes, as `parse_sizes` takes them; None for the least.
        vlan: the tag's number, None for no tag.
        flows: how many, told apart by source addresses and ports; None for one.
        longest: bytes that a frame may have.

    Raises:
        ConfigurationError: a size is too small for headers and signature, or something is out of bounds.
    """
    version = "ipv6" if ipv6 else "ipv4"
    headers: dict[str, dict[str, Any]] = {} if vlan is None else {"vlan": {"id": vlan}}
    headers |= {version: {}, "udp": {}}
    least = payload_start(compose(headers, DEFAULT_FILL, [MAX_FRAME])[0]) + SIGNATURE_BYTES
    found = parse_sizes("--size", sizes or str(least), MIN_FRAME, longest)
    if min(found.each) < least:
        raise ConfigurationError(
            f"--size {min(found.each)}: headers and signature need {least} bytes, without the frame check sequence"
        )
    made = dict(zip(found.each, compose(headers, DEFAULT_FILL, found.each), strict=True))
    fields: dict[str, Choice] = {}
    if flows is not None:
        integer("--flows", flows, 1, MAX_FLOWS)
        first = int(Ipv6Address("fd00::1")) if ipv6 else int(Ipv4Address("10.0.0.1"))
        fields = {
            f"{version}.src": Choice(range(first, first + (1 << 16))),
            "udp.sport": Choice(range(1 << 15, 1 << 16)),
        }
    frames = [made[size] for size in found.each]
    return Stream("udp", frames, fields, flows=flows, random_flows=False, random_frames=found.random)


def streams_of_file(path: str, longest: int = MAX_FRAME) -> list[Stream]:
    """The streams of a file, with room for signatures.

    Args:
        longest: bytes that a frame may have.

    Raises:
        ConfigurationError: there can be no such streams.
    """
    from ixy.apps.streamfile import read_streams

    streams = read_streams(path, longest)
    table_of(streams, tail=SIGNATURE_BYTES, longest=max(longest, BUFFER_SIZE))  # before a device is opened
    return streams


# ---------------------------------------------------------------------------------------------------------------------
# The trial


def run_trial(
    addresses: tuple[str, str],
    streams: Sequence[Stream],
    trial: Trial,
    settings: Settings,
    *,
    both_ways: bool,
    routed: bool,
    settle: float,
    learning: bool,
    table: str | None,
) -> int:
    """Run one trial between two devices; the exit code, 1 if packets were lost, duplicated or corrupted.

    Args:
        learning: let what lies between learn addresses first.
        table: name of a file for a row a stream, in CSV.

    Raises:
        ConfigurationError: the rate is out of bounds.
        Error: as `ixy.open` and `Tester`.
        OSError: the file cannot be written.
    """
    if trial.rate:
        bounded("rate", trial.rate)
    writes = [] if table is None else [table]
    with stop_on_signals() as stop, _written(table) as file, open_devices(addresses, settings, writes=writes) as ports:
        tester = Tester(ports, streams, batch=settings.batch, both_ways=both_ways, routed=routed, settle=settle)
        with Report(ports, addresses, as_json=settings.as_json, file=table) as report:
            report.progress = lambda: _progress(tester.so_far())
            tester.prepare()
            report.confined(confine(settings, addresses))
            if learning:
                _learn(tester, routed, stop)
            report.start()
            result = tester.run(trial, report.tick, stop)
            if result.behind:
                log.warning("the rate was not offered: this side fell behind it by %.3f s", result.behind / 1e9)
            if file:
                write_table(file, result.streams)
            if settings.as_json:
                report.results = summary(result)
            else:
                report.say(lines_of(result), {})
                report.results = _counts(result) | {"ok": result.ok}
    if stop:
        return 128 + (stop.signal or 0)
    return int(not result.ok)


def _learn(tester: Tester, routed: bool, stop: Stop) -> None:
    """Let what lies between learn addresses; let routers ask for those to which packets go, for a second or two."""
    tester.learn(stop)
    end = monotonic() + _ASKING
    while routed and not stop and tester.run(_GREETING, stop=stop).received == 0 and monotonic() < end:
        pass


@contextmanager
def _written(path: str | None) -> Generator[TextIO | None]:
    """A file that is opened before anything is measured."""
    if path is None:
        yield None
        return
    if path == "-":
        if closed(1):
            raise ConfigurationError("--csv -: standard output is closed")
        yield sys.stdout
        return
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        yield file


def _progress(result: TrialResult) -> dict[str, Any]:
    """How a trial stands, for a line a second."""
    delays = result.delays
    times = {f"{name}_us": _micro(delays.quantile(SHARES[name])) for name in ("p50", "p99")}
    return {"sent": result.sent, "received": result.received, "lost": result.lost} | times


def _counts(result: TrialResult) -> dict[str, Any]:
    names = ("sent", "received", "lost", "duplicated", "reordered", "corrupted")
    return {name: result.total(name) for name in names} | {"others": sum(result.others.values())}


def summary(result: TrialResult) -> dict[str, Any]:
    """All of a trial's result, for programs. A histogram is a list of [nanoseconds, how many]."""
    return _counts(result) | {
        "loss_share": result.loss_share,
        "rates": {direction: round(rate, 3) for direction, rate in result.rates.items()},
        "behind_ns": result.behind,
        "others": dict(result.others),
        "latency_ns": result.delays.as_dict(),
        "jitter_ns": result.jitters.as_dict(),
        "streams": [stream.as_dict() | {"histogram": _parts(stream.delays)} for stream in result.streams],
        "ok": result.ok,
    }


def _parts(delays: Delays) -> list[tuple[int, int]]:
    """The parts of a histogram that are not empty."""
    return [(bounds(int(part))[0], int(delays.counters[part])) for part in np.flatnonzero(delays.counters)]


def write_table(file: TextIO, streams: Sequence[StreamResult]) -> None:
    """A row a stream, in CSV."""
    rows = [_flat(stream.as_dict()) for stream in streams]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Names of names, joined: latency_p50_ns."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            what, _, unit = name.rpartition("_")
            flat |= {f"{what}_{inner}_{unit}": each for inner, each in cast("dict[str, Any]", value).items()}
        else:
            flat[name] = value
    return flat


# ---------------------------------------------------------------------------------------------------------------------
# For people


def lines_of(result: TrialResult) -> list[str]:
    """Two tables, a row a stream, and the histogram of all latencies."""
    counts = ("sent", "received", "lost", "duplicated", "reordered", "max_extent", "corrupted")
    heads = ["sent", "received", "lost", "duplicated", "reordered", "extent", "corrupted"]
    names = [f"{stream.direction}  {stream.name}" for stream in result.streams]
    table = [["", *heads]]
    table += [
        [name, *(str(getattr(stream, what)) for what in counts)]
        for name, stream in zip(names, result.streams, strict=True)
    ]
    times = [["µs", "min", "mean", *SHARES, "max"]]
    for name, stream in zip(names, result.streams, strict=True):
        for what, delays in (("latency", stream.delays), ("jitter", stream.jitters)):
            times.append([f"{name}  {what}", *(f"{_micro(each):g}" for each in delays.as_dict().values())])
    return [*_aligned(table), "", *_aligned(times), *bars(result.delays)]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def bars(delays: Delays) -> list[str]:
    """A histogram as lines of text, from the least to what one in 1000 exceeds; none of nothing, or of one value."""
    low, high = delays.least, delays.quantile(0.999)
    if high <= low:
        return []
    edges = np.linspace(low, high, _BARS + 1)
    parts = np.flatnonzero(delays.counters)
    middles = np.clip([sum(bounds(int(part))) / 2 for part in parts], low, None)
    heights, _ = np.histogram(middles, edges, weights=delays.counters[parts])
    scale = _WIDTH / max(heights.max(), 1)
    return [
        "",
        *(
            f"{edge / 1000:10.3f} µs {'█' * round(float(height) * scale):{_WIDTH}} {int(height)}"
            for edge, height in zip(edges, heights, strict=False)
        ),
    ]


def _micro(nanoseconds: float) -> float:
    return round(nanoseconds / 1000, 3)
