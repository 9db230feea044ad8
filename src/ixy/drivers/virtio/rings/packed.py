"""The data path of a packed ring: two kernels, and what is out of the ordinary.

A packed ring, 2.8 of the VirtIO specification 1.2, has one array of descriptors. The driver makes one available by its
flags, the device marks it used in the same way, and both change the meaning of the flags with every round. A descriptor
carries an identifier, which the device returns with it; here it is the number of the place where it was first written.
Where a device uses another buffer than the one whose turn it is, the two change places in `order`, as on a split ring.

Nothing that the device writes is trusted. Which buffer lies at which place stands in the driver's own `ids`; an
identifier counts only if that buffer is with the device, and a length only if the buffer can hold it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.drivers.virtio.rings.state import (
    BAD_ID,
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
from ixy.errors import DeviceTimeout
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, LENGTH_MASK, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, give, took, trade
from ixy.registers.virtio import (
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    PACKED_AVAIL,
    PACKED_ID_SHIFT,
    PACKED_USED,
    PACKED_WRITE,
)
from ixy.unsafe import fence_acquire, load_acquire, load_ordered, store_ordered, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

_FLAGS = PACKED_AVAIL | PACKED_USED
_TAG = _FLAGS | 0xFFFF << PACKED_ID_SHIFT  # what is known of a used descriptor before the device has written it
_RESUME_TIMEOUT = 1.0  # seconds


class PackedRing(NamedTuple):
    """A packed ring for frames.

    Attributes:
        descriptors: shape (2 * size,), int64: two words each.
        driver_event, device_event: event suppression by either, shape (2,), uint16: offset and wrap counter, flags.
        held: the buffer at each place.
        order: the identifier at each place, shape (size,), int32.
        place: the place of each identifier, shape (size,), int32.
        state: shape (STATE_WORDS,), int64.
        addresses: where the device sees the header before each buffer.
        headers: all of the packet memory as words, int32; see `state.clear_header`. As bytes, where there are offloads.
        doorbell: to notify the device with.
        pool: number of the pool that buffers come from; -1 for a transmit ring.
        header: bytes of the header.
        mergeable, in_order: 1 if the feature was negotiated, else 0.
    """

    descriptors: NDArray[np.int64]
    driver_event: NDArray[np.uint16]
    device_event: NDArray[np.uint16]
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


@compiled
def available_flags(position: int, size: int) -> int:
    """Flags of a descriptor that the driver gives: AVAIL is its wrap counter, at first 1, USED is not (2.8.1)."""
    return PACKED_AVAIL if position & size == 0 else PACKED_USED


@compiled
def used_flags(position: int, size: int) -> int:
    """Flags of a descriptor that the device has used: both are its wrap counter (2.8.1)."""
    return _FLAGS if position & size == 0 else 0


@compiled
def tag(flags: int, identifier: Any) -> int:
    """The part `_TAG` of a descriptor's second word."""
    return flags | int(identifier) << PACKED_ID_SHIFT


@compiled
def identifier(word: int) -> int:
    """What a descriptor's second word says of whose buffer it is."""
    return (word >> PACKED_ID_SHIFT) & 0xFFFF


@compiled
def offer_all(ring: PackedRing, count: int) -> None:
    """Make the buffers available that a receive ring has been filled with, in its first `count` descriptors."""
    size = ring.held.ids.size
    for slot in range(count):
        arm(ring, slot, tag(available_flags(slot, size), slot))
    ring.state[OFFERED] = count


@compiled
def want_interrupt(ring: PackedRing) -> None:
    """Have the device interrupt for what it uses next; what it used before, a look afterwards shows (2.8.10)."""
    store_ordered(ring.driver_event, 1, EVENT_ENABLE)


@compiled
def want_no_interrupt(ring: PackedRing) -> None:
    store_ordered(ring.driver_event, 1, EVENT_DISABLE)


@compiled
def ready(ring: PackedRing) -> bool:
    """Whether the device has used the next descriptor."""
    size, first = ring.held.ids.size, ring.state[NEXT]
    return load_acquire(ring.descriptors, 2 * (first & (size - 1)) + 1) & _FLAGS == used_flags(first, size)


@compiled
def rx_batch(ring: PackedRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the device a fresh buffer for each (2.8.21).

    When the pool is empty, packets stay in the ring until buffers come back.
    """
    state = ring.state
    size = ring.held.ids.size
    first = state[NEXT]
    if load_acquire(ring.descriptors, 2 * (first & (size - 1)) + 1) & _FLAGS != used_flags(first, size):
        return 0
    count = 0
    if state[SKIPPING] | state[BROKEN] == 0:
        count = take_good(ring, pools, packets, min(limit, size))
    if count == 0:
        if limit > 0:
            odd(ring, free_count(pools, ring.pool))
        return 0
    handed = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
    stamp(packets, 0, count)
    state[PACKETS] += count
    recycled(ring)
    return handed


@compiled
def take_good(ring: PackedRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take packets up to one that is odd, by stretches without a wrap, in which the flags are the same; how many."""
    size = ring.held.ids.size
    count = end = 0
    while count == end and count < limit:
        end = min(limit, count + size - (ring.state[NEXT] & (size - 1)))
        count = take_blocks(ring, pools, packets, count, end)
        count = take_singly(ring, pools, packets, count, end)
    return count


@compiled
def take_blocks(ring: PackedRing, pools: Pools, packets: Packets, count: int, end: int) -> int:
    """After `count` packets take more by blocks, up to one about which something is odd; how many there are then."""
    size = ring.held.ids.size
    while count + BLOCK <= end and free_count(pools, ring.pool) >= BLOCK:
        position = ring.state[NEXT]
        slot = position & (size - 1) & INDEX_MASK
        if not block_used(ring, position) or read_lengths(ring, slot, packets, count) != 0:
            break
        describe_block(ring, packets, count, slot)
        trade(pools, ring.pool, ring.held, slot, packets, count, BLOCK)
        flags = available_flags(position + size, size)
        for i in range(BLOCK):
            arm(ring, slot + i, tag(flags, ring.order[slot + i]))
        ring.state[BYTES] += total_length(packets, count, BLOCK)
        ring.state[NEXT] = position + BLOCK
        count += BLOCK
    return count


@compiled
def take_singly(ring: PackedRing, pools: Pools, packets: Packets, before: int, end: int) -> int:
    """After `before` packets take more one by one, up to one that is odd; how many there are then."""
    size = ring.held.ids.size
    first, free = ring.state[NEXT], free_count(pools, ring.pool)
    slot = first & (size - 1) & INDEX_MASK
    flags = used_flags(first, size)
    before &= INDEX_MASK
    out = size - before  # what was taken before in this call does not count as the device's again
    count = total = 0
    for i in range(min(end - before, free) & INDEX_MASK):
        word = load_acquire(ring.descriptors, 2 * (slot + i) + 1)
        difference = (word ^ tag(flags, ring.order[slot + i])) & _TAG
        if difference != 0 and (difference & _FLAGS != 0 or not reorder(ring, slot + i, identifier(word), out - i)):
            break
        length = (word & 0xFFFFFFFF) - ring.header
        if unusual(length) != 0 and (length != BUFFER_SIZE or spans(ring, slot + i)):
            break
        packets.ids[before + i] = ring.held.ids[slot + i]
        packets.lengths[before + i] = length
        describe(ring, packets, before + i, slot + i)
        ring.held.ids[slot + i] = fresh(pools, ring.pool, free, i)
        arm(ring, slot + i, word & _TAG ^ PACKED_AVAIL)
        total += length
        count = i + 1
    took(pools, ring.pool, free - count, ring.held)
    ring.state[BYTES] += total
    ring.state[NEXT] = first + count
    return before + count


@compiled
def block_used(ring: PackedRing, position: int) -> bool:
    """Whether the device has used the places of a block from `position` on, in their order, none beyond a wrap."""
    size = ring.held.ids.size
    slot = position & (size - 1) & INDEX_MASK
    flags = used_flags(position, size)
    if slot + BLOCK > size or load_acquire(ring.descriptors, 2 * (slot + BLOCK - 1) + 1) & _FLAGS != flags:
        return False
    difference = 0
    for i in range(BLOCK):
        difference |= (ring.descriptors[2 * (slot + i) + 1] ^ tag(flags, ring.order[slot + i])) & _TAG
    fence_acquire()  # a device may write the flags of a block in any order; all that is read from here on is later
    return difference == 0


@compiled
def read_lengths(ring: PackedRing, slot: int, packets: Packets, at: int) -> int:
    """Note the lengths of a block of packets; 0 if all fit into their buffers and none fills it, see `spans`."""
    slot &= INDEX_MASK
    at &= INDEX_MASK
    odd = 0
    for i in range(BLOCK):
        length = (ring.descriptors[2 * (slot + i) + 1] & 0xFFFFFFFF) - ring.header
        odd |= (length - 1) | length  # `unusual` of all at once
        packets.lengths[at + i] = length & LENGTH_MASK
    return odd & -BUFFER_SIZE


@compiled
def arm(ring: PackedRing, slot: int, word: int) -> None:
    """Make the buffer at a place of a receive ring available, with these flags and this identifier; see `tag`."""
    ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
    store_release(ring.descriptors, 2 * slot + 1, word | (ring.header + BUFFER_SIZE) | PACKED_WRITE)


@compiled
def recycled(ring: PackedRing) -> None:
    """The places before the next are with the device again, a round later. It is notified of them by groups."""
    size = ring.held.ids.size
    end = ring.state[NEXT] + size
    if end - ring.state[OFFERED] >= min(GROUP, size >> 1):
        notify(ring, end)


@compiled
def notify(ring: PackedRing, end: int) -> None:
    """Notify the device of the places before `end`, if it wants that (2.8.10, 2.8.14)."""
    old = ring.state[OFFERED]
    store_ordered(ring.state, OFFERED, end)  # orders what was written to the ring before what is read now
    flags = load_ordered(ring.device_event, 1) & 3
    if flags != EVENT_DISABLE and (flags != EVENT_DESC or passed(ring, old, end)):
        ring_doorbell(ring.doorbell)


@compiled
def passed(ring: PackedRing, old: int, end: int) -> bool:
    """Whether the place at which the device wants to be notified lies between `old` and `end`.

    The wrap counter, 1 at first, tells the even rounds from the odd ones: a place is unique within two rounds.
    """
    size = ring.held.ids.size
    event = load_acquire(ring.device_event, 0)
    place = (event & 0x7FFF) + (1 - (event >> 15)) * size
    return (end - place - 1) & (2 * size - 1) < end - old


@compiled
def reorder(ring: PackedRing, slot: int, used: int, out: int) -> bool:
    """Let buffer `used` and the one whose turn it is change places; False if the device does not have `used`.

    The ring has stopped then: which buffers are whose is open.

    Args:
        slot: the place whose turn it is.
        out: how many places from there on are with the device.
    """
    size = ring.held.ids.size
    other = ring.place[used & (size - 1)]
    if ring.in_order != 0 or used >= size or (other - slot) & (size - 1) >= out:
        ring.state[BROKEN] = BAD_ID
        return False
    exchange(ring, slot, other)
    return True


@outlined
def odd(ring: PackedRing, free: int) -> None:
    """Deal with what stopped a receive ring: no buffer, a frame to refuse, or a device that breaks the rules."""
    state = ring.state
    if state[BROKEN] != 0:
        return
    if state[SKIPPING] != 0:
        skip(ring)
    elif free == 0:
        state[STARVED] += 1
    else:
        state[SKIPPING] = refused(ring, state[NEXT] & (ring.held.ids.size - 1))
        state[DROPPED] += 1
        skip(ring)


@compiled
def refused(ring: PackedRing, slot: int) -> int:
    """How many buffers hold the frame to refuse, the first of which is at `slot`."""
    size = ring.held.ids.size
    word = load_acquire(ring.descriptors, 2 * slot + 1)
    if (word & 0xFFFFFFFF) - ring.header == BUFFER_SIZE and ring.mergeable != 0:
        return min(max(buffer_count(ring.headers, ring.held.ids[slot]), 1), size)
    return 1


@compiled
def skip(ring: PackedRing) -> None:
    """Give the buffers of a refused frame back to the device, as far as it has used them."""
    state = ring.state
    size = ring.held.ids.size
    first = state[NEXT]
    position = first
    while state[SKIPPING] != 0:
        slot = position & (size - 1)
        word = load_acquire(ring.descriptors, 2 * slot + 1)
        if word & _FLAGS != used_flags(position, size):
            break
        used = identifier(word)
        if used != ring.order[slot] and not reorder(ring, slot, used, size - (position - first)):
            return
        arm(ring, slot, word & _TAG ^ PACKED_AVAIL)
        state[SKIPPING] -= 1
        position += 1
    state[NEXT] = position
    recycled(ring)


@compiled
def load(ring: PackedRing, packets: Packets, first: int, position: int, limit: int) -> int:
    """Put packets from `first` on on the ring from `position` on, as far as they go without a wrap; how many."""
    size = ring.held.ids.size
    slot = position & (size - 1) & INDEX_MASK
    count = min(limit, size - slot) & INDEX_MASK
    flags = available_flags(position, size)
    first &= INDEX_MASK
    total = 0
    for i in range(count):
        buffer = packets.ids[first + i]
        clear_header(ring.headers, buffer & ID_MASK)
        ring.held.ids[slot + i] = buffer
        ring.descriptors[2 * (slot + i)] = device_address(ring.addresses, buffer)
        length = np.int64(packets.lengths[first + i])
        total += length
        word = (length + ring.header) | tag(flags, ring.order[slot + i])
        store_release(ring.descriptors, 2 * (slot + i) + 1, word)  # pyright: ignore[reportArgumentType]
    ring.state[BYTES] += total
    return count


@compiled
def clean(ring: PackedRing, pools: Pools) -> None:
    """Return the buffers of sent packets to their pools (2.8.21)."""
    state = ring.state
    size = ring.held.ids.size
    oldest = state[CLEAN]
    position, end = oldest, state[NEXT]
    while position < end and state[BROKEN] == 0:
        block = end - position >= BLOCK and block_used(ring, position)
        count = BLOCK if block else completed(ring, position, end)
        if count == 0:
            break
        position += count
    start = oldest & (size - 1)
    ready = position - oldest
    give(pools, ring.held, start, min(start + ready, size))
    give(pools, ring.held, 0, start + ready - size)
    state[CLEAN] = position


@compiled
def completed(ring: PackedRing, position: int, end: int) -> int:
    """How many buffers the descriptor at `position` gives back: none, one, or with IN_ORDER a batch (2.8.7)."""
    size = ring.held.ids.size
    slot = position & (size - 1) & INDEX_MASK
    word = load_acquire(ring.descriptors, 2 * slot + 1)
    if word & _FLAGS != used_flags(position, size):
        return 0
    used = identifier(word)
    if used == ring.order[slot]:
        return 1
    batch = ((used - slot) & (size - 1)) + 1  # in order, the identifier is that of the last buffer, and its place
    if ring.in_order != 0 and used < size and position + batch <= end:
        return batch
    return int(reorder(ring, slot, used, end - position))


tx_room, tx_batch = sending(clean, load, notify)


def resume_at(ring: PackedRing) -> int:
    """The place of the first descriptor that the device has not used yet, counted without wrapping.

    For a device that takes over from one that has gone. The driver may be at work meanwhile: a descriptor that it has
    just given again shows flags of the next round, and then the search starts over.

    Raises:
        DeviceTimeout: a descriptor keeps flags that neither side would give it.
    """
    size = ring.held.ids.size
    deadline = time.monotonic() + _RESUME_TIMEOUT
    while True:
        start = int(ring.state[NEXT if ring.pool >= 0 else CLEAN])
        end = start + size if ring.pool >= 0 else int(ring.state[NEXT])
        position = _first_unused(ring, start, end)
        word = int(ring.descriptors[2 * (position % size) + 1]) & _FLAGS
        waits = position == end or word == available_flags(position, size)
        if waits and start == ring.state[NEXT if ring.pool >= 0 else CLEAN]:
            return position
        if time.monotonic() > deadline:
            raise DeviceTimeout(f"descriptor {position % size} of a packed ring is neither available nor used")


def sent_up_to(ring: PackedRing) -> int:
    """The place of the first packet that the device has not sent yet, counted without wrapping."""
    return _first_unused(ring, int(ring.state[CLEAN]), int(ring.state[NEXT]))


def _first_unused(ring: PackedRing, start: int, end: int) -> int:
    """The first place from `start` on whose buffer the device has not used; `end` if there is none before."""
    position = start
    while position < end and (count := _used_at(ring, position)) > 0:
        position += count
    return min(position, end)


def _used_at(ring: PackedRing, position: int) -> int:
    """How many buffers the descriptor at `position` gives back, without taking them."""
    size = ring.held.ids.size
    word = int(ring.descriptors[2 * (position % size) + 1])
    if word & _FLAGS != used_flags(position, size):
        return 0
    if ring.in_order == 0:
        return 1
    return (((word >> PACKED_ID_SHIFT) - position) & (size - 1)) + 1
