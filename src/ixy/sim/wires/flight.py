"""Frames on their way along a wire: what becomes of each, when it is due at the other end, and the record of it.

A flight is one direction of a wire. It lies on the tape: words, a heap of the frames under way by when they are due,
the records, and the frames' bytes. What becomes of a frame follows from the seed and its number alone, so a run can be
repeated whatever the computer's pace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled
from ixy.sim.fates import Fate
from ixy.sim.rack import Rack
from ixy.sim.wires.tape import WORD
from ixy.tables.flows import hash as mixed
from ixy.unsafe import copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a flight. Times are in nanoseconds, probabilities in 2**-32.
(
    DELAY,
    JITTER,
    LOSS,
    DUPLICATE,
    REORDER,
    CORRUPT,
    SEED,
    SENT,  # counts of frames: that have set out,
    ARRIVED,  # that were handed on at the other end,
    COUNTED,  # and six columns: those with each of the bits below
) = range(10)
UNDER_WAY = COUNTED + 6  # how many frames are in the heap, how many were ever put there, how many records were written
LAUNCHED = UNDER_WAY + 1
RECORDED = UNDER_WAY + 2
WORDS = 32

LOST, DUPLICATED, COPY, REORDERED, CORRUPTED, OVERFLOWED = (int(fate) for fate in Fate)

FRAMES = 1 << 14  # that can be under way
FRAME_BYTES = 16 << 10  # the longest; a card takes 15,872
RECORDS = 1 << 20  # that are kept
RECORD = np.dtype([(name, np.int64) for name in ("number", "sent", "arrives", "what", "length", "bit")])

# Where things lie, in words from the flight's first: the heap, two words a frame, when it is due and its tag; the
# length of the frame in each place; the places that are free; the records; the places
_HEAP = WORDS
_LENGTHS = _HEAP + 2 * FRAMES
_FREE = _LENGTHS + FRAMES
_RECORDS = _FREE + FRAMES
_RECORD_WORDS = RECORD.itemsize // WORD
_PLACES = _RECORDS + RECORDS * _RECORD_WORDS
SIZE = _PLACES * WORD + FRAMES * FRAME_BYTES

_PLACE_BITS = FRAMES.bit_length() - 1  # a tag is what was launched before, and the frame's place
_NOWHERE = -1

SOON = 200_000  # nanoseconds: a frame that is due within them is awaited without a nap

# What is drawn for a frame, each by itself
_LOSES, _DUPLICATES, _REORDERS, _CORRUPTS, _JITTERS, _JITTERS_COPY, _BIT, _DRAWS = range(1, 9)


# ---------------------------------------------------------------------------------------------------------------------
# Chance


@compiled
def chance(words: NDArray[np.int64], flight: int, number: int, draw: int) -> int:
    """A number of 32 bits, drawn for a frame. Mixed once, those of successive frames would resemble each other."""
    seed = int(words[flight + SEED])
    return mixed(mixed(number * _DRAWS + draw, seed), number) >> 31


@compiled
def fate(words: NDArray[np.int64], flight: int, number: int) -> int:
    """What becomes of a frame. One that is lost is nothing else."""
    if chance(words, flight, number, _LOSES) < words[flight + LOSS]:
        return LOST
    what = 0
    if chance(words, flight, number, _DUPLICATES) < words[flight + DUPLICATE]:
        what |= DUPLICATED
    if chance(words, flight, number, _REORDERS) < words[flight + REORDER]:
        what |= REORDERED
    if chance(words, flight, number, _CORRUPTS) < words[flight + CORRUPT]:
        what |= CORRUPTED
    return what


@compiled
def delay(words: NDArray[np.int64], flight: int, number: int, draw: int) -> int:
    """For how long a frame is delayed, evenly spread over DELAY ± JITTER."""
    jitter = words[flight + JITTER]
    spread = (chance(words, flight, number, draw) >> 4) * (2 * jitter + 1) >> 28
    return words[flight + DELAY] - jitter + spread


# ---------------------------------------------------------------------------------------------------------------------
# Setting out


@compiled
def depart(rack: Rack, flight: int, start: int, length: int, now: int) -> None:
    """A frame on the tape sets out."""
    words = rack.tape_words
    number = int(words[flight + SENT])
    words[flight + SENT] = number + 1
    what = fate(words, flight, number)
    if what & LOST:
        note(words, flight, number, now, 0, what, length, -1)
        return
    bit = -1
    if what & CORRUPTED:
        bit = chance(words, flight, number, _BIT) * (8 * length) >> 32
    due = now if what & REORDERED else now + delay(words, flight, number, _JITTERS)
    launch(rack, flight, number, start, length, now, due, what, bit)
    if what & DUPLICATED:
        due = now + delay(words, flight, number, _JITTERS_COPY)
        launch(rack, flight, number, start, length, now, due, COPY, -1)


@compiled
def launch(
    rack: Rack, flight: int, number: int, start: int, length: int, now: int, due: int, what: int, bit: int
) -> None:
    """Put a frame among those under way, where there is room for it, and record it."""
    words = rack.tape_words
    place = free_place(words, flight) if length <= FRAME_BYTES else _NOWHERE
    if place == _NOWHERE:
        note(words, flight, number, now, 0, what | OVERFLOWED, length, bit)
        return
    at = bytes_of(flight, place)
    copy(rack.tape, at, rack.tape, start, length)
    if bit >= 0:
        rack.tape[at + (bit >> 3)] ^= 1 << (bit & 7)
    words[flight + _LENGTHS + place] = length
    tag = int(words[flight + LAUNCHED]) << _PLACE_BITS | place
    words[flight + LAUNCHED] += 1
    push(words, flight, due, tag)
    note(words, flight, number, now, due, what, length, bit)


@compiled
def free_place(words: NDArray[np.int64], flight: int) -> int:
    """A place for one more frame, the one that was left last: so memory is used that was used before."""
    under_way = int(words[flight + UNDER_WAY])
    return int(words[flight + _FREE + under_way]) if under_way < FRAMES else _NOWHERE


@compiled
def bytes_of(flight: int, place: int) -> int:
    """Where on the tape the frame in a place lies."""
    return (flight + _PLACES) * WORD + place * FRAME_BYTES


@compiled
def note(
    words: NDArray[np.int64],
    flight: int,
    number: int,
    sent: int,
    arrives: int,
    what: int,
    length: int,
    bit: int,
) -> None:
    """Record and count what became of a frame."""
    row = flight + _RECORDS + (int(words[flight + RECORDED]) & (RECORDS - 1)) * _RECORD_WORDS
    words[flight + RECORDED] += 1
    words[row], words[row + 1], words[row + 2] = number, sent, arrives
    words[row + 3], words[row + 4], words[row + 5] = what, length, bit
    for column in range(6):
        words[flight + COUNTED + column] += (what >> column) & 1


# ---------------------------------------------------------------------------------------------------------------------
# Arriving


@compiled
def next_due(words: NDArray[np.int64], flight: int) -> int:
    """When the first frame is due, -1 if none is under way."""
    return int(words[flight + _HEAP]) if words[flight + UNDER_WAY] > 0 else -1


@compiled
def land(words: NDArray[np.int64], flight: int, now: int) -> int:
    """The place of the first frame that is due by now, -1 if none is. It is free for those that set out later."""
    due = next_due(words, flight)
    if due < 0 or due > now:
        return _NOWHERE
    words[flight + ARRIVED] += 1
    return pop(words, flight) & (FRAMES - 1)


@compiled
def length_of(words: NDArray[np.int64], flight: int, place: int) -> int:
    """The length of the frame in a place."""
    return int(words[flight + _LENGTHS + place])


# ---------------------------------------------------------------------------------------------------------------------
# The heap: by when frames are due, and where that is the same, by which was launched first


@compiled
def push(words: NDArray[np.int64], flight: int, due: int, tag: int) -> None:
    """Add a frame; the place that it takes is no longer free."""
    heap = flight + _HEAP
    at = int(words[flight + UNDER_WAY])
    words[flight + UNDER_WAY] = at + 1
    while at > 0:
        parent = (at - 1) >> 1
        if not is_before(words, due, tag, heap + 2 * parent):
            break
        move(words, heap, parent, at)
        at = parent
    words[heap + 2 * at], words[heap + 2 * at + 1] = due, tag


@compiled
def pop(words: NDArray[np.int64], flight: int) -> int:
    """Take out the first frame, and free its place; its tag."""
    heap = flight + _HEAP
    first = int(words[heap + 1])
    size = int(words[flight + UNDER_WAY]) - 1
    words[flight + UNDER_WAY] = size
    words[flight + _FREE + size] = first & (FRAMES - 1)
    due, tag = int(words[heap + 2 * size]), int(words[heap + 2 * size + 1])
    at, child = 0, 1
    while child < size:
        right = heap + 2 * (child + 1)
        if child + 1 < size and is_before(words, int(words[right]), int(words[right + 1]), heap + 2 * child):
            child += 1
        if is_before(words, due, tag, heap + 2 * child):
            break
        move(words, heap, child, at)
        at, child = child, 2 * child + 1
    words[heap + 2 * at], words[heap + 2 * at + 1] = due, tag
    return first


@compiled
def is_before(words: NDArray[np.int64], due: int, tag: int, other: int) -> bool:
    """Whether a frame comes before the one in the heap at `other`."""
    return due < words[other] or (due == words[other] and tag < words[other + 1])


@compiled
def move(words: NDArray[np.int64], heap: int, start: int, to: int) -> None:
    words[heap + 2 * to], words[heap + 2 * to + 1] = words[heap + 2 * start], words[heap + 2 * start + 1]


# ---------------------------------------------------------------------------------------------------------------------
# For Python


def lay(words: NDArray[np.int64], flight: int) -> None:
    """Make ready a flight without delay or loss, on memory that is 0."""
    words[flight + _FREE :][:FRAMES] = np.arange(FRAMES)


def awaited(words: NDArray[np.int64], flight: int) -> int | None:
    """When to be awake for the first frame, None if none is under way."""
    return int(words[flight + _HEAP]) - SOON if words[flight + UNDER_WAY] else None


def records(words: NDArray[np.int64], flight: int) -> NDArray[np.void]:
    """A copy of the records that are kept, the oldest first, shape (n,), of the type RECORD."""
    written = int(words[flight + RECORDED])
    kept = words[flight + _RECORDS :][: RECORDS * _RECORD_WORDS].view(RECORD)[: min(written, RECORDS)]
    return np.roll(kept, -(written % RECORDS)) if written > RECORDS else kept.copy()
