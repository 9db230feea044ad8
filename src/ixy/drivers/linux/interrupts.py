"""How a socket tells that packets have come: it is readable as long as there are some."""

from __future__ import annotations

import os
import select
import socket

from ixy.drivers.interrupts import EventFile


class SocketInterrupt:
    """See `ixy.drivers.RxInterrupt`. There is nothing to be armed.

    Attributes:
        fd: an epoll(7) of the socket and of a file of our own. It does not keep the socket open.
    """

    once = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._own = EventFile(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._both = select.epoll()
        for fd in (sock.fileno(), self._own.fd):
            self._both.register(fd, select.EPOLLIN)
        self.fd = self._both.fileno()

    def arm(self) -> None:
        """It rings all by itself."""

    def disarm(self) -> None:
        """Nobody listens."""

    def pace(self, seconds: float) -> None:
        """The kernel tells of each packet."""

    def clear(self) -> None:
        """Forget what has rung besides packets: `wake`, and that the interface went down."""
        self._own.clear()
        self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def wake(self) -> None:
        self._own.wake()

    def close(self) -> None:
        self._both.close()
        os.close(self._own.fd)
