"""What a simulated 82599 finds out about a frame that arrives, and what it does about its VLAN tag.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled, outlined
from ixy.registers import i82599 as reg
from ixy.sim.card.checksum import CRC32, crc, fold, is_sctp_right, ones_sum
from ixy.sim.card.frame import CRC_BYTES, MAC_BYTES, TAG_BYTES, half, tags
from ixy.sim.card.layers import SCTP, TCP, UDP, UDP_HEADER, Layers, parse
from ixy.sim.card.state import STRIPPED, TAG_WORD
from ixy.sim.rack import SLOT, Rack
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MRQC = reg.MRQC.offset // 4
_RETA = reg.RETA.offset // 4
_RSSRK = reg.RSSRK.offset // 4
_RXCSUM = reg.RXCSUM.offset // 4
_VFTA = reg.VFTA.offset // 4

_MRQE = reg.MRQC.mask("MRQE")
_RSS_MODES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 11  # MRQC.MRQE: alone, in traffic classes, in pools
_IPPCSE, _PCSD = reg.RXCSUM.mask("IPPCSE"), reg.RXCSUM.mask("PCSD")

# MRQC: kinds of packets whose fields are hashed
_TCP_IPV4, _IPV4, _IPV6, _TCP_IPV6, _UDP_IPV4, _UDP_IPV6 = 1 << 16, 1 << 17, 1 << 20, 1 << 21, 1 << 22, 1 << 23

_IPV4_ADDRESSES, _IPV6_ADDRESSES = 12, 8
_FRAGMENT_OFFSET = 0x1FFF


@outlined
def in_vlan(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int) -> bool:
    """Whether the VLAN filter lets a frame pass; one without an inner tag always does (7.1.1.2)."""
    outer, inner = tags(registers, frame, start)
    if inner == 0:
        return True
    vlan = half(frame, start + MAC_BYTES + outer + 2) & 0xFFF
    return (load_acquire(registers, _VFTA + (vlan >> 5)) >> (vlan & 31)) & 1 != 0


@compiled
def strip(rack: Rack, card: int, start: int, length: int) -> int:
    """Copy a frame without its inner tag to STRIPPED, and note the tag for its descriptor; the new length (7.4.3).

    A frame that has none stays where it is.
    """
    tape, to = rack.tape, card * SLOT + STRIPPED
    outer, inner = tags(rack.registers[card], tape, start)
    if inner == 0:
        return length
    kept = MAC_BYTES + outer
    tag = half(tape, start + kept + 2)
    rack.cards[card, TAG_WORD] = reg.RX_VP | (signed(tag << 16) << (reg.RX_VLAN_SHIFT - 16))
    copy(tape, to, tape, start, kept)
    copy(tape, to + kept, tape, start + kept + TAG_BYTES, length - kept - TAG_BYTES)
    return length - TAG_BYTES


@compiled
def keep_crc(rack: Rack, card: int, start: int, length: int, left: int) -> int:
    """Put a frame's check sequence behind it in STRIPPED, and the frame, unless what is `left` of it is there already.

    It is that of all `length` bytes that arrived (7.1.6.2). The new length.
    """
    tape, to = rack.tape, card * SLOT + STRIPPED
    value = crc(tape, start, start + length, CRC32, -CRC_BYTES)
    if left == length:
        copy(tape, to, tape, start, length)
    for i in range(CRC_BYTES):
        tape[to + left + i] = (value >> 8 * i) & 0xFF
    return left + CRC_BYTES


@outlined
def classify(registers: NDArray[np.uint32], frame: NDArray[np.uint8], start: int, length: int) -> tuple[int, int, int]:
    """The queue for a frame, and what its descriptor's two words say of it (7.1.2.8, 7.1.6.2, 7.1.11)."""
    layers = parse(registers, frame, start, length)
    word_0, word_1 = packet_type(layers), status(frame, layers)
    hashed, value = rss(registers, frame, layers)
    reported = load_acquire(registers, _RXCSUM)
    if reported & _PCSD:
        word_0 |= hashed | (signed(value) << reg.RX_HASH_SHIFT)
    elif reported & _IPPCSE and layers.version == 4:
        word_0 |= signed(fragment_checksum(frame, layers) << 16 | half(frame, layers.network + 4)) << reg.RX_HASH_SHIFT
        word_1 |= reg.RX_UDPV if is_first_of_udp(frame, layers) else 0
    return queue_of(registers, hashed, value), word_0, word_1


@compiled
def packet_type(layers: Layers) -> int:
    """The bits that say which headers a frame has (7.1.6.2)."""
    found = 0
    if layers.version == 4:
        found = reg.RX_TYPE_IPV4 | (reg.RX_TYPE_IPV4E if layers.extended else 0)
    elif layers.version == 6:
        found = reg.RX_TYPE_IPV6 | (reg.RX_TYPE_IPV6E if layers.extended else 0)
    if layers.transport_size > 0:
        if layers.protocol == TCP:
            found |= reg.RX_TYPE_TCP
        elif layers.protocol == UDP:
            found |= reg.RX_TYPE_UDP
        else:
            found |= reg.RX_TYPE_SCTP
    return found


@compiled
def status(frame: NDArray[np.uint8], layers: Layers) -> int:
    """Status and error bits: VLAN tags, and which checksums were checked (7.1.6.2, 7.1.11)."""
    found = (reg.RX_VP if layers.inner else 0) | (reg.RX_VEXT if layers.outer else 0)
    if layers.version == 4:
        found |= reg.RX_IPCS
        if ones_sum(frame, layers.network, layers.network + 4 * (load_acquire(frame, layers.network) & 15)) != 0xFFFF:
            found |= reg.RX_IPE
    return found | check_transport(frame, layers)


@compiled
def signed(value: int) -> int:
    """32 bits as a signed number, which fits into the upper half of a signed word."""
    return value - (1 << 32) if value & 0x80000000 else value


@compiled
def check_transport(frame: NDArray[np.uint8], layers: Layers) -> int:
    """Status and error bits for the checksum of TCP, UDP or SCTP (7.1.11). UDP without one is not checked."""
    transport, end, protocol = layers.transport, layers.end, layers.protocol
    if layers.transport_size == 0:
        return 0
    if protocol == SCTP:
        return reg.RX_L4CS | (0 if is_sctp_right(frame, transport, end) else reg.RX_L4E)
    if layers.diverted or (protocol == UDP and half(frame, transport + 6) == 0):
        return 0
    addresses, size = addresses_of(layers)
    pseudo = ones_sum(frame, addresses, addresses + size) + protocol + end - transport
    right = fold(pseudo + ones_sum(frame, transport, end)) == 0xFFFF
    return reg.RX_L4CS | (reg.RX_UDPCS if protocol == UDP else 0) | (0 if right else reg.RX_L4E)


@compiled
def addresses_of(layers: Layers) -> tuple[int, int]:
    """Where the two addresses of an IP packet lie, and how many bytes they are."""
    return (layers.network + _IPV4_ADDRESSES, 8) if layers.version == 4 else (layers.network + _IPV6_ADDRESSES, 32)


@compiled
def fragment_checksum(frame: NDArray[np.uint8], layers: Layers) -> int:
    """The sum of what an IPv4 fragment carries, for software to put together; else 0 (7.1.11.3)."""
    return ones_sum(frame, layers.transport, layers.end) if layers.version == 4 and layers.is_fragment else 0


@compiled
def is_first_of_udp(frame: NDArray[np.uint8], layers: Layers) -> bool:
    """Whether this is the first of the fragments of a UDP datagram, and has its checksum (7.1.11.3)."""
    first = layers.is_fragment and half(frame, layers.network + 6) & _FRAGMENT_OFFSET == 0
    whole = layers.protocol == UDP and layers.transport + UDP_HEADER <= layers.end
    return first and whole and half(frame, layers.transport + 6) != 0


@compiled
def rss(registers: NDArray[np.uint32], frame: NDArray[np.uint8], layers: Layers) -> tuple[int, int]:
    """The RSS type, 0 if nothing is hashed, and the hash (7.1.2.8.1)."""
    enabled = load_acquire(registers, _MRQC)
    is_v4 = layers.version == 4
    protocol = layers.protocol if layers.transport_size > 0 else 0
    kind, ports = 0, 0
    if layers.version == 0 or (_RSS_MODES >> (enabled & _MRQE)) & 1 == 0:
        return 0, 0
    if protocol == TCP and enabled & (_TCP_IPV4 if is_v4 else _TCP_IPV6):
        kind, ports = reg.RSS_TCP_IPV4 if is_v4 else reg.RSS_TCP_IPV6, 4
    elif protocol == UDP and enabled & (_UDP_IPV4 if is_v4 else _UDP_IPV6):
        kind, ports = reg.RSS_UDP_IPV4 if is_v4 else reg.RSS_UDP_IPV6, 4
    elif enabled & (_IPV4 if is_v4 else _IPV6):
        kind = reg.RSS_IPV4 if is_v4 else reg.RSS_IPV6
    else:
        return 0, 0
    addresses, size = addresses_of(layers)
    value = toeplitz(registers, frame, addresses, size, 0)
    return kind, value ^ toeplitz(registers, frame, layers.transport, ports, size)


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
