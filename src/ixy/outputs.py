"""How a path with several outputs takes one batch along: the function's verdict is the number of an output, from 1 on.

All packets of a batch are looked at before the first is sent. Mostly all verdicts are the same: then the batch is sent
as it is. Else packets are sorted by their outputs; only if one of them goes to several are each output's picked out.

Outputs may be of several drivers. Those of one kind of ring are a group, a tuple of equal rings that a loop goes over;
groups are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ixy.asking import BatchFunction, PacketFunction, PathState, asking, asking_at_once
from ixy.counts import AT, BED, COUNTS, DROPPED, FORWARDED, HELD, LOST, NOW, RECEIVED, ROOM, TROUBLE
from ixy.jit import checked, compiled, outlined
from ixy.packets.buffers import ID_MASK, MAX_PARTS
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Packets, carry
from ixy.packets.parts import link
from ixy.packets.pool import NOWHERE, Pools, free_count, give, pool_of, refill, take, take_soon
from ixy.packets.views import packet_view
from ixy.polls import ALL, STOPPED, PollKernels, drop_held, is_stopped, room_for, rouse
from ixy.unsafe import call_if, copy, load_acquire, move, own_lines, peek, put
from ixy.verdicts import DROP, FORWARD, OUTPUTS_MASK, UP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.drivers import RxRing, TxRing

ALIKE, APART, SEVERAL = 0, 1, 2  # all packets go to one output, or each to one, or one of them to several
SPARE = 32  # buffers that a transmit ring may keep, sent, until others follow: it is cleaned in groups of so many


class Outputs(NamedTuple):
    """The transmit rings of a path, as its kernels see them.

    Attributes:
        groups: tuples of rings of one kind.
        verdicts: room for those of a batch.
        ends: room for a place for each output, one for packets that are dropped, and one for Python.
        picked: room for packets, by their outputs.
        single: room for one.
        up: the state of the ring to Python; None where there is none.
    """

    groups: tuple[tuple[Any, ...], ...]
    verdicts: NDArray[np.int64]
    ends: NDArray[np.int64]
    picked: Packets
    single: Packets
    up: Any


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


def grouped(rings: Sequence[TxRing], parts: int = 1) -> Grouped:
    """Rings of the same kernels, whose devices see memory in the same way, come into one group.

    Args:
        parts: the most that packets are in.
    """
    found: dict[Any, list[int]] = {}
    for number, ring in enumerate(rings):
        kind = ring.kernel, room_for(parts, ring), _shape(ring.state)
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


def new_outputs(rings: Grouped, up: TxRing | None, packets: Packets) -> Outputs:
    """What the kernels need, for batches such as `packets`. Buffers of packets that are picked have the same owner."""
    picked = _columns_like(packets, len(packets.ids))
    verdicts, ends = own_lines(len(packets.ids)), own_lines(len(rings.order) + 2)
    return Outputs(rings.groups, verdicts, ends, picked, _columns_like(packets, 1), up.state if up else None)


def _columns_like(packets: Packets, count: int) -> Packets:
    """Room for `count` packets, with the columns that these have, and the same owner."""
    columns: list[Any] = [own_lines(count, column.dtype) if column is not None else None for column in packets[:-1]]
    return Packets(*columns, holder=packets.holder)


def poll_kernels(
    rx: RxRing,
    rings: Grouped,
    up: TxRing | None,
    function: PacketFunction | BatchFunction,
    record: np.dtype[Any] | None,
    *,
    at_once: bool,
) -> PollKernels:
    """The kernels of a path with several outputs, see `polls.poll_kernels`.

    Args:
        up: the ring to Python, if there is one.
        at_once: the function is given all packets of a batch at once.
    """
    outputs, upward = len(rings.order), up.kernel if up else None
    if at_once:
        judge = _judging_at_once(asking_at_once(cast(BatchFunction, function), record), outputs, upward is not None)
    else:
        judge = _judging(asking(cast(PacketFunction, function), record), outputs, upward is not None)
    room, send = _rings(rings.kinds, tuple(map(len, rings.groups)))
    return _poll(rx.kernel, room, judge, outputs, _delivering(send, tuple(rings.order), upward))


@cache
def _poll(
    rx_batch: Callable[..., int],
    room: Callable[[Any, Pools, int], int],
    judge: Callable[[PathState, int], int],
    outputs: int,
    deliver: Callable[[PathState, Packets, int, int, int], None],
) -> PollKernels:
    fetch_buffers = _fetching(room)
    deliver_sorted, deliver_copies = _sorting(outputs, deliver), _copying(outputs, deliver, fetch_buffers)

    @compiled
    def poll(path: PathState) -> int:
        packets, counts, verdicts = path.packets, path.counts, path.tx.verdicts
        if is_stopped(path):
            return STOPPED
        # What one of the rings may have no room for stays in the receive ring. Nobody else sends: they are asked once
        # for many polls.
        if counts[ROOM] < path.limit:
            counts[ROOM] = room(path.tx.groups, path.pools, ALL)
        received = rx_batch(path.rx, path.pools, packets, min(counts[ROOM], path.limit))
        counts[ROOM] -= received
        if received == 0:
            if free_count(path.pools, path.rx.pool) == 0:
                fetch_buffers(path)
            if load_acquire(counts, BED) != 0:
                rouse(counts)
            return 0
        counts[HELD] = received
        goes = judge(path, received)
        if goes == ALIKE:
            dropped = received if verdicts[0] == DROP else 0
            deliver(path, packets, verdicts[0], 0, received)
        elif goes == APART:
            dropped = deliver_sorted(path, received)
        else:
            dropped = deliver_copies(path, received)
        counts[HELD] = counts[NOW] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += received - dropped
        counts[DROPPED] += dropped
        return received

    return PollKernels(poll, drop_held)


@cache
def _fetching(room: Callable[[Any, Pools, int], int]) -> Callable[[PathState], None]:
    @outlined
    def fetch_buffers(path: PathState) -> None:
        """The buffers that the receive ring lacks may lie in transmit rings, sent."""
        room(path.tx.groups, path.pools, ALL)
        refill(path.pools, path.rx.pool)

    return fetch_buffers


@cache
def _delivering(send: Any, order: tuple[int, ...], upward: Callable[..., int] | None) -> Any:
    places = np.array([0, *(order.index(number) for number in range(len(order)))], np.int64)  # by verdict
    hand_up = _nobody_above if upward is None else _handing_up(upward)
    last = len(order) + 1  # as a place among the outputs: Python

    @compiled
    def deliver(path: PathState, packets: Packets, output: int, first: int, end: int) -> None:
        """Send packets `first` to `end` to an output, or drop them. There is room: `poll` has looked, but not at the
        ring to Python."""
        sent = first
        if output >= last:
            sent += hand_up(path, packets, first, end)
        elif output != DROP:
            sent += send(path.tx.groups, path.pools, places[output], packets, first, end)
            path.counts[COUNTS + output - 1] += sent - first
        give(path.pools, packets, sent, end)

    return deliver


@cache
def _sorting(outputs: int, deliver: Any) -> Callable[[PathState, int], int]:
    last = outputs + 1

    @outlined
    def deliver_sorted(path: PathState, received: int) -> int:
        """Sort packets by their outputs, and deliver each output's; how many are dropped."""
        picked, verdicts, ends = path.tx.picked, path.tx.verdicts, path.tx.ends
        for place in range(last + 1):
            ends[place] = 0
        for i in range(received & INDEX_MASK):
            ends[min(verdicts[i], last) & INDEX_MASK] += 1
        start = 0
        for place in range(last + 1):
            start, ends[place] = start + ends[place], start
        for i in range(received & INDEX_MASK):
            place = min(verdicts[i], last) & INDEX_MASK
            carry(picked, ends[place], path.packets, i, 1)
            ends[place] += 1
        start = 0
        for place in range(last + 1):
            if ends[place] > start:
                deliver(path, picked, place, start, ends[place])
            start = ends[place]
        return ends[DROP]

    return deliver_sorted


@cache
def _copying(outputs: int, deliver: Any, fetch_buffers: Callable[[PathState], None]) -> Callable[[PathState, int], int]:
    @outlined
    def copy_of(path: PathState, buffer: int, size: int) -> int:
        """A buffer with the same bytes as another one, -1 if there is none."""
        pool, single = path.rx.pool, path.tx.single
        if pool == NOWHERE:  # from a ring between threads: another thread may own the packet's pool
            taken = take_soon(path.pools, pool_of(buffer), single, 1)
        else:
            taken = take(path.pools, pool, single, 1)
            if taken == 0:
                fetch_buffers(path)
                taken = take(path.pools, pool, single, 1)
        if taken <= 0:
            return -1
        target, source = single.ids[0] & ID_MASK, buffer & ID_MASK
        copy(path.pools.bytes[target], 0, path.pools.bytes[source], 0, size)
        return single.ids[0]

    @compiled
    def copy_rest(path: PathState, i: int) -> int:
        """Copy the buffers in which packet `i` goes on, behind that of `single`; 1 if they do not last."""
        pools, single, first, last = path.pools, path.tx.single, path.tx.single.ids[0], -1
        buffer = peek(path.packets.nexts, i, NO_NEXT)
        for _ in range(MAX_PARTS - 1):
            if buffer < 0:
                break
            size = int(pools.sizes[buffer & ID_MASK])
            made = copy_of(path, buffer, size)
            if made < 0:
                single.ids[0] = first
                give(pools, single, 0, 1)
                return 1
            link(pools, made, size, NO_NEXT)
            if last < 0:
                put(single.nexts, 0, made)
            else:
                pools.nexts[last & ID_MASK] = made
            last, buffer = made, int(pools.nexts[buffer & ID_MASK])
        single.ids[0] = first
        return 0

    @outlined
    def buffer_for(path: PathState, i: int, output: int) -> int:
        """The buffer in which packet `i`, whose verdict names several outputs, goes to this one: for the last its own,
        for another that of a copy, -1 if there is none. Where the packet goes on says `single`."""
        packets, single = path.packets, path.tx.single
        if (path.tx.verdicts[i] & OUTPUTS_MASK) >> output == 1:
            move(single.nexts, 0, packets.nexts, i)
            return packets.ids[i]
        put(single.nexts, 0, NO_NEXT)
        made = copy_of(path, packets.ids[i], packets.lengths[i])
        if made < 0 or call_if(packets.nexts, copy_rest, (path, i)) != 0:
            path.counts[LOST] += 1
            return -1
        return made

    @compiled
    def pick(path: PathState, received: int, output: int) -> int:
        """Pick out the packets for one output; how many."""
        packets, picked, single, verdicts = path.packets, path.tx.picked, path.tx.single, path.tx.verdicts
        count = 0
        for i in range(received):
            buffer = -1
            if verdicts[i] == output:
                buffer = packets.ids[i]
                move(single.nexts, 0, packets.nexts, i)
            elif verdicts[i] < 0 and verdicts[i] >> output & 1 == 1:
                buffer = buffer_for(path, i, output)
            if buffer >= 0:
                carry(picked, count, packets, i, 1)
                picked.ids[count] = buffer
                move(picked.nexts, count, single.nexts, 0)
                count += 1
        return count

    @outlined
    def deliver_copies(path: PathState, received: int) -> int:
        """Deliver packets of which some go to several outputs; how many are dropped."""
        dropped = pick(path, received, DROP)
        deliver(path, path.tx.picked, DROP, 0, dropped)
        for output in range(1, outputs + 1):
            deliver(path, path.tx.picked, output, 0, pick(path, received, output))
        deliver(path, path.tx.picked, UP, 0, pick(path, received, UP))
        return dropped

    return deliver_copies


@compiled
def _nobody_above(_path: PathState, _packets: Packets, _first: int, _end: int) -> int:
    return 0


@cache
def _handing_up(upward: Callable[..., int]) -> Callable[[PathState, Packets, int, int], int]:
    @compiled
    def hand_up(path: PathState, packets: Packets, first: int, end: int) -> int:
        """Hand packets to Python, as far as there is room; how many. The others are lost."""
        sent = upward(path.tx.up, path.pools, packets, first, end)
        path.counts[LOST] += end - first - sent
        return sent

    return hand_up


@cache
def _judging(ask: Callable[[PathState, Any], int], outputs: int, up: bool) -> Callable[[PathState, int], int]:
    """A kernel `judge(path, received)`: note the verdict of each packet; ALIKE, APART or SEVERAL, whatever fits all."""

    @compiled
    def judge(path: PathState, received: int) -> int:
        any_of, all_of = 0, -1
        for i in range(received & INDEX_MASK):
            path.counts[AT] = i
            buffer = path.packets.ids[i] & ID_MASK
            said = ask(path, packet_view(path.pools, buffer, path.packets, i, path.counts))
            verdict = valid(said, outputs, up, path.counts)
            path.tx.verdicts[i] = verdict
            any_of |= verdict
            all_of &= verdict
        return _how_they_go(any_of, all_of)

    return judge


@cache
def _judging_at_once(
    ask: Callable[[PathState, Any, int], None], outputs: int, up: bool
) -> Callable[[PathState, int], int]:
    """The same, where the function is given all packets at once."""

    @compiled
    def judge(path: PathState, received: int) -> int:
        verdicts = path.tx.verdicts
        for i in range(received & INDEX_MASK):
            verdicts[i] = FORWARD
        path.counts[AT] = 0  # which the function may leave as it is
        ask(path, verdicts, received)
        any_of, all_of = 0, -1
        for i in range(received & INDEX_MASK):
            path.counts[AT] = i
            verdicts[i] = valid(verdicts[i], outputs, up, path.counts)
            any_of |= verdicts[i]
            all_of &= verdicts[i]
        return _how_they_go(any_of, all_of)

    return judge


@compiled
def _how_they_go(any_of: int, all_of: int) -> int:
    """By the bits that any verdict has, and those that all have."""
    if any_of < 0:
        return SEVERAL
    return ALIKE if any_of == all_of else APART


@compiled
def valid(said: int, outputs: int, up: bool, counts: NDArray[np.int64]) -> int:
    """A verdict, if there is such an output, or are such outputs."""
    return said if 0 <= said <= outputs else _special(said, outputs, up, counts)


@checked
def _special(said: int, outputs: int, up: bool, counts: NDArray[np.int64]) -> int:
    """A verdict that does not name one output."""
    if said < 0:
        beyond = (said & OUTPUTS_MASK & ~(up << UP)) >> (outputs + 1)
        if beyond == 0:
            return said & ~1 if said & OUTPUTS_MASK != 0 else DROP
        said = outputs + 1
        while beyond & 1 == 0:
            beyond >>= 1
            said += 1
    if said > outputs and not (up and said == UP):
        counts[TROUBLE], counts[TROUBLE + 1], counts[TROUBLE + 2] = said, outputs, 1
        raise IndexError("output {0} of a path that has {1}")
    return said


def _rings(kinds: tuple[tuple[Any, Any], ...], sizes: tuple[int, ...]) -> tuple[Any, Any]:
    """Kernels over all groups: `room(groups, pools, wanted)`, of the ring that has least, and
    `send(groups, pools, place, packets, first, end)` through the ring at a place, counted through all groups."""
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
def _send_nowhere(_groups: Any, _pools: Pools, _place: int, _packets: Packets, _first: int, _end: int) -> int:
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
    def send(groups: Any, pools: Pools, place: int, packets: Packets, first: int, end: int) -> int:
        rings = groups[group]
        if before <= place < before + len(rings):
            return tx_batch(rings[place - before], pools, packets, first, end)
        return other_send(groups, pools, place, packets, first, end)

    return room, send
