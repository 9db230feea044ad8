"""Columns of a capture: what kernels read of each packet, part by part of a file.

Where a kind of header begins is found out once for each packet; then each of its fields is one loop over these places.
A part is as large as fits into a processor's cache, packets and all, so that every loop but the first finds it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.counts import COUNTS
from ixy.errors import ConfigurationError
from ixy.formats.words import INTERFACE, LENGTH, OFFSET, ORIGINAL, TIME
from ixy.headers import ABSENT, HEADERS, Field, fields
from ixy.jit import Direct, compiled
from ixy.packets.packets import Packets, new_packets
from ixy.packets.views import stored_packet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.filters import Filter

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

# What is there of every packet: rows of a table of packets, and the types in which they are kept
PACKET: dict[str, tuple[int, type]] = {
    "time": (TIME, np.int64),
    "captured": (LENGTH, np.int64),  # pandas and polars sum up 32 bits in 32 bits
    "length": (ORIGINAL, np.int64),
    "interface": (INTERFACE, np.uint32),
}
WIDE = 16  # bytes of a field that is two integers
_NOWHERE = -1  # where a header is that is not there
_BITS = (8, 16, 32, 64)  # of integers


def field_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of fields such as "ipv4.src", each once, where "ipv4" means all fields of that header. What is there of
    every packet may be named too, and is left out.

    Raises:
        ConfigurationError: there is no such header or field.
        TypeError: no sequence of names.
    """
    if isinstance(names, str) or not isinstance(cast(object, names), Iterable):
        raise TypeError(f"fields must be names, such as ('ipv4.src', 'udp.dport'), not {names!r}")
    return tuple(dict.fromkeys(each for name in names if name not in PACKET for each in _expanded(name)))


def _expanded(name: str) -> Iterable[str]:
    if not isinstance(cast(object, name), str):
        raise TypeError(f"a field is a name such as 'ipv4.src', not {name!r}")
    kind, _, field = name.partition(".")
    if kind not in HEADERS:
        raise ConfigurationError(f"field {name!r}: headers are {', '.join(HEADERS)}")
    known = fields(HEADERS[kind])
    if field not in known and name != kind:
        raise ConfigurationError(f"field {name!r}: {kind} has {', '.join(known)}")
    return [f"{kind}.{each}" for each in known] if name == kind else [name]


def field_of(name: str) -> Field[Any]:
    """The field of a header that a name such as "ipv4.src" means."""
    return fields(HEADERS[header_of(name)])[name.partition(".")[2]]


def header_of(name: str) -> str:
    """The name of its header."""
    return name.partition(".")[0]


def dtype_of(field: Field[Any]) -> np.dtype[Any]:
    """The least unsigned integer that holds a field; signed for the halves of one that is two."""
    if field.size == WIDE:
        return np.dtype(np.int64)
    return np.dtype(f"u{next(bits for bits in _BITS if field.mask < 1 << bits) // 8}")


class Columns:
    """Columns with room for so many packets, which are filled from the front.

    Args:
        names: fields of headers, by `field_names`.
        room: packets.

    Attributes:
        used: how many there are.
        values: an array for each column, by name; shape (room,), or (room, 2) for IPv6 addresses.
        absent: which packets lack a header, by the header's name; shape (room,), bool.
    """

    def __init__(self, names: Iterable[str], room: int) -> None:
        self.used = 0
        self._fields = {name: field_of(name) for name in names}
        self.values: dict[str, NDArray[Any]] = {name: np.zeros(room, kind) for name, (_, kind) in PACKET.items()}
        for name, field in self._fields.items():
            self.values[name] = np.zeros((room, 2) if field.size == WIDE else room, dtype_of(field))
        self.absent: dict[str, NDArray[Any]] = {header_of(name): np.zeros(room, np.bool_) for name in self._fields}

    @property
    def room(self) -> int:
        """How many packets more there is room for."""
        return len(self.values["time"]) - self.used

    def grow(self, room: int) -> None:
        """Have room for so many packets more."""
        for arrays in (self.values, self.absent):
            for name, array in arrays.items():
                larger = np.zeros((self.used + room, *array.shape[1:]), array.dtype)
                larger[: self.used] = array[: self.used]
                arrays[name] = larger

    def trim(self) -> None:
        """Have no room left."""
        for arrays in (self.values, self.absent):
            for name, array in arrays.items():
                arrays[name] = array[: self.used]

    def append(self, data: Bytes, rows: Table, places: NDArray[np.int64]) -> None:
        """Add packets, for which there is room.

        Args:
            data: the file in which they lie.
            rows: a table of them, shape (words.ROWS, n), each row contiguous.
            places: room for n integers.
        """
        first, last = self.used, self.used + rows.shape[1]
        places = places[: rows.shape[1]]
        for name, (row, _) in PACKET.items():
            self.values[name][first:last] = rows[row]
        for header, absent in self.absent.items():
            _locating(HEADERS[header].locate)((), data, rows[OFFSET], rows[LENGTH], places, *_nothing())
            np.less(places, 0, out=absent[first:last])
            if absent[first:last].all():
                continue  # what is not read is 0
            for name, field in self._fields.items():
                if header_of(name) == header:
                    _read(field, data, places, self.values[name][first:last])
        self.used = last


def chosen(found: Filter, data: Bytes, rows: Table) -> Table:
    """The packets of a table that pass a filter."""
    passed = found.matching(data, rows[OFFSET], rows[LENGTH], rows[ORIGINAL])
    return rows if passed.all() else np.compress(passed, rows, axis=1)


@cache
def _nothing() -> tuple[Packets, NDArray[np.int64]]:
    """What a packet is made of besides its bytes: it has no metadata, and no path."""
    return new_packets(1), np.zeros(COUNTS, np.int64)


@cache
def _locating(locate: Callable[[Any], int]) -> Direct:
    @compiled
    def find(
        data: Bytes,
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        places: NDArray[np.int64],
        packets: Packets,
        counts: NDArray[np.int64],
    ) -> None:
        """Note where in the file a header of each packet begins."""
        for i in range(places.size):
            at = locate(stored_packet(data, starts[i], sizes[i], packets, 0, counts))
            places[i] = _NOWHERE if at == ABSENT else starts[i] + at

    return Direct(find)


def _read(field: Field[Any], data: Bytes, places: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Read a field of the headers that begin at these places; 0 where there is none."""
    end = field.offset + field.size
    if field.size == WIDE:
        _read_halves((), data, places, end, values)
    else:
        _read_field(values.dtype, data, places, end, field.shift, field.mask, values)


@Direct
@compiled
def _read_field(
    data: Bytes, places: NDArray[np.int64], end: int, shift: int, mask: int, values: NDArray[np.uint64]
) -> None:
    for i in range(places.size):
        word = _word_before(data, places[i] + end)
        values[i] = 0 if places[i] < 0 else word >> shift & mask


@Direct
@compiled
def _read_halves(data: Bytes, places: NDArray[np.int64], end: int, values: NDArray[np.int64]) -> None:
    for i in range(places.size):
        upper, lower = _word_before(data, places[i] + end - 8), _word_before(data, places[i] + end)
        values[i, 0] = 0 if places[i] < 0 else upper
        values[i, 1] = 0 if places[i] < 0 else lower


@compiled
def _word_before(data: Bytes, end: int) -> int:
    """The 8 bytes before `end`, in network byte order. They are in the file, though not all in the packet: each has a
    header in the file before it. Of what is not there, the file's first 8 bytes."""
    end = max(end, 8)
    return int(
        np.int64(data[end - 8]) << 56
        | np.int64(data[end - 7]) << 48
        | np.int64(data[end - 6]) << 40
        | np.int64(data[end - 5]) << 32
        | np.int64(data[end - 4]) << 24
        | np.int64(data[end - 3]) << 16
        | np.int64(data[end - 2]) << 8
        | np.int64(data[end - 1])
    )
