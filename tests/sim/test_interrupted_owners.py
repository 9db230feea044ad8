"""What interrupts, odd moments of the collector and wrong arguments leave of devices, pools and paths: nothing."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from lab import arrive, frame, memory_files, open_card, run_by_another_thread

import ixy
from ixy import path as paths
from ixy.counts import HELD
from ixy.errors import Error, OwnershipError
from ixy.packets.buffers import POOLS
from ixy.packets.mempool import Mempool
from ixy.sim.machine import Machine

RING, POOL = 64, 256


def test_refused_run_names_the_queue(machine: Machine) -> None:
    """Of two paths the second one's receive queue is in use, then the first one's transmit queue: it is named, and the
    queue that was free stays so."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as a, open_card(machine, "sim:b") as b:
        there, back = ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0])
        with run_by_another_thread(ixy.Path(b.rx[0], b.tx[0])):
            with pytest.raises(OwnershipError, match=r"^sim:b rx\[0\] is in use"):
                paths.run([back, there], 1)
            with pytest.raises(OwnershipError, match=r"^sim:b tx\[0\] is in use"):
                paths.run([there, back], 1)
            assert len(a.rx[0].receive(1)) == 0
        assert paths.run([there, back], 1) == 0


def test_interrupt_of_a_run_that_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler raises in a thread that only tried to run a path: the packets at hand are another thread's."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        path = ixy.Path(device.rx[0], device.tx[0], batch=8)
        _, recover = path._loop_with(path)
        monkeypatch.setattr(path, "_loop_with", lambda _: (interrupted, recover))
        with run_by_another_thread(path):
            path.state.counts[HELD] = 3
            with pytest.raises(KeyboardInterrupt):
                path.run(1)
            assert path.state.counts[HELD] == 3
            with pytest.raises(OwnershipError):
                device.rx[0].receive(1)
            path.state.counts[HELD] = 0
        assert device.rx[0].pool.available + RING == POOL


def test_path_of_a_closing_device(machine: Machine) -> None:
    """What tells a path to end is heard, even if another path of the same queue has run meanwhile."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as a, open_card(machine, "sim:b") as b:
        closing, other = ixy.Path(a.rx[0], b.tx[0]), ixy.Path(a.rx[0], a.tx[0])
        arrive(machine, frame())
        closing._stop()
        assert other.run(2) == 1
        with pytest.raises(Error, match="sim:a or sim:b is being closed"):
            closing.run(1)
        assert other.run(1) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Interrupts


UNRAISABLE = "ignore::pytest.PytestUnraisableExceptionWarning"  # an interrupt of `__del__` is told so


class Interrupt(BaseException):
    """What a signal's handler raises."""


def interrupted_after(function: Callable[[], object], events: int) -> int:
    """Call a function that is interrupted after so many calls and returns, of C functions too; how many were left."""
    left = events

    def hook(_frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        if event == "c_call" and argument.__name__ == "__exit__":
            return  # of a lock, before which no signal is looked at
        left -= 1
        if left == 0:
            raise Interrupt

    sys.setprofile(hook)
    try:
        function()
    except Interrupt:
        pass
    finally:
        sys.setprofile(None)
    return left


@pytest.mark.filterwarnings(UNRAISABLE)
def test_opening_and_closing_interrupted(machine: Machine) -> None:
    """At random places: the card can be opened again at once, and in the end nothing is left."""
    files = memory_files()

    def open_and_close() -> None:
        with open_card(machine, ring_size=RING, pool_size=POOL):
            pass

    open_and_close()
    many = 1_000_000
    events = many - interrupted_after(open_and_close, many)
    for place in random.Random(1).sample(range(1, events), 30):
        interrupted_after(open_and_close, place)
        gc.collect()
        open_and_close()
        assert memory_files() == files
        assert not machine.cards
        assert not machine.rack.allowed.any()


@pytest.mark.filterwarnings(UNRAISABLE)
def test_memory_interrupted() -> None:
    """Making and releasing a pool, interrupted after each call and return: its file is closed, its number free."""
    files = memory_files()

    def make_and_release() -> None:
        with Mempool(10):
            pass

    make_and_release()
    events = 1_000 - interrupted_after(make_and_release, 1_000)
    for place in range(1, events):
        interrupted_after(make_and_release, place)
        assert memory_files() == files
    pools = [Mempool(1) for _ in range(POOLS)]
    assert len({pool.number for pool in pools}) == POOLS
    for pool in pools:
        pool.release()


# ---------------------------------------------------------------------------------------------------------------------
# Devices that nobody has


def collect_elsewhere() -> None:
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join(60)
    assert not collector.is_alive()


def test_device_collected_by_a_thread_that_others_wait_for(machine: Machine) -> None:
    """Closing it would wait for the thread that waits: it is closed, a little later, and there is a warning."""
    with open_card(machine, "sim:b"):
        gc.disable()
        try:
            open_card(machine, ring_size=RING, pool_size=POOL)
            with machine.paused(), pytest.warns(ResourceWarning, match="<Device sim:a .* was never closed"):
                collect_elsewhere()
        finally:
            gc.enable()
        for thread in threading.enumerate():
            if thread.name == "ixy-close":
                thread.join(60)
        assert list(machine.cards) == ["b"]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_device_dropped_after_an_interrupted_close(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing goes on when the device goes; its program did close it, so there is no warning."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    device = open_card(machine, ring_size=RING, pool_size=POOL)
    with monkeypatch.context() as patch:
        patch.setattr(device._driver, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            device.close()
    del device
    gc.collect()
    assert not machine.cards


# ---------------------------------------------------------------------------------------------------------------------
# Arguments of wrong types


@pytest.mark.parametrize("wrong", [None, "yes", 1.0, 2, -1, b"", object(), np.int64(2)])
def test_switches_are_true_or_false(machine: Machine, wrong: Any) -> None:
    """Anything else is a TypeError, and changes nothing."""
    with open_card(machine) as device:
        calls: list[Callable[[Any], object]] = [
            device.set_promiscuous,
            lambda value: device.set_vlan_filter(1, value),
            lambda value: ixy.open("sim:b", sim=machine, force=value),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="must be True or False"):
                call(wrong)
        for right in (True, False, 1, 0, np.bool_(True)):
            device.set_promiscuous(right)
        assert list(machine.cards) == ["a"]


@pytest.mark.parametrize("wrong", [None, 3, "pool", b"x", 1.5, object()])
def test_other_things_than_pools_paths_and_machines(machine: Machine, wrong: Any) -> None:
    with open_card(machine) as device:
        with pytest.raises(TypeError, match="Mempool"):
            device.attach(wrong)
        with pytest.raises(TypeError, match="paths are run"):
            paths.run([wrong], 1)
        if wrong is not None:
            with pytest.raises(TypeError, match="Machine"):
                ixy.open("sim:b", sim=wrong)
