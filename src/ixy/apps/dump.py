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
from ixy.apps.decode import below, decoder
from ixy.apps.session import chosen_by, confine, longest_frame, open_devices
from ixy.apps.signals import stop_on_signals
from ixy.dissect.frame import Frame
from ixy.dissect.line import Style
from ixy.dissect.printer import Layout, Printer
from ixy.dissect.unfinished import is_unfinished
from ixy.errors import CaptureError
from ixy.formats.files import check_place
from ixy.formats.pcapng import EARLIEST, LATEST
from ixy.formats.piped import arriving
from ixy.formats.words import LENGTH, MAX_LENGTH, OFFSET, ORIGINAL, ROWS, TIME
from ixy.formats.writing import Writer
from ixy.headers import HEADERS, fields
from ixy.packets.packets import Flags

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ixy.apps.decode import Decoder
    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.device import Device
    from ixy.filters import Filter
    from ixy.packets.batch import Batch


log = logging.getLogger("ixy.apps")

_AT_ONCE = 256  # packets that are printed at a time
_PART = 4096  # packets of a file that are looked at a time
_WAIT = 0.1  # seconds: so late may signals come while no packets do
_UNFINISHED = (
    "the kernel that sent them leaves those to its interface, which made none; with ethtool -K PEER tx off, PEER being "
    "the interface that they were sent from, the kernel makes them"
)


class Seen(NamedTuple):
    """A packet that passed the filter.

    Attributes:
        time: when it came, ns since 1970.
        data: what there is of it.
        length: the bytes that it had on the wire.
        unfinished: whether it has no checksum, as its sender's kernel has left that to an interface.
    """

    time: int
    data: bytes
    length: int
    unfinished: bool = False


@dataclass(frozen=True)
class Look:
    """What is made of packets.

    Attributes:
        expression: a filter in tcpdump's language; all packets pass the empty one.
        style, layout: how packets are printed.
        snaplen: bytes of a packet that are looked at, 1 to 262144.
        file: where to write them, instead of printing them; "-" is standard output.
        as_json: print an object for each.
        decode: print what tshark or Scapy sees in each besides.
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
        decoding = decoder(verbose=self.style.verbose > 0) if self.decode else None
        return _Lines(_Text(Printer(self.style, self.layout), self.snaplen, decoding), 1 if self.each else _AT_ONCE)


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
        (device,) = stack.enter_context(open_devices([listening(address)], settings, metadata=_metadata(address)))
        with closing(look.sink()) as sink:
            _say(f"listening on {address}, link-type EN10MB (Ethernet), snapshot length {look.snaplen} bytes")
            live = _Live(device, chosen, settings)
            found = live.received()  # which is compiled then: the clock starts after that
            _confine(settings, sink, [address])
            try:
                with stop.looked_at():
                    live.run(sink, stop, found)
            finally:
                _say(_counted(sink.count, "captured"))
                _say(_counted(live.matched, "received by filter"))
                stats = device.stats()
                _say(_counted(stats.rx_dropped, "dropped by the device"))
                if stats.rx_refused:
                    most = longest_frame(settings)
                    _say(f"{_counted(stats.rx_refused, 'refused')}: longer than {most} bytes, or damaged")
                if live.unfinished:
                    _say(f"{_counted(live.unfinished, 'with unfinished checksums')}: {_UNFINISHED}")
    return stop.exit_code(settings)


def dump_file(path: str, settings: Settings, look: Look) -> int:
    """Print or write the packets of a capture file; the exit code.

    Args:
        path: of the file; "-" is standard input. What comes through a pipe is printed as it comes.

    Raises:
        CaptureError: a file cannot be read or written, or ends within a packet, and what is before that is printed; or
            there are times that cannot be told, and the nearest were printed or written instead.
        FilterError: the filter is malformed.
    """
    chosen, limit = look.filter(), settings.count
    wrong, clamped = list[str](), 0
    with arriving(path) as source, closing(look.sink()) as sink:
        _say(f"reading from file {path}, link-type EN10MB (Ethernet)")
        table = np.empty((ROWS, _PART), np.int64)
        count = source.fill(table)
        list(_recorded(source.data, table[:, :0], chosen))  # which compiles what a filter needs
        _confine(settings, sink)
        while count > 0:
            found = _recorded(source.data, table[:, :count], chosen)
            taken = list(islice(found, None if limit is None else limit - sink.count))
            clamped += sum(packet.time in (EARLIEST, LATEST) for packet in taken)
            sink.take(taken)
            count = source.fill(table) if limit is None or sink.count < limit else 0
        if (limit is None or sink.count < limit) and source.damage:
            wrong.append(f"{path}: {source.damage}")
        if clamped:
            wrong.append(f"{path}: times beyond the years 1677 to 2262, told as the nearest of these: {clamped}")
        wrong += [sink.complaint] if sink.complaint else []
    if wrong:
        raise CaptureError("; ".join(wrong))
    return 0


def _recorded(data: NDArray[np.uint8], table: NDArray[np.int64], chosen: Filter | None) -> Iterator[Seen]:
    """The packets of a table that pass a filter."""
    starts, sizes, lengths = (table[row] for row in (OFFSET, LENGTH, ORIGINAL))
    rows = table[[OFFSET, LENGTH, ORIGINAL, TIME]]
    if chosen is not None:
        rows = rows[:, chosen.matching(data, starts, sizes, lengths)]
    for start, size, length, time in rows.T.tolist():
        yield Seen(time, data[start : start + size].tobytes(), length)


class _Live:
    """Packets of a receive queue that pass a filter.

    Attributes:
        matched: how many did.
        unfinished: how many of these have no checksum.
    """

    def __init__(self, device: Device, chosen: Filter | None, settings: Settings) -> None:
        self._device, self._queue = device, device.rx[0]
        self._filter, self._settings = chosen, settings
        self.matched = self.unfinished = 0

    def run(self, sink: Sink, stop: Stop, found: list[Seen]) -> None:
        """Let a sink have them, after those that were found before, until a signal or the limit."""
        limit, seconds = self._settings.count, self._settings.seconds
        end = None if seconds is None else clock.monotonic() + seconds
        while True:
            self.matched += len(found)
            self.unfinished += sum(packet.unfinished for packet in found)
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
            unfinished = self._without_checksum(batch)
            seen = zip(batch.times.tolist(), batch, unfinished, passed, strict=True)
            return [Seen(time, bytes(packet), len(packet), bare) for time, packet, bare, passes in seen if passes]

    def _without_checksum(self, batch: Batch) -> list[bool]:
        """Which packets of a kernel's interface have none: the kernel says so, or it is seen."""
        if "flags" in self._queue.ring.metadata:
            return ((batch.flags & Flags.L4_PARTIAL) != 0).tolist()
        if self._device.driver == "xdp":
            return [is_unfinished(bytes(packet)) for packet in batch]
        return [False] * len(batch)


def _metadata(address: str) -> tuple[str, ...]:
    """What is to be told of each packet: AF_PACKET tells which have no checksum."""
    return ("flags", "time") if address.startswith("packet:") else ("time",)


def _confine(settings: Settings, sink: Sink, addresses: Sequence[str] = ()) -> None:
    """Give privileges up, and say so."""
    sink.take([])  # which compiles what it needs
    if (confined := confine(settings, addresses)) is not None:
        _say(str(confined))


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

    @property
    def complaint(self) -> str | None:
        """One line on what it could not tell of them, None for nothing."""
        ...

    def take(self, packets: list[Seen]) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """Prints packets, so many at once."""

    complaint = None

    def __init__(self, text: _Text | _Objects, at_once: int) -> None:
        self._text, self._at_once = text, at_once
        self.count = 0

    def take(self, packets: list[Seen]) -> None:
        for first in range(0, len(packets), self._at_once):
            texts = list[str]()
            try:
                for packet in packets[first : first + self._at_once]:
                    texts.append(f"{self._text(packet)}\n")
            finally:  # a decoder may have ended amid them
                sys.stdout.write("".join(texts))
                sys.stdout.flush()
                self.count += len(texts)

    def close(self) -> None:
        self._text.close()


class _File:
    """Writes packets to a capture file."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def count(self) -> int:
        return self._writer.packets

    @property
    def complaint(self) -> str | None:
        return self._writer.complaint

    def take(self, packets: list[Seen]) -> None:
        """
        Raises:
            CaptureError: the file has no room.
        """
        sizes = np.array([len(packet.data) for packet in packets], np.int64)
        data = np.frombuffer(b"".join(packet.data for packet in packets), np.uint8)
        lengths = np.array([packet.length for packet in packets], np.int64)
        times = np.array([packet.time for packet in packets], np.int64)
        self._writer.write(times, data, np.cumsum(sizes) - sizes, sizes, lengths)

    def close(self) -> None:
        self._writer.close()


class _Text:
    """A packet as text, and below it what a decoder says."""

    def __init__(self, printer: Printer, snaplen: int, decoder: Decoder | None) -> None:
        self._printer, self._snaplen, self._decoder = printer, snaplen, decoder

    def __call__(self, packet: Seen) -> str:
        data = packet.data[: self._snaplen]
        text = self._printer.text(packet.time, data, packet.length)
        if self._decoder:
            text += below(self._decoder.lines(packet.time, data, packet.length))
        return text

    def close(self) -> None:
        if self._decoder:
            self._decoder.close()


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
        found |= {"unfinished_checksum": True} if packet.unfinished else {}
        found |= {"line": self._printer.text(packet.time, data, packet.length)}
        return json.dumps(found | ({"bytes": data.hex()} if self._bytes else {}))

    def close(self) -> None:
        pass


def _headers(data: bytes) -> dict[str, dict[str, int | str]]:
    """The fields of each header that is there; addresses are texts."""
    frame = Frame(data)
    there = {name: frame.header(kind) for name, kind in HEADERS.items()}
    return {
        name: {part: _value(getattr(header, part)) for part in fields(HEADERS[name])}
        for name, header in there.items()
        if header
    }


def _value(value: Any) -> int | str:
    return value if type(value) is int else str(value)
