"""Costs in lock step, as sections show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ixy.bench import lockstep
from ixy.bench.lockstep import Lanes, Spread
from ixy.evaluate.machine import tick_rate
from ixy.evaluate.parts import per

if TYPE_CHECKING:
    from ixy.evaluate.parts import Effort

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


def measure(lanes: Lanes, batch: int, effort: Effort) -> dict[str, Any]:
    """The cost's object at one batch size."""
    return lockstep.measure(lanes, batch, effort.rounds(batch), effort.repeat).as_json()


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
