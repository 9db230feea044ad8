"""How a front end tells that it has sent something: by a file of its own, which comes and goes with it."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ixy.drivers.interrupts import EventFile

if TYPE_CHECKING:
    from ixy.drivers.vhost.rings import VhostRxRing


_UNREAD = 4096  # bytes, where the file is a pipe


class KickInterrupt:
    """See `ixy.drivers.RxInterrupt`.

    The front end's file is not trusted: whatever it does to it, nobody waits when it is read.

    Attributes:
        fd: an epoll(7) of that file and of one of our own.
    """

    once = False

    def __init__(self, ring: VhostRxRing) -> None:
        self._ring = ring
        self._kick = -1
        self._turn = threading.Lock()  # of who reads that file and who takes another one
        self._own = EventFile(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._both = select.epoll()
        self._both.register(self._own.fd, select.EPOLLIN)
        self.fd = self._both.fileno()

    def watch(self, kick: int) -> None:
        """Take this file for the front end's from now on, -1 for none, and ring: who waits is to arm anew.

        Raises:
            OSError: it is a file that nobody can wait for.
        """
        with self._turn:
            if self._kick >= 0:
                self._both.unregister(self._kick)
                self._kick = -1
            if kick >= 0:
                self._both.register(kick, select.EPOLLIN)
                self._kick = kick
        self.wake()

    def arm(self) -> None:
        self._ring.want_kicks(True)

    def disarm(self) -> None:
        self._ring.want_kicks(False)

    def pace(self, seconds: float) -> None:
        """A front end has no way to be told."""

    def clear(self) -> None:
        """Forget the kicks so far."""
        with self._turn, suppress(OSError):
            if self._kick >= 0:
                os.preadv(self._kick, [bytearray(_UNREAD)], -1, os.RWF_NOWAIT)
        self._own.clear()

    def wake(self) -> None:
        self._own.wake()

    def close(self) -> None:
        self._both.close()
        os.close(self._own.fd)
