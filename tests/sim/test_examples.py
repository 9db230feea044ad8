"""The examples, on simulated cards: what they do to packets, and what they count, worked out here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from lab import arrive, depart, open_card
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

import ixy
from ixy import tables
from ixy.sim.machine import Machine

EXAMPLES = Path(__file__).parents[2] / "examples"
ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
PAYLOAD = Raw(bytes(range(40)))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # helpers that call each other are looked up there
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.parametrize("name", ["flow_counter", "heavy_hitters"])
def test_started_as_its_text_says(name: str) -> None:
    """The command in the example's own words runs, and says what it has found."""
    text = (EXAMPLES / f"{name}.py").read_text()
    command = next(line for line in text.splitlines() if line.startswith("python examples/"))
    run = subprocess.run(
        [sys.executable, *command.split()[1:]],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.strip()
