"""Frames changed before they are sent: Scapy makes them with either addresses, and computes each checksum anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ixy.apps.rewriting import NO_VLAN, copy_rewritten, rewriting
from ixy.apps.sides import Sides
from ixy.errors import ConfigurationError

MAPS = ["10.0.0.0/8=192.0.0.0/8", "2001:db8::/32=fd00:1234::/32", "10.0.0.0/8=1.0.0.0/8"]
MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
V4 = [("10.1.2.3", "11.0.0.1"), ("192.1.2.3", "11.0.0.1")]
V6 = [("2001:db8:1:2::3", "2001:db8::4"), ("fd00:1234:1:2::3", "fd00:1234::4")]


def rewritten(frame: bytes, maps: list[str] = MAPS, vlan: int = -1) -> bytes:
    target = np.full(2100, 0xEE, np.uint8)
    source = np.frombuffer(b"..." + frame + b"...", np.uint8)
    size = copy_rewritten(target, 7, source, 3, len(frame), rewriting(maps, vlan))
    assert target[7 + size :].tolist() == [0xEE] * (2100 - 7 - size)
    return target[7 : 7 + size].tobytes()


def layers(version: int) -> list[Packet]:
    """What may be behind IP."""
    if version == 4:
        return [TCP(sport=1, dport=2) / b"abc", UDP(sport=1, dport=2) / b"abcd", ICMP() / b"x"]
    return [
        TCP(sport=1, dport=2) / b"abc",
        ICMPv6EchoRequest(data=b"abc"),
        IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / b"abc",
        IPv6ExtHdrFragment(offset=0, m=1) / UDP(sport=1, dport=2, chksum=0x1234) / b"abc",
    ]


@pytest.mark.parametrize("tags", [[], [Dot1Q(vlan=7)], [Dot1AD(vlan=7), Dot1Q(vlan=8)]])
@pytest.mark.parametrize(("version", "number"), [(4, 0), (4, 1), (4, 2), (6, 0), (6, 1), (6, 2)])
def test_addresses_and_checksums(tags: list[Packet], version: int, number: int) -> None:
    """The same packet made with the other addresses has the same bytes, whatever is before IP and behind."""

    def frame(source: str, target: str) -> bytes:
        packet: Packet = Ether(**MAC)
        for tag in tags:
            packet = packet / tag
        packet = packet / (IP(src=source, dst=target) if version == 4 else IPv6(src=source, dst=target))
        return bytes(packet / layers(version)[number])

    before, after = V4 if version == 4 else V6
    assert rewritten(frame(*before)) == frame(*after)


def test_arp() -> None:
    before = Ether(**MAC) / ARP(psrc="10.1.1.1", pdst="10.2.2.2")
    after = Ether(**MAC) / ARP(psrc="192.1.1.1", pdst="192.2.2.2")
    assert rewritten(bytes(before)) == bytes(after)


def test_no_checksum_of_udp_stays_none() -> None:
    before, after = (Ether(**MAC) / IP(src=a, dst=b) / UDP(chksum=0) / b"abc" for a, b in V4)
    assert rewritten(bytes(before)) == bytes(after)


def test_a_later_fragment_has_no_checksum_to_change() -> None:
    before, after = (Ether(**MAC) / IP(src=a, dst=b, frag=10, proto=17) / Raw(bytes(range(40))) for a, b in V4)
    assert rewritten(bytes(before)) == bytes(after)


def test_vlans() -> None:
    """A tag is added, changed with its priority kept, and removed; of two tags the outer one."""
    plain = bytes(Ether(**MAC) / IP() / UDP() / b"abc")
    tagged = bytes(Ether(**MAC) / Dot1Q(vlan=5) / IP() / UDP() / b"abc")
    assert rewritten(plain, [], 5) == tagged
    assert rewritten(tagged, [], NO_VLAN) == plain
    assert rewritten(plain, [], NO_VLAN) == plain
    urgent = Ether(**MAC) / Dot1AD(vlan=9, prio=6) / Dot1Q(vlan=8) / IP() / b"abc"
    changed = Ether(**MAC) / Dot1AD(vlan=77, prio=6) / Dot1Q(vlan=8) / IP() / b"abc"
    assert rewritten(bytes(urgent), [], 77) == bytes(changed)
    assert rewritten(bytes(urgent), [], NO_VLAN) == bytes(Ether(**MAC) / Dot1Q(vlan=8) / IP() / b"abc")


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 90), vlan=st.sampled_from([-1, -2, 5]), version=st.sampled_from([4, 6]))
def test_frames_that_are_cut(cut: int, vlan: int, version: int) -> None:
    """Nothing behind a frame is changed, and none grows but by its tag."""
    source, target = (V4 if version == 4 else V6)[0]
    header = IP(src=source, dst=target) if version == 4 else IPv6(src=source, dst=target)
    frame = bytes(Ether(**MAC) / header / TCP() / b"abc")[:cut]
    assert len(rewritten(frame, MAPS, vlan)) <= len(frame) + (4 if vlan >= 0 else 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.0/8", "write 10.1.0.0/16"),
        ("10.1.2.3/8=11.0.0.0/8", "10.1.2.3/8 has host bits set"),
        ("10.0.0.0/8=192.168.1.0/24", "networks of different sizes"),
        ("10.0.0.0/8=::/0", "joins IPv4 and IPv6"),
        ("a=b", "'a' does not appear"),
    ],
)
def test_maps_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        rewriting([text])


# ---------------------------------------------------------------------------------------------------------------------
# Two sides


def divided(sides: Sides, packets: list[Packet]) -> list[int]:
    frames = [bytes(packet) for packet in packets]
    sizes = np.array([len(frame) for frame in frames], np.int64)
    found = np.full(len(frames), 9, np.int64)
    sides.divide(np.frombuffer(b"".join(frames), np.uint8), np.cumsum(sizes) - sizes, sizes, found)
    return found.tolist()


def test_clients_and_servers() -> None:
    """Who sends first is the client, but who accepts a connection is the server, whatever the frames."""
    sides = Sides()
    there, back = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "10.0.0.2", "dst": "10.0.0.1"}
    assert divided(sides, [Ether(**MAC) / IP(**there) / UDP(), Ether(**MAC) / IP(**back) / UDP()]) == [0, 1]
    assert divided(sides, [Ether(**MAC) / IP(**back) / TCP(flags="S"), Ether(**MAC) / IP(**there) / ICMP()]) == [1, 0]
    third = {"src": "10.0.0.3", "dst": "10.0.0.1"}
    accepting = Ether(**MAC) / IP(**third) / TCP(flags="SA")
    assert divided(sides, [accepting, Ether(**MAC) / IP(src="10.0.0.1", dst="10.0.0.3") / TCP(flags="A")]) == [1, 0]
    six = {"src": "2001:db8::1", "dst": "2001:db8::2"}
    assert divided(sides, [Ether(**MAC) / IPv6(**six), Ether(**MAC) / IPv6(src=six["dst"], dst=six["src"])]) == [0, 1]
    other = Ether(src=MAC["dst"], dst=MAC["src"], type=0x88B5) / b"abc"
    assert divided(sides, [Ether(type=0x88B5, **MAC) / b"abc", other]) == [0, 1]


def test_many_pairs() -> None:
    """More than the table has at first: it grows, and forgets none."""
    sides, count = Sides(), 5000
    forth = [Ether(**MAC) / ARP(psrc=f"10.1.{n >> 8}.{n & 255}", pdst="10.2.0.0") for n in range(count)]
    assert divided(sides, forth) == [0] * count
    back = [Ether(**MAC) / ARP(pdst=f"10.1.{n >> 8}.{n & 255}", psrc="10.2.0.0") for n in range(0, count, 50)]
    assert divided(sides, back) == [1] * len(back)
