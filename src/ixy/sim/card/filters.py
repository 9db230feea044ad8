"""The filters of a simulated 82599 that choose a packet's queue before RSS does: by Ethertype, by five fields, by SYN.

The flow director comes after them (7.1.2). Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card.classify import addresses_of, signed
from ixy.sim.card.flow_director import COMMAND, flow_of, is_candidate, look_up, place, swapped
from ixy.sim.card.frame import word
from ixy.sim.card.layers import SCTP, TCP, TCP_FLAGS, UDP, Layers, parse, tag_of
from ixy.sim.card.state import (
    FIVE_FIELDS,
    FLOW_MATCHES,
    FLOW_MISSES,
    NO_POOL,
    QUEUE,
    RX_JUMP,
    RX_LOWER_BITS,
    RX_STRIDE,
    WORD_0,
    WORD_1,
)
from ixy.sim.rack import Rack
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DAQF = reg.DAQF.offset // 4
_ETQF = reg.ETQF.offset // 4
_ETQS = reg.ETQS.offset // 4
_FDIRCTRL = reg.FDIRCTRL.offset // 4
_FTQF = reg.FTQF.offset // 4
_L34TIMIR = reg.L34TIMIR.offset // 4
_RXDCTL = reg.RXDCTL.offset // 4
_SAQF = reg.SAQF.offset // 4
_SDPQF = reg.SDPQF.offset // 4
_SYNQF = reg.SYNQF.offset // 4

_BY_ETHERTYPE = reg.ETQF.count
_FILTER_ENABLE, _UP_EN = reg.ETQF.mask("FILTER_ENABLE"), reg.ETQF.mask("UP_EN")
_TYPED_QUEUE = reg.ETQS.mask("QUEUE_ENABLE")
_TUPLE_QUEUE, _ANY_POOL = reg.FTQF.mask("QUEUE_ENABLE"), reg.FTQF.mask("POOL_MASK")
_SYN_QUEUE, _SYN_FIRST = reg.SYNQF.mask("QUEUE_ENABLE"), reg.SYNQF.mask("SYNQFP")
_ENABLE = reg.RXDCTL.mask("ENABLE")
_REPORT, _REPORT_ALWAYS = reg.FDIRCTRL.mask("REPORT_STATUS"), reg.FDIRCTRL.mask("REPORT_STATUS_ALWAYS")
_DROP, _QUEUE_EN, _COLLISION = reg.FDIRCMD.mask("DROP"), reg.FDIRCMD.mask("QUEUE_EN"), reg.FDIRCMD.mask("COLLISION")

# FTQF.MASK: what a filter does not compare
_ANY_SOURCE, _ANY_TARGET, _ANY_SPORT, _ANY_DPORT, _ANY_PROTOCOL = (1 << bit for bit in range(25, 30))
_OTHER_PROTOCOL = 3  # FTQF.PROTOCOL
_SYN = 2  # of the flags of TCP

_NONE = -1  # no filter, no queue


@outlined
def choose(rack: Rack, card: int, start: int, length: int, pool: int) -> bool:
    """Let filters change the queue and the descriptor of a frame that is classified; False if it is to be dropped.

    Args:
        pool: that this copy of the frame is for, or `NO_POOL`.
    """
    registers, frame, own = rack.registers[card], rack.tape, rack.cards[card]
    layers = parse(registers, frame, start, length)
    typed = matching_ethertype(registers, frame, start, layers)
    queue = _NONE
    if typed != _NONE:
        own[WORD_0] = own[WORD_0] & ~reg.RX_TYPE | reg.RX_TYPE_ETQF | (typed << reg.RX_TYPE_SHIFT)
        queue = queue_of_ethertype(registers, typed)
    if queue == _NONE:
        queue = queue_of_flow(registers, frame, layers, pool, own[FIVE_FIELDS])
    if is_candidate(registers, layers) and not direct(rack, card, start, layers, pool, queue != _NONE):
        return False
    if queue != _NONE:
        own[QUEUE] = queue
    return True


# ---------------------------------------------------------------------------------------------------------------------
# By Ethertype (7.1.2.3)


@compiled
def matching_ethertype(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers) -> int:
    """The first Ethertype filter that a frame matches, with the priority of its tag where that is asked for."""
    tagged = layers.outer + layers.inner > 0
    priority = tag_of(frame, start, layers) >> 13
    for i in range(_BY_ETHERTYPE):
        chosen = load_acquire(registers, _ETQF + i)
        right = chosen & _UP_EN == 0 or (tagged and (chosen >> 16) & 7 == priority)
        if chosen & _FILTER_ENABLE and chosen & 0xFFFF == layers.ethertype and right:
            return i
    return _NONE


@compiled
def queue_of_ethertype(registers: NDArray[np.uint32], typed: int) -> int:
    selected = load_acquire(registers, _ETQS + typed)
    return (selected >> 16) & 0x7F if selected & _TYPED_QUEUE else _NONE


# ---------------------------------------------------------------------------------------------------------------------
# By five fields, and by SYN (7.1.2.5, 7.1.2.6)


@compiled
def queue_of_flow(
    registers: NDArray[np.uint32], frame: NDArray[np.uint8], layers: Layers, pool: int, filters: int
) -> int:
    """The queue of the 5-tuple filter or the SYN filter that a packet matches; SYNQFP says which goes first."""
    control = load_acquire(registers, _SYNQF)
    syn = (control >> 1) & 0x7F if control & _SYN_QUEUE and is_syn(frame, layers) else _NONE
    if syn != _NONE and control & _SYN_FIRST:
        return syn
    queue = queue_of_tuple(registers, frame, layers, pool, filters)
    return queue if queue != _NONE else syn


@compiled
def is_syn(frame: NDArray[np.uint8], layers: Layers) -> bool:
    whole = layers.protocol == TCP and layers.transport_size > 0
    return whole and load_acquire(frame, layers.transport + TCP_FLAGS) & _SYN != 0


@compiled
def queue_of_tuple(
    registers: NDArray[np.uint32], frame: NDArray[np.uint8], layers: Layers, pool: int, filters: int
) -> int:
    """The queue of the first filter of the highest priority that a packet matches, of so many `filters`.

    Fragments match none.
    """
    best, queue = 0, _NONE
    if layers.version == 0 or layers.is_fragment:
        return queue
    for i in range(filters):
        chosen = load_acquire(registers, _FTQF + i)
        priority = ((chosen >> 2) & 7) + 1
        if chosen & _TUPLE_QUEUE and priority > best and matches_tuple(registers, frame, layers, pool, i):
            best, queue = priority, (load_acquire(registers, _L34TIMIR + i) >> 21) & 0x7F
    return queue


@compiled
def matches_tuple(registers: NDArray[np.uint32], frame: NDArray[np.uint8], layers: Layers, pool: int, i: int) -> bool:
    """Whether a packet has the fields that a filter does not mask; IPv6 has only addresses that are masked.

    Addresses and ports are in the registers as on the wire, the first byte lowest, as DPDK writes them.
    """
    chosen = load_acquire(registers, _FTQF + i)
    if chosen & _ANY_POOL == 0 and pool != NO_POOL and (chosen >> 8) & 0x3F != pool:
        return False
    if chosen & _ANY_PROTOCOL == 0 and chosen & 3 != protocol_of(layers):
        return False
    if layers.version == 6 and chosen & (_ANY_SOURCE | _ANY_TARGET) != _ANY_SOURCE | _ANY_TARGET:
        return False
    addresses, _ = addresses_of(layers)
    if chosen & _ANY_SOURCE == 0 and swapped(load_acquire(registers, _SAQF + i)) != word(frame, addresses):
        return False
    if chosen & _ANY_TARGET == 0 and swapped(load_acquire(registers, _DAQF + i)) != word(frame, addresses + 4):
        return False
    return matches_ports(registers, frame, layers, i)


@compiled
def matches_ports(registers: NDArray[np.uint32], frame: NDArray[np.uint8], layers: Layers, i: int) -> bool:
    """Whether a packet has the ports that a filter does not mask, if there are any."""
    chosen = load_acquire(registers, _FTQF + i)
    if chosen & (_ANY_SPORT | _ANY_DPORT) == _ANY_SPORT | _ANY_DPORT:
        return True
    if layers.transport_size == 0:
        return False
    others = swapped(load_acquire(registers, _SDPQF + i)) ^ word(frame, layers.transport)
    return (chosen & _ANY_SPORT != 0 or others >> 16 == 0) and (chosen & _ANY_DPORT != 0 or others & 0xFFFF == 0)


@compiled
def protocol_of(layers: Layers) -> int:
    """As in FTQF.PROTOCOL."""
    if layers.transport_size == 0:
        return _OTHER_PROTOCOL
    if layers.protocol == TCP:
        return 0
    return 1 if layers.protocol == UDP else 2 if layers.protocol == SCTP else _OTHER_PROTOCOL


# ---------------------------------------------------------------------------------------------------------------------
# By the flow director (7.1.2.7)


@compiled
def direct(rack: Rack, card: int, start: int, layers: Layers, pool: int, decided: bool) -> bool:
    """Look a packet up, count and report that, and choose its queue if none is `decided`; False: drop it.

    A filter that lies deeper in its bucket than MAX_LENGTH says does not drop, but reports that it would have.
    """
    registers, own = rack.registers[card], rack.cards[card]
    control = load_acquire(registers, _FDIRCTRL)
    flow = flow_of(registers, rack.tape, start, layers, max(pool, 0))
    found = look_up(registers, rack.flows[card], flow)
    too_deep = found.depth > (control >> 24) & 15
    command = rack.flows[card, place(found.filter) + COMMAND] if found.filter != 0 else 0
    rack.counters[card, FLOW_MATCHES if found.filter != 0 else FLOW_MISSES] += 1
    if found.filter != 0:
        own[WORD_1] |= reg.RX_FLM | (reg.RX_FDIR_COLLISION if command & _COLLISION else 0)
    if too_deep:
        own[WORD_1] |= reg.RX_FDIR_LENGTH | (reg.RX_FDIR_DROP if command & _DROP else 0)
    if control & _REPORT and (found.filter != 0 or control & _REPORT_ALWAYS):
        bucket, index = found.identity & 0x7FFF, found.identity >> 16
        own[WORD_0] = own[WORD_0] & 0xFFFFFFFF & ~reg.RX_RSS_TYPE | reg.RSS_FLOW_DIRECTOR
        own[WORD_0] |= signed((bucket << 16) | index) << reg.RX_HASH_SHIFT
    if decided:
        return True
    if command & _DROP and not too_deep:
        own[QUEUE] = (control >> 8) & 0x7F
        return is_running(registers, own[QUEUE])
    if command & _QUEUE_EN:
        own[QUEUE] = (command >> 16) & 0x7F
    return True


@compiled
def is_running(registers: NDArray[np.uint32], queue: int) -> bool:
    """Whether a receive queue is enabled: what goes to the drop queue, which is not, is dropped."""
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    return load_acquire(registers, _RXDCTL + at) & _ENABLE != 0
