"""Captures that come through a pipe, such as `tcpdump -w - -U |`: each packet as soon as it is there.

Nothing is kept of what was read, so a pipe may go on for days. What has come, decompressed if it is to be, lies in one
array, whose whole records are read like those of a file; the rest goes to the front of the next array.
"""

from __future__ import annotations

import os
import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from ixy.errors import CaptureError
from ixy.formats import compression, pcap, pcapng
from ixy.formats.files import is_mappable, opened
from ixy.formats.links import CONVERTIBLE, ETHERNET, HEADER, refusal, to_ethernet
from ixy.formats.reading import Source, records_of
from ixy.formats.words import INTERFACE, LENGTH, OFFSET, ROWS
from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

_CHUNK = 1 << 16  # bytes that are read at a time, which is what a pipe holds
_MOST = 1 << 25  # bytes of a record that is awaited


class Piped:
    """A capture that comes through a pipe. What `fill` puts into a table lies in `data` until the next call.

    Args:
        path: of the pipe; "-" is standard input.
        file: the pipe, which stays open as long as there is to be more.

    Attributes:
        data: shape (any,), uint8.
        path: as it was given.
        converted: the packets are of another link, and were made frames of Ethernet.
        over: there are no more packets.

    Raises:
        CaptureError: what comes is no capture.
    """

    def __init__(self, path: str | Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        self.converted = self.over = False
        self._count = self._known = 0
        parts = _parts(path, file)
        head = _gathered(b"", parts, compression.MAGIC_BYTES)
        kind = compression.kind_of(head)
        self._packed = compression.Decompressed(path, chain([head], parts), kind) if kind else None
        self._parts = iter(self._packed) if self._packed else chain([head], parts)
        self._records = records_of(path, np.frombuffer(self._header(), np.uint8))
        self.data = self._records.rest

    def _header(self) -> bytes:
        """What comes first, with the whole header of a file in it if there is one."""
        head = _gathered(b"", self._parts, pcap.FILE_HEADER)
        if not head.startswith(pcapng.MAGIC):
            return head
        head = _gathered(head, self._parts, pcapng.SECTION_BYTES)
        return _gathered(head, self._parts, min(pcapng.section_bytes(head), _MOST))

    def fill(self, table: Table, patience: float | None = None, first: int = 0, end: int | None = None) -> int:
        """Fill the columns of a table with the next packets, and wait until there is one; how many it holds then,
        `first` at the end.

        Args:
            table: shape (words.ROWS or more, any), int64, contiguous.
            patience: seconds that each part of a packet is waited for, None for no end; then there may be no packet,
                though it is not `over`.
            first, end: the columns to fill, see `Source.fill`.

        Raises:
            CaptureError: they are of a link that no Ethernet can be made of; or the pipe cannot be read.
        """
        count = first
        while count == first:
            count = self._records.fill(table, first, table.shape[1] if end is None else end)
            self._count += count - first
            count = self._as_ethernet(table, first, count)
            if count == first and not self._wait(patience):
                break
        return count

    @property
    def names(self) -> list[str]:
        """Names of the interfaces met so far."""
        return self._records.names

    @property
    def clamped(self) -> int:
        """How many packets so far have times beyond the years 1677 to 2262, which are told as the nearest."""
        return self._records.clamped

    @property
    def damage(self) -> str | None:
        """Why there is no further packet; None if the pipe is over."""
        return self._records.damage(self._count) or (self._packed.damage if self._packed else None)

    def _wait(self, patience: float | None) -> bool:
        """Wait for more; False if there is none, nothing can be made of it, or it does not come in so many seconds."""
        rest = self._records.rest
        self.over = self.over or self._records.missing is None or rest.size > _MOST
        if self.over or (patience is not None and not select.select([self._file], [], [], patience)[0]):
            return False
        part = next(self._parts, None)
        self.over = part is None
        if part is None:
            return False
        self._records.go_on(read_only(np.concatenate([rest, np.frombuffer(part, np.uint8)])))
        return True

    def _as_ethernet(self, table: Table, first: int, end: int) -> int:
        """Let packets in columns `first` to `end` of a table lie in `data`, as frames of Ethernet; where they end."""
        self.data, links = self._records.data, self._records.links
        for link in links[self._known :]:
            if link not in CONVERTIBLE:
                raise CaptureError(f"{self.path}: {refusal(link)}")
        self._known = len(links)
        if all(link == ETHERNET for link in links):
            return end
        self.converted = True
        frames = np.empty(int(table[LENGTH, first:end].sum()) + HEADER * (end - first), np.uint8)
        end = _convert(self.data, table, first, end, np.array(links, np.int64), frames)
        self.data = read_only(frames)
        return end


@contextmanager
def arriving(path: str | Path) -> Generator[Source | Piped]:
    """A capture whose packets are taken one after the other: a file, or what comes through a pipe.

    Raises:
        CaptureError: as `Source` and `Piped`.
    """
    try:
        file = opened(path)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    with file:
        yield Source(path) if is_mappable(file) else Piped(path, file)


def is_piped(path: str | Path) -> bool:
    """Whether what a name stands for is no file that can be read again."""
    if str(path) != "-":
        return Path(path).exists() and not Path(path).is_file()
    with opened(path) as file:
        return not is_mappable(file)


def _parts(path: str | Path, file: IO[bytes]) -> Iterator[bytes]:
    """What comes through a pipe, as it comes.

    Raises:
        CaptureError: it cannot be read.
    """
    while True:
        try:
            part = os.read(file.fileno(), _CHUNK)
        except BlockingIOError:  # whoever shares standard input may have made it so
            select.select([file], [], [])
            continue
        except OSError as error:
            raise CaptureError(f"{path}: {error.strerror}") from None
        if not part:
            return
        yield part


def read_only(data: Bytes) -> Bytes:
    """As a mapped file is, so that kernels are compiled for one kind of array."""
    data.flags.writeable = False
    return data


def _gathered(head: bytes, parts: Iterator[bytes], size: int) -> bytes:
    """`head` and what follows it, `size` bytes at least unless there are fewer."""
    while len(head) < size and (part := next(parts, None)) is not None:
        head += part
    return head


@compiled
def _convert(data: Bytes, table: Table, first: int, end: int, links: NDArray[np.int64], frames: Bytes) -> int:
    """Make frames of Ethernet of the packets in columns `first` to `end` of a table, and let it tell where they lie in
    `frames`; where they end. What is too short for its link's header is left out."""
    used, kept = 0, first
    for i in range(first, end):
        if to_ethernet(data, table[:, i], int(links[table[INTERFACE, i]]), frames[used:]):
            table[OFFSET, i] = used
            used += table[LENGTH, i]
            for row in range(ROWS):
                table[row, kept] = table[row, i]
            kept += 1
    return kept
