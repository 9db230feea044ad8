"""A TAP device of the kernel: a network interface whose other end is the card's port."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import socket
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ixy.errors import AddressError, Error, PermissionDenied
from ixy.jit import compiled
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.rack import FRAME, KIND, OWN_WORDS, Rack
from ixy.sim.wires.wire import Options, Port, Wire, snap
from ixy.unsafe import read_file, write_file

FD = OWN_WORDS  # word of either end: the device's file descriptor

_FRAME_SIZE = 32 << 10  # bytes for a frame that arrives
_INTERFACE = re.compile(r"[^/\s:%]{1,15}")  # what the kernel takes for a new interface's name
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_UP = 0x0002, 0x1000, 0x1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_DELETED = -errno.EBADFD  # what reading and writing gives once the interface is gone


@compiled
def next_frame(rack: Rack, card: int, _now: int) -> int:
    """What the kernel sends next to the device; what nobody takes it keeps queued. Short frames are padded."""
    place = rack.inputs[card, FRAME]
    length = read_file(rack.inputs[card, FD], rack.tape, place, _FRAME_SIZE)
    if length <= 0:
        if length == _DELETED:
            snap(rack.inputs[card], rack.outputs[card], rack.control)
        return 0
    for i in range(length, MIN_FRAME):
        rack.tape[place + i] = 0
    return max(length, MIN_FRAME)


@compiled
def emit(rack: Rack, card: int, start: int, length: int) -> int:
    if write_file(rack.outputs[card, FD], rack.tape, start, length) == _DELETED:
        snap(rack.inputs[card], rack.outputs[card], rack.control)
    return -1


@dataclass(frozen=True)
class Tap(Wire):
    """`sim:a,tap=ixy0`. The interface is made, and goes when it is pulled out."""

    interface: str

    option = "tap"
    delivers = takes = watched = True
    next_frame = staticmethod(next_frame)
    emit = staticmethod(emit)

    @classmethod
    def parse(cls, options: Options) -> Tap:
        interface = options.values[cls.option]
        if not _INTERFACE.fullmatch(interface):
            raise AddressError(
                f"{options.address}: tap={interface}: an interface's name has 1 to 15 characters, none of / : %"
            )
        return cls(interface)

    @contextmanager
    def plugged(self, port: Port) -> Generator[None]:
        """Make the interface and bring it up.

        Raises:
            PermissionDenied, Error: the kernel refuses.
        """
        with self._opened() as fd, port.input_memory(_FRAME_SIZE):
            port.input[FRAME], port.input[FD], port.output[FD] = port.input_part, fd, fd
            yield

    def linked(self, port: Port) -> bool:
        """Whether the interface is up, in whatever namespace: only then the kernel takes frames (drivers/net/tun.c)."""
        poll = select.poll()
        poll.register(int(port.output[FD]), select.POLLOUT)
        return any(events & select.POLLOUT for _, events in poll.poll(0))

    def files(self, port: Port) -> Sequence[int]:
        return [int(port.input[FD])] if port.input[KIND] == self.kind else []

    def broken(self, port: Port) -> str:  # noqa: ARG002
        return f"the TAP device {self.interface} was deleted: the link is down"

    @contextmanager
    def _opened(self) -> Generator[int]:
        """The file descriptor of the interface."""
        with _refusals(self.interface):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with _refusals(self.interface):
                fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", self.interface.encode(), _IFF_TAP | _IFF_NO_PI))
                set_up(self.interface)
            yield fd
        finally:
            os.close(fd)


@contextmanager
def _refusals(interface: str) -> Generator[None]:
    """Say in our words what the kernel refuses."""
    try:
        yield
    except PermissionError:
        raise PermissionDenied(f"tap={interface}: no permission to make a TAP device: run as root") from None
    except OSError as error:
        raise Error(f"tap={interface}: cannot make a TAP device: {error.strerror}") from None


def set_up(interface: str) -> None:
    """Bring a network interface up, as `ip link set … up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", interface.encode(), 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), flags | _IFF_UP))
