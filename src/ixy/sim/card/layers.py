"""Where the headers of a frame lie, as far as a simulated 82599 looks: VLAN tags, IP, TCP, UDP and SCTP.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ixy.jit import compiled, outlined
from ixy.sim.card.frame import MAC_BYTES, half, tags
from ixy.unsafe import load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IPV4, IPV6 = 0x0800, 0x86DD  # Ethertypes
TCP, UDP, SCTP = 6, 17, 132
NO_PROTOCOL = -1

IPV4_HEADER, IPV6_HEADER, TCP_HEADER, UDP_HEADER, SCTP_HEADER = 20, 40, 20, 8, 12  # bytes, without options
TCP_FLAGS = 13  # where the lower eight are

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSION_UNIT = 8
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF


class Layers(NamedTuple):
    """The headers of a frame; places are indices into the array in which it lies.

    Attributes:
        outer, inner: the bytes of its VLAN tags, 0 for one that it has not.
        ethertype: of what is behind the tags.
        network: where that begins.
        version: 4 or 6 if it is an IP packet, and whole; else 0.
        extended: whether that has IPv4 options or IPv6 extension headers.
        is_fragment: whether it is a fragment, the first one included.
        protocol: what its headers say is behind them, `NO_PROTOCOL` without IP.
        transport: where that begins.
        transport_size: the bytes of its TCP, UDP or SCTP header; 0 if it is something else, a fragment, or not whole.
        diverted: whether a routing header names other addressees, so that the checksum is not of these addresses.
        end: the first byte behind the IP packet.
    """

    outer: int
    inner: int
    ethertype: int
    network: int
    version: int
    extended: bool
    is_fragment: bool
    protocol: int
    transport: int
    transport_size: int
    diverted: bool
    end: int


@outlined
def parse(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, length: int) -> Layers:
    """The headers of a frame of `length` bytes that lies at `start`."""
    outer, inner = tags(registers, frame, start)
    network = start + MAC_BYTES + outer + inner + 2
    ethertype = half(frame, network - 2)
    extended, is_fragment, diverted, protocol, transport, transport_size = False, False, False, NO_PROTOCOL, network, 0
    end = start + length
    size = network_size(frame, ethertype, network, end)
    version = 0
    if size > 0:
        end = network + size
        if ethertype == IPV4:
            version = 4
            header = 4 * (load_acquire(frame, network) & 15)
            extended = header > IPV4_HEADER
            is_fragment = half(frame, network + 6) & _MORE_FRAGMENTS_OR_OFFSET != 0
            protocol, transport = load_acquire(frame, network + 9), network + header
        else:
            version = 6
            protocol, transport, is_fragment, diverted = skip_extensions(frame, network, end)
            extended = transport > network + IPV6_HEADER
        if not is_fragment:
            transport_size = header_size(frame, protocol, transport, end)
    return Layers(
        outer,
        inner,
        ethertype,
        network,
        version,
        extended,
        is_fragment,
        protocol,
        transport,
        transport_size,
        diverted,
        end,
    )


@compiled
def network_size(frame: NDArray[np.uint8], ethertype: int, network: int, end: int) -> int:
    """The length of the IP packet that begins at `network`, 0 if there is none that is whole."""
    size = 0
    if ethertype == IPV4 and network + IPV4_HEADER <= end:
        header = 4 * (load_acquire(frame, network) & 15)
        size = half(frame, network + 2)
        if header < IPV4_HEADER or size < header:
            size = 0
    elif ethertype == IPV6 and network + IPV6_HEADER <= end:
        size = IPV6_HEADER + half(frame, network + 4)
    return size if network + size <= end else 0


@compiled
def skip_extensions(frame: NDArray[np.uint8], network: int, end: int) -> tuple[int, int, bool, bool]:
    """What is behind the extension headers of an IPv6 packet, and where; whether it is a fragment, and is diverted.

    Those are followed that any node may skip (RFC 8200, 4). Each moves on by 8 bytes or more, so the walk ends.
    """
    protocol, at = load_acquire(frame, network + 6), network + IPV6_HEADER
    is_fragment = diverted = False
    while is_extension(protocol) and at + _EXTENSION_UNIT <= end and not is_fragment:
        units = load_acquire(frame, at + 1)
        is_fragment = protocol == _FRAGMENT
        diverted |= protocol == _ROUTING and units > 0
        protocol = load_acquire(frame, at)
        at += _EXTENSION_UNIT if is_fragment else _EXTENSION_UNIT * (units + 1)
    return protocol, min(at, end), is_fragment, diverted


@compiled
def is_extension(protocol: int) -> bool:
    return protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION)


@compiled
def header_size(frame: NDArray[np.uint8], protocol: int, transport: int, end: int) -> int:
    """The bytes of a transport header that is known and whole, else 0."""
    size = 0
    if protocol == TCP and transport + TCP_HEADER <= end:
        size = min(max(4 * (load_acquire(frame, transport + 12) >> 4), TCP_HEADER), end - transport)
    elif protocol == UDP:
        size = UDP_HEADER
    elif protocol == SCTP:
        size = SCTP_HEADER
    return size if transport + size <= end else 0


@compiled
def tag_of(frame: NDArray[np.uint8], start: int, layers: Layers) -> int:
    """The first VLAN tag of a frame, its priority in the upper three bits; 0 without one."""
    return half(frame, start + MAC_BYTES + 2) if layers.outer + layers.inner > 0 else 0
