"""What can be plugged into a simulated card's port: a cable, a capture file, a TAP device, a generator with a sink.

A wire has two ends: its input feeds frames to the card, its output takes what the card sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.formats.pcap import Format, append, record_bytes
from ixy.jit import compiled
from ixy.sim.card.nic import can_receive, can_transmit, count_sent, fetch, receive
from ixy.sim.card.offload import MIN_FRAME, build
from ixy.sim.rack import (
    ARRIVAL,
    ARRIVAL_SIZE,
    CARDS,
    EVENT,
    EXPECTED,
    EXPECTED_LENGTH,
    FD_IN,
    FD_OUT,
    FEATURES,
    FRAME_COUNT,
    FRAMES,
    INPUT,
    LIMIT,
    LOOPBACK,
    LOST,
    NEXT_SEQUENCE,
    OFFLOAD,
    OUTPUT,
    PAUSE,
    PAUSED,
    PEER,
    PLUGGED,
    POSITION,
    RAISED,
    RATE,
    RECEIVED,
    RECORD_FAILED,
    RECORD_PENDING,
    RECORD_USED,
    RECORD_WRITTEN,
    RECORDED,
    RECORDS,
    RECORDS_SIZE,
    REORDERED,
    RESUMED,
    SEGMENT,
    SLOT,
    STAMPED,
    STARTED,
    STOP,
    TX_QUEUES,
    WRONG,
    Rack,
)
from ixy.unsafe import equal, load_acquire, monotonic_ns, nap, read_file, realtime_ns, store_release, write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Kinds of input and output
NOTHING, CABLE, REPLAY_FAST, REPLAY_TIMED, RECORD, TAP, GENERATOR, SINK = range(8)

YIELD_AFTER = 0xFF  # a mask: after so many turns in vain let other threads run
NAP_AFTER = 20_000  # and after so many sleep a little
BURST = 64  # frames that a card handles before the next card has its turn
SEQUENCE_BYTES = 4  # the generator writes a sequence number into a frame's last bytes, big-endian
SWAPPED = 2048  # how far behind the frame that a sink expects its other form lies
_SECOND = 1_000_000_000
_FORMAT = Format(snaplen=65535, tick=1)
_FRAME_WORDS = 3  # of a frame on the tape: offset in the tape, length, nanoseconds since the first frame


# ---------------------------------------------------------------------------------------------------------------------
# Input


@compiled
def feed(rack: Rack, card: int) -> int:
    """Let the card's wire deliver up to a burst of frames; how many it delivered."""
    kind = rack.wires[card, INPUT]
    if kind == NOTHING or kind == CABLE or rack.wires[card, FEATURES] & LOOPBACK:
        return 0  # the other end of a cable delivers by itself
    if kind == TAP:
        return feed_from_tap(rack, card)
    if kind == REPLAY_TIMED or rack.wires[card, RATE] > 0:
        return feed_on_time(rack, card)
    return feed_fast(rack, card)


@compiled
def feed_fast(rack: Rack, card: int) -> int:
    """Deliver frames as fast as the card takes them, as a link partner that obeys pause frames would."""
    delivered = 0
    while delivered < BURST and has_frame(rack, card) and can_receive(rack, card):
        deliver(rack, card)
        delivered += 1
    return delivered


@compiled
def feed_on_time(rack: Rack, card: int) -> int:
    """Deliver the frames whose time has come; the card drops what it has no room for."""
    wire = rack.wires[card]
    if not has_frame(rack, card):
        return 0
    now = monotonic_ns()
    if wire[STARTED] == 0:
        if not can_receive(rack, card):
            return 0  # the clock starts when the card is ready
        wire[STARTED] = now
    delivered = 0
    while delivered < BURST and has_frame(rack, card) and due(rack, card) <= now - wire[STARTED]:
        deliver(rack, card)
        delivered += 1
    return delivered


@compiled
def due(rack: Rack, card: int) -> int:
    """When the next frame is due, in nanoseconds after the first."""
    wire = rack.wires[card]
    if wire[RATE] > 0:
        seconds, rest = divmod(wire[POSITION], wire[RATE])
        return seconds * _SECOND + rest * _SECOND // wire[RATE]
    return rack.tape_words[frame_row(rack, card) + 2]


@compiled
def has_frame(rack: Rack, card: int) -> bool:
    wire = rack.wires[card]
    return wire[FRAME_COUNT] > 0 and (wire[LIMIT] == 0 or wire[POSITION] < wire[LIMIT])


@compiled
def frame_row(rack: Rack, card: int) -> int:
    """Where on the tape the next frame is described."""
    wire = rack.wires[card]
    return wire[FRAMES] + wire[POSITION] % wire[FRAME_COUNT] * _FRAME_WORDS


@compiled
def deliver(rack: Rack, card: int) -> None:
    """Deliver the next frame of the tape, stamped with its number if the wire is a generator."""
    wire = rack.wires[card]
    row = frame_row(rack, card)
    start, length = rack.tape_words[row], rack.tape_words[row + 1]
    if wire[STAMPED] != 0:
        stamp(rack.tape, start + length - SEQUENCE_BYTES, wire[POSITION])
    wire[POSITION] += 1
    receive(rack, card, rack.tape, start, length)


@compiled
def stamp(tape: NDArray[np.uint8], at: int, sequence: int) -> None:
    for i in range(SEQUENCE_BYTES):
        tape[at + i] = (sequence >> (8 * (SEQUENCE_BYTES - 1 - i))) & 0xFF


@compiled
def feed_from_tap(rack: Rack, card: int) -> int:
    """Deliver what the kernel sends to the TAP device, while the card has room: the kernel keeps the rest queued."""
    place = card * SLOT + ARRIVAL
    delivered = 0
    while delivered < BURST and can_receive(rack, card):
        length = read_file(rack.wires[card, FD_IN], rack.tape, place, ARRIVAL_SIZE // 2)
        if length <= 0:
            break
        for i in range(length, MIN_FRAME):
            rack.tape[place + i] = 0
        receive(rack, card, rack.tape, place, max(length, MIN_FRAME))
        delivered += 1
    return delivered


# ---------------------------------------------------------------------------------------------------------------------
# Output


@compiled
def drain(rack: Rack, card: int) -> int:
    """Send up to a burst of descriptors from each queue of the card; how many were fetched."""
    fetched = 0
    for queue in range(rack.wires[card, TX_QUEUES]):
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
    """Send the packet in the card's staging buffer, as one frame or as the several that it is to become."""
    start = card * SLOT
    offloaded = rack.wires[card, OFFLOAD] != 0
    frames = 0
    total, length = length, max(length, MIN_FRAME)
    if offloaded:
        start += SEGMENT
        length = build(rack, card, queue, total, 0)
    while length > 0:
        count_sent(rack, card, queue, start, length)
        emit(rack, card, start, length)
        frames += 1
        length = build(rack, card, queue, total, frames) if offloaded else 0
    if offloaded:
        rack.wires[card, OFFLOAD] = 0


@compiled
def emit(rack: Rack, card: int, start: int, length: int) -> None:
    """Put a frame, which lies at `start` of the tape, on the card's wire, or back into the card (8.2.3.22.8, LPBK)."""
    kind = rack.wires[card, OUTPUT]
    peer = rack.wires[card, PEER]
    if rack.wires[card, FEATURES] & LOOPBACK:
        kind, peer = CABLE, card
    if kind == CABLE:
        receive(rack, peer, rack.tape, start, length)
    elif kind == SINK:
        check(rack, card, start, length)
    elif kind == RECORD:
        record(rack, card, start, length)
    elif kind == TAP:
        write_file(rack.wires[card, FD_OUT], rack.tape, start, length)


@compiled
def check(rack: Rack, card: int, stage: int, length: int) -> None:
    """Compare a frame with what the generator sent and the forwarder should have made of it, and its number's order."""
    wire = rack.wires[card]
    wire[RECEIVED] += 1
    expected = wire[EXPECTED]
    if length != wire[EXPECTED_LENGTH]:
        wire[WRONG] += 1
        return
    body = length - SEQUENCE_BYTES
    if not equal(rack.tape, stage, rack.tape, expected, body) and not equal(
        rack.tape, stage, rack.tape, expected + SWAPPED, body
    ):
        wire[WRONG] += 1
        return
    sequence = 0
    for i in range(SEQUENCE_BYTES):
        sequence = (sequence << 8) | np.int64(rack.tape[stage + body + i])
    gap = (sequence - wire[NEXT_SEQUENCE]) & 0xFFFFFFFF
    if gap >= 1 << 31:
        wire[REORDERED] += 1
    else:
        wire[LOST] += gap
        wire[NEXT_SEQUENCE] = sequence + 1


@compiled
def record(rack: Rack, card: int, start: int, length: int) -> None:
    """Append the frame to the card's records, and write them out when they fill their buffer."""
    wire = rack.wires[card]
    base = card * SLOT + RECORDS
    buffer = rack.tape[base : base + RECORDS_SIZE]
    if wire[RECORD_USED] + record_bytes(length) > RECORDS_SIZE:
        flush(rack, card)
    if wire[RECORD_FAILED] == 0:
        wire[RECORD_USED] = append(buffer, wire[RECORD_USED], _FORMAT, realtime_ns(), rack.tape, start, length)
        wire[RECORD_PENDING] += 1


@compiled
def flush(rack: Rack, card: int) -> None:
    """Write the card's records out; after an error no more is recorded, and what was not written stays."""
    wire = rack.wires[card]
    base = card * SLOT + RECORDS
    while wire[RECORD_FAILED] == 0 and wire[RECORD_WRITTEN] < wire[RECORD_USED]:
        done = wire[RECORD_WRITTEN]
        written = write_file(wire[FD_OUT], rack.tape, base + done, wire[RECORD_USED] - done)
        if written <= 0:
            wire[RECORD_FAILED] = 1
        else:
            wire[RECORD_WRITTEN] += written
    if wire[RECORD_FAILED] == 0:
        wire[RECORDED] += wire[RECORD_PENDING]
        wire[RECORD_PENDING] = wire[RECORD_USED] = wire[RECORD_WRITTEN] = 0


# ---------------------------------------------------------------------------------------------------------------------
# All cards


@compiled
def step(rack: Rack) -> int:
    """Give each card one turn; how many frames and descriptors were handled."""
    work = 0
    plugged = load_acquire(rack.control, PLUGGED)
    for card in range(CARDS):
        if (plugged >> card) & 1:
            work += drain(rack, card) + feed(rack, card)
            if rack.wires[card, RAISED] != 0:
                rack.wires[card, RAISED] = 0
                notify(rack, card)
    return work


@compiled
def notify(rack: Rack, card: int) -> None:
    """Tell the card's owner that queues are `done` with something; it adds one to an eventfd."""
    place = card * SLOT + ARRIVAL
    for i in range(8):
        rack.tape[place + i] = 1 if i == 0 else 0
    write_file(rack.wires[card, EVENT], rack.tape, place, 8)


@compiled
def run(rack: Rack) -> None:
    """Run all cards until `control` says stop.

    The owner pauses the cards with a ticket: PAUSE is raised, PAUSED answers, RESUMED lets them go on. A rack that has
    nothing to do first yields, then naps, so that idle cards leave the processor to others.
    """
    idle = 0
    while load_acquire(rack.control, STOP) == 0:
        ticket = load_acquire(rack.control, PAUSE)
        if ticket != load_acquire(rack.control, RESUMED):
            store_release(rack.control, PAUSED, ticket)
            nap(0)
            continue
        idle = 0 if step(rack) > 0 else idle + 1
        if idle > NAP_AFTER:
            nap(50)
        elif idle & YIELD_AFTER == YIELD_AFTER:
            nap(0)
