"""What an application sees: devices with queues. No driver's name appears here but where a device is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ixy.bus.binding import VFIO_PCI
from ixy.bus.pci import PciDevice
from ixy.bus.simulated import SimulatedFunction, machine
from ixy.bus.sysfs import SysfsFunction
from ixy.bus.vfio import VfioFunction
from ixy.drivers import MAX_ADDRESSES
from ixy.drivers.ixgbe import SUPPORTED, Ixgbe
from ixy.drivers.ixgbe.device import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports import pci, vhost_user
from ixy.drivers.virtio.transports.pci_legacy import PciLegacy
from ixy.drivers.virtio.transports.pci_modern import PciModern, capabilities
from ixy.errors import AddressError, ConfigurationError, Error, UnsupportedDevice
from ixy.packets.batch import Batch
from ixy.packets.buffers import buffers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.bus import Function
    from ixy.drivers import Driver, Link, RxRing, TxRing
    from ixy.packets.mempool import Mempool
    from ixy.sim.machine import Machine

CARDS = SUPPORTED | pci.SUPPORTED
"""PCI cards that a driver here knows, by vendor and device id."""

MAC_BYTES = 6
MAX_VLAN = 4095  # IEEE 802.1Q: 12 bits
LINK_TIMEOUT = 10.0  # seconds; a real link takes a few
_PCI_ADDRESS = re.compile(r"([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


def open_device(
    address: str,
    *,
    rx_queues: int = 1,
    tx_queues: int = 1,
    ring_size: int = DEFAULT_RING_SIZE,
    pool_size: int | None = None,
    link_timeout: float = LINK_TIMEOUT,
    force: bool = False,
    sim: Machine | None = None,
) -> Device:
    """Open a network device, bring it up, and wait for its link.

    Args:
        address: `0000:03:00.0` for a PCI device, `sim:NAME[,OPTION=VALUE…]` for a simulated 82599,
            `vhost-user:/path/to/socket` for a VirtIO back end.
        rx_queues, tx_queues: how many of each, 1 to 64.
        ring_size: descriptors per ring, a power of two from 64 to 4096.
        pool_size: packet buffers per receive queue, by default 4096, or twice the ring if that is more. They are the
            ring's and those of packets on their way, to each transmit queue 32 at least.
        link_timeout: seconds to wait for the link. A link that stays down is no error: see `Device.link`.
        force: take the card even if the kernel has its interface up with an address or routes.
        sim: the machine to plug a simulated card into, instead of the process's own.

    Raises:
        AddressError: malformed, or there is no such device.
        ConfigurationError: a parameter is out of range.
        DeviceBusy: another process, or the kernel's network stack, uses the card.
        DeviceTimeout: the card does not do what it should.
        MemoryUnavailable: no memory for DMA.
        PermissionDenied: the card or its memory is out of this user's reach.
        UnsupportedDevice: not a network card, or not one that a driver here knows.
    """
    if pool_size is None:
        pool_size = max(DEFAULT_POOL_SIZE, 2 * ring_size)
    device = Device(_drive(address, force, sim, (rx_queues, tx_queues, ring_size, pool_size)))
    try:
        device.wait_for_link(link_timeout)
    except BaseException:
        device.close()
        raise
    return device


def _drive(address: str, force: bool, sim: Machine | None, shape: tuple[int, int, int, int]) -> Driver:
    """The driver for what is behind an address, up and running."""
    if address.startswith(vhost_user.PREFIX):
        _, unwanted = vhost_user.parse(address)
        return VirtioNet(vhost_user.VhostUser(address), *shape, unwanted=unwanted)
    function = _connect(address, force, sim)
    key = (function.config_read(0, 2), function.config_read(2, 2))
    if key in SUPPORTED:
        return Ixgbe(function, *shape)
    try:
        if key in pci.SUPPORTED:
            return VirtioNet((PciModern if capabilities(function) else PciLegacy)(function), *shape)
        raise UnsupportedDevice(f"{address}: card {key[0]:04x}:{key[1]:04x} is not supported; {supported_cards()}")
    except BaseException:
        function.close()
        raise


def _connect(address: str, force: bool, sim: Machine | None) -> Function:
    """The PCI function behind an address, by the bus that the address names."""
    if address.startswith("sim:"):
        return SimulatedFunction(address, sim or machine())
    if _PCI_ADDRESS.fullmatch(address):
        bound = PciDevice(address).driver == VFIO_PCI
        return VfioFunction(address) if bound else SysfsFunction(address, force=force)
    raise AddressError(
        f"{address}: no device address: write 0000:03:00.0 (see `ixy list`), sim:NAME or vhost-user:/path/to/socket"
    )


def supported_cards() -> str:
    """One line that names all cards that a driver here knows."""
    return "supported are " + ", ".join(f"{vendor:04x}:{device:04x} {name}" for (vendor, device), name in CARDS.items())


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


class Device:
    """An open network device. Closing it, or leaving its `with` block, stops it and returns its memory.

    Attributes:
        address: as given, without options.
        rx, tx: its receive and transmit queues.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.address = driver.address
        self.rx = [RxQueue(self, ring) for ring in driver.rx_rings]
        self.tx = [TxQueue(self, ring) for ring in driver.tx_rings]
        self.closed = False

    @property
    def driver(self) -> str:
        """The driver's name."""
        return self._driver.name

    @property
    def mac(self) -> bytes:
        """The station's address, 6 bytes; assigning changes it until the device is closed."""
        self.check_open()
        return self._driver.mac()

    @mac.setter
    def mac(self, address: bytes) -> None:
        self.check_open()
        self._driver.set_mac(address)

    @property
    def link(self) -> Link:
        """Whether the link is up, and its speed in Mbit/s."""
        self.check_open()
        return self._driver.link()

    def wait_for_link(self, timeout: float = LINK_TIMEOUT) -> Link:
        """Wait up to `timeout` seconds for the link; the state that it then has."""
        self.check_open()
        return self._driver.wait_for_link(timeout)

    def set_promiscuous(self, enabled: bool) -> None:
        """Receive all packets, as at first, or only broadcasts, those for this station, and what filters let in."""
        self.check_open()
        self._driver.set_promiscuous(enabled)

    def set_mac_filter(self, addresses: Sequence[bytes]) -> None:
        """Receive packets for these addresses too, of stations or groups, while the device is not promiscuous.

        Args:
            addresses: 6 bytes each, at most 127; they take the place of those that were set before.

        Raises:
            ConfigurationError: malformed addresses, or too many, or the device has no filters.
        """
        self.check_open()
        for address in addresses:
            if len(address) != MAC_BYTES:
                raise ConfigurationError(f"{self.address}: {address.hex(':')} is no MAC address")
        if len(addresses) > MAX_ADDRESSES:
            raise ConfigurationError(f"{self.address}: {len(addresses)} addresses: {MAX_ADDRESSES} are possible")
        self._driver.set_mac_filter(addresses)

    def set_vlan_filter(self, vlan: int, enabled: bool) -> None:
        """Receive packets of a VLAN, or no longer, while the device is not promiscuous. Others stay out: on an 82599
        from the first call on, on a VirtIO device from the start.

        Args:
            vlan: 0 to 4095.

        Raises:
            ConfigurationError: there is no such VLAN, or the device has no filter.
        """
        self.check_open()
        if not 0 <= vlan <= MAX_VLAN:
            raise ConfigurationError(f"{self.address}: VLAN {vlan}: 0 to {MAX_VLAN} are possible")
        self._driver.set_vlan_filter(vlan, enabled)

    def stats(self) -> Stats:
        """Counters since the device was opened. The card's own would stand still after 4 billion: ask now and then."""
        self.check_open()
        counters = self._driver.counters()
        refused = sum(ring.dropped for ring in self._driver.rx_rings)
        starved = sum(ring.starved for ring in self._driver.rx_rings)
        return Stats(*counters, rx_refused=refused, rx_starved=starved)

    def sent(self) -> int:
        """Packets that have left the device since it was opened; closing it drops what it was handed besides."""
        self.check_open()
        return self._driver.sent()

    def attach(self, pool: Mempool) -> None:
        """Let the device send packets from `pool`. Sending a batch does it by itself; a compiled loop needs it done."""
        self.check_open()
        self._driver.attach(pool)

    def close(self) -> None:
        """Stop the device and return its memory. Packets of its pools cannot be touched any more."""
        self.closed = True
        self._driver.close()

    def check_open(self) -> None:
        """Raise `Error` if the device was closed."""
        if self.closed:
            raise Error(f"{self.address} is closed")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.address} ({self.driver}){', closed' if self.closed else ''}>"


class RxQueue:
    """A receive queue.

    Attributes:
        device: that it belongs to.
        ring: the driver's ring and its kernel, for compiled loops.
    """

    def __init__(self, device: Device, ring: RxRing) -> None:
        self.device = device
        self.ring = ring
        self._buffers = buffers()

    @property
    def pool(self) -> Mempool:
        """Where the queue takes its buffers from."""
        return self.ring.pool

    def receive(self, limit: int = 32) -> Batch:
        """Up to `limit` packets that have arrived, none if there are none.

        Raises:
            ConfigurationError: `limit` is below 1 or above the size of the ring.
        """
        self.device.check_open()
        check_batch(limit, self.ring.size)
        ids, lengths = np.empty(limit, np.int32), np.empty(limit, np.int32)
        count = self.ring.kernel(self.ring.state, self._buffers, ids, lengths, limit)
        return Batch(self.ring.pool, ids, lengths, count)


class TxQueue:
    """A transmit queue.

    Attributes:
        device: that it belongs to.
        ring: the driver's ring and its kernel, for compiled loops.
    """

    def __init__(self, device: Device, ring: TxRing) -> None:
        self.device = device
        self.ring = ring
        self._buffers = buffers()
        self._pools: set[int] = set()

    def send(self, batch: Batch) -> int:
        """Send packets from the front of the batch until the ring is full; how many it took.

        Those packets are the device's now. The batch keeps the others, and gives them back when it is left.

        Raises:
            OwnershipError: the batch was sent or freed before.
        """
        self.device.check_open()
        ids, lengths, first, last = batch.pending()
        if batch.pool.number not in self._pools:
            self.device.attach(batch.pool)
            self._pools.add(batch.pool.number)
        sent = self.ring.kernel(self.ring.state, self._buffers, ids, lengths, first, last)
        batch.advance(sent)
        return sent

    @property
    def in_flight(self) -> int:
        """Packets that the device has and whose buffers have not come back."""
        return self.ring.in_flight


def check_batch(limit: int, ring_size: int) -> None:
    """Refuse a batch size that makes no sense for a ring."""
    if not 1 <= limit <= ring_size:
        raise ConfigurationError(f"a batch of {limit} packets: 1 to {ring_size}, the size of the ring, are possible")
