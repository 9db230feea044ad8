"""What the model finds out about packets that arrive: RSS hash and queue, packet type, checksums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet
from toeplitz import KEY, VECTORS, VECTORS_6

from ixy.registers import i82599 as reg
from ixy.sim.card.classify import classify, in_vlan
from ixy.sim.card.layers import parse

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
    registers[reg.VLNCTRL.offset // 4] = 0x8100
    return registers


def classified(packet: Packet, hashed: int = 0, **written: int) -> tuple[int, int, int, int]:
    """Queue, hash, the rest of word 0, and word 1, for a packet that lies amid other bytes.

    Args:
        written: what else is in registers, by name.
    """
    data = bytes(ETHERNET / packet)
    buffer = np.frombuffer(b"\xff" * 100 + data.ljust(60, b"\0") + b"\xff" * 100, np.uint8).copy()
    registers = card_registers(hashed)
    for name, value in written.items():
        registers[getattr(reg, name).offset // 4] = value
    queue, word_0, word_1 = classify(registers, buffer, 100, max(len(data), 60))
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


# 7.1.6.2: bits of the packet type, and those of status and errors that tell of checksums
IS_V4, V4_OPTIONS, IS_V6, V6_EXTENSIONS, IS_TCP, IS_UDP, IS_SCTP = (1 << bit for bit in range(4, 11))
UDP_CHECKED, L4_CHECKED, IP_CHECKED, L4_WRONG, IP_WRONG = 1 << 4, 1 << 5, 1 << 6, 1 << 30, 1 << 31
VLAN, OUTER_VLAN, UDP_VALID = 1 << 3, 1 << 9, 1 << 10

OPTIONS = IP(src=SOURCE, dst=TARGET, options=b"\x94\x04\0\0")
HOPS, DESTINATION = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()
HERE, ELSEWHERE = IPv6ExtHdrRouting(), IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=1)


@pytest.mark.parametrize(
    ("packet", "kind", "status"),
    [
        (OPTIONS / TCP() / b"odd", IS_V4 | V4_OPTIONS | IS_TCP, IP_CHECKED | L4_CHECKED),
        (OPTIONS / UDP(chksum=1), IS_V4 | V4_OPTIONS | IS_UDP, IP_CHECKED | L4_CHECKED | UDP_CHECKED | L4_WRONG),
        (V6 / HOPS / TCP() / b"odd", IS_V6 | V6_EXTENSIONS | IS_TCP, L4_CHECKED),
        (V6 / HOPS / DESTINATION / HERE / UDP(), IS_V6 | V6_EXTENSIONS | IS_UDP, L4_CHECKED | UDP_CHECKED),
        (V6 / DESTINATION / TCP(chksum=1), IS_V6 | V6_EXTENSIONS | IS_TCP, L4_CHECKED | L4_WRONG),
        (V6 / ELSEWHERE / TCP(), IS_V6 | V6_EXTENSIONS | IS_TCP, 0),
        (V6 / HOPS / IPv6ExtHdrFragment(m=1) / TCP(), IS_V6 | V6_EXTENSIONS, 0),
        (V6 / DESTINATION, IS_V6 | V6_EXTENSIONS, 0),
    ],
)
def test_what_lies_behind_options_and_extensions(packet: Packet, kind: int, status: int) -> None:
    """The transport header is found where it is. Where a routing header leads to others first, the checksum is of
    addresses that are not in the IPv6 header; in a fragment there is only a part of what it is of.
    """
    _, _, rest, word_1 = classified(packet)
    assert (rest, word_1) == (kind, status)


def crc_32c(data: bytes) -> int:
    """By long division of polynomials: bits of a byte from the lowest on, 32 ones before, all inverted at the end."""
    bits = [byte >> bit & 1 for byte in data for bit in range(8)] + [0] * 32
    bits[:32] = [1 - bit for bit in bits[:32]]
    for at in range(len(bits) - 32):
        if bits[at]:
            for power in (32, 28, 27, 26, 25, 23, 22, 20, 19, 18, 14, 13, 11, 10, 9, 8, 6, 0):
                bits[at + 32 - power] ^= 1
    return sum((1 - bit) << place for place, bit in enumerate(bits[-32:]))


def sctp(payload: bytes) -> Packet:
    """With its checksum by the division above: the first byte is the lowest."""
    whole = bytearray(bytes(SCTP(sport=7, dport=9, chksum=0) / SCTPChunkData(data=payload)))
    whole[8:12] = crc_32c(whole).to_bytes(4, "little")
    return SCTP(bytes(whole))


def test_the_division_is_right() -> None:
    """The check value of CRC-32C: that of the digits from 1 to 9."""
    assert crc_32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("network", "kind", "status"),
    [
        (IP(src=SOURCE, dst=TARGET, proto=132), IS_V4, IP_CHECKED),
        (V6 / IPv6ExtHdrHopByHop(nh=132), IS_V6 | V6_EXTENSIONS, 0),
    ],
)
def test_sctp(network: Packet, kind: int, status: int) -> None:
    """Its checksum is right as it is, and wrong once a bit of it or of the payload is another."""
    right = bytes(sctp(b"payload"))
    for bit in (None, 8 * 8, 11 * 8 + 7, len(right) * 8 - 1):
        data = bytearray(right)
        if bit is not None:
            data[bit // 8] ^= 1 << bit % 8
        _, _, rest, word_1 = classified(network / bytes(data))
        assert (rest, word_1) == (kind | IS_SCTP, status | L4_CHECKED | (0 if bit is None else L4_WRONG)), bit


def test_the_sum_of_a_fragment() -> None:
    """With IPPCSE and without PCSD (7.1.11.3): the ones' complement sum of what each fragment carries, and its IP
    identification, stand where the hash would; the first one says whether the datagram has a checksum.
    """
    first, second = IP(id=0x1234, flags="MF", proto=17), IP(id=0x1234, frag=2, proto=17)
    head = bytes(UDP(sport=0x0102, dport=0x0304, len=0x0506, chksum=0x0708)) + b"\xff\xf0"
    word = 0x0102 + 0x0304 + 0x0506 + 0x0708 + 0xFFF0
    for packet, total, status in (
        (first / head, (word & 0xFFFF) + (word >> 16), UDP_VALID),
        (first / (head[:6] + b"\0\0"), 0x0102 + 0x0304 + 0x0506, 0),
        (second / b"\x01\x02\x03", 0x0102 + 0x0300, 0),
        (IP(id=0x1234) / UDP(), 0, L4_CHECKED | UDP_CHECKED),
    ):
        _, value, rest, word_1 = classified(packet, RXCSUM=1 << 12)
        assert value == total << 16 | 0x1234
        assert word_1 == IP_CHECKED | status
        assert rest == IS_V4 | (IS_UDP if status & L4_CHECKED else 0)


def test_no_hash_is_told_in_place_of_the_sum() -> None:
    """Without PCSD the hash still chooses the queue."""
    queue, value, rest, _ = classified(V4 / TCP(**PORTS), TCP_V4, RXCSUM=0)
    assert (queue, value, rest) == (V4_TCP_HASH % 128 % 16, 0, IS_V4 | IS_TCP)


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (V4 / TCP(), IP_CHECKED | L4_CHECKED),
        (Dot1Q(type=0x0800) / V4 / TCP(), 0),  # of 0x8100, which is no tag here
    ],
)
@pytest.mark.parametrize("tagged", [False, True])
def test_the_ethertype_of_tags_is_what_a_register_says(packet: Packet, found: int, tagged: bool) -> None:
    """VLNCTRL.VET is 0x9100 (8.2.3.7.2)."""
    if tagged:
        packet = Ether(bytes(ETHERNET / packet))
        outer = Ether(src=packet.src, dst=packet.dst, type=0x9100) / Dot1Q(vlan=9, type=packet.type) / packet.payload
        packet, found = outer, found | VLAN
        registers = card_registers(0)
        registers[reg.VLNCTRL.offset // 4] = 0x9100
        data = np.frombuffer(bytes(packet).ljust(60, b"\0"), np.uint8).copy()
        word_1 = classify(registers, data, 0, len(data))[2]
    else:
        word_1 = classified(packet, VLNCTRL=0x9100)[3]
    assert word_1 == found


@pytest.mark.parametrize(
    ("tags", "kind", "status"),
    [
        ([0x88A8, 0x8100], IS_V4 | IS_TCP, OUTER_VLAN | VLAN | IP_CHECKED | L4_CHECKED),
        ([0x88A8], IS_V4 | IS_TCP, OUTER_VLAN | IP_CHECKED | L4_CHECKED),
        ([0x8100], 0, 0),
        ([], IS_V4 | IS_TCP, IP_CHECKED | L4_CHECKED),
    ],
)
def test_double_vlan(tags: list[int], kind: int, status: int) -> None:
    """With CTRL_EXT.EXTENDED_VLAN, an outer tag of EXVET's Ethertype comes first; without it there is no inner one."""
    data = bytes(ETHERNET)[:12] + b"".join(tag.to_bytes(2, "big") + b"\x20\x07" for tag in tags)
    data = (data + b"\x08\x00" + bytes(V4 / TCP())).ljust(60, b"\0")
    registers = card_registers(0)
    registers[reg.CTRL_EXT.offset // 4] = 1 << 26
    registers[reg.EXVET.offset // 4] = 0x88A8 << 16
    _, word_0, word_1 = classify(registers, np.frombuffer(data, np.uint8).copy(), 0, len(data))
    assert (word_0, word_1) == (kind, status)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(min_size=60, max_size=200), ethertype=st.sampled_from([0x0800, 0x86DD]), seed=st.integers(0, 255))
def test_no_frame_leads_beyond_its_end(data: bytes, ethertype: int, seed: int) -> None:
    """Whatever the headers say, all that is found lies within the frame, and in order."""
    raw = bytearray(data)
    raw[12:14] = ethertype.to_bytes(2, "big")
    raw[14] = 0x45 + seed % 11 if ethertype == 0x0800 else 0x60
    raw[16:20] = (len(raw) - 14 - seed % 2).to_bytes(2, "big") + bytes([0, len(raw) - 54 - seed % 2 & 0xFF])
    raw[20] = (0, 43, 44, 60, 6, 17, 132)[seed % 7]
    frame = np.frombuffer(bytes(raw), np.uint8).copy()
    layers = parse(card_registers(0), frame, 0, len(raw))
    assert 14 <= layers.network <= layers.transport <= layers.transport + layers.transport_size <= layers.end
    assert layers.end <= len(raw)


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
