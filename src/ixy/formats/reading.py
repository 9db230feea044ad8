"""Capture files, read as arrays or packet by packet: pcap and pcapng, compressed or not.

A file is mapped, and a kernel goes from record to record. So a file of several gigabytes costs address space, and, read
as arrays, 40 bytes a packet; who plays it needs no more than a part of the table at a time (`Source`). What cannot be
mapped as it is comes into a file without a name first: what is compressed or comes through a pipe, and packets of other
links, which become frames of Ethernet (`links`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import CaptureError
from ixy.formats import compression, pcap, pcapng
from ixy.formats.files import is_mappable, mapped, opened, share, spooled
from ixy.formats.links import CONVERTIBLE, ETHERNET, HEADER, refusal, to_ethernet
from ixy.formats.words import INTERFACE, LENGTH, MAX_LENGTH, OFFSET, ORIGINAL, ROWS, TIME
from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

_PART = 1 << 16  # packets of a table
_MARGIN = 1.05
_CHUNK = 1 << 20  # bytes
_CONVERTED = 8 << 20  # bytes of converted packets that are written at a time


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """The frames of a capture file. Packet i is `data[offsets[i]:][:lengths[i]]`.

    Attributes:
        data: the whole file, uint8, read-only. A mapping: shortening the file while it is in use kills the process.
        offsets: where each frame begins in `data`; shape (n,), int64.
        lengths: bytes of each frame that the file holds, without a frame check sequence; shape (n,), int64.
        original: bytes that each frame had on the wire, likewise; shape (n,), int64. More than `lengths` if it was cut.
        times: ns since 1970; shape (n,), int64. Not necessarily rising.
        interfaces: the number of each frame's interface, shape (n,), int64.
        names: of the interfaces; "" where the file does not tell.
        clamped: frames with times beyond the years 1677 to 2262, which are told as the nearest.
        damage: one line on where and why reading stopped before the end of the file, or None.
    """

    data: Bytes
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    original: NDArray[np.int64]
    times: NDArray[np.int64]
    interfaces: NDArray[np.int64]
    names: list[str]
    clamped: int
    damage: str | None

    def __len__(self) -> int:
        return self.offsets.size

    @property
    def cut(self) -> int:
        """How many frames were longer on the wire than they are in the file."""
        return int(np.count_nonzero(self.lengths < self.original))


class Source:
    """A capture file that is open, whose packets are taken from the first to the last.

    Args:
        path: of the file; "-" is standard input.

    Attributes:
        data: the whole file, as `Capture.data`.
        path: as it was given.
        converted: the packets are of another link, and were made frames of Ethernet.

    Raises:
        CaptureError: the file cannot be read, is no capture file, or holds packets of a link that no Ethernet can be
            made of.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.converted = False
        self._clamped = 0  # before the packets were made frames of Ethernet
        try:
            self.data, self._compressed = _content(path)
            self._records = records_of(path, self.data)
            if any(link != ETHERNET for link in self._records.links):
                self._convert()
        except OSError as error:
            raise CaptureError(f"{path}: {error.strerror}") from None
        self._count = 0
        self._known = len(self._records.links)

    def fill(self, table: Table, first: int = 0, end: int | None = None) -> int:
        """Fill the columns of a table with the next packets; how many it holds then, fewer than it has room for only at
        the end.

        Args:
            table: shape (words.ROWS or more, any), int64, contiguous.
            first: the column to begin with.
            end: the column that stays as it is, with those after it; None for none.

        Raises:
            CaptureError: an interface that is described amid the file is of another link.
        """
        count = self._records.fill(table, first, table.shape[1] if end is None else end)
        self._count += count - first
        if len(self._records.links) > self._known:
            self._look_at_links()
        return count

    def rewind(self) -> None:
        """Begin again."""
        self._records.rewind()
        self._count = 0

    @property
    def names(self) -> list[str]:
        """Names of the interfaces met so far."""
        return self._records.names

    @property
    def clamped(self) -> int:
        """How many packets so far have times beyond the years 1677 to 2262, which are told as the nearest."""
        return self._clamped if self.converted else self._records.clamped

    @property
    def damage(self) -> str | None:
        """Why there is no further packet; None if the file is over."""
        return self._records.damage(self._count) or self._compressed

    def _look_at_links(self) -> None:
        self._known = len(self._records.links)
        for link in self._records.links:
            if link != ETHERNET:
                raise CaptureError(
                    f"{self.path}: amid Ethernet, an interface of {refusal(link)}, or split the file: editcap"
                )

    def _convert(self) -> None:
        """Have all packets as frames of Ethernet, in a file without a name."""
        for link in self._records.links:
            if link not in CONVERTIBLE:
                raise CaptureError(f"{self.path}: {refusal(link)}")
        converter = _Converter(self.path, self.data, self._records)
        self.data = spooled(converter)
        self._compressed = converter.damage or self._compressed
        self._clamped = self._records.clamped
        self._records = records_of(self.path, self.data)
        self.converted = True


def read(path: str | Path) -> Capture:
    """Read a capture: pcap or pcapng, gzip or Zstandard around it, of Ethernet or what that can be made of.

    A regular file is mapped; anything else, such as a pipe, is read to its end. While the capture is in use, no
    `Writer` opens the file.

    Raises:
        CaptureError: as `Source`. Damage further on is no error: the packets before it are there, and `damage` says the
            rest.
    """
    source = Source(path)
    table = np.empty((ROWS, _PART), np.int64)
    count = source.fill(table)
    while count == table.shape[1]:  # room for all, if packets go on as they are so far; memory comes as it is filled
        room = int(source.data.size / (table[OFFSET, count - 1] + table[LENGTH, count - 1]) * count * _MARGIN) + 1
        larger = np.empty((ROWS, max(room, count + _PART)), np.int64)
        larger[:, :count] = table
        table = larger
        count = source.fill(table, count)
    rows = table[:, :count]
    return Capture(
        source.data,
        rows[OFFSET],
        rows[LENGTH],
        rows[ORIGINAL],
        rows[TIME],
        rows[INTERFACE],
        source.names,
        source.clamped,
        source.damage,
    )


def _content(path: str | Path) -> tuple[Bytes, str | None]:
    """A file's content, no longer compressed; and what is wrong with how it was."""
    with opened(path) as file:
        share(file, path)
        data = mapped(file) if is_mappable(file) else spooled(iter(lambda: file.read(_CHUNK), b""))
    kind = compression.kind_of(data[:4].tobytes())
    if kind is None:
        return data, None
    chunks = (data[start : start + _CHUNK].tobytes() for start in range(0, data.size, _CHUNK))
    parts = compression.Decompressed(path, chunks, kind)
    return spooled(parts), parts.damage


def records_of(path: str | Path, data: Bytes) -> pcap.Records | pcapng.Records:
    """The records of a file that begins so.

    Raises:
        CaptureError: it is no capture.
    """
    if data[:4].tobytes() == pcapng.MAGIC:
        return pcapng.Records(path, data)
    return pcap.Records(path, data)


class _Converter:
    """The parts of a pcapng file that has the same packets, as frames of Ethernet.

    Attributes:
        damage: of the file that was read.
    """

    def __init__(self, path: str | Path, data: Bytes, records: pcap.Records | pcapng.Records) -> None:
        self.damage: str | None = None
        self._path, self._data, self._records = path, data, records

    def __iter__(self) -> Iterator[bytes | Bytes]:
        records = self._records
        yield pcapng.section_header()
        described = packets = 0
        table, target = np.empty((ROWS, _PART), np.int64), np.empty(_CONVERTED, np.uint8)
        frame = np.empty(MAX_LENGTH + HEADER, np.uint8)
        while count := records.fill(table, 0, _PART):
            packets += count
            for link, name in zip(records.links[described:], records.names[described:], strict=True):
                if link not in CONVERTIBLE:
                    raise CaptureError(f"{self._path}: {refusal(link)}")
                yield pcapng.description(ETHERNET, name, 0, nanosecond=True)
            described = len(records.links)
            done = 0
            while done < count:
                links = np.array(records.links, np.int64)
                used, done = _convert_some(self._data, table[:, :count], links, frame, target, done)
                yield target[:used]
        for name in records.names[described:]:
            yield pcapng.description(ETHERNET, name, 0, nanosecond=True)
        self.damage = records.damage(packets)


@compiled
def _convert_some(
    data: Bytes, table: Table, links: NDArray[np.int64], frame: Bytes, target: Bytes, first: int
) -> tuple[int, int]:
    """Fill `target` with blocks of packets from number `first` of the table on: the bytes used, and the first packet
    that was not taken. What is too short for its link's header is left out."""
    used = 0
    for i in range(first, table.shape[1]):
        if used + MAX_LENGTH + 64 > target.size:
            return used, i
        if to_ethernet(data, table[:, i], int(links[table[INTERFACE, i]]), frame):
            used = pcapng.append_block(
                target, used, table[INTERFACE, i], 1, table[TIME, i], frame, 0, table[ORIGINAL, i], table[LENGTH, i]
            )
    return used, table.shape[1]
