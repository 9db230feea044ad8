"""Measure section by section, and write the report anew after each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ixy.errors import Error
from ixy.evaluate import machine, sections
from ixy.evaluate.effort import FULL, QUICK, Effort
from ixy.reporting.parts import Missing, Part, Table
from ixy.reporting.progress import progress
from ixy.reporting.report import Chapter, Report

_INTRODUCTION = (
    "The evaluation of the thesis *Writing Network Drivers in Rust*, repeated on one machine with the driver in Python "
    "by `ixy evaluate`. All cards are simulated ones: what a packet costs the processor is measured, not what memory "
    "and PCI Express add on a real card."
)


def evaluate(directory: Path, only: Sequence[str] = (), *, quick: bool = False, as_json: bool = False) -> None:
    """Measure, write the report into a directory, and print which files it has; or print it as JSON.

    Args:
        only: names of sections; all without.

    Raises:
        Error: the report cannot be written: it is said before anything is measured, or the report is on standard
            output.
    """
    names = [name for name in sections.NAMES if not only or name in only]
    report = _measure(directory, names, QUICK if quick else FULL, _object_printer(as_json))
    try:
        files = report.write(directory)
    except Error:
        if not as_json:
            print(report.markdown())
        raise
    if not as_json:
        _print_summary(report, files)


def _measure(directory: Path, names: Sequence[str], effort: Effort, told: Callable[[dict[str, Any]], None]) -> Report:
    """The report of some sections. It is written after each: whoever interrupts it loses only the one at hand."""
    modules = {name: import_module(f"{sections.__name__}.{name}") for name in names}
    report = Report("evaluation", "Chapter 6, repeated", f"{_INTRODUCTION} {_manner(effort)}", machine.facts())
    if lacks := machine.lacks():
        report.chapters.append(Chapter("What this machine lacks", [*lacks]))
    report.write(directory)
    told({"type": "machine", **report.facts})
    with progress({name: module.seconds(effort) for name, module in modules.items()}) as begin:
        for name, module in modules.items():
            chapter = Chapter(module.TITLE)
            report.chapters.append(chapter)
            for part in _parts(module.TITLE, module.measure(effort, begin(name))):
                chapter.parts.append(part)
                for entry in _objects(report, name, part):
                    told(entry)
            with suppress(Error):  # a full disk is said at the end, and until then may have room again
                report.write(directory)
    return report


def _manner(effort: Effort) -> str:
    return (
        f"Each figure was measured {effort.repeat} times, in lock step on {effort.packets} packets, and rates over "
        f"{effort.window:g} s; processes that are compared were started {effort.starts} times."
    )


def _parts(title: str, measured: Iterator[Part]) -> Iterator[Part]:
    """What a section says; what ends it is one more part."""
    try:
        yield from measured
    except Error as reason:
        yield Missing(title, str(reason).rstrip("."))
    except OSError as reason:
        yield Missing(title, f"{reason.filename}: {reason.strerror}" if reason.filename else str(reason.strerror))


# ---------------------------------------------------------------------------------------------------------------------
# What is printed


def _object_printer(as_json: bool) -> Callable[[dict[str, Any]], None]:
    def write(entry: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(entry), flush=True)

    return write


def _objects(report: Report, section: str, part: Part) -> Iterator[dict[str, Any]]:
    """A part for programs: an object for each row of a table, or for what is missing."""
    if isinstance(part, Table):
        for row in report.objects(part):
            yield {"type": "row", "section": section, "table": part.name, **row}
    elif isinstance(part, Missing):
        yield {"type": "missing", "section": section, "what": part.what, "why": part.why}


def _print_summary(report: Report, files: Sequence[Path]) -> None:
    for part in report.missing():
        print(f"missing: {part.what}: {part.why}")
    for path in files[-2:]:
        print(f"written: {path}")
    print(f"written: {len(files) - 2} tables and charts in {files[0].parent}" if len(files) > 2 else "no tables")
