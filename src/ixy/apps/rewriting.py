"""Frames that are changed before they are sent: addresses mapped from one network to another, VLANs; checksums follow.

Kernels over a frame that lies somewhere in an array, of which nothing is trusted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.errors import ConfigurationError
from ixy.headers import adjusted
from ixy.jit import compiled
from ixy.unsafe import copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TAG = 4  # bytes of a VLAN's
MAX_VLAN = 4094
KEEP_VLAN, NO_VLAN = -1, -2

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
_MACS = 12  # bytes of both addresses of a frame
_VLAN, _QINQ = 0x8100, 0x88A8  # IEEE 802.1Q, 802.1ad
_MOST_TAGS = 4
TCP, _UDP, _ICMP6 = 6, 17, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_MOST_EXTENSIONS = 8

NETWORK, MASK, TARGET, KEPT, PARTS = range(5)
_EXAMPLE = "10.1.0.0/16=192.168.0.0/16"


class Rewriting(NamedTuple):
    """What is changed in each frame.

    Attributes:
        networks: shape (n, PARTS, 4), int64: a network, its mask, what it becomes, and which bits of an address stay;
            in words of 32 bits, an IPv4 address in the first.
        families: shape (n,), int64: `IPV4` or `IPV6`.
        vlan: the identifier that each frame gets, in its tag or a new one, or `KEEP_VLAN`, or `NO_VLAN`.
    """

    networks: NDArray[np.int64]
    families: NDArray[np.int64]
    vlan: int


def rewriting(maps: Sequence[str] = (), vlan: int = KEEP_VLAN) -> Rewriting:
    """What the user asked for.

    Args:
        maps: "10.1.0.0/16=192.168.0.0/16": addresses of the first network begin as the second one does. The first
            network that has an address counts.

    Raises:
        ConfigurationError: a map is malformed, from IPv4 to IPv6, or to a network of another size, in which addresses
            would become one or be unknown.
    """
    pairs = [_pair(text) for text in maps]
    networks = np.zeros((len(pairs), PARTS, 4), np.int64)
    for row, (source, target) in zip(networks, pairs, strict=True):
        parts = source.network_address, source.netmask, target.network_address, target.hostmask
        row[:] = [_words(part) for part in parts]
    families = np.array([IPV4 if source.version == 4 else IPV6 for source, _ in pairs], np.int64)
    return Rewriting(networks, families, vlan)


def _pair(text: str) -> tuple[Network, Network]:
    try:
        before, equals, after = text.partition("=")
        if not equals:
            raise ValueError("write the network, = and the one in its place")
        source, target = ipaddress.ip_network(before), ipaddress.ip_network(after)
    except ValueError as error:
        raise ConfigurationError(f"--map {text!r}: {error}; write {_EXAMPLE}") from None
    if source.version != target.version:
        raise ConfigurationError(f"--map {text!r}: joins IPv4 and IPv6")
    if source.prefixlen != target.prefixlen:
        raise ConfigurationError(f"--map {text!r}: networks of different sizes; write {_EXAMPLE}")
    return source, target


def _words(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[int]:
    octets = address.packed.ljust(16, b"\0")
    return [int.from_bytes(octets[at : at + 4], "big") for at in range(0, 16, 4)]


# ---------------------------------------------------------------------------------------------------------------------
# Where things are in a frame


class Place(NamedTuple):
    """Where a frame has its addresses.

    Attributes:
        kind: `IPV4`, `IPV6`, `ARP`, or 0 for none of these.
        source, target: where the addresses begin.
        size: bytes of each.
        protocol: of what is behind IP, -1 where that cannot be known, as in a later fragment.
        behind: where that begins.
    """

    kind: int
    source: int
    target: int
    size: int
    protocol: int
    behind: int


@compiled
def half(data: Bytes, at: int) -> int:
    """Two bytes in network byte order."""
    return int(np.int64(data[at]) << 8 | np.int64(data[at + 1]))


@compiled
def quad(data: Bytes, at: int) -> int:
    """Four bytes in network byte order."""
    return half(data, at) << 16 | half(data, at + 2)


@compiled
def locate(data: Bytes, start: int, size: int) -> Place:
    """Where the frame `data[start:start + size]` has its addresses."""
    end, at = start + size, start + _MACS
    kind = half(data, at) if at + 2 <= end else 0
    for _ in range(_MOST_TAGS):
        if kind in (_VLAN, _QINQ) and at + TAG + 2 <= end:
            at += TAG
            kind = half(data, at)
    at += 2
    if kind == ARP and at + 28 <= end and half(data, at + 2) == IPV4 and data[at + 4] == 6 and data[at + 5] == 4:
        return Place(ARP, at + 14, at + 24, 4, -1, 0)
    if kind == IPV4 and at + 20 <= end and data[at] >> 4 == 4:
        protocol = -1 if half(data, at + 6) & 0x1FFF else int(data[at + 9])
        return Place(IPV4, at + 12, at + 16, 4, protocol, at + 4 * int(data[at] & 15))
    if kind == IPV6 and at + 40 <= end and data[at] >> 4 == 6:
        protocol, behind = _behind_ipv6(data, at, end)
        return Place(IPV6, at + 8, at + 24, 16, protocol, behind)
    return Place(0, start + 6, start, 6, -1, 0)


@compiled
def _behind_ipv6(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The protocol behind IPv6 and its extension headers (RFC 8200, 4), and where that begins."""
    protocol, behind = int(data[at + 6]), at + 40
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            return protocol, behind
        if behind + 8 > end or (protocol == _FRAGMENT and half(data, behind + 2) >> 3 != 0):
            return -1, behind
        size = 8 if protocol == _FRAGMENT else 8 * int(data[behind + 1]) + 8
        protocol = int(data[behind])
        behind += size
    return -1, behind


@compiled
def _checksum_place(place: Place, end: int) -> int:
    """Where the checksum is that covers IP's addresses; 0 if it is not there."""
    at = 0
    if place.protocol == TCP:
        at = place.behind + 16
    elif place.protocol == _UDP:
        at = place.behind + 6
    elif place.protocol == _ICMP6 and place.kind == IPV6:
        at = place.behind + 2
    return at if at + 2 <= end else 0


# ---------------------------------------------------------------------------------------------------------------------
# Changing it


@compiled
def most_bytes(size: int, rules: Rewriting) -> int:
    """The most bytes that a frame of so many has afterwards."""
    return size + (TAG if rules.vlan >= 0 else 0)


@compiled
def copy_rewritten(target: Bytes, to: int, source: Bytes, start: int, size: int, rules: Rewriting) -> int:
    """Copy the frame `source[start:start + size]` to `target[to:]`, where `most_bytes` have room, and change it there.

    Returns:
        How many bytes it has now.
    """
    size = _copy_tagged(target, to, source, start, size, rules.vlan)
    if rules.families.size > 0:
        place = locate(target, to, size)
        if place.kind != 0:
            _map(target, to + size, place, place.source, rules)
            _map(target, to + size, place, place.target, rules)
    return size


@compiled
def _copy_tagged(target: Bytes, to: int, source: Bytes, start: int, size: int, vlan: int) -> int:
    """Copy a frame, and set, add or remove the tag of its VLAN: the outer one, if there are two."""
    whole = size >= _MACS + 2
    kind = half(source, start + _MACS) if whole else 0
    tagged = (kind in (_VLAN, _QINQ)) and size >= _MACS + TAG + 2
    if vlan == KEEP_VLAN or not whole or (vlan == NO_VLAN and not tagged):
        copy(target, to, source, start, size)
        return size
    copy(target, to, source, start, _MACS)
    if vlan == NO_VLAN:
        copy(target, to + _MACS, source, start + _MACS + TAG, size - _MACS - TAG)
        return size - TAG
    priority = half(source, start + _MACS + 2) & 0xF000 if tagged else 0
    _put_half(target, to + _MACS, kind if tagged else _VLAN)
    _put_half(target, to + _MACS + 2, priority | vlan)
    skipped = _MACS + (TAG if tagged else 0)
    copy(target, to + _MACS + TAG, source, start + skipped, size - skipped)
    return size - skipped + _MACS + TAG


@compiled
def _map(data: Bytes, end: int, place: Place, at: int, rules: Rewriting) -> None:
    """Map the address at `data[at:]`, if a network has it."""
    family = IPV6 if place.kind == IPV6 else IPV4
    for number in range(rules.families.size):
        network = rules.networks[number]
        if rules.families[number] == family and _has(network, data, at, place.size):
            checksum = _checksum_place(place, end)
            for i in range(place.size // 4):
                old = quad(data, at + 4 * i)
                new = network[TARGET, i] | old & network[KEPT, i]
                _put_half(data, at + 4 * i, new >> 16)
                _put_half(data, at + 4 * i + 2, new & 0xFFFF)
                if place.kind == IPV4:
                    header = place.source - 2
                    _put_half(data, header, adjusted(half(data, header), old, new))
                if checksum > 0:
                    _adjust(data, checksum, old, new, place.protocol == _UDP)
            return


@compiled
def _has(network: NDArray[np.int64], data: Bytes, at: int, size: int) -> bool:
    for i in range(size // 4):
        if quad(data, at + 4 * i) & network[MASK, i] != network[NETWORK, i]:
            return False
    return True


@compiled
def _adjust(data: Bytes, at: int, old: int, new: int, udp: bool) -> None:
    """Adjust a checksum. UDP's is left alone where there is none, and never becomes 0, which says so (RFC 768)."""
    before = half(data, at)
    if udp and before == 0:
        return
    after = adjusted(before, old, new)
    _put_half(data, at, 0xFFFF if udp and after == 0 else after)


@compiled
def _put_half(data: Bytes, at: int, value: int) -> None:
    data[at], data[at + 1] = value >> 8 & 0xFF, value & 0xFF
