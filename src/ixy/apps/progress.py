"""What is compiled and how far it is, on standard error. Importing this module costs nothing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ixy.compiling import watched

log = logging.getLogger("ixy.apps")

_AFTER = 1.0  # seconds; what is done before nobody waits for
_COMPILING = "compiling the data path, which takes some time once"
_WIDTH = 30  # characters of the bar
_ERASE = "\r\x1b[K"


class Progress:
    """A bar where standard error is a terminal, else one line, if compiling takes longer than a second.

    Args:
        quiet: asked before anything is shown, whether it is not to be.
    """

    def __init__(self, quiet: Callable[[], bool]) -> None:
        self._quiet = quiet
        self._begun: float | None = None
        self._said = self._drawn = False

    def __call__(self, entry: str, done: int, total: int) -> None:
        """Show that `done` of `total` kernels of an entry are compiled."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        if now - self._begun < _AFTER or self._quiet():
            return
        if sys.stderr.isatty():
            self._draw(entry, done, total)
        elif not self._said:
            self._said = True
            log.warning(_COMPILING)

    def _draw(self, entry: str, done: int, total: int) -> None:
        filled = _WIDTH * done // total
        bar = "#" * filled + "." * (_WIDTH - filled)
        text = "" if done == total else f"\rixy: compiling [{bar}] {100 * done // total:3} % of {entry}\x1b[K"
        if text or self._drawn:
            sys.stderr.write(text or _ERASE)
            sys.stderr.flush()
        self._drawn = bool(text)

    def erase(self) -> None:
        """Take the bar away, where compiling has been interrupted."""
        if self._drawn:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
        self._drawn = False


@contextmanager
def shown(quiet: Callable[[], bool] = lambda: False) -> Generator[None]:
    """Within the block it is shown what is compiled."""
    progress = Progress(quiet)
    try:
        with watched(progress):
            yield
    finally:
        progress.erase()
