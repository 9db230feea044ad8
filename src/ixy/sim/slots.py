"""Slots: the kernels of what is rare on a card or a wire, each compiled when it is first needed.

A kernel that another one calls is compiled with it. So that the cards' loop does not grow with all that a card can do,
it calls what is rare by address, which it finds in the rack's `slots`: who switches something on first lets `provide`
put its kernels there. Whether a packet asks for an offload is known only when the card sees it. Then the card leaves it
where it is, the loop ends with an alarm, and its thread in Python puts the kernel there and lets it go on.

An empty slot is never called: `call` looks first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ixy import unsafe
from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card import classify, filters, interrupts, judge, offload, state, timestamps
from ixy.sim.card.iommu import translate
from ixy.sim.rack import ALARM, Rack
from ixy.sim.wires import clock
from ixy.sim.wires.kinds import KINDS
from ixy.unsafe import load_acquire, store_release

if TYPE_CHECKING:
    from ixy.sim.wires.wire import Wire

# The words of `slots`
(
    WANTED,  # the number of the slot whose kernel somebody waits for, 0: nobody does
    BUILD,  # a descriptor asks for an offload
    TRANSLATE,  # an IOMMU stands before the card
    CLASSIFY,  # the bits of FEATURES with these names
    CHECK_VLAN,
    STRIP_VLAN,
    INTERRUPT,
    CLOCK,  # the wire keeps times
    TURN,  # frames take time on the wire: the turn of such a card,
    DEPART,  # a frame that it sends,
    ARRIVE,  # and one that is sent to it
    FORMATS,  # the bits of FEATURES with these names
    KEEP_CRC,
    REPORT,
    COALESCE,
    FILTER,
    POOLS,
    CONTROL,
    BUFFER,
    STAMP,
    STAMP_SENT,
    LIMIT,
    ARRIVED,  # either of BUFFER and STAMP
    WRITE_BACK,  # the bits of PENDING: descriptors are to be written back,
    CLOSE,  # packets that were coalesced are complete
    JUDGE,  # a transmit descriptor, or a ring, breaks a rule for drivers
    LEAVE,  # a packet leaves that is no good
    SPOIL,  # and one is received
    FETCH,  # a transmit descriptor is not as most are
    FUNCTION,  # with VIRTUAL, another function has its turn,
    SWITCH,  # a pool sends a packet,
    ROOM,  # and is there room for what comes
) = range(32)
NEXT_FRAME = 32  # and the number of a kind of wires
EMIT = 48

EMPTY = -1  # what an empty slot answers

OF_FEATURES = (
    (state.CLASSIFY, CLASSIFY),
    (state.CHECK_VLAN, CHECK_VLAN),
    (state.STRIP_VLAN, STRIP_VLAN),
    (state.INTERRUPT, INTERRUPT),
    (state.FORMATS, FORMATS),
    (state.KEEP_CRC, KEEP_CRC),
    (state.REPORT, REPORT),
    (state.REPORT, WRITE_BACK),
    (state.COALESCE, COALESCE),
    (state.COALESCE, CLOSE),
    (state.FILTER, FILTER),
    (state.POOLS, POOLS),
    (state.CONTROL, CONTROL),
    (state.BUFFER, BUFFER),
    (state.STAMP, STAMP),
    (state.STAMP_SENT, STAMP_SENT),
    (state.LIMIT, LIMIT),
    (state.VIRTUAL, FUNCTION),
    (state.VIRTUAL, SWITCH),
    (state.VIRTUAL, ROOM),
    (state.BUFFER | state.STAMP, ARRIVED),
)

# ---------------------------------------------------------------------------------------------------------------------
# What the cards' loop does


@compiled
def call(rack: Rack, slot: int, card: int, a: int, b: int, c: int) -> int:
    """What the kernel in a slot answers to a card and three numbers; `EMPTY`, and it is wanted, if it is not there."""
    if lacks(rack, slot):
        return EMPTY
    return unsafe.call(rack.slots, slot, rack, rack.image, card, a, b, c)


@compiled
def lacks(rack: Rack, slot: int) -> bool:
    """Whether a slot is empty; then it is wanted."""
    if load_acquire(rack.slots, slot) != 0:
        return False
    want(rack, slot)
    return True


@outlined
def want(rack: Rack, slot: int) -> None:
    rack.slots[WANTED] = slot
    store_release(rack.control, ALARM, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The kernels: each is called with an image, whose element 0 is the rack, and with what was handed to `call`

Kernel = Callable[[Any, int, int, int, int], int]
_kernels: dict[int, Kernel] = {}


def belongs_in(slot: int) -> Callable[[Kernel], Kernel]:
    """A decorator: compiled, the function belongs into this slot."""

    def put(function: Kernel) -> Kernel:
        _kernels[slot] = compiled(function)
        return function

    return put


@belongs_in(BUILD)
def _build(image: Any, card: int, queue: int, length: int, number: int) -> int:
    rack = image[0]
    asked = rack.cards[card, state.OFFLOAD]
    if number == 0 and asked & reg.TX_TSE and not judge.segments(rack, card, queue, length):
        return 0
    if number == 0 and asked & reg.TX_TIMESTAMP and rack.cards[card, state.FEATURES] & state.STAMP_SENT:
        call(rack, STAMP_SENT, card, 0, 0, 0)
    return offload.build(rack, card, queue, length, number)


@belongs_in(TRANSLATE)
def _translate(image: Any, card: int, address: int, access: int, _: int) -> int:
    rack = image[0]
    own = rack.cards[card]
    return translate(rack.words, rack.allowed, own[state.ROOT_TABLE], own[state.REQUESTER], address, access)


@belongs_in(CLASSIFY)
def _classify(image: Any, card: int, start: int, length: int, _: int) -> int:
    rack = image[0]
    own = rack.cards[card]
    found = classify.classify(rack.registers[card], rack.tape, start, length)
    own[state.QUEUE], own[state.WORD_0], own[state.WORD_1] = found
    return 0


@belongs_in(CHECK_VLAN)
def _check_vlan(image: Any, card: int, start: int, _b: int, _c: int) -> int:
    rack = image[0]
    return classify.in_vlan(rack.registers[card], rack.tape, start)


@belongs_in(STRIP_VLAN)
def _strip_vlan(image: Any, card: int, start: int, length: int, _: int) -> int:
    return classify.strip(image[0], card, start, length)


@belongs_in(KEEP_CRC)
def _keep_crc(image: Any, card: int, start: int, length: int, left: int) -> int:
    return classify.keep_crc(image[0], card, start, length, left)


@belongs_in(FILTER)
def _filter(image: Any, card: int, start: int, length: int, pool: int) -> int:
    return filters.choose(image[0], card, start, length, pool)


@belongs_in(ARRIVED)
def _arrived(image: Any, card: int, start: int, length: int, _: int) -> int:
    """What a frame's descriptor is to say besides; -1 if it waits in the packet buffer, or is lost there."""
    rack = image[0]
    features = rack.cards[card, state.FEATURES]
    status = call(rack, STAMP, card, start, length, 0) if features & state.STAMP else 0
    waits = call(rack, BUFFER, card, start, length, status) if features & state.BUFFER else 0
    return -1 if waits != 0 else status


@belongs_in(STAMP)
def _stamp(image: Any, card: int, start: int, length: int, _: int) -> int:
    return timestamps.stamp_received(image[0], card, start, length, clock.moment())


@belongs_in(STAMP_SENT)
def _stamp_sent(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    timestamps.stamp_sent(image[0], card, clock.moment())
    return 0


@belongs_in(INTERRUPT)
def _interrupt(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    return interrupts.notify(image[0], card)


@belongs_in(JUDGE)
def _judge(image: Any, card: int, queue: int, command: int, _: int) -> int:
    return judge.judge(image[0], card, queue, command)


@belongs_in(SPOIL)
def _spoil(image: Any, card: int, queue: int, start: int, length: int) -> int:
    return judge.spoil(image[0], card, queue, start, length)


@belongs_in(CLOCK)
def _clock(image: Any, card: int, _a: int, _b: int, _c: int) -> int:
    return clock.now(image[0], card)


def _take_wires(kind: type[Wire]) -> None:
    """The kernels of one kind of wires belong into its slots."""
    next_frame: Any = kind.next_frame
    emit: Any = kind.emit

    if next_frame is not None:

        @belongs_in(NEXT_FRAME + kind.kind)
        def _next_frame(image: Any, card: int, now: int, _b: int, _c: int) -> int:
            return next_frame(image[0], card, now)

    if emit is not None:

        @belongs_in(EMIT + kind.kind)
        def _emit(image: Any, card: int, start: int, length: int, _: int) -> int:
            return emit(image[0], card, start, length)


for kind in KINDS:
    _take_wires(kind)


# ---------------------------------------------------------------------------------------------------------------------
# Who needs which


def provide(rack: Rack, *slots: int) -> None:
    """Put the kernels there that belong into these slots, compiled if this is the first time."""
    for slot in slots:
        if rack.slots[slot] == 0:
            rack.slots[slot] = unsafe.address_of(_kernels[slot], rack)


def provide_all(rack: Rack) -> None:
    """Put all kernels there: for who compiles beforehand."""
    provide(rack, *_kernels)


def provide_wanted(rack: Rack) -> bool:
    """Put the kernel there that the loop has ended for, if it has; whether it can go on now."""
    slot = int(rack.slots[WANTED])
    rack.slots[WANTED] = 0
    if slot:
        provide(rack, slot)
    return slot > 0


def of_features(features: int) -> list[int]:
    """The slots that are called while these bits of FEATURES are set."""
    return [slot for bit, slot in OF_FEATURES if features & bit]


def of_wire(wire: Wire) -> list[int]:
    """The slots that are called for a wire, `timed.SLOTS` aside."""
    if wire.inlined:
        return []
    ends = [first + wire.kind for first in (NEXT_FRAME, EMIT) if first + wire.kind in _kernels]
    return [*ends, CLOCK] if wire.paced else ends
