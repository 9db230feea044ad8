"""A transmit ring of the gigabit cards for packets that are to be changed on their way out, or lie in several buffers.

It is kept as the 82599's (`ixy.drivers.ixgbe.offloads`). What differs is what the card is told: a queue has one context
(SDM 3.3.6), which says by places in the packet what is to be added up and where the sum goes; and each data descriptor
of a packet (SDM 3.3.7) says whether that is to be done. The 82574 takes the same (7.2, 7.3 of its datasheet).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.ixgbe.offloads import (
    CHECKSUM,
    CONTEXTS,
    PLACE,
    SEGMENTATION,
    VLAN,
    Task,
    TxOffloadState,
    sending,
    tag_of,
)
from ixy.drivers.layers import (
    IPV4_CHECKSUM,
    TCP,
    checksum_place,
    clear_header_checksum,
    clear_lengths,
    find_layers,
    is_cut,
    write_pseudo_sum,
)
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK
from ixy.packets.packets import INDEX_MASK, Flags, Packets
from ixy.packets.pool import Pools
from ixy.registers.e1000 import (
    CONTEXT_HDRLEN_SHIFT,
    CONTEXT_IP,
    CONTEXT_IPCSE_SHIFT,
    CONTEXT_IPCSO_SHIFT,
    CONTEXT_MSS_SHIFT,
    CONTEXT_TCP,
    CONTEXT_TUCSO_SHIFT,
    CONTEXT_TUCSS_SHIFT,
    TX_DATA,
    TX_DEXT,
    TX_IFCS,
    TX_IXSM,
    TX_TSE,
    TX_TXSM,
    TX_VLAN_SHIFT,
    TX_VLE,
)
from ixy.unsafe import peek

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CUTS_IPV6 = 8  # what a ring does besides: segmentation of TCP over IPv6

_IP_PARTIAL, _L4_PARTIAL = int(Flags.IP_PARTIAL), int(Flags.L4_PARTIAL)
_EACH = TX_DATA | TX_DEXT | TX_IFCS
_LONGEST_HEADERS = 240  # the card keeps them on the chip while it cuts a packet
_LAST_PLACE = 0xFF  # places in a context have 8 bits


@compiled
def task_of(ring: TxOffloadState, pools: Pools, packets: Packets, i: int, total: int) -> Task:
    """What is asked of packet `i`, of `total` bytes, as far as the ring does such things."""
    flags = segment = 0
    if ring.does & CHECKSUM != 0:
        flags = peek(packets.flags, i, 0) & (_IP_PARTIAL | _L4_PARTIAL)
    if ring.does & SEGMENTATION != 0:
        segment = peek(packets.segments, i, 0)
    tag = tag_of(packets, i) if ring.does & VLAN != 0 else -1
    command = 0 if tag < 0 else TX_VLE | topmost(tag)
    if flags == 0 and segment == 0:
        return Task(command, 0, 0, total, total, total, 1, True)
    data = pools.bytes[packets.ids[i] & ID_MASK]
    return planned(data, min(int(packets.lengths[i]), total), total, flags, segment, command, ring.does)


@compiled
def topmost(value: int) -> int:
    """16 bits as the highest ones of a word, which has a sign."""
    return ((value ^ 0x8000) - 0x8000) << TX_VLAN_SHIFT


@outlined
def planned(
    data: NDArray[np.uint8], length: int, total: int, flags: int, segment: int, command: int, does: int
) -> Task:
    """What the card is to do with a packet, in whose headers is left what it expects there (SDM 3.5.5, 3.5.9).

    Args:
        data, length, total: see `find_layers`.
        flags: which checksums it is to make.
        segment: bytes of payload in each segment, 0 if the packet is not to be cut.
        command: what is to be done besides.
        does: of the ring.
    """
    layers = find_layers(data, length, total)
    of_transport = flags & _L4_PARTIAL != 0 or segment > 0
    cut = is_cut(layers, segment)
    met = layers.version != 0 and layers.transport <= _LAST_PLACE and (layers.payload > 0 or not of_transport)
    if met and of_transport:
        met = checksum_place(layers) <= _LAST_PLACE and (segment == 0 or layers.protocol == TCP)
    if met and cut:
        met = layers.payload <= _LONGEST_HEADERS and (layers.version == 4 or does & CUTS_IPV6 != 0)
    if not met:
        return Task(command, 0, 0, total, total, total, 1, False)
    first = layers.network | (layers.network + IPV4_CHECKSUM) << CONTEXT_IPCSO_SHIFT
    second, frame, frames = TX_DEXT, layers.end, 1
    if layers.version == 4:
        first |= (layers.transport - 1) << CONTEXT_IPCSE_SHIFT
        second |= CONTEXT_IP
        if flags & _IP_PARTIAL != 0 or segment > 0:
            clear_header_checksum(data, layers)
            command |= TX_IXSM
    first |= layers.transport << CONTEXT_TUCSS_SHIFT
    if of_transport:
        write_pseudo_sum(data, layers, 0 if cut else layers.end - layers.transport)
        command |= TX_TXSM
        first |= checksum_place(layers) << CONTEXT_TUCSO_SHIFT
        second |= CONTEXT_TCP if layers.protocol == TCP else 0
    if cut:
        clear_lengths(data, layers)
        command |= TX_TSE
        payload, frame = layers.end - layers.payload, layers.payload + segment
        frames = (payload + segment - 1) // segment
        second |= TX_TSE | payload | layers.payload << CONTEXT_HDRLEN_SHIFT | topmost(segment)
    return Task(command, first, second, layers.end, layers.end, frame, frames, True)


assert TX_VLAN_SHIFT == CONTEXT_MSS_SHIFT


@compiled
def words_of(ring: TxOffloadState, task: Task) -> tuple[int, int]:
    """What stands in each of a packet's descriptors, with its context written: all say what is to be done to it."""
    if task.second != 0:
        set_context(ring, task.first, task.second)
    word = task.command | _EACH
    return word, word


@compiled
def set_context(ring: TxOffloadState, first: int, second: int) -> None:
    """Write the queue's context, unless it is this one."""
    words = ring.state
    if words[CONTEXTS] == first and words[CONTEXTS + 1] == second:
        return
    words[CONTEXTS] = first
    words[CONTEXTS + 1] = second
    slot = words[PLACE] & (ring.held.ids.size - 1) & INDEX_MASK
    ring.descriptors[2 * slot] = first
    ring.descriptors[2 * slot + 1] = second
    words[PLACE] += 1


tx_batch = sending(task_of, words_of)
