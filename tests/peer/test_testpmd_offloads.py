"""VirtIO's offloads across vhost-user against DPDK's testpmd, which reads what we ask for, and asks for the same."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

import ixy
from ixy.bench.testpmd import Testpmd

pytestmark = pytest.mark.peer

RINGS = ["split", "packed"]
COLUMNS = ("flags", "segments", "parts")
OFFLOADS = ("checksum", "segmentation", "coalescing")
TIMEOUT = 60.0
MSS = 1448


class Case(NamedTuple):
    """A packet that is to be sent: as it is to be in the end, as it is handed over, and the length of its segments."""

    right: bytes
    partial: bytes
    segments: int


def cases() -> list[Case]:
    """TCP and UDP over IPv4 and IPv6, from 1 byte to 60,000, with garbage for their checksums."""
    found: list[Case] = []
    for network in (IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")):
        for transport in (TCP(sport=1, dport=2, flags="PA", seq=1 << 31), UDP(sport=3, dport=4)):
            for size in (1, 1000, MSS) if UDP in transport else (1, 1000, MSS, MSS + 1, 5000, 60000):
                made: Any = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / network / transport
                made /= Raw(random.Random(size).randbytes(size))
                right = bytes(made)
                made[transport.name].chksum = 0x1234
                found.append(Case(right, bytes(made), MSS if size > MSS else 0))
    return found


@contextmanager
def pair(path: Path, ring: str, options: str) -> Iterator[tuple[ixy.Device, Testpmd]]:
    """A testpmd that sends all back, and a device at it. A packet of 64 KiB takes 32 of its buffers."""
    port = f"net_vhost0,iface={path},queues=1,tso=1{options}"
    address = f"vhost-user:{path},ring={ring}"
    with (
        closing(Testpmd(port, "io", ["--no-huge", "-m", "256"], ["--rxq=1", "--txq=1"])) as peer,
        ixy.open(address, ring_size=256, metadata=COLUMNS, offloads=OFFLOADS) as device,
    ):
        peer.command("start")
        yield device, peer


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "nothing moves any more"


def exchange(device: ixy.Device, one: Case) -> tuple[bytes, int, int]:
    """Send a packet; what comes back, with its flags and the length of its segments."""
    with device.rx[0].pool.allocate(1, len(one.partial), metadata=COLUMNS) as batch:
        batch[0][:] = one.partial
        batch.flags, batch.segments = ixy.Flags.L4_PARTIAL, one.segments
        assert device.tx[0].send(batch) == 1
    back: list[tuple[bytes, int, int]] = []

    def receive() -> bool:
        with device.rx[0].receive(8) as batch:
            columns = batch.flags.tolist(), batch.segments.tolist()
            back.extend((bytes(packet), *said) for packet, *said in zip(batch, *columns, strict=True))
        return bool(back)

    until(receive)
    assert len(back) == 1
    return back[0]


@pytest.mark.parametrize("ring", RINGS)
def test_dpdk_makes_the_checksums_that_were_asked_for(ring: str, tmp_path: Path) -> None:
    """It adds up from where we say to, in software, as its application does not ask for more: what comes back is as
    Scapy makes it, to the byte, packets of 60,000 bytes too."""
    with pair(tmp_path / "vhost", ring, "") as (device, peer):
        for one in cases():
            assert exchange(device, one) == (one.right, 0, 0)
        counts, stats = peer.counts(), device.stats()
        assert (counts.rx_packets, counts.tx_packets) == (stats.tx_packets, stats.rx_packets) == (len(cases()),) * 2
        assert stats.rx_refused == stats.rx_errors == device.xstats()["tx_q0_unchanged"] == 0


@pytest.mark.parametrize("ring", RINGS)
def test_segments_and_partial_checksums_pass_through_dpdk(ring: str, tmp_path: Path) -> None:
    """It takes from our header what is to be done, and asks us for the same: what comes back says so, with the pseudo
    header's sum in place of the checksum."""
    with pair(tmp_path / "vhost", ring, ",legacy-ol-flags=1") as (device, _):
        for one in cases():
            frame, flags, segments = exchange(device, one)
            assert (flags, segments) == (ixy.Flags.L4_PARTIAL, one.segments)
            different = np.flatnonzero(np.frombuffer(frame, np.uint8) != np.frombuffer(one.right, np.uint8))
            parsed = Ether(one.right)
            place = len(one.right) - len(parsed[TCP if TCP in parsed else UDP]) + (16 if TCP in parsed else 6)
            assert set(different.tolist()) <= {place, place + 1}
            assert len(frame) == len(one.right)
            assert frame[place : place + 2] == pseudo(parsed, with_length=one.segments == 0)


def pseudo(made: Any, *, with_length: bool) -> bytes:
    """The pseudo header's sum, by Scapy. Of packets that are to be cut DPDK leaves the length out of it."""
    layer = made[TCP if TCP in made else UDP]
    number, length = 6 if TCP in made else 17, len(layer) if with_length else 0
    network = made[IP if IP in made else IPv6]
    kind = socket.AF_INET if IP in made else socket.AF_INET6
    addresses = socket.inet_pton(kind, network.src) + socket.inet_pton(kind, network.dst)
    return (~checksum(addresses + struct.pack(">II", length, number)) & 0xFFFF).to_bytes(2)
