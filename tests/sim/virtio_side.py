"""The device's side of a VirtIO ring, written to sections 2.7 and 2.8 of the specification 1.2, byte by byte.

It knows nothing of the driver but the memory in which the ring lies, checks what the driver writes there, and uses
buffers in whatever order it is told.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ixy.sim.virtio import BUS_BASE, Queue

NEXT_FLAG, WRITE_FLAG = 1, 2
AVAIL_BIT, USED_BIT = 1 << 7, 1 << 15  # of the flags in a packed ring


class Buffer(NamedTuple):
    """A buffer that the driver has made available."""

    id: int
    address: int
    length: int
    writable: bool


class Side:
    """One ring.

    Args:
        queue: where its parts lie in the memory.
        base: the address of the memory's first byte in descriptors.
        begin: so many places were used before, by another device (SET_VRING_BASE).

    Attributes:
        with_device: the buffers that were made available and not used, by their ids.
    """

    def __init__(self, queue: Queue, base: int = BUS_BASE, begin: int = 0) -> None:
        self._queue = queue
        self._memory: Any = queue.memory
        if isinstance(queue.memory, np.ndarray):
            self._memory = memoryview(queue.memory)
        self._base = base
        self._looked = self._used = begin  # so many places
        self.with_device: dict[int, Buffer] = {}

    def look(self) -> list[Buffer]:
        """What has been made available since the last look."""
        found: list[Buffer] = []
        while buffer := self._packed() if self._queue.packed else self._split():
            assert buffer.id < self._queue.size
            assert buffer.id not in self.with_device
            self._looked += 1
            self.with_device[buffer.id] = buffer
            found.append(buffer)
        return found

    def read(self, buffer: Buffer) -> bytes:
        """What is in a buffer, header included."""
        start = buffer.address - self._base
        return bytes(self._memory[start : start + buffer.length])

    def write(self, buffer: Buffer, data: bytes) -> None:
        assert buffer.writable
        assert len(data) <= buffer.length
        start = buffer.address - self._base
        self._memory[start : start + len(data)] = data

    def use(self, id: int, length: int, batch: int = 1) -> None:  # noqa: A002
        """Say that a buffer was used; with IN_ORDER, that it is the last of a batch of so many (2.7.9, 2.8.7)."""
        for before in list(self.with_device)[: batch - 1]:
            del self.with_device[before]
        self.with_device.pop(id, None)
        place = self._used % self._queue.size
        if self._queue.packed:
            both = AVAIL_BIT | USED_BIT if self._used // self._queue.size % 2 == 0 else 0
            at = self._queue.descriptors + 16 * place
            self._set(at + 8, 4, length)
            self._set(at + 12, 2, id)
            self._set(at + 14, 2, both)
        else:
            at = self._queue.device + 4 + 8 * place
            self._set(at, 4, id)
            self._set(at + 4, 4, length)
            self._set(self._queue.device + 2, 2, (self._used + batch) & 0xFFFF)
        self._used += batch

    def index(self, value: int) -> None:
        """Say that so many places were used, whatever is true (2.7.8)."""
        self._set(self._queue.device + 2, 2, value & 0xFFFF)

    def _split(self) -> Buffer | None:
        """2.7.5 and 2.7.6."""
        if self._get(self._queue.driver + 2, 2) == self._looked & 0xFFFF:
            return None
        number = self._get(self._queue.driver + 4 + 2 * (self._looked % self._queue.size), 2)
        at = self._queue.descriptors + 16 * number
        flags = self._get(at + 12, 2)
        assert flags in (0, WRITE_FLAG)
        return Buffer(number, self._get(at, 8), self._get(at + 8, 4), flags == WRITE_FLAG)

    def _packed(self) -> Buffer | None:
        """2.8.13: available if the AVAIL bit is the wrap counter, which is 1 at first, and the USED bit is not."""
        at = self._queue.descriptors + 16 * (self._looked % self._queue.size)
        flags = self._get(at + 14, 2)
        wrap = self._looked // self._queue.size % 2 == 0
        if bool(flags & AVAIL_BIT) != wrap or bool(flags & USED_BIT) == wrap:
            return None
        assert flags & ~(AVAIL_BIT | USED_BIT) in (0, WRITE_FLAG)
        return Buffer(self._get(at + 12, 2), self._get(at, 8), self._get(at + 8, 4), bool(flags & WRITE_FLAG))

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self._memory[offset : offset + size], "little")

    def _set(self, offset: int, size: int, value: int) -> None:
        self._memory[offset : offset + size] = value.to_bytes(size, "little")
