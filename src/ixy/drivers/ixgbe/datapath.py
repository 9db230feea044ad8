"""The data path of the 82599: two kernels over descriptor rings.

A ring is shared with the card. The driver owns the descriptors between what it last took and the tail; the card owns
the rest. Which buffer lies in which descriptor stands in the driver's own `ids`: what the card writes into a descriptor
is never taken as an address or an index, only as status and length, and the length is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.jit import compiled
from ixy.memory.buffers import BUFFER_SIZE, POOL_SHIFT, Buffers, give
from ixy.registers.i82599 import (
    RX_DD,
    RX_EOP,
    RX_LENGTH_SHIFT,
    TX_DATA,
    TX_DD,
    TX_DEXT,
    TX_EOP,
    TX_IFCS,
    TX_PAYLEN_SHIFT,
    TX_RS,
)
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Descriptors are cleaned in groups: the card reports the status of every 32nd only, which saves it write-backs and us
# looks at descriptors.
CLEAN_GROUP = 32
_RS_SHIFT = 22  # moves the bit that says "last of its group" (5) to TX_RS (27)
_TX_COMMAND = TX_EOP | TX_IFCS | TX_DEXT | TX_DATA

# Words of a ring's `state`
NEXT = 0  # the descriptor that comes next, counted without wrapping
CLEAN = 1  # transmit: the oldest descriptor that still holds a buffer, counted likewise
DROPPED = 2  # receive: frames refused
STARVED = 3  # receive: times that the pool was empty
SKIPPING = 4  # receive: 1 while the rest of a frame that spans buffers is to be refused
STATE_WORDS = 8


class RxState(NamedTuple):
    """A receive ring.

    Attributes:
        descriptors: in DMA memory, shape (2 * size,), int64: two words each.
        tail: the doorbell RDT, shape (1,), uint32.
        ids: the buffer in each descriptor, shape (size,), int32.
        state: shape (STATE_WORDS,), int64.
        addresses: the card's address of each buffer by number, int64.
        pool: number of the pool that buffers come from.
    """

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    ids: NDArray[np.int32]
    state: NDArray[np.int64]
    addresses: NDArray[np.int64]
    pool: int


class TxState(NamedTuple):
    """A transmit ring: as `RxState`, with TDT for the doorbell."""

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    ids: NDArray[np.int32]
    state: NDArray[np.int64]
    addresses: NDArray[np.int64]


@compiled
def fill(ring: RxState, packets: Buffers) -> int:
    """Put a buffer into every descriptor of a receive ring; how many descriptors got one.

    The caller sets the tail to the last one, so that head and tail differ (datasheet 7.1.9).
    """
    size = ring.ids.size
    free = packets.free[ring.pool, 0]
    count = min(size, free)
    top = (ring.pool << POOL_SHIFT) + free - 1
    for slot in range(count):
        buffer = packets.stack[top - slot]
        ring.ids[slot] = buffer
        ring.descriptors[2 * slot] = ring.addresses[buffer]
        ring.descriptors[2 * slot + 1] = 0
    packets.free[ring.pool, 0] = free - count
    return count


@compiled
def rx_batch(ring: RxState, packets: Buffers, ids: NDArray[np.int32], lengths: NDArray[np.int32], limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the card a fresh buffer for each (7.1.6, 7.1.9).

    When the pool is empty, packets stay in the ring until buffers come back; the card drops what finds no room.
    """
    mask = ring.ids.size - 1
    first = ring.state[NEXT]
    base = ring.pool << POOL_SHIFT
    free = packets.free[ring.pool, 0]
    index = first
    count = 0
    while index - first < limit:
        slot = index & mask
        status = load_acquire(ring.descriptors, 2 * slot + 1)
        if status & RX_DD == 0:
            break
        length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
        if status & RX_EOP == 0 or ring.state[SKIPPING] != 0 or length == 0 or length > BUFFER_SIZE:
            refuse(ring, slot, status)
            index += 1
            continue
        if free == 0:
            ring.state[STARVED] += 1
            break
        free -= 1
        ids[count] = ring.ids[slot]
        lengths[count] = length
        count += 1
        buffer = packets.stack[base + free]
        ring.ids[slot] = buffer
        ring.descriptors[2 * slot] = ring.addresses[buffer]
        ring.descriptors[2 * slot + 1] = 0
        index += 1
    if index != first:
        packets.free[ring.pool, 0] = free
        ring.state[NEXT] = index
        # The last descriptor handed back: the tail never meets the head, which would mean an empty ring.
        store_release(ring.tail, 0, (index - 1) & mask)
    return count


@compiled
def refuse(ring: RxState, slot: int, status: int) -> None:
    """Hand a descriptor back with its buffer: part of a frame that does not fit one buffer, or a length of nonsense."""
    last = status & RX_EOP != 0
    if last:
        ring.state[DROPPED] += 1
    ring.state[SKIPPING] = 0 if last else 1
    ring.descriptors[2 * slot] = ring.addresses[ring.ids[slot]]
    ring.descriptors[2 * slot + 1] = 0


@compiled
def tx_batch(
    ring: TxState, packets: Buffers, ids: NDArray[np.int32], lengths: NDArray[np.int32], first: int, last: int
) -> int:
    """Put packets `first` to `last` on the ring until it is full, and ring the doorbell; how many it took (7.2.3)."""
    clean(ring, packets)
    mask = ring.ids.size - 1
    index = ring.state[NEXT]
    # One descriptor stays unused: with tail equal to head the card sees an empty ring.
    count = min(last - first, mask - (index - ring.state[CLEAN]))
    if count <= 0:
        return 0
    for i in range(count):
        slot = (index + i) & mask
        buffer = ids[first + i]
        length = np.int64(lengths[first + i])
        group_end = (slot & (CLEAN_GROUP - 1)) + 1
        report = (group_end & CLEAN_GROUP) << _RS_SHIFT
        ring.ids[slot] = buffer
        ring.descriptors[2 * slot] = ring.addresses[buffer]
        ring.descriptors[2 * slot + 1] = (length << TX_PAYLEN_SHIFT) | _TX_COMMAND | report | length
    ring.state[NEXT] = index + count
    store_release(ring.tail, 0, (index + count) & mask)
    return count


@compiled
def clean(ring: TxState, packets: Buffers) -> None:
    """Return the buffers of sent packets to their pools, group by group (7.2.3.5)."""
    mask = ring.ids.size - 1
    oldest = ring.state[CLEAN]
    end = ring.state[NEXT] - CLEAN_GROUP
    while oldest <= end:
        slot = oldest & mask
        status = load_acquire(ring.descriptors, 2 * (slot + CLEAN_GROUP - 1) + 1)
        if status & TX_DD == 0:
            break
        give(packets, ring.ids, slot, slot + CLEAN_GROUP)
        oldest += CLEAN_GROUP
    ring.state[CLEAN] = oldest
