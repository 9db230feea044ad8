"""A capture as a table: `ixy.read_capture`, and `ixy.capture_chunks` for files that are larger than memory.

table = ixy.read_capture("web.pcap", fields=("ipv4.src", "tcp.dport"), filter="tcp")

table["length"].sum()                       # plain arrays: what is there of every packet
table["tcp.dport"] == 443                   # masked arrays: what is there of some
pandas = table.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)
polars.from_arrow(table.to_arrow())
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.arguments import integer
from ixy.captures.columns import Columns, chosen, field_names, header_of
from ixy.filters import Filter
from ixy.formats.reading import Source
from ixy.formats.words import LENGTH, OFFSET, ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Masked = np.ma.MaskedArray[Any, Any]

FIELDS = (
    "ipv4.src",
    "ipv4.dst",
    "ipv4.protocol",
    "ipv6.src",
    "ipv6.dst",
    "tcp.sport",
    "tcp.dport",
    "tcp.flags",
    "udp.sport",
    "udp.dport",
)
CHUNK = 1 << 20  # packets
_MOST = 1 << 32  # packets of a chunk
_PART = 1 << 12  # packets that go through all columns at a time: with their bytes, a processor's second cache has room
_FIRST = 1 << 17  # packets; by how much of the file they are, the rest is estimated
_MARGIN = 1.05


class CaptureTable:
    """Packets of a capture, a row each, in the order in which they are in the file.

    Columns of all packets are "time", datetime64[ns] in UTC, "captured" and "length", the bytes in the file and on the
    wire without a frame check sequence, int64, and "interface", its number. Then come fields of headers:
    `table["ipv4.src"]` is a masked array (`numpy.ma`) of the least unsigned integer that holds the field, masked where
    a packet has no such header, or was cut before its end. An IPv6 address is two integers, its upper and its lower
    half, shape (n, 2), int64: `ixy.Ipv6Address(tuple(row))` prints it.

    Attributes:
        columns: the names of all columns.
        interfaces: names of the interfaces; "" where the file does not tell.
        clamped: how many packets of the file so far have times beyond the years 1677 to 2262, which no datetime64[ns]
            can tell: "time" has the nearest.
        damage: one line on where and why reading stopped before the end of the file, or None.
    """

    def __init__(self, columns: Columns, interfaces: list[str], clamped: int, damage: str | None) -> None:
        columns.trim()
        self._values = columns.values | {"time": columns.values["time"].view("datetime64[ns]")}
        self._absent = columns.absent
        self.interfaces, self.clamped, self.damage = interfaces, clamped, damage

    def __len__(self) -> int:
        """How many packets there are."""
        return len(self._values["time"])

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._values)

    def __getitem__(self, name: str) -> Any:
        """A column; what it is of is not copied.

        Raises:
            KeyError: there is none of this name.
        """
        if name not in self._values:
            raise KeyError(f"no column {name!r}: there are {', '.join(self._values)}; name others as fields=")
        values, absent = self._values[name], self.absent(name)
        return values if absent is None else np.ma.MaskedArray(values, _broad(absent, values))

    def absent(self, name: str) -> NDArray[np.bool_] | None:
        """In which packets a column's header is not there; None for a column of all packets."""
        return self._absent.get(header_of(name))

    def to_numpy(self) -> Masked:
        """All columns as one structured array, masked field by field; shape (n,), a copy."""
        rows: NDArray[Any] = np.empty(
            len(self), [(name, array.dtype, array.shape[1:]) for name, array in self._values.items()]
        )
        mask: NDArray[Any] = np.zeros(len(self), np.ma.make_mask_descr(rows.dtype))
        for name, values in self._values.items():
            rows[name] = values
            absent = self.absent(name)
            if absent is not None:
                mask[name] = _broad(absent, values)
        return np.ma.MaskedArray(rows, cast(Any, mask))

    def to_arrow(self, *, text: bool = True) -> Any:
        """The same as a `pyarrow.Table`, from which pandas and polars take it: `.to_pandas()`, `polars.from_arrow`.

        Fields are null where a packet has no such header. "time" is a timestamp[ns, UTC]. Columns of which every value
        is there are not copied.

        Args:
            text: addresses as people write them, each once, in a dictionary (categories in pandas and polars); else
                uint32 for IPv4, uint64 for Ethernet, 16 bytes for IPv6.

        Raises:
            ConfigurationError: pyarrow is not installed.
        """
        from ixy.captures.arrow import arrow_table

        return arrow_table({name: (values, self.absent(name)) for name, values in self._values.items()}, text=text)

    def __repr__(self) -> str:
        clamped = f", times that cannot be told {self.clamped}" if self.clamped else ""
        damage = f", damaged {self.damage}" if self.damage else ""
        return f"<CaptureTable of {len(self)} packets: {', '.join(self._values)}{clamped}{damage}>"


def read_capture(
    path: str | Path,
    fields: Iterable[str] = FIELDS,
    filter: Filter | str | None = None,  # noqa: A002
) -> CaptureTable:
    """Read a capture into arrays: pcap or pcapng, gzip or Zstandard around it, of Ethernet or what that can be made of.

    A regular file is mapped, and takes no memory; the arrays do, as many bytes a packet as their types have. Damage
    within the file is no error: what is before it is there, and the table's `damage` tells the rest.

    Args:
        path: of the file; "-" is standard input.
        fields: of headers, such as "ipv4.src", or a header with all its fields, such as "tcp". Headers are found as in
            packets: behind two VLAN tags, IPv4's options, IPv6's extension headers.
        filter: packets to be read, in tcpdump's language; all others are left out.

    Raises:
        CaptureError: the file cannot be read, is no capture, or holds packets of which no Ethernet can be made.
        ConfigurationError: there is no such field.
        FilterError: as `ixy.filter`.
    """
    reader = _Reader(path, field_names(fields), filter)
    columns = Columns(reader.names, _FIRST)
    while not reader.fill(columns):
        columns.grow(max(int(columns.used * (1 / reader.share() * _MARGIN - 1)), _PART))
    return reader.table(columns)


def capture_chunks(
    path: str | Path,
    fields: Iterable[str] = FIELDS,
    filter: Filter | str | None = None,  # noqa: A002
    *,
    packets: int = CHUNK,
) -> Iterator[CaptureTable]:
    """The same in tables of so many packets, one after the other, for files that are larger than memory.

    There is one table at least, which may be empty. The last one has the file's `damage`.

    Args:
        packets: of a table, but for the last.

    Raises:
        …: as `read_capture`, at once; and ConfigurationError if `packets` is below 1.
    """
    packets = integer("packets", packets, 1, _MOST)
    return _chunks(_Reader(path, field_names(fields), filter), packets)


def _chunks(reader: _Reader, packets: int) -> Iterator[CaptureTable]:
    first, over = True, False
    while not over:
        columns = Columns(reader.names, packets)
        over = reader.fill(columns)
        table = reader.table(columns)
        if len(table) or table.damage or first:
            yield table
        first = False


class _Reader:
    """A file that is read into columns.

    Attributes:
        names: of the fields that are read, see `columns.field_names`.
    """

    def __init__(self, path: str | Path, names: tuple[str, ...], filter: Filter | str | None) -> None:  # noqa: A002
        self.names = names
        self._filter = Filter(filter) if isinstance(filter, str) else filter
        self._source = Source(path)
        self._part = np.empty((ROWS, _PART), np.int64)
        self._places = np.empty(_PART, np.int64)
        self._left = self._part[:, :0]  # of the part, what is in no columns yet
        self._end = 0  # where in the file the part ends
        self._over = False  # there is none after it

    def fill(self, columns: Columns) -> bool:
        """Read packets until the columns have no room; True if there are no more."""
        while columns.room:
            if not self._left.shape[1] and not self._next():
                return True
            room = columns.room
            columns.append(self._source.data, self._left[:, :room], self._places)
            self._left = self._left[:, room:]
        return False

    def _next(self) -> bool:
        """Take the next part of which something passes the filter; False if there is none."""
        while not self._over and not self._left.shape[1]:
            count = self._source.fill(self._part)
            self._over = count < _PART
            rows = self._part[:, :count]
            if count:
                self._end = int(rows[OFFSET, -1] + rows[LENGTH, -1])
            self._left = rows if self._filter is None else chosen(self._filter, self._source.data, rows)
        return self._left.shape[1] > 0

    def share(self) -> float:
        """How much of the file was read."""
        return self._end / self._source.data.size

    def table(self, columns: Columns) -> CaptureTable:
        """What was read; the last table tells of damage."""
        over = self._over and not self._left.shape[1]
        source = self._source
        return CaptureTable(columns, list(source.names), source.clamped, source.damage if over else None)


def _broad(absent: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask of a column, of which an element may be two numbers."""
    return np.broadcast_to(absent.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
