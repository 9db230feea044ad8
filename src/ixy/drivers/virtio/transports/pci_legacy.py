"""A legacy VirtIO device on PCI (4.1.4.10): registers in an I/O BAR, rings at page numbers, 32 feature bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ixy.drivers.interrupts import EventFile
from ixy.drivers.virtio.features import Features
from ixy.drivers.virtio.transports.pci import PciTransport
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses, file_doorbell
from ixy.errors import MemoryUnavailable, UnsupportedDevice

if TYPE_CHECKING:
    from ixy.bus import Function

# Registers, offset and size
_DEVICE_FEATURES, _DRIVER_FEATURES, _QUEUE_ADDRESS = (0, 4), (4, 4), (8, 4)
_QUEUE_SIZE, _QUEUE_SELECT, _QUEUE_NOTIFY = (12, 2), (14, 2), (16, 2)
_DEVICE_STATUS = (18, 1)
_DEVICE_CONFIG = 20  # while MSI-X is off

_PAGE_SHIFT = 12


class PciLegacy(PciTransport):
    """See `PciTransport`."""

    legacy = True
    mac_writable = True
    fixed_size = True

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        self._ports = function.ports(0)

    def _read_status(self) -> int:
        return self._ports.read(*_DEVICE_STATUS)

    def _write_status(self, status: int) -> None:
        self._ports.write(*_DEVICE_STATUS, status)

    def features(self) -> int:
        self._acknowledge()
        return self._ports.read(*_DEVICE_FEATURES)

    def accept(self, features: Features) -> None:
        """There is no FEATURES_OK: the device has to take what it offered (3.1.2)."""
        self._ports.write(*_DRIVER_FEATURES, int(features))

    def config_read(self, offset: int, size: int) -> int:
        """Fields of several bytes are read until they read the same twice: there is no generation (2.5.4)."""

        def read_twice() -> int | None:
            value = self._ports.read(_DEVICE_CONFIG + offset, size)
            return value if self._ports.read(_DEVICE_CONFIG + offset, size) == value else None

        return self._retry(read_twice, f"the configuration at {offset} did not read the same twice")

    def config_write(self, offset: int, data: bytes) -> None:
        for place, byte in enumerate(data, _DEVICE_CONFIG + offset):
            self._ports.write(place, 1, byte)

    def ring_limit(self, index: int) -> int:
        self._ports.write(*_QUEUE_SELECT, index)
        return self._ports.read(*_QUEUE_SIZE)

    def doorbell(self, index: int) -> Doorbell:
        offset, size = _QUEUE_NOTIFY
        return file_doorbell(self._ports.fd, index.to_bytes(size, "little"), self._ports.start + offset)

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:  # noqa: ARG002
        """The device knows where the parts of a ring lie from its first page (2.7.2)."""
        page = addresses.descriptors >> _PAGE_SHIFT
        if page >> 32:
            raise MemoryUnavailable(
                f"{self.address}: a ring at {addresses.descriptors:#x} is out of the device's reach"
            )
        self._ports.write(*_QUEUE_SELECT, index)
        self._ports.write(*_QUEUE_ADDRESS, page)

    def interrupt(self, queue: int, queues: int) -> EventFile:  # noqa: ARG002
        """With MSI-X on its registers would lie elsewhere; and through VFIO, which delivers it, it is not used."""
        advice = "poll, or let it be a modern one (QEMU: disable-legacy=on)"
        raise UnsupportedDevice(f"{self.address}: no interrupts from a legacy device; {advice}")

    def start(self) -> None:
        self._run(0)
