"""What is rare in the data path: frames in several pieces, or over several of the front end's buffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ixy.drivers.rings import DROPPED
from ixy.drivers.vhost.packed import FLAGS_SHIFT as PACKED_SHIFT
from ixy.drivers.vhost.packed import mark
from ixy.drivers.vhost.packed import offered as offered_packed
from ixy.drivers.vhost.split import FLAGS_SHIFT as SPLIT_SHIFT
from ixy.drivers.vhost.split import NEXT_SHIFT, head
from ixy.drivers.vhost.split import offered as offered_split
from ixy.drivers.vhost.split import use as use_split
from ixy.drivers.vhost.state import (
    BAD_ADDRESS,
    BAD_CHAIN,
    BROKEN,
    CHUNK,
    DESCRIPTORS,
    HEADER,
    INDIRECT_FLAG,
    MERGEABLE,
    NEXT_FLAG,
    PACKED,
    PLACE,
    SAID,
    SIZE,
    WRITE_FLAG,
    GuestRing,
    extent,
    locate,
)
from ixy.drivers.virtio.rings.packed import identifier
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, STRIDE
from ixy.registers.virtio import HEADER_BYTES, NUM_BUFFERS
from ixy.unsafe import copy, load_acquire, store_release


@compiled
def first_descriptor(ring: GuestRing, chains: int, descriptors: int) -> int:
    """Of the buffer behind so many chains of so many descriptors in all; -1 if it has none."""
    if ring.state[PACKED] != 0:
        return (ring.state[PLACE] + descriptors) & (ring.state[SIZE] - 1)
    return head(ring, chains)


@compiled
def is_offered(ring: GuestRing, chains: int, descriptors: int) -> bool:
    """Whether there is such a buffer."""
    if ring.state[PACKED] != 0:
        return offered_packed(ring, descriptors) != 0
    return offered_split(ring, chains) > 0


@compiled
def flags_of(ring: GuestRing, said: int) -> int:
    """From NEXT on; see `state.KIND`."""
    return said >> (PACKED_SHIFT if ring.state[PACKED] != 0 else SPLIT_SHIFT)


@compiled
def following(ring: GuestRing, descriptor: int, said: int) -> int:
    """The descriptor in which a buffer goes on; masked, the ring has it."""
    if ring.state[PACKED] != 0:
        return (descriptor + 1) & (ring.state[SIZE] - 1)
    return (said >> NEXT_SHIFT) & (ring.state[SIZE] - 1)


@compiled
def name_of(ring: GuestRing, first: int, said: int) -> int:
    """By what a buffer is given back: its first descriptor, or on a packed ring what the last one says (2.8.6)."""
    return identifier(said) if ring.state[PACKED] != 0 else first


@compiled
def use_chains(ring: GuestRing, chains: int) -> None:
    """Give so many buffers back, whose `names`, `sizes`, and descriptors, in `places`, stand there: all at once."""
    if ring.state[PACKED] == 0:
        use_split(ring, chains)
        return
    end = ring.state[PLACE]
    for i in range(chains):
        end += ring.places[i]
    position = end
    for i in range(chains - 1, -1, -1):
        position -= ring.places[i]
        mark(ring, position, i)
    ring.state[PLACE] = end


@outlined
def take_chain(ring: GuestRing, buffer: int) -> int:
    """Put a frame together in a buffer of ours, and give the front end's back; its length.

    It is 0 if the frame was dropped, -1 if the ring has stopped.
    """
    state = ring.state
    first = first_descriptor(ring, 0, 0)
    if first < 0:
        return -1
    descriptor, descriptors, said = first, 0, 0
    length = -state[HEADER]
    going = True
    while going:
        word = (state[DESCRIPTORS] >> 3) + 2 * descriptor
        address, said = load_acquire(ring.words, word), load_acquire(ring.words, word + 1)
        flags = flags_of(ring, said)
        descriptors += 1
        if flags & (WRITE_FLAG | INDIRECT_FLAG) != 0 or descriptors > state[SIZE]:
            state[BROKEN] = BAD_CHAIN
            return -1
        length = take_piece(ring, buffer, length, address, said & 0xFFFFFFFF)
        if state[BROKEN] != 0:
            return -1
        going = flags & NEXT_FLAG != 0
        if going:
            descriptor = following(ring, descriptor, said)
    ring.names[0], ring.sizes[0], ring.places[0] = name_of(ring, first, said), 0, descriptors
    use_chains(ring, 1)
    if length <= 0 or length > BUFFER_SIZE:
        state[DROPPED] += 1
        return 0
    return length


@compiled
def take_piece(ring: GuestRing, buffer: int, length: int, address: int, size: int) -> int:
    """Append a piece to a frame of so many bytes, less than 0 as long as its header is not over; how many it has then.

    What finds no room in the buffer is left out.
    """
    start: Any = (np.int64(buffer) & ID_MASK) * STRIDE
    while size > 0:
        part = min(extent(ring, address), size)
        if part <= 0:
            ring.state[BROKEN] = BAD_ADDRESS
            return length
        place = locate(ring, address, part)
        if length < 0:
            if length == -ring.state[HEADER]:
                ring.state[SAID] = load_acquire(ring.memory, place)
            part = min(part, -length)
        elif length + part <= BUFFER_SIZE:
            copy(ring.bytes, start + length, ring.memory, place, part)
        length, address, size = length + part, address + part, size - part
    return length


@outlined
def put_chain(ring: GuestRing, buffer: int, length: int) -> bool:
    """Copy a frame into as many buffers of the front end's as it takes; False if there are not enough yet, or the ring
    has stopped.

    A frame for which the front end's buffers are too small is dropped.
    """
    state = ring.state
    left = length
    source: Any = (np.int64(buffer) & ID_MASK) * STRIDE
    chains = descriptors = 0
    header_place = -1
    while left > 0 or chains == 0:
        if chains == CHUNK or (chains == 1 and state[MERGEABLE] == 0):
            state[DROPPED] += 1
            return True
        if not is_offered(ring, chains, descriptors):
            return False
        first = first_descriptor(ring, chains, descriptors)
        if first < 0:
            return False
        descriptor, count, written, said = first, 0, 0, 0
        going = True
        while going:
            word = (state[DESCRIPTORS] >> 3) + 2 * descriptor
            address, said = load_acquire(ring.words, word), load_acquire(ring.words, word + 1)
            flags, room = flags_of(ring, said), said & 0xFFFFFFFF
            count += 1
            if flags & WRITE_FLAG == 0 or flags & INDIRECT_FLAG != 0 or descriptors + count > state[SIZE]:
                state[BROKEN] = BAD_CHAIN
                return False
            if header_place < 0:
                header_place = locate(ring, address, state[HEADER])
                if room < state[HEADER] or header_place < 0:
                    state[BROKEN] = BAD_CHAIN if room < state[HEADER] else BAD_ADDRESS
                    return False
                address, room, written = address + state[HEADER], room - state[HEADER], state[HEADER]
            part = min(room, left)
            put_piece(ring, address, part, source)
            if state[BROKEN] != 0:
                return False
            source, left, written = source + part, left - part, written + part
            going = flags & NEXT_FLAG != 0
            if going:
                descriptor = following(ring, descriptor, said)
        ring.names[chains], ring.sizes[chains], ring.places[chains] = name_of(ring, first, said), written, count
        chains += 1
        descriptors += count
    copy(ring.memory, header_place, ring.header, 0, state[HEADER])
    if state[HEADER] == HEADER_BYTES:
        store_release(ring.memory, header_place + NUM_BUFFERS, chains)
    use_chains(ring, chains)
    return True


@compiled
def put_piece(ring: GuestRing, address: int, size: int, source: int) -> None:
    """Copy a part of a frame to the front end's memory, where regions may be next to each other."""
    while size > 0:
        part = min(extent(ring, address), size)
        if part <= 0:
            ring.state[BROKEN] = BAD_ADDRESS
            return
        copy(ring.memory, locate(ring, address, part), ring.bytes, source, part)
        address, size, source = address + part, size - part, source + part
