"""Addresses of devices, and which driver is for which device.

What an address begins with says how the device is reached. A PCI device, real or simulated, says by its vendor and
device id which driver is for it: a new driver is one row of `PCI_DRIVERS`, a new way to reach devices one row of
`SCHEMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from ixy.bus.binding import VFIO_PCI
from ixy.bus.pci import PciDevice
from ixy.bus.simulated import simulated_function
from ixy.bus.sysfs import SysfsFunction
from ixy.bus.vfio import VfioFunction
from ixy.drivers import e1000, ixgbe, ixgbevf
from ixy.drivers.e1000.device import E1000
from ixy.drivers.ixgbe.device import Ixgbe
from ixy.drivers.ixgbevf.device import IxgbeVf
from ixy.drivers.packet import device as packet
from ixy.drivers.vhost import device as vhost
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports import pci as virtio_pci
from ixy.drivers.virtio.transports import vhost_user
from ixy.drivers.virtio.transports.pci_legacy import PciLegacy
from ixy.drivers.virtio.transports.pci_modern import PciModern, capabilities
from ixy.drivers.xdp import device as xdp
from ixy.errors import AddressError, UnsupportedDevice
from ixy.sim.machine import machine
from ixy.sim.spec import parse_spec

if TYPE_CHECKING:
    from ixy.bus import Function
    from ixy.drivers import Driver
    from ixy.sim.machine import Machine


class Shape(NamedTuple):
    """What a driver is to make of a device; see `ixy.open`."""

    rx_queues: int
    tx_queues: int
    ring_size: int
    pool_size: int
    metadata: tuple[str, ...]
    rss_key: bytes
    offloads: tuple[str, ...]
    mtu: int | None


class Circumstances(NamedTuple):
    """What else says how a device is reached.

    Attributes:
        force: take the card even if the kernel has its interface up with an address or routes.
        sim: the machine to plug a simulated card into, instead of the process's own.
    """

    force: bool = False
    sim: Machine | None = None


def check_address(address: str) -> None:
    """Refuse an address that no device can have, without looking whether there is one.

    Raises:
        AddressError: malformed.
    """
    for prefix, scheme in SCHEMES.items():
        if address.startswith(prefix):
            scheme.parse(address)
            return
    if not _PCI_ADDRESS.fullmatch(address):
        forms = " or ".join(scheme.form for scheme in SCHEMES.values())
        raise AddressError(f"{address}: no device address: write 0000:03:00.0 (see `ixy list`) or {forms}")


def looks_like_address(text: str) -> bool:
    """Whether a word is meant to be an address, even a malformed one."""
    return text.startswith(tuple(SCHEMES)) or _PCI_ADDRESS.fullmatch(text) is not None


def by_virtual_clock(address: str) -> bool:
    """Whether an address asks for a virtual clock, as only those of simulated cards do; raises as `check_address`."""
    check_address(address)
    return address.startswith("sim:") and parse_spec(address).virtual


def listening(address: str) -> str:
    """The address by which to open a device for who only listens: what this machine sends is of interest too, where
    the device can tell."""
    return f"{address},outgoing" if address.startswith(packet.PREFIX) and "," not in address else address


def meets_at(address: str) -> str | None:
    """The path of the UNIX socket at which a device meets another process, also when that comes back later; None if it
    does not."""
    if address.startswith(vhost_user.PREFIX):
        return vhost_user.parse(address)[0]
    if address.startswith("sim:"):
        return next((wire.meets_at for wire in parse_spec(address).wires if wire.meets_at), None)
    return None


def unconfined(address: str) -> bool:
    """Whether a device reaches all of the machine's memory: a card that no IOMMU stands before."""
    return _PCI_ADDRESS.fullmatch(address) is not None and PciDevice(address).driver != VFIO_PCI


def open_driver(address: str, shape: Shape, circumstances: Circumstances) -> Driver:
    """The driver for what is behind an address, up and running.

    Raises:
        AddressError: malformed.
        …: as `ixy.open`.
    """
    check_address(address)
    for prefix, scheme in SCHEMES.items():
        if address.startswith(prefix):
            return scheme.open(address, shape, circumstances)
    return _drive(_real(address, circumstances.force), shape)


# ---------------------------------------------------------------------------------------------------------------------
# Ways to reach a device

_PCI_ADDRESS = re.compile(r"([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


def _open_simulated(address: str, shape: Shape, circumstances: Circumstances) -> Driver:
    return _drive(simulated_function(address, circumstances.sim or machine()), shape)


def _open_vhost_user(address: str, shape: Shape, _: Circumstances) -> Driver:
    _path, unwanted = vhost_user.parse(address)
    return VirtioNet(vhost_user.VhostUser(address), **shape._asdict(), unwanted=unwanted)


def _open_vhost_server(address: str, shape: Shape, _: Circumstances) -> Driver:
    return vhost.VhostDevice(address, **shape._asdict())


def _open_xdp(address: str, shape: Shape, circumstances: Circumstances) -> Driver:
    return xdp.XdpDevice(address, **shape._asdict(), force=circumstances.force)


def _open_packet(address: str, shape: Shape, _: Circumstances) -> Driver:
    return packet.PacketDevice(address, **shape._asdict())


@dataclass(frozen=True)
class Scheme:
    """A way to reach devices.

    Attributes:
        form: how such an address is written, for messages.
        parse: raises `AddressError` if it is not written so.
        open: makes the driver.
        link_timeout: how long a link may take to come up, in seconds.
    """

    form: str
    parse: Callable[[str], object]
    open: Callable[[str, Shape, Circumstances], Driver]
    link_timeout: float


SCHEMES = {
    "sim:": Scheme("sim:NAME", parse_spec, _open_simulated, 0.5),  # what is plugged in has a link at once
    xdp.PREFIX: Scheme("xdp:eth0", xdp.parse, _open_xdp, 2.0),
    packet.PREFIX: Scheme("packet:eth0", packet.parse, _open_packet, 2.0),
    vhost_user.PREFIX: Scheme("vhost-user:/path/to/socket", vhost_user.parse, _open_vhost_user, 10.0),
    vhost.PREFIX: Scheme("vhost-server:/path/to/socket", vhost.parse, _open_vhost_server, 10.0),
}

_REAL_LINK_TIMEOUT = 10.0  # seconds; that of a card takes a few


def link_timeout(address: str) -> float:
    """How long the link of a device may take to come up, in seconds.

    Raises:
        TypeError: the address is no text.
    """
    if not isinstance(cast(object, address), str):
        raise TypeError(f"an address is text, such as 'sim:a', not {address!r}")
    return next(
        (scheme.link_timeout for prefix, scheme in SCHEMES.items() if address.startswith(prefix)), _REAL_LINK_TIMEOUT
    )


def _real(address: str, force: bool) -> Function:
    """A PCI function of this machine, by the driver that the kernel has bound to it."""
    bound = PciDevice(address).driver == VFIO_PCI
    return VfioFunction(address) if bound else SysfsFunction(address, force=force)


# ---------------------------------------------------------------------------------------------------------------------
# Drivers of PCI devices


def _drive_ixgbe(function: Function, shape: Shape) -> Driver:
    return Ixgbe(function, **shape._asdict())


def _drive_ixgbevf(function: Function, shape: Shape) -> Driver:
    return IxgbeVf(function, **shape._asdict())


def _drive_e1000(function: Function, shape: Shape) -> Driver:
    return E1000(function, **shape._asdict())


def _drive_virtio(function: Function, shape: Shape) -> Driver:
    try:
        transport = (PciModern if capabilities(function) else PciLegacy)(function)
    except BaseException:
        function.close()
        raise
    return VirtioNet(transport, **shape._asdict())


PCI_DRIVERS: list[tuple[dict[tuple[int, int], str], Callable[[Function, Shape], Driver]]] = [
    (ixgbe.SUPPORTED, _drive_ixgbe),
    (ixgbevf.SUPPORTED, _drive_ixgbevf),
    (e1000.SUPPORTED, _drive_e1000),
    (virtio_pci.SUPPORTED, _drive_virtio),
]
"""Cards by vendor and device id, with their names, and the driver for them."""

CARDS = {ids: name for cards, _ in PCI_DRIVERS for ids, name in cards.items()}
"""All PCI cards that a driver here knows."""


def _drive(function: Function, shape: Shape) -> Driver:
    """The driver for a PCI function, which it closes, also if it fails."""
    try:
        ids = function.config_read(0, 2), function.config_read(2, 2)
        drive = next((drive for cards, drive in PCI_DRIVERS if ids in cards), None)
        if drive is None:
            raise UnsupportedDevice(
                f"{function.address}: card {ids[0]:04x}:{ids[1]:04x} is not supported; {supported_cards()}"
            )
    except BaseException:
        function.close()
        raise
    return drive(function, shape)


def supported_cards() -> str:
    """One line that names all cards that a driver here knows."""
    return "supported are " + ", ".join(f"{vendor:04x}:{device:04x} {name}" for (vendor, device), name in CARDS.items())
