"""The pcapng format: its blocks, read and written.

The format is that of draft-ietf-opsawg-pcapng, "PCAP Next Generation (pcapng) Capture File Format". A file is a row of
sections, each of which has a byte order and interfaces of its own; each interface has a link type, and a resolution of
time stamps. Blocks of packets are read by a kernel, which leaves those to Python that change how others are read. Other
blocks are passed over.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import CaptureError
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
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

MAGIC = b"\x0a\x0d\x0d\x0a"  # the type of the block that begins a section, the same in either byte order
SECTION, DESCRIPTION, OLD_PACKET, SIMPLE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6  # types of blocks
_ORDER_MAGIC = 0x1A2B3C4D
_FRAME = 12  # bytes of any block: type, length, and the length again at the end
_BOUND = (1 << 63) // SECOND - 1  # seconds that nanoseconds in 64 bits can tell
EARLIEST, LATEST = -_BOUND * SECOND, _BOUND * SECOND  # what times beyond these are told as
LAST = (1 << 63) - 1  # ns since 1970 that are written: in 2262
_AROUND = 32  # bytes of a block of a packet that are not the packet's
SECTION_BYTES, _DESCRIPTION_BYTES = 28, 20  # the least that blocks have
_MICROSECONDS = 10**6  # units of a second where an interface says nothing of its resolution
_MAX_INTERFACES = 1 << 16

# What is known of an interface: link type, units of a second, seconds to be added, bytes of a frame check sequence at
# the end of its frames, bytes of a frame that are kept (0 for all)
LINK, UNITS, SECONDS, FCS, SNAPLEN, COLUMNS = range(6)

# Why the kernel came back
_FULL, _BLOCK, _STOP = range(3)

# Options (4.1, 4.2, 4.6)
_END, _NAME, _RESOLUTION, _FCS_LENGTH, _OFFSET = 0, 2, 9, 13, 14
_APPLICATION = 4
_START_TIME, _END_TIME, _RECEIVED, _DROPPED, _ACCEPTED, _DELIVERED = 2, 3, 4, 5, 6, 8


class Records(Unread):
    """The packets of a pcapng file.

    Attributes:
        data: the file, as far as it is read.
        links: the link types of all interfaces met so far, of all sections.
        names: theirs; "" where the file has none.
        clamped: packets so far whose times are beyond `EARLIEST` and `LATEST`, and are told as these.

    Raises:
        CaptureError: the file does not begin as one does.
    """

    def __init__(self, path: object, data: Bytes) -> None:
        self.data = data
        self._big = False
        self.rewind()
        problem = self._section()
        if problem:
            raise CaptureError(f"{path}: {problem}")
        self._describe()  # the interfaces that are described first

    def rewind(self) -> None:
        """Begin again."""
        self.links: list[int] = []
        self.names: list[str] = []
        self._problem: str | None = None
        self._first = self._end = self._gone = 0  # number of the section's first interface; place in the file
        self._interfaces = np.zeros((0, COLUMNS), np.int64)
        self.clamped = 0

    def fill(self, table: Table, count: int, end: int) -> int:
        """Fill the columns of a table, from number `count` up to `end`, with the next packets; how many it holds then,
        fewer than `end` only at the end of the file."""
        why, before = _BLOCK, count
        while why == _BLOCK and self._describe():
            count, self._end, why = _scan(
                self.data, self._end, self._big, self._interfaces, self._first, table, count, end
            )
        self.clamped += _clamped(table, before, count)
        return count

    def damage(self, packets: int) -> str | None:
        """Why nothing was read after so many packets; None if the file ends there."""
        if self._end == self.data.size:
            return None
        what = self._problem or self.missing or self._wrong()
        return f"after packet {packets}, at byte {self._gone + self._end}: {what}"

    @property
    def missing(self) -> str | None:
        """What is missing of the next block, which is not wholly there; None if that is not why it cannot be read."""
        left = self.data.size - self._end
        if left < _FRAME:
            return f"truncated: {left} bytes of a block"
        total = self._total()
        whole = self._problem or total % 4 or total <= left
        return None if whole else f"truncated: {left} of {total} bytes of a block"

    def _wrong(self) -> str:
        total = self._total()
        if total < _FRAME or total % 4:
            return f"damaged: a block of {total} bytes"
        return "damaged: a block that contradicts itself or names an unknown interface"

    def _describe(self) -> bool:
        """Take in the blocks that begin sections and describe interfaces, up to the next other one; False if that is
        not possible."""
        while not self._problem and self._end + _FRAME <= self.data.size:
            kind = word(self.data, self._end, self._big)
            if kind not in (SECTION, DESCRIPTION):
                return True
            if self._total() > self.data.size - self._end:
                return False
            self._problem = self._section() if kind == SECTION else self._interface()
        return not self._problem

    def _total(self) -> int:
        """How many bytes the block at hand has; 0 of a section whose byte order nobody knows."""
        head = self.data[self._end : self._end + _FRAME].tobytes()
        order = _order_of(head) if head.startswith(MAGIC) else self._order
        return struct.unpack_from(f"{order}I", head, 4)[0] if order else 0

    @property
    def _order(self) -> str:
        return ">" if self._big else "<"

    def _section(self) -> str | None:
        """Begin a section (4.1). What is wrong with it, if something is."""
        head = self.data[self._end : self._end + SECTION_BYTES].tobytes()
        if len(head) < SECTION_BYTES:
            return f"truncated: {len(head)} bytes of a pcapng section's header of {SECTION_BYTES}"
        order = _order_of(head)
        if order is None:
            return f"damaged: a pcapng section of the byte order {head[8:12].hex(' ')}"
        total, major = struct.unpack(f"{order}4xI4xH", head[:14])
        if major != 1:
            return f"pcapng of version {major}, not 1"
        if not SECTION_BYTES <= total <= self.data.size - self._end or total % 4:
            return f"truncated or damaged: a pcapng section's header of {total} bytes"
        self._big, self._first = order == ">", len(self.links)
        self._interfaces = np.zeros((0, COLUMNS), np.int64)
        self._end += total
        return None

    def _interface(self) -> str | None:
        """Take in an interface (4.2). What is wrong with it, if something is."""
        start, order = self._end, self._order
        total = word(self.data, start + 4, self._big)
        if not _DESCRIPTION_BYTES <= total <= self.data.size - start or total % 4:
            return f"truncated or damaged: an interface's block of {total} bytes"
        if len(self._interfaces) == _MAX_INTERFACES:
            return f"damaged: more than {_MAX_INTERFACES} interfaces"
        block = self.data[start : start + total].tobytes()
        link, snaplen = struct.unpack_from(f"{order}H2xI", block, 8)
        options = _options(block[16:-4], order)
        units = _units(options.get(_RESOLUTION, b""))
        if units is None:
            return f"interface {len(self._interfaces)} has a resolution of time that is too fine"
        offset = options.get(_OFFSET, b"")
        seconds = struct.unpack(f"{order}q", offset)[0] if len(offset) == 8 else 0
        fcs = options.get(_FCS_LENGTH, b"\0")
        row = [link, units, seconds, fcs[0] if fcs else 0, snaplen]
        self._interfaces = np.concatenate([self._interfaces, np.array([row], np.int64)])
        self.links.append(link)
        self.names.append(options.get(_NAME, b"").rstrip(b"\0").decode(errors="replace"))
        self._end += total
        return None


def _order_of(head: bytes) -> str | None:
    """The byte order of a section that begins so, None if it has none, or is no section."""
    orders = {MAGIC + struct.pack(f"{order}I", _ORDER_MAGIC): order for order in "<>"}
    return orders.get(head[:4] + head[8:12])


def section_bytes(head: bytes) -> int:
    """How many bytes a section's header has that begins so; the least where it does not say."""
    order = _order_of(head)
    return struct.unpack_from(f"{order}I", head, 4)[0] if order else SECTION_BYTES


def _options(data: bytes, order: str) -> dict[int, bytes]:
    """The options of a block (3.5), as far as they are whole."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from(f"{order}HH", data, at)
        if code == _END or at + 4 + size > len(data):
            break
        found[code] = data[at + 4 : at + 4 + size]
        at += 4 + _padded(size)
    return found


def _units(resolution: bytes) -> int | None:
    """Units of a second, by the option if_tsresol: a power of 10, or of 2. None if they do not fit a word."""
    if not resolution:
        return _MICROSECONDS
    power = resolution[0] & 0x7F
    units = 2**power if resolution[0] & 0x80 else 10**power
    return units if units < 2**62 else None


def _padded(size: int) -> int:
    return -(-size // 4) * 4


@compiled
def _scan(
    data: Bytes, position: int, big: bool, interfaces: NDArray[np.int64], first: int, table: Table, count: int, end: int
) -> tuple[int, int, int]:
    """Fill the columns of `table` from number `count` up to `end` with the packets from `position` on.

    Where a block lies is known when the length of the one before it has been read. So where many are of one length,
    that is taken for granted of some more, which are read at the same time, and looked at then. Sections of the other
    byte order are rare, and read one by one.

    Args:
        interfaces: what is known of the section's interfaces, shape (n, COLUMNS).
        first: the number of the first of them in the file.

    Returns:
        How many packets the table holds, the position after them, and why it ends there: the table is full, a block is
        to be looked at, or nothing can be read.
    """
    alike = total = 0
    while count < end:
        if alike == ALIKE:
            while count + ALIKE <= end and _goes_on(data, position, total, interfaces):
                _take_alike(data, position, total, interfaces, first, table, count)
                position += ALIKE * total
                count += ALIKE
            alike = 0
            continue
        if position + _FRAME > data.size:
            return count, position, _STOP
        prefetch(data, position + AHEAD)
        before = total
        kind, total = word(data, position, big), word(data, position + 4, big)
        if kind in (SECTION, DESCRIPTION):
            return count, position, _BLOCK
        if total < _FRAME or total % 4 != 0 or total > data.size - position:
            return count, position, _STOP
        if word(data, position + total - 4, big) != total:
            return count, position, _STOP
        if kind in (PACKET, OLD_PACKET, SIMPLE):
            if not _packet(data, position, big, kind, total, interfaces, first, table, count):
                return count, position, _STOP
            count += 1
        alike = alike + 1 if kind == PACKET and total == before and not big else 0
        position += total
    return count, position, _FULL


@compiled
def _clamped(table: Table, first: int, end: int) -> int:
    """How many packets in these columns have times that cannot be told."""
    count = 0
    for i in range(first, end):
        count += (table[TIME, i] == EARLIEST) | (table[TIME, i] == LATEST)
    return count


@compiled
def _goes_on(data: Bytes, position: int, total: int, interfaces: NDArray[np.int64]) -> bool:
    """Whether at `position` ALIKE little-endian blocks of packets begin, each `total` bytes long and within the
    file, all of one interface, and whether none contradicts itself."""
    if total * ALIKE > data.size - position:
        return False
    interface = word(data, position + 8, False)
    different = captured = 0
    for i in range(ALIKE):
        at = position + i * total
        different |= (word(data, at, False) ^ PACKET) | (word(data, at + 4, False) ^ total)
        different |= (word(data, at + 8, False) ^ interface) | (word(data, at + total - 4, False) ^ total)
        captured = max(captured, word(data, at + 20, False))
    return different == 0 and interface < interfaces.shape[0] and captured <= min(total - _AROUND, MAX_LENGTH)


@compiled
def _take_alike(
    data: Bytes,
    position: int,
    total: int,
    interfaces: NDArray[np.int64],
    first: int,
    table: Table,
    column: int,
) -> None:
    """Fill columns of `table`, from `column` on, with the packets of such blocks."""
    interface = word(data, position + 8, False)
    units, seconds, fcs = interfaces[interface, UNITS], interfaces[interface, SECONDS], interfaces[interface, FCS]
    for i in range(ALIKE):
        at = position + i * total
        prefetch(data, at + AHEAD)
        captured, original = word(data, at + 20, False), word(data, at + 24, False)
        time = nanoseconds(_stamp_at(data, at, False), units, seconds)
        _note(table, column + i, at + _AROUND - 4, captured, original, time, first + interface, fcs)


@compiled
def _packet(
    data: Bytes,
    at: int,
    big: bool,
    kind: int,
    total: int,
    interfaces: NDArray[np.int64],
    first: int,
    table: Table,
    column: int,
) -> bool:
    """Fill a column of `table` with the packet of the block at `data[at:]`; False if the block contradicts itself."""
    around = 16 if kind == SIMPLE else _AROUND
    if total < around:
        return False
    interface, time = 0, 0
    if kind == SIMPLE:
        original = word(data, at + 8, big)
        captured = min(original, total - around)
        if interfaces.shape[0] > 0 and interfaces[0, SNAPLEN] > 0:
            captured = min(captured, interfaces[0, SNAPLEN])
    else:
        interface, captured, original = word(data, at + 8, big), word(data, at + 20, big), word(data, at + 24, big)
        if kind == OLD_PACKET:  # the other half counts drops
            interface = interface >> 16 if big else interface & 0xFFFF
    if interface >= interfaces.shape[0] or captured > total - around or captured > MAX_LENGTH:
        return False
    if kind != SIMPLE:
        time = nanoseconds(_stamp_at(data, at, big), interfaces[interface, UNITS], interfaces[interface, SECONDS])
    _note(table, column, at + around - 4, captured, original, time, first + interface, interfaces[interface, FCS])
    return True


@compiled
def _stamp_at(data: Bytes, at: int, big: bool) -> int:
    """The time of the packet of the block at `data[at:]`, in units of its interface."""
    high = word(data, at + 12, big)
    return (high - (high >> 31 << 32)) << 32 | word(data, at + 16, big)


@compiled
def _note(
    table: Table, column: int, start: int, captured: int, original: int, time: int, interface: int, fcs: int
) -> None:
    """Fill a column of `table`; the last `fcs` bytes of the frame are left out."""
    if fcs > 0:
        original = max(original - fcs, 0)
        captured = min(captured, original)
    column &= INDEX
    table[OFFSET, column] = start
    table[LENGTH, column] = captured
    table[ORIGINAL, column] = original
    table[TIME, column] = time
    table[INTERFACE, column] = interface


@compiled
def nanoseconds(stamp: int, units: int, offset: int) -> int:
    """Nanoseconds since 1970 of a time stamp in units of a second, to which so many seconds are added.

    A stamp is taken for a number with a sign: so programs that write moments before 1970 do. What is beyond the years
    1677 to 2262 is told as the nearest moment of these.
    """
    if units == SECOND and offset == 0:
        return stamp
    seconds = stamp // units
    rest = stamp % units
    if units <= SECOND:
        fraction = rest * SECOND // units
    elif units % SECOND == 0:
        fraction = rest // (units // SECOND)
    else:  # a power of 2, of which 33 bits are exact to the nanosecond
        while units > 1 << 33:
            units >>= 1
            rest >>= 1
        fraction = rest * SECOND // units
    if (seconds < 0) == (offset < 0):  # their sum might be too large for a word
        seconds, offset = min(max(seconds, -_BOUND), _BOUND), min(max(offset, -_BOUND), _BOUND)
    seconds += offset
    if abs(seconds) >= _BOUND:
        return LATEST if seconds > 0 else EARLIEST
    return seconds * SECOND + fraction


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def section_header() -> bytes:
    """Begins a file: little-endian, of a length that nobody knows yet."""
    return _block(SECTION, struct.pack("<IHHq", _ORDER_MAGIC, 1, 0, -1) + _option(_APPLICATION, b"ixy") + _option())


def description(link: int, name: str, snaplen: int, nanosecond: bool) -> bytes:
    """Describes an interface, of link type `link`."""
    named = _option(_NAME, name.encode()) if name else b""
    resolution = _option(_RESOLUTION, b"\x09" if nanosecond else b"\x06")
    return _block(DESCRIPTION, struct.pack("<HHI", link, 0, snaplen) + named + resolution + _option())


def statistics(interface: int, times: tuple[int, int], tick: int, counts: dict[str, int]) -> bytes:
    """What an interface has seen.

    Args:
        times: when that began and ended, in nanoseconds since 1970.
        tick: nanoseconds in a unit of the interface's times.
        counts: packets "received" and "dropped" since the interface was opened, those that a filter "accepted", and
            that were "delivered" to the user; each may be left out.
    """
    began, ended = (_stamp(time, tick) for time in times)
    options = _option(_START_TIME, began) + _option(_END_TIME, ended)
    codes = {"received": _RECEIVED, "dropped": _DROPPED, "accepted": _ACCEPTED, "delivered": _DELIVERED}
    for name, code in codes.items():
        if name in counts:
            options += _option(code, struct.pack("<Q", counts[name]))
    return _block(STATISTICS, struct.pack("<I", interface) + ended + options + _option())


def _stamp(time: int, tick: int) -> bytes:
    units = time // tick & 0xFFFF_FFFF_FFFF_FFFF
    return struct.pack("<II", units >> 32, units & 0xFFFF_FFFF)


def _option(code: int = _END, value: bytes = b"") -> bytes:
    return struct.pack("<HH", code, len(value)) + value.ljust(_padded(len(value)), b"\0")


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + _FRAME)
    return struct.pack("<I", kind) + size + body + size


@compiled
def append_block(
    target: Bytes,
    used: int,
    interface: int,
    tick: int,
    time: int,
    source: Bytes,
    start: int,
    length: int,
    captured: int,
) -> int:
    """Put the block of a frame at `target[used:]` (4.3); where it ends, or `used` if there is no room."""
    padded = (captured + 3) & ~3
    total = _AROUND + padded
    end = used + total
    if end > target.size:
        return used
    stamp = time if tick == 1 else time // tick
    store_word(target, end - 8, 0)  # the padding; the rest is written over what it covers besides
    store_word(target, used, PACKET)
    store_word(target, used + 4, total)
    store_word(target, used + 8, interface)
    store_word(target, used + 12, stamp >> 32)
    store_word(target, used + 16, stamp)
    store_word(target, used + 20, captured)
    store_word(target, used + 24, length)
    copy(target, used + 28, source, start, captured)
    store_word(target, end - 4, total)
    return end
