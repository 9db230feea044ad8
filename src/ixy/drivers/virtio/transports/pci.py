"""What the two PCI transports have in common: ids, reset and start, bus mastering.

Sections are those of the Virtual I/O Device specification, version 1.2.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from ixy.bus import COMMAND, set_bus_master
from ixy.errors import DeviceTimeout
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.bus import Function, Slot
    from ixy.packets.dma import DmaMapping, DmaMemory

SUPPORTED = {
    (reg.VENDOR, reg.TRANSITIONAL_NET): "VirtIO network device (legacy or transitional)",
    (reg.VENDOR, reg.MODERN_NET): "VirtIO network device",
}
"""Devices that this driver knows, by vendor and device id (4.1.2)."""

_INTX_DISABLE = 1 << 10  # in the PCI command register
_TIMEOUT = 1.0  # seconds

T = TypeVar("T")


class PciTransport(ABC):
    """A VirtIO network device on PCI; see `ixy.drivers.virtio.transports.transport.Transport`.

    Args:
        function: the PCI function; closed with the transport.
    """

    def __init__(self, function: Function) -> None:
        self.address = function.address
        self._function = function

    @abstractmethod
    def _read_status(self) -> int:
        """The device status, 2.1."""

    @abstractmethod
    def _write_status(self, status: int) -> None: ...

    def slot(self) -> Slot:
        """That of the function."""
        return self._function.slot()

    def reset(self) -> None:
        """Stop the device, and wait until it has (4.1.4.3.1, 4.1.4.3.2). Whatever comes of it, no DMA until `start`."""
        try:
            self._write_status(0)
            self._wait_for_reset()
        finally:
            self._set_bus_master(False)

    def _wait_for_reset(self) -> None:
        self._retry(lambda: True if self._read_status() == 0 else None, "device_status did not become 0")

    def _retry(self, attempt: Callable[[], T | None], failure: str) -> T:
        """What `attempt` returns at last, which is None while the device is not ready.

        Raises:
            DeviceTimeout: it is never ready.
        """
        deadline = time.monotonic() + _TIMEOUT
        while (result := attempt()) is None:
            if time.monotonic() > deadline:
                raise DeviceTimeout(f"{self.address}: {failure} within {_TIMEOUT:g} s")
            time.sleep(0.001)
        return result

    def _acknowledge(self) -> None:
        """3.1.1, steps 2 and 3."""
        self._write_status(reg.ACKNOWLEDGE)
        self._write_status(reg.ACKNOWLEDGE | reg.DRIVER)

    def _run(self, settled: int) -> None:
        """3.1.1, step 8. `settled` is FEATURES_OK for a device that knows it."""
        self._set_bus_master(True)
        self._write_status(reg.ACKNOWLEDGE | reg.DRIVER | settled | reg.DRIVER_OK)

    def _set_bus_master(self, enabled: bool) -> None:
        """Let the device do DMA, or not. Its interrupt line stays off: the driver polls."""
        set_bus_master(self._function, enabled)
        command = self._function.config_read(COMMAND, 2)
        self._function.config_write(COMMAND, 2, command | _INTX_DISABLE)

    def failed(self) -> bool:
        return bool(self._read_status() & reg.NEEDS_RESET)

    def when_gone(self, _tell: Callable[[], bool]) -> None:
        """A function stays where it is."""
        return

    def map(self, memory: DmaMemory) -> DmaMapping:
        return self._function.map(memory)

    def unmap(self, memory: DmaMemory) -> None:
        self._function.unmap(memory)

    def close(self) -> None:
        self._function.close()
