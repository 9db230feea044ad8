"""What each part of forwarding costs: receiving, the function, transmitting, and memory.

The driver and the model take turns, as in `lockstep`, and a clock is read between the parts of the driver's turn: the
same kernels, called one after the other. Then a batch of buffers is taken from the pool and given back, which receiving
and transmitting do too. In every second turn a path takes its batch along undivided. What reading the clock costs is
measured in each turn, and taken off.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.asking import asking
from ixy.bench.counters import Clock, Counter
from ixy.bench.lockstep import RING_SIZE
from ixy.device import Device, open_device
from ixy.errors import Error
from ixy.jit import compiled
from ixy.packets.buffers import ID_MASK
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, give, pools, take
from ixy.packets.views import packet_view
from ixy.path import Path, entered, touch
from ixy.sim.loop import deliver, drain
from ixy.sim.machine import Machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.rack import Rack

PARTS = ("receive", "transmit", "function", "take", "give", "undivided")
_RECEIVE, _TRANSMIT, _FUNCTION, _TAKE, _GIVE, _UNDIVIDED, _READING = range(7)
_STRETCH = 2 * RING_SIZE  # packets; the median stretch counts, as in `lockstep`


class Rings(NamedTuple):
    """What the parts work on.

    Attributes:
        rx, tx: the states of the rings.
        pool: number of the pool.
        packets: for the batch that is forwarded.
        spare: for buffers that are taken and given back.
    """

    rx: Any
    tx: Any
    pool: int
    packets: Packets
    spare: Packets


def measure(batch: int, packets: int, repeat: int, clock: Clock, counter: Counter) -> NDArray[np.float64]:
    """What each of `PARTS` costs per packet, by a clock; shape (repeat, 6).

    Args:
        batch: packets a batch.
        packets: in one repetition.

    Raises:
        Error: a packet was lost or came out wrong.
    """
    host = Machine(stepped=True)
    rounds = -(-_STRETCH // batch)
    stretches = max(packets // (rounds * batch), 1)
    found = np.zeros((repeat, len(PARTS)))
    with ExitStack() as stack:
        source = stack.enter_context(open_device("sim:a,gen=60", ring_size=RING_SIZE, sim=host))
        target = stack.enter_context(open_device("sim:b,sink=a,touch=48", ring_size=RING_SIZE, sim=host))
        path = Path(source.rx[0], target.tx[0], touch, batch=batch)
        stack.enter_context(entered(path))
        for row in found:
            spent = np.zeros((stretches, _READING + 1), np.int64)
            _run(host, source, target, path, batch, rounds, clock, counter, spent)
            each = (spent[:, :_READING] - spent[:, _READING:]) / (rounds * batch)
            row[:] = np.median(each, axis=0)
        report = host.sink_report("a", "b")
    if report.received != report.sent or report.wrong or report.reordered or report.duplicated:
        raise Error(f"the benchmark's packets did not arrive as they should: {report}")
    return found


def _run(
    host: Machine,
    source: Device,
    target: Device,
    path: Path,
    batch: int,
    rounds: int,
    clock: Clock,
    counter: Counter,
    spent: NDArray[np.int64],
) -> None:
    rx, tx = source.rx[0].ring, target.tx[0].ring
    cards = host.cards["a"].index, host.cards["b"].index
    kernel = _kernel(rx.kernel, tx.kernel, tx.room, path.kernels.poll, clock)
    rings = Rings(rx.state, tx.state, source.rx[0].pool.number, new_packets(batch), new_packets(batch))
    kernel(host.rack, *cards, rings, pools(), path.state, batch, rounds, counter, spent)


@cache
def _kernel(rx_batch: Any, tx_batch: Any, tx_room: Any, poll: Any, now: Clock) -> Any:
    """The loop in which the parts and the model take turns."""
    ask = asking(touch, None)

    @compiled
    def turns(
        rack: Rack,
        source: int,
        target: int,
        rings: Rings,
        pools: Pools,
        path: Any,
        batch: int,
        rounds: int,
        counter: Counter,
        spent: NDArray[np.int64],
    ) -> None:
        rx, tx, pool, packets, spare = rings
        for stretch in range(len(spent)):
            for _ in range(rounds):
                for _ in range(batch):
                    deliver(rack, source, 0)
                start = now(counter)
                received = rx_batch(rx, pools, packets, batch)
                arrived = now(counter)
                for i in range(received):
                    ask(path, packet_view(pools, packets.ids[i] & ID_MASK, packets, i, path.counts))
                changed = now(counter)
                tx_room(tx, pools, received)
                tx_batch(tx, pools, packets, 0, received)
                sent = now(counter)
                taken = take(pools, pool, spare, batch)
                owned = now(counter)
                give(pools, spare, 0, taken)
                given = now(counter)
                nothing = now(counter)
                spent[stretch, _RECEIVE] += arrived - start
                spent[stretch, _FUNCTION] += changed - arrived
                spent[stretch, _TRANSMIT] += sent - changed
                spent[stretch, _TAKE] += owned - sent
                spent[stretch, _GIVE] += given - owned
                spent[stretch, _READING] += nothing - given
                while drain(rack, target) > 0:
                    pass
                for _ in range(batch):
                    deliver(rack, source, 0)
                start = now(counter)
                poll(path)
                spent[stretch, _UNDIVIDED] += now(counter) - start
                while drain(rack, target) > 0:
                    pass

    return turns
