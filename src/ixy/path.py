"""Paths: packets from a receive queue, through a user's function, to a transmit queue, all in compiled code.

The function is marked `@ixy.kernel`. It is given one packet at a time, as an array of bytes, and says what becomes of
it; Numba compiles it into the loop, so it runs at the data path's speed and without the GIL.

    @ixy.kernel
    def raise_byte(packet):
        packet[48] += 1
        return ixy.FORWARD

    path = ixy.Path(a.rx[0], b.tx[0], raise_byte)
    while True:
        path.run()
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from ixy.device import check_batch
from ixy.jit import INTERPRETED, checked, compiled, outlined
from ixy.packets.buffers import ID_MASK, Buffers, buffers, give
from ixy.unsafe import nap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.device import RxQueue, TxQueue

DROP = 0
FORWARD = 1

PacketFunction = Callable[[Any], int]

F = TypeVar("F", bound=PacketFunction)


class _Bytes(np.ndarray):  # pyright: ignore[reportMissingTypeArgument]
    """A packet's bytes that reckon in the interpreter as they do in compiled code: elements are plain integers, and
    one that is assigned is taken modulo 256."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return int(value) if isinstance(value, np.generic) else value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value & 0xFF if isinstance(value, int) else value)


def kernel(function: F) -> F:
    """Mark a function of a packet, to be compiled into a data path.

    The packet is an array of its bytes, shape (length,), uint8; an index outside it raises `IndexError`, which ends
    `Path.run` and loses no buffer. The function returns `FORWARD` or `DROP`. It may use what Numba compiles and
    allocate nothing.
    """
    if not INTERPRETED:
        return checked(function)

    @wraps(function)
    def interpreted(packet: NDArray[np.uint8]) -> int:
        return function(packet.view(_Bytes))

    return cast(F, interpreted)


# Words of a path's `counts`
RECEIVED, FORWARDED, DROPPED, HELD, COUNTS = 0, 1, 2, 3, 8
_ALL = 1 << 16  # more packets than any ring has room for, so that it is cleaned
_IDLE_POLLS = 0xFF  # a mask: after so many polls in vain, yield
POLLS = 1 << 14  # how often a run polls each path, unless it is told


@kernel
def unchanged(_packet: NDArray[np.uint8]) -> int:
    """Forward the packet as it is."""
    return FORWARD


@kernel
def touch(packet: NDArray[np.uint8]) -> int:
    """Raise byte 48 by one, a realistic workload: the packet's first cache line is read and written."""
    packet[48] += 1
    return FORWARD


class PathCounts(NamedTuple):
    """What a path has done with packets. A path loses none: what finds no room in the transmit ring is not received.

    Attributes:
        received: taken from the receive queue.
        forwarded: handed to the transmit queue.
        dropped: by the function's verdict.
    """

    received: int
    forwarded: int
    dropped: int


class PathState(NamedTuple):
    """A path, as its kernel sees it."""

    rx: Any
    tx: Any
    buffers: Buffers
    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    counts: NDArray[np.int64]
    limit: int


class Path:
    """Packets from one receive queue to one transmit queue.

    Args:
        rx, tx: the queues; of two devices or of one.
        function: marked `kernel`; what to do with each packet.
        batch: the most packets taken at a time.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of a ring.
    """

    def __init__(self, rx: RxQueue, tx: TxQueue, function: PacketFunction = unchanged, batch: int = 32) -> None:
        check_batch(batch, min(rx.ring.size, tx.ring.size))
        tx.device.attach(rx.pool)
        self._devices = (rx.device, tx.device)
        self.poll = _poll_kernel(rx.ring.kernel, tx.ring.kernel, tx.ring.room, function)
        ids, lengths = np.zeros(batch, np.int32), np.zeros(batch, np.int32)
        counts = np.zeros(COUNTS, np.int64)
        self.state = PathState(rx.ring.state, tx.ring.state, buffers(), ids, lengths, counts, batch)

    def run(self, polls: int = POLLS) -> int:
        """Poll the receive queue `polls` times and forward what is there; how many packets were received.

        Raises:
            IndexError: the function went outside a packet. The packets at hand were dropped, and counted so.
        """
        return run([self], polls)

    @property
    def counts(self) -> PathCounts:
        """What the path has done so far."""
        counts = self.state.counts
        return PathCounts(*(int(counts[column]) for column in (RECEIVED, FORWARDED, DROPPED)))

    def check_open(self) -> None:
        """Raise `Error` if one of the devices was closed."""
        for device in self._devices:
            device.check_open()

    def recover(self) -> None:
        """Give back the packets at hand when the function raised."""
        counts = self.state.counts
        give(buffers(), self.state.ids, 0, int(counts[HELD]))
        counts[RECEIVED] += counts[HELD]
        counts[DROPPED] += counts[HELD]
        counts[HELD] = 0


def run(paths: Sequence[Path], polls: int = POLLS) -> int:
    """Run one or two paths in turn, as a forwarder between two devices does; how many packets were received.

    Raises:
        IndexError: a function went outside a packet; see `Path.run`.
    """
    for path in paths:
        path.check_open()
    loop = _loop_kernel(*(path.poll for path in paths))
    try:
        return loop(*(path.state for path in paths), polls)
    except BaseException:
        for path in paths:
            path.recover()
        raise


@cache
def _poll_kernel(
    rx_batch: Callable[..., int], tx_batch: Callable[..., int], tx_room: Callable[..., int], function: PacketFunction
) -> Any:
    """The kernel that takes one batch along a path."""

    @outlined
    def fetch_sent(path: PathState) -> None:
        """Have the transmit ring cleaned: the buffers that the receive ring lacks may lie there, sent."""
        tx_room(path.tx, path.buffers, _ALL)

    @compiled
    def poll(path: PathState) -> int:
        ids, lengths, counts = path.ids, path.lengths, path.counts
        # What the transmit ring has no room for stays in the receive ring: if packets are lost, the card counts them.
        limit = min(path.limit, tx_room(path.tx, path.buffers, path.limit))
        received = rx_batch(path.rx, path.buffers, ids, lengths, limit)
        if received == 0:
            if path.buffers.free[path.rx.pool, 0] == 0:
                fetch_sent(path)
            return 0
        counts[HELD] = received
        kept = 0
        for i in range(received):
            if function(path.buffers.bytes[ids[i] & ID_MASK, : lengths[i] & 0xFFFF]) != DROP:
                ids[kept], ids[i] = ids[i], ids[kept]
                lengths[kept] = lengths[i]
                kept += 1
        sent = tx_batch(path.tx, path.buffers, ids, lengths, 0, kept)
        give(path.buffers, ids, sent, received)
        counts[HELD] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += sent
        counts[DROPPED] += received - kept
        return received

    return poll


@cache
def _loop_kernel(first: Any, second: Any = None) -> Any:
    """The loop over one path, or over two in turn."""
    if second is None:

        @compiled
        def loop_one(path: PathState, polls: int) -> int:
            received = idle = 0
            for _ in range(polls):
                count = first(path)
                received += count
                idle = yield_when_idle(count, idle)
            return received

        return loop_one

    @compiled
    def loop_two(one: PathState, two: PathState, polls: int) -> int:
        received = idle = 0
        for _ in range(polls):
            count = first(one) + second(two)
            received += count
            idle = yield_when_idle(count, idle)
        return received

    return loop_two


@compiled
def yield_when_idle(count: int, idle: int) -> int:
    """How long nothing has come, in polls; now and then another thread may have the processor meanwhile."""
    if count > 0:
        return 0
    if idle & _IDLE_POLLS == _IDLE_POLLS:
        nap(0)
    return idle + 1
