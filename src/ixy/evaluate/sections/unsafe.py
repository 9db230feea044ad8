"""Unsafe code: table 6.2 of the thesis."""

from __future__ import annotations

from collections.abc import Iterator

from ixy.bench import code
from ixy.evaluate import published
from ixy.evaluate.costs import OURS
from ixy.evaluate.effort import Effort
from ixy.reporting.parts import Cell, Part, Table
from ixy.reporting.progress import Told

TITLE = "Unsafe code (table 6.2)"


def seconds(_effort: Effort) -> float:
    return 2


def measure(_effort: Effort, told: Told) -> Iterator[Part]:
    told(0, "counting lines")
    yield table()


def table() -> Table:
    """This driver's share of unsafe code, and those of the three drivers in the thesis."""
    lines = code.count()
    unchecked: list[Cell] = [lines.kernels, _share(lines.kernels, lines.total)]
    return Table(
        "unsafe_code",
        "Lines of unsafe code",
        ["driver", "speed", "lines of code", "unsafe code", "% unsafe", "unchecked kernels", "% unchecked"],
        [
            [OURS, "10 Gbit/s", lines.total, lines.unsafe, _share(lines.unsafe, lines.total), *unchecked],
            *(
                [driver, speed, total, unsafe, _share(unsafe, total), None, None]
                for driver, (speed, total, unsafe) in published.UNSAFE.items()
            ),
        ],
        "Driver, memory, bus and the interface to applications, without the tables of registers and without empty "
        "lines, comments and docstrings. Unsafe are the lines of the one package that may touch raw addresses; "
        "unchecked kernels only index arrays, but are compiled without bounds checks, so nothing stops a wrong index. "
        f"The other drivers: {published.THESIS}.",
    )


def _share(lines: int, total: int) -> str:
    return f"{lines / total:.2%}"
