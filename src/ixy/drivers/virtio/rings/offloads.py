"""The data path of rings with offloads, or with packets of several parts: what split and packed ones share.

Such rings have kernels of their own, which go packet by packet. The header before each packet (5.1.6 of the VirtIO
specification 1.2) tells more here, both ways, and a packet may lie in several buffers.

Where a received packet goes on in another buffer, the device writes there from the header's place on (5.1.6.4). So
each buffer is given to it as many bytes shorter as a header has: what lies before the packet's place in a later buffer
is moved to the end of the one before, and the rest is where it belongs.

A packet is sent as a chain of descriptors. Its places stay taken until all before them are free too: a device that
sends packets in another order holds some up for a while, and each descriptor stays at its place.

Nothing that the device writes is trusted: not how many buffers a packet has, what they hold, where checksums are, how
long segments were. A packet whose header cannot be true is refused and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED
from ixy.drivers.virtio.headers import MERGES, NOTHING, REFUSAL, TAKEN, describe, place_of, said, write_header
from ixy.drivers.virtio.rings.state import (
    ABLE,
    BAD_ID,
    BROKEN,
    BYTES,
    GROUP,
    PACKETS,
    PARTS,
    ROOM,
    SENT,
    SKIPPING,
    UNCHANGED,
)
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import NO_NEXT, Packets, stamp
from ixy.packets.parts import how_many_fit, link, part_count, total_length
from ixy.packets.pool import Pools, free_count, fresh, give, took
from ixy.registers.virtio import NUM_BUFFERS
from ixy.unsafe import copy, peek, put

# ---------------------------------------------------------------------------------------------------------------------
# Receive


def receiving(
    used_length: Callable[..., int], rearm: Callable[..., None], recycled: Callable[..., None]
) -> Callable[..., int]:
    """The kernel `rx_batch` of a receive ring, see `ixy.drivers.RxRing`, from those of its kind.

    Args:
        used_length: `used_length(ring, ahead)` sees to it that the buffer that the device has used so many after the
            next one is at its place; how many bytes it says it wrote there, -1 if there is none, or the ring has
            stopped.
        rearm: `rearm(ring, position)` gives the device the buffer that is at a place, a round later.
        recycled: `recycled(ring)` tells the device of the places that came before the next one.
    """

    @compiled
    def rx_batch(ring: Any, pools: Pools, packets: Packets, limit: int) -> int:
        """Take up to `limit` received packets off the ring, with all of their buffers (2.7.14, 2.8.21).

        A packet is taken when all of its buffers are there, and the pool has as many.
        """
        state = ring.state
        before, count = state[NEXT], 0
        going = state[BROKEN] == 0
        while going and count < limit:
            result = take(ring, pools, packets, count)
            going = result != NOTHING
            if result == TAKEN:
                count += 1
        if state[NEXT] != before and state[BROKEN] == 0:
            recycled(ring)
        if count == 0:
            return 0
        handed = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
        stamp(packets, 0, count)
        state[PACKETS] += count
        return handed

    @compiled
    def take(ring: Any, pools: Pools, packets: Packets, i: int) -> int:
        """Let packet `i` be the next one; what became of that."""
        if not skip(ring):
            return NOTHING
        state = ring.state
        length = used_length(ring, 0)
        if length < 0:
            return NOTHING
        buffer = ring.held.ids[state[NEXT] & (ring.held.ids.size - 1)]
        header = place_of(buffer) - ring.header
        parts = max(said(ring.headers, header + NUM_BUFFERS), 1) if state[ABLE] & MERGES != 0 else 1
        if parts > state[PARTS] or length <= ring.header or length > state[ROOM]:
            return refuse(ring, parts)
        pools.sizes[buffer & ID_MASK] = length - ring.header
        total = length - ring.header
        if parts > 1:
            if length != state[ROOM]:
                return refuse(ring, parts)
            rest = measure(ring, pools, parts)
            if rest <= 0:
                return refuse(ring, parts) if rest == 0 else NOTHING
            total += rest
        free = free_count(pools, ring.pool)
        if free < parts:
            state[STARVED] += 1
            return NOTHING
        if not describe(ring.headers, state[ABLE], ring.header, packets, i, header, total):
            return refuse(ring, parts)
        exchanged = collect(ring, pools, packets, i, parts, free)
        took(pools, ring.pool, free - exchanged, ring.held)
        for k in range(parts):
            rearm(ring, state[NEXT] + k)
        state[NEXT] += parts
        state[BYTES] += total
        return TAKEN

    @compiled
    def measure(ring: Any, pools: Pools, parts: int) -> int:
        """Note how much lies in each buffer of a packet after its first one; how much in all. 0 if one is not full but
        the last, or that is empty; -1 if they are not all there."""
        state, mask = ring.state, ring.held.ids.size - 1
        total, good = 0, True
        for k in range(1, parts):
            length = used_length(ring, k)
            if length < 0:
                return -1
            good = good and 0 < length <= state[ROOM] and (k == parts - 1 or length == state[ROOM])
            pools.sizes[ring.held.ids[(state[NEXT] + k) & mask] & ID_MASK] = length
            total += length
        return total if good else 0

    @compiled
    def collect(ring: Any, pools: Pools, packets: Packets, i: int, parts: int, free: int) -> int:
        """Move the next buffers to packet `i`, and put fresh ones where they lay; how many.

        What lies before the packet's place in a buffer goes to the end of the one before. If that is all, as may be in
        the last, the buffer stays.
        """
        held, mask, header = ring.held.ids, ring.held.ids.size - 1, ring.header
        first = held[ring.state[NEXT] & mask]
        held[ring.state[NEXT] & mask] = fresh(pools, ring.pool, free, 0)
        exchanged, last = 1, first
        put(packets.nexts, i, NO_NEXT)
        for k in range(1, parts):
            slot = (ring.state[NEXT] + k) & mask
            buffer = held[slot]
            length = int(pools.sizes[buffer & ID_MASK])
            moved = min(header, length)
            end = place_of(last) + int(pools.sizes[last & ID_MASK])
            copy(ring.headers, end, ring.headers, place_of(buffer) - header, moved)
            pools.sizes[last & ID_MASK] += moved
            if length > moved:
                link(pools, buffer, length - moved, NO_NEXT)
                if last == first:
                    put(packets.nexts, i, buffer)
                else:
                    pools.nexts[last & ID_MASK] = buffer
                held[slot] = fresh(pools, ring.pool, free, exchanged)
                exchanged += 1
                last = buffer
        packets.ids[i] = first
        packets.lengths[i] = pools.sizes[first & ID_MASK]
        return exchanged

    @compiled
    def refuse(ring: Any, parts: int) -> int:
        """Have the device get so many buffers back, as far as it has used them; the rest as soon as it has."""
        ring.state[SKIPPING] = min(parts, ring.held.ids.size)
        ring.state[DROPPED] += 1
        return REFUSAL

    @compiled
    def skip(ring: Any) -> bool:
        """Give the buffers of a refused packet back to the device; whether that is over."""
        state = ring.state
        while state[SKIPPING] > 0 and used_length(ring, 0) >= 0:
            rearm(ring, state[NEXT])
            state[NEXT] += 1
            state[SKIPPING] -= 1
        return state[SKIPPING] == 0

    return rx_batch


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


def transmitting(
    reclaim: Callable[..., None], write: Callable[..., None], announce: Callable[..., None]
) -> tuple[Callable[..., int], Callable[..., int]]:
    """The kernels `tx_room` and `tx_batch` of a transmit ring, see `ixy.drivers.TxRing`, from those of its kind.

    On such a ring `order` has at the first place of each packet that is under way how many descriptors it has; see
    `sent`.

    Args:
        reclaim: `reclaim(ring)` calls `sent` for each packet that the device says it has sent.
        write: `write(ring, first, k, address, length, more)` writes descriptor `k` of a packet whose first place this
            is, and whether there are more of it; the first one last.
        announce: `announce(ring)` tells the device of all that was written.
    """

    @compiled
    def clean(ring: Any, pools: Pools) -> None:
        """Return the buffers of packets to their pools that were sent, as all before them."""
        state = ring.state
        size = ring.held.ids.size
        if state[BROKEN] != 0:
            return
        reclaim(ring)
        oldest = state[CLEAN]
        position = oldest
        while position < state[NEXT] and ring.order[position & (size - 1)] < 0:
            parts = -ring.order[position & (size - 1)]
            ring.order[position & (size - 1)] = 0
            position += parts
        start = oldest & (size - 1)
        give(pools, ring.held, start, min(start + position - oldest, size))
        give(pools, ring.held, 0, start + position - oldest - size)
        state[CLEAN] = position

    @outlined
    def make_room(ring: Any, pools: Pools) -> None:
        clean(ring, pools)

    @compiled
    def tx_room(ring: Any, pools: Pools, wanted: int) -> int:
        """How many packets of one descriptor the ring has room for; it is cleaned only if there are fewer than
        `wanted`."""
        state = ring.state
        size = ring.held.ids.size
        if size - (state[NEXT] - state[CLEAN]) < wanted:
            make_room(ring, pools)
        return size - (state[NEXT] - state[CLEAN]) if state[BROKEN] == 0 else 0

    @compiled
    def tx_batch(ring: Any, pools: Pools, packets: Packets, first: int, last: int) -> int:
        """Put packets `first` to `last` on the ring until it is full, and tell the device (2.7.13, 2.8.17); how many
        it took."""
        state = ring.state
        size = ring.held.ids.size
        if state[NEXT] - state[CLEAN] >= min(GROUP, size - 1):
            make_room(ring, pools)
        if state[BROKEN] != 0:
            return 0
        count = how_many_fit(pools, packets, first, last, size - (state[NEXT] - state[CLEAN]), 0)
        if count <= 0:
            return 0
        count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
        for i in range(first, first + count):
            state[NEXT] += load(ring, pools, packets, i)
            state[PACKETS] += 1
        announce(ring)
        return count

    @compiled
    def load(ring: Any, pools: Pools, packets: Packets, i: int) -> int:
        """Put packet `i` on the ring; how many descriptors it has."""
        position, mask = ring.state[NEXT], ring.held.ids.size - 1
        parts, total = part_count(pools, packets, i), total_length(pools, packets, i)
        if not write_header(ring.headers, ring.state[ABLE], ring.header, pools, packets, i, total):
            ring.state[UNCHANGED] += 1
        ring.order[position & mask] = parts
        buffer = peek(packets.nexts, i, NO_NEXT)
        for k in range(1, parts):
            ring.held.ids[(position + k) & mask] = buffer
            address = device_address(ring.addresses, buffer) + ring.header
            write(ring, position, k, address, int(pools.sizes[buffer & ID_MASK]), k + 1 < parts)
            buffer = pools.nexts[buffer & ID_MASK]
        ring.held.ids[position & mask] = packets.ids[i]
        address = device_address(ring.addresses, packets.ids[i])
        write(ring, position, 0, address, int(packets.lengths[i]) + ring.header, parts > 1)
        ring.state[BYTES] += total
        return parts

    return tx_room, tx_batch


@compiled
def sent(ring: Any, first: int) -> int:
    """Note that the device has sent the packet whose first place this is; its descriptors, 0 if the device does not
    have such a packet. The ring has stopped then: which buffers are whose is open."""
    size = ring.held.ids.size
    parts = ring.order[first & (size - 1)]
    if first >= size or parts <= 0:
        ring.state[BROKEN] = BAD_ID
        return 0
    ring.order[first & (size - 1)] = -parts
    ring.state[SENT] += 1
    return int(parts)
