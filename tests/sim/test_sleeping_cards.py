"""The thread that runs the cards sleeps while somebody waits and nothing is due. Here it sleeps for ever, if nobody and
nothing wakes it: so each of these would hang if what should wake it did not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

import ixy
from ixy.counts import BED
from ixy.device import Device
from ixy.sim import machine as machines
from ixy.sim.machine import Machine
from ixy.sim.rack import ASLEEP

FOR_EVER = 3600.0


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(machines, "_SHORTEST_SLEEP", FOR_EVER)
    monkeypatch.setattr(machines, "_LONGEST_SLEEP", FOR_EVER)
    return Machine()


@contextmanager
def waiting(device: Device, machine: Machine) -> Generator[None]:
    """Another thread waits for a packet, and the cards sleep; after the block it has one."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(device.rx[0].receive(timeout=FOR_EVER))))
    thread.start()
    while not machine.rack.control[ASLEEP]:
        time.sleep(0.001)
    yield
    thread.join()
    assert found == [1]


def test_a_doorbell_wakes_them(machine: Machine) -> None:
    with ixy.open("sim:a,cable=b", sim=machine) as a, ixy.open("sim:b", sim=machine) as b:
        for _ in range(3):
            with waiting(a, machine), b.rx[0].pool.allocate(1, 60) as batch:
                assert b.tx[0].send(batch) == 1


def test_a_doorbell_of_a_loop_wakes_them(machine: Machine) -> None:
    """A worker, in one call of its loop all the time, is handed packets by a ring, which rouses nobody."""
    with (
        ixy.open("sim:a,cable=b", sim=machine) as a,
        ixy.open("sim:b", sim=machine) as b,
        ixy.Ring() as ring,
        ixy.Workers([ixy.Path(ring.rx, b.tx[0])]),
    ):
        for _ in range(3):
            with waiting(a, machine), b.rx[0].pool.allocate(1, 60) as batch:
                assert ring.tx.send(batch) == 1


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_doorbell_of_the_last_poll_wakes_them(machine: Machine, outputs: int) -> None:
    """The loop ends with it, so that the loop itself has not looked again."""
    with (
        ixy.open("sim:a,cable=b", sim=machine) as a,
        ixy.open("sim:b", sim=machine, tx_queues=2) as b,
        ixy.Ring() as ring,
    ):
        path = ixy.Path(ring.rx, b.tx[0] if outputs == 1 else b.tx)
        for _ in range(3):
            with waiting(a, machine), b.rx[0].pool.allocate(1, 60) as batch:
                assert ring.tx.send(batch) == 1
                assert path.run(1) == 1


def test_a_loop_rouses_once(machine: Machine) -> None:
    """Cards that are awake are left alone: the words by which a path knows are as they were."""
    with (
        ixy.open("sim:a,cable=b", sim=machine) as a,
        ixy.open("sim:b", sim=machine) as b,
        ixy.Ring() as ring,
        b.rx[0].pool.allocate(1, 60) as first,
        b.rx[0].pool.allocate(1, 60) as second,
    ):
        path = ixy.Path(ring.rx, b.tx[0])
        with waiting(a, machine):
            while not path.state.counts[BED]:
                time.sleep(0.001)
            ring.tx.send(first)
            assert path.run(2) == 1
            assert path.state.counts[BED] == 0
        ring.tx.send(second)
        assert path.run(2) == 1


def test_a_frame_that_is_due_wakes_them(machine: Machine) -> None:
    """A frame comes every 200 ms; the first is there, and makes the clock start."""
    with ixy.open("sim:a,gen=60,rate=5,count=4", sim=machine) as device:
        assert sum(len(device.rx[0].receive(timeout=FOR_EVER)) for _ in range(4)) == 4


def test_a_register_wakes_them(machine: Machine) -> None:
    """A write has taken full effect when it returns."""
    with ixy.open("sim:a,cable=b", sim=machine) as a, ixy.open("sim:b", sim=machine) as b:
        with waiting(a, machine):
            a.set_promiscuous(False)
            a.set_promiscuous(True)
            b.tx[0].send(b.rx[0].pool.allocate(1, 60))
        assert a.stats().rx_packets == 1


def test_a_card_that_is_plugged_in_wakes_them(machine: Machine) -> None:
    with ixy.open("sim:a,cable=b", sim=machine) as a, waiting(a, machine), ixy.open("sim:b", sim=machine) as b:
        b.tx[0].send(b.rx[0].pool.allocate(1, 60))
        while not a.stats().rx_packets:
            time.sleep(0.001)


def test_an_interrupt_that_was_held_back_comes(machine: Machine) -> None:
    """The card keeps quiet for a millisecond after each; the packets follow each other sooner."""
    with ixy.open("sim:a,cable=b", sim=machine) as a, ixy.open("sim:b", sim=machine) as b:
        queue = a.rx[0]
        queue.bell().pace(0.001)
        for _ in range(20):
            b.tx[0].send(b.rx[0].pool.allocate(1, 60))
            assert queue.wait(FOR_EVER)
            assert len(queue.receive()) == 1


def test_closing_wakes_them(machine: Machine) -> None:
    """Both devices are closed while the thread sleeps, which ends with the last."""
    with ixy.open("sim:a", sim=machine) as device:
        assert not device.rx[0].wait(0.05)
        device.rx[0].fileno()
        while not machine.rack.control[ASLEEP]:
            time.sleep(0.001)
    assert machine._thread is None


@pytest.mark.skipif(os.geteuid() != 0, reason="TAP devices need root")
def test_the_kernel_wakes_them(machine: Machine) -> None:
    """What is sent to a TAP device arrives."""
    name = f"ixysleep{os.getpid() % 100_000}"
    with ixy.open(f"sim:a,tap={name}", sim=machine) as device, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name, 0))
        while device.rx[0].wait(0.2):  # what Linux says by itself to a new interface
            device.rx[0].receive().free()
        data = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46)
        threading.Timer(0.1, raw.send, [data]).start()
        while data not in [bytes(packet) for packet in device.rx[0].receive(timeout=FOR_EVER)]:
            pass
