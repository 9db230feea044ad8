"""What `ixy course` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ixy.course.judging import judge
from ixy.course.material import EXTRAS, LABS, MAIN, Lab, lab_of, start
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.course.findings import Finding, Result

_SHOWN = 4  # findings of a trial that are printed: the first is most often the cause of the others


def print_list(*, as_json: bool) -> None:
    """Print the labs."""
    if as_json:
        rows = [{"lab": lab.number, "title": lab.title, "functions": list(lab.functions)} for lab in LABS]
        print(json.dumps(rows, indent=2))
        return
    for lab in LABS:
        print(f"{lab.number:<12}{lab.title:<46}{', '.join(lab.functions)}")


def print_start(directory: Path) -> None:
    """Begin the course in a directory, and say how to go on."""
    written, kept = start(directory)
    print(f"{directory}: {len(written)} files written{_kept(kept)}")
    print(f"read README.md and lab1.md there, write lab1.py, and have it checked: ixy course check 1 {directory}")


def _kept(kept: Sequence[str]) -> str:
    return f"; left as they were: {', '.join(kept)}" if kept else ""


def print_check(given: str, directory: Path, deadline: float, *, as_json: bool) -> bool:
    """Check a lab, and print what is wrong; whether all is well.

    Raises:
        ConfigurationError: there is no such lab, or no such file.
    """
    lab = lab_of(given)
    if not (directory / f"{lab.name}.py").is_file():
        raise ConfigurationError(
            f"{directory}: there is no {lab.name}.py: name the directory of your files, which `ixy course start` makes"
        )
    result = judge(lab, directory, deadline)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print("\n".join(_lines(lab, result)))
    return result.passed


def _lines(lab: Lab, result: Result) -> list[str]:
    """The result of a check, for its student."""
    lines = [f"{lab.name}: {lab.title}"]
    told: set[str] = set()
    for trial in result.trials:
        lines.append(f"  {'right' if trial.passed else 'wrong'}  {trial.title}")
        for finding in trial.findings[:_SHOWN]:
            if finding.sentence not in told:
                lines += _told(finding)
            told.add(finding.sentence)
    if result.problem is not None and result.problem.sentence not in told:
        lines += _told(result.problem)
    if result.passed:
        following = MAIN[MAIN.index(lab) + 1 :] if lab in MAIN else ()
        lines.append(f"all is well{f': go on with {following[0].name}.md' if following else ''}")
    elif result.trials:
        right = sum(trial.passed for trial in result.trials)
        lines.append(f"{right} of {len(result.trials)} are right: mend the first that is wrong; {lab.name}.md says how")
    return lines


def _told(finding: Finding) -> list[str]:
    lines = [f"         {finding.sentence}"]
    if finding.subject or finding.section or finding.where:
        section = finding.section and ("datasheet " if finding.section[0].isdigit() else "") + finding.section
        lines.append(f"           → {', '.join(filter(None, (finding.where, finding.subject, section)))}")
    return lines


def print_grades(directory: Path, deadline: float, *, as_json: bool, sandboxed: bool) -> bool:
    """Check all labs of a student, or of all whose directories are in a directory; whether all main labs are right.

    Raises:
        ConfigurationError: there is nobody.
    """
    students = _students(directory)
    if not students:
        raise ConfigurationError(f"{directory}: neither in it nor in a directory in it is a lab1.py")
    grades: list[dict[str, Any]] = []
    for number, student in enumerate(students, 1):
        if sys.stderr.isatty():
            print(f"ixy: {student.name}, {number} of {len(students)}", file=sys.stderr)
        results = [judge(lab, student, deadline, quiet=True, sandboxed=sandboxed) for lab in LABS]
        grades.append(_grade(student, results))
        if not as_json:
            print(_row(grades[-1]))
    if as_json:
        print(json.dumps({"labs": len(MAIN), "extras": len(EXTRAS), "students": grades}, indent=2))
    return all(grade["passed"] == len(MAIN) for grade in grades)


def _students(directory: Path) -> list[Path]:
    if any((directory / f"{lab.name}.py").is_file() for lab in LABS):
        return [directory.resolve()]
    if not directory.is_dir():
        raise ConfigurationError(f"{directory}: is no directory")
    inside = sorted(path for path in directory.iterdir() if path.is_dir())
    return [path for path in inside if any((path / f"{lab.name}.py").is_file() for lab in LABS)]


def _grade(student: Path, results: Sequence[Result]) -> dict[str, Any]:
    passed = {result.lab for result in results if result.passed}
    return {
        "student": student.name,
        "passed": sum(lab.name in passed for lab in MAIN),
        "extras": sum(lab.name in passed for lab in EXTRAS),
        "results": [result.as_dict() for result in results],
    }


def _row(grade: dict[str, Any]) -> str:
    """A student's results in a line: of each lab the number if it is right, else a dash."""
    right = {result["lab"]: result["passed"] for result in grade["results"]}
    labs = "  ".join(lab.number if right[lab.name] else "-" for lab in LABS)
    return f"{grade['student']:<24} {grade['passed']} of {len(MAIN)}   {labs}"
