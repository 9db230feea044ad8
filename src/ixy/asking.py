"""What a path works on, and how it asks the user's function: for each packet, or for a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.jit import INTERPRETED, compiled
from ixy.kernels.check import check_nothing
from ixy.kernels.check import verdict as checked_verdict
from ixy.packets.packets import Packets
from ixy.packets.pool import Pools
from ixy.packets.views import batch_view, record_view

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.views import InterpretedBatch, InterpretedPacket

PacketFunction = Callable[..., int]
BatchFunction = Callable[..., None]


class PathState(NamedTuple):
    """A path, as its kernels see it.

    Attributes:
        tx: the state of the transmit ring, or `Outputs` where there are several.
        words: the words of state of every transmit ring.
        record: the bytes of the user's record; None where the function takes none.
        counts: its words, see `ixy.counts`.
        culprit: the first bytes of the packet with which the function raised an exception.
    """

    rx: Any
    tx: Any
    words: tuple[NDArray[np.int64], ...]
    pools: Pools
    packets: Packets
    counts: NDArray[np.int64]
    limit: int
    record: NDArray[np.uint8] | None
    culprit: NDArray[np.uint8]


@cache
def _interpreted(function: PacketFunction) -> PacketFunction:
    """A function of the user's as an interpreted path calls it."""

    @wraps(function)
    def call(packet: InterpretedPacket, *record: Any) -> int:
        with packet.at_hand():
            return checked_verdict(function, function(packet, *record))

    return call


@cache
def asking(function: PacketFunction, record: np.dtype[Any] | None) -> Callable[[PathState, Any], int]:
    """A kernel `ask(path, packet)`: what the user's function says of a packet."""
    if INTERPRETED:
        function = _interpreted(function)
    if record is None:

        @compiled
        def ask(_path: PathState, packet: Any) -> int:
            return function(packet)

        return ask

    view = record_view(record)

    @compiled
    def ask_with_record(path: PathState, packet: Any) -> int:
        return function(packet, view(path.record, path.counts))

    return ask_with_record


@cache
def asking_at_once(function: BatchFunction, record: np.dtype[Any] | None) -> Callable[[PathState, Any, int], None]:
    """A kernel `ask(path, verdicts, count)`: what the user's function says of the first `count` packets."""
    if INTERPRETED:
        function = _interpreted_at_once(function)
    if record is None:

        @compiled
        def ask(path: PathState, verdicts: NDArray[np.int64], count: int) -> None:
            function(batch_view(path.pools, path.packets, verdicts, count, path.counts))

        return ask

    view = record_view(record)

    @compiled
    def ask_with_record(path: PathState, verdicts: NDArray[np.int64], count: int) -> None:
        batch = batch_view(path.pools, path.packets, verdicts, count, path.counts)
        function(batch, view(path.record, path.counts))

    return ask_with_record


@cache
def _interpreted_at_once(function: BatchFunction) -> BatchFunction:

    @wraps(function)
    def call(batch: InterpretedBatch, *record: Any) -> None:
        with batch.at_hand():
            check_nothing(function, function(batch, *record))

    return call
