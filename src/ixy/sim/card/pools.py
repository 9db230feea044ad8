"""Queues in pools and traffic classes: which of them a frame that arrives to a simulated 82599 is for.

With virtualisation a frame goes to a list of pools, a copy to each; within a pool RSS or the traffic class chooses the
queue. This kernel does all that is left to do for a frame that is classified, as it may be stored many times.

Sections are those of the Intel 82599 datasheet, revision 3.3. Steps that it leaves open are as in the X550's, 7.8.3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.filters import matching_ethertype
from ixy.sim.card.frame import CRC_BYTES, MAC_BYTES, half, is_broadcast
from ixy.sim.card.layers import Layers, parse, tag_of
from ixy.sim.card.receive import lose, matches_table, station, store
from ixy.sim.card.state import (
    FEATURES,
    FILTER,
    FLOW_DROPS,
    FUNCTION,
    FUNCTION_MULTICAST,
    KEEP_CRC,
    NO_POOL,
    QUEUE,
    RX_LOST_BYTES,
    VIRTUAL,
    WORD_0,
    WORD_1,
)
from ixy.sim.rack import Rack
from ixy.sim.slots import belongs_in, call
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ETQF = reg.ETQF.offset // 4
_MPSAR = reg.MPSAR.offset // 4
_MRQC = reg.MRQC.offset // 4
_MTA = reg.MTA.offset // 4
_PFUTA = reg.PFUTA.offset // 4
_PFVFRE = reg.PFVFRE.offset // 4
_PFVLVF = reg.PFVLVF.offset // 4
_PFVLVFB = reg.PFVLVFB.offset // 4
_PFVML2FLT = reg.PFVML2FLT.offset // 4
_PFVMTXSW = reg.PFVMTXSW.offset // 4
_PFVTCTL = reg.PFVTCTL.offset // 4
_PSRTYPE = reg.PSRTYPE.offset // 4
_RTRUP2TC = reg.RTRUP2TC.offset // 4
_VLNCTRL = reg.VLNCTRL.offset // 4

_POOLS, _VLANS = 64, reg.PFVLVF.count
_VT_ENA, _RPL_EN = reg.PFVTCTL.mask("VT_ENA"), reg.PFVTCTL.mask("RPL_EN")
_NO_DEFAULT = reg.PFVTCTL.mask("DIS_DEF_PL")
_AUPE, _ROMPE, _ROPE = reg.PFVML2FLT.mask("AUPE"), reg.PFVML2FLT.mask("ROMPE"), reg.PFVML2FLT.mask("ROPE")
_BAM, _MPE = reg.PFVML2FLT.mask("BAM"), reg.PFVML2FLT.mask("MPE")
_VFE = reg.VLNCTRL.mask("VFE")
_VI_EN = reg.PFVLVF.mask("VI_EN")
_POOL_ENABLE = reg.ETQF.mask("POOL_ENABLE")

# MRQC.MRQE: by what a packet's queue is chosen
_CLASSES_8, _CLASSES_4, _CLASSES_8_RSS, _CLASSES_4_RSS = 2, 3, 4, 5
BY_CLASS = (_CLASSES_8, _CLASSES_4, _CLASSES_8_RSS, _CLASSES_4_RSS)
_POOLS_32_RSS, _POOLS_64_RSS, _POOLS_16_CLASSES_8, _POOLS_32_CLASSES_4 = 10, 11, 12, 13


@belongs_in(slots.POOLS)
def _deliver(image: Any, card: int, start: int, length: int, _: int) -> int:
    deliver(image[0], card, start, length)
    return 0


@compiled
def deliver(rack: Rack, card: int, start: int, length: int) -> None:
    """Store a frame in a queue of each pool that it is for; without virtualisation, in one of its traffic class."""
    registers = rack.registers[card]
    layers = parse(registers, rack.tape, start, length)
    if load_acquire(registers, _PFVTCTL) & _VT_ENA == 0:
        deliver_copy(rack, card, start, length, layers, NO_POOL)
        return
    spread(rack, card, start, length, layers, pools_of(registers, rack.tape, start, layers), False)


@compiled
def spread(rack: Rack, card: int, start: int, length: int, layers: Layers, pools: int, looped: bool) -> None:
    """Store a frame in a queue of each of these pools; one that was `looped` has not come through the port."""
    own = rack.cards[card]
    virtual = own[FEATURES] & VIRTUAL != 0
    if looped:
        call(rack, slots.CLASSIFY, card, start, length, 0)
        own[WORD_1] |= reg.RX_LB
    replicates = load_acquire(rack.registers[card], _PFVTCTL) & _RPL_EN != 0
    index, word_0, word_1 = own[QUEUE], own[WORD_0], own[WORD_1]
    copies = 0
    for pool in range(_POOLS):
        if (pools >> pool) & 1:
            own[QUEUE], own[WORD_0], own[WORD_1] = index, word_0, word_1
            if virtual:
                call(rack, slots.FUNCTION, card, pool, 0, 0)
                rack.functions[card, own[FUNCTION], FUNCTION_MULTICAST] += is_multicast(rack.tape, start)
            deliver_copy(rack, card, start, length, layers, pool)
            copies += 1
            if not replicates:
                break
    if virtual:
        call(rack, slots.FUNCTION, card, -1, 0, 0)
    counted = length + CRC_BYTES if own[FEATURES] & KEEP_CRC else length
    arrived = 0 if looped else 1
    rack.counters[card, RX_LOST_BYTES] -= (copies - arrived) * counted


@compiled
def is_multicast(frame: NDArray[np.uint8], start: int) -> int:
    """1 for a frame that is for a group, but not for all, else 0."""
    return 1 if frame[start] & 1 != 0 and not is_broadcast(frame, start) else 0


@compiled
def deliver_copy(rack: Rack, card: int, start: int, length: int, layers: Layers, pool: int) -> None:
    own = rack.cards[card]
    registers = rack.registers[card]
    own[QUEUE] = queue_of(registers, pool, traffic_class(registers, rack.tape, start, layers), own[QUEUE])
    if own[FEATURES] & FILTER and call(rack, slots.FILTER, card, start, length, pool) == 0:
        lose(rack, card, FLOW_DROPS, RX_LOST_BYTES, length + CRC_BYTES if own[FEATURES] & KEEP_CRC else length)
        return
    store(rack, card, own[QUEUE], start, length, own[WORD_0], own[WORD_1])


# ---------------------------------------------------------------------------------------------------------------------
# The queue


@compiled
def traffic_class(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers) -> int:
    """The traffic class of the priority in a frame's tag; without one, that of priority 0 (8.2.3.10.4)."""
    priority = tag_of(frame, start, layers) >> 13
    return (load_acquire(registers, _RTRUP2TC) >> (3 * priority)) & 7


@compiled
def queue_of(registers: NDArray[np.uint32], pool: int, traffic: int, index: int) -> int:
    """The queue of a pool, if there are pools, and of a traffic class or by an index of RSS (7.1.2.1, 7.1.2.2).

    RQPL says how many bits of the index count in a pool.
    """
    mode = load_acquire(registers, _MRQC) & 15
    if pool == NO_POOL:
        if mode in (_CLASSES_8, _CLASSES_8_RSS):
            return (traffic * 16) | index
        return ((traffic & 3) * 32) | index if mode in (_CLASSES_4, _CLASSES_4_RSS) else index
    used = (1 << (load_acquire(registers, _PSRTYPE + pool) >> 29)) - 1
    if mode == _POOLS_16_CLASSES_8:
        return (pool & 15) * 8 + traffic
    if mode == _POOLS_32_CLASSES_4:
        return (pool & 31) * 4 + (traffic & 3)
    if mode == _POOLS_32_RSS:
        return (pool & 31) * 4 + (index & used & 3)
    return pool * 2 + (index & used & 1 if mode == _POOLS_64_RSS else 0)


# ---------------------------------------------------------------------------------------------------------------------
# The pools: numbers of 64 bits, one for each


@compiled
def pools_of(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers) -> int:
    """The pools that a frame is for (7.10.3.3)."""
    control = load_acquire(registers, _PFVTCTL)
    enabled = pair(registers, _PFVFRE)
    default = 1 << ((control >> 7) & 63)
    is_group = frame[start] & 1 != 0
    pools = exact_pools(registers, frame, start) & enabled
    if control & _RPL_EN and is_group:
        pools = group_pools(registers, frame, start, pools)
    if pools == 0 and not is_group and matches_table(registers, frame, start, _PFUTA):
        pools = with_flag(registers, _ROPE)
    if load_acquire(registers, _VLNCTRL) & _VFE:
        pools &= vlan_pools(registers, frame, start, layers)
    if pools == 0 and control & _NO_DEFAULT == 0:
        pools = default
    if control & _RPL_EN == 0 and is_group and pools == 0:
        pools = default
    typed = matching_ethertype(registers, frame, start, layers)
    if typed >= 0 and load_acquire(registers, _ETQF + typed) & _POOL_ENABLE:
        pools = 1 << ((load_acquire(registers, _ETQF + typed) >> 20) & 63)
    return pools & enabled


@compiled
def looped_pools(
    registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers, source: int
) -> int:
    """The pools that a frame is for which a pool has sent (7.10.3.4).

    As for one that arrives, but that it does not come back to its pool unless PFVMTXSW says so, and that the default
    pool is for groups only.
    """
    control = load_acquire(registers, _PFVTCTL)
    enabled = pair(registers, _PFVFRE)
    is_group = frame[start] & 1 != 0
    pools = exact_pools(registers, frame, start)
    if is_group:
        pools = group_pools(registers, frame, start, pools)
    elif pools == 0 and matches_table(registers, frame, start, _PFUTA):
        pools = with_flag(registers, _ROPE)
    others = -1 if (pair(registers, _PFVMTXSW) >> source) & 1 else ~(1 << source)
    pools &= others
    if load_acquire(registers, _VLNCTRL) & _VFE:
        pools &= vlan_pools(registers, frame, start, layers)
    if pools == 0 and is_group and control & _NO_DEFAULT == 0:
        pools = 1 << ((control >> 7) & 63) & others
    typed = matching_ethertype(registers, frame, start, layers)
    if typed >= 0 and load_acquire(registers, _ETQF + typed) & _POOL_ENABLE:
        pools = 1 << ((load_acquire(registers, _ETQF + typed) >> 20) & 63)
    return pools & enabled


@compiled
def group_pools(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, pools: int) -> int:
    """These, and those that take a broadcast, or a multicast by the table or as they take all."""
    if is_broadcast(frame, start):
        return pools | with_flag(registers, _BAM)
    if pools == 0 and matches_table(registers, frame, start, _MTA):
        pools = with_flag(registers, _ROMPE)
    return pools | with_flag(registers, _MPE)


@compiled
def exact_pools(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int) -> int:
    """The pools of the receive addresses that are the frame's destination (8.2.3.7.10)."""
    pools = 0
    i = station(registers, frame, start, 0)
    while i >= 0:
        pools |= pair(registers, _MPSAR + 2 * i)
        i = station(registers, frame, start, i + 1)
    return pools


@compiled
def vlan_pools(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers) -> int:
    """The pools that are members of a frame's VLAN; of a frame without tag, those that accept such (8.2.3.27.15)."""
    if layers.inner == 0:
        return with_flag(registers, _AUPE)
    vlan = half(frame, start + MAC_BYTES + layers.outer + 2) & 0xFFF
    pools = 0
    for i in range(_VLANS):
        member = load_acquire(registers, _PFVLVF + i)
        if member & _VI_EN and member & 0xFFF == vlan:
            pools |= pair(registers, _PFVLVFB + 2 * i)
    return pools


@compiled
def with_flag(registers: NDArray[np.uint32], flag: int) -> int:
    """The pools with this bit in PFVML2FLT."""
    pools = 0
    for pool in range(_POOLS):
        if load_acquire(registers, _PFVML2FLT + pool) & flag:
            pools |= 1 << pool
    return pools


@compiled
def pair(registers: NDArray[np.uint32], at: int) -> int:
    """Two registers that have a bit for each pool."""
    return load_acquire(registers, at) | (load_acquire(registers, at + 1) << 32)
