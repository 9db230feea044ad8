"""Batches own packets; a packet is borrowed from its batch.

Rust's compiler proves that a packet has one owner. Here the batch is the owner, and it checks: receiving or allocating
makes a batch, sending moves its packets away, and leaving its scope returns to the pools what was not sent. Touching a
packet that was sent or freed raises `OwnershipError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from ixy.errors import ConfigurationError, OwnershipError
from ixy.packets.buffers import BUFFER_SIZE, STRIDE, buffers, give

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.mempool import Mempool

# A batch and its packets are one thing in two classes: packets look at the batch's position and arrays.
# pyright: reportPrivateUsage=false


class Batch:
    """Some packets, oldest first, as a structure of arrays.

    Three ways lead to the packets: `for packet in batch` hands out `Packet` objects, `batch.bytes[:, 48] += 1` works on
    all at once with NumPy, and a function marked `@ixy.kernel` is compiled into the data path.

    A batch is used by one thread at a time.

    Attributes:
        pool: where its buffers come from.
    """

    __slots__ = ("__weakref__", "_count", "_first", "_ids", "_lengths", "_moved", "pool")

    def __init__(self, pool: Mempool, ids: NDArray[np.int32], lengths: NDArray[np.int32], count: int) -> None:
        self.pool = pool
        self._ids = ids
        self._lengths = lengths
        self._first = 0  # packets before this one were sent
        self._count = count
        self._moved = False

    def __len__(self) -> int:
        """How many packets the batch still owns."""
        return self._count - self._first

    def __iter__(self) -> Iterator[Packet]:
        self._check()
        memory = _memory()
        for position in range(self._first, self._count):
            yield Packet(self, position, memory)

    def __getitem__(self, index: int) -> Packet:
        self._check()
        if not -len(self) <= index < len(self):
            raise IndexError(f"packet {index} of a batch of {len(self)}")
        return Packet(self, self._first + index % len(self), _memory())

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The packets' lengths in bytes, without the frame check sequence; shape (len(batch),), a copy."""
        self._check()
        return self._lengths[self._first : self._count].copy()

    @property
    def bytes(self) -> BatchBytes:
        """The buffers of all packets, to be indexed like an array of shape (len(batch), 2048), uint8."""
        self._check()
        return BatchBytes(self)

    def free(self) -> None:
        """Return the packets that are left to their pools. Done by itself when the batch goes out of scope."""
        if not self.pool.closed:
            give(buffers(), self._ids, self._first, self._count)
        self._first = self._count
        self._moved = True

    def advance(self, sent: int) -> None:
        """Let go of the first `sent` packets: they belong to a transmit ring now. For a driver's transmit queue."""
        self._first += sent
        self._moved = self._moved or (sent > 0 and self._first == self._count)

    def pending(self) -> tuple[NDArray[np.int32], NDArray[np.int32], int, int]:
        """Buffer numbers, lengths, and the range of packets that the batch owns. For queues and kernels."""
        self._check()
        return self._ids, self._lengths, self._first, self._count

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.free()

    def __del__(self) -> None:
        if self._first < self._count:
            self.free()

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} packets{', moved' if self._moved else ''}>"

    def _check(self) -> None:
        if self._moved or self.pool.closed:
            raise OwnershipError("this batch was sent or freed, or its device closed: receive or allocate a new one")


class BatchBytes:
    """The bytes of a batch's packets, read and written by NumPy indexing.

    Reading copies, as indexing by an array always does; assigning writes to the packets. The batch's ownership is
    checked at each access, so nothing dangles.
    """

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._batch), BUFFER_SIZE

    def __getitem__(self, key: Any) -> Any:
        rows, columns = self._locate(key)
        taken = buffers().bytes[rows, columns]
        return taken if isinstance(rows, np.ndarray) else taken.copy()  # one row by its number would be a view

    def __setitem__(self, key: Any, value: Any) -> None:
        buffers().bytes[self._locate(key)] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the bytes of a batch lie in separate buffers: an array of them is a copy")
        return np.asarray(self[:], dtype)

    def _locate(self, key: Any) -> tuple[Any, Any]:
        """The index into all buffers that `key` means for this batch's rows and columns."""
        ids, _, first, last = self._batch.pending()
        row, column = cast("tuple[Any, Any]", key) if isinstance(key, tuple) else (key, slice(None))
        rows = ids[first:last][row]
        if isinstance(column, slice):
            return rows, _within_buffer(cast(slice, column))
        columns: NDArray[np.int64] = np.asarray(_COLUMNS[column])
        crossed = isinstance(row, slice) and columns.ndim > 0
        return (rows[:, np.newaxis] if crossed else rows), columns


_COLUMNS = np.arange(BUFFER_SIZE)


def _within_buffer(columns: slice) -> slice:
    """A slice of a buffer's bytes, with ends that also hold for what lies between buffers."""
    start, stop, step = columns.indices(BUFFER_SIZE)
    return slice(start, stop if stop >= 0 else None, step)


class Packet:
    """One packet, borrowed from a batch: a mutable sequence of bytes.

    An integer that is assigned is taken modulo 256, as in compiled code and in NumPy.
    """

    __slots__ = ("_batch", "_memory", "_offset", "_position", "_size")

    def __init__(self, batch: Batch, position: int, memory: memoryview) -> None:
        self._batch = batch
        self._position = position
        self._memory = memory
        self._offset = int(batch._ids[position]) * STRIDE
        self._size = int(batch._lengths[position])

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        self._check()
        if isinstance(index, slice):
            return self._memory[self._range(index)].tobytes()
        size = self._size
        if not -size <= index < size:
            raise IndexError(f"byte {index} of a packet of {size} bytes")
        return self._memory[self._offset + index % size]

    @overload
    def __setitem__(self, index: int, value: int) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: bytes) -> None: ...
    def __setitem__(self, index: Any, value: Any) -> None:
        self._check()
        if isinstance(index, slice):
            self._memory[self._range(cast(slice, index))] = value
            return
        size = self._size
        if not -size <= index < size:
            raise IndexError(f"byte {index} of a packet of {size} bytes")
        self._memory[self._offset + index % size] = value & 0xFF

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    def __bytes__(self) -> bytes:
        return self[:]

    def resize(self, length: int) -> None:
        """Set the packet's length; bytes that this adds hold whatever the buffer held.

        Raises:
            ConfigurationError: `length` is not within 1 and the size of the buffer, 2048 bytes.
        """
        self._check()
        check_length(length)
        self._size = length
        self._batch._lengths[self._position] = length

    def __repr__(self) -> str:
        return f"<Packet of {self._size} bytes>"

    def _range(self, index: slice) -> slice:
        """The slice of all buffers that a slice of this packet means."""
        start, stop, step = index.indices(self._size)
        if step != 1:
            raise IndexError("a packet's bytes are taken in steps of 1")
        return slice(self._offset + start, self._offset + max(start, stop))

    def _check(self) -> None:
        batch = self._batch
        if not batch._first <= self._position < batch._count or batch.pool.closed:
            raise OwnershipError("this packet was sent or freed, or its device closed: it lives as long as its batch")


@cache
def _memory() -> memoryview:
    """All packet buffers in a row; buffer n starts at n * STRIDE."""
    return memoryview(cast(Any, buffers().bytes.reshape(-1)))


def check_length(length: int) -> None:
    """Refuse a packet length that no buffer can hold."""
    if not 1 <= length <= BUFFER_SIZE:
        raise ConfigurationError(f"a packet of {length} bytes: a buffer holds 1 to {BUFFER_SIZE}")
