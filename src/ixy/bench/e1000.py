"""`ixy bench e1000`: what the driver of the gigabit cards costs, in lock step with a partner, beside the 82599's.

Driver and partner take turns on one core, and only the driver's turns are timed: the partner puts one batch of frames
into receive buffers; the driver receives it, changes a byte of each packet and sends it; then the partner takes
everything off the transmit ring. The 82599's driver does the same with the simulated card, in turns with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.bench.lockstep import PACKETS, RING_SIZE, driver_lane, spread, stretch_of, tick_cost
from ixy.device import Device
from ixy.drivers.e1000 import E1000
from ixy.drivers.e1000.inprocess import InProcess
from ixy.errors import Error
from ixy.jit import compiled
from ixy.path import Path, entered, touch
from ixy.reporting.environment import tick_unit
from ixy.sim.gigabit import NEWER, OLDER, RECEIVED, SENT, Gigabit, deliver, drain
from ixy.sim.machine import Machine
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.gigabit import Port

FRAME_BYTES = 60
CARDS = {"82574": NEWER, "82540": OLDER}
_TURN = 1 << 13  # packets


class Lane:
    """A driver and its partner, both ways through one card."""

    def __init__(self, stack: ExitStack, device: int) -> None:
        self._card = Gigabit(device)
        self._device = stack.enter_context(Device(E1000(InProcess(self._card), ring_size=RING_SIZE)))
        self._frame, self._taken = np.zeros(FRAME_BYTES, np.uint8), np.zeros(2048, np.uint8)

    def measure(self, batch: int, rounds: int) -> float:
        """Ticks per packet, from about so many rounds of one batch each; the median of short stretches counts."""
        path = Path(self._device.rx[0], self._device.tx[0], touch, batch=batch)
        stretch = min(rounds, stretch_of(batch))
        spent = np.zeros(rounds // stretch, np.int64)
        with entered(path):
            run = _loop(path.kernels.poll)
            for figures in (np.zeros(1, np.int64), spent):
                run(self._card.port, path.state, self._frame, self._taken, batch, stretch, figures)
        return (float(np.median(spent)) / stretch - tick_cost()) / batch

    def check(self) -> None:
        """
        Raises:
            Error: a packet was lost.
        """
        state = self._card.port.state
        if state[RECEIVED] != state[SENT]:
            raise Error(f"of {state[RECEIVED]} packets, {state[SENT]} were forwarded")


def measure(batches: Sequence[int], repeat: int) -> Iterator[dict[str, Any]]:
    """What a packet costs with each card at each batch size, and how many times as much as with an 82599.

    Raises:
        Error: a packet was lost.
    """
    with ExitStack() as stack:
        lanes = {card: Lane(stack, device) for card, device in CARDS.items()}
        measures: dict[str, Callable[[int, int], float]] = {name: lane.measure for name, lane in lanes.items()}
        measures["82599"] = driver_lane(stack, Machine(stepped=True), "a", "b").measure
        for batch in batches:
            shape = repeat, max(PACKETS // _TURN, 1)
            figures = {name: np.zeros(shape) for name in measures}
            for place in np.ndindex(shape):
                for name, lane in measures.items():
                    figures[name][place] = lane(batch, -(-_TURN // batch))
            for lane in lanes.values():
                lane.check()
            for name in CARDS:
                costs = spread(figures[name])
                yield {
                    "card": name,
                    "batch": batch,
                    **{key: round(value, 2) for key, value in costs._asdict().items()},
                    "ratio_to_82599": round(float(np.median(figures[name] / figures["82599"])), 3),
                    "unit": tick_unit(),
                }


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same in words."""
    for row in results:
        yield (
            f"{row['card']} batch {row['batch']:3}: {row['median']:.1f} ({row['least']:.1f}–{row['most']:.1f}) "
            f"{row['unit']} per packet, {row['ratio_to_82599']:.2f} times an 82599"
        )


@cache
def _loop(poll: Any) -> Any:
    """The loop in which a poll and the partner take turns."""

    @compiled
    def loop(
        port: Port,
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
                    deliver(port, 0, frame, frame.size)
                start = ticks()
                poll(state)
                spent[stretch] += ticks() - start
                while drain(port, 0, taken) > 0:
                    pass

    return loop
