"""Machines whose cards move only when the test says so, and a check that nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from lab import memory_files

from ixy.sim.machine import Machine


@pytest.fixture
def machine() -> Machine:
    """A machine that is stepped."""
    return Machine(stepped=True)


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Every test closes its devices and pools; then no memory and no thread is left."""
    files, threads = memory_files(), set(threading.enumerate())
    yield
    assert memory_files() == files
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)  # one that was told to end may need a moment
        assert not thread.is_alive()
