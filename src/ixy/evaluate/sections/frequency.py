"""Throughput by clock frequency: figure 6.1 of the thesis, and figures 6.2 and 6.3, at the lowest and the highest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

from ixy.bench import lockstep
from ixy.bench.lockstep import Lanes
from ixy.bench.rates import on_core
from ixy.evaluate import costs
from ixy.evaluate.cpufreq import Frequency
from ixy.evaluate.effort import Effort
from ixy.evaluate.machine import tick_rate
from ixy.reporting.parts import Chart, Part, Spread, Table, times
from ixy.reporting.progress import Told

TITLE = "Throughput by clock frequency (figure 6.1)"
_BATCH = 32

_Row = dict[str, Spread | None]  # costs by name


def seconds(effort: Effort) -> float:
    return 5 + (6 + 2 * len(effort.batches)) * effort.repeat * effort.packets * 1.5e-6


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    frequency = Frequency(min(os.sched_getaffinity(0)))
    steps = frequency.available()
    by_step: list[_Row] = []
    by_batch: dict[int, list[_Row]] = {}
    with on_core(0), lockstep.lanes() as (lanes, _), frequency.restored():
        for number, step in enumerate(steps):
            frequency.set(step)
            by_step += _costs(lanes, [_BATCH], effort, partial(_told, told, number / len(steps) / 2, step))
        for number, step in enumerate((steps[0], steps[-1])):
            frequency.set(step)
            by_batch[step] = _costs(lanes, effort.batches, effort, partial(_told, told, 0.5 + number / 4, step))
    yield from _frequency_tables(steps, by_step, effort.repeat)
    for step, rows in by_batch.items():
        yield _batch_table(step, effort, rows)


def _costs(lanes: Lanes, batches: Sequence[int], effort: Effort, told: Told) -> list[_Row]:
    return [costs.spreads(cost) for cost in costs.measure(lanes, batches, effort, told)]


def _told(told: Told, done: float, step: int, _share: float, what: str) -> None:
    """Tell of one frequency's measurement; its own share is not worth a step of the bar."""
    told(done, f"{_gigahertz(step)}, {what}")


def _frequency_tables(steps: Sequence[int], rows: Sequence[_Row], repeats: int) -> Iterator[Table]:
    names = [name for name, spread in rows[0].items() if spread]
    how = f"{costs.HOW} {_BATCH} packets a batch."
    yield Table(
        "throughput_by_frequency",
        "Packets forwarded by the core's frequency, in Mpps",
        ["GHz", *names],
        [[step / 1e6, *(costs.rate(row[name]) for name in names)] for step, row in zip(steps, rows, strict=True)],
        how,
        repeats,
        Chart("Mpps"),
    )
    yield Table(
        "cycles_by_frequency",
        "What a packet costs by the core's frequency, in cycles",
        ["GHz", *names],
        [[step / 1e6, *(_cycles(row[name], step) for name in names)] for step, row in zip(steps, rows, strict=True)],
        f"{how} Ticks of the time-stamp counter made cycles of the frequency that was set. Published: C 100, Rust 108, "
        "DPDK 61.",
        repeats,
    )


def _batch_table(step: int, effort: Effort, rows: Sequence[_Row]) -> Table:
    names = [name for name, spread in rows[0].items() if spread]
    return Table(
        f"throughput_by_batch_at_{step // 1000}_mhz",
        f"Packets forwarded at {_gigahertz(step)} by batch size, in Mpps",
        ["batch", *names],
        [[batch, *(costs.rate(row[name]) for name in names)] for batch, row in zip(effort.batches, rows, strict=True)],
        costs.HOW,
        effort.repeat,
        Chart("Mpps"),
    )


def _cycles(cost: Spread | None, kilohertz: int) -> Spread | None:
    """A cost in ticks as one in cycles."""
    return None if cost is None else times(kilohertz * 1e3 / tick_rate(), cost)


def _gigahertz(kilohertz: int) -> str:
    return f"{kilohertz / 1e6:.2f} GHz"
