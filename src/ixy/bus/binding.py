"""Who drives a card: a driver of the kernel, one that hands it on (vfio-pci), or a process of ixy.

Source: Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel: `driver_override`, `drivers_probe`, `unbind`.
"""

from __future__ import annotations

import logging
from contextlib import closing

from ixy.bus import pci
from ixy.bus.interfaces import refuse_if_used
from ixy.bus.lock import DeviceLock
from ixy.bus.pci import PciDevice
from ixy.errors import ConfigurationError, Error

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


def bind(address: str, driver: str, *, force: bool = False) -> None:
    """Take a card from its kernel driver and bind it to the kernel driver named `driver`, such as `vfio-pci`.

    Args:
        force: even if an interface of the card is up with an address or carries a route.

    Raises:
        AddressError: the address is malformed, or no device is there.
        UnsupportedDevice: it is not an Ethernet card.
        ConfigurationError: the kernel has no such driver loaded.
        DeviceBusy: another process or, without `force`, the kernel's network stack uses the card.
        PermissionDenied: the process may not; run as root.
        Error: the driver did not take the card.
    """
    device = PciDevice(address)
    with closing(claim(device, force=force)):
        _check_loaded(driver)
        device.release_driver()
        device.write("driver_override", driver)
        device.probe()
    if device.driver != driver:
        raise Error(f"{address}: {driver} did not take the card (see dmesg); `ixy unbind {address}` gives it back")
    log.info("%s: bound to %s", address, driver)


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


def _check_loaded(driver: str) -> None:
    if driver not in {path.name for path in (pci.SYSFS / "bus/pci/drivers").iterdir()}:
        raise ConfigurationError(f"the kernel has no PCI driver {driver!r} loaded; run: modprobe {driver}")
