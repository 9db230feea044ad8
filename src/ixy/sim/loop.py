"""The loop that runs all cards of a rack, as a thread of compiled code or step by step."""

from __future__ import annotations

from ixy.jit import compiled
from ixy.sim.card.nic import can_receive, can_transmit, count_sent, fetch, receive
from ixy.sim.card.offload import MIN_FRAME, build
from ixy.sim.card.state import EVENT, FEATURES, LOOPBACK, NOTICE, OFFLOAD, RAISED, SEGMENT, TX_QUEUES
from ixy.sim.rack import (
    ALARM,
    CARDS,
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
    Rack,
)
from ixy.sim.wires.kinds import emit, next_frame
from ixy.unsafe import load_acquire, monotonic_ns, nap, store_release, write_file

YIELD_AFTER = 0xFF  # a mask: after so many turns in vain let other threads run
NAP_AFTER = 20_000  # and after so many sleep a little
PARK_AFTER = 2000  # looks for the end of a pause, after which it is left to Python to wait for it
BURST = 64  # frames that a card handles before the next card has its turn


STOPPED, HELD, BROKE = range(3)  # why `run` ends


@compiled
def run(rack: Rack) -> int:
    """Run all cards until `control` says stop, a pause takes long, or a wire broke; which of these.

    The owner pauses the cards with a ticket: PAUSE is raised, PAUSED answers, RESUMED lets them go on. A rack that has
    nothing to do first yields, then naps, so that idle cards leave the processor to others.
    """
    idle = held = 0
    while load_acquire(rack.control, STOP) == 0:
        ticket = load_acquire(rack.control, PAUSE)
        if ticket != load_acquire(rack.control, RESUMED):
            store_release(rack.control, PAUSED, ticket)
            nap(0)
            held += 1
            if held > PARK_AFTER:
                return HELD
            continue
        held = 0
        idle = 0 if step(rack) > 0 else idle + 1
        if load_acquire(rack.control, ALARM) != 0:
            return BROKE
        if idle > NAP_AFTER:
            nap(50)
        elif idle & YIELD_AFTER == YIELD_AFTER:
            nap(0)
    return STOPPED


@compiled
def step(rack: Rack) -> int:
    """Give each card one turn; how many frames and descriptors were handled."""
    work = 0
    plugged = load_acquire(rack.control, PLUGGED)
    for card in range(CARDS):
        if (plugged >> card) & 1:
            work += drain(rack, card) + feed(rack, card)
            if rack.cards[card, RAISED] != 0:
                rack.cards[card, RAISED] = 0
                notify(rack, card)
    return work


@compiled
def notify(rack: Rack, card: int) -> None:
    """Tell the card's owner that queues are `done` with something; it adds one to an eventfd."""
    place = card * SLOT + NOTICE
    for i in range(8):
        rack.tape[place + i] = 1 if i == 0 else 0
    write_file(rack.cards[card, EVENT], rack.tape, place, 8)


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
    now = monotonic_ns() if wire[PACED] != 0 else 0
    delivered = 0
    while delivered < BURST and (wire[STARTED] != 0 or can_receive(rack, card)):
        if not deliver(rack, card, now):
            break
        delivered += 1
    return delivered


@compiled
def deliver(rack: Rack, card: int, now: int) -> bool:
    """Let the wire that a card has deliver a frame, if it has one."""
    start, length = next_frame(rack, card, now)
    if length > 0:
        receive(rack, card, rack.tape, start, length)
    return length > 0


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
            if length > 0:
                send(rack, card, queue, length)
            burst += 1
        fetched += burst
    return fetched


@compiled
def send(rack: Rack, card: int, queue: int, length: int) -> None:
    """Send the packet in the card's staging buffer, as one frame or as the several that it is to become.

    They go to the card's wire, or back into the card (8.2.3.22.8, LPBK).
    """
    start = card * SLOT
    offloaded = rack.cards[card, OFFLOAD] != 0
    looped = rack.cards[card, FEATURES] & LOOPBACK != 0
    wired = rack.outputs[card, KIND] != NOTHING
    frames = 0
    total, length = length, max(length, MIN_FRAME)
    if offloaded:
        start += SEGMENT
        length = build(rack, card, queue, total, 0)
    while length > 0:
        count_sent(rack, card, queue, start, length)
        peer = card if looped else emit(rack, card, start, length) if wired else -1
        if peer >= 0:
            receive(rack, peer, rack.tape, start, length)
        frames += 1
        length = build(rack, card, queue, total, frames) if offloaded else 0
    if offloaded:
        rack.cards[card, OFFLOAD] = 0
