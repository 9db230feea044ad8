"""Time stamps of PTP messages (IEEE 1588), and the clock that they are taken from.

Sections are those of the Intel 82599 datasheet, revision 3.3. A stamp is taken when a frame begins to leave, and when
it has arrived. One that was taken stays until software has read it, and no other is taken meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, shared
from ixy.registers import i82599 as reg
from ixy.sim.card.filters import matching_ethertype
from ixy.sim.card.frame import half
from ixy.sim.card.layers import UDP, Layers, parse
from ixy.sim.card.state import CLOCK_HIGH, CLOCK_LOW, CLOCK_PERIOD, CLOCK_SINCE, CLOCK_STEP
from ixy.sim.rack import SPEED, Rack
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

_ETQF = reg.ETQF.offset // 4
_RXMTRL = reg.RXMTRL.offset // 4
_TSYNCRXCTL = reg.TSYNCRXCTL.offset // 4
_RXSTMPL, _RXSTMPH = reg.RXSTMPL.offset // 4, reg.RXSTMPH.offset // 4
_RXSATRL, _RXSATRH = reg.RXSATRL.offset // 4, reg.RXSATRH.offset // 4
_TSYNCTXCTL = reg.TSYNCTXCTL.offset // 4
_TXSTMPL, _TXSTMPH = reg.TXSTMPL.offset // 4, reg.TXSTMPH.offset // 4
_SYSTIML, _SYSTIMH = reg.SYSTIML.offset // 4, reg.SYSTIMH.offset // 4
_RXTT, _TXTT = reg.TSYNCRXCTL.mask("RXTT"), reg.TSYNCTXCTL.mask("TXTT")
_TIMESTAMP = reg.ETQF.mask("TIMESTAMP")

_LOW = 0xFFFFFFFF
_CYCLES = {10**9: 640, 10**8: 6400}  # of the clock, in tenths of a nanosecond, by the link's bits per second
_CYCLE = 64  # else
_NONE = -1

# Of a PTP message, by its version: how long its header is; and where in it things are
_V1_HEADER, _V2_HEADER = 36, 34
_CONTROL, _SOURCE, _SEQUENCE = 32, 22, 30
_PATH_DELAY_REQUEST, _PATH_DELAY_RESPONSE, _FIRST_GENERAL = 2, 3, 8  # messages of version 2


# ---------------------------------------------------------------------------------------------------------------------
# The clock


@shared(compiled)
def put_time(rack: Rack, card: int, moment: int, low: int, high: int) -> None:
    """Write the system time at a moment, in nanoseconds, into two registers (7.9.3).

    Each CLOCK_PERIOD it grows by CLOCK_STEP, from what it was at CLOCK_SINCE on. It is kept in halves of 32 bits.
    """
    own, registers = rack.cards[card], rack.registers[card]
    period = int(own[CLOCK_PERIOD])
    steps = (moment - int(own[CLOCK_SINCE])) * 10 // period if period > 0 else 0
    below = (steps & _LOW) * int(own[CLOCK_STEP]) + int(own[CLOCK_LOW])
    above = (steps >> 32) * int(own[CLOCK_STEP]) + int(own[CLOCK_HIGH]) + (below >> 32)
    registers[low], registers[high] = below & _LOW, above & _LOW


class Clock:
    """What software does with the clock and the stamps of one card.

    Args:
        rack, card: whose.
        now: the time, in nanoseconds.
        counts_cycles: TIMINCA says in how many cycles of the clock the increment is added; else it is in each, and has
            more bits.
    """

    def __init__(self, rack: Rack, card: int, now: Callable[[], int], *, counts_cycles: bool = True) -> None:
        self._rack, self._card, self._now = rack, card, now
        self._words, self._registers = rack.cards[card], rack.registers[card]
        self.counts_cycles = counts_cycles

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing the registers does, by offset."""
        reads: dict[int, Callable[[], int]] = {
            reg.SYSTIML.offset: self._read_time,
            reg.RXSTMPH.offset: self._take_received,
            reg.TXSTMPH.offset: self._take_sent,
        }
        writes: dict[int, Callable[[int], None]] = {
            reg.SYSTIML.offset: self._write_low,
            reg.SYSTIMH.offset: self._write_high,
            reg.TIMINCA.offset: self._write_increment,
            reg.TIMADJH.offset: self._adjust,
        }
        return reads, writes

    def retune(self) -> None:
        """The increment, or the speed of the link that gives the cycles, may have changed."""
        increment = int(self._registers[reg.TIMINCA.offset // 4])
        period, step = (increment >> 24, increment & 0xFFFFFF) if self.counts_cycles else (1, increment & 0x7FFFFFFF)
        period *= _CYCLES.get(int(self._rack.outputs[self._card, SPEED]), _CYCLE)
        if (period, step) != (self._words[CLOCK_PERIOD], self._words[CLOCK_STEP]):
            self._note_time()
            self._words[CLOCK_PERIOD], self._words[CLOCK_STEP] = period, step

    def _note_time(self) -> None:
        """From here on the time is counted anew."""
        now = self._now()
        put_time(self._rack, self._card, now, _SYSTIML, _SYSTIMH)
        self._words[CLOCK_LOW], self._words[CLOCK_HIGH] = self._registers[_SYSTIML], self._registers[_SYSTIMH]
        self._words[CLOCK_SINCE] = now

    def _read_time(self) -> int:
        """Reading the low half latches both, so that they belong together"""
        put_time(self._rack, self._card, self._now(), _SYSTIML, _SYSTIMH)
        return int(self._registers[_SYSTIML])

    def _write_low(self, value: int) -> None:
        """The clock goes on from here"""
        self._note_time()
        self._words[CLOCK_LOW] = value

    def _write_high(self, value: int) -> None:
        """The clock goes on from here"""
        self._note_time()
        self._words[CLOCK_HIGH] = value

    def _write_increment(self, value: int) -> None:
        """By how much the clock grows, and how often"""
        self._registers[reg.TIMINCA.offset // 4] = value
        self.retune()

    def _adjust(self, value: int) -> None:
        """With TIMADJL it is added to the clock, or taken off"""
        self._registers[reg.TIMADJH.offset // 4] = value
        fields = reg.TIMADJH.decode(value)
        offset = fields["OFFSET"] << 32 | int(self._registers[reg.TIMADJL.offset // 4])
        self._note_time()
        time = int(self._words[CLOCK_HIGH]) << 32 | int(self._words[CLOCK_LOW])
        time += -offset if fields["SIGN"] else offset
        self._words[CLOCK_LOW], self._words[CLOCK_HIGH] = time & _LOW, time >> 32 & _LOW

    def _take_received(self) -> int:
        """Reading it makes room for the next stamp"""
        self._registers[_TSYNCRXCTL] &= ~_RXTT & _LOW
        return int(self._registers[_RXSTMPH])

    def _take_sent(self) -> int:
        """Reading it makes room for the next stamp"""
        self._registers[_TSYNCTXCTL] &= ~_TXTT & _LOW
        return int(self._registers[_TXSTMPH])


# ---------------------------------------------------------------------------------------------------------------------
# Stamps


@compiled
def stamp_received(rack: Rack, card: int, start: int, length: int, moment: int) -> int:
    """Stamp a frame that has arrived, if it is one to be stamped; what its descriptor says of that."""
    registers, frame = rack.registers[card], rack.tape
    control = load_acquire(registers, _TSYNCRXCTL)
    at = message_to_stamp(registers, frame, start, length) if control & _RXTT == 0 else _NONE
    if at == _NONE:
        return 0
    put_time(rack, card, moment, _RXSTMPL, _RXSTMPH)
    source = at + _SOURCE
    registers[_RXSATRL] = half(frame, source + 2) << 16 | half(frame, source + 4)
    registers[_RXSATRH] = half(frame, at + _SEQUENCE) << 16 | half(frame, source)
    store_release(registers, _TSYNCRXCTL, control | _RXTT)
    return reg.RX_TS


@compiled
def stamp_sent(rack: Rack, card: int, moment: int) -> None:
    """Stamp a frame that leaves, whose descriptor asks for it."""
    registers = rack.registers[card]
    control = load_acquire(registers, _TSYNCTXCTL)
    if control & _TXTT == 0:
        put_time(rack, card, moment, _TXSTMPL, _TXSTMPH)
        store_release(registers, _TSYNCTXCTL, control | _TXTT)


@compiled
def message_to_stamp(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, length: int) -> int:
    """Where the PTP message begins for which a frame is to be stamped, else -1 (8.2.3.26.1, 8.2.3.26.6)."""
    kind = (load_acquire(registers, _TSYNCRXCTL) >> 1) & 7
    wanted = load_acquire(registers, _RXMTRL)
    plain = kind != reg.STAMP_V1_UDP
    layers = parse(registers, frame, start, length)
    at = layers.network if plain and has_timed_type(registers, frame, start, layers) else _NONE
    if at == _NONE and kind != reg.STAMP_V2_PLAIN:
        at = udp_message(frame, layers, wanted >> 16)
    if at == _NONE or at + (_V2_HEADER if plain else _V1_HEADER) > start + length:
        return _NONE
    if not plain:
        return at if half(frame, at) == 1 and load_acquire(frame, at + _CONTROL) == wanted & 0xFF else _NONE
    message = load_acquire(frame, at) & 15
    if load_acquire(frame, at + 1) & 15 != 2:
        return _NONE
    if kind == reg.STAMP_V2_EVENTS:
        return at if message < _FIRST_GENERAL else _NONE
    if kind != reg.STAMP_V2_PLAIN and kind != reg.STAMP_V2:
        return _NONE
    is_path_delay = message == _PATH_DELAY_REQUEST or message == _PATH_DELAY_RESPONSE
    return at if is_path_delay or message == (wanted >> 8) & 15 else _NONE


@compiled
def has_timed_type(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, layers: Layers) -> bool:
    """Whether the Ethertype filter that a frame matches says that it is a PTP message (8.2.3.7.21)."""
    typed = matching_ethertype(registers, frame, start, layers)
    return typed >= 0 and load_acquire(registers, _ETQF + typed) & _TIMESTAMP != 0


@compiled
def udp_message(frame: NDArray[np.uint8], layers: Layers, port: int) -> int:
    """Where the payload of a UDP packet to a port begins, else -1."""
    is_udp = layers.protocol == UDP and layers.transport_size > 0
    return layers.transport + layers.transport_size if is_udp and half(frame, layers.transport + 2) == port else _NONE
