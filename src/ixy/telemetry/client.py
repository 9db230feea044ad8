"""Asking processes of ixy by their sockets. Nothing that comes from there is trusted. Importing this costs nothing."""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, cast

from ixy.errors import Error
from ixy.telemetry.places import directory, remove, sockets

_PATIENCE = struct.pack("@ll", 5, 0)  # a struct timeval: seconds
_FIRST_BYTES = 1024  # of what a process says of itself
_MOST_BYTES = 1 << 20


class State(Enum):
    """What became of a process that serves telemetry."""

    RUNS = "runs"
    SILENT = "does not answer"
    DEAD = "dead"


class Process(NamedTuple):
    """A process that serves telemetry, or did.

    Attributes:
        number: of the process.
        path: of its socket.
        state: what became of it.
        command: by which it was started.
        devices: that it has open, by their numbers.
    """

    number: int
    path: Path
    state: State
    command: str
    devices: dict[int, str]

    def __str__(self) -> str:
        return f"process {self.number} ({self.command})" if self.command else f"process {self.number}"


def processes() -> list[Process]:
    """All processes of this user, for root those of all users. What dead ones of this user left is removed."""
    looked = (_looked_at(number, path) for number, path in sorted(sockets()))
    found = [process for process in looked if process is not None]
    for process in found:
        if process.state is State.DEAD and process.path.parents[1] == directory():
            remove(process.path.parent)
    return found


def ask(path: Path, command: str) -> Any:
    """What a process answers to a command; None where it says that there is no answer.

    Args:
        path: of its socket.
        command: such as "/ethdev/stats,0".

    Raises:
        Error: it does not answer, or no sense.
        ConnectionRefusedError, FileNotFoundError: nobody serves there any more.
    """
    with _explained(path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        # Not `settimeout`: a connect that may not wait fails where others are in the queue.
        for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, way, _PATIENCE)
        sock.connect(str(path))
        size = _object(sock.recv(_FIRST_BYTES)).get("max_output_len")
        if not isinstance(size, int) or not 0 < size <= _MOST_BYTES:
            raise Error(f"{path}: no telemetry of ixy answers there")
        sock.send(command.encode())
        answer = _object(sock.recv(size))
    name = command.partition(",")[0]
    if name not in answer:
        raise Error(f"{path}: the answer is none to {name}")
    return answer[name]


@contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except (ConnectionRefusedError, FileNotFoundError):
        raise
    except OSError as error:
        words = "it does not answer" if error.errno == errno.EAGAIN else error.strerror
        raise Error(f"{path}: {words}") from error
    except ValueError as error:  # no text, or no JSON
        raise Error(f"{path}: what answers makes no sense") from error


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return cast("dict[str, Any]", value)


def _looked_at(number: int, path: Path) -> Process | None:
    """None for one that has only begun."""
    try:
        devices = ask(path, "/ixy/devices")
        names = {int(device): _printable(str(name)) for device, name in devices.items()}
        return Process(number, path, State.RUNS, _command(number), names)
    except FileNotFoundError:
        return None if Path(f"/proc/{number}").exists() else Process(number, path, State.DEAD, "", {})
    except ConnectionRefusedError:
        return Process(number, path, State.DEAD, "", {})
    except (Error, AttributeError, ValueError):
        return Process(number, path, State.SILENT, _command(number), {})


def _command(number: int) -> str:
    """The command line of a process; empty where it cannot be known."""
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return _printable(" ".join(word.decode(errors="replace") for word in words if word))


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)
