"""What the tools for traffic cost: a section for each, of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.bench import beside, costs, filters, generating, judging, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Section(NamedTuple):
    """One of them.

    Attributes:
        measure: its results, an object each, of so many repetitions.
        lines: the same for people.
    """

    measure: Callable[[int], Iterator[dict[str, Any]]]
    lines: Callable[[Iterator[dict[str, Any]]], Iterator[str]]


SECTIONS = {
    "filter": Section(filters.measure, filters.lines),
    "record": Section(recording.measure, recording.lines),
    "generate": Section(generating.measure, costs.lines),
    "judge": Section(judging.measure, costs.lines),
    "beside": Section(beside.tools, beside.lines),
}
