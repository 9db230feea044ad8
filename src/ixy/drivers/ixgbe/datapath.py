"""The data path of the 82599: two kernels over descriptor rings.

A ring is shared with the card. The driver owns the descriptors between what it last took and the tail; the card owns
the rest. Which buffer lies in which descriptor stands in the driver's own `ids`: what the card writes into a descriptor
is never taken as an address or an index, only as status and length, and the length is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.jit import compiled
from ixy.memory.buffers import BUFFER_SIZE, ID_MASK, POOL_SHIFT, Buffers, give
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
_TX_COMMAND = TX_EOP | TX_IFCS | TX_DEXT | TX_DATA
_WHOLE = RX_DD | RX_EOP  # a frame in one buffer
# Rings and batches have at most so many entries. Masked with this, an index is known to be positive, and the compiler
# leaves out what Python's negative indices would need.
INDEX_MASK = 0xFFFF

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
    mask = (ring.ids.size - 1) & INDEX_MASK
    first = ring.state[NEXT]
    if ring.state[SKIPPING] != 0:
        return skip(ring)
    free = packets.free[ring.pool, 0]
    top = (ring.pool << POOL_SHIFT) + free - 1
    status = 0
    count = 0
    for i in range(min(limit, free)):
        slot = (first + i) & mask
        status = load_acquire(ring.descriptors, 2 * slot + 1)
        length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
        if status & _WHOLE != _WHOLE or length == 0 or length > BUFFER_SIZE:
            break
        ids[i] = ring.ids[slot]
        lengths[i] = length
        buffer = packets.stack[(top - i) & ID_MASK]
        ring.ids[slot] = buffer
        ring.descriptors[2 * slot] = ring.addresses[buffer & ID_MASK]
        ring.descriptors[2 * slot + 1] = 0
        count = i + 1
    if count > 0:
        packets.free[ring.pool, 0] = free - count
        advance(ring, count)
    elif free == 0:
        starve(ring)
    elif status & RX_DD != 0:
        refuse(ring)
    return count


@compiled
def advance(ring: RxState, count: int) -> None:
    """Hand descriptors back: the tail is the last one, so it never meets the head, which would mean an empty ring."""
    following = ring.state[NEXT] + count
    ring.state[NEXT] = following
    store_release(ring.tail, 0, (following - 1) & (ring.ids.size - 1))


@compiled
def starve(ring: RxState) -> None:
    """Count that a packet waits for which there is no buffer."""
    slot = ring.state[NEXT] & (ring.ids.size - 1)
    if load_acquire(ring.descriptors, 2 * slot + 1) & RX_DD != 0:
        ring.state[STARVED] += 1


@compiled
def refuse(ring: RxState) -> None:
    """Drop the next frame, of which the card has written at least one buffer, and hand that back.

    It spans several buffers, or its length is nonsense.
    """
    slot = ring.state[NEXT] & (ring.ids.size - 1)
    last = load_acquire(ring.descriptors, 2 * slot + 1) & RX_EOP != 0
    ring.state[SKIPPING] = 0 if last else 1
    ring.state[DROPPED] += 1 if last else 0
    ring.descriptors[2 * slot] = ring.addresses[ring.ids[slot]]
    ring.descriptors[2 * slot + 1] = 0
    advance(ring, 1)


@compiled
def skip(ring: RxState) -> int:
    """Drop the rest of a frame that spans buffers, as far as the card has written it; no packet is received."""
    for _ in range(ring.ids.size):
        slot = ring.state[NEXT] & (ring.ids.size - 1)
        if ring.state[SKIPPING] == 0 or load_acquire(ring.descriptors, 2 * slot + 1) & RX_DD == 0:
            break
        refuse(ring)
    return 0


@compiled
def tx_batch(
    ring: TxState, packets: Buffers, ids: NDArray[np.int32], lengths: NDArray[np.int32], first: int, last: int
) -> int:
    """Put packets `first` to `last` on the ring until it is full, and ring the doorbell; how many it took (7.2.3)."""
    clean(ring, packets)
    mask = (ring.ids.size - 1) & INDEX_MASK
    index = ring.state[NEXT]
    # One descriptor stays unused: with tail equal to head the card sees an empty ring.
    count = min(last - first, mask - (index - ring.state[CLEAN]))
    if count <= 0:
        return 0
    for i in range(count):
        slot = (index + i) & mask
        buffer = ids[(first + i) & INDEX_MASK]
        length = np.int64(lengths[(first + i) & INDEX_MASK])
        ring.ids[slot] = buffer
        ring.descriptors[2 * slot] = ring.addresses[buffer & ID_MASK]
        ring.descriptors[2 * slot + 1] = (length << TX_PAYLEN_SHIFT) | _TX_COMMAND | length
    group_end = index | (CLEAN_GROUP - 1)
    while group_end < index + count:
        ring.descriptors[2 * (group_end & mask) + 1] |= TX_RS
        group_end += CLEAN_GROUP
    ring.state[NEXT] = index + count
    store_release(ring.tail, 0, (index + count) & mask)
    return count


@compiled
def clean(ring: TxState, packets: Buffers) -> None:
    """Return the buffers of sent packets to their pools, group by group (7.2.3.5)."""
    mask = (ring.ids.size - 1) & INDEX_MASK
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
