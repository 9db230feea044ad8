"""The back end `vhost-server:` with DPDK's driver of virtio_user as its front end: every packet is counted on both
sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import ixy
from ixy.bench.testpmd import Testpmd

pytestmark = pytest.mark.peer

RINGS = ["split", "packed"]
FRAMES = 3000
WINDOW = 128  # frames on their way at most
TIMEOUT = 60.0
CRC = 4  # we count bytes with the frame check sequence, testpmd without
HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
RING_SIZE = 256


def front_end(path: Path, ring: str, mode: str, queues: int = 1) -> Testpmd:
    """DPDK's driver. Its packets lie in a few files, which it shares."""
    packed = int(ring == "packed")
    port = f"net_virtio_user0,path={path},queues={queues},queue_size={RING_SIZE},packed_vq={packed}"
    memory = ["--no-huge", "-m", "256", "--single-file-segments"]
    return Testpmd(port, mode, memory, [f"--rxq={queues}", f"--txq={queues}"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


@pytest.fixture
def device(path: Path) -> Iterator[ixy.Device]:
    with ixy.open(f"vhost-server:{path}", rx_queues=2, tx_queues=2, ring_size=64, link_timeout=0) as device:
        yield device


def frame(number: int) -> bytes:
    """60 bytes to 1,514, all different: for another station, with a type for experiments and the number."""
    size = 60 + number * 7 % 1455
    return (THERE + HERE + b"\x88\xb5" + number.to_bytes(4, "big") + bytes([number % 251]) * size)[:size]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "nothing moves any more"


def echo(device: ixy.Device, queue: int, count: int) -> None:
    """Send frames through a queue; what comes back on any has its addresses swapped, and none is missing."""
    back: list[bytes] = []
    sent = 0
    with ixy.Mempool(512) as pool:

        def go_on() -> bool:
            nonlocal sent
            if sent < count and sent - len(back) < WINDOW:
                with pool.allocate(min(32, count - sent)) as batch:
                    for i, packet in enumerate(batch):
                        packet.resize(len(frame(sent + i)))
                        packet[:] = frame(sent + i)
                    sent += device.tx[queue].send(batch)
            for rx in device.rx:
                with rx.receive(32) as batch:
                    back.extend(bytes(packet[:]) for packet in batch)
            return len(back) == count

        until(go_on)
    assert back == [data[6:12] + data[:6] + data[12:] for data in map(frame, range(count))]


def check_counts(device: ixy.Device, peer: Testpmd) -> None:
    stats, counts = device.stats(), peer.counts()
    assert (stats.rx_packets, stats.tx_packets) == (counts.tx_packets, counts.rx_packets)
    assert stats.rx_bytes == counts.tx_bytes + CRC * stats.rx_packets
    assert stats.tx_bytes == counts.rx_bytes + CRC * stats.tx_packets
    assert stats.rx_errors == stats.rx_refused == 0


@pytest.mark.parametrize("ring", RINGS)
def test_frames_go_and_come(ring: str, path: Path, device: ixy.Device) -> None:
    """testpmd swaps the addresses of 3,000 frames; then it ends in the middle of sending, and another one comes, with
    two pairs of queues and the other kind of rings."""
    with closing(front_end(path, ring, "macswap")) as peer:
        assert device.wait_for_link(TIMEOUT).up
        peer.command("start")
        echo(device, 0, FRAMES)
        check_counts(device, peer)
        peer.command("stop")
        peer.command("set fwd txonly")
        peer.command("start")
        before = device.stats().rx_packets

        def receive() -> bool:
            device.rx[0].receive(64).free()
            return device.stats().rx_packets > before + 1000

        until(receive)
        peer.kill()
    until(lambda: not device.link.up)
    received, sent = device.stats().rx_packets, device.stats().tx_packets
    other = RINGS[1 - RINGS.index(ring)]
    with closing(front_end(path, other, "macswap", queues=2)) as peer:
        assert device.wait_for_link(TIMEOUT).up
        peer.command("start")
        for queue in range(2):
            echo(device, queue, 300)
        counts = peer.counts()
        assert (counts.rx_packets, counts.tx_packets) == (600, 600)
        assert device.stats().rx_packets == received + 600
        assert device.stats().tx_packets == sent + 600


@pytest.mark.parametrize("ring", RINGS)
def test_all_that_testpmd_sends_is_received(ring: str, path: Path, device: ixy.Device) -> None:
    """As fast as it can, in waits and polls: when it has stopped, both have counted as many packets and bytes."""
    with closing(front_end(path, ring, "txonly")) as peer:
        assert device.wait_for_link(TIMEOUT).up
        peer.command("start")

        def receive() -> bool:
            device.rx[0].receive(64, timeout=0.01).free()
            return device.stats().rx_packets > 20_000

        until(receive)
        peer.enter("stop")
        until(lambda: len(device.rx[0].receive(64, timeout=0.5)) == 0)
        peer.command("")
        check_counts(device, peer)
