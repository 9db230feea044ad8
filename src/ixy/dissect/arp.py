"""ARP (RFC 826), its reverse (RFC 903) and inverse (RFC 2390)."""

from __future__ import annotations

from ixy.dissect.ethernet import NAMES
from ixy.dissect.line import Line, Truncated, ether_type, hex_and_text_lines, named

_IPV4, _TRAILER = 0x0800, 0x1000
_REQUEST, _REPLY, _REVERSE_REQUEST, _REVERSE_REPLY, _INVERSE_REQUEST, _INVERSE_REPLY = 1, 2, 3, 4, 8, 9
_OPERATIONS = {
    _REQUEST: "Request",
    _REPLY: "Reply",
    _REVERSE_REQUEST: "Reverse Request",
    _REVERSE_REPLY: "Reverse Reply",
    _INVERSE_REQUEST: "Inverse Request",
    _INVERSE_REPLY: "Inverse Reply",
    10: "NACK Reply",
}
_HARDWARE = {
    1: "Ethernet",
    6: "TokenRing",
    7: "ArcNet",
    15: "FrameRelay",
    19: "ATM",
    23: "Strip",
    24: "IEEE 1394",
    32: "InfiniBand",
}


@ether_type(0x0806)
@ether_type(0x8035)
def arp(line: Line, at: int, length: int) -> None:
    line.protocol = "arp"
    hardware, protocol = line.u16(at), line.u16(at + 2)
    mac_size, size, operation = line.u8(at + 4), line.u8(at + 5), line.u16(at + 6)
    sender_mac = at + 8
    sender, target_mac = sender_mac + mac_size, sender_mac + mac_size + size
    target = target_mac + mac_size
    if not line.has(target, size):
        raise Truncated
    if not line.style.link:
        line.say("ARP, ")
    verbose, is_ip = line.style.verbose > 0, protocol in (_IPV4, _TRAILER)
    if verbose or not is_ip or size != 4 or mac_size == 0:
        line.say(f"{named(_HARDWARE, hardware, 'Unknown Hardware ({})')} (len {mac_size}), ")
        line.say(f"{NAMES.get(protocol) or f'Unknown Protocol (0x{protocol:04x})'} (len {size})")
        if not verbose:
            line.say(f", length {length}")
            return
    line.say(", " if verbose else "", named(_OPERATIONS, operation, "Unknown ({})"), " ")

    def address(place: int) -> str:
        if not is_ip:
            return "<wrong proto type>"
        return line.ipv4(place) if size == 4 else "<wrong len>"

    def mac(place: int) -> str:
        return line.octets(place, mac_size).hex(":") or "<empty>"

    if operation == _REQUEST:
        known = f" ({mac(target_mac)})" if any(line.octets(target_mac, mac_size)) else ""
        line.say(f"who-has {address(target)}{known} tell {address(sender)}")
    elif operation == _REPLY:
        line.say(f"{address(sender)} is-at {mac(sender_mac)}")
    elif operation in (_REVERSE_REQUEST, _INVERSE_REQUEST):
        line.say(f"who-is {mac(target_mac)} tell {mac(sender_mac)}")
    elif operation == _REVERSE_REPLY:
        line.say(f"{mac(target_mac)} at {address(target)}")
    elif operation == _INVERSE_REPLY:
        line.say(f"{mac(sender_mac)} at {address(sender)}")
    else:
        line.say(hex_and_text_lines("\n\t", line.data[at : line.end]))
        return
    line.say(f", length {length}")
