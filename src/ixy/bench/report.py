"""The benchmarks' results as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ixy.bench.lockstep import spread
from ixy.reporting.environment import describe, tick_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ixy.bench.latency import Passage
    from ixy.bench.lockstep import Cost, Figures
    from ixy.bench.rates import Rate
    from ixy.bench.start import Start


def costs_table(costs: Sequence[Cost]) -> Table:
    """What a packet costs, by batch size."""
    table = _table(f"Forwarding a 60-byte packet, in {tick_unit()}: median (range); in C: median (driver by C)")
    others = [("C, our layout", "layout"), ("C, as published", "reference"), ("limit in C", "scalar_limit")]
    others += [("limit, AVX-512", "simd_limit")] if any(cost.simd_limit is not None for cost in costs) else []
    besides = [("with metadata", "metadata"), ("with offloads", "offloads")]
    told = [pair for pair in besides if any(getattr(cost, pair[1]) is not None for cost in costs)]
    for heading in ("batch", "driver", *(name for name, _ in told + others)):
        table.add_column(heading, justify="right")
    for cost in costs:
        ours = [_cost(figures) for figures in (cost.driver, *(getattr(cost, name) for _, name in told))]
        table.add_row(str(cost.batch), *ours, *(_beside(cost, getattr(cost, name)) for _, name in others))
    return table


def _cost(figures: Figures | None) -> str:
    return "–" if figures is None else _spread(*spread(figures), digits=1)


def _beside(cost: Cost, other: Figures | None) -> str:
    """Another's cost, and the driver's by it."""
    ratio = cost.ratio(other)
    return "–" if other is None or ratio is None else f"{spread(other).median:.1f} ({ratio:.2f})"


def rates_table(rates: Sequence[Rate]) -> Table:
    """Packets per second."""
    table = _table("Forwarding 60-byte packets, in Mpps: median (range)")
    for heading in ("forwarder", "batch", "Mpps"):
        table.add_column(heading, justify="right")
    for rate in rates:
        table.add_row(rate.what, str(rate.batch), _spread(rate.median, min(rate.windows), max(rate.windows), digits=2))
    return table


def starts_table(starts: Sequence[Start]) -> Table:
    """Seconds of processes that start, and what the first one compiles."""
    table = _table("Starting, in seconds: the first time, and with what is kept then")
    for heading in ("program", "first", "processor", "later", "processor", "compiled", "new function", "known"):
        table.add_column(heading, justify="right")
    for start in starts:
        seconds = (start.cold_seconds, start.cold_cpu_seconds, start.warm_seconds, start.warm_cpu_seconds)
        functions = (start.new_function_cpu_seconds, start.known_function_cpu_seconds)
        numbers = [*(f"{value:.2f}" for value in seconds), str(start.compilations)]
        table.add_row(start.what, *numbers, *("–" if value is None else f"{value:.3f}" for value in functions))
    return table


def latency_table(passages: Mapping[str, Passage]) -> Table:
    """How many frames took how long, from wire to wire, and what so many of them did not exceed."""
    columns: dict[str, Passage] = {}
    for what, passage in passages.items():
        columns[f"path {what}"] = passage
        if calm := passage.only_calm():
            columns[f"calm slices ({passage.calm_share:.0%})"] = calm
    table = _table("Latency from wire to wire: % of the frames")
    for heading in ("µs", *columns):
        table.add_column(heading, justify="right")
    histograms = [passage.histogram() for passage in columns.values()]
    for least in sorted(set[int]().union(*histograms)):
        shares = [histogram.get(least, 0) / histogram.total() * 100 for histogram in histograms]
        table.add_row(f"{least} – {max(2 * least, 1)}", *(f"{share:.2f}" if share else "" for share in shares))
    table.add_section()
    percentiles = [passage.percentiles() for passage in columns.values()]
    for name in percentiles[0]:
        table.add_row(f"{name}, µs", *(f"{found[name]:.1f}" for found in percentiles))
    return table


def _table(title: str) -> Table:
    return Table(title=title, caption=describe(), show_edge=False)  # six columns fit a narrow terminal


def _spread(median: float, least: float, most: float, digits: int) -> str:
    return f"{median:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"
