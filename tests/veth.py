"""A veth pair of the kernel's: one end is the driver's, at the other sockets and other programs are."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from namespaces import run

OURS, THEIRS = f"ixyl{os.getpid() % 100_000}a", f"ixyl{os.getpid() % 100_000}b"
SHORTEST, LONGEST = 60, 1514
_SOL_PACKET, _IGNORE_OUTGOING, _ALL_PROTOCOLS = 263, 23, 3


@contextmanager
def veth_pair(queues: int = 1, mtu: int = 1500) -> Iterator[None]:
    """Both ends are up, have so many queues each way, and the kernel itself sends nothing there."""
    shape = ["numrxqueues", str(queues), "numtxqueues", str(queues), "mtu", str(mtu)]
    run("ip", "link", "add", OURS, *shape, "type", "veth", "peer", "name", THEIRS, *shape)
    try:
        for end in (OURS, THEIRS):
            run("ip", "link", "set", end, "addrgenmode", "none")
            run("ip", "link", "set", end, "up")
        yield
    finally:
        for end in (OURS, THEIRS):  # one of them may be elsewhere
            subprocess.run(["ip", "link", "del", end], capture_output=True, check=False)


def listener(name: str) -> socket.socket:
    """A socket that sees all frames that arrive at an interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    sock.bind((name, _ALL_PROTOCOLS))
    sock.settimeout(10)
    return sock


def frame(number: int, size: int, port: int = 9, source: int = 4000) -> bytes:
    """A datagram of IPv4 from a port to another, with a number behind its headers."""
    head = bytes.fromhex("02000000000202000000000108004500") + (size - 14).to_bytes(2, "big")
    head += bytes.fromhex("00000000401100000a0000010a000002") + source.to_bytes(2, "big") + port.to_bytes(2, "big")
    return (head + (size - 34).to_bytes(2, "big") + bytes(2) + number.to_bytes(4, "big")).ljust(size, b"\x5a")


def has_program(name: str = OURS) -> bool:
    """Whether an XDP program is attached to an interface."""
    return "prog/xdp" in run("ip", "link", "show", name)
