"""Receive-side coalescing (RSC): a simulated 82599 makes one packet of the segments of a TCP connection (7.11).

Up to 32 flows are open at a time. The first segment of one comes to memory as it is, of the others the payload follows,
over as many buffers as RSCCTL.MAXDESC allows. Meanwhile other packets take descriptors between them, so each descriptor
names the next one. A flow is closed by a segment that does not continue it or must be seen at once (PSH), by one for
which there is no more room, and, as the timer of EITR would, at the end of the card's turn. Then its headers are made
those of the whole, and the last descriptor is written back. Sections are those of the Intel 82599 datasheet,
revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card.classify import addresses_of
from ixy.sim.card.dma import dma_write, masters, ring_word
from ixy.sim.card.formats import free_descriptors, next_descriptor
from ixy.sim.card.frame import half, word
from ixy.sim.card.layers import IPV6_HEADER, TCP, TCP_FLAGS, TCP_HEADER, Layers, parse
from ixy.sim.card.offload import put_checksum, store_half
from ixy.sim.card.state import (
    COALESCING,
    FEATURES,
    FLOWS,
    INTERRUPT,
    JOINED,
    PENDING,
    PLAIN,
    RAISED,
    RX_JUMP,
    RX_LOWER_BITS,
    RX_STRIDE,
    TAIL,
    WORD_0,
    WORD_1,
)
from ixy.sim.rack import SLOT, Rack
from ixy.sim.slots import CLOSE, COALESCE, belongs_in
from ixy.unsafe import copy, load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RDBAL = reg.RDBAL.offset // 4
_RDBAH = reg.RDBAH.offset // 4
_RDLEN = reg.RDLEN.offset // 4
_RDH = reg.RDH.offset // 4
_SRRCTL = reg.SRRCTL.offset // 4
_RSCCTL = reg.RSCCTL.offset // 4
_RFCTL = reg.RFCTL.offset // 4
_PSRTYPE = reg.PSRTYPE.offset // 4

_CONTROLS, _COALESCING = (np.array(row.offsets, np.intp) // 4 for row in (reg.RXDCTL, reg.RSCCTL))

_BSIZEPACKET = reg.SRRCTL.mask("BSIZEPACKET")  # in KiB
_DESCTYPE, _ONE_BUFFER = reg.SRRCTL.mask("DESCTYPE"), reg.SRRCTL.value(DESCTYPE=reg.DESCTYPE_ADVANCED)
_RSCEN, _MAXDESC_SHIFT = reg.RSCCTL.mask("RSCEN"), 2
_RSC_DIS = reg.RFCTL.mask("RSC_DIS")
_TCPHDR = reg.PSRTYPE.mask("TCPHDR")

_FLOWS = 32
_STARTS = 14  # packets that begin in one descriptor, at most
_LONGEST = 0xFFFF  # IP packet
_HEADER_BYTES = 256  # kept of each flow
_TIMESTAMP = 0x0101080A  # two NOPs, and the option's kind and length
_FLAGS, _ACK, _PSH = 0xFFF, 0x10, 0x08
_CONGESTED = 3  # of the two bits of ECN
_TCP_ACK, _TCP_WINDOW = 8, 14
_IPV4_CHECKSUM = 10

# Words of a flow. Places are counted from the beginning of the frame.
(
    OPEN,
    QUEUE,
    NETWORK,
    TRANSPORT,
    HEADERS,  # the bytes of all headers
    NEXT,  # the sequence number that continues it
    SIZE,  # of the frame that it has become
    FIRST,  # the address of the first buffer, where the headers are
    DESCRIPTORS,  # how many it has,
    INDEX,  # of the last one in the ring,
    WORD,  # its place in memory,
    ADDRESS,  # of whose buffer
    FILLED,  # so many bytes are filled,
    STARTED,  # and so many packets begin there
    SAYS_0,  # what the last packet's descriptor is to say
    SAYS_1,
    FLOW_WORDS,
) = range(17)


def is_enabled(registers: NDArray[np.uint32]) -> bool:
    """Whether packets of a queue that runs may be coalesced."""
    running = registers[_CONTROLS] & reg.RXDCTL.mask("ENABLE") != 0
    asked = registers[_COALESCING] & _RSCEN != 0
    return bool((running & asked).any()) and not registers[_RFCTL] & _RSC_DIS


def forget(rack: Rack, card: int, queue: int) -> None:
    """Drop the flows of a queue that is disabled: its memory is the driver's again."""
    if rack.cards[card, PENDING] & COALESCING:
        flows = rack.tape_words[(card * SLOT + FLOWS) // 8 :][: _FLOWS * FLOW_WORDS].reshape(_FLOWS, FLOW_WORDS)
        flows[flows[:, QUEUE] == queue, OPEN] = 0


@belongs_in(COALESCE)
def _coalesce(image: Any, card: int, queue: int, start: int, length: int) -> int:
    return coalesce(image[0], card, queue, start, length)


@belongs_in(CLOSE)
def _close(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    close_all(image[0], card)
    return 0


@outlined
def coalesce(rack: Rack, card: int, queue: int, start: int, length: int) -> int:
    """Take a frame into a flow of its queue; what became of it. One for itself is plain, once its flow is closed."""
    registers = rack.registers[card]
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    if load_acquire(registers, _RSCCTL + at) & _RSCEN == 0 or load_acquire(registers, _PSRTYPE) & _TCPHDR == 0:
        return PLAIN
    if load_acquire(registers, _SRRCTL + at) & _DESCTYPE != _ONE_BUFFER:
        return PLAIN
    layers = parse(registers, rack.tape, start, length)
    if layers.protocol != TCP or layers.transport_size == 0:
        return PLAIN
    flow = find(rack, card, queue, start, layers)
    fits = is_fit(rack, card, layers)
    if flow >= 0 and not (fits and continues(rack, card, flow, at, start, layers)):
        close(rack, card, flow)
        flow = -1
    if not fits:
        return PLAIN
    payload = layers.transport + layers.transport_size
    if flow >= 0:
        update(rack, card, flow, start, layers)
        append(rack, card, flow, at, payload, layers.end - payload)
    else:
        flow = begin(rack, card, queue, at, start, layers)
        if flow < 0:
            return PLAIN
        append(rack, card, flow, at, start, layers.end - start)
    rack.tape_words[flow + SAYS_0], rack.tape_words[flow + SAYS_1] = rack.cards[card, WORD_0], rack.cards[card, WORD_1]
    if rack.tape_words[flow + OPEN] != 0 and rack.tape[layers.transport + TCP_FLAGS] & _PSH:
        close(rack, card, flow)
    return JOINED


# ---------------------------------------------------------------------------------------------------------------------
# Which packets


@compiled
def is_fit(rack: Rack, card: int, layers: Layers) -> bool:
    """Whether a TCP packet may be coalesced (7.11.2): right, with a payload, without flags and options of its own."""
    status, tape = rack.cards[card, WORD_1], rack.tape
    if status & reg.RX_L4CS == 0 or status & (reg.RX_L4E | reg.RX_IPE) or layers.extended:
        return False
    if layers.transport + layers.transport_size >= layers.end or service(tape, layers) & _CONGESTED == _CONGESTED:
        return False
    flags = half(tape, layers.transport + TCP_FLAGS - 1) & _FLAGS
    options = layers.transport + TCP_HEADER
    plain = layers.transport_size == TCP_HEADER
    stamped = layers.transport_size == TCP_HEADER + 12 and word(tape, options) == _TIMESTAMP
    return flags in (_ACK, _ACK | _PSH) and (plain or stamped)


@compiled
def service(tape: NDArray[np.uint8], layers: Layers) -> int:
    """The type of service, or the traffic class."""
    return load_acquire(tape, layers.network + 1) if layers.version == 4 else (half(tape, layers.network) >> 4) & 0xFF


@compiled
def find(rack: Rack, card: int, queue: int, start: int, layers: Layers) -> int:
    """The open flow of a queue that a TCP packet belongs to, as its place in the tape's words, or -1 (7.11.3)."""
    if rack.cards[card, PENDING] & COALESCING == 0:
        return -1
    words, tape = rack.tape_words, rack.tape
    addresses, size = addresses_of(layers)
    for number in range(_FLOWS):
        flow = flow_of(card, number)
        header = header_of(card, flow)
        if (
            words[flow + OPEN] != 0
            and words[flow + QUEUE] == queue
            and words[flow + NETWORK] == layers.network - start
            and words[flow + TRANSPORT] == layers.transport - start
            and are_same(tape, header, start, layers.network - start)
            and are_same(tape, header + addresses - start, addresses, size)
            and are_same(tape, header + layers.transport - start, layers.transport, 4)
        ):
            return flow
    return -1


@compiled
def flow_of(card: int, number: int) -> int:
    return (card * SLOT + FLOWS) // 8 + number * FLOW_WORDS


@compiled
def header_of(card: int, flow: int) -> int:
    """Where on the tape a flow's headers are kept: behind all flows."""
    first = flow_of(card, 0)
    return flow_of(card, _FLOWS) * 8 + (flow - first) // FLOW_WORDS * _HEADER_BYTES


@compiled
def are_same(data: NDArray[np.uint8], a: int, b: int, size: int) -> bool:
    for i in range(size):
        if data[a + i] != data[b + i]:
            return False
    return True


@compiled
def continues(rack: Rack, card: int, flow: int, at: int, start: int, layers: Layers) -> bool:
    """Whether a packet is the next one of its flow, is like those before, and there is room for it (7.11.4)."""
    words, tape, header = rack.tape_words, rack.tape, header_of(card, flow)
    payload = layers.transport + layers.transport_size
    if payload - start != words[flow + HEADERS] or word(tape, layers.transport + 4) != words[flow + NEXT]:
        return False
    changes = (words[flow + SAYS_1] ^ rack.cards[card, WORD_1]) & (reg.RX_VP | (-1 << reg.RX_VLAN_SHIFT))
    if changes != 0 or not are_same(tape, header + layers.network - start, layers.network, 2):
        return False
    if words[flow + STARTED] >= _STARTS or words[flow + SIZE] + layers.end - payload > _LONGEST:
        return False
    return has_room(rack, card, flow, at, layers.end - payload)


@compiled
def has_room(rack: Rack, card: int, flow: int, at: int, size: int) -> bool:
    """Whether so many bytes more fit into the flow's last buffer, and into descriptors that it may still take."""
    registers, words = rack.registers[card], rack.tape_words
    buffer_size = (load_acquire(registers, _SRRCTL + at) & _BSIZEPACKET) << 10
    left = buffer_size - words[flow + FILLED] if words[flow + DESCRIPTORS] > 0 else 0
    more = (max(size - left, 0) + buffer_size - 1) // buffer_size
    free = free_descriptors(registers, at, rack.cards[card, TAIL])
    return more <= free and words[flow + DESCRIPTORS] + more <= most(registers, at)


@compiled
def most(registers: NDArray[np.uint32], at: int) -> int:
    """The descriptors of one packet, at most: 1, 4, 8 or 16 (8.2.3.8.13)."""
    chosen = (load_acquire(registers, _RSCCTL + at) >> _MAXDESC_SHIFT) & 3
    return 1 if chosen == 0 else 2 << chosen


# ---------------------------------------------------------------------------------------------------------------------
# The life of a flow


@compiled
def begin(rack: Rack, card: int, queue: int, at: int, start: int, layers: Layers) -> int:
    """Open a flow with its first packet's headers; -1 if there is none left, or no room."""
    words = rack.tape_words
    if rack.cards[card, PENDING] & COALESCING == 0:
        for number in range(_FLOWS):
            words[flow_of(card, number) + OPEN] = 0
        rack.cards[card, PENDING] |= COALESCING
    for number in range(_FLOWS):
        flow = flow_of(card, number)
        if words[flow + OPEN] == 0:
            words[flow + DESCRIPTORS] = 0
            words[flow + FILLED] = 0
            if not has_room(rack, card, flow, at, layers.end - start):
                return -1
            words[flow + OPEN] = 1
            words[flow + QUEUE] = queue
            words[flow + NETWORK] = layers.network - start
            words[flow + TRANSPORT] = layers.transport - start
            words[flow + HEADERS] = layers.transport + layers.transport_size - start
            words[flow + SIZE] = 0
            words[flow + STARTED] = 0
            words[flow + NEXT] = word(rack.tape, layers.transport + 4)
            count_on(words, flow, layers)
            copy(rack.tape, header_of(card, flow), rack.tape, start, words[flow + HEADERS])
            return flow
    return -1


@compiled
def update(rack: Rack, card: int, flow: int, start: int, layers: Layers) -> None:
    """The whole has the acknowledgement, window and time stamps of the packet that joins it last, and any PSH."""
    words, tape = rack.tape_words, rack.tape
    header = header_of(card, flow) + layers.transport - start
    copy(tape, header + _TCP_ACK, tape, layers.transport + _TCP_ACK, 4)
    copy(tape, header + _TCP_WINDOW, tape, layers.transport + _TCP_WINDOW, 2)
    copy(tape, header + TCP_HEADER, tape, layers.transport + TCP_HEADER, layers.transport_size - TCP_HEADER)
    tape[header + TCP_FLAGS] |= tape[layers.transport + TCP_FLAGS]
    count_on(words, flow, layers)


@compiled
def count_on(words: NDArray[np.int64], flow: int, layers: Layers) -> None:
    """The next packet's sequence number is behind the payload of this one."""
    payload = layers.end - layers.transport - layers.transport_size
    words[flow + NEXT] = (words[flow + NEXT] + payload) & 0xFFFFFFFF


@compiled
def append(rack: Rack, card: int, flow: int, at: int, start: int, size: int) -> None:
    """A packet that begins here: write `size` bytes of the tape behind those that the flow has (7.11.5).

    Where memory is out of reach the flow ends, and nothing of it is written back.
    """
    words = rack.tape_words
    buffer_size = (load_acquire(rack.registers[card], _SRRCTL + at) & _BSIZEPACKET) << 10
    done = 0
    while done < size:
        if (words[flow + DESCRIPTORS] == 0 or words[flow + FILLED] >= buffer_size) and not extend(rack, card, flow, at):
            words[flow + OPEN] = 0
            return
        if done == 0:
            words[flow + STARTED] += 1
        part = min(buffer_size - words[flow + FILLED], size - done)
        if not dma_write(rack, card, words[flow + ADDRESS] + words[flow + FILLED], rack.tape, start + done, part):
            words[flow + OPEN] = 0
            return
        words[flow + FILLED] += part
        done += part
    words[flow + SIZE] += size


@compiled
def extend(rack: Rack, card: int, flow: int, at: int) -> bool:
    """Take the next descriptor of the ring, and write the one before back, which names it; False if it is out of reach.

    RSCCNT is one more than the packets that begin in a descriptor (7.1.6.2).
    """
    registers, words = rack.registers[card], rack.tape_words
    head = load_acquire(registers, _RDH + at)
    place = ring_word(rack, card, _RDBAL + at, _RDBAH + at, head)
    if place < 0 or (words[flow + DESCRIPTORS] > 0 and not is_there(rack, card, flow)):
        return False
    if words[flow + DESCRIPTORS] == 0:
        words[flow + FIRST] = rack.words[place]
    else:
        says = reg.RX_DD | (head << reg.RX_NEXTP_SHIFT) | (words[flow + FILLED] << reg.RX_LENGTH_SHIFT)
        write_back(rack, flow, 0, says)
    words[flow + INDEX] = head
    words[flow + WORD] = place
    words[flow + ADDRESS] = rack.words[place]
    words[flow + FILLED] = 0
    words[flow + STARTED] = 0
    words[flow + DESCRIPTORS] += 1
    next_descriptor(registers, at)
    return True


@compiled
def is_there(rack: Rack, card: int, flow: int) -> bool:
    """Whether the card may still write to the last descriptor of a flow, which is where it was."""
    registers, words = rack.registers[card], rack.tape_words
    queue, index = words[flow + QUEUE], words[flow + INDEX]
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    if not masters(rack, card) or index >= load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES:
        return False
    return ring_word(rack, card, _RDBAL + at, _RDBAH + at, index) == words[flow + WORD]


@compiled
def write_back(rack: Rack, flow: int, word_0: int, word_1: int) -> None:
    words = rack.tape_words
    place = words[flow + WORD]
    rack.words[place] = word_0 | ((words[flow + STARTED] + 1) << reg.RX_RSCCNT_SHIFT)
    store_release(rack.words, place + 1, word_1)


@outlined
def close(rack: Rack, card: int, flow: int) -> None:
    """The packet is complete: write its headers once more, then its last descriptor (7.11.5).

    If that is not where it was, nothing is written: software may have moved the ring since.
    """
    words, tape, header = rack.tape_words, rack.tape, header_of(card, flow)
    words[flow + OPEN] = 0
    if not is_there(rack, card, flow):
        return
    network = header + words[flow + NETWORK]
    size = words[flow + SIZE] - words[flow + NETWORK]
    if tape[network] >> 4 == 4:
        store_half(tape, network + 2, size)
        put_checksum(tape, network + _IPV4_CHECKSUM, network, header + words[flow + TRANSPORT])
    else:
        store_half(tape, network + 4, size - IPV6_HEADER)
    if not dma_write(rack, card, words[flow + FIRST], tape, header, words[flow + HEADERS]):
        return
    says = words[flow + SAYS_1] | reg.RX_DD | reg.RX_EOP | (words[flow + FILLED] << reg.RX_LENGTH_SHIFT)
    write_back(rack, flow, words[flow + SAYS_0], says)
    if rack.cards[card, FEATURES] & INTERRUPT:
        rack.done[card, words[flow + QUEUE]] = 1
        rack.cards[card, RAISED] = 1


@compiled
def close_all(rack: Rack, card: int) -> None:
    """What is open at the end of the card's turn is complete."""
    for number in range(_FLOWS):
        if rack.tape_words[flow_of(card, number) + OPEN] != 0:
            close(rack, card, flow_of(card, number))
    rack.cards[card, PENDING] &= ~COALESCING
