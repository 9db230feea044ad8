"""The tape: memory that holds frames on their way into simulated cards and out of them, one slot a card."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Generator
from contextlib import contextmanager

from ixy.errors import MemoryUnavailable
from ixy.once import once
from ixy.packets.dma import HUGE_PAGE
from ixy.sim.rack import CARDS, PAGE, SLOT
from ixy.unsafe import Window

WORD = 8  # bytes


@once
def tape() -> Window:
    """The tape of this process, reserved when it is first needed."""
    return Window(CARDS * SLOT, HUGE_PAGE)


@contextmanager
def mapped(start: int, size: int) -> Generator[None]:
    """Put memory at `start` of the tape, for `size` bytes or some more.

    Raises:
        MemoryUnavailable: the system gives none.
    """
    whole, window = -(-size // PAGE) * PAGE, tape()
    fd = os.memfd_create("ixy-tape", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, whole)
        window.map(start, whole, fd)
    except OSError as error:
        raise MemoryUnavailable(f"no {whole} bytes of memory for a simulated card: {_reason(error)}") from None
    finally:
        os.close(fd)
    try:
        yield
    finally:
        window.unmap(start, whole)


def _reason(error: OSError) -> str:
    """What is in the way. The limit on the size of files counts for memory that a file stands behind, too."""
    if error.errno == errno.EFBIG:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return f"files are limited to {limit} bytes; raise the limit (ulimit -f)"
    return error.strerror or str(error)
