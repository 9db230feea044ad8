"""Cycles per packet: the driver and the model take turns on one core, and only the driver's turns are timed.

A turn of the model delivers one batch of frames into a card; the driver receives it, changes a byte of each packet,
transmits it and cleans its ring; then the model sends everything and a sink checks it. The C references do the same,
each between two other cards of the same model, called from the same compiled loop, in turns with the driver.

Turns are short. A processor's speed changes within milliseconds, with what else runs on it and on its sibling, and
figures that are compared shall be taken at the same speed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.bench.reference import OURS, PUBLISHED, Algorithm, Limit, NoReference, Reference, build, has_simd
from ixy.device import Device, open_device
from ixy.errors import Error
from ixy.jit import compiled
from ixy.path import Path, entered, touch
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Spread
from ixy.sim.loop import deliver, drain
from ixy.sim.machine import Machine
from ixy.sim.rack import Rack
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Figures = NDArray[np.float64]
    Prepared = AbstractContextManager[tuple[Any, Any]]  # a poll, and the state that it works on

RING_SIZE = 512
MAX_BATCH = RING_SIZE // 2  # what is sent finds room although up to a group of packets before is not cleaned yet
PACKETS = 1 << 18  # of each side in one repetition, unless the caller gives the number of rounds
_STRETCH = 2 * RING_SIZE  # packets
_TURN = 8 * _STRETCH  # packets
_WARM_UP = 4 * RING_SIZE  # packets: every descriptor and buffer that is used has been used


@dataclass(frozen=True)
class Cost:
    """What a packet costs at one batch size, in ticks.

    Attributes:
        batch: packets a batch.
        driver: a row of turns for each repetition, shape (repetitions, turns), float64.
        layout: the same of the C reference with the driver's layout; None where there is no C compiler.
        reference: that of the C reference with the published layout.
        scalar_limit: that of the least work in C, by scalar instructions.
        simd_limit: the same by vectors; None where the processor lacks them.
        metadata: that of the driver, which also tells what was asked for about each packet; None where nothing was.
        offloads: that of the driver, which also asks the sending card for something; likewise.
    """

    batch: int
    driver: Figures
    layout: Figures | None = None
    reference: Figures | None = None
    scalar_limit: Figures | None = None
    simd_limit: Figures | None = None
    metadata: Figures | None = None
    offloads: Figures | None = None

    def ratio(self, other: Figures | None) -> float | None:
        """The driver's cost by another's: the median of the turns' ratios, as each was taken right after the other."""
        return None if other is None else float(np.median(self.driver / other))

    def as_json(self) -> dict[str, Any]:
        """One object for programs, rounded to what such a measurement can tell."""
        others = {
            "reference": ("ratio", self.reference),
            "layout": ("ratio_to_layout", self.layout),
            "scalar_limit": ("ratio_to_scalar_limit", self.scalar_limit),
            "simd_limit": ("ratio_to_simd_limit", self.simd_limit),
        }
        costs: dict[str, Any] = {}
        for name, (_, figures) in others.items():
            costs |= _spread_json(f"{name}_cycles_per_packet", figures)
        ratios = {name: self.ratio(figures) for name, figures in others.values()}
        return {
            "batch": self.batch,
            **_spread_json("cycles_per_packet", self.driver),
            **costs,
            **{name: None if ratio is None else round(ratio, 3) for name, ratio in ratios.items()},
            **({} if self.metadata is None else _spread_json("metadata_cycles_per_packet", self.metadata)),
            **({} if self.offloads is None else _spread_json("offloads_cycles_per_packet", self.offloads)),
            "unit": tick_unit(),
        }


def spread(figures: Figures) -> Spread:
    """How the repetitions differ."""
    medians = np.median(figures, axis=1)
    return Spread(float(np.median(medians)), float(np.min(medians)), float(np.max(medians)))


def _spread_json(name: str, figures: Figures | None) -> dict[str, float | None]:
    """Median and range, as three members."""
    names = name, f"{name}_min", f"{name}_max"
    values = [None] * 3 if figures is None else [round(value, 2) for value in spread(figures)]
    return dict(zip(names, values, strict=True))


class Lane:
    """Two cards of a stepped machine, one with a generator and one with a sink, and what forwards between them.

    Args:
        host: the machine.
        source, target: names of the cards.
        prepare: given a batch size, makes the poll that forwards, and the state that it works on, for one turn.
    """

    def __init__(self, host: Machine, source: str, target: str, prepare: Callable[[int], Prepared]) -> None:
        self._host = host
        self._names = source, target
        self._cards = host.cards[source].index, host.cards[target].index
        self._prepare = prepare

    def measure(self, batch: int, rounds: int) -> float:
        """Ticks per packet, from about so many rounds of one batch each.

        Other programs, interrupts and the hypervisor interrupt now and then. So the rounds are cut in short stretches,
        and the median stretch counts; each is long enough for all work that is not done in every round.
        """
        stretch = min(rounds, stretch_of(batch))
        spent = np.zeros(rounds // stretch, np.int64)
        with self._prepare(batch) as (poll, state):
            run = _lock_step_kernel(poll)
            run(self._host.rack, *self._cards, state, batch, -(-_WARM_UP // batch), np.zeros(1, np.int64))
            run(self._host.rack, *self._cards, state, batch, stretch, spent)
        return (float(np.median(spent)) / stretch - tick_cost()) / batch

    def check(self) -> None:
        """Every packet arrived, changed as it should be, and in order.

        Raises:
            Error: not so; the figures are worth nothing.
        """
        report = self._host.sink_report(*self._names)
        if report != report.perfect:
            raise Error(f"the benchmark's packets did not arrive as they should: {report}")


class Lanes(NamedTuple):
    """What is measured in turns: the driver, and beside it what `Cost` has."""

    driver: Lane
    layout: Lane | None = None
    reference: Lane | None = None
    scalar_limit: Lane | None = None
    simd_limit: Lane | None = None
    metadata: Lane | None = None
    offloads: Lane | None = None


@contextmanager
def lanes(metadata: Sequence[str] = (), offloads: Sequence[str] = ()) -> Generator[tuple[Lanes, str]]:
    """All lanes on one machine, each with two cards of its own, and why there is none in C if there is none.

    Args:
        metadata: what a second lane of the driver is to tell of each packet, as `ixy.open` takes it; none without.
        offloads: what the sending card of a third one is to do, see `OffloadingLane`; none without.
    """
    from ixy.bench.offloading import OffloadingLane

    host = Machine(stepped=True)
    with ExitStack() as stack:
        asking = OffloadingLane(stack, host, "m", "n", offloads) if offloads else None  # first: it lets all cards work
        driver = driver_lane(stack, host, "a", "b")
        telling = driver_lane(stack, host, "g", "h", metadata=metadata) if metadata else None
        try:
            library = build()
        except NoReference as reason:
            yield Lanes(driver, metadata=telling, offloads=asking), str(reason)
            return
        layout = _reference_lane(stack, host, "c", "d", partial(Algorithm, library, layout=OURS))
        reference = _reference_lane(stack, host, "e", "f", partial(Algorithm, library, layout=PUBLISHED))
        scalar = _reference_lane(stack, host, "i", "j", partial(Limit, library, simd=False))
        simd = None
        if has_simd(library):
            simd = _reference_lane(stack, host, "k", "l", partial(Limit, library, simd=True))
        yield Lanes(driver, layout, reference, scalar, simd, telling, asking), ""


def stretch_of(batch: int) -> int:
    """The batches of a stretch."""
    return -(-_STRETCH // batch)


def open_pair(
    stack: ExitStack,
    host: Machine,
    source: str,
    target: str,
    metadata: Sequence[str] = (),
    frame: int = 60,
    ring_size: int = RING_SIZE,
) -> tuple[Device, Device]:
    """Two cards for a lane, which `stack` closes."""
    rx = open_device(f"sim:{source},gen={frame}", ring_size=ring_size, metadata=metadata, sim=host)
    stack.enter_context(rx)
    tx = open_device(f"sim:{target},sink={source},touch=48", ring_size=ring_size, sim=host)
    stack.enter_context(tx)
    return rx, tx


def driver_lane(stack: ExitStack, host: Machine, source: str, target: str, **options: Any) -> Lane:
    """The driver between two cards of its own, which `stack` closes.

    Args:
        options: `metadata`, the `frame` size in bytes, and `ring_size`, where they are not the usual ones.
    """
    rx, tx = open_pair(stack, host, source, target, **options)
    return Lane(host, source, target, partial(_driver_path, rx, tx))


@contextmanager
def _driver_path(rx: Device, tx: Device, batch: int) -> Generator[tuple[Any, Any]]:
    """A path, whose queues are this thread's meanwhile."""
    path = Path(rx.rx[0], tx.tx[0], touch, batch=batch)
    with entered(path):
        yield path.kernels.poll, path.state


def _reference_lane(
    stack: ExitStack, host: Machine, source: str, target: str, take_over: Callable[..., Reference]
) -> Lane:
    """The reference's packets stay until its devices, opened on a stack of their own, are closed."""
    devices = ExitStack()
    rx, tx = open_pair(devices, host, source, target)
    reference = take_over(rx=rx.rx[0], tx=tx.tx[0], host=host)
    stack.callback(reference.close)
    stack.push(devices)

    def prepare(batch: int) -> Prepared:
        reference.set_batch(batch)
        return nullcontext((reference.poll, reference.handle))

    return Lane(host, source, target, prepare)


def measure(lanes: Lanes, batch: int, rounds: int | None = None, repeat: int = 5) -> Cost:
    """What a packet costs at one batch size: `repeat` times so many rounds of each lane, which take short turns.

    Raises:
        Error: a packet was lost or came out wrong.
    """
    rounds = rounds or -(-PACKETS // batch)
    turn = min(rounds, -(-_TURN // batch))
    shape = repeat, rounds // turn
    figures = {lane: np.zeros(shape) for lane in lanes if lane}
    for place in np.ndindex(shape):
        for lane, costs in figures.items():
            costs[place] = lane.measure(batch, turn)
    for lane in figures:
        lane.check()
    return Cost(batch, **{name: lane and figures[lane] for name, lane in lanes._asdict().items()})


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
