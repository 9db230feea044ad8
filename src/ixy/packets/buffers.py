"""Packet buffers, known by number.

A buffer has a fixed size and a number that is unique in the process. A pool owns a range of numbers, so a buffer's
number names its pool, and it finds home from any queue of any device.

Successive buffers lie 2112 bytes apart, not 2048: with a power of two, the first bytes of all packets would compete for
two of the cache's sets. The 64 bytes between two buffers are headroom: a device that wants a header of its own before
each packet finds it there, contiguous with the packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.jit import compiled
from ixy.packets.dma import HUGE_PAGE, PACKET_REGION
from ixy.unsafe import element_or_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Addresses = NDArray[np.int64] | int
    """Where a device sees packet buffers: an address for each by number, shape (POOLS * POOL_BUFFERS,), or, where they
    lie in one piece for it, that of number 0. Kernels are compiled for one or the other."""

BUFFER_SIZE = 2048  # bytes of a packet buffer
MAX_PARTS = 33  # buffers that a packet may lie in: 64 KiB and headers
HEADROOM = 64  # bytes before each buffer
STRIDE = BUFFER_SIZE + HEADROOM  # from one buffer to the next: a cache line more
POOL_SHIFT = 16  # a buffer's number, shifted right by this, is the number of its pool
POOL_BUFFERS = 1 << POOL_SHIFT  # the most buffers that a pool can have
POOL_BYTES = POOL_BUFFERS * STRIDE
POOLS = PACKET_REGION // POOL_BYTES
ID_MASK = POOLS * POOL_BUFFERS - 1  # an index masked with it lies within every array over all buffers

LENGTH_MASK = (BUFFER_SIZE << 1) - 1  # a length masked with it is known to be positive


def usable(count: int) -> NDArray[np.int64]:
    """The first `count` numbers within a pool whose buffers, with their headroom, cross no huge page, in rising order.

    Huge pages need not be neighbours in physical memory, so a buffer that crosses from one into the next is left out;
    so is number 0, whose headroom lies outside the pool.
    """
    numbers = np.arange(count + count * STRIDE // HUGE_PAGE + 2, dtype=np.int64)
    first, last = numbers * STRIDE - HEADROOM, numbers * STRIDE + BUFFER_SIZE - 1
    return numbers[first // HUGE_PAGE == last // HUGE_PAGE][:count]


@compiled
def device_address(addresses: Addresses, buffer: Any) -> int:
    """Where the device to which `addresses` belongs sees a buffer."""
    return element_or_step(addresses, buffer & ID_MASK, STRIDE)
