"""Mempools: each receive queue takes its buffers from one, and a program can allocate packets from one to send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.errors import ConfigurationError, MemoryUnavailable
from ixy.packets.batch import Batch, check_length
from ixy.packets.buffers import POOL_BUFFERS, POOL_BYTES, POOL_SHIFT, POOLS, STRIDE, buffers, take, usable
from ixy.packets.dma import DmaMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

_in_use: set[int] = set()


class Mempool:
    """A fixed number of packet buffers in DMA memory.

    A pool is kept by those that may still give buffers back or let a device touch them: `hold` and `release` count
    them, and the memory is returned with the last. The creator holds the pool.

    Args:
        capacity: how many buffers.

    Attributes:
        number: of the pool within the process; part of each buffer's number.
        ids: the numbers of all its buffers, shape (capacity,), int64.
        memory: the DMA memory in which they lie.
        closed: the memory was returned; batches that still own buffers of the pool cannot touch them any more.

    Raises:
        ConfigurationError: `capacity` is not within 1 and 64,000.
        MemoryUnavailable: the system gives no memory, or the process has too many pools.
    """

    def __init__(self, capacity: int) -> None:
        if not 1 <= capacity <= 64_000:
            raise ConfigurationError(f"a mempool of {capacity} buffers: 1 to 64000 are possible")
        self.number = _claim_number()
        self.capacity = capacity
        numbers = usable(capacity)
        self.ids: NDArray[np.int64] = numbers + (self.number << POOL_SHIFT)
        try:
            self.memory = DmaMemory(self.number * POOL_BYTES, int(numbers[-1] + 1) * STRIDE)
        except MemoryUnavailable:
            _in_use.discard(self.number)
            raise
        self.closed = False
        self._holders = 1
        packets = buffers()
        base = self.number << POOL_SHIFT
        packets.stack[base : base + capacity] = self.ids[::-1]
        packets.free[self.number, 0] = capacity

    @property
    def available(self) -> int:
        """How many buffers are free."""
        return int(buffers().free[self.number, 0])

    def allocate(self, count: int, length: int = 60) -> Batch:
        """A batch of up to `count` packets of `length` bytes, fewer when the pool runs empty.

        The bytes are whatever the buffers held before.

        Raises:
            ConfigurationError: `count` is below 1, or no buffer holds `length` bytes.
        """
        check_length(length)
        if count < 1:
            raise ConfigurationError(f"a batch of {count} packets: allocate at least 1")
        ids = np.empty(min(count, POOL_BUFFERS), np.int32)
        taken = take(buffers(), self.number, ids, len(ids))
        return Batch(self, ids, np.full(len(ids), length, np.int32), taken)

    def hold(self) -> None:
        """Keep the pool: its buffers may lie in one more ring."""
        self._holders += 1

    def release(self) -> None:
        """Undo one `hold`, or the creation; the last one returns the memory."""
        self._holders -= 1
        if self._holders == 0:
            self.closed = True
            self.memory.close()
            buffers().free[self.number, 0] = 0
            _in_use.discard(self.number)

    def __repr__(self) -> str:
        return f"<Mempool {self.number}: {self.available} of {self.capacity} buffers free>"


def _claim_number() -> int:
    for number in range(POOLS):
        if number not in _in_use:
            _in_use.add(number)
            return number
    raise MemoryUnavailable(f"this process has {POOLS} mempools already: close a device first")
