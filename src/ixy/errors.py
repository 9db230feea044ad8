"""The errors of ixy.

Every error is an `ixy.Error`; its message is one line that says what is wrong, with which device, and what to do. Only
a `KernelError` has a second line, the one of the user's source.
"""

from __future__ import annotations


class Error(Exception):
    """Base of every error that ixy raises on purpose."""


class AddressError(Error):
    """A device address that is malformed or names nothing."""


class UnsupportedDevice(Error):
    """The device is not a network card, or no driver here knows it."""


class DeviceBusy(Error):
    """The device is in use: by another process, or by the kernel's network stack."""


class PermissionDenied(Error):
    """The operating system refuses access to the device or to locked memory."""


class MemoryUnavailable(Error):
    """Memory for DMA cannot be had: no huge pages, or a limit is too low."""


class DeviceTimeout(Error):
    """A register did not reach the expected state before its deadline."""


class ConfigurationError(Error):
    """A parameter lies outside what the device or the driver supports."""


class OwnershipError(Error):
    """Something was used that is another's: packets that were sent or freed, a device of another process."""


class FilterError(Error):
    """A filter is malformed, or libpcap, which compiles filters, is not there."""


class CaptureError(Error):
    """A capture file cannot be read or written."""


class WorkerError(Error):
    """One of some workers has ended by an error, which is its `__cause__`, and so all have ended."""


class KernelError(Error):
    """A function cannot be compiled into a path, or does not say what becomes of a packet.

    The message begins with file, line and name of the function.
    """
