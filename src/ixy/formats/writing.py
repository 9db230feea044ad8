"""Capture files, written record by record, by a kernel.

A compiled loop formats records itself, with `append`, and calls for a `Writer` only when its buffer is full. Which
format it is, the name of the file says: pcapng for `.pcapng` and `.ntar`, else pcap; and `.gz` or `.zst` behind that
compress it.
"""

from __future__ import annotations

import os
import select
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakSet

import numpy as np

from ixy import clock
from ixy.errors import CaptureError, ConfigurationError
from ixy.formats import compression, pcap, pcapng
from ixy.formats.files import is_regular, open_emptied, reason
from ixy.formats.links import ETHERNET
from ixy.formats.words import MAX_LENGTH, SECOND, word
from ixy.jit import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[Any]

_PCAPNG_SUFFIXES = (".pcapng", ".ntar")
_PCAP = -1  # the interface of a format that knows none

# ---------------------------------------------------------------------------------------------------------------------
# Formatting, for compiled code


class Format(NamedTuple):
    """How a `Writer` wants its records, as kernels see it.

    Attributes:
        snaplen: bytes of a frame that are kept.
        tick: ns in one unit of a time stamp's fraction.
        interface: the number of the frame's interface in a pcapng file; below 0 the file is pcap.
    """

    snaplen: int
    tick: int
    interface: int = _PCAP


@compiled
def record_bytes(length: int) -> int:
    """The most bytes of the record of a frame of which `length` bytes are kept. A buffer must have room for one."""
    return 35 + length


@compiled
def append(
    target: Bytes, used: int, form: Format, time: int, source: Bytes, start: int, length: int, original: int = 0
) -> int:
    """Put the record of the frame `source[start:start + length]` at `target[used:]`.

    Args:
        target: buffer of whole records, shape (size,); `used` bytes of it are taken.
        form: `Writer.format`. A frame longer than `snaplen` is cut, and its record says so.
        time: ns since 1970; for pcap, before 2106.
        source: shape (any,), such as `buffers().bytes.reshape(-1)`; the caller has checked the range.
        original: bytes that the frame had on the wire, if they were more.

    Returns:
        How much of the buffer is taken now; `used` unchanged if there was no room.
    """
    captured = min(length, form.snaplen)
    original = max(original, length)
    if form.interface < 0:
        return pcap.append_record(target, used, form.tick, time, source, start, original, captured)
    return pcapng.append_block(target, used, form.interface, form.tick, time, source, start, original, captured)


@compiled
def record_end(records: Bytes, at: int, form: Format) -> int:
    """Where the record ends that begins at `records[at:]`, of which the first 16 bytes are there."""
    if form.interface < 0:
        return at + pcap.RECORD_HEADER + word(records, at + 8, False)
    return at + word(records, at + 4, False)


@compiled
def record_time(records: Bytes, at: int, form: Format) -> int:
    """The time of the record that begins at `records[at:]`, in nanoseconds since 1970."""
    if form.interface < 0:
        return word(records, at, False) * SECOND + word(records, at + 4, False) * form.tick
    return (word(records, at + 12, False) << 32 | word(records, at + 16, False)) * form.tick


@compiled
def _append_some(
    target: Bytes,
    form: Format,
    times: Integers,
    data: Bytes,
    starts: Integers,
    lengths: Integers,
    originals: Integers,
    first: int,
) -> tuple[int, int]:
    """Fill `target` with frames from number `first` on: the bytes used, and the first frame that was not taken.

    It stops at a full buffer, and at a frame that lies outside `data`.
    """
    used = 0
    for i in range(first, times.size):
        inside = 0 <= starts[i] <= data.size and 0 <= lengths[i] <= data.size - starts[i]
        end = append(target, used, form, times[i], data, starts[i], lengths[i], originals[i]) if inside else used
        if end == used:
            return used, i
        used = end
    return used, times.size


@compiled
def _whole(records: Bytes, size: int, form: Format) -> tuple[int, int]:
    """How many records lie wholly within the first `size` bytes, and where the last of them ends."""
    count = 0
    end = 0
    while end + pcap.RECORD_HEADER <= size:
        after = record_end(records, end, form)
        if after > size:
            break
        count += 1
        end = after
    return count, end


# ---------------------------------------------------------------------------------------------------------------------
# Writing


class Interface(NamedTuple):
    """Where frames come from, for a pcapng file.

    Attributes:
        name: as the file tells it.
        counts: what the interface has counted since it was opened, see `pcapng.statistics`; asked as the file ends.
    """

    name: str = ""
    counts: Callable[[], dict[str, int]] | None = None


class Layout(NamedTuple):
    """What a file is like.

    Attributes:
        pcapng: else it is pcap.
        compressed: it is, so nobody but `Writer` can write into it.
    """

    pcapng: bool
    compressed: bool


def layout_of(path: str | Path) -> Layout:
    """What the name of a file asks for."""
    name = str(path)
    bare = name
    for suffix in compression.SUFFIXES:
        bare = bare.removesuffix(suffix)
    return Layout(bare.endswith(_PCAPNG_SUFFIXES), bare != name)


class Writer:
    """A capture file being written: little-endian, of Ethernet frames.

    Nothing is held back: what `write` and `flush` have taken is in the file when they return, whatever happens to the
    process afterwards. A record is written whole or, as far as the file allows, not at all.

    Args:
        path: a file, created or emptied; its name says the format. "-" is standard output.
        snaplen: bytes of a frame that are kept, 1 to 262144; 0 for all.
        nanoseconds: time stamps in nanoseconds, else in microseconds.
        interfaces: from which the frames come; `formats` has one for each.
        like: a name that says the format instead of `path`.

    Attributes:
        format: for `append`: of frames of the first interface.
        formats: of each interface.
        packets: records that are wholly in the file.
        clamped: frames with times that the format cannot tell, written with the nearest that it can.
        parts: buffers that its user needs, as what is handed over is written at once.
        size: bytes that are in it, before they are compressed.

    Raises:
        CaptureError: the file cannot be opened, is being read or written in ixy, or has no room; standard output is
            closed, or another `Writer`'s already.
        ConfigurationError: `snaplen` is out of range.
    """

    parts = 1

    def __init__(
        self,
        path: str | Path,
        snaplen: int = 65535,
        nanoseconds: bool = True,
        interfaces: Sequence[Interface] = (Interface(),),
        like: str | Path | None = None,
    ) -> None:
        if not 0 <= snaplen <= MAX_LENGTH:
            raise ConfigurationError(f"snaplen {snaplen} is not within 0 to {MAX_LENGTH}")
        self.packets = self.clamped = 0
        self._name = "standard output" if str(path) == "-" else str(path)
        self._began = clock.date_ns()
        self._interfaces = interfaces
        self._layout = layout_of(path if like is None else like)
        tick = 1 if nanoseconds else 1000
        numbers = range(len(interfaces)) if self._layout.pcapng else [_PCAP] * len(interfaces)
        self.formats = [Format(snaplen or MAX_LENGTH, tick, number) for number in numbers]
        self.format = self.formats[0]
        self._buffer: Bytes | None = None
        self._codec = compression.codec(str(path if like is None else like))
        self.size = self._checksum = 0
        if str(path) == "-" and _on_output:
            raise CaptureError("standard output takes one capture: name a file for the other")
        self._fd = open_emptied(path)
        self._begin(nanoseconds)
        if str(path) == "-":
            _on_output.add(self)

    def write(
        self, times: Integers, data: Bytes, starts: Integers, lengths: Integers, originals: Integers | None = None
    ) -> None:
        """Write frames: number i is `data[starts[i]:][:lengths[i]]`, at `times[i]` ns since 1970. To write none only
        compiles what writes some.

        Args:
            times, starts, lengths: integers, all of shape (n,). Times are written as the nearest that the format can
                tell: it has none before 1970, and none after 2106 (pcap) or 2262 (pcapng in nanoseconds).
            data: shape (any,), contiguous.
            originals: bytes that the frames had on the wire, where some are cut; of shape (n,).

        Raises:
            CaptureError: as `flush`.
            ValueError: the arrays differ in length, or a frame lies outside `data`; then the frames before it are
                written.
        """
        originals = lengths if originals is None else originals
        if not times.size == starts.size == lengths.size == originals.size:
            raise ValueError(f"{times.size} times, {starts.size} starts and {lengths.size} lengths")
        times = self._told(times)
        if self._buffer is None:
            self._buffer = np.empty(4 * MAX_LENGTH, np.uint8)
        done = 0
        while True:
            used, done = _append_some(self._buffer, self.format, times, data, starts, lengths, originals, done)
            if not used and done < times.size:
                raise ValueError(f"frame {done} lies outside the data")
            self.flush(self._buffer, used)
            if done >= times.size:
                return

    def flush(self, buffer: Bytes, used: int, packets: int | None = None) -> None:
        """Write the records that `append` put into the first `used` bytes of `buffer`; the buffer is free afterwards.

        Args:
            packets: how many they are, if the caller knows; else they are counted.

        Raises:
            CaptureError: the disk is full, the pipe closed, or the like. The message and `packets` say how many packets
                the file holds; a record that was written in part is cut off again where the file is a regular one.
        """
        written, error = self._put(buffer[:used])
        if packets is not None and not error:
            self.packets += packets
            return
        whole, end = _whole(buffer, written, self.format)
        self.packets += whole
        if error:
            self._cut(written - end)
            raise self._failure(error)

    @property
    def complaint(self) -> str | None:
        """One line on times that the format could not tell; None if it could tell all."""
        end = 2262 if self._layout.pcapng else 2106
        what = f"times before 1970 or beyond {end}, written as the nearest that there are: {self.clamped}"
        return f"{self._name}: {what}" if self.clamped else None

    def fileno(self) -> int:
        """The file descriptor, for a kernel that writes what `append` formatted by itself.

        Raises:
            ConfigurationError: the file is compressed.
        """
        if self._codec:
            raise ConfigurationError(f"{self._name}: not compressed here: leave out the name's last part")
        return self._fd

    def close(self) -> None:
        """Close the file, with what the interfaces have counted in it. A second call does nothing.

        Raises:
            CaptureError: there is no room for that; or a file system that defers writing, such as NFS, failed to do it.
        """
        if self._fd < 0:
            return
        error = self._end()
        fd, self._fd = self._fd, -1
        _on_output.discard(self)
        try:
            os.close(fd)
        except OSError as late:
            error = error or late
        if error:
            raise self._failure(error)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self, nanoseconds: bool) -> None:
        snaplen = self.format.snaplen
        if self._layout.pcapng:
            described = [pcapng.description(ETHERNET, each.name, snaplen, nanoseconds) for each in self._interfaces]
            header = pcapng.section_header() + b"".join(described)
        else:
            header = pcap.file_header(snaplen, nanoseconds)
        begun, error = self._write(self._codec.begin()) if self._codec else (0, None)
        if error is None:
            written, error = self._put(np.frombuffer(header, np.uint8))
            begun += written
        if error:
            self._cut(begun)
            os.close(self._fd)
            self._fd = -1
            raise self._failure(error)

    def _end(self) -> OSError | None:
        """Write what ends a file; what went wrong."""
        blocks = b""
        if self._layout.pcapng:
            times = self._began, max(clock.date_ns(), self._began)
            blocks = b"".join(
                pcapng.statistics(number, times, self.format.tick, each.counts())
                for number, each in enumerate(self._interfaces)
                if each.counts
            )
        if not blocks and not self._codec:
            return None
        written, error = self._put(np.frombuffer(blocks, np.uint8))
        if error:
            self._cut(written)
        if self._codec:
            _, late = self._write(self._codec.ending(self.size, self._checksum))
            error = error or late
        return error

    def _put(self, data: Bytes) -> tuple[int, OSError | None]:
        """Write `data`, compressed if it is to be: how much of it is in the file, and what stopped that."""
        if self._codec is None:
            written, error = self._write(data)
            self.size += written
            return written, error
        if not data.size:
            return 0, None
        written, error = self._write(self._codec.compress(data.data))
        if error:
            self._cut(written)
            return 0, error
        self.size += data.size
        self._checksum = zlib.crc32(data.data, self._checksum)
        return data.size, None

    def _write(self, data: Bytes | bytes) -> tuple[int, OSError | None]:
        """Write all of `data`, or as much as can be, and what stopped it."""
        rest = memoryview(cast("bytes", data))
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # whoever shares standard output may have made it so
                select.select([], [self._fd], [])
            except OSError as error:
                return size - len(rest), error
        return size, None

    def _cut(self, torn: int) -> None:
        """Take the last `torn` bytes back."""
        if torn and is_regular(self._fd):
            os.ftruncate(self._fd, os.lseek(self._fd, -torn, os.SEEK_CUR))

    def _told(self, times: Integers) -> Integers:
        """Times as the format can tell them."""
        told = np.clip(times, 0, pcapng.LAST if self._layout.pcapng else pcap.LAST)
        self.clamped += int(np.count_nonzero(told != times))
        return told

    def _failure(self, error: OSError) -> CaptureError:
        return CaptureError(f"{self._name}: {reason(error)}; packets written whole: {self.packets}")


_on_output: WeakSet[Writer] = WeakSet()  # those that write to standard output
