"""How a simulated 82599 receives into descriptors that are not advanced ones of one buffer: legacy, header split.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim.card.dma import dma_write, ring_word
from ixy.sim.card.layers import TCP, UDP, parse
from ixy.sim.card.state import NO_ROOM, PLAIN, RX_JUMP, RX_LOWER_BITS, RX_STRIDE, TAIL, WORD_0, WORD_1, WRITTEN
from ixy.sim.rack import Rack
from ixy.sim.slots import FORMATS, belongs_in
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RDBAL = reg.RDBAL.offset // 4
_RDBAH = reg.RDBAH.offset // 4
_RDLEN = reg.RDLEN.offset // 4
_RDH = reg.RDH.offset // 4
_SRRCTL = reg.SRRCTL.offset // 4
_RXCSUM = reg.RXCSUM.offset // 4
_PSRTYPE = reg.PSRTYPE.offset // 4

_CONTROLS, _KINDS = (np.array(row.offsets, np.intp) // 4 for row in (reg.RXDCTL, reg.SRRCTL))

_BSIZEPACKET = reg.SRRCTL.mask("BSIZEPACKET")  # in KiB
_BSIZEHEADER_SHIFT = 8 - 6  # in 64 bytes
_BSIZEHEADER = reg.SRRCTL.mask("BSIZEHEADER")
_DESCTYPE_SHIFT = 25
_PCSD = reg.RXCSUM.mask("PCSD")
_TCPHDR, _UDPHDR = reg.PSRTYPE.mask("TCPHDR"), reg.PSRTYPE.mask("UDPHDR")
_IPV4HDR, _IPV6HDR = reg.PSRTYPE.mask("IPV4HDR"), reg.PSRTYPE.mask("IPV6HDR")
_L2HDR = reg.PSRTYPE.mask("L2HDR")

_LONGEST_HEADER = 1023  # HDR_LEN has 10 bits
_ERRORS_SHIFT, _ERRORS = 24, 0xC0  # from an advanced descriptor's IPE and L4E to those of a legacy one
_STATUS = 0xFF


def are_used(registers: NDArray[np.uint32]) -> bool:
    """Whether a queue that runs has them."""
    running = registers[_CONTROLS] & reg.RXDCTL.mask("ENABLE") != 0
    kinds = registers[_KINDS] & reg.SRRCTL.mask("DESCTYPE")
    return bool((running & (kinds != reg.SRRCTL.value(DESCTYPE=reg.DESCTYPE_ADVANCED))).any())


@belongs_in(FORMATS)
def _formats(image: Any, card: int, queue: int, start: int, length: int) -> int:
    return place(image[0], card, queue, start, length)


@compiled
def place(rack: Rack, card: int, queue: int, start: int, length: int) -> int:
    """Fill buffers of a queue by its SRRCTL.DESCTYPE; what became of the frame. Reserved types lose it (8.2.3.8.7)."""
    registers = rack.registers[card]
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    control = load_acquire(registers, _SRRCTL + at)
    kind = (control >> _DESCTYPE_SHIFT) & 7
    buffer_size = (control & _BSIZEPACKET) << 10
    if kind == reg.DESCTYPE_ADVANCED:
        return PLAIN
    if kind == reg.DESCTYPE_LEGACY:
        return fill_legacy(rack, card, at, buffer_size, start, length)
    if kind in (reg.DESCTYPE_SPLIT, reg.DESCTYPE_SPLIT_ALWAYS):
        room = (control & _BSIZEHEADER) >> _BSIZEHEADER_SHIFT
        return fill_split(rack, card, at, buffer_size, room, kind == reg.DESCTYPE_SPLIT_ALWAYS, start, length)
    return NO_ROOM


@compiled
def free_descriptors(registers: NDArray[np.uint32], at: int, tail: int) -> int:
    """How many descriptors of a ring are the card's, up to a `tail` that lies in the ring."""
    free = tail - load_acquire(registers, _RDH + at)
    return free if free >= 0 else free + load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES


@compiled
def next_descriptor(registers: NDArray[np.uint32], at: int) -> None:
    """The head moves on."""
    head = load_acquire(registers, _RDH + at) + 1
    registers[_RDH + at] = head if head < load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES else 0


@compiled
def fill_legacy(rack: Rack, card: int, at: int, buffer_size: int, start: int, length: int) -> int:
    """Legacy descriptors: the address stays, status and errors are at other places (7.1.5)."""
    registers = rack.registers[card]
    if free_descriptors(registers, at, rack.cards[card, TAIL]) * buffer_size < length:
        return NO_ROOM
    found = legacy_status(rack, card)
    done = 0
    while done < length:
        part = min(buffer_size, length - done)
        word = ring_word(rack, card, _RDBAL + at, _RDBAH + at, load_acquire(registers, _RDH + at))
        if word < 0 or not dma_write(rack, card, rack.words[word], rack.tape, start + done, part):
            break
        done += part
        last = found | reg.RX_LEGACY_EOP if done == length else 0
        store_release(rack.words, word + 1, last | reg.RX_LEGACY_DD | part)
        next_descriptor(registers, at)
    return WRITTEN


@compiled
def legacy_status(rack: Rack, card: int) -> int:
    """What was found out about a frame, as the last of its legacy descriptors says it, but for DD and EOP."""
    own = rack.cards[card]
    word_0, word_1 = own[WORD_0], own[WORD_1]
    summed = load_acquire(rack.registers[card], _RXCSUM) & _PCSD == 0
    fragment = (word_0 >> reg.RX_FRAGMENT_SHIFT) & 0xFFFF if summed else 0
    tag = (word_1 >> reg.RX_VLAN_SHIFT) << reg.RX_VLAN_SHIFT
    errors = (word_1 >> _ERRORS_SHIFT) & _ERRORS
    return (
        tag
        | (errors << reg.RX_LEGACY_ERRORS_SHIFT)
        | ((word_1 & _STATUS) << reg.RX_LEGACY_STATUS_SHIFT)
        | (fragment << reg.RX_LEGACY_FRAGMENT_SHIFT)
    )


@compiled
def fill_split(
    rack: Rack, card: int, at: int, buffer_size: int, room: int, always: bool, start: int, length: int
) -> int:
    """Headers go to the first descriptor's header buffer of `room` bytes, what is behind them to the others (7.1.10).

    If that buffer is `always` used, a frame that fits goes there as a whole, and of another one whose headers do not
    fit or are not known, as much as fits.
    """
    registers, own = rack.registers[card], rack.cards[card]
    header = header_length(rack, card, start, length)
    fits = 0 < header <= room
    told = reg.RX_SPH | (header << reg.RX_HDR_LEN_SHIFT) if header > 0 else 0
    done = header if fits else 0
    if always and length <= room:
        done, told = length, min(length, _LONGEST_HEADER) << reg.RX_HDR_LEN_SHIFT
    elif always and not fits:
        done = room
        told = told if header > 0 else min(room, _LONGEST_HEADER) << reg.RX_HDR_LEN_SHIFT
    status = reg.RX_HBO if header > room and done < length else 0
    free = free_descriptors(registers, at, own[TAIL])
    if free == 0 or free * buffer_size < length - done:
        return NO_ROOM
    word = ring_word(rack, card, _RDBAL + at, _RDBAH + at, load_acquire(registers, _RDH + at))
    if word < 0 or (done > 0 and not dma_write(rack, card, rack.words[word + 1] & ~1, rack.tape, start, done)):
        return WRITTEN
    while word >= 0:
        part = min(buffer_size, length - done)
        if part > 0 and not dma_write(rack, card, rack.words[word], rack.tape, start + done, part):
            break
        done += part
        last = done == length
        rack.words[word] = told | (own[WORD_0] if last else 0)
        status |= reg.RX_DD | (reg.RX_EOP | own[WORD_1] if last else 0)
        store_release(rack.words, word + 1, status | (part << reg.RX_LENGTH_SHIFT))
        next_descriptor(registers, at)
        if last:
            break
        told = status = 0
        word = ring_word(rack, card, _RDBAL + at, _RDBAH + at, load_acquire(registers, _RDH + at))
    return WRITTEN


@compiled
def header_length(rack: Rack, card: int, start: int, length: int) -> int:
    """The bytes of the headers as far as PSRTYPE lets them be split off, 0 if it names none that is there (7.1.10)."""
    layers = parse(rack.registers[card], rack.tape, start, length)
    split = load_acquire(rack.registers[card], _PSRTYPE)
    end = start
    if layers.transport_size > 0 and (
        (layers.protocol == TCP and split & _TCPHDR) or (layers.protocol == UDP and split & _UDPHDR)
    ):
        end = layers.transport + layers.transport_size
    elif (layers.version == 4 and split & _IPV4HDR) or (layers.version == 6 and split & _IPV6HDR):
        end = layers.transport
    elif split & _L2HDR:
        end = layers.network
    return end - start if end - start <= _LONGEST_HEADER else 0
