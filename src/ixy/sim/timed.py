"""Cards whose frames take time on the wire: impaired, or at a line's rate.

Such a card's turn is a kernel of its own, which is compiled when the first one is plugged in: other cards pay nothing
for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.jit import compiled
from ixy.pacing import CATCH_UP_TIME, SECOND
from ixy.sim import slots
from ixy.sim.card.nic import CRC_BYTES, LATER, can_receive, can_transmit, fetch, receive
from ixy.sim.card.state import FEATURES, LOOPBACK, TX_QUEUES
from ixy.sim.loop import BURST, emit, next_frame, send
from ixy.sim.rack import FLIGHT, FRAME, FREE, HELD, KIND, NOTHING, PACED, REST, SPEED, STARTED, Rack
from ixy.sim.slots import belongs_in, call
from ixy.sim.wires import flight
from ixy.sim.wires.clock import awaits, is_virtual, moment
from ixy.sim.wires.flight import SOON

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OVERHEAD_BYTES = 20  # that each frame takes besides: preamble, start delimiter, gap (IEEE 802.3)

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
    way = int(rack.inputs[card, FLIGHT])  # which may have gone since the caller looked
    if way != 0:
        flight.depart(rack, way, start, length, now if now != 0 else moment())
    return 0


@compiled
def turn(rack: Rack, card: int) -> int:
    """Give the card one turn; how many frames and descriptors were handled, or wait for the wire or are due soon."""
    now = moment()
    if is_virtual(rack):  # which holds nobody up
        idle(rack.outputs[card], now)
        idle(rack.inputs[card], now)
    landed = land_outward(rack, card, now) + land_inward(rack, card, now)
    return landed + drain(rack, card, now) + feed(rack, card, now)


# ---------------------------------------------------------------------------------------------------------------------
# The line's rate


@compiled
def occupy(wire: NDArray[np.int64], length: int, now: int) -> int:
    """Let a frame, `length` without its check sequence, pass an end of a wire; when its last bit has.

    It follows the frame before. What was held up, as the cards' thread was, catches up within the bound of `pacing`.
    """
    if wire[SPEED] == 0:
        return now
    begin = max(int(wire[FREE]), now - CATCH_UP_TIME)
    parts = (length + CRC_BYTES + OVERHEAD_BYTES) * 8 * SECOND + int(wire[REST])
    wire[FREE] = begin + parts // wire[SPEED]
    wire[REST] = parts % wire[SPEED]
    return int(wire[FREE])


@compiled
def idle(wire: NDArray[np.int64], now: int) -> None:
    """Nothing passes the wire at this moment: what comes begins later."""
    if wire[FREE] < now:
        wire[FREE], wire[REST] = now, 0


@compiled
def passing(rack: Rack, wire: NDArray[np.int64], now: int) -> int:
    """1 while a frame passes an end of a wire, so that the cards' thread stays awake, else 0. So it is by a virtual
    clock, which goes on to the frame's end."""
    if wire[FREE] <= now:
        return 0
    awaits(rack, wire[FREE])
    return 0 if is_virtual(rack) else 1


# ---------------------------------------------------------------------------------------------------------------------
# Frames from the card


@compiled
def drain(rack: Rack, card: int, now: int) -> int:
    """Send packets of the card's queues, one of each in turn, while the wire is free.

    How many descriptors were fetched; while a frame passes it is one more.
    """
    wire = rack.outputs[card]
    queues = int(rack.cards[card, TX_QUEUES])
    fetched = vain = 0
    while fetched < BURST and vain < queues and wire[FREE] <= now:
        queue = int(wire[HELD]) if wire[HELD] < queues else 0
        if not can_transmit(rack, card, queue):
            vain += 1
        elif transmit(rack, card, queue, now):
            vain = 0
            fetched += 1
        else:
            break
        wire[HELD] = queue + 1
    if vain == queues:
        idle(wire, now)
    return fetched + passing(rack, wire, now)


@compiled
def transmit(rack: Rack, card: int, queue: int, now: int) -> bool:
    """Fetch a descriptor, and send the packet that it completes; False if it has to be fetched later."""
    length = fetch(rack, card, queue)
    if length > 0:
        send(rack, card, queue, length, now)
    return length != LATER


@compiled
def depart(rack: Rack, card: int, start: int, length: int, now: int) -> int:
    """A frame leaves the card, see `Wire.emit`."""
    wire = rack.outputs[card]
    gone, way = occupy(wire, length, now), int(wire[FLIGHT])
    if way != 0:
        flight.depart(rack, way, start, length, gone)
        return -1
    return emit(rack, card, start, length, 0)


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
        peer = emit(rack, card, start, length, 0)
        if peer >= 0:
            receive(rack, peer, start, length)
        landed += 1
    return landed + is_soon(rack, way, now)


# ---------------------------------------------------------------------------------------------------------------------
# Frames for the card


@compiled
def feed(rack: Rack, card: int, now: int) -> int:
    """Let the card's wire deliver up to a burst of frames, to the card or to those that are on their way to it.

    It waits for the card as in `loop.feed`. How many it delivered; while a frame passes it is one more.
    """
    wire = rack.inputs[card]
    if wire[KIND] == NOTHING or rack.cards[card, FEATURES] & LOOPBACK:
        return 0
    time = call(rack, slots.CLOCK, card, 0, 0, 0) if wire[PACED] != 0 else now
    if time <= 0:
        return 0
    fed = 0
    while fed < BURST and (wire[HELD] != 0 or takes(rack, card)):
        if wire[HELD] == 0:
            wire[HELD] = next_frame(rack, card, time)
            if wire[HELD] == 0:
                break
            occupy(wire, int(wire[HELD]), now)
        if wire[FREE] > now:
            return fed + passing(rack, wire, now)
        way = int(wire[FLIGHT])
        if way != 0:
            flight.depart(rack, way, wire[FRAME], wire[HELD], now)
        else:
            receive(rack, card, wire[FRAME], wire[HELD])
        wire[HELD] = 0
        fed += 1
    if fed < BURST:
        idle(wire, now)
    return fed


@compiled
def takes(rack: Rack, card: int) -> bool:
    """Whether the wire may deliver a frame."""
    wire = rack.inputs[card]
    return wire[STARTED] != 0 or wire[FLIGHT] != 0 or can_receive(rack, card)


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
    return landed + is_soon(rack, way, now)


@compiled
def is_soon(rack: Rack, way: int, now: int) -> int:
    """1 if a frame is due so soon that the cards' thread must not nap, else 0. So it is by a virtual clock, which goes
    on to that moment."""
    due = flight.next_due(rack.tape_words, way)
    if due < 0:
        return 0
    awaits(rack, due)
    return 1 if due <= now + SOON and not is_virtual(rack) else 0
