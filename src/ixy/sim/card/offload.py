"""What a simulated 82599 does for software to a packet on its way out: checksums, VLAN tags, TCP segmentation.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card.checksum import SCTP_CHECKSUM, fold, ones_sum, sctp_checksum
from ixy.sim.card.frame import MAC_BYTES, TAG_BYTES, half
from ixy.sim.card.layers import IPV4_HEADER, IPV6_HEADER, SCTP_HEADER, TCP_FLAGS, TCP_HEADER, UDP_HEADER
from ixy.sim.card.state import OFFLOAD, SEGMENT
from ixy.sim.rack import SLOT, Rack
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DMATXCTL = reg.DMATXCTL.offset // 4
_DTXTCPFLGL = reg.DTXTCPFLGL.offset // 4
_DTXTCPFLGH = reg.DTXTCPFLGH.offset // 4

_GDV = reg.DMATXCTL.mask("GDV")
MIN_FRAME = 60  # without the frame check sequence
_LONGEST = 16 << 10  # of what can be built; no frame is longer
_TCP_CHECKSUM, _UDP_CHECKSUM = 16, 6
_TCP_SEQUENCE = 4
_ALL_FLAGS, _MIDDLE_SHIFT = 0xFFF, 16
_CHANGES = reg.TX_VLE | reg.TX_IC | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM


@outlined
def build(rack: Rack, card: int, queue: int, length: int, number: int) -> int:
    """Make frame `number` of the packet of `length` bytes in the card's staging buffer; its length, 0 after the last.

    The frame lies at SEGMENT and is padded. A packet that is not segmented gives one frame.
    """
    if rack.cards[card, OFFLOAD] & _CHANGES == 0:
        built = unchanged(rack, card, length) if number == 0 else 0
    elif rack.cards[card, OFFLOAD] & reg.TX_DEXT != 0:
        built = build_advanced(rack, card, queue, length, number)
    else:
        built = build_legacy(rack, card, length) if number == 0 else 0
    at = card * SLOT + SEGMENT
    if built > 0:
        for i in range(built, MIN_FRAME):
            rack.tape[at + i] = 0
        built = max(built, MIN_FRAME)
    return built


@compiled
def unchanged(rack: Rack, card: int, length: int) -> int:
    """A frame of which a descriptor asks something, but no change; its length, 0 if no frame is so long."""
    if length > _LONGEST:
        return 0
    copy(rack.tape, card * SLOT + SEGMENT, rack.tape, card * SLOT, length)
    return length


@compiled
def build_advanced(rack: Rack, card: int, queue: int, length: int, number: int) -> int:
    """The frame of advanced descriptors, by their context (7.2.3.2.3, 7.2.3.2.4)."""
    command = rack.cards[card, OFFLOAD]
    context = rack.contexts[card, queue, 1 if command & reg.TX_IDX else 0]
    first, second = context[0], context[1]
    mac_size = (first >> reg.CONTEXT_MACLEN_SHIFT) & 0x7F
    network_size = first & reg.CONTEXT_IPLEN_MASK
    headers = mac_size + network_size
    transport_size = (second >> reg.CONTEXT_L4LEN_SHIFT) & 0xFF
    segment_size = (second >> reg.CONTEXT_MSS_SHIFT) & 0xFFFF
    segmented = command & reg.TX_TSE != 0
    if segmented:
        headers += transport_size
        if segment_size == 0 or transport_size < TCP_HEADER or headers >= length or mac_size < MAC_BYTES:
            return 0
        done = number * segment_size
        size = min(segment_size, length - headers - done)
    else:
        done, size = 0, length - headers if number == 0 else 0
    if (size <= 0 and (segmented or number > 0 or size < 0)) or headers + size > _LONGEST:
        return 0
    stage, at = card * SLOT, card * SLOT + SEGMENT
    copy(rack.tape, at, rack.tape, stage, headers)
    copy(rack.tape, at + headers, rack.tape, stage + headers + done, size)
    if segmented:
        adapt(rack.tape, at + mac_size, network_size, transport_size, number, done, size, second)
        kept = flags_kept(rack.registers[card], number == 0, headers + done + size == length)
        mask_flags(rack.tape, at + mac_size + network_size, kept)
    if (segmented or command & reg.TX_IXSM) and second & reg.CONTEXT_IPV4 and network_size >= IPV4_HEADER:
        put_checksum(rack.tape, at + mac_size + 10, at + mac_size, at + mac_size + network_size)
    if segmented or command & reg.TX_TXSM:
        kind = (second >> reg.CONTEXT_L4T_SHIFT) & 3
        insert_transport(rack.tape, at + mac_size + network_size, at + headers + size, kind, segmented)
    tag = (first >> reg.CONTEXT_VLAN_SHIFT) & 0xFFFF
    return insert_tag(rack, card, headers + size, tag) if command & reg.TX_VLE else headers + size


@compiled
def build_legacy(rack: Rack, card: int, length: int) -> int:
    """The frame of legacy descriptors (7.2.3.2.1): a checksum of everything from CSS on, a tag."""
    if length > _LONGEST:
        return 0
    command = rack.cards[card, OFFLOAD]
    tape, stage = rack.tape, card * SLOT
    at = stage + SEGMENT
    copy(tape, at, tape, stage, length)
    start, offset = (command >> reg.TX_CSS_SHIFT) & 0xFF, (command >> reg.TX_CSO_SHIFT) & 0xFF
    if command & reg.TX_IC and start < length and offset + 1 < length:
        total = ones_sum(tape, at + start, at + length)
        store_half(tape, at + offset, ~total & 0xFFFF)
    tag = (command >> reg.TX_VLAN_SHIFT) & 0xFFFF
    return insert_tag(rack, card, length, tag) if command & reg.TX_VLE else length


@compiled
def adapt(
    tape: NDArray[np.uint8],
    network: int,
    network_size: int,
    transport_size: int,
    number: int,
    done: int,
    size: int,
    context: int,
) -> None:
    """Give a segment its own lengths, identification and sequence number (7.2.4.6)."""
    if context & reg.CONTEXT_IPV4 and network_size >= IPV4_HEADER:
        store_half(tape, network + 2, network_size + transport_size + size)
        store_half(tape, network + 4, half(tape, network + 4) + number)
    elif network_size >= IPV6_HEADER:
        store_half(tape, network + 4, network_size - IPV6_HEADER + transport_size + size)
    transport = network + network_size
    sequence = (half(tape, transport + _TCP_SEQUENCE) << 16) + half(tape, transport + _TCP_SEQUENCE + 2) + done
    store_half(tape, transport + _TCP_SEQUENCE, sequence >> 16)
    store_half(tape, transport + _TCP_SEQUENCE + 2, sequence)


@compiled
def flags_kept(registers: NDArray[np.uint32], first: bool, last: bool) -> int:
    """Which of a segment's TCP flags software lets it keep (8.2.3.9.3, 8.2.3.9.4).

    One that is first and last keeps what either keeps: it is the packet that software made.
    """
    low, high = load_acquire(registers, _DTXTCPFLGL), load_acquire(registers, _DTXTCPFLGH)
    if not first and not last:
        return (low >> _MIDDLE_SHIFT) & _ALL_FLAGS
    return ((low if first else 0) | (high if last else 0)) & _ALL_FLAGS


@compiled
def mask_flags(tape: NDArray[np.uint8], transport: int, kept: int) -> None:
    """Clear the others of the 12 flags, of which the upper four share a byte with the length of the header."""
    flags = transport + TCP_FLAGS
    tape[flags - 1] &= 0xF0 | (kept >> 8)
    tape[flags] &= kept & 0xFF


@compiled
def insert_transport(tape: NDArray[np.uint8], start: int, end: int, kind: int, segmented: bool) -> None:
    """Insert the checksum (7.2.5.2): of SCTP, or of TCP or UDP, for which software left the pseudo header's sum, but no
    length if segmented."""
    if kind == reg.L4T_SCTP and end - start >= SCTP_HEADER:
        value = sctp_checksum(tape, start, end)
        for i in range(4):
            tape[start + SCTP_CHECKSUM + i] = (value >> 8 * i) & 0xFF
        return
    if kind == reg.L4T_TCP and end - start >= TCP_HEADER:
        place = start + _TCP_CHECKSUM
    elif kind == reg.L4T_UDP and end - start >= UDP_HEADER:
        place = start + _UDP_CHECKSUM
    else:
        return
    total = fold(ones_sum(tape, start, end) + (end - start if segmented else 0))
    value = ~total & 0xFFFF
    store_half(tape, place, 0xFFFF if value == 0 and kind == reg.L4T_UDP else value)


@compiled
def put_checksum(tape: NDArray[np.uint8], place: int, start: int, end: int) -> None:
    """The checksum over [start, end), which contains its place."""
    store_half(tape, place, 0)
    store_half(tape, place, ~ones_sum(tape, start, end) & 0xFFFF)


@compiled
def insert_tag(rack: Rack, card: int, length: int, tag: int) -> int:
    """Insert a VLAN tag behind the addresses, or in double VLAN mode behind the outer tag; the new length (7.4.2).

    In that mode software has put the outer tag there (7.4.5); the card does not look.
    """
    tape, at = rack.tape, card * SLOT + SEGMENT
    control = load_acquire(rack.registers[card], _DMATXCTL)
    place = MAC_BYTES + (TAG_BYTES if control & _GDV else 0)
    if length < place:
        return length
    for i in range(at + length - 1, at + place - 1, -1):
        tape[i + TAG_BYTES] = tape[i]
    store_half(tape, at + place, control >> 16)
    store_half(tape, at + place + 2, tag)
    return length + TAG_BYTES


@compiled
def store_half(data: NDArray[np.uint8], at: int, value: int) -> None:
    """16 bits in network order."""
    data[at] = (value >> 8) & 0xFF
    data[at + 1] = value & 0xFF
