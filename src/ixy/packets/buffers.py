"""Packet buffers, known by number, and the stacks of free ones.

A buffer has a fixed size and a number that is unique in the process. A pool owns a range of numbers and keeps those of
its free buffers on a stack: what was freed last is given out first, while it is still in the cache. A buffer's number
names its pool, so it finds home from any queue of any device.

Successive buffers lie 2112 bytes apart, not 2048: with a power of two, the first bytes of all packets would compete for
two of the cache's sets. The 64 bytes between two buffers are headroom: a device that wants a header of its own before
each packet finds it there, contiguous with the packet.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.jit import compiled
from ixy.packets.dma import HUGE_PAGE, PACKET_REGION, window

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUFFER_SIZE = 2048  # bytes of a packet buffer
HEADROOM = 64  # bytes before each buffer
STRIDE = BUFFER_SIZE + HEADROOM  # from one buffer to the next: a cache line more
POOL_SHIFT = 16  # a buffer's number, shifted right by this, is the number of its pool
POOL_BUFFERS = 1 << POOL_SHIFT  # the most buffers that a pool can have
POOL_BYTES = POOL_BUFFERS * STRIDE
POOLS = PACKET_REGION // POOL_BYTES
ID_MASK = POOLS * POOL_BUFFERS - 1  # an index masked with it lies within every array over all buffers
_LINE = 8  # int64 words of a cache line: pools used by different cores share none


class Buffers(NamedTuple):
    """All packet buffers of the process, as kernels see them.

    Attributes:
        bytes: shape (POOLS * POOL_BUFFERS, STRIDE), uint8; only buffers of living pools are mapped.
        stack: shape (POOLS * POOL_BUFFERS,), int32: pool p's free buffers are `stack[p << POOL_SHIFT:][:free[p, 0]]`.
        free: shape (POOLS, 8), int64; column 0 is the number of free buffers, the rest pads to a cache line.
    """

    bytes: NDArray[np.uint8]
    stack: NDArray[np.int32]
    free: NDArray[np.int64]


@cache
def buffers() -> Buffers:
    """The buffers of this process. Their arrays are address space until a pool puts memory there."""
    count = POOLS * POOL_BUFFERS
    return Buffers(
        bytes=window().bytes[:PACKET_REGION].reshape(count, STRIDE),
        stack=np.zeros(count, np.int32),
        free=np.zeros((POOLS, _LINE), np.int64),
    )


def usable(count: int) -> NDArray[np.int64]:
    """The first `count` numbers within a pool whose buffers, with their headroom, cross no huge page, in rising order.

    Huge pages need not be neighbours in physical memory, so a buffer that crosses from one into the next is left out;
    so is number 0, whose headroom lies outside the pool.
    """
    numbers = np.arange(count + count * STRIDE // HUGE_PAGE + 2, dtype=np.int64)
    first, last = numbers * STRIDE - HEADROOM, numbers * STRIDE + BUFFER_SIZE - 1
    return numbers[first // HUGE_PAGE == last // HUGE_PAGE][:count]


@compiled
def take(packets: Buffers, pool: int, ids: NDArray[np.int32], limit: int) -> int:
    """Pop up to `limit` free buffers of `pool` into `ids`; the number popped."""
    free = packets.free[pool, 0]
    count = min(limit, free)
    top = (pool << POOL_SHIFT) + free - 1
    for i in range(count):
        ids[i] = packets.stack[(top - i) & ID_MASK]
    packets.free[pool, 0] = free - count
    return count


@compiled
def give(packets: Buffers, ids: NDArray[np.int32], first: int, last: int) -> None:
    """Push the buffers `ids[first:last]`, each to its own pool."""
    count = last - first
    if count <= 0:
        return
    pool = ids[first] >> POOL_SHIFT
    different = np.int32(0)
    for i in range(count):
        different |= ids[first + i] ^ ids[first]
    if different >> POOL_SHIFT != 0:
        give_one_by_one(packets, ids, first, last)
        return
    # All come from one pool, as almost always: the compiler turns this into a few vector moves.
    free = packets.free[pool, 0]
    top = ((pool << POOL_SHIFT) + free) & ID_MASK
    start = first & ID_MASK
    for i in range(count):
        packets.stack[top + i] = ids[start + i]
    packets.free[pool, 0] = free + count


@compiled
def give_one_by_one(packets: Buffers, ids: NDArray[np.int32], first: int, last: int) -> None:
    """Push buffers of several pools."""
    for i in range(first, last):
        pool = ids[i] >> POOL_SHIFT
        free = packets.free[pool, 0]
        packets.stack[(pool << POOL_SHIFT) + free] = ids[i]
        packets.free[pool, 0] = free + 1
