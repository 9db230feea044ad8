"""What exists once in a process."""

from __future__ import annotations

import threading

import pytest

from ixy.once import once


def test_threads_that_ask_at_once_get_the_same() -> None:
    """The first is still at work when seven more ask: it is made once, and all have it."""
    made: list[object] = []
    started, all_there = threading.Event(), threading.Event()

    @once
    def thing() -> object:
        started.set()
        all_there.wait(60)
        made.append(object())
        return made[-1]

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(thing())) for _ in range(8)]
    threads[0].start()
    assert started.wait(60)
    for thread in threads[1:]:
        thread.start()
    all_there.set()
    for thread in threads:
        thread.join()
    assert found == made * 8


def test_after_a_failure_it_is_tried_again() -> None:
    attempts: list[int] = []

    @once
    def thing() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError
        return len(attempts)

    with pytest.raises(OSError):  # noqa: PT011 - the one above
        thing()
    assert thing() == thing() == 2
