"""The seam between the driver of a VirtIO device and what carries it: PCI, modern or legacy, or vhost-user."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ixy.jit import compiled
from ixy.unsafe import store_release, write_file, write_file_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ixy.bus import Slot
    from ixy.drivers.virtio.features import Features
    from ixy.packets.dma import DmaMapping, DmaMemory


class RingAddresses(NamedTuple):
    """Where the device finds the three parts of a ring, 2.6: descriptors, what the driver writes, what it writes."""

    size: int
    descriptors: int
    driver: int
    device: int


class Doorbell(NamedTuple):
    """How the device is told of new descriptors: by a store, or by a write to a file.

    Attributes:
        register: the notification register, shape (1,), uint16; unused where there is a file.
        value: to store there.
        fd: the file: an eventfd, or the file of an I/O BAR; -1 if there is none.
        offset: in the file; -1 for a file without places.
        message: what to write to it, shape (n,), uint8.
    """

    register: NDArray[np.uint16]
    value: int
    fd: int
    offset: int
    message: NDArray[np.uint8]


def register_doorbell(register: NDArray[np.uint16], value: int) -> Doorbell:
    """A doorbell that is a register."""
    return Doorbell(register, value, -1, -1, np.zeros(1, np.uint8))


def file_doorbell(fd: int, message: bytes, offset: int = -1) -> Doorbell:
    """A doorbell that is a file."""
    return Doorbell(np.zeros(1, np.uint16), 0, fd, offset, np.frombuffer(message, np.uint8).copy())


@compiled
def ring_doorbell(doorbell: Doorbell) -> None:
    """Notify the device. A file that takes no more has been written to and not yet read: the device will look."""
    if doorbell.fd < 0:
        store_release(doorbell.register, 0, doorbell.value)
    elif doorbell.offset < 0:
        write_file(doorbell.fd, doorbell.message, 0, doorbell.message.size)
    else:
        write_file_at(doorbell.fd, doorbell.message, 0, doorbell.message.size, doorbell.offset)


class Signal(Protocol):
    """How the device interrupts for one ring.

    Attributes:
        fd: a file that is readable after an interrupt, until `clear`.
    """

    fd: int

    def clear(self) -> None:
        """Forget the interrupts so far."""
        ...

    def wake(self) -> None:
        """Make `fd` readable, whatever the device does."""
        ...


class Transport(Protocol):
    """One VirtIO network device, taken by this process alone until `close`.

    Attributes:
        address: as the user wrote it, for messages.
        legacy: the device has only the legacy interface: its rings lie at fixed places behind each other, 2.7.2.
        mac_writable: the MAC address in the device's configuration can be written.
        fixed_size: the size of a ring is the device's to say.
    """

    address: str
    legacy: bool
    mac_writable: bool
    fixed_size: bool

    def slot(self) -> Slot:
        """How the device is reached, and where it is plugged in."""
        ...

    def reset(self) -> None:
        """Stop the device, and wait until it has stopped: it does no more DMA. Once interrupted, it can be repeated.

        Raises:
            DeviceTimeout: it does not say that it has stopped. It does no DMA all the same.
        """
        ...

    def features(self) -> int:
        """What the device offers."""
        ...

    def accept(self, features: Features) -> None:
        """Acknowledge the device and settle the features, 3.1.1 up to step 6.

        Raises:
            UnsupportedDevice: the device does not take them.
        """
        ...

    def config_read(self, offset: int, size: int) -> int:
        """`size` bytes of the device's configuration, 5.1.4, at `offset`; consistent."""
        ...

    def config_write(self, offset: int, data: bytes) -> None:
        """Write the device's configuration, where it can be written."""
        ...

    def ring_limit(self, index: int) -> int:
        """The most descriptors that ring `index` can have; 0 if there is no such ring."""
        ...

    def doorbell(self, index: int) -> Doorbell:
        """How to notify the device of descriptors in ring `index`."""
        ...

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:
        """Tell the device where ring `index` lies, and enable it.

        Args:
            resume: says where a device that comes back goes on; see `rings.resume_at`.
        """
        ...

    def interrupt(self, queue: int, queues: int) -> Signal:
        """How the device interrupts for a receive queue out of so many, from now on, if the ring says that it may.

        Raises:
            UnsupportedDevice: the bus delivers no interrupts.
        """
        ...

    def start(self) -> None:
        """The driver is ready, 3.1.1 step 8."""
        ...

    def failed(self) -> bool:
        """Whether the device says that it needs a reset (2.1.2)."""
        ...

    def when_gone(self, tell: Callable[[], bool], /) -> None:
        """Call `tell`, in any thread, each time that the device's process has gone, if it is another one's. It answers
        whether somebody ends because of that; else the log says that the device is waited for."""
        ...

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Let the device reach `memory`, and say at which addresses."""
        ...

    def unmap(self, memory: DmaMemory) -> None:
        """Take `memory` from the device. It must not use it any more."""
        ...

    def close(self) -> None:
        """Give the device up. It has been reset."""
        ...
