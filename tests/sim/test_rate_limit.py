"""Transmit queues with a limited rate: RTTBCNRC says how many times the one in RTTDQSEL is slower than the link."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from lab import batch_of, frame, number_of, open_card, receive_all

import ixy
from ixy.packets.mempool import Mempool
from ixy.sim import timed
from ixy.sim.card import rate, state
from ixy.sim.machine import Machine
from ixy.sim.rack import SPEED

RTTDQSEL, RTTBCNRM, RTTBCNRC = 0x4904, 0x4980, 0x4984
ENABLE = 1 << 31


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


def limit(machine: Machine, queue: int, factor: float) -> None:
    """What DPDK and Linux write: the factor in 10.14 fixed-point."""
    card = machine.cards["a"]
    card.write32(RTTDQSEL, queue)
    card.write32(RTTBCNRC, ENABLE | int(factor * 2**14) if factor else 0)


@pytest.mark.parametrize(
    ("speed", "factor", "credit", "length", "frames", "nanoseconds"),
    [
        (10 * 10**9, 1.0, 0, 64, 1000, 51_200),  # a frame of 64 bytes at the line's rate, without preamble and gap
        (10 * 10**9, 10.0, 0, 64, 1000, 512_000),
        (10 * 10**9, 2.5, 0, 1518, 3, 9108),
        (0, 10.0, 0, 64, 1000, 512_000),  # where frames take no time, the link is one of 10 Gbit/s
        (10**9, 3.0, 0, 64, 1, 1536),
        (10**6, 1023.0, 0, 1518, 1, 12_423_312_000),
        (10 * 10**9, 10.0, 4, 64, 1000, 512_000 - 32_768),  # 4 KiB are made up for: they last 3276.8 ns × 10
        (10 * 10**9, 10.0, 4, 64, 1, 512 - 32_768),
    ],
)
def test_when_a_queue_may_send_again(
    machine: Machine, speed: int, factor: float, credit: int, length: int, frames: int, nanoseconds: int
) -> None:
    """So many bytes with their check sequence, times 8, at a fraction of the link's rate; no error adds up."""
    card = machine.plug_in("sim:a")
    machine.rack.outputs[card.index, SPEED] = speed
    limit(machine, 7, factor)
    card.write32(RTTBCNRM, credit)
    start = 10**15
    for _ in range(frames):
        rate.limit(machine.rack, card.index, 7, length, start)
    assert machine.rack.queues[card.index, 7, state.QUEUE_DUE] - start in (nanoseconds, nanoseconds - 1)
    machine.rack.outputs[card.index, SPEED] = 0
    machine.unplug(card)


@pytest.mark.parametrize("wire", ["", ",wire=10G", ",wire=1G,delay=1us"])
def test_a_queue_is_no_faster(machine: Machine, pool: Mempool, wire: str) -> None:
    """50 frames of 1500 bytes at 10 Mbit/s: those after the first take 1203.2 µs each, in order, and all come."""
    speed = 1000 if "1G" in wire else 10_000
    with open_card(machine, f"sim:a,cable=b{wire}") as a, open_card(machine, "sim:b") as b:
        limit(machine, 0, speed / 10)
        a.tx[0].send(batch_of(pool, [frame(number, 1500) for number in range(50)]))
        before = time.monotonic_ns()
        found: list[bytes] = []
        while len(found) < 50:
            machine.step()
            found += receive_all(b)
            assert len(found) <= (time.monotonic_ns() - before) // 1_203_200 + 1
        assert [number_of(data) for data in found] == list(range(50))


def test_the_other_queues_are_not_held_up(machine: Machine, pool: Mempool) -> None:
    """Queue 1 may send a frame each 52 ms; queue 0 sends all that it has meanwhile."""
    with (
        ixy.open("sim:a,cable=b", sim=machine, link_timeout=0, tx_queues=2) as a,
        open_card(machine, "sim:b") as b,
    ):
        limit(machine, 1, 1023)
        machine.rack.queues[0, 1, state.QUEUE_DUE] = due = time.monotonic_ns() + 10**15
        a.tx[1].send(batch_of(pool, [frame(number + 1000) for number in range(20)]))
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(200)]))
        machine.step(8)
        assert [number_of(data) for data in receive_all(b)] == list(range(200))
        assert machine.rack.queues[0, 1, state.QUEUE_DUE] == due
        limit(machine, 1, 0)
        machine.step(2)
        assert [number_of(data) for data in receive_all(b)] == list(range(1000, 1020))


def test_each_queue_has_its_own(machine: Machine) -> None:
    """RTTBCNRC is read and written of the queue that is selected; a reset limits none."""
    with open_card(machine):
        card = machine.cards["a"]
        for queue in range(128):
            limit(machine, queue, 2 + queue)
        for queue in range(128):
            card.write32(RTTDQSEL, queue)
            assert card.read32(RTTBCNRC) == ENABLE | 2 + queue << 14
        card.write32(0, 1 << 26)
        assert card.read32(RTTBCNRC) == 0
        assert not np.any(machine.rack.queues[0, :, state.QUEUE_FACTOR])


def test_an_unlimited_card_does_not_look_at_the_time(machine: Machine) -> None:
    """Drivers clear the limits of all queues when they start: no kernel of time is there for that."""
    with open_card(machine):
        for queue in range(128):
            limit(machine, queue, 0)
        assert not machine.rack.slots[list(timed.SLOTS)].any()
