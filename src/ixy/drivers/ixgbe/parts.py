"""How frames are received that may take several buffers: jumbo frames, each a chain (`ixy.packets.parts`).

The card fills one descriptor after the other, and the last one of a frame says EOP and what it found out about it
(7.1.6.2). A frame is taken once it is there as a whole, one at a time. How many descriptors it takes, and how long each
part is, are checked; each length is read once, since who writes them may write anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ixy.drivers.ixgbe.datapath import SKIPPING, RxState, arm_one, describe_one, hand_back
from ixy.drivers.rings import COMMON_WORDS, DROPPED, NEXT, STARVED
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Packets, stamp
from ixy.packets.parts import link
from ixy.packets.pool import Pools, free_count, fresh, took
from ixy.registers.i82599 import RX_DD, RX_EOP, RX_LENGTH_SHIFT
from ixy.unsafe import load_acquire, put

# Words of a receive ring's `state` besides those of every one
PARTS = COMMON_WORDS + 1  # the most descriptors that a frame may take


def receiving(
    status_of: Callable[..., int], describe_one: Callable[..., None], damaged: int = 0
) -> Callable[[Any, Pools, Packets, int], int]:
    """The kernel `rx_batch` of a receive ring, see `ixy.drivers.RxRing`, for what a kind of cards writes.

    Args:
        status_of: `status_of(ring, slot)` is what the card has written into a descriptor, with status and length where
            an 82599 has them.
        describe_one: `describe_one(ring, slot, packets, i)` notes what a descriptor says of packet `i`.
        damaged: bits of the last descriptor that no good frame has.
    """

    @compiled
    def rx_batch(ring: Any, pools: Pools, packets: Packets, limit: int) -> int:
        """Take up to `limit` received packets off the ring, each in up to PARTS buffers; see `datapath.rx_batch`."""
        first = ring.state[NEXT]
        count = 0
        for _ in range(limit):
            parts = 0 if ring.state[SKIPPING] != 0 else measure(ring, pools)
            if parts == 0:
                if not refuse(ring):
                    break
            elif parts < 0:
                break
            elif free_count(pools, ring.pool) < parts:
                ring.state[STARVED] += 1
                break
            else:
                count += take(ring, pools, packets, count, parts)
        hand_back(ring, first)
        stamp(packets, 0, count)
        return count

    @compiled
    def measure(ring: Any, pools: Pools) -> int:
        """How many descriptors the next frame takes, whose lengths are noted then; less than 0 if not all of it is
        there, and 0 if it is no good: damaged, too many parts, or one whose length makes no sense."""
        mask = (ring.held.ids.size - 1) & INDEX_MASK
        for part in range(ring.state[PARTS]):
            slot = (ring.state[NEXT] + part) & mask
            status = status_of(ring, slot)
            if status & RX_DD == 0:
                return -1
            length = (status >> RX_LENGTH_SHIFT) & 0xFFFF
            if length == 0 or length > BUFFER_SIZE:
                return 0
            link(pools, int(ring.held.ids[slot]), length, NO_NEXT)
            if status & RX_EOP != 0:
                return part + 1 if status & damaged == 0 else 0
        return 0

    @compiled
    def take(ring: Any, pools: Pools, packets: Packets, at: int, parts: int) -> int:
        """Let packet `at` be the next frame, of so many parts, and give the card fresh buffers; 1, but 0 in the
        checking mode if its buffers are not the ring's."""
        held, first = ring.held.ids, ring.state[NEXT]
        mask = (held.size - 1) & INDEX_MASK
        last = (first + parts - 1) & mask
        following = NO_NEXT
        for part in range(parts - 1, 0, -1):
            buffer = int(held[(first + part) & mask])
            pools.nexts[buffer & ID_MASK] = following
            following = buffer
        packets.ids[at] = held[first & mask]
        packets.lengths[at] = pools.sizes[held[first & mask] & ID_MASK]
        put(packets.nexts, at, following)
        put(packets.segments, at, 0)  # the card puts nothing together
        describe_one(ring, last, packets, at)
        handed = hand_over(pools, packets, at, 1, ring.held.holder, packets.holder)
        free = free_count(pools, ring.pool)
        for part in range(parts):
            slot = (first + part) & mask
            held[slot] = fresh(pools, ring.pool, free, part)
            arm_one(ring.descriptors, ring.addresses, slot, held[slot])
        took(pools, ring.pool, free - parts, ring.held)
        ring.state[NEXT] = first + parts
        return handed

    @outlined
    def refuse(ring: Any) -> bool:
        """Give a frame that is no good back to the card, descriptor by descriptor, and count it when it ends, perhaps
        in another call; False if its next descriptor is not there."""
        mask = (ring.held.ids.size - 1) & INDEX_MASK
        for _ in range(ring.held.ids.size):
            slot = ring.state[NEXT] & mask
            status = status_of(ring, slot)
            if status & RX_DD == 0:
                return False
            last = status & RX_EOP != 0
            ring.state[SKIPPING] = 0 if last else 1
            ring.state[DROPPED] += 1 if last else 0
            arm_one(ring.descriptors, ring.addresses, slot, ring.held.ids[slot])
            ring.state[NEXT] += 1
            if last:
                return True
        return True

    return rx_batch


@compiled
def status_of(ring: RxState, slot: int) -> int:
    """The second word of a descriptor."""
    return load_acquire(ring.descriptors, 2 * slot + 1)


rx_batch = receiving(status_of, describe_one)
