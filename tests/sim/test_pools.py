"""Queues of the simulated card in pools and traffic classes, and the unicast hash table (7.1.1.1, 7.1.2, 7.10.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import BROADCAST, STATION, arrive, frame, open_card
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from toeplitz import KEY, VECTORS, toeplitz

from ixy.device import Device
from ixy.registers import i82599 as reg
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

FCTRL, VLNCTRL, MCSTCTRL, MRQC, RETA, PSRTYPE, RTRUP2TC = 0x5080, 0x5088, 0x5090, 0xEC80, 0xEB00, 0xEA00, 0x3020
MTA, VFTA, RAL, RAH, MPSAR, PFUTA = 0x5200, 0xA000, 0xA200, 0xA204, 0xA600, 0xF400
PFVTCTL, PFVFRE, PFVML2FLT, PFVLVF, PFVLVFB = 0x51B0, 0x51E0, 0xF000, 0xF100, 0xF200
ETQF, ETQS = 0x5128, 0xEC00
VT, REPLICATE, NO_DEFAULT = 1, 1 << 30, 1 << 29
AUPE, ROMPE, ROPE, BAM, MPE = (1 << bit for bit in range(24, 29))
BAM_OF_ALL, VFE, VALID = 1 << 10, 1 << 30, 1 << 31
POOLS_64, POOLS_32_RSS, POOLS_64_RSS, POOLS_16_CLASSES, POOLS_32_CLASSES = 8, 10, 11, 12, 13
OTHER, THIRD, GROUP = (bytes.fromhex(text) for text in ("02000000000b", "02000000000c", "01005e000001"))


@pytest.fixture
def machine() -> Machine:
    return Machine(stepped=True)


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, rx_queues=40, ring_size=64, pool_size=96) as device:
        device.set_promiscuous(False)
        yield device


@pytest.fixture
def card(machine: Machine, device: Device) -> Card:
    """STATION is pool 0's, OTHER pool 3's; pool 5 gets what is for nobody."""
    assert device.rx
    card = machine.cards["a"]
    card.write32(PFVTCTL, VT | REPLICATE | 5 << 7)
    for i in range(2):
        card.write32(PFVFRE + 4 * i, 0xFFFFFFFF)
    card.write32(MRQC, POOLS_64)
    add_address(card, 1, OTHER, 1 << 3)
    return card


def add_address(card: Card, number: int, address: bytes, pools: int) -> None:
    card.write32(RAL + 8 * number, int.from_bytes(address[:4], "little"))
    card.write32(RAH + 8 * number, VALID | int.from_bytes(address[4:], "little"))
    card.write32(MPSAR + 8 * number, pools & 0xFFFFFFFF)
    card.write32(MPSAR + 8 * number + 4, pools >> 32)


def set_bit(card: Card, table: int, address: bytes) -> None:
    """In a hash table by the upper 12 bits of the address, as with MCSTCTRL.MO = 0; and switch hash tables on."""
    bits = int.from_bytes(address[4:], "little") >> 4
    card.write32(table + 4 * (bits // 32), 1 << bits % 32)
    card.write32(MCSTCTRL, 1 << 2)


def queues_of(machine: Machine, device: Device, data: bytes | Packet) -> list[int]:
    """The queues to which a frame comes."""
    arrive(machine, bytes(data).ljust(60, b"\0"))
    came: list[int] = []
    for number, queue in enumerate(device.rx):
        with queue.receive() as batch:
            came += [number] * len(batch)
    return came


def to(destination: bytes, *layers: Packet) -> Packet:
    packet: Packet = Ether(src="02:00:00:00:00:01", dst=destination.hex(":"))
    for layer in layers or (Raw(b"x"),):
        packet = packet / layer
    return packet


# ---------------------------------------------------------------------------------------------------------------------
# The unicast hash table


def test_unicast_hash_table(machine: Machine, device: Device) -> None:
    """Without pools, too, once MCSTCTRL.MFE is set."""
    card = machine.cards["a"]
    assert queues_of(machine, device, frame(destination=THIRD)) == []
    set_bit(card, PFUTA, THIRD)
    assert queues_of(machine, device, frame(destination=THIRD)) == [0]
    assert queues_of(machine, device, frame(destination=bytes.fromhex("02000000001c"))) == []
    assert queues_of(machine, device, frame(destination=GROUP)) == []
    card.write32(MCSTCTRL, 0)
    assert queues_of(machine, device, frame(destination=THIRD)) == []


# ---------------------------------------------------------------------------------------------------------------------
# Pools


def test_addresses_choose_pools(machine: Machine, device: Device, card: Card) -> None:
    """Pool n has queues 2 n and 2 n + 1; without RSS it is the first."""
    assert queues_of(machine, device, to(STATION)) == [0]
    assert queues_of(machine, device, to(OTHER)) == [6]
    assert queues_of(machine, device, to(THIRD)) == []
    add_address(card, 127, THIRD, 1 << 15)
    assert queues_of(machine, device, to(THIRD)) == [30]
    card.write32(PFVFRE, 0x7FFF)  # pool 15 may not receive: now the frame is for no pool
    assert queues_of(machine, device, to(THIRD)) == [10]


def test_the_last_pool(machine: Machine) -> None:
    with open_card(machine, rx_queues=128, ring_size=64, pool_size=96) as device:
        card = machine.cards["a"]
        card.write32(PFVTCTL, VT | REPLICATE | NO_DEFAULT)
        card.write32(PFVFRE + 4, 1 << 31)
        card.write32(PFVML2FLT + 4 * 63, BAM)
        add_address(card, 127, OTHER, 1 << 63)
        assert queues_of(machine, device, to(OTHER)) == [126]
        assert queues_of(machine, device, to(BROADCAST)) == [126]
        card.write32(PFVTCTL, VT | 63 << 7)
        assert queues_of(machine, device, to(THIRD)) == [126]
        card.write32(PFVFRE + 4, 0)
        assert queues_of(machine, device, to(OTHER)) == []


def test_default_pool(machine: Machine, device: Device, card: Card) -> None:
    """For what the card lets in and no pool is for."""
    card.write32(FCTRL, BAM_OF_ALL | 1 << 9)
    assert queues_of(machine, device, to(THIRD)) == [10]
    card.write32(PFVTCTL, VT | REPLICATE | NO_DEFAULT | 5 << 7)
    assert queues_of(machine, device, to(THIRD)) == []
    assert device.stats().rx_dropped == 0


def test_broadcasts_and_multicasts_are_replicated(machine: Machine, device: Device, card: Card) -> None:
    """To the pools that take them, and each copy is whole; they have arrived once."""
    for pool, flags in ((1, BAM), (2, BAM | MPE), (13, ROMPE), (15, BAM)):
        card.write32(PFVML2FLT + 4 * pool, flags)
    card.write32(FCTRL, BAM_OF_ALL | 1 << 8)
    before = device.stats()
    assert queues_of(machine, device, to(BROADCAST)) == [2, 4, 30]
    assert queues_of(machine, device, to(GROUP)) == [4]
    set_bit(card, MTA, GROUP)
    assert queues_of(machine, device, to(GROUP)) == [4, 26]
    add_address(card, 2, GROUP, 1 << 7 | 1 << 1)
    assert queues_of(machine, device, to(GROUP)) == [2, 4, 14]
    arrived = device.stats().rx_packets - before.rx_packets, device.stats().rx_bytes - before.rx_bytes
    assert arrived == (4, 4 * 64)
    arrive(machine, frame(7, 200, BROADCAST))
    for queue in (2, 4, 30):
        with device.rx[queue].receive() as batch:
            assert [bytes(packet) for packet in batch] == [frame(7, 200, BROADCAST)]


def test_without_replication_there_is_one_copy(machine: Machine, device: Device, card: Card) -> None:
    """Broadcasts and multicasts are the default pool's, unless an address says otherwise."""
    card.write32(PFVTCTL, VT | 5 << 7)
    card.write32(FCTRL, BAM_OF_ALL | 1 << 8)
    for pool in (1, 2):
        card.write32(PFVML2FLT + 4 * pool, BAM | MPE)
    assert queues_of(machine, device, to(BROADCAST)) == [10]
    assert queues_of(machine, device, to(GROUP)) == [10]
    add_address(card, 2, GROUP, 1 << 7)
    assert queues_of(machine, device, to(GROUP)) == [14]


def test_unicast_hash_of_pools(machine: Machine, device: Device, card: Card) -> None:
    """ROPE, for what has no address of its own."""
    set_bit(card, PFUTA, THIRD)
    card.write32(PFVML2FLT + 4 * 9, ROPE)
    assert queues_of(machine, device, to(THIRD)) == [18]
    assert queues_of(machine, device, to(STATION)) == [0]


def test_vlans_of_pools(machine: Machine, device: Device, card: Card) -> None:
    """With VLNCTRL.VFE: tagged frames are for the members of their VLAN, others for pools with AUPE."""
    card.write32(VLNCTRL, VFE | 0x8100)
    card.write32(VFTA, 1 << 7 | 1 << 8)
    card.write32(PFVLVF + 4 * 63, VALID | 7)
    card.write32(PFVLVFB + 8 * 63, 1 << 3)
    card.write32(PFVLVF, 8)
    card.write32(PFVLVFB, 1 << 3)
    assert queues_of(machine, device, to(OTHER, Dot1Q(vlan=7), ARP())) == [6]
    assert queues_of(machine, device, to(STATION, Dot1Q(vlan=7), ARP())) == [10]
    assert queues_of(machine, device, to(OTHER, Dot1Q(vlan=8), ARP())) == [10]
    assert queues_of(machine, device, to(OTHER, Dot1Q(vlan=9), ARP())) == []
    assert queues_of(machine, device, to(OTHER, ARP())) == [10]
    card.write32(PFVML2FLT + 4 * 3, AUPE)
    assert queues_of(machine, device, to(OTHER, ARP())) == [6]


def test_ethertype_with_a_pool(machine: Machine, device: Device, card: Card) -> None:
    """The filter's pool alone gets the frame, in the queue that the filter says."""
    card.write32(FCTRL, BAM_OF_ALL)
    card.write32(PFVML2FLT + 4 * 1, BAM)
    card.write32(ETQS, VALID | 23 << 16)
    card.write32(ETQF, VALID | 1 << 26 | 11 << 20 | 0x0806)
    assert queues_of(machine, device, to(BROADCAST, ARP())) == [23]
    assert queues_of(machine, device, to(BROADCAST)) == [2]


@pytest.mark.parametrize(
    ("mode", "size", "bits"),
    [(POOLS_64_RSS, 2, 1), (POOLS_32_RSS, 4, 2), (POOLS_32_RSS, 4, 1), (POOLS_32_RSS, 4, 0), (POOLS_64, 2, 1)],
)
def test_rss_within_a_pool(machine: Machine, device: Device, card: Card, mode: int, size: int, bits: int) -> None:
    """So many bits of the table's entry count as PSRTYPE.RQPL says, and as the pool has room for."""
    card.write32(MRQC, mode | reg.RSS_FIELDS << 16)
    card.write32(PSRTYPE + 4 * 3, bits << 29)
    for i in range(32):
        card.write32(RETA + 4 * i, 0x0B060D01 + i * 0x01010101 & 0x0F0F0F0F)
    for (source, sport), (target, dport), _, value in VECTORS:
        entry = value & 127
        index = (0x0B060D01 + entry // 4 * 0x01010101) >> 8 * (entry % 4) & 15
        inside = 0 if mode == POOLS_64 else index & ((1 << bits) - 1)
        packet = to(OTHER, IP(src=source, dst=target), UDP(sport=sport, dport=dport))
        assert queues_of(machine, device, packet) == [3 * size + inside]
    assert toeplitz(KEY, b"\0") == 0


# ---------------------------------------------------------------------------------------------------------------------
# Traffic classes


@pytest.mark.parametrize(
    ("mode", "queue"),
    [(POOLS_16_CLASSES, 3 * 8 + 5), (POOLS_32_CLASSES, 3 * 4 + 1)],
)
def test_traffic_classes_of_pools(machine: Machine, device: Device, card: Card, mode: int, queue: int) -> None:
    """By the priority in the tag, which RTRUP2TC maps."""
    card.write32(MRQC, mode)
    card.write32(RTRUP2TC, 5 << 18)
    assert queues_of(machine, device, to(OTHER, Dot1Q(prio=6), ARP())) == [queue]
    assert queues_of(machine, device, to(OTHER, Dot1Q(prio=7), ARP())) == [queue // 4 * 4 if queue < 20 else 24]


@pytest.mark.parametrize(("mode", "queues"), [(2, [16, 0]), (3, [32, 0]), (4, [19, 3]), (5, [35, 3])])
def test_traffic_classes(machine: Machine, device: Device, mode: int, queues: list[int]) -> None:
    """Without pools: 16 queues for each of eight classes, or 32 for each of four; RSS chooses among them."""
    card = machine.cards["a"]
    card.write32(MRQC, mode | reg.RSS_FIELDS << 16)
    card.write32(RTRUP2TC, 1 << 18)
    device.set_rss_table([3])
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / UDP()
    assert queues_of(machine, device, to(STATION, Dot1Q(prio=6), packet)) == [queues[0]]
    assert queues_of(machine, device, to(STATION, packet)) == [queues[1]]
