"""How a simulated 82599 receives: what the port accepts, and how it comes into the buffers of a queue.

Each kernel works on one card of a rack. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.dma import dma_write, masters, ring_word
from ixy.sim.card.frame import CRC_BYTES, is_broadcast, size_class, tags
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import (
    BREACHES,
    BUFFER,
    CHECK_VLAN,
    CLASSIFY,
    COALESCE,
    CONTROL,
    FEATURES,
    FILTER,
    FLOW_DROPS,
    FORMATS,
    HUNG,
    INTERRUPT,
    JOINED,
    KEEP_CRC,
    NO_POOL,
    NO_ROOM,
    PLAIN,
    POOLS,
    QUEUE,
    QUEUE_DROPPED,
    QUEUE_RX,
    QUEUE_RX_BYTES,
    RAISED,
    RX_BROADCAST,
    RX_CLOSED,
    RX_FILTERED,
    RX_JUMP,
    RX_KEPT_BYTES,
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
    STAMP,
    STRIP_VLAN,
    STRIPPED,
    TAG_WORD,
    TAIL,
    WORD_0,
    WORD_1,
)
from ixy.sim.rack import ALARM, SLOT, Rack
from ixy.sim.slots import call
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FRAME = 1518  # with its frame check sequence, unless jumbo frames are enabled (8.2.3.22.8)
LONGEST_FRAME = 15872  # whatever MAXFRS says (1.3)

# Word indices into BAR 0
_RXCTRL = reg.RXCTRL.offset // 4
_FCTRL = reg.FCTRL.offset // 4
_HLREG0 = reg.HLREG0.offset // 4
_MAXFRS = reg.MAXFRS.offset // 4
_MCSTCTRL = reg.MCSTCTRL.offset // 4
_MTA = reg.MTA.offset // 4
_PFUTA = reg.PFUTA.offset // 4
_RAL = reg.RAL.offset // 4
_RDBAL = reg.RDBAL.offset // 4
_RDBAH = reg.RDBAH.offset // 4
_RDLEN = reg.RDLEN.offset // 4
_RDH = reg.RDH.offset // 4
_RDT = reg.RDT.offset // 4
_RXDCTL = reg.RXDCTL.offset // 4
_SRRCTL = reg.SRRCTL.offset // 4

_RXEN = reg.RXCTRL.mask("RXEN")
_MPE, _UPE, _BAM = reg.FCTRL.mask("MPE"), reg.FCTRL.mask("UPE"), reg.FCTRL.mask("BAM")
_JUMBOEN = reg.HLREG0.mask("JUMBOEN")
_ENABLE = reg.RXDCTL.mask("ENABLE")
_VME = reg.RXDCTL.mask("VME")
_DROP_EN = reg.SRRCTL.mask("DROP_EN")
_BSIZEPACKET = reg.SRRCTL.mask("BSIZEPACKET")  # in KiB
_AV = reg.RAH.mask("AV")
_MFE = reg.MCSTCTRL.mask("MFE")
_RECEIVE_ADDRESSES = reg.RAL.count


@compiled
def can_receive(rack: Rack, card: int) -> bool:
    """Whether a frame that arrived now would find a free descriptor, whatever its queue; or be lost, as that hangs."""
    registers = rack.registers[card]
    if load_acquire(registers, _RXCTRL) & _RXEN == 0:
        return False
    running = 0
    for queue in range(rack.cards[card, RX_QUEUES]):
        at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
        control = load_acquire(registers, _RXDCTL + at)
        if control & _ENABLE:
            if load_acquire(registers, _RDH + at) == load_acquire(registers, _RDT + at) and control & HUNG == 0:
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
            lose(rack, card, RX_MISSED, RX_LOST_BYTES, length)
        return
    if length < MIN_FRAME:
        lose(rack, card, RX_UNDERSIZE, RX_REFUSED_BYTES, length + CRC_BYTES)
        return
    if is_too_long(registers, tape, start, length):
        lose(rack, card, RX_OVERSIZE, RX_REFUSED_BYTES, length + CRC_BYTES)
        return
    if (
        features & CONTROL
        and (tape[start + 12] == 0x88 and tape[start + 13] == 0x08)  # for the MAC itself (IEEE 802.3, 31.4)
        and call(rack, slots.CONTROL, card, start, 0, 0) != 0
    ):
        lose(rack, card, RX_FILTERED, RX_REFUSED_BYTES, length + CRC_BYTES)
        return
    if not accepts(registers, tape, start) or (
        features & CHECK_VLAN and call(rack, slots.CHECK_VLAN, card, start, 0, 0) == 0
    ):
        lose(rack, card, RX_FILTERED, RX_REFUSED_BYTES, length + CRC_BYTES)
        return
    counters[RX_SIZES + size_class(length)] += 1
    if tape[start] & 1:
        counters[RX_BROADCAST if is_broadcast(tape, start) else RX_MULTICAST] += 1
    status = call(rack, slots.ARRIVED, card, start, length, 0) if features & (STAMP | BUFFER) else 0
    if status < 0:  # it waits
        return
    place(rack, card, start, length, status)


@compiled
def place(rack: Rack, card: int, start: int, length: int, status: int) -> None:
    """Bring a frame that was accepted to its queue, or to several (7.1.2); its descriptor is to say `status`, too."""
    features = rack.cards[card, FEATURES]
    if features & CLASSIFY:
        call(rack, slots.CLASSIFY, card, start, length, 0)
        rack.counters[card, RX_KEPT_BYTES] += CRC_BYTES if features & KEEP_CRC else 0
        own = rack.cards[card]
        own[WORD_1] |= status
        if features & POOLS:
            call(rack, slots.POOLS, card, start, length, 0)
            return
        if features & FILTER and call(rack, slots.FILTER, card, start, length, NO_POOL) == 0:
            lose(rack, card, FLOW_DROPS, RX_LOST_BYTES, length + CRC_BYTES if features & KEEP_CRC else length)
            return
        store(rack, card, own[QUEUE], start, length, own[WORD_0], own[WORD_1])
    else:
        store(rack, card, 0, start, length, 0, status)


@compiled
def is_too_long(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int, length: int) -> bool:
    """Whether a frame is longer than what is accepted; VLAN tags come on top of that (8.2.3.22.8, 8.2.3.22.13)."""
    limit = MAX_FRAME
    if load_acquire(registers, _HLREG0) & _JUMBOEN:
        limit = min(load_acquire(registers, _MAXFRS) >> 16, LONGEST_FRAME)
    if length + CRC_BYTES <= limit:
        return False
    outer, inner = tags(registers, source, start)
    return length + CRC_BYTES > limit + outer + inner


@compiled
def accepts(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int) -> bool:
    """Filter by destination address (7.1.1.1)."""
    control = load_acquire(registers, _FCTRL)
    is_group = source[start] & 1 != 0
    if is_group and is_broadcast(source, start):
        return control & _BAM != 0
    if control & (_MPE if is_group else _UPE):
        return True
    table = _MTA if is_group else _PFUTA
    return station(registers, source, start, 0) >= 0 or matches_table(registers, source, start, table)


@compiled
def station(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int, first: int) -> int:
    """The number of a receive address, from `first` on, that is a frame's destination; -1 if none is (8.2.3.7.8)."""
    low = 0
    for i in range(4):
        low |= np.int64(source[start + i]) << (8 * i)
    high = source[start + 4] | (np.int64(source[start + 5]) << 8) | _AV
    for i in range(first, _RECEIVE_ADDRESSES):
        if (
            load_acquire(registers, _RAL + 2 * i) == low
            and load_acquire(registers, _RAL + 2 * i + 1) & (_AV | 0xFFFF) == high
        ):
            return i
    return -1


@compiled
def matches_table(registers: NDArray[np.uint32], source: NDArray[np.uint8], start: int, table: int) -> bool:
    """Hash match in a table, MTA or PFUTA: 12 bits of the address, chosen by MCSTCTRL.MO (7.1.1.1.2).

    MFE is for both, as DPDK knows, which sets it where it uses PFUTA alone.
    """
    control = load_acquire(registers, _MCSTCTRL)
    if control & _MFE == 0:
        return False
    shift = 4 - (control & 3) if control & 3 < 3 else 0
    bits = ((source[start + 4] | (np.int64(source[start + 5]) << 8)) >> shift) & 0xFFF
    return (load_acquire(registers, table + (bits >> 5)) >> (bits & 31)) & 1 != 0


@compiled
def store(rack: Rack, card: int, queue: int, start: int, length: int, word_0: int, word_1: int) -> None:
    """DMA a frame into as many buffers of a queue as it needs, and write the descriptors back (7.1.5, 7.1.6).

    The last descriptor says what `word_0` and `word_1` do, too. What is counted are the bytes that arrived, and those
    of the check sequence if it is kept (8.2.3.23.74).
    """
    registers = rack.registers[card]
    features = rack.cards[card, FEATURES]
    octets = length + CRC_BYTES if features & KEEP_CRC else length
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    size = load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES
    head = load_acquire(registers, _RDH + at)
    tail = load_acquire(registers, _RDT + at)
    control = load_acquire(registers, _RXDCTL + at)
    buffer_size = (load_acquire(registers, _SRRCTL + at) & _BSIZEPACKET) << 10
    if not masters(rack, card) or control & (_ENABLE | HUNG) != _ENABLE:
        lose(rack, card, RX_MISSED, RX_LOST_BYTES, octets)
        return
    if size == 0 or head >= size or tail >= size or buffer_size == 0:
        broken = BREACHES + 2 * RX_TAIL
        if size != 0 and buffer_size != 0:
            rack.counters[card, broken] += 1
            if rack.counters[card, broken] == 1:  # as in `judge.note`
                rack.counters[card, broken + 1] = queue << 32 | head
                store_release(rack.control, ALARM, 1)
        lose(rack, card, RX_MISSED, RX_LOST_BYTES, octets)
        return
    if control & SPOILT:
        start = call(rack, slots.SPOIL, card, queue, start, length)
    left = length
    if features & (STRIP_VLAN | KEEP_CRC):
        if features & STRIP_VLAN and control & _VME:
            left = call(rack, slots.STRIP_VLAN, card, start, length, 0)
            word_1 |= rack.cards[card, TAG_WORD] if left < length else 0
        unchanged = left == length
        if features & KEEP_CRC:
            left = call(rack, slots.KEEP_CRC, card, start, length, left)
        if features & KEEP_CRC or not unchanged:
            start = card * SLOT + STRIPPED
    placed = PLAIN
    if features & (COALESCE | FORMATS):
        rack.cards[card, WORD_0], rack.cards[card, WORD_1], rack.cards[card, TAIL] = word_0, word_1, tail
        if features & COALESCE:
            placed = call(rack, slots.COALESCE, card, queue, start, left)
        if placed == PLAIN and features & FORMATS:
            placed = call(rack, slots.FORMATS, card, queue, start, left)
    if placed == PLAIN:
        free = tail - head if tail >= head else tail - head + size
        if free * buffer_size >= left:
            registers[_RDH + at] = fill(rack, card, at, head, size, buffer_size, start, left, word_0, word_1)
        else:
            placed = NO_ROOM
    if placed == NO_ROOM:
        if load_acquire(registers, _SRRCTL + at) & _DROP_EN:
            lose(rack, card, RX_NO_DESCRIPTOR, RX_LOST_BYTES, octets)
            rack.queues[card, queue, QUEUE_DROPPED] += 1
        else:
            lose(rack, card, RX_MISSED, RX_LOST_BYTES, octets)
        return
    rack.queues[card, queue, QUEUE_RX] += 1
    rack.queues[card, queue, QUEUE_RX_BYTES] += octets
    if features & INTERRUPT and placed != JOINED:
        rack.done[card, queue] = 1
        rack.cards[card, RAISED] = 1


@compiled
def lose(rack: Rack, card: int, reason: int, place: int, octets: int) -> None:
    """Count a frame that is lost, and its bytes at their place."""
    rack.counters[card, reason] += 1
    rack.counters[card, place] += octets


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
        word = ring_word(rack, card, _RDBAL + at, _RDBAH + at, head)
        if word < 0 or not dma_write(rack, card, rack.words[word], rack.tape, start + done, part):
            break
        done += part
        last = done == length
        rack.words[word] = word_0 if last else 0
        status = (word_1 | reg.RX_EOP if last else 0) | reg.RX_DD | (part << reg.RX_LENGTH_SHIFT)
        store_release(rack.words, word + 1, status)
        head = head + 1 if head + 1 < size else 0
    return head
