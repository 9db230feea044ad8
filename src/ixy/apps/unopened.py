"""What can be told of a device that no process of ixy has open, or none that answers: without taking or changing it."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.addresses import CARDS, check_address
from ixy.bus.binding import VFIO_PCI
from ixy.bus.interfaces import interfaces
from ixy.bus.lock import holder
from ixy.bus.looking import registers_of
from ixy.bus.pci import PciDevice
from ixy.bus.simulated import SimulatedFunction
from ixy.drivers.info import Info, plugged
from ixy.drivers.ixgbe import inside
from ixy.drivers.ixgbe.cards import CARDS as IXGBE_CARDS
from ixy.drivers.ixgbe.cards import INTEL
from ixy.drivers.ixgbe.statistics import SETS, Statistics
from ixy.drivers.linux.interface import Interface
from ixy.drivers.packet import device as packet
from ixy.drivers.vhost import device as vhost
from ixy.drivers.virtio.transports import vhost_user
from ixy.drivers.xdp import device as xdp
from ixy.errors import ConfigurationError, DeviceBusy, Error, UnsupportedDevice
from ixy.registers import RegisterFile
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ixy.drivers.ixgbe.cards import Card
    from ixy.registers import Bar, Reading


class Sight(NamedTuple):
    """What was seen.

    Attributes:
        info: of the device.
        state: who has it, in words.
        notes: why more was not seen, a sentence each.
    """

    info: Info
    state: str
    notes: Sequence[str] = ()


def look(address: str) -> Sight:
    """
    Raises:
        AddressError: malformed, or there is no such device.
        Error: nothing can be seen of it.
    """
    check_address(address)
    if address.startswith("sim:"):
        with closing(_new_card(address)) as function:
            card = _card(function)
            info = Info(address=function.address, model=card.name, **plugged(function.slot()))
            return Sight(replace(info, **_seen(function.bar(0), card)), "nobody: this is a new one, as after power-on")
    if interface := _interface(address):
        return Sight(_info_of_interface(address, interface), "nobody: the kernel has it")
    _refuse_back_end(address)
    return _look_at_pci(PciDevice(address))


def registers(address: str, *, clear: bool = False) -> list[Reading]:
    """What its registers hold.

    Args:
        clear: also those that reading clears.

    Raises:
        Error: they cannot be read as things are; says why.
        UnsupportedDevice: it has none.
    """
    check_address(address)
    if address.startswith("sim:"):
        with closing(_new_card(address)) as function:
            return _read_all(function.bar(0), _card(function), clear)
    if interface := _interface(address):
        name = interface.first.name
        raise UnsupportedDevice(f"{address}: registers are the business of the kernel's driver: ethtool -d {name}")
    _refuse_back_end(address)
    device = PciDevice(address)
    card = _known_card(device)
    if clear:
        _refuse_to_clear(device)
    return _read_all(registers_of(device), card, clear)


def xstats(address: str, *, clear: bool = False) -> dict[str, int]:
    """Its counters.

    Args:
        clear: read them although they are cleared by that.

    Raises:
        Error: that is so, or they cannot be read as things are; says why.
    """
    check_address(address)
    if address.startswith("sim:"):
        raise Error(f"{address}: no process has it open that would tell: see ixy ps")
    if interface := _interface(address):
        if clear:
            raise ConfigurationError(f"{address}: nobody has it open; the kernel's own counters cannot be cleared")
        return {f"interface_{name}": count for name, count in interface.first.counters.items()}
    _refuse_back_end(address)
    device = PciDevice(address)
    _known_card(device)
    _refuse_to_clear(device)
    if not clear:
        raise Error(f"{address}: nobody has it open, and its counters are cleared by reading them: --clear does so")
    return Statistics(_view(registers_of(device), address), SETS, SETS).all()


# ---------------------------------------------------------------------------------------------------------------------
# PCI functions


def _look_at_pci(device: PciDevice) -> Sight:
    """What sysfs says, and the registers of a card that a driver here knows, if they can be read."""
    names = interfaces(device)
    info = Info(
        address=device.address,
        model=CARDS.get((device.vendor, device.device), f"{device.vendor:04x}:{device.device:04x}"),
        kernel_driver=device.driver,
        interfaces=tuple(path.name for path in names),
        mac=_attribute(names, "address"),
        mtu=int(_attribute(names, "mtu") or 0) or None,
        **plugged(device.slot_in("sysfs")),
    )
    card = IXGBE_CARDS.get(device.device) if device.vendor == INTEL else None
    if card is None:
        return Sight(info, _state(device))
    try:
        return Sight(replace(info, **_seen(registers_of(device), card)), _state(device))
    except Error as error:
        return Sight(replace(info, features=inside.abilities(card)), _state(device), [str(error)])


def _state(device: PciDevice) -> str:
    process = holder(device.slot)
    if process is not None:
        return f"{process}, which serves this user no telemetry"
    if device.driver == VFIO_PCI:
        return "nobody: it is there for who opens it through VFIO"
    return f"nobody: the kernel's {device.driver} has it" if device.driver else "nobody"


def _attribute(paths: Sequence[Path], name: str) -> str | None:
    """What sysfs says of the first interface."""
    return (paths[0] / name).read_text().strip() if paths and (paths[0] / name).exists() else None


def _known_card(device: PciDevice) -> Card:
    """
    Raises:
        UnsupportedDevice: no driver here knows its registers.
    """
    card = IXGBE_CARDS.get(device.device) if device.vendor == INTEL else None
    if card is None:
        name = f"{device.vendor:04x}:{device.device:04x}"
        raise UnsupportedDevice(f"{device.address}: of a {name}, no registers are known here")
    return card


def _refuse_to_clear(device: PciDevice) -> None:
    """
    Raises:
        DeviceBusy: who has the device would miss what is cleared.
    """
    process = holder(device.slot)
    if process is not None:
        raise DeviceBusy(
            f"{device.address} is in use by {process}, which serves this user no telemetry, and would miss what is "
            "cleared: let it call ixy.serve_telemetry(), or ask as root"
        )
    if device.driver is not None and (names := interfaces(device)):
        raise DeviceBusy(
            f"{device.address}: the kernel's {device.driver} has it, and counts: ethtool -S {names[0].name}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Cards


def _new_card(address: str) -> SimulatedFunction:
    """The simulated card of an address, with nothing plugged in, in a machine of its own."""
    name, *options = address.split(",")
    own = [option for option in options if option.startswith(("card=", "seed="))]
    return SimulatedFunction(",".join([name, *own]), Machine(stepped=True))


def _card(function: SimulatedFunction) -> Card:
    return IXGBE_CARDS[function.config_read(2, 2)]


def _view(bar: Bar, address: str) -> RegisterFile:
    return RegisterFile(bar, address, threading.RLock())


def _seen(bar: Bar, card: Card) -> dict[str, Any]:
    """What the registers of a card say, by the names of `Info`."""
    view = _view(bar, "")
    link = inside.link(view)
    return {
        "mac": inside.mac(view).hex(":"),
        "mtu": inside.mtu(view),
        "link_up": link.up,
        "link_speed": link.speed,
        "max_rx_queues": reg.QUEUES,
        "max_tx_queues": reg.QUEUES,
        "features": inside.abilities(card),
        "rx_offloads": inside.rx_offloads(view),
    }


def _read_all(bar: Bar, card: Card, clear: bool) -> list[Reading]:
    return inside.read_all(_view(bar, ""), card, {} if clear else None)


# ---------------------------------------------------------------------------------------------------------------------
# Interfaces and back ends


def _interface(address: str) -> Interface | None:
    """The interface that an address names; None if it names none.

    Raises:
        AddressError: there is no such interface.
    """
    for prefix, parse in ((packet.PREFIX, packet.parse), (xdp.PREFIX, xdp.parse)):
        if address.startswith(prefix):
            return Interface(address, parse(address).name)
    return None


def _info_of_interface(address: str, interface: Interface) -> Info:
    now = interface.first
    return Info(
        address=address.partition(",")[0],
        model=interface.model(),
        interfaces=(now.name,),
        mac=now.mac.hex(":"),
        mtu=now.mtu,
        link_up=now.up,
        link_speed=interface.speed() or None if now.up else 0,
        max_rx_queues=interface.rx_queues(),
        max_tx_queues=interface.tx_queues(),
        **plugged(interface.slot("the kernel")),
    )


def _refuse_back_end(address: str) -> None:
    """
    Raises:
        Error: it is an end of vhost-user, which only who has it open can tell of.
    """
    if address.startswith(vhost_user.PREFIX):
        raise Error(f"{address}: no process has it open that would tell, and to open it would disturb who serves it")
    if address.startswith(vhost.PREFIX):
        raise Error(f"{address}: no process has it open that would tell: see ixy ps")
