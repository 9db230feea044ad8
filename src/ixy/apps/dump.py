"""`ixy dump`: packets of a device or a file as lines of text, as tcpdump prints them."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ixy import clock
from ixy.addresses import listening
from ixy.apps.decode import Decoder, starts_programs
from ixy.apps.session import chosen_by, confine, open_devices, wants_sandbox
from ixy.apps.signals import stop_on_signals
from ixy.dissect.line import Style
from ixy.dissect.printer import Layout, Printer
from ixy.errors import CaptureError
from ixy.formats.files import check_place
from ixy.formats.reading import read
from ixy.formats.words import MAX_LENGTH
from ixy.formats.writing import Writer
from ixy.headers import HEADERS, Headers, fields
from ixy.packets.buffers import BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.device import Device
    from ixy.filters import Filter
    from ixy.formats.reading import Capture

log = logging.getLogger("ixy.apps")

_AT_ONCE = 256  # packets of a file that are printed at a time
_WAIT = 0.1  # seconds: so late may signals come while no packets do
_STANDARD_INPUT = "/dev/stdin"


class Seen(NamedTuple):
    """A packet that passed the filter.

    Attributes:
        time: when it came, ns since 1970.
        data: what there is of it.
        length: the bytes that it had on the wire.
    """

    time: int
    data: bytes
    length: int


@dataclass(frozen=True)
class Look:
    """What is made of packets.

    Attributes:
        expression: a filter in tcpdump's language; all packets pass the empty one.
        style, layout: how packets are printed.
        snaplen: bytes of a packet that are looked at, 1 to 262144.
        file: where to write them, instead of printing them; "-" is standard output.
        as_json: print an object for each.
        decode: print what Scapy or tshark sees in each besides.
        each: write each line at once.
    """

    expression: str = ""
    style: Style = field(default_factory=Style)
    layout: Layout = field(default_factory=Layout)
    snaplen: int = MAX_LENGTH
    file: str | None = None
    as_json: bool = False
    decode: bool = False
    each: bool = False

    def filter(self) -> Filter | None:
        """
        Raises:
            FilterError: the expression is malformed.
        """
        return chosen_by(self.expression)

    def sink(self) -> Sink:
        """
        Raises:
            CaptureError: the file cannot be opened.
            ConfigurationError: there is nothing that decodes.
        """
        if self.file is not None:
            return _File(Writer(self.file, self.snaplen))
        if self.as_json:
            return _Lines(_Objects(self), 1 if self.each else _AT_ONCE)
        decoder = Decoder(verbose=self.style.verbose > 0) if self.decode else None
        return _Lines(_Text(Printer(self.style, self.layout), self.snaplen, decoder), 1 if self.each else _AT_ONCE)


def dump_device(address: str, settings: Settings, look: Look) -> int:
    """Print or write what a device receives, until the limit or a signal; the exit code.

    Raises:
        CaptureError: the file cannot be opened or written. What was written stays readable.
        FilterError: the filter is malformed.
        Error: as `ixy.open`.
    """
    chosen = look.filter()
    if look.file is not None:
        check_place(look.file)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        (device,) = stack.enter_context(open_devices([listening(address)], settings, metadata=("time",)))
        with closing(look.sink()) as sink:
            _say(f"listening on {address}, link-type EN10MB (Ethernet), snapshot length {look.snaplen} bytes")
            live = _Live(device, chosen, settings)
            found = live.received()  # which is compiled then: the clock starts after that
            _confine(settings, look, sink, [address])
            try:
                with stop.looked_at():
                    live.run(sink, stop, found)
            finally:
                _say(_counted(sink.count, "captured"))
                _say(_counted(live.matched, "received by filter"))
                stats = device.stats()
                _say(_counted(stats.rx_dropped, "dropped by the device"))
                if stats.rx_refused:
                    why = f"longer than {BUFFER_SIZE} bytes, or damaged{_remedy(address)}"
                    _say(f"{_counted(stats.rx_refused, 'refused')}: {why}")
    return stop.exit_code(settings)


def dump_file(path: str, settings: Settings, look: Look) -> int:
    """Print or write the packets of a capture file; the exit code.

    Args:
        path: of the file; "-" is standard input, which is read to its end first.

    Raises:
        CaptureError: a file cannot be read or written, or ends within a packet. What is before that is printed.
        FilterError: the filter is malformed.
    """
    chosen = look.filter()
    capture = read(_STANDARD_INPUT if path == "-" else path)
    with closing(look.sink()) as sink:
        _say(f"reading from file {path}, link-type EN10MB (Ethernet)")
        packets = islice(_recorded(capture, chosen), settings.count)
        part = list(islice(packets, _AT_ONCE))
        _confine(settings, look, sink)
        while part:
            sink.take(part)
            part = list(islice(packets, _AT_ONCE))
    if capture.damage:
        raise CaptureError(f"{path}: {capture.damage}")
    return 0


def _recorded(capture: Capture, chosen: Filter | None) -> Iterator[Seen]:
    """The packets of a file that pass a filter."""
    starts, sizes, lengths = capture.offsets, capture.lengths, capture.original
    places: Iterable[int] = range(len(capture))
    if chosen is not None:
        places = np.flatnonzero(chosen.matching(capture.data, starts, sizes, lengths)).tolist()
    for place in places:
        data = capture.data[starts[place] :][: sizes[place]].tobytes()
        yield Seen(int(capture.times[place]), data, int(lengths[place]))


class _Live:
    """Packets of a receive queue that pass a filter.

    Attributes:
        matched: how many did.
    """

    def __init__(self, device: Device, chosen: Filter | None, settings: Settings) -> None:
        self._device, self._queue = device, device.rx[0]
        self._filter, self._settings = chosen, settings
        self.matched = 0

    def run(self, sink: Sink, stop: Stop, found: list[Seen]) -> None:
        """Let a sink have them, after those that were found before, until a signal or the limit."""
        limit, seconds = self._settings.count, self._settings.seconds
        end = None if seconds is None else clock.monotonic() + seconds
        while True:
            self.matched += len(found)
            sink.take(found if limit is None else found[: limit - sink.count])
            if stop or (limit is not None and sink.count >= limit) or (end is not None and clock.monotonic() >= end):
                return
            found = self.received()

    def received(self) -> list[Seen]:
        """Those of the next batch, which is waited for for a moment."""
        with self._queue.receive(self._settings.batch, timeout=_WAIT) as batch:
            if not len(batch):
                self._device.wait_for_link(0)  # which says if there is nothing any more that could receive
            passed = [True] * len(batch) if self._filter is None else self._filter(batch).tolist()
            seen = zip(batch.times.tolist(), batch, passed, strict=True)
            return [Seen(time, bytes(packet), len(packet)) for time, packet, passes in seen if passes]


def _confine(settings: Settings, look: Look, sink: Sink, addresses: Sequence[str] = ()) -> None:
    """Give privileges up, and say so, unless a program is to be started for each packet."""
    sink.take([])  # which compiles what it needs
    if look.decode and starts_programs() and wants_sandbox(settings):
        log.warning("--decode by tshark starts a program for each packet, which a sandbox forbids: no sandbox")
    elif (confined := confine(settings, addresses)) is not None:
        _say(str(confined))


def _remedy(address: str) -> str:
    """How to have the kernel hand over frames as they were on the wire, and not several as one."""
    kind, _, name = address.partition(":")
    return f"; ethtool -K {name.split(',')[0]} gro off gso off tso off" if kind in ("packet", "xdp") else ""


def _counted(count: int, what: str) -> str:
    return f"{count} packet{'' if count == 1 else 's'} {what}"


def _say(line: str) -> None:
    """To standard error, as tcpdump does: standard output is for packets."""
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# Where packets go


class Sink(Protocol):
    """Takes packets, or none."""

    @property
    def count(self) -> int:
        """How many it has taken."""
        ...

    def take(self, packets: list[Seen]) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """Prints packets, so many at once."""

    def __init__(self, text: Callable[[Seen], str], at_once: int) -> None:
        self._text, self._at_once = text, at_once
        self.count = 0

    def take(self, packets: list[Seen]) -> None:
        for first in range(0, len(packets), self._at_once):
            part = packets[first : first + self._at_once]
            sys.stdout.write("".join(f"{self._text(packet)}\n" for packet in part))
            sys.stdout.flush()
            self.count += len(part)

    def close(self) -> None:
        pass


class _File:
    """Writes packets to a capture file."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def count(self) -> int:
        return self._writer.packets

    def take(self, packets: list[Seen]) -> None:
        """
        Raises:
            CaptureError: a packet's time is none that the file can tell, or the file has no room.
        """
        sizes = np.array([len(packet.data) for packet in packets], np.int64)
        data = np.frombuffer(b"".join(packet.data for packet in packets), np.uint8)
        lengths = np.array([packet.length for packet in packets], np.int64)
        times = np.array([packet.time for packet in packets], np.int64)
        try:
            self._writer.write(times, data, np.cumsum(sizes) - sizes, sizes, lengths)
        except ValueError as error:
            raise CaptureError(str(error)) from error

    def close(self) -> None:
        self._writer.close()


class _Text:
    """A packet as text, and below it what a decoder says."""

    def __init__(self, printer: Printer, snaplen: int, decoder: Decoder | None) -> None:
        self._printer, self._snaplen, self._decoder = printer, snaplen, decoder

    def __call__(self, packet: Seen) -> str:
        data = packet.data[: self._snaplen]
        text = self._printer.text(packet.time, data, packet.length)
        return text + self._decoder.text(data) if self._decoder else text


class _Frame(Headers):
    """A packet's bytes, with headers by name."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> int:
        return self._data[index]


class _Objects:
    """A packet as a JSON object: number, time, lengths, its headers, its line, and with -x, -X or -A its bytes."""

    def __init__(self, look: Look) -> None:
        self._printer, self._snaplen = Printer(look.style, Layout(stamp=1)), look.snaplen
        self._bytes = bool(look.layout.hex or look.layout.hex_and_text or look.layout.text)
        self._number = 0

    def __call__(self, packet: Seen) -> str:
        self._number += 1
        data = packet.data[: self._snaplen]
        found: dict[str, Any] = {"number": self._number, "time_ns": packet.time, "length": packet.length}
        found |= {"captured": len(data), **_headers(data)}
        found |= {"line": self._printer.text(packet.time, data, packet.length)}
        return json.dumps(found | ({"bytes": data.hex()} if self._bytes else {}))


def _headers(data: bytes) -> dict[str, dict[str, int | str]]:
    """The fields of each header that is there; addresses are texts."""
    frame = _Frame(data)
    there = {name: frame.header(kind) for name, kind in HEADERS.items()}
    return {
        name: {part: _value(getattr(header, part)) for part in fields(HEADERS[name])}
        for name, header in there.items()
        if header
    }


def _value(value: Any) -> int | str:
    return value if type(value) is int else str(value)
