"""VirtIO rings by blocks and one by one: whatever the device wrote, both do the same to ring, pool and packets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ixy.drivers.rings import CLEAN, NEXT
from ixy.drivers.virtio.rings import packed, split
from ixy.drivers.virtio.rings.packed import PackedRing
from ixy.drivers.virtio.rings.rings import Terms, VirtioRxRing, VirtioTxRing
from ixy.drivers.virtio.rings.split import INDEX, SplitRing
from ixy.drivers.virtio.rings.state import BLOCK, BROKEN, OFFERED, exchange
from ixy.drivers.virtio.transports.transport import register_doorbell
from ixy.jit import INTERPRETED
from ixy.packets import checking
from ixy.packets.buffers import BUFFER_SIZE, POOLS, STRIDE
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, claim, free_count, open_pool, take
from ixy.registers import virtio as reg

POOL = 0
BUFFERS = 400
BASE = 1 << 36  # the device's address of buffer 0
UNUSED = -1  # what stands in the packets before any is received


class Damage(NamedTuple):
    """What the device wrote instead of what it should have: at a place, 0 being the one whose turn it is."""

    place: int
    identifier: int | None
    length: int | None
    flags: int | None


class Situation(NamedTuple):
    """A ring before a call."""

    terms: Terms
    size: int
    start: int  # the place whose turn it is, counted without wrapping
    used: int  # how many the device says it has used
    given: int  # how many it had
    exchanged: list[tuple[int, int]]  # places whose buffers changed before
    lengths: list[int]  # of frames, in turn
    merged: list[int]  # what frames' headers say of buffers, in turn
    damages: list[Damage]
    free: int  # how many buffers the pool has
    limit: int


def mostly(value: int, otherwise: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    """The value at which there are whole blocks, four times of five."""
    return st.integers(0, 4).flatmap(lambda choice: otherwise if choice == 4 else st.just(value))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    size = draw(st.sampled_from([16, 32, 64, 128, 128]))
    place, flag = st.integers(0, size - 1), st.integers(0, 1)
    header = draw(st.sampled_from([reg.HEADER_BYTES, reg.LEGACY_HEADER_BYTES]))
    bound = st.sampled_from(
        [0, 1, header, header, header, header + 1, header + 2047, header + 2048, header + 2049, (1 << 32) - 1]
    )
    identifiers = place | place.map(lambda number: number + 256) | st.integers(0, 0xFFFF)
    lengths = bound | st.integers(0, (1 << 32) - 1)
    flags = st.sampled_from([0, 0x80, 0x8000, 0x8080]) | st.integers(0, 0xFFFF)
    damage = st.one_of(
        st.builds(Damage, place, identifiers, st.none(), st.none()),
        st.builds(Damage, place, st.none(), lengths, st.none()),
        st.builds(Damage, place, st.none(), st.none(), flags),
    )
    given = draw(mostly(size, st.integers(0, size)))
    return Situation(
        Terms(header, draw(flag), draw(flag), 0, packed=draw(st.booleans())),
        size,
        draw(st.integers(0, 3 * size) | st.integers((1 << 16) - size, (1 << 16) + size)),
        draw(mostly(given, st.integers(0, given))),
        given,
        draw(st.lists(st.tuples(place, place), max_size=2)),
        draw(st.lists(st.integers(1, BUFFER_SIZE - 1), min_size=1, max_size=5)),
        draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)),
        draw(st.lists(damage, max_size=2)),
        draw(mostly(size, st.integers(0, size) | st.sampled_from([BLOCK - 1, BLOCK]))),
        draw(mostly(size, st.integers(1, size))),
    )


class World(NamedTuple):
    """A ring, the pool of its buffers, and room for packets, which nothing else knows of."""

    ring: Any
    pools: Pools
    packets: Packets


def world(situation: Situation, receive: bool) -> World:
    """All is made from the situation alone: two worlds of one are alike. Buffers not in the ring or free are out."""
    size, terms = situation.size, situation.terms
    holders, violations = checking.new_columns()
    words, stack = np.zeros(POOLS * 32, np.int64), np.zeros(BUFFERS, np.int32)
    pools = Pools(
        np.zeros((1, STRIDE), np.uint8), stack, stack.copy(), words, holders, violations, stack.copy(), stack.copy()
    )
    open_pool(pools, POOL, np.arange(1, size + situation.free + 1))
    claim(words, POOL)
    ring = new_ring(terms, size, receive)
    assert take(pools, POOL, ring.held, size) == size
    ring.state[[NEXT, CLEAN, OFFERED]] = situation.start
    ring.state[OFFERED if receive else NEXT] += situation.given
    for one, other in situation.exchanged:
        exchange(ring, one, other)
    for i, count in enumerate(np.resize(situation.merged, size)):
        ring.headers[ring.held.ids[i] * (STRIDE // 4) - 1] = int(count) << 16 | 1
        ring.headers[ring.held.ids[i] * (STRIDE // 4) - 3] = i % 3  # `flags` of the header: NEEDS_CSUM, DATA_VALID
    use(ring, situation)
    packets = new_packets(size, ("flags",))
    for column in packets[:2]:
        column[:] = UNUSED
    return World(ring, pools, packets)


def new_ring(terms: Terms, size: int, receive: bool) -> Any:
    memory = np.zeros(terms.layout(size).bytes, np.uint8)
    common = memory, terms, size, register_doorbell(np.zeros(1, np.uint16), 1), BASE
    made: Any = VirtioRxRing(*common, SimpleNamespace(number=POOL)) if receive else VirtioTxRing(*common)  # type: ignore[arg-type]
    return made.state._replace(headers=np.zeros((BUFFERS + 1) * STRIDE // 4, np.int32))


def use(ring: PackedRing | SplitRing, situation: Situation) -> None:
    """What the device writes: that it has used buffers in order; with damages."""
    size, header = situation.size, situation.terms.header
    damages = {damage.place: damage for damage in situation.damages}
    lengths = np.resize(situation.lengths, size) + header
    for i in range(situation.used):
        slot = (situation.start + i) % size
        wrapped = (situation.start + i) // size % 2
        good = int(ring.order[slot]), int(lengths[i]), 0 if wrapped else 0x8080
        bad = damages.get(i, Damage(i, None, None, None))
        identifier, length, flags = (is_ if is_ is not None else was for was, is_ in zip(good, bad[1:], strict=True))
        if isinstance(ring, SplitRing):
            ring.used[2 * slot : 2 * slot + 2] = identifier, length
        else:
            word = length | identifier << 32 | flags << 48
            ring.descriptors[2 * slot + 1] = word - (1 << 64) if word >> 63 else word
    for i in range(
        situation.used, size
    ):  # the flags of the round before: neither used nor, as far as it matters, given
        slot = (situation.start + i) % size
        if isinstance(ring, PackedRing):
            ring.descriptors[2 * slot + 1] = -(1 << 63) if (situation.start + i) // size % 2 else 1 << 55
    if isinstance(ring, SplitRing):
        ring.used_flags[INDEX] = (situation.start + situation.used) & 0xFFFF


def kernels(ring: PackedRing | SplitRing) -> Any:
    return split if isinstance(ring, SplitRing) else packed


def take_by_one(ring: Any, pools: Pools, packets: Packets, limit: int) -> int:
    """The reference: no block is taken."""
    size = len(ring.held.ids)
    count = end = 0
    while count == end and count < limit:
        end = min(limit, count + size - int(ring.state[NEXT]) % size)
        count = int(kernels(ring).take_singly(ring, pools, packets, count, end))
    return count


def check_alike(one: World, other: World, count: int) -> None:
    """The worlds differ at most in which fresh buffer lies where; each buffer is in one place."""
    for left, right in zip(one.packets[:3], other.packets[:3], strict=True):
        assert left[:count].tolist() == right[:count].tolist()
    assert one.ring.state.tolist() == other.ring.state.tolist()
    assert one.ring.order.tolist() == other.ring.order.tolist()
    assert one.ring.place.tolist() == other.ring.place.tolist()
    assert sorted(one.ring.held.ids) == sorted(other.ring.held.ids)
    free = free_count(one.pools, POOL)
    assert free == free_count(other.pools, POOL)
    assert one.pools.stack[:free].tolist() == other.pools.stack[:free].tolist()
    buffers = np.concatenate([one.packets.ids[:count], one.ring.held.ids, one.pools.stack[:free]])
    assert sorted(buffers) == list(range(1, len(buffers) + 1))
    if one.pools.holders is not None:
        assert checking._found(one.pools) == checking._found(other.pools) == ""
    assert (where(one.ring) == where(other.ring)).all()
    assert (one.ring.descriptors[1::2] == other.ring.descriptors[1::2]).all()


def where(ring: Any) -> Any:
    """For each descriptor, at which place the buffer lies that it names; -1 for none."""
    descriptors = ring.descriptors[::2]
    named = descriptors[ring.order] if isinstance(ring, SplitRing) else descriptors
    return np.where(named == 0, -1, named - BASE - ring.held.ids * STRIDE)


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel cannot be replaced")
@pytest.mark.parametrize("is_packed", [False, True])
def test_good_frames_are_taken_by_blocks(is_packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and with buffers enough: none of a ring is left to be looked at singly, wherever it begins."""
    terms = Terms(reg.HEADER_BYTES, 1, 0, 0, packed=is_packed)

    def nothing_left(*arguments: int) -> int:
        *_, before, end = arguments
        assert before == end
        return before

    monkeypatch.setattr(packed if is_packed else split, "take_singly", nothing_left)
    for start in (0, 64, 128, 192):
        situation = Situation(terms, 128, start, 128, 128, [], [60, 2047], [1], [], 128, 128)
        one = world(situation, receive=True)
        assert kernels(one.ring).take_good(*one, 128) == 128
        assert one.packets.lengths[:3].tolist() == [60, 2047, 60]


@given(situation=situations())
@settings(deadline=None, max_examples=200)
def test_packets_are_received_alike_by_blocks_and_one_by_one(situation: Situation) -> None:
    """What the device has written of a ring of buffers is used in order, but for two places where it is anything. The
    same packets come, the ring and the pool are left alike, and what was taken fits its buffers.
    """
    one, other = world(situation, receive=True), world(situation, receive=True)
    limit = min(situation.limit, situation.used) if not situation.terms.packed else situation.limit
    count = int(kernels(one.ring).take_good(*one, limit))
    assert take_by_one(*other, limit) == count
    check_alike(one, other, count)
    assert all(1 <= length <= BUFFER_SIZE for length in one.packets.lengths[:count])
    event(f"blocks: {count // BLOCK}")


@given(situation=situations())
@settings(deadline=None, max_examples=200)
def test_sent_buffers_come_back_alike_by_blocks_and_one_by_one(situation: Situation) -> None:
    """The places that are cleaned are those that are looked at one by one, and their buffers are free then."""
    one, other = world(situation, receive=False), world(situation, receive=False)
    ring = other.ring
    oldest, end = situation.start, situation.start + situation.given
    position = oldest
    if isinstance(ring, PackedRing):
        while position < end and (count := int(packed.completed(ring, position, end))):
            position += count
    else:
        used = situation.used
        position += used if ring.in_order else int(split.verified(ring, oldest, used, end - oldest))
    free = free_count(one.pools, POOL)
    kernels(one.ring).clean(one.ring, one.pools)
    assert one.ring.state[CLEAN] == position
    assert one.ring.state[BROKEN] == ring.state[BROKEN]
    assert one.ring.order.tolist() == ring.order.tolist()
    assert one.ring.held.ids.tolist() == ring.held.ids.tolist()
    sent = ring.held.ids[np.arange(oldest, position) % situation.size]
    assert one.pools.stack[free : free_count(one.pools, POOL)].tolist() == sent.tolist()
    event(f"blocks: {(position - oldest) // BLOCK}")
