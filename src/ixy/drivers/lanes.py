"""The rings of `ixy.Ring`: packets handed from threads to another thread, by numbers of their buffers.

Each producer has a lane of its own, so two threads share a lane, never three: neither needs more than loads and stores.
A lane is an array of entries with two counters, that of what was put in, which the producer alone writes, and that of
what was taken out, the consumer's. Each lies on cache lines of its own with what its writer remembers of the other
counter: the other's line is looked at only when, by that memory, the lane seems full or empty. Room that a producer has
seen stays, as nobody else fills its lane.

Kernels are those of a device's rings, see `ixy.drivers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ixy.drivers.rings import CLEAN, COMMON_WORDS, NEXT, Ring
from ixy.jit import compiled
from ixy.packets.buffers import MAX_PARTS
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, carry, new_packets
from ixy.packets.pool import NOWHERE, Pools, give, pools
from ixy.unsafe import LINES, load_acquire, own_lines, store_release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.drivers import RxSingle, TxSingle
    from ixy.packets.batch import Lender

LINE = LINES // 8  # words

# The words of each lane, on either side: NEXT, what that side has done, and CLEAN, what it remembers of the other.
# Of the receiving side besides the common words:
TURN = COMMON_WORDS  # the lane that is looked at first


class LaneRxState(NamedTuple):
    """The receiving end of all lanes.

    Attributes:
        held: the packets in the lanes, one lane after the other.
        size: entries of a lane, a power of two.
        taken: the consumer's words, LINE a lane.
        put_in: the producers' words, likewise.
        state: the words of who receives.
        pool: NOWHERE.
    """

    held: Packets
    size: int
    taken: NDArray[np.int64]
    put_in: NDArray[np.int64]
    state: NDArray[np.int64]
    pool: int


class LaneTxState(NamedTuple):
    """The sending end of one lane.

    Attributes:
        held: the packets in the lane.
        state: the producer's words, which are also those of who sends.
        taken: the consumer's words.
    """

    held: Packets
    state: NDArray[np.int64]
    taken: NDArray[np.int64]


@compiled
def tx_room(ring: LaneTxState, _pools: Pools, wanted: int) -> int:
    """How many packets the lane has room for; the consumer is asked only if there seem to be fewer than `wanted`."""
    size = ring.held.ids.size
    room = size - (ring.state[NEXT] - ring.state[CLEAN])
    if room < wanted:
        ring.state[CLEAN] = load_acquire(ring.taken, NEXT)
        room = size - (ring.state[NEXT] - ring.state[CLEAN])
    return room


@compiled
def tx_batch(ring: LaneTxState, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Put packets `first` to `last` into the lane until it is full; how many it took."""
    count = min(last - first, tx_room(ring, pools, last - first))
    if count <= 0:
        return 0
    count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
    size = ring.held.ids.size
    following = ring.state[NEXT]
    slot = following & (size - 1)
    unwrapped = min(count, size - slot)
    carry(ring.held, slot, packets, first, unwrapped)
    carry(ring.held, 0, packets, first + unwrapped, count - unwrapped)
    store_release(ring.state, NEXT, following + count)
    return count


@compiled
def ready(ring: LaneRxState) -> bool:
    """Whether there is a packet in one of the lanes."""
    for lane in range(ring.taken.size // LINE):
        words = lane * LINE & INDEX_MASK
        if load_acquire(ring.put_in, words + NEXT) != ring.taken[words + NEXT]:
            return True
    return False


@compiled
def rx_batch(ring: LaneRxState, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` packets out of the lanes, which take turns in being the first."""
    lane, count = ring.state[TURN], 0
    for _ in range(ring.taken.size // LINE):
        count += take(ring, pools, lane, packets, count, limit)
        lane = lane + 1 if (lane + 1) * LINE < ring.taken.size else 0
        if count == limit:
            break
    ring.state[TURN] = lane
    return count


@compiled
def take(ring: LaneRxState, pools: Pools, lane: int, packets: Packets, at: int, limit: int) -> int:
    """Take packets out of one lane, behind `at` others; how many."""
    words = lane * LINE & INDEX_MASK
    first = ring.taken[words + NEXT]
    if ring.taken[words + CLEAN] - first < limit - at:
        ring.taken[words + CLEAN] = load_acquire(ring.put_in, words + NEXT)
    count = min(limit - at, ring.taken[words + CLEAN] - first)
    if count <= 0:
        return 0
    start = lane * ring.size
    slot = first & (ring.size - 1)
    unwrapped = min(count, ring.size - slot)
    carry(packets, at, ring.held, start + slot, unwrapped)
    carry(packets, at + unwrapped, ring.held, start, count - unwrapped)
    taken = hand_over(pools, packets, at, count, ring.held.holder, packets.holder)
    store_release(ring.taken, words + NEXT, first + count)
    return taken


@compiled
def _drain(ring: LaneRxState, pools: Pools) -> None:
    """Give back what is in the lanes. Nobody sends or receives."""
    for lane in range(ring.taken.size // LINE):
        words, start = lane * LINE, lane * ring.size
        first, last = ring.taken[words + NEXT], ring.put_in[words + NEXT]
        ring.taken[words + NEXT] = last
        slot, count = first & (ring.size - 1), last - first
        give(pools, ring.held, start + slot, start + min(slot + count, ring.size))
        give(pools, ring.held, start, start + slot + count - ring.size)


class LaneRxRing(Ring):
    """The receiving end of the lanes; see `ixy.drivers.RxRing`.

    Attributes:
        waiting: how many packets are in the lanes. Exact while nobody sends or receives.
    """

    kernel = staticmethod(rx_batch)
    ready = staticmethod(ready)
    single: RxSingle | None = None
    dropped = starved = 0

    def __init__(self, state: LaneRxState, pool: Lender, metadata: Sequence[str]) -> None:
        super().__init__(state)
        self.pool = pool
        self.metadata = metadata
        self.parts = _parts(state.held)

    @property
    def waiting(self) -> int:
        return int((self.state.put_in[NEXT::LINE] - self.state.taken[NEXT::LINE]).sum())

    def drain(self) -> None:
        """Give back what is in the lanes. Both ends are retired."""
        _drain(self.state, pools())


class LaneTxRing(Ring):
    """The sending end of a lane; see `ixy.drivers.TxRing`."""

    kernel = staticmethod(tx_batch)
    room = staticmethod(tx_room)
    single: TxSingle | None = None
    offloads: Sequence[str] = ()
    holds_chains = True

    def __init__(self, state: LaneTxState) -> None:
        super().__init__(state)
        self.parts = _parts(state.held)

    @property
    def in_flight(self) -> int:
        return int(self.state.state[NEXT] - self.state.taken[NEXT])


def new_lanes(size: int, lanes: int, pool: Lender, metadata: Sequence[str]) -> tuple[LaneRxRing, list[LaneTxRing]]:
    """Both ends of `lanes` lanes of `size` entries, a power of two; 65,536 entries in all at most."""
    held, taken, put_in = new_packets(size * lanes, metadata), own_lines(lanes * LINE), own_lines(lanes * LINE)
    rx = LaneRxState(held, size, taken, put_in, own_lines(LINE), NOWHERE)
    tx = [LaneTxState(_part(held, k, size), _part_of(put_in, k, LINE), _part_of(taken, k, LINE)) for k in range(lanes)]
    return LaneRxRing(rx, pool, metadata), [LaneTxRing(state) for state in tx]


def _parts(held: Packets) -> int:
    """In how many buffers packets may lie that go through lanes with these columns."""
    return 1 if held.nexts is None else MAX_PARTS


def _part(held: Packets, lane: int, size: int) -> Packets:
    columns = [_part_of(column, lane, size) if column is not None else None for column in held[:-1]]
    return Packets(*cast(Any, columns), holder=held.holder)


def _part_of(array: NDArray[Any], lane: int, size: int) -> NDArray[Any]:
    return array[lane * size : (lane + 1) * size]
