"""Where headers lie, and pseudo headers' sums, as Scapy has them: what drivers tell a device that makes checksums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from ixy.drivers.layers import (
    Layers,
    clear_header_checksum,
    clear_lengths,
    find_layers,
    write_header_checksum,
    write_pseudo_sum,
)

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
NONE = Layers(0, 0, 0, 0, 0, 0)


def ipv4(words: int, **fields: int) -> Packet:
    """An IPv4 header with so many words of options."""
    options = [IPOption(b"\x01" * 4 * words)] if words else []
    return IP(src="10.1.2.3", dst="255.254.253.252", options=options, **fields)


def ipv6(*extensions: Packet) -> Packet:
    packet: Packet = IPv6(src="fd00::ffff:1", dst="fe80::ffff:ffff:ffff:fffe")
    for extension in extensions:
        packet = packet / extension
    return packet


extensions = st.sampled_from(
    [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=0),
        IPv6ExtHdrFragment(offset=0, m=0),
    ]
)
tags = st.sampled_from([[], [Dot1Q(vlan=5)], [Dot1AD(vlan=4095), Dot1Q(vlan=5, prio=7)]])
networks = st.integers(0, 10).map(ipv4) | st.lists(extensions, max_size=4).map(lambda some: ipv6(*some))
transports = st.builds(lambda words: TCP(flags="A", options=[("NOP", None)] * 4 * words), st.integers(0, 10)) | st.just(
    UDP()
)
payloads = st.binary(max_size=64)


def build(tags: list[Packet], network: Packet, transport: Packet, payload: bytes) -> bytes:
    packet = ETHERNET.copy()
    for tag in tags:
        packet = packet / tag
    return bytes(packet / network.copy() / transport.copy() / payload)


def find(data: bytes, length: int | None = None, total: int | None = None) -> Layers:
    length = len(data) if length is None else length
    array = np.frombuffer(data, np.uint8).copy()
    return Layers(*map(int, find_layers(array, length, len(data) if total is None else total)))


def layers_of(tags: list[Packet], network: Packet, transport: Packet, payload: bytes) -> Layers:
    """By the sizes of what Scapy builds."""
    data = build(tags, network, transport, payload)
    at = 14 + 4 * len(tags)
    behind = len(data) - len(payload) - len(bytes(transport.copy()))
    kind = (4 if IP in network else 6), (6 if TCP in transport else 17)
    return Layers(at, behind, len(data) - len(payload), len(data), *kind)


@given(tags, networks, transports, payloads, st.binary(max_size=8))
def test_headers_are_where_scapy_puts_them(
    tags: list[Packet], network: Packet, transport: Packet, payload: bytes, padding: bytes
) -> None:
    """Also if only the headers lie in the first buffer, and if something is behind the packet."""
    data, expected = build(tags, network, transport, payload), layers_of(tags, network, transport, payload)
    assert find(data) == expected
    assert find(data + padding) == expected
    assert find(data[: expected.payload], total=len(data)) == expected


@given(tags, networks, transports, payloads, st.data())
def test_what_is_cut_off_is_not_there(
    tags: list[Packet], network: Packet, transport: Packet, payload: bytes, data: st.DataObject
) -> None:
    """A packet that ends before its headers say so is none; what lies in another buffer is not looked for there."""
    whole, expected = build(tags, network, transport, payload), layers_of(tags, network, transport, payload)
    short = data.draw(st.integers(0, len(whole) - 1))
    assert find(whole[:short]) == NONE
    short = data.draw(st.integers(0, expected.payload - 1))
    found = find(whole[:short], total=len(whole))
    assert found in (NONE, expected._replace(payload=0, protocol=0))
    assert found == NONE or short >= expected.transport


def test_behind_an_authentication_header() -> None:
    """Its length is in words of 4 bytes, less 2 (RFC 4302, 2.2): here it has 24 bytes."""
    data = bytes(ETHERNET / ipv6() / AH(nh=6, payloadlen=4, icv=bytes(12)) / TCP() / b"x")
    assert find(data) == Layers(14, 14 + 40 + 24, 14 + 40 + 24 + 20, len(data), 6, 6)


@given(tags, networks, transports, payloads)
def test_the_sum_makes_the_checksum_right(
    tags: list[Packet], network: Packet, transport: Packet, payload: bytes
) -> None:
    """Added up with header and payload, it gives the checksum that Scapy works out; also where a device adds each
    segment's length."""
    data, layers = build(tags, network, transport, payload), layers_of(tags, network, transport, payload)
    place = layers.transport + (16 if layers.protocol == 6 else 6)
    expected = int.from_bytes(data[place : place + 2], "big")
    size = layers.end - layers.transport
    array = np.frombuffer(data, np.uint8).copy()
    write_pseudo_sum(array, layers, size)
    made = checksum(array[layers.transport :].tobytes())
    assert made == expected or {made, expected} == {0, 0xFFFF}
    write_pseudo_sum(array, layers, 0)
    made = checksum(array[layers.transport :].tobytes() + bytes(size % 2) + size.to_bytes(2, "big"))
    assert made == expected or {made, expected} == {0, 0xFFFF}
    array[place : place + 2] = np.frombuffer(data, np.uint8)[place : place + 2]
    assert array.tobytes() == data


@given(tags, st.integers(0, 10), transports)
def test_the_checksum_of_an_ipv4_header(tags: list[Packet], words: int, transport: Packet) -> None:
    data, layers = build(tags, ipv4(words), transport, b""), layers_of(tags, ipv4(words), transport, b"")
    array, place = np.frombuffer(data, np.uint8).copy(), layers.network + 10
    array[place : place + 2] = 0x12, 0x34
    write_header_checksum(array, layers)
    assert array.tobytes() == data
    clear_header_checksum(array, layers)
    assert array.tobytes() == data[:place] + b"\0\0" + data[place + 2 :]


@pytest.mark.parametrize(("network", "place"), [(ipv4(1), 16), (ipv6(), 18)], ids=["IPv4", "IPv6"])
def test_lengths_are_cleared(network: Packet, place: int) -> None:
    data, layers = build([], network, TCP(), b"x"), layers_of([], network, TCP(), b"x")
    array = np.frombuffer(data, np.uint8).copy()
    clear_lengths(array, layers)
    assert array.tobytes() == data[:place] + b"\0\0" + data[place + 2 :]


@pytest.mark.parametrize(
    "packet",
    [
        ETHERNET / ipv4(0, flags="MF") / UDP() / bytes(8),
        ETHERNET / ipv4(0, frag=1) / UDP() / bytes(8),
        ETHERNET / ipv4(0, proto=6) / bytes(19),
        ETHERNET / ipv4(0) / ICMP(),
        ETHERNET / ipv4(0) / TCP(dataofs=4),
        ETHERNET / ipv4(0) / TCP(dataofs=6),
        ETHERNET / ipv4(0) / UDP(len=8) / b"more",
        ETHERNET / ipv4(0) / UDP(len=9),
        ETHERNET / ipv6(IPv6ExtHdrFragment(offset=0, m=1)) / UDP(),
        ETHERNET / ipv6(IPv6ExtHdrFragment(offset=9, m=0)) / UDP(),
        ETHERNET / ipv6(IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=1)) / UDP(),
        ETHERNET / ipv6(*[IPv6ExtHdrDestOpt()] * 9) / UDP(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_ip_without_a_checksum_that_could_be_made(packet: Packet) -> None:
    """Fragments, other protocols, headers that contradict themselves, what is on its way to another address."""
    data = bytes(packet)
    found = find(data)
    assert (found.version, found.payload, found.protocol) == (4 if IP in packet else 6, 0, 0)
    assert (found.network, found.end) == (14, len(data))


@pytest.mark.parametrize(
    "packet",
    [
        ETHERNET / ARP(),
        ETHERNET / ipv4(0, ihl=4) / UDP(),
        ETHERNET / ipv4(0, ihl=8),
        ETHERNET / ipv4(0, version=6) / UDP(),
        ETHERNET / ipv4(0, len=19) / UDP(),
        ETHERNET / ipv4(0, len=29) / UDP(),
        ETHERNET / IPv6(version=4) / UDP(),
        ETHERNET / IPv6(plen=9) / UDP(),
        ETHERNET / IPv6(nh=60) / Raw(b"\x11\x01" + bytes(6)),
        ETHERNET / Dot1Q() / Dot1Q() / Dot1Q() / ipv4(0) / UDP(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_what_is_no_whole_ip_packet(packet: Packet) -> None:
    assert find(bytes(packet)) == NONE


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_nonsense_stays_within_the_packet(data: bytes, length: int, more: int) -> None:
    """Whatever stands there, all that is told lies in it: IP and what is behind it."""
    kind = data[:12] + (b"\x08\0\x45" if more % 2 else b"\x86\xdd\x60") + data[12:]
    length = min(length, len(kind))
    found = find(kind, length, length + more)
    if found != NONE:
        assert 14 <= found.network < found.transport <= length
        assert found.transport <= found.end <= length + more
        assert found.payload == 0 or found.transport + 8 <= found.payload <= min(length, found.end)
