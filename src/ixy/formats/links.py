"""Captures of other links than Ethernet, and how their packets become frames of Ethernet.

Linux cooked captures tell the type of a packet and who sent it, raw IP and BSD loopback the version of IP. What they do
not tell, the addresses, is made up: they are those of `frames.udp_frame`. Of other links nothing can be made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.formats.words import LENGTH, OFFSET, ORIGINAL
from ixy.jit import compiled
from ixy.unsafe import copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

ETHERNET = 1
NAMES = {  # www.tcpdump.org/linktypes.html; those that one meets on the way to an Ethernet capture
    0: "BSD loopback",
    9: "PPP",
    12: "raw IP",
    14: "raw IP",
    101: "raw IP",
    105: "IEEE 802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked capture",
    127: "IEEE 802.11 with radiotap",
    189: "Linux USB",
    192: "PPI",
    195: "IEEE 802.15.4",
    201: "Bluetooth HCI",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked capture v2",
}
_LOOPBACKS, _COOKED, _COOKED2, _RAW = (0, 108), 113, 276, (12, 14, 101, 228, 229)
CONVERTIBLE = frozenset({ETHERNET, *_LOOPBACKS, _COOKED, _COOKED2, *_RAW})

HEADER = 14  # bytes of Ethernet
_BROADCAST, _MULTICAST = 1, 2  # packet types of a cooked capture
_LEAST_TYPE = 0x0600  # IEEE 802.3, 3.2.6: what is below is a length, or in a cooked capture one of Linux's own numbers
_IPV4, _IPV6 = 0x0800, 0x86DD
_AF_INET = 2  # and AF_INET6 is 10, 24, 28, or 30


@compiled
def link_header(link: int) -> int:
    """The bytes before a packet, of a convertible link."""
    if link == _COOKED:
        return 16
    if link == _COOKED2:
        return 20
    if link in _LOOPBACKS:
        return 4
    return 0 if link in _RAW else HEADER


@compiled
def to_ethernet(data: Bytes, row: NDArray[np.int64], link: int, frame: Bytes) -> bool:
    """Make a frame of Ethernet of a packet of another link, at the beginning of `frame`, which has room for it.

    Args:
        row: the packet's column of a table; what it says of lengths becomes that of the frame.

    Returns:
        False if the packet is too short for its link's header.
    """
    start, size, skipped = row[OFFSET], row[LENGTH], link_header(link)
    if size < max(skipped, 1):
        return False
    if link == ETHERNET:
        copy(frame, 0, data, start, size)
        return True
    for i in range(12):
        frame[i] = (0x02, 0x69, 0x78, 0x79, 0x00, 0x02, 0x02, 0x69, 0x78, 0x79, 0x00, 0x01)[i]
    kind = _kind(data, start, link)
    if link in (_COOKED, _COOKED2):
        _cooked_addresses(data, start, link, frame)
        if kind < _LEAST_TYPE:  # 802.2 follows, or Novell's
            kind = min(row[ORIGINAL] - skipped, _LEAST_TYPE - 1)
    frame[12], frame[13] = kind >> 8, kind & 0xFF
    copy(frame, HEADER, data, start + skipped, size - skipped)
    row[LENGTH] += HEADER - skipped
    row[ORIGINAL] += HEADER - skipped
    return True


@compiled
def _kind(data: Bytes, start: int, link: int) -> int:
    """The Ethertype of a packet."""
    if link in (_COOKED, _COOKED2):
        at = start + 14 if link == _COOKED else start
        return int(np.int64(data[at]) << 8 | np.int64(data[at + 1]))
    if link in _LOOPBACKS:  # a number of the sender's byte order, below 256
        family = max(data[start], data[start + 3])
        return _IPV4 if family == _AF_INET else _IPV6
    return _IPV6 if data[start] >> 4 == 6 else _IPV4


@compiled
def _cooked_addresses(data: Bytes, start: int, link: int, frame: Bytes) -> None:
    """What a cooked capture knows of the addresses: the sender's, and whether all were addressed."""
    if link == _COOKED:
        kind, size, place = data[start + 1], data[start + 5], start + 6
    else:
        kind, size, place = data[start + 10], data[start + 11], start + 12
    if size == 6:
        copy(frame, 6, data, place, 6)
    if kind == _BROADCAST:
        frame[0:6] = 0xFF
    elif kind == _MULTICAST:
        frame[0] |= 1


def refusal(link: int) -> str:
    """Why a link is refused."""
    name = NAMES.get(link, "unknown")
    return f"link type {link} ({name}), which no Ethernet can be made of; capture on an Ethernet port"
