"""Pause frames: a card that is asked to send nothing for a while, and one that asks its partner so.

Sections are those of the Intel 82599 datasheet, revision 3.3; pause frames are those of IEEE 802.3, annex 31B. A card
that sends them keeps the frames in its packet buffer for which its driver has left no descriptor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled
from ixy.pacing import SECOND
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.dma import masters
from ixy.sim.card.formats import free_descriptors
from ixy.sim.card.frame import CRC_BYTES, half
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.receive import lose, place
from ixy.sim.card.state import (
    BUFFER_HEAD,
    BUFFER_TAIL,
    BUFFERED,
    CLASSIFY,
    FEATURES,
    FILTER,
    FLOW_MATCHES,
    FLOW_MISSES,
    HUNG,
    KEEP_CRC,
    NO_POOL,
    PACKET_BUFFER,
    PACKET_BUFFER_SIZE,
    PAUSE_FRAME,
    PAUSED_UNTIL,
    POOLS,
    QUEUE,
    RX_JUMP,
    RX_LOST_BYTES,
    RX_LOWER_BITS,
    RX_MISSED,
    RX_STRIDE,
    TX_MULTICAST,
    TX_SIZES,
    WORD_0,
    WORD_1,
    XOFF_AGAIN,
    XOFF_RECEIVED,
    XOFF_SENT,
    XON_RECEIVED,
    XON_SENT,
)
from ixy.sim.loop import emit, hand_over
from ixy.sim.rack import FASTEST, KIND, SLOT, SPEED, TIMED, Rack
from ixy.sim.slots import call
from ixy.sim.wires.clock import moment
from ixy.sim.wires.sink import Sink
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RAL = reg.RAL.offset // 4
_MFLCN = reg.MFLCN.offset // 4
_FCTTV = reg.FCTTV.offset // 4
_FCRTL = reg.FCRTL.offset // 4
_FCRTH = reg.FCRTH.offset // 4
_FCRTV = reg.FCRTV.offset // 4
_FCCFG = reg.FCCFG.offset // 4
_RXPBSIZE = reg.RXPBSIZE.offset // 4
_RDLEN = reg.RDLEN.offset // 4
_RDH = reg.RDH.offset // 4
_RDT = reg.RDT.offset // 4
_RXDCTL = reg.RXDCTL.offset // 4
_SRRCTL = reg.SRRCTL.offset // 4

_PMCF, _DPF, _RFCE = reg.MFLCN.mask("PMCF"), reg.MFLCN.mask("DPF"), reg.MFLCN.mask("RFCE")
_RTL, _XONE = reg.FCRTL.mask("RTL"), reg.FCRTL.mask("XONE")
_RTH, _FCEN = reg.FCRTH.mask("RTH"), reg.FCRTH.mask("FCEN")
_TFCE_LINK = reg.FCCFG.value(TFCE=reg.TFCE_LINK)
_ENABLE = reg.RXDCTL.mask("ENABLE")
_DROP_EN, _BSIZEPACKET = reg.SRRCTL.mask("DROP_EN"), reg.SRRCTL.mask("BSIZEPACKET")
_SINK = Sink.kind

_GROUP = (0x01, 0x80, 0xC2, 0x00, 0x00, 0x01)  # the group that pause frames are for; no bridge forwards it
_PAUSE = 0x0001  # opcode
_QUANTUM_BITS = 512  # a pause is so many times as long as so many bits
_MEMORY = 512 << 10  # of the card: no packet buffer is larger
_WORD = 8
_STATUS_SHIFT, _LENGTH = 32, 0xFFFF  # in a frame's first word


# ---------------------------------------------------------------------------------------------------------------------
# What the partner asks for


@compiled
def obey(rack: Rack, card: int, start: int) -> int:
    """A MAC control frame arrives; 1 if it ends here, 0 if it goes on like any other (3.7.7.3.1, 3.7.7.3.2)."""
    registers, tape = rack.registers[card], rack.tape
    control = load_acquire(registers, _MFLCN)
    if not is_addressed(registers, tape, start):
        return 0
    if half(tape, start + 14) != _PAUSE:
        return 0 if control & _PMCF else 1
    if control & _RFCE == 0:
        return 0
    quanta = half(tape, start + 16)
    rack.counters[card, XOFF_RECEIVED if quanta > 0 else XON_RECEIVED] += 1
    rack.cards[card, PAUSED_UNTIL] = moment() + lasts(rack, card, quanta) if quanta > 0 else 0
    if quanta > 0:
        rack.outputs[card, TIMED] = 1  # whose turn looks at the time
    return 1 if control & _DPF else 0


@compiled
def is_addressed(registers: NDArray[np.uint32], tape: NDArray[np.uint8], start: int) -> bool:
    """Whether a frame is for the group of pause frames, or for the station (3.7.7.3.1)."""
    group = station = True
    for i in range(6):
        byte = tape[start + i]
        group = group and byte == _GROUP[i]
        station = station and byte == (load_acquire(registers, _RAL + (i >> 2)) >> (8 * (i & 3))) & 0xFF
    return group or station


@compiled
def lasts(rack: Rack, card: int, quanta: int) -> int:
    """How long a pause is, in nanoseconds."""
    speed = int(rack.outputs[card, SPEED])
    return quanta * _QUANTUM_BITS * SECOND // (speed if speed > 0 else FASTEST)


# ---------------------------------------------------------------------------------------------------------------------
# The packet buffer


@compiled
def take(rack: Rack, card: int, start: int, length: int, status: int) -> int:
    """A frame was accepted: 0 if it can be stored, 1 if it waits behind those that do, or is lost.

    Args:
        status: what its descriptor is to say besides, of at most 31 bits.
    """
    own = rack.cards[card]
    if own[BUFFERED] == 0 and not waits(rack, card, start, length):
        return 0
    size = min(load_acquire(rack.registers[card], _RXPBSIZE), _MEMORY)
    if own[BUFFERED] + length + CRC_BYTES > size:
        lose(rack, card, RX_MISSED, RX_LOST_BYTES, length)
    else:
        put(rack, card, start, length, status)
        if own[XOFF_AGAIN] == 0:  # it is repeated once in a turn, or two cards would answer each other without end
            regulate(rack, card)
    return 1


@compiled
def tend(rack: Rack, card: int) -> int:
    """Store the frames that have waited, in their order, as far as there are descriptors; how many."""
    own = rack.cards[card]
    stored = 0
    while own[BUFFERED] > 0:
        at = first(rack, card)
        start, length = (at + 1) * _WORD, int(rack.tape_words[at]) & _LENGTH
        status = int(rack.tape_words[at]) >> _STATUS_SHIFT
        if waits(rack, card, start, length):
            break
        place(rack, card, start, length, status)
        own[BUFFERED] -= length + CRC_BYTES
        own[BUFFER_HEAD] += words_of(length)
        stored += 1
    if own[XOFF_AGAIN] != 0:
        regulate(rack, card)
    return stored


@compiled
def waits(rack: Rack, card: int, start: int, length: int) -> bool:
    """Whether a frame has to wait for descriptors: its queue has too few, and does not drop what finds none.

    One that no ring of this size could hold does not wait, or nothing behind it would ever arrive.
    What its descriptor is to say, and its queue, are in the card's words then.
    """
    registers, own = rack.registers[card], rack.cards[card]
    own[QUEUE] = own[WORD_0] = own[WORD_1] = 0
    if own[FEATURES] & POOLS:
        return False
    if own[FEATURES] & CLASSIFY:
        call(rack, slots.CLASSIFY, card, start, length, 0)
    if own[FEATURES] & FILTER and is_dropped(rack, card, start, length):
        return False
    queue = int(own[QUEUE])
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    control = load_acquire(registers, _SRRCTL + at)
    running = load_acquire(registers, _RXDCTL + at) & (_ENABLE | HUNG) == _ENABLE
    if control & _DROP_EN or not running or not masters(rack, card):
        return False
    size, tail = load_acquire(registers, _RDLEN + at) // reg.DESCRIPTOR_BYTES, load_acquire(registers, _RDT + at)
    if load_acquire(registers, _RDH + at) >= size or tail >= size:
        return False
    buffer_size = (control & _BSIZEPACKET) << 10
    octets = length + CRC_BYTES if own[FEATURES] & KEEP_CRC else length
    return free_descriptors(registers, at, tail) * buffer_size < octets <= (size - 1) * buffer_size


@compiled
def is_dropped(rack: Rack, card: int, start: int, length: int) -> bool:
    """Whether a filter drops a frame, which is not counted as if it had come; else its queue is in the card's words."""
    counters = rack.counters[card]
    matches, misses = counters[FLOW_MATCHES], counters[FLOW_MISSES]
    kept = call(rack, slots.FILTER, card, start, length, NO_POOL)
    counters[FLOW_MATCHES], counters[FLOW_MISSES] = matches, misses
    return kept == 0


# A frame in the buffer is a word with its length and status, and its bytes. Where the next one does not fit before the
# end there is a 0, and it goes to the beginning.


@compiled
def put(rack: Rack, card: int, start: int, length: int, status: int) -> None:
    """Let a frame wait behind the others; there is room for it."""
    own, begin = rack.cards[card], (card * SLOT + PACKET_BUFFER) // _WORD
    if own[BUFFERED] == 0:
        own[BUFFER_HEAD] = own[BUFFER_TAIL] = 0
    if own[BUFFER_TAIL] + words_of(length) >= PACKET_BUFFER_SIZE // _WORD:
        rack.tape_words[begin + own[BUFFER_TAIL]] = 0
        own[BUFFER_TAIL] = 0
    at = begin + int(own[BUFFER_TAIL])
    rack.tape_words[at] = length | status << _STATUS_SHIFT
    copy(rack.tape, (at + 1) * _WORD, rack.tape, start, length)
    own[BUFFER_TAIL] += words_of(length)
    own[BUFFERED] += length + CRC_BYTES


@compiled
def first(rack: Rack, card: int) -> int:
    """The word of the tape at which the first frame begins that waits."""
    own, begin = rack.cards[card], (card * SLOT + PACKET_BUFFER) // _WORD
    if rack.tape_words[begin + own[BUFFER_HEAD]] == 0:
        own[BUFFER_HEAD] = 0
    return begin + int(own[BUFFER_HEAD])


@compiled
def words_of(length: int) -> int:
    return 1 + (length + _WORD - 1) // _WORD


# ---------------------------------------------------------------------------------------------------------------------
# What the partner is asked for


@compiled
def regulate(rack: Rack, card: int) -> None:
    """Stop the partner above the high threshold, let it go on below the low one (3.7.7.3.3).

    While the buffer stays above the low one, XOFF is repeated before the time it named is over (8.2.3.3.5).
    """
    registers, own = rack.registers[card], rack.cards[card]
    high, low = load_acquire(registers, _FCRTH), load_acquire(registers, _FCRTL)
    if load_acquire(registers, _FCCFG) != _TFCE_LINK or high & _FCEN == 0:
        own[XOFF_AGAIN] = 0
    elif own[XOFF_AGAIN] != 0 and own[BUFFERED] <= low & _RTL:
        own[XOFF_AGAIN] = 0
        if low & _XONE:
            ask(rack, card, 0)
    elif own[BUFFERED] > high & _RTH if own[XOFF_AGAIN] == 0 else moment() >= own[XOFF_AGAIN]:
        quanta = load_acquire(registers, _FCTTV) & 0xFFFF
        left = load_acquire(registers, _FCRTV) & 0xFFFF
        own[XOFF_AGAIN] = moment() + lasts(rack, card, max(quanta - left, 1))
        ask(rack, card, quanta)


@compiled
def ask(rack: Rack, card: int, quanta: int) -> None:
    """Send a pause frame. The port's counters count it too: Linux and DPDK take it out of them. A sink gets none."""
    tape, start = rack.tape, card * SLOT + PAUSE_FRAME
    registers, counters = rack.registers[card], rack.counters[card]
    for i in range(6):
        tape[start + i] = _GROUP[i]
        tape[start + 6 + i] = (load_acquire(registers, _RAL + (i >> 2)) >> (8 * (i & 3))) & 0xFF
    tape[start + 12], tape[start + 13], tape[start + 14], tape[start + 15] = 0x88, 0x08, 0, _PAUSE
    tape[start + 16], tape[start + 17] = quanta >> 8, quanta & 0xFF
    for i in range(18, MIN_FRAME):
        tape[start + i] = 0
    counters[XOFF_SENT if quanta > 0 else XON_SENT] += 1
    counters[TX_SIZES] += 1
    counters[TX_MULTICAST] += 1
    peer = emit(rack, card, start, MIN_FRAME, moment()) if rack.outputs[card, KIND] != _SINK else -1
    hand_over(rack, peer, start, MIN_FRAME, moment())
