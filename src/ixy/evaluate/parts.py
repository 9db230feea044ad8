"""What a section of the report consists of: paragraphs, tables, charts of them, and what is missing and why."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ixy.bench.lockstep import Spread

Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Chart:
    """How a table is drawn: a curve for each column after the first, over the first.

    Attributes:
        unit: of all figures.
        logarithmic: the axis of figures.
    """

    unit: str
    logarithmic: bool = False


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

Told = Callable[[float, str], None]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repeat: how often each figure.
        packets: in lock step, of each side in one repetition.
        window: seconds over which a rate is taken.
        batches: sizes.
        starts: how often each process of a comparison is started.
    """

    repeat: int
    packets: int
    window: float
    batches: Sequence[int]
    starts: int

    def rounds(self, batch: int) -> int:
        """Batches in one repetition."""
        return -(-self.packets // batch)


FULL = Effort(repeat=7, packets=1 << 18, window=1.0, batches=(1, 2, 4, 8, 16, 32, 64, 128, 256), starts=5)
QUICK = Effort(repeat=5, packets=1 << 17, window=0.4, batches=(1, 8, 32, 64, 256), starts=2)


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
