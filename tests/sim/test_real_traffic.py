"""Real traffic: captured from the kernel, and between two Linux network stacks with the driver in the middle.

Everything happens in network namespaces that the tests make and remove.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dpkt
import pytest
from lab import open_card, read_pcap
from namespaces import Namespace, needs, needs_tap, run, tap_name, wait_until
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

import ixy
from ixy import path as paths
from ixy.jit import INTERPRETED
from ixy.path import touch
from ixy.sim.machine import Machine

pytestmark = needs("ethtool", "ping", "tcpdump", "iperf3")


def addresses(host: int) -> list[str]:
    return [f"10.9.0.{host}/24", f"fd09::{host}/64"]


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    with ExitStack() as stack:
        made: list[Namespace] = []
        for host in (1, 2):
            made.append(Namespace(f"ixy-{os.getpid()}-{host}"))
            stack.callback(made[-1].close)
        yield made


# ---------------------------------------------------------------------------------------------------------------------
# Captured, replayed, forwarded, recorded


LAST = b"the last frame of the capture"
SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind(("net", 0))
    for data in sys.argv[1:]:
        sock.send(bytes.fromhex(data))
"""


def capture(namespaces: list[Namespace], path: Path) -> None:
    """Mixed traffic over a veth pair: ARP, ICMP, ICMPv6, TCP, UDP, with and without a VLAN, of all sizes."""
    one, two = namespaces
    run("ip", "link", "add", "ixyv1", "type", "veth", "peer", "name", "ixyv2")
    for host, (namespace, interface) in enumerate(zip(namespaces, ("ixyv1", "ixyv2"), strict=True), 1):
        namespace.take(interface, addresses(host), offloads=False)
    sniffer = ("tcpdump", "-i", "net", "-U", "-s", "0", "-B", "8192", "-w", str(path))
    with one.running(*sniffer, ready="listening on"):
        one.run("ping", "-c", "3", "-i", "0.01", "10.9.0.2")
        one.run("ping", "-c", "3", "-i", "0.01", "fd09::2")
        for size in (0, 1, 18, 100, 777, 1472):
            one.run("ping", "-c", "2", "-i", "0.01", "-s", str(size), "10.9.0.2")
        with two.running("iperf3", "-s", "--forceflush", ready="Server listening"):
            one.run("iperf3", "-c", "10.9.0.2", "-n", "400K")
            one.run("iperf3", "-c", "fd09::2", "-n", "100K")
            one.run("iperf3", "-c", "10.9.0.2", "-u", "-b", "20M", "-l", "900", "-k", "100")
        if has_vlan_interfaces(namespaces):
            one.run("ping", "-c", "3", "-i", "0.01", "-s", "1472", "10.42.0.2")
        one.run(sys.executable, "-c", SEND, *(data.hex() for data in tagged_frames()))
        wait_until(lambda: any(LAST in data for data in read_pcap(path)), "the capture does not come to rest")


def has_vlan_interfaces(namespaces: list[Namespace]) -> bool:
    """Add interfaces for VLAN 42, if this kernel is built with them."""
    for host, namespace in enumerate(namespaces, 1):
        enter = ["ip", "netns", "exec", namespace.name]
        add = [*enter, "ip", "link", "add", "link", "net", "name", "tagged", "type", "vlan", "id", "42"]
        result = subprocess.run(add, capture_output=True, text=True, check=False)
        if "Unknown device type" in result.stderr:
            return False
        assert result.returncode == 0, result.stderr
        namespace.run("ip", "address", "add", f"10.42.0.{host}/24", "dev", "tagged")
        namespace.run("ip", "link", "set", "tagged", "up")
    return True


def tagged_frames() -> list[bytes]:
    """Datagrams in VLAN 42 as a packet socket sends them, the longest at the limit of the link; then the last frame."""
    head = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=42) / IP(dst="10.42.0.2") / UDP(dport=9)
    return [bytes(head / (b"x" * size)) for size in (14, 500, 1472)] + [bytes(head / LAST)]


def kinds(frames: list[bytes]) -> set[str]:
    """The kinds of traffic among frames, as dpkt reads them."""
    found: set[str] = set()
    for data in frames:
        frame = dpkt.ethernet.Ethernet(data)
        if getattr(frame, "vlan_tags", None):
            found.add("VLAN")
        found.add(type(frame.data).__name__)
        if isinstance(frame.data, (dpkt.ip.IP, dpkt.ip6.IP6)):
            found.add(type(frame.data.data).__name__)
    return found


def test_real_packets_through_the_driver(namespaces: list[Namespace], tmp_path: Path) -> None:
    """A capture of mixed traffic goes in at one card, is forwarded with byte 48 raised, and recorded behind another.

    Both files hold the same packets in the same order but for that byte; frames below 60 bytes are padded with zeros.
    """
    before, after = tmp_path / "before.pcap", tmp_path / "after.pcap"
    capture(namespaces, before)
    frames = read_pcap(before)
    assert {"ARP", "IP", "IP6", "ICMP", "ICMP6", "TCP", "UDP", "VLAN"} <= kinds(frames)
    sizes = [len(data) for data in frames]
    assert min(sizes) <= 60
    assert max(sizes) == 1518  # 1514 and a tag
    assert 1514 in sizes
    assert len(frames) < 4096  # so the transmit ring has room for all, however the threads are scheduled
    machine, large = Machine(), {"ring_size": 4096, "pool_size": 8192}
    with (
        open_card(machine, f"sim:a,rx_pcap={before}", **large) as a,
        open_card(machine, f"sim:b,tx_pcap={after}", **large) as b,
    ):
        path = ixy.Path(a.rx[0], b.tx[0], touch)
        deadline = time.monotonic() + 60
        while path.counts.received < len(frames):
            path.run(1024)
            assert time.monotonic() < deadline
        assert path.counts.forwarded == len(frames)
        wait_until(lambda: b.stats().tx_packets == len(frames), "the card does not send all")
        assert a.stats().rx_errors == a.stats().rx_dropped == 0
    expected = [bytearray(data.ljust(60, b"\0")) for data in frames]
    for data in expected:
        data[48] = (data[48] + 1) % 256
    assert read_pcap(after) == [bytes(data) for data in expected]


# ---------------------------------------------------------------------------------------------------------------------
# Linux to Linux


class Forwarder:
    """Two cards whose wires are TAP devices, and a thread that forwards both ways, unchanged."""

    def __init__(self, namespaces: list[Namespace]) -> None:
        machine = Machine()
        self.cards = [open_card(machine, f"sim:{name},tap={tap_name(name)}") for name in "ab"]
        for host, (name, namespace) in enumerate(zip("ab", namespaces, strict=True), 1):
            namespace.take(tap_name(name), addresses(host))
        a, b = self.cards
        self.paths = [ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0])]
        paths.run(self.paths, 0)  # compiles them: whoever pings gives up on a neighbour after three seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if paths.run(self.paths, 64 if INTERPRETED else 4096) == 0:
                time.sleep(0.0001)  # two cores are shared by both ends, the cards and this

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for card in self.cards:
            card.close()


@pytest.fixture
def forwarder(namespaces: list[Namespace]) -> Iterator[Forwarder]:
    forwarder = Forwarder(namespaces)
    yield forwarder
    forwarder.close()


@needs_tap
@pytest.mark.usefixtures("forwarder")
def test_ping_loses_nothing(namespaces: list[Namespace]) -> None:
    """A thousand pings, 2 ms apart, from one network stack through the driver to the other, all answered."""
    one, _ = namespaces
    one.run("ping", "-c", "1", "-w", "30", "10.9.0.2")
    output = one.run("ping", "-q", "-c", "1000", "-i", "0.002", "-W", "10", "10.9.0.2")
    assert "1000 packets transmitted, 1000 received, 0% packet loss" in output


@needs_tap
def test_tcp_flows_for_ten_seconds(namespaces: list[Namespace], forwarder: Forwarder) -> None:
    """iperf3 for ten seconds through the driver: no second of them is without a byte, and all went by the cards."""
    one, two = namespaces
    one.run("ping", "-c", "1", "-w", "30", "10.9.0.2")
    with two.running("iperf3", "-s", "--forceflush", ready="Server listening"):
        report = json.loads(one.run("iperf3", "-c", "10.9.0.2", "-t", "10", "-i", "1", "-J"))
    seconds = [interval["sum"]["bytes"] for interval in report["intervals"]]
    assert len(seconds) >= 10
    assert all(count > 0 for count in seconds[:10]), seconds
    received = report["end"]["sum_received"]["bytes"]
    assert received > 0
    assert forwarder.cards[1].stats().tx_bytes > received
