"""What a kernel's AF_PACKET socket and a loop in Python reach, on virtual links in a network namespace of their own.

One process sends frames into a link, another forwards them to a second link, byte 48 raised. `measure` starts this
module in the namespace, which goes with its processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ixy.errors import Error
from ixy.formats.frames import udp_frame

WORKS = ("send", "receive", "forward")

# Of network and of processes: whatever was started in it ends with the first process.
_NAMESPACE = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
# Of linux/if_ether.h, linux/socket.h and linux/if_packet.h, which not every Python has
_ALL_PROTOCOLS = 0x0003
_PACKET_LEVEL = 263
_IGNORE_OUTGOING = 23
_FRAME_BYTES = 60
_TOUCHED = 48
_BURST = 256  # frames between two looks at the clock
_TIMEOUT = 1.0  # seconds without a frame


def measure(window: float, repeat: int) -> dict[str, list[float]]:
    """Packets per second of each of `WORKS`, in `repeat` windows of so many seconds.

    Raises:
        Error: there is no namespace to be had, or a program is missing.
    """
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            raise Error(f"{program} is not installed; run: apt-get install util-linux iproute2")
    process = subprocess.run(
        [*_NAMESPACE, sys.executable, "-m", __name__, str(window), str(repeat)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise Error(f"no AF_PACKET sockets in a network namespace of its own: {reason}")
    return json.loads(process.stdout)


def main(window: float, repeat: int) -> None:
    """Measure in this namespace, which is nobody else's, and print the rates."""
    new_link("in0", "rx0")
    new_link("tx0", "out0")
    frame = udp_frame(_FRAME_BYTES)
    with open_socket("in0") as sender, open_socket("rx0") as receiver, open_socket("tx0") as forwarder:
        rates = {"send": _rates(lambda: _send(sender, frame), window, repeat)}
        with _flood(sender, frame):
            rates["receive"] = _rates(lambda: _receive(receiver), window, repeat)
            rates["forward"] = _rates(lambda: _forward(receiver, forwarder), window, repeat)
    print(json.dumps(rates))


def new_link(one: str, other: str) -> None:
    """A veth pair, both ends up; who cannot make it ends this process, with the reason."""
    for arguments in (f"add {one} type veth peer name {other}", f"set {one} up", f"set {other} up"):
        ended = subprocess.run(["ip", "link", *arguments.split()], capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            sys.exit(f"ip link {arguments}: {ended.stderr.strip()}")


def open_socket(interface: str) -> socket.socket:
    """A socket on an interface that sees what arrives there, and not what it sends."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packets.setsockopt(_PACKET_LEVEL, _IGNORE_OUTGOING, 1)
    packets.bind((interface, _ALL_PROTOCOLS))
    packets.settimeout(_TIMEOUT)
    return packets


@contextmanager
def _flood(sender: socket.socket, frame: bytes) -> Generator[None]:
    """A process that sends frames meanwhile, without end."""
    process = os.fork()
    if process == 0:
        try:
            while True:
                _send(sender, frame)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _rates(work: Callable[[], int], window: float, repeat: int) -> list[float]:
    work()
    return [_rate(work, window) for _ in range(repeat)]


def _rate(work: Callable[[], int], window: float) -> float:
    start, packets = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < window:
        packets += work()
    return packets / passed


def _send(sender: socket.socket, frame: bytes) -> int:
    for _ in range(_BURST):
        sender.send(frame)
    return _BURST


def _receive(receiver: socket.socket) -> int:
    buffer = bytearray(2048)
    for _ in range(_BURST):
        receiver.recv_into(buffer)
    return _BURST


def _forward(receiver: socket.socket, forwarder: socket.socket) -> int:
    buffer = bytearray(2048)
    view = memoryview(buffer)
    for _ in range(_BURST):
        size = receiver.recv_into(buffer)
        buffer[_TOUCHED] = (buffer[_TOUCHED] + 1) & 0xFF
        forwarder.send(view[:size])
    return _BURST


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
