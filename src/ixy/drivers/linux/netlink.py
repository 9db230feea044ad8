"""What the kernel says of a network interface, by rtnetlink(7).

A question by netlink is answered by the network namespace that the thread is in, while /sys shows the one in which it
was mounted.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

ETHERNET, LOOPBACK = 1, 772  # ARPHRD_ETHER, ARPHRD_LOOPBACK (linux/if_arp.h)
UP, RUNNING = 1 << 0, 1 << 6  # IFF_… (linux/if.h); an interface is running while it has a carrier

_GETLINK, _NEWLINK = 18, 16
_REQUEST = 1
_MESSAGE, _LINK, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
_ADDRESS, _NAME, _MTU, _LINKINFO, _STATS64, _XDP = 1, 3, 4, 18, 23, 43  # IFLA_…
_KIND = 1  # IFLA_INFO_KIND
_XDP_PROGRAM = 4  # IFLA_XDP_PROG_ID
_ROOM = 1 << 16

# struct rtnl_link_stats64, whose later fields older kernels lack
COUNTERS = (
    *("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"),
    *("multicast", "collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"),
    *("rx_fifo_errors", "rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors"),
    *("tx_heartbeat_errors", "tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler"),
)


class LinkInfo(NamedTuple):
    """An interface.

    Attributes:
        number: its index in its network namespace.
        name: by which it is known there now.
        kind: ETHERNET, LOOPBACK or another ARPHRD_….
        flags: UP, RUNNING and others.
        mac: its address.
        mtu: the longest payload of a frame.
        program: the id of the XDP program that is attached to it; 0 if there is none.
        virtual: what kind of virtual interface it is, such as "veth"; empty for one of a device.
        counters: what the kernel has counted, by name, since the interface came to be.
    """

    number: int
    name: str
    kind: int
    flags: int
    mac: bytes
    mtu: int
    program: int
    virtual: str
    counters: dict[str, int]

    @property
    def up(self) -> bool:
        """Whether it is up and has a carrier."""
        return self.flags & (UP | RUNNING) == UP | RUNNING


class Questions:
    """A socket for questions about interfaces of the network namespace that the thread was in when it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._number = 0

    def by_name(self, name: str) -> LinkInfo | None:
        """The interface of that name, None if there is none."""
        text = os.fsencode(name) + b"\0"
        size = _ATTRIBUTE.size + len(text)
        return self._ask(0, (_ATTRIBUTE.pack(size, _NAME) + text).ljust(-(-size // 4) * 4, b"\0"))

    def by_index(self, index: int) -> LinkInfo | None:
        """The interface with that number, None if there is none."""
        return self._ask(index, b"")

    def _ask(self, index: int, attributes: bytes) -> LinkInfo | None:
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
        self._number += 1
        self._socket.send(_MESSAGE.pack(_MESSAGE.size + len(body), _GETLINK, _REQUEST, self._number, 0) + body)
        while True:
            answer = self._socket.recv(_ROOM)
            _size, kind, _flags, number, _port = _MESSAGE.unpack_from(answer)
            if number == self._number:  # others answer questions that were interrupted
                return _parsed(answer[_MESSAGE.size :]) if kind == _NEWLINK else None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def link_by_name(name: str) -> LinkInfo | None:
    """The interface of that name, None if there is none."""
    with Questions() as questions:
        return questions.by_name(name)


def _parsed(body: bytes) -> LinkInfo:
    _family, kind, index, flags, _change = _LINK.unpack_from(body)
    found = _attributes(body[_LINK.size :])
    program = _attributes(found.get(_XDP, b"")).get(_XDP_PROGRAM, bytes(4))
    return LinkInfo(
        number=index,
        name=os.fsdecode(found[_NAME].rstrip(b"\0")),
        kind=kind,
        flags=flags,
        mac=found.get(_ADDRESS, bytes(6)),
        mtu=int.from_bytes(found[_MTU], "little"),
        program=int.from_bytes(program, "little"),
        virtual=_attributes(found.get(_LINKINFO, b"")).get(_KIND, b"").rstrip(b"\0").decode(),
        counters=_counters(found.get(_STATS64, b"")),
    )


def _counters(data: bytes) -> dict[str, int]:
    """The counters, as far as there are any."""
    there = min(len(data) // 8, len(COUNTERS))
    return dict(zip(COUNTERS, struct.unpack_from(f"={there}Q", data), strict=False))


def _attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by their types; each begins at a multiple of 4 bytes."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : size]
        data = data[max(-(-size // 4) * 4, _ATTRIBUTE.size) :]
    return found
