"""The descriptor rings of one device, made in its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.drivers import RxSingle, TxSingle
from ixy.drivers.ixgbe import datapath
from ixy.drivers.ixgbe import parts as several
from ixy.drivers.ixgbe.datapath import STATE_WORDS, RxState, TxState
from ixy.drivers.rings import FilledRing, SendingRing
from ixy.packets.packets import Packets, slots
from ixy.registers.i82599 import DESCRIPTOR_BYTES, DESCRIPTOR_WORDS
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses
    from ixy.packets.mempool import Mempool


class IxgbeRxRing(FilledRing):
    """A receive ring; see `ixy.drivers.RxRing`.

    Args:
        parts: the most buffers that a frame may take; more than one only if "parts" is among the metadata.
    """

    kernel: Callable[..., int] = staticmethod(datapath.rx_batch)
    ready = staticmethod(datapath.ready)
    single: RxSingle | None = RxSingle(
        datapath.begin, datapath.look, datapath.describe_one, datapath.replace, datapath.finish
    )

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        pool: Mempool,
        metadata: Sequence[str] = (),
        parts: int = 1,
    ) -> None:
        state = RxState(_descriptors(memory), tail, *_bookkeeping(memory), addresses, pool.number)
        super().__init__(state, pool, datapath.offer, metadata)
        if "parts" in metadata:
            self.kernel, self.single = several.rx_batch, None
            self.parts = state.state[several.PARTS] = parts


class IxgbeTxRing(SendingRing):
    """A transmit ring; see `ixy.drivers.TxRing`."""

    kernel = staticmethod(datapath.tx_batch)
    room = staticmethod(datapath.tx_room)
    single: TxSingle | None = TxSingle(datapath.load_one, datapath.send)

    def __init__(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], addresses: Addresses) -> None:
        super().__init__(TxState(_descriptors(memory), tail, *_bookkeeping(memory), addresses))


def _bookkeeping(memory: NDArray[np.uint8]) -> tuple[Packets, NDArray[np.int64]]:
    """The driver's own side of a ring: the buffer in each descriptor, and the words of its state."""
    return slots(len(memory) // DESCRIPTOR_BYTES), own_lines(STATE_WORDS)


def _descriptors(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The ring's words, all ones at first: an address to which the card, enabled too early, cannot do DMA."""
    words = memory.view(np.int64)
    words[:] = -1
    assert len(words) % DESCRIPTOR_WORDS == 0
    return words
