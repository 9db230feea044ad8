"""Batches own packets; a packet is borrowed from its batch.

Rust's compiler proves that a packet has one owner. Here the batch is the owner, and it checks: receiving or allocating
makes a batch, sending moves its packets away, and leaving its scope returns to the pools what was not sent. Touching a
packet that was sent or freed raises `OwnershipError`.

Which packets a batch owns is written by the kernel that moves them, in the same call: a signal, an exception or the
collector can come before that or after it, and finds each packet with one owner.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import index as as_index
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast, overload
from weakref import ref

import numpy as np

from ixy.arguments import integer
from ixy.errors import ConfigurationError, OwnershipError
from ixy.headers import Header, Headers, ManyHeaders
from ixy.jit import CHECKING, Direct, compiled
from ixy.once import once
from ixy.packets import checking
from ixy.packets.buffers import BUFFER_SIZE, STRIDE
from ixy.packets.packets import Flags, Packets, new_packets
from ixy.packets.parts import all_buffers, total_lengths
from ixy.packets.pool import Pools, abandon, give, pools
from ixy.process import Owner
from ixy.unsafe import load_acquire, swap_if

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from ixy.packets.mempool import Mempool

# A batch, its packets and its pool are one thing in several classes: they look at the batch's span and arrays.
# pyright: reportPrivateUsage=false

T = TypeVar("T")

_zeros: Any = np.zeros
_FREED = 1 << 40  # both ends of the span of a batch that was freed: no packet is so far back


def no_copies(kind: type[T]) -> type[T]:
    """A class whose objects cannot be copied or pickled: a copy would be a second owner."""

    def refuse(self: object, *_: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: what it owns has one owner")

    for method in ("__copy__", "__deepcopy__", "__reduce_ex__"):
        setattr(kind, method, refuse)
    return kind


class Loan(ref):  # pyright: ignore[reportMissingTypeArgument]
    """What a batch has of its lender, kept by that too.

    Attributes:
        metadata: names of the packets' columns besides those that are always there, see `packets.METADATA`.
        packets: the batch's arrays.
        span: which of them it owns, from the first to before the last: shape (2,), int64.
    """

    __slots__ = ("metadata", "packets", "span")
    metadata: tuple[str, ...]
    packets: Packets
    span: NDArray[np.int64]


class Taker(Protocol):
    """Who may have packets of a lender: a device, or a ring between threads."""

    closed: bool

    def attach(self, pool: Mempool) -> None:
        """Let buffers of `pool` lie in its rings."""
        ...


class Lender:
    """Where a batch has its buffers from: a mempool, or a ring between threads, whose packets are of any pools.

    Attributes:
        number: no other lender has it.
        closed: what its batches still own cannot be touched any more.
    """

    number: int
    closed: bool

    def __init__(self) -> None:
        self._loans: set[Loan] = set()
        self._owner = Owner()
        self._pools = pools()

    def supply(self, taker: Taker) -> None:
        """Let `taker` have packets from here: attach the pools that they are of."""
        raise NotImplementedError

    def _takes_back(self) -> bool:
        """Whether the buffers of its batches can be given back."""
        return not self.closed

    def _sweep(self) -> bool:
        """Give back what batches had that are gone, and that an exception kept from giving it back; whether any had.

        A batch gives its packets back when it goes. But a signal handler may raise before the first instruction of
        that, and Python does not try again.
        """
        lost = [loan for loan in list(self._loans) if loan() is None]
        for loan in lost:
            if self._takes_back():
                free_loan(self._pools, loan)
            self._loans.discard(loan)
        return bool(lost)


@no_copies
class Batch(ManyHeaders):
    """Some packets, oldest first, as a structure of arrays.

    Three ways lead to the packets: `for packet in batch` hands out `Packet` objects; `batch.bytes[:, 48] += 1` and
    `batch.ipv4.ttl -= 1` work on all at once with NumPy, by bytes or by headers (`packets.arrays`); and a function
    marked `@ixy.kernel` is compiled into the data path.

    A batch is used by one thread at a time. `RxQueue.receive` and `Mempool.allocate` make batches.

    Args:
        room, metadata: for how many packets, and what is told of each.
        new: makes a column, see `new_packets`.

    Attributes:
        pool: where its buffers come from: a mempool, or a ring between threads.
    """

    __slots__ = ("__weakref__", "_limits", "_loan", "_packets", "_span", "pool")

    def __init__(self, pool: Lender, room: int, metadata: Sequence[str] = (), new: Any = np.empty) -> None:
        packets, span = new_packets(room, metadata, new=new), _zeros(2, np.int64)
        self.pool, self._packets, self._span = pool, packets, span
        self._limits = memoryview(span)  # the same, as Python's integers
        self._loan = loan = Loan(self)
        loan.metadata, loan.packets, loan.span = tuple(metadata), packets, span
        pool._loans.add(loan)

    def __len__(self) -> int:
        """How many packets the batch still owns."""
        return self._limits[1] - self._limits[0]

    def __iter__(self) -> Iterator[Packet]:
        self._check()
        first, last = limits = self._limits
        if self._packets.nexts is not None:
            yield from map(self._packet, range(first, last))
            return
        memory, lengths = _memory(), self._lengths()
        for position, buffer in enumerate(self._packets.ids[first:last].tolist(), first):
            packet = Packet()  # whose attributes are set here: to hand them to a function takes as long as all the rest
            packet._batch, packet._limits, packet._memory = self, limits, memory
            packet._position, packet._offset, packet._size = position, buffer * STRIDE, lengths[position]
            yield packet

    def __getitem__(self, index: int) -> Packet:
        self._check()
        first, last = self._limits
        count, number = last - first, as_index(index)
        if not -count <= number < count:
            raise IndexError(f"packet {number} of a batch of {count}")
        return self._packet(first + number % count)

    def _packet(self, position: int) -> Packet:
        """The packet at a position among the batch's."""
        packets = self._packets
        several = packets.nexts is not None and packets.nexts[position] >= 0
        packet = PacketOfParts() if several else Packet()
        packet._batch, packet._limits, packet._memory = self, self._limits, _memory()
        packet._position = position
        packet._offset, packet._size = packets.ids.item(position) * STRIDE, packets.lengths.item(position)
        if isinstance(packet, PacketOfParts):
            packet._find_parts()
        return packet

    def _lengths(self) -> memoryview:
        """The packets' lengths, as Python's integers: faster than NumPy's."""
        lengths: Any = self._packets.lengths
        return memoryview(lengths)

    @property
    def metadata(self) -> tuple[str, ...]:
        """What the device that received the packets was asked to tell of each."""
        return self._loan.metadata

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The packets' lengths in bytes, without the frame check sequence; shape (len(batch),), a copy."""
        self._check()
        return total_lengths(self.pool._pools, self._packets, *self._limits)

    @property
    def flags(self) -> NDArray[np.uint32]:
        """What the device says of each packet, `ixy.Flags`; shape (len(batch),), a copy.

        Assigning, a number or an array, tells the device that is to send them.

        Raises:
            ConfigurationError: the device was opened, or the batch allocated, without `metadata=("flags",)`; likewise
                below.
        """
        return self._column("flags", "flags").copy()

    @flags.setter
    def flags(self, values: ArrayLike) -> None:
        self._column("flags", "flags")[:] = values

    @property
    def hashes(self) -> NDArray[np.uint32]:
        """The packets' RSS hashes, 0 where there is none (`Flags.HASH`); shape (len(batch),), a copy."""
        return self._column("hashes", "hash").copy()

    @property
    def vlans(self) -> NDArray[np.uint16]:
        """The VLAN tags that were taken out, 0 where there was none (`Flags.VLAN`); shape (len(batch),), a copy.

        What is assigned is put in by a device with the offload "vlan".
        """
        return self._column("vlans", "vlan").copy()

    @vlans.setter
    def vlans(self, values: ArrayLike) -> None:
        self._column("vlans", "vlan")[:] = values

    @property
    def times(self) -> NDArray[np.int64]:
        """When the packets were received, in ns since 1970; shape (len(batch),), a copy."""
        return self._column("times", "time").copy()

    @property
    def segments(self) -> NDArray[np.uint16]:
        """Bytes of TCP's payload in the segments that a packet was put together from, 0 where it was not; shape
        (len(batch),), a copy.

        By what is assigned a device with the offload "segmentation" cuts them.
        """
        return self._column("segments", "segments").copy()

    @segments.setter
    def segments(self, values: ArrayLike) -> None:
        self._column("segments", "segments")[:] = values

    @property
    def verdicts(self) -> NDArray[np.int64]:
        """In an `ixy.batch_kernel`, what becomes of each packet."""
        raise ConfigurationError("a batch has verdicts in a batch kernel only")

    @property
    def bytes(self) -> BatchBytes:
        """The buffers of all packets, the first ones of those in several, to be indexed like an array of shape
        (len(batch), 2048), uint8."""
        self._check()
        return BatchBytes(self)

    def header(self, kind: type[Header]) -> Any:
        """Headers of this kind, as arrays over all packets."""
        from ixy.packets.arrays import HeaderArrays

        return HeaderArrays(self, kind)

    def free(self) -> None:
        """Return the packets that are left to their pools. Done by itself when the batch goes out of scope."""
        self._return()
        checking.report(self.pool._pools)

    def _return(self) -> None:
        limits, pool = self._limits, self.pool
        if limits[0] < limits[1] and pool._takes_back():
            free_loan(pool._pools, self._loan)
        limits[0] = limits[1] = _FREED
        pool._loans.discard(self._loan)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.free()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "_loan") and not _ending():
            self._return()
            if CHECKING:
                checking.log_report(self.pool._pools)

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} packets{', moved' if self._moved() else ''}>"

    def _moved(self) -> bool:
        first, last = self._limits
        return 0 < first == last

    def _check(self) -> None:
        limits = self._limits
        if 0 < limits[0] == limits[1] or self.pool.closed:
            self.pool._owner.check("this batch")
            raise OwnershipError("this batch was sent or freed, or its device closed: receive or allocate a new one")

    def _column(self, column: str, name: str) -> NDArray[Any]:
        """What is said of the packets that are left."""
        self._check()
        values = getattr(self._packets, column)
        if values is None:
            raise ConfigurationError(f"this batch has no {column}: open its device with metadata=({name!r},)")
        return values[self._limits[0] : self._limits[1]]


def lent(batch: Batch) -> tuple[Packets, NDArray[np.int64]]:
    """The packets of a batch, and which of them it owns: for queues, whose kernels change that.

    Raises:
        OwnershipError: the batch was sent or freed before.
        TypeError: it is none.
    """
    if type(batch) is not Batch and not isinstance(cast(object, batch), Batch):
        raise TypeError(f"a Batch is needed, not {type(batch).__name__}: receive or allocate one")
    batch._check()
    return batch._packets, batch._span


@Direct
@compiled
def _free(pools: Pools, packets: Packets, span: NDArray[np.int64]) -> None:
    """Give the packets of a span back, once, whoever else tries at the same time."""
    first, last = load_acquire(span, 0), load_acquire(span, 1)
    if first < last and swap_if(span, 0, first, last):
        give(pools, packets, first, last)


def free_loan(pools: Pools, loan: Loan) -> None:
    """Give back what is left of a loan."""
    try:
        _free(loan.metadata, pools, loan.packets, loan.span)
    except IndexError:  # in the checking mode
        abandon(pools.words)
        raise


@no_copies
class BatchBytes:
    """The bytes of a batch's packets, read and written by NumPy indexing.

    Reading copies, as indexing by an array always does; assigning writes to the packets. The batch's ownership is
    checked at each access, so nothing dangles.
    """

    __slots__ = ("_batch", "_known")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._known: tuple[Any, int, int, tuple[Any, Any]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._batch), BUFFER_SIZE

    def __getitem__(self, key: Any) -> Any:
        memory, index = self._locate(key)
        taken = memory[index]
        return taken if taken.base is None else taken.copy()  # one row by its number would be a view

    def __setitem__(self, key: Any, value: Any) -> None:
        memory, index = self._locate(key)
        memory[index] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the bytes of a batch lie in separate buffers: an array of them is a copy")
        return np.asarray(self[:], dtype)

    def _locate(self, key: Any) -> tuple[Any, Any]:
        """The bytes of all buffers, or one column of theirs, and the index that `key` means there."""
        batch, known = self._batch, self._known
        batch._check()
        limits = batch._limits
        first, last = limits[0], limits[1]
        if known and key is known[0] and first == known[1] and last == known[2]:
            return known[3]  # `bytes[:, 48] += 1` reads and writes by one key
        row, column = cast("tuple[Any, Any]", key) if isinstance(key, tuple) else (key, _ALL)
        rows: Any = batch._packets.ids[first:last]
        if type(row) is not slice or row != _ALL:
            rows = rows[row]
        if isinstance(rows, np.ndarray):
            rows = cast(Any, rows).astype(_INDEX)  # which NumPy would do by itself, at each index anew
        memory = batch.pool._pools.bytes
        if type(column) is int:  # one index at a time costs NumPy half of two together
            found = memory[:, _COLUMNS.item(column)], rows
            if isinstance(row, slice):  # an array could change meanwhile
                self._known = key, first, last, found
            return found
        if isinstance(column, slice):
            return memory, (rows, _within_buffer(cast(slice, column)))
        columns: Any = _COLUMNS[column]
        crossed = isinstance(row, slice) and np.ndim(columns) > 0
        return memory, ((rows[:, np.newaxis] if crossed else rows), columns)


_COLUMNS = np.arange(BUFFER_SIZE)
_ALL = slice(None)
_INDEX: Any = np.dtype(np.intp)


def _within_buffer(columns: slice) -> slice:
    """A slice of a buffer's bytes, with ends that also hold for what lies between buffers."""
    start, stop, step = columns.indices(BUFFER_SIZE)
    return slice(start, stop if stop >= 0 else None, step)


@no_copies
class Packet(Headers):
    """One packet, borrowed from a batch: a mutable sequence of bytes, with headers by name (`packet.ipv4.src`).

    A function marked `@ixy.kernel` sees packets in much the same way: there, a slice is an array.

    An integer that is assigned is taken modulo 256, as in compiled code and in NumPy.
    """

    __slots__ = ("_batch", "_limits", "_memory", "_offset", "_position", "_size")

    _batch: Batch
    _limits: memoryview
    _memory: memoryview  # all buffers in a row
    _offset: int  # where in it the packet begins
    _position: int  # of the packet among the batch's
    _size: int

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        if type(index) is int and 0 <= index < self._size:  # the usual, without a call
            if self._limits[0] > self._position or self._batch.pool.closed:
                self._refuse()
            return self._memory[self._offset + index]
        if isinstance(index, slice):
            return self._memory[self._range(index)].tobytes()
        return self._memory[self._place(index)]

    @overload
    def __setitem__(self, index: int, value: int) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: bytes) -> None: ...
    def __setitem__(self, index: Any, value: Any) -> None:
        if type(index) is int and 0 <= index < self._size and type(value) is int:  # likewise
            if self._limits[0] > self._position or self._batch.pool.closed:
                self._refuse()
            self._memory[self._offset + index] = value & 0xFF
        elif isinstance(index, slice):
            self._memory[self._range(cast(slice, index))] = value
        else:
            self._memory[self._place(index)] = as_index(value) & 0xFF

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    def __bytes__(self) -> bytes:
        return self[:]

    @property
    def flags(self) -> Flags:
        """What the device says of the packet; likewise below, see `Batch` for what each needs, and what it does that
        some can be assigned."""
        return Flags(self._metadata("flags", "flags"))

    @flags.setter
    def flags(self, value: int) -> None:
        self._tell("flags", "flags", value)

    @property
    def hash(self) -> int:
        """The packet's RSS hash."""
        return self._metadata("hashes", "hash")

    @property
    def vlan(self) -> Any:
        """The VLAN tag that the device took out of the packet, an integer, or where it leaves them in, the header."""
        if self._batch._packets.vlans is None:
            self._check()
            return super().vlan
        return self._metadata("vlans", "vlan")

    @vlan.setter
    def vlan(self, value: int) -> None:
        self._tell("vlans", "vlan", value)

    @property
    def time(self) -> int:
        """When the packet was received, in ns since 1970."""
        return self._metadata("times", "time")

    @property
    def segments(self) -> int:
        """Bytes of TCP's payload in the segments that it was put together from, or is to be cut into."""
        return self._metadata("segments", "segments")

    @segments.setter
    def segments(self, value: int) -> None:
        self._tell("segments", "segments", value)

    @property
    def total(self) -> int:
        """The packet's length, as in a kernel, where `length` is that of its first part."""
        return self._size

    @property
    def length(self) -> int:
        """In bytes, without the frame check sequence; assigning is `resize`."""
        return self._size

    @length.setter
    def length(self, length: int) -> None:
        self.resize(length)

    def resize(self, length: int) -> None:
        """Set the packet's length; bytes that this adds hold whatever the buffer held.

        Raises:
            ConfigurationError: `length` is not within 1 and the size of the buffer, 2048 bytes.
        """
        self._check()
        self._size = check_length(length)
        self._batch._packets.lengths[self._position] = self._size

    def insert(self, at: int, count: int) -> None:
        """Put `count` bytes, zeros, before byte `at`; what follows moves back, and the packet is so much longer.

        Raises:
            ConfigurationError: it would not fit into its buffer, or there is no such byte.
        """
        at, count = integer("at", at, 0, self._size), integer("count", count, 0, BUFFER_SIZE)
        rest = self[at:]
        self.resize(self._size + count)
        self[at:] = bytes(count) + rest

    def remove(self, at: int, count: int) -> None:
        """Take `count` bytes out, from byte `at` on; what follows moves up, and the packet is so much shorter.

        Raises:
            ConfigurationError: there are not so many bytes, or nothing would be left.
        """
        at = integer("at", at, 0, self._size)
        rest = self[at + integer("count", count, 0, self._size - at) :]
        self.resize(at + len(rest))
        self[at:] = rest

    @property
    def number(self) -> int:
        """In a kernel, how many packets its path has received before this one."""
        raise ConfigurationError("a packet has a number in a kernel only: here, enumerate the batch")

    @property
    def queue(self) -> int:
        """In a kernel, the number of the receive queue that the packet came to."""
        raise ConfigurationError("a packet has its queue's number in a kernel only")

    def __repr__(self) -> str:
        return f"<Packet of {self._size} bytes>"

    def _place(self, index: Any) -> int:
        """Where a byte of the packet lies among those of all buffers."""
        if self._limits[0] > self._position or self._batch.pool.closed:
            self._refuse()
        size, number = self._size, as_index(index)
        if not -size <= number < size:
            raise IndexError(f"byte {number} of a packet of {size} bytes")
        return self._offset + number % size

    def _range(self, index: slice) -> slice:
        """The slice of all buffers that a slice of this packet means."""
        self._check()
        start, stop, step = index.indices(self._size)
        if step != 1:
            raise IndexError("a packet's bytes are taken in steps of 1")
        return slice(self._offset + start, self._offset + max(start, stop))

    def _first_size(self) -> int:
        """How many of its bytes lie in the first buffer."""
        return self._size

    def _metadata(self, column: str, name: str) -> int:
        return int(self._column(column, name)[self._position])

    def _tell(self, column: str, name: str, value: int) -> None:
        self._column(column, name)[self._position] = as_index(value)

    def _column(self, column: str, name: str) -> NDArray[Any]:
        self._check()
        values = getattr(self._batch._packets, column)
        if values is None:
            raise ConfigurationError(f"this packet has no {name}: open its device with metadata=({name!r},)")
        return values

    def _check(self) -> None:
        if self._limits[0] > self._position or self._batch.pool.closed:
            self._refuse()

    def _refuse(self) -> NoReturn:
        self._batch.pool._owner.check("this packet")
        raise OwnershipError("this packet was sent or freed, or its device closed: it lives as long as its batch")


class PacketOfParts(Packet):
    """A packet that lies in several buffers: the same, over all of them. It keeps its length."""

    __slots__ = ("_ends", "_offsets")

    _ends: list[int]  # where in the packet each part ends
    _offsets: list[int]  # where among all buffers byte 0 of the packet would be, if it all lay in that part's buffer

    def _find_parts(self) -> None:
        """Follow the chain from the first buffer on, whose place and length are known."""
        packets, known = self._batch._packets, self._batch.pool._pools
        self._ends, self._offsets = [self._size], [self._offset]
        for buffer in all_buffers(known, packets, self._position, self._position + 1)[1:].tolist():
            self._offsets.append(buffer * STRIDE - self._size)
            self._size += int(known.sizes[buffer])
            self._ends.append(self._size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return b"".join(self._memory[piece] for piece in self._pieces(cast(slice, index)))
        return self._memory[self._place(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._memory[self._place(index)] = as_index(value) & 0xFF
            return
        pieces, octets = self._pieces(cast(slice, index)), memoryview(value).cast("B")
        if len(octets) != sum(piece.stop - piece.start for piece in pieces):
            raise ValueError(f"{len(octets)} bytes are assigned to a slice of another length")
        for piece in pieces:
            size = piece.stop - piece.start
            self._memory[piece], octets = octets[:size], octets[size:]

    def resize(self, length: int) -> None:  # noqa: ARG002
        """Refuse it, and with it `insert`, `remove` and another `length`.

        Raises:
            ConfigurationError: always.
        """
        self._check()
        raise ConfigurationError(f"a packet in {len(self._ends)} buffers keeps its length, which is {self._size} bytes")

    def _first_size(self) -> int:
        return self._ends[0]

    def __repr__(self) -> str:
        return f"<Packet of {self._size} bytes in {len(self._ends)} parts>"

    def _place(self, index: Any) -> int:
        within = super()._place(index) - self._offset
        return self._offsets[bisect_right(self._ends, within)] + within

    def _pieces(self, index: slice) -> list[slice]:
        """The slices of all buffers that a slice of this packet means."""
        whole = self._range(index)
        start, stop = whole.start - self._offset, whole.stop - self._offset
        found: list[slice] = []
        while start < stop:
            part = bisect_right(self._ends, start)
            end = min(self._ends[part], stop)
            found.append(slice(self._offsets[part] + start, self._offsets[part] + end))
            start = end
        return found


@once
def _memory() -> memoryview:
    """All packet buffers in a row; buffer n starts at n * STRIDE."""
    return memoryview(cast(Any, pools().bytes.reshape(-1)))


def check_length(length: int, parts: int = 1) -> int:
    """The length of a packet, which so many buffers must hold.

    Raises:
        ConfigurationError: it is not within 1 and 2048 bytes each.
    """
    return integer("length", length, 1, parts * BUFFER_SIZE)
