"""Cards that run by themselves, as a thread beside the driver."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import open_card

import ixy
from ixy import path as paths
from ixy.device import Device
from ixy.path import touch
from ixy.sim.machine import Machine, SinkReport

RING, POOL = 512, 2048


@pytest.fixture
def machine() -> Machine:
    """A machine whose thread runs while a card is open."""
    return Machine()


def forward_until(path: ixy.Path, done: Callable[[], bool], what: str) -> None:
    """Run a path until something is the case; a minute of standstill fails."""
    deadline = time.monotonic() + 60
    while not done():
        if path.run(1024):
            deadline = time.monotonic() + 60
        assert time.monotonic() < deadline, what


def test_forwarding_end_to_end(machine: Machine, scaled: Callable[..., int]) -> None:
    """200,000 packets through generator, card, path, card, sink: all are there, complete, changed just so, in order."""
    count = scaled(200_000, 20)
    with (
        open_card(machine, f"sim:a,gen=60,count={count}") as a,
        open_card(machine, "sim:b,sink=a,touch=48") as b,
    ):
        path = ixy.Path(a.rx[0], b.tx[0], touch)
        forward_until(path, lambda: path.counts.received == count, "the generator stands still")
        forward_until(path, lambda: machine.sink_report("a", "b").received == count, "the sink stands still")
        assert machine.sink_report("a", "b") == SinkReport(count, count, lost=0, duplicated=0, reordered=0, wrong=0)
        stats = a.stats(), b.stats()
        assert (stats[0].rx_packets, stats[0].rx_bytes, stats[0].rx_dropped) == (count, 64 * count, 0)
        assert (stats[1].tx_packets, stats[1].tx_bytes) == (count, 64 * count)
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == a.rx[0].pool.capacity


def test_statistics_while_traffic_runs(machine: Machine, scaled: Callable[..., int]) -> None:
    """Asked again and again while packets flow, the counts only rise, and in the end none is missing."""
    count = scaled(50_000)
    with open_card(machine, f"sim:a,gen=60,count={count}") as device:
        path = ixy.Path(device.rx[0], device.tx[0])
        before = device.stats()
        deadline = time.monotonic() + 60
        while before.rx_packets < count or path.counts.received < count:
            path.run(16)
            now = device.stats()
            assert all(new >= old for new, old in zip(vars(now).values(), vars(before).values(), strict=True))
            before = now
            assert time.monotonic() < deadline
        stats = device.stats()
        assert (stats.rx_packets, stats.rx_bytes) == (count, 64 * count)


def test_close_while_traffic_runs(machine: Machine) -> None:
    """The generator has no end, and frames lie in all rings: closing in either order stops and returns all."""
    for first_to_close in (0, 1):
        a, b = open_card(machine, "sim:a,gen=60"), open_card(machine, "sim:b,sink=a")
        path = ixy.Path(a.rx[0], b.tx[0])
        forward_until(path, lambda path=path: path.counts.forwarded > 500, "no traffic")
        pool = a.rx[0].pool
        for device in sorted((a, b), key=lambda device: device is not (a, b)[first_to_close]):
            device.close()
        assert pool.closed
        assert not machine.cards


def test_two_programs_on_two_cards(machine: Machine, scaled: Callable[..., int]) -> None:
    """A cable between two cards, and a thread of its own forwarding at each end: packets go around, none is lost."""
    with open_card(machine, "sim:a,cable=b") as a, open_card(machine, "sim:b") as b:
        echo = [ixy.Path(device.rx[0], device.tx[0]) for device in (a, b)]
        pool = ixy.Mempool(64)
        a.tx[0].send(pool.allocate(32))
        stop = threading.Event()

        def run(path: ixy.Path) -> None:
            while not stop.is_set():
                path.run(256)

        threads = [threading.Thread(target=run, args=(path,)) for path in echo]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while echo[0].counts.received < scaled(20_000):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        stop.set()
        for thread in threads:
            thread.join()
        assert (a.stats().rx_dropped, b.stats().rx_dropped) == (0, 0)
    pool.release()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def shared_mappings() -> int:
    """Mappings of ixy's memory files."""
    return Path("/proc/self/maps").read_text().count("/memfd:ixy")


def test_open_and_close_fifty_times(machine: Machine, tmp_path: Path) -> None:
    """Two cards with wires of all kinds, fifty times: no file, no mapping, no thread and no mempool is left."""
    wires = ["gen=60", "cable=b", f"tx_pcap={tmp_path / 'out.pcap'}", "gen=60,rate=1e3"]
    before: tuple[int, int, int] | None = None
    for turn in range(50):
        with open_card(machine, f"sim:a,{wires[turn % 4]}", ring_size=64, pool_size=96), open_card(machine, "sim:b"):
            pass
        gc.collect()
        with ixy.Mempool(1):
            now = open_files(), shared_mappings(), threading.active_count()
        before = before or now
        assert now == before


def ping_pong(a: Device, b: Device, packets: int) -> None:
    """Run echoing paths on both cards until so many packets were received."""
    there, back = ixy.Path(a.rx[0], a.tx[0]), ixy.Path(b.rx[0], b.tx[0])
    received = 0
    while received < packets:
        received += paths.run([there, back], 256)


def test_nothing_leaks_over_ten_million_packets(scaled: Callable[..., int]) -> None:
    """200 packets to and fro between two cards, ten million receptions: at the end every buffer is accounted for."""
    machine = Machine()
    with (
        open_card(machine, "sim:a,cable=b", ring_size=RING, pool_size=POOL) as a,
        open_card(machine, "sim:b", ring_size=RING, pool_size=POOL) as b,
    ):
        seed = ixy.Mempool(256)
        with seed.allocate(200) as batch:
            assert a.tx[0].send(batch) == 200
        ping_pong(a, b, scaled(10_000_000, 1000))
        # Every buffer is free, in a receive ring, or in flight; each card's own may be in flight at the other
        free = sum(pool.available for pool in (a.rx[0].pool, b.rx[0].pool, seed))
        assert free + 2 * RING + a.tx[0].in_flight + b.tx[0].in_flight == 2 * POOL + 256
        assert a.stats().rx_dropped == b.stats().rx_dropped == 0
    assert seed.available == 256
    seed.release()


def test_nothing_leaks_through_batches(machine: Machine, scaled: Callable[..., int]) -> None:
    """The same with Python's batches: received, touched by NumPy, partly freed, the rest sent."""
    count = scaled(1_000_000)
    with open_card(machine, f"sim:a,gen=60,count={count}") as device:
        received = 0
        deadline = time.monotonic() + 60
        while received < count:
            with device.rx[0].receive(64) as batch:
                if len(batch):
                    received += len(batch)
                    batch.bytes[:, 48] += 1
                    if received % 3:
                        device.tx[0].send(batch)
                    deadline = time.monotonic() + 60
            assert time.monotonic() < deadline
        assert device.rx[0].pool.available + RING + device.tx[0].in_flight == device.rx[0].pool.capacity
