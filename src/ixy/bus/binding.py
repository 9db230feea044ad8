"""Who drives a card: a driver of the kernel, one that hands it on (vfio-pci), or a process of ixy.

Source: Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel: `driver_override`, `drivers_probe`, `unbind`.
"""

from __future__ import annotations

import logging
import os
import pwd
from contextlib import closing

from ixy.bus import pci
from ixy.bus.container import group_file
from ixy.bus.interfaces import refuse_if_used
from ixy.bus.lock import DeviceLock
from ixy.bus.pci import PciDevice, explained
from ixy.errors import ConfigurationError, Error

VFIO_PCI = "vfio-pci"

log = logging.getLogger("ixy.bus")


def claim(device: PciDevice, *, force: bool) -> DeviceLock:
    """Lock a network card that nobody uses.

    Args:
        force: also one that the kernel's network stack uses.

    Raises:
        UnsupportedDevice: it is not an Ethernet card.
        DeviceBusy: another process or, without `force`, the kernel's network stack uses it.
    """
    device.check_ethernet()
    lock = DeviceLock(device.slot, device.address)
    try:
        if not force:
            refuse_if_used(device)
    except BaseException:
        lock.close()
        raise
    return lock


def bind(address: str, driver: str = VFIO_PCI, user: str | None = None, force: bool = False) -> None:
    """Take a card from its kernel driver and bind it to the kernel driver named `driver`.

    Args:
        user: who may use the card from now on, until it is unbound or the machine restarts; with vfio-pci only.
        force: even if an interface of the card is up with an address or carries a route.

    Raises:
        AddressError: the address is malformed, or no device is there.
        UnsupportedDevice: it is not an Ethernet card.
        ConfigurationError: the kernel has no such driver loaded, there is no such user, or only root can use a card
            that is bound to `driver`.
        DeviceBusy: another process or, without `force`, the kernel's network stack uses the card.
        PermissionDenied: the process may not; run as root.
        Error: the driver did not take the card.
    """
    device = PciDevice(address)
    owner = _user_id(user, driver) if user is not None else None
    with closing(claim(device, force=force)):
        _check_loaded(driver)
        device.release_driver()
        device.write("driver_override", driver)
        device.probe()
    if device.driver != driver:
        raise Error(f"{address}: {driver} did not take the card (see dmesg); `ixy unbind {address}` gives it back")
    log.info("%s: bound to %s", address, driver)
    if owner is not None:
        _give(device, owner)


def unbind(address: str, *, force: bool = False) -> str | None:
    """Give a card back to the kernel: to the driver that knows its ids.

    Args:
        force: even if an interface of the card is up with an address or carries a route.

    Returns:
        The name of the kernel driver that has taken the card; None if the kernel has none loaded.

    Raises:
        AddressError, UnsupportedDevice, DeviceBusy, PermissionDenied: as for `bind`.
    """
    device = PciDevice(address)
    with closing(claim(device, force=force)):
        device.release_driver()
        device.write("driver_override", "\n")  # an empty line clears it
        device.probe()
    log.info("%s: given back to %s", address, device.driver or "the kernel, which has no driver for it")
    return device.driver


def _user_id(user: str, driver: str) -> int:
    if driver != VFIO_PCI:
        raise ConfigurationError(f"only root can use a card that is bound to {driver}; leave --driver out")
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfigurationError(f"there is no user {user!r}") from None


def _give(device: PciDevice, owner: int) -> None:
    """Let user `owner` open the device through VFIO."""
    path = group_file(device)
    with explained(device.address, f"give {path} to the user"):
        os.chown(path, owner, -1)


def _check_loaded(driver: str) -> None:
    if driver not in {path.name for path in (pci.SYSFS / "bus/pci/drivers").iterdir()}:
        raise ConfigurationError(f"the kernel has no PCI driver {driver!r} loaded; run: modprobe {driver}")
