"""The commands, as processes, against DPDK's testpmd: every packet is counted on both sides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dpkt
import pytest

import ixy.errors
from ixy.bench.testpmd import Testpmd, back_end

pytestmark = pytest.mark.peer

StartPeer = Callable[..., Testpmd]
RINGS = ["split", "packed"]
COMMAND = [sys.executable, "-m", "ixy"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ixy.errors.__file__).parents[1])}
PACKETS = 5000
TIMEOUT = 120.0  # seconds; a cold compile cache is no failure
FILE_HEADER, RECORD_HEADER = 24, 16  # bytes of a capture
SIZE = 64  # of the packets that testpmd makes
BURST = 32  # that testpmd sends first
CRC = 4  # the driver counts bytes with the frame check sequence, testpmd without


class Running:
    """A command that runs, with its report in JSON."""

    def __init__(self, *arguments: str) -> None:
        command = [*COMMAND, *arguments, "--json"]
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ended(self) -> dict[str, Any]:
        """The summary, when it has ended by itself or by a signal; it must have gone well."""
        output, self.errors = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, self.errors
        return json.loads(output.splitlines()[-1])

    def interrupted(self) -> dict[str, Any]:
        """The summary after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `ixy`; what still runs when the test is over is killed."""
    with ExitStack() as stack:

        def run(*arguments: str) -> Running:
            running = Running(*arguments)
            stack.callback(running.process.communicate)
            stack.callback(running.process.kill)
            return running

        yield run


def until(done: Callable[[], bool]) -> None:
    """Come back as soon as `done` is true; fail if that takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "nothing moves any more"
        time.sleep(0.01)


def connected(peer: Testpmd) -> bool:
    return "Link status: up" in peer.command("show port info 0")


def records(path: Path) -> int:
    """How many packets a capture of testpmd's packets holds, by its size."""
    return (path.stat().st_size - FILE_HEADER) // (RECORD_HEADER + SIZE) if path.exists() else 0


def read(path: Path) -> list[bytes]:
    """The packets of a capture, by a library that is not ours."""
    with path.open("rb") as file:
        return [bytes(packet) for _, packet in dpkt.pcap.Reader(file)]


@pytest.mark.parametrize("ring", RINGS)
def test_all_that_is_generated_is_received(ring: str, socket_path: Path, start_peer: StartPeer, start: Start) -> None:
    """testpmd only receives: when `ixy generate --count` has ended, it has all packets."""
    peer = start_peer("rxonly")
    peer.command("start")
    summary = start("generate", f"vhost-user:{socket_path},ring={ring}", "--count", str(PACKETS)).ended()
    counts = peer.wait_for(PACKETS)
    (device,) = summary["devices"]
    assert summary["generated"] == device["tx_packets"] == counts.rx_packets == PACKETS
    assert device["tx_bytes"] == counts.rx_bytes + CRC * PACKETS


@pytest.mark.parametrize("ring", RINGS)
def test_packets_that_nobody_takes_are_told(ring: str, socket_path: Path, start_peer: StartPeer, start: Start) -> None:
    """testpmd does not forward: 100 packets stay on the ring, which is said when the command gives up on them."""
    peer = start_peer("rxonly")
    running = start("generate", f"vhost-user:{socket_path},ring={ring}", "--count", "100")
    assert running.ended()["generated"] == 100
    assert f"ixy: vhost-user:{socket_path}: 100 packets were handed to it and not sent" in running.errors.splitlines()
    assert peer.counts().rx_packets == 0


@pytest.mark.parametrize("ring", RINGS)
def test_all_that_testpmd_sends_is_captured(
    ring: str, socket_path: Path, start_peer: StartPeer, start: Start, tmp_path: Path
) -> None:
    """testpmd only sends, until it is stopped; Ctrl-C when the file has all that it says it has sent."""
    peer = start_peer("txonly")
    file = tmp_path / "out.pcap"
    peer.command("start")
    running = start("capture", f"vhost-user:{socket_path},ring={ring}", str(file))
    until(lambda: records(file) >= PACKETS)
    peer.command("stop")
    sent = peer.counts().tx_packets
    until(lambda: records(file) >= sent)
    summary = running.interrupted()
    (device,) = summary["devices"]
    assert summary["captured"] == device["rx_packets"] == records(file) == sent
    assert device["rx_dropped"] == device["rx_errors"] == device["rx_refused"] == 0


def test_a_capture_ends_at_its_count(socket_path: Path, start_peer: StartPeer, start: Start, tmp_path: Path) -> None:
    """testpmd sends for ever: the file has as many packets as were asked for, each of 64 bytes."""
    peer = start_peer("txonly")
    peer.command("start")
    file = tmp_path / "out.pcap"
    summary = start("capture", f"vhost-user:{socket_path}", str(file), "--count", str(PACKETS)).ended()
    assert summary["captured"] == PACKETS
    assert [len(packet) for packet in read(file)] == [SIZE] * PACKETS
    assert peer.counts().tx_packets >= PACKETS


@pytest.mark.parametrize("ring", RINGS)
def test_forwarding_between_two_back_ends_loses_nothing(ring: str, tmp_path: Path, start: Start) -> None:
    """One testpmd sends until it is stopped, another receives: both and the forwarder have counted the same packets."""
    paths = tmp_path / "one", tmp_path / "other"
    with ExitStack() as stack:
        sender, receiver = (back_end(str(path), mode) for path, mode in zip(paths, ("txonly", "rxonly"), strict=True))
        for peer in (sender, receiver):
            stack.callback(peer.close)
            peer.command("start")
        running = start("forward", *(f"vhost-user:{path},ring={ring}" for path in paths))
        until(lambda: receiver.counts().rx_packets >= PACKETS)
        sender.command("stop")
        sent = sender.counts().tx_packets
        received = receiver.wait_for(sent).rx_packets
        summary = running.interrupted()
    source, target = summary["devices"]
    assert summary["received"] == summary["forwarded"] == sent == received
    assert (source["rx_packets"], target["tx_packets"]) == (sent, sent)
    assert (source["tx_packets"], target["rx_packets"]) == (0, 0)
    assert source["rx_dropped"] == source["rx_errors"] == source["rx_refused"] == 0


@pytest.mark.parametrize("ring", RINGS)
def test_echo_and_macswap_play_ball(ring: str, socket_path: Path, start_peer: StartPeer, start: Start) -> None:
    """testpmd sends 32 packets and returns what it gets, as `ixy echo` does: they go to and fro until the count is
    reached. testpmd has received all that was echoed; at most its 32 were on their way when the command ended.
    """
    peer = start_peer("macswap")
    running = start("echo", f"vhost-user:{socket_path},ring={ring}", "--count", str(PACKETS))
    until(lambda: connected(peer))
    peer.command("start tx_first")
    summary = running.ended()
    counts = peer.wait_for(PACKETS)
    (device,) = summary["devices"]
    assert summary["received"] == summary["forwarded"] == PACKETS
    assert device["rx_packets"] == device["tx_packets"] == counts.rx_packets == PACKETS
    assert PACKETS <= counts.tx_packets <= PACKETS + BURST
