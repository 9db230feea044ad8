"""Rings between threads: each packet once and in order, and every buffer comes home, whatever ends first."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import threading
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from lab import arrive, batch_of, depart, frame, number_of, open_card

import ixy
from ixy.drivers import lanes
from ixy.errors import ConfigurationError, Error, MemoryUnavailable, OwnershipError
from ixy.packets.packets import new_packets
from ixy.packets.pool import pools
from ixy.sim.machine import Machine

RING, POOL = 64, 256


def numbers(batch: ixy.Batch) -> list[int]:
    return [number_of(bytes(packet)) for packet in batch]


def send(queue: ixy.TxQueue, pool: ixy.Mempool, *which: int) -> int:
    with batch_of(pool, [frame(number) for number in which]) as batch:
        return queue.send(batch)


# ---------------------------------------------------------------------------------------------------------------------
# What a ring does


def test_full_empty_and_wrapping() -> None:
    """A ring of 32 takes 32; what found no room stays with the sender. Batches of 27 go round and round."""
    with ixy.Mempool(64) as pool, ixy.Ring(32) as ring:
        assert len(ring.rx.receive()) == 0
        with batch_of(pool, [frame(number) for number in range(35)]) as batch:
            assert ring.tx.send(batch) == 32
            assert ring.tx.send(batch) == 0
            assert (numbers(batch), len(ring), ring.tx.in_flight) == ([32, 33, 34], 32, 32)
        assert numbers(ring.rx.receive(3)) == [0, 1, 2]
        assert send(ring.tx, pool, 40, 41, 42, 43) == 3
        assert numbers(ring.rx.receive()) == [*range(3, 32), 40, 41, 42]
        for start in range(50, 500, 27):
            assert send(ring.tx, pool, *range(start, start + 27)) == 27
            assert numbers(ring.rx.receive()) == [*range(start, start + 27)]
        assert (len(ring), pool.available) == (0, 64)


def test_lengths_come_along() -> None:
    with ixy.Mempool(4) as pool, ixy.Ring(32) as ring:
        with batch_of(pool, [frame(1, 60), frame(2, 1514)]) as batch:
            ring.tx.send(batch)
        assert [bytes(packet) for packet in ring.rx.receive()] == [frame(1, 60), frame(2, 1514)]


def test_paths_on_both_sides(machine: Machine) -> None:
    """From one card to the other by two paths; a ring that is full holds the first one back."""
    with (
        open_card(machine, ring_size=RING, pool_size=POOL) as a,
        open_card(machine, "sim:b") as b,
        ixy.Ring(32) as ring,
    ):
        first, second = ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0], batch=8)
        for number in range(40):
            arrive(machine, frame(number))
        assert (first.run(4), len(ring), first.run(4)) == (32, 32, 0)
        assert second.run(1) == 8
        for _ in range(4):
            first.run(4)
            second.run(4)
        assert [number_of(data) for data in depart(machine, name="b")] == list(range(40))
        assert (first.counts, second.counts) == ((40, 40, 0), (40, 40, 0))
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == POOL


def test_a_path_drops_what_came_by_a_ring(machine: Machine) -> None:
    @ixy.kernel
    def odd(packet: Any) -> int:
        return packet[21] & 1

    with ixy.Mempool(16) as pool, open_card(machine) as a, ixy.Ring(32) as ring:
        path = ixy.Path(ring.rx, a.tx[0], odd)
        assert send(ring.tx, pool, *range(10)) == 10
        assert path.run(2) == 10
        assert (path.counts.dropped, pool.available) == (5, 11)
        assert [number_of(data) for data in depart(machine)] == [1, 3, 5, 7, 9]


def test_rings_beside_devices(machine: Machine) -> None:
    """One path, outputs of three kinds: a card, a ring, and a ring that carries metadata."""

    @ixy.kernel
    def by_number(packet: Any) -> int:
        return packet[21] % 4

    a = open_card(machine, ring_size=RING, pool_size=POOL, metadata=("time",))  # type: ignore[arg-type]
    with a, open_card(machine, "sim:b") as b, ixy.Ring(32) as plain, ixy.Ring(32, metadata=("time", "vlan")) as timed:
        path = ixy.Path(a.rx[0], [b.tx[0], plain.tx, timed.tx], by_number)
        for number in range(12):
            arrive(machine, frame(number))
        assert path.run(2) == 12
        assert (path.sent, path.counts.dropped) == ([3, 3, 3], 3)
        assert [number_of(data) for data in depart(machine, name="b")] == [1, 5, 9]
        assert numbers(plain.rx.receive()) == [2, 6, 10]
        batch = timed.rx.receive()
        assert (numbers(batch), batch.vlans.tolist()) == ([3, 7, 11], [0, 0, 0])
        assert batch.times.tolist() == [path.state.packets.times[0]] * 3
        with pytest.raises(ConfigurationError, match="no times"):
            _ = plain.rx.receive().times


def test_metadata_comes_along(machine: Machine) -> None:
    a = open_card(machine, metadata=("flags", "vlan"))  # type: ignore[arg-type]
    with a, ixy.Ring(32, metadata=("vlan", "flags")) as ring:
        path = ixy.Path(a.rx[0], ring.tx)
        for tag in (5, 0x6007, 9):
            data = frame(tag, 64)
            arrive(machine, data[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + data[12:])
        for _ in range(3):  # the third time round it wraps
            assert path.run(1) in (3, 0)
        batch = ring.rx.receive()
        assert batch.vlans.tolist() == [5, 0x6007, 9]
        assert [bool(flags & ixy.Flags.VLAN) for flags in batch.flags] == [True] * 3


def test_buffers_that_were_sent_come_back_while_nothing_comes(machine: Machine) -> None:
    """All buffers that the first card can spare lie in the transmit ring behind the ring: the second path fetches them
    without a packet, else both would wait for each other.
    """
    a, b = open_card(machine, ring_size=RING, pool_size=RING + 32), open_card(machine, "sim:b", ring_size=RING)
    with a, b, ixy.Ring(RING) as ring:
        first, second = ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0])
        for number in range(40):
            arrive(machine, frame(number))
        assert (first.run(4), second.run(4)) == (32, 32)
        assert len(depart(machine, name="b")) == 32
        assert first.run(4) == 0
        assert second.run(1) == 0
        assert (first.run(4), second.run(4)) == (8, 8)


def test_pools_that_come_later(machine: Machine) -> None:
    """Two rings in a row to a card; then a pool sends through the first, which nobody knew of before."""
    with open_card(machine) as a, ixy.Ring(32) as one, ixy.Ring(32) as two, ixy.Mempool(4) as pool:
        last, first = ixy.Path(two.rx, a.tx[0]), ixy.Path(one.rx, two.tx)
        assert send(one.tx, pool, 7, 8) == 2
        assert (first.run(1), last.run(1)) == (2, 2)
        assert [number_of(data) for data in depart(machine)] == [7, 8]


def test_a_pool_that_cannot_be_attached(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet of it gets into the ring, however often it is sent, until the card behind the ring can reach it."""
    with open_card(machine) as a, ixy.Ring(32) as ring, ixy.Mempool(4) as pool:
        path = ixy.Path(ring.rx, a.tx[0])
        with monkeypatch.context() as patch:
            patch.setattr(a, "attach", refuse)
            for _ in range(2):
                with pytest.raises(MemoryUnavailable):
                    send(ring.tx, pool, 1)
        assert len(ring) == 0
        assert pool.available == 4
        assert send(ring.tx, pool, 2) == 1
        path.run(1)
        assert [number_of(data) for data in depart(machine)] == [2]


def refuse(_pool: ixy.Mempool) -> None:
    raise MemoryUnavailable("no more memory can be locked")


# ---------------------------------------------------------------------------------------------------------------------
# Threads


def produce(queue: ixy.TxQueue, pool: ixy.Mempool, first: int, count: int) -> None:
    number = first
    while number < first + count:
        with pool.allocate(min(7, first + count - number)) as batch:
            for place, packet in enumerate(batch):
                packet[14:22] = (number + place).to_bytes(8, "big")
            number += queue.send(batch)


@pytest.mark.parametrize(("producers", "size"), [(1, 32), (3, 64), (5, 32)])
def test_threads(producers: int, size: int, scaled: Callable[..., int]) -> None:
    """Each producer's packets come once and in order, from several pools; all buffers are home in the end."""
    count, most = scaled(3_000, 10), 1 << 32
    mempools = [ixy.Mempool(40) for _ in range(min(producers, 2))]
    with ixy.Ring(size, producers=producers) as ring:
        threads = [
            threading.Thread(target=produce, args=(queue, mempools[k % len(mempools)], k * most, count))
            for k, queue in enumerate(ring.producers)
        ]
        for thread in threads:
            thread.start()
        following = [0] * producers
        while sum(following) < producers * count:
            for number in numbers(ring.rx.receive()):
                producer, place = divmod(number, most)
                assert place == following[producer]
                following[producer] += 1
        for thread in threads:
            thread.join()
        assert len(ring) == 0
        assert [pool.available for pool in mempools] == [40] * len(mempools)
    for pool in mempools:
        pool.release()


def test_paths_in_threads(machine: Machine, scaled: Callable[..., int]) -> None:
    """Two compiled paths hand packets on at once; the card in between moves as the test says."""
    count = scaled(3_000, 10)
    a, b = (open_card(machine, f"sim:{name}", ring_size=RING, pool_size=POOL) for name in "ab")
    with a, b, ixy.Ring(32) as ring:
        paths = [ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0])]
        done = threading.Event()

        def repeat(path: ixy.Path) -> None:
            while not done.is_set():
                path.run(100)

        threads = [threading.Thread(target=repeat, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        left: list[int] = []
        arrived = 0
        while len(left) < count:
            if arrived < count and arrived - len(left) < RING // 2:
                arrive(machine, frame(arrived))
                arrived += 1
            left += [number_of(data) for data in depart(machine, name="b")]
        done.set()
        for thread in threads:
            thread.join()
        assert left == list(range(count))
        b.close()
        assert a.rx[0].pool.available + RING == POOL


def test_one_at_a_time() -> None:
    """A second consumer is refused by name, and so is a second thread at one producer's queue."""
    with ixy.Mempool(4) as pool, ixy.Ring(32, producers=2) as ring:
        batch = pool.allocate(1)
        for queue, use, name in (
            (ring.rx, ring.rx.receive, "rx"),
            (ring.producers[1], lambda: ring.producers[1].send(batch), r"producers\[1\]"),
        ):
            words = queue.ring.state.state
            words[lanes.COMMON_WORDS - 2] = -2  # RUNNER: a thread that is not there
            with pytest.raises(OwnershipError, match=rf"^ring \d+ {name} is in use by another thread"):
                use()
            words[lanes.COMMON_WORDS - 2] = 0


# ---------------------------------------------------------------------------------------------------------------------
# Every interleaving of a producer and a consumer


class _Stepped(ast.NodeTransformer):
    """Kernels as generators, which yield before each access that the other side can see."""

    SEEN = ("load_acquire", "store_release", "carry")
    KERNELS = ("tx_room", "tx_batch", "rx_batch", "take")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.generic_visit(node)
        node.decorator_list = []
        node.body.append(ast.parse("yield").body[0])  # a generator, whatever it calls
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in self.KERNELS:
            return ast.YieldFrom(node)
        if name in self.SEEN:
            both = ast.Tuple([ast.Yield(None), node], ast.Load())
            return ast.Subscript(both, ast.Constant(1), ast.Load())
        return node


def stepped_kernels() -> dict[str, Any]:
    source = ast.parse(inspect.getsource(lanes))
    functions = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name in _Stepped.KERNELS]
    tree = ast.fix_missing_locations(_Stepped().visit(ast.Module(functions, [])))

    def carry(target: Any, to: int, source: Any, start: int, count: int) -> None:
        for i in range(count):
            target.ids[to + i] = source.ids[start + i]

    plain = {
        "load_acquire": lambda array, index: int(array[index]),
        "store_release": lambda array, index, value: array.__setitem__(index, value),
        "carry": carry,
        "hand_over": lambda _pools, _packets, _first, count, *_: count,
    }
    space = {**vars(lanes), **plain}
    exec(compile(tree, "lanes", "exec"), space)
    return space


def outcomes(kernels: dict[str, Any], schedule: list[int], size: int, calls: int) -> tuple[list[int], list[int], int]:
    """One run by a schedule, a 0 where the producer goes on and a 1 for the consumer, which is completed: the numbers
    that were sent, those that came, and how many are still in the ring.
    """
    rx, (tx,) = lanes.new_lanes(size, 1, None, ())  # type: ignore[arg-type]
    sent: list[int] = []
    came: list[int] = []

    def producer() -> Generator[None]:
        packets = new_packets(2)
        for _ in range(calls):
            packets.ids[:] = len(sent), len(sent) + 1
            sent.extend(range(len(sent), len(sent) + (yield from kernels["tx_batch"](tx.state, None, packets, 0, 2))))

    def consumer() -> Generator[None]:
        packets = new_packets(2)
        for _ in range(calls):
            count = yield from kernels["rx_batch"](rx.state, None, packets, 2)
            came.extend(packets.ids[:count].tolist())

    both = [producer(), consumer()]
    alive = [True, True]
    step = 0
    while any(alive):
        if all(alive):
            if step == len(schedule):
                schedule.append(0)
            who = schedule[step]
            step += 1
        else:
            who = alive.index(True)
        try:
            next(both[who])
        except StopIteration:
            alive[who] = False
    del schedule[step:]
    return sent, came, rx.waiting


@pytest.mark.parametrize(("size", "calls"), [(1, 2), (2, 3), (4, 2)])
def test_every_interleaving(size: int, calls: int) -> None:
    """What comes is what was sent, in order, whoever of the two goes on whenever; there are thousands of ways."""
    kernels = stepped_kernels()
    schedule: list[int] = []
    seen: set[tuple[int, int]] = set()
    while True:
        sent, came, waiting = outcomes(kernels, schedule, size, calls)
        assert came == sent[: len(came)] == list(range(len(came)))
        assert len(came) + waiting == len(sent)
        assert waiting <= size
        seen.add((len(sent), len(came)))
        while schedule and schedule[-1] == 1:
            schedule.pop()
        if not schedule:
            break
        schedule[-1] = 1
    most = min(2, size)
    assert (min(size, 2 * calls), 0) in seen  # the consumer was always too early
    assert (most * calls, most * calls) in seen  # they took turns


# ---------------------------------------------------------------------------------------------------------------------
# Ends


def test_closing_gives_all_back() -> None:
    """Packets in the ring, in a batch, and in one that is lost in a cycle; then nothing goes any more."""
    with ixy.Mempool(12) as pool:
        ring = ixy.Ring(32)
        send(ring.tx, pool, *range(12))
        batch, lost = ring.rx.receive(3), ring.rx.receive(4)
        packet = batch[0]
        del lost
        gc.collect()
        assert (len(ring), pool.available) == (5, 4)
        own = pool.allocate(1)
        ring.close()
        ring.close()
        assert (len(ring), pool.available, ring.closed) == (0, 11, True)
        for use in (ring.rx.receive, lambda: ring.tx.send(own)):
            with pytest.raises(Error, match=r"^ring \d+ is closed: make a new one$"):
                use()
        for use in (lambda: packet[0], lambda: batch[0]):
            with pytest.raises(OwnershipError, match="was sent or freed, or its device closed"):
                use()
        batch.free()
        own.free()
        assert pool.available == 12


def test_a_ring_that_nobody_has_any_more() -> None:
    with ixy.Mempool(4) as pool:
        send(ixy.Ring(32).tx, pool, 1, 2)
        gc.collect()
        assert pool.available == 4


def test_closing_under_a_path(machine: Machine) -> None:
    """Paths on both sides say that the ring is closed; what they had is home."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as a, open_card(machine, "sim:b") as b:
        ring = ixy.Ring(32)
        first, second = ixy.Path(a.rx[0], ring.tx), ixy.Path(ring.rx, b.tx[0])
        for number in range(20):
            arrive(machine, frame(number))
        first.run(2)
        second.run(1)
        first.run(1)
        ring.close()
        for path in (first, second):
            assert path.closed
            with pytest.raises(Error, match=r"^ring \d+ is closed: make a new one$"):
                path.run(1)
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == POOL


def test_closing_under_a_running_path(machine: Machine) -> None:
    """A run without an end is ended, though its path has no pool that could tell it to look."""
    with ixy.Mempool(4) as pool, open_card(machine) as a, ixy.Ring(32) as ring:
        path = ixy.Path(ring.rx, a.tx[0])
        path.run(0)
        send(ring.tx, pool, 5)
        thread = threading.Thread(target=path.run, args=(1 << 60,))
        thread.start()
        while path.counts.received == 0:
            pass
        ring.close()
        thread.join()
        a.close()
        assert pool.available == 4


def test_a_device_closed_under_a_ring(machine: Machine) -> None:
    """Its packets stay what they were until they are given back; then its memory goes with the ring."""
    with ixy.Ring(32) as ring:
        a = open_card(machine, ring_size=RING, pool_size=POOL)
        pool = a.rx[0].pool
        path = ixy.Path(a.rx[0], ring.tx)
        for number in range(3):
            arrive(machine, frame(number))
        path.run(1)
        a.close()
        with pytest.raises(Error, match="sim:a is closed"):
            path.run(1)
        assert not pool.closed
        batch = ring.rx.receive()
        assert [bytes(packet) for packet in batch] == [frame(number) for number in range(3)]
        batch.free()
        assert pool.available == POOL
    assert pool.closed


def test_a_mempool_released_under_a_ring() -> None:
    ring, pool = ixy.Ring(32), ixy.Mempool(4)
    send(ring.tx, pool, 1, 2)
    pool.release()
    assert numbers(ring.rx.receive()) == [1, 2]
    assert not pool.closed
    ring.close()
    assert pool.closed


def test_a_fork() -> None:
    """The child has a copy that it may not use, and whose end touches nothing."""
    with ixy.Mempool(4) as pool, ixy.Ring(32) as ring:
        send(ring.tx, pool, 1, 2)
        batch = ring.rx.receive(1)
        child = os.fork()
        if child == 0:
            said = []
            for use in (ring.rx.receive, lambda: batch[0]):
                try:
                    use()
                except OwnershipError as error:
                    said.append(f"belongs to process {os.getppid()}" in str(error))
            batch.free()
            ring.close()
            os._exit(0 if said == [True, True] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (numbers(batch), numbers(ring.rx.receive())) == ([1], [2])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((16,), {}, ConfigurationError, "size 16: 32 to 32768 are possible"),
        ((48,), {}, ConfigurationError, "size 48: powers of two up to 32768 are possible"),
        ((1 << 15,), {"producers": 2}, ConfigurationError, "size 32768: 32 to 16384 are possible"),
        ((64.0,), {}, TypeError, "size must be an integer"),
        ((64,), {"producers": 0}, ConfigurationError, "producers 0: 1 to 64 are possible"),
        ((64,), {"metadata": "vlan"}, TypeError, "metadata must be names"),
        ((64,), {"metadata": ("colour",)}, ConfigurationError, "ring: metadata 'colour': possible are flags"),
    ],
)
def test_what_is_refused(arguments: tuple[Any], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ixy.Ring(*arguments, **options)


def test_no_pool_of_its_own() -> None:
    with ixy.Ring() as ring, pytest.raises(ConfigurationError, match=r"^ring \d+ rx has no pool"):
        _ = ring.rx.pool


def test_both_sides_have_lines_of_their_own() -> None:
    """Words that different threads write do not share two cache lines."""
    with ixy.Ring(32, producers=3) as ring:
        state = ring.rx.ring.state
        rows = [queue.ring.state.state for queue in ring.producers]
        rows += [state.taken[lane * lanes.LINE :][: lanes.LINE] for lane in range(3)]
        addresses = [row.__array_interface__["data"][0] for row in (*rows, state.state)]
        assert len({address // 128 for address in addresses}) == 7
        assert all(address % 128 == 0 for address in addresses)
        assert all(np.shares_memory(row, state.put_in) for row in rows[:3])
        assert pools() is ring._pools
