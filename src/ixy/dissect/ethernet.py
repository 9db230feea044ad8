"""Ethernet, and the tags of VLANs."""

from __future__ import annotations

from ixy.dissect.line import ETHER_TYPES, Line, hex_and_text_lines

HEADER = 14  # bytes
_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)  # IEEE 802.1Q, 802.1ad, and what was used before that
_LONGEST = 1500  # a length; what is above is an EtherType (IEEE 802.3, 3.2.6)

NAMES = {
    0x0200: "PUP",
    0x0500: "Sprite",
    0x0600: "NS",
    0x0800: "IPv4",
    0x0806: "ARP",
    0x1000: "Trail",
    0x6001: "MOP DL",
    0x6002: "MOP RC",
    0x6003: "DN",
    0x6004: "LAT",
    0x6007: "SCA",
    0x6558: "TEB",
    0x8035: "Reverse ARP",
    0x8038: "Lanbridge",
    0x803C: "DEC DNS",
    0x803E: "DEC DTS",
    0x805B: "VEXP",
    0x805C: "VPROD",
    0x809B: "Appletalk",
    0x80F3: "Appletalk ARP",
    0x8100: "802.1Q",
    0x8137: "IPX",
    0x86DD: "IPv6",
    0x8808: "MPCP",
    0x8809: "Slow Protocols",
    0x880B: "PPP",
    0x8847: "MPLS unicast",
    0x8848: "MPLS multicast",
    0x8863: "PPPoE D",
    0x8864: "PPPoE S",
    0x886F: "MS NLB heartbeat",
    0x8870: "Jumbo",
    0x888E: "EAPOL",
    0x8899: "Realtek protocols",
    0x88A2: "AoE",
    0x88A8: "802.1Q-QinQ",
    0x88CA: "TIPC",
    0x88CC: "LLDP",
    0x88E5: "802.1AE MACsec",
    0x88F7: "PTP",
    0x8902: "CFM",
    0x8903: "CFM (old)",
    0x893A: "IEEE1905.1",
    0x894F: "NSH",
    0x8947: "GeoNet",
    0x04E0: "CALM FAST",
    0x0707: "GeoNet (old)",
    0x9000: "Loopback",
    0x9100: "802.1Q-9100",
    0x9200: "802.1Q-9200",
    0xD28B: "Arista Vendor Specific Protocol",
    0xFEFE: "OSI",
    0x00FE: "GRE-OSI",
}


def ethernet(line: Line, length: int) -> None:
    """A frame, of `length` bytes on the wire."""
    line.protocol = "ether"
    style, size = line.style, len(line.data)
    if size < HEADER:
        line.cut()
        line.link_size = size
        return
    addresses = f"{line.mac(6)} > {line.mac(0)}, "
    kind, at, said = line.u16(12), HEADER, False
    if style.link:
        line.say(addresses)
    while kind in _TAGS:
        if size - at < 4:
            line.protocol = "vlan"
            line.cut()
            line.link_size = size
            return
        if style.link:
            tag = line.u16(at)
            line.say(_type(line, kind), ", " if said else f", length {length}: ")
            line.say(f"vlan {tag & 0xFFF}, p {tag >> 13}{', DEI' if tag & 0x1000 else ''}, ")
            said = True
        kind, at = line.u16(at + 2), at + 4
    if kind > _LONGEST:
        before = _type(line, kind) + (", " if said else f", length {length}: ")
        _payload(line, kind, at, length, addresses, before)
    else:
        _by_length(line, kind, at, length, addresses, said)
    line.link_size = at


def _payload(line: Line, kind: int, at: int, length: int, addresses: str, before: str) -> None:
    """What an EtherType announces."""
    if line.style.link:
        line.say(before)
    if kind in ETHER_TYPES:
        ETHER_TYPES[kind](line, at, length - at)
        return
    if not line.style.link:
        line.say(addresses, _type(line, kind), f", length {length}: ")
    if line.style.raw:
        line.say(hex_and_text_lines("\n\t", line.data[at : line.end]))


def _by_length(line: Line, size: int, at: int, length: int, addresses: str, said: bool) -> None:
    """A frame with a length in place of the EtherType: LLC follows, which is not told apart."""
    size = min(size, length - at)
    if not line.style.link:
        line.say(addresses)
    line.say("802.3", "" if said else f", length {size}: ")
    if line.style.raw:
        line.say(hex_and_text_lines("\n\t", line.data[at : min(at + size, line.end)]))


def _type(line: Line, kind: int) -> str:
    if line.style.quiet:
        return NAMES.get(kind) or f"Unknown Ethertype (0x{kind:04x})"
    return f"ethertype {NAMES.get(kind) or 'Unknown'} (0x{kind:04x})"
