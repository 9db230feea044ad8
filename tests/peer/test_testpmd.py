"""The VirtIO driver across vhost-user against DPDK's testpmd: every packet is counted on both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ixy
from ixy.bench.testpmd import Testpmd
from ixy.device import Device, RxQueue, TxQueue
from ixy.path import run, touch
from ixy.sim.machine import Machine

pytestmark = pytest.mark.peer

StartPeer = Callable[..., Testpmd]
RINGS = ["split", "packed"]
PACKETS = 3000
WINDOW = 128  # packets on their way at most: no ring overflows, so none may be lost
TIMEOUT = 60.0
CRC = 4  # the driver counts bytes with the frame check sequence, testpmd without

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


@contextmanager
def opened(path: Path, ring: str, queues: int = 1) -> Iterator[Device]:
    with ixy.open(f"vhost-user:{path},ring={ring}", rx_queues=queues, tx_queues=queues, ring_size=256) as device:
        assert device.link.up
        yield device


def frame(number: int) -> bytes:
    """60 bytes to 187, all different: destination, source, a type for experiments, the number, and bytes of its own."""
    size = 60 + number % 128
    return (THERE + HERE + b"\x88\xb5" + number.to_bytes(4, "big") + bytes([number % 251]) * size)[:size]


def swapped(data: bytes) -> bytes:
    return data[6:12] + data[:6] + data[12:]


def send(queue: TxQueue, pool: ixy.Mempool, numbers: range) -> int:
    """Send the frames of these numbers; how many the ring took, from the first on."""
    batch = pool.allocate(len(numbers))
    with batch:
        for packet, number in zip(batch, numbers, strict=True):
            packet.resize(len(frame(number)))
            packet[:] = frame(number)
        return queue.send(batch)


def receive(queue: RxQueue) -> list[bytes]:
    with queue.receive(32) as batch:
        return [bytes(packet[:]) for packet in batch]


def until(done: Callable[[], bool]) -> None:
    """Come back as soon as `done` is true; fail if it takes a minute."""
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "nothing moves any more"


def exchange(tx: TxQueue, rx: RxQueue, numbers: range) -> list[bytes]:
    """Send frames and receive what comes back, as many as were sent."""
    pool = ixy.Mempool(1024)
    back: list[bytes] = []
    sent = 0

    def go_on() -> bool:
        nonlocal sent
        if sent < len(numbers) and sent - len(back) < WINDOW:
            sent += send(tx, pool, numbers[sent : sent + 32])
        back.extend(receive(rx))
        return len(back) == len(numbers)

    until(go_on)
    pool.release()  # the device keeps it while packets may be under way
    return back


def check_counts(device: Device, peer: Testpmd, rx_packets: int, tx_packets: int) -> None:
    """Driver and peer agree, packets and bytes."""
    stats = device.stats()
    counts = peer.counts()
    assert (stats.rx_packets, stats.tx_packets) == (rx_packets, tx_packets)
    assert (counts.tx_packets, counts.rx_packets) == (rx_packets, tx_packets)
    assert stats.rx_bytes == counts.tx_bytes + CRC * rx_packets
    assert stats.tx_bytes == counts.rx_bytes + CRC * tx_packets
    assert stats.rx_errors == stats.rx_refused == 0


@pytest.mark.parametrize("ring", RINGS)
def test_every_frame_comes_back_with_its_addresses_swapped(ring: str, socket_path: Path, start_peer: StartPeer) -> None:
    """testpmd swaps the addresses of 3,000 different frames: all come back, in order, and both sides count them."""
    peer = start_peer("macswap")
    with opened(socket_path, ring) as device:
        peer.command("start")
        back = exchange(device.tx[0], device.rx[0], range(PACKETS))
        assert back == [swapped(frame(number)) for number in range(PACKETS)]
        check_counts(device, peer, PACKETS, PACKETS)


@pytest.mark.parametrize("ring", RINGS)
def test_testpmd_receives_all_that_is_sent(ring: str, socket_path: Path, start_peer: StartPeer) -> None:
    """testpmd only receives: it counts what the driver says it has sent."""
    peer = start_peer("rxonly")
    with opened(socket_path, ring) as device:
        peer.command("start")
        pool = ixy.Mempool(1024)
        sent = 0

        def go_on() -> bool:
            nonlocal sent
            sent += send(device.tx[0], pool, range(sent, min(sent + 32, PACKETS)))
            return sent == PACKETS

        until(go_on)
        pool.release()
        peer.wait_for(PACKETS)
        check_counts(device, peer, 0, PACKETS)


@pytest.mark.parametrize("ring", RINGS)
def test_all_that_testpmd_sends_is_received(ring: str, socket_path: Path, start_peer: StartPeer) -> None:
    """testpmd only sends, as fast as it can, until it is stopped: what it counts is what the driver has received."""
    peer = start_peer("txonly")
    with opened(socket_path, ring) as device:
        peer.command("start")
        until(lambda: bool(receive(device.rx[0])) and device.stats().rx_packets >= PACKETS)
        peer.command("stop")
        while receive(device.rx[0]):
            pass
        check_counts(device, peer, device.stats().rx_packets, 0)


@pytest.mark.parametrize("ring", RINGS)
def test_two_queue_pairs_are_independent(ring: str, socket_path: Path, start_peer: StartPeer) -> None:
    """testpmd returns a frame on the queue on which it came: two pairs carry different frames, one after the other."""
    peer = start_peer("macswap", queues=2)
    with opened(socket_path, ring, queues=2) as device:
        assert device.spread == "the device spreads packets over 2 queues by itself"
        peer.command("start")
        for number, (rx, tx) in enumerate(zip(device.rx, device.tx, strict=True)):
            numbers = range(number * PACKETS, number * PACKETS + 500)
            assert exchange(tx, rx, numbers) == [swapped(frame(number)) for number in numbers]
        check_counts(device, peer, 1000, 1000)


@pytest.mark.parametrize("ring", RINGS)
def test_a_back_end_that_comes_back_is_taken_up(ring: str, socket_path: Path, start_peer: StartPeer) -> None:
    """testpmd crashes with frames on the ring that it has not taken: the link is down. Another one starts, takes them,
    and goes on with the same rings; the counters go on too.
    """
    peer = start_peer("macswap")
    with opened(socket_path, ring) as device:
        peer.command("start")
        exchange(device.tx[0], device.rx[0], range(1000))
        peer.command("stop")
        pool = ixy.Mempool(64)
        assert send(device.tx[0], pool, range(1000, 1020)) == 20
        pool.release()
        peer.kill()
        until(lambda: not device.link.up)
        socket_path.unlink()
        peer = start_peer("macswap")
        assert device.wait_for_link(TIMEOUT).up
        peer.command("start")
        left: list[bytes] = []
        until(lambda: left.extend(receive(device.rx[0])) or len(left) == 20)
        back = exchange(device.tx[0], device.rx[0], range(1020, 2000))
        assert left + back == [swapped(frame(number)) for number in range(1000, 2000)]
        stats, counts = device.stats(), peer.counts()
        assert (stats.rx_packets, stats.tx_packets, stats.rx_errors) == (2000, 2000, 0)
        assert (counts.rx_packets, counts.tx_packets) == (1000, 1000)


@pytest.mark.parametrize("ring", RINGS)
def test_one_forwarder_between_a_simulated_card_and_a_vhost_user_device(
    ring: str, socket_path: Path, start_peer: StartPeer
) -> None:
    """A simulated 82599 makes frames, testpmd returns them, and a sink at the card checks that all have come back.

    Each device sends packets that lie in the other's pool. A byte of each frame is raised on the way back.
    """
    peer = start_peer("io")
    machine = Machine(stepped=True)
    with (
        opened(socket_path, ring) as vhost,
        ixy.open(f"sim:a,gen=60,count={PACKETS},touch=48", sim=machine) as card,
    ):
        peer.command("start")
        there, back = ixy.Path(card.rx[0], vhost.tx[0]), ixy.Path(vhost.rx[0], card.tx[0], touch)

        def go_on() -> bool:
            if there.counts.received - back.counts.received < WINDOW:
                machine.step()
            run([there, back], 8)
            machine.step(0 if there.counts.received < PACKETS else 1)
            return machine.sink_report("a", "a").received == PACKETS

        until(go_on)
        report = machine.sink_report("a", "a")
        assert report == (PACKETS, PACKETS, 0, 0, 0, 0)
        check_counts(vhost, peer, PACKETS, PACKETS)
