"""`ixy bench traffic`: what the tester's tools cost. A section measures one of them, and is a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ixy.bench import generating

Section = Callable[[int, int], Iterator[dict[str, Any]]]
"""Given the batch and how often to measure, an object for each figure: `what` it is of, `batch`, `median`, `least` and
`most`, in `unit`."""

SECTIONS: dict[str, Section] = {"generate": generating.measure}


def measure(names: list[str], batch: int, repeat: int) -> Iterator[dict[str, Any]]:
    """The figures of some sections.

    Raises:
        Error: packets were lost.
    """
    for name in names:
        for result in SECTIONS[name](batch, repeat):
            yield {"section": name} | result


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for result in results:
        yield "{section:9} {what:49} {median:6.1f} ({least:.1f}–{most:.1f}) {unit}".format(**result)
