"""The kernel's side of an AF_XDP socket's rings, played by a test; and rings of ours that are this thread's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from ixy.drivers.rings import ENTERED, enter, exit_from, leave, seize
from ixy.drivers.xdp.datapath import HEADROOM
from ixy.drivers.xdp.rings import KernelRing, XdpRxRing, XdpTxRing
from ixy.packets.buffers import STRIDE
from ixy.packets.mempool import Mempool
from ixy.packets.pool import available, pools, release, wait_for

SIZE = 64
OFFSET = 256 << 48  # as the kernel tells where in a chunk a frame begins


class Kernel:
    """The other side of the four rings, which are plain arrays here."""

    def __init__(self) -> None:
        def ring(words: int) -> KernelRing:
            return KernelRing(*(np.zeros(1, np.uint32) for _ in range(3)), entries=np.zeros(words * SIZE, np.int64))

        self.rings: Any = SimpleNamespace(rx=ring(2), tx=ring(2), fill=ring(1), completion=ring(1))
        self.filled, self.taken = 0, 0

    def buffers(self, count: int) -> list[int]:
        """Addresses of buffers that it was given to receive into, the first ones."""
        fill = self.rings.fill
        assert self.filled + count <= int(fill.producer[0])
        found = [int(fill.entries[(self.filled + i) % SIZE]) for i in range(count)]
        self.filled += count
        return found

    def deliver(self, address: int, length: int) -> None:
        rx = self.rings.rx
        place = int(rx.producer[0])
        assert place - int(rx.consumer[0]) < SIZE
        rx.entries[2 * (place % SIZE)] = address | OFFSET
        rx.entries[2 * (place % SIZE) + 1] = length
        rx.producer[0] += 1

    def to_send(self) -> list[tuple[int, int]]:
        """Address and length of what it has not sent yet."""
        tx = self.rings.tx
        found = [tuple(tx.entries[2 * (i % SIZE) :][:2].tolist()) for i in range(self.taken, int(tx.producer[0]))]
        self.taken = int(tx.producer[0])
        tx.consumer[0] = tx.producer[0]
        return found

    def complete(self, address: int) -> None:
        done = self.rings.completion
        done.entries[int(done.producer[0]) % SIZE] = address
        done.producer[0] += 1


@contextmanager
def receiving(kernel: Kernel, pool: Mempool, made: XdpRxRing | None = None) -> Iterator[XdpRxRing]:
    """A receive ring that is this thread's; in the end all buffers are free again."""
    ring = made or XdpRxRing(kernel.rings, -1, SIZE, pool, ())
    ring.fill()
    entered = enter(ring.state, pools())
    assert entered == ENTERED
    yield ring
    exit_from(ring.state, pools())
    ring.drain()
    assert available(pools(), pool.number) == pool.capacity


@contextmanager
def sending(kernel: Kernel, pool: Mempool, fd: int = -1, made: XdpTxRing | None = None) -> Iterator[XdpTxRing]:
    """Likewise a transmit ring."""
    ring = made or XdpTxRing(kernel.rings, fd, SIZE, pool)
    ring.stock()
    assert wait_for(pools().words, pool.number)
    assert seize(ring.state.state)
    yield ring
    leave(ring.state.state)
    release(pools().words, pool.number)
    ring.drain()
    assert available(pools(), pool.number) == pool.capacity


def number(address: int) -> int:
    """Of the buffer that begins behind the kernel's headroom."""
    assert (address + HEADROOM) % STRIDE == 0
    return (address + HEADROOM) // STRIDE
