"""What a simulated 82599 finds out about a packet that arrives: its kind, whether its checksums are right, its queue.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card.state import RX_LOST_BYTES, STRIPPED, TAG_WORD
from ixy.sim.rack import SLOT, Rack
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MRQC = reg.MRQC.offset // 4
_RETA = reg.RETA.offset // 4
_RSSRK = reg.RSSRK.offset // 4
_RXCSUM = reg.RXCSUM.offset // 4
_VLNCTRL = reg.VLNCTRL.offset // 4
_VFTA = reg.VFTA.offset // 4

_MRQE = reg.MRQC.mask("MRQE")
_RSS_ONLY = 1
_PCSD = reg.RXCSUM.mask("PCSD")

# MRQC: kinds of packets whose fields are hashed
_TCP_IPV4, _IPV4, _IPV6, _TCP_IPV6, _UDP_IPV4, _UDP_IPV6 = 1 << 16, 1 << 17, 1 << 20, 1 << 21, 1 << 22, 1 << 23

ETHER_IPV4, ETHER_IPV6, ETHER_VLAN = 0x0800, 0x86DD, 0x8100
TCP, UDP = 6, 17
_NO_PROTOCOL = -1
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER, _UDP_HEADER = 20, 40, 20, 8
_IPV4_ADDRESSES, _IPV6_ADDRESSES = 12, 8
_MAC_BYTES, _TAG_BYTES = 12, 4
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF


@compiled
def half(data: NDArray[np.uint8], at: int) -> int:
    """16 bits in network order."""
    return (load_acquire(data, at) << 8) | load_acquire(data, at + 1)


@compiled
def ones_sum(data: NDArray[np.uint8], start: int, end: int) -> int:
    """The sum of 16-bit words in [start, end), an odd byte padded with zero, folded to 16 bits (RFC 1071)."""
    total = 0
    at = start
    while at + 1 < end:
        total += half(data, at)
        at += 2
    if at < end:
        total += load_acquire(data, at) << 8
    return fold(total)


@compiled
def fold(total: int) -> int:
    """A sum of 16-bit words with the carries added back in."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@outlined
def in_vlan(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int) -> bool:
    """Whether the VLAN filter lets a frame pass; one without tag always does (7.1.1.2)."""
    if half(frame, start + _MAC_BYTES) != load_acquire(registers, _VLNCTRL) & 0xFFFF:
        return True
    vlan = half(frame, start + _MAC_BYTES + 2) & 0xFFF
    return (load_acquire(registers, _VFTA + (vlan >> 5)) >> (vlan & 31)) & 1 != 0


@compiled
def strip(rack: Rack, card: int, start: int, length: int) -> int:
    """Copy a tagged frame without its tag to STRIPPED, and note the tag for its descriptor; the new length (7.4.3)."""
    tape, to = rack.tape, card * SLOT + STRIPPED
    tag = half(tape, start + _MAC_BYTES + 2)
    rack.cards[card, TAG_WORD] = reg.RX_VP | (signed(tag << 16) << (reg.RX_VLAN_SHIFT - 16))
    rack.counters[card, RX_LOST_BYTES] += _TAG_BYTES
    copy(tape, to, tape, start, _MAC_BYTES)
    rest = length - _MAC_BYTES - _TAG_BYTES
    copy(tape, to + _MAC_BYTES, tape, start + _MAC_BYTES + _TAG_BYTES, rest)
    return length - _TAG_BYTES


@outlined
def classify(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, length: int) -> tuple[int, int, int]:
    """The queue for a frame, and what its descriptor's two words say of it (7.1.2.8, 7.1.6.2, 7.1.11)."""
    network = start + _MAC_BYTES
    if half(frame, network) == ETHER_VLAN:
        network += _TAG_BYTES
    kind = half(frame, network)
    network += 2
    size = network_size(frame, kind, network, start + length)
    if size == 0:
        return 0, 0, 0
    if kind == ETHER_IPV4:
        header = 4 * (load_acquire(frame, network) & 15)
        word_0, word_1 = reg.RX_TYPE_IPV4, reg.RX_IPCS
        if ones_sum(frame, network, network + header) != 0xFFFF:
            word_1 |= reg.RX_IPE
        is_fragment = half(frame, network + 6) & _MORE_FRAGMENTS_OR_OFFSET != 0
        protocol = _NO_PROTOCOL if is_fragment else load_acquire(frame, network + 9)
    else:
        header = _IPV6_HEADER
        word_0, word_1 = reg.RX_TYPE_IPV6, 0
        protocol = load_acquire(frame, network + 6)
    transport, end = network + header, network + size
    if protocol == TCP and end - transport >= _TCP_HEADER:
        word_0 |= reg.RX_TYPE_TCP
    elif protocol == UDP and end - transport >= _UDP_HEADER:
        word_0 |= reg.RX_TYPE_UDP
    else:
        protocol = _NO_PROTOCOL
    addresses = network + (_IPV4_ADDRESSES if kind == ETHER_IPV4 else _IPV6_ADDRESSES)
    addresses_size = 8 if kind == ETHER_IPV4 else 32
    word_1 |= check_transport(frame, addresses, addresses_size, transport, end, protocol)
    hashed, value = rss(registers, frame, addresses, addresses_size, transport, protocol)
    if load_acquire(registers, _RXCSUM) & _PCSD:
        word_0 |= hashed | (signed(value) << reg.RX_HASH_SHIFT)
    return queue_of(registers, hashed, value), word_0, word_1


@compiled
def network_size(frame: NDArray[np.uint8], kind: int, network: int, end: int) -> int:
    """The length of the IP packet that starts at `network`, 0 if there is none that is whole."""
    size = 0
    if kind == ETHER_IPV4 and network + _IPV4_HEADER <= end:
        header = 4 * (load_acquire(frame, network) & 15)
        size = half(frame, network + 2)
        if header < _IPV4_HEADER or size < header:
            size = 0
    elif kind == ETHER_IPV6 and network + _IPV6_HEADER <= end:
        size = _IPV6_HEADER + half(frame, network + 4)
    return size if network + size <= end else 0


@compiled
def signed(value: int) -> int:
    """32 bits as a signed number, which fits into the upper half of a signed word."""
    return value - (1 << 32) if value & 0x80000000 else value


@compiled
def check_transport(
    frame: NDArray[np.uint8], addresses: int, addresses_size: int, transport: int, end: int, protocol: int
) -> int:
    """Status and error bits for the TCP or UDP checksum (7.1.11). UDP without a checksum is not checked."""
    if protocol == _NO_PROTOCOL or (protocol == UDP and half(frame, transport + 6) == 0):
        return 0
    pseudo = ones_sum(frame, addresses, addresses + addresses_size) + protocol + end - transport
    status = reg.RX_L4CS | (reg.RX_UDPCS if protocol == UDP else 0)
    if fold(pseudo + ones_sum(frame, transport, end)) != 0xFFFF:
        status |= reg.RX_L4E
    return status


@compiled
def rss(
    registers: NDArray[np.uint32],
    frame: NDArray[np.uint8],
    addresses: int,
    addresses_size: int,
    transport: int,
    protocol: int,
) -> tuple[int, int]:
    """The RSS type, 0 if nothing is hashed, and the hash (7.1.2.8.1)."""
    enabled = load_acquire(registers, _MRQC)
    is_v4 = addresses_size == 8
    kind, ports = 0, 0
    if enabled & _MRQE != _RSS_ONLY:
        return 0, 0
    if protocol == TCP and enabled & (_TCP_IPV4 if is_v4 else _TCP_IPV6):
        kind, ports = reg.RSS_TCP_IPV4 if is_v4 else reg.RSS_TCP_IPV6, 4
    elif protocol == UDP and enabled & (_UDP_IPV4 if is_v4 else _UDP_IPV6):
        kind, ports = reg.RSS_UDP_IPV4 if is_v4 else reg.RSS_UDP_IPV6, 4
    elif enabled & (_IPV4 if is_v4 else _IPV6):
        kind = reg.RSS_IPV4 if is_v4 else reg.RSS_IPV6
    else:
        return 0, 0
    value = toeplitz(registers, frame, addresses, addresses_size, 0)
    return kind, value ^ toeplitz(registers, frame, transport, ports, addresses_size)


@compiled
def toeplitz(registers: NDArray[np.uint32], data: NDArray[np.uint8], start: int, size: int, key: int) -> int:
    """The part of the Toeplitz hash that `size` bytes of data contribute, from byte `key` of the key on (7.1.2.8.1)."""
    value = 0
    for i in range(size):
        window = 0  # 40 bits of the key
        for k in range(key + i, key + i + 5):
            window = (window << 8) | ((load_acquire(registers, _RSSRK + (k >> 2)) >> (8 * (k & 3))) & 0xFF)
        for bit in range(8):
            if (data[start + i] >> (7 - bit)) & 1:
                value ^= (window >> (8 - bit)) & 0xFFFFFFFF
    return value


@compiled
def queue_of(registers: NDArray[np.uint32], hashed: int, value: int) -> int:
    """The redirection table's entry for a hash (7.1.2.8.3); what is not hashed goes to queue 0."""
    if hashed == 0:
        return 0
    entry = value & 0x7F
    return (load_acquire(registers, _RETA + (entry >> 2)) >> (8 * (entry & 3))) & 15
