"""What is a packed ring's own where it has offloads, or packets of several parts; see `offloads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.rings import NEXT
from ixy.drivers.virtio.rings.offloads import receiving, sent, transmitting
from ixy.drivers.virtio.rings.packed import available_flags, identifier, notify, recycled, reorder, tag, used_flags
from ixy.drivers.virtio.rings.state import BROKEN, OFFERED, ROOM, SENT, USED
from ixy.jit import compiled
from ixy.packets.buffers import device_address
from ixy.registers.virtio import PACKED_AVAIL, PACKED_NEXT, PACKED_USED, PACKED_WRITE
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from ixy.drivers.virtio.rings.packed import PackedRing

_FLAGS = PACKED_AVAIL | PACKED_USED


@compiled
def offer_all(ring: PackedRing, count: int) -> None:
    """Make the buffers available that a receive ring has been filled with, in its first `count` descriptors."""
    for slot in range(count):
        _offer(ring, slot)
    ring.state[OFFERED] = count


@compiled
def _offer(ring: PackedRing, position: int) -> None:
    size = ring.held.ids.size
    slot = position & (size - 1)
    ring.descriptors[2 * slot] = device_address(ring.addresses, ring.held.ids[slot])
    word = tag(available_flags(position, size), ring.order[slot]) | ring.state[ROOM] | PACKED_WRITE
    store_release(ring.descriptors, 2 * slot + 1, word)


@compiled
def _used_length(ring: PackedRing, ahead: int) -> int:
    size = ring.held.ids.size
    position = ring.state[NEXT] + ahead
    slot = position & (size - 1)
    word = load_acquire(ring.descriptors, 2 * slot + 1)
    if ring.state[BROKEN] != 0 or word & _FLAGS != used_flags(position, size):
        return -1
    used = identifier(word)
    if used != ring.order[slot] and not reorder(ring, slot, used, size - ahead):
        return -1
    return word & 0xFFFFFFFF


@compiled
def _rearm(ring: PackedRing, position: int) -> None:
    _offer(ring, position + ring.held.ids.size)


@compiled
def _reclaim(ring: PackedRing) -> None:
    """A used descriptor names a packet, and stands for all of that one's descriptors (2.8.6)."""
    state, size = ring.state, ring.held.ids.size
    while state[USED] < state[NEXT]:
        word = load_acquire(ring.descriptors, 2 * (state[USED] & (size - 1)) + 1)
        if word & _FLAGS != used_flags(state[USED], size):
            return
        parts = sent(ring, identifier(word))
        if parts == 0:
            return
        state[USED] += parts


@compiled
def _write(ring: PackedRing, first: int, k: int, address: int, length: int, more: bool) -> None:
    """2.8.13. All descriptors of a packet carry the number of its first place."""
    size = ring.held.ids.size
    slot = (first + k) & (size - 1)
    word = tag(available_flags(first + k, size), first & (size - 1)) | length | (PACKED_NEXT if more else 0)
    ring.descriptors[2 * slot] = address
    store_release(ring.descriptors, 2 * slot + 1, word)


@compiled
def _announce(ring: PackedRing) -> None:
    notify(ring, ring.state[NEXT])


rx_batch = receiving(_used_length, _rearm, recycled)
tx_room, tx_batch = transmitting(_reclaim, _write, _announce)


def sent_count(ring: PackedRing) -> int:
    """How many of the packets the device has taken from the ring."""
    return int(ring.state[SENT]) + len(_newly_sent(ring))


def resume_at(ring: PackedRing) -> int:
    """The place of the first packet that the device has not sent, counted without wrapping."""
    return int(ring.state[USED]) + sum(_newly_sent(ring))


def _newly_sent(ring: PackedRing) -> list[int]:
    """Of packets that the device has sent since the last look, the descriptors of each."""
    size, position, end = len(ring.order), int(ring.state[USED]), int(ring.state[NEXT])
    found: list[int] = []
    while position < end:
        word = int(ring.descriptors[2 * (position % size) + 1])
        parts = int(ring.order[identifier(word) % size])
        if word & _FLAGS != used_flags(position, size) or parts <= 0:
            break
        found.append(parts)
        position += parts
    return found
