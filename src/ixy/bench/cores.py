"""`ixy bench cores`: what it costs to hand packets to another core, and what two cores do at once.

All is measured in lock step, as `ixy bench forward` does it: the model's turns are not timed. To hand a packet on costs
what two paths with a ring between them take more than one path: in one thread, so without what the cores must tell one
another, and in two, pinned to a core each, which take turns. Then everything moves that moves between two workers: the
packets' numbers, and the buffers on their way home.

Two queues at once are two paths on two cores, each with two cards of its own: the model is no device that two cores
could ask at the same time. What more queues would do is computed from their cost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.bench.lockstep import PACKETS, Lane, driver_lane, open_pair, stretch_of, tick_cost
from ixy.errors import ConfigurationError
from ixy.jit import compiled
from ixy.path import Path, entered, touch
from ixy.reporting.environment import tick_unit
from ixy.ring import Ring
from ixy.sim.loop import deliver, drain
from ixy.sim.machine import Machine
from ixy.unsafe import load_acquire, nap, own_lines, pause, store_release, ticks
from ixy.workers import choose_cores

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from ixy.device import Device
    from ixy.sim.rack import Rack

QUEUES = (1, 2, 4, 8, 16)
LINE_RATE = 1e10 / 8 / 84 / 1e6  # Mpps: 10 Gbit/s in frames of 64 bytes and the 20 between them
_PRODUCER, _CONSUMER, _GIVEN_UP = 0, 1, 2  # whose turn it is
_LOOKS = 0xFFF  # a mask: after so many looks, others may have the core


def measure(batch: int, cores: Sequence[int] | None, rounds: int | None, repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each figure: what is measured, `repeat` times in turns, and computed from it.

    Args:
        cores: two, by default the first that this process may use.
        rounds: batches of each measurement, by default as many as `PACKETS` needs.

    Raises:
        ConfigurationError: there are no two cores, or no such cores.
        Error: a packet was lost or came out wrong.
    """
    one, other = _two(cores)
    rounds = rounds or -(-PACKETS // batch)
    with ExitStack() as stack:
        hosts = [Machine(stepped=True) for _ in range(2)]
        alone, beside = (driver_lane(stack, host, "a", "b") for host in hosts)
        inline = Lane(hosts[0], "c", "d", partial(_two_paths, *open_pair(stack, hosts[0], "c", "d")))
        across = _Across(hosts[0], "e", "f", open_pair(stack, hosts[0], "e", "f"))
        figures: dict[str, list[float]] = {name: [] for name in ("forward", "ring", "cores", "two")}
        for _ in range(repeat):
            figures["forward"].append(_at_once([alone], [one], batch, rounds))
            figures["ring"].append(_at_once([inline], [one], batch, rounds))
            figures["cores"].append(across.measure(batch, rounds, one, other))
            figures["two"].append(_at_once([alone, beside], [one, other], batch, rounds))
        for lane in (alone, beside, inline, across.lane):
            lane.check()
    yield from _results(batch, figures)


def _results(batch: int, figures: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    for what in ("ring", "cores"):
        more = [through - forward for through, forward in zip(figures[what], figures["forward"], strict=True)]
        figures[f"handed on by {what}"] = more
    told = {
        "forward": "forward, one queue on one core",
        "ring": "through a ring, one core",
        "handed on by ring": "handed on, one core",
        "cores": "through a ring, two cores",
        "handed on by cores": "handed on, two cores",
        "two": "two queues on two cores, each",
    }
    for name, what in told.items():
        values = {"median": median(figures[name]), "min": min(figures[name]), "max": max(figures[name])}
        yield {"what": what, "batch": batch, **_rounded(values), "unit": f"{tick_unit()} per packet"}
    gains = [2 * one / two for one, two in zip(figures["forward"], figures["two"], strict=True)]
    least = 2 * min(figures["forward"]) / min(figures["two"])  # when nothing else ran on either core
    gain = {"median": median(gains), "min": min(gains), "max": max(gains), "by_least_costs": least}
    yield {"what": "two queues by one", "batch": batch, **_rounded(gain), "unit": "times"}
    for queues in QUEUES:
        cost = median(figures["forward"] if queues == 1 else figures["two"])
        rate = queues * _tick_rate() / cost / 1e6
        what = f"{queues} queue{'s' * (queues > 1)}, computed"
        yield {"what": what, "batch": batch, "mpps": round(rate, 4), "ports": round(rate / LINE_RATE, 4)}


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for result in results:
        said = "{what:30} batch {batch}: ".format(**result)
        if "by_least_costs" in result:
            yield said + "{median} ({min}–{max}) {unit}, by the least costs {by_least_costs}".format(**result)
        elif "mpps" in result:
            yield said + "{mpps:.1f} Mpps, the smallest packets of {ports:.1f} ports of 10 Gbit/s".format(**result)
        else:
            yield said + "{median} ({min}–{max}) {unit}".format(**result)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def _two(cores: Sequence[int] | None) -> list[int]:
    chosen = choose_cores(cores, 2)
    if len(set(chosen)) < 2:
        raise ConfigurationError(f"core {chosen[0]} is the only one for this process: two are compared")
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Through a ring


def _paths(ring: Ring, rx: Device, tx: Device, batch: int) -> tuple[Path, Path]:
    """The first writes to the packets, as their bytes are in its core's cache."""
    return Path(rx.rx[0], ring.tx, touch, batch=batch), Path(ring.rx, tx.tx[0], batch=batch)


@contextmanager
def _two_paths(rx: Device, tx: Device, batch: int) -> Generator[tuple[Any, Any]]:
    """Two paths in this thread, as one poll."""
    with Ring() as ring:
        first, second = _paths(ring, rx, tx, batch)
        with entered(first), entered(second):
            yield _both(first.kernels.poll, second.kernels.poll), (first.state, second.state)


@cache
def _both(first: Any, second: Any) -> Any:
    @compiled
    def both(states: Any) -> int:
        first(states[0])
        return second(states[1])

    return both


class _Across:
    """Two paths in two threads, which take turns."""

    def __init__(self, host: Machine, source: str, target: str, devices: tuple[Device, Device]) -> None:
        self.lane = Lane(host, source, target, partial(_two_paths, *devices))
        self._host, self._devices = host, devices
        self._cards = host.cards[source].index, host.cards[target].index

    def measure(self, batch: int, rounds: int, one: int, other: int) -> float:
        """Ticks per packet, of both threads together."""
        stretch = min(rounds, stretch_of(batch))
        turn, spent = own_lines(1), [own_lines(rounds // stretch) for _ in range(2)]
        with Ring() as ring:
            paths = _paths(ring, *self._devices, batch)

            def work(path: Path, kernel: Any, *arguments: Any) -> None:
                try:
                    with entered(path):
                        kernel(self._host.rack, path.state, *arguments)
                finally:
                    turn[0] = _GIVEN_UP

            produce, consume = (
                make(path.kernels.poll) for make, path in zip((_producing, _consuming), paths, strict=True)
            )
            source, target = self._cards
            _run_all(
                [
                    partial(work, paths[0], produce, source, batch, stretch, turn, spent[0]),
                    partial(work, paths[1], consume, target, batch, stretch, turn, spent[1]),
                ],
                [one, other],
            )
        return sum(float(np.median(part)) / stretch - tick_cost() for part in spent) / batch


@compiled
def _await(turn: NDArray[np.int64], mine: int) -> bool:
    """Wait for this thread's turn; False if the other thread has given up."""
    looks = 0
    while load_acquire(turn, 0) != mine:
        if load_acquire(turn, 0) == _GIVEN_UP:
            return False
        pause()
        looks += 1
        if looks & _LOOKS == 0:
            nap(0)
    return True


@cache
def _producing(poll: Any) -> Any:
    @compiled
    def produce(
        rack: Rack, state: Any, card: int, batch: int, rounds: int, turn: NDArray[np.int64], spent: NDArray[np.int64]
    ) -> None:
        for stretch in range(spent.size):
            for _ in range(rounds):
                if not _await(turn, _PRODUCER):
                    return
                for _ in range(batch):
                    deliver(rack, card, 0)
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                store_release(turn, 0, _CONSUMER)
        _await(turn, _PRODUCER)

    return produce


@cache
def _consuming(poll: Any) -> Any:
    @compiled
    def consume(
        rack: Rack, state: Any, card: int, _batch: int, rounds: int, turn: NDArray[np.int64], spent: NDArray[np.int64]
    ) -> None:
        for stretch in range(spent.size):
            for _ in range(rounds):
                if not _await(turn, _CONSUMER):
                    return
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                while drain(rack, card) > 0:
                    pass
                store_release(turn, 0, _PRODUCER)

    return consume


# ---------------------------------------------------------------------------------------------------------------------
# At once


def _at_once(lanes: Sequence[Lane], cores: Sequence[int], batch: int, rounds: int) -> float:
    """Ticks per packet, of each lane on a core of its own; their mean."""
    costs: list[float] = []
    _run_all([lambda lane=lane: costs.append(lane.measure(batch, rounds)) for lane in lanes], cores)
    return sum(costs) / len(costs)


def _run_all(works: Sequence[Callable[[], object]], cores: Sequence[int]) -> None:
    """Run each in a thread on its core, and wait for all; the first error is raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object], core: int) -> None:
        try:
            os.sched_setaffinity(0, {core})  # of this thread
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(works, cores, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@compiled
def _now() -> int:
    return ticks()


@cache
def _tick_rate() -> float:
    """Ticks per second."""
    start, moment = _now(), time.monotonic_ns()
    time.sleep(0.1)
    return (_now() - start) * 1e9 / (time.monotonic_ns() - moment)
