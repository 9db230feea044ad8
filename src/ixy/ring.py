"""Rings between the threads of a process: packets that one thread, or several, hand to another.

    ring = ixy.Ring()
    first = ixy.Path(a.rx[0], ring.tx, count)      # run by one thread
    second = ixy.Path(ring.rx, b.tx[0], translate)  # run by another

What is handed over are the packets' buffers, never their bytes. A ring is much like a device whose wire leads from its
transmit queues to its receive queue, and it lives and ends as a device does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count as count_from
from typing import TYPE_CHECKING
from weakref import WeakSet

from ixy.arguments import integer
from ixy.device import MAX_RING_SIZE, Port, RxQueue, TxQueue
from ixy.drivers.lanes import new_lanes
from ixy.errors import ConfigurationError, Error
from ixy.packets import checking
from ixy.packets.batch import Lender, free_loan
from ixy.packets.mempool import Mempool, drop, hold
from ixy.packets.packets import METADATA, check_metadata

if TYPE_CHECKING:
    from ixy.packets.batch import Taker

MIN_SIZE = 32  # packets; as many as a batch has, unless it is told
MAX_PRODUCERS = 64

# A ring keeps the pools that its packets are of, as devices do.
# pyright: reportPrivateUsage=false

_numbers = count_from(1)

# Of who attaches a pool to rings: a second thread that sends packets of it waits until all behind them have it.
_attaching = threading.RLock()


class Ring(Port, Lender):
    """A bounded queue of packets from one thread to another, or from several.

    Without room, `tx` takes no packets, and a path that leads there receives none. What a thread has sent arrives in
    order. Buffers go home by themselves, whoever lets go of the packets. A pool that has sent packets through a ring
    stays in memory until the ring is closed, also if its device is closed before; closing gives back what is left in
    the ring. A ring that nobody refers to any more is closed.

    Args:
        size: how many packets it has room for, for each producer; a power of two, from 32 on.
        producers: how many threads send at once, 1 to 64.
        metadata: what it carries of each packet besides the length, see `ixy.open`; 0 where the sender knows nothing.

    Attributes:
        rx: where packets come out, for paths and for `rx.receive()`.
        producers: where they go in, a transmit queue for each producer.

    Raises:
        ConfigurationError: a parameter is out of range.
        TypeError: a parameter is of a wrong type.
    """

    _remedy = "make a new one"

    def __init__(self, size: int = 1024, *, producers: int = 1, metadata: Sequence[str] = ()) -> None:
        producers = integer("producers", producers, 1, MAX_PRODUCERS)
        size = integer("size", size, MIN_SIZE, MAX_RING_SIZE // producers)
        if size.bit_count() != 1:
            raise ConfigurationError(f"size {size}: powers of two up to {MAX_RING_SIZE // producers} are possible")
        number = next(_numbers)
        metadata = check_metadata("ring", metadata, METADATA)
        Lender.__init__(self)
        self.number = -number  # those of mempools are positive
        self._kept: list[Mempool] = []
        self._holder = object()  # by which pools know it: that keeps no ring alive
        self._takers: WeakSet[Taker] = WeakSet()
        rx, tx = new_lanes(size, producers, self, metadata)
        self._lanes = rx
        self.rx = RxQueue(self, rx, "rx")
        names = ["tx"] if producers == 1 else [f"producers[{k}]" for k in range(producers)]
        self.producers = [TxQueue(self, ring, name) for ring, name in zip(tx, names, strict=True)]
        Port.__init__(self, f"ring {number}")
        checking.name(rx.state.held, self.address)

    @property
    def tx(self) -> TxQueue:
        """Where the first producer puts packets in, mostly the only one."""
        return self.producers[0]

    def __len__(self) -> int:
        """How many packets are in the ring."""
        return self._lanes.waiting

    def attach(self, pool: Mempool) -> None:
        self._check()  # here: in a forked child somebody may have the lock for ever
        with _attaching:
            with self._closing:
                self._check()
                if pool in self._kept:
                    return
                hold(pool, self._holder)
                self._kept.append(pool)  # first: a ring may lead back to itself
            try:
                self._attach_behind(pool)
            except BaseException:
                with self._closing:
                    if pool in self._kept:
                        self._kept.remove(pool)
                        drop(pool, self._holder)
                raise

    def _attach_behind(self, pool: Mempool) -> None:
        for taker in list(self._takers):
            try:
                taker.attach(pool)
            except Error:
                if not taker.closed:
                    raise

    def supply(self, taker: Taker) -> None:
        self._check()
        self._takers.add(taker)  # first: a pool that comes meanwhile is attached by both
        for pool in list(self._kept):
            taker.attach(pool)

    def _takes_back(self) -> bool:
        return self._owner.mine()  # closing takes back what batches have before it lets pools go

    def _queues(self) -> Sequence[RxQueue | TxQueue]:
        return *self.producers, self.rx

    def _give_up(self) -> None:
        self._lanes.drain()
        for loan in list(self._loans):
            free_loan(self._pools, loan)
        while self._kept:
            drop(self._kept[-1], self._holder)
            self._kept.pop()

    def __repr__(self) -> str:
        return f"<Ring {-self.number}: {len(self)} packets{', closed' if self.closed else ''}>"
