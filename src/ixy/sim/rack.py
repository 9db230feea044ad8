"""The state of all simulated cards, as kernels see it: structures of arrays, one row a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.registers.i82599 import BAR0_SIZE, QUEUES
from ixy.unsafe import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARDS = 16
PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT

# Columns of `counters`: what a card has counted since it was made. The register file turns them, with those of queues,
# into the datasheet's read-clear statistics (8.2.3.23). A frame that goes its usual way is counted in few places.
(
    RX_BROADCAST,
    RX_MULTICAST,
    RX_UNDERSIZE,
    RX_OVERSIZE,
    RX_FILTERED,
    RX_REFUSED_BYTES,  # of the frames in these three
    RX_MISSED,
    RX_NO_DESCRIPTOR,
    RX_LOST_BYTES,  # of the frames in these two, and of tags that were stripped
    TX_BROADCAST,
    TX_MULTICAST,
    DMA_REFUSED,
    DMA_ADDRESS,
    RX_SIZES,  # six columns: good frames of up to 64, 127, 255, 511, 1023 bytes, and longer ones
) = range(14)
TX_SIZES = RX_SIZES + 6
COUNTERS = TX_SIZES + 6

# Columns of `queues`: what each queue has counted
QUEUE_RX, QUEUE_RX_BYTES, QUEUE_TX, QUEUE_TX_BYTES, QUEUE_DROPPED, QUEUE_COUNTERS = range(6)

# Bits of the word FEATURES: what is enabled on a card beyond plain receiving and sending. The rare is tested at once.
CLASSIFY, CHECK_VLAN, STRIP_VLAN, LOOPBACK, INTERRUPT = 1, 2, 4, 8, 16

# Columns of `wires`: what is plugged into a card, and how far it has come; also how many queues may run, whether the
# configuration space allows DMA, and what else a card does at the time.
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
    RX_QUEUES,
    FEATURES,
    OFFLOAD,  # the first descriptor of the packet that is being gathered, if it asks for an offload
    STAGING,  # the queue whose packet is gathered in part
    EVENT,  # file descriptor that tells the card's owner of something to interrupt for
    RAISED,  # whether there is
    ROOT_TABLE,  # address of the IOMMU's root table; 0: no IOMMU translates
    REQUESTER,  # bus, device and function, by which the IOMMU knows the card
    WIRE_WORDS,
) = range(36)

# Words of `control`, by which the thread that runs the cards and the one that owns them speak.
STOP, PAUSE, PAUSED, RESUMED, PLUGGED, CONTROL_WORDS = 0, 8, 16, 24, 32, 40  # a cache line each

# A card's part of the tape: buffers for a packet on its way out, one of its segments, and a frame that arrives; one for
# records on their way to a file; then frames to replay.
SLOT = 8 << 30
STAGE = 0
STAGE_SIZE = 256 << 10  # PAYLEN has 18 bits
SEGMENT = STAGE_SIZE
ARRIVAL = SEGMENT + (64 << 10)
ARRIVAL_SIZE = 64 << 10
RECORDS = ARRIVAL + ARRIVAL_SIZE
RECORDS_SIZE = 1 << 20
REPLAY = 2 << 20


class Rack(NamedTuple):
    """All cards of one machine.

    Attributes:
        registers: BAR 0 of each card, shape (CARDS, BAR0_SIZE / 4), uint32. Drivers ring doorbells in it.
        memory: what the cards can reach by DMA, uint8; `words` is the same as int64.
        allowed: for each page of `memory`, how many cards have it mapped, shape (len(memory) / PAGE,), uint8; DMA may
            touch it if any has.
        base: the bus address of `memory[0]`.
        counters: shape (CARDS, COUNTERS), int64.
        queues: shape (CARDS, QUEUES, QUEUE_COUNTERS), int64.
        contexts: the two words of each queue's two transmit contexts, shape (CARDS, QUEUES, 2, 2), int64.
        done: for each queue whether it has received, and whether it has sent, shape (CARDS, 2 * QUEUES), uint8.
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
    queues: NDArray[np.int64]
    contexts: NDArray[np.int64]
    done: NDArray[np.uint8]
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
        queues=np.zeros((CARDS, QUEUES, QUEUE_COUNTERS), np.int64),
        contexts=np.zeros((CARDS, QUEUES, 2, 2), np.int64),
        done=np.zeros((CARDS, 2 * QUEUES), np.uint8),
        wires=np.zeros((CARDS, WIRE_WORDS), np.int64),
        tape=tape.bytes,
        tape_words=tape.bytes.view(np.int64),
        control=np.zeros(CONTROL_WORDS, np.int64),
    )
