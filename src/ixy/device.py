"""What an application sees: devices with queues. No driver's name appears here."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, cast
from weakref import WeakMethod, WeakSet, WeakValueDictionary

from ixy import clock, streams
from ixy.addresses import Circumstances, Shape, by_virtual_clock, open_driver
from ixy.addresses import link_timeout as usual_link_timeout
from ixy.arguments import boolean, integer, mac_address, number
from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE, MAX_ADDRESSES
from ixy.drivers.info import Info, plugged
from ixy.drivers.offloads import MAX_MTU, MIN_MTU, OFFLOADS, check_offloads
from ixy.drivers.rings import ENTERED, POOL_BUSY, RING_BUSY, desert, enter, exit_from, in_use, leave, seize
from ixy.drivers.rss import Rss, check_key, table_of
from ixy.drivers.rules import Rule, make_rule
from ixy.dropped import close_dropped
from ixy.errors import AddressError, ConfigurationError, Error, OwnershipError, UnsupportedDevice
from ixy.formats.frames import MIN_FRAME
from ixy.jit import CHECKING, Direct, compiled
from ixy.packets import checking
from ixy.packets.batch import Batch, lent, no_copies
from ixy.packets.mempool import Mempool
from ixy.packets.packets import METADATA, Packets, check_metadata
from ixy.packets.pool import NOWHERE, Pools, abandon, free_count, pools, refill
from ixy.process import Owner
from ixy.sandboxing import beforehand
from ixy.sim.machine import Machine
from ixy.unsafe import load_acquire, store_release, swap_if
from ixy.waiting import MAX_TIMEOUT, Sight, WaitingQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers import Driver, Link, RxInterrupt, RxRing, TxRing
    from ixy.registers import Reading

log = logging.getLogger("ixy.device")

MAX_QUEUES = 128
MAX_RING_SIZE = 1 << 15
MAX_POOL_SIZE = 64_000
MAX_VLAN = 4095  # IEEE 802.1Q: 12 bits
LINK_TIMEOUT = 10.0  # seconds; a real link takes a few
SEND_TIMEOUT = 1.0  # seconds without room for a packet
_PATIENCE = 5.0  # seconds that closing waits for threads that use the device; a poll takes microseconds

_STARVED, _EMPTY = 3, 4  # besides what `enter` answers: the pool is empty, and of a look: so is the ring
_REFUSALS = (RING_BUSY, POOL_BUSY)
_SIGHTS = {ENTERED: Sight.PACKETS, _EMPTY: Sight.NOTHING, _STARVED: Sight.STARVED}

# A device and its queues, and a path and its devices, are one thing in several classes.
# pyright: reportPrivateUsage=false


def open_device(
    address: str,
    *,
    rx_queues: int = 1,
    tx_queues: int = 1,
    ring_size: int = DEFAULT_RING_SIZE,
    pool_size: int | None = None,
    metadata: Sequence[str] = (),
    rss_key: bytes | str | None = None,
    offloads: Sequence[str] = (),
    mtu: int | None = None,
    link_timeout: float | None = None,
    force: bool = False,
    sim: Machine | None = None,
) -> Device:
    """Open a network device, bring it up, and wait for its link.

    Args:
        address: `0000:03:00.0` for a PCI device, `sim:NAME[,OPTION=VALUE…]` for a simulated 82599,
            `vhost-user:/path/to/socket` for a VirtIO back end, `vhost-server:/path/to/socket` to be one, `packet:NAME`
            or `xdp:NAME` for an interface of the kernel.
        rx_queues, tx_queues: how many of each, 1 to 128, as far as the device has them. Packets of a flow come to one
            queue, see `Device.spread`; an 82599 spreads them over 16 queues at most, and `Device.rules` can fill all.
        ring_size: descriptors per ring, a power of two from 64 to 4096.
        pool_size: packet buffers per receive queue, by default 4096, or twice the ring if that is more. They are the
            ring's and those of packets on their way, to each transmit queue 32 at least.
        metadata: what the device is to tell of each packet it receives, besides the length: "flags" (kind of packet,
            checksums), "hash" (RSS), "vlan" (takes VLAN tags out of packets), "time" (of the poll, unless the device
            stamps), "segments" (what it was put together from), "parts" (packets may lie in several buffers). See
            `Batch.flags` and those after it.
        rss_key: of the hash by which packets are spread over receive queues: 40 bytes, or "symmetric" for one by which
            both directions of a flow come to the same queue. By default that of Microsoft's specification.
        offloads: what the device is to do to packets besides: "checksum" (makes checksums of packets it sends whose
            flags have IP_PARTIAL or L4_PARTIAL), "vlan" (puts tags in), "segmentation" (cuts what it sends into
            `segments`), "coalescing" (puts received segments together), "stamps" (times are the device's). Each needs
            its column as metadata.
        mtu: the longest payload of a frame; by default the device's own, mostly 1500. What one buffer does not hold
            needs "parts" as metadata.
        link_timeout: seconds to wait for the link, by default 10, and 0.5 for a simulated card, whose link is there at
            once or not at all. A link that stays down is no error: see `Device.link`.
        force: take the card even if the kernel has its interface up with an address or routes.
        sim: the machine to plug a simulated card into, instead of the process's own.

    Raises:
        AddressError: malformed, or there is no such device.
        ConfigurationError: a parameter is out of range, or the device does not tell, or do, what is asked for.
        DeviceBusy: another process, or the kernel's network stack, uses the card.
        DeviceTimeout: the card does not do what it should.
        MemoryUnavailable: no memory for DMA.
        PermissionDenied: the card or its memory is out of this user's reach.
        TypeError: a parameter is of a wrong type.
        UnsupportedDevice: not a network card, or not one that a driver here knows.
    """
    streams.occupy()
    if link_timeout is None:
        link_timeout = usual_link_timeout(address)
    link_timeout = number("link_timeout", link_timeout, 0, MAX_TIMEOUT)
    ring_size = integer("ring_size", ring_size, 1, MAX_RING_SIZE)
    if pool_size is None:
        pool_size = max(DEFAULT_POOL_SIZE, 2 * ring_size)
    shape = Shape(
        rx_queues=integer("rx_queues", rx_queues, 1, MAX_QUEUES),
        tx_queues=integer("tx_queues", tx_queues, 1, MAX_QUEUES),
        ring_size=ring_size,
        pool_size=integer("pool_size", pool_size, 1, MAX_POOL_SIZE),
        metadata=check_metadata(address, metadata, METADATA),
        rss_key=check_key("rss_key", rss_key),
        offloads=check_offloads(address, offloads, OFFLOADS),
        mtu=None if mtu is None else integer("mtu", mtu, MIN_MTU, MAX_MTU),
    )
    if sim is not None and not isinstance(cast(object, sim), Machine):
        raise TypeError(f"sim must be a Machine, not {type(sim).__name__}")
    _check_clock(address)
    device = Device(open_driver(address, shape, Circumstances(boolean("force", force), sim)))
    try:
        if len(device.rx) > 1:
            log.info("%s: %s", address, device.spread)
        device.wait_for_link(link_timeout)
    except BaseException:
        device.close()
        raise
    return device


def _check_clock(address: str) -> None:
    """All devices of a process go by one clock; of simulated cards, their machine sees to it.

    Raises:
        AddressError: another device is open that goes by another.
    """
    if clock.is_virtual() and not address.startswith("sim:"):
        raise AddressError(f"{address}: goes by the system's clock, and open simulated cards do not: close them first")
    if by_virtual_clock(address) and not clock.is_virtual():
        others = [port.address for port in list(_open) if isinstance(port, Device) and not port.closed]
        real = [other for other in others if not other.startswith("sim:")]
        if real:
            raise AddressError(f"{address}: {real[0]} goes by the system's clock: close it first, or leave out clock=")


@dataclass(frozen=True)
class Stats:
    """What a device and its driver counted since the device was opened.

    Bytes are counted as on the wire, from the destination address to the frame check sequence.

    Attributes:
        rx_packets, rx_bytes, tx_packets, tx_bytes: good packets, as the device counted them.
        rx_dropped: packets that arrived while no receive descriptor was free.
        rx_errors: packets that arrived damaged, too short or too long.
        rx_refused: frames that the driver dropped: longer than a buffer, or with a length that makes no sense.
        rx_starved: how often a receive queue found its mempool empty.
    """

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    rx_dropped: int
    rx_errors: int
    rx_refused: int
    rx_starved: int


class Runs(Protocol):
    """A compiled loop over a device's queues."""

    def _stop(self) -> None:
        """End it after its next poll, in whichever thread it is."""
        ...

    def _end(self) -> None:
        """Let go of what it has for itself: it has ended for good."""
        ...


class Users(Protocol):
    """Who uses a port, and is to know when it carries nothing any more."""

    def _lose(self, port: Port) -> None:
        """What carries the port's packets has gone. In any thread."""
        ...


@no_copies
class Port:
    """What has queues: a device, or a ring between threads. Its life, from open to closed.

    Any number of threads may use a port, each queue one at a time. It belongs to the process that opened it.

    Attributes:
        address: what messages call it.
        closed: it was closed; using it raises `Error`, in a forked child `OwnershipError`.
    """

    _remedy = "open it again"

    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = False
        self._open = True  # until closing it has come to its end
        self._owner = Owner()
        self._closing = threading.RLock()
        self._paths: WeakSet[Runs] = WeakSet()
        self._users: WeakSet[Users] = WeakSet()
        _open.add(self)

    def attach(self, pool: Mempool) -> None:
        """Let packets from `pool` be sent. Sending a batch does it by itself; a compiled loop needs it done."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop it and return its memory.

        Paths that run on it end, and calls that use it are waited for. A second call does nothing, or goes on where the
        first was interrupted. In a forked child nothing happens to what is the parent's.

        Raises:
            OwnershipError: a thread uses it and does not let go; close it again.
        """
        if not self._owner.mine():
            self.closed, self._open = True, False
            return
        with self._closing:
            self.closed = True
            for queue in self._queues():
                if isinstance(queue, RxQueue):
                    queue.end_waits()
            for path in list(self._paths):
                path._stop()
            for queue in self._queues():
                if not queue.ring.retire(_PATIENCE):
                    raise OwnershipError(f"{queue} is in use by another thread, which does not let go: close it again")
            for path in list(self._paths):
                path._end()
            self._give_up()
            checking.log_report(pools())
            self._open = False
            _open.discard(self)

    def _queues(self) -> Sequence[RxQueue | TxQueue]:
        raise NotImplementedError

    def _rx_interrupt(self, _queue: int) -> RxInterrupt:
        """The interrupt of a receive queue.

        Raises:
            UnsupportedDevice: there is none.
        """
        raise UnsupportedDevice(f"{self.address} does not interrupt: receive(timeout=…) looks each millisecond")

    def _rouse(self) -> None:
        """Packets were handed to a transmit queue: what sleeps is to look."""

    def _buffers(self) -> Mempool:
        """Where packets to be sent may have their buffers from.

        Raises:
            ConfigurationError: nowhere, of its own.
        """
        raise ConfigurationError(f"{self.address} has no buffers of its own: name a pool, pool=ixy.Mempool(4096)")

    def _station(self) -> bytes | None:
        """The address of who sends here, if that is known."""
        return None

    def _rung_by(self, _words: NDArray[np.int64]) -> None:
        """The loop of the path with these words rings doorbells here; it is to rouse what sleeps."""

    def _give_up(self) -> None:
        """Return memory and whatever else there is. Nobody uses the queues any more."""
        raise NotImplementedError

    def _check(self) -> None:
        if self.closed:
            self._owner.check(self.address)
            raise Error(f"{self.address} is closed: {self._remedy}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_open", False) and not _ending():
            close_dropped(self.close)  # it may have been interrupted


class Rules:
    """The rules of a device, in the order in which they were added: an iterable, and what changes them.

    A rule puts some packets into a receive queue, or drops them, before the device spreads the others. Where several
    are for a packet, on an 82599 the first of these counts: by Ethertype, by protocol, addresses and ports, by SYN, and
    what its flow director does: rules that drop, or that compare VLANs or parts of addresses, for IPv4 alone. What has
    arrived before a rule stays where it is. Rules last until the device is closed.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def add(
        self,
        *,
        queue: int | None = None,
        drop: bool = False,
        ethertype: int | None = None,
        syn: bool = False,
        protocol: str | None = None,
        src: str | int | None = None,
        dst: str | int | None = None,
        sport: int | None = None,
        dport: int | None = None,
        vlan: int | None = None,
        priority: int | None = None,
    ) -> Rule:
        """Add a rule; what it does not name is not compared.

        Args:
            queue: the receive queue for the packets;
            drop: … or they are dropped.
            ethertype: of what is behind VLAN tags. Such a rule compares nothing else, and is not for IP.
            syn: TCP segments with SYN, likewise.
            protocol: "tcp", "udp" or "sctp".
            src, dst: IPv4 addresses: "10.0.0.1", "10.0.0.0/8", or a number.
            sport, dport: ports of that protocol.
            vlan: of a tag, 1 to 4095, or 0 for none.
            priority: 1 to 7, by which a rule by protocol, addresses and ports goes before others of these; and a rule
                by SYN before all of them.

        Returns:
            The rule, as it can be removed. It says in which `table` of the device it is.

        Raises:
            ConfigurationError: the device cannot do that, or its table is full, or there is such a rule already.
            TypeError: a parameter is of a wrong type.
        """
        device = self._device
        rule = make_rule(
            device.address,
            len(device.rx),
            queue=queue,
            drop=drop,
            ethertype=ethertype,
            syn=syn,
            protocol=protocol,
            src=src,
            dst=dst,
            sport=sport,
            dport=dport,
            vlan=vlan,
            priority=priority,
        )
        device._check()
        return device._driver.add_rule(rule)

    def remove(self, rule: Rule) -> None:
        """Remove a rule that `add` has returned.

        Raises:
            ConfigurationError: it is none of these.
        """
        self._device._check()
        self._device._driver.remove_rule(rule)

    def clear(self) -> None:
        """Remove all."""
        for rule in self._all():
            with suppress(ConfigurationError):  # another thread has just removed it
                self._device._driver.remove_rule(rule)

    def _all(self) -> list[Rule]:
        self._device._check()
        return list(self._device._driver.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"<Rules {', '.join(map(str, self._all())) or 'none'}>"


class Device(Port):
    """An open network device. Closing it, or leaving its `with` block, stops it and returns its memory.

    Attributes:
        address: as given, without options.
        rx, tx: its receive and transmit queues.
        rules: by which some packets come to certain queues, see `Rules`.
        number: how many devices the process had opened before; telemetry calls it so.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._cleared: dict[str, int] = {}
        self.rx = [RxQueue(self, ring, f"rx[{number}]", number) for number, ring in enumerate(driver.rx_rings)]
        self.tx = [TxQueue(self, ring, f"tx[{number}]") for number, ring in enumerate(driver.tx_rings)]
        self.rules = Rules(self)
        super().__init__(driver.address)
        gone = WeakMethod(self._gone)  # the driver does not keep its device
        driver.when_gone(lambda: bool((tell := gone()) and tell()))
        for queue in self._queues():
            checking.name(queue.ring.state.held, str(queue))
        self.number = next(_numbers)
        _devices[self.number] = self

    @property
    def driver(self) -> str:
        """The driver's name."""
        return self._driver.name

    @property
    def mac(self) -> bytes:
        """The station's address, 6 bytes; assigning changes it until the device is closed."""
        self._check()
        return self._driver.mac()

    @mac.setter
    def mac(self, address: bytes) -> None:
        self._check()
        self._driver.set_mac(mac_address(f"{self.address}: mac", address))

    @property
    def link(self) -> Link:
        """Whether the link is up, and its speed in Mbit/s."""
        self._check()
        return self._driver.link()

    def wait_for_link(self, timeout: float = LINK_TIMEOUT) -> Link:
        """Wait up to `timeout` seconds for the link; the state that it then has."""
        self._check()
        return self._driver.wait_for_link(number("timeout", timeout, 0, MAX_TIMEOUT))

    @property
    def rss(self) -> Rss | None:
        """By which hash and table packets are spread over the receive queues; None if by none, see `spread`."""
        self._check()
        return self._driver.rss

    @property
    def spread(self) -> str:
        """How packets come to the receive queues, in words."""
        if rss := self.rss:
            return str(rss)
        if len(self.rx) > 1:
            return f"the device spreads packets over {len(self.rx)} queues by itself"
        return "all packets come to one queue"

    def set_rss_table(self, queues: Sequence[int]) -> None:
        """Spread packets over these queues; one that is named twice gets twice as many, one that is not gets none.

        Args:
            queues: numbers of receive queues, for the redirection table, which is filled with them over and over.

        Raises:
            ConfigurationError: no such queue, none at all or more than the table has entries, or there is no table.
        """
        rss = self.rss
        if rss is None:
            raise ConfigurationError(f"{self.address}: there is no redirection table: {self.spread}")
        numbers = [integer(f"{self.address}: receive queue", queue, 0, len(self.rx) - 1) for queue in queues]
        integer(f"{self.address}: entries of the redirection table", len(numbers), 1, len(rss.table))
        self._driver.redirect(replace(rss, table=table_of(numbers, len(rss.table))))

    def set_promiscuous(self, enabled: bool) -> None:
        """Receive all packets, as at first, or only broadcasts, those for this station, and what filters let in."""
        self._check()
        self._driver.set_promiscuous(boolean(f"{self.address}: promiscuous", enabled))

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Receive packets for these addresses too, of stations or groups, while the device is not promiscuous.

        Args:
            addresses: 6 bytes each, at most 127; they take the place of those that were set before.

        Raises:
            ConfigurationError: malformed addresses, or too many, or the device has no filters.
        """
        self._check()
        macs = [mac_address(f"{self.address}: address", address) for address in addresses]
        if len(macs) > MAX_ADDRESSES:
            raise ConfigurationError(f"{self.address}: {len(macs)} addresses: {MAX_ADDRESSES} are possible")
        self._driver.set_mac_filter(macs)

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of a VLAN, or no longer, while the device is not promiscuous. Others stay out: on an 82599
        from the first call on, on a VirtIO device from the start.

        Args:
            vlan: 0 to 4095.

        Raises:
            ConfigurationError: there is no such VLAN, or the device has no filter.
        """
        self._check()
        vlan = integer(f"{self.address}: VLAN", vlan, 0, MAX_VLAN)
        self._driver.set_vlan_filter(vlan, boolean(f"{self.address}: enabled", enabled))

    def stats(self) -> Stats:
        """Counters since the device was opened. The card's own would stand still after 4 billion: ask now and then."""
        self._check()
        counters = self._driver.counters()
        refused = sum(ring.dropped for ring in self._driver.rx_rings)
        starved = sum(ring.starved for ring in self._driver.rx_rings)
        return Stats(*counters, rx_refused=refused, rx_starved=starved)

    @property
    def info(self) -> Info:
        """What the device is, how it is reached, what it can and what of that is used."""
        self._check()
        facts, link, first = self._driver.facts(), self._driver.link(), self.rx[0].ring
        known = facts._asdict()
        return Info(
            address=self.address,
            driver=self.driver,
            mac=self._driver.mac().hex(":"),
            link_up=link.up,
            link_speed=link.speed,
            rx_queues=len(self.rx),
            tx_queues=len(self.tx),
            rx_ring=first.size,
            tx_ring=self.tx[0].ring.size,
            buffers=self.rx[0].pool.capacity,
            metadata=tuple(first.metadata),
            spread=self.spread,
            rules=tuple(map(str, self.rules)),
            **plugged(known.pop("slot")),
            **known,
        )

    def xstats(self, *, clear: bool = False) -> dict[str, int]:
        """All counters of the device, its driver and its queues, by name, since it was opened or they were cleared.

        Of an 82599 these are the datasheet's, such as `GPRC` and for queue 0 `QPRC[0]`; there are 16 of each for
        queues, which queues 16 apart share. What the driver counts of a queue is called `rx_q0_refused`. Like those of
        `stats`, the card's own would stand still at their ends: ask now and then.

        Args:
            clear: they begin anew after this. Those of `stats` go on.
        """
        self._check()
        counted, since = self._driver.xstats(), self._cleared
        if boolean(f"{self.address}: clear", clear):
            self._cleared = counted
        return {name: count - since.get(name, 0) for name, count in counted.items()}

    def registers(self, *, clear: bool = False) -> dict[str, Reading]:
        """What the registers of an 82599 hold, by the datasheet's names, such as `CTRL` and `RXDCTL[0]`.

        A reading has the `value` and the `fields` in it. Registers that change when they are read are left out.

        Args:
            clear: with those that reading clears: counters, which `stats` and `xstats` count all the same, and causes
                of interrupts, which are lost to who waits for them.

        Raises:
            UnsupportedDevice: the device has no registers to show.
        """
        self._check()
        readings = self._driver.registers(clear=boolean(f"{self.address}: clear", clear))
        return {reading.name: reading for reading in readings}

    def sent(self) -> int:
        """Packets that have left the device since it was opened; closing it drops what it was handed besides."""
        self._check()
        return self._driver.sent()

    def attach(self, pool: Mempool) -> None:
        self._check()
        if not isinstance(cast(object, pool), Mempool):
            raise TypeError(f"a Mempool is attached, not {type(pool).__name__}")
        self._driver.attach(pool)

    def _queues(self) -> Sequence[RxQueue | TxQueue]:
        return *self.rx, *self.tx

    def _rx_interrupt(self, queue: int) -> RxInterrupt:
        return self._driver.rx_interrupt(queue)

    def _rouse(self) -> None:
        self._driver.rouse()

    def _buffers(self) -> Mempool:
        return self.rx[0].pool

    def _station(self) -> bytes | None:
        return self.mac

    def _rung_by(self, words: NDArray[np.int64]) -> None:
        self._driver.rung_by(words)

    def _gone(self) -> bool:
        """Tell those who are to know that the device is gone; whether there are any."""
        users = list(self._users)
        for user in users:
            user._lose(self)
        return bool(users)

    def _give_up(self) -> None:
        self._driver.close()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not getattr(self, "_open", False) or _ending():
            return
        forgotten, name = not self.closed, repr(self)
        super().__del__()
        if forgotten:
            warnings.warn(f"{name} was never closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<Device {self.address} ({self.driver}){', closed' if self.closed else ''}>"


_open: WeakSet[Port] = WeakSet()  # what this process has open
_numbers = count()
_devices: WeakValueDictionary[int, Device] = WeakValueDictionary()  # by their numbers, open or not


def opened() -> dict[int, Device]:
    """The devices that this process has open, by their numbers. Any thread may ask."""
    known = (device for ref in _devices.valuerefs() if (device := ref()) is not None)
    return {device.number: device for device in known if not device.closed}


def _close_all() -> None:
    """At the end of the program: cards stop, and packets that the program still has are let go in silence."""
    for port in list(_open):
        with suppress(Exception):
            port.close()


def _disown() -> None:
    """After a fork, in the child: what the parent has open is not to be used here."""
    for port in list(_open):
        port.closed, port._open = True, False
    _open.clear()
    _devices.clear()


@beforehand
def _compile_end() -> None:
    for port in list(_open):
        for queue in port._queues():
            queue.ring.compile_end()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown)


@no_copies
class RxQueue(WaitingQueue):
    """A receive queue, used by one thread at a time.

    Attributes:
        device: that it belongs to; also a ring between threads.
        ring: the driver's ring and its kernel, for compiled loops.
        number: which of the device's receive queues it is.
    """

    def __init__(self, device: Port, ring: RxRing, name: str, number: int = 0) -> None:
        super().__init__()
        self.device = device
        self.number = number
        self.ring = ring
        self._name = name
        self._pools = pools()
        self._receive = Direct(_receive_kernel(ring.kernel))
        self._ask = Direct(_look_kernel(ring.ready))

    @property
    def pool(self) -> Mempool:
        """Where the queue takes its buffers from.

        Raises:
            ConfigurationError: nowhere, as it is a ring's between threads.
        """
        if not isinstance(self.ring.pool, Mempool):
            raise ConfigurationError(f"{self} has no pool: its packets are of the pools of those who send them")
        return self.ring.pool

    def receive(self, limit: int = 32, timeout: float | None = None) -> Batch:
        """Up to `limit` packets that have arrived, none if there are none.

        Args:
            timeout: seconds to wait for the first, by an interrupt, or where the bus delivers none, by a look each
                millisecond; None does not wait.

        Raises:
            ConfigurationError: `limit` is below 1 or above the size of the ring, or `timeout` below 0.
            OwnershipError: another thread uses the queue, or waits for it.
        """
        limit = integer("limit", limit, 1, self.ring.size)
        if timeout is not None:
            timeout = number("timeout", timeout, 0, MAX_TIMEOUT)
        watched = self._watched
        batch = self._poll(limit) if watched is None else self._receive_watched(limit, watched)
        return batch if timeout is None or len(batch) else self._receive_in(timeout, limit)

    def _check(self) -> None:
        self.device._check()

    def _interrupt(self) -> RxInterrupt:
        return self.device._rx_interrupt(self.number)

    def _poll(self, limit: int) -> Batch:
        clock.tick()
        batch, outcome = self._take(limit)
        if outcome != ENTERED:
            if outcome == _STARVED and self.ring.pool._sweep():
                batch, outcome = self._take(limit)
            if outcome in _REFUSALS:
                self._refuse(outcome)
        if CHECKING:
            checking.report(self._pools)
        return batch

    def look(self) -> Sight:
        self.device._check()
        outcome = self._ask((), self.ring.state, self._pools)
        if outcome in _REFUSALS:
            self._refuse(outcome)
        return _SIGHTS[outcome]

    def _take(self, limit: int) -> tuple[Batch, int]:
        """A new batch of what is there, and how that went."""
        self.device._check()
        batch = Batch(self.ring.pool, limit, self.ring.metadata)
        try:
            return batch, self._receive((), self.ring.state, self._pools, batch._packets, batch._span, limit)
        except IndexError:
            _undo_claims(self.ring, self._pools)
            raise

    def _refuse(self, outcome: int) -> NoReturn:
        self.device._check()
        what = self if outcome == RING_BUSY else f"the pool of {self}"
        raise in_use(what)

    def __repr__(self) -> str:
        return f"{self.device.address} {self._name}"


@no_copies
class TxQueue:
    """A transmit queue, used by one thread at a time.

    Attributes:
        device, ring: as of a receive queue.
    """

    def __init__(self, device: Port, ring: TxRing, name: str) -> None:
        self.device = device
        self.ring = ring
        self._name = name
        self._pools = pools()
        self._send = Direct(_send_kernel(ring.kernel))
        self._suppliers: set[int] = set()  # where batches came from, by number

    def send(self, batch: Batch) -> int:
        """Send packets from the front of the batch until the ring is full; how many it took.

        Those packets are the device's now. The batch keeps the others, and gives them back when it is left.

        Raises:
            ConfigurationError: the packets may lie in several parts, and the device was not opened for that.
            OwnershipError: the batch was sent or freed before, or another thread uses the queue.
            TypeError: no batch.
        """
        self.device._check()
        packets, span = lent(batch)
        if packets.nexts is not None:
            self._check_parts()
        clock.tick()
        if batch.pool.number not in self._suppliers:
            batch.pool.supply(self.device)
            self._suppliers.add(batch.pool.number)
        first = batch._limits[0]
        try:
            sent = self._send(batch.metadata, self.ring.state, self._pools, packets, span)
        except IndexError:
            span[0] = first
            _undo_claims(self.ring, self._pools)
            raise
        if sent < 0:
            self.device._check()
            raise in_use(self)
        if CHECKING:
            checking.report(self._pools)
        self.device._rouse()
        return int(sent)  # interpreted, NumPy's

    def send_scapy(self, packets: Any, *, pool: Mempool | None = None, timeout: float = SEND_TIMEOUT) -> int:
        """Send packets of Scapy; how many it took.

        Each is made when there is room for it, so a generator may go on for ever. Where the ring is full, room is
        waited for; fewer than all are sent only if there is none for `timeout` seconds. Short packets are padded. A
        packet that names no Ethernet source comes from the device, and one that names no destination goes to everybody:
        Scapy asks nobody for it.

        Args:
            packets: one or several, also a generator; one whose fields have several values stands for several.
            pool: where buffers come from, by default that of the device's first receive queue.

        Raises:
            ConfigurationError: Scapy is not installed, or a packet is longer than the buffers that it may lie in.
            OwnershipError: another thread uses the queue.
            TypeError: something else than a packet with an Ethernet header. Those before it were sent, as above.
        """
        from ixy.packets.scapy import frames

        timeout = number("timeout", timeout, 0, MAX_TIMEOUT)
        sent = 0
        for frame in frames(packets, "send_scapy", self.device._station(), self.ring.parts):
            if not self._send_frame(frame, pool, timeout):
                break
            sent += 1
        return sent

    def _send_frame(self, frame: bytes, pool: Mempool | None = None, timeout: float = SEND_TIMEOUT) -> bool:
        """Send a frame of up to 2048 bytes a part; False if there is no room or no buffer for so many seconds."""
        pool, frame = pool or self.device._buffers(), frame.ljust(MIN_FRAME, b"\0")
        end, metadata = clock.monotonic() + timeout, ("parts",) if self.ring.parts > 1 else ()
        while True:
            with pool.allocate(1, len(frame), metadata=metadata) as batch:
                for packet in batch:
                    packet[:] = frame
                if self.send(batch):  # of none, too: it takes back what was sent
                    return True
            if clock.monotonic() >= end:
                return False
            clock.sleep(clock.LOOK_AGAIN)

    def _compile_sending(self) -> None:
        """Have compiled what `_send_frame` takes; nothing is sent, and no time passes."""
        pool = self.device._buffers()
        metadata = ("parts",) if self.ring.parts > 1 else ()
        with pool.allocate(1, metadata=metadata), Batch(pool, 0, metadata) as none:
            self._send(none.metadata, self.ring.state, self._pools, *lent(none))

    def _check_parts(self) -> None:
        """
        Raises:
            ConfigurationError: packets that lie in several buffers cannot be sent here.
        """
        if self.ring.parts == 1:
            what = f"{self} takes packets in one buffer only, and these may lie in several"
            raise ConfigurationError(f"{what}: open {self.device.address} with metadata=('parts',) too")

    @property
    def in_flight(self) -> int:
        """Packets that the device has and whose buffers have not come back."""
        return self.ring.in_flight

    def __repr__(self) -> str:
        return f"{self.device.address} {self._name}"


# ---------------------------------------------------------------------------------------------------------------------
# Kernels of one call: what moves packets and what notes whose they are is one call, so nothing can come between


def _undo_claims(ring: RxRing | TxRing, pools: Pools) -> None:
    """Leave a ring and all pools: an index that the checking mode found bad has ended the kernel that would have."""
    desert(ring.state.state)
    abandon(pools.words)


@cache
def _receive_kernel(rx_batch: Callable[..., int]) -> Any:
    @compiled
    def receive(ring: Any, pools: Pools, packets: Packets, span: NDArray[np.int64], limit: int) -> int:
        """Let a batch have up to `limit` packets; how that went."""
        outcome = enter(ring, pools)
        if outcome != ENTERED:
            return outcome
        if free_count(pools, ring.pool) < limit:
            refill(pools, ring.pool)
        span[1] = rx_batch(ring, pools, packets, limit)
        if span[1] == 0 and free_count(pools, ring.pool) == 0:
            outcome = _STARVED
        exit_from(ring, pools)
        return outcome

    return receive


@cache
def _look_kernel(ready: Callable[..., bool]) -> Any:
    @compiled
    def look(ring: Any, pools: Pools) -> int:
        """Whether a packet could be received; if not, why."""
        outcome = enter(ring, pools)
        if outcome != ENTERED:
            return outcome
        if not ready(ring):
            outcome = _EMPTY
        elif ring.pool != NOWHERE and free_count(pools, ring.pool) == 0 and refill(pools, ring.pool) == 0:
            outcome = _STARVED
        exit_from(ring, pools)
        return outcome

    return look


@cache
def _send_kernel(tx_batch: Callable[..., int]) -> Any:
    @compiled
    def send(ring: Any, pools: Pools, packets: Packets, span: NDArray[np.int64]) -> int:
        """Let a ring have packets from the front of a batch; how many, -1 if another thread runs the ring."""
        if not seize(ring.state):
            return -1
        first, last = load_acquire(span, 0), load_acquire(span, 1)
        if first < last and not swap_if(span, 0, first, last):  # else nobody gives them back meanwhile
            first = last
        sent = tx_batch(ring, pools, packets, first, last)  # also of none: it takes back what was sent
        if first < last:
            store_release(span, 0, first + sent)
        leave(ring.state)
        return sent

    return send
