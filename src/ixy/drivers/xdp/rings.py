"""The four rings of an AF_XDP socket, as the two that a device has."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import CountingRing, InterfaceTxRing
from ixy.drivers.rings import NEXT, FilledRing
from ixy.drivers.xdp import datapath, parts
from ixy.drivers.xdp.datapath import GOES_ON, LONGEST, PARTS, SPARES, STATE_WORDS, RxState, TxState
from ixy.jit import Direct
from ixy.packets.buffers import BUFFER_SIZE, POOL_BUFFERS, POOL_SHIFT
from ixy.packets.packets import slots
from ixy.packets.pool import give, pools, take_soon
from ixy.unsafe import Window, own_lines

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.packets.mempool import Mempool

SOL_XDP = 283
_MMAP_OFFSETS = 1
_RX_RING, _TX_RING, _FILL_RING, _COMPLETION_RING = 2, 3, 5, 6
_PLACES = {_RX_RING: 0, _TX_RING: 0x80000000, _FILL_RING: 0x100000000, _COMPLETION_RING: 0x180000000}
_KINDS = (_RX_RING, _TX_RING, _FILL_RING, _COMPLETION_RING)  # in the order of struct xdp_mmap_offsets
_PAGE = 4096


class KernelRing(NamedTuple):
    """One ring, as it is shared with the kernel.

    Attributes:
        producer, consumer, flags: shape (1,), uint32.
        entries: int64, one or two words each.
    """

    producer: NDArray[np.uint32]
    consumer: NDArray[np.uint32]
    flags: NDArray[np.uint32]
    entries: NDArray[np.int64]


class SharedRings:
    """The rings of one socket. While one is mapped, the socket lives, and its queue stays bound.

    Args:
        sock: with its UMEM.
        size: entries of each.
    """

    def __init__(self, sock: socket.socket, size: int) -> None:
        for kind in (_FILL_RING, _COMPLETION_RING, _RX_RING, _TX_RING):
            sock.setsockopt(SOL_XDP, kind, size)
        offsets = struct.unpack("=16Q", sock.getsockopt(SOL_XDP, _MMAP_OFFSETS, 128))
        self._windows: list[Window] = []
        self._rings = {
            kind: self._mapped(sock, kind, size, offsets[4 * i : 4 * i + 4]) for i, kind in enumerate(_KINDS)
        }
        self.rx, self.tx, self.fill, self.completion = (self._rings[kind] for kind in _KINDS)

    def _mapped(self, sock: socket.socket, kind: int, size: int, offsets: Sequence[int]) -> KernelRing:
        producer, consumer, descriptors, flags = offsets
        end = descriptors + size * (16 if kind in (_RX_RING, _TX_RING) else 8)
        window = Window(-(-end // _PAGE) * _PAGE, _PAGE)
        window.map(0, window.size, sock.fileno(), _PLACES[kind])
        self._windows.append(window)
        indices = (window.bytes[place : place + 4].view(np.uint32) for place in (producer, consumer, flags))
        return KernelRing(*indices, entries=window.bytes[descriptors:end].view(np.int64))

    def close(self) -> None:
        """Let go of all."""
        for window in self._windows:
            window.idle()


class XdpRxRing(FilledRing, CountingRing):
    """A receive ring; see `ixy.drivers.RxRing`."""

    kernel = staticmethod(datapath.rx_batch)
    ready = staticmethod(datapath.ready)

    def __init__(self, rings: SharedRings, fd: int, size: int, pool: Mempool, metadata: Sequence[str]) -> None:
        rx, fill = rings.rx, rings.fill
        state = RxState(
            producer=rx.producer,
            consumer=rx.consumer,
            descriptors=rx.entries,
            fill_producer=fill.producer,
            fill_flags=fill.flags,
            fill=fill.entries,
            held=slots(size),
            state=own_lines(STATE_WORDS),
            pool=pool.number,
            fd=fd,
        )
        super().__init__(state, pool, datapath.offer, metadata)


class XdpPartsRxRing(XdpRxRing):
    """A receive ring of packets in up to so many parts."""

    kernel = staticmethod(parts.rx_batch)

    def __init__(
        self, rings: SharedRings, fd: int, size: int, pool: Mempool, metadata: Sequence[str], most: int
    ) -> None:
        super().__init__(rings, fd, size, pool, metadata)
        self.parts = self.state.state[PARTS] = most


class XdpTxRing(InterfaceTxRing):
    """A transmit ring; see `ixy.drivers.TxRing`. Its buffers for copies, as many as it has places, are the pool's.

    Frames may be as long as a buffer until `allow` says otherwise.
    """

    kernel = staticmethod(datapath.tx_batch)
    room = staticmethod(datapath.tx_room)

    def __init__(self, rings: SharedRings, fd: int, size: int, pool: Mempool) -> None:
        tx, completion, held = rings.tx, rings.completion, slots(size)
        state = TxState(
            producer=tx.producer,
            consumer=tx.consumer,
            flags=tx.flags,
            descriptors=tx.entries,
            done_producer=completion.producer,
            done_consumer=completion.consumer,
            done=completion.entries,
            held=held,
            spares=held._replace(ids=np.zeros(size, np.int32)),
            copies=np.zeros(POOL_BUFFERS, np.uint8),
            back=held._replace(ids=np.zeros(size, np.int32)),
            state=own_lines(STATE_WORDS),
            pool=pool.number,
            fd=fd,
            bytes=pools().bytes.reshape(-1),
        )
        super().__init__(state)
        self.allow(BUFFER_SIZE)
        self._kick = Direct(datapath.kick_once_more)

    def allow(self, longest: int) -> None:
        """Send frames up to this length from now on, besides a VLAN tag, and no longer ones."""
        self.state.state[LONGEST] = longest

    def stock(self) -> None:
        """Take buffers for copies out of the pool."""
        ring = self.state
        count = max(take_soon(pools(), ring.pool, ring.spares, self.size), 0)
        ring.copies[ring.spares.ids[:count] - (ring.pool << POOL_SHIFT)] = 1
        ring.state[SPARES] = count

    def sent(self) -> int:
        self._kick((), self.state, pools())
        ring = self.state
        return self.packets - (int(ring.state[NEXT]) - int(ring.consumer[0]) & 0xFFFF_FFFF)

    def drain(self) -> None:
        """Besides: the buffers for copies that are at hand."""
        super().drain()
        give(pools(), self.state.spares, 0, int(self.state.state[SPARES]))
        self.state.state[SPARES] = 0

    def compile_end(self) -> None:
        super().compile_end()
        give(pools(), self.state.spares, 0, 0)


class XdpPartsTxRing(XdpTxRing):
    """A transmit ring of packets in several parts, each of which takes a place."""

    kernel = staticmethod(parts.tx_batch)
    parts = parts.MOST

    def sent(self) -> int:
        """Packets of which a part is still to be taken are not sent."""
        self._kick((), self.state, pools())
        ring, last = self.state, int(self.state.state[NEXT])
        taken = last - (last - int(ring.consumer[0]) & 0xFFFF_FFFF)
        slots_left = np.arange(taken, last) & (self.size - 1)
        return self.packets - int(np.count_nonzero(ring.descriptors[2 * slots_left + 1] & GOES_ON == 0))
