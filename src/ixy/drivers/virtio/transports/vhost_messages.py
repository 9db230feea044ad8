"""Messages of the vhost-user protocol, and how a front end sends them.

A message is request, flags and size, 32 bits each, then the payload, all little-endian; file descriptors travel beside
it. Source: the Vhost-user Protocol of QEMU (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from ixy.errors import AddressError, ConfigurationError, PermissionDenied

TIMEOUT = 10.0  # seconds; a back end that has just started has much to do
CLOSING = 3.0  # seconds, for one whose device is to be closed
MAX_REGIONS = 8  # without CONFIGURE_MEM_SLOTS

HEADER = struct.Struct("<III")
VERSION = 1
VERSION_MASK = 3
REPLY = 1 << 2
NEED_REPLY = 1 << 3


class Request(IntEnum):
    """The requests that the front end sends."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18


# In place of device features: that there are protocol features, and that pages are logged as they are written (for
# migration)
PROTOCOL_FEATURES = 30
LOG_ALL = 26

# Protocol features
PROTOCOL_MQ = 1 << 0
PROTOCOL_REPLY_ACK = 1 << 3


class Region(NamedTuple):
    """A piece of shared memory: its address in descriptors, its size, its address in ring addresses, its file."""

    guest: int
    size: int
    user: int
    fd: int


class Connection:
    """A socket to a back end.

    However many messages it takes, the time spent waiting for the back end is counted as one: it has `TIMEOUT` seconds
    from connecting on, and later what `allow` grants. An exchange that fails leaves open what comes next on the socket:
    the connection must be closed.

    Args:
        path: of the socket.
        closing: an eventfd that is readable once the device is to be closed. Nothing may take longer than `CLOSING`
            seconds from then on.

    Attributes:
        acknowledges: the back end answers a request when it is asked to (REPLY_ACK).
        extended: the back end has protocol features, and its rings are to be enabled.

    Raises:
        AddressError: nobody listens there.
        PermissionDenied: the socket is out of this user's reach.
    """

    def __init__(self, path: str, closing: int) -> None:
        self.acknowledges = False
        self.extended = False
        self._left = TIMEOUT
        self._closing = closing
        self._hurried = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
        except PermissionError as error:
            self._socket.close()
            raise PermissionDenied(f"vhost-user:{path}: no permission to open the socket") from error
        except BlockingIOError as error:
            self._socket.close()
            raise AddressError(f"vhost-user:{path}: the back end does not take the connection; restart it") from error
        except OSError as error:
            self._socket.close()
            reason = error.strerror or error
            raise AddressError(f"vhost-user:{path}: no back end listens there: {reason}; start it first") from error
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def allow(self, seconds: float) -> None:
        """How long the back end may keep us waiting from now on, all in all."""
        self._left = seconds

    def hang_up(self) -> None:
        """End the conversation; whoever watches the connection sees that it has ended."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    # -----------------------------------------------------------------------------------------------------------------
    # Requests

    def send(self, request: Request, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0) -> None:
        """Send one message.

        Raises:
            OSError: the back end has gone, or does not read.
        """
        data = HEADER.pack(request, VERSION | flags, len(payload)) + payload
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        while data:
            self._wait(select.POLLOUT)
            data = data[self._socket.sendmsg([data], beside, socket.MSG_NOSIGNAL) :]
            beside = []

    def send_word(self, request: Request, word: int) -> None:
        self.send(request, struct.pack("<Q", word))

    def send_ring(self, request: Request, index: int, value: int = 0) -> None:
        self.send(request, struct.pack("<II", index, value))

    def send_fd(self, request: Request, index: int, fd: int) -> None:
        self.send(request, struct.pack("<Q", index), [fd])

    def send_addresses(self, index: int, descriptors: int, used: int, available: int) -> None:
        """Where ring `index` lies; on a packed ring, `used` and `available` are the event suppression structures."""
        self.send(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, descriptors, used, available, 0))

    def send_regions(self, regions: list[Region]) -> None:
        """Share memory, all that there is.

        Raises:
            ConfigurationError: it comes in too many pieces, or the back end refuses it.
            OSError: the back end has gone, or does not answer.
        """
        if len(regions) > MAX_REGIONS:
            raise ConfigurationError(
                f"{len(regions)} pieces of memory: a vhost-user back end takes {MAX_REGIONS}; use fewer queues or pools"
            )
        table = b"".join(struct.pack("<QQQQ", region.guest, region.size, region.user, 0) for region in regions)
        payload = struct.pack("<II", len(regions), 0) + table
        flags = NEED_REPLY if self.acknowledges else 0
        self.send(Request.SET_MEM_TABLE, payload, [region.fd for region in regions], flags)
        if self.acknowledges and self._reply(Request.SET_MEM_TABLE, "<Q")[0] != 0:
            raise ConfigurationError("the vhost-user back end refuses the memory")

    def ask(self, request: Request) -> int:
        """The answer to a question.

        Raises:
            OSError: the back end has gone, does not answer, or speaks another protocol.
        """
        self.send(request)
        return self._reply(request, "<Q")[0]

    def stop_rings(self, indices: Sequence[int]) -> None:
        """Let the back end stop these rings: it has stopped with one when it has said how far it has come.

        All are told before the first answer is awaited: a slow back end delays none of them.

        Raises:
            OSError: as for `ask`.
        """
        for index in indices:
            self.send_ring(Request.GET_VRING_BASE, index)
        stopped = {self._reply(Request.GET_VRING_BASE, "<II")[0] for _ in indices}
        if stopped != set(indices):
            raise ConnectionError(f"rings {sorted(stopped)} have stopped, and not {sorted(indices)}")

    # -----------------------------------------------------------------------------------------------------------------
    # Answers

    def _reply(self, request: Request, form: str) -> tuple[int, ...]:
        answered, flags, size = HEADER.unpack(self._receive(HEADER.size))
        if answered != request or flags & (VERSION_MASK | REPLY) != VERSION | REPLY:
            raise ConnectionError(f"what should answer {request.name} is message {answered} with flags {flags:#x}")
        if size != struct.calcsize(form):
            raise ConnectionError(f"the answer to {request.name} is {size} bytes long, and not {struct.calcsize(form)}")
        return struct.unpack(form, self._receive(size))

    def _receive(self, size: int) -> bytes:
        """The next `size` bytes. File descriptors beside them are dropped by the kernel: nobody makes room for any."""
        data = b""
        while len(data) < size:
            self._wait(select.POLLIN)
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the connection was closed")
            data += part
        return data

    def _wait(self, event: int) -> None:
        """Wait until the socket can be read or written, for as long as the back end has left."""
        poll = select.poll()
        poll.register(self._socket, event)
        if not self._hurried:
            poll.register(self._closing, select.POLLIN)
        while True:
            begun = time.monotonic()
            ready = [fd for fd, _ in poll.poll(max(self._left, 0) * 1000)]
            self._left -= time.monotonic() - begun
            if self._left <= 0:
                raise TimeoutError("it does not answer in time")
            if self._socket.fileno() in ready:
                return
            if self._closing in ready:
                poll.unregister(self._closing)
                self._hurried = True
                self._left = min(self._left, CLOSING)
