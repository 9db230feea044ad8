"""The state of all simulated cards, as kernels see it: structures of arrays, one row a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.registers.i82599 import BAR0_SIZE
from ixy.unsafe import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARDS = 16
PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT

# Columns of `counters`: what a card has counted since it was made. The register file turns them into the datasheet's
# read-clear statistics (8.2.3.23).
(
    RX_GOOD,
    RX_GOOD_BYTES,
    RX_BROADCAST,
    RX_MULTICAST,
    RX_TOTAL,
    RX_MISSED,
    RX_NO_DESCRIPTOR,
    RX_UNDERSIZE,
    RX_OVERSIZE,
    TX_GOOD,
    TX_GOOD_BYTES,
    DMA_REFUSED,
    DMA_ADDRESS,
    COUNTERS,
) = range(14)

# Columns of `wires`: what is plugged into a card, and how far it has come; also how many transmit
# queues may run, and whether the configuration space allows DMA.
(
    INPUT,
    OUTPUT,
    PEER,
    FD_IN,
    FD_OUT,
    FRAMES,
    FRAME_COUNT,
    POSITION,
    LIMIT,
    RATE,
    STARTED,
    STAMPED,
    EXPECTED,
    RECEIVED,
    LOST,
    REORDERED,
    WRONG,
    NEXT_SEQUENCE,
    RECORDED,
    RECORD_PENDING,
    RECORD_USED,
    RECORD_WRITTEN,
    RECORD_FAILED,
    EXPECTED_LENGTH,
    STAGED,
    TX_QUEUES,
    BUS_MASTER,
    WIRE_WORDS,
) = range(28)

# Words of `control`, by which the thread that runs the cards and the one that owns them speak.
STOP, PAUSE, PAUSED, RESUMED, PLUGGED, CONTROL_WORDS = 0, 8, 16, 24, 32, 40  # a cache line each

# A card's part of the tape: a staging buffer, a buffer for records on their way to a file, then frames to replay.
SLOT = 8 << 30
STAGE = 0
STAGE_SIZE = 64 << 10
RECORDS = STAGE_SIZE
RECORDS_SIZE = 1 << 20
REPLAY = 2 << 20


class Rack(NamedTuple):
    """All cards of one machine.

    Attributes:
        registers: BAR 0 of each card, shape (CARDS, BAR0_SIZE / 4), uint32. Drivers ring doorbells in it.
        memory: what the cards can reach by DMA, uint8; `words` is the same as int64.
        allowed: for each page of `memory`, whether DMA may touch it, shape (len(memory) / PAGE,), uint8.
        base: the bus address of `memory[0]`.
        counters: shape (CARDS, COUNTERS), int64.
        wires: shape (CARDS, WIRE_WORDS), int64.
        tape: frames that wires replay or record, one slot a card, uint8; `tape_words` is the same as int64.
        control: shape (CONTROL_WORDS,), int64.
    """

    registers: NDArray[np.uint32]
    memory: NDArray[np.uint8]
    words: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    base: int
    counters: NDArray[np.int64]
    wires: NDArray[np.int64]
    tape: NDArray[np.uint8]
    tape_words: NDArray[np.int64]
    control: NDArray[np.int64]


def new_rack(memory: NDArray[np.uint8], base: int, tape: Window) -> Rack:
    """A rack without cards whose DMA goes to `memory`, which starts at bus address `base`."""
    return Rack(
        registers=np.zeros((CARDS, BAR0_SIZE // 4), np.uint32),
        memory=memory,
        words=memory.view(np.int64),
        allowed=np.zeros(-(-len(memory) // PAGE), np.uint8),
        base=base,
        counters=np.zeros((CARDS, COUNTERS), np.int64),
        wires=np.zeros((CARDS, WIRE_WORDS), np.int64),
        tape=tape.bytes,
        tape_words=tape.bytes.view(np.int64),
        control=np.zeros(CONTROL_WORDS, np.int64),
    )
