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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.drivers.virtio.rings.state import (
    BAD_ID,
    BROKEN,
    BYTES,
    GROUP,
    OFFERED,
    PACKETS,
    SKIPPING,
    buffer_count,
    clear_header,
    describe,
    exchange,
    spans,
)
from ixy.drivers.virtio.transports.transport import Doorbell, ring_doorbell
from ixy.errors import DeviceTimeout
from ixy.jit import compiled
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, give, took
from ixy.registers.virtio import EVENT_DESC, EVENT_DISABLE, PACKED_AVAIL, PACKED_ID_SHIFT, PACKED_USED, PACKED_WRITE
from ixy.unsafe import load_acquire, load_ordered, store_ordered, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

_FLAGS = PACKED_AVAIL | PACKED_USED
_RESUME_TIMEOUT = 1.0  # seconds


class PackedRing(NamedTuple):
    """A packed ring for frames.

    Attributes:
        descriptors: shape (2 * size,), int64: two words each.
        device_event: event suppression by the device: shape (2,), uint16: offset and wrap counter, flags.
        held: the buffer at each place.
        order: the identifier at each place, shape (size,), int32.
        place: the place of each identifier, shape (size,), int32.
        state: shape (STATE_WORDS,), int64.
        addresses: where the device sees the header before each buffer.
        headers: all of the packet memory as words, int32; see `state.clear_header`.
        doorbell: to notify the device with.
        pool: number of the pool that buffers come from; -1 for a transmit ring.
        header: bytes of the header.
        mergeable, in_order: 1 if the feature was negotiated, else 0.
    """

    descriptors: NDArray[np.int64]
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
def offer_all(ring: PackedRing, count: int) -> None:
    """Make the buffers available that a receive ring has been filled with, in its first `count` descriptors."""
    size = ring.held.ids.size
    for slot in range(count):
        ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
        word = (ring.header + BUFFER_SIZE) | (slot << PACKED_ID_SHIFT) | PACKED_WRITE | available_flags(slot, size)
        store_release(ring.descriptors, 2 * slot + 1, word)
    ring.state[OFFERED] = count


@compiled
def rx_batch(ring: PackedRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the device a fresh buffer for each (2.8.21).

    When the pool is empty, packets stay in the ring until buffers come back.
    """
    state = ring.state
    size = ring.held.ids.size
    mask = (size - 1) & INDEX_MASK
    first = state[NEXT]
    if load_acquire(ring.descriptors, 2 * (first & mask) + 1) & _FLAGS != used_flags(first, size):
        return 0
    free = free_count(pools, ring.pool)
    header = ring.header
    constant = (header + BUFFER_SIZE) | PACKED_WRITE
    count = total = 0
    if state[SKIPPING] | state[BROKEN] == 0:
        for i in range(min(limit, free, size)):
            slot = (first + i) & mask
            word = load_acquire(ring.descriptors, 2 * slot + 1)
            if word & _FLAGS != used_flags(first + i, size):
                break
            used = (word >> PACKED_ID_SHIFT) & 0xFFFF
            length = (word & 0xFFFFFFFF) - header
            if used != ring.order[slot] and not reorder(ring, slot, used, size - i):
                break
            if length <= 0 or length > BUFFER_SIZE or (length == BUFFER_SIZE and spans(ring, slot)):
                break
            packets.ids[i] = ring.held.ids[slot]
            packets.lengths[i] = length
            describe(ring, packets, i, slot)
            total += length
            buffer = fresh(pools, ring.pool, free, i)
            ring.held.ids[slot] = buffer
            ring.descriptors[2 * slot] = device_address(ring.addresses, buffer)
            word = constant | (used << PACKED_ID_SHIFT) | available_flags(first + i + size, size)
            store_release(ring.descriptors, 2 * slot + 1, word)
            count = i + 1
    if count == 0:
        if limit > 0:
            odd(ring, free)
        return 0
    handed = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
    took(pools, ring.pool, free - count, ring.held)
    state[PACKETS] += count
    state[BYTES] += total
    stamp(packets, 0, count)
    recycled(ring, first + count)
    return handed


@compiled
def recycled(ring: PackedRing, following: int) -> None:
    """The places before `following` are with the device again, a round later. It is notified of them by groups."""
    size = ring.held.ids.size
    ring.state[NEXT] = following
    if following + size - ring.state[OFFERED] >= min(GROUP, size >> 1):
        notify(ring, following + size)


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


@compiled
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
        used = (word >> PACKED_ID_SHIFT) & 0xFFFF
        if used != ring.order[slot] and not reorder(ring, slot, used, size - (position - first)):
            return
        ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
        word = (ring.header + BUFFER_SIZE) | (used << PACKED_ID_SHIFT) | PACKED_WRITE
        store_release(ring.descriptors, 2 * slot + 1, word | available_flags(position + size, size))
        state[SKIPPING] -= 1
        position += 1
    recycled(ring, position)


@compiled
def tx_room(ring: PackedRing, pools: Pools, wanted: int) -> int:
    """How many packets the ring has room for; it is cleaned only if there are fewer than `wanted`."""
    state = ring.state
    size = ring.held.ids.size
    if size - (state[NEXT] - state[CLEAN]) < wanted:
        clean(ring, pools)
    return size - (state[NEXT] - state[CLEAN]) if state[BROKEN] == 0 else 0


@compiled
def tx_batch(ring: PackedRing, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` on the ring until it is full, and notify the device (2.8.17); how many it took."""
    state = ring.state
    size = ring.held.ids.size
    mask = (size - 1) & INDEX_MASK
    index = state[NEXT]
    if index - state[CLEAN] >= min(GROUP, mask):
        clean(ring, pools)
    count = min(last - first, size - (index - state[CLEAN]))
    if count <= 0 or state[BROKEN] != 0:
        return 0
    count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
    header = ring.header
    total = 0
    for i in range(count):
        slot = (index + i) & mask
        buffer = packets.ids[(first + i) & INDEX_MASK]
        length = np.int64(packets.lengths[(first + i) & INDEX_MASK])
        clear_header(ring.headers, buffer & ID_MASK)
        ring.held.ids[slot] = buffer
        ring.descriptors[2 * slot] = device_address(ring.addresses, buffer)
        identifier = np.int64(ring.order[slot]) << PACKED_ID_SHIFT
        word = (length + header) | identifier | available_flags(index + i, size)
        store_release(ring.descriptors, 2 * slot + 1, word)  # pyright: ignore[reportArgumentType]
        total += length
    state[PACKETS] += count
    state[BYTES] += total
    state[NEXT] = index + count
    notify(ring, index + count)
    return count


@compiled
def clean(ring: PackedRing, pools: Pools) -> None:
    """Return the buffers of sent packets to their pools (2.8.21)."""
    state = ring.state
    size = ring.held.ids.size
    oldest = state[CLEAN]
    position, end = oldest, state[NEXT]
    while position < end and state[BROKEN] == 0:
        count = completed(ring, position, end)
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
    used = (word >> PACKED_ID_SHIFT) & 0xFFFF
    if used == ring.order[slot]:
        return 1
    batch = ((used - slot) & (size - 1)) + 1  # in order, the identifier is that of the last buffer, and its place
    if ring.in_order != 0 and used < size and position + batch <= end:
        return batch
    return int(reorder(ring, slot, used, end - position))


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
