"""PCI functions as Linux shows them in sysfs: one directory each, attributes as files.

Sources: Documentation/PCI/sysfs-pci.rst and Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ixy.bus import PcieLink, Slot
from ixy.errors import AddressError, Error, PermissionDenied, UnsupportedDevice

SYSFS = Path("/sys")

ETHERNET = 0x0200  # base class and subclass

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])", re.IGNORECASE)

# Base classes, from the PCI Code and ID Assignment Specification
_CLASSES = {
    0x01: "mass storage",
    0x02: "network, not Ethernet",
    0x03: "display",
    0x04: "multimedia",
    0x05: "memory",
    0x06: "bridge",
    0x07: "communication",
    0x08: "system peripheral",
    0x0C: "serial bus",
    0x10: "encryption",
}


def slot_of(address: str) -> str:
    """The kernel's name of the function at `address`: `03:00.0` and `0000:03:00.0` are `0000:03:00.0`.

    Raises:
        AddressError: `address` is no PCI address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise AddressError(f"{address!r} is not a PCI address: write it like 0000:03:00.0")
    return f"{match[1] or '0000'}:{match[2]}".lower()


@contextmanager
def explained(address: str, doing: str) -> Generator[None, None, None]:
    """Turn what the operating system says while `doing` something to the device into one of ixy's errors."""
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(f"{address}: no permission to {doing}: {_permission_advice()}") from error
    except OSError as error:
        raise Error(f"{address}: cannot {doing}: {error.strerror}") from error


def _permission_advice() -> str:
    if os.geteuid() == 0:
        return "the kernel refuses even root; is it locked down (Secure Boot), or is this a container?"
    return "run as root (sudo)"


def write_attribute(path: Path, text: str) -> None:
    """Write `text` by one write(2), as an attribute wants it; the file is never created."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class PciDevice:
    """One PCI function in sysfs. Looking at it changes nothing.

    Attributes:
        address: as the user wrote it, for messages.
        slot: the kernel's name for it, such as `0000:03:00.0`.
        path: its directory in sysfs.

    Raises:
        AddressError: the address is malformed, or no device is there.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.slot = slot_of(address)
        self.path = SYSFS / "bus/pci/devices" / self.slot
        if not self.path.exists():
            raise AddressError(f"{address}: no such PCI device; `ixy list` shows the network cards")

    def read(self, attribute: str) -> str:
        """An attribute's text."""
        with explained(self.address, f"read {attribute}"):
            return (self.path / attribute).read_text().strip()

    def write(self, attribute: str, text: str) -> None:
        """Write an attribute."""
        with explained(self.address, f"write {attribute}"):
            write_attribute(self.path / attribute, text)

    @property
    def vendor(self) -> int:
        return int(self.read("vendor"), 16)

    @property
    def device(self) -> int:
        return int(self.read("device"), 16)

    @property
    def pci_class(self) -> int:
        """Base class, subclass and programming interface, 24 bits."""
        return int(self.read("class"), 16)

    @property
    def numa_node(self) -> int | None:
        """The node that the device is attached to; None where the machine has but one."""
        if not (self.path / "numa_node").exists():
            return None
        node = int(self.read("numa_node"))
        return node if node >= 0 else None

    def slot_in(self, bus: str) -> Slot:
        """Where it is plugged in, for who reaches it by `bus`."""
        return Slot(bus, self.numa_node, self._pcie())

    def _pcie(self) -> PcieLink | None:
        """Its link; None where the kernel knows of none."""
        try:
            speed, width, max_speed, max_width = (
                float((self.path / name).read_text().split()[0])  # 5.0 GT/s PCIe
                for name in ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
            )
        except (OSError, ValueError, IndexError):  # "Unknown"
            return None
        return PcieLink(speed, int(width), max_speed, int(max_width))

    @property
    def driver(self) -> str | None:
        """The kernel driver that is bound to the device."""
        link = self.path / "driver"
        return link.resolve().name if link.is_symlink() else None

    def check_ethernet(self) -> None:
        """Raises UnsupportedDevice, which names the class, unless the device is an Ethernet controller."""
        pci_class = self.pci_class
        if pci_class >> 8 != ETHERNET:
            kind = _CLASSES.get(pci_class >> 16, "unknown")
            raise UnsupportedDevice(f"{self.address} is not an Ethernet card: its class is {pci_class:#08x} ({kind})")

    def release_driver(self) -> str | None:
        """Unbind the kernel driver; its name, if there was one."""
        driver = self.driver
        if driver is not None:
            self.write("driver/unbind", self.slot)
        return driver

    def probe(self) -> None:
        """Let the kernel look for a driver: the one in `driver_override`, else one that knows the device's ids."""
        with explained(self.address, "probe for a kernel driver"):
            write_attribute(SYSFS / "bus/pci/drivers_probe", self.slot)
