"""The loop that runs all cards of a rack, as a thread of compiled code or step by step."""

from __future__ import annotations

from ixy.jit import compiled
from ixy.sim import slots
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.receive import can_receive, receive
from ixy.sim.card.state import (
    COALESCING,
    FEATURES,
    LOOPBACK,
    OFFLOAD,
    PENDING,
    RAISED,
    REPORTING,
    SEGMENT,
    TX_QUEUES,
)
from ixy.sim.card.transmit import LATER, can_transmit, count_sent, fetch
from ixy.sim.rack import (
    ALARM,
    ASLEEP,
    AWAITED,
    CARDS,
    DUE,
    FLIGHT,
    FRAME,
    KIND,
    NOTHING,
    PACED,
    PAUSE,
    PAUSED,
    PLUGGED,
    RESUMED,
    SLOT,
    STARTED,
    STOP,
    TIMED,
    Rack,
)
from ixy.sim.slots import call
from ixy.sim.wires import generator, sink
from ixy.sim.wires.generator import Generator
from ixy.sim.wires.sink import Sink
from ixy.unsafe import load_acquire, monotonic_ns, nap, store_release

YIELD_AFTER = 0xFF  # a mask: after so many turns in vain let other threads run
NAP_AFTER = 20_000  # and after so many sleep a little,
SLEEP_AFTER = 2000  # or after so many until something is due
PARK_AFTER = 2000  # looks for the end of a pause, after which it is left to Python to wait for it
BURST = 64  # frames that a card handles before the next card has its turn


STOPPED, PARKED, ALARMED, IDLE = range(4)  # why `run` ends

_GENERATOR, _SINK = Generator.kind, Sink.kind


@compiled
def run(rack: Rack) -> int:
    """Run all cards until `control` says stop, a pause takes long, there is an alarm, or nothing to do; which of these.

    The owner pauses the cards with a ticket: PAUSE is raised, PAUSED answers, RESUMED lets them go on. A rack that has
    nothing to do first yields, then naps, so that idle cards leave the processor to others. If somebody waits for an
    interrupt it ends instead, so that the thread can sleep; if it falls asleep already, after one look.
    """
    idle = held = 0
    while load_acquire(rack.control, STOP) == 0:
        ticket = load_acquire(rack.control, PAUSE)
        if ticket != load_acquire(rack.control, RESUMED):
            store_release(rack.control, PAUSED, ticket)
            nap(0)
            held += 1
            if held > PARK_AFTER:
                return PARKED
            continue
        held = 0
        idle += 1
        if step(rack) > 0:
            idle = 0
            if load_acquire(rack.control, ASLEEP) != 0:
                store_release(rack.control, ASLEEP, 0)
        if load_acquire(rack.control, ALARM) != 0 or is_due(rack):
            return ALARMED
        if load_acquire(rack.control, AWAITED) != 0 and can_sleep(rack, idle):
            return IDLE
        if idle > NAP_AFTER:
            nap(50)
        elif idle & YIELD_AFTER == YIELD_AFTER:
            nap(0)
    return STOPPED


@compiled
def can_sleep(rack: Rack, idle: int) -> bool:
    """Whether the rack was idle for so long, or the thread has said that it sleeps, and this was its last look."""
    return idle > SLEEP_AFTER or (idle > 0 and load_acquire(rack.control, ASLEEP) != 0)


@compiled
def is_due(rack: Rack) -> bool:
    """Whether the thread is to see to something now."""
    due = load_acquire(rack.control, DUE)
    return due != 0 and monotonic_ns() >= due


@compiled
def step(rack: Rack) -> int:
    """Give each card one turn; how many frames and descriptors were handled."""
    work = 0
    plugged = load_acquire(rack.control, PLUGGED)
    for card in range(CARDS):
        if (plugged >> card) & 1:
            if rack.outputs[card, TIMED] != 0:
                work += call(rack, slots.TURN, card, 0, 0, 0)
            else:
                work += drain(rack, card) + feed(rack, card)
            if rack.cards[card, PENDING] & COALESCING:
                call(rack, slots.CLOSE, card, 0, 0, 0)
            if rack.cards[card, PENDING] & REPORTING:
                call(rack, slots.WRITE_BACK, card, 0, 0, 0)
            if rack.cards[card, RAISED] != 0:
                call(rack, slots.INTERRUPT, card, 0, 0, 0)
    return work


# ---------------------------------------------------------------------------------------------------------------------
# Frames for a card


@compiled
def feed(rack: Rack, card: int) -> int:
    """Let the card's wire deliver up to a burst of frames; how many it delivered.

    A wire waits for the card, as a link partner that obeys pause frames would, until its clock has started, if it has
    one: from then on the card drops what it has no room for.
    """
    wire = rack.inputs[card]
    if wire[KIND] == NOTHING or rack.cards[card, FEATURES] & LOOPBACK:
        return 0
    now = call(rack, slots.CLOCK, card, 0, 0, 0) if wire[PACED] != 0 else 0
    if wire[PACED] != 0 and now <= 0:
        return 0
    delivered = 0
    while delivered < BURST and (wire[STARTED] != 0 or can_receive(rack, card)):
        if not deliver(rack, card, now):
            break
        delivered += 1
    return delivered


@compiled
def deliver(rack: Rack, card: int, now: int) -> bool:
    """Let the wire that a card has deliver a frame, if it has one."""
    length = next_frame(rack, card, now)
    if length > 0:
        receive(rack, card, rack.inputs[card, FRAME], length)
    return length > 0


@compiled
def next_frame(rack: Rack, card: int, now: int) -> int:
    """The length of the next frame from a card's wire, see `Wire.next_frame`."""
    wire = rack.inputs[card]
    if wire[KIND] == _GENERATOR and wire[PACED] == 0:
        return generator.next_at_once(rack, card)
    return call(rack, slots.NEXT_FRAME + wire[KIND], card, now, 0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Frames from a card


@compiled
def drain(rack: Rack, card: int) -> int:
    """Send up to a burst of descriptors from each queue of the card; how many were fetched."""
    fetched = 0
    for queue in range(rack.cards[card, TX_QUEUES]):
        burst = 0
        while burst < BURST and can_transmit(rack, card, queue):
            length = fetch(rack, card, queue)
            if length == LATER:
                break
            if length > 0:
                send(rack, card, queue, length, 0)
            burst += 1
        fetched += burst
    return fetched


@compiled
def send(rack: Rack, card: int, queue: int, length: int, now: int) -> None:
    """Send the packet in the card's staging buffer, as one frame or as the several that it is to become.

    They go to the card's wire, or back into the card (8.2.3.22.8, LPBK).

    Args:
        now: the time in nanoseconds where frames take time, as on a card that is TIMED; else 0.
    """
    start = (card & (CARDS - 1)) * SLOT  # masked, so that the compiler knows that no index into the tape is negative
    offloaded = rack.cards[card, OFFLOAD] != 0
    looped = rack.cards[card, FEATURES] & LOOPBACK != 0
    frames = 0
    total, length = length, max(length, MIN_FRAME)
    if offloaded:
        start += SEGMENT
        length = call(rack, slots.BUILD, card, queue, total, 0)
    while length > 0:
        count_sent(rack, card, queue, start, length)
        peer = card if looped else emit(rack, card, start, length, now)
        if peer >= 0 and rack.inputs[peer, FLIGHT] != 0 and not looped:
            call(rack, slots.ARRIVE, peer, start, length, now)
        elif peer >= 0:
            receive(rack, peer, start, length)
        frames += 1
        length = call(rack, slots.BUILD, card, queue, total, frames) if offloaded else 0
    if offloaded:
        rack.cards[card, OFFLOAD] = 0


@compiled
def hand_over(rack: Rack, peer: int, start: int, length: int, now: int) -> None:
    """Let a frame that `emit` has sent to a card, if to any, arrive there, as `send` does."""
    if peer >= 0 and rack.inputs[peer, FLIGHT] != 0:
        call(rack, slots.ARRIVE, peer, start, length, now)
    elif peer >= 0:
        receive(rack, peer, start, length)


@compiled
def emit(rack: Rack, card: int, start: int, length: int, now: int) -> int:
    """Let a card's wire take a frame, see `Wire.emit`; where frames take time, let it set out.

    Without a wire, which may go while frames are under way, it goes nowhere.
    """
    kind = rack.outputs[card, KIND]
    if kind == NOTHING:
        return -1
    if now != 0:
        return call(rack, slots.DEPART, card, start, length, now)
    if kind == _SINK:
        return sink.emit(rack, card, start, length)
    return call(rack, slots.EMIT + kind, card, start, length, 0)
