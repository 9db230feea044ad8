"""Messages of the vhost-user protocol, as a front end sends them.

A message is request, flags and size, 32 bits each, then the payload, all little-endian; file descriptors travel beside
it. Source: the Vhost-user Protocol of QEMU (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from ixy.errors import AddressError, ConfigurationError, PermissionDenied

TIMEOUT = 10.0  # seconds; a back end that has just started has much to do
MAX_REGIONS = 8  # without CONFIGURE_MEM_SLOTS

_HEADER = struct.Struct("<III")
_VERSION = 1
_REPLY = 1 << 2
_NEED_REPLY = 1 << 3


class Request(IntEnum):
    """The requests that the front end sends."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18


class Region(NamedTuple):
    """A piece of shared memory: its address in descriptors, its size, its address in ring addresses, its file."""

    guest: int
    size: int
    user: int
    fd: int


class Connection:
    """A socket to a back end.

    Args:
        path: of the socket.

    Attributes:
        acknowledges: the back end answers a request when it is asked to (REPLY_ACK).

    Raises:
        AddressError: nobody listens there.
        PermissionDenied: the socket is out of this user's reach.
    """

    def __init__(self, path: str) -> None:
        self.acknowledges = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(path)
        except PermissionError as error:
            self._socket.close()
            raise PermissionDenied(f"vhost-user:{path}: no permission to open the socket") from error
        except OSError as error:
            self._socket.close()
            reason = error.strerror or error
            raise AddressError(f"vhost-user:{path}: no back end listens there: {reason}; start it first") from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, request: Request, payload: bytes = b"", fds: list[int] | None = None, flags: int = 0) -> None:
        """Send one message.

        Raises:
            OSError: the back end has gone.
        """
        header = _HEADER.pack(request, _VERSION | flags, len(payload))
        socket.send_fds(self._socket, [header + payload], fds or [])

    def send_word(self, request: Request, word: int) -> None:
        self.send(request, struct.pack("<Q", word))

    def send_ring(self, request: Request, index: int, value: int) -> None:
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
            OSError: the back end has gone.
        """
        if len(regions) > MAX_REGIONS:
            raise ConfigurationError(
                f"{len(regions)} pieces of memory: a vhost-user back end takes {MAX_REGIONS}; use fewer queues or pools"
            )
        table = b"".join(struct.pack("<QQQQ", region.guest, region.size, region.user, 0) for region in regions)
        payload = struct.pack("<II", len(regions), 0) + table
        flags = _NEED_REPLY if self.acknowledges else 0
        self.send(Request.SET_MEM_TABLE, payload, [region.fd for region in regions], flags)
        if self.acknowledges and self._reply(Request.SET_MEM_TABLE, "<Q")[0] != 0:
            raise ConfigurationError("the vhost-user back end refuses the memory")

    def ask(self, request: Request) -> int:
        """The answer to a question.

        Raises:
            OSError: the back end has gone, or speaks another protocol.
        """
        self.send(request)
        return self._reply(request, "<Q")[0]

    def ask_ring(self, request: Request, index: int) -> int:
        """The answer to a question about a ring."""
        self.send_ring(request, index, 0)
        return self._reply(request, "<II")[1]

    def _reply(self, request: Request, form: str) -> tuple[int, ...]:
        answered, flags, size = _HEADER.unpack(self._receive(_HEADER.size))
        payload = self._receive(size) if size <= 4096 else b""
        if answered != request or not flags & _REPLY or size != struct.calcsize(form):
            raise ConnectionError(f"no answer to {request.name}")
        return struct.unpack(form, payload)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the connection was closed")
            data += part
        return data
