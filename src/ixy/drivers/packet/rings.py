"""The rings of a device, one socket for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers.linux.rings import CountingRing, InterfaceTxRing
from ixy.drivers.packet import datapath, parts
from ixy.drivers.packet.datapath import STATE_WORDS, RxState, TxState
from ixy.drivers.rings import DROPPED, STARVED, Ring
from ixy.jit import Direct
from ixy.packets.buffers import MAX_PARTS
from ixy.packets.packets import new_packets, slots
from ixy.packets.pool import pools
from ixy.unsafe import own_lines
from ixy.unsafe.sockets import new_message, new_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers import RxSingle
    from ixy.packets.mempool import Mempool


class PacketRxRing(Ring, CountingRing):
    """A receive ring; see `ixy.drivers.RxRing`. It holds no buffers: packets lie in the kernel's blocks.

    Args:
        frames: shared with the kernel, uint8.
        block_bytes: of a block.
        size: how many descriptors it is to count as.
        pool: where buffers come from.
        metadata: what is told of each packet.
    """

    kernel = staticmethod(datapath.rx_batch)
    ready = staticmethod(datapath.ready)
    single: RxSingle | None = None

    def __init__(
        self, frames: NDArray[np.uint8], block_bytes: int, size: int, pool: Mempool, metadata: Sequence[str]
    ) -> None:
        words, buffers = frames.view("uint32"), pools().bytes.reshape(-1)
        state = own_lines(STATE_WORDS)
        super().__init__(RxState(frames, words, block_bytes, slots(size), state, buffers, pool.number))
        self.pool = pool
        self.metadata: Sequence[str] = tuple(metadata)

    @property
    def dropped(self) -> int:
        return int(self.state.state[DROPPED])

    @property
    def starved(self) -> int:
        return int(self.state.state[STARVED])


class PacketPartsRxRing(PacketRxRing):
    """The same for packets that may be longer than a buffer."""

    kernel = staticmethod(parts.rx_batch)
    parts = MAX_PARTS


class PacketTxRing(InterfaceTxRing):
    """A transmit ring; see `ixy.drivers.TxRing`.

    Args:
        fd: the socket.
        size: how many packets may wait until the socket takes them.
        in_parts: packets may lie in several buffers.
    """

    holds_chains = True

    kernel = staticmethod(datapath.tx_batch)
    room = staticmethod(datapath.tx_room)

    def __init__(self, fd: int, size: int, *, in_parts: bool = False) -> None:
        state = TxState(
            held=new_packets(size, ("parts",) if in_parts else ()),
            state=own_lines(STATE_WORDS),
            bytes=pools().bytes.reshape(-1),
            messages=new_messages(size),
            message=new_message(MAX_PARTS),
            fd=fd,
        )
        super().__init__(state)
        self.parts = MAX_PARTS if in_parts else 1
        self._flush = Direct(datapath.flush_once_more)

    def sent(self) -> int:
        self._flush((), self.state, pools())
        return self.packets - self.in_flight
