"""Receiving from an 82599 that puts TCP segments together (RSC, 7.11).

Such a packet lies in several buffers, and between its descriptors there are those of others: each names the next one
(7.11.5). A packet is taken when all of it is there, at its first descriptor; the others are passed over when their turn
comes. So the ring always holds as many buffers as it has descriptors.

What the card says is not trusted: the next descriptor has to be one that the card has and that is no other packet's. A
packet of which that is not true, which is too long, or has a part of a nonsensical length, is refused. Each length is
read once, since who writes them may write anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.drivers.ixgbe.datapath import arm_one, describe, hand_back
from ixy.drivers.layers import find_layers
from ixy.drivers.rings import DROPPED, NEXT, STARVED
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Packets, stamp
from ixy.packets.parts import link, total_length
from ixy.packets.pool import Pools, free_count, fresh, took
from ixy.registers.i82599 import RX_DD, RX_EOP, RX_LENGTH_SHIFT, RX_NEXTP_SHIFT, RX_RSCCNT_SHIFT
from ixy.unsafe import has, load_acquire, put

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

_COUNT, _NEXTP = 0xF, 0xFFFF
_LATER, _REFUSED = 0, -1  # instead of the number of a packet's parts


class CoalescingRxState(NamedTuple):
    """A receive ring, as `RxState`.

    Attributes:
        parts: the most buffers that a packet may lie in.
        taken: 1 for each descriptor whose packet was taken before its turn.
        chain: room for the numbers of one packet's descriptors.
    """

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    held: Packets
    state: NDArray[np.int64]
    addresses: Addresses
    pool: int
    parts: int
    taken: NDArray[np.int64]
    chain: NDArray[np.int64]


@compiled
def rx_batch(ring: CoalescingRxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the card a fresh buffer for each of theirs (7.1.6)."""
    first = ring.state[NEXT]
    mask = (ring.held.ids.size - 1) & INDEX_MASK
    count = looked = 0
    while count < limit and looked < ring.held.ids.size:
        slot = ring.state[NEXT] & mask
        if ring.taken[slot] == 0:
            parts = follow(ring, pools)
            if parts == _LATER:
                break
            if parts == _REFUSED:
                ring.state[DROPPED] += 1
            elif parts > free_count(pools, ring.pool):
                ring.state[STARVED] += 1
                break
            else:
                count += take_chain(ring, pools, packets, count, parts)
        ring.taken[slot] = 0
        arm_one(ring.descriptors, ring.addresses, slot, ring.held.ids[slot])
        ring.state[NEXT] += 1
        looked += 1
    hand_back(ring, first)
    stamp(packets, 0, count)
    return count


@compiled
def follow(ring: CoalescingRxState, pools: Pools) -> int:
    """How many parts the packet has that begins at the next descriptor, whose descriptors and lengths are noted then;
    _LATER if it is not all there, _REFUSED if it makes no sense, and then all of its descriptors are passed over.
    """
    size = ring.held.ids.size
    begin = place = ring.state[NEXT]
    count, good = 0, True
    while True:
        slot = place & (size - 1) & INDEX_MASK
        status = load_acquire(ring.descriptors, 2 * slot + 1)
        if status & RX_DD == 0:
            return _LATER
        length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
        good = good and 0 < length <= BUFFER_SIZE and count < ring.parts
        link(pools, int(ring.held.ids[slot]), length, NO_NEXT)
        ring.chain[count] = slot
        count += 1
        if status & RX_EOP != 0:
            break
        step = distance(ring, slot, status)
        # The card has those up to the tail, which is one before the first.
        if step == 0 or place + step > begin + size - 2 or ring.taken[(place + step) & (size - 1)] != 0:
            good = False
            break
        place += step
    if good:
        return count
    for part in range(1, count):
        ring.taken[ring.chain[part]] = 1
    return _REFUSED


@compiled
def distance(ring: CoalescingRxState, slot: int, status: int) -> int:
    """How far away the descriptor is in which a packet goes on from this one; 0 if there is none (7.1.6.2)."""
    size = ring.held.ids.size
    if (ring.descriptors[2 * slot] >> RX_RSCCNT_SHIFT) & _COUNT == 0:
        return 1
    following = (status >> RX_NEXTP_SHIFT) & _NEXTP
    return (following - slot) & (size - 1) if following < size else 0


@compiled
def take_chain(ring: CoalescingRxState, pools: Pools, packets: Packets, at: int, parts: int) -> int:
    """Let packet `at` be what lies in so many descriptors, which get fresh buffers; 1, or 0 if it could not be had."""
    held, chain = ring.held.ids, ring.chain
    free = free_count(pools, ring.pool)
    following = NO_NEXT
    segments: Any = 0
    for part in range(parts - 1, -1, -1):
        slot = chain[part] & INDEX_MASK
        buffer = int(held[slot])
        says = ring.descriptors[2 * slot]
        if part == parts - 1:
            describe(packets, at, says, ring.descriptors[2 * slot + 1])
        segments += max(((says >> RX_RSCCNT_SHIFT) & _COUNT) - 1, 0)
        if part > 0:
            pools.nexts[buffer & ID_MASK] = following
            ring.taken[slot] = 1
            following = buffer
        else:
            packets.ids[at] = buffer
            packets.lengths[at] = pools.sizes[buffer & ID_MASK]
            put(packets.nexts, at, following)
        held[slot] = fresh(pools, ring.pool, free, part)
    if has(packets.segments):
        put(packets.segments, at, segment_size(pools, packets, at, segments) if segments > 1 else 0)
    handed = hand_over(pools, packets, at, 1, ring.held.holder, packets.holder)
    took(pools, ring.pool, free - parts, ring.held)
    return handed


@outlined
def segment_size(pools: Pools, packets: Packets, i: int, count: int) -> int:
    """The payload of each of the `count` segments that packet `i` was put together from, if all were alike."""
    data = pools.bytes[packets.ids[i] & ID_MASK]
    layers = find_layers(data, int(packets.lengths[i]), total_length(pools, packets, i))
    return (layers.end - layers.payload + count - 1) // count if layers.payload > 0 else 0
