"""The machine's network cards, and which of them can be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ixy.bus import pci
from ixy.bus.binding import VFIO_PCI
from ixy.bus.container import group_file
from ixy.bus.interfaces import interfaces, use
from ixy.bus.lock import holder
from ixy.bus.pci import PciDevice

NETWORK = 0x02  # base class

# Where Debian's pciutils and Fedora's hwdata keep the public list of PCI ids
PCI_IDS = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))


@dataclass(frozen=True)
class PciInfo:
    """A network card.

    Attributes:
        address: such as `0000:03:00.0`.
        vendor, device: ids, 16 bits each.
        name: for people.
        driver: the kernel driver that is bound to it.
        interfaces: names of the kernel's network interfaces on it.
        numa_node: that the card is attached to; None where the machine has but one.
        reason: why the card cannot be used as things are; None if it can.
    """

    address: str
    vendor: int
    device: int
    name: str
    driver: str | None
    interfaces: tuple[str, ...]
    numa_node: int | None
    reason: str | None

    @property
    def usable(self) -> bool:
        """Whether the card can be opened as things are."""
        return self.reason is None


def network_devices(supported: Mapping[tuple[int, int], str]) -> list[PciInfo]:
    """The machine's PCI network cards, by address.

    Args:
        supported: the name of each card that a driver knows, by vendor and device id.
    """
    slots = sorted(path.name for path in (pci.SYSFS / "bus/pci/devices").glob("*"))
    devices = (PciDevice(slot) for slot in slots)
    return [_info(device, supported) for device in devices if device.pci_class >> 16 == NETWORK]


def _info(device: PciDevice, supported: Mapping[tuple[int, int], str]) -> PciInfo:
    ids = device.vendor, device.device
    return PciInfo(
        address=device.slot,
        vendor=ids[0],
        device=ids[1],
        name=_listed_name(*ids) or supported.get(ids) or f"{ids[0]:04x}:{ids[1]:04x}",
        driver=device.driver,
        interfaces=tuple(path.name for path in interfaces(device)),
        numa_node=device.numa_node,
        reason=_reason(device, ids in supported),
    )


def _reason(device: PciDevice, supported: bool) -> str | None:
    """Why the device cannot be opened as things are."""
    if not supported:
        return "no driver"
    process = holder(device.slot)
    if process is not None:
        return f"in use by {process}"
    words = use(device)
    if words is not None:
        return f"{words} (--force)"
    if device.driver == VFIO_PCI:
        reachable = os.access(group_file(device), os.W_OK, effective_ids=True)
        return None if reachable else "no permission: run as root (sudo), or ixy bind --user"
    reachable = os.access(device.path / "config", os.W_OK, effective_ids=True)
    return None if reachable else "no permission: run as root (sudo)"


def _listed_name(vendor: int, device: int) -> str | None:
    """The name of a device in the list of PCI ids: vendors at the margin, their devices behind one tab."""
    path = next((path for path in PCI_IDS if path.exists()), None)
    if path is None:
        return None
    maker = None
    with path.open(errors="replace") as lines:
        for line in lines:
            if line.startswith(f"{vendor:04x}  "):
                maker = line[6:].strip()
            elif maker and line.startswith(f"\t{device:04x}  "):
                return f"{maker} {line[7:].strip()}"
            elif maker and not line.startswith(("\t", "#")):
                return None
    return None
