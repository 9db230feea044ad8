"""The data path of an AF_XDP socket: kernels over its four rings.

Memory that the socket and the kernel share, the UMEM, is a pool's. The fill ring gives the kernel buffers to receive
into, the receive ring hands them out with packets, the transmit ring takes packets, the completion ring gives their
buffers back. Packets of other pools are copied on transmit, into buffers that the ring has for that.

A system call costs as much as receiving some hundred packets, so these kernels are as simple as can be. What the kernel
names is a place in the UMEM: which buffers it has is noted here, and what it does not have it cannot give.

Source: Documentation/networking/af_xdp.rst, linux/if_xdp.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import GROUP, OWN_WORDS, REFUSED, count_packets
from ixy.drivers.rings import CLEAN, DROPPED, NEXT, STARVED, leave, seize
from ixy.formats.links import HEADER
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, POOL_BUFFERS, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, stamp, swap
from ixy.packets.pool import Pools, free_count, give, pool_of, trade
from ixy.unsafe import copy, load_acquire, store_release
from ixy.unsafe.sockets import start_receiving, start_sending

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a ring's `state` besides those of `linux.rings`
OFFERED = OWN_WORDS  # receive: how many buffers the kernel was given in all
WITHIN = OWN_WORDS + 1  # receive: whether the next descriptor goes on with a frame that is too long
PARTS = OWN_WORDS + 2  # receive: the most buffers that a frame may lie in
SPARES = OWN_WORDS  # transmit: how many buffers for copies are at hand
DONE = OWN_WORDS + 1  # transmit: how many entries of the completion ring were looked at
LONGEST = OWN_WORDS + 2  # transmit: bytes that a frame may have, besides a VLAN tag
STATE_WORDS = 16

HEADROOM = 256  # XDP_PACKET_HEADROOM: the kernel puts a frame so far behind the address that it is given
CHUNK = HEADROOM + BUFFER_SIZE
_ADDRESS = (1 << 48) - 1  # in unaligned mode, the bits above are an offset
NEED_WAKEUP = 1
UNSIGNED = 0xFFFF_FFFF  # indices of rings wrap around
GOES_ON = 1 << 32  # XDP_PKT_CONTD, among the options of a descriptor: the next one has more of this frame
_CALLS = 8  # of sendto(2) for a batch at most; each sends 32 packets
_BUFFER_BITS = (BUFFER_SIZE - 1).bit_length()
_NUMBER = POOL_BUFFERS - 1  # a mask: of a buffer's number within its pool

_TYPE, TAG_BYTES, _TAGGED = 12, 4, 0x8100  # where a frame has its EtherType, and that of a VLAN tag (IEEE 802.1Q)


class RxState(NamedTuple):
    """Receive ring and fill ring.

    Attributes:
        producer, consumer: of the receive ring, shape (1,), uint32.
        descriptors: of the receive ring, shape (2 * size,), int64: address, and length with options.
        fill_producer, fill_flags: of the fill ring, shape (1,), uint32.
        fill: of the fill ring, shape (size,), int64.
        held: the buffers that the kernel has, where they stand in the fill ring: it was given that of `OFFERED` first.
        state: shape (STATE_WORDS,), int64.
        pool: number of the socket's pool.
        fd: the socket.
    """

    producer: NDArray[np.uint32]
    consumer: NDArray[np.uint32]
    descriptors: NDArray[np.int64]
    fill_producer: NDArray[np.uint32]
    fill_flags: NDArray[np.uint32]
    fill: NDArray[np.int64]
    held: Packets
    state: NDArray[np.int64]
    pool: int
    fd: int


class TxState(NamedTuple):
    """Transmit ring and completion ring.

    Attributes:
        producer, consumer, flags: of the transmit ring, shape (1,), uint32.
        descriptors: of the transmit ring, as of a receive ring.
        done_producer, done_consumer: of the completion ring, shape (1,), uint32.
        done: of the completion ring, shape (size,), int64.
        held: the buffers that the kernel has, where they stand in the transmit ring.
        spares: buffers for copies, of which the first SPARES are at hand.
        copies: 1 for each of those, by number within the pool; shape (POOL_BUFFERS,), uint8.
        back: room for buffers that go back at once.
        state, pool, fd: as of a receive ring.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
    """

    producer: NDArray[np.uint32]
    consumer: NDArray[np.uint32]
    flags: NDArray[np.uint32]
    descriptors: NDArray[np.int64]
    done_producer: NDArray[np.uint32]
    done_consumer: NDArray[np.uint32]
    done: NDArray[np.int64]
    held: Packets
    spares: Packets
    copies: NDArray[np.uint8]
    back: Packets
    state: NDArray[np.int64]
    pool: int
    fd: int
    bytes: NDArray[np.uint8]


@outlined
def brought(held: NDArray[np.int32], place: int, count: int, number: Any) -> bool:
    """Whether the kernel has this buffer of the pool, among so many that are held from `place` on. It changes places
    with the first of them, which was expected."""
    for i in range(count):
        other = (place + i) & (held.size - 1) & INDEX_MASK
        if held[other] & _NUMBER == number:
            held[other], held[place] = held[place], held[other]
            return True
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Receive


@compiled
def offer(ring: RxState, count: int) -> None:
    """Give the kernel the first buffers to receive into."""
    give_to_kernel(ring, 0, count)
    ring.state[OFFERED] = count
    store_release(ring.fill_producer, 0, count)


@compiled
def give_to_kernel(ring: RxState, slot: int, count: int) -> None:
    """Write buffers that are held, `slot` and those after it, into the fill ring."""
    slot &= INDEX_MASK
    for i in range(count & INDEX_MASK):
        ring.fill[slot + i] = address_for(ring.held.ids[slot + i])


@compiled
def address_for(buffer: Any) -> Any:
    """What the kernel is given to receive into a buffer: its headroom is to end where the buffer begins."""
    return (np.int64(buffer) & _NUMBER) * STRIDE - HEADROOM


@compiled
def number_of(address: Any) -> Any:
    """The number, within its pool, of the buffer that the kernel has received into."""
    return ((address & _ADDRESS) + HEADROOM) // STRIDE & _NUMBER


@compiled
def ready(ring: RxState) -> bool:
    """Whether there is a packet."""
    return load_acquire(ring.producer, 0) != ring.state[NEXT] & UNSIGNED


@compiled
def rx_batch(ring: RxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` packets, and give the kernel a fresh buffer for each.

    Most are whole, and in the buffers that the kernel was given first. So they are taken by loops without a branch, up
    to the end of the ring; whatever else there is, descriptor by descriptor. A frame that is longer than a buffer comes
    in parts, a descriptor each: their buffers go back, and the frame counts as dropped.
    """
    first, size = ring.state[NEXT], ring.held.ids.size
    mask = (size - 1) & INDEX_MASK
    waiting = min((load_acquire(ring.producer, 0) - first) & UNSIGNED, size)
    free = free_count(pools, ring.pool)
    offered, start = ring.state[OFFERED], first & mask
    seen = count = 0
    block = min(min(limit, waiting), min(free, size - start))
    whole = offered & mask == start and ring.state[WITHIN] == 0
    if block > 0 and whole and is_plain(ring, packets, start, block):
        trade(pools, ring.pool, ring.held, start, packets, 0, block)
        give_to_kernel(ring, start, block)
        offered += block
        seen = count = block
    else:
        while seen < waiting and count < limit and count < free:
            slot, place = (first + seen) & mask, offered & mask
            seen += 1
            number = number_of(ring.descriptors[2 * slot])
            length = ring.descriptors[2 * slot + 1]  # and above its 32 bits, options
            if not brought(ring.held.ids, place, size, number):
                ring.state[DROPPED] += 1
                continue
            if length <= 0 or length > BUFFER_SIZE or ring.state[WITHIN] != 0:
                ring.state[WITHIN] = length & GOES_ON
                if length & GOES_ON == 0:
                    ring.state[DROPPED] += 1
            else:
                packets.lengths[count] = length
                trade(pools, ring.pool, ring.held, place, packets, count, 1)
                count += 1
            give_to_kernel(ring, place, 1)
            offered += 1
    if seen > 0:
        count_packets(ring.state, packets, 0, count)
        ring.state[NEXT] = first + seen
        ring.state[OFFERED] = offered
        store_release(ring.consumer, 0, (first + seen) & UNSIGNED)
        store_release(ring.fill_producer, 0, offered & UNSIGNED)
        count = hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)
    elif waiting > 0 and free == 0:
        ring.state[STARVED] += 1
    if load_acquire(ring.fill_flags, 0) & NEED_WAKEUP != 0:
        start_receiving(ring.fd)
    stamp(packets, 0, count)
    return count


@compiled
def is_plain(ring: RxState, packets: Packets, slot: int, count: int) -> bool:
    """Note the lengths of packets; whether all are whole, and in the buffers that are held for these descriptors."""
    slot &= INDEX_MASK
    odd = np.int64(0)
    for i in range(count & INDEX_MASK):
        length = ring.descriptors[2 * (slot + i) + 1]
        odd |= (ring.descriptors[2 * (slot + i)] ^ address_for(ring.held.ids[slot + i])) & _ADDRESS
        odd |= (length - 1) >> _BUFFER_BITS
        packets.lengths[i] = length & INDEX_MASK
    return odd == 0


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@compiled
def tx_room(ring: TxState, pools: Pools, wanted: int) -> int:
    """How many packets the ring has room for; if there are fewer than `wanted`, what was sent comes back first. What
    the kernel has not sent, since it had no room or the interface was down, it is told of once more: no further packet
    may come for it to go along with."""
    size = ring.held.ids.size
    waits = load_acquire(ring.consumer, 0) != ring.state[NEXT] & UNSIGNED
    if waits or size - (ring.state[NEXT] - ring.state[CLEAN]) < wanted:
        clean_up(ring, pools)
    return size - (ring.state[NEXT] - ring.state[CLEAN])


@outlined
def clean_up(ring: TxState, pools: Pools) -> None:
    """`clean` to the end of the ring and from its beginning, after the kernel was told once more of what it has not
    sent."""
    kick(ring)
    clean(ring, pools)
    clean(ring, pools)


@compiled
def tx_batch(ring: TxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` on the ring until it is full, and tell the kernel; how many it took or refused."""
    index, size = ring.state[NEXT], ring.held.ids.size
    if index - ring.state[CLEAN] >= min(GROUP, size >> 1):
        clean(ring, pools)
    count = min(last - first, size - (index - ring.state[CLEAN]))
    refused = 0
    if count > 0:
        strange = are_strange(ring, packets, first, count)
        if strange:
            refused = refuse(ring, pools, packets, first, count)
        count = hand_over(pools, packets, first, count - refused, packets.holder, ring.held.holder)
        count_packets(ring.state, packets, first, count)
        if strange:
            adopt(ring, pools, packets, first, count)
        load(ring, packets, first, index, count)
        ring.state[NEXT] = index + count
        store_release(ring.producer, 0, (index + count) & UNSIGNED)
    kick(ring)
    return max(count, 0) + refused


@compiled
def are_strange(ring: TxState, packets: Packets, first: int, count: int) -> bool:
    """Whether some of the packets are of other pools, or may be too short or too long for the interface."""
    first &= INDEX_MASK
    longest = ring.state[LONGEST]
    misfit = different = np.int64(0)
    for i in range(count & INDEX_MASK):
        length = np.int64(packets.lengths[first + i])
        misfit |= (length - HEADER) | (longest - length)
        different |= pool_of(packets.ids[first + i]) ^ ring.pool
    return (misfit < 0) | (different != 0)  # pyright: ignore[reportReturnType]


@outlined
def refuse(ring: TxState, pools: Pools, packets: Packets, first: int, count: int) -> int:
    """Give back the packets that are too short or too long, after the others; how many they are.

    The kernel would complete them as if they were sent. A VLAN tag does not count, as with AF_PACKET.
    """
    kept = 0
    for i in range(first, first + count):
        length, longest = packets.lengths[i], ring.state[LONGEST]
        if length > longest and is_tagged(ring, packets.ids[i]):
            longest += TAG_BYTES
        if HEADER <= length <= longest:
            swap(packets, first + kept, i)
            kept += 1
    give(pools, packets, first + kept, first + count)
    ring.state[REFUSED] += count - kept
    return count - kept


@compiled
def is_tagged(ring: TxState, buffer: Any) -> bool:
    """Whether a frame has a VLAN tag."""
    place: Any = (np.int64(buffer) & ID_MASK) * STRIDE + _TYPE
    kind: Any = np.int64(ring.bytes[place]) << 8 | ring.bytes[place + 1]
    return kind == _TAGGED  # pyright: ignore[reportReturnType]


@compiled
def load(ring: TxState, packets: Packets, first: int, index: int, count: int) -> None:
    """Write packets into descriptors."""
    size = ring.held.ids.size
    slot = index & (size - 1)
    unwrapped = min(count, size - slot)
    load_row(ring, packets, first, slot, unwrapped)
    load_row(ring, packets, first + unwrapped, 0, count - unwrapped)


@compiled
def load_row(ring: TxState, packets: Packets, first: int, slot: int, count: int) -> None:
    """`load`, without a wrap."""
    first &= INDEX_MASK
    slot &= INDEX_MASK
    for i in range(count & INDEX_MASK):
        buffer = packets.ids[first + i]
        ring.held.ids[slot + i] = buffer
        ring.descriptors[2 * (slot + i)] = address_of(buffer)
        ring.descriptors[2 * (slot + i) + 1] = np.int64(packets.lengths[first + i])


@compiled
def address_of(buffer: Any) -> Any:
    """Where a buffer lies in the UMEM."""
    return (np.int64(buffer) & _NUMBER) * STRIDE


@outlined
def adopt(ring: TxState, pools: Pools, packets: Packets, first: int, count: int) -> None:
    """Copy packets of other pools into spare buffers, of which there is one for each place of the ring, and give theirs
    back."""
    adopted = 0
    for i in range(first, first + count):
        buffer = packets.ids[i]
        if pool_of(buffer) != ring.pool and ring.state[SPARES] > 0:
            ring.state[SPARES] -= 1
            spare = ring.spares.ids[ring.state[SPARES]]
            target: Any = (np.int64(spare) & ID_MASK) * STRIDE
            source: Any = (np.int64(buffer) & ID_MASK) * STRIDE
            length: Any = min(max(np.int64(packets.lengths[i]), 0), BUFFER_SIZE)
            copy(ring.bytes, target, ring.bytes, source, length)
            packets.ids[i] = spare
            ring.back.ids[adopted] = buffer
            adopted += 1
    give(pools, ring.back, 0, adopted)


@compiled
def clean(ring: TxState, pools: Pools) -> None:
    """Take back the buffers of packets that were sent.

    As a rule they come in the order in which they were sent, and none is for copies. So they go back as they are held,
    up to the end of the ring; whatever else there is, one by one.
    """
    oldest, done, size = ring.state[CLEAN], ring.state[DONE], ring.held.ids.size
    mask = (size - 1) & INDEX_MASK
    count = min((load_acquire(ring.done_producer, 0) - done) & UNSIGNED, ring.state[NEXT] - oldest)
    slot = oldest & mask
    block = min(count, size - slot)
    if ring.state[SPARES] == size and done & mask == slot and in_order(ring, slot, block):
        give(pools, ring.held, slot, slot + block)
        ring.state[CLEAN] = oldest + block
        ring.state[DONE] = done + block
    else:
        sort_out(ring, pools, count)
    store_release(ring.done_consumer, 0, ring.state[DONE] & UNSIGNED)


@compiled
def in_order(ring: TxState, slot: int, count: int) -> bool:
    """Whether the completion ring has the buffers that are held at the same places."""
    slot &= INDEX_MASK
    odd = np.int64(0)
    for i in range(count & INDEX_MASK):
        odd |= (ring.done[slot + i] & _ADDRESS) ^ address_of(ring.held.ids[slot + i])
    return odd == 0


@outlined
def sort_out(ring: TxState, pools: Pools, count: int) -> None:
    """Look at so many entries of the completion ring, each by itself. One that the kernel does not have is nothing."""
    mask = (ring.held.ids.size - 1) & INDEX_MASK
    for i in range(count):
        oldest = ring.state[CLEAN]
        number = (ring.done[(ring.state[DONE] + i) & mask] & _ADDRESS) // STRIDE & _NUMBER
        slot = oldest & mask
        if not brought(ring.held.ids, slot, ring.state[NEXT] - oldest, number):
            continue
        if ring.copies[number] != 0:
            ring.spares.ids[ring.state[SPARES] & mask] = ring.held.ids[slot]
            ring.state[SPARES] += 1
        else:
            give(pools, ring.held, slot, slot + 1)
        ring.state[CLEAN] = oldest + 1
    ring.state[DONE] += count


@compiled
def kick(ring: TxState) -> None:
    """Have the kernel send what is on the ring, as long as it gets on: how far it came, the ring tells.

    If it does not, it has no room, or the interface is down or gone: the next call tries it once more.
    """
    end = ring.state[NEXT] & UNSIGNED
    for _ in range(_CALLS):
        before = load_acquire(ring.consumer, 0)
        if before == end or load_acquire(ring.flags, 0) & NEED_WAKEUP == 0:
            return
        start_sending(ring.fd)
        if load_acquire(ring.consumer, 0) == before:
            return


@compiled
def kick_once_more(ring: TxState, pools: Pools) -> None:
    """`kick` and `clean`, unless a thread that runs the ring does so."""
    if seize(ring.state):
        kick(ring)
        clean(ring, pools)
        leave(ring.state)
