"""Throughput by the sizes of rings and of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from typing import NamedTuple

import numpy as np

from ixy.bench import lockstep
from ixy.evaluate import costs
from ixy.evaluate.effort import Effort
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Chart, Part, Spread, Table, times
from ixy.reporting.progress import Told
from ixy.sim.machine import Machine

TITLE = "Throughput by ring and frame size"

_RINGS = (64, 128, 256, 512, 1024, 2048, 4096)
_FRAMES = (60, 124, 252, 508, 1020, 1514)  # bytes without frame check sequence
_BATCH = 32
_TURN = 256  # batches; short, since sizes that are compared shall be measured at the same speed of the processor
_ON_THE_WIRE = 24  # bytes that a frame takes besides: frame check sequence, preamble, gap (IEEE 802.3)
_HOW = f"{costs.HOW} {_BATCH} packets a batch; all sizes take turns."


class _Size(NamedTuple):
    ring: int
    frame: int


def seconds(effort: Effort) -> float:
    return 3 + (len(_RINGS) + len(_FRAMES)) * effort.repeat * effort.packets * 3e-7


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    told(0, "rings")
    rings = _measure([_Size(ring, _FRAMES[0]) for ring in _RINGS], effort)
    yield Table(
        "by_ring_size",
        "Forwarding by the size of both rings",
        ["descriptors", "Mpps", tick_unit()],
        [[ring, costs.rate(cost), cost] for ring, cost in zip(_RINGS, rings, strict=True)],
        f"{_HOW} {_FRAMES[0]}-byte packets. Of a larger ring, more buffers are under way, for which caches "
        "must have room.",
        effort.repeat,
        Chart("Mpps"),
    )
    told(0.5, "frames")
    frames = _measure([_Size(lockstep.RING_SIZE, frame) for frame in _FRAMES], effort)
    yield Table(
        "by_frame_size",
        "Forwarding by the size of frames",
        ["bytes", "Mpps", tick_unit(), "Gbit/s"],
        [[frame, costs.rate(cost), cost, _bandwidth(frame, cost)] for frame, cost in zip(_FRAMES, frames, strict=True)],
        f"{_HOW} Rings of {lockstep.RING_SIZE} descriptors. Sizes are without frame check sequence, bits as on the "
        "wire. The driver touches a packet's first line only, however long it is.",
        effort.repeat,
    )


def _measure(sizes: Sequence[_Size], effort: Effort) -> list[Spread]:
    """What forwarding costs at each of up to 8 sizes, in ticks."""
    rounds = min(effort.rounds(_BATCH), _TURN)
    turns = effort.rounds(_BATCH) // rounds
    figures = np.zeros((len(sizes), effort.repeat, turns))
    host = Machine(stepped=True)
    with ExitStack() as stack:
        lanes = [
            lockstep.driver_lane(stack, host, f"{number}a", f"{number}b", frame=size.frame, ring_size=size.ring)
            for number, size in enumerate(sizes)
        ]
        for repetition, turn, (number, lane) in product(range(effort.repeat), range(turns), enumerate(lanes)):
            figures[number, repetition, turn] = lane.measure(_BATCH, rounds)
        for lane in lanes:
            lane.check()
    return [lockstep.spread(figure) for figure in figures]


def _bandwidth(frame: int, cost: Spread) -> Spread | None:
    """Gigabits a second."""
    rate = costs.rate(cost)
    return rate and times((frame + _ON_THE_WIRE) * 8e-3, rate)
