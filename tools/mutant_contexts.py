"""A pytest plugin for `tools/mutants.py`: coverage is told which test runs, fixtures included, and tests are timed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_durations: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    measured = coverage.Coverage.current()
    assert measured is not None
    measured.switch_context(item.nodeid)
    start = time.monotonic()
    try:
        return (yield)
    finally:
        _durations[item.nodeid] = time.monotonic() - start
        measured.switch_context("")


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANT_DURATIONS"]).write_text(json.dumps(_durations))
