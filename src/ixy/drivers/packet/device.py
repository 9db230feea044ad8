"""Control plane of an AF_PACKET device: sockets, their rings, what the kernel lost.

Source: packet(7), Documentation/networking/packet_mmap.rst of the Linux kernel.
"""

from __future__ import annotations

import logging
import socket
import struct
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE
from ixy.drivers.linux.device import LinuxDevice
from ixy.drivers.linux.interface import SOL_PACKET, check_name
from ixy.drivers.linux.netlink import ETHERNET, LOOPBACK
from ixy.drivers.offloads import check_offloads
from ixy.drivers.packet.rings import PacketPartsRxRing, PacketRxRing, PacketTxRing
from ixy.drivers.rss import DEFAULT_KEY
from ixy.errors import AddressError, ConfigurationError, UnsupportedDevice
from ixy.packets.mempool import Mempool
from ixy.packets.packets import check_metadata
from ixy.unsafe import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("ixy.packet")

PREFIX = "packet:"

# Of linux/if_packet.h and linux/if_ether.h
_RX_RING, _STATISTICS, _VERSION, _FANOUT, _IGNORE_OUTGOING = 5, 6, 10, 18, 23
_TPACKET_V3 = 2
_FILL_HASH = 1  # TP_FT_REQ_FILL_RXHASH
_ALL_PROTOCOLS = 0x0003
_FANOUT_HASH, _FANOUT_OWN_NUMBER = 0, 0x2000

# A block is handed over when it is full, or has waited for so long. Small blocks, so that there are many: where packets
# are few, each has one of its own.
_BLOCK_BYTES = 8192
_LONG_BLOCK_BYTES, _LONG_BLOCKS = 1 << 17, 32  # where packets are as long as several that the kernel has put together
_WAIT = 1  # ms
_FRAME_BYTES = 2048  # by which the kernel checks sizes, and no more
_TOLD = ("flags", "hash", "vlan", "time", "parts")  # of each packet, if asked for
_COUNTERS = ("packets", "drops", "freezes")  # of struct tpacket_stats_v3
_PAGE = 4096
_SEND_BYTES = 8 << 20  # that may be on their way from a socket


class PacketAddress(NamedTuple):
    """What an address says.

    Attributes:
        name: of the interface.
        outgoing: to receive what this machine sends there too.
    """

    name: str
    outgoing: bool


def parse(address: str) -> PacketAddress:
    """`packet:NAME[,outgoing]`.

    Raises:
        AddressError: malformed.
    """
    name, *options = address.removeprefix(PREFIX).split(",")
    check_name(address, name)
    for option in options:
        if option != "outgoing":
            raise AddressError(f"{address}: option {option!r}: outgoing is possible, packet:{name},outgoing")
    return PacketAddress(name, bool(options))


class PacketDevice(LinuxDevice):
    """An interface by AF_PACKET, receiving copies of what it receives.

    What the kernel has taken out of a packet, its VLAN tag, is put back, unless it is asked for as metadata.

    Args:
        address: see `parse`.
        rx_queues, tx_queues: how many of each, 1 to 64. The kernel spreads flows over the receive queues.
        ring_size: a power of two, 64 to 32768: a receive queue has 2048 bytes for each, and 4 MiB at least for packets
            in several parts.
        pool_size: packet buffers per receive queue, at least the size of a ring + 32.
        metadata: what is to be told of each packet, see `ixy.open`; times are the kernel's.
        mtu: at most the interface's own, which the kernel keeps.

    Raises:
        AddressError: malformed, or there is no such interface.
        ConfigurationError: a parameter is out of range.
        PermissionDenied: the process lacks CAP_NET_RAW.
        UnsupportedDevice: the interface is none of Ethernet.
    """

    name = "packet"

    def __init__(
        self,
        address: str,
        rx_queues: int = 1,
        tx_queues: int = 1,
        ring_size: int = DEFAULT_RING_SIZE,
        pool_size: int = DEFAULT_POOL_SIZE,
        metadata: Sequence[str] = (),
        rss_key: bytes = DEFAULT_KEY,
        offloads: Sequence[str] = (),
        mtu: int | None = None,
    ) -> None:
        wanted = parse(address)
        super().__init__(PREFIX + wanted.name, wanted.name, "+net_raw")
        self.rx_rings: list[PacketRxRing] = []
        self.tx_rings: list[PacketTxRing] = []
        self._receiving, self._sending = self.rx_rings, self.tx_rings
        self._counted: list[list[int]] = [[0] * len(_COUNTERS) for _ in range(rx_queues)]
        self._check(rx_queues, tx_queues, ring_size, pool_size, rss_key)
        check_offloads(self.address, offloads, ())
        self._metadata = check_metadata(self.address, metadata, _TOLD)
        self._check_mtu(mtu, self._metadata)
        try:
            self._take_interface()
            for _ in range(rx_queues):
                self._receive_from(wanted, ring_size, pool_size)
            self._start_receiving()
            for _ in range(tx_queues):
                self._send_to(ring_size)
        except BaseException:
            self.close()
            raise
        log.info("%s: ready, MAC %s", self.address, self.mac().hex(":"))

    def _check(self, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int, rss_key: bytes) -> None:
        if self.interface.first.kind not in (ETHERNET, LOOPBACK):
            raise UnsupportedDevice(f"{self.address}: the interface's frames are none of Ethernet")
        self._check_sizes(rx_queues, tx_queues, ring_size, pool_size)
        if rss_key != DEFAULT_KEY:
            raise ConfigurationError(f"{self.address}: the kernel spreads packets by a key of its own: no rss_key")

    def _receive_from(self, wanted: PacketAddress, ring_size: int, pool_size: int) -> None:
        """A socket that receives nothing yet, its ring, and a pool."""
        with self._explained("open a packet socket"):
            sock = self._open_socket()
            sock.setsockopt(SOL_PACKET, _VERSION, _TPACKET_V3)
            if not wanted.outgoing:
                sock.setsockopt(SOL_PACKET, _IGNORE_OUTGOING, 1)
            in_parts = "parts" in self._metadata
            block, blocks = (_LONG_BLOCK_BYTES, _LONG_BLOCKS) if in_parts else (_BLOCK_BYTES, 1)
            size = max(ring_size * _FRAME_BYTES, blocks * block)
            features = _FILL_HASH if "hash" in self._metadata else 0
            request = block, size // block, _FRAME_BYTES, size // _FRAME_BYTES, _WAIT, 0, features
            sock.setsockopt(SOL_PACKET, _RX_RING, struct.pack("=7I", *request))
            window = Window(size, _PAGE)
            window.map(0, size, sock.fileno())
            self._undo.callback(window.idle)
        with Mempool(pool_size) as pool:
            self._attached.attach(pool)
            self._undo.callback(self._attached.detach_all)
        ring = PacketPartsRxRing if in_parts else PacketRxRing
        self.rx_rings.append(ring(window.bytes, block, ring_size, pool, self._metadata))

    def _start_receiving(self) -> None:
        """Several sockets that the kernel spreads packets over are a group, by a number that the first one gets."""
        with self._explained("receive"):
            for sock in self._sockets:
                sock.bind((self.interface.first.name, _ALL_PROTOCOLS))
            if len(self._sockets) > 1:
                first, *others = self._sockets
                first.setsockopt(SOL_PACKET, _FANOUT, (_FANOUT_HASH | _FANOUT_OWN_NUMBER) << 16)
                number = first.getsockopt(SOL_PACKET, _FANOUT) & 0xFFFF
                for sock in others:
                    sock.setsockopt(SOL_PACKET, _FANOUT, _FANOUT_HASH << 16 | number)

    def _send_to(self, ring_size: int) -> None:
        """A socket that only sends."""
        with self._explained("open a packet socket"):
            sock = self._open_socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            sock.bind((self.interface.first.name, 0))
        self.tx_rings.append(PacketTxRing(sock.fileno(), ring_size, in_parts="parts" in self._metadata))
        self._undo.callback(self.tx_rings[-1].drain)

    def _open_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sockets.append(sock)
        self._undo.callback(sock.close)
        return sock

    def _lost(self) -> int:
        self._count()
        return sum(drops for _packets, drops, _freezes in self._counted)

    def _count(self) -> None:
        """The kernel's counters begin anew when they are read."""
        for sock, counted in zip(self._sockets, self._counted, strict=False):
            more = struct.unpack("=III", sock.getsockopt(SOL_PACKET, _STATISTICS, 12))
            counted[:] = map(add, counted, more)

    def _socket_counters(self) -> dict[str, int]:
        """Packets that the socket saw, those of them that it dropped, and how often its ring was full."""
        self._count()
        return {
            f"rx_q{queue}_socket_{name}": count
            for queue, counted in enumerate(self._counted)
            for name, count in zip(_COUNTERS, counted, strict=True)
        }

    def _way(self) -> str:
        return "AF_PACKET"
