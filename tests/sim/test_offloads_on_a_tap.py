"""Offloads in front of the kernel: tcpdump finds checksums right, and no network stack counts a wrong one."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from lab import open_card
from namespaces import Namespace, needs, needs_tap, tap_name, wait_until
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

import ixy
from ixy import Flags
from ixy import path as paths
from ixy.device import Device
from ixy.jit import INTERPRETED
from ixy.packets.batch import Packet as Borrowed
from ixy.packets.mempool import Mempool
from ixy.sim.machine import Machine

pytestmark = [
    *needs("ethtool", "ping", "tcpdump", "nstat"),
    needs_tap,
    pytest.mark.skipif(INTERPRETED, reason="a network stack does not wait for interpreted cards"),
]

COLUMNS = ("flags", "vlan", "segments", "parts")
ALL = ("checksum", "vlan", "segmentation")
IP_PARTIAL, L4_PARTIAL, VLAN = int(Flags.IP_PARTIAL), int(Flags.L4_PARTIAL), int(Flags.VLAN)
PARTIAL = IP_PARTIAL | L4_PARTIAL
WRONG = (
    "TcpInCsumErrors",
    "UdpInCsumErrors",
    "Udp6InCsumErrors",
    "IpInHdrErrors",
    "Ip6InHdrErrors",
    "IpExtInCsumErrors",
)


def addresses(host: int) -> list[str]:
    return [f"10.9.0.{host}/24", f"fd09::{host}/64"]


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    with ExitStack() as stack:
        made: list[Namespace] = []
        for host in (1, 2):
            made.append(Namespace(f"ixy-o-{os.getpid()}-{host}"))
            stack.callback(made[-1].close)
        yield made


def wrong(namespace: Namespace) -> dict[str, int]:
    """What the network stack there has counted of wrong checksums and headers."""
    rows = [line.split() for line in namespace.run("nstat", "-asz", *WRONG).splitlines() if not line.startswith("#")]
    counts = {name: int(count) for name, count, *_ in rows}
    assert counts.keys() == set(WRONG)
    return {name: count for name, count in counts.items() if count}


def send(device: Device, pool: Mempool, data: bytes, **columns: int) -> None:
    with pool.allocate(1, len(data), metadata=COLUMNS) as batch:
        batch[0][:] = data
        for name, value in columns.items():
            setattr(batch, name, value)
        assert device.tx[0].send(batch) == 1


def test_tcpdump_says_correct(namespaces: list[Namespace]) -> None:
    """TCP and UDP over IPv4 and IPv6, whole and in segments, with a tag and without, all with nonsense in place of
    checksums: tcpdump calls each right, and so does the stack behind it."""
    one, _ = namespaces
    with (
        open_card(Machine(), f"sim:a,tap={tap_name('o')}", metadata=COLUMNS, offloads=ALL) as device,
        Mempool(256) as pool,
    ):
        one.take(tap_name("o"), addresses(1))
        ethernet = Ether(src="02:00:00:00:00:02", dst=one.mac)
        v4, v6 = IP(src="10.9.0.2", dst="10.9.0.1", chksum=1), IPv6(src="fd09::2", dst="fd09::1")
        udp, tcp = UDP(sport=9, dport=9, chksum=2), TCP(sport=9, dport=9, flags="A", chksum=3)
        frames = 0
        dump = ("tcpdump", "-i", "net", "-e", "-vv", "-n", "-l", "-c", "22", "ether src 02:00:00:00:00:02")
        with one.running(*dump, ready="listening on") as tcpdump:
            for network in (v4, v6):
                for transport in (udp, tcp):
                    data = bytes(ethernet / network / transport / b"some bytes")
                    send(device, pool, data, flags=PARTIAL)
                    send(device, pool, data, flags=PARTIAL | VLAN, vlans=5)
                    frames += 2
                send(device, pool, bytes(ethernet / network / tcp / bytes(6500)), segments=1000)
                frames += 7
            output, _ = tcpdump.communicate(timeout=60)
        assert frames == 22
        assert output.count("(correct)") == 2 * (2 + 7)
        assert output.count("[udp sum ok]") == 4
        assert "bad" not in output
        assert "incorrect" not in output
        assert output.count("vlan 5") == 4
        assert wrong(one) == {}
        assert device.xstats()["tx_q0_unchanged"] == 0


@ixy.kernel
def leave_out(packet: Borrowed) -> int:
    """Spoil all checksums, as a virtual machine leaves them out, and say that they are to be made."""
    if packet.ipv4:
        packet.ipv4.checksum = 1
        packet.flags |= IP_PARTIAL
    if packet.tcp:
        packet.tcp.checksum = 2
        packet.flags |= L4_PARTIAL
    if packet.udp:
        packet.udp.checksum = 3
        packet.flags |= L4_PARTIAL
    return ixy.FORWARD


class Forwarder:
    """Two cards with offloads, whose wires are TAP devices, and a thread that forwards both ways."""

    def __init__(
        self, namespaces: list[Namespace], offloads: Sequence[str], columns: Sequence[str], function: Any
    ) -> None:
        machine, asked = Machine(), {"metadata": columns, "offloads": offloads}
        self.cards = [open_card(machine, f"sim:{name},tap={tap_name(name)}", **asked) for name in "ab"]
        for host, (name, namespace) in enumerate(zip("ab", namespaces, strict=True), 1):
            namespace.take(tap_name(name), addresses(host), offloads=False)
        a, b = self.cards
        self.paths = [ixy.Path(a.rx[0], b.tx[0], function), ixy.Path(b.rx[0], a.tx[0], function)]
        paths.run(self.paths, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            paths.run(self.paths, 256, wait=0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for card in self.cards:
            card.close()


RECEIVE = """
import hashlib, socket, sys
with socket.create_server(("::", 5000), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("listening", flush=True)
    for _ in range(2):
        connection, _ = server.accept()
        digest = hashlib.sha256()
        while data := connection.recv(1 << 16):
            digest.update(data)
        print(digest.hexdigest(), flush=True)
"""
SEND = """
import random, socket, sys
data = random.Random(7).randbytes(int(sys.argv[1]))
for address in ("10.9.0.2", "fd09::2"):
    with socket.create_connection((address, 5000)) as connection:
        connection.sendall(data)
"""
SIZE = 4_000_000


def transfer(namespaces: list[Namespace]) -> None:
    """Some megabytes from one network stack to the other, over IPv4 and IPv6, arrive as they were."""
    import random

    one, two = namespaces
    one.run("ping", "-c", "1", "-w", "30", "10.9.0.2")
    one.run("ping", "-c", "1", "-w", "30", "fd09::2")
    with two.running(sys.executable, "-c", RECEIVE, ready="listening") as receiver:
        one.run(sys.executable, "-c", SEND, str(SIZE))
        output, _ = receiver.communicate(timeout=60)
    expected = hashlib.sha256(random.Random(7).randbytes(SIZE)).hexdigest()
    assert output.split().count(expected) == 2


def test_checksums_that_were_left_out(namespaces: list[Namespace]) -> None:
    """A function spoils each, and the card makes it again."""
    forwarder = Forwarder(namespaces, ["checksum"], ["flags"], leave_out)
    try:
        transfer(namespaces)
    finally:
        forwarder.close()
    assert wrong(namespaces[0]) == wrong(namespaces[1]) == {}


def test_segments_that_were_put_together(namespaces: list[Namespace]) -> None:
    """One card puts them together, and the other cuts them again: fewer packets are forwarded than frames are sent."""
    forwarder = Forwarder(namespaces, ["segmentation", "coalescing"], ["segments", "parts"], paths.unchanged)
    try:
        transfer(namespaces)
        forwarded, card = forwarder.paths[0].counts.forwarded, forwarder.cards[1]
        wait_until(lambda: card.sent() >= forwarded, "the card does not send all")
        assert card.stats().tx_packets > forwarded
        assert card.xstats()["tx_q0_unchanged"] == card.xstats()["tx_q0_refused"] == 0
    finally:
        forwarder.close()
    assert wrong(namespaces[0]) == wrong(namespaces[1]) == {}
