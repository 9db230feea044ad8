"""`ixy bench virtio`: what VirtIO costs in lock step, at either end, and how fast it is beside DPDK's.

In lock step the driver and a model of the device take turns on one core, and only the driver's turns are timed: the
model puts one batch of frames into receive buffers; the driver receives it, changes a byte of each packet and sends it;
then the model takes everything off the transmit ring. The back end does the same with our own driver at the other end.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.bench.lockstep import tick_cost
from ixy.drivers.rings import enter, exit_from, leave, seize
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import Error
from ixy.jit import compiled
from ixy.packets.pool import give, take
from ixy.registers import virtio as reg
from ixy.reporting.environment import tick_unit
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.bench.virtio_peer import Rate
    from ixy.packets.packets import Packets
    from ixy.packets.pool import Pools
    from ixy.sim.virtio import Queue

BATCHES = (1, 8, 32, 64, 256)
RING_SIZE = 512
FRAME_BYTES = 60
_STRETCH = 2 * RING_SIZE  # packets; long enough for all work that is not done in every round
_STRETCHES = 64

_OFFERED = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS | 1 << reg.MRG_RXBUF
RINGS = {"split": _OFFERED, "packed": _OFFERED | 1 << reg.RING_PACKED}


def lock_step(ring: str, batch: int, repeat: int) -> dict[str, Any]:
    """Cycles per packet of the driver, median and range of `repeat` measurements.

    Args:
        ring: split or packed.

    Raises:
        Error: a packet was lost.
    """
    from ixy.device import Device
    from ixy.path import Path, entered, touch
    from ixy.sim.virtio import FRAMES, BackEnd

    back_end = BackEnd("model", RINGS[ring])
    with ExitStack() as stack:
        device = stack.enter_context(Device(VirtioNet(InProcess(back_end), ring_size=RING_SIZE)))
        path = Path(device.rx[0], device.tx[0], touch, batch=batch)
        stack.enter_context(entered(path))
        run = _loop(path.kernels.poll)
        source, target = back_end.queues[0], back_end.queues[1]
        frame, taken = np.zeros(FRAME_BYTES, np.uint8), np.zeros(2048, np.uint8)
        rounds = -(-_STRETCH // batch)
        run(source, target, path.state, frame, taken, batch, rounds, np.zeros(4, np.int64))
        costs: list[float] = []
        for _ in range(repeat):
            spent = np.zeros(_STRETCHES, np.int64)
            run(source, target, path.state, frame, taken, batch, rounds, spent)
            costs.append(_cost(spent, batch, rounds))
        if source.state[FRAMES] != target.state[FRAMES]:
            raise Error(f"of {source.state[FRAMES]} packets, {target.state[FRAMES]} were forwarded")
    return _report(ring, batch, costs)


def back_end_lock_step(ring: str, batch: int, repeat: int) -> dict[str, Any]:
    """The same of the back end. Our driver, in the same process, sends each batch to it and takes it back.

    Raises:
        Error: a packet was lost.
    """
    from ixy.device import open_device
    from ixy.packets.packets import new_packets
    from ixy.packets.pool import pools
    from ixy.path import Path, entered, touch

    with ExitStack() as stack:
        socket = f"{stack.enter_context(TemporaryDirectory())}/vhost"
        back = stack.enter_context(open_device(f"vhost-server:{socket}", ring_size=RING_SIZE, link_timeout=0))
        front = stack.enter_context(open_device(f"vhost-user:{socket},ring={ring}", ring_size=RING_SIZE))
        path = Path(back.rx[0], back.tx[0], touch, batch=batch)
        stack.enter_context(entered(path))
        rx, tx = front.rx[0].ring, front.tx[0].ring
        run = _back_end_loop(path.kernels.poll, rx.kernel, tx.kernel)
        rounds = -(-_STRETCH // batch)
        packets = new_packets(batch)
        packets.lengths[:] = FRAME_BYTES
        run(rx.state, tx.state, path.state, pools(), packets, batch, rounds, np.zeros(4, np.int64))
        costs: list[float] = []
        for _ in range(repeat):
            spent = np.zeros(_STRETCHES, np.int64)
            came = run(rx.state, tx.state, path.state, pools(), packets, batch, rounds, spent)
            costs.append(_cost(spent, batch, rounds))
            if came != _STRETCHES * rounds * batch:
                raise Error(f"of {_STRETCHES * rounds * batch} packets, {came} came back")
    return _report(ring, batch, costs)


def _cost(spent: NDArray[np.int64], batch: int, rounds: int) -> float:
    """Ticks per packet of the median stretch."""
    return (float(np.median(spent)) / rounds - tick_cost()) / batch


def _report(ring: str, batch: int, costs: list[float]) -> dict[str, Any]:
    values = {"median": statistics.median(costs), "min": min(costs), "max": max(costs)}
    return {
        "ring": ring,
        "batch": batch,
        **{name: round(cost, 2) for name, cost in values.items()},
        "unit": tick_unit(),
    }


@cache
def _loop(poll: Any) -> Any:
    """The loop in which a poll and the model take turns."""
    from ixy.sim.virtio import drain, feed

    @compiled
    def loop(
        source: Queue,
        target: Queue,
        state: Any,
        frame: NDArray[np.uint8],
        taken: NDArray[np.uint8],
        batch: int,
        rounds: int,
        spent: NDArray[np.int64],
    ) -> None:
        for stretch in range(spent.size):
            for _ in range(rounds):
                for _ in range(batch):
                    feed(source, frame, frame.size)
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                while drain(target, taken) > 0:
                    pass

    return loop


@cache
def _back_end_loop(poll: Any, rx_batch: Any, tx_batch: Any) -> Any:
    """The loop in which a poll of the back end and our driver take turns; how many packets came back."""

    @compiled
    def loop(
        rx: Any, tx: Any, state: Any, pools: Pools, packets: Packets, batch: int, rounds: int, spent: NDArray[np.int64]
    ) -> int:
        enter(rx, pools)
        seize(tx.state)
        came = 0
        for stretch in range(spent.size):
            for _ in range(rounds):
                count = take(pools, rx.pool, packets, batch)
                sent = tx_batch(tx, pools, packets, 0, count)
                give(pools, packets, sent, count)
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                count = rx_batch(rx, pools, packets, batch)
                give(pools, packets, 0, count)
                came += count
        leave(tx.state)
        exit_from(rx, pools)
        return came

    return loop


def lock_step_lines(rings: Sequence[str], repeat: int, as_json: bool, end: str) -> Iterator[str]:
    """Measure each ring at each batch size in lock step, at one end, front or back: a line each."""
    for ring in rings:
        for batch in BATCHES:
            cost = (lock_step if end == "front" else back_end_lock_step)(ring, batch, repeat)
            text = "{ring:6} batch {batch:3}: {median:.1f} ({min:.1f}–{max:.1f}) {unit} per packet".format(**cost)
            yield json.dumps(cost) if as_json else text


def peer_lines(rings: Sequence[str], starts: int, as_json: bool, end: str) -> Iterator[str]:
    """Compare the rates with those of DPDK at the same end of vhost-user: a line for each ring, kind of work and batch
    size."""
    from ixy.bench.virtio_peer import compare

    def report(rate: Rate) -> None:
        print(f"{rate.ring} {rate.work} {rate.batch}: {rate.contender} {rate.rate / 1e6:.1f} Mpps", file=sys.stderr)

    result = compare(starts, tuple(rings), report, end)
    if as_json:
        yield json.dumps(result)
        return
    for row in result["results"]:
        contenders = [name for name in row if name == "ixy" or name.startswith("dpdk")]
        parts = [f"{name} {_mpps(row[name])}" for name in contenders]
        yield f"{row['ring']} {row['work']} batch {row['batch']}: {', '.join(parts)}; ratio {row['ratio']}"


def _mpps(spread: dict[str, float]) -> str:
    median, low, high = (spread[name] / 1e6 for name in ("median", "min", "max"))
    return f"{median:.1f} ({low:.1f}–{high:.1f}) Mpps"
