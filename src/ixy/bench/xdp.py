"""`ixy bench xdp`: what the driver of AF_XDP itself costs, and how fast interfaces of the kernel are beside others.

For the cost, both ends of a veth pair are opened in one process, which takes turns on one core: a batch is sent at one
end and received at the other. Of sending, the driver's part is timed, and the kernel's apart from it, in system calls
that the driver makes else at the end of a batch.

python -m ixy.bench.xdp TASK     in the namespace of `veth.started_there`: an object a line
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.bench import contest, costs, veth
from ixy.bench.lockstep import tick_cost
from ixy.bench.rates import on_core
from ixy.bench.works import FRAME_BYTES, LOOPS, RING_SIZE
from ixy.device import open_device
from ixy.drivers.rings import enter, exit_from
from ixy.drivers.xdp.datapath import kick, rx_batch, tx_batch
from ixy.errors import Error
from ixy.jit import compiled
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, give, pools, release, take, wait_for
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.device import Device

WORKS = tuple(LOOPS)
COST_BATCHES = (1, 8, 32, 64)
_PACKETS = 1 << 14  # of a measurement
_SEND, _KERNEL, _RECEIVE, _COUNT = range(4)  # columns of what is measured


def measure(task: contest.Task) -> Iterator[dict[str, Any]]:
    """An object for each cost, then for each contender; see `contest.measure`."""
    yield from veth.started_there(__name__, {"repeat": task.starts})
    yield from contest.measure(task)


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for each in results:
        if "unit" not in each:
            yield from contest.lines(chain([each], results))
            return
        yield from costs.lines(iter([each]))


# ---------------------------------------------------------------------------------------------------------------------
# In the namespace


def main(repeat: int) -> None:
    """Print what a packet costs at each batch size."""
    veth.settle_in()
    with (
        veth.pair(),
        open_device(f"xdp:{veth.NEAR}", ring_size=RING_SIZE) as sender,
        open_device(f"xdp:{veth.FAR}", ring_size=RING_SIZE) as receiver,
        on_core(0),
    ):
        for batch in COST_BATCHES:
            spent = np.array([_costs(sender, receiver, batch) for _ in range(repeat)])
            own = spent[:, _SEND] + spent[:, _RECEIVE]
            for what, figures in (
                ("the driver's own", own),
                ("… to send, and take buffers back", spent[:, _SEND]),
                ("… to receive", spent[:, _RECEIVE]),
                ("the kernel's, to take it from end to end", spent[:, _KERNEL]),
            ):
                print(json.dumps(costs.result(f"{what}, batch {batch}", batch, figures)), flush=True)


def _costs(sender: Device, receiver: Device, batch: int) -> Sequence[float]:
    """Ticks a packet, the median of the rounds in which all packets arrived at once."""
    tx, rx = sender.tx[0].ring, receiver.rx[0].ring
    quiet = tx.state._replace(flags=np.zeros_like(tx.state.flags))  # says that no system call is needed
    packets = new_packets(batch)
    packets.lengths[:] = FRAME_BYTES
    rounds = np.zeros((max(_PACKETS // batch, 1), 4), np.int64)
    for _ in range(2):  # the first one compiles, and is not counted
        _rounds(tx.state, quiet, rx.state, pools(), sender.rx[0].pool.number, packets, rounds)
    whole = rounds[rounds[:, _COUNT] == batch]
    if 2 * len(whole) < len(rounds):
        raise Error(f"of {len(rounds)} batches, {len(whole)} arrived whole")
    return ((np.median(whole[:, :_COUNT], axis=0) - tick_cost()) / batch).tolist()


@compiled
def _rounds(tx: Any, quiet: Any, rx: Any, pools: Pools, pool: int, packets: Packets, rounds: NDArray[np.int64]) -> None:
    """Send and receive so many batches."""
    batch = packets.ids.size
    wait_for(pools.words, pool)
    enter(rx, pools)
    for number in range(rounds.shape[0]):
        count = take(pools, pool, packets, batch)
        begun = ticks()
        sent = tx_batch(quiet, pools, packets, 0, count)
        filled = ticks()
        kick(tx)
        kicked = ticks()
        received = rx_batch(rx, pools, packets, batch)
        done = ticks()
        rounds[number, _SEND] = filled - begun
        rounds[number, _KERNEL] = kicked - filled
        rounds[number, _RECEIVE] = done - kicked
        rounds[number, _COUNT] = received if sent == batch else 0
        give(pools, packets, 0, received)
    exit_from(rx, pools)
    release(pools.words, pool)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
