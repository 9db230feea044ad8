"""A pytest plugin for `tools/mutants.py`: under coverage, which is told what test runs, fixtures included; and a clock.

Tests that run pytest themselves, in a process of its own, have that measured too, as a part of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_WITHIN = "MUTANTS_TEST"  # the test in which this process runs, if it was started by one
_within = _WITHIN in os.environ
_seconds: dict[str, float] = {}  # of the tests that passed
_failed: set[str] = set()
_measured = coverage.Coverage(config_file=str(Path(__file__).with_name("mutants.coveragerc")))
_measured.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if _within:
        return (yield)
    _measured.switch_context(item.nodeid)
    os.environ[_WITHIN] = item.nodeid
    start = time.monotonic()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.monotonic() - start
        _measured.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    _measured.stop()
    _measured.save()
    if not _within:
        passed = {test: seconds for test, seconds in _seconds.items() if test not in _failed}
        (Path(os.environ["MUTANTS_MEASURED"]) / "seconds.json").write_text(json.dumps(passed))
