"""Free buffers as kernels take and give them, on pools without memory: against what lists would do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ixy.packets import pool as pool_module
from ixy.packets.buffers import usable
from ixy.packets.packets import METADATA, PROGRAM, Flags, Packets, new_packets, slots, stamp, swap
from ixy.packets.pool import (
    CLOSED,
    abandon,
    available,
    call_attention,
    claim,
    close_pool,
    free_count,
    give,
    open_pool,
    owner,
    pool_of,
    pools,
    refill,
    release,
    serve,
    take,
    take_soon,
    wait_for,
    wanted,
)

A, B, C = 61, 62, 60  # numbers of pools that no test takes memory for
SIZE = 10


def buffers(pool: int, count: int = SIZE) -> list[int]:
    """Numbers of some buffers: the pool's number in the upper half of 32 bits (see `POOL_SHIFT`)."""
    return [pool << 16 | number for number in range(3, 3 + count)]


@pytest.fixture
def three_pools() -> Iterator[None]:
    for pool in (A, B, C):
        open_pool(pools(), pool, np.array(buffers(pool)))
    yield
    for pool in (A, B, C):
        assert close_pool(pools(), pool)
        assert owner(pools(), pool) == CLOSED


pytestmark = pytest.mark.usefixtures("three_pools")


def elsewhere(work: Callable[[], Any]) -> Any:
    """What another thread makes of it."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def room_for(count: int) -> Packets:
    """Arrays for buffers. All of them have one holder, the program, so that the checking mode sees nothing change."""
    return slots(count)._replace(holder=PROGRAM)


def packets_of(ids: list[int]) -> Packets:
    packets = room_for(len(ids))
    packets.ids[:] = ids
    return packets


def taken(pool: int, limit: int = SIZE) -> list[int]:
    """Take, by whoever can have the pool."""
    packets = room_for(SIZE)
    return packets.ids[: take_soon(pools(), pool, packets, limit)].tolist()


def test_a_buffer_knows_its_pool() -> None:
    assert [pool_of(np.int32(buffers(pool)[0])) for pool in (A, B, C)] == [A, B, C]
    assert pool_of(np.int32(65_535)) == 0


def test_the_last_is_taken_first() -> None:
    """As of a stack: from the end of what the pool was opened with, then what was given last."""
    ids = buffers(A)
    assert taken(A, 3) == ids[:-4:-1]
    assert taken(A, 2) == ids[-4:-6:-1]
    give(pools(), packets_of([ids[8], ids[5], ids[9]]), 0, 3)
    assert taken(A, 4) == [ids[9], ids[5], ids[8], ids[4]]
    assert available(pools(), A) == SIZE - 6
    assert (available(pools(), B), available(pools(), C)) == (SIZE, SIZE)


@pytest.mark.parametrize("limit", [-(1 << 63), -1, 0, 1, 9, 10, 11, (1 << 63) - 1])
@pytest.mark.parametrize("room", [1, 4, 10, 20])
def test_taken_are_as_many_as_there_are_and_fit(limit: int, room: int) -> None:
    packets = room_for(room)
    count = min(max(limit, 0), room, SIZE)
    assert take_soon(pools(), A, packets, limit) == count
    assert packets.ids[:count].tolist() == buffers(A)[::-1][:count]
    assert not packets.ids[count:].any()
    assert available(pools(), A) == SIZE - count


@pytest.mark.parametrize("first", [-(1 << 63), -1, 0, 1, 2, 5, 6, 7, (1 << 63) - 1])
@pytest.mark.parametrize("last", [-(1 << 63), -1, 0, 1, 2, 5, 6, 7, (1 << 63) - 1])
@pytest.mark.parametrize("owned", [False, True])
def test_given_are_those_within_the_arrays(first: int, last: int, owned: bool) -> None:
    """Of six packets, whatever range is named."""
    ids = taken(A, 6)
    expected = [ids[i] for i in range(6) if first <= i < last]
    if owned:
        assert claim(pools().words, A)
    give(pools(), packets_of(ids), first, last)
    if owned:
        release(pools().words, A)
    assert available(pools(), A) == 4 + len(expected)
    assert taken(A) == expected[::-1] + buffers(A)[:4][::-1]


@pytest.mark.parametrize("mine", [(), (A,), (B,), (A, B, C)])
def test_each_goes_to_its_own_pool(mine: tuple[int, ...]) -> None:
    """Runs of one, two and three packets of three pools, of which this thread owns some or none."""
    a, b, c = (taken(pool, 4) for pool in (A, B, C))
    order = [a[0], b[0], b[1], c[0], c[1], c[2], a[1], a[2], b[2], a[3], c[3], b[3]]
    for pool in mine:
        assert claim(pools().words, pool)
    give(pools(), packets_of(order), 1, 11)  # neither the first nor the last
    for pool in mine:
        release(pools().words, pool)
    assert taken(A) == [a[3], a[2], a[1], *buffers(A)[:6][::-1]]
    assert taken(B) == [b[2], b[1], b[0], *buffers(B)[:6][::-1]]
    assert taken(C) == [c[3], c[2], c[1], c[0], *buffers(C)[:6][::-1]]


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("last", range(1, 7))
def test_each_goes_to_its_own_pool_from_any_place(first: int, last: int) -> None:
    """Of six packets of three pools, all of them this thread's own."""
    a, b, c = (taken(pool, 3) for pool in (A, B, C))
    order = [a[0], a[1], b[0], b[1], a[2], c[0]]
    for pool in (A, B, C):
        assert claim(pools().words, pool)
    give(pools(), packets_of(order), first, last)
    for pool, kept in ((A, 7), (B, 7), (C, 7)):
        given = [order[n] for n in range(first, last) if order[n] >> 16 == pool]
        assert taken(pool) == given[::-1] + buffers(pool)[:kept][::-1]
        release(pools().words, pool)


def test_what_others_give_waits_in_the_ring() -> None:
    """Another thread gives to a pool of this thread's, to one of nobody's, and to a closed one: the first comes when it
    is fetched, in the order in which it was given; the second is free at once; the third is gone.
    """
    a, b, c = (taken(pool, 4) for pool in (A, B, C))
    assert claim(pools().words, A)
    assert close_pool(pools(), C)
    mixed = packets_of([a[0], a[1], b[0], c[0], a[2], c[1], b[1]])
    elsewhere(lambda: give(pools(), mixed, 0, 7))
    assert (free_count(pools(), A), free_count(pools(), B)) == (SIZE - 4, SIZE - 2)
    assert (available(pools(), A), available(pools(), B), available(pools(), C)) == (SIZE - 1, SIZE - 2, SIZE - 4)
    assert wanted(pools(), A)
    assert not wanted(pools(), B)
    assert refill(pools(), A) == SIZE - 1
    assert refill(pools(), A) == SIZE - 1
    packets = room_for(SIZE)
    assert take(pools(), A, packets, SIZE) == SIZE - 1
    assert packets.ids[:3].tolist() == [a[2], a[1], a[0]]
    elsewhere(lambda: give(pools(), packets_of([a[3]]), 0, 1))
    assert take(pools(), A, packets, 1) == 1  # which nobody has fetched
    assert packets.ids[0] == a[3]
    release(pools().words, A)


def test_the_ring_goes_round() -> None:
    """It has 65,536 cells: those at its end and at its beginning follow each other."""
    words, first = pools().words, A * pool_module._WORDS
    words[[first + pool_module._HEAD, first + pool_module._TAIL]] = 65_533
    ids = taken(A, 8)
    assert claim(words, A)
    for part in (ids[:2], ids[2:7], ids[7:]):
        elsewhere(lambda part=part: give(pools(), packets_of(part), 0, len(part)))
    assert available(pools(), A) == SIZE
    assert refill(pools(), A) == SIZE
    assert taken(A, 8) == ids[::-1]
    release(words, A)


def test_attention_is_paid_once() -> None:
    assert claim(pools().words, A)
    call_attention(pools().words, A)
    assert [wanted(pools(), pool) for pool in (C, A, B)] == [False, True, False]
    serve(pools(), A)
    assert not wanted(pools(), A)
    assert owner(pools(), A) > 0
    release(pools().words, A)


def test_claims_nest() -> None:
    """Claimed three times, a pool is free after three releases; meanwhile it is no other thread's."""
    words = pools().words
    mine = elsewhere(lambda: claim(words, A)) and owner(pools(), A)
    assert mine > 0  # the other thread has ended without a release
    assert not claim(words, A)
    assert claim(words, B)
    me = owner(pools(), B)
    assert me not in (0, mine, CLOSED)
    assert claim(words, B)
    assert wait_for(words, B)
    for _ in range(3):
        assert owner(pools(), B) == me
        assert not elsewhere(lambda: claim(words, B))
        release(words, B)
    assert owner(pools(), B) == 0
    assert owner(pools(), A) == mine
    assert claim(words, B)
    release(words, B)
    assert owner(pools(), B) == 0
    open_pool(pools(), A, np.array(buffers(A)))


def test_all_claims_are_abandoned_at_once() -> None:
    """Those of this thread, however often it has claimed; the next claim counts from one again."""
    words = pools().words
    assert elsewhere(lambda: claim(words, C))
    others = owner(pools(), C)
    assert claim(words, A)
    assert claim(words, A)
    assert claim(words, B)
    abandon(words)
    assert [owner(pools(), pool) for pool in (A, B, C)] == [0, 0, others]
    for pool in (A, B):
        assert claim(words, pool)
        release(words, pool)
        assert owner(pools(), pool) == 0
    open_pool(pools(), C, np.array(buffers(C)))


def test_a_closed_pool_gives_and_takes_nothing() -> None:
    packets = packets_of(taken(A, 3))
    assert close_pool(pools(), A)
    assert close_pool(pools(), A)  # nothing is left to do
    give(pools(), packets, 0, 3)
    assert available(pools(), A) == SIZE - 3
    assert not claim(pools().words, A)
    assert not wait_for(pools().words, A)
    assert take_soon(pools(), A, packets, 3) == -1


def test_a_pool_begins_anew() -> None:
    """What was returned to a pool that was closed is not in the next one of its number; its neighbours keep theirs."""
    a = taken(A, 4)
    b = taken(B, 4)
    assert claim(pools().words, A)
    assert claim(pools().words, B)
    elsewhere(lambda: give(pools(), packets_of(a[:2] + b[:2]), 0, 4))
    assert close_pool(pools(), A)
    open_pool(pools(), A, np.array(buffers(A, 3)))
    assert (available(pools(), A), available(pools(), B)) == (3, SIZE - 2)
    assert not wanted(pools(), A)
    assert owner(pools(), A) == 0
    assert claim(pools().words, A)
    assert refill(pools(), A) == 3
    assert refill(pools(), B) == SIZE - 2
    assert taken(A) == buffers(A, 3)[::-1]
    release(pools().words, A)
    release(pools().words, B)
    assert [owner(pools(), pool) for pool in (A, B)] == [0, 0]


# ---------------------------------------------------------------------------------------------------------------------
# Packets and buffers


def test_a_packet_changes_places_with_all_that_is_known_of_it() -> None:
    """The buffers change places; of the rest, that of the one that was there is dropped."""
    packets = new_packets(3, METADATA)
    columns = [packets.lengths, packets.flags, packets.hashes, packets.vlans, packets.times]
    for number, column in enumerate(columns):
        column[:] = [10 * number + 1, 10 * number + 2, 10 * number + 3]
    packets.ids[:] = [7, 8, 9]
    swap(packets, 0, 2)
    assert packets.ids.tolist() == [9, 8, 7]
    assert [column[:2].tolist() for column in columns] == [[10 * n + 3, 10 * n + 2] for n in range(5)]


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1), (1, 3), (2, 2), (3, 1), (0, 4)])
def test_packets_are_stamped_within_a_range(first: int, last: int) -> None:
    """With one time for all of them."""
    packets = new_packets(4, ["time"])
    packets.times[:] = 5
    stamp(packets, first, last)
    stamped = [n for n in range(4) if packets.times[n] != 5]
    assert stamped == list(range(first, last))
    assert len({int(packets.times[n]) for n in stamped}) == min(len(stamped), 1)


def test_flags_are_bits() -> None:
    """Programs compare arrays of numbers with them."""
    assert {flag.name: int(flag) for flag in Flags} == {
        "IP_GOOD": 0x1,
        "IP_BAD": 0x2,
        "L4_GOOD": 0x4,
        "L4_BAD": 0x8,
        "L4_PARTIAL": 0x10,
        "VLAN": 0x20,
        "HASH": 0x40,
        "IP_PARTIAL": 0x80,
        "IPV4": 0x100,
        "IPV6": 0x400,
        "TCP": 0x1000,
        "UDP": 0x2000,
    }


def test_columns_that_were_asked_for() -> None:
    """The others are None, and cost nothing."""
    columns = ("flags", "hashes", "vlans", "times", "segments", "nexts")
    for asked, column in zip(METADATA, columns, strict=True):
        packets = new_packets(2, [asked])
        there = {name for name in columns if getattr(packets, name) is not None}
        assert there == {column}
        assert len(getattr(packets, column)) == len(packets.ids) == len(packets.lengths) == 2
    assert slots(2).lengths is None


@pytest.mark.parametrize("count", [1, 991, 992, 993, 994, 5000, 64_000])
def test_usable_buffers(count: int) -> None:
    """2,048 bytes and 64 before them, 2,112 from one to the next, all within 2 MiB; not the first, whose 64 bytes would
    lie outside.
    """
    number, expected = 0, []
    while len(expected) < count:
        start, end = 2112 * number - 64, 2112 * number + 2048
        if start // (1 << 21) == (end - 1) // (1 << 21):
            expected.append(number)
        number += 1
    assert usable(count).tolist() == expected
