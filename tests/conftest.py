"""Everything here passes compiled and, in the plain interpreter, with `IXY_JIT=0`; both with `IXY_CHECK=1` too."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from ixy.jit import CHECKING, INTERPRETED

# A child that a test forks is not traced: coverage has a lock, which a thread of the parent may hold just then.
os.register_at_fork(after_in_child=partial(sys.settrace, None))
os.register_at_fork(after_in_child=partial(threading.settrace, None))  # type: ignore[arg-type]

# A shell that starts the tests in the background has them ignore SIGINT, and the programs that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a compiled kernel compiles it, so an example has no deadline.
settings.register_profile(
    "ixy",
    deadline=None,
    max_examples=25 if INTERPRETED else 100,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ixy")


class _Records(logging.Handler):
    """A log in a list."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=CHECKING)
def no_violations() -> Iterator[None]:
    """In the checking mode, what could only be logged fails the test too."""
    records, log = _Records(), logging.getLogger("ixy.packets")
    log.addHandler(records)
    yield
    log.removeHandler(records)
    assert records.messages == []


@pytest.fixture(scope="session")
def scaled() -> Callable[..., int]:
    """A number of packets for compiled kernels, brought down for interpreted ones: by default to a hundredth."""

    def scale(count: int, divisor: int = 100) -> int:
        return max(count // divisor, 1) if INTERPRETED else count

    return scale
