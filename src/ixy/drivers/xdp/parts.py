"""The data path of an AF_XDP socket whose frames may be longer than a buffer: in parts, each with a descriptor.

A frame goes on in the next descriptor where the options of one say so. What is received becomes a chain, and a chain is
sent as such a frame. All else is as in `datapath`, of which these are careful twins: packet by packet, part by part.

Source: Documentation/networking/af_xdp.rst, Multi-Buffer Support.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.drivers.linux.rings import BYTES, GROUP, PACKETS, REFUSED
from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.drivers.xdp.datapath import (
    GOES_ON,
    LONGEST,
    NEED_WAKEUP,
    OFFERED,
    PARTS,
    SPARES,
    TAG_BYTES,
    UNSIGNED,
    WITHIN,
    RxState,
    TxState,
    address_of,
    brought,
    clean,
    give_to_kernel,
    is_tagged,
    kick,
    number_of,
)
from ixy.formats.links import HEADER
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Packets, stamp
from ixy.packets.parts import link, part_count, total_length
from ixy.packets.pool import Pools, free_count, fresh, give, pool_of, took
from ixy.unsafe import copy, load_acquire, peek, put, store_release
from ixy.unsafe.sockets import start_receiving

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 17
"""Parts of a frame that the kernel sends: what a packet of its own has room for, as a rule (MAX_SKB_FRAGS)."""

_LENGTH = (1 << 32) - 1  # of a descriptor's second word; the rest are options

# ---------------------------------------------------------------------------------------------------------------------
# Receive


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` packets, and give the kernel a fresh buffer for each part.

    A frame of more parts than one may have here, or of which something is wrong, counts as dropped: its buffers are the
    kernel's again. One whose last part is not there yet stays where it is.
    """
    first, size = ring.state[NEXT], ring.held.ids.size
    waiting = min((load_acquire(ring.producer, 0) - first) & UNSIGNED, size)
    free, offered = free_count(pools, ring.pool), ring.state[OFFERED]
    seen = count = used = 0
    while count < limit:
        parts = parts_there(ring, first + seen, waiting - seen)
        if parts == 0:
            break
        had = bring(ring, first + seen, offered, parts)
        if had == parts and is_frame(ring, first + seen, parts):
            if used + parts > free:
                if count == 0:
                    ring.state[STARVED] += 1
                break
            chain(ring, pools, packets, count, first + seen, offered, parts, free - used)
            used += parts
            count += 1
        else:
            goes_on = length_at(ring, first + seen + parts - 1) & GOES_ON
            ring.state[WITHIN] = goes_on
            if goes_on == 0:
                ring.state[DROPPED] += 1
        give_to_kernel_from(ring, offered, had)
        offered += had
        seen += parts
    if seen > 0:
        took(pools, ring.pool, free - used, ring.held)
        ring.state[NEXT] = first + seen
        ring.state[OFFERED] = offered
        store_release(ring.consumer, 0, (first + seen) & UNSIGNED)
        store_release(ring.fill_producer, 0, offered & UNSIGNED)
        count = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
        count_whole(ring.state, pools, packets, 0, count)
    if load_acquire(ring.fill_flags, 0) & NEED_WAKEUP != 0:
        start_receiving(ring.fd)
    stamp(packets, 0, count)
    return count


@compiled
def length_at(ring: RxState, place: int) -> int:
    """The length in a descriptor, and above its 32 bits, options."""
    return ring.descriptors[2 * (place & (ring.held.ids.size - 1) & INDEX_MASK) + 1]


@compiled
def parts_there(ring: RxState, place: int, waiting: int) -> int:
    """How many descriptors the frame has that begins at `place`; 0 if not all are among the `waiting` ones. Of a frame
    that is too long, how many may be let go."""
    for parts in range(1, waiting + 1):
        if length_at(ring, place + parts - 1) & GOES_ON == 0 or parts > ring.state[PARTS]:
            return parts
    return 0


@compiled
def bring(ring: RxState, place: int, offered: int, parts: int) -> int:
    """Let the buffers of a frame's parts be the first of those that the kernel has; how many it has."""
    size, had = ring.held.ids.size, 0
    for i in range(parts):
        slot = (place + i) & (size - 1) & INDEX_MASK
        number = number_of(ring.descriptors[2 * slot])
        if brought(ring.held.ids, (offered + had) & (size - 1) & INDEX_MASK, size - had, number):
            had += 1
    return had


@compiled
def is_frame(ring: RxState, place: int, parts: int) -> bool:
    """Whether descriptors are a whole frame, each part of which fits a buffer."""
    if ring.state[WITHIN] != 0 or parts > ring.state[PARTS]:
        return False
    for i in range(parts):
        length = length_at(ring, place + i) & _LENGTH
        if length == 0 or length > BUFFER_SIZE:
            return False
    return True


@compiled
def chain(
    ring: RxState, pools: Pools, packets: Packets, i: int, place: int, offered: int, parts: int, free: int
) -> None:
    """Make packet `i` of the first buffers that the kernel has, and put fresh ones where they were."""
    following: Any = NO_NEXT
    for part in range(parts - 1, -1, -1):
        slot = (offered + part) & (ring.held.ids.size - 1) & INDEX_MASK
        buffer, length = ring.held.ids[slot], length_at(ring, place + part) & _LENGTH
        ring.held.ids[slot] = fresh(pools, ring.pool, free, part)
        if part == 0:
            packets.ids[i] = buffer
            packets.lengths[i] = length
            put(packets.nexts, i, following)
        else:
            link(pools, buffer, length, following)
            following = buffer


@compiled
def give_to_kernel_from(ring: RxState, offered: int, count: int) -> None:
    """`give_to_kernel`, with a wrap."""
    for i in range(count):
        give_to_kernel(ring, (offered + i) & (ring.held.ids.size - 1), 1)


@compiled
def count_whole(state: NDArray[np.int64], pools: Pools, packets: Packets, first: int, last: int) -> None:
    """Count packets with all of their parts."""
    for i in range(first, last):
        state[PACKETS] += 1
        state[BYTES] += total_length(pools, packets, i)


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@compiled
def tx_batch(ring: TxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` on the ring until one does not fit, and tell the kernel; how many it took or
    refused."""
    size, taken = ring.held.ids.size, 0
    if ring.state[NEXT] - ring.state[CLEAN] >= min(GROUP, size >> 1):
        clean(ring, pools)
    for i in range(first, last):
        parts = part_count(pools, packets, i)
        if is_sendable(ring, pools, packets, i, parts):
            room = size - (ring.state[NEXT] - ring.state[CLEAN])
            if room < parts or hand_over(pools, packets, i, 1, packets.holder, ring.held.holder) == 0:
                break
            count_whole(ring.state, pools, packets, i, i + 1)
            load(ring, pools, packets, i)
        else:
            give(pools, packets, i, i + 1)
            ring.state[REFUSED] += 1
        taken += 1
    store_release(ring.producer, 0, ring.state[NEXT] & UNSIGNED)
    kick(ring)
    return taken


@compiled
def is_sendable(ring: TxState, pools: Pools, packets: Packets, i: int, parts: int) -> bool:
    """Whether the interface takes a packet: neither too long nor too short, in parts that are neither too many nor
    empty. A VLAN tag does not count."""
    length, longest, size = total_length(pools, packets, i), ring.state[LONGEST], packets.lengths[i]
    if longest < length and size >= HEADER and is_tagged(ring, packets.ids[i]):
        longest += TAG_BYTES
    buffer = peek(packets.nexts, i, NO_NEXT)
    for _ in range(parts - 1):
        if size <= 0 or size > BUFFER_SIZE:
            return False
        size, buffer = pools.sizes[buffer & ID_MASK], int(pools.nexts[buffer & ID_MASK])
    return 0 < size <= BUFFER_SIZE and parts <= MOST and HEADER <= length <= longest


@compiled
def load(ring: TxState, pools: Pools, packets: Packets, i: int) -> None:
    """Write a packet into descriptors, for which there is room: one for each part."""
    buffer, size = int(packets.ids[i]), int(packets.lengths[i])
    following = peek(packets.nexts, i, NO_NEXT)
    while True:
        slot = ring.state[NEXT] & (ring.held.ids.size - 1) & INDEX_MASK
        own = buffer if pool_of(buffer) == ring.pool else adopt_one(ring, pools, buffer, size)
        ring.held.ids[slot] = own
        ring.descriptors[2 * slot] = address_of(own)
        ring.descriptors[2 * slot + 1] = size if following < 0 else size | GOES_ON
        ring.state[NEXT] += 1
        if following < 0:
            return
        buffer = following
        size, following = int(pools.sizes[buffer & ID_MASK]), int(pools.nexts[buffer & ID_MASK])


@outlined
def adopt_one(ring: TxState, pools: Pools, buffer: int, size: int) -> int:
    """Copy what is in a buffer of another pool into a spare one, of which there is one for each place of the ring, and
    give it back; the spare one."""
    ring.state[SPARES] -= 1
    spare = int(ring.spares.ids[ring.state[SPARES] & (ring.spares.ids.size - 1)])
    target: Any = (spare & ID_MASK) * STRIDE
    source: Any = (buffer & ID_MASK) * STRIDE
    copy(ring.bytes, target, ring.bytes, source, size)
    ring.back.ids[0] = buffer
    give(pools, ring.back, 0, 1)
    return spare
