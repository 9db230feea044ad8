"""Packet buffers and the pools that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ixy.errors import ConfigurationError, Error, MemoryUnavailable, OwnershipError
from ixy.packets.buffers import BUFFER_SIZE, HEADROOM, POOL_SHIFT, POOLS, STRIDE, usable
from ixy.packets.mempool import Mempool, drop, hold
from ixy.packets.packets import PROGRAM, slots
from ixy.packets.pool import give, pools, take_soon

HUGE_PAGE = 2 << 20


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(100)
    yield pool
    if not pool.closed:
        pool.release()


@given(st.integers(1, 64_000))
def test_no_buffer_crosses_a_huge_page(count: int) -> None:
    """As many numbers as were asked for, rising; no buffer with its headroom lies in two pages, nor before the pool:
    what is left out is those that do.
    """
    numbers = usable(count).tolist()
    assert len(numbers) == count
    kept = set(numbers)
    assert numbers == sorted(kept)
    for number in range(numbers[-1] + 1):
        start, end = number * STRIDE - HEADROOM, number * STRIDE + BUFFER_SIZE
        first, last = start // HUGE_PAGE, (end - 1) // HUGE_PAGE
        assert (first == last) == (number in kept)


@pytest.mark.parametrize("capacity", [1, 64, 4096, 64_000])
def test_pool_has_its_capacity_within_its_memory(capacity: int) -> None:
    """All buffers are free at first, each number is the pool's own, and its bytes can be written to the last."""
    pool = Mempool(capacity)
    assert pool.available == capacity == len(pool.ids) == len(set(pool.ids.tolist()))
    assert set((pool.ids >> POOL_SHIFT).tolist()) == {pool.number}
    first, last = int(pool.ids[0]), int(pool.ids[-1])
    pools().bytes[[first, last], BUFFER_SIZE - 1] = 1, 2
    inside = (last - (pool.number << POOL_SHIFT)) * STRIDE + BUFFER_SIZE
    assert inside <= pool.memory.size
    assert pool.memory.bytes[inside - 1] == 2
    pool.release()


@pytest.mark.parametrize("capacity", [0, -1, 64_001])
def test_capacities_that_no_pool_has(capacity: int) -> None:
    """The message says what is possible."""
    with pytest.raises(ConfigurationError, match=f"capacity {capacity}: 1 to 64000 are possible"):
        Mempool(capacity)


INT64 = st.integers(-(2**63), 2**63 - 1)


class StackModel(RuleBasedStateMachine):
    """Two pools against two lists: taken from the end, given back at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = [Mempool(10), Mempool(7)]
        self.free = [pool.ids.tolist()[::-1] for pool in self.pools]
        self.taken: list[int] = []

    @rule(which=st.integers(0, 1), limit=st.one_of(st.integers(0, 14), INT64))
    def take(self, which: int, limit: int) -> None:
        """Up to as many as are free, and as there is room for, the last given first."""
        packets = slots(12)._replace(holder=PROGRAM)
        packets.ids[:] = -1
        count = take_soon(pools(), self.pools[which].number, packets, limit)
        expected = [self.free[which].pop() for _ in range(max(min(limit, 12, len(self.free[which])), 0))]
        assert packets.ids.tolist() == expected + [-1] * (12 - len(expected))
        assert count == len(expected)
        self.taken += expected

    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        """Some of the taken, of both pools mixed: each goes home to its own, by its number."""
        self.taken = data.draw(st.permutations(self.taken))
        first = data.draw(st.one_of(st.integers(0, len(self.taken)), INT64))
        packets = slots(len(self.taken))._replace(holder=PROGRAM)
        packets.ids[:] = self.taken
        give(pools(), packets, first, data.draw(st.integers(len(self.taken), 2**63 - 1)))
        for buffer in self.taken[max(first, 0) :]:
            self.free[0 if buffer in self.pools[0].ids else 1].append(buffer)
        del self.taken[max(first, 0) :]

    @invariant()
    def free_buffers_agree(self) -> None:
        for pool, free in zip(self.pools, self.free, strict=True):
            assert pool.available == len(free)

    def teardown(self) -> None:
        packets = slots(len(self.taken))._replace(holder=PROGRAM)
        packets.ids[:] = self.taken
        give(pools(), packets, 0, len(self.taken))
        for pool in self.pools:
            pool.release()


TestStackModel = StackModel.TestCase


def test_allocation_ends_with_the_pool(pool: Mempool) -> None:
    """Of 100 buffers 60 go out, then the other 40 although 60 were asked for, then none; all come back."""
    batches = [pool.allocate(60) for _ in range(3)]
    assert [len(batch) for batch in batches] == [60, 40, 0]
    assert pool.available == 0
    for batch in batches:
        batch.free()
    assert pool.available == 100


def test_allocation_has_limits(pool: Mempool) -> None:
    """No packets, and packets that no buffer holds, are refused and cost no buffer; the largest fits."""
    for count, length in ((0, 60), (-1, 60), (1, 0), (1, 2049)):
        with pytest.raises(ConfigurationError):
            pool.allocate(count, length)
    assert pool.available == 100
    with pool.allocate(1, 2048) as batch:
        assert batch.lengths.tolist() == [2048]


def test_allocation_of_more_than_any_pool_has(pool: Mempool) -> None:
    """A count beyond all bounds yields what there is."""
    with pool.allocate(10**9) as batch:
        assert len(batch) == 100


def test_memory_is_returned_with_the_last_holder(pool: Mempool) -> None:
    """A pool with a second holder outlives its creator's release; then file and mapping are gone."""
    hold(pool, "a device")
    pool.release()
    assert not pool.closed
    assert pool.allocate(1)[0][0] >= 0
    files = len(list(Path("/proc/self/fd").iterdir()))
    drop(pool, "a device")
    assert pool.closed
    assert pool.available == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == files - 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pool.memory.fd)


def test_who_does_not_hold_a_pool_cannot_release_it(pool: Mempool) -> None:
    """A second release is an error, and takes nothing from who holds the pool still."""
    hold(pool, "a device")
    pool.release()
    for _ in range(2):
        with pytest.raises(OwnershipError, match="not yours to release"):
            pool.release()
    assert len(pool.allocate(100)) == 100
    drop(pool, "a device")


def test_a_closed_pool_gives_nothing(pool: Mempool) -> None:
    """Neither packets nor itself to a device; and another pool's buffers stay that pool's."""
    pool.release()
    with Mempool(100) as other:
        with pytest.raises(Error, match="closed"):
            pool.allocate(10)
        with pytest.raises(Error, match="closed"):
            hold(pool, "a device")
        assert other.available == 100


def test_a_pool_that_nobody_has_is_returned_with_a_warning() -> None:
    """Seventy times, which is more than there are pools at a time."""
    for _ in range(70):
        with pytest.warns(ResourceWarning, match="never released"):
            _ = Mempool(10).capacity


@pytest.mark.parametrize("capacity", [100.5, 100.0, "100", None])
def test_a_capacity_that_is_no_integer_uses_nothing_up(capacity: Any) -> None:
    """Refused seventy times as a TypeError that names it; then there is a pool."""
    for _ in range(70):
        with pytest.raises(TypeError, match="capacity must be an integer"):
            Mempool(capacity)
    with Mempool(np.int32(100)) as pool:  # pyright: ignore[reportArgumentType]
        assert len(pool.allocate(np.uint8(10), np.int64(60))) == 10  # pyright: ignore[reportArgumentType]


def test_a_batch_of_a_pool_that_is_gone_gives_nothing_to_its_successor() -> None:
    """Also where the next pool has the same number, after all others had their turn."""
    first = Mempool(5)
    batch = first.allocate(3)
    first.release()
    for _ in range(POOLS):
        with Mempool(8) as second:
            if second.number == first.number:
                batch.free()
            assert second.available == 8


def test_pool_numbers_run_out() -> None:
    """As many pools as there are numbers, then an error that says what to do; one that leaves makes room."""
    pools = [Mempool(1) for _ in range(POOLS)]
    with pytest.raises(MemoryUnavailable, match="close a device or release a pool first"):
        Mempool(1)
    pools.pop().release()
    pools.append(Mempool(1))
    for pool in pools:
        pool.release()


def test_pool_that_finds_no_memory_gives_its_number_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses memory: the error passes, and later pools have all numbers there are."""

    def refuse(*_: object) -> None:
        raise MemoryUnavailable("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("ixy.packets.mempool.DmaMemory", refuse)
        with pytest.raises(MemoryUnavailable, match="no memory"):
            Mempool(1)
    numbers = set[int]()
    for _ in range(POOLS):
        with Mempool(1) as again:
            numbers.add(again.number)
    assert len(numbers) == POOLS


def test_pool_describes_itself(pool: Mempool) -> None:
    with pool.allocate(30):
        assert repr(pool) == f"<Mempool {pool.number}: 70 of 100 buffers free>"


@pytest.mark.parametrize("capacity", [1, 500, 989, 990, 991, 992, 993, 1982, 1983, 1984, 3000])
def test_pool_takes_no_more_memory_than_it_needs(capacity: int) -> None:
    """Its buffers lie within it, and less than a huge page of 2 MiB and a buffer's headroom is left over."""
    with Mempool(capacity) as pool:
        end = (int(pool.ids[-1]) - (pool.number << 16)) * 2112 + 2048
        assert end <= pool.memory.size <= end + (1 << 21) + 64
