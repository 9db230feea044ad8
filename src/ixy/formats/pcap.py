"""Capture files in the pcap format, read as arrays and written record by record.

A capture is indexed once, by a kernel, and then is a structure of arrays over the mapped file: a file of several
gigabytes costs address space and 32 bytes a packet. Writing goes through one kernel as well, `append`, so that a
compiled loop formats records itself and calls for a `Writer` only when its buffer is full.

The format is that of draft-ietf-opsawg-pcap, "PCAP Capture File Format"; what the draft leaves open follows libpcap.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

import numpy as np

from ixy.errors import CaptureError, ConfigurationError
from ixy.jit import compiled
from ixy.streams import closed
from ixy.unsafe import copy

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[Any]

MAX_LENGTH = 262144  # bytes of a record: libpcap's MAXIMUM_SNAPLEN, above which it too calls a file damaged
FILE_HEADER = 24  # bytes
RECORD_HEADER = 16  # bytes
_SECOND = 1_000_000_000  # ns
_PCAPNG = b"\x0a\x0d\x0d\x0a"  # the type of the block that begins a file of the successor format

# Magic number, as the file has it: byte order, and nanoseconds in one unit of a time stamp's fraction.
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}

# The upper half of the link type field tells of frame check sequences (File Header, "LinkType").
_ETHERNET = 1
_FCS_PRESENT = 1 << 26
_FCS_SHIFT = 28  # the bits from here up count them in units of two bytes
_LINK_TYPES = {  # www.tcpdump.org/linktypes.html; those that one meets on the way to an Ethernet capture
    0: "BSD loopback",
    9: "PPP",
    12: "raw IP",
    101: "raw IP",
    105: "IEEE 802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked capture",
    127: "IEEE 802.11 with radiotap",
    189: "Linux USB",
    192: "PPI",
    195: "IEEE 802.15.4",
    201: "Bluetooth HCI",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked capture v2",
}

# ---------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """The frames of a capture file. Packet i is `data[offsets[i]:][:lengths[i]]`.

    Attributes:
        data: the whole file, uint8, read-only. A mapping: shortening the file while it is in use kills the process.
        offsets: where each frame begins in `data`; shape (n,), int64.
        lengths: bytes of each frame that the file holds, without a frame check sequence; shape (n,), int64.
        original: bytes that each frame had on the wire, likewise; shape (n,), int64. More than `lengths` if it was cut.
        times: ns since 1970; shape (n,), int64. Not necessarily rising.
        damage: one line on where and why reading stopped before the end of the file, or None.
    """

    data: Bytes
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    original: NDArray[np.int64]
    times: NDArray[np.int64]
    damage: str | None

    def __len__(self) -> int:
        return self.offsets.size

    @property
    def cut(self) -> int:
        """How many frames were longer on the wire than they are in the file."""
        return int(np.count_nonzero(self.lengths < self.original))


class _Layout(NamedTuple):
    """What the header of a file says of its records."""

    order: str  # "<" or ">", as `struct` has it
    tick: int  # ns in one unit of a time stamp's fraction
    fcs: int  # bytes of frame check sequence at the end of every frame


def read(path: str | Path) -> Capture:
    """Read a capture of Ethernet frames: pcap with microseconds or nanoseconds, in either byte order.

    A regular file is mapped; anything else, such as a pipe, is read to its end. While the capture is in use, no
    `Writer` opens the file.

    Raises:
        CaptureError: the file cannot be read, is no pcap file, or its frames are not Ethernet. Damage further on is no
            error: the packets before it are there, and `damage` says the rest.
    """
    try:
        with Path(path).open("rb") as file:
            _lock(file.fileno(), fcntl.LOCK_SH, path)
            head = file.read(FILE_HEADER)
            layout = _layout(path, head)
            if os.fstat(file.fileno()).st_size:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            else:
                content = head + file.read()
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    return _index(np.frombuffer(content, np.uint8), layout)


def _layout(path: str | Path, head: bytes) -> _Layout:
    magic = head[:4]
    if magic == _PCAPNG:
        raise CaptureError(f"{path}: pcapng, not pcap; convert it: editcap -F pcap {path} OUT.pcap")
    if len(magic) == 4 and magic not in _MAGICS:
        raise CaptureError(f"{path}: not a pcap file: it begins with {magic.hex(' ')}")
    if len(head) < FILE_HEADER:
        raise CaptureError(f"{path}: truncated: {len(head)} bytes of a pcap file's header of {FILE_HEADER}")
    order, tick = _MAGICS[magic]
    major, minor, link = struct.unpack(f"{order}HH12xI", head[4:])
    if (major, minor) != (2, 4):
        raise CaptureError(
            f"{path}: pcap version {major}.{minor}, not 2.4; convert it: editcap -F pcap {path} OUT.pcap"
        )
    number = link & 0xFFFF
    if number != _ETHERNET:
        name = _LINK_TYPES.get(number, "unknown")
        raise CaptureError(
            f"{path}: link type {number} ({name}), not {_ETHERNET} (Ethernet); capture on an Ethernet port"
        )
    return _Layout(order, tick, fcs=2 * (link >> _FCS_SHIFT) if link & _FCS_PRESENT else 0)


def _index(data: Bytes, layout: _Layout) -> Capture:
    big = layout.order == ">"
    parts: list[NDArray[np.int64]] = []
    end, full = FILE_HEADER, True
    while full:
        table = np.empty((4, 1 << 16), np.int64)
        count, end = _scan(data, end, big, layout.tick, table)
        parts.append(table[:, :count])
        full = count == table.shape[1]
    offsets, lengths, original, times = np.concatenate(parts, axis=1)
    if layout.fcs:
        original = np.maximum(original - layout.fcs, 0)
        lengths = np.minimum(lengths, original)
    return Capture(data, offsets, lengths, original, times, _damage(data, end, big, len(offsets)))


def _damage(data: Bytes, end: int, big: bool, packets: int) -> str | None:
    """Why the record that begins at `end` was not read; None if the file ends there."""
    left = data.size - end
    if not left:
        return None
    where = f"packet {packets + 1} at byte {end}"
    if left < RECORD_HEADER:
        return f"{where}: truncated: {left} bytes of a record header of {RECORD_HEADER}"
    length = _word(data, end + 8, big)
    if length > MAX_LENGTH:
        return f"{where}: damaged: a length of {length} bytes"
    return f"{where}: truncated: {left - RECORD_HEADER} of {length} bytes"


@compiled
def _scan(data: Bytes, position: int, big: bool, tick: int, table: NDArray[np.int64]) -> tuple[int, int]:
    """Fill the columns of `table` (offset, length, original length, time) with the records from `position` on.

    Returns the number of records and the position after them.
    """
    count = 0
    while count < table.shape[1] and position + RECORD_HEADER <= data.size:
        body = position + RECORD_HEADER
        length = _word(data, position + 8, big)
        if length > MAX_LENGTH or length > data.size - body:
            break
        table[0, count] = body
        table[1, count] = length
        table[2, count] = _word(data, position + 12, big)
        table[3, count] = _word(data, position, big) * _SECOND + _word(data, position + 4, big) * tick
        position = body + length
        count += 1
    return count, position


@compiled
def _word(data: Bytes, at: int, big: bool) -> int:
    """The unsigned 32-bit word at `data[at:]`, at any alignment."""
    a, b, c, d = np.int64(data[at]), np.int64(data[at + 1]), np.int64(data[at + 2]), np.int64(data[at + 3])
    if big:
        return int(a << 24 | b << 16 | c << 8 | d)
    return int(d << 24 | c << 16 | b << 8 | a)


# ---------------------------------------------------------------------------------------------------------------------
# Formatting, for compiled code


class Format(NamedTuple):
    """How a `Writer` wants its records, as kernels see it.

    Attributes:
        snaplen: bytes of a frame that are kept.
        tick: ns in one unit of a time stamp's fraction.
    """

    snaplen: int
    tick: int


@compiled
def record_bytes(length: int) -> int:
    """The bytes of the record of a frame of which `length` bytes are kept. A buffer must have room for one such."""
    return RECORD_HEADER + length


@compiled
def append(target: Bytes, used: int, form: Format, time: int, source: Bytes, start: int, length: int) -> int:
    """Put the record of the frame `source[start:start + length]` at `target[used:]` (Packet Record).

    Args:
        target: buffer of whole records, shape (size,); `used` bytes of it are taken.
        form: `Writer.format`. A frame longer than `snaplen` is cut, and its record says so.
        time: ns since 1970, before 2106.
        source: shape (any,), such as `buffers().bytes.reshape(-1)`; the caller has checked the range.

    Returns:
        How much of the buffer is taken now; `used` unchanged if there was no room.
    """
    captured = min(length, form.snaplen)
    end = used + record_bytes(captured)
    if end > target.size:
        return used
    seconds = time // _SECOND
    _put_word(target, used, seconds)
    _put_word(target, used + 4, (time - seconds * _SECOND) // form.tick)
    _put_word(target, used + 8, captured)
    _put_word(target, used + 12, length)
    copy(target, used + RECORD_HEADER, source, start, captured)
    return end


@compiled
def _put_word(target: Bytes, at: int, value: int) -> None:
    """Write a 32-bit word, little-endian, at any alignment."""
    for byte in range(4):
        target[at + byte] = (value >> 8 * byte) & 0xFF


@compiled
def _append_some(
    target: Bytes, form: Format, times: Integers, data: Bytes, starts: Integers, lengths: Integers, first: int
) -> tuple[int, int]:
    """Fill `target` with frames from number `first` on: the bytes used, and the first frame that was not taken.

    It stops at a full buffer, and at a frame that lies outside `data`.
    """
    used = 0
    for i in range(first, times.size):
        inside = 0 <= starts[i] <= data.size and 0 <= lengths[i] <= data.size - starts[i]
        end = append(target, used, form, times[i], data, starts[i], lengths[i]) if inside else used
        if end == used:
            return used, i
        used = end
    return used, times.size


@compiled
def _whole(records: Bytes, size: int) -> tuple[int, int]:
    """How many records lie wholly within the first `size` bytes, and where the last of them ends."""
    count = 0
    end = 0
    while end + RECORD_HEADER <= size:
        after = end + RECORD_HEADER + _word(records, end + 8, False)
        if after > size:
            break
        count += 1
        end = after
    return count, end


# ---------------------------------------------------------------------------------------------------------------------
# Writing

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EPIPE: "pipe closed",
    errno.EFBIG: "file too large for the limit on file sizes (ulimit -f)",
}


class Writer:
    """A capture file being written: little-endian pcap of Ethernet frames.

    Nothing is held back: what `write` and `flush` have taken is in the file when they return, whatever happens to the
    process afterwards. A record is written whole or, as far as the file allows, not at all.

    Args:
        path: a file, created or emptied; "-" is standard output.
        snaplen: bytes of a frame that are kept, 1 to 262144.
        nanoseconds: time stamps in nanoseconds, else in microseconds.

    Attributes:
        format: for `append`.
        packets: records that are wholly in the file.

    Raises:
        CaptureError: the file cannot be opened, is being read or written in ixy, or has no room; standard output is
            closed, or another `Writer`'s already.
        ConfigurationError: `snaplen` is out of range.
    """

    def __init__(self, path: str | Path, snaplen: int = 65535, nanoseconds: bool = True) -> None:
        if not 0 < snaplen <= MAX_LENGTH:
            raise ConfigurationError(f"snaplen {snaplen} is not within 1 to {MAX_LENGTH}")
        self.format = Format(snaplen, 1 if nanoseconds else 1000)
        self.packets = 0
        self._name = "standard output" if str(path) == "-" else str(path)
        self._buffer = np.empty(4 * MAX_LENGTH, np.uint8)
        self._fd = _open(path)
        self._write_header(nanoseconds)
        if str(path) == "-":
            _on_output.add(self)

    def write(self, times: Integers, data: Bytes, starts: Integers, lengths: Integers) -> None:
        """Write frames: number i is `data[starts[i]:][:lengths[i]]`, at `times[i]` ns since 1970.

        Args:
            times, starts, lengths: integers, all of shape (n,).
            data: shape (any,), contiguous.

        Raises:
            CaptureError: as `flush`.
            ValueError: the arrays differ in length, or a frame lies outside `data`; the frames before it are written.
        """
        if not times.size == starts.size == lengths.size:
            raise ValueError(f"{times.size} times, {starts.size} starts and {lengths.size} lengths")
        done = 0
        while done < times.size:
            used, done = _append_some(self._buffer, self.format, times, data, starts, lengths, done)
            if not used:
                raise ValueError(f"frame {done} lies outside the data")
            self.flush(self._buffer, used)

    def flush(self, buffer: Bytes, used: int) -> None:
        """Write the records that `append` put into the first `used` bytes of `buffer`; the buffer is free afterwards.

        Raises:
            CaptureError: the disk is full, the pipe closed, or the like. The message and `packets` say how many packets
                the file holds; a record that was written in part is cut off again where the file is a regular one.
        """
        written, error = self._write(buffer[:used])
        packets, end = _whole(buffer, written)
        self.packets += packets
        if error:
            self._cut(written - end)
            raise self._failure(error)

    def fileno(self) -> int:
        """The file descriptor, for a kernel that writes what `append` formatted by itself."""
        return self._fd

    def close(self) -> None:
        """Close the file. A second call does nothing.

        Raises:
            CaptureError: a file system that defers writing, such as NFS, failed to do it.
        """
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _on_output.discard(self)
            try:
                os.close(fd)
            except OSError as error:
                raise self._failure(error) from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write_header(self, nanoseconds: bool) -> None:
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        header = struct.pack("<IHHIIII", magic, 2, 4, 0, 0, self.format.snaplen, _ETHERNET)
        written, error = self._write(np.frombuffer(header, np.uint8))
        if error:
            self._cut(written)
            os.close(self._fd)
            raise self._failure(error)

    def _write(self, data: Bytes) -> tuple[int, OSError | None]:
        """Write all of `data`, or as much as can be, and what stopped it."""
        written = 0
        while written < data.size:
            try:
                written += os.write(self._fd, data[written:].data)
            except BlockingIOError:  # whoever shares standard output may have made it so
                select.select([], [self._fd], [])
            except OSError as error:
                return written, error
        return written, None

    def _cut(self, torn: int) -> None:
        """Take the last `torn` bytes back."""
        if torn and _regular(self._fd):
            os.ftruncate(self._fd, os.lseek(self._fd, -torn, os.SEEK_CUR))

    def _failure(self, error: OSError) -> CaptureError:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        return CaptureError(f"{self._name}: {reason}; packets written whole: {self.packets}")


_on_output: WeakSet[Writer] = WeakSet()  # those that write to standard output


def check_place(path: str | Path) -> None:
    """Refuse a path at which no file can be, without touching what is there.

    Raises:
        CaptureError: there is no such folder, or a folder of that name.
    """
    if str(path) == "-":
        return
    try:
        folder = stat.S_ISDIR(Path(path).parent.stat().st_mode)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if not folder or Path(path).is_dir():
        raise CaptureError(f"{path}: {os.strerror(errno.EISDIR if folder else errno.ENOTDIR)}")


def _open(path: str | Path) -> int:
    """A descriptor of the emptied file, or a second one of standard output: either is ours to close."""
    try:
        fd = _standard_output() if str(path) == "-" else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if _regular(fd):
        try:
            _claim(fd, path)
        except CaptureError:
            os.close(fd)
            raise
    return fd


def _standard_output() -> int:
    if closed(1):
        raise CaptureError("standard output is closed: name a file")
    if _on_output:
        raise CaptureError("standard output takes one capture: name a file for the other")
    return os.dup(1)


def _claim(fd: int, path: str | Path) -> None:
    """Empty a file that nobody in ixy reads or writes. Standard output is not emptied, and its lock not kept."""
    _lock(fd, fcntl.LOCK_EX, path)
    if str(path) == "-":
        _lock(fd, fcntl.LOCK_UN, path)
        return
    os.ftruncate(fd, 0)
    _lock(fd, fcntl.LOCK_SH, path)  # it may be read as it grows


def _regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _lock(fd: int, kind: int, path: str | Path) -> None:
    """Keep others from emptying a file that is mapped: their next access beyond its end would be a SIGBUS."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CaptureError(f"{path}: in use: it is being read or written; name another file") from None
    except OSError:
        pass  # not every file system has locks
