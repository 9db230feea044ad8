"""What a packet costs in lock step with the model: a sender and the model take turns, and only the sender's are timed.

Several senders are measured in turns, on cards of one machine. The median of short stretches counts: other programs
come between now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.bench.costs import result
from ixy.bench.lockstep import RING_SIZE, tick_cost
from ixy.errors import Error
from ixy.jit import compiled
from ixy.unsafe import ticks

if TYPE_CHECKING:
    from ixy.apps.generate import Generator

PACKETS = 1 << 16  # of one figure
BATCH = 32
_STRETCH = 64  # batches
_WARM_UP = 2 * RING_SIZE // BATCH + 1  # batches: each buffer was used, each schedule began


class Work(NamedTuple):
    """What is measured.

    Attributes:
        generator: whose polls are timed.
        model: the kernel `model(given, number)`, the model's turn before poll `number`.
        given: what that works on.
        done: how many packets were handled so far; each poll handles BATCH.
    """

    generator: Generator
    model: Callable[[Any, int], None]
    given: Any
    done: Callable[[], int]

    def run(self, polls: int) -> int:
        """Ticks that so many polls take."""
        return int(_lock_step_kernel(self.generator.kernels, self.model)(self.given, self.generator.state, polls))

    def cost(self) -> float:
        """Ticks a packet.

        Raises:
            Error: packets were lost.
        """
        before, stretches = self.done(), max(PACKETS // BATCH // _STRETCH, 1)
        spent = [self.run(_STRETCH) for _ in range(stretches)]
        if self.done() - before != stretches * _STRETCH * BATCH:
            raise Error(f"the benchmark's sender has handled {self.done() - before} packets")
        return (float(np.median(spent)) / _STRETCH - tick_cost()) / BATCH


def measured(works: Mapping[str, Work], repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each of several works: what a packet costs, in ticks.

    Raises:
        Error: packets were lost.
    """
    costs = {what: np.zeros(repeat) for what in works}
    for work in works.values():
        work.run(_WARM_UP)
    for i in range(repeat):
        for what, work in works.items():
            costs[what][i] = work.cost()
    for what, figures in costs.items():
        yield result(what, BATCH, figures)


@cache
def _lock_step_kernel(kernels: Any, model: Callable[[Any, int], None]) -> Any:
    """The loop in which a sender and the model take turns."""
    begin, poll, end, _ = kernels

    @compiled
    def lock_step(given: Any, state: Any, polls: int) -> int:
        spent = 0
        if not begin(state):
            return spent
        for number in range(polls):
            model(given, number)
            start = ticks()
            poll(state)
            spent += ticks() - start
        end(state)
        return spent

    return lock_step
