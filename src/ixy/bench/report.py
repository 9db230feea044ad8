"""The benchmarks' results as tables for people."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.table import Table

from ixy.bench.environment import describe, tick_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.bench.lockstep import Cost
    from ixy.bench.rates import Rate


def costs_table(costs: Sequence[Cost]) -> Table:
    """What a packet costs, by batch size."""
    table = _table(f"Forwarding a 60-byte packet, in {tick_unit()}: median (range)")
    for heading in ("batch", "driver", "C reference", "ratio"):
        table.add_column(heading, justify="right")
    for cost in costs:
        ratio = f"{cost.ratio:.2f}" if cost.ratio is not None else "–"
        table.add_row(str(cost.batch), _spread(cost.driver, 1), _spread(cost.reference, 1), ratio)
    return table


def rates_table(rates: Sequence[Rate]) -> Table:
    """Packets per second."""
    table = _table("Forwarding 60-byte packets, in Mpps: median (range)")
    for heading in ("forwarder", "batch", "Mpps"):
        table.add_column(heading, justify="right")
    for rate in rates:
        table.add_row(rate.what, str(rate.batch), _spread(rate.windows, 2))
    return table


def _table(title: str) -> Table:
    return Table(title=title, caption=describe())


def _spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    if not values:
        return "–"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
