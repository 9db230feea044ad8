"""How a path with several outputs takes one batch along: the function's verdict is the number of an output, from 1 on.

All packets of a batch are looked at before the first is sent. Mostly all verdicts are the same: then the batch is sent
as it is. Else each output's packets are picked out.

Outputs may be of several drivers. Those of one kind of ring are a group, a tuple of equal rings that a loop goes over;
groups are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ixy.jit import checked, compiled, outlined
from ixy.packets.buffers import ID_MASK
from ixy.packets.packets import INDEX_MASK, Packets, carry
from ixy.packets.pool import Pools, free_count, give, refill
from ixy.packets.views import packet_view
from ixy.polls import (
    ALL,
    AT,
    COUNTS,
    DROP,
    DROPPED,
    FORWARDED,
    HELD,
    RECEIVED,
    STOPPED,
    PacketFunction,
    PathState,
    PollKernels,
    asking,
    drop_held,
    is_stopped,
)
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.drivers import RxRing, TxRing

MAX_OUTPUTS = 64
SPARE = 32  # buffers that a transmit ring may keep, sent, until others follow: it is cleaned in groups of so many


class Outputs(NamedTuple):
    """The transmit rings of a path, as its kernels see them.

    Attributes:
        groups: tuples of rings of one kind.
        verdicts: room for those of a batch, int32.
        picked: room for the packets of one output.
    """

    groups: tuple[tuple[Any, ...], ...]
    verdicts: NDArray[np.int32]
    picked: Packets


class Grouped(NamedTuple):
    """Transmit rings by their kinds.

    Attributes:
        kinds: of each group, its kernels: `tx_batch`, `tx_room`.
        groups: the states of its rings.
        order: the number of each ring, as the groups have them, among those that were given.
    """

    kinds: tuple[tuple[Any, Any], ...]
    groups: tuple[tuple[Any, ...], ...]
    order: list[int]


def grouped(rings: Sequence[TxRing]) -> Grouped:
    """Rings of the same kernels, whose devices see memory in the same way, come into one group."""
    found: dict[Any, list[int]] = {}
    for number, ring in enumerate(rings):
        kind = ring.kernel, ring.room, _shape(ring.state)
        found.setdefault(kind, []).append(number)
    return Grouped(
        kinds=tuple((kernel, room) for kernel, room, *_ in found),
        groups=tuple(tuple(rings[number].state for number in numbers) for numbers in found.values()),
        order=[number for numbers in found.values() for number in numbers],
    )


def _shape(state: Any) -> Any:
    """What a ring's state is made of: which arrays are there, which are left out."""
    parts = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else ()
    return type(cast(object, state)), *map(_shape, parts)


def new_outputs(rings: Grouped, packets: Packets) -> Outputs:
    """What the kernels need, for batches such as `packets`. Buffers of packets that are picked have the same owner."""
    size = len(packets.ids)
    columns: list[Any] = [own_lines(size, column.dtype) if column is not None else None for column in packets[:-1]]
    picked = Packets(*columns, holder=packets.holder)
    return Outputs(rings.groups, own_lines(size, np.int32), picked)


def poll_kernels(rx: RxRing, rings: Grouped, function: PacketFunction, record: np.dtype[Any] | None) -> PollKernels:
    """The kernels of a path with several outputs, see `polls.poll_kernels`."""
    sizes = tuple(len(group) for group in rings.groups)
    return _poll(rx.kernel, rings.kinds, sizes, tuple(rings.order), asking(function, record))


@cache
def _poll(
    rx_batch: Callable[..., int],
    kinds: tuple[tuple[Any, Any], ...],
    sizes: tuple[int, ...],
    order: tuple[int, ...],
    ask: Callable[[PathState, Any], int],
) -> PollKernels:
    room, send = _rings(kinds, sizes)
    places = np.array([0, *(order.index(number) for number in range(len(order)))], np.int64)  # by verdict
    outputs = len(order)

    @compiled
    def verdict(path: PathState, i: int) -> int:
        """What the function says of packet `i`: the number of an output, or 0."""
        path.counts[AT] = i
        buffer = path.packets.ids[i] & ID_MASK
        said = ask(path, packet_view(path.pools.bytes, buffer, path.packets, i, path.trouble))
        return valid(said, outputs, path.trouble)

    @compiled
    def deliver(path: PathState, packets: Packets, output: int, count: int) -> int:
        """Send packets to an output, or drop them; how many were sent. There is room: `poll` has looked."""
        sent = 0
        if output != DROP:
            sent = send(path.tx.groups, path.pools, places[output], packets, count)
            path.counts[COUNTS + output - 1] += sent
        give(path.pools, packets, sent, count)
        return sent

    @outlined
    def scatter(path: PathState, received: int) -> int:
        """Pick out each output's packets, and deliver them; how many were sent."""
        packets, picked, verdicts = path.packets, path.tx.picked, path.tx.verdicts
        sent = 0
        for output in range(outputs + 1):
            count = 0
            for i in range(received):
                if verdicts[i] == output:
                    carry(picked, count, packets, i, 1)
                    count += 1
            if count > 0:
                sent += deliver(path, picked, output, count)
        return sent

    @outlined
    def fetch_buffers(path: PathState) -> None:
        """The buffers that the receive ring lacks may lie in transmit rings, sent."""
        room(path.tx.groups, path.pools, ALL)
        refill(path.pools, path.rx.pool)

    @compiled
    def poll(path: PathState) -> int:
        packets, counts, verdicts = path.packets, path.counts, path.tx.verdicts
        if is_stopped(path):
            return STOPPED
        # What one of the rings may have no room for stays in the receive ring.
        limit = room(path.tx.groups, path.pools, path.limit)
        received = rx_batch(path.rx, path.pools, packets, min(limit, path.limit))
        if received == 0:
            if free_count(path.pools, path.rx.pool) == 0:
                fetch_buffers(path)
            return 0
        counts[HELD] = received
        difference = 0
        for i in range(received & INDEX_MASK):
            verdicts[i] = verdict(path, i)
            difference |= verdicts[i] ^ verdicts[0]
        sent = deliver(path, packets, verdicts[0], received) if difference == 0 else scatter(path, received)
        counts[HELD] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += sent
        counts[DROPPED] += received - sent
        return received

    return PollKernels(poll, drop_held)


@checked
def valid(said: int, outputs: int, trouble: NDArray[np.int64]) -> int:
    """A verdict, if there is such an output."""
    if said < 0 or said > outputs:
        trouble[0], trouble[1], trouble[2] = said, outputs, 1
        raise IndexError("output {0} of a path that has {1}")
    return said


def _rings(kinds: tuple[tuple[Any, Any], ...], sizes: tuple[int, ...]) -> tuple[Any, Any]:
    """Kernels over all groups: `room(groups, pools, wanted)`, of the ring that has least, and
    `send(groups, pools, place, packets, count)` through the ring at a place, counted through all groups."""
    room, send = _nowhere
    before = sum(sizes)
    for group in range(len(kinds) - 1, -1, -1):
        before -= sizes[group]
        room, send = _with_group(group, before, *kinds[group], room, send)
    return room, send


@compiled
def _any_room(_groups: Any, _pools: Pools, wanted: int) -> int:
    return wanted


@compiled
def _send_nowhere(_groups: Any, _pools: Pools, _place: int, _packets: Packets, _count: int) -> int:
    return 0


_nowhere = _any_room, _send_nowhere


@cache
def _with_group(group: int, before: int, tx_batch: Any, tx_room: Any, other_room: Any, other_send: Any) -> Any:
    """The same kernels for one group more, which comes first and begins at place `before`."""

    @compiled
    def room(groups: Any, pools: Pools, wanted: int) -> int:
        rings = groups[group]
        least = other_room(groups, pools, wanted)
        for k in range(len(rings)):
            least = min(least, tx_room(rings[k], pools, wanted))
        return least

    @compiled
    def send(groups: Any, pools: Pools, place: int, packets: Packets, count: int) -> int:
        rings = groups[group]
        if before <= place < before + len(rings):
            return tx_batch(rings[place - before], pools, packets, 0, count)
        return other_send(groups, pools, place, packets, count)

    return room, send
