"""Runs the checks of a lab on a student's files, within this process; `child.py` is the process.

A check has trials. Each is run on a bench of its own, with the student's files loaded anew.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ixy.course.bench import Bench
from ixy.course.findings import Finding, Result, Trial, Wrong
from ixy.course.watch import register_at

if TYPE_CHECKING:
    from types import ModuleType

_GIVEN = "wait_for"  # of lab 3
_LONGEST = 200  # characters of an exception's text


class OutOfTime(BaseException):
    """The student's code has run for too long. No `except Exception` catches it."""


class Labs:
    """The student's files: `labs.lab5` is lab5.py."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        return self._load(name)

    def _load(self, name: str) -> ModuleType:
        module = importlib.import_module(name)
        if Path(module.__file__ or "").parent != self._directory:
            raise ImportError(f"{name} is {module.__file__}: there is no {name}.py in {self._directory}")
        return module

    def forget(self) -> None:
        """The next access loads the files anew."""
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").parent == self._directory:
                del sys.modules[name]


Run = Callable[[Labs, Bench], None]


@dataclass(frozen=True)
class Case:
    """How a trial is run.

    Attributes:
        cards: how many there are.
        speeds: whether the cards are lazy; once for each.
    """

    title: str
    run: Run
    cards: int
    speeds: tuple[bool, ...]


EAGER, LAZY = False, True


def trial(*speeds: bool, cards: int = 1) -> Callable[[Run], Case]:
    """A function is a trial; the first line of its docstring is the title. It is run with cards of both kinds, or with
    those that are given, until something is wrong."""

    def case(run: Run) -> Case:
        title = (run.__doc__ or "").partition("\n")[0].rstrip(".")
        return Case(title, run, cards, speeds or (EAGER, LAZY))

    return case


def need(holds: bool, sentence: str, subject: str = "", section: str = "") -> None:
    """Raise `Wrong` unless something holds without which the trial cannot go on."""
    if not holds:
        raise Wrong(Finding(sentence, subject, section))


def cases(lab: str) -> list[Case]:
    """The trials of a lab."""
    module = importlib.import_module(f"ixy.course.checks.{lab}")
    return [value for value in vars(module).values() if isinstance(value, Case)]


def check(lab: str, directory: Path) -> Result:
    """Run the check of a lab on the files of a directory, which must be on Python's path."""
    labs = Labs(directory)
    result = Result(lab)
    for case in cases(lab):
        found = Trial(case.title)
        result.trials.append(found)
        for lazy in case.speeds:
            findings, ended = _run(case, labs, directory, lazy=lazy)
            known = {(one.sentence, one.subject) for one in found.findings}
            found.findings += [one for one in findings if (one.sentence, one.subject) not in known]
            if ended:
                result.problem = findings[-1]
                return result
            if found.findings:
                break
    return result


def _run(case: Case, labs: Labs, directory: Path, *, lazy: bool) -> tuple[list[Finding], bool]:
    """What one run of a trial finds, the cause first; and whether the time is up."""
    labs.forget()
    bench = Bench(directory, case.cards, lazy=lazy)
    last: Finding | None = None
    ended = False
    with bench.clock.in_force():
        try:
            case.run(labs, bench)
        except Wrong as wrong:
            last = wrong.finding
        except BaseException as error:
            last, ended = _located(explain(error, directory), bench), isinstance(error, OutOfTime)
    bench.look()
    findings = list(bench.findings)
    bench.close()
    if last is not None:
        findings = [last] if last.todo else [*findings, last]
    return findings, ended


def _located(finding: Finding, bench: Bench) -> Finding:
    """With the register that the driver had read just before, if it had."""
    register = None if finding.todo or bench.last_read is None else register_at(bench.last_read)
    if register is None:
        return finding
    return replace(finding, subject=register.name.removesuffix("[0]"), section=register.section)


def explain(error: BaseException, directory: Path) -> Finding:
    """What an exception of the student's code says, with the last of his lines that led there."""
    where, source = _place(error, directory)
    if isinstance(error, NotImplementedError):
        return Finding(f"{error} is not written yet", where=where, todo=True)
    if isinstance(error, SyntaxError):
        return Finding(f"Python does not understand line {error.lineno}: {error.msg}", where=where)
    if isinstance(error, OutOfTime):
        return Finding(f"the time is up: your code was still running{source}", where=where)
    text = " ".join(str(error).split())[:_LONGEST]
    return Finding(f"{type(error).__name__}{': ' if text else ''}{text}{source}", where=where)


def _place(error: BaseException, directory: Path) -> tuple[str, str]:
    """The student's line, as "lab5.py:31", and what stands there."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).parent == directory:
        return f"{Path(error.filename).name}:{error.lineno}", ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == directory]
    own = [frame for frame in own if frame.name != _GIVEN] or own  # who waited says more than what waits
    if not own:
        return "", ""
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}", f", at `{own[-1].line}`" if own[-1].line else ""
