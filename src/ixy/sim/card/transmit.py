"""How a simulated 82599 sends: descriptors are fetched and their buffers gathered, status is written back.

Each kernel works on one card of a rack. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.dma import dma_read, masters, ring_word
from ixy.sim.card.frame import CRC_BYTES, is_broadcast, size_class
from ixy.sim.card.judge import BEYOND, FINE, FORM, HANGS, PAYLEN_MASK, UNREPORTED
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import (
    FEATURES,
    FIRST,
    HUNG,
    INTERRUPT,
    OFFLOAD,
    QUEUE_TX,
    QUEUE_TX_BYTES,
    RAISED,
    REPORT,
    STAGE_SIZE,
    STAGED,
    STAGING,
    TX_BROADCAST,
    TX_CLOSED,
    TX_MULTICAST,
    TX_SIZES,
    USUAL,
)
from ixy.sim.rack import SLOT, Rack
from ixy.sim.slots import call, lacks
from ixy.unsafe import load_acquire, store_release

LATER = -1  # what `fetch` answers if it has to be asked again

# Word indices into BAR 0
_QUEUE_STRIDE = reg.TDBAL.stride // 4
_DMATXCTL = reg.DMATXCTL.offset // 4
_TDBAL = reg.TDBAL.offset // 4
_TDBAH = reg.TDBAH.offset // 4
_TDLEN = reg.TDLEN.offset // 4
_TDH = reg.TDH.offset // 4
_TDT = reg.TDT.offset // 4
_TXDCTL = reg.TXDCTL.offset // 4

_TE = reg.DMATXCTL.mask("TE")
_ENABLE = reg.TXDCTL.mask("ENABLE")
_OFFLOADS = reg.TX_TIMESTAMP | reg.TX_VLE | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM
_LEGACY_OFFLOADS = reg.TX_VLE | reg.TX_IC
_ANY_OFFLOAD = _OFFLOADS | _LEGACY_OFFLOADS


@compiled
def can_transmit(rack: Rack, card: int, queue: int) -> bool:
    """Whether a transmit queue is running and has descriptors to send."""
    registers = rack.registers[card]
    at = queue * _QUEUE_STRIDE
    if (
        load_acquire(registers, _TXDCTL + at) & (_ENABLE | HUNG) != _ENABLE
        or load_acquire(registers, _DMATXCTL) & (_TE | TX_CLOSED) != _TE
    ):
        return False
    if not masters(rack, card) or (rack.cards[card, STAGED] != 0 and rack.cards[card, STAGING] != queue):
        return False
    return load_acquire(registers, _TDH + at) != load_acquire(registers, _TDT + at)


@compiled
def fetch(rack: Rack, card: int, queue: int) -> int:
    """Take the next descriptor of a transmit queue (7.2.3); the length of the packet that it completes, else 0.

    The packet's buffers are gathered in the card's staging buffer, so that a packet of several looks like one of one.
    A descriptor that asks for an offload whose kernel is not there yet stays where it is: `LATER`.
    """
    registers = rack.registers[card]
    at = queue * _QUEUE_STRIDE
    size = load_acquire(registers, _TDLEN + at) // reg.DESCRIPTOR_BYTES
    head = load_acquire(registers, _TDH + at)
    if head >= size or load_acquire(registers, _TDT + at) >= size:
        # The ring is nonsense: the queue hangs.
        return LATER if consider(rack, card, queue, BEYOND) == LATER else 0
    word = ring_word(rack, card, _TDBAL + at, _TDBAH + at, head)
    complete = 0
    judged = FINE
    if word >= 0:
        command = load_acquire(rack.words, word + 1)
        # A legacy descriptor, or an advanced one that carries data: context descriptors carry none (7.2.3.2).
        if command & reg.TX_DEXT == 0 or command & reg.TX_DTYP == reg.TX_DATA:
            # Most packets are alike: one buffer, whose length is what PAYLEN says.
            odd = ((command >> reg.TX_PAYLEN_SHIFT) ^ command) & reg.TX_LENGTH_MASK
            odd |= (command ^ rack.cards[card, USUAL]) & FORM
            if odd | rack.cards[card, STAGED]:
                judged = consider(rack, card, queue, command)
                if judged == LATER:
                    return LATER
                if judged == HANGS:
                    return 0
            if command & _ANY_OFFLOAD:
                if lacks(rack, slots.BUILD):
                    return LATER
                offloads = _LEGACY_OFFLOADS if command & reg.TX_DEXT == 0 else _OFFLOADS
                if command & offloads and rack.cards[card, STAGED] == 0:  # later ones say nothing of it (7.2.3.2.4)
                    rack.cards[card, OFFLOAD] = command
            if command & reg.TX_EOP == 0 and rack.cards[card, STAGED] == 0:
                rack.cards[card, FIRST] = command
            gather(rack, card, rack.words[word], command & reg.TX_LENGTH_MASK)
            if command & reg.TX_EOP:
                complete = rack.cards[card, STAGED]
                rack.cards[card, STAGED] = 0
                if judged != FINE:
                    complete = call(rack, slots.LEAVE, card, complete, judged, 0)
                if complete == 0:
                    rack.cards[card, OFFLOAD] = 0  # there was nothing, or nothing could be fetched
            else:
                rack.cards[card, STAGING] = queue
        elif command & reg.TX_DTYP == reg.TX_CONTEXT:
            index = 1 if command & reg.TX_IDX else 0
            rack.contexts[card, queue, index, 0] = rack.words[word]
            rack.contexts[card, queue, index, 1] = command
        else:
            return LATER if consider(rack, card, queue, command) == LATER else 0
        if command & reg.TX_RS and judged != UNREPORTED:
            if rack.cards[card, FEATURES] & REPORT:
                call(rack, slots.REPORT, card, queue, head, word)
            else:
                report(rack, card, queue, word)
    registers[_TDH + at] = head + 1 if head + 1 < size else 0
    return complete


@outlined
def consider(rack: Rack, card: int, queue: int, command: int) -> int:
    """What becomes of a descriptor that is not as most are: FINE, LATER, or what `judge.py` says."""
    staged, usual = rack.cards[card, STAGED], rack.cards[card, USUAL]
    first = rack.cards[card, FIRST] if staged else command
    total = staged + (command & reg.TX_LENGTH_MASK)
    if command == BEYOND or (command & reg.TX_DEXT and command & reg.TX_DTYP != reg.TX_DATA):
        odd = True
    elif command & reg.TX_EOP == 0:
        odd = command & reg.TX_RS != 0
    elif first & reg.TX_DEXT == 0 and usual != 0:
        typed = first & reg.TX_DTYP != 0 and first & _LEGACY_OFFLOADS == 0
        odd = total != 0 and (typed or (first | command) & reg.TX_IFCS == 0)
    else:
        wrong_size = first & reg.TX_TSE == 0 and (first >> reg.TX_PAYLEN_SHIFT) & PAYLEN_MASK != total
        odd = (usual == 0 and total != 0) or first & reg.TX_IFCS == 0 or wrong_size
    if not odd:
        return FINE
    if lacks(rack, slots.JUDGE) or lacks(rack, slots.LEAVE):
        return LATER
    return call(rack, slots.JUDGE, card, queue, command, 0)


@compiled
def report(rack: Rack, card: int, queue: int, word: int) -> None:
    """Write back that a descriptor is done, and tell whom it may interrupt."""
    store_release(rack.words, word + 1, reg.TX_DD)
    if rack.cards[card, FEATURES] & INTERRUPT:
        rack.done[card, reg.QUEUES + queue] = 1
        rack.cards[card, RAISED] = 1


@compiled
def count_sent(rack: Rack, card: int, queue: int, start: int, length: int) -> None:
    """Count a frame that leaves; it lies on the tape, its length is without the frame check sequence."""
    counters = rack.counters[card]
    counters[TX_SIZES + size_class(length)] += 1
    rack.queues[card, queue, QUEUE_TX] += 1
    rack.queues[card, queue, QUEUE_TX_BYTES] += length + CRC_BYTES
    if rack.tape[start] & 1:
        counters[TX_BROADCAST if is_broadcast(rack.tape, start) else TX_MULTICAST] += 1


@compiled
def gather(rack: Rack, card: int, address: int, size: int) -> None:
    """Append one buffer to the card's staging buffer, padded with zeros as far as a minimal frame (8.2.3.22.8).

    A null descriptor has no buffer (7.2.3.3).
    """
    staged = rack.cards[card, STAGED]
    stage = card * SLOT
    if size == 0 or staged + size > STAGE_SIZE - MIN_FRAME:
        return
    if not dma_read(rack, card, address, rack.tape, stage + staged, size):
        return
    for i in range(staged + size, MIN_FRAME):
        rack.tape[stage + i] = 0
    rack.cards[card, STAGED] = staged + size
