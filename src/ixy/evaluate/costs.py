"""Costs in lock step, as sections show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ixy.bench import lockstep
from ixy.bench.lockstep import Cost, Lanes
from ixy.evaluate.machine import tick_rate
from ixy.reporting.parts import Spread, per

if TYPE_CHECKING:
    from ixy.evaluate.effort import Effort
    from ixy.reporting.progress import Told

T = TypeVar("T")

OURS = "ixy for Python"

HOW = (
    "Driver and simulated card take turns on one core, and only the driver's turns count: receive, change one byte, "
    "transmit, clean. What stands beside it in C does the same work between cards of the same model, in turns of "
    "milliseconds with the driver."
)

# What the members of a cost's object are called in a table, in this order; others come after them, by their own names.
_MEMBER = "cycles_per_packet"
_RATIO = "ratio_to_"
_NAMES = {
    "": OURS,
    "metadata": "ixy with metadata",
    "simd_limit": "C, SIMD limit",
    "scalar_limit": "C, scalar limit",
    "layout": "C, our layout",
    "reference": "C, as published",
}


def measure(lanes: Lanes, batches: Sequence[int], effort: Effort, told: Told) -> list[dict[str, Any]]:
    """A cost's object for each batch size. They take turns, since they are compared."""
    found: dict[int, list[Cost]] = {batch: [] for batch in batches}
    for repetition in range(effort.repeat):
        told(repetition / effort.repeat, f"repetition {repetition + 1} of {effort.repeat}")
        for batch, repetitions in found.items():
            repetitions.append(lockstep.measure(lanes, batch, effort.rounds(batch), repeat=1))
    return [_together(repetitions).as_json() for repetitions in found.values()]


def _together(repetitions: Sequence[Cost]) -> Cost:
    """Repetitions at one batch size that were measured apart."""
    together: dict[str, Any] = {}
    for name in (field.name for field in fields(Cost)):
        values = [getattr(cost, name) for cost in repetitions]
        together[name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]
    return Cost(**together)


def spreads(cost: dict[str, Any]) -> dict[str, Spread | None]:
    """The costs in a cost's object, by what they are called; None for what was not measured."""
    found: dict[str, Spread | None] = {}
    for member, median in cost.items():
        if member.endswith(_MEMBER):
            least, most = cost.get(f"{member}_min", median), cost.get(f"{member}_max", median)
            whose = member.removesuffix(_MEMBER).removesuffix("_")
            found[whose] = None if median is None else Spread(median, least, most)
    return _named(found)


def ratios(cost: dict[str, Any]) -> dict[str, float | None]:
    """The ratios in a cost's object, by the name of what ours is divided by."""
    found = {name.removeprefix(_RATIO): cost[name] for name in cost if name.startswith(_RATIO)}
    return _named({"reference": cost.get("ratio"), **found})


def rate(cost: Spread | None) -> Spread | None:
    """Millions of packets a second at a cost in ticks."""
    return None if cost is None else per(tick_rate() / 1e6, cost)


def _named(found: dict[str, T]) -> dict[str, T]:
    """What was found, by what it is called, in the order of `_NAMES`."""
    ordered = [member for member in _NAMES if member in found] + [member for member in found if member not in _NAMES]
    return {_NAMES.get(member, member): found[member] for member in ordered}
