"""A cable between cards of two processes: frames one after the other in a Unix socket, a length before each.

This is the framing of QEMU's `-netdev stream`, so a virtual machine can be at the other end. Who comes first listens,
the other one connects; then the socket's file goes, so that nobody else does. When one of them has gone, the other
listens again, or connects to one that does.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.errors import AddressError, Error, PermissionDenied
from ixy.jit import compiled
from ixy.process import forget_in_child
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.rack import ALARM, BROKEN, FRAME, INPUT_PART, KIND, OUTPUT_PART, OWN_WORDS, SLOT, Rack
from ixy.sim.wires import impair
from ixy.sim.wires.impair import Impairments, impaired
from ixy.sim.wires.wire import Options, Port, Wire
from ixy.unsafe import copy, read_file, send_file, store_release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("ixy.sim")

# Words of the input: the connection, 0 if there is none; the bytes that were read and not yet delivered, in the
# input's memory from START to END; 1 more than the length of a frame that there cannot be
CONNECTION, START, END, BAD = range(OWN_WORDS, OWN_WORDS + 4)

# Words of the output: the connection; the bytes in the output's memory, and how many of them are sent; how many frames
# found no room there, as nobody took those before
USED, WRITTEN, LOST = range(OWN_WORDS + 1, OWN_WORDS + 4)

HEADER = 4  # bytes: the frame's length, big-endian
LONGEST = 68 << 10  # bytes: no frame is longer; QEMU's have up to 69,632
_ROOM = HEADER + LONGEST
_READ_SIZE = 4 * _ROOM  # bytes of the input's memory, and behind them a short frame that is padded
_WRITE_SIZE = 1 << 20  # bytes of the output's memory
_NOT_WHOLE = -1

_PREFIX = "unix:"
_LONGEST_PATH = 107  # bytes (unix(7))
_GOODBYE = 1.0  # seconds for what was sent before a card is closed


def is_path(values: dict[str, str]) -> bool:
    """Whether the other end of a cable is a socket."""
    return values.get("cable", "").startswith(_PREFIX)


# ---------------------------------------------------------------------------------------------------------------------
# What arrives


@compiled
def next_frame(rack: Rack, card: int, _now: int) -> int:
    """The next frame that is whole. Short frames are padded."""
    wire = rack.inputs[card]
    if wire[CONNECTION] == 0:
        return 0
    base = card * SLOT + INPUT_PART
    length = announced(rack.tape, base, wire)
    if length == _NOT_WHOLE and fill(rack, card, base):
        length = announced(rack.tape, base, wire)
    if length == _NOT_WHOLE:
        return 0
    if not 0 < length <= LONGEST:
        wire[BAD] = length + 1
        hang_up(rack, card)
        return 0
    place = base + int(wire[START]) + HEADER
    wire[START] += HEADER + length
    if length < MIN_FRAME:
        copy(rack.tape, base + _READ_SIZE, rack.tape, place, length)
        place = base + _READ_SIZE
        for i in range(length, MIN_FRAME):
            rack.tape[place + i] = 0
    wire[FRAME] = place
    return max(length, MIN_FRAME)


@compiled
def announced(tape: NDArray[np.uint8], base: int, wire: NDArray[np.int64]) -> int:
    """The length of the frame that comes next, `_NOT_WHOLE` if some of it is not there yet."""
    held = int(wire[END] - wire[START])
    if held < HEADER:
        return _NOT_WHOLE
    length = 0
    for i in range(HEADER):
        length = length << 8 | int(tape[base + wire[START] + i])
    return _NOT_WHOLE if 0 < length <= LONGEST and held < HEADER + length else length


@compiled
def fill(rack: Rack, card: int, base: int) -> bool:
    """Read what has come; whether something has.

    Less than a whole frame is there. Near the end of the memory that is moved to its start, which lies further back
    than it is long.
    """
    wire = rack.inputs[card]
    if _READ_SIZE - wire[END] < _ROOM:
        held = int(wire[END] - wire[START])
        copy(rack.tape, base, rack.tape, base + int(wire[START]), held)
        wire[START], wire[END] = 0, held
    got = read_file(wire[CONNECTION], rack.tape, base + int(wire[END]), _READ_SIZE - int(wire[END]))
    if got > 0:
        wire[END] += got
    elif got not in (-errno.EAGAIN, -errno.EINTR):
        hang_up(rack, card)
    return got > 0


@compiled
def hang_up(rack: Rack, card: int) -> None:
    """The connection is no use any more: its owner is told."""
    wire = rack.inputs[card]
    wire[CONNECTION] = rack.outputs[card, CONNECTION] = 0
    wire[BROKEN] = 1
    store_release(rack.control, ALARM, 1)


# ---------------------------------------------------------------------------------------------------------------------
# What is sent


@compiled
def emit(rack: Rack, card: int, start: int, length: int) -> int:
    """Put the frame behind those that are to be sent, and send what the other end takes."""
    wire = rack.outputs[card]
    size = HEADER + length
    if wire[CONNECTION] == 0:
        return -1
    if wire[USED] + size > _WRITE_SIZE:
        wire[LOST] += 1
        flush(rack, card)
        return -1
    place = card * SLOT + OUTPUT_PART + int(wire[USED])
    for i in range(HEADER):
        rack.tape[place + i] = (length >> (8 * (HEADER - 1 - i))) & 0xFF
    copy(rack.tape, place + HEADER, rack.tape, start, length)
    wire[USED] += size
    flush(rack, card)
    return -1


@compiled
def flush(rack: Rack, card: int) -> None:
    """Send as much as the other end takes. That there is none any more, who reads finds out."""
    wire = rack.outputs[card]
    base = card * SLOT + OUTPUT_PART
    while wire[WRITTEN] < wire[USED]:
        sent = send_file(wire[CONNECTION], rack.tape, base + int(wire[WRITTEN]), int(wire[USED] - wire[WRITTEN]))
        if sent <= 0:
            return
        wire[WRITTEN] += sent
    wire[WRITTEN] = wire[USED] = 0


# ---------------------------------------------------------------------------------------------------------------------
# Both ends


class Line:
    """This end of the cable: it is connected, or listens, or neither, while the other end is busy.

    Args:
        path: of the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._connection: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._file: tuple[int, int] | None = None  # the listener's, as it was made
        self._said = ""

    def open(self, *, wait: bool = True) -> None:
        """Connect to who listens there; else listen.

        Args:
            wait: while another one looks; else nothing is done then.

        Raises:
            AddressError: there is something else than a socket, or no such directory.
            PermissionDenied, Error: the system refuses.
        """
        forget_in_child(self)
        with _refusals(self._path), _alone_in(self._path.parent, wait) as alone:
            if alone and self._is_stale():
                self._path.unlink()
            if alone and self._connection is None and not self._path.exists():
                self._listen()

    def meet(self) -> None:
        """Take the connection of who has come; where the last one has gone, look for another."""
        if self._listener is not None:
            with suppress(OSError):  # nobody has come, or has gone again
                self._connection, _ = self._listener.accept()
                self._connection.setblocking(False)
                self._close_listener()
        elif self._connection is None:
            try:
                self.open(wait=False)  # the cards' thread waits for nobody
            except Error as error:
                if self._said != (said := str(error)):
                    log.warning("%s", said)
                self._said = said

    @property
    def connection(self) -> int:
        """The connection's file, 0 if there is none."""
        return 0 if self._connection is None else self._connection.fileno()

    @property
    def files(self) -> list[int]:
        """What is readable when something has come."""
        return [end.fileno() for end in (self._connection, self._listener) if end is not None]

    def hang_up(self) -> None:
        """The connection is over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def send(self, data: bytes) -> int:
        """Send what the other end takes of it now; how many bytes."""
        with suppress(OSError):
            return self._connection.send(data) if self._connection is not None and data else 0
        return 0

    def say(self, data: bytes) -> bool:
        """Send what is left to be sent; whether the other end takes it within a second."""
        try:
            if self._connection is not None and data:  # who has gone does not even take nothing
                self._connection.settimeout(_GOODBYE)
                self._connection.sendall(data)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._close_listener()
        self.hang_up()

    def forget(self) -> None:
        """Close the files; see `ixy.process.Inheritance`."""
        for end in (self._connection, self._listener):
            if end is not None:
                end.close()

    def _is_stale(self) -> bool:
        """Connect, if somebody listens; whether there is a socket on which nobody does."""
        connection = _new_socket()
        try:
            if not stat.S_ISSOCK(self._path.stat().st_mode):
                raise AddressError(f"cable={_PREFIX}{self._path}: is no socket: name another file")
            connection.connect(str(self._path))
        except FileNotFoundError:
            connection.close()
        except BlockingIOError:  # others are there before us
            connection.close()
        except ConnectionRefusedError:
            connection.close()
            return True
        except BaseException:
            connection.close()
            raise
        else:
            self._connection = connection
        return False

    def _listen(self) -> None:
        listener = _new_socket()
        try:
            listener.bind(str(self._path))
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        self._listener, self._file = listener, _identity(self._path)

    def _close_listener(self) -> None:
        """Listen no more; the file goes, if it is still this one."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                if _identity(self._path) == self._file:
                    self._path.unlink()
            listener.close()


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _alone_in(directory: Path, wait: bool) -> Generator[bool]:
    """Keep others from looking meanwhile who listens in a directory: two who come at once would both listen. Whether
    they are kept: without `wait`, one who looks already is not waited for."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextmanager
def _refusals(path: Path) -> Generator[None]:
    """Say in our words what the system refuses."""
    try:
        yield
    except PermissionError:
        raise PermissionDenied(f"cable={_PREFIX}{path}: no permission: name a socket in a directory of yours") from None
    except (FileNotFoundError, NotADirectoryError):
        raise AddressError(f"cable={_PREFIX}{path}: there is no such directory: make it first") from None
    except OSError as error:
        raise Error(f"cable={_PREFIX}{path}: {error.strerror}") from None


@dataclass(frozen=True)
class Stream(Wire):
    """`sim:a,cable=unix:/path/to/socket`.

    Attributes:
        path: of the socket.
        impairments: of both directions.
    """

    path: str
    impairments: Impairments | None = None
    line: Line = field(init=False, repr=False, compare=False)

    option = "cable"
    extras = impair.OPTIONS
    delivers = takes = watched = True
    next_frame = staticmethod(next_frame)
    emit = staticmethod(emit)

    def __post_init__(self) -> None:
        object.__setattr__(self, "line", Line(self.path))

    @classmethod
    def named(cls, values: dict[str, str]) -> bool:
        return is_path(values)

    @classmethod
    def parse(cls, options: Options) -> Stream:
        path = options.values[cls.option].removeprefix(_PREFIX)
        if not 0 < len(os.fsencode(path)) <= _LONGEST_PATH or "\0" in path:
            raise AddressError(f"{options.address}: the path of a socket has 1 to {_LONGEST_PATH} bytes")
        return cls(path, Impairments.parse(options))

    @property
    def meets_at(self) -> str:
        return self.path

    @property
    def far(self) -> str:
        """The other end, as a user knows it."""
        return f"{_PREFIX}{self.path}"

    @property
    def timed(self) -> bool:
        return self.impairments is not None

    @contextmanager
    def plugged(self, port: Port) -> Generator[None]:
        """Connect, or listen.

        Raises:
            AddressError, PermissionDenied, Error: neither is possible.
        """
        with (
            port.input_memory(_READ_SIZE + MIN_FRAME),
            port.output_memory(_WRITE_SIZE),
            impaired(port, self.impairments),
        ):
            try:
                self.line.open()
                self._attach(port)
                yield
            finally:
                self._end(port)

    def _attach(self, port: Port) -> None:
        """Begin with this connection, if there is one."""
        port.input[START] = port.input[END] = port.output[USED] = port.output[WRITTEN] = 0
        port.input[CONNECTION] = port.output[CONNECTION] = self.line.connection

    def _end(self, port: Port) -> None:
        """What the card has sent goes out before."""
        taken = not port.input[CONNECTION] or self.line.say(self._unsent(port))
        port.input[CONNECTION] = port.output[CONNECTION] = 0
        self.line.close()
        if port.output[LOST] or not taken:
            log.warning("sim:%s: %s%s: the other end did not take all frames", port.card.name, _PREFIX, self.path)

    def _unsent(self, port: Port) -> bytes:
        """What lies in the output's memory and has not been sent."""
        return port.rack.tape[port.output_part :][int(port.output[WRITTEN]) : int(port.output[USED])].tobytes()

    def tend(self, port: Port) -> None:
        """Look for another end where there is none; send what one did not take when the card had sent it."""
        if port.input[KIND] != self.kind:
            return  # it is just being plugged in or pulled out
        if port.input[CONNECTION]:
            port.output[WRITTEN] += self.line.send(self._unsent(port))
        else:
            self.line.hang_up()
            self.line.meet()
            self._attach(port)

    def linked(self, port: Port) -> bool:
        return bool(port.input[CONNECTION])

    def due(self, port: Port) -> int | None:
        return impair.awaited(port)

    def files(self, port: Port) -> Sequence[int]:
        return self.line.files if port.input[KIND] == self.kind else []  # else another thread is closing them

    def broken(self, port: Port) -> str | None:
        bad, port.input[BAD] = int(port.input[BAD]), 0
        if not bad:
            return None
        return f"{_PREFIX}{self.path}: the other end sent a frame of {bad - 1} bytes: the connection is ended"
