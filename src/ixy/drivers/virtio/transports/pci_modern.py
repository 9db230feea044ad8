"""A VirtIO device on PCI, as version 1 of the specification describes it (4.1): structures in memory BARs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.bus import Irq
from ixy.bus.capabilities import capabilities as pci_capabilities
from ixy.drivers.interrupts import EventFile
from ixy.drivers.virtio.features import Features
from ixy.drivers.virtio.transports.pci import PciTransport
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses, register_doorbell
from ixy.errors import UnsupportedDevice
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from ixy.bus import Function, Interrupts

# 4.1.4.3: fields of the common configuration, offset and size
_DEVICE_FEATURE_SELECT, _DEVICE_FEATURE = (0, 4), (4, 4)
_DRIVER_FEATURE_SELECT, _DRIVER_FEATURE = (8, 4), (12, 4)
_CONFIG_VECTOR, _DEVICE_STATUS, _CONFIG_GENERATION = (16, 2), (20, 1), (21, 1)
_QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_VECTOR = (22, 2), (24, 2), (26, 2)
_QUEUE_ENABLE, _QUEUE_NOTIFY_OFF = (28, 2), (30, 2)
_QUEUE_ADDRESSES = (32, 40, 48)  # descriptors, driver, device; 64 bits each, written as two halves

_TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32}


class Capability(NamedTuple):
    """Where a structure lies: its BAR, offset and length there; for notifications the distance between two (4.1.4)."""

    bar: int
    offset: int
    length: int
    multiplier: int


def capabilities(function: Function) -> dict[int, Capability]:
    """The VirtIO structures by type. Of several with one type the first counts, as the device prefers it (4.1.4)."""
    found: dict[int, Capability] = {}
    for identity, position in pci_capabilities(function.config_read):
        if identity != reg.CAP_VENDOR:
            continue
        kind = function.config_read(position + reg.CAP_TYPE, 1)
        bar = function.config_read(position + reg.CAP_BAR, 1)
        if bar > 5 or kind in found:
            continue  # 4.1.4: reserved values are ignored
        offset = function.config_read(position + reg.CAP_OFFSET, 4)
        length = function.config_read(position + reg.CAP_LENGTH, 4)
        notify = kind == reg.CAP_NOTIFY
        multiplier = function.config_read(position + reg.CAP_NOTIFY_MULTIPLIER, 4) if notify else 0
        found[kind] = Capability(bar, offset, length, multiplier)
    return found


class _Structure:
    """Registers of 1, 2 and 4 bytes in a part of a BAR, accessed in their own size (4.1.3.1)."""

    def __init__(self, function: Function, capability: Capability) -> None:
        words = function.bar(capability.bar).words
        end = capability.offset + capability.length
        if capability.offset % 4 or end > words.nbytes:
            raise UnsupportedDevice(f"{function.address}: a VirtIO structure lies outside of BAR {capability.bar}")
        self.length = capability.length
        self._bytes = words.view(np.uint8)[capability.offset : end]

    def read(self, register: tuple[int, int]) -> int:
        offset, size = register
        return int(self._bytes[offset : offset + size].view(_TYPES[size])[0])

    def write(self, register: tuple[int, int], value: int) -> None:
        offset, size = register
        self._bytes[offset : offset + size].view(_TYPES[size])[0] = value

    def register(self, offset: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
        """A 16-bit register, for kernels."""
        return self._bytes[offset : offset + 2].view(np.uint16)


class PciModern(PciTransport):
    """See `PciTransport`.

    Raises:
        UnsupportedDevice: structures are missing, or lie outside their BARs.
    """

    legacy = False
    mac_writable = False
    fixed_size = False

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        found = capabilities(function)
        missing = {reg.CAP_COMMON, reg.CAP_NOTIFY, reg.CAP_DEVICE} - set(found)
        if missing:
            raise UnsupportedDevice(f"{self.address}: VirtIO structures {sorted(missing)} are missing (4.1.4)")
        self._common = _Structure(function, found[reg.CAP_COMMON])
        self._notify = _Structure(function, found[reg.CAP_NOTIFY])
        self._multiplier = found[reg.CAP_NOTIFY].multiplier
        self._device = _Structure(function, found[reg.CAP_DEVICE])
        self._interrupts: Interrupts | None = None

    def _read_status(self) -> int:
        return self._common.read(_DEVICE_STATUS)

    def _write_status(self, status: int) -> None:
        self._common.write(_DEVICE_STATUS, status)

    def features(self) -> int:
        self._acknowledge()
        halves: list[int] = []
        for half in range(2):
            self._common.write(_DEVICE_FEATURE_SELECT, half)
            halves.append(self._common.read(_DEVICE_FEATURE))
        return halves[0] | halves[1] << 32

    def accept(self, features: Features) -> None:
        if not features.has(reg.VERSION_1):
            raise UnsupportedDevice(f"{self.address}: a device with a modern interface must offer VERSION_1 (6.1)")
        for half in range(2):
            self._common.write(_DRIVER_FEATURE_SELECT, half)
            self._common.write(_DRIVER_FEATURE, features >> 32 * half & 0xFFFFFFFF)
        self._settle(features)

    def _settle(self, features: Features) -> None:
        """3.1.1, steps 5 and 6: the features are final, and the device takes them."""
        self._write_status(reg.ACKNOWLEDGE | reg.DRIVER | reg.FEATURES_OK)
        if not self._read_status() & reg.FEATURES_OK:
            self._write_status(reg.ACKNOWLEDGE | reg.DRIVER | reg.FAILED)
            raise UnsupportedDevice(f"{self.address}: the device does not work with {', '.join(features.names())}")

    def config_read(self, offset: int, size: int) -> int:
        """2.5.1: read again if the configuration has changed meanwhile."""

        def read_within_a_generation() -> int | None:
            generation = self._common.read(_CONFIG_GENERATION)
            value = self._device.read((offset, size))
            return value if self._common.read(_CONFIG_GENERATION) == generation else None

        return self._retry(read_within_a_generation, "config_generation did not stay the same")

    def config_write(self, offset: int, data: bytes) -> None:
        for place, byte in enumerate(data, offset):
            self._device.write((place, 1), byte)

    def ring_limit(self, index: int) -> int:
        self._common.write(_QUEUE_SELECT, index)
        return self._common.read(_QUEUE_SIZE)

    def doorbell(self, index: int) -> Doorbell:
        """4.1.4.4: the ring's number is written to its place in the notification structure."""
        self._common.write(_QUEUE_SELECT, index)
        offset = self._common.read(_QUEUE_NOTIFY_OFF) * self._multiplier
        if offset % 2 or offset + 2 > self._notify.length:
            raise UnsupportedDevice(f"{self.address}: the doorbell of ring {index} lies outside of its structure")
        return register_doorbell(self._notify.register(offset), index)

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:  # noqa: ARG002
        """4.1.5.1.3."""
        self._common.write(_QUEUE_SELECT, index)
        self._common.write(_QUEUE_SIZE, addresses.size)
        self._common.write(_QUEUE_VECTOR, reg.NO_VECTOR)
        for offset, address in zip(_QUEUE_ADDRESSES, addresses[1:], strict=True):
            self._common.write((offset, 4), address & 0xFFFFFFFF)
            self._common.write((offset + 4, 4), address >> 32)
        self._common.write(_QUEUE_ENABLE, 1)

    def interrupt(self, queue: int, queues: int) -> EventFile:
        """4.1.5.1.2: vector n belongs to receive queue n. Asking for the first switches MSI-X on.

        Raises:
            UnsupportedDevice: the bus delivers no interrupts, or the device has too few.
        """
        if self._interrupts is None:
            self._interrupts = self._function.interrupts(Irq.MSIX, queues)
        self._common.write(_QUEUE_SELECT, 2 * queue)
        self._common.write(_QUEUE_VECTOR, queue)
        if self._common.read(_QUEUE_VECTOR) != queue:
            raise UnsupportedDevice(f"{self.address}: the device has no interrupt for ring {2 * queue}")
        return EventFile(self._interrupts.events[queue])

    def close(self) -> None:
        if self._interrupts is not None:
            self._interrupts.close()
        super().close()

    def start(self) -> None:
        self._common.write(_CONFIG_VECTOR, reg.NO_VECTOR)
        self._run(reg.FEATURES_OK)
