"""Throughput by clock frequency: figure 6.1 of the thesis, and figures 6.2 and 6.3 at the lowest and the highest."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ixy.bench import lockstep
from ixy.bench.lockstep import Spread
from ixy.bench.rates import on_core
from ixy.evaluate import costs
from ixy.evaluate.cpufreq import Frequency
from ixy.evaluate.machine import tick_rate
from ixy.evaluate.parts import Chart, Effort, Part, Table, Told, times

TITLE = "Throughput by clock frequency (figure 6.1)"
_BATCH = 32


def seconds(effort: Effort) -> float:
    return 20 + effort.repeat * effort.packets * 2e-5


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    frequency = Frequency(min(os.sched_getaffinity(0)))
    steps = frequency.available()
    with on_core(0), lockstep.lanes() as (lanes, _), frequency.restored():
        found: list[dict[str, Spread | None]] = []
        for number, step in enumerate(steps):
            told(number / len(steps), f"{step / 1e6:.2f} GHz")
            frequency.set(step)
            found.append(costs.spreads(costs.measure(lanes, _BATCH, effort)))
    names = [name for name, spread in found[0].items() if spread]
    how = f"{costs.HOW} {_BATCH} packets a batch."
    yield Table(
        "throughput_by_frequency",
        "Packets forwarded by the core's frequency, in Mpps",
        ["GHz", *names],
        [[step / 1e6, *(costs.rate(row[name]) for name in names)] for step, row in zip(steps, found, strict=True)],
        how,
        effort.repeat,
        Chart("Mpps"),
    )
    yield Table(
        "cycles_by_frequency",
        "What a packet costs by the core's frequency, in cycles",
        ["GHz", *names],
        [[step / 1e6, *(_cycles(row[name], step) for name in names)] for step, row in zip(steps, found, strict=True)],
        f"{how} Ticks of the time-stamp counter made cycles of the frequency that was set. Published: C 100, Rust 108, "
        "DPDK 61.",
        effort.repeat,
    )


def _cycles(cost: Spread | None, kilohertz: int) -> Spread | None:
    """A cost in ticks as one in cycles."""
    return None if cost is None else times(kilohertz * 1e3 / tick_rate(), cost)
