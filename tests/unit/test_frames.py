"""The frames that are sent when nothing else is given."""

from __future__ import annotations

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ixy.errors import ConfigurationError
from ixy.formats.frames import internet_checksum, udp_frame

MACS = st.binary(min_size=6, max_size=6)


@given(st.integers(60, 1514), MACS, MACS)
def test_frame_is_what_others_read(size: int, source: bytes, destination: bytes) -> None:
    """dpkt finds addresses, protocols and lengths in a frame of any size; Scapy computes the same header checksum."""
    frame = udp_frame(size, source, destination)
    assert len(frame) == size
    ethernet = dpkt.ethernet.Ethernet(frame)
    ip, udp = ethernet.data, ethernet.data.data
    assert (ethernet.src, ethernet.dst) == (source, destination)
    assert (ip.src, ip.dst, ip.p) == (b"\x0a\0\0\1", b"\x0a\0\0\2", dpkt.ip.IP_PROTO_UDP)
    assert (ip.len, udp.ulen, len(udp.data)) == (size - 14, size - 34, size - 42)
    rebuilt = IP(frame[14:])
    stored = rebuilt.chksum
    del rebuilt.chksum
    assert IP(bytes(rebuilt)).chksum == stored
    assert Ether(frame)[UDP].chksum == 0  # none: the payload may change


@given(st.binary(max_size=200).filter(lambda data: len(data) % 2 == 0))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    """Words and their checksum add up to all ones in ones' complement, and dpkt finds the same one."""
    checksum = internet_checksum(data)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)) + checksum
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    assert total == 0xFFFF
    assert dpkt.in_cksum(data) == checksum


@pytest.mark.parametrize("size", [59, 65_550, 0, -1])
def test_sizes_that_no_frame_has(size: int) -> None:
    """Below the least size of an Ethernet frame, and above what an IPv4 packet can have."""
    with pytest.raises(ConfigurationError, match="60 to 65549"):
        udp_frame(size)
