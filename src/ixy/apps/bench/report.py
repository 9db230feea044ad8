"""The benchmarks' results as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ixy.apps.bench.environment import describe, tick_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.apps.bench.lockstep import Cost, Spread
    from ixy.apps.bench.rates import Rate


def costs_table(costs: Sequence[Cost]) -> Table:
    """What a packet costs, by batch size."""
    table = _table(f"Forwarding a 60-byte packet, in {tick_unit()}: median (range)")
    for heading in ("batch", "driver", "C reference", "ratio"):
        table.add_column(heading, justify="right")
    for cost in costs:
        ratio = f"{cost.ratio:.2f}" if cost.ratio is not None else "–"
        table.add_row(str(cost.batch), _spread(cost.driver), _spread(cost.reference), ratio)
    return table


def rates_table(rates: Sequence[Rate]) -> Table:
    """Packets per second."""
    table = _table("Forwarding 60-byte packets, in Mpps: median (range)")
    for heading in ("forwarder", "batch", "Mpps"):
        table.add_column(heading, justify="right")
    for rate in rates:
        table.add_row(
            rate.what, str(rate.batch), f"{rate.median:.2f} ({min(rate.windows):.2f}–{max(rate.windows):.2f})"
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, caption=describe())


def _spread(spread: Spread | None) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f}–{spread.high:.1f})" if spread else "–"
