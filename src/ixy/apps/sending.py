"""The loop of those that send: of the generator, and of who plays a recording."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.counts import BED, RECEIVED
from ixy.drivers.rings import ENTERED, enter, exit_from, leave, seize
from ixy.jit import compiled
from ixy.packets.mempool import Mempool
from ixy.packets.packets import INDEX_MASK, NO_NEXT
from ixy.packets.pool import Pools, give, release, serve, take, wait_for, wanted
from ixy.polls import rouse
from ixy.unsafe import copy, load_acquire, put

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.device import Device

_VECTOR, _SHORT = 32, 256  # bytes that are copied at once; up to so many are copied so
SENT = RECEIVED  # of the words of who sends, which are those of a path for who is to be roused


def sending_pool(device: Device, batch: int) -> Mempool:
    """Where a sender has its buffers from, attached to the device, which holds it.

    As many as can be in flight, and a batch of the longest packets: fewer buffers stay in the cache better.

    Raises:
        MemoryUnavailable: there is no memory for them.
    """
    with Mempool(device.tx[0].ring.size + batch * device.rx[0].ring.parts) as pool:
        device.attach(pool)
    return pool


class SenderKernels(NamedTuple):
    """What sends packets. The state has `rx` and `tx`, the states of a device's rings; `pools`; the number of the
    `pool` to send from; `packets`, room for a batch; and `counts`, shape (COUNTS,).

    Attributes:
        begin: `begin(state) -> bool` makes this thread the runner of the queues and the owner of the pools; False if
            one is not to be had.
        poll: `poll(state) -> number` receives a batch, and sends one, as far as packets are due and there is room; less
            than 0 where Python is to go on.
        end: `end(state)` undoes `begin`.
        run: `run(state, polls) -> tried` does all that up to `polls` times; how often, -1 if `begin` has failed.
    """

    begin: Callable[[Any], bool]
    poll: Callable[[Any], int]
    end: Callable[[Any], None]
    run: Callable[[Any, int], int]


@compiled
def begin(state: Any) -> bool:
    if enter(state.rx, state.pools) != ENTERED:
        return False
    if seize(state.tx.state):
        if wait_for(state.pools.words, state.pool):
            return True
        leave(state.tx.state)
    exit_from(state.rx, state.pools)
    return False


@compiled
def end(state: Any) -> None:
    release(state.pools.words, state.pool)
    leave(state.tx.state)
    exit_from(state.rx, state.pools)


@compiled
def throw_away(_state: Any, _count: int) -> None:
    """What becomes of packets that arrive: nothing."""


@cache
def sender_kernels(
    rx_batch: Callable[..., int],
    tx_batch: Callable[..., int],
    tx_room: Callable[[Any, Pools, int], int],
    plan: Callable[[Any, int], int],
    prepare: Callable[[Any, int], None],
    meet: Callable[[Any, int], None] = throw_away,
) -> SenderKernels:
    """The kernels of a sender.

    Args:
        rx_batch, tx_batch, tx_room: of the rings.
        plan: `plan(state, room)`, choose the packets that are due now, at most a batch, and `room`; how many, less than
            0 where Python is to go on. There is room for what is chosen, and there are buffers for a full ring and a
            batch: it is sent.
        prepare: `prepare(state, count)`, make `state.packets` these packets.
        meet: `meet(state, count)`, look at so many packets that have arrived, `state.packets`, before they are freed.
    """

    @compiled
    def poll(state: Any) -> int:
        pools, packets = state.pools, state.packets
        if wanted(pools, state.rx.pool):
            serve(pools, state.rx.pool)
        arrived = rx_batch(state.rx, pools, packets, packets.ids.size)
        meet(state, arrived)
        give(pools, packets, 0, arrived)
        number = plan(state, tx_room(state.tx, pools, packets.ids.size))
        if number < 0:
            return number
        count = take(pools, state.pool, packets, number)
        for i in range(count & INDEX_MASK):
            put(packets.nexts, i, NO_NEXT)
        prepare(state, count)
        # Also with nothing to send: it takes back the buffers of packets that were sent.
        done = tx_batch(state.tx, pools, packets, 0, count)
        give(pools, packets, done, count)
        state.counts[SENT] += done
        if done == 0 and load_acquire(state.counts, BED) != 0:
            rouse(state.counts)
        return number

    @compiled
    def run(state: Any, polls: int) -> int:
        if not begin(state):
            return -1
        tried = 0
        while tried < polls and poll(state) >= 0:
            tried += 1
        end(state)
        return tried

    return SenderKernels(begin, poll, end, run)


@cache
def run_in_turn(first: SenderKernels, second: SenderKernels) -> Callable[[Any, Any, int], int]:
    """The kernel `run(one, other, polls)` for the states of two senders, poll by poll; -1 or -2 if the first or the
    second could not begin."""

    @compiled
    def run(one: Any, other: Any, polls: int) -> int:
        if not first.begin(one):
            return -1
        if not second.begin(other):
            first.end(one)
            return -2
        for _ in range(polls):
            first.poll(one)
            second.poll(other)
        second.end(other)
        first.end(one)
        return polls

    return run


@compiled
def lay(target: NDArray[np.uint8], start: int, data: NDArray[np.uint8], source: int, size: int, length: int) -> None:
    """Copy a frame of `size` bytes, and pad it with zeros to `length`. Most short ones take a few moves of a vector, of
    which the last two overlap; calls take longer."""
    if _VECTOR <= size <= _SHORT:
        for at in range(0, size - _VECTOR, _VECTOR):
            copy(target, start + at, data, source + at, _VECTOR)
        copy(target, start + size - _VECTOR, data, source + size - _VECTOR, _VECTOR)
    else:
        copy(target, start, data, source, size)
    pad(target, start, size, length)


@compiled
def pad(target: NDArray[np.uint8], start: int, size: int, length: int) -> None:
    """Pad a frame of `size` bytes with zeros to `length`."""
    for place in range(size, length):
        target[start + place] = 0
