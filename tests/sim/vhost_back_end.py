"""A vhost-user back end in a thread of the test, which answers as the test wants. It moves no packets.

The messages are written out here a second time, from QEMU's specification of the protocol.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

GET_FEATURES, SET_OWNER, SET_MEM_TABLE, GET_VRING_BASE = 1, 3, 5, 11
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 17, 18
VERSION_1, PROTOCOL_FEATURES = 1 << 32, 1 << 30
MQ, REPLY_ACK = 1 << 0, 1 << 3
VALUES = {GET_FEATURES: VERSION_1 | PROTOCOL_FEATURES, GET_PROTOCOL_FEATURES: MQ | REPLY_ACK, GET_QUEUE_NUM: 1}

VERSION, REPLY, NEED_REPLY = 1, 4, 8

Answer = Callable[["BackEnd", bytes], bytes]


def message(request: int, payload: bytes, flags: int = VERSION | REPLY, size: int | None = None) -> bytes:
    return struct.pack("<III", request, flags, len(payload) if size is None else size) + payload


def word(request: int, value: int) -> bytes:
    """An answer of 64 bits."""
    return message(request, struct.pack("<Q", value))


def silence(back_end: BackEnd, usual: bytes) -> bytes:  # noqa: ARG001
    return b""


class BackEnd:
    """Serves one front end after the other, until `close`.

    Args:
        path: of the socket.
        answers: for some requests what to say instead of the usual answer, which is handed in.
        patience: how many messages of a connection it takes before it hangs up.

    Attributes:
        requests: those that came, in order, of all connections.
        files: the descriptors that came beside them, of this process by now: request and descriptor.
        released: set by a test to let an answer go on that waits for it.
    """

    def __init__(self, path: Path, answers: dict[int, Answer] | None = None, patience: int = 1 << 30) -> None:
        self.answers = answers or {}
        self.patience = patience
        self.requests: list[int] = []
        self.files: list[tuple[int, int]] = []
        self.released = threading.Event()
        self.connection = socket.socket()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._stop = os.eventfd(0)
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, request: int, count: int) -> None:
        """Until `request` has come so many times."""
        with self._news:
            assert self._news.wait_for(lambda: self.requests.count(request) >= count, 60)

    def close(self) -> None:
        self.released.set()
        os.eventfd_write(self._stop, 1)
        self.hang_up()
        self._thread.join()
        self._listener.close()
        self.connection.close()
        os.close(self._stop)
        self._drop_files()

    def __enter__(self) -> BackEnd:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def send_slowly(self, data: bytes) -> bytes:
        """Send byte by byte, each when the one before it was read; nothing is left to be said."""
        for place in range(len(data)):
            self.connection.sendall(data[place : place + 1])
            while self._unread():
                pass
        return b""

    def _unread(self) -> bool:
        """Whether bytes wait on the other side, which has not hung up."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self.connection, termios.TIOCOUTQ, waiting)
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        return waiting[0] > 0 and not poll.poll(0)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._stop], [], [])
            if self._stop in ready:
                return
            connection, _ = self._listener.accept()
            self.connection.close()
            self.connection = connection
            with suppress(OSError):
                for _ in range(self.patience):
                    self._take_message()
            self._drop_files()
            self.connection.close()

    def _take_message(self) -> None:
        files_before = len(self.files)
        request, flags, size = struct.unpack("<III", self._read(12))
        payload = self._read(size)
        self.files[files_before:] = [(request, fd) for _, fd in self.files[files_before:]]
        with self._news:
            self.requests.append(request)
            self._news.notify_all()
        usual = self._usual(request, flags, payload)
        self.connection.sendall(self.answers[request](self, usual) if request in self.answers else usual)

    def _usual(self, request: int, flags: int, payload: bytes) -> bytes:
        if request in VALUES:
            return word(request, VALUES[request])
        if request == GET_VRING_BASE:
            return message(request, payload[:4] + bytes(4))
        return word(request, 0) if flags & NEED_REPLY else b""

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part, fds, _, _ = socket.recv_fds(self.connection, size - len(data), 16)
            self.files += [(0, fd) for fd in fds]
            if not part:
                raise ConnectionError
            data += part
        return data

    def _drop_files(self) -> None:
        while self.files:
            os.close(self.files.pop()[1])
