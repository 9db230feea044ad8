"""What a card does that is divided into functions: which of them is at work, and where what a pool sends goes.

The kernels are in slots: a card without virtual functions, and without pools that send to each other, has none of them
compiled. Sections are those of the Intel 82599 datasheet, revision 3.3; 7.10.3.4 is the flow of what is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.frame import CRC_BYTES, MAC_BYTES, is_broadcast, size_class
from ixy.sim.card.layers import Layers, parse
from ixy.sim.card.offload import MIN_FRAME, insert_tag
from ixy.sim.card.pools import looped_pools, pair, spread, vlan_pools
from ixy.sim.card.receive import is_too_long, receive, station
from ixy.sim.card.state import (
    BUS_MASTER,
    DMA_REFUSED,
    FEATURES,
    FUNCTION,
    FUNCTION_MASTER,
    FUNCTION_REFUSED,
    FUNCTION_REQUESTER,
    FUNCTION_ROOT,
    FUNCTION_SPOOFED,
    FUNCTIONS,
    LOOPBACK,
    OFFLOAD,
    PHYSICAL,
    POOL_SHIFT,
    QUEUE_TX,
    QUEUE_TX_BYTES,
    REFUSED_BEFORE,
    REQUESTER,
    ROOT_TABLE,
    RX_JUMP,
    RX_LOWER_BITS,
    RX_QUEUES,
    RX_STRIDE,
    SEGMENT,
    SPOOFED,
    STAGED,
    STAGING,
    TX_BROADCAST,
    TX_LOOPED_BYTES,
    TX_MULTICAST,
    TX_SIZES,
)
from ixy.sim.loop import emit, hand_over
from ixy.sim.rack import CARDS, LINKED, SLOT, Rack
from ixy.sim.slots import belongs_in, call
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MPSAR = reg.MPSAR.offset // 4
_PFDTXGSWC = reg.PFDTXGSWC.offset // 4
_PFVFRE = reg.PFVFRE.offset // 4
_PFVFSPOOF = reg.PFVFSPOOF.offset // 4
_PFVFTE = reg.PFVFTE.offset // 4
_PFVMECM = reg.PFVMECM.offset // 4
_PFVMVIR = reg.PFVMVIR.offset // 4
_PFVTCTL = reg.PFVTCTL.offset // 4
_RDH, _RDT, _RXDCTL = reg.RDH.offset // 4, reg.RDT.offset // 4, reg.RXDCTL.offset // 4
_TDH, _TDT, _TX_STRIDE = reg.TDH.offset // 4, reg.TDT.offset // 4, reg.TDH.stride // 4
_RXCTRL = reg.RXCTRL.offset // 4

_ENABLE, _RXEN = reg.RXDCTL.mask("ENABLE"), reg.RXCTRL.mask("RXEN")
_LBE, _VT_ENA = reg.PFDTXGSWC.mask("LBE"), reg.PFVTCTL.mask("VT_ENA")
_VLANA_SHIFT, _TAG = 30, 0xFFFF
_VLANS_SHIFT = 8  # PFVFSPOOF.VLANAS


# ---------------------------------------------------------------------------------------------------------------------
# Functions


@belongs_in(slots.FUNCTION)
def _function(image: Any, card: int, pool: int, _b: int, _c: int) -> int:
    """Let the function of a pool be at work, that of -1 is the physical one; whether it may send."""
    rack = image[0]
    virtual = 0 <= pool < rack.cards[card, FUNCTIONS]
    enter(rack, card, pool if virtual else PHYSICAL)
    if not virtual:
        give_up_unfinished(rack, card)
        return 1
    return (load_acquire(rack.registers[card], _PFVFTE + (pool >> 5)) >> (pool & 31)) & 1


@compiled
def enter(rack: Rack, card: int, function: int) -> None:
    """From now on DMA is this function's: by its right to use the bus, through its IOMMU, at its cost."""
    own = rack.cards[card]
    before = own[FUNCTION]
    if before == function:
        return
    refused = rack.counters[card, DMA_REFUSED]
    rack.functions[card, before, FUNCTION_REFUSED] += refused - own[REFUSED_BEFORE]
    own[FUNCTION], own[REFUSED_BEFORE] = function, refused
    words = rack.functions[card, function]
    own[BUS_MASTER], own[ROOT_TABLE], own[REQUESTER] = (
        words[FUNCTION_MASTER],
        words[FUNCTION_ROOT],
        words[FUNCTION_REQUESTER],
    )


@compiled
def give_up_unfinished(rack: Rack, card: int) -> None:
    """Forget a packet that is being gathered if its queue has nothing more of it: others wait for its end."""
    registers, own = rack.registers[card], rack.cards[card]
    at = own[STAGING] * _TX_STRIDE
    if own[STAGED] != 0 and load_acquire(registers, _TDH + at) == load_acquire(registers, _TDT + at):
        own[STAGED] = own[OFFLOAD] = 0


@belongs_in(slots.ROOM)
def _room(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    return has_room(image[0], card)


@compiled
def has_room(rack: Rack, card: int) -> bool:
    """Whether a pool would find free descriptors in all its queues.

    So a wire that waits for the card waits for no function that takes nothing while another one does; what comes for
    that is lost, as PFQDE would have it.
    """
    registers, own = rack.registers[card], rack.cards[card]
    if load_acquire(registers, _RXCTRL) & _RXEN == 0:
        return False
    enabled, pool, running, room = pair(registers, _PFVFRE), -1, False, True
    for queue in range(own[RX_QUEUES]):
        if queue >> own[POOL_SHIFT] != pool:
            if running and room:
                return True
            pool, running, room = queue >> own[POOL_SHIFT], False, True
        at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
        if load_acquire(registers, _RXDCTL + at) & _ENABLE and (enabled >> pool) & 1:
            running = True
            room &= load_acquire(registers, _RDH + at) != load_acquire(registers, _RDT + at)
    return running and room


# ---------------------------------------------------------------------------------------------------------------------
# What a pool sends


@belongs_in(slots.SWITCH)
def _switch(image: Any, card: int, queue: int, length: int, now: int) -> int:
    switch(image[0], card, queue, length, now)
    return 0


@compiled
def switch(rack: Rack, card: int, queue: int, length: int, now: int) -> None:
    """Send the packet in the card's staging buffer as `loop.send` does, with the tag of its pool (8.2.3.27.13)."""
    own = rack.cards[card]
    pool = (queue >> own[POOL_SHIFT]) & 63
    insertion = load_acquire(rack.registers[card], _PFVMVIR + pool)
    tagged = insertion >> _VLANA_SHIFT == reg.VLANA_ALWAYS
    if insertion >> _VLANA_SHIFT != reg.VLANA_DESCRIPTOR:
        own[OFFLOAD] &= ~reg.TX_VLE
    start = (card & (CARDS - 1)) * SLOT
    offloaded = own[OFFLOAD] != 0
    frames = 0
    total, length = length, max(length, MIN_FRAME)
    if tagged and not offloaded:
        copy(rack.tape, start + SEGMENT, rack.tape, start, length)
    if offloaded or tagged:
        start += SEGMENT
    if offloaded:
        length = call(rack, slots.BUILD, card, queue, total, 0)
    while length > 0:
        size = insert_tag(rack, card, length, insertion & _TAG) if tagged else length
        forward(rack, card, queue, pool, start, size, now)
        frames += 1
        length = call(rack, slots.BUILD, card, queue, total, frames) if offloaded else 0
    if offloaded:
        own[OFFLOAD] = 0


@compiled
def forward(rack: Rack, card: int, queue: int, pool: int, start: int, length: int, now: int) -> None:
    """Let a frame of a pool leave, go to other pools, or both; or neither, if it pretends to be another one's."""
    registers, tape = rack.registers[card], rack.tape
    layers = parse(registers, tape, start, length)
    if pretends(registers, tape, start, layers, pool):
        rack.functions[card, rack.cards[card, FUNCTION], FUNCTION_SPOOFED] += 1
        rack.counters[card, SPOOFED] += (load_acquire(registers, _PFVMECM + (pool >> 5)) >> (pool & 31)) & 1
        return
    rack.queues[card, queue, QUEUE_TX] += 1
    rack.queues[card, queue, QUEUE_TX_BYTES] += length + CRC_BYTES
    if rack.cards[card, FEATURES] & LOOPBACK:
        count_departed(rack, card, start, length)
        receive(rack, card, start, length)
        return
    loops = loops_back(rack, card)
    if loops and tape[start] & 1 == 0 and station(registers, tape, start, 0) >= 0:
        rack.counters[card, TX_LOOPED_BYTES] += length + CRC_BYTES
    else:
        count_departed(rack, card, start, length)
        hand_over(rack, emit(rack, card, start, length, now), start, length, now)
    if loops and not is_too_long(registers, tape, start, length):
        source = rack.cards[card, FUNCTION]
        spread(rack, card, start, length, layers, looped_pools(registers, tape, start, layers, pool), True)
        enter(rack, card, source)


@compiled
def loops_back(rack: Rack, card: int) -> bool:
    """Whether frames go from pool to pool: while there is a link, and the card receives (7.10.3.4)."""
    registers = rack.registers[card]
    return (
        load_acquire(registers, _PFDTXGSWC) & _LBE != 0
        and load_acquire(registers, _PFVTCTL) & _VT_ENA != 0
        and load_acquire(registers, _RXCTRL) & _RXEN != 0
        and rack.inputs[card, LINKED] != 0
    )


@compiled
def count_departed(rack: Rack, card: int, start: int, length: int) -> None:
    """Count a frame that leaves the port."""
    counters = rack.counters[card]
    counters[TX_SIZES + size_class(length)] += 1
    if rack.tape[start] & 1:
        counters[TX_BROADCAST if is_broadcast(rack.tape, start) else TX_MULTICAST] += 1


@compiled
def pretends(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers, pool: int) -> bool:
    """Whether a frame has a source address or a VLAN that is not its pool's, and is looked at (8.2.3.27.11).

    A frame without a tag pretends to be in no VLAN.
    """
    checked = load_acquire(registers, _PFVFSPOOF + (pool >> 3)) >> (pool & 7)
    if checked & 1 and not has_address(registers, frame, start + MAC_BYTES // 2, pool):
        return True
    if (checked >> _VLANS_SHIFT) & 1 == 0 or layers.inner == 0:
        return False
    return (vlan_pools(registers, frame, start, layers) >> pool) & 1 == 0


@compiled
def has_address(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, pool: int) -> bool:
    """Whether the address at `start` is one of a pool's receive addresses."""
    i = station(registers, frame, start, 0)
    while i >= 0:
        if (pair(registers, _MPSAR + 2 * i) >> pool) & 1:
            return True
        i = station(registers, frame, start, i + 1)
    return False
