"""What a path does while nothing comes."""

from __future__ import annotations

import pytest
from lab import arrive, depart, frame, open_card

from ixy import path as paths
from ixy.jit import INTERPRETED
from ixy.path import Path, yield_when_idle
from ixy.sim.machine import Machine


def test_polls_in_vain_are_counted() -> None:
    """In a row; anything that comes ends that."""
    assert [yield_when_idle(0, idle) for idle in (0, 1, 254, 255, 256, 511)] == [1, 2, 255, 256, 257, 512]
    assert [yield_when_idle(count, 255) for count in (1, 2, 64)] == [0, 0, 0]


def test_the_processor_is_yielded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in 256 polls in vain; with packets all the time, never. Compiled, nobody can look."""
    naps: list[int] = []
    with open_card(machine) as device, open_card(machine, "sim:b") as other:
        path, back = Path(device.rx[0], device.tx[0]), Path(other.rx[0], other.tx[0])
        path.run(0)  # both loops are compiled before: with a function of Python's they could not be
        paths.run([path, back], 0)
        monkeypatch.setattr(paths, "nap", naps.append)
        path.run(1024)
        assert naps == ([0] * 4 if INTERPRETED else [])
        naps.clear()
        paths.run([path, back], 1024)
        assert naps == ([0] * 4 if INTERPRETED else [])
        naps.clear()
        for number in range(512):
            arrive(machine, frame(number), "a" if number % 2 else "b")
        assert paths.run([path, back], 256) == 512
        depart(machine)
        assert naps == []


def test_a_run_is_long_unless_told(machine: Machine) -> None:
    """63 packets come one by one, and are all forwarded in one run."""
    with open_card(machine, ring_size=64, pool_size=128) as device:
        path = Path(device.rx[0], device.tx[0], batch=1)
        for number in range(63):
            arrive(machine, frame(number))
        assert path.run() == 63
