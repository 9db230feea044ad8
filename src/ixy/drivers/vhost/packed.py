"""What is a packed ring's own, from the device's end (2.8 of the VirtIO specification 1.2).

Each value that the front end may change meanwhile is read once, and checked before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.vhost.state import DESCRIPTORS, DEVICE, DRIVER, HEADER, KIND, PLACE, SIZE, TO_READ, locate
from ixy.drivers.virtio.rings.packed import available_flags, identifier, used_flags
from ixy.jit import compiled
from ixy.registers.virtio import EVENT_DISABLE, EVENT_ENABLE, PACKED_AVAIL, PACKED_ID_SHIFT, PACKED_USED
from ixy.unsafe import load_acquire, load_ordered, prefetch, store_ordered, store_release

if TYPE_CHECKING:
    from ixy.drivers.vhost.state import GuestRing

FLAGS_SHIFT = 48  # of a descriptor's second word: length, identifier, flags
_FLAGS = PACKED_AVAIL | PACKED_USED


@compiled
def offered(ring: GuestRing, ahead: int) -> int:
    """1 if the descriptor `ahead` of the next one is available, else 0."""
    state = ring.state
    position = state[PLACE] + ahead
    word = (state[DESCRIPTORS] >> 3) + 2 * (position & (state[SIZE] - 1)) + 1
    return int(load_acquire(ring.words, word) & _FLAGS == available_flags(position, state[SIZE]))


@compiled
def survey(ring: GuestRing, limit: int, kind: int) -> int:
    """Note of up to `limit` buffers where they lie, up to the first that is not in one piece and of this kind."""
    state = ring.state
    ahead = state[HEADER] if kind == TO_READ else 0  # of a frame that is read the header need not be; else it is
    table, size, first = state[DESCRIPTORS] >> 3, state[SIZE], state[PLACE]
    for i in range(limit):
        position = first + i
        word = table + 2 * (position & (size - 1))
        said = load_acquire(ring.words, word + 1)
        if said & _FLAGS != available_flags(position, size):
            return i
        length = said & 0xFFFFFFFF
        place = locate(ring, load_acquire(ring.words, word), length)
        if (said >> FLAGS_SHIFT) & KIND != kind or place < 0:
            return i
        prefetch(ring.memory, place + ahead)
        ring.places[i], ring.sizes[i], ring.names[i] = place, length, identifier(said)
    return limit


@compiled
def use(ring: GuestRing, count: int) -> None:
    """Give the next `count` buffers of one descriptor back (2.8.21): who waits for the first one sees all of them."""
    state = ring.state
    for i in range(1, count):
        mark(ring, state[PLACE] + i, i)
    if count > 0:
        mark(ring, state[PLACE], 0)
    state[PLACE] += count


@compiled
def mark(ring: GuestRing, position: int, i: int) -> None:
    """Write the used descriptor of buffer `i` of those that were looked at."""
    size = ring.state[SIZE]
    word = ring.sizes[i] | ring.names[i] << PACKED_ID_SHIFT | used_flags(position, size)
    store_release(ring.words, (ring.state[DESCRIPTORS] >> 3) + 2 * (position & (size - 1)) + 1, word)


@compiled
def wants_calls(ring: GuestRing) -> bool:
    """2.8.10."""
    return load_ordered(ring.halves, (ring.state[DRIVER] >> 1) + 1) & 3 != EVENT_DISABLE


@compiled
def want_kicks(ring: GuestRing, wanted: bool) -> None:
    store_ordered(ring.halves, (ring.state[DEVICE] >> 1) + 1, EVENT_ENABLE if wanted else EVENT_DISABLE)
