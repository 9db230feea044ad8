"""A PCI function that is only looked at: it is not taken, nothing of it is switched on, written or reset.

Registers are mapped read-only through sysfs, which the kernel allows beside a process that drives the card. A card that
sleeps, or does not decode memory accesses, as when no driver has it, is left alone: reading would give ones at best.

Source: Documentation/PCI/sysfs-pci.rst of the Linux kernel; PCI Local Bus 3.0, 6.2.2.
"""

from __future__ import annotations

import errno
import mmap
import os

import numpy as np

from ixy.bus import COMMAND
from ixy.bus.pci import PciDevice, explained
from ixy.errors import Error, PermissionDenied

_MEMORY = 1 << 1  # in the command register
_AWAKE = ("D0", "unknown")  # of power_state


class ReadOnlyBar:
    """Base address register 0, mapped for reading."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._words = np.frombuffer(memory, np.uint32)

    def read32(self, offset: int) -> int:
        """One 32-bit read at byte `offset`."""
        return int(self._words[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """Never called.

        Raises:
            PermissionDenied: it would be a mistake.
        """
        raise PermissionDenied(f"{value:#x} is not written at {offset:#x}: the card is only looked at")


def registers_of(device: PciDevice) -> ReadOnlyBar:
    """The device's registers.

    Raises:
        Error: it sleeps, or does not decode memory accesses; or the kernel does not let its registers be read.
        PermissionDenied: only root may.
    """
    if not _command(device) & _MEMORY:
        raise Error(f"{device.address}: registers are out of reach, as no driver has switched them on")
    state = device.path / "power_state"
    if state.exists() and (power := state.read_text().strip()) not in _AWAKE:
        raise Error(f"{device.address}: registers are out of reach, as the card sleeps ({power})")
    with explained(device.address, "look at its registers"):
        fd = os.open(device.path / "resource0", os.O_RDONLY)
        try:
            return ReadOnlyBar(mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Error(
                f"{device.address}: the kernel leaves its registers to its driver (CONFIG_IO_STRICT_DEVMEM; "
                "iomem=relaxed on its command line changes that)"
            ) from error
        finally:
            os.close(fd)


def _command(device: PciDevice) -> int:
    """The command register, which any user may read."""
    with explained(device.address, "read the configuration space"), (device.path / "config").open("rb") as file:
        return int.from_bytes(file.read(COMMAND + 2)[COMMAND:], "little")
