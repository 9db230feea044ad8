"""The mempools that a device may use, and where it sees their buffers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ixy.packets.buffers import POOL_BUFFERS, POOL_SHIFT, POOLS, STRIDE
from ixy.packets.mempool import drop, hold

if TYPE_CHECKING:
    from ixy.packets.buffers import Addresses
    from ixy.packets.dma import DmaMapping, DmaMemory
    from ixy.packets.mempool import Mempool


class Mapper(Protocol):
    """What lets a device reach memory: a PCI function, or a VirtIO transport."""

    def map(self, memory: DmaMemory) -> DmaMapping: ...

    def unmap(self, memory: DmaMemory) -> None: ...


class AttachedPools:
    """The pools of one device, held while they are attached.

    Args:
        mapper: lets the device reach their memory.

    Attributes:
        addresses: where the device sees each buffer, see `ixy.packets.buffers.device_address`; after `lie_as`.
    """

    def __init__(self, mapper: Mapper) -> None:
        self.addresses: Addresses = 0
        self._mapper = mapper
        self._before = 0
        self._pools: list[Mempool] = []
        self._lock = threading.Lock()

    def lie_as(self, mapping: DmaMapping, before: int = 0) -> None:
        """Expect all pools to lie for the device as other memory does: in one piece, or each page elsewhere.

        Args:
            before: how many bytes before each packet the device is to begin.
        """
        self._before = before
        if mapping.window is not None:
            self.addresses = mapping.window - before
        else:
            self.addresses = np.zeros(POOLS * POOL_BUFFERS, np.int64)

    def attach(self, pool: Mempool) -> None:
        """Let the device reach the buffers of `pool`, and look each one's address up."""
        with self._lock:
            if pool in self._pools:
                return
            hold(pool, self)
            try:
                mapping = self._mapper.map(pool.memory)
            except BaseException:
                drop(pool, self)
                raise
            if isinstance(self.addresses, np.ndarray):
                offsets = (pool.ids - (pool.number << POOL_SHIFT)) * STRIDE - self._before
                self.addresses[pool.ids] = mapping.addresses(offsets)
            self._pools.append(pool)

    def detach_all(self) -> None:
        """Take all pools from the device. It has stopped, and its rings hold no buffers."""
        while self._pools:
            pool = self._pools.pop()
            self._mapper.unmap(pool.memory)
            drop(pool, self)
