"""The clock by which devices work and programs wait for them: the system's, or a virtual one.

By the system's clock a device works by itself, meanwhile. A virtual clock is that of simulated cards (`clock=virtual`):
a number of nanoseconds, which stands still but in what is here. All is done by one thread, so all happens in the same
order and at the same moments, however fast the computer is.

- A poll takes `POLL`: each call of `receive` and `send`, each turn of a path. The cards work meanwhile, each frame at
  its own moment; then the program has its look.
- Who waits lets the clock go on to what happens next, until there is something to wake for, or the time is up.
- Whatever else a program does takes no time.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ixy.errors import ConfigurationError, OwnershipError

START = 1_000_000_000  # ns: what it says at first; for stamps with a date, since 1970
POLL = 1000  # ns
LOOK_AGAIN = 0.001  # seconds between two looks of who has nothing else to go by

WORDS = np.zeros(8, np.int64)  # the first is what a virtual clock says, 0 where there is none; see `unsafe.now_ns`


class Cards(Protocol):
    """What goes by a virtual clock."""

    def advance(self, end: int | None, woken: Callable[[], bool] | None = None) -> int:
        """Work until the clock says `end`, or as long as there is something to do; how much was done.

        Args:
            woken: work no longer if that is so; it is asked after each interrupt.
        """
        ...

    def following(self) -> int | None:
        """When something happens next, if nobody does anything; None for never."""
        ...


class _Virtual:
    """The virtual clock of this process.

    Attributes:
        cards: that go by it; None if there is none.
        thread: that did the first poll, and does everything.
    """

    cards: Cards | None = None
    thread: int | None = None


_virtual = _Virtual()


def start(cards: Cards) -> None:
    """Let the clock be virtual, and begin, unless it has begun.

    Raises:
        ConfigurationError: others go by one.
    """
    if _virtual.cards not in (None, cards):
        raise ConfigurationError("the cards of another machine have a virtual clock, and a process has one: close them")
    if _virtual.cards is None:
        _virtual.cards, _virtual.thread = cards, None
        WORDS[0] = START


def stop(cards: Cards) -> None:
    """The clock is the system's again, if these cards had a virtual one."""
    if _virtual.cards is cards:
        _forget()


def _forget() -> None:
    _virtual.cards = None
    WORDS[0] = 0


os.register_at_fork(after_in_child=_forget)


def is_virtual() -> bool:
    """Whether the clock is virtual."""
    return _virtual.cards is not None


def _ours() -> Cards:
    """The cards that go by the virtual clock.

    Raises:
        OwnershipError: another thread lets the clock go on.
    """
    cards, thread = _virtual.cards, threading.get_ident()
    assert cards is not None
    if _virtual.thread is None:
        _virtual.thread = thread
    if _virtual.thread != thread:
        raise OwnershipError("with clock=virtual one thread does all, and this is another: leave it to the first")
    return cards


# ---------------------------------------------------------------------------------------------------------------------
# What it says


def monotonic_ns() -> int:
    """The time in nanoseconds: by the system's clock as `time.monotonic_ns`."""
    return int(WORDS[0]) or time.monotonic_ns()


def monotonic() -> float:
    """The same in seconds."""
    return monotonic_ns() / 1e9


def date_ns() -> int:
    """The time for stamps, in nanoseconds since 1970: by the system's clock as `time.time_ns`."""
    return int(WORDS[0]) or time.time_ns()


# ---------------------------------------------------------------------------------------------------------------------
# Polls


def tick(due: int | None = None) -> int:
    """A poll begins. By a virtual clock its time passes, in which cards work; how much they did.

    Args:
        due: when there is something to do besides: if that is earlier, the poll takes no longer.

    Raises:
        OwnershipError: the clock is virtual, and another thread's.
    """
    if _virtual.cards is None:
        return 0
    now = monotonic_ns()
    return _ours().advance(due if due is not None and now < due < now + POLL else now + POLL)


def settle() -> None:
    """By a virtual clock, let the cards do what they have to do at this moment."""
    if _virtual.cards is not None:
        _ours().advance(monotonic_ns())


def following() -> int | None:
    """When something happens next by a virtual clock, if nobody does anything: what is to happen now is done first;
    None for never, and by the system's clock."""
    if _virtual.cards is None:
        return None
    settle()
    return _ours().following()


def run_polls(
    poll: Callable[[int], int],
    polls: int,
    *,
    ended: Callable[[], bool] = lambda: False,
    due: Callable[[], int | None] = lambda: None,
) -> int:
    """Poll so many times by `poll(polls)`, which answers how many packets it has handled; how many in all.

    By a virtual clock they are single polls, up to the one after which it has `ended`, or as many as begin in the time
    of so many: what is due between two has one at that moment. Those are left out in which
    nothing can happen: when a poll was in vain, then the cards had nothing to do, and so was the next poll, then all
    are as before, until something is due.

    Args:
        due: when the poll has something to do by itself, None if it goes by the device alone.
    """
    if polls == 0 or _virtual.cards is None:
        return poll(polls)
    handled, before = 0, 1
    end = monotonic_ns() + polls * POLL
    while monotonic_ns() < end and not ended():
        worked = tick(min(due() or end, end))
        count = poll(1)
        handled += count
        if not (worked or count or before):
            _pass_over(end, due())
        before = count
    return handled


def _pass_over(end: int, due: int | None) -> None:
    """Let the time of polls pass in which nothing happens, until `end` at most."""
    now = monotonic_ns()
    polls = (end - now) // POLL
    times = [moment for moment in (_ours().following(), due) if moment is not None and moment > now]
    if times:
        polls = min(polls, (min(times) - now - 1) // POLL)
    WORDS[0] = now + polls * POLL


# ---------------------------------------------------------------------------------------------------------------------
# Waiting


def sleep(seconds: float) -> None:
    """Wait so long."""
    if _virtual.cards is None:
        time.sleep(seconds)
    else:
        _ours().advance(monotonic_ns() + _nanoseconds(seconds))


def listen(files: select.poll, seconds: float) -> bool:
    """Wait until one of the files is readable that are registered, or for so long, rounded up to milliseconds by the
    system's clock; False if neither will ever be.

    Args:
        seconds: `math.inf` for no end.
    """
    endless = seconds == math.inf
    if _virtual.cards is None:
        files.poll(None if endless else math.ceil(seconds * 1000))
        return True
    _ours().advance(None if endless else monotonic_ns() + _nanoseconds(seconds), lambda: bool(files.poll(0)))
    return not endless or bool(files.poll(0))


async def sleep_async(seconds: float) -> None:
    """Let other coroutines have their turns so long."""
    import asyncio  # which takes long to load

    if _virtual.cards is None:
        await asyncio.sleep(seconds)
    else:
        await asyncio.sleep(0)
        sleep(seconds)


async def listen_async(fd: int) -> None:
    """Let other coroutines have their turns until the file is readable. A virtual clock goes on between those."""
    import asyncio  # likewise

    if _virtual.cards is None:
        loop, fd = asyncio.get_running_loop(), os.dup(fd)  # a loop has one reader for each number
        rung = loop.create_future()
        try:
            loop.add_reader(fd, lambda: rung.done() or rung.set_result(None))
            await rung
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return
    files = select.poll()
    files.register(fd, select.POLLIN)
    while not files.poll(0):
        await asyncio.sleep(0)
        following = _ours().following()
        if following is None:
            await asyncio.sleep(LOOK_AGAIN)  # some other coroutine may have something to do
        _ours().advance(following or monotonic_ns(), lambda: bool(files.poll(0)))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
