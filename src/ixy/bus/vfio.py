"""A PCI card reached through VFIO: an IOMMU confines it to the memory that it was given, and any user may drive it.

`ixy bind` gives a card to vfio-pci, the driver by which the kernel hands it on. Registers, configuration space,
interrupts and reset go by the device's file descriptor; memory by the container. When the process ends, however it
ends, the kernel stops the card, resets it, and only then frees the memory.

Sources: Documentation/driver-api/vfio.rst and include/uapi/linux/vfio.h of the Linux kernel.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.bus import Irq
from ixy.bus.binding import claim
from ixy.bus.container import container
from ixy.bus.pci import PciDevice, explained
from ixy.bus.ports import FilePorts
from ixy.errors import Error, UnsupportedDevice
from ixy.process import forget_in_child
from ixy.unsafe import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.bus import Slot
    from ixy.packets.dma import DmaMapping, DmaMemory

log = logging.getLogger("ixy.bus")

# ioctl(2) numbers and structures; each of the latter begins with its size
_GROUP_GET_DEVICE_FD = 0x3B6A
_GET_REGION_INFO = 0x3B6C
_GET_IRQ_INFO = 0x3B6D
_SET_IRQS = 0x3B6E
_RESET = 0x3B6F
_REGION = struct.Struct("=IIIIQQ")  # size, flags, index, offset of a capability, size and offset of the region
_REGION_MAPPABLE = 1 << 2
_CONFIG_REGION = 7
_IRQ_INFO = struct.Struct("=IIII")  # size, flags, index, count
_IRQ_SET = struct.Struct("=IIIII")  # size, flags, index, first, count; then data
_NO_DATA, _EVENTFDS = 1 << 0, 1 << 2
_UNMASK, _TRIGGER = 1 << 4, 1 << 5
_IRQ_INDEX = {Irq.INTX: 0, Irq.MSI: 1, Irq.MSIX: 2}

_PAGE = 4096


class VfioBar:
    """A memory BAR, mapped uncached. Implements `ixy.bus.Bar`.

    Attributes:
        words: shape (size / 4,), uint32.
    """

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._window = Window(size, _PAGE)
        self._window.map(0, size, fd, offset)
        self.words: NDArray[np.uint32] = self._window.bytes.view(np.uint32)

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The register at byte `offset`, for kernels."""
        return self.words[offset // 4 : offset // 4 + 1]

    def read32(self, offset: int) -> int:
        """One 32-bit read at byte `offset`."""
        return int(self.words[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """One 32-bit write at byte `offset`."""
        self.words[offset // 4] = value

    def close(self) -> None:
        """Let go of the registers; a mapping keeps the device open. Whoever still has `words` sees idle memory."""
        self._window.idle()


class VfioInterrupts:
    """Interrupts of one kind, delivered to eventfds. Implements `ixy.bus.Interrupts`.

    Attributes:
        events: a non-blocking eventfd(2) for each vector.
    """

    def __init__(self, device: int, kind: Irq, vectors: int) -> None:
        self._device = device
        self._index = _IRQ_INDEX[kind]
        self.events: Sequence[int] = []
        with ExitStack() as undo:
            events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(vectors)]
            for event in events:
                undo.callback(os.close, event)
            self._set(_EVENTFDS | _TRIGGER, struct.pack(f"{vectors}i", *events), vectors)
            undo.callback(self._set, _NO_DATA | _TRIGGER, b"", 0)
            self.events = events
            self._undo = undo.pop_all()
        forget_in_child(self)

    def rearm(self) -> None:
        """Let the line interrupt again (INTx): the kernel masks it with each interrupt, since others may share it."""
        self._set(_NO_DATA | _UNMASK, b"", 1)

    def close(self) -> None:
        """No interrupts any more; closes `events`."""
        self.events = []
        self._undo.close()

    def forget(self) -> None:
        """Close the events that a child inherited; see `ixy.process.Inheritance`."""
        self._undo.pop_all()
        for event in self.events:
            os.close(event)
        self.events = []

    def _set(self, flags: int, data: bytes, count: int) -> None:
        head = _IRQ_SET.pack(_IRQ_SET.size + len(data), flags, self._index, 0, count)
        fcntl.ioctl(self._device, _SET_IRQS, head + data)


class _Region(NamedTuple):
    """A part of the device as its file descriptor shows it, in bytes."""

    size: int
    offset: int
    mappable: bool


class VfioFunction:
    """One function of a PCI network card that is bound to vfio-pci. Implements `ixy.bus.Function`.

    Args:
        address: such as `0000:03:00.0` or `03:00.0`.

    Attributes:
        address: as the user wrote it.

    Raises:
        AddressError: the address is malformed, or no device is there.
        UnsupportedDevice: it is not an Ethernet card, or no IOMMU stands before it.
        DeviceBusy: another process uses it, or the kernel uses a device of its IOMMU group.
        PermissionDenied: the group's file is out of this user's reach.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._bars: dict[int, VfioBar] = {}
        self._mapped: set[DmaMemory] = set()
        device = PciDevice(address)
        self._slot = device.slot_in("VFIO")
        with ExitStack() as undo:
            undo.callback(claim(device, force=False).close)
            group = container().join(device)
            undo.callback(container().leave, group)
            undo.callback(self._unmap_all)  # after the device is closed, and so stopped
            with explained(address, "open it through VFIO"):
                self._fd = fcntl.ioctl(group.fd, _GROUP_GET_DEVICE_FD, bytearray(device.slot.encode() + b"\0"))
            undo.callback(self._close_device)
            self._config = self._region(_CONFIG_REGION)
            self._undo = undo.pop_all()
        forget_in_child(self)
        log.info("%s: taken through VFIO, IOMMU group %d", address, group.number)

    def slot(self) -> Slot:
        """Where the device is plugged in."""
        return self._slot

    def config_read(self, offset: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes of the configuration space at `offset`."""
        self._check_config(offset, size)
        with explained(self.address, "read the configuration space"):
            return int.from_bytes(os.pread(self._fd, size, self._config.offset + offset), "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes of the configuration space at `offset`; the kernel keeps some bits for itself."""
        self._check_config(offset, size)
        with explained(self.address, "write the configuration space"):
            os.pwrite(self._fd, value.to_bytes(size, "little"), self._config.offset + offset)

    def _check_config(self, offset: int, size: int) -> None:
        if offset + size > self._config.size:
            raise Error(f"{self.address}: the configuration space ends before {offset + size:#x}")

    def bar(self, index: int) -> VfioBar:
        """Base address register `index`, mapped once.

        Raises:
            UnsupportedDevice: there is no such BAR, or it is not memory.
        """
        if index not in self._bars:
            region = self._region(index)
            if not region.mappable:
                raise UnsupportedDevice(f"{self.address}: BAR {index} is not memory")
            self._bars[index] = VfioBar(self._fd, region.offset, region.size)
        return self._bars[index]

    def ports(self, index: int) -> FilePorts:
        """Base address register `index`, which is I/O ports: a region of the device descriptor."""
        return FilePorts(self.address, self._fd, self._region(index).offset)

    def _region(self, index: int) -> _Region:
        with explained(self.address, f"find region {index}"):
            reply = fcntl.ioctl(self._fd, _GET_REGION_INFO, _REGION.pack(_REGION.size, 0, index, 0, 0, 0))
        _, flags, _, _, size, offset = _REGION.unpack(reply)
        return _Region(size, offset, bool(flags & _REGION_MAPPABLE))

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Let the device, and all others of the process, reach `memory`, on huge pages or not.

        Raises:
            MemoryUnavailable: the process may not lock so much memory; the message says how much it needs.
        """
        mapping = container().map(memory, self.address)
        self._mapped.add(memory)
        return mapping

    def unmap(self, memory: DmaMemory) -> None:
        """Take `memory` from the device; the IOMMU refuses it once no device of the process has it mapped."""
        if memory in self._mapped:
            self._mapped.remove(memory)
            container().unmap(memory)

    def interrupt_vectors(self, kind: Irq) -> int:
        """How many interrupts of `kind` the device has."""
        with explained(self.address, "look its interrupts up"):
            reply = fcntl.ioctl(self._fd, _GET_IRQ_INFO, _IRQ_INFO.pack(_IRQ_INFO.size, 0, _IRQ_INDEX[kind], 0))
        return _IRQ_INFO.unpack(reply)[3]

    def interrupts(self, kind: Irq, vectors: int) -> VfioInterrupts:
        """Deliver the first `vectors` interrupts of `kind`.

        Raises:
            UnsupportedDevice: the device has fewer.
            Error: interrupts are on already, or the kernel refuses.
        """
        if vectors > (available := self.interrupt_vectors(kind)):
            raise UnsupportedDevice(f"{self.address}: {vectors} {kind.value} interrupts: it has {available}")
        with explained(self.address, f"switch {kind.value} interrupts on"):
            return VfioInterrupts(self._fd, kind, vectors)

    def rouse(self) -> None:
        """A card never sleeps."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    def reset(self) -> None:
        """Reset the function, by the first way that the kernel knows for it.

        Raises:
            Error: it cannot be reset by itself.
        """
        with explained(self.address, "reset it"):
            fcntl.ioctl(self._fd, _RESET)

    def close(self) -> None:
        """Give the device up: the kernel stops it and resets it. Interrupts were closed before."""
        self._close_bars()
        self._undo.close()

    def forget(self) -> None:
        """Close what a child inherited: with it the device would stay open. See `ixy.process.Inheritance`."""
        self._close_bars()
        self._undo.pop_all()
        self._close_device()

    def _close_device(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _close_bars(self) -> None:
        while self._bars:
            self._bars.popitem()[1].close()

    def _unmap_all(self) -> None:
        for memory in list(self._mapped):
            self.unmap(memory)
