"""What the model finds out about packets that arrive: RSS hash and queue, packet type, checksums."""

from __future__ import annotations

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from toeplitz import KEY, VECTORS, VECTORS_6

from ixy.registers import i82599 as reg
from ixy.sim.card.classify import classify, in_vlan

# With addresses: for want of one, Scapy would ask the network for it.
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

(SOURCE, SPORT), (TARGET, DPORT), V4_HASH, V4_TCP_HASH = VECTORS[0]
(SOURCE_6, _), (TARGET_6, _), V6_HASH, V6_TCP_HASH = VECTORS_6[0]  # of the same ports
V4, V6, PORTS = IP(src=SOURCE, dst=TARGET), IPv6(src=SOURCE_6, dst=TARGET_6), {"sport": SPORT, "dport": DPORT}

TCP_V4, ONLY_V4, ONLY_V6, TCP_V6, UDP_V4, UDP_V6 = (1 << bit for bit in (16, 17, 20, 21, 22, 23))


def card_registers(hashed: int, multiple_queues: int = 1) -> np.ndarray:
    """Registers with the key, PCSD, and a redirection table whose entry i is i mod 16."""
    registers = np.zeros(reg.BAR0_SIZE // 4, np.uint32)
    registers[reg.RSSRK.offset // 4 :][:10] = np.frombuffer(KEY, "<u4")
    registers[reg.RETA.offset // 4 :][:32] = np.frombuffer(bytes(i % 16 for i in range(128)), "<u4")
    registers[reg.RXCSUM.offset // 4] = reg.RXCSUM.value(PCSD=1)
    registers[reg.MRQC.offset // 4] = multiple_queues | hashed
    return registers


def classified(packet: Packet, hashed: int = 0) -> tuple[int, int, int, int]:
    """Queue, hash, the rest of word 0, and word 1, for a packet that lies amid other bytes."""
    data = bytes(ETHERNET / packet)
    buffer = np.frombuffer(b"\xff" * 100 + data.ljust(60, b"\0") + b"\xff" * 100, np.uint8).copy()
    queue, word_0, word_1 = classify(card_registers(hashed), buffer, 100, max(len(data), 60))
    return int(queue), int(word_0) >> 32 & 0xFFFFFFFF, int(word_0) & 0xFFFFFFFF, int(word_1)


@pytest.mark.parametrize(
    ("packet", "hashed", "value", "kind"),
    [
        (V4 / TCP(**PORTS), TCP_V4 | ONLY_V4, V4_TCP_HASH, 1),
        (V4 / TCP(**PORTS), ONLY_V4, V4_HASH, 2),
        (V4 / UDP(**PORTS), UDP_V4, V4_TCP_HASH, 7),
        (V4 / UDP(**PORTS), TCP_V4 | ONLY_V4, V4_HASH, 2),
        (V4 / ICMP(), TCP_V4 | ONLY_V4, V4_HASH, 2),
        (V6 / TCP(**PORTS), TCP_V6 | ONLY_V6, V6_TCP_HASH, 3),
        (V6 / UDP(**PORTS), UDP_V6, V6_TCP_HASH, 8),
        (V6 / UDP(**PORTS), ONLY_V6, V6_HASH, 5),
        (Dot1Q(vlan=7) / V4 / TCP(**PORTS), TCP_V4, V4_TCP_HASH, 1),
    ],
)
def test_hashes_are_those_of_the_verification_suite(packet: Packet, hashed: int, value: int, kind: int) -> None:
    """The hash, which fields it covers, and the queue that the low bits of the hash choose."""
    queue, found, rest, _ = classified(packet, hashed)
    assert found == value
    assert rest & 15 == kind
    assert queue == value % 128 % 16


@pytest.mark.parametrize("packet", [ARP(), V6 / TCP(), V4 / UDP()], ids=["ARP", "IPv6", "UDP"])
def test_what_is_not_hashed_goes_to_queue_0(packet: Packet) -> None:
    """Only TCP over IPv4 is to be hashed."""
    queue, found, rest, _ = classified(packet, TCP_V4)
    assert (queue, found, rest & 15) == (0, 0, 0)


def test_a_fragment_is_hashed_without_ports() -> None:
    """The first fragment carries ports and the others do not: all must go to the same queue."""
    first, second = (V4.copy() / TCP(**PORTS) for _ in range(2))
    first[IP].flags, second[IP].frag = "MF", 100
    assert classified(first, TCP_V4 | ONLY_V4)[1] == V4_HASH
    assert classified(second, TCP_V4 | ONLY_V4)[1] == V4_HASH


@pytest.mark.parametrize(
    ("packet", "kind", "status"),
    [
        (V4 / TCP() / b"odd", 1 << 4 | 1 << 8, 0b110_0000),
        (V4 / UDP() / b"even", 1 << 4 | 1 << 9, 0b111_0000),
        (V4 / UDP(chksum=0), 1 << 4 | 1 << 9, 0b100_0000),
        (V4 / ICMP(), 1 << 4, 0b100_0000),
        (V4 / TCP(chksum=1), 1 << 4 | 1 << 8, 0b110_0000 | 1 << 30),
        (IP(chksum=1) / UDP(), 1 << 4 | 1 << 9, 0b111_0000 | 1 << 31),
        (V6 / TCP() / b"odd", 1 << 6 | 1 << 8, 0b010_0000),
        (V6 / UDP(chksum=1), 1 << 6 | 1 << 9, 0b011_0000 | 1 << 30),
        (ARP(), 0, 0),
    ],
)
def test_types_and_checksums(packet: Packet, kind: int, status: int) -> None:
    """Packet type, which checksums were checked (UDPCS, L4CS, IPCS: bits 4 to 6), and errors (bits 30 and 31)."""
    _, _, rest, word_1 = classified(packet)
    assert rest == kind
    assert word_1 == status


@pytest.mark.parametrize("length", range(60, 90))
def test_lengths_that_lie_are_not_followed(length: int) -> None:
    """A header says that there is more, or less, than there is: nothing is claimed of such a packet."""
    data = bytes(ETHERNET / IP(len=length + 1, proto=6) / bytes(60))[:length]
    buffer = np.frombuffer(data, np.uint8).copy()
    assert classify(card_registers(TCP_V4), buffer, 0, length) == (0, 0, 0)


@pytest.mark.parametrize(("tag", "passes"), [(None, True), (7, True), (0xE007, True), (8, False), (4095, False)])
def test_the_vlan_filter(tag: int | None, passes: bool) -> None:
    """Only VLAN 7 is in the table; priority bits do not matter, and frames without a tag pass."""
    registers = np.zeros(reg.BAR0_SIZE // 4, np.uint32)
    registers[reg.VLNCTRL.offset // 4] = 0x8100
    registers[reg.VFTA.offset // 4] = 1 << 7
    inner = b"\x81\x00" + tag.to_bytes(2, "big") if tag is not None else b""
    data = np.frombuffer((bytes(12) + inner + b"\x08\x00").ljust(60, b"\0"), np.uint8).copy()
    assert in_vlan(registers, data, 0) == passes
