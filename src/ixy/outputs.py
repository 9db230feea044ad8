"""How a path with several outputs takes one batch along: the function's verdict is the number of an output, from 1 on.

All packets of a batch are looked at before the first is sent. Mostly all verdicts are the same: then the batch is sent
as it is. Else each output's packets are picked out.

Outputs may be of several drivers. Those of one kind of ring are a group, a tuple of equal rings that a loop goes over;
groups are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.asking import PacketFunction, PathState, asking, asking_at_once
from ixy.counts import COUNTS, DROPPED, FORWARDED, HELD, LOST, NOW, RECEIVED, TROUBLE
from ixy.jit import checked, compiled, outlined
from ixy.packets.buffers import ID_MASK
from ixy.packets.packets import INDEX_MASK, Packets
from ixy.packets.pool import Pools, free_count, give, refill, take
from ixy.packets.views import packet_view
from ixy.polls import ALL, STOPPED, PollKernels, drop_held, is_stopped
from ixy.unsafe import copy
from ixy.verdicts import DROP, FORWARD, OUTPUTS_MASK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.drivers import RxRing, TxRing

SPARE = 32  # buffers that a transmit ring may keep, sent, until others follow: it is cleaned in groups of so many


class Outputs(NamedTuple):
    """The transmit rings of a path, as its kernels see them.

    Attributes:
        groups: tuples of rings of one kind.
        verdicts: room for those of a batch.
        picked: room for the packets of one output.
        single: room for one.
    """

    groups: tuple[tuple[Any, ...], ...]
    verdicts: NDArray[np.int64]
    picked: Packets
    single: Packets


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
        state: Any = ring.state
        kind = ring.kernel, ring.room, *map(type, (state, state.addresses))
        found.setdefault(kind, []).append(number)
    return Grouped(
        kinds=tuple((kernel, room) for kernel, room, *_ in found),
        groups=tuple(tuple(rings[number].state for number in numbers) for numbers in found.values()),
        order=[number for numbers in found.values() for number in numbers],
    )


def new_outputs(rings: Grouped, packets: Packets) -> Outputs:
    """What the kernels need, for batches such as `packets`. Buffers of packets that are picked have the same owner."""
    size = len(packets.ids)
    picked, single = (
        Packets(np.empty(count, np.int32), np.empty(count, np.int32), holder=packets.holder) for count in (size, 1)
    )
    return Outputs(rings.groups, np.empty(size, np.int64), picked, single)


def poll_kernels(
    rx: RxRing, rings: Grouped, function: PacketFunction, record: np.dtype[Any] | None, *, at_once: bool
) -> PollKernels:
    """The kernels of a path with several outputs, see `polls.poll_kernels`.

    Args:
        at_once: the function is given all packets of a batch at once.
    """
    outputs = len(rings.order)
    if at_once:
        judge = _judging_at_once(asking_at_once(function, record), outputs)
    else:
        judge = _judging(asking(function, record), outputs)
    return _poll(rx.kernel, rings.kinds, tuple(map(len, rings.groups)), tuple(rings.order), judge)


@cache
def _poll(
    rx_batch: Callable[..., int],
    kinds: tuple[tuple[Any, Any], ...],
    sizes: tuple[int, ...],
    order: tuple[int, ...],
    judge: Callable[[PathState, int], bool],
) -> PollKernels:
    room, send = _rings(kinds, sizes)
    places = np.array([0, *(order.index(number) for number in range(len(order)))], np.int64)  # by verdict
    outputs = len(order)

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
    def fetch_buffers(path: PathState) -> None:
        """The buffers that the receive ring lacks may lie in transmit rings, sent."""
        room(path.tx.groups, path.pools, ALL)
        refill(path.pools, path.rx.pool)

    @outlined
    def buffer_for(path: PathState, i: int, output: int) -> int:
        """The buffer in which packet `i`, whose verdict names several outputs, goes to this one: for the last its own,
        for another that of a copy, -1 if there is none."""
        packets, single = path.packets, path.tx.single
        if path.tx.verdicts[i] & OUTPUTS_MASK < 2 << output:
            return packets.ids[i]
        if take(path.pools, path.rx.pool, single, 1) == 0:
            fetch_buffers(path)
            if take(path.pools, path.rx.pool, single, 1) == 0:
                path.counts[LOST] += 1
                return -1
        target, source = single.ids[0] & ID_MASK, packets.ids[i] & ID_MASK
        copy(path.pools.bytes[target], 0, path.pools.bytes[source], 0, packets.lengths[i])
        return single.ids[0]

    @compiled
    def pick(path: PathState, received: int, output: int) -> int:
        """Pick out the packets for one output; how many."""
        packets, picked, verdicts = path.packets, path.tx.picked, path.tx.verdicts
        count = 0
        for i in range(received):
            buffer = -1
            if verdicts[i] == output:
                buffer = packets.ids[i]
            elif verdicts[i] < 0 and verdicts[i] >> output & 1 == 1:
                buffer = buffer_for(path, i, output)
            if buffer >= 0:
                picked.ids[count] = buffer
                picked.lengths[count] = packets.lengths[i]
                count += 1
        return count

    @outlined
    def scatter(path: PathState, received: int) -> int:
        """Deliver to each output its packets; how many have left, each counted once."""
        copied = path.tx.picked
        left = received
        for output in range(outputs + 1):
            count = pick(path, received, output)
            if count > 0:
                deliver(path, copied, output, count)
                if output == DROP:
                    left -= count
        return left

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
        alike = judge(path, received)
        sent = deliver(path, packets, verdicts[0], received) if alike else scatter(path, received)
        counts[HELD] = counts[NOW] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += sent
        counts[DROPPED] += received - sent
        return received

    return PollKernels(poll, drop_held)


@cache
def _judging(ask: Callable[[PathState, Any], int], outputs: int) -> Callable[[PathState, int], bool]:
    """A kernel `judge(path, received)`: note the verdict of each packet; whether all go to the same output."""

    @compiled
    def judge(path: PathState, received: int) -> bool:
        verdicts = path.tx.verdicts
        difference = 0
        for i in range(received & INDEX_MASK):
            buffer = path.packets.ids[i] & ID_MASK
            said = ask(path, packet_view(path.pools.bytes, buffer, path.packets, i, path.counts))
            verdicts[i] = valid(said, outputs, path.counts)
            difference |= verdicts[i] ^ verdicts[0]
        return difference == 0 and verdicts[0] >= 0

    return judge


@cache
def _judging_at_once(ask: Callable[[PathState, Any, int], None], outputs: int) -> Callable[[PathState, int], bool]:
    """The same, where the function is given all packets at once."""

    @compiled
    def judge(path: PathState, received: int) -> bool:
        verdicts = path.tx.verdicts
        for i in range(received & INDEX_MASK):
            verdicts[i] = FORWARD
        ask(path, verdicts, received)
        difference = 0
        for i in range(received & INDEX_MASK):
            verdicts[i] = valid(verdicts[i], outputs, path.counts)
            difference |= verdicts[i] ^ verdicts[0]
        return difference == 0 and verdicts[0] >= 0

    return judge


@checked
def valid(said: int, outputs: int, counts: NDArray[np.int64]) -> int:
    """A verdict, if there is such an output, or are such outputs."""
    if said < 0:
        beyond = (said & OUTPUTS_MASK) >> (outputs + 1)
        if beyond == 0:
            return said & ~1 if said & OUTPUTS_MASK != 0 else DROP
        said = outputs + 1
        while beyond & 1 == 0:
            beyond >>= 1
            said += 1
    if said > outputs:
        counts[TROUBLE], counts[TROUBLE + 1], counts[TROUBLE + 2] = said, outputs, 1
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
