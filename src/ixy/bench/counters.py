"""Clocks that kernels read: the time-stamp counter, and the processor's counters of events, such as instructions."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.errors import Error
from ixy.jit import compiled
from ixy.unsafe import open_counter, read_file, ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Kinds and events of linux/perf_event.h
INSTRUCTIONS = 0, 1
PAGE_FAULTS = 1, 2


class Counter(NamedTuple):
    """What a clock is read from.

    Attributes:
        fd: of a counter; -1 for none.
        bytes: for what was read, shape (8,), uint8; `word` is the same as int64.
    """

    fd: int
    bytes: NDArray[np.uint8]
    word: NDArray[np.int64]


Clock = Callable[[Counter], int]  # a kernel


def no_counter() -> Counter:
    """For a clock that reads none."""
    return _counter(-1)


@contextmanager
def counter(kind: int, event: int) -> Generator[Counter]:
    """A counter of what this thread does in user mode.

    Raises:
        Error: there is none here, or the kernel refuses.
    """
    try:
        fd = open_counter(kind, event)
    except OSError as error:
        raise Error(f"perf_event_open: {error.strerror}; {_advice(error)}") from None
    try:
        yield _counter(fd)
    finally:
        os.close(fd)


def _advice(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "run as root, or set /proc/sys/kernel/perf_event_paranoid to 2 or less"
    return "this processor, or virtual machine, lets nobody have such a counter"


def _counter(fd: int) -> Counter:
    word = np.zeros(1, np.int64)
    return Counter(fd, word.view(np.uint8), word)


@compiled
def read_ticks(_counter: Any) -> int:
    """The clock that `unsafe.ticks` is."""
    return ticks()


@compiled
def read_counter(counter: Any) -> int:
    """The clock that a counter is: a system call, of which what the kernel does is not counted."""
    read_file(counter.fd, counter.bytes, 0, 8)
    return counter.word[0]
