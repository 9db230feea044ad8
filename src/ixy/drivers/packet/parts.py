"""Receiving from an AF_PACKET socket what may be longer than a buffer: each packet is copied into a chain of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ixy.drivers.linux.rings import count_packets, count_rests
from ixy.drivers.packet.datapath import (
    ADDRESSES,
    CAPTURED,
    FLAGS,
    HEADER_BYTES,
    LEFT,
    LENGTH,
    PLACE,
    START,
    STEP,
    TAG_BYTES,
    TAGGED,
    RxState,
    close_block,
    describe,
    open_block,
    put_tag,
)
from ixy.drivers.rings import DROPPED, STARVED
from ixy.jit import compiled
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, MAX_PARTS, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import NO_NEXT, Packets
from ixy.packets.parts import link
from ixy.packets.pool import Pools, free_count, fresh, took
from ixy.unsafe import copy, has, put


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` packets out of the blocks, each into as many buffers of the pool as it takes.

    When those run out, packets stay where they are; the kernel drops what finds no block.
    """
    free = free_count(pools, ring.pool)
    count = used = 0
    while count < limit and (ring.state[LEFT] > 0 or open_block(ring)):
        if ring.state[PLACE] < 0 or ring.state[PLACE] + HEADER_BYTES > ring.frames.size:
            ring.state[LEFT] = 0
            close_block(ring)
            continue
        length = length_ahead(ring, packets)
        parts = (length + BUFFER_SIZE - 1) // BUFFER_SIZE
        if used + parts > free:
            if count == 0:
                ring.state[STARVED] += 1
            break
        if length > 0:
            take_chain(ring, pools, packets, count, length, free - used)
            used += parts
            count += 1
        else:
            ring.state[DROPPED] += 1
        ring.state[PLACE] += ring.words[(ring.state[PLACE] >> 2) + STEP]
        ring.state[LEFT] -= 1
        if ring.state[LEFT] == 0:
            close_block(ring)
    if count > 0:
        took(pools, ring.pool, free - used, ring.held)
        count = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
        count_packets(ring.state, packets, 0, count)
        count_rests(ring.state, pools, packets, 0, count)
    return count


@compiled
def length_ahead(ring: RxState, packets: Packets) -> int:
    """The length of the next packet, with the VLAN tag that belongs into it; 0 if it is no good."""
    word = ring.state[PLACE] >> 2
    length: Any = ring.words[word + CAPTURED]
    start = ring.state[PLACE] + (ring.words[word + START] & 0xFFFF)
    tag = tag_bytes(ring, packets)
    if length != ring.words[word + LENGTH] or length <= (ADDRESSES if tag else 0):
        return 0
    if length + tag > MAX_PARTS * BUFFER_SIZE or start + length > ring.frames.size:
        return 0
    return length + tag


@compiled
def tag_bytes(ring: RxState, packets: Packets) -> int:
    """Bytes of the VLAN tag that is to be put into the next packet."""
    tagged = ring.words[(ring.state[PLACE] >> 2) + FLAGS] & TAGGED != 0
    return TAG_BYTES if tagged and not has(packets.vlans) else 0


@compiled
def take_chain(ring: RxState, pools: Pools, packets: Packets, i: int, length: int, free: int) -> None:
    """Copy the next packet into buffers, the last part first."""
    word = ring.state[PLACE] >> 2
    start, tag = ring.state[PLACE] + (ring.words[word + START] & 0xFFFF), tag_bytes(ring, packets)
    following: Any = NO_NEXT
    for part in range((length - 1) // BUFFER_SIZE, -1, -1):
        buffer, begin = fresh(pools, ring.pool, free, part), part * BUFFER_SIZE
        target: Any = (np.int64(buffer) & ID_MASK) * STRIDE
        size = min(length - begin, BUFFER_SIZE)
        if part > 0:
            copy(ring.bytes, target, ring.frames, start + begin - tag, size)
            link(pools, buffer, size, following)
            following = buffer
            continue
        if tag:
            put_tag(ring, target, word, start, size - tag)
        else:
            copy(ring.bytes, target, ring.frames, start, size)
        packets.ids[i] = buffer
        packets.lengths[i] = size
        put(packets.nexts, i, following)
    flags: Any = ring.words[word + FLAGS]
    describe(packets, i, ring.words, word, flags)
