"""Two paths of which the second cannot be run: it says why, and the first one's queues stay free."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from lab import open_card, run_by_another_thread

from ixy import path as paths
from ixy.device import Device
from ixy.errors import Error, OwnershipError
from ixy.packets.pool import claim, pools, release
from ixy.path import Path, _enter
from ixy.sim.machine import Machine


@pytest.fixture
def devices(machine: Machine) -> Iterator[list[Device]]:
    with ExitStack() as cards:
        yield [cards.enter_context(open_card(machine, address)) for address in ("sim:a", "sim:b", "sim:c")]


def check_first_is_free(devices: list[Device]) -> None:
    a, b, _ = devices
    assert len(a.rx[0].receive(1)) == 0
    with a.rx[0].pool.allocate(1) as batch:
        assert b.tx[0].send(batch) == 1


@pytest.mark.parametrize("taken", ["rx", "tx"])
def test_queues_in_use(devices: list[Device], taken: str) -> None:
    a, b, c = devices
    there, back = Path(a.rx[0], b.tx[0]), Path(b.rx[0], a.tx[0])
    other, name = (Path(b.rx[0], c.tx[0]), "sim:b rx") if taken == "rx" else (Path(c.rx[0], a.tx[0]), "sim:a tx")
    with run_by_another_thread(other):
        with pytest.raises(OwnershipError, match=rf"^{name}\[0\] is in use by another thread"):
            paths.run([there, back], 1)
        check_first_is_free(devices)
    assert paths.run([there, back], 1) == 0


def test_its_pool_in_use(devices: list[Device]) -> None:
    a, b, _ = devices
    there, back = Path(a.rx[0], b.tx[0]), Path(b.rx[0], a.tx[0])
    words, pool = pools().words, b.rx[0].pool.number
    thread = threading.Thread(target=lambda: claim(words, pool))
    thread.start()
    thread.join()
    with pytest.raises(OwnershipError, match=r"^the pool of sim:b rx\[0\] is in use by another thread"):
        paths.run([there, back], 1)
    check_first_is_free(devices)
    release(words, pool)
    assert paths.run([there, back], 1) == 0


def test_a_closing_device(devices: list[Device]) -> None:
    a, b, c = devices
    there, back = Path(a.rx[0], b.tx[0]), Path(b.rx[0], c.tx[0])
    back._stop()
    with pytest.raises(Error, match=r"^sim:b or sim:c is being closed"):
        paths.run([there, back], 1)
    check_first_is_free(devices)
    assert len(b.rx[0].receive(1)) == 0


def test_what_an_interrupt_has_left_behind(devices: list[Device]) -> None:
    """This thread still has the second path's queues, from a run that was ended: after the next one they are free."""
    a, b, _ = devices
    there, back = Path(a.rx[0], b.tx[0]), Path(b.rx[0], a.tx[0])
    assert _enter(back.state) == 0
    assert paths.run([there, back], 1) == 0
    with run_by_another_thread(back):
        pass
