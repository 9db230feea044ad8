"""What a process has once, however many threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """A decorator: the function runs at the first call, and every call returns what it made.

    `functools.cache` alone lets threads that call at the same time each make their own. If the function raises, the
    next call tries again.
    """
    lock = threading.RLock()
    made: list[T] = []

    @cache
    @wraps(make)
    def get() -> T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get
