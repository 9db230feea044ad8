"""Checksums that nobody has made.

A kernel leaves the checksum of a TCP segment or UDP datagram to an interface that makes them, and writes the sum of the
pseudo-header where it is to stand, from which the interface goes on. One that hands the packet to the same machine, as
veth does, makes none, so that sum is what arrives.

Source: Documentation/networking/checksum-offloads.rst of the Linux kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.dissect import ip
from ixy.dissect.frame import Frame
from ixy.dissect.line import checksum

if TYPE_CHECKING:
    from ixy.headers import Ipv4, Ipv6, Tcp, Udp

_IPV6_HEADER = 40


def is_unfinished(data: bytes) -> bool:
    """Whether a frame's checksum of TCP or UDP is the sum of the pseudo-header, and wrong; False if it cannot be told,
    as of a frame that was cut, or of a fragment."""
    frame = Frame(data)
    for number, header in ((ip.TCP, frame.tcp), (ip.UDP, frame.udp)):
        if header:
            return _says_pseudo_sum(data, frame.ipv4 or frame.ipv6, header, number)
    return False


def _says_pseudo_sum(data: bytes, carrier: Ipv4 | Ipv6, header: Tcp | Udp, number: int) -> bool:
    four = carrier.version == 4
    at, end = header.at, carrier.at + carrier.length + (0 if four else _IPV6_HEADER)
    addresses = data[carrier.at + 12 : carrier.at + 20] if four else data[carrier.at + 8 : carrier.at + _IPV6_HEADER]
    pseudo = addresses + number.to_bytes(2, "big") + (end - at).to_bytes(4, "big")
    if end > len(data) or header.checksum != ~checksum(pseudo) & 0xFFFF:
        return False
    return checksum(pseudo + data[at:end]) != 0  # one in 65,536 is right all the same
