"""The data path of a split ring: two kernels, and what is out of the ordinary.

A split ring, 2.7 of the VirtIO specification 1.2, has three parts: descriptors, the available ring, in which the driver
says which of them the device may use, and the used ring, in which the device says which it has used.

A device uses descriptors in the order in which it was given them, or nearly so. So the available ring is written once:
place n offers descriptor n, and when it comes back with a packet it gets a fresh buffer and is offered again by moving
the index on. `order` holds what the places offer; where a device uses another descriptor than the one whose turn it is,
the two change places.

Nothing that the device writes is trusted. Which buffer lies at which place stands in the driver's own `ids`; an
identifier counts only if that descriptor is with the device, and a length only if the buffer can hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.drivers.virtio.rings.state import (
    BAD_ID,
    BAD_INDEX,
    BLOCK,
    BROKEN,
    BYTES,
    GROUP,
    OFFERED,
    PACKETS,
    SKIPPING,
    buffer_count,
    clear_header,
    describe,
    describe_block,
    exchange,
    sending,
    spans,
    total_length,
    unusual,
)
from ixy.drivers.virtio.transports.transport import Doorbell, ring_doorbell
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, LENGTH_MASK, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, give, took, trade
from ixy.registers.virtio import NO_INTERRUPT, NO_NOTIFY, SPLIT_WRITE
from ixy.unsafe import load_acquire, load_ordered, store_ordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

# Indices in `available`, and in `used_flags`
FLAGS = 0
INDEX = 1
PLACES = 2


class SplitRing(NamedTuple):
    """A split ring for frames.

    Attributes:
        descriptors: shape (2 * size,), int64: two words each.
        available: flags, index, places, used_event: shape (size + 3,), uint16.
        used_flags: flags and index of the used ring, shape (2,), uint16.
        used: its elements, identifier and length: shape (2 * size,), uint32.
        available_event: shape (1,), uint16.
        held: the buffer at each place.
        order: the descriptor at each place, shape (size,), int32.
        place: the place of each descriptor, shape (size,), int32.
        state: shape (STATE_WORDS,), int64.
        addresses: where the device sees the header before each buffer.
        headers: all of the packet memory as words, int32; see `state.clear_header`. As bytes, where there are offloads.
        doorbell: to notify the device with.
        pool: number of the pool that buffers come from; -1 for a transmit ring.
        header: bytes of the header.
        mergeable, in_order, event_index: 1 if the feature was negotiated, else 0.
    """

    descriptors: NDArray[np.int64]
    available: NDArray[np.uint16]
    used_flags: NDArray[np.uint16]
    used: NDArray[np.uint32]
    available_event: NDArray[np.uint16]
    held: Packets
    order: NDArray[np.int32]
    place: NDArray[np.int32]
    state: NDArray[np.int64]
    addresses: Addresses
    headers: NDArray[np.int32]
    doorbell: Doorbell
    pool: int
    header: int
    mergeable: int
    in_order: int
    event_index: int


@compiled
def offer_all(ring: SplitRing, count: int) -> None:
    """Offer the buffers that a receive ring has been filled with, in its first `count` descriptors."""
    for slot in range(count):
        ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
        ring.descriptors[2 * slot + 1] = SPLIT_WRITE | (ring.header + BUFFER_SIZE)
    ring.state[OFFERED] = count
    store_ordered(ring.available, INDEX, count)


@compiled
def want_interrupt(ring: SplitRing) -> None:
    """Have the device interrupt for what it uses next; what it used before, a look afterwards shows (2.7.7)."""
    if ring.event_index != 0:
        store_ordered(ring.available, PLACES + ring.held.ids.size, ring.state[NEXT] & 0xFFFF)
    else:
        store_ordered(ring.available, FLAGS, 0)


@compiled
def want_no_interrupt(ring: SplitRing) -> None:
    """With an event index there is none until the index comes round, in 65,536 packets."""
    if ring.event_index == 0:
        store_ordered(ring.available, FLAGS, NO_INTERRUPT)


@compiled
def ready(ring: SplitRing) -> bool:
    """Whether the device has used a buffer that was not taken from the ring."""
    return load_acquire(ring.used_flags, INDEX) != ring.state[NEXT] & 0xFFFF


@compiled
def rx_batch(ring: SplitRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the device a fresh buffer for each (2.7.14).

    When the pool is empty, packets stay in the ring until buffers come back.
    """
    state = ring.state
    ready = (load_acquire(ring.used_flags, INDEX) - state[NEXT]) & 0xFFFF
    if ready == 0:
        return 0
    count = 0
    if ready <= state[OFFERED] - state[NEXT] and state[SKIPPING] | state[BROKEN] == 0:
        count = take_good(ring, pools, packets, min(limit, ready))
    if count == 0:
        if limit > 0:
            odd(ring, ready, free_count(pools, ring.pool))
        return 0
    handed = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
    stamp(packets, 0, count)
    state[PACKETS] += count
    recycled(ring)
    return handed


@compiled
def take_good(ring: SplitRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take packets up to one that is odd, by stretches without a wrap; how many."""
    size = ring.held.ids.size
    count = end = 0
    while count == end and count < limit:
        end = min(limit, count + size - (ring.state[NEXT] & (size - 1)))
        count = take_blocks(ring, pools, packets, count, end)
        count = take_singly(ring, pools, packets, count, end)
    return count


@compiled
def take_blocks(ring: SplitRing, pools: Pools, packets: Packets, count: int, end: int) -> int:
    """After `count` packets take more by blocks, up to one about which something is odd; how many there are then."""
    mask = (ring.held.ids.size - 1) & INDEX_MASK
    while count + BLOCK <= end and free_count(pools, ring.pool) >= BLOCK:
        slot = ring.state[NEXT] & mask
        if read_block(ring, slot, packets, count) != 0:
            break
        describe_block(ring, packets, count, slot)
        trade(pools, ring.pool, ring.held, slot, packets, count, BLOCK)
        for i in range(BLOCK):
            arm(ring, slot + i)
        ring.state[BYTES] += total_length(packets, count, BLOCK)
        ring.state[NEXT] += BLOCK
        count += BLOCK
    return count


@compiled
def take_singly(ring: SplitRing, pools: Pools, packets: Packets, before: int, end: int) -> int:
    """After `before` packets take more one by one, up to one that is odd; how many there are then."""
    first, free = ring.state[NEXT], free_count(pools, ring.pool)
    out = ring.state[OFFERED] - first
    slot = first & (ring.held.ids.size - 1) & INDEX_MASK
    before &= INDEX_MASK
    count = total = 0
    for i in range(min(end - before, free) & INDEX_MASK):
        used = load_acquire(ring.used, 2 * (slot + i))
        length = load_acquire(ring.used, 2 * (slot + i) + 1) - ring.header
        if used != ring.order[slot + i] and not reorder(ring, slot + i, used, out - i):
            break
        if unusual(length) != 0 and (length != BUFFER_SIZE or spans(ring, slot + i)):
            break
        packets.ids[before + i] = ring.held.ids[slot + i]
        packets.lengths[before + i] = length
        describe(ring, packets, before + i, slot + i)
        ring.held.ids[slot + i] = fresh(pools, ring.pool, free, i)
        arm(ring, slot + i)
        total += length
        count = i + 1
    took(pools, ring.pool, free - count, ring.held)
    ring.state[BYTES] += total
    ring.state[NEXT] = first + count
    return before + count


@compiled
def disorder(ring: SplitRing, slot: int, count: int) -> int:
    """0 if the device has used the descriptors from a place on in their order; there is no wrap between."""
    slot &= INDEX_MASK
    difference = 0
    for i in range(count & INDEX_MASK):
        difference |= np.int64(ring.used[2 * (slot + i)]) ^ np.int64(ring.order[slot + i])
    return int(difference)


@compiled
def read_block(ring: SplitRing, slot: int, packets: Packets, at: int) -> int:
    """Note the lengths of a block of packets; 0 if they came in order, and no length is `unusual`."""
    slot &= INDEX_MASK
    at &= INDEX_MASK
    odd = 0
    for i in range(BLOCK):
        length = np.int64(ring.used[2 * (slot + i) + 1]) - ring.header
        odd |= np.int64(ring.used[2 * (slot + i)]) ^ np.int64(ring.order[slot + i])
        odd |= unusual(length)
        packets.lengths[at + i] = length & LENGTH_MASK
    return int(odd)


@compiled
def arm(ring: SplitRing, slot: int) -> None:
    """Put the buffer that lies at a place of a receive ring into its descriptor."""
    ring.descriptors[2 * (ring.order[slot] & INDEX_MASK)] = device_address(ring.addresses, ring.held.ids[slot])


@compiled
def recycled(ring: SplitRing) -> None:
    """The places before the next hold fresh buffers. The device is given them by groups."""
    size = ring.held.ids.size
    end = ring.state[NEXT] + size
    if end - ring.state[OFFERED] >= min(GROUP, size >> 1):
        offer(ring, end)


@compiled
def offer(ring: SplitRing, end: int) -> None:
    """Offer the places before `end`, and notify the device if it wants that (2.7.10, 2.7.13)."""
    old = ring.state[OFFERED]
    ring.state[OFFERED] = end
    store_ordered(ring.available, INDEX, end & 0xFFFF)
    if ring.event_index != 0:
        event = load_ordered(ring.available_event, 0)
        wanted = (end - event - 1) & 0xFFFF < end - old
    else:
        wanted = load_ordered(ring.used_flags, FLAGS) & NO_NOTIFY == 0
    if wanted:
        ring_doorbell(ring.doorbell)


@compiled
def reorder(ring: SplitRing, slot: int, used: int, out: int) -> bool:
    """Let descriptor `used` and the one whose turn it is change places; False if the device does not have `used`.

    The ring has stopped then: which buffers are whose is open.

    Args:
        slot: the place whose turn it is.
        out: how many places from there on are with the device.
    """
    size = ring.held.ids.size
    if ring.in_order != 0:
        return False
    other = ring.place[used & (size - 1)]
    if used >= size or (other - slot) & (size - 1) >= out:
        ring.state[BROKEN] = BAD_ID
        return False
    exchange(ring, slot, other)
    # The device has read both places, and reads them again a round later.
    ring.available[PLACES + slot] = ring.order[slot]
    ring.available[PLACES + other] = ring.order[other]
    return True


@outlined
def odd(ring: SplitRing, ready: int, free: int) -> None:
    """Deal with what stopped a receive ring: no buffer, a frame to refuse, or a device that breaks the rules."""
    state = ring.state
    size = ring.held.ids.size
    if state[BROKEN] != 0:
        return
    if ready > state[OFFERED] - state[NEXT]:
        state[BROKEN] = BAD_INDEX
    elif state[SKIPPING] != 0:
        skip(ring, ready)
    elif free == 0:
        state[STARVED] += 1
    else:
        state[SKIPPING] = refused(ring, state[NEXT] & (size - 1))
        state[DROPPED] += 1
        skip(ring, ready)


@compiled
def refused(ring: SplitRing, slot: int) -> int:
    """How many buffers hold the frame to refuse, the first of which is at `slot`."""
    size = ring.held.ids.size
    used = load_acquire(ring.used, 2 * slot)
    if ring.in_order != 0 and used != ring.order[slot]:
        # 2.7.9: one element for a batch of buffers, named after the last. The frames' lengths are not known.
        return ((used - slot) & (size - 1)) + 1
    length = load_acquire(ring.used, 2 * slot + 1) - ring.header
    if length == BUFFER_SIZE and ring.mergeable != 0:
        return min(max(buffer_count(ring.headers, ring.held.ids[slot]), 1), size)
    return 1


@compiled
def skip(ring: SplitRing, ready: int) -> None:
    """Give the buffers of a refused frame back to the device, as far as it has used them."""
    state = ring.state
    size = ring.held.ids.size
    first = state[NEXT]
    count = min(state[SKIPPING], ready)
    for i in range(count):
        slot = (first + i) & (size - 1)
        used = load_acquire(ring.used, 2 * slot)
        if (
            ring.in_order == 0
            and used != ring.order[slot]
            and not reorder(ring, slot, used, state[OFFERED] - first - i)
        ):
            return
        arm(ring, slot)
    state[SKIPPING] -= count
    state[NEXT] = first + count
    recycled(ring)


@compiled
def load(ring: SplitRing, packets: Packets, first: int, position: int, limit: int) -> int:
    """Put packets from `first` on on the ring from `position` on, as far as they go without a wrap; how many."""
    size = ring.held.ids.size
    slot = position & (size - 1) & INDEX_MASK
    count = min(limit, size - slot) & INDEX_MASK
    first &= INDEX_MASK
    total = 0
    for i in range(count):
        buffer = packets.ids[first + i]
        clear_header(ring.headers, buffer & ID_MASK)
        ring.held.ids[slot + i] = buffer
        word = 2 * (ring.order[slot + i] & INDEX_MASK)
        ring.descriptors[word] = device_address(ring.addresses, buffer)
        length = np.int64(packets.lengths[first + i])
        ring.descriptors[word + 1] = length + ring.header
        total += length
    ring.state[BYTES] += total
    return count


@compiled
def clean(ring: SplitRing, pools: Pools) -> None:
    """Return the buffers of sent packets to their pools (2.7.14)."""
    state = ring.state
    size = ring.held.ids.size
    oldest = state[CLEAN]
    out = state[NEXT] - oldest
    ready = (load_acquire(ring.used_flags, INDEX) - oldest) & 0xFFFF
    if state[BROKEN] != 0:
        return
    if ready > out:
        state[BROKEN] = BAD_INDEX
        return
    start = oldest & (size - 1)
    if ring.in_order == 0 and (start + ready > size or disorder(ring, start, ready) != 0):
        ready = verified(ring, oldest, ready, out)
    give(pools, ring.held, start, min(start + ready, size))
    give(pools, ring.held, 0, start + ready - size)
    state[CLEAN] = oldest + ready


@compiled
def verified(ring: SplitRing, oldest: int, ready: int, out: int) -> int:
    """How many elements of the used ring name a descriptor that the device had; the places are in its order then."""
    mask = (ring.held.ids.size - 1) & INDEX_MASK
    for i in range(ready):
        slot = (oldest + i) & mask
        used = load_acquire(ring.used, 2 * slot)
        if used != ring.order[slot] and not reorder(ring, slot, used, out - i):
            return i
    return ready


tx_room, tx_batch = sending(clean, load, offer)


def sent_up_to(ring: SplitRing) -> int:
    """The place of the first packet that the device has not sent yet, counted without wrapping."""
    oldest, end = int(ring.state[CLEAN]), int(ring.state[NEXT])
    return min(oldest + (int(ring.used_flags[INDEX]) - oldest & 0xFFFF), end)
