"""What the two PCI transports have in common: ids, bus mastering, the choice between them.

Sections are those of the Virtual I/O Device specification, version 1.2.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ixy.errors import DeviceTimeout, UnsupportedDevice
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.bus import Function
    from ixy.drivers.virtio.features import Features

SUPPORTED = {
    (reg.VENDOR, reg.TRANSITIONAL_NET): "VirtIO network device (legacy or transitional)",
    (reg.VENDOR, reg.MODERN_NET): "VirtIO network device",
}
"""Devices that this driver knows, by vendor and device id (4.1.2)."""

_COMMAND = 0x04  # PCI command register
_BUS_MASTER = 1 << 2
_INTX_DISABLE = 1 << 10
_RESET_TIMEOUT = 1.0  # seconds


def set_bus_master(function: Function, enabled: bool) -> None:
    """Let the device do DMA, or not. Its interrupt line stays off: the driver polls."""
    command = function.config_read(_COMMAND, 2) | _INTX_DISABLE
    command = command | _BUS_MASTER if enabled else command & ~_BUS_MASTER
    function.config_write(_COMMAND, 2, command)


def reset(address: str, read_status: Callable[[], int], write_status: Callable[[int], None]) -> None:
    """Stop the device, and wait until it has (4.1.4.3.1, 4.1.4.3.2)."""
    write_status(0)
    deadline = time.monotonic() + _RESET_TIMEOUT
    while read_status() != 0:
        if time.monotonic() > deadline:
            raise DeviceTimeout(f"{address}: device_status did not become 0 within {_RESET_TIMEOUT:g} s after a reset")
        time.sleep(0.001)


def settle(
    address: str, features: Features, read_status: Callable[[], int], write_status: Callable[[int], None]
) -> None:
    """3.1.1, steps 5 and 6: the features are final, and the device takes them."""
    write_status(reg.ACKNOWLEDGE | reg.DRIVER | reg.FEATURES_OK)
    if not read_status() & reg.FEATURES_OK:
        write_status(reg.ACKNOWLEDGE | reg.DRIVER | reg.FAILED)
        raise UnsupportedDevice(f"{address}: the device does not work with {', '.join(features.names())}")
