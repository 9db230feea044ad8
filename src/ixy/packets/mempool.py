"""Mempools: each receive queue takes its buffers from one, and a program can allocate packets from one to send."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakSet, ref

import numpy as np

from ixy import streams
from ixy.arguments import integer
from ixy.errors import Error, MemoryUnavailable, OwnershipError
from ixy.jit import Direct, compiled
from ixy.once import once
from ixy.packets import checking
from ixy.packets.batch import Batch, Lender, Taker, check_length, no_copies
from ixy.packets.buffers import BUFFER_SIZE, MAX_PARTS, POOL_BYTES, POOL_SHIFT, POOLS, STRIDE, usable
from ixy.packets.dma import DmaMemory, in_use
from ixy.packets.packets import METADATA, NO_NEXT, Packets, check_metadata
from ixy.packets.parts import all_buffers, link_rest, parts_of
from ixy.packets.pool import (
    Pools,
    available,
    close_pool,
    free_count,
    fresh,
    open_pool,
    refill,
    release,
    take_soon,
    took,
    wait_for,
)
from ixy.unsafe import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_CAPACITY = 64_000
_zeros: Any = np.zeros

# A pool's holders are counted by those that attach it to a device, which is no business of a program's.
# pyright: reportPrivateUsage=false


@no_copies
class Mempool(Lender):
    """A fixed number of packet buffers in DMA memory. Any number of threads may use it at once.

    The memory is returned when the pool is released, or its `with` block is left, and no device uses it any more.

    Args:
        capacity: how many buffers, 1 to 64,000.

    Attributes:
        number: of the pool within the process; part of each buffer's number.
        capacity: how many buffers.
        ids: the numbers of all its buffers, shape (capacity,), int64.
        memory: the DMA memory in which they lie.
        closed: the memory was returned; batches that still own buffers of the pool cannot touch them any more.

    Raises:
        ConfigurationError: `capacity` is out of bounds.
        MemoryUnavailable: the system gives no memory, or the process has too many pools.
        TypeError: `capacity` is no integer.
    """

    def __init__(self, capacity: int) -> None:
        self.closed = True  # until all is there
        self.capacity = integer("capacity", capacity, 1, MAX_CAPACITY)
        streams.occupy()
        super().__init__()
        self._holders: set[object] = set()
        self.number = _numbers().claim(self)
        numbers = usable(self.capacity)
        self.ids: NDArray[np.int64] = numbers + (self.number << POOL_SHIFT)
        self.memory = DmaMemory(self.number * POOL_BYTES, int(numbers[-1] + 1) * STRIDE)
        open_pool(self._pools, self.number, self.ids[::-1])
        self._holders.add(_PROGRAM)
        _living.add(self)
        self.closed = False

    @property
    def available(self) -> int:
        """How many buffers are free."""
        self._sweep()
        return 0 if self.closed else available(self._pools, self.number)

    def allocate(self, count: int, length: int = 60, *, metadata: Sequence[str] = ()) -> Batch:
        """A batch of up to `count` packets of `length` bytes, fewer when the pool runs empty.

        The bytes are whatever the buffers held before.

        Args:
            length: of each packet. With "parts" as metadata it may be longer than a buffer: up to 33 of 2048 bytes.
            metadata: columns for what a device is to do to the packets, see `ixy.open`; nothing is said there at first.

        Raises:
            ConfigurationError: `count` is below 1, or no buffer holds `length` bytes, or there is no such metadata.
            OwnershipError: the pool belongs to another process, or another thread holds it for more than a second.
            Error: the pool is closed.
        """
        metadata = check_metadata(f"mempool {self.number}", metadata, METADATA) if metadata else ()
        length = check_length(length, MAX_PARTS if "parts" in metadata else 1)
        count = min(integer("count", count, 1, sys.maxsize), self.capacity)
        self._check()
        allocate = _allocate if length <= BUFFER_SIZE else _allocate_chains
        batch = Batch(self, count, metadata, new=_zeros)
        for _ in range(2):
            if not allocate(metadata, self._pools, self.number, batch._packets, batch._span, count, length):
                self._check()
                raise OwnershipError(f"{self!r} is held by another thread, which does not let go")
            if len(batch) == count or not self._sweep():
                break
            batch.free()
            batch = Batch(self, count, metadata, new=_zeros)
        checking.report(self._pools)
        return batch

    def release(self) -> None:
        """Give the pool up: its memory is returned as soon as no device uses it any more.

        Raises:
            OwnershipError: it was released before, or it is a device's own, which returns it when it is closed.
        """
        if not self._owner.mine():
            return
        if _PROGRAM not in self._holders:
            raise OwnershipError(f"{self!r} is not yours to release: it was released before, or is a device's own")
        drop(self, _PROGRAM)
        checking.report(self._pools)

    def supply(self, taker: Taker) -> None:
        taker.attach(self)

    def __enter__(self) -> Mempool:
        self._check()
        return self

    def __exit__(self, *exception: object) -> None:
        if _PROGRAM in self._holders:
            self.release()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not getattr(self, "closed", True) and _PROGRAM in self._holders and not _ending():
            name = repr(self)
            drop(self, _PROGRAM)
            checking.log_report(self._pools)
            warnings.warn(f"{name} was never released", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self.closed:
            return f"<Mempool {getattr(self, 'number', 'that failed')}, closed>"
        return f"<Mempool {self.number}: {available(self._pools, self.number)} of {self.capacity} buffers free>"

    def _check(self) -> None:
        if self.closed:
            self._owner.check(f"mempool {self.number}")
            raise Error(f"mempool {self.number} is closed: make a new one, or open the device again")


@Direct
@compiled
def _allocate(pools: Pools, pool: int, packets: Packets, span: NDArray[np.int64], count: int, length: int) -> bool:
    """Let a batch have up to `count` packets of `length` bytes; False if the pool cannot be had."""
    taken = take_soon(pools, pool, packets, count)
    if taken < 0:
        return False
    span[1] = taken
    for i in range(taken):
        packets.lengths[i] = length
        put(packets.nexts, i, NO_NEXT)
    return True


@Direct
@compiled
def _allocate_chains(
    pools: Pools, pool: int, packets: Packets, span: NDArray[np.int64], count: int, length: int
) -> bool:
    """The same, where no packet lies in one buffer: each takes several, all of them full but the last."""
    if not wait_for(pools.words, pool):
        return False
    parts = parts_of(length)
    free = free_count(pools, pool)
    if free < count * parts:
        free = refill(pools, pool)
    count = min(count, free // parts)
    for i in range(count):
        packets.ids[i] = fresh(pools, pool, free, i * parts)
        packets.lengths[i] = BUFFER_SIZE
        put(packets.nexts, i, link_rest(pools, pool, free, i * parts, length))
    took(pools, pool, free - count * parts, packets)
    span[1] = count
    release(pools.words, pool)
    return True


# ---------------------------------------------------------------------------------------------------------------------
# For devices


def hold(pool: Mempool, holder: object) -> None:
    """Keep a pool, whose buffers may lie in the rings of one more device, `holder`.

    Raises:
        Error: the pool is closed.
        OwnershipError: it belongs to another process.
    """
    with _numbers().lock:
        pool._check()
        pool._holders.add(holder)


def drop(pool: Mempool, holder: object) -> None:
    """Undo `hold`; the last holder returns the memory. If that is interrupted, a second call goes on with it.

    Raises:
        OwnershipError: the pool is in use by a thread that does not let go.
    """
    with _numbers().lock:
        if len(pool._holders) > 1 or holder not in pool._holders:
            pool._holders.discard(holder)
            return
        if not close_pool(pool._pools, pool.number):
            raise OwnershipError(f"{pool!r} is held by another thread, which does not let go")
        pool.closed = True
        kept = [all_buffers(pool._pools, loan.packets, *loan.span) for loan in list(pool._loans)]
        checking.closed(pool._pools, pool.ids, kept)
        pool.memory.close()
        _numbers().free(pool)
        pool._loans.clear()
        pool._holders.clear()


_PROGRAM = "the program"  # the first holder of a pool: who made it


class _Numbers:
    """Which numbers the pools of the process have. One that was given back is given out again as late as can be."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._pools: dict[int, ReferenceType[Mempool]] = {}
        self._last = -1

    def claim(self, pool: Mempool) -> int:
        """The number of a new pool. One that fails before it is whole has it until it is collected.

        Raises:
            MemoryUnavailable: all are in use.
        """
        with self.lock:
            for number in ((self._last + 1 + i) % POOLS for i in range(POOLS)):
                user = self._pools.get(number)
                if (user is None or user() is None) and not in_use(number * POOL_BYTES):
                    self._pools[number] = ref(pool)
                    self._last = number
                    return number
        raise MemoryUnavailable(f"this process has {POOLS} mempools already: close a device or release a pool first")

    def free(self, pool: Mempool) -> None:
        user = self._pools.get(pool.number)
        if user is not None and user() is pool:
            del self._pools[pool.number]


@once
def _numbers() -> _Numbers:
    return _Numbers()


_living: WeakSet[Mempool] = WeakSet()


def _disown() -> None:
    """After a fork, in the child: the parent's pools are not to be used here."""
    for pool in list(_living):
        pool.closed = True
    _living.clear()


os.register_at_fork(after_in_child=_disown)
