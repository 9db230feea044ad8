"""The reports of a running `ixy sim qemu`, for whoever asks on a UNIX socket: one JSON array a connection."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ixy.sandboxing import removes
from ixy.sim.checklist import report_of

if TYPE_CHECKING:
    from ixy.sim.card.registers import Card

_PATIENCE = 5.0  # seconds
_MOMENT = 0.1  # seconds: so long the guest may wait for who asks
_PREFIX, _SUFFIX = "sim-", ".sock"


def directory() -> Path:
    """Where the sockets of this user's processes are."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"ixy-{os.getuid()}"


def _is_ours() -> bool:
    """Whether the directory is this user's: in a place for all, another one could have made it."""
    return directory().is_dir() and directory().stat().st_uid == os.getuid()


class ReportSocket:
    """Answers with the reports of some cards; a party to `Attachment.serve`.

    Raises:
        OSError: there can be no such socket.
    """

    def __init__(self, cards: Iterable[Card]) -> None:
        self._cards = list(cards)
        directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours():
            raise PermissionError(f"{directory()} is another user's")
        self.path = directory() / f"{_PREFIX}{os.getpid()}{_SUFFIX}"
        self.path.unlink(missing_ok=True)  # of a process that had this number before
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self.path))
        self._socket.listen()
        removes(self.path)

    def fileno(self) -> int:
        return self._socket.fileno()

    def handle(self) -> bool:
        """Answer whoever has connected. Who does not read gets what a socket holds: the guest waits for a moment."""
        with suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(_MOMENT)
                connection.sendall(json.dumps([report_of(card).as_dict() for card in self._cards]).encode())
        return True

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def ask() -> list[dict[str, Any]]:
    """The reports of all running `ixy sim qemu` of this user."""
    found: list[dict[str, Any]] = []
    for path in sorted(directory().glob(f"{_PREFIX}*{_SUFFIX}")) if _is_ours() else ():
        # Its process may be dead, or have had no time to say all.
        with suppress(OSError, json.JSONDecodeError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_PATIENCE)
            asking.connect(str(path))
            found += json.loads(b"".join(iter(lambda: asking.recv(1 << 16), b"")))
    return found
