"""The kernel's interfaces with several queues, with large frames, and what is counted of each queue."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack

import pytest
from namespaces import needs, run, wait_until
from scapy.layers.l2 import Ether
from veth import OURS, SHORTEST, THEIRS, frame, has_program, listener, veth_pair

import ixy
from ixy.errors import DeviceBusy
from ixy.unsafe.sockets import attach_program, load_program

pytestmark = needs("ethtool")

BOTH = pytest.mark.parametrize("scheme", ["packet", "xdp"])
LONGEST = 2048  # bytes that a packet buffer holds


def by_queue(device: ixy.Device, count: int) -> list[list[bytes]]:
    """So many frames, by the queue to which they came."""
    frames: list[list[bytes]] = [[] for _ in device.rx]
    deadline = time.monotonic() + 30
    while sum(map(len, frames)) < count:
        assert time.monotonic() < deadline, f"{[len(each) for each in frames]} of {count} frames came"
        for queue, found in zip(device.rx, frames, strict=True):
            with queue.receive() as batch:
                found += [bytes(packet) for packet in batch]
    return frames


def test_each_queue_has_its_packets() -> None:
    """What is sent from a queue of one end comes to the queue of that number at the other: so veth does it."""
    with (
        veth_pair(queues=3),
        ixy.open(f"xdp:{OURS}", rx_queues=3, tx_queues=3) as device,
        ixy.open(f"xdp:{THEIRS}", rx_queues=3, tx_queues=3) as peer,
    ):
        sent = [[frame(100 * queue + i, SHORTEST + i) for i in range(20 + queue)] for queue in range(3)]
        for queue, frames in zip(peer.tx, sent, strict=True):
            for data in frames:
                queue.send_scapy(Ether(data))
        assert by_queue(device, 63) == sent
        counted = device.xstats()
        assert [counted[f"rx_q{queue}_packets"] for queue in range(3)] == [20, 21, 22]
        assert device.stats().rx_packets == 63


@BOTH
def test_a_flow_stays_on_a_queue(scheme: str) -> None:
    """Flows are spread over queues, each in its order, by the kernel's hash; together the queues have all packets."""
    frames = [frame(i, SHORTEST, source=2000 + i % 32) for i in range(320)]
    with veth_pair(queues=2), ixy.open(f"{scheme}:{OURS}", rx_queues=2, tx_queues=2) as device:
        with listener(THEIRS) as peer:
            for data in frames:
                peer.send(data)
        found = by_queue(device, len(frames))
    assert sorted(found[0] + found[1]) == sorted(frames)
    ports = [{data[34:36] for data in each} for each in found]
    assert all(ports)
    assert not ports[0] & ports[1]
    for each in found:
        for port in {data[34:36] for data in each}:
            assert [data for data in each if data[34:36] == port] == [data for data in frames if data[34:36] == port]


@pytest.mark.once
def test_packets_of_queues_that_are_not_opened_go_to_the_kernel(caplog: pytest.LogCaptureFixture) -> None:
    """Which it says, and how to have fewer queues."""
    with (
        veth_pair(queues=2),
        caplog.at_level(logging.WARNING, "ixy"),
        ixy.open(f"xdp:{OURS}") as device,
        ixy.open(f"xdp:{THEIRS}", rx_queues=2, tx_queues=2) as peer,
        listener(OURS) as kernel,
    ):
        assert f"ethtool -L {OURS} combined 1, where that is refused rx 1" in caplog.text
        for queue in (1, 0):
            peer.tx[queue].send_scapy(Ether(frame(queue, SHORTEST)))
        assert by_queue(device, 1) == [[frame(0, SHORTEST)]]
        assert kernel.recv(2048) == frame(1, SHORTEST)


@pytest.mark.once
def test_all_packets_to_one_queue(caplog: pytest.LogCaptureFixture) -> None:
    """Of four queues, as ethtool has it. A veth runs the program in its driver only if its peer sends by as few."""
    with veth_pair(queues=4), caplog.at_level(logging.WARNING, "ixy"):
        run("ethtool", "-L", OURS, "rx", "1")
        with ixy.open(f"xdp:{OURS}"):
            assert "1 receive queues, and its peer more to transmit: ethtool -L PEER tx 1" in caplog.text
        caplog.clear()
        run("ethtool", "-L", THEIRS, "tx", "1")
        frames = [frame(i, SHORTEST, source=2000 + i) for i in range(32)]
        with ixy.open(f"xdp:{OURS}") as device, listener(THEIRS) as peer:
            for data in frames:
                peer.send(data)
            assert by_queue(device, 32) == [frames]
        assert not caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# Counters, and frames that are too large


@BOTH
def test_what_finds_no_room_is_counted(scheme: str) -> None:
    """Of 300 long frames that nobody takes, a ring of 64 holds some, and each other one is counted where it was lost:
    by AF_XDP for want of a buffer, as the ring has room for all that there are."""
    sent = [frame(i, 1514) for i in range(300)]
    with veth_pair(), ixy.open(f"{scheme}:{OURS}", ring_size=64) as device, listener(THEIRS) as peer:
        for data in sent:
            peer.send(data)
        found: list[bytes] = []
        while True:
            with device.rx[0].receive(timeout=0.2) as batch:
                found += [bytes(packet) for packet in batch]
                if not len(batch):
                    break
        assert found == sent[: len(found)]
        assert 0 < len(found) < 100
        assert device.stats().rx_dropped == 300 - len(found)
        counted = device.xstats()
        assert counted["rx_q0_socket_drops" if scheme == "packet" else "q0_socket_rx_dropped"] == 300 - len(found)
        assert (counted["rx_q0_packets"], counted["rx_q0_refused"]) == (len(found), 0)
        if scheme == "xdp":
            assert len(found) == 64
            assert counted["q0_socket_rx_fill_ring_empty_descs"] >= 300 - 64
            assert (counted["q0_socket_rx_ring_full"], counted["q0_socket_rx_invalid_descs"]) == (0, 0)


@BOTH
def test_frames_longer_than_a_buffer_are_counted(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """With an MTU of 9000 the interface opens; what fits a buffer passes, and each longer frame is refused once."""
    sizes = [SHORTEST, LONGEST, LONGEST + 1, 1000, 2 * LONGEST, 2 * LONGEST + 1, 9014, 9014, 1514]
    frames = [frame(i, size) for i, size in enumerate(sizes)]
    with veth_pair(mtu=9000), ixy.open(f"{scheme}:{OURS}", ring_size=64) as device, listener(THEIRS) as peer:
        for _ in range(10):  # more parts than there are buffers
            for data in frames:
                peer.send(data)
            assert by_queue(device, 4) == [[data for data in frames if len(data) <= LONGEST]]
        stats = device.stats()
        assert (stats.rx_packets, stats.rx_refused, stats.rx_dropped) == (40, 50, 0)
        assert device.xstats()["rx_q0_refused"] == 50
        with caplog.at_level(logging.WARNING, "ixy"):
            device.close()
        assert f"{scheme}:{OURS}: 50 frames were refused, as longer than 2048 bytes" in caplog.text


@BOTH
def test_what_the_kernel_never_sends_is_not_counted_as_sent(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """Frames that are longer than the MTU allows, where a VLAN tag does not count, and one that is shorter than
    Ethernet's header, between others; once the MTU is larger, longer ones are sent. Closing says what was not."""
    tagged = frame(2, 1514)[:12] + bytes.fromhex("81000005") + frame(2, 1514)[12:]
    frames = [frame(1, 100), frame(9, 1600), tagged, tagged + b"\0", frame(9, 1515), frame(3, 1514), bytes(13)]
    with veth_pair(), ixy.open(f"{scheme}:{OURS}") as device, listener(THEIRS) as peer, ixy.Mempool(64) as pool:

        def send(data: bytes) -> None:
            with pool.allocate(1, len(data)) as batch:
                batch[0][:] = data
                assert device.tx[0].send(batch) == 1

        for data in [*frames, frame(4, 200)]:
            send(data)
        sent = [frame(1, 100), frame(2, 1514), frame(3, 1514), frame(4, 200)]  # the kernel takes the tag out
        assert [peer.recv(2048) for _ in sent] == sent
        stats, counted = device.stats(), device.xstats()
        assert (stats.tx_packets, device.sent()) == (4, 4)
        assert stats.tx_bytes == 100 + 1518 + 1514 + 200 + 4 * 4
        assert (counted["tx_q0_packets"], counted["tx_q0_refused"]) == (4, 4)
        for end in (OURS, THEIRS):
            run("ip", "link", "set", end, "mtu", "1600")
        assert device.link.up
        send(frame(5, 1614))
        assert peer.recv(2048) == frame(5, 1614)
        with caplog.at_level(logging.WARNING, "ixy"):
            device.close()
        assert f"{scheme}:{OURS}: 4 packets were too short, or longer than its MTU of 1500 allows" in caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# Where the program runs, and whose it is


@pytest.mark.once
@pytest.mark.parametrize("mode", ["driver", "generic"])
def test_modes(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """Frames come in both, and what was asked for needs no warning."""
    with (
        veth_pair(),
        caplog.at_level(logging.WARNING, "ixy"),
        ixy.open(f"xdp:{OURS},mode={mode}") as device,
        listener(THEIRS) as peer,
    ):
        assert ("xdpgeneric" if mode == "generic" else "xdp") in run("ip", "link", "show", OURS).split()
        peer.send(frame(1, SHORTEST))
        assert by_queue(device, 1) == [[frame(1, SHORTEST)]]
        assert not caplog.text


@pytest.mark.once
def test_a_driver_without_xdp(caplog: pytest.LogCaptureFixture) -> None:
    """Then the program runs in the kernel's stack, and it is said; who insists on the driver is refused."""
    name = f"ixyd{os.getpid() % 100_000}"
    run("ip", "link", "add", name, "type", "bridge")
    try:
        with caplog.at_level(logging.WARNING, "ixy"), ixy.open(f"xdp:{name}", link_timeout=0):
            assert "xdpgeneric" in run("ip", "link", "show", name)
        assert f"xdp:{name}: generic mode, which is slower: its driver knows no XDP" in caplog.text
        with pytest.raises(ixy.Error, match="cannot attach an XDP program: its driver knows no XDP"):
            ixy.open(f"xdp:{name},mode=driver", link_timeout=0)
    finally:
        run("ip", "link", "del", name)


@pytest.mark.once
def test_a_foreign_program_is_named() -> None:
    """It stays where it is, and goes on."""
    passing = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit
    with veth_pair(), ExitStack() as stack:
        program = load_program(passing, "somebody_elses")
        stack.callback(os.close, program)
        link = attach_program(program, int(run("cat", f"/sys/class/net/{OURS}/ifindex")), 4)
        with pytest.raises(DeviceBusy, match=r"XDP program somebody_elses \(id \d+\) is attached to it: end what"):
            ixy.open(f"xdp:{OURS}")
        assert has_program()
        os.close(link)
        ixy.open(f"xdp:{OURS}").close()


@pytest.mark.once
def test_a_forked_child_does_not_keep_the_interface() -> None:
    """The parent closes it while the child lives on: the program is gone, and the queue is to be had again."""
    with veth_pair():
        device = ixy.open(f"xdp:{OURS}")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        try:
            device.close()
            wait_until(lambda: not has_program(), "the program stays")
            ixy.open(f"xdp:{OURS}").close()
        finally:
            os.close(writer)
            os.waitpid(child, 0)
            os.close(reader)
