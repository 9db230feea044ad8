"""From polling to waiting and back: by load, with interrupts paced, and without losing sight of who cannot go on."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from types import SimpleNamespace

import pytest
from lab import arrive, batch_of, depart, frame, open_card

import ixy
from ixy import waiting
from ixy.device import Device
from ixy.errors import Error
from ixy.path import run
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine
from ixy.waiting import PollOrWait, Sight, Wait


@pytest.fixture
def device(machine: Machine) -> Generator[Device]:
    with open_card(machine, ring_size=64, pool_size=256) as device:
        yield device


class Load:
    """What polling finds, stretch by stretch, and how long the stretches are. Then nothing."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = list(counts)
        self.stretches: list[int] = []

    def poll(self, polls: int) -> int:
        self.stretches.append(polls)
        return self._counts.pop(0) if self._counts else 0


def interval(device: Device) -> float:
    """Microseconds between two interrupts, as the card has it (8.2.3.5.12)."""
    return 2.0 * reg.EITR.decode(device._driver._registers.read(reg.EITR[0]))["INTERVAL"]


def test_load_is_polled_by_longer_and_longer_stretches(device: Device) -> None:
    load = Load([100_000] * 20)
    turns = PollOrWait(device.rx)
    assert turns.run(load.poll, 1 << 15, 0) == 14 * 100_000
    assert load.stretches == [*(4 << n for n in range(13)), 4]
    assert turns.run(load.poll, 1 << 14, 0) == 100_000
    assert load.stretches[-1] == 1 << 14


def test_where_nothing_comes_it_waits_and_polls_no_more(machine: Machine, device: Device) -> None:
    """The time runs out, again and again, without a poll between; a packet that is there ends that."""
    load = Load([])
    turns = PollOrWait(device.rx)
    for _ in range(3):
        assert turns.run(load.poll, 1 << 14, 0.001) == 0
    assert load.stretches == [4]
    arrive(machine, frame())
    machine.step()
    turns.run(load.poll, 1 << 14, 60)
    assert load.stretches == [4]
    turns.run(load.poll, 1 << 14, 0)
    assert load.stretches == [4, 8]


def test_what_came_is_told_before_it_waits(device: Device) -> None:
    """The call that found packets ends when no more come, without a wait."""
    load = Load([3])
    assert PollOrWait(device.rx).run(load.poll, 1 << 14, 3600) == 3
    assert load.stretches == [4, 8]


def test_few_packets_are_waited_for(device: Device) -> None:
    """A packet in 16 polls is polled for; fewer end that, at once where stretches are long, and it begins anew."""
    load = Load([32, 32, 1, 1, 50, 1])
    turns = PollOrWait(device.rx)
    assert turns.run(load.poll, 1 << 14, 3600) == 66
    assert load.stretches == [4, 8, 16, 32]
    assert turns.run(load.poll, 1 << 14, 0) == 0
    assert load.stretches == [4, 8, 16, 32]
    long = Load([100_000] * 13 + [1023])
    assert PollOrWait(device.rx).run(long.poll, 1 << 30, 3600) == 13 * 100_000 + 1023
    assert long.stretches[-1] == 1 << 14


def test_interrupts_come_later_where_packets_gather(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each wait: how long after the last one, in µs, and how many packets lay there; and how long the card keeps
    quiet from then on."""
    turns = PollOrWait(device.rx)
    looks: list[Sight] = []
    now = 0.0
    for look in ("look", "peek"):
        monkeypatch.setattr(Wait, look, lambda _: looks.pop())
    monkeypatch.setattr(Wait, "sleep", lambda *_: True)
    monkeypatch.setattr(waiting, "clock", SimpleNamespace(monotonic=lambda: now))
    found: list[float] = []
    alone = [(5000, 8), (5000, 8), (5000, 32), (5000, 4), (5000, 1)]
    often = [(499, 1), (400, 1), (300, 4), (200, 1), (200, 32), (100, 1)]
    rarely = [(501, 1), (999, 1), (1001, 2), (1001, 1), (5000, 1)]
    for since, count in (*alone, *often, *rarely):
        now += since / 1e6
        looks[:] = [Sight.PACKETS, Sight.NOTHING]
        turns.run(Load([]).poll, 64, 1)
        turns.run(Load([count]).poll, 64, 1)
        found.append(interval(device))
    assert found == [10, 20, 40, 40, 20, 40, 80, 160, 320, 640, 640, 640, 640, 640, 320, 160]


def test_a_path_that_waits_forwards_all(machine: Machine, device: Device) -> None:
    path = ixy.Path(device.rx[0], device.tx[0])
    sent = 0
    for number in range(50):
        arrive(machine, frame(number))
        machine.step()
        while path.counts.received <= number:
            path.run(64, wait=60)
        sent += len(depart(machine))
    assert sent == 50
    assert path.run(64, wait=0) == 0


def test_two_paths_wait_for_either(machine: Machine, device: Device) -> None:
    with open_card(machine, "sim:b", ring_size=64) as other:
        paths = [ixy.Path(device.rx[0], other.tx[0]), ixy.Path(other.rx[0], device.tx[0])]
        for name, path in (("b", paths[1]), ("a", paths[0])):
            assert run(paths, 64, wait=0) == 0
            arrive(machine, frame(), name)
            machine.step()
            while path.counts.received == 0:
                run(paths, 64, wait=60)


def test_a_path_goes_on_when_buffers_come_back_by_sending(machine: Machine) -> None:
    """All buffers lie sent in the transmit ring, and packets wait for them: it must be polled for that, and is."""
    with open_card(machine, ring_size=64, pool_size=96) as device:
        path = ixy.Path(device.rx[0], device.tx[0])
        for number in range(200):
            arrive(machine, frame(number))
            machine.step()
            for _ in range(50):
                if path.run(64, wait=0) > 0:
                    break
            depart(machine)
        assert path.counts.forwarded == 200


def test_a_path_polls_while_its_output_is_full(machine: Machine, device: Device) -> None:
    """Packets that cannot be taken on are no reason to sleep, nor to give up."""
    blocked = batch_of(device.rx[0].pool, [frame()] * 63)
    assert device.tx[0].send(blocked) == 63
    path = ixy.Path(device.rx[0], device.tx[0])
    arrive(machine, frame())
    for _ in range(5):
        assert path.run(64, wait=3600) == 0
    depart(machine)
    while path.counts.forwarded == 0:
        path.run(64, wait=3600)


def test_a_path_with_a_wait_loses_its_device(device: Device) -> None:
    path = ixy.Path(device.rx[0], device.tx[0])
    path.run(64, wait=0)
    device.close()
    with pytest.raises(Error, match="sim:a is closed"):
        path.run(64, wait=60)


def test_between_full_load_and_none() -> None:
    """On a card that is run by its thread: all frames of a burst at full speed pass, then nobody works."""
    with (
        ixy.open("sim:pw1,gen=60,count=20000", link_timeout=0) as source,
        ixy.open("sim:pw2,sink=pw1", link_timeout=0) as target,
    ):
        path = ixy.Path(source.rx[0], target.tx[0])
        while path.counts.forwarded < 20_000:
            path.run(wait=60)
        path.run(wait=0.1)
        before = time.process_time()
        for _ in range(5):
            assert path.run(wait=0.1) == 0
        assert time.process_time() - before < 0.15
