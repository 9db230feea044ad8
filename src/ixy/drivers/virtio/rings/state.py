"""What the kernels of split and packed rings have in common: words of a ring's state, places, headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.drivers.rings import CLEAN, COMMON_WORDS, NEXT
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Flags, Packets
from ixy.packets.pool import Pools
from ixy.registers.virtio import DATA_VALID, HEADER_BYTES, NEEDS_CSUM
from ixy.unsafe import has, load_acquire, put

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a ring's `state` besides the common ones
PACKETS = COMMON_WORDS  # taken from the device, or handed to it
BYTES = COMMON_WORDS + 1  # of those packets, without frame check sequences
SKIPPING = COMMON_WORDS + 2  # receive: how many buffers of a refused frame are still to come
BROKEN = COMMON_WORDS + 3  # why the ring has stopped for good, 0 while it runs
OFFERED = COMMON_WORDS + 4  # the place up to which the device was given buffers, or told that it was
# Of rings with offloads, or packets of several parts, see `offloads`
ABLE = COMMON_WORDS + 5  # what was negotiated
ROOM = COMMON_WORDS + 6  # receive: bytes of each buffer that the device is given
PARTS = COMMON_WORDS + 7  # receive: the most buffers of a packet
SENT = COMMON_WORDS + 8  # transmit: packets that the device has said it has sent
USED = COMMON_WORDS + 9  # transmit, packed: the place up to which it has
UNCHANGED = COMMON_WORDS + 10  # transmit: packets that were sent as they are, as nothing could be done to them
STATE_WORDS = 24

# Values of BROKEN: what the device did that leaves open which buffers are whose. Nothing is touched any more then.
BAD_INDEX = 1  # it has used more buffers than it was given
BAD_ID = 2  # it has used a buffer that it did not have
BREACHES = {
    BAD_INDEX: "the device has used more buffers than it was given",
    BAD_ID: "the device has used a buffer that it did not have",
}

# Sent buffers are taken back once so many packets are on their way, and receive buffers are given back by so many:
# what both sides write and read costs a cache miss each time.
GROUP = 32

BLOCK = 32  # packets that are looked at and taken in loops without a branch, of which the compiler makes vector moves

_HEADER_STRIDE = np.int64(STRIDE // 4)  # words from the header of one buffer to the next; times an int32
_L4_GOOD, _L4_PARTIAL = int(Flags.L4_GOOD), int(Flags.L4_PARTIAL)


@compiled
def clear_header(headers: NDArray[np.int32], buffer: int) -> None:
    """Say that a frame asks for no offload (5.1.6.2): all of the header before the frame is 0.

    A header that is 0 is not written: both sides keep the cache line as long as neither has more to say.
    """
    word = buffer * _HEADER_STRIDE
    if headers[word - 3] | headers[word - 2] | headers[word - 1] != 0:
        headers[word - 3] = 0
        headers[word - 2] = 0
        headers[word - 1] = 0


@compiled
def describe(ring: Any, packets: Packets, i: int, slot: int) -> None:
    """Note what the header before the buffer at `slot` says of packet `i`, if that was asked for (5.1.6.4.1)."""
    if has(packets.flags):
        word = load_acquire(ring.headers, (ring.held.ids[slot] & ID_MASK) * _HEADER_STRIDE - 3)
        said = (word >> (8 * (HEADER_BYTES - ring.header))) & 0xFF
        checked = (said & DATA_VALID) // DATA_VALID * _L4_GOOD
        put(packets.flags, i, _L4_PARTIAL if said & NEEDS_CSUM != 0 else checked)


@compiled
def describe_block(ring: Any, packets: Packets, at: int, slot: int) -> None:
    """`describe` a block of packets from `at` on, whose buffers lie at `slot` on."""
    if has(packets.flags):
        for i in range(BLOCK):
            describe(ring, packets, at + i, slot + i)


@compiled
def total_length(packets: Packets, first: int, count: int) -> int:
    """The bytes of `count` packets from `first` on."""
    first &= INDEX_MASK
    total = 0
    for i in range(count):
        total += np.int64(packets.lengths[first + i])
    return int(total)


@compiled
def unusual(length: Any) -> int:
    """0 for the length of a frame that fits into its buffer and does not fill it."""
    return ((length - 1) | length) & -BUFFER_SIZE


@compiled
def buffer_count(headers: NDArray[np.int32], buffer: int) -> int:
    """How many buffers the frame spans whose first one this is, as its header says (5.1.6.4)."""
    return (headers[buffer * _HEADER_STRIDE - 1] >> 16) & 0xFFFF


@compiled
def spans(ring: Any, slot: int) -> bool:
    """Whether the frame that fills the buffer at `slot` goes on in the next; all but the last are full (5.1.6.4)."""
    return ring.mergeable != 0 and buffer_count(ring.headers, ring.held.ids[slot]) > 1


@compiled
def exchange(ring: Any, one: int, other: int) -> None:
    """Let what lies at two places of a ring, identifier and buffer, change places."""
    first, second = ring.order[one], ring.order[other]
    ring.order[one], ring.order[other] = second, first
    ring.place[second], ring.place[first] = one, other
    held = ring.held.ids
    held[one], held[other] = held[other], held[one]


def sending(
    clean: Callable[..., None], load: Callable[..., int], announce: Callable[..., None]
) -> tuple[Callable[..., int], Callable[..., int]]:
    """The kernels `tx_room` and `tx_batch` of a transmit ring, see `ixy.drivers.TxRing`, from those of its kind.

    Args:
        clean: `clean(ring, pools)` returns the buffers of sent packets to their pools.
        load: `load(ring, packets, first, position, limit)` puts packets on the ring as far as they go without a wrap;
            how many.
        announce: `announce(ring, end)` tells the device of the places before `end`.
    """

    @outlined
    def make_room(ring: Any, pools: Pools) -> None:
        """`clean`, which is rare here, as `tx_batch` has cleaned before."""
        clean(ring, pools)

    @compiled
    def tx_room(ring: Any, pools: Pools, wanted: int) -> int:
        """How many packets the ring has room for; it is cleaned only if there are fewer than `wanted`."""
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
        index = state[NEXT]
        if index - state[CLEAN] >= min(GROUP, size - 1):
            clean(ring, pools)
        count = min(last - first, size - (index - state[CLEAN]))
        if count <= 0 or state[BROKEN] != 0:
            return 0
        count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
        done = 0
        while done < count:
            done += load(ring, packets, first + done, index + done, count - done)
        state[PACKETS] += count
        state[NEXT] = index + count
        announce(ring, index + count)
        return count

    return tx_room, tx_batch
