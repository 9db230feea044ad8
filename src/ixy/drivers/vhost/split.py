"""What is a split ring's own, from the device's end (2.7 of the VirtIO specification 1.2).

Each value that the front end may change meanwhile is read once, and checked before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.vhost.state import (
    BAD_DESCRIPTOR,
    BAD_INDEX,
    BROKEN,
    DESCRIPTORS,
    DEVICE,
    DRIVER,
    HEADER,
    KIND,
    PLACE,
    SIZE,
    TO_READ,
    locate,
)
from ixy.drivers.virtio.rings.split import FLAGS, INDEX, PLACES
from ixy.jit import compiled
from ixy.registers.virtio import NO_INTERRUPT, NO_NOTIFY
from ixy.unsafe import load_acquire, load_ordered, prefetch, store_ordered, store_release

if TYPE_CHECKING:
    from ixy.drivers.vhost.state import GuestRing

FLAGS_SHIFT = 32  # of a descriptor's second word: length, flags, next
NEXT_SHIFT = 48


@compiled
def offered(ring: GuestRing, ahead: int) -> int:
    """How many buffers there are that were not used, besides the next `ahead`."""
    state = ring.state
    count = (load_acquire(ring.halves, (state[DRIVER] >> 1) + INDEX) - state[PLACE]) & 0xFFFF
    if count > state[SIZE]:
        state[BROKEN] = BAD_INDEX
        return 0
    return max(count - ahead, 0)


@compiled
def head(ring: GuestRing, ahead: int) -> int:
    """The first descriptor of the next buffer, or of one behind it; -1 if the ring has no such descriptor."""
    state = ring.state
    slot = (state[PLACE] + ahead) & (state[SIZE] - 1)
    found = load_acquire(ring.halves, (state[DRIVER] >> 1) + PLACES + slot)
    if found >= state[SIZE]:
        state[BROKEN] = BAD_DESCRIPTOR
        return -1
    return found


@compiled
def survey(ring: GuestRing, limit: int, kind: int) -> int:
    """Note of up to `limit` buffers where they lie, up to the first that is not in one piece and of this kind."""
    state = ring.state
    ahead = state[HEADER] if kind == TO_READ else 0  # of a frame that is read the header need not be; else it is
    count = min(limit, offered(ring, 0))
    table, places = state[DESCRIPTORS] >> 3, (state[DRIVER] >> 1) + PLACES
    first, mask = state[PLACE], state[SIZE] - 1
    for i in range(count):
        name = load_acquire(ring.halves, places + ((first + i) & mask))
        if name > mask:
            return i
        address, said = load_acquire(ring.words, table + 2 * name), load_acquire(ring.words, table + 2 * name + 1)
        size = said & 0xFFFFFFFF
        place = locate(ring, address, size)
        if (said >> FLAGS_SHIFT) & KIND != kind or place < 0:
            return i
        prefetch(ring.memory, place + ahead)
        ring.places[i], ring.sizes[i], ring.names[i] = place, size, name
    return count


@compiled
def use(ring: GuestRing, count: int) -> None:
    """Give the next `count` buffers back (2.7.8), whose `names` and `sizes` stand there."""
    state = ring.state
    first, mask = state[PLACE], state[SIZE] - 1
    used = state[DEVICE] >> 2
    for i in range(count):
        element = used + 1 + 2 * ((first + i) & mask)
        store_release(ring.longs, element, ring.names[i])
        store_release(ring.longs, element + 1, ring.sizes[i])
    state[PLACE] = first + count
    store_release(ring.halves, (state[DEVICE] >> 1) + INDEX, (first + count) & 0xFFFF)


@compiled
def wants_calls(ring: GuestRing) -> bool:
    """2.7.7."""
    return load_ordered(ring.halves, (ring.state[DRIVER] >> 1) + FLAGS) & NO_INTERRUPT == 0


@compiled
def want_kicks(ring: GuestRing, wanted: bool) -> None:
    """2.7.10."""
    store_ordered(ring.halves, (ring.state[DEVICE] >> 1) + FLAGS, 0 if wanted else NO_NOTIFY)
