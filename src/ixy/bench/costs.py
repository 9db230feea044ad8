"""Costs in ticks a packet: what benchmarks of tools say of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.reporting.environment import tick_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def result(what: str, batch: int, figures: NDArray[np.float64]) -> dict[str, Any]:
    """For programs: the median of several measurements, the least and the most."""
    median, least, most = (round(float(value), 2) for value in (np.median(figures), figures.min(), figures.max()))
    return {"what": what, "batch": batch, "median": median, "least": least, "most": most, "unit": tick_unit()}


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for found in results:
        yield "{what:49} {median:6.1f} ({least:.1f}–{most:.1f}) {unit}".format(**found)
