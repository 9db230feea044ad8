"""The structures in records, beside models in plain Python: compiled, as a program calls them, and interpreted."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ixy
from ixy import tables
from ixy.errors import ConfigurationError
from ixy.jit import INTERPRETED, compiled
from ixy.packets.views import Bytes, record_view

PLACES = 7  # fewer than a flow may have: so it may lie in each of them
WORDS = st.integers(-(1 << 63), (1 << 63) - 1)


class Flow(tables.Entry):
    packets: int
    sizes = ixy.array(2, ixy.uint16)


class Limit(tables.Bucket):
    refused: int


class World(Limit, tables.Samples):
    """One of everything."""

    few = ixy.array(PLACES, Flow)
    many = ixy.array(3000, Flow)
    counters = tables.sketch(50)
    numbers = tables.histogram()
    routes = tables.routes(8)
    slots = tables.slots(4, 48)


# ---------------------------------------------------------------------------------------------------------------------
# What is done with them: rows of numbers go in, and each gives a number


def on_flow(world: Any, row: Any) -> int:
    place = tables.find(world.few, row[0], row[1], row[2], row[3])
    if place < 0:
        return -1
    flow = world.few[place]
    flow.packets += 1
    flow.sizes[1] += 1
    return flow.packets * 1000 + flow.sizes[1] * 10 + place


def on_seek(world: Any, row: Any) -> int:
    return tables.seek(world.few, row[0], row[1], row[2], row[3])


def on_many(world: Any, row: Any) -> int:
    return tables.find(world.many, row[0], row[1])


def on_hash(_world: Any, row: Any) -> int:
    return tables.hash(row[0], row[1])


def on_sketch(world: Any, row: Any) -> int:
    return tables.count(world.counters, row[0], row[1], row[2])


def on_estimate(world: Any, row: Any) -> int:
    return tables.estimate(world.counters, row[0], row[1])


def on_histogram(world: Any, row: Any) -> int:
    tables.observe(world.numbers, row[0])
    return 0


def on_bucket(world: Any, row: Any) -> int:
    return tables.take(world, row[0], row[1], row[2], row[3])


def on_routes(world: Any, row: Any) -> int:
    return tables.lookup(world.routes, row[0])


VIEW = record_view(World.dtype)


def in_compiled_code(function: Any) -> Any:
    """A function of the record's memory, rows of numbers, and results to be filled in, as one kernel."""
    step = compiled(function)

    @compiled
    def run(memory: Any, words: Any, rows: Any, results: Any) -> int:
        world = VIEW(memory, words)
        for i in range(len(results)):
            results[i] = step(world, rows[i])
        return 0

    return run


STEPS = {
    step: in_compiled_code(step)
    for step in (*(on_flow, on_seek, on_many, on_hash, on_sketch, on_estimate, on_histogram, on_bucket, on_routes),)
}


class Twins:
    """Two records, on which the same is done: one by compiled code, the other as Python does it."""

    def __init__(self) -> None:
        self.compiled, self.python = World(), World()
        self._memory = self.compiled.claim(self)
        self.closed = False  # to the record this is a path

    def run(self, step: Any, rows: list[tuple[int, ...]]) -> list[int]:
        """What a step gives for each row; both records are the same after it."""
        if not rows:
            return []
        results = np.empty(len(rows), np.int64)
        array = np.array(rows, np.int64)
        STEPS[step](self._memory, np.zeros(32, np.int64), array.tolist() if INTERPRETED else array, results)
        assert results.tolist() == [int(step(self.python, row)) for row in rows]
        assert repr(self.compiled[0]._row) == repr(self.python[0]._row)  # type: ignore[attr-defined]
        return results.tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Flow tables


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 1), st.integers(0, 60)), max_size=60), st.integers(0, 100))
def test_flows_are_found_as_in_a_dictionary(calls: list[tuple[int, int, int]], age: int) -> None:
    """Each call finds its flow, or a place that is free or whose flow is old; -1 if all others are alive."""
    twins, known, now = Twins(), dict[tuple[int, int], list[int]](), 1
    rows, expected = [], []
    for key0, key1, pause in calls:
        now += pause
        rows.append((key0, key1, now, age))
        known = {key: flow for key, flow in known.items() if now - flow[0] <= age}
        if (key0, key1) not in known and len(known) == PLACES:
            expected.append(None)
            continue
        flow = known.setdefault((key0, key1), [now, 0])
        flow[0] = now
        flow[1] += 1
        expected.append(flow[1])
    found = twins.run(on_flow, rows)
    assert [None if result < 0 else result // 10 for result in found] == [
        count and count * 101 for count in expected
    ]  # all that was kept of a flow begins at 0
    places = twins.run(on_seek, [(*key, now, age) for key in known])
    assert -1 not in places
    assert len(set(places)) == len(known)
    assert twins.run(on_seek, [(*key, now + age + 1, age) for key in known]) == [-1] * len(known)
    alive = {(flow.key0, flow.key1): (flow.last, flow.packets) for flow in tables.used(twins.python.few, now, age)}
    assert alive == {key: tuple(flow) for key, flow in known.items()}


def test_half_full_every_flow_has_a_place() -> None:
    """Flows that differ in little: 1,400 in 3,000 places, each found again where it was."""
    twins = Twins()
    flows = [(0x0A000000 + host, port << 16 | 53) for host in range(40) for port in range(35)]
    places = twins.run(on_many, flows)
    assert len({*places} - {-1}) == len(flows)
    assert twins.run(on_many, flows) == places


def test_keys_are_taken_with_64_bits() -> None:
    """As compiled code has them, whatever the interpreter reckons with."""
    twins, keys = Twins(), [(-1, 0), (1 << 63, 5), ((1 << 64) - 1, 0), (3 << 64 | 7, 1), (-(1 << 63), 5), (7, 1)]
    places = [tables.find(twins.python.many, *key) for key in keys]
    assert places == [places[0], places[1], places[0], places[3], places[1], places[3]]
    assert [tables.seek(twins.python.many, *key) for key in keys] == places
    assert [flow.key0 for flow in tables.used(twins.python.many) if flow.key1 == 5] == [-(1 << 63)]


def test_time_may_begin_at_zero() -> None:
    """A flow that was found at 0 is found again, and a bucket that was emptied at 0 is empty."""
    twins = Twins()
    assert [result // 1000 for result in twins.run(on_flow, [(1, 2, 0, 10)] * 3)] == [1, 2, 3]
    assert twins.run(on_bucket, [(60, 10, 100, 0)] * 2) == [1, 0]


def test_a_flow_is_found_from_where_it_starts() -> None:
    """Where that is may be told; what can be no place is as if nothing was told."""
    table = Twins().python.many
    for key in range(40):
        first = tables.start(table, key, 7)
        place = tables.find(table, key, 7, first=first)
        assert [tables.find(table, key, 7, first=told) for told in (-1, first, len(table), 1 << 40, -5)] == [place] * 5


def test_one_entry_is_a_table() -> None:
    class Tiny(ixy.Record):
        table = ixy.array(1, Flow)

    tiny = Tiny()
    assert [tables.find(tiny.table, key, 0, now, 10) for key, now in ((1, 5), (2, 6), (1, 7), (2, 18))] == [0, -1, 0, 0]
    assert tables.seek(tiny.table, 1, 0, 18) == -1


@given(st.lists(st.tuples(WORDS, WORDS), max_size=20))
def test_hash_is_the_same_everywhere(keys: list[tuple[int, int]]) -> None:
    hashes = Twins().run(on_hash, keys)
    assert all(0 <= value < 1 << 63 for value in hashes)
    assert len(set(hashes)) == len(set(keys))


@pytest.mark.parametrize("shift", [0, 16, 40])
def test_hash_spreads_what_differs_in_little(shift: int) -> None:
    """4,096 keys that count up fall into 4,096 places as by chance: about 1/e of the places stay empty."""
    for bits in (range(12), range(40, 52)):
        places = Counter(tables.hash(key << shift, 7) >> bits[0] & 4095 for key in range(4096))
        assert 0.34 < 1 - len(places) / 4096 < 0.40
        assert max(places.values()) < 10


def test_flows_of_several_workers_in_one_table() -> None:
    class Flows(ixy.Record):
        table = ixy.array(8, Flow)

        def merge(self, into: Any, other: Any) -> None:
            assert tables.merge(into.table, other.table) == 0

    flows = Flows(workers=2)
    for worker, key, now in ((0, 1, 5), (0, 2, 9), (1, 2, 7), (1, 3, 8)):
        table = flows[worker].table
        table[tables.find(table, key, 0, now)].packets += 10
    found = {flow.key0: (flow.packets, flow.last) for flow in tables.used(flows.total().table)}
    assert found == {1: (10, 5), 2: (20, 9), 3: (10, 8)}


# ---------------------------------------------------------------------------------------------------------------------
# Sketches and histograms


@given(st.lists(st.tuples(st.integers(0, 30), WORDS.map(lambda word: word >> 62), st.integers(0, 1000)), max_size=60))
def test_sketch_never_counts_too_little(calls: list[tuple[int, int, int]]) -> None:
    """With no more keys than columns, most are exact: none is too small, none above all that was counted."""
    twins, true = Twins(), Counter[tuple[int, int]]()
    for (key0, key1, amount), counted in zip(calls, twins.run(on_sketch, calls), strict=True):
        true[key0, key1] += amount
        assert true[key0, key1] <= counted <= true.total()
    estimates = twins.run(on_estimate, list(true))
    assert all(true[key] <= found <= true.total() for key, found in zip(true, estimates, strict=True))


def test_sketch_is_as_good_as_promised() -> None:
    """2,000 keys in 50 columns: of 54 keys, but one is too large by more than 2.72 n / c."""
    twins = Twins()
    keys = [(key, key * key, 1 + key % 5) for key in range(2000)]
    twins.run(on_sketch, keys)
    limit = 2.72 * sum(amount for *_, amount in keys) / 50
    found = twins.run(on_estimate, keys)
    beyond = sum(count - amount > limit for (*_, amount), count in zip(keys, found, strict=True))
    assert beyond <= 2 * len(keys) / 54


def test_sketches_and_histograms_of_workers_add_up() -> None:
    class Seen(ixy.Record):
        counters = tables.sketch(1 << 10)
        numbers = tables.histogram()

    seen = Seen(workers=2)
    for number in range(100):
        tables.count(seen[number % 2].counters, 5)
        tables.observe(seen[number % 2].numbers, number)
    assert tables.estimate(seen.total().counters, 5) == 100
    assert tables.quantile(seen.total().numbers, 0.5) == 49


@given(st.lists(st.one_of(st.integers(-5, 200), WORDS), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_those_of_the_numbers(values: list[int], share: float) -> None:
    """Within 1 % of the number that stands there among all, sorted."""
    twins = Twins()
    twins.run(on_histogram, [(value,) for value in values])
    ordered = sorted(max(value, 0) for value in values)
    true = ordered[max(ceil(share * len(values)), 1) - 1]
    assert abs(tables.quantile(twins.python.numbers, share) - true) <= true / 100


def test_quantiles_of_nothing_and_of_no_share() -> None:
    world = World()
    assert tables.quantile(world.numbers, 0.5) == 0
    with pytest.raises(ConfigurationError, match=r"share 1.5: 0 to 1"):
        tables.quantile(world.numbers, 1.5)


# ---------------------------------------------------------------------------------------------------------------------
# Token buckets

RATES = st.one_of(st.integers(0, 3000), st.integers(0, 1 << 40))
BURSTS = st.one_of(st.integers(0, 3000), st.integers(0, 1 << 32))
PAUSES = st.one_of(st.integers(-1000, 1000), st.integers(0, 5_000_000_000), st.integers(0, 1 << 55))


@given(st.lists(st.tuples(BURSTS, RATES, BURSTS, PAUSES), max_size=40))
def test_buckets_fill_as_fractions_do(calls: list[tuple[int, int, int, int]]) -> None:
    """Exactly rate times elapsed time comes in, up to the burst; and what is there goes out, or nothing of it."""
    twins, rows, expected = Twins(), list[tuple[int, int, int, int]](), list[int]()
    now = last = 1 << 56
    tokens: Fraction | None = None
    for amount, rate, burst, pause in calls:
        now += pause
        rows.append((amount, rate, burst, now))
        if tokens is None:
            tokens, last = Fraction(burst), now
        if now > last:
            tokens = min(tokens + Fraction(rate * (now - last), 10**9), Fraction(burst))
            last = now
        expected.append(amount <= tokens)
        tokens -= amount * expected[-1]
    assert twins.run(on_bucket, rows) == expected
    if tokens is not None:
        assert twins.compiled.tokens == tokens * 10**9


# ---------------------------------------------------------------------------------------------------------------------
# Routes

ADDRESSES = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 0x1FF).map(lambda low: 0x0A010000 | low))
ROUTES = st.tuples(ADDRESSES, st.integers(0, 32), st.integers(0, (1 << 24) - 1))


@given(st.lists(ROUTES, max_size=4), st.lists(ADDRESSES, max_size=8))
def test_the_longest_prefix_counts(added: list[tuple[int, int, int]], addresses: list[int]) -> None:
    """Whatever the order in which routes came; of one that came twice, the second."""
    twins, known = Twins(), dict[IPv4Network, int]()
    for address, length, value in added:
        prefix = IPv4Network((address, length), strict=False)
        known[prefix] = value
        for world in (twins.compiled, twins.python):
            tables.add_route(world.routes, str(prefix), value)
    edges = [edge + by for prefix in known for edge in (int(prefix[0]), int(prefix[-1])) for by in (-1, 0, 1)]
    asked = [(address,) for address in (*addresses, *edges) if 0 <= address <= 0xFFFFFFFF]
    expected = []
    for (address,) in asked:
        within = [prefix for prefix in known if IPv4Address(address) in prefix]
        longest = max(within, key=lambda prefix: prefix.prefixlen, default=None)
        expected.append(-1 if longest is None else known[longest])
    assert twins.run(on_routes, asked) == expected


def test_routes_that_cannot_be() -> None:
    """Refused in a line, and what was there is looked up as before."""
    world = World()
    for host in range(4):
        tables.add_route(world.routes, f"10.{host}.0.1", host)  # each has two groups
    with pytest.raises(ConfigurationError, match=r"10.9.0.0/24: all 8 groups are taken: .*routes\(16\)"):
        tables.add_route(world.routes, "10.9.0.0/24", 9)
    tables.add_route(world.routes, "10.3.0.2/32", 7)
    assert [tables.lookup(world.routes, 0x0A030000 + host) for host in range(4)] == [-1, 3, 7, -1]
    for value in (-1, 1 << 24):
        with pytest.raises(ConfigurationError, match="value"):
            tables.add_route(world.routes, "10.0.0.0/8", value)
    for prefix in ("10.0.0.1/8", "10.0.0.0/33", "nowhere"):
        with pytest.raises(ConfigurationError, match="no IPv4 prefix"):
            tables.add_route(world.routes, prefix, 1)
    with pytest.raises(ConfigurationError, match="groups 0"):
        tables.routes(0)


# ---------------------------------------------------------------------------------------------------------------------
# Rings of samples


def test_samples_are_read_once_and_in_turn() -> None:
    """Cut to the room that there is; of those that were overwritten, how many."""
    world = World()
    reader, late = tables.Reader(world), tables.Reader(world)
    assert list(reader.read()) == []
    packets = [bytes([number]) * (40 + number) for number in range(14)]
    for number, packet in enumerate(packets[:3]):
        tables.keep(world, packet, 100 + number)
    assert list(reader.read()) == [(n, 100 + n, 40 + n, packets[n]) for n in range(3)]
    assert list(reader.read()) == []
    for number, packet in enumerate(packets[3:], 3):
        tables.keep(world, packet, 100 + number)
    assert [(each.number, each.length, each.data) for each in reader.read()] == [
        (n, 40 + n, packets[n][:48]) for n in range(10, 14)
    ]
    assert (world.written, reader.missed) == (14, 7)
    assert [each.number for each in late.read()] == [10, 11, 12, 13]
    assert late.missed == 10


@compiled
def write(memory: Any, words: Any, packet: Any, count: int) -> int:
    """Keep packets, each of which has one number in all its bytes."""
    world = VIEW(memory, words)
    for number in range(count):
        packet[:] = number & 0xFF
        tables.keep(world, packet, number & 0xFF)
    return count


def test_no_sample_is_read_torn(scaled: Any) -> None:
    """One thread writes as fast as it can, another reads: what it gets is whole, and each is read or missed."""
    twins, count = Twins(), scaled(3_000_000, 1000)
    reader, read = tables.Reader(twins.compiled), 0
    packet = np.zeros(48, np.uint8)
    arguments = twins._memory, np.zeros(32, np.int64), packet.view(Bytes) if INTERPRETED else packet
    write(*arguments, 0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer = threading.Thread(target=write, args=(*arguments, count))
    writer.start()
    try:
        alive = True
        while alive:
            alive = writer.is_alive()
            for sample in reader.read():
                assert sample.number == read + reader.missed
                assert {*sample.data, sample.time} == {sample.number & 0xFF}
                read += 1
    finally:
        writer.join()
        sys.setswitchinterval(before)
    assert read > 0
    assert read + reader.missed == twins.compiled.written == count


# ---------------------------------------------------------------------------------------------------------------------
# Records that are made of them


def test_a_record_may_have_several_bases() -> None:
    """Each one's fields, once, in the order in which they are named."""
    assert World.dtype.names[:5] == ("tokens", "filled", "refused", "written", "few")  # type: ignore[index]

    class Again(World, Limit):
        more: int

    assert Again.dtype.names == (*World.dtype.names, "more")  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"Other.refused is of two types"):

        class Other(Limit):  # pyright: ignore[reportUnusedClass]
            refused: float  # type: ignore[assignment]


def test_sizes_that_cannot_be() -> None:
    for size in (0, 1 << 28):
        for make in (tables.sketch, lambda size: tables.slots(size, 1), lambda size: tables.slots(1, size)):
            with pytest.raises(ConfigurationError):
                make(size)


def test_paths_that_share_a_record() -> None:
    """As many as it was made for, worker by worker."""

    class User:
        closed = False

    users = [User() for _ in range(5)]
    limits = Limit(workers=2, paths=2)
    first, second, third, fourth = (limits.claim(user)[:1] for user in users[:4])
    first[0], third[0] = 3, 7
    assert (second[0], fourth[0], limits[0].tokens, limits[1].tokens) == (3, 7, 3, 7)
    with pytest.raises(ConfigurationError, match=r"2 paths for each of its 2 records: .*paths=3"):
        limits.claim(users[4])
    users[1].closed = True
    assert limits.claim(users[4])[0] == 3
