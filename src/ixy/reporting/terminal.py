"""A table, and its curves, in text."""

from __future__ import annotations

from itertools import pairwise

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from ixy.reporting.chart import Axis, axis_of, curves, figure
from ixy.reporting.parts import Cell, Table, is_figures, shown

_WIDTH, _HEIGHT = 64, 13  # characters
_MARKS = "●▲■◆○△□◇"
_COLOURS = ("default", "red", "blue", "green", "magenta", "yellow", "cyan", "bright_black")
_BETWEEN = "·"

Dots = dict[tuple[int, int], tuple[str, str]]  # characters and their colours, by column and row from the bottom


def grid(table: Table) -> RichTable:
    """A table with its headings, without its title; figures stand to the right."""
    drawn = RichTable(box=box.SIMPLE)
    for at, heading in enumerate(table.columns):
        drawn.add_column(heading, justify="right" if is_figures(table, at) else "left")
    for row in table.rows:
        drawn.add_row(*map(shown, row))
    return drawn


def plot(table: Table) -> Text:
    """The curves of a table that has a chart, a mark a figure."""
    assert table.chart is not None
    axis, drawn = axis_of(table), curves(table)
    places = [round(_WIDTH * (at + 0.5) / len(table.rows)) for at in range(len(table.rows))]
    dots: Dots = {}
    for number, curve in reversed(list(enumerate(drawn.values()))):  # the first lies on top
        dots |= _dots(axis, places, curve, _MARKS[number % len(_MARKS)], _COLOURS[number % len(_COLOURS)])
    text = Text(f"{table.chart.unit}\n")
    for row, label in _labels(axis):
        text.append(f"{label:>10} │", "bright_black")
        for column in range(_WIDTH):
            text.append(*dots.get((column, row), (" ", "default")))
        text.append("\n")
    text.append(
        f"{'':>10} └{'─' * _WIDTH}\n{'':>12}{_below(places, [shown(row[0]) for row in table.rows])}\n", "bright_black"
    )
    for number, name in enumerate(drawn):
        text.append(f"  {_MARKS[number % len(_MARKS)]} {name}", _COLOURS[number % len(_COLOURS)])
    return text


def _dots(axis: Axis, places: list[int], curve: list[Cell], mark: str, colour: str) -> Dots:
    """A mark for each figure, and what leads from one to the next."""
    figures = [(place, figure(cell)) for place, cell in zip(places, curve, strict=True)]
    points = [(place, round(axis.share(value) * (_HEIGHT - 1))) for place, value in figures if value is not None]
    dots: Dots = {}
    for (left, before), (right, after) in pairwise(points):
        for column in range(left + 1, right):
            row = before + (after - before) * (column - left) / (right - left)
            dots[column, round(row)] = _BETWEEN, colour
    return dots | dict.fromkeys(points, (mark, colour))


def _labels(axis: Axis) -> list[tuple[int, str]]:
    """The rows from the top, and the figure at which a row lies, if the axis has one there."""
    marks = {round(axis.share(mark) * (_HEIGHT - 1)): f"{mark:.10g}" for mark in axis.marks}
    return [(row, marks.get(row, "")) for row in range(_HEIGHT - 1, -1, -1)]


def _below(places: list[int], names: list[str]) -> str:
    """Names, each in the middle below its place."""
    line = ""
    for place, name in zip(places, names, strict=True):
        line = line.ljust(max(place - len(name) // 2, len(line) + 1 if line else 0)) + name
    return line
