"""The descriptor rings of one card, made in its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers import RxSingle, TxSingle
from ixy.drivers.e1000 import datapath, offloads
from ixy.drivers.e1000.datapath import RxState
from ixy.drivers.ixgbe.datapath import send
from ixy.drivers.ixgbe.parts import PARTS
from ixy.drivers.ixgbe.rings import IxgbeOffloadTxRing, IxgbeTxRing, bookkeeping, descriptors
from ixy.drivers.rings import FilledRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses
    from ixy.packets.mempool import Mempool


class E1000RxRing(FilledRing):
    """A receive ring; see `ixy.drivers.RxRing`.

    Args:
        extended: whether the card writes extended descriptors.
    """

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
        *,
        extended: bool,
    ) -> None:
        own = bookkeeping(memory)
        state = RxState(descriptors(memory), tail, *own, addresses, pool.number, True if extended else None)
        super().__init__(state, pool, datapath.offer, metadata)


class E1000PartsRxRing(E1000RxRing):
    """A receive ring whose frames may take several buffers.

    Args:
        parts: the most that one may take.
    """

    kernel = staticmethod(datapath.rx_batch_in_parts)
    single = None

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        pool: Mempool,
        metadata: Sequence[str],
        parts: int,
        *,
        extended: bool,
    ) -> None:
        super().__init__(memory, tail, addresses, pool, metadata, extended=extended)
        self.parts = self.state.state[PARTS] = parts


class E1000TxRing(IxgbeTxRing):
    """A transmit ring; see `ixy.drivers.TxRing`."""

    kernel = staticmethod(datapath.tx_batch)
    single: TxSingle | None = TxSingle(datapath.load_one, send)


class E1000OffloadTxRing(IxgbeOffloadTxRing):
    """A transmit ring that changes packets on their way out, or whose packets lie in several buffers.

    Args:
        cuts_ipv6: whether the card cuts segments of TCP over IPv6 too.
    """

    kernel = staticmethod(offloads.tx_batch)

    def __init__(
        self,
        memory: NDArray[np.uint8],
        tail: NDArray[np.uint32],
        addresses: Addresses,
        does: Sequence[str],
        parts: int,
        longest: int,
        *,
        cuts_ipv6: bool,
    ) -> None:
        super().__init__(memory, tail, addresses, does, parts, longest)
        if cuts_ipv6:
            self.state = self.state._replace(does=self.state.does | offloads.CUTS_IPV6)
