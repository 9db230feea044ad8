"""The data path of the gigabit cards: kernels over descriptor rings.

The rings are those of the 82599, whose ancestors these cards are: the driver owns the descriptors between what it last
took and the tail, and what the card writes is taken as status, length and metadata, never as an address. What differs
is what stands in a descriptor: a legacy one, which all cards have, and the 82574's extended one for receiving. A
legacy one is rearranged where it is read; all that follows sees the fields where an extended one has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.ixgbe.datapath import BLOCK, SKIPPING, TxState, arm, arm_one, clean, hand_back, send
from ixy.drivers.ixgbe.parts import receiving
from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.jit import apart, compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Flags, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, took, trade
from ixy.registers import i82599
from ixy.registers.e1000 import (
    RX_DAMAGED,
    RX_DD,
    RX_EOP,
    RX_ERRORS_SHIFT,
    RX_HASH_SHIFT,
    RX_IPCS,
    RX_IPE,
    RX_IXSM,
    RX_LEGACY_ERRORS_SHIFT,
    RX_LEGACY_STATUS_SHIFT,
    RX_LENGTH_SHIFT,
    RX_RESERVED,
    RX_RSS_TYPE,
    RX_TCPCS,
    RX_TCPE,
    RX_TYPE_IPV4,
    RX_TYPE_IPV4_L4,
    RX_TYPE_IPV6,
    RX_TYPE_IPV6_L4,
    RX_TYPE_MASK,
    RX_TYPE_SHIFT,
    RX_UDPCS,
    RX_VLAN_SHIFT,
    RX_VP,
    TX_DD,
    TX_EOP,
    TX_IFCS,
    TX_RS,
)
from ixy.unsafe import fence_acquire, has, load_acquire, put

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

_TX_COMMAND = TX_EOP | TX_IFCS
_WHOLE = RX_DD | RX_EOP  # a frame in one buffer
_TOO_LONG = -BUFFER_SIZE  # a mask: of no length from 1 to the size of a buffer, less 1, does it leave anything
assert BUFFER_SIZE & (BUFFER_SIZE - 1) == 0

_IP_GOOD, _L4_GOOD, _VLAN, _HASH = int(Flags.IP_GOOD), int(Flags.L4_GOOD), int(Flags.VLAN), int(Flags.HASH)
_IPV4, _IPV6, _TCP, _UDP = int(Flags.IPV4), int(Flags.IPV6), int(Flags.TCP), int(Flags.UDP)

# The 82599's kernels that these rings share go by its bits, which are where these cards have them.
assert (RX_DD, RX_EOP, RX_LENGTH_SHIFT) == (i82599.RX_DD, i82599.RX_EOP, i82599.RX_LENGTH_SHIFT)
assert (TX_DD, TX_RS, TX_EOP) == (i82599.TX_DD, i82599.TX_RS, i82599.TX_EOP)


class RxState(NamedTuple):
    """A receive ring.

    Attributes:
        descriptors: in DMA memory, shape (2 * size,), int64: two words each.
        tail: the doorbell RDT, shape (1,), uint32.
        held: the buffer in each descriptor.
        state: words of the ring, as an 82599's, int64.
        addresses: where the card sees each buffer.
        pool: number of the pool that buffers come from.
        extended: True where the card writes extended descriptors, None where it writes legacy ones: kernels are
            compiled for one or the other.
    """

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    held: Packets
    state: NDArray[np.int64]
    addresses: Addresses
    pool: int
    extended: bool | None


@compiled
def offer(ring: RxState, count: int) -> None:
    """Write the buffers that a receive ring has been filled with into its first `count` descriptors.

    The caller sets the tail to the last one: with head and tail equal, the card would see an empty ring (7.1.8).
    """
    arm(ring.descriptors, ring.held.ids, ring.addresses, 0, count)


@compiled
def arranged(word: Any, extended: bool | None) -> int:
    """The second word of a descriptor, its fields where an extended one has them (7.1.3, 7.1.4; SDM 3.2.3)."""
    if has(extended):
        return word
    status = (word >> RX_LEGACY_STATUS_SHIFT) & 0xFF | ((word >> RX_LEGACY_ERRORS_SHIFT) & 0xFF) << RX_ERRORS_SHIFT
    return status | (word & 0xFFFF) << RX_LENGTH_SHIFT | word >> RX_VLAN_SHIFT << RX_VLAN_SHIFT


@compiled
def status_of(ring: RxState, slot: int) -> int:
    """What the card has written into a descriptor: status, errors, length, VLAN tag."""
    return arranged(load_acquire(ring.descriptors, 2 * (slot & INDEX_MASK) + 1), ring.extended)


@compiled
def ready(ring: RxState) -> bool:
    """Whether the card has written the next descriptor back."""
    return status_of(ring, ring.state[NEXT] & (ring.held.ids.size - 1)) & RX_DD != 0


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` received packets off the ring and give the card a fresh buffer for each (7.1.8).

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
    """Receive as long as there are whole blocks of good frames, by loops without a branch; how many packets."""
    taken = 0
    while ring.state[SKIPPING] == 0:
        slot = ring.state[NEXT] & (ring.held.ids.size - 1)
        count = blocks(ring, slot, min(limit - taken, free_count(pools, ring.pool)))
        if count == 0 or read_lengths(ring.descriptors, slot, ring.extended, packets.lengths, taken, count) != 0:
            break
        fence_acquire()  # the card may have written the first of them last
        describe_all(ring, slot, packets, taken, count)
        trade(pools, ring.pool, ring.held, slot, packets, taken, count)
        arm(ring.descriptors, ring.held.ids, ring.addresses, slot, count)
        ring.state[NEXT] += count
        taken += hand_over(pools, packets, taken, count, ring.held.holder, packets.holder)
    return taken


@compiled
def blocks(ring: RxState, slot: int, limit: int) -> int:
    """How many packets there seem to be from `slot` on, in whole blocks, to judge by the last one of each."""
    limit = min(limit, ring.held.ids.size - slot) & -BLOCK
    if limit <= 0 or status_of(ring, slot + limit - 1) & RX_DD != 0:  # all of them, under load
        return limit
    count = 0
    while count < limit and status_of(ring, slot + count + BLOCK - 1) & RX_DD != 0:
        count += BLOCK
    return count


@apart
def read_lengths(
    descriptors: NDArray[np.int64],
    slot: int,
    extended: bool | None,
    lengths: NDArray[np.int32],
    at: int,
    count: int,
) -> int:
    """Note the lengths of packets; 0 if each is there, in one buffer, undamaged and as long as it may be.

    It reads the first words too: vector moves take both, and could not take the last descriptor's if it ended there.
    """
    slot &= INDEX_MASK
    at &= INDEX_MASK
    missing = longest = damaged = reserved = 0
    for i in range(count & INDEX_MASK):
        reserved |= descriptors[2 * (slot + i)]
        status = arranged(descriptors[2 * (slot + i) + 1], extended)
        length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
        missing |= ~status
        damaged |= status
        longest |= length - 1
        lengths[at + i] = length
    if not has(extended):
        reserved = 0  # an address stands there
    return missing & _WHOLE | longest & _TOO_LONG | damaged & RX_DAMAGED | reserved & RX_RESERVED


@compiled
def describe_all(ring: RxState, slot: int, packets: Packets, at: int, count: int) -> None:
    """Note what the card wrote about packets."""
    slot &= INDEX_MASK
    at &= INDEX_MASK
    if has(packets.flags) or has(packets.hashes) or has(packets.vlans):
        for i in range(count & INDEX_MASK):
            status = arranged(ring.descriptors[2 * (slot + i) + 1], ring.extended)
            describe(ring, packets, at + i, ring.descriptors[2 * (slot + i)], status)


@compiled
def describe(ring: RxState, packets: Packets, i: int, first: Any, status: Any) -> None:
    """Note what the card wrote about packet `i`, as far as that was asked for (7.1.4; SDM 3.2.3)."""
    tagged = (status & RX_VP) // RX_VP
    put(packets.vlans, i, (status >> RX_VLAN_SHIFT) & 0xFFFF & -tagged)
    flags = tagged * _VLAN | checksums(status)
    if has(ring.extended):
        hashed = min(first & RX_RSS_TYPE, 1)
        put(packets.hashes, i, (first >> RX_HASH_SHIFT) & 0xFFFFFFFF & -hashed)
        flags |= hashed * _HASH | kind(status)
    put(packets.flags, i, flags)


@compiled
def checksums(status: int) -> int:
    """What the card found out about checksums, as `Flags`; nothing if it says that it does not know (IXSM)."""
    known = 1 - (status & RX_IXSM) // RX_IXSM
    ip = (status & RX_IPCS) // RX_IPCS * (1 + (status & RX_IPE) // RX_IPE)
    l4 = (status & RX_TCPCS) // RX_TCPCS * (1 + (status & RX_TCPE) // RX_TCPE)
    return known * (ip * _IP_GOOD | l4 * _L4_GOOD | min(ip, 1) * _IPV4)


@compiled
def kind(status: int) -> int:
    """The kind of a packet, as `Flags`. Of TCP and UDP the card tells which it was when it looked at the checksum."""
    found = (status >> RX_TYPE_SHIFT) & RX_TYPE_MASK
    flags = 0
    if found == RX_TYPE_IPV4 or found == RX_TYPE_IPV4_L4:
        flags = _IPV4
    elif found == RX_TYPE_IPV6 or found == RX_TYPE_IPV6_L4:
        flags = _IPV6
    if (found == RX_TYPE_IPV4_L4 or found == RX_TYPE_IPV6_L4) and status & RX_TCPCS != 0:
        flags |= _UDP if status & RX_UDPCS != 0 else _TCP
    return flags


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
        status = status_of(ring, slot)
        length = good_length(status)
        if length == 0:
            break
        at = (before + i) & INDEX_MASK
        ids[at] = held[slot]
        lengths[at] = length
        describe(ring, packets, at, ring.descriptors[2 * slot], status)
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
    """The length of a frame, from what its descriptor says; 0 if it is not there, or odd in any way."""
    length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
    return 0 if status & (_WHOLE | RX_DAMAGED) != _WHOLE or length > BUFFER_SIZE else length


@compiled
def replace(ring: RxState, slot: int, buffer: int) -> None:
    """Put another buffer into a descriptor, and give that to the card."""
    ring.held.ids[slot] = buffer
    arm_one(ring.descriptors, ring.addresses, slot, buffer)


@outlined
def take_carefully(ring: RxState, pools: Pools, packets: Packets, count: int, limit: int) -> int:
    """Go on receiving where a frame is no good or buffers run out; how many packets there are then.

    A frame that spans buffers, is damaged, or whose length is nonsense, is refused: its descriptors go back with their
    buffers.
    """
    held = ring.held.ids
    for _ in range(limit):
        slot = ring.state[NEXT] & (held.size - 1)
        status = status_of(ring, slot)
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
            describe(ring, packets, count, ring.descriptors[2 * slot], status)
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
    return good_length(status_of(ring, slot))


@compiled
def describe_one(ring: RxState, slot: int, packets: Packets, i: int) -> None:
    """Note what the descriptor says of packet `i`, if that was asked for."""
    if has(packets.flags) or has(packets.hashes) or has(packets.vlans):
        describe(ring, packets, i, ring.descriptors[2 * slot], status_of(ring, slot))


@compiled
def finish(ring: RxState, pools: Pools, count: int, replaced: int) -> None:
    """Such a path has given `count` descriptors back, `replaced` of them with fresh buffers."""
    first = ring.state[NEXT]
    took(pools, ring.pool, free_count(pools, ring.pool) - replaced, ring.held)
    ring.state[NEXT] = first + count
    hand_back(ring, first)


rx_batch_in_parts = receiving(status_of, describe_one, RX_DAMAGED)
"""`rx_batch` of a ring whose frames may take several buffers."""


@compiled
def tx_batch(ring: TxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` on the ring until it is full, and ring the doorbell; how many it took (7.2)."""
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
    """Write where a packet lies, and how long it is, into a legacy descriptor (7.2; SDM 3.3.3)."""
    descriptors[2 * slot] = device_address(addresses, buffer)
    descriptors[2 * slot + 1] = _TX_COMMAND | length
