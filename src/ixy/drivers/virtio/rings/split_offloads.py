"""What is a split ring's own where it has offloads, or packets of several parts; see `offloads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.rings import NEXT
from ixy.drivers.virtio.rings.offloads import receiving, sent, transmitting
from ixy.drivers.virtio.rings.split import INDEX, PLACES, arm, offer, recycled, reorder
from ixy.drivers.virtio.rings.state import BAD_INDEX, BROKEN, OFFERED, PACKETS, ROOM, SENT
from ixy.jit import compiled
from ixy.packets.buffers import device_address
from ixy.registers.virtio import SPLIT_NEXT, SPLIT_NEXT_SHIFT, SPLIT_WRITE
from ixy.unsafe import load_acquire, store_ordered

if TYPE_CHECKING:
    from ixy.drivers.virtio.rings.split import SplitRing


@compiled
def offer_all(ring: SplitRing, count: int) -> None:
    """Offer the buffers that a receive ring has been filled with, in its first `count` descriptors."""
    for slot in range(count):
        ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
        ring.descriptors[2 * slot + 1] = SPLIT_WRITE | ring.state[ROOM]
    ring.state[OFFERED] = count
    store_ordered(ring.available, INDEX, count)


@compiled
def _used_length(ring: SplitRing, ahead: int) -> int:
    state = ring.state
    ready = (load_acquire(ring.used_flags, INDEX) - state[NEXT]) & 0xFFFF
    out = state[OFFERED] - state[NEXT]
    if ready > out:
        state[BROKEN] = BAD_INDEX
    if state[BROKEN] != 0 or ahead >= ready:
        return -1
    slot = (state[NEXT] + ahead) & (ring.held.ids.size - 1)
    used = load_acquire(ring.used, 2 * slot)
    if used != ring.order[slot] and not reorder(ring, slot, used, out - ahead):
        return -1
    return load_acquire(ring.used, 2 * slot + 1)


@compiled
def _rearm(ring: SplitRing, position: int) -> None:
    arm(ring, position & (ring.held.ids.size - 1))


@compiled
def _reclaim(ring: SplitRing) -> None:
    """The elements of the used ring name the first descriptors of packets (2.7.8)."""
    state, mask = ring.state, ring.held.ids.size - 1
    ready = (load_acquire(ring.used_flags, INDEX) - state[SENT]) & 0xFFFF
    if ready > state[PACKETS] - state[SENT]:
        state[BROKEN] = BAD_INDEX
        return
    for _ in range(ready):
        if sent(ring, load_acquire(ring.used, 2 * (state[SENT] & mask))) == 0:
            return


@compiled
def _write(ring: SplitRing, first: int, k: int, address: int, length: int, more: bool) -> None:
    """2.7.5; a packet is offered by its first descriptor (2.7.6)."""
    mask = ring.held.ids.size - 1
    slot = (first + k) & mask
    following = SPLIT_NEXT | ((slot + 1) & mask) << SPLIT_NEXT_SHIFT if more else 0
    ring.descriptors[2 * slot] = address
    ring.descriptors[2 * slot + 1] = length | following
    if k == 0:
        ring.available[PLACES + (ring.state[PACKETS] & mask)] = slot


@compiled
def _announce(ring: SplitRing) -> None:
    offer(ring, ring.state[PACKETS])


rx_batch = receiving(_used_length, _rearm, recycled)
tx_room, tx_batch = transmitting(_reclaim, _write, _announce)


def sent_count(ring: SplitRing) -> int:
    """How many of the packets the device has taken from the ring."""
    seen = int(ring.state[SENT])
    return min(seen + (int(ring.used_flags[INDEX]) - seen & 0xFFFF), int(ring.state[PACKETS]))
