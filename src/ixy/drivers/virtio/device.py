"""Control plane of a VirtIO network device: features, rings, link, filters, statistics.

Sections are those of the Virtual I/O Device specification, version 1.2.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ixy.arguments import integer
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, DeviceCounters, Link, check_pool
from ixy.drivers.info import Facts
from ixy.drivers.pools import AttachedPools
from ixy.drivers.rings import counts
from ixy.drivers.rss import DEFAULT_KEY, Rss, table_of
from ixy.drivers.rules import no_such_rule
from ixy.drivers.virtio.control import COMMAND_BYTES, ControlQueue
from ixy.drivers.virtio.features import DOING, TELLING, Features, check_asked, negotiate
from ixy.drivers.virtio.headers import CUTS, CUTS_ECN, JOINS, JOINS_ECN, MERGES, SUMS, TELLS
from ixy.drivers.virtio.interrupts import RingInterrupt
from ixy.drivers.virtio.rings.rings import Layout, Terms, VirtioRxRing, VirtioTxRing, resume_at
from ixy.drivers.virtio.rings.state import GROUP
from ixy.drivers.virtio.transports.transport import ring_doorbell
from ixy.dropped import close_dropped
from ixy.errors import ConfigurationError, Error, UnsupportedDevice
from ixy.packets.buffers import BUFFER_SIZE, MAX_PARTS
from ixy.packets.dma import DmaMemory, allocate_rings
from ixy.packets.mempool import Mempool
from ixy.packets.packets import check_metadata
from ixy.process import Owner
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from ixy.drivers.rules import Rule
    from ixy.drivers.virtio.transports.transport import Transport
    from ixy.packets.dma import DmaMapping
    from ixy.registers import Reading

log = logging.getLogger("ixy.virtio")

# The nominal speed of a link whose device tells none: there is no wire.
NOMINAL_SPEED = 10_000

# What features do, by DPDK's names
_RX_OFFLOADS = {
    reg.GUEST_CSUM: ("UDP_CKSUM", "TCP_CKSUM"),
    reg.GUEST_TSO4: ("TCP_LRO",),
    reg.MRG_RXBUF: ("SCATTER",),
    reg.HASH_REPORT: ("RSS_HASH",),
}
_TX_OFFLOADS = {reg.CSUM: ("UDP_CKSUM", "TCP_CKSUM"), reg.HOST_TSO4: ("TCP_TSO",)}

# What rings do for a feature
_ABLE = {
    reg.GUEST_CSUM: TELLS,
    reg.GUEST_TSO4: JOINS,
    reg.GUEST_ECN: JOINS_ECN,
    reg.MRG_RXBUF: MERGES,
    reg.HOST_TSO4: CUTS,
    reg.HOST_ECN: CUTS_ECN,
}


class VirtioNet:
    """A VirtIO network device, brought up and running.

    A device that breaks the rules does no harm: a frame with a length that cannot be is refused and counted; a ring
    whose buffers the device claims wrongly stops for good, as does the link when the device asks for a reset. The link
    is down then, the reason is logged, and closing and opening the device starts afresh.

    The control plane may be used by several threads: a command or an access to the configuration is over before the
    next one begins.

    Args:
        transport: that carries the device; the driver closes it, also if the initialisation fails.
        rx_queues, tx_queues: how many of each; the device has pairs. Without RSS, packets come on any of them, so there
            must be as many receive queues as transmit queues at least.
        ring_size: descriptors per ring, a power of two; fewer if the device has less room, and whatever a legacy device
            says.
        pool_size: packet buffers per receive queue, at least the size of a ring + 32.
        unwanted: feature bits not to accept.
        metadata: what is to be told of each packet, see `ixy.open`.
        rss_key: of the hash by which packets are spread, 40 bytes.
        offloads, mtu: see `ixy.open`.

    Raises:
        ConfigurationError: a parameter is out of range, or the device does not tell, or do, what is asked for.
        MemoryUnavailable: no DMA memory.
        UnsupportedDevice: the device lacks a feature that the driver needs, or would go past the IOMMU.
    """

    name = "virtio"

    def __init__(
        self,
        transport: Transport,
        rx_queues: int = 1,
        tx_queues: int = 1,
        ring_size: int = DEFAULT_RING_SIZE,
        pool_size: int = DEFAULT_POOL_SIZE,
        unwanted: int = 0,
        metadata: Sequence[str] = (),
        rss_key: bytes = DEFAULT_KEY,
        offloads: Sequence[str] = (),
        mtu: int | None = None,
    ) -> None:
        self.address = transport.address
        self._transport = transport
        self._attached = AttachedPools(transport)
        self._owner = Owner()
        self._turn = threading.RLock()  # of the control plane
        self._ending = threading.RLock()  # of those who close
        self._ring_memory: DmaMemory | None = None
        self._control: ControlQueue | None = None
        self._reported: set[str] = set()
        self._closed = False
        self._rx: list[VirtioRxRing] = []
        self._tx: list[VirtioTxRing] = []
        self.rss: Rss | None = None
        pairs = max(rx_queues, tx_queues)
        try:
            transport.reset()
            offered = Features(transport.features())
            self._metadata = check_metadata(self.address, metadata, self._told(offered))
            self._offloads = self._check_offloads(offered, offloads)
            unwanted |= self._unneeded(offered) | self._unusable(offered)
            self._offered = offered
            self.features = negotiate(self.address, offered, wanted=self._wanted(), unwanted=unwanted)
            transport.accept(self.features)
            self._mtu = self._check_mtu(mtu)
            self._check(pairs, ring_size)
            self._check_spreading(rx_queues, tx_queues, rss_key)
            if self.features.has(reg.RSS) and pairs > 1:
                self.rss = Rss(rss_key, table_of(range(rx_queues), reg.RSS_ENTRIES))
            self._set_up(pairs, ring_size, pool_size)
            transport.start()
            self._configure(pairs, rss_key)
        except BaseException:
            self.close()
            raise
        self.rx_rings = self._rx[:rx_queues]
        self.tx_rings = self._tx[:tx_queues]

    # -----------------------------------------------------------------------------------------------------------------
    # Initialisation, 3.1.1 and 5.1.5

    def _told(self, offered: Features) -> list[str]:
        """What the device can tell of a packet, by its header or by its buffers; the driver tells the time."""
        told = [name for name, bits in TELLING.items() if offered.can(bits)]
        if "hash" in told and not (offered.has(reg.VERSION_1) and offered.has(reg.CTRL_VQ) and self._hashes()):
            told.remove("hash")
        if offered.can(DOING["segmentation"]) or offered.can(DOING["coalescing"]):
            told.append("segments")
        if offered.has(reg.MRG_RXBUF):
            told.append("parts")
        return ["time", *told]

    def _hashes(self) -> bool:
        """Whether the device can hash all that RSS of any device hashes."""
        return not ~self._transport.config_read(reg.CONFIG_HASH_TYPES, 4) & reg.HASH_TYPES

    def _check_offloads(self, offered: Features, asked: Sequence[str]) -> tuple[str, ...]:
        possible = [name for name, bits in DOING.items() if offered.can(bits)]
        return check_asked(self.address, asked, possible, self._metadata)

    def _wanted(self) -> int:
        """Features for what was asked for."""
        asked = [TELLING.get(name, ()) for name in self._metadata] + [DOING[name] for name in self._offloads]
        return sum({1 << bit for bits in asked for bit in bits})

    def _unneeded(self, offered: Features) -> int:
        """MRG_RXBUF, where the device's MTU says that any frame fits one buffer, and IN_ORDER, where it spares nothing.

        With the first, the device counts in each header how many buffers the frame spans, and a frame that is sent on
        must not have that count: its header's cache line goes to and fro between the two for nothing. With the second,
        the kernels for offloads would do no less.
        """
        unneeded = 0
        mtu = self._transport.config_read(reg.CONFIG_MTU, 2) if offered.has(reg.MTU) else BUFFER_SIZE
        if "parts" not in self._metadata and mtu + reg.FRAMING <= BUFFER_SIZE:
            unneeded |= 1 << reg.MRG_RXBUF
        if self._offloads or not {"hash", "segments", "parts"}.isdisjoint(self._metadata):
            unneeded |= 1 << reg.IN_ORDER
        return unneeded

    def _unusable(self, offered: Features) -> int:
        """RSS, where the device cannot hash all that RSS of any device hashes."""
        return 1 << reg.RSS if offered.has(reg.RSS) and not self._hashes() else 0

    def _check_mtu(self, asked: int | None) -> int:
        """The longest payload of a frame: the device's, 1500 where it does not say, or what was asked for.

        Raises:
            ConfigurationError: the device does not take such frames, or no buffer.
        """
        own = self._transport.config_read(reg.CONFIG_MTU, 2) if self.features.has(reg.MTU) else None
        if asked is None:
            return 1500 if own is None else own
        if own is not None and asked > own:
            raise ConfigurationError(f"{self.address}: mtu={asked}: the device takes up to {own}")
        if asked + reg.FRAMING > BUFFER_SIZE and "parts" not in self._metadata:
            raise ConfigurationError(
                f"{self.address}: mtu={asked}: longer frames than a buffer holds need metadata=('parts',) too"
            )
        return asked

    def _check(self, pairs: int, ring_size: int) -> None:
        if not 1 <= pairs <= self.max_pairs():
            raise ConfigurationError(f"{self.address}: {pairs} queues: 1 to {self.max_pairs()} are possible")
        if ring_size not in [16 << n for n in range(12)]:
            raise ConfigurationError(
                f"{self.address}: a ring of {ring_size}: a power of two from 16 to 32768 is needed"
            )

    def _check_spreading(self, rx_queues: int, tx_queues: int, rss_key: bytes) -> None:
        """What only RSS can do (5.1.6.5.6): leave receive queues of pairs alone, and hash by a key."""
        if self.features.has(reg.RSS):
            return
        if rx_queues < tx_queues:
            raise ConfigurationError(
                f"{self.address}: {tx_queues} transmit queues with {rx_queues} to receive: the device has pairs and "
                f"spreads packets over all of them, so rx_queues must be {tx_queues} at least"
            )
        if rx_queues > 1 and rss_key != DEFAULT_KEY:
            raise ConfigurationError(f"{self.address}: the device spreads packets by itself, and takes no rss_key")

    def _set_up(self, pairs: int, ring_size: int, pool_size: int) -> None:
        """Memory for all rings in one piece, a mempool for each receive ring, and rings in pairs (5.1.2)."""
        indices = [*range(2 * pairs), *([self._control_index()] if self.features.has(reg.CTRL_VQ) else [])]
        sizes = [self._ring_size(index, ring_size) for index in indices]
        parts = self._terms().parts
        check_pool(self.address, pool_size, max(sizes), GROUP + parts - 1)
        if (smallest := min(sizes[: 2 * pairs])) < parts:
            raise ConfigurationError(f"{self.address}: a ring of {smallest}: packets of several parts need 64 at least")
        layouts = [self._terms().layout(size) for size in sizes]
        self._ring_memory = allocate_rings(sum(layout.bytes for layout in layouts) + COMMAND_BYTES)
        mapping = self._transport.map(self._ring_memory)
        self._check_addresses(mapping)
        self._attached.lie_as(mapping, self._terms().header)
        start = 0
        for index, layout in zip(indices, layouts, strict=True):
            extra = COMMAND_BYTES if index >= 2 * pairs else 0
            memory = self._ring_memory.bytes[start : start + layout.bytes + extra]
            self._set_up_ring(index, layout, memory, mapping.address(start, layout.bytes + extra), pool_size, pairs)
            start += layout.bytes

    def _check_addresses(self, mapping: DmaMapping) -> None:
        """6.1: a device without ACCESS_PLATFORM may take all addresses for physical ones, whatever an IOMMU says."""
        if mapping.translated and not self.features.has(reg.ACCESS_PLATFORM):
            raise UnsupportedDevice(
                f"{self.address}: behind an IOMMU the device must offer ACCESS_PLATFORM, and it does not (QEMU: "
                f"iommu_platform=on,disable-legacy=on); to use it as root through sysfs, run: ixy unbind {self.address}"
            )

    def _terms(self) -> Terms:
        has = self.features.has
        header = reg.HEADER_BYTES if has(reg.VERSION_1) or has(reg.MRG_RXBUF) else reg.LEGACY_HEADER_BYTES  # 5.1.6.1
        return Terms(
            header=reg.HASH_HEADER_BYTES if has(reg.HASH_REPORT) else header,
            mergeable=int(has(reg.MRG_RXBUF)),
            in_order=int(has(reg.IN_ORDER)),
            event_index=int(has(reg.EVENT_IDX)),
            packed=has(reg.RING_PACKED),
            able=sum(able for bit, able in _ABLE.items() if has(bit)) | (SUMS if "checksum" in self._offloads else 0),
            parts=MAX_PARTS if "parts" in self._metadata else 1,
        )

    def _ring_size(self, index: int, wanted: int) -> int:
        """The device's size if it is fixed, else at most that; a power of two, so that an index wraps by a mask."""
        limit = self._transport.ring_limit(index)
        if limit == 0:
            raise ConfigurationError(f"{self.address}: the device has no ring {index}")
        if self._transport.fixed_size:
            if limit & (limit - 1):  # 2.7: it must be one, and places in the ring are found by a mask
                raise UnsupportedDevice(f"{self.address}: ring {index} has {limit} descriptors, which is no power of 2")
            return limit
        return min(wanted, 1 << (limit.bit_length() - 1))

    def _set_up_ring(
        self, index: int, layout: Layout, memory: NDArray[np.uint8], address: int, pool_size: int, pairs: int
    ) -> None:
        """Make ring `index`, then tell the device where it lies."""
        terms, size = self._terms(), layout.size
        addresses = layout.addresses(address)
        doorbell = self._transport.doorbell(index)
        if index >= 2 * pairs:
            self._control = ControlQueue(self.address, memory, layout, terms.packed, address, doorbell)
            self._transport.set_ring(index, addresses, lambda: 0)
        elif index % 2 == 0:
            with Mempool(pool_size) as pool:
                self.attach(pool)  # which holds it
            rx = VirtioRxRing(memory, terms, size, doorbell, self._attached.addresses, pool, self._metadata)
            self._rx.append(rx)
            rx.fill()
            self._transport.set_ring(index, addresses, lambda: resume_at(rx))
        else:
            tx = VirtioTxRing(memory, terms, size, doorbell, self._attached.addresses, self._offloads)
            self._tx.append(tx)
            self._transport.set_ring(index, addresses, lambda: resume_at(tx))

    def _configure(self, pairs: int, rss_key: bytes) -> None:
        """What is set while the device runs: receive buffers are there, how many pairs to use, all packets in."""
        for ring in self._rx:
            ring_doorbell(ring.state.doorbell)
        if self.rss is not None:
            self.redirect(self.rss)
        elif pairs > 1 and self._control is not None:
            self._control.send(reg.CTRL_MQ_PAIRS_SET, pairs.to_bytes(2, "little"))
        if self.features.has(reg.HASH_REPORT) and self.rss is None:
            self._report_hashes(rss_key)
        if self.features.has(reg.CTRL_RX):
            self.set_promiscuous(True)  # until the user says otherwise
        log.info("%s: ready, MAC %s", self.address, self.mac().hex(":"))

    def _report_hashes(self, key: bytes) -> None:
        """What is hashed, and how, where that says nothing of queues (5.1.6.5.6.4)."""
        data = struct.pack("<I8xB", reg.HASH_TYPES, len(key)) + key
        self._command("HASH_REPORT", reg.HASH_REPORT, reg.CTRL_MQ_HASH_CONFIG, data)

    def redirect(self, rss: Rss) -> None:
        """What is hashed, how, and the queues for it, all at once (5.1.6.5.7.1); what is not hashed goes to queue 0."""
        head = struct.pack("<IHH", reg.HASH_TYPES, len(rss.table) - 1, 0)
        table = struct.pack(f"<{len(rss.table)}H", *rss.table)
        tail = struct.pack("<HB", len(self._tx), len(rss.key)) + rss.key
        self._command("RSS", reg.RSS, reg.CTRL_MQ_RSS_CONFIG, head + table + tail)
        self.rss = rss

    rules: Sequence[Rule] = ()

    def add_rule(self, rule: Rule) -> Rule:
        """
        Raises:
            ConfigurationError: the specification has none.
        """
        raise ConfigurationError(f"{self.address}: {rule}: a VirtIO device has no rules, it fills queues by itself")

    def remove_rule(self, rule: Rule) -> None:
        """
        Raises:
            ConfigurationError: there is none.
        """
        raise no_such_rule(self.address, rule)

    def attach(self, pool: Mempool) -> None:
        """Let the device reach the buffers of `pool`, and the header before each."""
        with self._control_plane():
            self._attached.attach(pool)

    def rx_interrupt(self, queue: int) -> RingInterrupt:
        """The interrupt of a receive queue."""
        with self._control_plane():
            return RingInterrupt(self._rx[queue], self._transport.interrupt(queue, len(self.rx_rings)))

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """Call `tell` when a back end has gone."""
        self._transport.when_gone(tell)

    def rouse(self) -> None:
        """The device is another's, and knows by itself when to look."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    @contextmanager
    def _control_plane(self) -> Generator[None]:
        """A command or an access to the configuration, which no other thread breaks into."""
        with self._turn:
            if self._closed:
                raise Error(f"{self.address} is closed")
            yield

    # -----------------------------------------------------------------------------------------------------------------
    # Configuration, 5.1.4

    def max_pairs(self) -> int:
        """How many pairs of queues the device has."""
        if not (self.features.has(reg.MQ) or self.features.has(reg.RSS)):
            return 1
        pairs = self._transport.config_read(reg.CONFIG_MAX_PAIRS, 2)
        return integer(f"{self.address}: max_virtqueue_pairs", pairs, 1, reg.MAX_PAIRS, error=UnsupportedDevice)

    def _control_index(self) -> int:
        return 2 * self.max_pairs()

    def mtu(self) -> int:
        """The largest payload of a frame that the device takes."""
        return self._mtu

    def mac(self) -> bytes:
        """The station's address; all zeros if the device has none."""
        if not self.features.has(reg.MAC):
            return bytes(6)
        with self._control_plane():
            places = range(reg.CONFIG_MAC, reg.CONFIG_MAC + 6)
            return bytes(self._transport.config_read(place, 1) for place in places)

    def set_mac(self, mac: bytes) -> None:
        """Change the station's address until the next reset (5.1.6.5.2).

        Raises:
            ConfigurationError: no unicast address, or the device's address cannot be changed.
        """
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise ConfigurationError(f"{self.address}: {mac.hex(':')} is no unicast MAC address")
        with self._control_plane():
            if self._control is not None and self.features.has(reg.CTRL_MAC_ADDR):
                self._control.send(reg.CTRL_MAC_ADDR_SET, mac)
            elif self._transport.mac_writable:
                self._transport.config_write(reg.CONFIG_MAC, mac)
            else:
                raise ConfigurationError(f"{self.address}: the device does not let its MAC address be changed")

    # -----------------------------------------------------------------------------------------------------------------
    # Filters, 5.1.6.5

    def set_promiscuous(self, enabled: bool) -> None:
        """Receive all packets, whatever their destination (5.1.6.5.1); else only those that the filters let in.

        Raises:
            ConfigurationError: packets are to be filtered, and the device has no filters.
        """
        if not self.features.has(reg.CTRL_RX):
            if not enabled:
                raise ConfigurationError(f"{self.address}: the device has no filters, it receives all packets")
            return
        self._command("CTRL_RX", reg.CTRL_RX, reg.CTRL_RX_PROMISC, bytes([enabled]))

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Two tables, of stations and of groups (5.1.6.5.2).

        Raises:
            ConfigurationError: the device has no filters.
        """
        tables = [[mac for mac in addresses if mac[0] & 1 == group] for group in (0, 1)]
        data = b"".join(len(table).to_bytes(4, "little") + b"".join(table) for table in tables)
        self._command("CTRL_RX", reg.CTRL_RX, reg.CTRL_MAC_TABLE_SET, data)

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """At first the device lets no VLAN in (5.1.6.5.3).

        Raises:
            ConfigurationError: the device has no such filter.
        """
        command = reg.CTRL_VLAN_ADD if enabled else reg.CTRL_VLAN_DEL
        self._command("CTRL_VLAN", reg.CTRL_VLAN, command, vlan.to_bytes(2, "little"))

    def _command(self, name: str, feature: int, command: tuple[int, int], data: bytes) -> None:
        if self._control is None or not self.features.has(feature):
            raise ConfigurationError(f"{self.address}: the device does not offer {name}")
        with self._control_plane():
            self._control.send(command, data)

    # -----------------------------------------------------------------------------------------------------------------
    # While it runs

    def link(self) -> Link:
        """The link's state (5.1.4); down too if the device or a ring has stopped, which is logged once."""
        with self._control_plane():
            up = not self._breaches()
            if up and self.features.has(reg.STATUS):
                up = bool(self._transport.config_read(reg.CONFIG_STATUS, 2) & reg.LINK_UP)
            return Link(up, self._speed() if up else 0)

    def _speed(self) -> int:
        speed = reg.UNKNOWN_SPEED
        if self.features.has(reg.SPEED_DUPLEX):
            speed = self._transport.config_read(reg.CONFIG_SPEED, 4)
        return NOMINAL_SPEED if speed == reg.UNKNOWN_SPEED else speed

    def _breaches(self) -> list[str]:
        """Why the device, or some of its rings, have stopped for good."""
        kinds = ((self._rx, "receive"), (self._tx, "transmit"))
        found = [
            f"{kind} ring {i} has stopped: {b}" for r, kind in kinds for i, ring in enumerate(r) if (b := ring.breach)
        ]
        if self._transport.failed():
            found.append("the device needs a reset")
        for breach in found:
            if breach not in self._reported:
                self._reported.add(breach)
                log.error("%s: %s; close the device and open it again", self.address, breach)
        return found

    def wait_for_link(self, timeout: float) -> Link:
        """Wait up to `timeout` seconds until the link is up; the state it then has."""
        deadline = time.monotonic() + timeout
        while not (link := self.link()).up and time.monotonic() < deadline:
            time.sleep(0.01)
        return link

    def counters(self) -> DeviceCounters:
        """What the rings counted: the device has no counters. Packets are sent when they are on the ring.

        `rx_errors` counts rings that have stopped, and a device that needs a reset. What the device dropped it does not
        say.
        """
        with self._control_plane():
            return DeviceCounters(
                rx_packets=sum(ring.packets for ring in self._rx),
                rx_bytes=sum(ring.bytes for ring in self._rx),
                tx_packets=sum(ring.packets for ring in self._tx),
                tx_bytes=sum(ring.bytes for ring in self._tx),
                rx_errors=len(self._breaches()),
            )

    def sent(self) -> int:
        """Packets that the device has taken from the rings."""
        return sum(ring.sent for ring in self._tx)

    def facts(self) -> Facts:
        """What the device is, and what was negotiated."""
        with self._control_plane():
            pairs = self.max_pairs()
            return Facts(
                model="VirtIO network device" + (", legacy" if not self.features.has(reg.VERSION_1) else ""),
                slot=self._transport.slot(),
                mtu=self.mtu(),
                max_rx_queues=pairs,
                max_tx_queues=pairs,
                features=self.features.names(),
                refused=Features(self._offered & ~self.features).names(),
                rx_offloads=self._named(_RX_OFFLOADS),
                tx_offloads=self._named(_TX_OFFLOADS) + (["MULTI_SEGS"] if "parts" in self._metadata else []),
            )

    def _named(self, offloads: dict[int, tuple[str, ...]]) -> list[str]:
        return [name for bit, names in offloads.items() if self.features.has(bit) for name in names]

    def xstats(self) -> dict[str, int]:
        """What the rings counted: the device has no counters."""
        with self._control_plane():
            return counts(self.rx_rings, self.tx_rings)

    def registers(self, *, clear: bool = False) -> Sequence[Reading]:  # noqa: ARG002
        """
        Raises:
            UnsupportedDevice: what could be read of it, `facts` tells.
        """
        raise UnsupportedDevice(f"{self.address}: a VirtIO device has no registers to show: ixy info has its features")

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def close(self) -> None:
        """Stop the device, take back its buffers, give it up. A second call does nothing.

        Nothing is taken back before the device has stopped: a call that is interrupted while it waits for that can be
        repeated. In a child of a fork the device is not to be touched, and the call does nothing.
        """
        with self._ending:
            if self._closed or not self._owner.mine():
                return
            try:
                self._transport.reset()
            except Error:  # it does no DMA all the same
                self._give_up()
                raise
            self._give_up()

    def __del__(self) -> None:
        if hasattr(self, "_tx"):  # nobody could close it: an exception came before anybody had it
            close_dropped(self.close)

    def _give_up(self) -> None:
        """Each step is done even if one before it fails or is interrupted."""
        with self._turn, ExitStack() as steps:
            self._closed = True
            steps.callback(self._transport.close)
            if self._ring_memory is not None:
                steps.callback(self._ring_memory.close)
                steps.callback(self._transport.unmap, self._ring_memory)
            steps.callback(self._attached.detach_all)
            for ring in (*self._rx, *self._tx):
                steps.callback(ring.drain)
