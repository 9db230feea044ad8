"""The header before each packet (5.1.6 of the VirtIO specification 1.2), as both ends read and write it.

One end's receive is the other's transmit, so a driver and a device look at the same fields in the same way. Whoever
wrote a header is not trusted: one that cannot be true is refused, and where in a packet its own headers lie is found
anew when it is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.drivers.layers import (
    TCP,
    Layers,
    checksum_place,
    find_layers,
    folded,
    half,
    is_cut,
    put_half,
    write_header_checksum,
    write_pseudo_sum,
)
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK, STRIDE
from ixy.packets.packets import Flags, Packets
from ixy.registers.virtio import (
    CSUM_OFFSET,
    CSUM_START,
    DATA_VALID,
    GSO_ECN,
    GSO_NONE,
    GSO_SIZE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_TYPE,
    HASH_HEADER_BYTES,
    HASH_REPORTED,
    HASH_VALUE,
    HEADER_FLAGS,
    HEADER_LENGTH,
    NEEDS_CSUM,
)
from ixy.unsafe import load_acquire, peek, put

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.pool import Pools

# What was negotiated, and asked for: bits
TELLS = 1 << 0  # receive: headers tell of checksums
JOINS = 1 << 1  # receive: packets may be several segments
JOINS_ECN = 1 << 2  # receive: also such whose TCP header has CWR
MERGES = 1 << 3  # receive: headers tell how many buffers a packet has
SUMS = 1 << 4  # transmit: makes checksums
CUTS = 1 << 5  # transmit: cuts into segments
CUTS_ECN = 1 << 6  # transmit: also such whose TCP header has CWR

NOTHING, REFUSAL, TAKEN = 0, 1, 2  # what became of an attempt to take a packet: there is none, or its header lies

_HASHES = 9  # 5.1.6.4.3.2: hash reports are numbers from 1 to this
_TCP_BITS, _CWR = 13, 0x80  # where TCP's control bits stand, and one of them (RFC 3168)
_IP_PARTIAL, _L4_GOOD, _L4_PARTIAL = int(Flags.IP_PARTIAL), int(Flags.L4_GOOD), int(Flags.L4_PARTIAL)
_HASH = int(Flags.HASH)


@compiled
def place_of(buffer: Any) -> int:
    """Where in the packet memory a buffer begins."""
    return int((np.int64(buffer) & ID_MASK) * STRIDE)


@compiled
def said(memory: NDArray[np.uint8], at: int) -> int:
    """A field of two bytes. Read once, it stays."""
    return load_acquire(memory, at) | load_acquire(memory, at + 1) << 8


@compiled
def say(memory: NDArray[np.uint8], at: int, value: int) -> None:
    """Write such a field."""
    memory[at] = value & 0xFF
    memory[at + 1] = value >> 8 & 0xFF


@compiled
def describe(
    memory: NDArray[np.uint8], able: int, size: int, packets: Packets, i: int, header: int, total: int
) -> bool:
    """Note what a header of `size` bytes says of packet `i` (5.1.6.4.1); False if it cannot be true.

    Args:
        memory: the packet memory.
        able: what was negotiated.
        header: where it begins.
        total: bytes of the packet.
    """
    flags, segment = 0, 0
    if able & TELLS != 0:
        told = load_acquire(memory, header + HEADER_FLAGS)
        flags = _L4_GOOD if told & DATA_VALID != 0 else 0
        if told & NEEDS_CSUM != 0:
            flags = _L4_PARTIAL
            if said(memory, header + CSUM_START) + said(memory, header + CSUM_OFFSET) + 2 > total:
                return False
        kind = load_acquire(memory, header + GSO_TYPE)
        if kind != GSO_NONE:
            segment = said(memory, header + GSO_SIZE)
            if not joined(able, kind) or segment == 0 or segment > total:
                return False
    value = 0
    if size == HASH_HEADER_BYTES and 1 <= said(memory, header + HASH_REPORTED) <= _HASHES:
        value = said(memory, header + HASH_VALUE) | said(memory, header + HASH_VALUE + 2) << 16
        flags |= _HASH
    put(packets.flags, i, flags)
    put(packets.hashes, i, value)
    put(packets.segments, i, segment)
    put(packets.vlans, i, 0)
    return True


@compiled
def joined(able: int, kind: int) -> bool:
    """Whether the device may have put segments of this kind together: of TCP, over IPv4 or IPv6."""
    if kind & GSO_ECN != 0 and able & JOINS_ECN == 0:
        return False
    kind &= ~GSO_ECN
    return able & JOINS != 0 and (kind == GSO_TCPV4 or kind == GSO_TCPV6)


@compiled
def write_header(
    memory: NDArray[np.uint8], able: int, size: int, pools: Pools, packets: Packets, i: int, total: int
) -> bool:
    """Write a header of `size` bytes before packet `i`: what is to be done to it (5.1.6.2).

    False if that cannot be done to a packet like this, which is then to be sent as it is.

    Args:
        memory: the packet memory.
        able: what was negotiated.
        total: bytes of the packet.
    """
    header = place_of(packets.ids[i]) - size
    for at in range(size):
        memory[header + at] = 0
    wanted = peek(packets.flags, i, 0) & (_IP_PARTIAL | _L4_PARTIAL) if able & SUMS != 0 else 0
    segment = peek(packets.segments, i, 0) if able & CUTS != 0 else 0
    if wanted == 0 and segment == 0:
        return True
    data = pools.bytes[packets.ids[i] & ID_MASK]
    return ask(memory, header, able, data, int(packets.lengths[i]), total, wanted, segment)


@outlined
def ask(
    memory: NDArray[np.uint8],
    header: int,
    able: int,
    data: NDArray[np.uint8],
    length: int,
    total: int,
    wanted: int,
    segment: int,
) -> bool:
    """Ask for checksums and segments of a packet of `total` bytes, of which `data` begins with the first `length`."""
    layers = find_layers(data, length, total)
    if layers.version == 0:
        return False
    if layers.version == 4 and (wanted & _IP_PARTIAL != 0 or segment > 0):
        write_header_checksum(data, layers)  # no device makes it
    cut = is_cut(layers, segment)
    if wanted & _L4_PARTIAL == 0 and segment == 0:
        return True
    if layers.protocol == 0 or (layers.end < total and (cut or total > length)):
        return False  # the device would take what is behind the packet for a part of it
    kind = cutting(able, layers, data) if cut else GSO_NONE
    if cut and kind == GSO_NONE:
        return False
    memory[header + HEADER_FLAGS] = NEEDS_CSUM
    memory[header + GSO_TYPE] = kind
    say(memory, header + HEADER_LENGTH, layers.payload if cut else 0)
    say(memory, header + GSO_SIZE, segment if cut else 0)
    say(memory, header + CSUM_START, layers.transport)
    say(memory, header + CSUM_OFFSET, checksum_place(layers) - layers.transport)
    write_pseudo_sum(data, layers, layers.end - layers.transport)
    leave_out(data, layers, total)
    return True


@compiled
def leave_out(data: Any, layers: Layers, total: int) -> None:
    """Take from the pseudo header's sum what the device adds of bytes behind the packet: it goes to the frame's end."""
    place = checksum_place(layers)
    rest = 0
    for at in range(layers.end, total):
        rest += int(data[at]) << (0 if (at - layers.transport) & 1 else 8)
    put_half(data, place, folded(half(data, place) + (~folded(rest) & 0xFFFF)))


@compiled
def cutting(able: int, layers: Layers, data: Any) -> int:
    """How the device is told to cut a packet; GSO_NONE if it cannot."""
    reduced = layers.protocol == TCP and data[layers.transport + _TCP_BITS] & _CWR != 0
    if layers.protocol != TCP or (reduced and able & CUTS_ECN == 0):
        return GSO_NONE
    return (GSO_TCPV4 if layers.version == 4 else GSO_TCPV6) | (GSO_ECN if reduced else 0)
