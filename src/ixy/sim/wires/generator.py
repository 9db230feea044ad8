"""A generator of frames, each with a sequence number in its last bytes."""

from __future__ import annotations

from collections.abc import Generator as Steps
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ixy.formats.frames import MAX_FRAME, MIN_FRAME, udp_frame
from ixy.jit import compiled
from ixy.pacing import CATCH_UP_PACKETS, SECOND, advance, late_by, rounded_up
from ixy.sim.rack import FRAME, OWN_WORDS, PACED, STARTED, Rack
from ixy.sim.wires.clock import awaits
from ixy.sim.wires.wire import Options, Port, Wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of the input: the frame's length; how many have been delivered, and are to be, 0 for no limit. At a rate: when
# the next is due, in nanoseconds after the first, and parts of one, of which there are as many as frames a second; the
# gaps between frames, likewise; and how long so many gaps are as may be caught up with
LENGTH, POSITION, LIMIT, DUE, DUE_PART, RATE, GAP, GAP_PART, SPAN = range(OWN_WORDS, OWN_WORDS + 9)

SEQUENCE_BYTES = 4  # big-endian
MAX_RATE = 10**9
MAX_COUNT = 10**15


@compiled
def next_at_once(rack: Rack, card: int) -> int:
    """The next frame, if there is to be one more; see `Wire.next_frame`."""
    wire = rack.inputs[card]
    position = wire[POSITION]
    if wire[LIMIT] > 0 and position >= wire[LIMIT]:
        return 0
    length = wire[LENGTH]
    stamp(rack.tape, wire[FRAME] + length - SEQUENCE_BYTES, position)
    wire[POSITION] = position + 1
    return length


@compiled
def next_due(rack: Rack, card: int, now: int) -> int:
    """The same at a rate."""
    wire = rack.inputs[card]
    late = late_by(wire, STARTED, rounded_up(wire, DUE), wire[SPAN], now)
    if late < 0:
        awaits(rack, now - late)
        return 0
    advance(wire, DUE, wire[GAP], wire[GAP_PART], wire[RATE])
    return next_at_once(rack, card)


@compiled
def stamp(tape: NDArray[np.uint8], at: int, sequence: int) -> None:
    for i in range(SEQUENCE_BYTES):
        tape[at + i] = (sequence >> (8 * (SEQUENCE_BYTES - 1 - i))) & 0xFF


@dataclass(frozen=True)
class Generator(Wire):
    """`sim:a,gen=60`, with `rate=` and `count=`. Unless what the card sends goes elsewhere, a sink checks it.

    Attributes:
        size: of a frame, in bytes without the frame check sequence.
        rate: frames per second, 0 for as many as the card takes.
        count: of frames, 0 for no end.
    """

    size: int
    rate: int = 0
    count: int = 0

    option = "gen"
    extras = ("rate", "count")
    answer = "sink"
    delivers = True
    next_frame = staticmethod(next_due)

    @property
    def paced(self) -> bool:
        return self.rate > 0

    @property
    def inlined(self) -> bool:
        return not self.paced

    @classmethod
    def parse(cls, options: Options) -> Generator:
        return cls(
            options.number(cls.option, MIN_FRAME, MAX_FRAME) or 0,
            options.number("rate", 1, MAX_RATE) or 0,
            options.number("count", 1, MAX_COUNT) or 0,
        )

    def due(self, port: Port) -> int | None:
        position, started = int(port.input[POSITION]), int(port.input[STARTED])
        if self.count and position >= self.count:
            return None
        if not self.paced:
            return 0  # there is one all the time
        return started + int(rounded_up(port.input, DUE)) if started else None

    @contextmanager
    def plugged(self, port: Port) -> Steps[None]:
        """Lay the frame on the tape."""
        with port.input_memory(self.size):
            port.rack.tape[port.input_part :][: self.size] = np.frombuffer(udp_frame(self.size), np.uint8)
            port.input[FRAME], port.input[LENGTH], port.input[LIMIT] = port.input_part, self.size, self.count
            port.input[RATE], port.input[PACED] = self.rate, self.paced
            if self.paced:
                port.input[GAP], port.input[GAP_PART] = divmod(SECOND, self.rate)
                port.input[SPAN] = (CATCH_UP_PACKETS - 1) * SECOND // self.rate
            yield
