"""Packets that lie in several buffers: chains.

A packet begins in the buffer that stands in its `Packets`, and their column `nexts` says where it goes on. From the
second buffer on it goes by two arrays over all buffers, `Pools.nexts` and `Pools.sizes`: who builds a chain writes both
for each buffer but the first (`link`), with NO_NEXT for the last. No loop follows a chain further than MAX_PARTS
buffers, whatever stands there.

Where packets have no column `nexts`, each lies in one buffer, and kernels are compiled as if there were no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, MAX_PARTS
from ixy.packets.packets import NO_NEXT, Packets
from ixy.packets.pool import Pools, free_count, fresh, refill, took
from ixy.unsafe import copy, peek, put

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def link(pools: Pools, buffer: int, size: int, following: int) -> None:
    """Let `size` bytes of a packet be in a buffer that is not its first, and the packet go on in `following`."""
    pools.sizes[buffer & ID_MASK] = size
    pools.nexts[buffer & ID_MASK] = following


@compiled
def parts_of(length: int) -> int:
    """How many buffers a packet of so many bytes takes."""
    return (length + BUFFER_SIZE - 1) // BUFFER_SIZE


@compiled
def link_rest(pools: Pools, pool: int, free: int, place: int, length: int) -> int:
    """Link the buffers of a packet of `length` bytes behind its first one, all full but the last; the second one, or
    NO_NEXT.

    Args:
        pool, free, place: its first buffer is `fresh(pools, pool, free, place)`, and the others come after that.
    """
    following = NO_NEXT
    for part in range(parts_of(length) - 1, 0, -1):
        buffer = fresh(pools, pool, free, place + part)
        link(pools, buffer, min(length - part * BUFFER_SIZE, BUFFER_SIZE), following)
        following = buffer
    return following


@compiled
def part_count(pools: Pools, packets: Packets, i: int) -> int:
    """In how many buffers packet `i` lies."""
    count, buffer = 1, peek(packets.nexts, i, NO_NEXT)
    while buffer >= 0 and count < MAX_PARTS:
        count += 1
        buffer = int(pools.nexts[buffer & ID_MASK])
    return count


@compiled
def how_many_fit(pools: Pools, packets: Packets, first: int, last: int, room: int, more: int) -> int:
    """How many of packets `first` to `last` go into so many descriptors, where each takes one a part, and some more."""
    for i in range(first, last):
        room -= part_count(pools, packets, i) + more
        if room < 0:
            return i - first
    return max(last - first, 0)


@compiled
def total_length(pools: Pools, packets: Packets, i: int) -> int:
    """The length of packet `i`, all of its parts."""
    total, buffer = int(packets.lengths[i]), peek(packets.nexts, i, NO_NEXT)
    for _ in range(MAX_PARTS - 1):
        if buffer < 0:
            break
        total += int(pools.sizes[buffer & ID_MASK])
        buffer = int(pools.nexts[buffer & ID_MASK])
    return total


@compiled
def gather(pools: Pools, packets: Packets, i: int, target: NDArray[np.uint8], at: int, room: int) -> int:
    """Copy packet `i` to `target[at:]`, up to `room` bytes of it; how many these are."""
    size = min(int(packets.lengths[i]), room)
    copy(target, at, pools.bytes[packets.ids[i] & ID_MASK], 0, size)
    copied, buffer = size, peek(packets.nexts, i, NO_NEXT)
    for _ in range(MAX_PARTS - 1):
        if buffer < 0:
            break
        size = min(int(pools.sizes[buffer & ID_MASK]), room - copied)
        copy(target, at + copied, pools.bytes[buffer & ID_MASK], 0, size)
        copied += size
        buffer = int(pools.nexts[buffer & ID_MASK])
    return copied


@compiled
def lengthen(pools: Pools, pool: int, packets: Packets, i: int, length: int) -> None:
    """Let packet `i`, which has one buffer, be `length` bytes long, in as many more as that takes. For the owner of
    `pool`; if that has fewer, the packet is so much shorter."""
    parts = min(parts_of(length), MAX_PARTS)
    free = free_count(pools, pool)
    if free < parts - 1:
        free = refill(pools, pool)
        parts = min(parts, 1 + free)
    put(packets.nexts, i, link_rest(pools, pool, free, -1, min(length, parts * BUFFER_SIZE)))
    took(pools, pool, free - parts + 1, packets)
    packets.lengths[i] = min(length, BUFFER_SIZE)


@compiled
def scatter(pools: Pools, packets: Packets, i: int, source: NDArray[np.uint8], start: int) -> None:
    """Fill packet `i` with bytes from `source[start]` on; the caller has checked that there are so many."""
    size = int(packets.lengths[i])
    copy(pools.bytes[packets.ids[i] & ID_MASK], 0, source, start, size)
    buffer = peek(packets.nexts, i, NO_NEXT)
    for _ in range(MAX_PARTS - 1):
        if buffer < 0:
            break
        start += size
        size = int(pools.sizes[buffer & ID_MASK])
        copy(pools.bytes[buffer & ID_MASK], 0, source, start, size)
        buffer = int(pools.nexts[buffer & ID_MASK])


# ---------------------------------------------------------------------------------------------------------------------
# In Python, of many packets at once


def total_lengths(pools: Pools, packets: Packets, first: int, last: int) -> NDArray[np.int32]:
    """The lengths of packets `first` to `last`, all of their parts; shape (last - first,)."""
    totals = packets.lengths[first:last].copy()
    if packets.nexts is None:
        return totals
    following = packets.nexts[first:last].copy()
    for _ in range(MAX_PARTS - 1):
        longer = np.flatnonzero(following >= 0)
        if not longer.size:
            break
        buffers = following[longer] & ID_MASK
        totals[longer] += pools.sizes[buffers]
        following[longer] = pools.nexts[buffers]
    return totals


def all_buffers(pools: Pools, packets: Packets, first: int, last: int) -> NDArray[np.int32]:
    """The buffers of packets `first` to `last`: the first ones, and those in which they go on."""
    found = [packets.ids[first:last]]
    following = found[0][:0] if packets.nexts is None else packets.nexts[first:last]
    for _ in range(MAX_PARTS - 1):
        following = following[following >= 0]
        if not following.size:
            break
        found.append(following)
        following = pools.nexts[following & ID_MASK]
    return np.concatenate(found)
