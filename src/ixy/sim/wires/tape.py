"""The tape: memory that holds frames on their way into simulated cards and out of them, one slot a card."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Generator
from contextlib import contextmanager

from ixy.errors import MemoryUnavailable
from ixy.once import once
from ixy.packets.dma import HUGE_PAGE
from ixy.sim.rack import CARDS, PAGE, SLOT
from ixy.unsafe import Window

WORD = 8  # bytes

_mapping = threading.RLock()  # the collector may end a block of `mapped` while another one begins


def _forget_lock() -> None:
    global _mapping
    _mapping = threading.RLock()  # a thread that does not exist in this child may hold the other one


os.register_at_fork(after_in_child=_forget_lock)


class Tape(Window):
    """The tape, and who has mapped what of it."""

    def __init__(self) -> None:
        super().__init__(CARDS * SLOT, HUGE_PAGE)
        self._owners: dict[int, tuple[int, object]] = {}  # by where it starts: its size, and who has it

    def own(self, start: int, size: int, fd: int, owner: object) -> None:
        """Map a file at `start`, in the place of what is there."""
        with _mapping:
            self._drop(start)
            self._owners[start] = size, owner
            self.map(start, size, fd)

    def disown(self, start: int, owner: object) -> None:
        """Unmap what is at `start`, if it is still this owner's."""
        with _mapping:
            if start in self._owners and self._owners[start][1] is owner:
                self._drop(start)

    def _drop(self, start: int) -> None:
        size, _ = self._owners.pop(start, (0, None))
        if size:
            self.unmap(start, size)


@once
def tape() -> Tape:
    """The tape of this process, reserved when it is first needed."""
    return Tape()


@contextmanager
def mapped(start: int, size: int) -> Generator[None]:
    """Put memory at `start` of the tape, for `size` bytes or some more.

    Where an exception came at the wrong moment, the block ends when the collector finds it. Another card may have the
    place by then, and keeps it.

    Raises:
        MemoryUnavailable: the system gives none.
    """
    whole, own, owner = -(-size // PAGE) * PAGE, tape(), object()
    fd = os.memfd_create("ixy-tape", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, whole)
        own.own(start, whole, fd, owner)
    except OSError as error:
        raise MemoryUnavailable(f"no {whole} bytes of memory for a simulated card: {_reason(error)}") from None
    finally:
        os.close(fd)
    try:
        yield
    finally:
        own.disown(start, owner)


def _reason(error: OSError) -> str:
    """What is in the way. The limit on the size of files counts for memory that a file stands behind, too."""
    if error.errno == errno.EFBIG:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return f"files are limited to {limit} bytes; raise the limit (ulimit -f)"
    return error.strerror or str(error)
