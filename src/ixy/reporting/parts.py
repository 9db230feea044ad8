"""What a report consists of: paragraphs, tables, charts of them, and what is missing and why."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Spread(NamedTuple):
    """A figure that was measured several times: the median, the least and the most."""

    median: float
    least: float
    most: float


Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Chart:
    """How a table is drawn: a curve for each of some columns over the first one.

    Attributes:
        unit: of all figures.
        logarithmic: the axis of figures.
        curves: the headings of these columns. Without, it is the one whose heading is the unit; if there is none, it is
            all of them.
    """

    unit: str
    logarithmic: bool = False
    curves: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Figures, and how they came about.

    Attributes:
        name: of its files, unique in the report.
        title: with the unit, if all figures have one.
        columns: headings.
        rows: a cell a column; None where there is no figure.
        how: what was measured and in what manner, or where figures were published; sentences.
        repeats: how often each figure was measured on this machine, 0 for figures that were not.
        chart: how it is drawn, if it is.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    how: str
    repeats: int = 0
    chart: Chart | None = None


@dataclass(frozen=True)
class Missing:
    """What could not be measured on this machine.

    Attributes:
        what: as the beginning of a sentence.
        why: and what to do about it.
    """

    what: str
    why: str


Part = str | Table | Missing  # a str is a paragraph


def of(values: Sequence[float]) -> Spread:
    """Median and range of a figure's repetitions."""
    return Spread(statistics.median(values), min(values), max(values))


def per(dividend: float, spread: Spread) -> Spread:
    """A fixed quantity divided by a figure: the rate of a cost, the cost of a rate."""
    return Spread(dividend / spread.median, dividend / spread.most, dividend / spread.least)


def times(factor: float, spread: Spread) -> Spread:
    """A figure in another unit."""
    return Spread(factor * spread.median, factor * spread.least, factor * spread.most)


def is_figures(table: Table, column: int) -> bool:
    """Whether a column has figures, or words."""
    return any(isinstance(row[column], (int, float, Spread)) for row in table.rows)


def shown(cell: Cell) -> str:
    """A cell for people: figures with three digits, a spread as median and range."""
    if cell is None:
        return "–"
    if isinstance(cell, Spread):
        return f"{shown(cell.median)} ({shown(cell.least)}–{shown(cell.most)})"
    if cell == 0:
        return "0"
    if isinstance(cell, float):
        return (
            f"{cell:.{2 if 1 <= abs(cell) < 10 else 1 if abs(cell) < 100 else 0}f}" if abs(cell) >= 1 else f"{cell:.3f}"
        )
    return str(cell)
