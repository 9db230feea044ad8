"""The pcap format: how its records are read and written, one after the other.

The format is that of draft-ietf-opsawg-pcap, "PCAP Capture File Format"; what the draft leaves open follows libpcap.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ixy.errors import CaptureError
from ixy.formats.links import ETHERNET
from ixy.formats.unread import Unread
from ixy.formats.words import (
    AHEAD,
    ALIKE,
    INDEX,
    INTERFACE,
    LENGTH,
    MAX_LENGTH,
    OFFSET,
    ORIGINAL,
    SECOND,
    TIME,
    word,
)
from ixy.jit import compiled
from ixy.unsafe import copy, prefetch, store_word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

FILE_HEADER = 24  # bytes
RECORD_HEADER = 16  # bytes
LAST = 2**32 * SECOND - 1  # ns since 1970: in 2106

# Magic number, as the file has it: byte order, and nanoseconds in one unit of a time stamp's fraction.
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}

# The upper half of the link type field tells of frame check sequences (File Header, "LinkType").
_FCS_PRESENT = 1 << 26
_FCS_SHIFT = 28  # the bits from here up count them in units of two bytes


class Records(Unread):
    """The records of a pcap file.

    Attributes:
        data: the file, as far as it is read.
        links: the link type of each interface: of the only one.
        names: theirs, which the format does not tell.
        clamped: packets whose times cannot be told; all of the format can.

    Raises:
        CaptureError: the file is none.
    """

    clamped = 0

    def __init__(self, path: object, data: Bytes) -> None:
        head = data[:FILE_HEADER].tobytes()
        magic = head[:4]
        if len(magic) == 4 and magic not in _MAGICS:
            raise CaptureError(f"{path}: not a pcap or pcapng file: it begins with {magic.hex(' ')}")
        if len(head) < FILE_HEADER:
            raise CaptureError(f"{path}: truncated: {len(head)} bytes of a pcap file's header of {FILE_HEADER}")
        order, self._tick = _MAGICS[magic]
        major, minor, link = struct.unpack(f"{order}HH12xI", head[4:])
        if (major, minor) != (2, 4):
            raise CaptureError(
                f"{path}: pcap version {major}.{minor}, not 2.4; convert it: editcap -F pcap {path} OUT.pcap"
            )
        self.links, self.names = [link & 0xFFFF], [""]
        self._fcs = 2 * (link >> _FCS_SHIFT) if link & _FCS_PRESENT else 0
        self.data, self._big, self._end = data, order == ">", FILE_HEADER

    def fill(self, table: Table, count: int, end: int) -> int:
        """Fill the columns of a table, from number `count` up to `end`, with the next packets; how many it holds then,
        fewer than `end` only at the end of the file."""
        count, self._end = _scan(self.data, self._end, self._big, self._tick, self._fcs, table, count, end)
        return count

    def rewind(self) -> None:
        """Begin again."""
        self._end = FILE_HEADER

    def damage(self, packets: int) -> str | None:
        """Why no record was read after so many packets; None if the file ends there."""
        if self._end == self.data.size:
            return None
        what = self.missing or f"damaged: a length of {self._length()} bytes"
        return f"packet {packets + 1} at byte {self._gone + self._end}: {what}"

    @property
    def missing(self) -> str | None:
        """What is missing of the next record, which is not wholly there; None if that is not why it cannot be read."""
        left = self.data.size - self._end
        if left < RECORD_HEADER:
            return f"truncated: {left} bytes of a record header of {RECORD_HEADER}"
        length = self._length()
        return None if length > MAX_LENGTH else f"truncated: {left - RECORD_HEADER} of {length} bytes"

    def _length(self) -> int:
        return word(self.data, self._end + 8, self._big)


@compiled
def _scan(
    data: Bytes, position: int, big: bool, tick: int, fcs: int, table: Table, count: int, end: int
) -> tuple[int, int]:
    """Fill the columns of `table`, from number `count` up to `end`, with the records from `position` on.

    Where a record lies is known when the length of the one before it has been read. So where many are of one length,
    that is taken for granted of some more, which are read at the same time, and looked at then. Files of the other byte
    order are rare, and read one by one.

    Args:
        tick: ns in one unit of a time stamp's fraction.
        fcs: bytes of frame check sequence at the end of every frame, which are left out.

    Returns:
        The number of records that the table holds, and the position after them.
    """
    alike = length = 0
    while count < end and position + RECORD_HEADER <= data.size:
        if alike == ALIKE:
            while count + ALIKE <= end and _goes_on(data, position, length):
                for i in range(ALIKE):
                    at = position + i * (RECORD_HEADER + length)
                    _note(data, at, False, tick, fcs, length, table, count + i)
                position += ALIKE * (RECORD_HEADER + length)
                count += ALIKE
            alike = 0
            continue
        before, length = length, word(data, position + 8, big)
        if length > MAX_LENGTH or length > data.size - position - RECORD_HEADER:
            break
        _note(data, position, big, tick, fcs, length, table, count)
        alike = alike + 1 if length == before and not big else 0
        position += RECORD_HEADER + length
        count += 1
    return count, position


@compiled
def _goes_on(data: Bytes, position: int, length: int) -> bool:
    """Whether at `position` ALIKE little-endian records begin that are of this length, all of them within the file."""
    step = RECORD_HEADER + length
    if step * ALIKE > data.size - position:
        return False
    different = 0
    for i in range(ALIKE):
        different |= word(data, position + i * step + 8, False) ^ length
    return different == 0


@compiled
def _note(data: Bytes, at: int, big: bool, tick: int, fcs: int, length: int, table: Table, column: int) -> None:
    """Fill a column of `table` with the record at `data[at:]`, of a frame of `length` bytes."""
    prefetch(data, at + AHEAD)
    column &= INDEX
    original = max(word(data, at + 12, big) - fcs, 0)
    table[OFFSET, column] = at + RECORD_HEADER
    table[LENGTH, column] = min(length, original) if fcs > 0 else length
    table[ORIGINAL, column] = original
    table[TIME, column] = word(data, at, big) * SECOND + word(data, at + 4, big) * tick
    table[INTERFACE, column] = 0


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def file_header(snaplen: int, nanoseconds: bool) -> bytes:
    """A little-endian header, for Ethernet."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    return struct.pack("<IHHIIII", magic, 2, 4, 0, 0, snaplen, ETHERNET)


@compiled
def append_record(
    target: Bytes, used: int, tick: int, time: int, source: Bytes, start: int, length: int, captured: int
) -> int:
    """Put the record of a frame at `target[used:]` (Packet Record); where it ends, or `used` if there is no room."""
    end = used + RECORD_HEADER + captured
    if end > target.size:
        return used
    seconds = time // SECOND
    store_word(target, used, seconds)
    rest = time - seconds * SECOND
    store_word(target, used + 4, rest if tick == 1 else rest // tick)
    store_word(target, used + 8, captured)
    store_word(target, used + 12, length)
    copy(target, used + RECORD_HEADER, source, start, captured)
    return end
