"""Frames that take their time on the wire: 20 bytes more than a frame has, at so many bits a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lab import batch_of, frame, number_of, open_card, read_pcap, receive_all, write_pcap

import ixy
from ixy.packets.mempool import Mempool
from ixy.sim import timed
from ixy.sim.machine import Machine
from ixy.sim.rack import END_WORDS, FREE, SPEED

CATCH_UP = 1_000_000  # ns: so much may be made up for at once


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


@pytest.mark.parametrize(
    ("speed", "length", "frames", "nanoseconds"),
    [
        (10 * 10**9, 60, 1000, 67_200),
        (10 * 10**9, 1514, 5, 6152),
        (10**9, 60, 7, 4704),
        (10**8, 1514, 3, 369_120),
        (3 * 10**9, 60, 100, 22_400),
        (11 * 10**9, 60, 11_000, 672_000),  # 61.09 ns each
        (400 * 10**9, 60, 1000, 1680),
        (10**6, 9014, 1, 72_304_000),
    ],
)
def test_how_long_frames_take(speed: int, length: int, frames: int, nanoseconds: int) -> None:
    """(n + 20) × 8 bits, where n is the length with the frame check sequence; no error adds up."""
    wire = np.zeros(END_WORDS, np.int64)
    wire[SPEED] = speed
    for _ in range(frames):
        gone = timed.occupy(wire, length, 0)
    assert gone == wire[FREE] == nanoseconds


def test_an_idle_wire_makes_up_for_nothing() -> None:
    """One that was held up makes up for a millisecond."""
    wire = np.zeros(END_WORDS, np.int64)
    wire[SPEED] = 10**9
    timed.idle(wire, 5_000_000)
    assert timed.occupy(wire, 60, 5_000_000) == 5_000_672
    assert timed.occupy(wire, 60, 5_000_000) == 5_001_344
    assert timed.occupy(wire, 60, 9_000_000) == 8_000_672


@pytest.mark.parametrize("rate", ["", ",rate=1e6"])
def test_a_generator_is_not_faster(machine: Machine, rate: str) -> None:
    """At 1 Mbit/s 1488 frames a second, whatever its own rate; they come in order."""
    before = time.monotonic_ns()
    found: list[bytes] = []
    with open_card(machine, f"sim:a,gen=60,wire=1M{rate}") as device:
        while len(found) < 100:
            machine.step()
            found += receive_all(device)
        after = time.monotonic_ns()
    assert len(found) <= (after - before + CATCH_UP) // 672_000 + 1
    assert [int.from_bytes(data[-4:], "big") for data in found] == list(range(len(found)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sim:a,cable=b,wire=10M", "sim:b"),
        ("sim:a,cable=b", "sim:b,wire=10M"),
        ("sim:a,wire=1G", "sim:b,cable=a,wire=10M"),
    ],
)
def test_a_cable_is_as_fast_as_its_slower_end(machine: Machine, pool: Mempool, first: str, second: str) -> None:
    """In both directions: 50 frames of 1514 bytes take 61 ms."""
    with open_card(machine, first) as a, open_card(machine, second) as b:
        for sender, receiver in ((a, b), (b, a)):
            before = time.monotonic_ns()
            sender.tx[0].send(batch_of(pool, [frame(number, 1514) for number in range(50)]))
            found: list[bytes] = []
            while len(found) < 50:
                machine.step()
                found += receive_all(receiver)
            assert time.monotonic_ns() - before >= 49 * 1_230_400 - CATCH_UP
            assert [number_of(data) for data in found] == list(range(50))


def test_a_cable_is_free_again(machine: Machine, pool: Mempool) -> None:
    """When the card has gone whose address had a speed, frames take no time: in one turn all have gone."""
    with open_card(machine, "sim:a,cable=b") as a:
        with open_card(machine, "sim:b,wire=1M"):
            a.tx[0].send(batch_of(pool, [frame()] * 20))
            machine.step()
            assert a.sent() < 20
        with open_card(machine, "sim:b"):
            machine.step()
            assert a.sent() == 20


def test_queues_take_turns(machine: Machine, pool: Mempool) -> None:
    """Two transmit queues that both have packets send one each in turn, though the wire has room for few at once."""
    with (
        ixy.open("sim:a,cable=b,wire=100M", sim=machine, link_timeout=0, tx_queues=2) as a,
        open_card(machine, "sim:b") as b,
    ):
        for queue in range(2):
            a.tx[queue].send(batch_of(pool, [frame(100 * queue + number) for number in range(30)]))
        found: list[bytes] = []
        while len(found) < 60:
            machine.step()
            found += receive_all(b)
        numbers = [number_of(data) for data in found]
        assert sorted([numbers[::2], numbers[1::2]]) == [list(range(30)), list(range(100, 130))]


def test_impairments_begin_when_a_frame_has_gone(machine: Machine, pool: Mempool) -> None:
    """What was `sent` when: a frame after the other, 67.2 µs apart."""
    with open_card(machine, "sim:a,cable=b,wire=10M,delay=10us") as a, open_card(machine, "sim:b") as b:
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(40)]))
        found: list[bytes] = []
        while len(found) < 40:
            machine.step()
            found += receive_all(b)
        told = machine.impairments("a")
        assert (np.diff(told["sent"]) >= 67_200).all()
        assert (told["arrives"] - told["sent"] == 10_000).all()


def test_files_and_sinks(machine: Machine, tmp_path: Path) -> None:
    """A replay and a recording at a line's rate: all frames, in order. So a generator's, through a path to a sink."""
    frames = [frame(number, 60 + number) for number in range(200)]
    source, target = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    with (
        open_card(machine, f"sim:a,rx_pcap={source},wire=1G") as a,
        open_card(machine, f"sim:b,tx_pcap={target},wire=1G") as b,
    ):
        path = ixy.Path(a.rx[0], b.tx[0])
        while b.sent() < 200:
            machine.step()
            path.run()
    assert read_pcap(target) == frames
    with open_card(machine, "sim:a,gen=60,count=300,wire=1G") as a, open_card(machine, "sim:b,sink=a,wire=2.5G") as b:
        path = ixy.Path(a.rx[0], b.tx[0])
        while b.sent() < 300:
            machine.step()
            path.run()
        assert machine.sink_report("a", "b") == (300, 300, 0, 0, 0, 0)


def test_the_speed_of_the_link(machine: Machine) -> None:
    """That of the wire, where the card knows it: 100 Mbit/s, 1 and 10 Gbit/s; else the card's own."""
    for wire, speed in [("100M", 100), ("1G", 1000), ("10G", 10_000), ("2.5G", 10_000)]:
        with open_card(machine, f"sim:a,gen=60,wire={wire}") as device:
            assert device.link == (True, speed)
    with open_card(machine, "sim:a,cable=b") as a, open_card(machine, "sim:b,wire=1G") as b:
        assert a.link == b.link == (True, 1000)
