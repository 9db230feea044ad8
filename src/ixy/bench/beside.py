"""Packets per second of the tools for traffic, beside those that people have: see `contest`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ixy.bench.contest import Task, lines, measure
from ixy.errors import Error

__all__ = ["lines", "tools"]


def tools(repeat: int) -> Iterator[dict[str, Any]]:
    """What captures, replays and generates, started `repeat` times each. Where that cannot be, it is said why."""
    try:
        yield from measure(Task("tools", repeat))
    except Error as error:
        yield {"missing": "the tools beside others", "why": str(error)}
