"""Runs in the guest: `virtio_offloads.py A B C D` joins cards A and B, with all of their offloads and the hashes of B,
until there is a file `stop` in the working directory; then has C exchange long frames with Linux's card D. Prints a
report as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ixy
from ixy.packets.hugepages import setup
from ixy.path import run

COLUMNS = ("flags", "segments", "parts")
OFFLOADS = ("checksum", "segmentation", "coalescing")
MTU = 9000
FRAMES = 20
TIMEOUT = 60.0


class Seen(ixy.Record):
    """Of packets on their way: how many were without checksums, how many of several segments, and the last hash."""

    partial: int
    joined: int
    longest: int
    hash: int


@ixy.kernel
def count(packet: ixy.Packet, seen: Any) -> int:
    if packet.flags & 16:  # L4_PARTIAL
        seen.partial += 1
    if packet.segments > 0:
        seen.joined += 1
    seen.longest = max(seen.longest, packet.total)
    return ixy.FORWARD


@ixy.kernel
def count_hashed(packet: ixy.Packet, seen: Any) -> int:
    if packet.hash != 0:
        seen.hash = packet.hash
    return count(packet, seen)


def forward(one: str, other: str) -> dict[str, Any]:
    with (
        ixy.open(one, metadata=COLUMNS, offloads=OFFLOADS) as a,
        ixy.open(other, metadata=(*COLUMNS, "hash"), offloads=OFFLOADS) as b,
    ):
        there, back = Seen(), Seen()
        paths = [ixy.Path(a.rx[0], b.tx[0], count, there), ixy.Path(b.rx[0], a.tx[0], count_hashed, back)]
        Path("ready").touch()
        while not Path("stop").exists():
            run(paths, 200)
        return {
            "seen": [{name: int(getattr(seen, name)) for name in Seen.dtype.names or ()} for seen in (there, back)],
            "counts": [tuple(path.counts) for path in paths],
            "xstats": [a.xstats(), b.xstats()],
            "errors": [device.stats().rx_errors + device.stats().rx_refused for device in (a, b)],
            "features": [list(device.info.features) for device in (a, b)],
        }


def exchange(ours: str, theirs: str) -> dict[str, Any]:
    """Datagrams of IPv4 as long as a frame may be, each way."""
    name = next(Path(f"/sys/bus/pci/devices/{theirs}").glob("virtio*/net/*")).name
    subprocess.run(["ip", "link", "set", name, "mtu", str(MTU), "up", "promisc", "on"], check=True)
    until(lambda: " state UP " in told(name), "the kernel's interface does not come up", lambda: told(name))
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets,
        ixy.open(ours, metadata=("parts",), mtu=MTU) as device,
    ):
        packets.bind((name, 0x0800))
        packets.setblocking(False)
        good = 0
        for number in range(FRAMES):
            frame = datagram(number)

            def state(number: int = number) -> str:
                return f"frame {number}\n{device.stats()}\n{device.xstats()}\n{told(name)}"

            packets.send(frame)
            batch = next_ipv4(device, state)
            good += bytes(batch[0]) == frame
            assert device.tx[0].send(batch) == 1, f"a frame of ours is not sent\n{state()}"
            until(lambda: select.select([packets], [], [], 0)[0] != [], "a frame of ours does not arrive", state)
            good += packets.recv(1 << 16) == frame
        return {"good": good, "mtu": device.info.mtu, "refused": device.stats().rx_refused}


def next_ipv4(device: ixy.Device, state: Callable[[], str]) -> ixy.Batch:
    """The next datagram of IPv4. An interface that has just come up also sends of itself, for IPv6."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        batch = device.rx[0].receive(1, max(deadline - time.monotonic(), 0))
        assert len(batch) == 1, f"a frame of the kernel's does not arrive\n{state()}"
        if bytes(batch[0][12:14]) == b"\x08\x00":
            return batch
        batch.free()


def told(name: str) -> str:
    """What the kernel says of an interface."""
    return subprocess.run(["ip", "-s", "link", "show", name], check=True, capture_output=True, text=True).stdout


def until(done: Callable[[], bool], what: str, state: Callable[[], str]) -> None:
    """Wait for something, and if it does not come about say how things are."""
    deadline = time.monotonic() + TIMEOUT
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}\n{state()}")


def datagram(number: int) -> bytes:
    """10.1.0.N:1000 + N to 10.2.0.1:9, each longer than the one before, the last as long as can be."""
    size = MTU - 300 * (FRAMES - 1 - number)
    head = bytes.fromhex("02000000000202000000000108004500") + size.to_bytes(2, "big")
    head += bytes.fromhex("0000000040110000") + bytes([10, 1, 0, number, 10, 2, 0, 1])
    head += (1000 + number).to_bytes(2, "big") + (9).to_bytes(2, "big") + (size - 20).to_bytes(2, "big") + bytes(2)
    return head + bytes(i * number & 0xFF for i in range(size - 28))


if __name__ == "__main__":
    setup(64)
    print(json.dumps(forward(*sys.argv[1:3]) | exchange(*sys.argv[3:])))
