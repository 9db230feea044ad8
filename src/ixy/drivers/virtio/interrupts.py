"""The interrupts of receive rings: the device looks in the ring whether the driver wants one (2.7.7, 2.8.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ixy.drivers.virtio.rings.rings import VirtioRxRing
    from ixy.drivers.virtio.transports.transport import Signal


class RingInterrupt:
    """See `ixy.drivers.RxInterrupt`.

    Args:
        ring: whose.
        signal: by which the device interrupts.
    """

    once = False

    def __init__(self, ring: VirtioRxRing, signal: Signal) -> None:
        self.fd = signal.fd
        self._signal = signal
        self._ring = ring

    def arm(self) -> None:
        self._ring.want_interrupt()

    def disarm(self) -> None:
        self._ring.want_no_interrupt()

    def pace(self, seconds: float) -> None:
        """A device has no way to be told (NOTF_COAL is not negotiated)."""

    def clear(self) -> None:
        self._signal.clear()

    def wake(self) -> None:
        self._signal.wake()
