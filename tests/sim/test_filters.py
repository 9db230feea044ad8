"""Filters of the simulated card that choose a packet's queue before RSS does: by Ethertype, by five fields, by SYN.

Registers are written here as DPDK's driver writes them, and by the datasheet's figures (7.1.2, 8.2.3.7).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from lab import open_card
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw
from steering import queue_of

from ixy.device import Device
from ixy.sim.card import state
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

SAQF, DAQF, SDPQF, FTQF, L34TIMIR = 0xE000, 0xE200, 0xE400, 0xE600, 0xE800
SYNQF, ETQF, ETQS = 0xEC30, 0x5128, 0xEC00
ENABLE = 1 << 31
SOURCE, TARGET, SPORT, DPORT = "10.1.2.3", "192.168.7.9", 1234, 53

# FTQF: fields that are not compared
ANY = {"source": 1 << 25, "target": 1 << 26, "sport": 1 << 27, "dport": 1 << 28, "protocol": 1 << 29}
ANY_POOL = 1 << 30
PROTOCOLS = {"tcp": 0, "udp": 1, "sctp": 2, "other": 3}

V4 = IP(src=SOURCE, dst=TARGET)
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
PORTS = {"sport": SPORT, "dport": DPORT}


@pytest.fixture
def machine() -> Machine:
    return Machine(stepped=True)


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, rx_queues=8, ring_size=64, pool_size=96) as device:
        device.set_rss_table([0])
        yield device


@pytest.fixture
def card(machine: Machine, device: Device) -> Card:
    assert device.rx
    return machine.cards["a"]


def as_on_the_wire(address: str) -> int:
    """What DPDK writes: an address in the order of the network, in memory of a little-endian machine."""
    return struct.unpack("<I", socket.inet_aton(address))[0]


def write_tuple(card: Card, number: int, queue: int, *compared: str, protocol: str = "udp", priority: int = 1) -> None:
    """A filter for SOURCE, TARGET, SPORT and DPORT that compares some of them."""
    card.write32(SAQF + 4 * number, as_on_the_wire(SOURCE))
    card.write32(DAQF + 4 * number, as_on_the_wire(TARGET))
    card.write32(SDPQF + 4 * number, socket.htons(DPORT) << 16 | socket.htons(SPORT))
    card.write32(L34TIMIR + 4 * number, queue << 21 | 64 << 13 | 1 << 12)
    masked = sum(bit for name, bit in ANY.items() if name not in compared)
    card.write32(FTQF + 4 * number, ENABLE | ANY_POOL | masked | priority << 2 | PROTOCOLS[protocol])


# ---------------------------------------------------------------------------------------------------------------------
# By Ethertype


@pytest.mark.parametrize("number", [0, 3, 7])
def test_ethertype(machine: Machine, device: Device, card: Card, number: int) -> None:
    """Behind a VLAN tag, too. The descriptor tells the filter's number in the place of the packet type."""
    card.write32(ETQS + 4 * number, ENABLE | 5 << 16)
    card.write32(ETQF + 4 * number, ENABLE | 0x0806)
    for packet in (ARP(), Dot1Q(vlan=3) / ARP()):
        assert queue_of(machine, device, packet) == 5
        words = machine.rack.cards[card.index]
        assert int(words[state.WORD_0]) & 0x1FFFF == 1 << 15 | number << 4
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 0
    card.write32(ETQF + 4 * number, 0x0806)
    assert queue_of(machine, device, ARP()) == 0


def test_ethertype_without_queue(machine: Machine, device: Device, card: Card) -> None:
    """It says what the packet is, and leaves the queue to others."""
    card.write32(ETQS, 5 << 16)
    card.write32(ETQF, ENABLE | 1 << 30 | 0x9000)
    assert queue_of(machine, device, Raw(b"\x02")) == 0
    assert int(machine.rack.cards[card.index, state.WORD_0]) & 1 << 15


def test_ethertype_with_priority(machine: Machine, device: Device, card: Card) -> None:
    """UP_EN: only frames with this priority in their tag."""
    card.write32(ETQS, ENABLE | 5 << 16)
    card.write32(ETQF, ENABLE | 1 << 19 | 6 << 16 | 0x0806)
    assert queue_of(machine, device, Dot1Q(prio=6) / ARP()) == 5
    assert queue_of(machine, device, Dot1Q(prio=5) / ARP()) == 0
    assert queue_of(machine, device, ARP()) == 0


# ---------------------------------------------------------------------------------------------------------------------
# By five fields


@pytest.mark.parametrize("number", [0, 127])
def test_all_five_fields(machine: Machine, device: Device, card: Card, number: int) -> None:
    write_tuple(card, number, 3, "source", "target", "sport", "dport", "protocol")
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 3
    assert queue_of(machine, device, Dot1Q(vlan=9) / V4 / UDP(**PORTS)) == 3
    others = [
        IP(src="10.1.2.4", dst=TARGET) / UDP(**PORTS),
        IP(src=SOURCE, dst="192.168.7.8") / UDP(**PORTS),
        V4 / UDP(sport=SPORT + 1, dport=DPORT),
        V4 / UDP(sport=SPORT, dport=DPORT + 256),
        V4 / UDP(sport=DPORT, dport=SPORT),
        V4 / TCP(**PORTS),
        V6 / UDP(**PORTS),
        ARP(),
    ]
    assert [queue_of(machine, device, packet) for packet in others] == [0] * len(others)
    card.write32(FTQF + 4 * number, 0)
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 0


@pytest.mark.parametrize(
    ("compared", "matching", "other"),
    [
        ("source", IP(src=SOURCE, dst="1.1.1.1") / ICMP(), IP(src=TARGET, dst=SOURCE) / ICMP()),
        ("target", IP(src="1.1.1.1", dst=TARGET) / ICMP(), IP(src=TARGET, dst=SOURCE) / ICMP()),
        ("sport", IP() / TCP(sport=SPORT, dport=1), IP() / TCP(sport=1, dport=SPORT)),
        ("dport", V6 / TCP(sport=1, dport=DPORT), V6 / TCP(sport=DPORT, dport=1)),
        ("dport", IP() / SCTP(sport=1, dport=DPORT), IP() / ICMP()),
        ("protocol", V6 / UDP(), V6 / TCP()),
    ],
)
def test_one_field(
    machine: Machine, device: Device, card: Card, compared: str, matching: Packet, other: Packet
) -> None:
    """What is masked may be anything. A filter that compares no address is for IPv6, too; ports are there or not."""
    write_tuple(card, 9, 6, compared)
    assert queue_of(machine, device, matching) == 6
    assert queue_of(machine, device, other) == 0


@pytest.mark.parametrize(
    ("protocol", "packet"),
    [("tcp", TCP(**PORTS)), ("udp", UDP(**PORTS)), ("sctp", SCTP(**PORTS)), ("other", ICMP())],
)
def test_protocols(machine: Machine, device: Device, card: Card, protocol: str, packet: Packet) -> None:
    write_tuple(card, 1, 4, "protocol", protocol=protocol)
    kinds = {"tcp": TCP(**PORTS), "udp": UDP(**PORTS), "sctp": SCTP(**PORTS), "other": ICMP()}
    assert {name: queue_of(machine, device, V4 / kind) for name, kind in kinds.items()} == {
        name: 4 if name == protocol else 0 for name in kinds
    }
    assert queue_of(machine, device, V4 / packet) == 4


def test_fragments_match_no_five_fields(machine: Machine, device: Device, card: Card) -> None:
    write_tuple(card, 1, 4, "target")
    assert queue_of(machine, device, IP(src=SOURCE, dst=TARGET, flags="MF") / UDP(**PORTS)) == 0
    assert queue_of(machine, device, IP(src=SOURCE, dst=TARGET, frag=5) / UDP(**PORTS)) == 0


def test_priorities(machine: Machine, device: Device, card: Card) -> None:
    """7 goes first; of equal ones the filter with the lowest number."""
    write_tuple(card, 3, 1, "target", priority=2)
    write_tuple(card, 4, 2, "target", priority=7)
    write_tuple(card, 5, 3, "target", priority=7)
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 2
    write_tuple(card, 4, 2, "target", priority=1)
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 3
    card.write32(FTQF + 4 * 5, 0)
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 1


# ---------------------------------------------------------------------------------------------------------------------
# By SYN, and what comes first


def test_syn(machine: Machine, device: Device, card: Card) -> None:
    card.write32(SYNQF, 1 | 6 << 1)
    assert queue_of(machine, device, V4 / TCP(flags="S", **PORTS)) == 6
    assert queue_of(machine, device, V6 / TCP(flags="SA", **PORTS)) == 6
    assert queue_of(machine, device, V4 / TCP(flags="A", **PORTS)) == 0
    assert queue_of(machine, device, V4 / UDP(**PORTS)) == 0
    card.write32(SYNQF, 6 << 1)
    assert queue_of(machine, device, V4 / TCP(flags="S", **PORTS)) == 0


def test_which_filter_comes_first(machine: Machine, device: Device, card: Card) -> None:
    """Five fields before SYN, unless SYNQFP says otherwise; RSS comes last."""
    packet = V4 / TCP(flags="S", **PORTS)
    device.set_rss_table([1])
    assert queue_of(machine, device, packet) == 1
    card.write32(SYNQF, 1 | 6 << 1)
    assert queue_of(machine, device, packet) == 6
    write_tuple(card, 0, 5, "target", protocol="tcp")
    assert queue_of(machine, device, packet) == 5
    card.write32(SYNQF, ENABLE | 1 | 6 << 1)
    assert queue_of(machine, device, packet) == 6


def test_a_queue_that_is_not_enabled_gets_nothing(machine: Machine, device: Device, card: Card) -> None:
    write_tuple(card, 0, 100, "target")
    assert queue_of(machine, device, V4 / UDP(**PORTS)) is None


# ---------------------------------------------------------------------------------------------------------------------
# What it costs


def test_filters_are_looked_at_only_while_there_are_some(machine: Machine, device: Device, card: Card) -> None:
    """What drivers clear enables nothing, nor does what a filter compares."""
    features = machine.rack.cards[card.index]
    assert not features[state.FEATURES] & state.FILTER
    for number in range(128):
        card.write32(FTQF + 4 * number, 0)
        card.write32(SAQF + 4 * number, 7)
    assert not features[state.FEATURES] & state.FILTER
    for offset, value in ((FTQF + 4 * 127, ENABLE), (ETQF + 28, ENABLE), (SYNQF, 1), (0xEE00, 1)):
        card.write32(offset, value)
        assert features[state.FEATURES] & state.FILTER
        card.write32(offset, 0)
        assert not features[state.FEATURES] & state.FILTER
    assert len(device.rx) == 8


def test_a_reset_removes_them(machine: Machine, device: Device, card: Card) -> None:
    """But for those by five fields, which no reset touches (4.2.1)."""
    write_tuple(card, 0, 5, "target")
    card.write32(ETQF, ENABLE | 0x0806)
    card.write32(SYNQF, 1)
    card.write32(0, 1 << 26)
    while card.read32(0) & 1 << 26:
        pass
    assert [card.read32(offset) & ENABLE for offset in (FTQF, ETQF, SYNQF)] == [ENABLE, 0, 0]
    assert machine.rack.cards[card.index, state.FEATURES] & state.FILTER
    card.write32(FTQF, 0)
    assert not machine.rack.cards[card.index, state.FEATURES] & state.FILTER
    assert len(device.rx) == 8
