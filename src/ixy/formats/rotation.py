"""A capture in several files, one after the other, as tcpdump's options -C, -G and -W ask for it.

What a kernel has formatted is divided here, when it is written: the kernel knows nothing of files.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy import clock
from ixy.errors import ConfigurationError
from ixy.formats.words import SECOND
from ixy.formats.writing import Format, Interface, Writer, record_end, record_time
from ixy.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_NEVER = (1 << 63) - 1


class Rotation(NamedTuple):
    """When the next file begins; 0 for never.

    Attributes:
        size: a file that has more bytes than this, before it is compressed, gets no further packet.
        seconds: nor one that was begun so long ago. The name may have patterns of strftime, for local time.
        files: with `size`, so many files are written, over and over; with `seconds` alone, the capture ends after them.
    """

    size: int = 0
    seconds: int = 0
    files: int = 0

    def folders(self, path: str) -> list[str]:
        """Where further files are made: in the folder of the first one, as far as it tells no time; nowhere if there
        are none."""
        parts = takewhile(lambda part: not (self.seconds and "%" in part), Path(path).absolute().parent.parts)
        return [str(Path(*parts))] if self.size or self.seconds else []


ONE_FILE = Rotation()


class RotatingWriter:
    """What `Writer` is for one file, for a row of them.

    Args:
        path, snaplen, interfaces: as for `Writer`. Files by size get a number behind their name: the first none or, if
            their number is limited, 0, with as many digits as all have.
        rotation: when the next file begins.

    Attributes:
        formats, parts: see `Writer`.
        packets: in all files.
        files: how many were begun.
        ended: the last file is full: no further packet is written.

    Raises:
        CaptureError: as `Writer`.
        ConfigurationError: files for standard output, a limit of files without an end to each, or files by time whose
            names do not tell it.
    """

    parts = 1

    def __init__(
        self, path: str, snaplen: int, rotation: Rotation = ONE_FILE, interfaces: Sequence[Interface] = (Interface(),)
    ) -> None:
        if rotation != ONE_FILE and path == "-":
            raise ConfigurationError("standard output is one file: name one for -C, -G and -W")
        if rotation.files and not (rotation.size or rotation.seconds):
            raise ConfigurationError("-W limits the files of -C and -G: give one of these too")
        now = clock.date_ns()
        if rotation.seconds and _dated(path, now) == _dated(path, now + rotation.seconds * SECOND):
            raise ConfigurationError(f"{path}: -G would begin the same file anew: put the time into its name, %H%M%S")
        self._path, self._snaplen, self._rotation, self._interfaces = path, snaplen, rotation, interfaces
        self._number = self._before = 0
        self.files, self.ended = 0, False
        self._begin(now)
        self.formats = self._writer.formats
        if rotation != ONE_FILE:
            self._compile()

    @property
    def packets(self) -> int:
        return self._before + self._writer.packets

    def flush(self, buffer: Bytes, used: int, packets: int | None = None) -> None:
        """As `Writer.flush`; packets after the last file are left out.

        Raises:
            CaptureError: as `Writer`.
        """
        if self._rotation == ONE_FILE:
            self._writer.flush(buffer, used, packets)
            return
        start, form = 0, self.formats[0]
        while start < used and not self.ended:
            room = self._rotation.size - self._writer.size if self._rotation.size else _NEVER
            end = _until(buffer[:used], start, form, room, self._deadline)
            self._writer.flush(buffer[start:], end - start)
            start = end
            if start < used:
                self._next(record_time(buffer, start, form))

    def close(self) -> None:
        """As `Writer.close`."""
        self._writer.close()

    def __enter__(self) -> RotatingWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _compile(self) -> None:
        """Have compiled what divides records, before there are any."""
        nothing, form = np.zeros(32, np.uint8), self.formats[0]
        _until(nothing[:0], 0, form, 0, 0)
        record_time(nothing, 0, form)
        self._writer.flush(nothing, 0)

    def _next(self, now: int) -> None:
        """Go on to the file of a packet of this time."""
        by_time = now >= self._deadline
        limit = self._rotation.files
        if limit and not self._rotation.size and self.files >= limit:
            self.ended = True
            return
        self._writer.close()
        self._before += self._writer.packets
        self._number = 0 if by_time else self._number + 1
        if limit and self._number >= limit:
            self._number = 0
        self._begin(now if by_time else self._started)

    def _begin(self, started: int) -> None:
        self._started = started
        self._deadline = started + self._rotation.seconds * SECOND if self._rotation.seconds else _NEVER
        self._writer = Writer(self._name(), self._snaplen, interfaces=self._interfaces, like=self._path)
        self.files += 1

    def _name(self) -> str:
        name = self._path
        if self._rotation.seconds:
            name = _dated(name, self._started)
        if not self._rotation.size:
            return name
        if self._rotation.files:
            return f"{name}{self._number:0{len(str(self._rotation.files - 1))}}"
        return f"{name}{self._number}" if self._number else name


def _dated(name: str, moment: int) -> str:
    """A file's name with the local time in place of what strftime knows, such as %H%M%S."""
    return time.strftime(name, time.localtime(moment // SECOND))


@compiled
def _until(records: Bytes, start: int, form: Format, room: int, deadline: int) -> int:
    """Where the first record begins, from `start` on, that belongs into the next file: after more than `room` bytes, or
    at the time `deadline` or later."""
    at = start
    while at < records.size and at - start <= room and record_time(records, at, form) < deadline:
        at = record_end(records, at, form)
    return at
