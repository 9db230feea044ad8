"""The driver of a device of which another process is the driver: what is given out there comes in here."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ixy.bus import Slot
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, DeviceCounters, Link, check_pool
from ixy.drivers.info import Facts
from ixy.drivers.linux.device import RING_SIZES, ThisProcess
from ixy.drivers.linux.rings import GROUP
from ixy.drivers.pools import AttachedPools
from ixy.drivers.rings import counts
from ixy.drivers.rss import DEFAULT_KEY, Rss
from ixy.drivers.rules import no_such_rule
from ixy.drivers.vhost.front_end import Offer
from ixy.drivers.vhost.interrupts import KickInterrupt
from ixy.drivers.vhost.memory import GuestMemory
from ixy.drivers.vhost.rings import VhostRxRing, VhostTxRing
from ixy.drivers.vhost.server import Server
from ixy.drivers.virtio.features import Features, check_asked
from ixy.drivers.virtio.transports import vhost_user
from ixy.dropped import close_dropped
from ixy.errors import ConfigurationError, Error, UnsupportedDevice
from ixy.formats.links import HEADER
from ixy.packets.buffers import BUFFER_SIZE, MAX_PARTS
from ixy.packets.mempool import Mempool
from ixy.packets.packets import check_metadata
from ixy.process import Owner, forget_in_child
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers.rules import Rule
    from ixy.registers import Reading

log = logging.getLogger("ixy.vhost")

PREFIX = "vhost-server:"
MAX_PAIRS = 128  # SET_VRING_KICK and its like have 8 bits for the number of a ring

# Buffers of any layout. Without offloads, frames come and go as they are on a wire. Buffers are used in the order in
# which they were offered, which spares a front end that knows it (DPDK's) a third of its time.
_FEATURES = (reg.VERSION_1, reg.ANY_LAYOUT, reg.MRG_RXBUF, reg.MQ, reg.RING_PACKED, reg.IN_ORDER)
_OFFERED = sum(1 << bit for bit in _FEATURES)
_TOLD = ("flags", "time", "segments", "parts")  # of each packet, if asked for

# What is offered besides, for each word of `ixy.open`: a front end that may send packets without checksums, or without
# being cut, must be ours to receive so, and the other way round
_DOING = {
    "checksum": (reg.CSUM, reg.GUEST_CSUM),
    "segmentation": (reg.GUEST_CSUM, reg.GUEST_TSO4, reg.GUEST_TSO6, reg.GUEST_ECN),
    "coalescing": (reg.CSUM, reg.HOST_TSO4, reg.HOST_TSO6, reg.HOST_ECN),
}
_RX_OFFLOADS = {"checksum": ("UDP_CKSUM", "TCP_CKSUM"), "coalescing": ("TCP_LRO",)}
_TX_OFFLOADS = {"checksum": ("IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM"), "segmentation": ("TCP_TSO",)}


def parse(address: str) -> tuple[str, int]:
    """The path of the socket, and feature bits not to offer: `vhost-server:PATH[,ring=split]`.

    Raises:
        AddressError: malformed.
    """
    return vhost_user.parse(address, PREFIX)


class VhostDevice:
    """The back end of a VirtIO network device; see `ixy.drivers.Driver`.

    Front ends come and go, one at a time, and the rings with them: the link is up while one has started its first pair
    of rings. A front end that breaks the rules does no harm: the ring on which it did so stops until it is set up anew,
    and one whose messages make no sense is let go.

    Args:
        address: see `parse`.
        rx_queues, tx_queues: how many of each, 1 to 128. A front end is offered as many pairs, and sends through all of
            them, so there must be as many receive queues as transmit queues at least.
        ring_size: a power of two, 64 to 32768: how many packets wait for a front end that has no buffers. Its rings are
            as large as it wants.
        pool_size: packet buffers per receive queue, at least the size of a ring + 32.
        metadata: what is to be told of each packet, see `ixy.open`.
        offloads, mtu: likewise. What a front end does not accept of it is done here, or not done, see `offloads`.

    Raises:
        AddressError: malformed, or no socket can be made there.
        ConfigurationError: a parameter is out of range.
        DeviceBusy: another process listens there.
        PermissionDenied: this user may make no socket there.
    """

    name = "vhost"
    rss: Rss | None = None
    rules: Sequence[Rule] = ()

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
        self._path, unwanted = parse(address)
        self.address = PREFIX + self._path
        self._owner = Owner()
        self._lock = threading.RLock()
        self._closed = False
        self._reported: set[str] = set()
        self._attached = AttachedPools(ThisProcess())
        self._undo = ExitStack()
        self._receiving: list[VhostRxRing] = []
        self._sending: list[VhostTxRing] = []
        self._interrupts: list[KickInterrupt] = []
        self._too_long = 0
        self._check(rx_queues, tx_queues, ring_size, pool_size, rss_key, metadata)
        self._metadata = check_metadata(self.address, metadata, _TOLD)
        self._offloads = check_asked(self.address, offloads, _DOING, self._metadata)
        self._mtu = self._check_mtu(mtu)
        try:
            self.memory = GuestMemory()
            self._undo.callback(self.memory.close)
            self._undo.callback(self._attached.detach_all)
            for _ in range(max(rx_queues, tx_queues)):
                self._make_pair(ring_size, pool_size)
            offered = _OFFERED | sum({1 << bit for name in self._offloads for bit in _DOING[name]})
            offer = Offer(offered & ~unwanted, len(self._receiving))
            self._server = Server(self.address, self._path, self, offer)
            self._undo.callback(self._server.close)
            forget_in_child(self)
        except BaseException:
            self.close()
            raise
        self.rx_rings = self._receiving[:rx_queues]
        self.tx_rings = self._sending[:tx_queues]

    def _check(
        self,
        rx_queues: int,
        tx_queues: int,
        ring_size: int,
        pool_size: int,
        rss_key: bytes,
        metadata: Sequence[str],
    ) -> None:
        if not 1 <= tx_queues <= rx_queues <= MAX_PAIRS:
            raise ConfigurationError(
                f"{self.address}: {rx_queues} receive and {tx_queues} transmit queues: 1 to {MAX_PAIRS} are possible, "
                f"and as many receive queues as transmit queues at least, since a front end sends through all"
            )
        if ring_size not in RING_SIZES:
            raise ConfigurationError(f"{self.address}: a ring of {ring_size}: possible are {RING_SIZES}")
        check_pool(self.address, pool_size, ring_size, GROUP + (MAX_PARTS - 1 if "parts" in metadata else 0))
        if rss_key != DEFAULT_KEY:
            raise ConfigurationError(f"{self.address}: the front end spreads packets by itself, and takes no rss_key")

    def _check_mtu(self, asked: int | None) -> int:
        if asked is not None and asked + HEADER > BUFFER_SIZE and "parts" not in self._metadata:
            raise ConfigurationError(
                f"{self.address}: mtu={asked}: longer frames than a buffer holds need metadata=('parts',) too"
            )
        return BUFFER_SIZE - HEADER if asked is None else asked

    def _make_pair(self, ring_size: int, pool_size: int) -> None:
        """A pair of rings, a pool, and an interrupt."""
        with Mempool(pool_size) as pool:
            self._attached.attach(pool)
        rx = VhostRxRing(self.memory, ring_size, pool, self._metadata)
        tx = VhostTxRing(self.memory, ring_size, self._metadata, self._offloads)
        self._receiving.append(rx)
        self._sending.append(tx)
        self._undo.callback(tx.drain)
        self._interrupts.append(KickInterrupt(rx))
        self._undo.callback(self._interrupts[-1].close)

    # -----------------------------------------------------------------------------------------------------------------
    # For front ends, see `ixy.drivers.vhost.front_end.Port`

    def ring(self, index: int) -> VhostRxRing | VhostTxRing:
        """A front end's even rings receive, its odd ones send (5.1.2)."""
        return self._receiving[index // 2] if index % 2 else self._sending[index // 2]

    def interrupt(self, index: int) -> KickInterrupt | None:
        return self._interrupts[index // 2] if index % 2 else None

    # -----------------------------------------------------------------------------------------------------------------
    # Configuration: the front end's is its own

    @contextmanager
    def _control(self) -> Generator[None]:
        """One thread at a time, as long as the device is open."""
        with self._lock:
            if self._closed:
                raise Error(f"{self.address} is closed")
            yield

    def mac(self) -> bytes:
        """An address for this end, locally administered, always the same for the same path."""
        return bytes([2]) + hashlib.sha256(self.address.encode()).digest()[:5]

    def set_mac(self, mac: bytes) -> None:
        """
        Raises:
            ConfigurationError: nobody would know it.
        """
        raise ConfigurationError(
            f"{self.address}: {mac.hex(':')}: the front end has the address, and says it to nobody"
        )

    def set_promiscuous(self, enabled: bool) -> None:
        """
        Raises:
            ConfigurationError: packets are to be filtered, and there are no filters.
        """
        if not enabled:
            raise ConfigurationError(f"{self.address}: there are no filters: all comes that the front end sends")

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:  # noqa: ARG002
        """
        Raises:
            ConfigurationError: there is none.
        """
        self.set_promiscuous(False)

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:  # noqa: ARG002
        """
        Raises:
            ConfigurationError: there is none.
        """
        self.set_promiscuous(False)

    def add_rule(self, rule: Rule) -> Rule:
        """
        Raises:
            ConfigurationError: there are none.
        """
        raise ConfigurationError(f"{self.address}: {rule}: there are no rules, the front end fills queues by itself")

    def remove_rule(self, rule: Rule) -> None:
        """
        Raises:
            ConfigurationError: there is none.
        """
        raise no_such_rule(self.address, rule)

    def redirect(self, rss: Rss) -> None:
        """Never called: there is no `rss`."""

    # -----------------------------------------------------------------------------------------------------------------
    # While it runs

    def link(self) -> Link:
        """Up while a front end has started its first pair of rings, and broken no rule."""
        with self._control():
            up = not self._breaches() and self._receiving[0].running and self._sending[0].running
            return Link(up, 0)

    def wait_for_link(self, timeout: float) -> Link:
        deadline = time.monotonic() + timeout
        while not (link := self.link()).up and time.monotonic() < deadline:
            time.sleep(0.01)
        return link

    def _breaches(self) -> list[str]:
        """Why rings have stopped; each is logged when it is first seen."""
        kinds = ((self._receiving, "receive"), (self._sending, "transmit"))
        found = [
            f"{kind} ring {i} has stopped, as the front end has broken the rules: {breach}"
            for rings, kind in kinds
            for i, ring in enumerate(rings)
            if (breach := ring.breach)
        ]
        if self._server.failed:
            found.append("nobody listens any more; close the device and open it again")
        for breach in set(found) - self._reported:
            log.error("%s: %s", self.address, breach)
        self._reported = set(found)
        return found

    def counters(self) -> DeviceCounters:
        """What the rings counted. `rx_errors` are the rings that have stopped."""
        with self._control():
            self._tell_of_too_long()
            return DeviceCounters(
                rx_packets=sum(ring.packets for ring in self._receiving),
                rx_bytes=sum(ring.bytes for ring in self._receiving),
                tx_packets=sum(ring.packets for ring in self._sending),
                tx_bytes=sum(ring.bytes for ring in self._sending),
                rx_errors=len(self._breaches()),
            )

    def _tell_of_too_long(self) -> None:
        """Log that packets were dropped since the last look, as they do not fit into the front end's buffers."""
        before, self._too_long = self._too_long, sum(ring.dropped for ring in self._sending)
        if self._too_long > before:
            count = self._too_long - before
            log.warning("%s: dropped %d packets longer than the front end's buffers", self.address, count)

    def sent(self) -> int:
        """Packets that the front end has buffers for, and has been given."""
        return sum(ring.sent() for ring in self._sending)

    def facts(self) -> Facts:
        """What front ends are offered, and which of that the one that is there has accepted."""
        with self._control():
            accepted, offered = self._server.features, self._server.offered
            return Facts(
                model="back end of a VirtIO network device",
                slot=Slot("vhost-user"),
                mtu=self._mtu,
                max_rx_queues=MAX_PAIRS,
                max_tx_queues=MAX_PAIRS,
                features=accepted.names(),
                refused=Features(offered & ~accepted).names(),
                rx_offloads=self._named(_RX_OFFLOADS) + (["SCATTER"] if "parts" in self._metadata else []),
                tx_offloads=self._named(_TX_OFFLOADS) + (["MULTI_SEGS"] if "parts" in self._metadata else []),
            )

    def _named(self, offloads: dict[str, tuple[str, ...]]) -> list[str]:
        return [name for word, names in offloads.items() if word in self._offloads for name in names]

    def xstats(self) -> dict[str, int]:
        with self._control():
            return counts(self.rx_rings, self.tx_rings)

    def registers(self, *, clear: bool = False) -> Sequence[Reading]:  # noqa: ARG002
        """
        Raises:
            UnsupportedDevice: there are none.
        """
        raise UnsupportedDevice(f"{self.address}: a VirtIO device has no registers to show: ixy info has its features")

    def attach(self, pool: Mempool) -> None:
        """Keep `pool`; its packets are copied when they are sent."""
        with self._control():
            self._attached.attach(pool)

    def rx_interrupt(self, queue: int) -> KickInterrupt:
        """The front end's kicks."""
        return self._interrupts[queue]

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """Front ends come and go: the next one is waited for."""

    def rouse(self) -> None:
        """Who polls is awake."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def close(self) -> None:
        """Let the front end go, take buffers back. A second call does nothing, or goes on with it."""
        if not self._owner.mine():
            return
        with self._lock:
            self._closed = True
            self._undo.close()

    def forget(self) -> None:
        """Close files, and let go of the front end's memory; see `ixy.process.Inheritance`."""
        for interrupt in self._interrupts:
            interrupt.close()
        self.memory.clear()

    def __del__(self) -> None:
        if hasattr(self, "tx_rings"):  # nobody could close it: an exception came before anybody had it
            close_dropped(self.close)
