"""A pytest plugin for `tools/mutants.py`: coverage is told which test runs, fixtures included, and tests are timed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_seconds: dict[str, float] = {}  # of the tests that passed
_failed: set[str] = set()


def pytest_configure() -> None:
    """Let coverage begin in processes that tests start, too."""
    os.environ["COVERAGE_PROCESS_START"] = str(Path(__file__).with_name("mutants.coveragerc"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    measured = coverage.Coverage.current()
    assert measured is not None
    measured.switch_context(item.nodeid)
    os.environ["MUTANTS_TEST"] = item.nodeid
    start = time.monotonic()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.monotonic() - start
        measured.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    for test in _failed:
        del _seconds[test]
    (Path(os.environ["MUTANTS_MEASURED"]) / "seconds.json").write_text(json.dumps(_seconds))
