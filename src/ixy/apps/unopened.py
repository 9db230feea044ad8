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
from ixy.bus.simulated import SimulatedFunction, SimulatedVirtualFunction, simulated_function
from ixy.drivers.e1000 import inside as e1000
from ixy.drivers.e1000.cards import CARDS as E1000_CARDS
from ixy.drivers.info import Info, plugged
from ixy.drivers.ixgbe import inside as ixgbe
from ixy.drivers.ixgbe.cards import CARDS as IXGBE_CARDS
from ixy.drivers.ixgbe.cards import INTEL
from ixy.drivers.ixgbevf import inside as ixgbevf
from ixy.drivers.ixgbevf.cards import CARDS as IXGBEVF_CARDS
from ixy.drivers.linux.interface import Interface
from ixy.drivers.packet import device as packet
from ixy.drivers.vhost import device as vhost
from ixy.drivers.virtio.transports import vhost_user
from ixy.drivers.xdp import device as xdp
from ixy.errors import ConfigurationError, DeviceBusy, Error, UnsupportedDevice
from ixy.registers import RegisterFile
from ixy.sim.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ixy.registers import Bar, Reading


FAMILIES = ((IXGBE_CARDS, ixgbe), (IXGBEVF_CARDS, ixgbevf), (E1000_CARDS, e1000))
"""Cards of Intel's by device id, and what can be asked of them without a change."""


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
            known = _known(INTEL, function.config_read(2, 2))
            assert known is not None
            info = Info(address=function.address, model=known.card.name, **plugged(function.slot()))
            return Sight(replace(info, **known.seen(function.bar(0))), "nobody: this is a new one, as after power-on")
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
            known = _known(INTEL, function.config_read(2, 2))
            assert known is not None
            return known.read_all(function.bar(0), clear=clear)
    if interface := _interface(address):
        name = interface.first.name
        raise UnsupportedDevice(f"{address}: registers are the business of the kernel's driver: ethtool -d {name}")
    _refuse_back_end(address)
    device = PciDevice(address)
    known = _known_card(device)
    if clear:
        _refuse_to_clear(device)
    return known.read_all(registers_of(device), clear=clear)


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
    known = _known_card(device)
    if known.inside is not ixgbevf:
        _refuse_to_clear(device)
        if not clear:
            raise Error(f"{address}: nobody has it open, and its counters are cleared by reading them: --clear does so")
    elif clear:
        raise ConfigurationError(f"{address}: nobody has it open; a virtual function's own counters cannot be cleared")
    return known.inside.count(_view(registers_of(device)), known.card)


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
    known = _known(device.vendor, device.device)
    if known is None:
        return Sight(info, _state(device))
    try:
        return Sight(replace(info, **known.seen(registers_of(device))), _state(device))
    except Error as error:
        abilities = known.inside.abilities(known.card)
        return Sight(replace(info, features=abilities), _state(device), [str(error)])


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


def _known_card(device: PciDevice) -> Known:
    """
    Raises:
        UnsupportedDevice: no driver here knows its registers.
    """
    known = _known(device.vendor, device.device)
    if known is None:
        name = f"{device.vendor:04x}:{device.device:04x}"
        raise UnsupportedDevice(f"{device.address}: of a {name}, no registers are known here")
    return known


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


def _new_card(address: str) -> SimulatedFunction | SimulatedVirtualFunction:
    """The simulated card or virtual function of an address, with nothing plugged in, in a machine of its own."""
    name, *options = address.split(",")
    own = [option for option in options if option.startswith(("card=", "seed="))]
    return simulated_function(",".join([name, *own]), Machine(stepped=True))


class Known(NamedTuple):
    """A card whose registers a driver here knows.

    Attributes:
        card: its row in that driver's table.
        inside: that driver's module by which it is looked at.
    """

    card: Any
    inside: Any

    def seen(self, bar: Bar) -> dict[str, Any]:
        """What its registers say, by the names of `Info`."""
        return self.inside.seen(_view(bar), self.card)

    def read_all(self, bar: Bar, *, clear: bool) -> list[Reading]:
        return self.inside.read_all(_view(bar), self.card, {} if clear else None)


def _known(vendor: int, device: int) -> Known | None:
    """The card with these ids; None if no driver here knows its registers."""
    if vendor != INTEL:
        return None
    return next((Known(cards[device], inside) for cards, inside in FAMILIES if device in cards), None)


def _view(bar: Bar) -> RegisterFile:
    return RegisterFile(bar, "", threading.RLock())


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
