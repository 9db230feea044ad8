"""Cards whose frames take time on the wire: impaired, or at a line's rate.

Such a card's turn is a kernel of its own, which is compiled when the first one is plugged in: other cards pay nothing
for it.
"""

from __future__ import annotations

from typing import Any

from ixy.jit import compiled
from ixy.sim import slots
from ixy.sim.card.nic import receive
from ixy.sim.loop import BURST, drain, feed, next_frame
from ixy.sim.rack import FLIGHT, FRAME, KIND, NOTHING, Rack
from ixy.sim.slots import belongs_in, call
from ixy.sim.wires import flight
from ixy.sim.wires.clock import moment
from ixy.sim.wires.flight import SOON

SLOTS = (slots.TURN, slots.DEPART, slots.ARRIVE)


@belongs_in(slots.TURN)
def _turn(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    return turn(image[0], card)


@belongs_in(slots.DEPART)
def _depart(image: Any, card: int, start: int, length: int, now: int) -> int:
    return depart(image[0], card, start, length, now)


@belongs_in(slots.ARRIVE)
def _arrive(image: Any, card: int, start: int, length: int, now: int) -> int:
    rack = image[0]
    flight.depart(rack, rack.inputs[card, FLIGHT], start, length, now if now != 0 else moment())
    return 0


@compiled
def turn(rack: Rack, card: int) -> int:
    """Give the card one turn; how many frames and descriptors were handled, or are due soon."""
    now = moment()
    return (
        land_outward(rack, card, now) + land_inward(rack, card, now) + drain(rack, card, now) + take_in(rack, card, now)
    )


@compiled
def depart(rack: Rack, card: int, start: int, length: int, now: int) -> int:
    """A frame leaves the card, see `Wire.emit`."""
    wire = rack.outputs[card]
    if wire[FLIGHT] != 0:
        flight.depart(rack, wire[FLIGHT], start, length, now)
        return -1
    return call(rack, slots.EMIT + wire[KIND], card, start, length, 0)


@compiled
def land_outward(rack: Rack, card: int, now: int) -> int:
    """Hand the wire those of the card's frames that are due; how many, and whether another one soon is."""
    wire, words = rack.outputs[card], rack.tape_words
    way = int(wire[FLIGHT])
    if way == 0:
        return 0
    landed = 0
    while landed < BURST:
        place = flight.land(words, way, now)
        if place < 0:
            break
        start, length = flight.bytes_of(way, place), flight.length_of(words, way, place)
        peer = call(rack, slots.EMIT + wire[KIND], card, start, length, 0)
        if peer >= 0:
            receive(rack, peer, start, length)
        landed += 1
    return landed + is_soon(words, way, now)


@compiled
def land_inward(rack: Rack, card: int, now: int) -> int:
    """Let those frames arrive at the card that are due; how many, and whether another one soon is."""
    words = rack.tape_words
    way = int(rack.inputs[card, FLIGHT])
    if way == 0:
        return 0
    landed = 0
    while landed < BURST:
        place = flight.land(words, way, now)
        if place < 0:
            break
        receive(rack, card, flight.bytes_of(way, place), flight.length_of(words, way, place))
        landed += 1
    return landed + is_soon(words, way, now)


@compiled
def take_in(rack: Rack, card: int, now: int) -> int:
    """Let the card's wire deliver up to a burst of frames, to the card or to those that are on their way to it."""
    wire = rack.inputs[card]
    if wire[KIND] == NOTHING or wire[FLIGHT] == 0:
        return feed(rack, card)
    taken = 0
    while taken < BURST:
        length = next_frame(rack, card, now)
        if length == 0:
            break
        flight.depart(rack, wire[FLIGHT], wire[FRAME], length, now)
        taken += 1
    return taken


@compiled
def is_soon(words: Any, way: int, now: int) -> int:
    """Whether a frame is due so soon that the cards' thread must not nap: 1, else 0."""
    due = flight.next_due(words, way)
    return 1 if 0 <= due <= now + SOON else 0
