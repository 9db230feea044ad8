"""A sysfs tree of regular files, and a kernel that answers what is written into it."""

from __future__ import annotations

import os
from pathlib import Path

BAR0_SIZE = 512 << 10  # datasheet 9.3.6.1: the registers of an 82599


class FakeSysfs:
    """A tree with PCI devices. `log` holds what was written to the attributes that a kernel acts upon, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[str, str]] = []
        self.native_drivers: dict[str, str] = {}  # slot → the driver that knows the device's ids
        for name in ("devices", "drivers"):
            (root / "bus/pci" / name).mkdir(parents=True)
        (root / "bus/pci/drivers_probe").touch()

    def add(
        self,
        slot: str,
        *,
        pci_class: int = 0x020000,
        vendor: int = 0x8086,
        device: int = 0x10FB,
        driver: str | None = None,
        numa_node: int = -1,
    ) -> Path:
        """A device as an 82599 shows itself, with a BAR 0 of zeros; the directory."""
        path = self.root / "bus/pci/devices" / slot
        path.mkdir()
        attributes = {
            "class": f"{pci_class:#08x}",
            "vendor": f"{vendor:#06x}",
            "device": f"{device:#06x}",
            "numa_node": str(numa_node),
            "enable": "0",
            "driver_override": "(null)",
        }
        for name, text in attributes.items():
            (path / name).write_text(text + "\n")
        (path / "config").write_bytes(vendor.to_bytes(2, "little") + device.to_bytes(2, "little") + bytes(252))
        (path / "resource0").touch()
        os.truncate(path / "resource0", BAR0_SIZE)
        if driver is not None:
            self.native_drivers[slot] = driver
            self.add_driver(driver)
            self.attach(slot, driver)
        return path

    def add_driver(self, name: str) -> None:
        """A kernel driver that is loaded."""
        path = self.root / "bus/pci/drivers" / name
        path.mkdir(exist_ok=True)
        (path / "unbind").touch()

    def add_interface(self, device: Path, name: str, *, up: bool) -> Path:
        """A network interface of the device."""
        path = device / "net" / name
        path.mkdir(parents=True)
        (path / "flags").write_text(f"{0x1002 | up:#x}\n")  # IFF_BROADCAST, IFF_MULTICAST, perhaps IFF_UP
        return path

    def add_address(self, interface: str) -> None:
        """Give an interface the address 2001:db8::1, of global scope (0), as /proc/net/if_inet6 shows it."""
        (self.root / "net/if_inet6").write_text(f"20010db8000000000000000000000001 02 40 00 80    {interface}\n")

    def attach(self, slot: str, driver: str) -> None:
        (self.root / "bus/pci/devices" / slot / "driver").symlink_to(self.root / "bus/pci/drivers" / driver)

    def write(self, path: Path, text: str) -> None:
        """Do what the kernel does when `text` is written to an attribute."""
        path.write_text(text)
        self.log.append((path.name, text))
        if path.name == "unbind":
            (self.root / "bus/pci/devices" / text / "driver").unlink()
        if path.name == "drivers_probe":
            override = (self.root / "bus/pci/devices" / text / "driver_override").read_text().strip()
            driver = override or self.native_drivers.get(text)
            if driver is not None:
                self.attach(text, driver)
