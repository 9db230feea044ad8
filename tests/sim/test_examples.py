"""The examples, on simulated cards: what they do to packets, and what they count, worked out here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import dpkt
import numpy as np
import pytest
from lab import arrive, depart, open_card
from loading import EXAMPLES, example
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

import ixy
from ixy import tables
from ixy.formats.writing import Writer
from ixy.sim.machine import Machine

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
PAYLOAD = Raw(bytes(range(40)))


def through(machine: Machine, function: Any, record: Any, packets: list[Any]) -> list[bytes]:
    """What a function makes of packets."""
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], function, record)
        for packet in packets:
            arrive(machine, bytes(packet))
        path.run(2 * len(packets))
        return depart(machine)


def udp(source: str, sport: int, dport: int = 53) -> Any:
    return ETHER / IP(src=source, dst="10.0.0.1") / UDP(sport=sport, dport=dport) / PAYLOAD


def test_flow_counter(machine: Machine) -> None:
    """Forty packets of flows that differ in address, port or protocol, and five of none."""
    module = example("flow_counter")
    numbers = np.random.default_rng(7).integers(0, 3, (40, 2)).tolist()
    packets = [udp(f"10.1.0.{host}", 1000 + port) for host, port in numbers]
    tcp = ETHER / IP(src="10.1.0.1", dst="10.0.0.1") / TCP(sport=1001, dport=53) / PAYLOAD
    others = [ETHER / Raw(bytes(50))] * 5
    flows = module.Flows()
    assert through(machine, module.count, flows, [*packets, tcp, *others]) == [*map(bytes, [*packets, tcp, *others])]
    found = {
        (flow.key0 >> 16 & 0xFF, flow.key1 >> 48, flow.key0 & 0xFFFF): flow.packets for flow in tables.used(flows.table)
    }
    assert found == {**Counter((host, 17, 1000 + port) for host, port in numbers), (1, 6, 1001): 1}
    assert sum(flow.bytes for flow in flows.table) == 40 * len(bytes(packets[0])) + len(bytes(tcp))
    assert flows.others == 5


def test_vlan_push_and_pop(machine: Machine) -> None:
    """A tag is put in as Scapy would have it, and what has another tag or none does not come back."""
    module = example("vlan")
    tag = module.Tag()
    tag.vlan = 77
    plain = [udp("10.1.0.1", 5), ETHER / IP() / TCP() / PAYLOAD]
    tagged = [ETHER / Dot1Q(vlan=77) / Ether(bytes(packet)).payload for packet in plain]
    assert through(machine, module.push, tag, plain) == [bytes(packet) for packet in tagged]
    back = [*tagged, plain[0], ETHER / Dot1Q(vlan=78) / IP() / UDP() / PAYLOAD]
    assert through(machine, module.pop, tag, back) == [bytes(packet) for packet in plain]
    assert tag.refused == 2


def test_responder(machine: Machine) -> None:
    """ARP requests and pings for the address are answered, as Scapy would answer; all else is dropped."""
    module = example("responder")
    me = module.Station()
    me.mac, me.address = 0x02_00_00_00_00_09, ixy.Ipv4Address.parse("10.0.0.2")
    asker = {"hwsrc": "02:00:00:00:00:02", "psrc": "10.0.0.1"}
    request = ETHER / ARP(op=1, pdst="10.0.0.2", **asker) / Raw(bytes(18))
    ping = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=7, seq=8) / PAYLOAD
    others = [
        ETHER / ARP(op=1, pdst="10.0.0.3", **asker) / Raw(bytes(18)),
        ETHER / IP(src="10.0.0.1", dst="10.0.0.3") / ICMP() / PAYLOAD,
        udp("10.0.0.1", 1),
    ]
    answers = [Ether(data) for data in through(machine, module.respond, me, [request, ping, *others])]
    back = Ether(src="02:00:00:00:00:09", dst="02:00:00:00:00:02")
    owner = {"hwsrc": "02:00:00:00:00:09", "psrc": "10.0.0.2", "hwdst": "02:00:00:00:00:02", "pdst": "10.0.0.1"}
    assert bytes(answers[0]) == bytes(back / ARP(op=2, **owner) / Raw(bytes(18)))
    assert bytes(answers[1]) == bytes(back / IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=0, id=7, seq=8) / PAYLOAD)
    assert len(answers) == me.answered == 2


def test_udp_echo(machine: Machine) -> None:
    module = example("udp_echo")
    state = module.Echo()
    state.port = 7
    (answer,) = through(machine, module.echo, state, [udp("10.1.0.1", 99, 7), udp("10.1.0.1", 99, 8)])
    back = Ether(dst=ETHER.src, src=ETHER.dst) / IP(src="10.0.0.1", dst="10.1.0.1") / UDP(sport=7, dport=99) / PAYLOAD
    assert answer == bytes(back)
    assert state.packets == 1


def test_heavy_hitters(machine: Machine) -> None:
    """Source number n sends n packets: the sixteen that send most are kept, with what they sent or a little more."""
    module = example("heavy_hitters")
    sketch = module.Sketch()
    order = [host for host in range(1, 25) for _ in range(host)]
    np.random.default_rng(3).shuffle(order)
    for start in range(0, len(order), 50):
        through(machine, module.observe, sketch, [udp(f"10.1.0.{host}", 1) for host in order[start : start + 50]])
    found = {each.address & 0xFF: each.packets for each in sketch.heavy}
    assert set(range(13, 25)) <= set(found)
    assert all(packets >= host for host, packets in found.items() if host > 20)


def test_deduplicator(machine: Machine) -> None:
    """What differs in one byte passes, what was there before does not."""
    module = example("deduplicator")
    seen = module.Seen()
    first = bytes(udp("10.1.0.1", 1))
    variants = [first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :] for at in range(len(first))]
    different = [first, *variants[:40]]
    assert through(machine, module.first_only, seen, [*different, *different[::-1]]) == different
    assert seen.duplicates == len(different)


NAT_ADDRESS, OUTSIDE = "192.0.2.1", "198.51.100.7"


def sent_on(machine: Machine, module: ModuleType, nat: Any, packets: list[Any]) -> list[Any]:
    return [Ether(data) for data in through(machine, module.translate, nat, packets)]


@pytest.mark.parametrize("kind", ["tcp", "udp", "ping", "udp without a checksum"])
def test_nat(machine: Machine, kind: str) -> None:
    """Out from a port of the address, and back to where it came from, with checksums as Scapy makes them."""
    module = example("nat")
    nat = module.Nat(paths=2)
    nat.address = ixy.Ipv4Address.parse(NAT_ADDRESS)

    def made(source: tuple[str, int], target: tuple[str, int], *, back: bool = False) -> Any:
        ip = ETHER / IP(src=source[0], dst=target[0], ttl=9)
        if kind == "ping":
            return ip / ICMP(type=0 if back else 8, id=target[1] if back else source[1], seq=3) / PAYLOAD
        if kind == "tcp":
            return ip / TCP(sport=source[1], dport=target[1], seq=5, flags="A") / PAYLOAD
        return ip / UDP(sport=source[1], dport=target[1], **({} if kind == "udp" else {"chksum": 0})) / PAYLOAD

    hosts = [("10.1.0.1", 1000), ("10.1.0.1", 1001), ("10.1.0.2", 1000)]
    server = OUTSIDE, 80
    out = sent_on(machine, module, nat, [made(host, server) for host in [*hosts, hosts[0]]])
    ports = [packet[ICMP].id if kind == "ping" else packet.sport for packet in out]
    assert len(set(ports[:3])) == 3
    assert ports[3] == ports[0]
    assert [bytes(packet) for packet in out] == [bytes(made((NAT_ADDRESS, port), server)) for port in ports]
    answers = [made(server, (NAT_ADDRESS, port), back=True) for port in ports[:3]]
    unknown = next(port for port in range(5000, 6000) if port not in ports)
    strangers = [
        made(server, (NAT_ADDRESS, unknown), back=True),
        made(server, (NAT_ADDRESS, 80), back=True),  # below all ports of flows
        made(server, ("198.51.100.8", ports[0]), back=True),
        ETHER / IP(src="10.1.0.1", dst=OUTSIDE, flags="MF") / UDP(sport=1) / PAYLOAD,
        ETHER / IP(src="10.1.0.1", dst=OUTSIDE, proto=89) / PAYLOAD,
        ETHER / IP(src="10.1.0.1", dst=OUTSIDE) / ICMP(type=3) / PAYLOAD,
        ETHER / ARP(pdst=NAT_ADDRESS),
    ]
    back = sent_on(machine, module, nat, [*answers, *strangers])
    assert [bytes(packet) for packet in back] == [bytes(made(server, host, back=True)) for host in hosts]
    for flow in tables.used(nat.flows):
        flow.last -= module.AGE  # as if that long ago
    assert sent_on(machine, module, nat, answers) == []


def test_nat_knows_flows_by_protocol_too(machine: Machine) -> None:
    """What answers a TCP flow by UDP is nobody's."""
    module = example("nat")
    nat = module.Nat(paths=2)
    nat.address = ixy.Ipv4Address.parse(NAT_ADDRESS)
    (out,) = sent_on(machine, module, nat, [ETHER / IP(src="10.1.0.1", dst=OUTSIDE) / TCP(sport=7) / PAYLOAD])
    answer = ETHER / IP(src=OUTSIDE, dst=NAT_ADDRESS) / UDP(sport=80, dport=out.sport) / PAYLOAD
    assert sent_on(machine, module, nat, [answer]) == []


def test_nat_begins_no_flow_to_itself(machine: Machine) -> None:
    """Else a host inside could fill the table with what no answer can belong to."""
    module = example("nat")
    nat = module.Nat(paths=2)
    nat.address = ixy.Ipv4Address.parse(NAT_ADDRESS)
    packet = ETHER / IP(src="10.1.0.1", dst=NAT_ADDRESS) / TCP(dport=80) / PAYLOAD
    assert sent_on(machine, module, nat, [packet]) == []
    assert list(tables.used(nat.flows)) == []


def test_balancer(machine: Machine) -> None:
    """A server takes a third of the places, and next to none of those change servers that stay when one goes."""
    module = example("balancer")
    balancer, servers = module.Balancer(), {number: f"02:00:00:00:01:{number:02}" for number in (1, 2, 3)}
    balancer.address = ixy.Ipv4Address.parse("10.0.0.1")
    module.populate(balancer, servers)
    before = np.asarray(balancer.lookup)
    shares = Counter(before.tolist())
    assert set(shares) == {1, 2, 3}
    assert max(shares.values()) - min(shares.values()) <= 1  # they took turns
    packets = [udp(f"10.1.0.{host}", 1000 + host) for host in range(60)]
    others = [ETHER / IP(src="10.1.0.1", dst="10.0.0.2") / UDP() / PAYLOAD, ETHER / ARP()]
    chosen = dict[int, str]()
    for data in through(machine, module.balance, balancer, [*packets, *others]):
        packet = Ether(data)
        chosen[packet.sport] = packet.dst
        packet.dst = ETHER.dst
        assert bytes(packet) == bytes(packets[packet.sport - 1000])
    assert len(chosen) == 60
    assert min(Counter(chosen.values()).values()) > 8
    del servers[2]
    module.populate(balancer, servers)
    moved = np.asarray(balancer.lookup) != before
    assert np.count_nonzero(moved & (before != 2)) < 0.1 * len(before)
    for data in through(machine, module.balance, balancer, packets):
        packet = Ether(data)
        place = tables.hash(int(ixy.Ipv4Address.parse(packet[IP].src)), packet.sport) % module.SIZE
        assert packet.dst == servers[balancer.lookup[place]]
        assert packet.dst == chosen[packet.sport] or chosen[packet.sport] == "02:00:00:00:01:02" or moved[place]


def test_policer(machine: Machine) -> None:
    """A burst of three packets from each /24, then as many as have become due since, by the time of the last one."""
    module = example("policer")
    policer = module.Policer()
    size = len(bytes(udp("10.1.0.1", 1)))
    policer.rate, policer.burst = size, 3 * size  # one packet a second
    packets = [udp(f"10.1.{net}.{host}", 1) for host in range(5) for net in (1, 2)]
    passed = through(machine, module.police, policer, [*packets, ETHER / ARP() / Raw(bytes(18))])
    assert passed == [bytes(each) for each in packets[:6]] + [bytes(ETHER / ARP() / Raw(bytes(18)))]
    assert policer.others == 1
    assert {source.key0: source.dropped for source in tables.used(policer.sources)} == {0x0A0101: 2, 0x0A0102: 2}
    for source in tables.used(policer.sources):
        source.filled -= 2 * tables.SECOND  # as if two seconds had passed
    assert through(machine, module.police, policer, packets) == [bytes(each) for each in packets[:4]]


def test_syn_cookies(machine: Machine) -> None:
    """Who acknowledges the cookie comes through from then on; who guesses, or never had one, does not."""
    module = example("syn_cookies")
    guard = module.Guard()
    guard.secret = 0x1234_5678_9ABC

    def tcp(flags: str, host: str = "10.1.0.1", **fields: Any) -> Any:
        segment = TCP(sport=999, dport=80, flags=flags, **fields)
        return ETHER / IP(src=host, dst="10.0.0.1", ttl=64) / segment / Raw(bytes(20))

    syn = tcp("S", seq=0xFFFF_FFFF, options=[("MSS", 1460), ("NOP", None)] * 2)
    (data,) = through(machine, module.guard, guard, [syn])
    answer = Ether(data)
    expected = (
        Ether(dst=ETHER.src, src=ETHER.dst)
        / IP(src="10.0.0.1", dst="10.1.0.1", ttl=64)
        / TCP(sport=80, dport=999, flags="SA", seq=answer.seq, ack=0, window=8192)
    )
    assert data[:54] == bytes(expected)
    for host, by in (("10.1.0.2", 1), ("10.1.0.1", 2), ("10.1.0.1", 0)):
        assert through(machine, module.guard, guard, [tcp("A", host, ack=answer.seq + by & 0xFFFF_FFFF)]) == []
    right = tcp("A", ack=answer.seq + 1 & 0xFFFF_FFFF)
    assert through(machine, module.guard, guard, [right, syn]) == [bytes(right), bytes(syn)]


def test_sampler(machine: Machine, tmp_path: Path) -> None:
    """All packets pass, and those that were drawn are in the file, in turn, with the time of day at which they came."""
    module = example("sampler")
    sampler = module.Sampler()
    sampler.one_of = 4
    packets = [udp("10.1.0.1", number) for number in range(400)]
    reader = tables.Reader(sampler)
    begun = time.time_ns()
    for start in range(0, len(packets), 50):
        part = packets[start : start + 50]
        assert through(machine, module.sample, sampler, part) == [bytes(packet) for packet in part]
    with Writer(tmp_path / "samples.pcap") as writer:
        module.save(reader, writer)
    with (tmp_path / "samples.pcap").open("rb") as file:
        samples = list(dpkt.pcap.Reader(file))
    numbers = [Ether(data).sport for _, data in samples]
    assert 50 < len(numbers) < 160
    assert numbers == sorted(set(numbers))
    assert [data for _, data in samples] == [bytes(packets[number]) for number in numbers]
    assert all(begun / 1e9 - 1 <= at <= time.time() + 1 for at, _ in samples)


def test_switch(machine: Machine) -> None:
    """Three ports: what is for a station that was not seen goes to both others, then to its port only."""
    module = example("switch")

    def between(source: int, target: int, number: int) -> bytes:
        macs = {"src": f"02:00:00:00:00:{source:02x}", "dst": f"02:00:00:00:00:{target:02x}"}
        return bytes(Ether(**macs) / IP() / UDP(sport=number) / PAYLOAD)

    broadcast = bytes(Ether(src="02:00:00:00:00:0a", dst="ff:ff:ff:ff:ff:ff") / IP() / UDP() / PAYLOAD)
    sent = {
        "a": [between(0xA, 0xB, 1), between(0xA, 0xB, 2), broadcast, between(0xA, 0xA, 3)],
        "b": [between(0xB, 0xA, 4), between(0xB, 0xC, 5)],
        "c": [between(0xC, 0xB, 6)],
    }
    left: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    devices = [open_card(machine, f"sim:{name}") for name in "abc"]
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(device)
        parts = module.paths(devices, stack.enter_context(ixy.Ring(64, producers=3)))
        for name, number in (("a", 0), ("b", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 0)):
            arrive(machine, sent[name][number], name)
            for path in parts:
                path.run(2)
            for each in left:
                left[each] += depart(machine, name=each)
        assert parts[-1].lost == 0
    assert left["a"] == [sent["b"][0], sent["b"][1]]
    assert left["b"] == [sent["a"][0], sent["a"][1], broadcast, sent["c"][0]]
    assert left["c"] == [sent["a"][0], broadcast, sent["b"][1]]


def test_top_talkers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes by source and by port, most first, of those that a filter lets through; and of a file that was cut."""
    packets = [udp("10.1.0.7", 5, 53)] * 3 + [udp("10.1.0.8", 5, 54), ETHER / IP(src="10.1.0.9") / TCP(dport=80)]
    path = tmp_path / "in.pcap"
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for packet in packets:
            writer.writepkt(bytes(packet), ts=0)
    example("top_talkers").main(str(path))
    size, small = len(packets[0]), len(packets[-1])
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines[:-2]] == [
        ["10.1.0.7", f"{3 * size}", "bytes"],
        ["10.1.0.8", f"{size}", "bytes"],
        ["10.1.0.9", f"{small}", "bytes"],
        ["tcp", "port", "80", f"{small}", "bytes"],
        ["udp", "port", "53", f"{3 * size}", "bytes"],
        ["udp", "port", "54", f"{size}", "bytes"],
    ]
    assert lines[-2].startswith("5 packets in ")
    path.write_bytes(path.read_bytes()[:-1])
    example("top_talkers").main(str(path), "tcp or port 54")
    shown = capsys.readouterr()
    assert shown.out.split()[:3] == ["10.1.0.8", f"{size}", "bytes"]
    assert shown.err.startswith("packet 5 at byte")


@pytest.mark.parametrize(
    "name", ["flow_counter", "heavy_hitters", "policer", "syn_cookies", "balancer", "sampler", "switch"]
)
def test_started_as_its_text_says(name: str, tmp_path: Path) -> None:
    """The command in the example's own words runs, and says what it has found."""
    text = (EXAMPLES / f"{name}.py").read_text()
    command = next(line for line in text.splitlines() if line.startswith("python examples/"))
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *command.split()[2:]],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.strip()
