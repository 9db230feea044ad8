"""Throughput by batch size: figures 6.2 and 6.3 of the thesis, and the published curves beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ixy.bench import lockstep
from ixy.evaluate import costs, published
from ixy.evaluate.costs import OURS
from ixy.evaluate.effort import Effort
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Chart, Missing, Part, Table
from ixy.reporting.progress import Told

TITLE = "Throughput by batch size (figures 6.2 and 6.3)"

_HOW = f"{costs.HOW} Batch sizes take turns. 60-byte packets, rings of {lockstep.RING_SIZE} descriptors."


def seconds(effort: Effort) -> float:
    return 5 + len(effort.batches) * effort.repeat * effort.packets * 1.5e-6


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    told(0, "compiling the lock-step loops")
    with lockstep.lanes() as (lanes, missing):
        if missing:
            yield Missing("The comparison with C", missing)
        measured = costs.measure(lanes, effort.batches, effort, told)
    absent = [name for name, spread in costs.spreads(measured[0]).items() if spread is None]
    if absent and not missing:
        yield Missing(" and ".join(absent), "this processor lacks the instructions that it is written with")
    yield _rates(measured, effort.repeat)
    yield _costs(measured, effort.repeat)
    yield Table(
        "published_throughput",
        "Published: packets forwarded on one core by batch size, in Mpps",
        ["batch", *published.MPPS],
        [[batch, *row] for batch, *row in zip(published.BATCHES, *published.MPPS.values(), strict=True)],
        "Both ways between two ports of 82599 cards, one core of a Xeon E3-1230 v2 at 3.3 GHz, 64-byte packets, one "
        f"byte touched; 29.76 Mpps are all that the wires carry. {published.LANGUAGES}.",
        chart=Chart("Mpps"),
    )
    ours = {cost["batch"]: cost.get("ratio") for cost in measured}
    if any(ours.values()):
        yield _relative(ours, effort.repeat)


def _rates(measured: list[dict[str, Any]], repeats: int) -> Table:
    names = [name for name, spread in costs.spreads(measured[0]).items() if spread]
    rows = [[cost["batch"], *(costs.rate(costs.spreads(cost)[name]) for name in names)] for cost in measured]
    return Table(
        "throughput_by_batch",
        "Packets forwarded on one core by batch size, in Mpps",
        ["batch", *names],
        rows,
        f"{_HOW} A rate is that of a core that does nothing else, between wires without a limit.",
        repeats,
        Chart("Mpps"),
    )


def _costs(measured: list[dict[str, Any]], repeats: int) -> Table:
    names = [name for name, spread in costs.spreads(measured[0]).items() if spread]
    compared = [name for name, ratio in costs.ratios(measured[0]).items() if ratio]
    return Table(
        "cost_by_batch",
        f"What a packet costs by batch size, in {tick_unit()}",
        ["batch", *names, *(f"ratio to {name}" for name in compared)],
        [
            [
                cost["batch"],
                *(costs.spreads(cost)[name] for name in names),
                *(costs.ratios(cost)[name] for name in compared),
            ]
            for cost in measured
        ],
        f"{_HOW} A ratio is our cost by the other's, the median of those of turns that followed each other: below 1, "
        "Python costs less.",
        repeats,
    )


def _relative(ratios: dict[int, float | None], repeats: int) -> Table:
    """Each language beside C on its own machine, by which they can be compared."""
    c = published.MPPS["C"]
    others = {name: rates for name, rates in published.MPPS.items() if name != "C"}
    rows: list[list[float | None]] = []
    for place, batch in enumerate(published.BATCHES):
        ratio = ratios.get(batch)
        rows.append([batch, 1 / ratio if ratio else None, *(rates[place] / c[place] for rates in others.values())])
    return Table(
        "relative_to_c",
        "Packets forwarded, where ixy in C forwards 1 on the same machine",
        ["batch", OURS, *others],
        rows,
        f"{OURS} beside C as published in lock step on this machine; the others beside ixy in C as published, where "
        "the wires' limit of 29.76 Mpps brings those near it together. Real cards also make the processor wait for "
        "memory and PCI Express, which the simulated card does not.",
        repeats,
        Chart("packets for 1 of C"),
    )
