"""A sink: it compares what a card sends with what a generator sent, and keeps account of it."""

from __future__ import annotations

from collections.abc import Generator as Steps
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.arguments import integer
from ixy.errors import AddressError
from ixy.formats.frames import MAX_FRAME
from ixy.jit import compiled
from ixy.sim.rack import FRAME, KIND, OWN_WORDS, Rack
from ixy.sim.wires import generator
from ixy.sim.wires.generator import SEQUENCE_BYTES, Generator
from ixy.sim.wires.tape import WORD
from ixy.sim.wires.wire import Options, Port, Wire
from ixy.tables.order import DUPLICATED, MISSING, NEXT, REORDERED, TOO_LATE, WINDOW, arrive
from ixy.unsafe import equal, load_big

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.card.registers import Card

# Words of the output: where the expected frame lies on the tape, and its length; counts; and those of `tables/order.py`
EXPECTED, LENGTH, RECEIVED, WRONG, ORDER = range(OWN_WORDS, OWN_WORDS + 5)

SWAPPED = 2048  # how far behind the expected frame its other form lies
_SEEN = 2 * SWAPPED // WORD  # and in words the window of numbers
_HALF = 1 << 31  # of the numbers that there are
_ADDRESSES = 12  # bytes of both addresses: the first that `touch` may mean is the next


@compiled
def emit(rack: Rack, card: int, start: int, length: int) -> int:
    """Compare a frame with what the generator sent and the forwarder should have made of it, and its number's order."""
    wire = rack.outputs[card]
    wire[RECEIVED] += 1
    body = length - SEQUENCE_BYTES
    tape, expected = rack.tape, wire[EXPECTED]
    if length != wire[LENGTH] or not (
        equal(tape, start, tape, expected, body) or equal(tape, start, tape, expected + SWAPPED, body)
    ):
        wire[WRONG] += 1
        return -1
    sequence = load_big(tape, start + length - 8) & 0xFFFFFFFF
    number = wire[ORDER + NEXT]
    number += ((sequence - number + _HALF) & 0xFFFFFFFF) - _HALF
    arrive(wire, ORDER, rack.tape_words, expected // WORD + _SEEN, number)
    return -1


@dataclass(frozen=True)
class Sink(Wire):
    """`sim:b,sink=a,touch=48`.

    Attributes:
        generator: the name of the card whose generator's frames are expected.
        touch: the byte of each frame that is raised by one on the way, None for none.
    """

    generator: str
    touch: int | None = None

    option = "sink"
    extras = ("touch",)
    takes = True
    emit = staticmethod(emit)

    @property
    def inlined(self) -> bool:
        return True

    @classmethod
    def parse(cls, options: Options) -> Sink:
        return cls(options.values[cls.option], options.number("touch", _ADDRESSES, _last_byte(MAX_FRAME)))

    @contextmanager
    def plugged(self, port: Port) -> Steps[None]:
        """Keep copies of the generator's frame as it may arrive.

        What comes back to the generator's own card may have its addresses swapped: it was echoed.

        Raises:
            AddressError: there is no such generator, or its frames have no such byte to touch.
        """
        frame = self._generated(port)
        if self.touch is not None:
            integer(f"sim:{port.card.name}: touch", self.touch, _ADDRESSES, _last_byte(len(frame)), error=AddressError)
            frame[self.touch] += 1
        with port.output_memory(2 * SWAPPED + WORD * WINDOW):
            expected, tape = port.output_part, port.rack.tape
            tape[expected:][: len(frame)] = frame
            if self.generator == port.card.name:
                frame[:_ADDRESSES] = np.roll(frame[:_ADDRESSES], _ADDRESSES // 2)
            tape[expected + SWAPPED :][: len(frame)] = frame
            port.output[EXPECTED], port.output[LENGTH] = expected, len(frame)
            yield

    def _generated(self, port: Port) -> NDArray[np.uint8]:
        """A copy of the frame that the generator sends."""
        source = port.machine.cards.get(self.generator)
        if source is None or port.rack.inputs[source.index, KIND] != Generator.kind:
            raise AddressError(
                f"sim:{port.card.name},sink={self.generator}: open sim:{self.generator} with a generator (gen=) first"
            )
        wire = port.rack.inputs[source.index]
        return port.rack.tape[int(wire[FRAME]) :][: int(wire[generator.LENGTH])].copy()


def _last_byte(length: int) -> int:
    """The last byte of a frame before its number."""
    return length - SEQUENCE_BYTES - 1


class SinkReport(NamedTuple):
    """What a generator sent and its sink found.

    Attributes:
        sent: frames that the generator has delivered to its card.
        received: frames that arrived at the sink.
        lost: numbers missing in the sequence, up to the last one that arrived, but for as many as frames were wrong:
            those have arrived.
        duplicated: frames that arrived again.
        reordered: frames that arrived after a later one.
        wrong: frames whose length or bytes are not as expected.
    """

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    wrong: int

    @property
    def perfect(self) -> SinkReport:
        """What would be reported if all that was sent had arrived, once and in order."""
        return SinkReport(self.sent, self.sent, 0, 0, 0, 0)


def report(rack: Rack, source: Card, sink: Card) -> SinkReport:
    """What the generator of one card sent, and what the sink of another found."""
    found = rack.outputs[sink.index]
    order = found[ORDER:]
    return SinkReport(
        sent=int(rack.inputs[source.index, generator.POSITION]),
        received=int(found[RECEIVED]),
        lost=max(int(order[MISSING] - found[WRONG]), 0),
        duplicated=int(order[DUPLICATED]),
        reordered=int(order[REORDERED] + order[TOO_LATE]),
        wrong=int(found[WRONG]),
    )
