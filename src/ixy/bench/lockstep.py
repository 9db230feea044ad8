"""Cycles per packet: the driver and the model take turns on one core, and only the driver's turns are timed.

A turn of the model delivers one batch of frames into a card; the driver receives it, changes a byte of each packet,
transmits it and cleans its ring; then the model sends everything and a sink checks it. The C reference does the same
between two other cards of the same model, called from the same compiled loop, in turns with the driver.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.bench.environment import tick_unit
from ixy.bench.reference import NoReference, Reference, build
from ixy.device import Device, open_device
from ixy.errors import Error
from ixy.jit import compiled
from ixy.path import Path, touch
from ixy.sim.loop import deliver, drain
from ixy.sim.machine import Machine
from ixy.sim.rack import Rack
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

RING_SIZE = 512
MAX_BATCH = RING_SIZE // 2  # what is sent finds room although up to a group of packets before is not cleaned yet
PACKETS = 1 << 18  # of each side in one repetition, unless the caller gives the number of rounds
_STRETCH = 2 * RING_SIZE  # packets
_WARM_UP = 4 * RING_SIZE  # packets: every descriptor and buffer that is used has been used


@dataclass(frozen=True)
class Cost:
    """What a packet costs at one batch size, in ticks.

    Attributes:
        batch: packets a batch.
        driver, reference: one figure for each repetition; the reference has none where there is no C compiler.
    """

    batch: int
    driver: Sequence[float]
    reference: Sequence[float]

    @property
    def ratio(self) -> float | None:
        """The driver's cost by the reference's: the median of the repetitions, as each pair was measured in one go."""
        pairs = [ours / theirs for ours, theirs in zip(self.driver, self.reference, strict=False)]
        return statistics.median(pairs) if pairs else None

    def as_json(self) -> dict[str, Any]:
        """One object for programs, rounded to what such a measurement can tell."""
        return {
            "batch": self.batch,
            **_spread_json("cycles_per_packet", self.driver),
            **_spread_json("reference_cycles_per_packet", self.reference),
            "ratio": round(self.ratio, 3) if self.ratio is not None else None,
            "unit": tick_unit(),
        }


def _spread_json(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Median and range, as three members."""
    spread = [statistics.median(values), min(values), max(values)] if values else [None] * 3
    names = name, f"{name}_min", f"{name}_max"
    return {key: round(value, 2) if value is not None else None for key, value in zip(names, spread, strict=True)}


class Lane:
    """Two cards of a stepped machine, one with a generator and one with a sink, and what forwards between them.

    Args:
        host: the machine.
        source, target: names of the cards.
        prepare: given a batch size, makes the poll that forwards, and the state that it works on.
    """

    def __init__(self, host: Machine, source: str, target: str, prepare: Callable[[int], tuple[Any, Any]]) -> None:
        self._host = host
        self._names = source, target
        self._cards = host.cards[source].index, host.cards[target].index
        self._prepare = prepare

    def measure(self, batch: int, rounds: int) -> float:
        """Ticks per packet, from about so many rounds of one batch each.

        Other programs, interrupts and the hypervisor interrupt now and then. So the rounds are cut in short stretches,
        and the median stretch counts; each is long enough for all work that is not done in every round.
        """
        poll, state = self._prepare(batch)
        run = _lock_step_kernel(poll)
        run(self._host.rack, *self._cards, state, batch, -(-_WARM_UP // batch), np.zeros(1, np.int64))
        stretch = min(rounds, -(-_STRETCH // batch))
        spent = np.zeros(rounds // stretch, np.int64)
        run(self._host.rack, *self._cards, state, batch, stretch, spent)
        return (float(np.median(spent)) / stretch - tick_cost()) / batch

    def check(self) -> None:
        """Every packet arrived, changed as it should be, and in order.

        Raises:
            Error: not so; the figures are worth nothing.
        """
        report = self._host.sink_report(*self._names)
        if report.received != report.sent or report.lost or report.reordered or report.wrong:
            raise Error(f"the benchmark's packets did not arrive as they should: {report}")


@contextmanager
def lanes() -> Generator[tuple[Lane, Lane | None, str]]:
    """The driver's lane, the reference's, and why there is none if there is none."""
    host = Machine(stepped=True)
    with ExitStack() as stack:
        rx, tx = _open_pair(stack, host, "a", "b")
        driver = Lane(host, "a", "b", lambda batch: _driver_path(rx, tx, batch))
        try:
            library = build()
        except NoReference as reason:
            yield driver, None, str(reason)
            return
        yield driver, _reference_lane(stack, host, library), ""


def _open_pair(stack: ExitStack, host: Machine, source: str, target: str) -> tuple[Device, Device]:
    addresses = f"sim:{source},gen=60", f"sim:{target},sink={source},touch=48"
    one, two = (stack.enter_context(open_device(address, ring_size=RING_SIZE, sim=host)) for address in addresses)
    return one, two


def _driver_path(rx: Device, tx: Device, batch: int) -> tuple[Any, Any]:
    path = Path(rx.rx[0], tx.tx[0], touch, batch)
    return path.poll, path.state


def _reference_lane(stack: ExitStack, host: Machine, library: Any) -> Lane:
    """The reference's packets stay until its devices, opened on a stack of their own, are closed."""
    devices = ExitStack()
    rx, tx = _open_pair(devices, host, "c", "d")
    reference = Reference(library, rx.rx[0], tx.tx[0], host)
    stack.callback(reference.close)
    stack.push(devices)

    def prepare(batch: int) -> tuple[Any, Any]:
        reference.set_batch(batch)
        return reference.poll, reference.handle

    return Lane(host, "c", "d", prepare)


def measure(driver: Lane, reference: Lane | None, batch: int, rounds: int | None = None, repeat: int = 5) -> Cost:
    """What a packet costs at one batch size: the driver and the reference in turns, `repeat` times.

    Raises:
        Error: a packet was lost or came out wrong.
    """
    rounds = rounds or -(-PACKETS // batch)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repeat):
        ours.append(driver.measure(batch, rounds))
        if reference:
            theirs.append(reference.measure(batch, rounds))
    driver.check()
    if reference:
        reference.check()
    return Cost(batch, ours, theirs)


@cache
def _lock_step_kernel(poll: Any) -> Any:
    """The loop in which a poll and the model take turns."""

    @compiled
    def lock_step(
        rack: Rack, source: int, target: int, state: Any, batch: int, rounds: int, spent: NDArray[np.int64]
    ) -> None:
        for stretch in range(spent.size):
            for _ in range(rounds):
                for _ in range(batch):
                    deliver(rack, source, 0)
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                while drain(rack, target) > 0:
                    pass

    return lock_step


@compiled
def tick_pairs(pairs: int) -> int:
    """Ticks that pass between two readings with nothing between them, added up."""
    spent = 0
    for _ in range(pairs):
        start = ticks()
        spent += ticks() - start
    return spent


@cache
def tick_cost() -> float:
    """What reading the counter twice costs: the least of many averages, as an interruption only adds."""
    pairs = 1000
    return float(np.min([tick_pairs(pairs) for _ in range(100)])) / pairs
