"""How a simulated 82599 sends: descriptors are fetched and their buffers gathered, status is written back.

Each kernel works on one card of a rack. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.dma import dma_read, masters, ring_word
from ixy.sim.card.frame import CRC_BYTES, is_broadcast, size_class
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import (
    FEATURES,
    HUNG,
    INTERRUPT,
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
from ixy.sim.slots import EMPTY, call
from ixy.unsafe import load_acquire, store_release

LATER = EMPTY  # what `fetch` answers if it has to be asked again
NOWHERE = -1  # in the place of a descriptor: the ring is nonsense, there is none

# What the descriptor of a packet looks like about which there is nothing to say: advanced, ends the packet, asks for a
# check sequence and no offload, and has no more bytes than fit into one (7.2.3.2.4). The two highest bits of PAYLEN are
# those of a signed word.
USUAL_FORM = reg.TX_DEXT | reg.TX_DATA | reg.TX_IFCS | reg.TX_EOP
_OFFLOADS = reg.TX_TIMESTAMP | reg.TX_VLE | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM | reg.TX_IC
_FORM = reg.TX_DEXT | reg.TX_DTYP | reg.TX_IFCS | reg.TX_EOP | _OFFLOADS | -1 << 62

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

    The packet is gathered in the card's staging buffer. Most are alike: one buffer, whose length is what PAYLEN says,
    and no offload. What else a descriptor may be, the kernel in the slot FETCH takes, see `descriptors.py`. Less than 0
    if the descriptor stays where it is: the queue hangs, or, `LATER`, a kernel is not there yet.
    """
    registers, own = rack.registers[card], rack.cards[card]
    at = queue * _QUEUE_STRIDE
    size = load_acquire(registers, _TDLEN + at) // reg.DESCRIPTOR_BYTES
    head = load_acquire(registers, _TDH + at)
    if head >= size or load_acquire(registers, _TDT + at) >= size:
        return call(rack, slots.FETCH, card, queue, head, NOWHERE)
    word = ring_word(rack, card, _TDBAL + at, _TDBAH + at, head)
    length = 0
    if word >= 0:
        command = load_acquire(rack.words, word + 1)
        odd = ((command >> reg.TX_PAYLEN_SHIFT) ^ command) & reg.TX_LENGTH_MASK
        if odd | (command ^ own[USUAL]) & _FORM | own[STAGED]:
            length = call(rack, slots.FETCH, card, queue, head, word)
            if length < 0:
                return length
        else:
            length = gather(rack, card, rack.words[word], 0, command & reg.TX_LENGTH_MASK)
            if command & reg.TX_RS:
                finish(rack, card, queue, head, word)
    registers[_TDH + at] = head + 1 if head + 1 < size else 0
    return length


@compiled
def finish(rack: Rack, card: int, queue: int, head: int, word: int) -> None:
    """The descriptor at `head` of a queue's ring, at `word` in memory, is done, and its driver wants to know."""
    if rack.cards[card, FEATURES] & REPORT:
        call(rack, slots.REPORT, card, queue, head, word)
    else:
        report(rack, card, queue, word)


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
def gather(rack: Rack, card: int, address: int, staged: int, size: int) -> int:
    """Append one buffer to the `staged` bytes in the card's staging buffer; how many they are then.

    They are padded with zeros as far as a minimal frame (8.2.3.22.8). A null descriptor has no buffer (7.2.3.3).
    """
    stage = card * SLOT
    if size == 0 or staged + size > STAGE_SIZE - MIN_FRAME:
        return staged
    if not dma_read(rack, card, address, rack.tape, stage + staged, size):
        return staged
    for i in range(staged + size, MIN_FRAME):
        rack.tape[stage + i] = 0
    return staged + size
