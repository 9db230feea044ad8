"""What lies between a tester's ports has to know where packets are to go before any are counted (RFC 2544, section 23).

A switch learns it from frames that come from where packets are to go. A router asks, by ARP (RFC 826) or by IPv6's
neighbour discovery (RFC 4861), and asks again now and then. So a port announces who is behind it, and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ixy.apps.compose import compose
from ixy.headers import ABSENT, Arp, Icmp6, Ipv4, Ipv6, ether_type

if TYPE_CHECKING:
    from ixy.apps.streams import Stream

MOST = 4096  # that a port announces
_EVERYBODY, _ALL_NODES = (1 << 48) - 1, 0x3333_0000_0001  # Ethernet addresses
_REQUEST, _REPLY = 1, 2  # operations of ARP
_SOLICITATION, _ADVERTISEMENT = 135, 136  # types of ICMPv6
_SOLICITED, _OVERRIDE = 0x4000, 0x2000  # flags of an advertisement (RFC 4861, 4.4)
_LINK_ADDRESS = b"\x02\x01"  # an option: the target's link-layer address, of 8 bytes in all
_UNSPECIFIED = bytes(16)
_ARP_BYTES, _ADVERTISEMENT_BYTES = 42, 86  # of a frame without a tag


class Neighbour(NamedTuple):
    """Who is behind a port.

    Attributes:
        mac: its Ethernet address.
        address: of IPv4 or IPv6, as in a packet; empty for neither.
        tags: of its VLANs, as in a packet.
    """

    mac: int
    address: bytes
    tags: bytes

    def announcement(self) -> bytes:
        """A frame by which all learn of it."""
        if len(self.address) == 4:
            frame = _arp(self.mac, self.address, _EVERYBODY, 0, self.address, _REQUEST)  # RFC 5227, 2.3
        elif self.address:
            frame = _advertisement(self.mac, self.address, _ALL_NODES, b"\xff\x02" + bytes(13) + b"\x01", _OVERRIDE)
        else:
            frame = compose({"eth": {"src": self.mac, "dst": _EVERYBODY}}, b"\0", [60])[0]
        return frame[:12] + self.tags + frame[12:]


class Neighbours:
    """Those behind a port, from whom its test packets come.

    Args:
        streams: the test packets.
        mac: under which all of them are to be reached; None for each by the address that its packets have.
    """

    def __init__(self, streams: Sequence[Stream], mac: bytes | None = None) -> None:
        self._streams, self._mac = streams, mac

    def announcements(self) -> list[bytes]:
        """A frame for each, of 4096 at most. Of those whose IP addresses vary one is announced: a router asks."""
        return [each.announcement() for each in dict.fromkeys(islice(self._all(), MOST))]

    def _all(self) -> Iterator[Neighbour]:
        for stream in self._streams:
            choice = stream.fields.get("eth.src")
            for frame in dict.fromkeys(map(_headers, stream.frames)):
                own = [int.from_bytes(frame.mac)] if choice is None else choice.values
                for mac in own if self._mac is None else [int.from_bytes(self._mac)]:
                    yield Neighbour(mac, frame.address, frame.tags)

    def answer(self, frame: bytes) -> bytes | None:
        """What to answer to a frame; None to what asks for none of them."""
        asked = _question(frame)
        if asked is None:
            return None
        owner = self._owner(asked.target)
        if owner is None:
            return None
        answer = _answer(owner, asked)
        return answer[:12] + frame[12 : ether_type(cast(Any, frame))] + answer[12:]

    def _owner(self, address: bytes) -> int | None:
        """The Ethernet address of who has an IP address; None if nobody does."""
        name, number = ("ipv4.src" if len(address) == 4 else "ipv6.src"), int.from_bytes(address)
        for stream in self._streams:
            choice = stream.fields.get(name)
            for frame in dict.fromkeys(map(_headers, stream.frames)):
                of_kind = len(frame.address) == len(address)
                if of_kind and (frame.address == address if choice is None else number in choice.values):
                    return int.from_bytes(self._mac or frame.mac)
        return None


class _Headers(NamedTuple):
    """What a test packet's headers say of who sends it."""

    mac: bytes
    address: bytes
    tags: bytes


def _headers(frame: bytes) -> _Headers:
    address = b""
    if (at := Ipv4.locate(frame)) != ABSENT:
        address = frame[at + 12 : at + 16]
    elif (at := Ipv6.locate(frame)) != ABSENT:
        address = frame[at + 8 : at + 24]
    return _Headers(frame[6:12], address, frame[12 : ether_type(cast(Any, frame))])


class _Question(NamedTuple):
    """Who asks for whose Ethernet address."""

    mac: int
    address: bytes
    target: bytes


def _question(frame: bytes) -> _Question | None:
    """What a frame asks, if it is a request of ARP or a neighbour solicitation."""
    mac = int.from_bytes(frame[6:12])
    at = Arp.locate(frame)
    if at != ABSENT and frame[at + 6 : at + 8] == bytes([0, _REQUEST]):
        return _Question(mac, frame[at + 14 : at + 18], frame[at + 24 : at + 28])
    at = Icmp6.locate(frame)
    if at != ABSENT and frame[at] == _SOLICITATION and len(frame) >= at + 24:
        source = Ipv6.locate(frame) + 8
        return _Question(mac, frame[source : source + 16], frame[at + 8 : at + 24])
    return None


def _answer(mac: int, asked: _Question) -> bytes:
    if len(asked.target) == 4:
        return _arp(mac, asked.target, asked.mac, asked.mac, asked.address, _REPLY)
    if asked.address == _UNSPECIFIED:  # who looks whether it may have an address itself
        return Neighbour(mac, asked.target, b"").announcement()
    return _advertisement(mac, asked.target, asked.mac, asked.address, _SOLICITED | _OVERRIDE)


def _arp(mac: int, address: bytes, to: int, target_mac: int, target: bytes, operation: int) -> bytes:
    fields = {"operation": operation, "sender_mac": mac, "target_mac": target_mac}
    fields |= {"sender": int.from_bytes(address), "target": int.from_bytes(target)}
    return compose({"eth": {"src": mac, "dst": to}, "arp": fields}, b"\0", [_ARP_BYTES])[0]


def _advertisement(mac: int, address: bytes, to: int, target: bytes, flags: int) -> bytes:
    """A neighbour advertisement (RFC 4861, 4.4) for an address, with its link-layer address."""
    body = address + _LINK_ADDRESS + mac.to_bytes(6)
    headers = {
        "eth": {"src": mac, "dst": to},
        "ipv6": {"src": int.from_bytes(address), "dst": int.from_bytes(target), "hop_limit": 255},
        "icmp6": {"type": _ADVERTISEMENT, "id": flags},
    }
    return compose(headers, body, [_ADVERTISEMENT_BYTES])[0]
