"""A model of a VirtIO device in the same process, as a transport."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ixy.bus import Slot
from ixy.drivers.interrupts import EventFile
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses, register_doorbell
from ixy.packets.dma import DmaMapping, DmaMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.drivers.virtio.features import Features
    from ixy.sim.virtio import BackEnd


class InProcess:
    """See `ixy.drivers.virtio.transports.transport.Transport`.

    Args:
        back_end: the model; it is turned by whoever has it.
    """

    legacy = False
    mac_writable = False
    fixed_size = False

    def __init__(self, back_end: BackEnd) -> None:
        self.address = back_end.name
        self._back_end = back_end
        self._features = 0

    def slot(self) -> Slot:
        return Slot("in this process")

    def reset(self) -> None:
        self._back_end.reset()

    def features(self) -> int:
        return self._back_end.features

    def accept(self, features: Features) -> None:
        self._features = int(features)

    def config_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._back_end.config[offset : offset + size], "little")

    def config_write(self, offset: int, data: bytes) -> None:
        self._back_end.config[offset : offset + len(data)] = data

    def ring_limit(self, index: int) -> int:
        return self._back_end.ring_limit(index)

    def doorbell(self, index: int) -> Doorbell:
        return register_doorbell(self._back_end.doorbells[index : index + 1], 1)

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:  # noqa: ARG002
        self._back_end.set_ring(index, *addresses, self._features)

    def interrupt(self, queue: int, queues: int) -> EventFile:  # noqa: ARG002
        calls = self._back_end.calls
        if 2 * queue not in calls:
            calls[2 * queue] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return EventFile(calls[2 * queue])

    def start(self) -> None:
        """The model runs from the first ring on."""

    def failed(self) -> bool:
        return self._back_end.failed

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """The model stays."""

    def map(self, memory: DmaMemory) -> DmaMapping:
        return DmaMapping.linear(memory, self._back_end.map(memory.offset, memory.size))

    def unmap(self, memory: DmaMemory) -> None:
        self._back_end.unmap(memory.offset, memory.size)

    def close(self) -> None:
        """The model is its owner's to keep."""
        while self._back_end.calls:
            os.close(self._back_end.calls.popitem()[1])
