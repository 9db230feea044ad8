"""The loop of those that send: of the generator, and of who plays a recording."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ixy.drivers.rings import ENTERED, enter, exit_from, leave, seize
from ixy.jit import compiled
from ixy.packets.pool import give, release, serve, take, wait_for, wanted


@cache
def send_kernel(
    rx_batch: Callable[..., int],
    tx_batch: Callable[..., int],
    due: Callable[..., int],
    prepare: Callable[..., None],
    sent: Callable[..., None],
) -> Any:
    """The loop of a sender.

    Args:
        rx_batch, tx_batch: of the rings.
        due: `due(state)`, how many packets should be sent now, at most a batch; below 0 where Python is
            to go on.
        prepare: `prepare(state, count)`, make `state.packets` the next packets.
        sent: `sent(state, count)`, the first of them were sent.

    The state has `rx` and `tx`, the states of a device's rings; what arrives is thrown away; `pools`; the number of the
    `pool` to send from; and `packets`, room for a batch.
    """

    @compiled
    def send_some(state: Any, polls: int) -> int:
        """Send a batch up to `polls` times; how often it was tried, -1 if a queue is not to be had."""
        pools, packets = state.pools, state.packets
        if enter(state.rx, pools) != ENTERED:
            return False
        seized = seize(state.tx.state)
        mine = seized and wait_for(pools.words, state.pool)
        tried = 0 if mine else -1
        while 0 <= tried < polls:
            number = due(state)
            if number < 0:
                break
            tried += 1
            if wanted(pools, state.rx.pool):
                serve(pools, state.rx.pool)
            give(pools, packets, 0, rx_batch(state.rx, pools, packets, packets.ids.size))
            count = take(pools, state.pool, packets, number)
            prepare(state, count)
            # Also with nothing to send: it takes back the buffers of packets that were sent.
            done = tx_batch(state.tx, pools, packets, 0, count)
            give(pools, packets, done, count)
            sent(state, done)
        if mine:
            release(pools.words, state.pool)
        if seized:
            leave(state.tx.state)
        exit_from(state.rx, pools)
        return tried

    return send_some
