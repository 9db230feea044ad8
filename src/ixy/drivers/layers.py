"""Where the headers of a packet lie that is to be sent, and what has to stand in them where a device makes checksums or
segments.

Devices are told places, and add up bytes; what the bytes mean they do not look at. So a driver finds the headers, and
leaves in place of TCP's or UDP's checksum the sum of what it covers besides: the pseudo header. Nobody has looked at
these packets before. One whose headers contradict themselves, or do not lie in its first buffer, has none here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ixy.jit import compiled, outlined
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TCP, UDP = 6, 17  # IANA's numbers
TCP_CHECKSUM, UDP_CHECKSUM = 16, 6  # where in their headers it stands
IPV4_CHECKSUM = 10

_VLAN, _QINQ, _IPV4, _IPV6 = 0x8100, 0x88A8, 0x0800, 0x86DD  # EtherTypes
_TYPE = 12  # where the first one stands
_MOST_TAGS, _MOST_EXTENSIONS = 2, 8
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_NEITHER = 0  # in place of a protocol
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER, _UDP_HEADER = 20, 40, 20, 8  # bytes, without options
_IPV4_PARTS, _IPV6_PARTS = 0x3FFF, 0xFFF9  # of a packet that is whole, these bits are 0: more fragments, and offset


class Layers(NamedTuple):
    """The headers of a packet, by where they begin in it.

    Attributes:
        network: IP.
        transport: what is behind IP's options or extension headers.
        payload: what is behind the header of TCP or UDP.
        end: the first byte behind the IP packet.
        version: of IP: 4 or 6, or 0 if it is not IP; then all is 0.
        protocol: TCP or UDP; 0 if it is neither, a fragment, or not whole, and then `payload` is 0.
    """

    network: int
    transport: int
    payload: int
    end: int
    version: int
    protocol: int


@outlined
def find_layers(data: NDArray[np.uint8], length: int, total: int) -> Layers:
    """The headers of a packet of `total` bytes, of which `data` begins with the first `length`: behind up to two VLAN
    tags, IPv4 with options, or IPv6 with extension headers.
    """
    network, kind = _behind_tags(data, length)
    version, protocol, transport, end, payload = 0, _NEITHER, 0, 0, 0
    if kind == _IPV4:
        protocol, transport, end = _behind_ipv4(data, network, length, total)
        version = 4
    elif kind == _IPV6:
        protocol, transport, end = _behind_ipv6(data, network, length, total)
        version = 6
    if transport == 0:
        return Layers(0, 0, 0, 0, 0, _NEITHER)
    size = _header_size(data, protocol, transport, length, end)
    if size > 0:
        payload = transport + size
    else:
        protocol = _NEITHER
    return Layers(network, transport, payload, end, version, protocol)


@compiled
def _behind_tags(data: NDArray[np.uint8], length: int) -> tuple[int, int]:
    """What is behind the VLAN tags (IEEE 802.1Q), and its EtherType, 0 if the packet ends before."""
    at = _TYPE
    for _ in range(_MOST_TAGS + 1):
        if at + 2 > length:
            return 0, 0
        kind = half(data, at)
        if kind != _VLAN and kind != _QINQ:
            return at + 2, kind
        at += 4
    return 0, 0


@compiled
def _behind_ipv4(data: NDArray[np.uint8], at: int, length: int, total: int) -> tuple[int, int, int]:
    """The protocol behind IPv4's header, where that begins, and where it ends; zeros if it makes no sense (RFC 791)."""
    if at + _IPV4_HEADER > length:
        return _NEITHER, 0, 0
    first = load_acquire(data, at)
    size, end = 4 * (first & 15), at + half(data, at + 2)
    if first >> 4 != 4 or size < _IPV4_HEADER or at + size > min(length, end) or end > total:
        return _NEITHER, 0, 0
    protocol = _NEITHER if half(data, at + 6) & _IPV4_PARTS != 0 else load_acquire(data, at + 9)
    return protocol, at + size, end


@compiled
def _behind_ipv6(data: NDArray[np.uint8], at: int, length: int, total: int) -> tuple[int, int, int]:
    """The same of IPv6 and its extension headers (RFC 8200, 4)."""
    if at + _IPV6_HEADER > length or load_acquire(data, at) >> 4 != 6:
        return _NEITHER, 0, 0
    protocol, end = load_acquire(data, at + 6), at + _IPV6_HEADER + half(data, at + 4)
    if end > total:
        return _NEITHER, 0, 0
    at += _IPV6_HEADER
    for _ in range(_MOST_EXTENSIONS):
        if not _is_extension(protocol):
            break
        if at + 8 > min(length, end):
            return _NEITHER, 0, 0
        if _hides(data, at, protocol):
            return _NEITHER, at, end
        size = 8 * load_acquire(data, at + 1) + 8
        if protocol == _FRAGMENT:
            size = 8
        elif protocol == _AUTHENTICATION:  # RFC 4302, 2.2: in words of 4 bytes
            size = 4 * load_acquire(data, at + 1) + 8
        protocol = load_acquire(data, at)
        at += size
    return (protocol, at, end) if at <= min(length, end) else (_NEITHER, 0, 0)


@compiled
def _is_extension(protocol: int) -> bool:
    return (
        protocol == _HOP_BY_HOP
        or protocol == _ROUTING
        or protocol == _FRAGMENT
        or protocol == _AUTHENTICATION
        or protocol == _DESTINATION
    )


@compiled
def _hides(data: NDArray[np.uint8], at: int, extension: int) -> bool:
    """Whether a checksum covers what is not here: another fragment, or the address that is last on the packet's way
    (RFC 8200, 8.1)."""
    if extension == _FRAGMENT:
        return half(data, at + 2) & _IPV6_PARTS != 0
    return extension == _ROUTING and load_acquire(data, at + 3) != 0


@compiled
def _header_size(data: NDArray[np.uint8], protocol: int, at: int, length: int, end: int) -> int:
    """The bytes of the header of TCP or UDP, 0 if it is neither or not whole; a datagram has to end where IP does."""
    size = 0
    if protocol == TCP and at + _TCP_HEADER <= min(length, end):
        size = 4 * (load_acquire(data, at + 12) >> 4)
        if size < _TCP_HEADER:
            return 0
    elif protocol == UDP and at + _UDP_HEADER <= min(length, end) and half(data, at + 4) == end - at:
        size = _UDP_HEADER
    return size if at + size <= min(length, end) else 0


@compiled
def is_cut(layers: Layers, segment: int) -> bool:
    """Whether a packet is more than one segment of so many bytes of payload; 0 of one that is not to be cut."""
    return 0 < segment < layers.end - layers.payload


# ---------------------------------------------------------------------------------------------------------------------
# What has to stand in them


@compiled
def write_pseudo_sum(data: NDArray[np.uint8], layers: Layers, size: int) -> None:
    """Leave the pseudo header's sum where the checksum of TCP or UDP is to be (RFC 9293, RFC 768, RFC 8200 8.1).

    Args:
        size: that it contains: of header and payload, `layers.end - layers.transport`. A card that cuts segments adds
            each one's by itself, and wants 0.
    """
    total = layers.protocol + size
    first = layers.network + (12 if layers.version == 4 else 8)
    last = layers.network + (20 if layers.version == 4 else 40)
    for at in range(first, last, 2):
        total += half(data, at)
    put_half(data, checksum_place(layers), folded(total))


@compiled
def checksum_place(layers: Layers) -> int:
    """Where in the packet the checksum of TCP or UDP stands."""
    return layers.transport + (TCP_CHECKSUM if layers.protocol == TCP else UDP_CHECKSUM)


@compiled
def write_header_checksum(data: NDArray[np.uint8], layers: Layers) -> None:
    """Make the checksum of an IPv4 header, for a device that does not."""
    put_half(data, layers.network + IPV4_CHECKSUM, 0)
    total = 0
    for at in range(layers.network, layers.transport, 2):
        total += half(data, at)
    put_half(data, layers.network + IPV4_CHECKSUM, ~folded(total) & 0xFFFF)


@compiled
def clear_header_checksum(data: NDArray[np.uint8], layers: Layers) -> None:
    """Leave 0 in its place, for a device that makes it."""
    put_half(data, layers.network + IPV4_CHECKSUM, 0)


@compiled
def clear_lengths(data: NDArray[np.uint8], layers: Layers) -> None:
    """Leave 0 where IP says how long the packet is, for a device that cuts it into segments."""
    put_half(data, layers.network + (2 if layers.version == 4 else 4), 0)


@compiled
def half(data: NDArray[np.uint8], at: int) -> int:
    """16 bits in network order."""
    return load_acquire(data, at) << 8 | load_acquire(data, at + 1)


@compiled
def put_half(data: NDArray[np.uint8], at: int, value: int) -> None:
    data[at] = value >> 8 & 0xFF
    data[at + 1] = value & 0xFF


@compiled
def folded(total: int) -> int:
    """A sum of up to 2^16 words of 16 bits with the carries added back in (RFC 1071)."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
