"""The mempools that a device may use, and where it sees their buffers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ixy.packets.buffers import POOL_BUFFERS, POOL_SHIFT, POOLS, STRIDE
from ixy.packets.mempool import drop, hold

if TYPE_CHECKING:
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
        addresses: the device's address of each packet buffer by number, int64; of what lies before it, if `attach` was
            told so.
    """

    def __init__(self, mapper: Mapper) -> None:
        self.addresses = np.zeros(POOLS * POOL_BUFFERS, np.int64)
        self._mapper = mapper
        self._pools: list[Mempool] = []
        self._lock = threading.Lock()

    def attach(self, pool: Mempool, before: int = 0) -> None:
        """Let the device reach the buffers of `pool`, and look each one's address up.

        Args:
            before: how many bytes before the packet the device is to begin.
        """
        with self._lock:
            if pool in self._pools:
                return
            hold(pool, self)
            try:
                mapping = self._mapper.map(pool.memory)
            except BaseException:
                drop(pool, self)
                raise
            offsets = (pool.ids - (pool.number << POOL_SHIFT)) * STRIDE - before
            self.addresses[pool.ids] = mapping.addresses(offsets)
            self._pools.append(pool)

    def detach_all(self) -> None:
        """Take all pools from the device. It has stopped, and its rings hold no buffers."""
        while self._pools:
            pool = self._pools.pop()
            self._mapper.unmap(pool.memory)
            drop(pool, self)
