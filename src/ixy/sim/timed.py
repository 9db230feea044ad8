"""Cards that look at the time: their frames are impaired, or take their time at a line's rate or at a queue's, or have
to pause.

Such a card's turn is a kernel of its own, which is compiled when the first one is plugged in: other cards pay nothing
for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.jit import compiled
from ixy.pacing import CATCH_UP_TIME, SECOND
from ixy.sim import pause, slots
from ixy.sim.card import rate
from ixy.sim.card.frame import CRC_BYTES
from ixy.sim.card.receive import can_receive, receive
from ixy.sim.card.state import (
    BUFFER,
    BY_TIME,
    FEATURES,
    LOOPBACK,
    PAUSED_UNTIL,
    POOL_SHIFT,
    QUEUE_DUE,
    QUEUE_FACTOR,
    QUEUE_TX_BYTES,
    TX_QUEUES,
    VIRTUAL,
    XOFF_AGAIN,
)
from ixy.sim.card.transmit import LATER, can_transmit, fetch
from ixy.sim.loop import BURST, emit, next_frame, send
from ixy.sim.rack import FLIGHT, FRAME, FREE, KIND, NOTHING, PACED, PASSING, REST, SPEED, STARTED, TIMED, TURN_OF, Rack
from ixy.sim.slots import belongs_in, call, lacks
from ixy.sim.wires import flight
from ixy.sim.wires.clock import awaits, is_virtual, moment
from ixy.sim.wires.flight import SOON

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OVERHEAD_BYTES = 20  # that each frame takes besides: preamble, start delimiter, gap (IEEE 802.3)

SLOTS = (slots.TURN, slots.DEPART, slots.ARRIVE)  # of each such card


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


@belongs_in(slots.CONTROL)
def _control(image: Any, card: int, start: int, _b: int, _c: int) -> int:
    return pause.obey(image[0], card, start)


@belongs_in(slots.BUFFER)
def _buffer(image: Any, card: int, start: int, length: int, status: int) -> int:
    return pause.take(image[0], card, start, length, status) if length > 0 else pause.tend(image[0], card)


@belongs_in(slots.LIMIT)
def _limit(image: Any, card: int, queue: int, size: int, now: int) -> int:
    rate.limit(image[0], card, queue, size, now)
    return 0


@compiled
def turn(rack: Rack, card: int) -> int:
    """Give the card one turn; how many frames and descriptors were handled, or wait for the wire or are due soon."""
    if lacks(rack, slots.DEPART):  # a frame has just asked this card to pause
        return 0
    now = moment()
    if is_virtual(rack):  # which holds nobody up
        idle(rack.outputs[card], now)
        idle(rack.inputs[card], now)
    handled = call(rack, slots.BUFFER, card, 0, 0, 0) if rack.cards[card, FEATURES] & BUFFER else 0
    handled += land_outward(rack, card, now) + land_inward(rack, card, now)
    if rack.cards[card, XOFF_AGAIN] > now:
        awaits(rack, rack.cards[card, XOFF_AGAIN])
    handled += drain(rack, card, now) + feed(rack, card, now)
    rack.outputs[card, TIMED] = looks_at_time(rack, card, now)
    return handled


@compiled
def looks_at_time(rack: Rack, card: int, now: int) -> bool:
    """Whether the card still has turns like this: a pause may be over, for which alone it had them."""
    wire, own = rack.outputs[card], rack.cards[card]
    if own[PAUSED_UNTIL] <= now:
        own[PAUSED_UNTIL] = 0
    return wire[SPEED] != 0 or wire[FLIGHT] != 0 or own[FEATURES] & BY_TIME != 0 or own[PAUSED_UNTIL] != 0


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
def passes(rack: Rack, until: int, now: int) -> int:
    """1 while a frame passes an end of a wire until that time, or a pause lasts, so that the cards' thread stays awake,
    else 0. So it is by a virtual clock, which goes on to that time."""
    if until <= now:
        return 0
    awaits(rack, until)
    return 0 if is_virtual(rack) else 1


# ---------------------------------------------------------------------------------------------------------------------
# Frames from the card


@compiled
def drain(rack: Rack, card: int, now: int) -> int:
    """Send packets of the card's queues, one of each in turn, while the wire is free.

    How many descriptors were fetched; it is one more while a frame passes, the partner wants none, or a queue waits to
    be no faster than it may be.
    """
    wire, own = rack.outputs[card], rack.cards[card]
    queues = int(own[TX_QUEUES])
    fetched = vain = waits = 0
    while fetched < BURST and vain < queues and wire[FREE] <= now and own[PAUSED_UNTIL] <= now:
        queue = int(wire[TURN_OF]) if wire[TURN_OF] < queues else 0
        due = rack.queues[card, queue, QUEUE_DUE]
        if not may_send(rack, card, queue) or not can_transmit(rack, card, queue):
            vain += 1
        elif due > now:
            vain += 1
            waits |= passes(rack, due, now) & (due <= now + SOON)
        elif transmit(rack, card, queue, now):
            vain = 0
            fetched += 1
        else:
            break
        wire[TURN_OF] = queue + 1
    if own[FEATURES] & VIRTUAL:
        call(rack, slots.FUNCTION, card, -1, 0, 0)
    if vain == queues:
        idle(wire, now)
    return fetched + (waits | passes(rack, wire[FREE], now) | passes(rack, own[PAUSED_UNTIL], now))


@compiled
def may_send(rack: Rack, card: int, queue: int) -> bool:
    """Whether the function that a queue belongs to may send; it is at work from now on."""
    own = rack.cards[card]
    if own[FEATURES] & VIRTUAL == 0:
        return True
    return call(rack, slots.FUNCTION, card, queue >> own[POOL_SHIFT], 0, 0) != 0


@compiled
def transmit(rack: Rack, card: int, queue: int, now: int) -> bool:
    """Fetch a descriptor, and send the packet that it completes; False if it has to be fetched later."""
    before = rack.queues[card, queue, QUEUE_TX_BYTES]
    length = fetch(rack, card, queue)
    if length > 0:
        if rack.cards[card, FEATURES] & VIRTUAL:
            call(rack, slots.SWITCH, card, queue, length, now)
        else:
            send(rack, card, queue, length, now)
        if rack.queues[card, queue, QUEUE_FACTOR] != 0:
            call(rack, slots.LIMIT, card, queue, rack.queues[card, queue, QUEUE_TX_BYTES] - before, now)
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
    while fed < BURST and (wire[PASSING] != 0 or takes(rack, card)):
        if wire[PASSING] == 0:
            wire[PASSING] = next_frame(rack, card, time)
            if wire[PASSING] == 0:
                break
            occupy(wire, int(wire[PASSING]), now)
        if wire[FREE] > now:
            return fed + passes(rack, wire[FREE], now)
        way = int(wire[FLIGHT])
        if way != 0:
            flight.depart(rack, way, wire[FRAME], wire[PASSING], now)
        else:
            receive(rack, card, wire[FRAME], wire[PASSING])
        wire[PASSING] = 0
        fed += 1
    if fed < BURST:
        idle(wire, now)
    return fed


@compiled
def takes(rack: Rack, card: int) -> bool:
    """Whether the wire may deliver a frame: it waits for the card's descriptors, or does as pause frames say."""
    wire = rack.inputs[card]
    if rack.cards[card, XOFF_AGAIN] != 0:
        return False
    if wire[STARTED] != 0 or wire[FLIGHT] != 0:
        return True
    if rack.cards[card, FEATURES] & VIRTUAL:
        return call(rack, slots.ROOM, card, 0, 0, 0) != 0
    return can_receive(rack, card)


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
