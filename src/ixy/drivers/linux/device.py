"""The control plane that drivers of the kernel's interfaces share: what is the interface's, the kernel does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ixy.drivers import DeviceCounters, Link, check_pool
from ixy.drivers.info import Facts
from ixy.drivers.linux.interface import Interface, Membership, explained
from ixy.drivers.linux.interrupts import SocketInterrupt
from ixy.drivers.linux.rings import GROUP
from ixy.drivers.pools import AttachedPools
from ixy.drivers.rings import DROPPED, counts
from ixy.drivers.rules import no_such_rule
from ixy.dropped import close_dropped
from ixy.errors import ConfigurationError, Error, UnsupportedDevice
from ixy.formats.links import HEADER
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import DmaMapping
from ixy.process import Owner, forget_in_child

if TYPE_CHECKING:
    import socket

    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers.linux.rings import CountingRing, InterfaceTxRing
    from ixy.drivers.rss import Rss
    from ixy.drivers.rules import Rule
    from ixy.packets.dma import DmaMemory
    from ixy.packets.mempool import Mempool
    from ixy.registers import Reading

log = logging.getLogger("ixy.linux")

RING_SIZES = [64 << n for n in range(10)]
MAX_QUEUES = 64


class ThisProcess:
    """Who reaches packet buffers by the process's own addresses has nothing to be mapped."""

    def map(self, memory: DmaMemory) -> DmaMapping:
        return DmaMapping.linear(memory, 0)

    def unmap(self, memory: DmaMemory) -> None:
        """It was not mapped."""


class LinuxDevice:
    """What a driver derives from; see `ixy.drivers.Driver`.

    What it opens it registers in `_undo`. In a forked child it gives up its files, and nothing else.

    Args:
        address: of the device, for messages.
        name: of the interface.
        capabilities: what a process needs to open it, see `explained`.
    """

    name = "linux"
    rss: Rss | None = None
    rules: Sequence[Rule] = ()
    _receiving: Sequence[CountingRing]
    _sending: Sequence[InterfaceTxRing]

    def __init__(self, address: str, name: str, capabilities: str) -> None:
        self.address = address
        self._capabilities = capabilities
        self._owner = Owner()
        self._lock = threading.RLock()
        self._closed = False
        self._sockets: list[socket.socket] = []
        self._interrupts: dict[int, SocketInterrupt] = {}
        self._attached = AttachedPools(ThisProcess())
        self._undo = ExitStack()
        self.interface = Interface(address, name)
        self._model, self._slot = self.interface.model(), self.interface.slot("")
        self._most_queues = self.interface.rx_queues(), self.interface.tx_queues()

    def _check_sizes(self, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int) -> None:
        """
        Raises:
            ConfigurationError: one is out of range.
        """
        if not (1 <= rx_queues <= MAX_QUEUES and 1 <= tx_queues <= MAX_QUEUES):
            raise ConfigurationError(f"{self.address}: {rx_queues} and {tx_queues} queues: 1 to {MAX_QUEUES} possible")
        if ring_size not in RING_SIZES:
            raise ConfigurationError(f"{self.address}: a ring of {ring_size}: possible are {RING_SIZES}")
        check_pool(self.address, pool_size, ring_size, GROUP)

    def _check_mtu(self, mtu: int | None, metadata: Sequence[str]) -> None:
        """
        Raises:
            ConfigurationError: the interface's own is smaller, or such frames do not fit a buffer.
        """
        own, name = self.interface.first.mtu, self.interface.first.name
        if mtu is not None and mtu > own:
            raise ConfigurationError(f"{self.address}: mtu={mtu}: its own is {own}: ip link set {name} mtu {mtu}")
        if mtu is not None and mtu + HEADER > BUFFER_SIZE and "parts" not in metadata:
            raise ConfigurationError(f"{self.address}: mtu={mtu} needs metadata=('parts',) too")

    def _take_interface(self) -> None:
        """Let all packets in, until `set_promiscuous` says otherwise."""
        with self._explained("open a packet socket"):
            self._undo.callback(self.interface.close)
            self.interface.keep_asking()
            self._membership = Membership(self.interface)
            self._undo.callback(self._membership.close)
            self._membership.promiscuous(True)
        forget_in_child(self)

    @contextmanager
    def _explained(self, doing: str) -> Generator[None]:
        with explained(self.address, doing, self._capabilities):
            yield

    @contextmanager
    def _control(self, doing: str = "ask the kernel") -> Generator[None]:
        """One thread at a time, as long as the device is open."""
        with self._lock:
            if self._closed:
                raise Error(f"{self.address} is closed")
            with self._explained(doing):
                yield

    # -----------------------------------------------------------------------------------------------------------------
    # The interface

    def mac(self) -> bytes:
        with self._control():
            return self.interface.now().mac

    def set_mac(self, mac: bytes) -> None:
        """
        Raises:
            ConfigurationError: it is not the driver's to change.
        """
        raise ConfigurationError(
            f"{self.address}: the address is the kernel's: ip link set {self.interface.first.name} address "
            f"{mac.hex(':')}"
        )

    def mtu(self) -> int:
        """The longest payload of a frame."""
        with self._control():
            return self.interface.now().mtu

    def link(self) -> Link:
        """
        Raises:
            Error: the interface is gone.
        """
        with self._control():
            now = self.interface.now()
            self._allow(now.mtu)
            return Link(now.up, self.interface.speed() if now.up else 0)

    def _allow(self, mtu: int) -> None:
        """From now on, what is sent may be as long as this MTU allows. As a rule the kernel sees to that."""

    def wait_for_link(self, timeout: float) -> Link:
        deadline = time.monotonic() + timeout
        while not (link := self.link()).up and time.monotonic() < deadline:
            time.sleep(0.01)
        return link

    def set_promiscuous(self, enabled: bool) -> None:
        """As far as the interface looks at addresses: a virtual one, such as veth, lets all packets in anyway."""
        with self._control("change what the interface lets in"):
            self._membership.promiscuous(enabled)

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Likewise."""
        with self._control("change what the interface lets in"):
            self._membership.filter(addresses)

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:  # noqa: ARG002
        """
        Raises:
            ConfigurationError: there is none.
        """
        raise ConfigurationError(f"{self.address}: an interface has no filter of VLANs that a program could set")

    def add_rule(self, rule: Rule) -> Rule:
        """
        Raises:
            ConfigurationError: there are none.
        """
        raise ConfigurationError(
            f"{self.address}: {rule}: rules are the kernel's here: ethtool -N {self.interface.first.name}"
        )

    def remove_rule(self, rule: Rule) -> None:
        """
        Raises:
            ConfigurationError: there is none.
        """
        raise no_such_rule(self.address, rule)

    def redirect(self, rss: Rss) -> None:
        """Never called: there is no `rss`."""

    # -----------------------------------------------------------------------------------------------------------------
    # Rings

    def attach(self, pool: Mempool) -> None:
        """Keep `pool`; its packets are copied when they are sent, so the kernel need not know it."""
        with self._control():
            self._attached.attach(pool)

    def rx_interrupt(self, queue: int) -> SocketInterrupt:
        """Its socket, which is readable while there are packets."""
        with self._control("open a file"):
            if queue not in self._interrupts:
                self._interrupts[queue] = SocketInterrupt(self._sockets[queue])
            return self._interrupts[queue]

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """An interface that goes is noticed by who asks for its link."""

    def rouse(self) -> None:
        """The kernel is awake."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    def sent(self) -> int:
        """Packets that the kernel has taken from the rings."""
        return sum(ring.sent() for ring in self._sending)

    def counters(self) -> DeviceCounters:
        """What the rings counted, and what the sockets lost for want of room."""
        with self._control():
            return DeviceCounters(
                rx_packets=sum(ring.packets for ring in self._receiving),
                rx_bytes=sum(ring.bytes for ring in self._receiving),
                tx_packets=sum(ring.packets for ring in self._sending),
                tx_bytes=sum(ring.bytes for ring in self._sending),
                rx_dropped=self._lost(),
            )

    def _lost(self) -> int:
        """Packets that have found no room in a ring since the device was opened."""
        raise NotImplementedError

    # -----------------------------------------------------------------------------------------------------------------
    # A look inside

    def facts(self) -> Facts:
        with self._control():
            slot, mtu = self._slot._replace(bus=self._way()), self.interface.now().mtu
            return Facts(self._model, slot, mtu, *self._most_queues)

    def _way(self) -> str:
        """How the interface is reached, in words."""
        raise NotImplementedError

    def xstats(self) -> dict[str, int]:
        """What rings and sockets counted; and of the interface, by the names that `ip -s link` has, since it came to
        be: it counts for all who use it."""
        with self._control():
            interface = {f"interface_{name}": count for name, count in self.interface.now().counters.items()}
            return counts(self._receiving, self._sending) | self._socket_counters() | interface

    def _socket_counters(self) -> dict[str, int]:
        """What the kernel counted of the sockets, by names with the numbers of their queues."""
        raise NotImplementedError

    def registers(self, *, clear: bool = False) -> Sequence[Reading]:  # noqa: ARG002
        """
        Raises:
            UnsupportedDevice: they are the kernel's driver's.
        """
        name = self.interface.first.name
        raise UnsupportedDevice(f"{self.address}: registers are the business of the kernel's driver: ethtool -d {name}")

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def close(self) -> None:
        """Give the interface up, take buffers back. A second call does nothing, or goes on with it."""
        if not self._owner.mine():
            return
        with self._lock:
            if not self._closed:
                self._tell_refused()
            self._closed = True
            while self._interrupts:
                self._interrupts.popitem()[1].close()
            self._undo.close()

    def _tell_refused(self) -> None:
        """Say that frames were too long, and what may have made them so."""
        refused = sum(int(ring.state.state[DROPPED]) for ring in self._receiving)
        if refused:
            log.warning(
                "%s: %d frames were refused, as longer than %d bytes: those of a large MTU, or several that the kernel "
                "has put together, which ethtool -K %s gro off gso off tso off prevents at either end",
                self.address,
                refused,
                max(ring.parts for ring in self._receiving) * BUFFER_SIZE,
                self.interface.first.name,
            )
        refused = sum(ring.refused for ring in self._sending)
        if refused:
            log.warning(
                "%s: %d packets were too short, or longer than its MTU of %d allows: those are not sent",
                self.address,
                refused,
                self.interface.first.mtu,
            )

    def forget(self) -> None:
        """Close files and mappings; see `ixy.process.Inheritance`."""
        while self._interrupts:
            self._interrupts.popitem()[1].close()
        self._membership.close()
        self.interface.close()
        for sock in self._sockets:
            sock.close()

    def __del__(self) -> None:
        if hasattr(self, "tx_rings"):  # nobody could close it: an exception came before anybody had it
            close_dropped(self.close)
