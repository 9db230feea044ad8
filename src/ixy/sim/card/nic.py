"""The part of a simulated 82599 that works on packets: filters, rings, DMA, write-back, counting.

Each kernel works on one card of a rack. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.iommu import READ, WRITE
from ixy.sim.card.judge import BEYOND, FINE, FORM, HANGS, PAYLEN_MASK, UNREPORTED
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import (
    BROKEN,
    BUS_MASTER,
    CHECK_VLAN,
    CLASSIFY,
    DMA_ADDRESS,
    DMA_REFUSED,
    FEATURES,
    FIRST,
    HUNG,
    INTERRUPT,
    OFFLOAD,
    QUEUE,
    QUEUE_DROPPED,
    QUEUE_RX,
    QUEUE_RX_BYTES,
    QUEUE_TX,
    QUEUE_TX_BYTES,
    RAISED,
    ROOT_TABLE,
    RX_BROADCAST,
    RX_CLOSED,
    RX_FILTERED,
    RX_JUMP,
    RX_LOST_BYTES,
    RX_LOWER_BITS,
    RX_MISSED,
    RX_MULTICAST,
    RX_NO_DESCRIPTOR,
    RX_OVERSIZE,
    RX_QUEUES,
    RX_REFUSED_BYTES,
    RX_SIZES,
    RX_STRIDE,
    RX_TAIL,
    RX_UNDERSIZE,
    SPOILT,
    STAGE_SIZE,
    STAGED,
    STAGING,
    STRIP_VLAN,
    STRIPPED,
    TAG_WORD,
    TX_BROADCAST,
    TX_CLOSED,
    TX_MULTICAST,
    TX_SIZES,
    USUAL,
    WORD_0,
    WORD_1,
)
from ixy.sim.rack import ALARM, PAGE, PAGE_SHIFT, SLOT, Rack
from ixy.sim.slots import call, lacks
from ixy.unsafe import copy, load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

CRC_BYTES = 4
MAX_FRAME = 1518  # with it, unless jumbo frames are enabled (8.2.3.22.8)
LONGEST_FRAME = 15872  # whatever MAXFRS says (1.3)
VLAN_BYTES = 4
LATER = -1  # what `fetch` answers if it has to be asked again

# Word indices into BAR 0
_RXCTRL = reg.RXCTRL.offset // 4
_FCTRL = reg.FCTRL.offset // 4
_HLREG0 = reg.HLREG0.offset // 4
_MAXFRS = reg.MAXFRS.offset // 4
_MCSTCTRL = reg.MCSTCTRL.offset // 4
_MTA = reg.MTA.offset // 4
_RAL = reg.RAL.offset // 4
_DMATXCTL = reg.DMATXCTL.offset // 4
_CTRL = reg.CTRL.offset // 4
_QUEUE_STRIDE = reg.RDBAL.stride // 4
_RDBAL = reg.RDBAL.offset // 4
_RDBAH = reg.RDBAH.offset // 4
_RDLEN = reg.RDLEN.offset // 4
_RDH = reg.RDH.offset // 4
_RDT = reg.RDT.offset // 4
_RXDCTL = reg.RXDCTL.offset // 4
_SRRCTL = reg.SRRCTL.offset // 4
_TDBAL = reg.TDBAL.offset // 4
_TDBAH = reg.TDBAH.offset // 4
_TDLEN = reg.TDLEN.offset // 4
_TDH = reg.TDH.offset // 4
_TDT = reg.TDT.offset // 4
_TXDCTL = reg.TXDCTL.offset // 4

_RXEN = reg.RXCTRL.mask("RXEN")
_MPE, _UPE, _BAM = reg.FCTRL.mask("MPE"), reg.FCTRL.mask("UPE"), reg.FCTRL.mask("BAM")
_JUMBOEN = reg.HLREG0.mask("JUMBOEN")
_TE = reg.DMATXCTL.mask("TE")
_ENABLE = reg.RXDCTL.mask("ENABLE")  # at the same place in TXDCTL
_VME = reg.RXDCTL.mask("VME")
_OFFLOADS = reg.TX_VLE | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM
_LEGACY_OFFLOADS = reg.TX_VLE | reg.TX_IC
_ANY_OFFLOAD = _OFFLOADS | _LEGACY_OFFLOADS
_DROP_EN = reg.SRRCTL.mask("DROP_EN")
_BSIZEPACKET = reg.SRRCTL.mask("BSIZEPACKET")  # in KiB
_MASTER_DISABLE = reg.CTRL.mask("PCIE_MASTER_DISABLE")
_AV = reg.RAH.mask("AV")
_MFE = reg.MCSTCTRL.mask("MFE")
_RECEIVE_ADDRESSES = reg.RAL.count


# ---------------------------------------------------------------------------------------------------------------------
# DMA


@compiled
def dma(rack: Rack, card: int, address: int, size: int, access: int) -> int:
    """The offset in memory of a bus address, or -1 if the card may not touch all of these bytes.

    They must lie in one page where an IOMMU stands before the card. A refused access is counted, and its address kept.
    """
    offset = address - rack.base
    if rack.cards[card, ROOT_TABLE] != 0:
        offset = call(rack, slots.TRANSLATE, card, address, access, 0)
    if offset >= 0 and size > 0 and offset + size <= rack.memory.size:
        page = offset >> PAGE_SHIFT
        last = (offset + size - 1) >> PAGE_SHIFT
        while page <= last and load_acquire(rack.allowed, page) != 0:
            page += 1
        if page > last:
            return offset
    rack.counters[card, DMA_REFUSED] += 1
    rack.counters[card, DMA_ADDRESS] = address
    return -1


@compiled
def run_length(rack: Rack, card: int, address: int, size: int) -> int:
    """How many of `size` bytes at a bus address lie together: an IOMMU scatters pages."""
    return size if rack.cards[card, ROOT_TABLE] == 0 else min(size, PAGE - address % PAGE)


@compiled
def dma_read(rack: Rack, card: int, address: int, target: NDArray[np.uint8], to: int, size: int) -> bool:
    """Read `size` bytes of memory at a bus address; False if the card may not."""
    done = 0
    while True:
        part = run_length(rack, card, address + done, size - done)
        place = dma(rack, card, address + done, part, READ)
        if place < 0:
            return False
        copy(target, to + done, rack.memory, place, part)
        done += part
        if done >= size:
            return True


@compiled
def dma_write(rack: Rack, card: int, address: int, source: NDArray[np.uint8], start: int, size: int) -> bool:
    """Write `size` bytes to memory at a bus address; False if the card may not."""
    done = 0
    while True:
        part = run_length(rack, card, address + done, size - done)
        place = dma(rack, card, address + done, part, WRITE)
        if place < 0:
            return False
        copy(rack.memory, place, source, start + done, part)
        done += part
        if done >= size:
            return True


@compiled
def masters(rack: Rack, card: int) -> bool:
    """Whether the card may use the bus: the command register allows it, and no master disable is on (5.2.5.3.2)."""
    disabled = load_acquire(rack.registers[card], _CTRL) & _MASTER_DISABLE
    return disabled == 0 and rack.cards[card, BUS_MASTER] != 0


@compiled
def ring_word(rack: Rack, card: int, low: int, high: int, slot: int) -> int:
    """The index in `words` of a descriptor whose ring's base is in registers `low` and `high`, or -1."""
    registers = rack.registers[card]
    base = (load_acquire(registers, high) << 32) | (load_acquire(registers, low) & 0xFFFFFF80)
    offset = dma(rack, card, base + slot * reg.DESCRIPTOR_BYTES, reg.DESCRIPTOR_BYTES, READ | WRITE)
    return offset >> 3 if offset >= 0 else -1


# ---------------------------------------------------------------------------------------------------------------------
# Receive


@compiled
def can_receive(rack: Rack, card: int) -> bool:
    """Whether a frame that arrived now would find a free descriptor, whatever its queue."""
    registers = rack.registers[card]
    if load_acquire(registers, _RXCTRL) & _RXEN == 0:
        return False
    running = 0
    for queue in range(rack.cards[card, RX_QUEUES]):
        at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
        if load_acquire(registers, _RXDCTL + at) & _ENABLE:
            if load_acquire(registers, _RDH + at) == load_acquire(registers, _RDT + at):
                return False
            running += 1
    return running > 0


@compiled
def receive(rack: Rack, card: int, start: int, length: int) -> None:
    """A frame on the tape, of `length` bytes without its frame check sequence, arrives at the card's port (7.1)."""
    registers, counters, tape = rack.registers[card], rack.counters[card], rack.tape
    features = rack.cards[card, FEATURES]
    path = load_acquire(registers, _RXCTRL) & (_RXEN | RX_CLOSED)
    if path != _RXEN:
        if path & _RXEN:
            lose(rack, card, RX_MISSED, length)
        return
    if length < MIN_FRAME:
        refuse(counters, RX_UNDERSIZE, length)
        return
    if length + CRC_BYTES > longest_frame(registers, tape, start):
        refuse(counters, RX_OVERSIZE, length)
        return
    if not accepts(registers, tape, start) or (
        features & CHECK_VLAN and call(rack, slots.CHECK_VLAN, card, start, 0, 0) == 0
    ):
        refuse(counters, RX_FILTERED, length)
        return
    counters[RX_SIZES + size_class(length)] += 1
    if tape[start] & 1:
        counters[RX_BROADCAST if is_broadcast(tape, start) else RX_MULTICAST] += 1
    if features & CLASSIFY:
        call(rack, slots.CLASSIFY, card, start, length, 0)
        own = rack.cards[card]
        store(rack, card, own[QUEUE], start, length, own[WORD_0], own[WORD_1])
    else:
        store(rack, card, 0, start, length, 0, 0)


@compiled
def refuse(counters: NDArray[np.int64], reason: int, length: int) -> None:
    counters[reason] += 1
    counters[RX_REFUSED_BYTES] += length + CRC_BYTES


@compiled
def size_class(length: int) -> int:
    """Which of the six counters of sizes a frame belongs to (8.2.3.23.10)."""
    total = length + CRC_BYTES
    if total <= 64:
        return 0
    return 1 + (total > 127) + (total > 255) + (total > 511) + (total > 1023)


@compiled
def longest_frame(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int) -> int:
    """The longest frame that is accepted, with its frame check sequence (8.2.3.22.8, 8.2.3.22.13)."""
    limit = MAX_FRAME
    if load_acquire(registers, _HLREG0) & _JUMBOEN:
        limit = min(load_acquire(registers, _MAXFRS) >> 16, LONGEST_FRAME)
    return limit + VLAN_BYTES if is_tagged(source, start) else limit


@compiled
def is_broadcast(source: NDArray[np.uint8], start: int) -> bool:
    for i in range(6):
        if source[start + i] != 0xFF:
            return False
    return True


@compiled
def accepts(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int) -> bool:
    """Filter by destination address (7.1.1.1)."""
    control = load_acquire(registers, _FCTRL)
    if source[start] & 1 == 0:
        return control & _UPE != 0 or matches_station(registers, source, start)
    if is_broadcast(source, start):
        return control & _BAM != 0
    return control & _MPE != 0 or matches_station(registers, source, start) or matches_table(registers, source, start)


@compiled
def matches_station(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int) -> bool:
    """Exact match with one of the receive addresses (8.2.3.7.8)."""
    low = 0
    for i in range(4):
        low |= np.int64(source[start + i]) << (8 * i)
    high = source[start + 4] | (np.int64(source[start + 5]) << 8) | _AV
    for i in range(_RECEIVE_ADDRESSES):
        if (
            load_acquire(registers, _RAL + 2 * i) == low
            and load_acquire(registers, _RAL + 2 * i + 1) & (_AV | 0xFFFF) == high
        ):
            return True
    return False


@compiled
def matches_table(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int) -> bool:
    """Hash match in the multicast table: 12 bits of the address, chosen by MCSTCTRL.MO (7.1.1.1.2)."""
    control = load_acquire(registers, _MCSTCTRL)
    if control & _MFE == 0:
        return False
    shift = 4 - (control & 3) if control & 3 < 3 else 0
    bits = ((source[start + 4] | (np.int64(source[start + 5]) << 8)) >> shift) & 0xFFF
    return (load_acquire(registers, _MTA + (bits >> 5)) >> (bits & 31)) & 1 != 0


@compiled
def store(rack: Rack, card: int, queue: int, start: int, length: int, word_0: int, word_1: int) -> None:
    """DMA a frame into as many buffers of a queue as it needs, and write the descriptors back (7.1.5, 7.1.6).

    The last descriptor says what `word_0` and `word_1` do, too.
    """
    registers = rack.registers[card]
    features = rack.cards[card, FEATURES]
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    size = load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES
    head = load_acquire(registers, _RDH + at)
    tail = load_acquire(registers, _RDT + at)
    control = load_acquire(registers, _RXDCTL + at)
    buffer_size = (load_acquire(registers, _SRRCTL + at) & _BSIZEPACKET) << 10
    if not masters(rack, card) or control & (_ENABLE | HUNG) != _ENABLE:
        lose(rack, card, RX_MISSED, length)
        return
    if size == 0 or head >= size or tail >= size or buffer_size == 0:
        if size != 0 and buffer_size != 0:
            rack.counters[card, BROKEN + 2 * RX_TAIL] += 1
            rack.counters[card, BROKEN + 2 * RX_TAIL + 1] = queue << 32 | head
            store_release(rack.control, ALARM, 1)
        lose(rack, card, RX_MISSED, length)
        return
    if control & SPOILT:
        start = call(rack, slots.SPOIL, card, queue, start, length)
    if features & STRIP_VLAN and control & _VME and is_tagged(rack.tape, start):
        length = call(rack, slots.STRIP_VLAN, card, start, length, 0)
        word_1 |= rack.cards[card, TAG_WORD]
        start = card * SLOT + STRIPPED
    free = tail - head if tail >= head else tail - head + size
    if free * buffer_size < length:
        if load_acquire(registers, _SRRCTL + at) & _DROP_EN:
            lose(rack, card, RX_NO_DESCRIPTOR, length)
            rack.queues[card, queue, QUEUE_DROPPED] += 1
        else:
            lose(rack, card, RX_MISSED, length)
        return
    registers[_RDH + at] = fill(rack, card, at, head, size, buffer_size, start, length, word_0, word_1)
    rack.queues[card, queue, QUEUE_RX] += 1
    rack.queues[card, queue, QUEUE_RX_BYTES] += length + CRC_BYTES
    if features & INTERRUPT:
        rack.done[card, queue] = 1
        rack.cards[card, RAISED] = 1


@compiled
def lose(rack: Rack, card: int, reason: int, length: int) -> None:
    rack.counters[card, reason] += 1
    rack.counters[card, RX_LOST_BYTES] += length + CRC_BYTES


@compiled
def is_tagged(source: NDArray[np.uint8], start: int) -> bool:
    return source[start + 12] == 0x81 and source[start + 13] == 0x00


@compiled
def fill(
    rack: Rack,
    card: int,
    at: int,
    head: int,
    size: int,
    buffer_size: int,
    start: int,
    length: int,
    word_0: int,
    word_1: int,
) -> int:
    """Fill buffers from descriptor `head` of a ring of `size` on; the new head. The last descriptor gets the words."""
    done = 0
    while done < length:
        part = min(buffer_size, length - done)
        last = done + part == length
        status = (word_1 | reg.RX_EOP if last else 0) | reg.RX_DD | (part << reg.RX_LENGTH_SHIFT)
        if not store_part(rack, card, at, head, start + done, part, word_0 if last else 0, status):
            break
        done += part
        head = head + 1 if head + 1 < size else 0
    return head


@compiled
def store_part(rack: Rack, card: int, at: int, head: int, start: int, part: int, word_0: int, word_1: int) -> bool:
    """Fill one buffer and write its descriptor back; False if the card may not touch one of them."""
    word = ring_word(rack, card, _RDBAL + at, _RDBAH + at, head)
    if word < 0:
        return False
    if not dma_write(rack, card, rack.words[word], rack.tape, start, part):
        return False
    rack.words[word] = word_0
    store_release(rack.words, word + 1, word_1)
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


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
                note_offload(rack, card, command)
            if command & reg.TX_EOP == 0 and rack.cards[card, STAGED] == 0:
                rack.cards[card, FIRST] = command
            gather(rack, card, rack.words[word], command & reg.TX_LENGTH_MASK)
            if command & reg.TX_EOP:
                complete = rack.cards[card, STAGED]
                rack.cards[card, STAGED] = 0
                if judged != FINE:
                    complete = call(rack, slots.LEAVE, card, complete, judged, 0)
                if complete == 0:
                    rack.cards[card, OFFLOAD] = 0  # nothing could be fetched: the packet is gone
            else:
                rack.cards[card, STAGING] = queue
        elif command & reg.TX_DTYP == reg.TX_CONTEXT:
            index = 1 if command & reg.TX_IDX else 0
            rack.contexts[card, queue, index, 0] = rack.words[word]
            rack.contexts[card, queue, index, 1] = command
        else:
            return LATER if consider(rack, card, queue, command) == LATER else 0
        if command & reg.TX_RS and judged != UNREPORTED:
            store_release(rack.words, word + 1, reg.TX_DD)
            if rack.cards[card, FEATURES] & INTERRUPT:
                rack.done[card, reg.QUEUES + queue] = 1
                rack.cards[card, RAISED] = 1
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
def note_offload(rack: Rack, card: int, command: int) -> None:
    """Keep the first descriptor of a packet, if it asks for an offload; later ones say nothing of it (7.2.3.2.4)."""
    offloads = _LEGACY_OFFLOADS if command & reg.TX_DEXT == 0 else _OFFLOADS
    if command & offloads and rack.cards[card, STAGED] == 0:
        rack.cards[card, OFFLOAD] = command


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
    """Append one buffer to the card's staging buffer, padded with zeros as far as a minimal frame (8.2.3.22.8)."""
    staged = rack.cards[card, STAGED]
    stage = card * SLOT
    if staged + size > STAGE_SIZE - MIN_FRAME:
        return
    if not dma_read(rack, card, address, rack.tape, stage + staged, size):
        return
    for i in range(staged + size, MIN_FRAME):
        rack.tape[stage + i] = 0
    rack.cards[card, STAGED] = staged + size
