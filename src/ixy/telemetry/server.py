"""The socket, and the thread that answers: it touches no ring, and waits for no client."""

from __future__ import annotations

import atexit
import json
import logging
import os
import selectors
import socket
import struct
import threading
import time
from pathlib import Path

from ixy.errors import Error
from ixy.process import Owner, forget_in_child
from ixy.sandboxing import removes
from ixy.telemetry import places
from ixy.telemetry.commands import MAX_OUTPUT, answer_to, greeting

log = logging.getLogger("ixy.telemetry")

_MAX_REQUEST = 1023  # bytes, as DPDK takes
_MAX_CLIENTS = 10  # likewise
_NOTHING = {"none": None}
_PAUSE = 0.1  # seconds until there may be room for a client again
_PATIENCE = 5.0  # seconds for an answer that waits for a device
_PEER = struct.Struct("=iII")  # struct ucred: process, user, group


class _Server:
    """Serves until `close`.

    Raises:
        Error: there can be no such socket.
    """

    def __init__(self) -> None:
        self._owner = Owner()
        self._user = os.geteuid()
        greeting()  # which looks the version up, once
        self._place = places.make_place()
        self.path = self._place / places.NAME
        self._closed = False
        self._clients: set[socket.socket] = set()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        forget_in_child(self)
        try:
            self._listen()
        except OSError as error:  # also of a path that is too long, which has no number
            self._end()
            raise Error(f"no telemetry: {self.path}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._serve, name="ixy-telemetry", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        """At its name there is never a socket at which nobody listens, as that of a dead process would be."""
        unfinished = self._place / places.UNFINISHED
        unfinished.unlink(missing_ok=True)
        self._listener.bind(str(unfinished))
        unfinished.chmod(0o600)
        self._listener.listen(_MAX_CLIENTS)
        unfinished.rename(self.path)
        removes(self.path)
        removes(self._place)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._welcome()
                elif isinstance(key.fileobj, socket.socket):
                    self._attend_to(key.fileobj)
        self._end()

    def _welcome(self) -> None:
        """Take up who has connected: this user, or root."""
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again, or there are no more files
            time.sleep(_PAUSE)
            return
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_OUTPUT)
        if len(self._clients) >= _MAX_CLIENTS or _user_of(client) not in (0, self._user):
            client.close()
            return
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ)
        self._say(client, greeting())

    def _attend_to(self, client: socket.socket) -> None:
        try:
            request, _, flags, _ = client.recvmsg(_MAX_REQUEST)
        except OSError:
            request, flags = b"", 0
        if not request:
            self._leave(client)
            return
        self._say(client, _NOTHING if flags & socket.MSG_TRUNC else _answer(request))

    def _say(self, client: socket.socket, answer: object) -> None:
        """Who does not read what he is told is left."""
        data = json.dumps(answer, separators=(",", ":")).encode()
        try:
            client.send(data if len(data) <= MAX_OUTPUT else json.dumps(_NOTHING).encode())
        except OSError:
            self._leave(client)

    def _leave(self, client: socket.socket) -> None:
        self._clients.discard(client)
        self._selector.unregister(client)
        client.close()

    def close(self) -> None:
        """Serve no more, and leave nothing behind. A second call does nothing."""
        if not self._closed and self._owner.mine():
            self._closed = True
            os.eventfd_write(self._wake, 1)
            self._thread.join(_PATIENCE)

    def _end(self) -> None:
        places.remove(self._place)
        self.forget()

    def forget(self) -> None:
        """Close all files, as a child does that inherited them; see `ixy.process.Inheritance`."""
        wake, self._wake = self._wake, -1
        if wake >= 0:
            self._selector.close()
            self._listener.close()
            for client in self._clients:
                client.close()
            os.close(wake)


def _answer(request: bytes) -> object:
    try:
        return answer_to(request)
    except Exception as error:  # nothing that goes wrong here is the program's
        log.warning("telemetry: no answer to %r: %s: %s", request, type(error).__name__, error)
        return _NOTHING


def _user_of(client: socket.socket) -> int:
    """Whose process it is."""
    data = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return _PEER.unpack(data)[1]


class _Shared:
    """The server of this process, as long as somebody wants it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.server: _Server | None = None
        self.wanted = 0

    def want(self) -> _Server:
        with self.lock:
            if self.server is None:
                self.server = _Server()
            self.wanted += 1
            return self.server

    def want_no_more(self) -> None:
        with self.lock:
            self.wanted -= 1
            if self.wanted <= 0 and self.server is not None:
                server, self.server = self.server, None
                server.close()


_shared = _Shared()


def _forget() -> None:
    """A forked child serves nothing, until it wants to."""
    global _shared
    _shared = _Shared()


os.register_at_fork(after_in_child=_forget)


class Telemetry:
    """That this process tells of its devices, until it is closed or its `with` block is left.

    Attributes:
        path: of the socket.
        prefix: what DPDK's clients call the file prefix: `dpdk-telemetry.py -f PREFIX`.
    """

    def __init__(self) -> None:
        self._owner = Owner()
        self._open = True
        self.path: Path = _shared.want().path
        self.prefix = self.path.parent.name
        atexit.register(self.close)

    def close(self) -> None:
        """Serve no more, unless somebody else in the process still wants it. A second call does nothing."""
        if self._open and self._owner.mine():
            self._open = False
            atexit.unregister(self.close)
            _shared.want_no_more()

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Telemetry {self.path}{'' if self._open else ', closed'}>"


def serve_telemetry() -> Telemetry:
    """Let other processes of this user, and root, look at the devices that this process has open, now and later.

    `ixy ps` lists the process then, and `ixy info`, `ixy stats` and `ixy registers` ask it, as do clients of DPDK's
    telemetry (version 2), such as `dpdk-telemetry.py -f ixy.4711`, with the process's number. A thread answers, which
    touches no ring and waits for nobody. It is over when what is returned here is closed, or the program ends.

    Raises:
        Error: the socket cannot be made.
    """
    return Telemetry()


def try_to_serve() -> Telemetry | None:
    """The same for a command, which goes on without where it cannot be had."""
    try:
        telemetry = serve_telemetry()
    except Error as error:
        log.info("%s", error)
        return None
    log.info("telemetry: %s", telemetry.path)
    return telemetry
