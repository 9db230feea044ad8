"""The data path with offloads, or with packets of several parts: kernels that go packet by packet.

The header before a frame tells more here, both ways (`virtio.headers`). A front end's frame is put together in as many
buffers of ours as it takes; one of ours goes into as many of the front end's. Meanwhile the header lies in the headroom
before our first buffer: there it is looked at, when nobody can change it any more, and from there it is copied.

Front ends come and go, and each accepts what it likes. What one does not do, checksums of what it receives, is done
here; what is to be cut, and it does not cut, is dropped and counted.
"""

from __future__ import annotations

from ixy.drivers.layers import (
    TCP,
    checksum_place,
    find_layers,
    folded,
    is_cut,
    put_half,
    write_header_checksum,
    write_pseudo_sum,
)
from ixy.drivers.linux.rings import BYTES, PACKETS, hold
from ixy.drivers.rings import DROPPED, STARVED
from ixy.drivers.vhost.chains import first_descriptor, flags_of, following, is_offered, name_of, use_chains
from ixy.drivers.vhost.datapath import call, transmitting
from ixy.drivers.vhost.state import (
    ABLE,
    AHEAD,
    ASKED,
    BAD_ADDRESS,
    BAD_CHAIN,
    BROKEN,
    DESCRIPTORS,
    FROM,
    HEADER,
    INDIRECT_FLAG,
    LEFT,
    MERGEABLE,
    NEXT_FLAG,
    PARTS,
    SIZE,
    UNCHANGED,
    WRITE_FLAG,
    GuestRing,
    begin,
    extent,
    locate,
    vacate,
)
from ixy.drivers.virtio.headers import CUTS, NOTHING, REFUSAL, SUMS, TAKEN, describe, place_of, write_header
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK
from ixy.packets.checking import hand_over
from ixy.packets.packets import NO_NEXT, Flags, Packets, stamp
from ixy.packets.parts import link_rest, parts_of, total_length
from ixy.packets.pool import Pools, free_count, fresh, took
from ixy.registers.virtio import HEADER_BYTES, NUM_BUFFERS
from ixy.unsafe import copy, load_acquire, peek, put, store_release

_IP_PARTIAL, _L4_PARTIAL = int(Flags.IP_PARTIAL), int(Flags.L4_PARTIAL)
_BOTH = _IP_PARTIAL | _L4_PARTIAL


# ---------------------------------------------------------------------------------------------------------------------
# Receive


@compiled
def rx_batch(ring: GuestRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` frames, each into as many buffers of the pool as it needs. While there are too few, it stays
    with the front end."""
    if not begin(ring.state):
        return 0
    count = 0
    result = TAKEN if limit > 0 else NOTHING
    before = ring.state[PACKETS] + ring.state[DROPPED]
    while result != NOTHING and count < limit:
        result = take(ring, pools, packets, count)
        if result == TAKEN:
            count += 1
    if ring.state[PACKETS] + ring.state[DROPPED] != before:
        call(ring)
    vacate(ring.state)
    if count == 0:
        return 0
    stamp(packets, 0, count)
    return hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)


@outlined
def take(ring: GuestRing, pools: Pools, packets: Packets, i: int) -> int:
    """Let packet `i` be the next frame; what became of that."""
    state = ring.state
    first = first_descriptor(ring, 0, 0) if is_offered(ring, 0, 0) else -1
    if first < 0:
        return NOTHING
    free = free_count(pools, ring.pool)
    if free == 0:
        state[STARVED] += 1
        return NOTHING
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
            return NOTHING
        length = take_piece(ring, pools, free, length, address, said & 0xFFFFFFFF)
        if state[BROKEN] != 0:
            return NOTHING
        going = flags & NEXT_FLAG != 0
        if going:
            descriptor = following(ring, descriptor, said)
    if free * BUFFER_SIZE < length <= state[PARTS] * BUFFER_SIZE:
        state[STARVED] += 1
        return NOTHING
    ring.names[0], ring.sizes[0], ring.places[0] = name_of(ring, first, said), 0, descriptors
    use_chains(ring, 1)
    header = place_of(fresh(pools, ring.pool, free, 0)) - state[HEADER]
    if (
        length <= 0
        or length > state[PARTS] * BUFFER_SIZE
        or not describe(ring.bytes, state[ABLE], state[HEADER], packets, i, header, length)
    ):
        state[DROPPED] += 1
        return REFUSAL
    collect(ring, pools, packets, i, length, free)
    state[PACKETS] += 1
    state[BYTES] += length
    return TAKEN


@compiled
def take_piece(ring: GuestRing, pools: Pools, free: int, length: int, address: int, size: int) -> int:
    """Append a piece to a frame of so many bytes, less than 0 as long as its header is not over; how many it has then.

    What finds no room in the buffers that may be taken is left out.
    """
    room = min(free, ring.state[PARTS]) * BUFFER_SIZE
    while size > 0:
        part = min(extent(ring, address), size)
        if part <= 0:
            ring.state[BROKEN] = BAD_ADDRESS
            return length
        if length < room:
            number = max(length, 0) // BUFFER_SIZE
            part = min(part, -length if length < 0 else BUFFER_SIZE - length % BUFFER_SIZE)
            target = place_of(fresh(pools, ring.pool, free, number)) + length - number * BUFFER_SIZE
            copy(ring.bytes, target, ring.memory, locate(ring, address, part), part)
        length, address, size = length + part, address + part, size - part
    return length


@compiled
def collect(ring: GuestRing, pools: Pools, packets: Packets, i: int, length: int, free: int) -> None:
    """Let packet `i` be the frame of so many bytes that lies in the buffers that are taken next."""
    packets.ids[i] = fresh(pools, ring.pool, free, 0)
    packets.lengths[i] = min(length, BUFFER_SIZE)
    put(packets.nexts, i, link_rest(pools, ring.pool, free, 0, length))
    took(pools, ring.pool, free - parts_of(length), ring.held)


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@compiled
def deliver(ring: GuestRing, pools: Pools, slot: int, count: int) -> int:
    """Copy `count` packets that wait from `slot` on, as far as there are buffers; how many are done with."""
    done = 0
    while done < count and is_offered(ring, 0, 0) and put_packet(ring, pools, slot + done):
        done += 1
    return done


@outlined
def put_packet(ring: GuestRing, pools: Pools, i: int) -> bool:
    """Copy a packet into as many buffers of the front end's as it takes; False if there are not enough yet, or the ring
    has stopped.

    A packet for which the front end's buffers are too small, or which it would have to cut and does not, is dropped.
    """
    state, held = ring.state, ring.held
    total = total_length(pools, held, i)
    if stays_whole(ring, i) and is_too_long(pools, held, i, total):
        state[DROPPED] += 1
        return True
    unchanged = 0 if prepare(ring, pools, i, total) else 1
    left = state[HEADER] + total
    state[FROM] = place_of(held.ids[i]) - state[HEADER]
    state[LEFT], state[AHEAD] = state[HEADER] + int(held.lengths[i]), peek(held.nexts, i, NO_NEXT)
    chains = descriptors = 0
    header_place = -1
    while left > 0:
        if chains == ring.names.size or (chains == 1 and state[MERGEABLE] == 0):
            state[DROPPED] += 1
            return True
        first = first_descriptor(ring, chains, descriptors) if is_offered(ring, chains, descriptors) else -1
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
            part = min(room, left)
            put_piece(ring, pools, address, part)
            if state[BROKEN] != 0:
                return False
            left, written = left - part, written + part
            going = flags & NEXT_FLAG != 0
            if going:
                descriptor = following(ring, descriptor, said)
        ring.names[chains], ring.sizes[chains], ring.places[chains] = name_of(ring, first, said), written, count
        chains += 1
        descriptors += count
    if state[HEADER] >= HEADER_BYTES:
        store_release(ring.memory, header_place + NUM_BUFFERS, chains)
    use_chains(ring, chains)
    state[UNCHANGED] += unchanged
    return True


@compiled
def put_piece(ring: GuestRing, pools: Pools, address: int, size: int) -> None:
    """Copy what comes next of a packet to the front end's memory, where regions may be next to each other."""
    state = ring.state
    while size > 0:
        while state[LEFT] == 0:
            buffer = state[AHEAD] & ID_MASK
            state[FROM], state[LEFT], state[AHEAD] = place_of(buffer), pools.sizes[buffer], pools.nexts[buffer]
        part = min(extent(ring, address), size, state[LEFT])
        if part <= 0:
            state[BROKEN] = BAD_ADDRESS
            return
        copy(ring.memory, locate(ring, address, part), ring.bytes, state[FROM], part)
        state[FROM] += part
        state[LEFT] -= part
        address, size = address + part, size - part


@compiled
def prepare(ring: GuestRing, pools: Pools, i: int, total: int) -> bool:
    """Write the header of a packet that waits, and make its checksums if the front end does not.

    False if that cannot be done to it.
    """
    state, held = ring.state, ring.held
    wanted = peek(held.flags, i, 0) & _BOTH if state[ASKED] & SUMS != 0 else 0
    if stays_whole(ring, i):
        wanted = _BOTH  # what need not be cut, too, is to have them
        put(held.flags, i, peek(held.flags, i, 0) | _BOTH)
    good = write_header(ring.bytes, state[ABLE], state[HEADER], pools, held, i, total)
    if wanted != 0 and state[ABLE] & SUMS == 0:
        return make_checksums(pools, held, i, total, wanted)
    return good


@compiled
def stays_whole(ring: GuestRing, i: int) -> bool:
    """Whether segments are to be made of a packet that waits, and the front end makes none."""
    return peek(ring.held.segments, i, 0) > 0 and ring.state[ASKED] & CUTS != 0 and ring.state[ABLE] & CUTS == 0


@outlined
def is_too_long(pools: Pools, packets: Packets, i: int, total: int) -> bool:
    """Whether packet `i` is more than one of the segments that are to be made of it."""
    layers = find_layers(pools.bytes[packets.ids[i] & ID_MASK], int(packets.lengths[i]), total)
    return layers.protocol == TCP and is_cut(layers, peek(packets.segments, i, 0))


@outlined
def make_checksums(pools: Pools, packets: Packets, i: int, total: int, wanted: int) -> bool:
    """Make the checksums of packet `i`; False if it has none."""
    data = pools.bytes[packets.ids[i] & ID_MASK]
    layers = find_layers(data, int(packets.lengths[i]), total)
    if layers.version == 0:
        return False
    if wanted & _IP_PARTIAL != 0 and layers.version == 4:
        write_header_checksum(data, layers)
    if wanted & _L4_PARTIAL == 0:
        return True
    if layers.protocol == 0:
        return False
    write_pseudo_sum(data, layers, layers.end - layers.transport)
    checksum = ~folded(sum_up(pools, packets, i, layers.transport, layers.end)) & 0xFFFF
    if checksum == 0:
        checksum = 0xFFFF  # for UDP, 0 says that there is none; to TCP both are the same
    put_half(data, checksum_place(layers), checksum)
    return True


@compiled
def sum_up(pools: Pools, packets: Packets, i: int, first: int, last: int) -> int:
    """The sum of the words from byte `first` of packet `i` to before byte `last`, wherever they lie."""
    total, at = 0, 0
    buffer, size, ahead = packets.ids[i], int(packets.lengths[i]), peek(packets.nexts, i, NO_NEXT)
    while True:
        for k in range(max(first - at, 0), min(last - at, size)):
            byte = int(pools.bytes[buffer & ID_MASK, k])
            total += byte if (at + k - first) & 1 else byte << 8
        at += size
        if at >= last or ahead < 0:
            return total
        buffer, size, ahead = ahead, int(pools.sizes[ahead & ID_MASK]), pools.nexts[ahead & ID_MASK]


transmit = transmitting(deliver, hold)
