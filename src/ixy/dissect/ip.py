"""What follows an IP header, whichever it is, and checksums over pseudo-headers."""

from __future__ import annotations

from ixy.dissect.line import PROTOCOLS, Carrier, Line, checksum

ICMP, IPV4, TCP, UDP, DCCP, IPV6, ICMP6, NONE, SCTP = 1, 4, 6, 17, 33, 41, 58, 59, 132
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60

NAMES = {
    HOP_BY_HOP: "Options",
    ICMP: "ICMP",
    2: "IGMP",
    IPV4: "IPIP",
    TCP: "TCP",
    8: "EGP",
    9: "IGRP",
    UDP: "UDP",
    DCCP: "DCCP",
    IPV6: "IPv6",
    ROUTING: "Routing",
    FRAGMENT: "Fragment",
    46: "RSVP",
    47: "GRE",
    50: "ESP",
    AUTHENTICATION: "AH",
    55: "Mobile IP",
    ICMP6: "ICMPv6",
    62: "Mobile IP (old)",
    88: "EIGRP",
    89: "OSPF",
    103: "PIM",
    108: "Compressed IP",
    112: "VRRP",
    113: "PGM",
    SCTP: "SCTP",
    135: "Mobility",
    143: "Ethernet",
}
WITH_PORTS = (TCP, UDP)  # they print both addresses along with their ports
_REQUIRED = {ICMP: 4, ICMP6: 6}  # the version that carries it


def payload(line: Line, at: int, length: int, number: int, carrier: Carrier) -> None:
    """What a protocol number announces."""
    if _REQUIRED.get(number, carrier.version) != carrier.version:
        line.say(f"[{NAMES[number]} requires IPv{_REQUIRED[number]}] (invalid)")
    elif number in PROTOCOLS:
        PROTOCOLS[number](line, at, length, carrier)
    elif number == NONE:
        line.say("no next header")
    else:
        line.say(f" ip-proto-{number} {length}")


def checksum_of(line: Line, at: int, size: int, number: int, carrier: Carrier) -> int:
    """The checksum of a protocol's `size` bytes with its pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1); 0 if right."""
    pseudo = _pseudo4(line, carrier.at, size, number) if carrier.version == 4 else _pseudo6(line, carrier, size, number)
    return checksum(pseudo + line.octets(at, size))


def _pseudo4(line: Line, at: int, size: int, number: int) -> bytes:
    return line.octets(at + 12, 4) + _destination4(line, at) + bytes((0, number)) + (size & 0xFFFF).to_bytes(2, "big")


def _destination4(line: Line, at: int) -> bytes:
    """Where a datagram goes in the end: a source route (RFC 791, 3.1) has that as its last address."""
    end, place = at + 4 * (line.u8(at) & 15), at + 20
    while place < end and (kind := line.u8(place)):
        size = 1 if kind == 1 else line.u8(place + 1)
        if size < 2 <= kind or place + size > end:
            break
        if kind in (131, 137) and size >= 7:
            return line.octets(place + size - 4, 4)
        place += size
    return line.octets(at + 16, 4)


def _pseudo6(line: Line, carrier: Carrier, size: int, number: int) -> bytes:
    at = carrier.at
    return line.octets(at + 8, 16) + _destination6(line, at) + size.to_bytes(4, "big") + bytes((0, 0, 0, number))


def _destination6(line: Line, at: int) -> bytes:
    """The same of IPv6: a routing header (RFC 8200, 4.4) has it, that of segment routing (RFC 8754) as the first."""
    following, place = line.u8(at + 6), at + 40
    while following in (HOP_BY_HOP, DESTINATION, FRAGMENT) and line.has(place, 2):
        size = 8 if following == FRAGMENT else 8 * line.u8(place + 1) + 8
        following, place = line.u8(place), place + size
    if following == ROUTING and line.has(place, 4):
        words, kind = line.u8(place + 1), line.u8(place + 2)
        if kind in (0, 2) and words and words % 2 == 0:
            return line.octets(place + 8 + 8 * (words - 2), 16)
        if kind == 4 and words % 2 == 0:
            return line.octets(place + 8, 16)
    return line.octets(at + 24, 16)
