"""What a process has once, however many threads ask for it at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """A decorator: the function runs at the first call, and every call returns what it made.

    `functools.cache` lets threads that call at the same time each make their own. If the function raises, the next call
    tries again. A forked child has none of what its parent made, and makes its own.
    """
    lock = threading.RLock()
    made: list[T] = []

    @wraps(make)
    def get() -> T:
        if made:
            return made[0]
        with lock:
            if not made:
                made.append(make())
            return made[0]

    def forget() -> None:
        nonlocal lock
        lock = threading.RLock()  # a thread that does not exist here may hold the other one
        made.clear()

    os.register_at_fork(after_in_child=forget)
    return get
