"""The state of all simulated cards and their wires, as kernels see it: structures of arrays, one row a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.registers.i82599 import BAR0_SIZE, QUEUES
from ixy.sim.card.state import CARD_WORDS, COUNTERS, FLOW_WORDS, FUNCTION_WORDS, PHYSICAL, QUEUE_WORDS
from ixy.unsafe import put_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.unsafe import Window

CARDS = 16
PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT

# Columns of `inputs` and `outputs`, the two ends of what is plugged into a card
(
    KIND,
    PACED,  # of an input: frames have their times
    STARTED,  # when the clock started by which they have, in nanoseconds; 0: it did not
    BROKEN,  # it broke, and its owner is to be told
    FRAME,  # of an input: where on the tape the frame lies that it delivers
    HEADS,  # of an input that is PACED: what `wires/clock.py` goes by
    TAILS,
    LINKED,  # of an input: somebody is at the other end, the link is up
    TIMED,  # of an output: frames take time, and the card's turns are those of `timed.py`
    SPEED,  # in bits a second, 0: frames take no time
    FREE,  # when the last bit of the last frame has passed,
    REST,  # and so many parts of a nanosecond later, of which there are SPEED
    PASSING,  # of an input: the length of the frame that is just passing
    TURN_OF,  # of an output: the queue that is next
    FLIGHT,  # where in the words of the tape the frames are that are on their way (`wires/flight.py`); 0: none ever is
    OWN_WORDS,  # from here on each kind names its own
) = range(16)
END_WORDS = 32
NOTHING = 0  # the kind of no wire
FASTEST = 10**10  # of a card's link, in bits a second: what counts where frames take no time

SLOTS = 64  # for what is in them see `slots.py`
IMAGE_WORDS = 192  # and some to spare

# Words of `control`, by which the thread that runs the cards and the one that owns them speak; a cache line each.
# AWAITED has a bit for each card of which somebody in this process waits for an interrupt, ASLEEP says that the thread
# falls asleep or sleeps, DUE when it is to see to something, in nanoseconds; 0: never. FOLLOWING is 0, but by a virtual
# clock the first moment for which a card waits, as it has said since this was set to FAR.
STOP, PAUSE, PAUSED, RESUMED, PLUGGED, ALARM, AWAITED, ASLEEP, DUE, FOLLOWING, CONTROL_WORDS = range(0, 88, 8)
FAR = (1 << 63) - 1

# A card's slot of the tape: the card's own part (`card/state.py`), that of its wire's output, the frames that are on
# their way from it and to it, and the part of its wire's input.
SLOT = 8 << 30
OUTPUT_PART = 2 << 20
OUTWARD_PART, INWARD_PART = 4 << 20, 512 << 20
INPUT_PART = 1 << 30


class Rack(NamedTuple):
    """All cards of one machine.

    Attributes:
        registers: BAR 0 of each card, shape (CARDS, BAR0_SIZE / 4), uint32. Drivers ring doorbells in it.
        memory: what the cards can reach by DMA, uint8; `words` is the same as int64.
        allowed: for each page of `memory`, how many cards have it mapped, shape (len(memory) / PAGE,), uint8; DMA may
            touch it if any has.
        base: the bus address of `memory[0]`.
        cards: shape (CARDS, CARD_WORDS), int64.
        counters: shape (CARDS, COUNTERS), int64.
        queues: shape (CARDS, QUEUES, QUEUE_WORDS), int64.
        contexts: the two words of each queue's two transmit contexts, shape (CARDS, QUEUES, 2, 2), int64.
        done: for each queue whether it has received, and whether it has sent, shape (CARDS, 2 * QUEUES), uint8.
        functions: of each card its virtual functions and the physical one, shape (CARDS, PHYSICAL + 1, FUNCTION_WORDS),
            int64.
        flows: the flow director's table of each card, shape (CARDS, FLOW_WORDS), int64.
        inputs, outputs: what feeds frames to the card, and what takes those that it sends; shape (CARDS, END_WORDS),
            int64.
        tape: memory for frames on their way, one slot a card, uint8; `tape_words` is the same as int64.
        control: shape (CONTROL_WORDS,), int64.
        slots: addresses of kernels, 0 for one that is not there, shape (SLOTS,), int64.
        image: this rack, as kernels that are called by address read it, shape (IMAGE_WORDS,), int64.
    """

    registers: NDArray[np.uint32]
    memory: NDArray[np.uint8]
    words: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    base: int
    cards: NDArray[np.int64]
    counters: NDArray[np.int64]
    queues: NDArray[np.int64]
    contexts: NDArray[np.int64]
    done: NDArray[np.uint8]
    functions: NDArray[np.int64]
    flows: NDArray[np.int64]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    tape: NDArray[np.uint8]
    tape_words: NDArray[np.int64]
    control: NDArray[np.int64]
    slots: NDArray[np.int64]
    image: NDArray[np.int64]


def new_rack(memory: NDArray[np.uint8], base: int, tape: Window) -> Rack:
    """A rack without cards whose DMA goes to `memory`, which starts at bus address `base`."""
    rack = Rack(
        registers=np.zeros((CARDS, BAR0_SIZE // 4), np.uint32),
        memory=memory,
        words=memory.view(np.int64),
        allowed=np.zeros(-(-len(memory) // PAGE), np.uint8),
        base=base,
        cards=np.zeros((CARDS, CARD_WORDS), np.int64),
        counters=np.zeros((CARDS, COUNTERS), np.int64),
        queues=np.zeros((CARDS, QUEUES, QUEUE_WORDS), np.int64),
        contexts=np.zeros((CARDS, QUEUES, 2, 2), np.int64),
        done=np.zeros((CARDS, 2 * QUEUES), np.uint8),
        functions=np.zeros((CARDS, PHYSICAL + 1, FUNCTION_WORDS), np.int64),
        flows=np.zeros((CARDS, FLOW_WORDS), np.int64),
        inputs=np.zeros((CARDS, END_WORDS), np.int64),
        outputs=np.zeros((CARDS, END_WORDS), np.int64),
        tape=tape.bytes,
        tape_words=tape.bytes.view(np.int64),
        control=np.zeros(CONTROL_WORDS, np.int64),
        slots=np.zeros(SLOTS, np.int64),
        image=np.zeros(IMAGE_WORDS, np.int64),
    )
    put_image(rack, rack.image)
    return rack
