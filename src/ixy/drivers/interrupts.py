"""Files by which devices interrupt."""

from __future__ import annotations

import os
import select
from contextlib import suppress


class EventFile:
    """An eventfd(2) in which a bus counts a device's interrupts.

    Attributes:
        fd: readable after an interrupt, until `clear`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def clear(self) -> None:
        """Forget the interrupts so far."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def wake(self) -> None:
        """Make `fd` readable, whatever the device does."""
        os.eventfd_write(self.fd, 1)


class SharedEventFile:
    """An eventfd(2) that another process writes, which is not trusted: it may fill the counter, or make the descriptor
    a blocking one, for both sides. So it is read without waiting whatever it says, and never written.

    Attributes:
        fd: as of an `EventFile`: an epoll(7) of this one and one of our own.
    """

    def __init__(self, shared: int) -> None:
        self._shared = shared
        self._own = EventFile(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._both = select.epoll()
        for fd in (shared, self._own.fd):
            self._both.register(fd, select.EPOLLIN)
        self.fd = self._both.fileno()

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.preadv(self._shared, [bytearray(8)], -1, os.RWF_NOWAIT)
        self._own.clear()

    def wake(self) -> None:
        self._own.wake()

    def close(self) -> None:
        self._both.close()
        os.close(self._own.fd)
