"""Tables drawn as curves, in SVG that needs nothing else to be shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ixy.reporting.parts import Cell, Spread, Table, shown

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 220, 16, 48  # margins; the names of the curves stand at the right
_STEPS = (1, 2, 5, 10)
_MARKS = 6  # on a linear axis, about
# Okabe and Ito's colours, which people with any colour vision tell apart; then once more, dashed
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


class Axis(NamedTuple):
    """The axis of figures.

    Attributes:
        low, high: its ends.
        logarithmic: as it says.
        marks: figures that have a line.
    """

    low: float
    high: float
    logarithmic: bool
    marks: Sequence[float]

    def share(self, value: float) -> float:
        """Where a figure lies: 0 at the lower end, 1 at the upper one."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return (value - low) / (high - low)

    def place(self, value: float) -> float:
        """The same, in points from the top of the drawing."""
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - self.share(value))


def draw(table: Table) -> str:
    """The curves of a table that has a chart."""
    assert table.chart is not None
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "12")
    SubElement(svg, "title").text = table.title
    SubElement(svg, "rect", width="100%", height="100%", fill="white")
    drawn = curves(table)
    axis = axis_of(table)
    places = [_LEFT + (_WIDTH - _LEFT - _RIGHT) * (at + 0.5) / len(table.rows) for at in range(len(table.rows))]
    _draw_axes(svg, axis, table, places)
    for number, (name, curve) in enumerate(drawn.items()):
        _draw_curve(svg, axis, places, curve, number)
        _draw_name(svg, name, number)
    return ElementTree.tostring(svg, encoding="unicode")


def curves(table: Table) -> dict[str, list[Cell]]:
    """The columns of a table that are drawn, by their headings."""
    assert table.chart is not None
    wanted = table.chart.curves or [name for name in table.columns if name == table.chart.unit] or table.columns[1:]
    return {name: [row[at] for row in table.rows] for at, name in enumerate(table.columns) if name in wanted}


def axis_of(table: Table) -> Axis:
    """An axis for all curves of a table."""
    values = [value for curve in curves(table).values() for cell in curve for value in _bounds(cell)]
    if table.chart and table.chart.logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        decades = range(math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))) + 1)
        marks = [10.0**decade for decade in decades]
        return Axis(marks[0], max(marks[-1], 10 * marks[0]), True, marks)
    high = max(values, default=0.0) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(high / _MARKS))
    step = magnitude * next(step for step in _STEPS if high <= step * magnitude * _MARKS)
    marks = [number * step for number in range(math.ceil(high / step) + 1)]
    return Axis(0.0, marks[-1], False, marks)


def _bounds(cell: Cell) -> tuple[float, ...]:
    if isinstance(cell, Spread):
        return cell.least, cell.most
    return (float(cell),) if isinstance(cell, (int, float)) else ()


def _draw_axes(svg: Element, axis: Axis, table: Table, places: Sequence[float]) -> None:
    """Lines for the marks, what they are, and under them the cells of the first column."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for mark in axis.marks:
        _draw_line(svg, [(_LEFT, axis.place(mark)), (right, axis.place(mark))], stroke="#DDDDDD")
        _draw_text(svg, _LEFT - 6, axis.place(mark) + 4, f"{mark:.10g}", "end")
    for place, row in zip(places, table.rows, strict=True):
        _draw_text(svg, place, bottom + 16, shown(row[0]), "middle")
    _draw_text(svg, (_LEFT + right) / 2, bottom + 36, table.columns[0], "middle")
    if table.chart:
        _draw_text(svg, 14, (_TOP + bottom) / 2, table.chart.unit, "middle").set(
            "transform", f"rotate(-90 14 {(_TOP + bottom) / 2:.1f})"
        )


def _draw_curve(svg: Element, axis: Axis, places: Sequence[float], curve: Sequence[Cell], number: int) -> None:
    """Points, the range of each, and lines from one to the next that there is."""
    group = SubElement(svg, "g", stroke=_COLOURS[number % len(_COLOURS)], fill=_COLOURS[number % len(_COLOURS)])
    points = list(_points(axis, places, curve))
    _draw_line(group, points, **_style(number))
    for place, cell in zip(places, curve, strict=True):
        if isinstance(cell, Spread):
            _draw_line(group, [(place, axis.place(cell.least)), (place, axis.place(cell.most))])
    for x, y in points:
        SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3")


def _points(axis: Axis, places: Sequence[float], curve: Sequence[Cell]) -> Iterator[tuple[float, float]]:
    for place, cell in zip(places, curve, strict=True):
        value = figure(cell)
        if value is not None:
            yield place, axis.place(value)


def figure(cell: Cell) -> float | None:
    """What a cell says: of repetitions the median; None if it is no figure."""
    return cell.median if isinstance(cell, Spread) else cell if isinstance(cell, (int, float)) else None


def _draw_name(svg: Element, name: str, number: int) -> None:
    x, y = _WIDTH - _RIGHT + 12, _TOP + 10 + 20 * number
    _draw_line(svg, [(x, y), (x + 24, y)], stroke=_COLOURS[number % len(_COLOURS)], **_style(number))
    _draw_text(svg, x + 30, y + 4, name, "start")


def _style(number: int) -> dict[str, str]:
    """The first curve is wide; those that have another's colour are dashed."""
    return {
        "stroke-width": "3" if number == 0 else "1.5",
        "stroke-dasharray": "5 3" if number >= len(_COLOURS) else "none",
    }


def _draw_line(parent: Element, points: Sequence[tuple[float, float]], **attributes: str) -> None:
    SubElement(
        parent, "polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "fill": "none", **attributes}
    )


def _draw_text(parent: Element, x: float, y: float, text: str, anchor: str) -> Element:
    element = SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = text
    return element
