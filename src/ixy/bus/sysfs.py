"""A PCI card reached through sysfs: registers by mmap, DMA by physical addresses.

Nothing but this process stands between the card and all of the machine's memory: no IOMMU translates, and a card that
is given a wrong address writes there. Bind the card to vfio-pci where an IOMMU is at hand. A process that dies leaves
its card to a guardian (`ixy.bus.guardian`).

Source: Documentation/PCI/sysfs-pci.rst of the Linux kernel.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np

from ixy.bus.binding import claim
from ixy.bus.guardian import Guardian
from ixy.bus.pagemap import physical_addresses
from ixy.bus.pci import PciDevice, explained
from ixy.bus.ports import FilePorts
from ixy.errors import Error, MemoryUnavailable, PermissionDenied, UnsupportedDevice
from ixy.packets.dma import HUGE_PAGE, DmaMapping, DmaMemory
from ixy.process import forget_in_child

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.bus import Interrupts, Irq, Slot

log = logging.getLogger("ixy.bus")


class SysfsBar:
    """A memory BAR, mapped uncached. Implements `ixy.bus.Bar`.

    Reading or writing an element of an aligned uint32 array is one 32-bit access, which is what registers want.

    Attributes:
        words: shape (size / 4,), uint32.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        memory.madvise(mmap.MADV_DONTFORK)  # the registers are this process's alone
        self.words: NDArray[np.uint32] = np.frombuffer(memory, np.uint32)

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The register at byte `offset`, for kernels."""
        return self.words[offset // 4 : offset // 4 + 1]

    def read32(self, offset: int) -> int:
        """One 32-bit read at byte `offset`."""
        return int(self.words[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """One 32-bit write at byte `offset`."""
        self.words[offset // 4] = value


class SysfsFunction:
    """One function of a PCI network card, taken from the kernel. Implements `ixy.bus.Function`.

    Bus mastering is the driver's business: the card does no DMA before the driver has enabled it in the command
    register. `close` leaves the card without a driver; `ixy.bus.binding.unbind` gives it back to the kernel.

    Args:
        address: such as `0000:03:00.0` or `03:00.0`.
        force: take it even if one of its interfaces is up with an address or carries a route.

    Attributes:
        address: as the user wrote it.
        kernel_driver: what drove the card before; None if nothing did.

    Raises:
        AddressError: the address is malformed, or no device is there.
        UnsupportedDevice: it is not an Ethernet card.
        DeviceBusy: another process or, without `force`, the kernel's network stack uses it.
        PermissionDenied: the process may not; run as root.
    """

    def __init__(self, address: str, *, force: bool = False) -> None:
        self.address = address
        self._device = PciDevice(address)
        self._slot = self._device.slot_in("sysfs")
        self._bars: dict[int, SysfsBar] = {}
        self._guardian: Guardian | None = None
        self._turn = threading.Lock()
        self._files: list[int] = []
        with ExitStack() as undo:
            self._lock = claim(self._device, force=force)
            undo.callback(self._lock.close)
            undo.callback(self._close_files)
            self._config = self._keep_open("config")
            self.kernel_driver = self._device.release_driver()
            self._enable(undo)
            self._warn_of_iommu()
            self._undo = undo.pop_all()
        forget_in_child(self)
        log.info("%s: taken from %s", address, self.kernel_driver or "no driver")

    def _open(self, name: str) -> int:
        with explained(self.address, f"open {name}"):
            return os.open(self._device.path / name, os.O_RDWR)

    def _keep_open(self, name: str) -> int:
        """Open a file until the device is closed."""
        fd = self._open(name)
        self._files.append(fd)
        return fd

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _enable(self, undo: ExitStack) -> None:
        """Wake the device and let it decode memory accesses, which it may not do while no driver has it."""
        if self._device.read("enable") == "0":
            self._device.write("enable", "1")
            undo.callback(self._let_sleep)

    def _let_sleep(self) -> None:
        """Put the device back to sleep, which takes the right of root that a sandbox takes: then it stays awake, at
        rest, as who opens it next wants it."""
        with suppress(PermissionDenied):
            self._device.write("enable", "0")

    def _warn_of_iommu(self) -> None:
        kind = self._device.path / "iommu_group/type"
        if kind.exists() and kind.read_text().strip() != "identity":
            log.warning("%s: an IOMMU may refuse its DMA; run: ixy bind %s vfio-pci", self.address, self.address)

    def slot(self) -> Slot:
        """Where the device is plugged in."""
        return self._slot

    def config_read(self, offset: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes of the configuration space at `offset`."""
        with explained(self.address, "read the configuration space"):
            data = os.pread(self._config, size, offset)
        if len(data) < size:
            raise Error(f"{self.address}: the configuration space ends before {offset + size:#x}")
        return int.from_bytes(data, "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes of the configuration space at `offset`."""
        with explained(self.address, "write the configuration space"):
            os.pwrite(self._config, value.to_bytes(size, "little"), offset)

    def bar(self, index: int) -> SysfsBar:
        """Base address register `index`, mapped once.

        Raises:
            Error: there is no such BAR, or it is not memory.
            PermissionDenied: the process may not; run as root.
        """
        if index not in self._bars:
            self._bars[index] = self._map_bar(index)
        return self._bars[index]

    def _map_bar(self, index: int) -> SysfsBar:
        fd = self._open(f"resource{index}")
        try:
            with explained(self.address, f"map BAR {index}"):
                return SysfsBar(mmap.mmap(fd, 0))
        finally:
            os.close(fd)

    def ports(self, index: int) -> FilePorts:
        """Base address register `index`, which is I/O ports: `resource<index>` is read and written at their offsets.

        Raises:
            Error: there is no such BAR.
            PermissionDenied: the process may not; run as root.
        """
        return FilePorts(self.address, self._keep_open(f"resource{index}"))

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Lock `memory` and look its pages' physical addresses up. It must be on huge pages: no others stay in place.

        The guardian has the memory before anybody can tell the card its addresses.

        Raises:
            MemoryUnavailable: the memory is not on huge pages, or cannot be locked.
            PermissionDenied: the process may not see physical addresses; run as root.
            Error: there is no guardian process.
        """
        if memory.page_size != HUGE_PAGE:
            raise MemoryUnavailable(f"{self.address}: no 2 MiB huge pages left for DMA memory; run: ixy setup")
        memory.lock()
        pages = physical_addresses(memory.virtual_address, memory.size, memory.page_size)
        self._guarded().hold(memory)
        return DmaMapping(pages, memory.page_size)

    def _guarded(self) -> Guardian:
        """The card's guardian, which is started with its first memory."""
        with self._turn:
            if self._guardian is None:
                self._guardian = Guardian(self.address, self._device.path, self._config, self._lock.fd)
                self._undo.callback(self._guardian.close)
            return self._guardian

    def unmap(self, memory: DmaMemory) -> None:
        """Nothing keeps the device away: it addresses all of physical memory. The guardian lets the memory go."""
        if self._guardian is not None:
            self._guardian.release(memory)

    def interrupt_vectors(self, kind: Irq) -> int:  # noqa: ARG002
        """None of any kind: sysfs delivers no interrupts."""
        return 0

    def interrupts(self, kind: Irq, vectors: int) -> Interrupts:
        """Raises UnsupportedDevice: sysfs delivers no interrupts."""
        advice = f"poll, or run: sudo ixy bind {self.address}"
        raise UnsupportedDevice(f"{self.address}: {vectors} {kind.value} interrupts: sysfs delivers none; {advice}")

    def rouse(self) -> None:
        """A card never sleeps."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    def reset(self) -> None:
        """Reset the function, by the first way that the kernel knows for it.

        Raises:
            Error: it cannot be reset by itself.
            PermissionDenied: the process may not; run as root.
        """
        self._device.write("reset", "1")

    def close(self) -> None:
        """Give the device up, the guardian and the lock. BARs that were mapped must not be touched any more."""
        self._bars.clear()
        self._undo.close()

    def forget(self) -> None:
        """Close what a child inherited, and nothing else is left to be closed; see `ixy.process.Inheritance`."""
        self._bars.clear()
        self._undo.pop_all()
        self._close_files()
