"""The data path of an AF_PACKET socket: kernels over blocks of received packets, and over what is to be sent.

The kernel writes packets into blocks of shared memory, one after the other, and hands a block over when it is full or
has waited for long enough. What lies there is copied into packet buffers; the block goes back when its last packet was
taken. What is to be sent waits in a ring of the driver's own until the socket takes it.

Source: packet(7), Documentation/networking/packet_mmap.rst, linux/if_packet.h (TPACKET_V3).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import BYTES, OWN_WORDS, PACKETS, REFUSED, count_packets, hold
from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED, leave, seize
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, MAX_PARTS, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Flags, Packets
from ixy.packets.parts import total_length
from ixy.packets.pool import Pools, free_count, fresh, give, took
from ixy.unsafe import call_if, copy, has, load_acquire, peek, put, store_release
from ixy.unsafe.sockets import send_many, send_message, set_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a ring's `state` besides those of `linux.rings`
BLOCK = OWN_WORDS  # receive: the block whose turn it is
LEFT = OWN_WORDS + 1  # how many of its packets are still to be taken, 0 while it is the kernel's
PLACE = OWN_WORDS + 2  # where the first of them begins, in bytes from the start of the ring
STATE_WORDS = 16

# Words of a block's header, 32 bits each (struct tpacket_block_desc)
_STATUS, _COUNT, _FIRST = 2, 3, 4
_KERNEL, _USER = 0, 1

# Words of a packet's header (struct tpacket3_hdr)
STEP, _SECONDS, _NANOSECONDS, CAPTURED, LENGTH, FLAGS, START, _HASH, _TAG, _TPID = range(10)
HEADER_BYTES = 48
_UNFINISHED, TAGGED, _TPID_VALID, _CHECKED = 1 << 3, 1 << 4, 1 << 6, 1 << 7  # TP_STATUS_…
ADDRESSES, TAG_BYTES = 12, 4  # a tag stands behind the addresses (IEEE 802.1Q)
_TPID_8021Q = 0x8100

_PARTIAL, _GOOD, _VLAN, _HASHED = int(Flags.L4_PARTIAL), int(Flags.L4_GOOD), int(Flags.VLAN), int(Flags.HASH)

# Errors of a send after which the same may go well, later: the others are the packet's fault
_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EINTR)


class RxState(NamedTuple):
    """A receive ring.

    Attributes:
        frames: shared with the kernel, shape (blocks * block_bytes,), uint8.
        words: the same, uint32.
        block_bytes: of a block.
        held: of no use, but all rings have it.
        state: shape (STATE_WORDS,), int64.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        pool: number of the pool that buffers come from.
    """

    frames: NDArray[np.uint8]
    words: NDArray[np.uint32]
    block_bytes: int
    held: Packets
    state: NDArray[np.int64]
    bytes: NDArray[np.uint8]
    pool: int


class TxState(NamedTuple):
    """A transmit ring.

    Attributes:
        held: the packets that wait, with their lengths.
        state: shape (STATE_WORDS,), int64.
        bytes: as of a receive ring.
        messages: for `send_many`.
        message: of a packet in several parts, see `send_message`.
        fd: the socket.
    """

    held: Packets
    state: NDArray[np.int64]
    bytes: NDArray[np.uint8]
    messages: NDArray[np.int64]
    message: NDArray[np.int64]
    fd: int


@compiled
def offer(_ring: RxState, _count: int) -> None:
    """The ring takes no buffers before there are packets."""


@compiled
def ready(ring: RxState) -> bool:
    """Whether there is a packet."""
    return ring.state[LEFT] > 0 or load_acquire(ring.words, _block_word(ring) + _STATUS) & _USER != 0


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` packets out of the blocks, each into a buffer of the pool.

    When that is empty, packets stay where they are; the kernel drops what finds no block.
    """
    free = free_count(pools, ring.pool)
    count = 0
    while count < limit and (ring.state[LEFT] > 0 or open_block(ring)):
        if count == free:
            if count == 0:
                ring.state[STARVED] += 1
            break
        if take_one(ring, packets, count, fresh(pools, ring.pool, free, count)):
            count += 1
        if ring.state[LEFT] == 0:
            close_block(ring)
    if count > 0:
        took(pools, ring.pool, free - count, ring.held)
        count_packets(ring.state, packets, 0, count)
        return hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
    return 0


@compiled
def _block_word(ring: RxState) -> int:
    """Where the header of the block begins whose turn it is, in words."""
    return ring.state[BLOCK] * ring.block_bytes >> 2


@compiled
def open_block(ring: RxState) -> bool:
    """Begin with the next block, if the kernel has handed it over and there are packets in it."""
    word = _block_word(ring)
    if load_acquire(ring.words, word + _STATUS) & _USER == 0:
        return False
    ring.state[LEFT] = ring.words[word + _COUNT]
    ring.state[PLACE] = ring.state[BLOCK] * ring.block_bytes + ring.words[word + _FIRST]
    if ring.state[LEFT] == 0:
        close_block(ring)
    return ring.state[LEFT] > 0


@compiled
def close_block(ring: RxState) -> None:
    """Give a block back to the kernel."""
    store_release(ring.words, _block_word(ring) + _STATUS, _KERNEL)
    following = ring.state[BLOCK] + 1
    ring.state[BLOCK] = following if following * ring.block_bytes < ring.frames.size else 0


@compiled
def take_one(ring: RxState, packets: Packets, i: int, buffer: int) -> bool:
    """Copy the next packet into a buffer; False if it is no good, and dropped."""
    place = ring.state[PLACE]
    if place < 0 or place + HEADER_BYTES > ring.frames.size:
        ring.state[LEFT] = 0
        return False
    word = place >> 2
    ring.state[PLACE] = place + ring.words[word + STEP]
    ring.state[LEFT] -= 1
    flags: Any = ring.words[word + FLAGS]
    length: Any = ring.words[word + CAPTURED]
    start = place + (ring.words[word + START] & 0xFFFF)
    if length != ring.words[word + LENGTH] or length == 0 or length > BUFFER_SIZE or start + length > ring.frames.size:
        ring.state[DROPPED] += 1
        return False
    target: Any = (np.int64(buffer) & ID_MASK) * STRIDE
    inserted = 0
    if flags & TAGGED != 0 and not has(packets.vlans):
        inserted = put_tag(ring, target, word, start, length)
        if inserted == 0:
            return False
    else:
        copy(ring.bytes, target, ring.frames, start, length)
    packets.ids[i] = buffer
    packets.lengths[i] = length + inserted
    describe(packets, i, ring.words, word, flags)
    return True


@outlined
def put_tag(ring: RxState, target: int, word: int, start: int, length: int) -> int:
    """Copy a packet, and put the VLAN tag into it that the kernel has taken out; the bytes of that, 0 if there is no
    room, and the packet is dropped."""
    if length < ADDRESSES or length + TAG_BYTES > BUFFER_SIZE:
        ring.state[DROPPED] += 1
        return 0
    tpid, tag = ring.words[word + _TPID] & 0xFFFF, ring.words[word + _TAG]
    if ring.words[word + FLAGS] & _TPID_VALID == 0:
        tpid = _TPID_8021Q
    copy(ring.bytes, target, ring.frames, start, ADDRESSES)
    behind = target + ADDRESSES
    ring.bytes[behind] = tpid >> 8
    ring.bytes[behind + 1] = tpid & 0xFF
    ring.bytes[behind + 2] = (tag >> 8) & 0xFF
    ring.bytes[behind + 3] = tag & 0xFF
    copy(ring.bytes, behind + TAG_BYTES, ring.frames, start + ADDRESSES, length - ADDRESSES)
    return TAG_BYTES


@compiled
def describe(packets: Packets, i: int, words: NDArray[np.uint32], word: int, flags: int) -> None:
    """Note what the kernel says of packet `i`, as far as that was asked for."""
    tagged = flags & TAGGED != 0 and has(packets.vlans)
    hashed = has(packets.hashes) and words[word + _HASH] != 0
    if has(packets.flags):
        said = _PARTIAL if flags & _UNFINISHED != 0 else _GOOD if flags & _CHECKED != 0 else 0
        put(packets.flags, i, said | (_VLAN if tagged else 0) | (_HASHED if hashed else 0))
    put(packets.vlans, i, words[word + _TAG] & 0xFFFF if tagged else 0)
    put(packets.hashes, i, words[word + _HASH])
    put(packets.times, i, np.int64(words[word + _SECONDS]) * 1_000_000_000 + words[word + _NANOSECONDS])


@compiled
def tx_room(ring: TxState, pools: Pools, _wanted: int) -> int:
    """How many packets the ring has room for. What waits, since the socket was full or the interface down, is tried
    once more: no further packet may come for it to go along with."""
    if ring.state[CLEAN] < ring.state[NEXT]:
        flush(ring, pools)
    return ring.held.ids.size - (ring.state[NEXT] - ring.state[CLEAN])


@compiled
def tx_batch(ring: TxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Take packets `first` to `last` until the ring is full, and have them sent; how many it took."""
    count = hold(ring, pools, packets, first, last)
    flush(ring, pools)
    return count


@outlined
def flush(ring: TxState, pools: Pools) -> None:
    """Let the socket have what waits, until it takes no more; sent buffers go back to their pools."""
    size = ring.held.ids.size
    while ring.state[CLEAN] < ring.state[NEXT]:
        slot = ring.state[CLEAN] & (size - 1) & INDEX_MASK
        count = whole(ring.held, slot, min(ring.state[NEXT] - ring.state[CLEAN], size - slot))
        if count > 0:
            sent = send_many(ring.fd, ring.messages, ring.bytes, ring.held.ids, STRIDE, ring.held.lengths, slot, count)
        else:
            sent = call_if(ring.held.nexts, send_chain, (ring, pools, slot))
        if sent < 0:
            if is_for_later(-sent):
                return
            ring.state[REFUSED] += 1
            ring.state[PACKETS] -= 1
            ring.state[BYTES] -= total_length(pools, ring.held, slot)
            sent = 1
        give(pools, ring.held, slot, slot + sent)
        ring.state[CLEAN] += sent
        if sent == 0:
            return


@compiled
def whole(packets: Packets, first: int, count: int) -> int:
    """How many packets from `first` on lie in one buffer each, up to `count`."""
    for i in range(count):
        if peek(packets.nexts, first + i, NO_NEXT) >= 0:
            return i
    return count


@outlined
def send_chain(ring: TxState, pools: Pools, slot: int) -> int:
    """Send a packet that lies in several buffers; 1, or the negative number of an error."""
    size, buffer, count = int(ring.held.lengths[slot]), int(ring.held.ids[slot]), 0
    following = peek(ring.held.nexts, slot, NO_NEXT)
    while True:
        set_part(ring.message, count, ring.bytes, (buffer & ID_MASK) * STRIDE, max(min(size, BUFFER_SIZE), 0))
        count += 1
        if following < 0 or count == MAX_PARTS:
            return send_message(ring.fd, ring.message, ring.bytes, count)
        buffer, size = following, int(pools.sizes[following & ID_MASK])
        following = int(pools.nexts[following & ID_MASK])


@compiled
def is_for_later(error: int) -> bool:
    """Whether it is not the packet's fault that it was not sent."""
    return error in _LATER


@compiled
def flush_once_more(ring: TxState, pools: Pools) -> None:
    """`flush`, unless a thread that runs the ring does so."""
    if seize(ring.state):
        flush(ring, pools)
        leave(ring.state)
