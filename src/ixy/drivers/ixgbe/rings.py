"""The descriptor rings of one device: their memory, and their life from filled to drained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.drivers.ixgbe import datapath
from ixy.drivers.ixgbe.datapath import CLEAN, DROPPED, NEXT, STARVED, STATE_WORDS, RxState, TxState
from ixy.memory.buffers import buffers, give
from ixy.registers.i82599 import DESCRIPTOR_BYTES, DESCRIPTOR_WORDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.memory.mempool import Mempool


class IxgbeRxRing:
    """A receive ring; see `ixy.drivers.RxRing`."""

    kernel = staticmethod(datapath.rx_batch)

    def __init__(
        self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], addresses: NDArray[np.int64], pool: Mempool
    ) -> None:
        self.size = len(memory) // DESCRIPTOR_BYTES
        self.pool = pool
        self._filled = 0
        descriptors = _descriptors(memory)
        ids = np.zeros(self.size, np.int32)
        self.state = RxState(descriptors, tail, ids, np.zeros(STATE_WORDS, np.int64), addresses, pool.number)

    def fill(self) -> None:
        """Give every descriptor a buffer."""
        self._filled = datapath.fill(self.state, buffers())

    def drain(self) -> None:
        """Take all buffers back. The card has stopped."""
        give(buffers(), self.state.ids, 0, self._filled)
        self._filled = 0

    @property
    def dropped(self) -> int:
        return int(self.state.state[DROPPED])

    @property
    def starved(self) -> int:
        return int(self.state.state[STARVED])


class IxgbeTxRing:
    """A transmit ring; see `ixy.drivers.TxRing`."""

    kernel = staticmethod(datapath.tx_batch)

    def __init__(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], addresses: NDArray[np.int64]) -> None:
        self.size = len(memory) // DESCRIPTOR_BYTES
        ids = np.zeros(self.size, np.int32)
        self.state = TxState(_descriptors(memory), tail, ids, np.zeros(STATE_WORDS, np.int64), addresses)

    def drain(self) -> None:
        """Take the buffers back that the card had not sent, or not reported. The card has stopped."""
        state = self.state.state
        slots = np.arange(int(state[CLEAN]), int(state[NEXT])) % self.size
        give(buffers(), self.state.ids[slots], 0, len(slots))
        state[CLEAN] = state[NEXT]

    @property
    def in_flight(self) -> int:
        return int(self.state.state[NEXT] - self.state.state[CLEAN])


def _descriptors(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The ring's words, all ones at first: an address to which the card, enabled too early, cannot do DMA."""
    words = memory.view(np.int64)
    words[:] = -1
    assert len(words) % DESCRIPTOR_WORDS == 0
    return words
