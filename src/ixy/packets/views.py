"""A packet and a path's record as a user's kernel sees them; compiled they are types of their own, see
`unsafe.views`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy import functions
from ixy.counts import AT, QUEUE, RECEIVED
from ixy.headers import Headers
from ixy.jit import INTERPRETED
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, MAX_PARTS, STRIDE
from ixy.packets.parts import total_length
from ixy.trouble import BYTE, LENGTH, PACKET, SLICE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.packets import Packets
    from ixy.packets.pool import Pools

    Words = NDArray[np.int64]  # of a path, see `ixy.counts`


class Bytes(np.ndarray):  # pyright: ignore[reportMissingTypeArgument]
    """A packet's bytes that reckon in the interpreter as they do in compiled code: elements are plain integers, and
    one that is assigned is taken modulo 256."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return int(value) if isinstance(value, np.generic) else value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value & 0xFF if isinstance(value, int) else value)


class InterpretedPacket(Headers):
    """A packet as an interpreted kernel sees it: a copy, which the kernel may keep, as the buffer itself is another
    packet's soon, or unmapped."""

    def __init__(
        self, row: NDArray[np.uint8], packets: Packets, i: int, counts: Words, number: int, rest: int = 0
    ) -> None:
        self._bytes = row[:BUFFER_SIZE].copy().view(Bytes)
        self._length, self._rest = int(packets.lengths[i]), rest
        self._words, self._number = counts, int(counts[RECEIVED]) + number
        self._place: tuple[NDArray[np.uint8], Packets, int] | None = row, packets, i
        self._columns = {name: int(column[i]) for name, column in _columns(packets).items()}

    def at_hand(self) -> AbstractContextManager[None]:
        """Within the block a kernel is given the packet; what it makes of it is written back at the end."""
        return _at_hand([self], self._words)

    def write_back(self) -> None:
        """Let the packet be what the kernel has made of it; from now on this is a copy only."""
        if self._place is None:
            return
        row, packets, i = self._place
        row[:BUFFER_SIZE] = self._bytes
        packets.lengths[i] = self._length
        for name in _SETTABLE & self._columns.keys():
            _columns(packets)[name][i] = self._columns[name]
        self._place = None

    def __len__(self) -> int:
        return self._length

    @property
    def length(self) -> int:
        return self._length

    @length.setter
    def length(self, value: int) -> None:
        if not 1 <= value <= BUFFER_SIZE:
            raise IndexError(LENGTH.format(value, BUFFER_SIZE))
        self._length = int(value)

    @property
    def size(self) -> int:
        return self._length

    @property
    def total(self) -> int:
        return self._length + self._rest

    @property
    def number(self) -> int:
        return self._number

    @property
    def queue(self) -> int:
        return int(self._words[QUEUE])

    def insert(self, at: int, count: int) -> None:
        length = self._changed_length(at, count, self._length + count)
        self._bytes[at + count : length] = self._bytes[at : self._length].copy()
        self._bytes[at : at + count] = 0
        self._length = length

    def remove(self, at: int, count: int) -> None:
        length = self._changed_length(at, count, self._length - count)
        self._check_end(at + count)
        self._bytes[at:length] = self._bytes[at + count : self._length].copy()
        self._length = length

    def _changed_length(self, at: int, count: int, length: int) -> int:
        """The length after `count` bytes at `at` were put in or taken out."""
        self._check_end(at)
        if not 1 <= length <= BUFFER_SIZE or count < 0:
            raise IndexError(LENGTH.format(length, BUFFER_SIZE))
        return length

    def _check_end(self, at: int) -> None:
        if not 0 <= at <= self._length:
            raise IndexError(BYTE.format(at, self._length))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._bytes[: self._length][index]
        return self._bytes[self._index(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._bytes[self._index(index)] = value
            return
        target = self._bytes[: self._length][index]
        if isinstance(value, np.ndarray) and len(cast("NDArray[np.uint8]", value)) != len(target):
            raise IndexError(SLICE.format(value.size, target.size))
        target[:] = value

    def __iter__(self) -> Iterator[int]:
        return iter(self._bytes[: self._length].tolist())

    def _index(self, index: int) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(BYTE.format(index, self._length))
        return index % self._length

    def __setattr__(self, name: str, value: Any) -> None:
        columns: dict[str, int] = self.__dict__.get("_columns", {})
        if name in _SETTABLE and name in columns:
            columns[name] = int(value) & _MASKS[name]
            return
        if name != "length" and not name.startswith("_"):
            raise AttributeError(f"packet.{name} cannot be assigned to")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> int:
        columns: dict[str, int] = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name]
        if name in _COLUMNS:
            raise AttributeError(f"this packet has no {name!r}: open its device with metadata=({name!r},)")
        raise AttributeError(f"a packet has no {name!r}")

    @property
    def vlan(self) -> Any:
        return self._columns["vlan"] if "vlan" in self._columns else super().vlan


class InterpretedBatch:
    """A batch as an interpreted kernel sees it.

    Attributes:
        verdicts: int64, one for each packet.
    """

    def __init__(self, packets: list[InterpretedPacket], verdicts: Words, counts: Words) -> None:
        self._packets, self.verdicts, self._words = packets, verdicts[: len(packets)], counts

    def __len__(self) -> int:
        return len(self._packets)

    def __getitem__(self, index: int) -> InterpretedPacket:
        if not -len(self) <= index < len(self):
            raise IndexError(PACKET.format(index, len(self)))
        self._words[AT] = index % len(self)
        return self._packets[index]

    def at_hand(self) -> AbstractContextManager[None]:
        """The same of the batch."""
        return _at_hand(self._packets, self._words)


@contextmanager
def _at_hand(packets: Iterable[InterpretedPacket], counts: Words) -> Generator[None]:
    """Within the block the path that has these words gives packets to a kernel in this thread."""
    functions.running.counts = counts
    try:
        yield
    finally:
        functions.running.counts = None
        for packet in packets:
            packet.write_back()


def argument_types(packets: Packets, record: np.dtype[Any] | None, at_once: bool) -> list[Any]:
    """Numba's types of what a user's function is given, one of `packets` or all at once, and perhaps a record; where
    it is interpreted, only how many there are."""
    if INTERPRETED:
        return [None] if record is None else [None, None]
    from ixy.jittypes import BatchType, RecordType, packet_type

    packet = packet_type(BUFFER_SIZE, packets, _CHAIN)
    packet = BatchType(packet, STRIDE, ID_MASK) if at_once else packet
    return [packet] if record is None else [packet, RecordType(record)]


_CHAIN = MAX_PARTS, ID_MASK  # see `jittypes.PacketType`
_COLUMNS = ("flags", "hash", "vlan", "time", "segments")
_MASKS = {"flags": 0xFFFF_FFFF, "vlan": 0xFFFF, "segments": 0xFFFF}  # what can be assigned, and its bits
_SETTABLE = _MASKS.keys()


def _columns(packets: Packets) -> dict[str, NDArray[Any]]:
    """What is told of packets besides their lengths, by the names of a packet's attributes."""
    columns = packets.flags, packets.hashes, packets.vlans, packets.times, packets.segments
    return {name: column for name, column in zip(_COLUMNS, columns, strict=True) if column is not None}


if INTERPRETED or TYPE_CHECKING:

    def packet_view(memory: NDArray[np.uint8] | Pools, buffer: int, packets: Packets, i: int, counts: Words) -> Any:
        """Packet `i` of `packets`, which lies in this buffer; the caller has checked all of it.

        Args:
            memory: all buffers; of packets that cannot go on in another one, any array of rows does.
        """
        if isinstance(memory, np.ndarray):
            return InterpretedPacket(memory[buffer], packets, i, counts, i)
        rest = total_length(memory, packets, i) - int(packets.lengths[i])
        return InterpretedPacket(memory.bytes[buffer], packets, i, counts, i, rest)

    def packet_at_hand(
        memory: NDArray[np.uint8], buffer: int, length: int, packets: Packets, i: int, counts: Words
    ) -> Any:
        """Packet `i` of a batch, whose length is nobody else's; as metadata it has that of packet 0."""
        packets.lengths[0] = length
        return InterpretedPacket(memory[buffer], packets, 0, counts, i)

    def stored_packet(
        data: NDArray[np.uint8], start: int, length: int, _packets: Packets, _i: int, _counts: Words
    ) -> Any:
        """A packet of a file, `data[start:][:length]`, to be read only; the rest as of `packet_at_hand`."""
        return data[start : start + length].view(Bytes)

    def batch_view(memory: Pools, packets: Packets, verdicts: Words, count: int, counts: Words) -> InterpretedBatch:
        """The first `count` of `packets`; the caller has checked all of it."""
        views = [packet_view(memory, packets.ids[i], packets, i, counts) for i in range(count)]
        return InterpretedBatch(views, verdicts, counts)

    def record_view(dtype: np.dtype[Any]) -> Callable[[Any, Any], Any]:
        """A function `view(memory, counts)`: the record of this dtype in `memory`, an array of its bytes."""
        from ixy.record import Row

        return lambda memory, _counts: Row(memory[: dtype.itemsize].view(dtype)[0])

else:
    from ixy.unsafe import views

    packet_view, packet_at_hand = views.packet_views(STRIDE, BUFFER_SIZE, _CHAIN)
    _, stored_packet = views.packet_views(1, BUFFER_SIZE, _CHAIN)
    batch_view = views.batch_view(STRIDE, BUFFER_SIZE, _CHAIN)
    record_view = views.record_view
