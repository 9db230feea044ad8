"""The data path of the 82599: kernels over descriptor rings.

A ring is shared with the card. The driver owns the descriptors between what it last took and the tail; the card owns
the rest. Which buffer lies in which descriptor stands in the driver's own `ids`: what the card writes into a descriptor
is never taken as an address or an index, only as status, length and metadata, and the length is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.rings import CLEAN, COMMON_WORDS, DROPPED, NEXT, STARVED
from ixy.jit import apart, compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Flags, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, give, took, trade
from ixy.registers.i82599 import (
    RX_DD,
    RX_EOP,
    RX_HASH_SHIFT,
    RX_IPCS,
    RX_IPE,
    RX_L4CS,
    RX_L4E,
    RX_LENGTH_SHIFT,
    RX_RSS_TYPE,
    RX_SPH,
    RX_TYPE_ETQF,
    RX_TYPE_IPV4,
    RX_TYPE_IPV6,
    RX_TYPE_TCP,
    RX_TYPE_UDP,
    RX_VLAN_SHIFT,
    RX_VP,
    TX_DATA,
    TX_DD,
    TX_DEXT,
    TX_EOP,
    TX_IFCS,
    TX_PAYLEN_SHIFT,
    TX_RS,
)
from ixy.unsafe import fence_acquire, half, has, keep, load_acquire, put, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

# Descriptors are cleaned in groups: the card reports the status of every 32nd only, which saves it write-backs and us
# looks at descriptors.
CLEAN_GROUP = 32
_TX_COMMAND = TX_EOP | TX_IFCS | TX_DEXT | TX_DATA
_WHOLE = RX_DD | RX_EOP  # a frame in one buffer
BLOCK = 8  # packets are received by vector moves if there are so many
_TOO_LONG = -BUFFER_SIZE  # a mask: of no length from 1 to the size of a buffer, less 1, does it leave anything
assert BUFFER_SIZE & (BUFFER_SIZE - 1) == 0

# `Flags` has the kinds of packets in the order of the descriptor's first word, and good checksums before bad ones.
_TYPES = RX_TYPE_IPV4 | RX_TYPE_IPV6 | RX_TYPE_TCP | RX_TYPE_UDP
_TYPES_SHIFT = 4
assert _TYPES << _TYPES_SHIFT == Flags.IPV4 | Flags.IPV6 | Flags.TCP | Flags.UDP
_IP_GOOD, _L4_GOOD, _HASH = int(Flags.IP_GOOD), int(Flags.L4_GOOD), int(Flags.HASH)
assert (Flags.IP_BAD, Flags.L4_BAD) == (2 * _IP_GOOD, 2 * _L4_GOOD)
# By so much the descriptor's bits are shifted to be the flags', and there are those that say that a checksum is wrong
_IPCS_SHIFT, _L4CS_SHIFT, _VLAN_SHIFT = 6, 3, 2
_IPE_PLACE, _L4E_PLACE = RX_IPE.bit_length() - 1, RX_L4E.bit_length() - 1
assert (RX_IPCS >> _IPCS_SHIFT, RX_L4CS >> _L4CS_SHIFT) == (_IP_GOOD, _L4_GOOD)
assert RX_VP << _VLAN_SHIFT == Flags.VLAN

# Words of a ring's `state` besides the common ones
SKIPPING = COMMON_WORDS  # receive: 1 while the rest of a frame that spans buffers is to be refused
STATE_WORDS = 8


class RxState(NamedTuple):
    """A receive ring.

    Attributes:
        descriptors: in DMA memory, shape (2 * size,), int64: two words each.
        tail: the doorbell RDT, shape (1,), uint32.
        held: the buffer in each descriptor.
        state: shape (STATE_WORDS,), int64.
        addresses: where the card sees each buffer.
        pool: number of the pool that buffers come from.
    """

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    held: Packets
    state: NDArray[np.int64]
    addresses: Addresses
    pool: int


class TxState(NamedTuple):
    """A transmit ring: as `RxState`, with TDT for the doorbell."""

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    held: Packets
    state: NDArray[np.int64]
    addresses: Addresses


@compiled
def offer(ring: RxState, count: int) -> None:
    """Write the buffers that a receive ring has been filled with into its first `count` descriptors.

    The caller sets the tail to the last one, so that head and tail differ (datasheet 7.1.9).
    """
    arm(ring.descriptors, ring.held.ids, ring.addresses, 0, count)


@apart
def arm(descriptors: NDArray[np.int64], held: NDArray[np.int32], addresses: Addresses, slot: int, count: int) -> None:
    """Write the addresses of their buffers into `count` descriptors from `slot` on, which do not wrap."""
    slot &= INDEX_MASK
    for i in range(count & INDEX_MASK):
        arm_one(descriptors, addresses, slot + i, held[slot + i])


@compiled
def arm_one(descriptors: NDArray[np.int64], addresses: Addresses, slot: int, buffer: Any) -> None:
    """Write the address of a buffer into a descriptor (7.1.5)."""
    descriptors[2 * slot] = device_address(addresses, buffer)
    descriptors[2 * slot + 1] = 0


@compiled
def ready(ring: RxState) -> bool:
    """Whether the card has written the next descriptor back."""
    return is_there(ring, ring.state[NEXT] & (ring.held.ids.size - 1))


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the card a fresh buffer for each (7.1.6, 7.1.9).

    When the pool is empty, packets stay in the ring until buffers come back; the card drops what finds no room.
    """
    first = ring.state[NEXT]
    count = 0
    if limit >= BLOCK:
        count = take_blocks(ring, pools, packets, limit)
    if count < limit:
        count = take_singly(ring, pools, packets, count, limit)
    hand_back(ring, first)
    stamp(packets, 0, count)
    return count


@compiled
def take_blocks(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Receive as long as there are whole blocks of good frames; how many packets.

    Each loop does one thing to all of them and has no branch, so the compiler makes vector moves of it. What is odd in
    any way is left to others.
    """
    taken = 0
    while ring.state[SKIPPING] == 0:
        slot = ring.state[NEXT] & (ring.held.ids.size - 1)
        count = blocks(ring, slot, min(limit - taken, free_count(pools, ring.pool)))
        if count == 0 or read_lengths(ring.descriptors, slot, packets.lengths, taken, count) != 0:
            break
        fence_acquire()  # the card may have written the first of them last
        describe_all(ring.descriptors, slot, packets.flags, packets.hashes, packets.vlans, taken, count)
        trade(pools, ring.pool, ring.held, slot, packets, taken, count)
        arm(ring.descriptors, ring.held.ids, ring.addresses, slot, count)
        ring.state[NEXT] += count
        taken += hand_over(pools, packets, taken, count, ring.held.holder, packets.holder)
    return taken


@compiled
def blocks(ring: RxState, slot: int, limit: int) -> int:
    """How many packets there seem to be from `slot` on, in whole blocks, to judge by the last one of each."""
    limit = min(limit, ring.held.ids.size - slot) & -BLOCK
    if limit <= 0 or is_there(ring, slot + limit - 1):  # all of them, under load
        return limit
    count = 0
    while count < limit and is_there(ring, slot + count + BLOCK - 1):
        count += BLOCK
    return count


@compiled
def is_there(ring: RxState, slot: int) -> bool:
    """Whether the card has written a descriptor back."""
    return load_acquire(ring.descriptors, 2 * (slot & INDEX_MASK) + 1) & RX_DD != 0


@apart
def read_lengths(descriptors: NDArray[np.int64], slot: int, lengths: NDArray[np.int32], at: int, count: int) -> int:
    """Note the lengths of packets; 0 if each is there, in one buffer, and as long as it may be.

    It reads the first words too: vector moves take both, and could not take the last descriptor's if it ended there.
    """
    slot &= INDEX_MASK
    at &= INDEX_MASK
    missing = longest = split = 0
    for i in range(count & INDEX_MASK):
        split |= descriptors[2 * (slot + i)]
        status = descriptors[2 * (slot + i) + 1]
        length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
        missing |= ~status
        longest |= length - 1
        lengths[at + i] = length
    return missing & _WHOLE | longest & _TOO_LONG | split & RX_SPH


@apart
def describe_all(
    descriptors: NDArray[np.int64],
    slot: int,
    flags: NDArray[np.uint32] | None,
    hashes: NDArray[np.uint32] | None,
    vlans: NDArray[np.uint16] | None,
    at: int,
    count: int,
) -> None:
    """Note what the card wrote about packets, as `describe` does about one.

    Words are read by halves, as vector moves have twice as many of those at a time. From each descriptor the first half
    and the last is read: moves that end before could not take the last descriptor's, and packets would be left to a
    loop without vectors.
    """
    slot &= INDEX_MASK
    at &= INDEX_MASK
    if has(flags) or has(hashes) or has(vlans):
        ends = 0
        for i in range(count & INDEX_MASK):
            first = 4 * (slot + i)
            kind, status, last = half(descriptors, first), half(descriptors, first + 2), half(descriptors, first + 3)
            put(vlans, at + i, last >> 16 if status & RX_VP != 0 else 0)
            put(hashes, at + i, half(descriptors, first + 1) if kind & RX_RSS_TYPE != 0 else 0)
            put(flags, at + i, flags_of(kind, status))
            ends = kind | last
        keep(ends)


@compiled
def describe(packets: Packets, i: int, kind: Any, status: Any) -> None:
    """Note what the card wrote about packet `i`, as far as that was asked for (7.1.6.2)."""
    put(packets.vlans, i, (status >> RX_VLAN_SHIFT) & 0xFFFF if status & RX_VP != 0 else 0)
    put(packets.hashes, i, (kind >> RX_HASH_SHIFT) & 0xFFFFFFFF if kind & RX_RSS_TYPE != 0 else 0)
    put(packets.flags, i, flags_of(kind, status))


@compiled
def flags_of(kind: Any, status: Any) -> int:
    """The flags of a packet, from its descriptor's words, or the lower halves of them.

    Of a checksum that the card has looked at, the flag for a bad one follows that for a good one.
    """
    flags = (kind & _TYPES) << _TYPES_SHIFT if kind & RX_TYPE_ETQF == 0 else 0
    flags |= _HASH if kind & RX_RSS_TYPE != 0 else 0
    flags |= (status & RX_VP) << _VLAN_SHIFT
    flags |= ((status >> _IPCS_SHIFT) & _IP_GOOD) << ((status >> _IPE_PLACE) & 1)
    return flags | ((status >> _L4CS_SHIFT) & _L4_GOOD) << ((status >> _L4E_PLACE) & 1)


@compiled
def take_singly(ring: RxState, pools: Pools, packets: Packets, before: int, limit: int) -> int:
    """Go on receiving one by one, after `before` packets; how many there are then."""
    if ring.state[SKIPPING] != 0:
        return take_carefully(ring, pools, packets, before, limit)
    held, ids, lengths = ring.held.ids, packets.ids, packets.lengths
    mask = (held.size - 1) & INDEX_MASK
    first = ring.state[NEXT]
    free = free_count(pools, ring.pool)
    status = 0
    count = 0
    for i in range(min(limit - before, free)):
        slot = (first + i) & mask
        status = load_acquire(ring.descriptors, 2 * slot + 1)
        length = good_length(status)
        if length == 0:
            break
        at = (before + i) & INDEX_MASK
        ids[at] = held[slot]
        lengths[at] = length
        describe(packets, at, ring.descriptors[2 * slot], status)
        replace(ring, slot, fresh(pools, ring.pool, free, i))
        count = i + 1
    handed = before
    if count > 0:
        handed += hand_over(pools, packets, before, count, ring.held.holder, packets.holder)
        took(pools, ring.pool, free - count, ring.held)
        ring.state[NEXT] = first + count
    if handed < limit and (status & RX_DD != 0 or count == free):
        return take_carefully(ring, pools, packets, handed, limit)
    return handed


@compiled
def good_length(status: int) -> int:
    """The length of a frame, from the second word of its descriptor; 0 if it is not there, or odd in any way."""
    length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
    return 0 if status & _WHOLE != _WHOLE or length > BUFFER_SIZE else length


@compiled
def replace(ring: RxState, slot: int, buffer: int) -> None:
    """Put another buffer into a descriptor, and give that to the card."""
    ring.held.ids[slot] = buffer
    arm_one(ring.descriptors, ring.addresses, slot, buffer)


@outlined
def take_carefully(ring: RxState, pools: Pools, packets: Packets, count: int, limit: int) -> int:
    """Go on receiving where a frame is no good or buffers run out; how many packets there are then.

    A frame that spans buffers, or whose length is nonsense, is refused: its descriptors go back with their buffers.
    """
    held = ring.held.ids
    for _ in range(limit):
        slot = ring.state[NEXT] & (held.size - 1)
        status = load_acquire(ring.descriptors, 2 * slot + 1)
        if status & RX_DD == 0 or count == limit:
            break
        length = good_length(status)
        free = free_count(pools, ring.pool)
        if length == 0 or ring.state[SKIPPING] != 0:
            last = status & RX_EOP != 0
            ring.state[SKIPPING] = 0 if last else 1
            ring.state[DROPPED] += 1 if last else 0
        elif free == 0:
            ring.state[STARVED] += 1
            break
        else:
            packets.ids[count] = held[slot]
            packets.lengths[count] = length
            describe(packets, count, ring.descriptors[2 * slot], status)
            count += hand_over(pools, packets, count, 1, ring.held.holder, packets.holder)
            held[slot] = fresh(pools, ring.pool, free, 0)
            took(pools, ring.pool, free - 1, ring.held)
        arm_one(ring.descriptors, ring.addresses, slot, held[slot])
        ring.state[NEXT] += 1
    return count


@compiled
def begin(ring: RxState, limit: int) -> int:
    """How many frames may be taken one by one at most, by a path that goes packet by packet."""
    return limit if ring.state[SKIPPING] == 0 else 0


@compiled
def look(ring: RxState, slot: int) -> int:
    """The length of the good frame in a descriptor; 0 if there is none."""
    return good_length(load_acquire(ring.descriptors, 2 * slot + 1))


@compiled
def describe_one(ring: RxState, slot: int, packets: Packets, i: int) -> None:
    """Note what the descriptor says of packet `i`, if that was asked for."""
    if has(packets.flags) or has(packets.hashes) or has(packets.vlans):
        describe(packets, i, ring.descriptors[2 * slot], load_acquire(ring.descriptors, 2 * slot + 1))


@compiled
def finish(ring: RxState, pools: Pools, count: int, replaced: int) -> None:
    """Such a path has given `count` descriptors back, `replaced` of them with fresh buffers."""
    first = ring.state[NEXT]
    took(pools, ring.pool, free_count(pools, ring.pool) - replaced, ring.held)
    ring.state[NEXT] = first + count
    hand_back(ring, first)


@compiled
def hand_back(ring: Any, first: int) -> None:
    """Ring the doorbell if there are descriptors for the card, from number `first` on.

    The tail is the last one, so it never meets the head, which would mean an empty ring.
    """
    following = ring.state[NEXT]
    if following != first:
        store_release(ring.tail, 0, (following - 1) & (ring.held.ids.size - 1))


@compiled
def tx_room(ring: TxState, pools: Pools, wanted: int) -> int:
    """How many packets the ring has room for; it is cleaned only if there are fewer than `wanted`."""
    mask = ring.held.ids.size - 1
    # One descriptor stays unused: with tail equal to head the card sees an empty ring.
    room = mask - (ring.state[NEXT] - ring.state[CLEAN])
    if room < wanted:
        make_room(ring, pools)
        room = mask - (ring.state[NEXT] - ring.state[CLEAN])
    return room


@outlined
def make_room(ring: TxState, pools: Pools) -> None:
    """`clean`, once in many packets: `tx_batch` has cleaned before, or there was room for a whole ring."""
    clean(ring, pools)


@compiled
def tx_batch(ring: TxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` on the ring until it is full, and ring the doorbell; how many it took (7.2.3)."""
    clean(ring, pools)
    size = ring.held.ids.size
    index = ring.state[NEXT]
    count = min(last - first, size - 1 - (index - ring.state[CLEAN]))
    if count <= 0:
        return 0
    count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
    slot = index & (size - 1)
    unwrapped = min(count, size - slot)
    load(ring.descriptors, ring.held.ids, ring.addresses, slot, packets.ids, packets.lengths, first, unwrapped)
    rest = first + unwrapped
    load(ring.descriptors, ring.held.ids, ring.addresses, 0, packets.ids, packets.lengths, rest, count - unwrapped)
    send(ring, count)
    return count


@apart
def load(
    descriptors: NDArray[np.int64],
    held: NDArray[np.int32],
    addresses: Addresses,
    slot: int,
    ids: NDArray[np.int32],
    lengths: NDArray[np.int32],
    at: int,
    count: int,
) -> None:
    """Write packets from `at` on into `count` descriptors from `slot` on, which do not wrap."""
    slot &= INDEX_MASK
    at &= INDEX_MASK
    for i in range(count & INDEX_MASK):
        held[slot + i] = ids[at + i]
        write_packet(descriptors, addresses, slot + i, ids[at + i], np.int64(lengths[at + i]))


@compiled
def load_one(ring: TxState, slot: int, buffer: Any, length: Any) -> None:
    """Write one packet into a descriptor."""
    ring.held.ids[slot] = buffer
    write_packet(ring.descriptors, ring.addresses, slot, buffer, length)


@compiled
def write_packet(descriptors: NDArray[np.int64], addresses: Addresses, slot: int, buffer: Any, length: Any) -> None:
    """Write where a packet lies, and how long it is, into a descriptor (7.2.3.2.4)."""
    descriptors[2 * slot] = device_address(addresses, buffer)
    descriptors[2 * slot + 1] = (length << TX_PAYLEN_SHIFT) | _TX_COMMAND | length


@compiled
def send(ring: TxState, count: int) -> None:
    """Give `count` descriptors that are written to the card, and have it report the last one of each group."""
    mask = ring.held.ids.size - 1
    index = ring.state[NEXT]
    end = index + count
    group_end = index | (CLEAN_GROUP - 1)
    while group_end < end:
        ring.descriptors[2 * (group_end & mask) + 1] |= TX_RS
        group_end += CLEAN_GROUP
    ring.state[NEXT] = end
    store_release(ring.tail, 0, end & mask)


@compiled
def clean(ring: TxState, pools: Pools) -> None:
    """Return the buffers of sent packets to their pools, group by group (7.2.3.5)."""
    mask = (ring.held.ids.size - 1) & INDEX_MASK
    oldest = ring.state[CLEAN]
    end = ring.state[NEXT] - CLEAN_GROUP
    while oldest <= end:
        slot = oldest & mask
        status = load_acquire(ring.descriptors, 2 * (slot + CLEAN_GROUP - 1) + 1)
        if status & TX_DD == 0:
            break
        give(pools, ring.held, slot, slot + CLEAN_GROUP)
        oldest += CLEAN_GROUP
    ring.state[CLEAN] = oldest
