"""How a simulated 82599 reports what it has sent, where it does not write each descriptor back that asks for it.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim.card import transmit
from ixy.sim.card.dma import dma_write, ring_word
from ixy.sim.card.state import (
    FEATURES,
    HEAD,
    INTERRUPT,
    PENDING,
    POOL_SHIFT,
    QUEUE_UNREPORTED,
    QUEUE_UNREPORTED_FROM,
    RAISED,
    REPORTING,
    TX_QUEUES,
    VIRTUAL,
)
from ixy.sim.rack import SLOT, Rack
from ixy.sim.slots import FUNCTION, REPORT, WRITE_BACK, belongs_in, call
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STRIDE = reg.TDBAL.stride // 4
_TDBAL = reg.TDBAL.offset // 4
_TDBAH = reg.TDBAH.offset // 4
_TDLEN = reg.TDLEN.offset // 4
_TDH = reg.TDH.offset // 4
_TXDCTL = reg.TXDCTL.offset // 4
_TDWBAL = reg.TDWBAL.offset // 4
_TDWBAH = reg.TDWBAH.offset // 4

_CONTROLS, _PLACES = (np.array(row.offsets, np.intp) // 4 for row in (reg.TXDCTL, reg.TDWBAL))

_WTHRESH_SHIFT, _WTHRESH = 16, 0x7F
_HEAD_WB_EN = reg.TDWBAL.mask("HEAD_WB_EN")
_HEAD_BYTES = 4


def is_batched(registers: NDArray[np.uint32]) -> bool:
    """Whether a queue that runs has its head written back, or several descriptors at a time."""
    running = registers[_CONTROLS] & reg.TXDCTL.mask("ENABLE") != 0
    several = registers[_CONTROLS] & reg.TXDCTL.mask("WTHRESH") > reg.TXDCTL.value(WTHRESH=1)
    return bool((running & (several | (registers[_PLACES] & _HEAD_WB_EN != 0))).any())


@belongs_in(REPORT)
def _report(image: Any, card: int, queue: int, head: int, word: int) -> int:
    report(image[0], card, queue, head, word)
    return 0


@belongs_in(WRITE_BACK)
def _write_back(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    rack = image[0]
    for queue in range(rack.cards[card, TX_QUEUES]):
        if rack.queues[card, queue, QUEUE_UNREPORTED] > 0:
            if rack.cards[card, FEATURES] & VIRTUAL:
                call(rack, FUNCTION, card, queue >> rack.cards[card, POOL_SHIFT], 0, 0)
            write_back(rack, card, queue, int(rack.registers[card, _TDH + queue * _STRIDE]))
    rack.cards[card, PENDING] &= ~REPORTING
    if rack.cards[card, FEATURES] & VIRTUAL:
        call(rack, FUNCTION, card, -1, 0, 0)
    return 0


@compiled
def report(rack: Rack, card: int, queue: int, head: int, word: int) -> None:
    """The descriptor at `head` of a queue's ring, at `word` in memory, is done, and is to be reported (7.2.3.5)."""
    registers, own = rack.registers[card], rack.queues[card, queue]
    at = queue * _STRIDE
    size = load_acquire(registers, _TDLEN + at) // reg.DESCRIPTOR_BYTES
    behind = head + 1 if head + 1 < size else 0
    threshold = (load_acquire(registers, _TXDCTL + at) >> _WTHRESH_SHIFT) & _WTHRESH
    if load_acquire(registers, _TDWBAL + at) & _HEAD_WB_EN:
        write_head(rack, card, queue, behind)
    elif threshold <= 1:
        transmit.report(rack, card, queue, word)
    else:
        if own[QUEUE_UNREPORTED] == 0:
            own[QUEUE_UNREPORTED_FROM] = head
        own[QUEUE_UNREPORTED] += 1
        rack.cards[card, PENDING] |= REPORTING
        if own[QUEUE_UNREPORTED] >= threshold:
            write_back(rack, card, queue, behind)


@compiled
def write_head(rack: Rack, card: int, queue: int, head: int) -> None:
    """Write the head to memory, and no descriptor (7.2.3.5.2)."""
    registers = rack.registers[card]
    at, place = queue * _STRIDE, card * SLOT + HEAD
    for i in range(_HEAD_BYTES):
        rack.tape[place + i] = (head >> 8 * i) & 0xFF
    address = (load_acquire(registers, _TDWBAH + at) << 32) | (load_acquire(registers, _TDWBAL + at) & 0xFFFFFFFC)
    dma_write(rack, card, address, rack.tape, place, _HEAD_BYTES)
    if rack.cards[card, FEATURES] & INTERRUPT:
        rack.done[card, reg.QUEUES + queue] = 1
        rack.cards[card, RAISED] = 1


@compiled
def write_back(rack: Rack, card: int, queue: int, end: int) -> None:
    """Write back the descriptors before `end` of which it was put off, where they ask for it (7.2.3.5.1)."""
    registers, own = rack.registers[card], rack.queues[card, queue]
    at = queue * _STRIDE
    size = load_acquire(registers, _TDLEN + at) // reg.DESCRIPTOR_BYTES
    index = int(own[QUEUE_UNREPORTED_FROM])
    own[QUEUE_UNREPORTED] = 0
    while index != end and index < size:
        word = ring_word(rack, card, _TDBAL + at, _TDBAH + at, index)
        if word >= 0 and load_acquire(rack.words, word + 1) & reg.TX_RS:
            transmit.report(rack, card, queue, word)
        index = index + 1 if index + 1 < size else 0
