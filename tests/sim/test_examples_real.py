"""The examples between real programs: in network namespaces, on cards whose wires are TAP devices."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dpkt
import pytest
from lab import open_card, read_pcap
from loading import example
from namespaces import Namespace, needs, needs_tap, tap_name, wait_until

import ixy
from ixy import tables
from ixy.device import Device
from ixy.jit import INTERPRETED
from ixy.sim.machine import Machine

pytestmark = [
    *needs("arping", "curl", "iperf3", "ping", "tcpdump"),
    needs_tap,
    pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are too slow for TCP"),
]

IPERF3 = ("iperf3", "-s", "--forceflush")
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{sys.argv[1]} to {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
print("ready", flush=True)
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""


class Rig:
    """Cards whose wires end in namespaces, and a thread that runs paths between them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._machine = stack, Machine()

    def end(self, name: str, *addresses: str) -> tuple[Device, Namespace]:
        """A card, and the namespace at the other end of its wire; IPv4 only, so that nothing speaks unasked."""
        namespace = Namespace(f"ixy-{os.getpid()}-{name}")
        self._stack.callback(namespace.close)
        namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        card = self._stack.enter_context(open_card(self._machine, f"sim:{name},tap={tap_name(name)}"))
        namespace.take(tap_name(name), addresses)
        return card, namespace

    def enter(self, ring: ixy.Ring) -> ixy.Ring:
        """Close it at the end of the test."""
        return self._stack.enter_context(ring)

    def run(self, *paths: ixy.Path) -> None:
        """Run paths in a thread until the end of the test."""
        stop = threading.Event()
        for path in paths:
            path.run(1)  # compiles it

        def work() -> None:
            while not stop.is_set():
                if sum(path.run(64) for path in paths) == 0:
                    time.sleep(0.0001)  # two cores are shared by all ends, the cards and this

        thread = threading.Thread(target=work)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(stop.set)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


def knows(namespace: Namespace, address: str, mac: str) -> None:
    """Let an address be reached through the interface, without ARP."""
    namespace.run("ip", "route", "replace", address, "dev", "net")
    namespace.run("ip", "neighbour", "replace", address, "lladdr", mac, "dev", "net")


def test_arping_and_ping_at_the_responder(rig: Rig) -> None:
    card, host = rig.end("a", "10.9.0.1/24")
    module = example("responder")
    me = module.Station()
    me.mac, me.address = int.from_bytes(card.mac, "big"), ixy.Ipv4Address.parse("10.9.0.2")
    rig.run(ixy.Path(card.rx[0], card.tx[0], module.respond, me))
    answers = host.run("arping", "-c", "3", "-W", "0.01", "-i", "net", "10.9.0.2")
    assert answers.count(f"from {card.mac.hex(':')} (10.9.0.2)") == 3
    assert "200 received, 0% packet loss" in host.run("ping", "-q", "-c", "200", "-i", "0.002", "10.9.0.2")
    assert me.answered >= 203


def test_iperf3_curl_and_ping_through_nat(rig: Rig) -> None:
    """They reach a server that sees one address, and knows of no other."""
    module = example("nat")
    (a, inside), (b, outside) = rig.end("a", "10.1.0.1/24"), rig.end("b", "198.51.100.7/24")
    knows(inside, "198.51.100.7", outside.mac)
    knows(outside, "192.0.2.1", inside.mac)
    nat = module.Nat(paths=2)
    nat.address = ixy.Ipv4Address.parse("192.0.2.1")
    rig.run(*(ixy.Path(x.rx[0], y.tx[0], module.translate, nat) for x, y in ((a, b), (b, a))))
    assert "100 received, 0% packet loss" in inside.run("ping", "-q", "-c", "100", "-i", "0.002", "198.51.100.7")
    with outside.running(sys.executable, "-c", SERVER, "all", ready="ready"):
        assert inside.run("curl", "-sS", "http://198.51.100.7/") == "all to 192.0.2.1"
    with outside.running(*IPERF3, ready="Server listening"):
        report = json.loads(inside.run("iperf3", "-c", "198.51.100.7", "-t", "2", "-J"))
        assert report["end"]["sum_received"]["bytes"] > 1_000_000
        report = json.loads(inside.run("iperf3", "-c", "198.51.100.7", "-u", "-b", "5M", "-k", "200", "-J"))
        assert report["end"]["sum"]["lost_packets"] == 0
    assert Counter(flow.key1 for flow in tables.used(nat.flows)) == {
        1: 1,
        6: 4,
        17: 1,
    }  # iperf3 has two for TCP, one to talk


def test_iperf3_and_curl_through_the_balancer(rig: Rig) -> None:
    """Each connection arrives at the server that the table has for it, and is answered past the balancer."""
    module = example("balancer")
    a, client = rig.end("a", "10.9.0.1/24")
    servers = {number: rig.end(name, f"10.9.0.{number + 1}/24") for number, name in ((1, "b"), (2, "c"))}
    balancer = module.Balancer()
    balancer.address = ixy.Ipv4Address.parse("10.9.9.9")
    module.populate(balancer, {number: server.mac for number, (_, server) in servers.items()})
    knows(client, "10.9.9.9", "02:00:00:00:00:ff")
    for _, server in servers.values():
        server.run("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
        knows(server, "10.9.0.1", client.mac)
    cards = [card for card, _ in servers.values()]
    rig.run(
        ixy.Path(a.rx[0], [card.tx[0] for card in cards], module.balance, balancer),
        *(ixy.Path(card.rx[0], a.tx[0]) for card in cards),
    )
    address = int(ixy.Ipv4Address.parse("10.9.0.1"))
    chosen = {port: balancer.lookup[tables.hash(address, port) % module.SIZE] for port in range(20_000, 30_000)}
    with ExitStack() as stack:
        for number, (_, server) in servers.items():
            stack.enter_context(server.running(sys.executable, "-c", SERVER, str(number), ready="ready"))
            stack.enter_context(server.running(*IPERF3, ready="Server listening"))
        answers = {
            port: client.run("curl", "-sS", "--local-port", str(port), "http://10.9.9.9/")
            for port in range(20_000, 20_020)
        }
        assert answers == {port: f"{chosen[port]} to 10.9.0.1" for port in answers}
        assert len(set(answers.values())) == 2
        # Both connections of iperf3 are to come from ports whose server is the second one.
        first = next(port for port in chosen if all(chosen.get(port + i) == 2 for i in range(6)))
        client.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={first} {first + 5}")
        report = json.loads(client.run("iperf3", "-c", "10.9.9.9", "-t", "2", "-J"))
        assert report["end"]["sum_received"]["bytes"] > 1_000_000


def test_curl_behind_syn_cookies(rig: Rig) -> None:
    """The first connection shows that the client is there, and is reset by the server; the next one is like any."""
    module = example("syn_cookies")
    (a, client), (b, server) = rig.end("a", "10.9.0.1/24"), rig.end("b", "10.9.0.2/24")
    state = module.Guard()
    state.secret = 0x1234_5678
    rig.run(ixy.Path(a.rx[0], [a.tx[0], b.tx[0]], module.guard, state), ixy.Path(b.rx[0], a.tx[0]))
    with server.running(sys.executable, "-c", SERVER, "all", ready="ready"):
        with pytest.raises(AssertionError, match=r"reset|Failed to connect"):
            client.run("curl", "-sS", "http://10.9.0.2/")
        assert client.run("curl", "-sS", "http://10.9.0.2/") == "all to 10.9.0.1"


def flows_of(file: Path) -> dict[tuple[int, int], tuple[int, int]]:
    """Packets and bytes by both ends, as the flow counter has them, of the frames in a capture file."""
    packets, sizes = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for data in read_pcap(file):
        ip = dpkt.ethernet.Ethernet(data).data
        if isinstance(ip, dpkt.ip.IP) and isinstance(ip.data, (dpkt.tcp.TCP, dpkt.udp.UDP)):
            source, target = (int.from_bytes(address, "big") for address in (ip.src, ip.dst))
            key = source << 16 | ip.data.sport, ip.p << 48 | target << 16 | ip.data.dport
            packets[key] += 1
            sizes[key] += max(len(data), 60)
    return {key: (packets[key], sizes[key]) for key in packets}


def test_flow_counter_counts_as_tcpdump(rig: Rig, tmp_path: Path) -> None:
    """Packets and bytes of each flow that went one way, counted on the path and captured where they came from."""
    module, file = example("flow_counter"), tmp_path / "sent.pcap"
    (a, one), (b, two) = rig.end("a", "10.9.0.1/24"), rig.end("b", "10.9.0.2/24")
    flows = module.Flows()
    rig.run(ixy.Path(a.rx[0], b.tx[0], module.count, flows), ixy.Path(b.rx[0], a.tx[0]))
    one.run("ethtool", "-K", "net", "tx", "off", "tso", "off", "gso", "off")
    sniffer = ("tcpdump", "-i", "net", "-Q", "out", "-U", "-B", "8192", "-w", str(file))
    with one.running(*sniffer, ready="listening on"), two.running(*IPERF3, ready="Server listening"):
        one.run("ping", "-c", "3", "-i", "0.01", "10.9.0.2")
        one.run("iperf3", "-c", "10.9.0.2", "-n", "4M")
        one.run("iperf3", "-c", "10.9.0.2", "-u", "-b", "20M", "-l", "900", "-k", "200")
        wait_until(
            lambda: (
                flows_of(file)
                == {(flow.key0, flow.key1): (flow.packets, flow.bytes) for flow in tables.used(flows.table)}
            ),
            "the counters do not become those of tcpdump",
        )
    assert len(flows_of(file)) == 4
    assert flows.others >= 3


def test_four_hosts_on_the_switch(rig: Rig) -> None:
    """Each pings each by ARP and broadcasts, and TCP goes through; what two talk about no other sees."""
    module = example("switch")
    hosts = [rig.end(name, f"10.9.0.{number}/24") for number, name in enumerate("abcd", 1)]
    ring = rig.enter(ixy.Ring(producers=4))
    parts = module.paths([card for card, _ in hosts], ring)
    rig.run(*parts)
    for _, host in hosts:
        for number in range(1, 5):
            assert "20 received, 0% packet loss" in host.run(
                "ping", "-q", "-c", "20", "-i", "0.002", f"10.9.0.{number}"
            )
    before = parts[-1].sent
    with hosts[1][1].running(*IPERF3, ready="Server listening"):
        report = json.loads(hosts[0][1].run("iperf3", "-c", "10.9.0.2", "-t", "1", "-J"))
    assert report["end"]["sum_received"]["bytes"] > 1_000_000
    gained = [now - then for then, now in zip(before, parts[-1].sent, strict=True)]
    assert min(gained[:2]) > 500
    assert max(gained[2:]) < 20
