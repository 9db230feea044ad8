"""A transmit ring of the 82599 for packets that are to be changed on their way out, or lie in several buffers.

What the card is to do with a packet it takes from two places: the packet's first descriptor says what, and a context,
which a descriptor of its own has set before, says where the headers are (7.2.3.2.3). A queue has two contexts, which
stay, so one is written only where neither is the right one.

A packet takes several descriptors, and a context no buffer. So buffers lie in a row of their own, in the order in which
they were handed over, which NEXT and CLEAN count; PLACE and DONE count descriptors. The card reports the last
descriptor of a packet only (8.2.3.9.10): a mark says which, and how many buffers it has sent then.

A packet whose headers are not what was asked for leaves as it is. One that no frame can hold does not leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.drivers.layers import TCP, Layers, clear_header_checksum, clear_lengths, find_layers, is_cut, write_pseudo_sum
from ixy.drivers.rings import CLEAN, COMMON_WORDS, NEXT
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK, MAX_PARTS, device_address
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Flags, Packets
from ixy.packets.parts import how_many_fit, part_count, total_length
from ixy.packets.pool import Pools, give, give_seldom
from ixy.registers.i82599 import (
    CONTEXT_IPV4,
    CONTEXT_L4LEN_SHIFT,
    CONTEXT_L4T_SHIFT,
    CONTEXT_MACLEN_SHIFT,
    CONTEXT_MSS_SHIFT,
    CONTEXT_VLAN_SHIFT,
    L4T_TCP,
    L4T_UDP,
    TX_CONTEXT,
    TX_DATA,
    TX_DD,
    TX_DEXT,
    TX_EOP,
    TX_IDX,
    TX_IFCS,
    TX_IXSM,
    TX_PAYLEN_SHIFT,
    TX_RS,
    TX_TSE,
    TX_TXSM,
    TX_VLE,
)
from ixy.unsafe import has, load_acquire, peek, store_release

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses

CHECKSUM, VLAN, SEGMENTATION = 1, 2, 4  # what a ring does, as a sum
DOES = {"checksum": CHECKSUM, "vlan": VLAN, "segmentation": SEGMENTATION}

# Words of a ring's `state` besides the common ones
PLACE = COMMON_WORDS  # the descriptor that comes next, counted without wrapping
DONE = COMMON_WORDS + 1  # the oldest that is not known to be done
MARKS = COMMON_WORDS + 2  # the mark that comes next, counted likewise,
SEEN = COMMON_WORDS + 3  # and the oldest one that was not reported
MARKED = COMMON_WORDS + 4  # the descriptor behind the last one that is to be reported,
MARKED_BUFFER = COMMON_WORDS + 5  # and the buffer behind its packet's
LATEST = COMMON_WORDS + 6  # which of both contexts was used last
CONTEXTS = COMMON_WORDS + 7  # what they are, two words each
REFUSED = COMMON_WORDS + 11  # packets that did not leave: longer than a frame may be, or empty
UNCHANGED = COMMON_WORDS + 12  # packets that left as they were, though something was asked of them
FRAMES = COMMON_WORDS + 13  # by how many the frames that are to leave are more than the packets
STATE_WORDS = COMMON_WORDS + 14

_IP_PARTIAL, _L4_PARTIAL, _TAGGED = int(Flags.IP_PARTIAL), int(Flags.L4_PARTIAL), int(Flags.VLAN)
_EACH = TX_DATA | TX_DEXT | TX_IFCS
_WHOLE_PACKET = TX_TSE | TX_VLE  # stands in each of its descriptors
_ETHERNET = 14
_LONGEST_NETWORK = 0x1FF  # IPLEN has 9 bits
_LONGEST_HEADERS = 240  # the card keeps them on the chip while it cuts a packet


class TxOffloadState(NamedTuple):
    """A transmit ring, as `TxState`, but for `held`, which has buffers in the order in which they are sent.

    Attributes:
        marks: for each descriptor that is to be reported, its number, and that of the buffer behind its packet's.
        does: the sum of what it does, CHECKSUM and those after it.
        group: so many descriptors are written, or buffers held, at most until the card reports, unless a single packet
            has more.
        longest: bytes of a frame, without the frame check sequence.
    """

    descriptors: NDArray[np.int64]
    tail: NDArray[np.uint32]
    held: Packets
    state: NDArray[np.int64]
    addresses: Addresses
    marks: NDArray[np.int64]
    does: int
    group: int
    longest: int


class Task(NamedTuple):
    """What the card is to do with a packet.

    Attributes:
        command: bits of its first descriptor.
        first, second: its context; `second` is 0 if it needs none.
        size: how many of its bytes are sent: what is behind the IP packet is padding.
        payload: what PAYLEN is to say.
        frame: the length of the longest frame that leaves.
        frames: how many leave.
        met: whether all is done that was asked for.
    """

    command: int
    first: int
    second: int
    size: int
    payload: int
    frame: int
    frames: int
    met: bool


# ---------------------------------------------------------------------------------------------------------------------
# What is to be done


@compiled
def task_of(ring: TxOffloadState, pools: Pools, packets: Packets, i: int, total: int) -> Task:
    """What is asked of packet `i`, of `total` bytes, as far as the ring does such things."""
    flags = segment = 0
    if ring.does & CHECKSUM != 0:
        flags = peek(packets.flags, i, 0) & (_IP_PARTIAL | _L4_PARTIAL)
    if ring.does & SEGMENTATION != 0:
        segment = peek(packets.segments, i, 0)
    tag = tag_of(packets, i) if ring.does & VLAN != 0 else -1
    if flags == 0 and segment == 0 and tag < 0:
        return Task(0, 0, 0, total, total, total, 1, True)
    data = pools.bytes[packets.ids[i] & ID_MASK]
    return planned(data, min(int(packets.lengths[i]), total), total, flags, segment, tag)


@compiled
def tag_of(packets: Packets, i: int) -> int:
    """The VLAN tag that packet `i` is to get, -1 if it is to get none."""
    tag = peek(packets.vlans, i, 0)
    tagged = peek(packets.flags, i, 0) & _TAGGED if has(packets.flags) else tag
    return tag if tagged != 0 else -1


@outlined
def planned(data: NDArray[np.uint8], length: int, total: int, flags: int, segment: int, tag: int) -> Task:
    """What the card is to do with a packet, in whose headers is left what it expects there (7.2.4, 7.2.5).

    Args:
        data, length, total: see `find_layers`.
        flags: which checksums it is to make.
        segment: bytes of payload in each segment, 0 if the packet is not to be cut.
        tag: the VLAN tag that it is to put in, -1 for none.
    """
    command, tagged = (TX_VLE, tag << CONTEXT_VLAN_SHIFT) if tag >= 0 else (0, 0)
    if flags == 0 and segment == 0:
        return only_tagged(command, tagged, total, True)
    layers = find_layers(data, length, total)
    if not suits(layers, flags, segment):
        return only_tagged(command, tagged, total, False)
    cut = is_cut(layers, segment)
    first = (layers.transport - layers.network) | layers.network << CONTEXT_MACLEN_SHIFT | tagged
    second, payload, frame, frames = 0, layers.end, layers.end, 1
    if layers.version == 4:
        second |= CONTEXT_IPV4
        if flags & _IP_PARTIAL != 0 or segment > 0:
            clear_header_checksum(data, layers)
            command |= TX_IXSM
    if flags & _L4_PARTIAL != 0 or segment > 0:
        write_pseudo_sum(data, layers, 0 if cut else layers.end - layers.transport)
        command |= TX_TXSM
        second |= (L4T_TCP if layers.protocol == TCP else L4T_UDP) << CONTEXT_L4T_SHIFT
    if cut:
        clear_lengths(data, layers)
        command |= TX_TSE
        second |= (layers.payload - layers.transport) << CONTEXT_L4LEN_SHIFT | segment << CONTEXT_MSS_SHIFT
        payload, frame = layers.end - layers.payload, layers.payload + segment
        frames = (payload + segment - 1) // segment
    return Task(command, first, with_context(command, second), layers.end, payload, frame, frames, True)


@compiled
def only_tagged(command: int, tagged: int, total: int, met: bool) -> Task:
    """What is to be done with a packet that gets a VLAN tag at most; whether nothing else was asked for."""
    first = _ETHERNET << CONTEXT_MACLEN_SHIFT | tagged
    return Task(command, first, with_context(command, 0), total, total, total, 1, met)


@compiled
def with_context(command: int, second: int) -> int:
    """The second word of a context, 0 where nothing is to be done that needs one."""
    return second | TX_CONTEXT | TX_DEXT if command != 0 else 0


@compiled
def suits(layers: Layers, flags: int, segment: int) -> bool:
    """Whether a packet's headers are such that the card can do what is asked for."""
    if layers.version == 0 or layers.transport - layers.network > _LONGEST_NETWORK:
        return False
    if layers.payload == 0 and (flags & _L4_PARTIAL != 0 or segment > 0):
        return False
    return segment == 0 or (layers.protocol == TCP and layers.payload <= _LONGEST_HEADERS)


# ---------------------------------------------------------------------------------------------------------------------
# Sending


@compiled
def tx_room(ring: TxOffloadState, pools: Pools, wanted: int) -> int:
    """How many packets of one buffer the ring has room for; it is cleaned only if there are fewer than `wanted`."""
    room = free_packets(ring)
    if room < wanted:
        make_room(ring, pools)
        room = free_packets(ring)
    return room


@outlined
def make_room(ring: TxOffloadState, pools: Pools) -> None:
    clean(ring, pools)


@compiled
def free_packets(ring: TxOffloadState) -> int:
    """Each may need a context."""
    return free_descriptors(ring) >> 1 if ring.does != 0 else free_descriptors(ring)


@compiled
def free_descriptors(ring: TxOffloadState) -> int:
    """How many descriptors can be written, and buffers held. One stays unused: with tail equal to head the card sees an
    empty ring."""
    words = ring.state
    return ring.held.ids.size - 1 - max(words[PLACE] - words[DONE], words[NEXT] - words[CLEAN])


@compiled
def fitting(ring: TxOffloadState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """How many of packets `first` to `last` there is room for, whatever they need."""
    return how_many_fit(pools, packets, first, last, free_descriptors(ring), 1 if ring.does != 0 else 0)


@compiled
def hold(ring: TxOffloadState, buffer: int) -> int:
    """Note that the ring has a buffer; at which place."""
    slot = ring.state[NEXT] & (ring.held.ids.size - 1) & INDEX_MASK
    ring.held.ids[slot] = buffer
    ring.state[NEXT] += 1
    return slot


def sending(
    task_of: Callable[..., Task], words_of: Callable[[TxOffloadState, Task], tuple[int, int]]
) -> Callable[[TxOffloadState, Pools, Packets, int, int], int]:
    """The kernel `tx_batch` of such a ring.

    Args:
        task_of: the kernel `task_of(ring, pools, packets, i, total) -> Task` says what is asked of packet `i`.
        words_of: the kernel `words_of(ring, task) -> first, others` writes the task's context, if it needs one that is
            not there, and says what stands in the packet's first descriptor and in the others, besides their lengths.
    """

    @compiled
    def put_in(ring: TxOffloadState, pools: Pools, packets: Packets, i: int, task: Task, before: int) -> None:
        """Write the descriptors of packet `i`, and hold its buffers (7.2.3.2.4); there is room.

        Args:
            before: the first descriptor that the card does not have yet.
        """
        words = ring.state
        mask = (ring.held.ids.size - 1) & INDEX_MASK
        report_before(ring, before, 1 + part_count(pools, packets, i))
        word, others = words_of(ring, task)
        left = task.size
        buffer, size, following = int(packets.ids[i]), int(packets.lengths[i]), peek(packets.nexts, i, NO_NEXT)
        for _ in range(MAX_PARTS):
            hold(ring, buffer)
            part = min(size, left)
            if part > 0:
                slot = words[PLACE] & mask
                ring.descriptors[2 * slot] = device_address(ring.addresses, buffer)
                ring.descriptors[2 * slot + 1] = word | part
                words[PLACE] += 1
                word = others
                left -= part
            if following < 0:
                break
            buffer = following
            size, following = int(pools.sizes[buffer & ID_MASK]), int(pools.nexts[buffer & ID_MASK])
        ring.descriptors[2 * ((words[PLACE] - 1) & mask) + 1] |= TX_EOP
        if max(words[PLACE] - words[MARKED], words[NEXT] - words[MARKED_BUFFER]) >= ring.group:
            mark(ring)
        words[FRAMES] += task.frames - 1
        words[UNCHANGED] += 0 if task.met else 1

    @compiled
    def tx_batch(ring: TxOffloadState, pools: Pools, packets: Packets, first: int, last: int) -> int:
        """Put packets `first` to `last` on the ring until it is full, and ring the doorbell; how many it took."""
        clean(ring, pools)
        count = fitting(ring, pools, packets, first, last)
        count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
        before = ring.state[PLACE]
        for i in range(first, first + count):
            total = total_length(pools, packets, i)
            task = task_of(ring, pools, packets, i, total)
            if task.frame > ring.longest or total == 0:
                refuse(ring, pools, packets, i)
            else:
                put_in(ring, pools, packets, i, task, before)
        if ring.state[PLACE] != before:
            store_release(ring.tail, 0, ring.state[PLACE] & (ring.held.ids.size - 1))
        return count

    return tx_batch


@compiled
def words_of(ring: TxOffloadState, task: Task) -> tuple[int, int]:
    """What stands in a packet's first descriptor and in the others, with its context written (7.2.3.2.4)."""
    command = task.command
    if task.second != 0:
        command |= TX_IDX * context(ring, task.first, task.second)
    return task.payload << TX_PAYLEN_SHIFT | command | _EACH, command & _WHOLE_PACKET | _EACH


@compiled
def context(ring: TxOffloadState, first: int, second: int) -> int:
    """Which of the queue's two contexts is this one; if neither is, it takes the place of that not used last."""
    words = ring.state
    for index in range(2):
        if words[CONTEXTS + 2 * index] == first and words[CONTEXTS + 2 * index + 1] == second:
            words[LATEST] = index
            return index
    index = 1 - words[LATEST]
    words[CONTEXTS + 2 * index] = first
    words[CONTEXTS + 2 * index + 1] = second
    words[LATEST] = index
    slot = words[PLACE] & (ring.held.ids.size - 1) & INDEX_MASK
    ring.descriptors[2 * slot] = first
    ring.descriptors[2 * slot + 1] = second | TX_IDX * index
    words[PLACE] += 1
    return index


@compiled
def report_before(ring: TxOffloadState, before: int, more: int) -> None:
    """Have the packet before reported if with `more` descriptors there were too many without that, and the card does
    not have it yet."""
    words = ring.state
    if words[PLACE] + more - words[MARKED] > ring.group and words[PLACE] > max(before, words[MARKED]):
        mark(ring)


@compiled
def mark(ring: TxOffloadState) -> None:
    """Have the card report the last descriptor that is written: then all packets are sent whose buffers are held."""
    words, size = ring.state, ring.held.ids.size
    last = words[PLACE] - 1
    ring.descriptors[2 * (last & (size - 1)) + 1] |= TX_RS
    place = 2 * (words[MARKS] & (size - 1))
    ring.marks[place] = last
    ring.marks[place + 1] = words[NEXT]
    words[MARKS] += 1
    words[MARKED] = words[PLACE]
    words[MARKED_BUFFER] = words[NEXT]


@outlined
def refuse(ring: TxOffloadState, pools: Pools, packets: Packets, i: int) -> None:
    """Give the buffers of packet `i` back, which no frame can hold."""
    buffer = int(packets.ids[i])
    following = peek(packets.nexts, i, NO_NEXT)
    for _ in range(MAX_PARTS):
        slot = hold(ring, buffer)
        ring.state[NEXT] -= 1
        give_seldom(pools, ring.held, slot, slot + 1)
        if following < 0:
            break
        buffer = following
        following = int(pools.nexts[buffer & ID_MASK])
    ring.state[REFUSED] += 1
    ring.state[FRAMES] -= 1


@compiled
def clean(ring: TxOffloadState, pools: Pools) -> None:
    """Return the buffers of sent packets to their pools, as far as the card has reported (7.2.3.5)."""
    words, size = ring.state, ring.held.ids.size
    mask = (size - 1) & INDEX_MASK
    while words[SEEN] != words[MARKS]:
        place = 2 * (words[SEEN] & mask)
        last: Any = ring.marks[place]
        end = ring.marks[place + 1]
        if load_acquire(ring.descriptors, 2 * (last & mask) + 1) & TX_DD == 0:
            break
        while words[CLEAN] < end:
            slot = words[CLEAN] & mask
            count = min(end - words[CLEAN], size - slot)
            give(pools, ring.held, slot, slot + count)
            words[CLEAN] += count
        words[DONE] = last + 1
        words[SEEN] += 1


tx_batch = sending(task_of, words_of)
