"""Checksums that a kernel has left to an interface: told from right ones and from those that are wrong otherwise."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from ixy.dissect.unfinished import is_unfinished

pytestmark = pytest.mark.once

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
OVER4 = IP(src="10.0.0.1", dst="10.255.0.2")
WITH_OPTIONS = IP(src="10.0.0.1", dst="10.255.0.2", options=[IPOption_NOP()] * 4)
OVER6 = IPv6(src="2001:db8::1", dst="2001:db8:ffff::2")


def folded(total: int) -> int:
    """A sum of words of 16 bits, in one's complement (RFC 1071)."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def sum_of(data: bytes) -> int:
    return sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))


@pytest.mark.parametrize("tag", [None, Dot1Q(vlan=5)], ids=["plain", "tagged"])
@pytest.mark.parametrize(
    "network",
    [OVER4, WITH_OPTIONS, OVER6, OVER6 / IPv6ExtHdrDestOpt()],
    ids=["4", "4 with options", "6", "6 with options"],
)
@pytest.mark.parametrize(
    ("transport", "field"), [(TCP(sport=5, dport=6), 16), (UDP(sport=5, dport=6), 6)], ids=["tcp", "udp"]
)
def test_told_apart(tag: Packet | None, network: Packet, transport: Packet, field: int) -> None:
    head = ETHER / tag if tag else ETHER
    right = bytes(head / network / transport / b"an odd payload!")
    size = len(bytes(transport)) + len(b"an odd payload!")
    at = len(right) - size
    addresses = right[len(bytes(head)) :][12:20] if network.version == 4 else right[len(bytes(head)) :][8:40]
    pseudo = folded(sum_of(addresses) + (6 if isinstance(transport, TCP) else 17) + size)

    def with_checksum(value: int, data: bytes = right) -> bytes:
        return data[: at + field] + value.to_bytes(2, "big") + data[at + field + 2 :]

    assert not is_unfinished(right)
    assert is_unfinished(with_checksum(pseudo))
    assert not is_unfinished(with_checksum(pseudo ^ 1))
    assert not is_unfinished(with_checksum(0))
    assert not is_unfinished(with_checksum(pseudo)[:-1])  # cut: nobody knows
    # A payload whose right checksum is that sum
    zeroed = with_checksum(pseudo, right[:-15] + bytes(15))
    word = 0xFFFF ^ folded(pseudo + sum_of(zeroed[at:]))
    lucky = zeroed[:-15] + word.to_bytes(2, "big") + bytes(13)
    assert folded(pseudo + sum_of(lucky[at:])) == 0xFFFF
    assert not is_unfinished(lucky)


def test_other_packets() -> None:
    assert not is_unfinished(b"")
    assert not is_unfinished(bytes(14))
    assert not is_unfinished(bytes(ETHER / OVER4 / b"no known protocol"))
    assert not is_unfinished(bytes(ETHER / OVER4.copy() / UDP(chksum=0) / b"none at all"))
