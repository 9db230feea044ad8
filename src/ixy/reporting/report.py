"""The report: what the sections have said, as Markdown, as one HTML page, as CSV files and as JSON objects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from ixy.errors import Error
from ixy.reporting import chart, page, picture
from ixy.reporting.parts import Missing, Part, Spread, Table, is_figures, shown


@dataclass(frozen=True)
class Chapter:
    """A section of the report."""

    title: str
    parts: list[Part] = field(default_factory=list[Part])


@dataclass(frozen=True)
class Report:
    """A report that grows.

    Attributes:
        name: of its files, and of the directory beside them with those of its tables.
        title, introduction: what stands before the facts.
        facts: the machine and the versions, by name.
        chapters: so far.
    """

    name: str
    title: str
    introduction: str
    facts: Mapping[str, str]
    chapters: list[Chapter] = field(default_factory=list[Chapter])

    def caption(self, table: Table) -> str:
        """How a table's figures came about: for those of this machine, with repeats, spread, machine and versions."""
        if table.repeats == 0:
            return table.how
        return f"{table.how} Median and range of {table.repeats} repetitions. {self.facts['machine']}."

    def missing(self) -> list[Missing]:
        """All that could not be measured."""
        return [part for chapter in self.chapters for part in chapter.parts if isinstance(part, Missing)]

    def write(self, directory: Path, *, pictures: bool = False) -> list[Path]:
        """Write all files, in place of those of before; which ones.

        Args:
            pictures: curves as PNG besides, if that is possible (`picture.why_not`).

        Raises:
            Error: the directory cannot be written, or the disk is full; says so.
        """
        try:
            return [_replace(directory / name, data) for name, data in self._files(pictures and not picture.why_not())]
        except OSError as error:
            raise Error(f"the report cannot be written into {directory}: {error.strerror}") from None

    def _files(self, pictures: bool) -> Iterator[tuple[str, bytes]]:
        for table in self._tables():
            yield f"{self.name}/{table.name}.csv", self.comma_separated(table).encode()
            if table.chart:
                drawing = chart.draw(table)
                yield f"{self.name}/{table.name}.svg", drawing.encode()
                if pictures:
                    yield f"{self.name}/{table.name}.png", picture.png(drawing)
        yield f"{self.name}.md", self.markdown().encode()
        yield f"{self.name}.html", page.make(self).encode()

    def _tables(self) -> Iterator[Table]:
        for chapter in self.chapters:
            yield from (part for part in chapter.parts if isinstance(part, Table))

    def markdown(self) -> str:
        """The report for people, whose charts and data lie beside it."""
        lines = [f"# {self.title}", "", _filled(self.introduction), ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        for chapter in self.chapters:
            lines += ["", f"## {chapter.title}"]
            for part in chapter.parts:
                lines += ["", *self._markdown_of(part)]
        return "\n".join(lines) + "\n"

    def _markdown_of(self, part: Part) -> Iterator[str]:
        if isinstance(part, Missing):
            yield _filled(f"**Missing.** {part.what}: {part.why}.")
        elif isinstance(part, str):
            yield _filled(part)
        else:
            yield f"### {part.title}"
            yield ""
            if part.chart:
                yield f"![{part.title}]({self.name}/{part.name}.svg)"
                yield ""
            yield markdown_table(part)
            yield ""
            yield _filled(f"{self.caption(part)} [CSV]({self.name}/{part.name}.csv)")

    def comma_separated(self, table: Table) -> str:
        """A table for programs: a column for each member of `objects`."""
        rows = list(self.objects(table))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else table.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def objects(self, table: Table) -> Iterator[dict[str, Any]]:
        """A table for programs, an object a row: of a figure that was repeated its median, least and most, and how
        often it was; and the machine."""
        spread = [any(isinstance(row[at], Spread) for row in table.rows) for at in range(len(table.columns))]
        for row in table.rows:
            members: dict[str, Any] = {}
            for name, cell, is_spread in zip(table.columns, row, spread, strict=True):
                members |= _members(name or "name", cell, is_spread)
            if table.repeats:
                members |= {"repeats": table.repeats, "machine": self.facts["machine"]}
            yield members


def _members(name: str, cell: Any, is_spread: bool) -> dict[str, Any]:
    if not is_spread:
        return {name: round(cell, 6) if isinstance(cell, float) else cell}
    low, high = (cell.least, cell.most) if isinstance(cell, Spread) else (cell, cell)
    median = cell.median if isinstance(cell, Spread) else cell
    values = {name: median, f"{name} min": low, f"{name} max": high}
    return {key: None if value is None else round(value, 6) for key, value in values.items()}


def markdown_table(table: Table) -> str:
    """A table in Markdown."""
    rows = [list(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    ends = [":" if is_figures(table, at) else "-" for at in range(len(table.columns))]
    rows.insert(1, [f"--{end}" for end in ends])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _filled(paragraph: str) -> str:
    return fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def _replace(path: Path, data: bytes) -> Path:
    """Write a file whole, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return path
