"""SIGINT and SIGTERM: the first of them ends a command, wherever it is. Importing this module costs nothing."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

    from ixy.apps.settings import Settings

_PATIENCE = 2.0  # seconds that a loop has to look whether it is to stop
_AGAIN = 0.01  # seconds after which an exception that was lost is raised once more


class Stop:
    """Whether a signal has asked the run to end.

    While something is prepared (devices opened, code compiled, a lock awaited) a signal raises `SystemExit`. In the
    loop of a run it sets this flag, so that the run ends with a summary. A loop that does not look at the flag sits in
    a call that waits for somebody, such as the reader of a pipe, and is ended by the exception all the same. Whoever
    sends a second signal does not want to wait for a clean end.

    Python runs a handler between two of its own steps. A signal that comes right before a call that waits, or in
    another thread, would be seen when the call returns; so a timer interrupts the calls of a loop every now and then.

    Attributes:
        signal: its number, None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._running = False
        self._held = False
        self._due = 0.0  # when the loop should have looked

    def __bool__(self) -> bool:
        return self.signal is not None

    def exit_code(self, settings: Settings) -> int:
        """What the command returns: a stop is the normal end of a run without limits, as it is for tcpdump."""
        return 128 + self.signal if self.signal is not None and settings.limited else 0

    @contextmanager
    def looked_at(self) -> Generator[None, None, None]:
        """From here on a signal sets the flag, and what is in this block looks at it all the time."""
        self._running = True
        handled = signal.getsignal(signal.SIGALRM) == self.handle
        try:
            if handled:
                signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE)
            yield
        finally:
            if handled:
                signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """A signal that comes in this block is raised at its end: what is begun in it is known then, and can be ended.

        Raises:
            SystemExit: there was one.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The handler of SIGINT and SIGTERM, and of SIGALRM, which is sent to a loop that does not look."""
        first = self.signal is None
        if self.signal is None:
            if number == signal.SIGALRM:
                return
            self.signal = number
        if self._held or (number == signal.SIGALRM and time.monotonic() < self._due):
            return  # a timer that was due with the first signal says nothing yet
        if not (first and self._running):
            raise SystemExit(128 + self.signal)
        self._due = time.monotonic() + 0.9 * _PATIENCE
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE)

    def lost(self, what: UnraisableHookArgs) -> None:
        """The hook for exceptions that cannot be raised, as in `__del__` or where LLVM calls Python."""
        if self and isinstance(what.exc_value, SystemExit):
            self._due = 0.0
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            sys.__unraisablehook__(what)


@contextmanager
def stop_on_signals() -> Generator[Stop, None, None]:
    """Let SIGINT and SIGTERM end what is in this block. Python hands signals to its main thread only."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    hook, sys.unraisablehook = sys.unraisablehook, stop.lost
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
