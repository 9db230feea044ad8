"""The descriptor rings of one device, made in its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.drivers import RxSingle, TxSingle
from ixy.drivers.ixgbe import coalescing, datapath, offloads
from ixy.drivers.ixgbe import parts as several
from ixy.drivers.ixgbe.coalescing import CoalescingRxState
from ixy.drivers.ixgbe.datapath import CLEAN_GROUP, STATE_WORDS, RxState, TxState
from ixy.drivers.ixgbe.offloads import TxOffloadState
from ixy.drivers.rings import FilledRing, SendingRing
from ixy.packets.packets import Packets, slots
from ixy.registers.i82599 import DESCRIPTOR_BYTES, DESCRIPTOR_WORDS
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses
    from ixy.packets.mempool import Mempool


class IxgbeRxRing(FilledRing):
    """A receive ring; see `ixy.drivers.RxRing`."""

    kernel = staticmethod(datapath.rx_batch)
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
    ) -> None:
        state = RxState(descriptors(memory), tail, *bookkeeping(memory), addresses, pool.number)
        super().__init__(state, pool, datapath.offer, metadata)


class IxgbePartsRxRing(IxgbeRxRing):
    """A receive ring whose frames may take several buffers.

    Args:
        parts: the most that one may take.
    """

    kernel = staticmethod(several.rx_batch)
    single = None

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        pool: Mempool,
        metadata: Sequence[str],
        parts: int,
    ) -> None:
        super().__init__(memory, tail, addresses, pool, metadata)
        self.parts = self.state.state[several.PARTS] = parts


class IxgbeCoalescingRxRing(FilledRing):
    """A receive ring whose packets may be several segments that the card has put together.

    Args:
        parts: the most buffers that a packet may lie in.
    """

    kernel = staticmethod(coalescing.rx_batch)
    ready = staticmethod(datapath.ready)

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        pool: Mempool,
        metadata: Sequence[str],
        parts: int,
    ) -> None:
        held, words = bookkeeping(memory)
        taken, chain = own_lines(len(held.ids)), own_lines(len(held.ids))
        own = held, words, addresses, pool.number, parts, taken, chain
        super().__init__(CoalescingRxState(descriptors(memory), tail, *own), pool, datapath.offer, metadata)
        self.parts = parts


class IxgbeTxRing(SendingRing):
    """A transmit ring; see `ixy.drivers.TxRing`."""

    kernel = staticmethod(datapath.tx_batch)
    room = staticmethod(datapath.tx_room)
    single: TxSingle | None = TxSingle(datapath.load_one, datapath.send)

    def __init__(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], addresses: Addresses) -> None:
        super().__init__(TxState(descriptors(memory), tail, *bookkeeping(memory), addresses))


class IxgbeOffloadTxRing(SendingRing):
    """A transmit ring that changes packets on their way out, or whose packets lie in several buffers.

    Args:
        asked: what it is to do, names from `ixy.drivers.offloads.OFFLOADS`; others are left out.
        parts: the most buffers that a packet may lie in.
        longest: bytes that a frame may have, without the frame check sequence.
    """

    kernel = staticmethod(offloads.tx_batch)
    room = staticmethod(offloads.tx_room)

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        asked: Sequence[str],
        parts: int,
        longest: int,
    ) -> None:
        held, words = bookkeeping(memory, offloads.STATE_WORDS)
        marks = own_lines(2 * len(held.ids))
        self.offloads: Sequence[str] = tuple(name for name in asked if name in offloads.DOES)
        self.parts = parts
        does = sum(offloads.DOES[name] for name in self.offloads)
        # Beside those of which the card has not reported, there is always room for the longest packet, and a context.
        group = min(CLEAN_GROUP, len(held.ids) - 1 - parts - 1)
        own = held, words, addresses, marks, does, group, longest
        super().__init__(TxOffloadState(descriptors(memory), tail, *own))

    @property
    def refused(self) -> int:
        """Packets that did not leave, longer than a frame may be."""
        return int(self.state.state[offloads.REFUSED])

    @property
    def unchanged(self) -> int:
        """Packets that left as they were: their headers are not what they would have to be."""
        return int(self.state.state[offloads.UNCHANGED])

    @property
    def more_frames(self) -> int:
        """By how many the frames that leave are more than the packets that the ring took."""
        return int(self.state.state[offloads.FRAMES])


def bookkeeping(memory: NDArray[np.uint8], words: int = STATE_WORDS) -> tuple[Packets, NDArray[np.int64]]:
    """The driver's own side of a ring: the buffer in each descriptor, and the words of its state."""
    return slots(len(memory) // DESCRIPTOR_BYTES), own_lines(words)


def descriptors(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The ring's words, all ones at first: an address to which the card, enabled too early, cannot do DMA."""
    words = memory.view(np.int64)
    words[:] = -1
    assert len(words) % DESCRIPTOR_WORDS == 0
    return words
