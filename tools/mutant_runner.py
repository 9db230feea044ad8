"""Runs tests again and again for `tools/mutants.py`, each time in a child that is forked from this process.

The libraries on which driver and tests stand are imported here, once. The driver and the tests are imported by each
child, as they are by then. A line of standard input is a JSON object: for how many seconds each test may run, in the
order in which they are to run. The answer is a line too: the test that failed or took longer, or nothing.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
from typing import NoReturn

import dpkt  # noqa: F401
import hypothesis.stateful  # noqa: F401
import numpy as np  # noqa: F401
import pytest
import scapy.all  # noqa: F401
from hypothesis import Phase, settings

MEMORY = 8 << 30  # bytes that a child may allocate
STARTUP = 60.0  # seconds until its first test begins

# The tests' own settings are made from these. No example is looked for that is simpler than the first that fails.
settings.register_profile("mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")


class Progress:
    """A pytest plugin that tells which test runs."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.write(self._pipe, f"{nodeid}\n".encode())


def run(limits: dict[str, float]) -> str:
    """Run tests until one fails, or takes longer than its limit: which; "" if none does."""
    progress, told = os.pipe()
    child = os.fork()
    if child == 0:
        run_here(list(limits), told)
    os.close(told)
    try:
        current = follow(child, progress, limits)
    finally:
        os.killpg(child, signal.SIGKILL)  # with what the tests have started; nothing, to a child that has ended
        status = os.waitpid(child, 0)[1]
        os.close(progress)
    return current if status else ""


def follow(child: int, progress: int, limits: dict[str, float]) -> str:
    """Wait until the child ends, or one of its tests takes too long; the last test."""
    current, limit = "no test began", STARTUP
    waiting = [progress, ended := os.pidfd_open(child)]
    try:
        while select.select(waiting, [], [], limit)[0] not in ([], [ended]):
            if lines := os.read(progress, 1 << 16):
                current = lines.decode().splitlines()[-1]
                limit = limits[current]
            else:
                waiting = [ended]
        return current
    finally:
        os.close(ended)


def run_here(tests: list[str], told: int) -> NoReturn:
    """What the child does."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    os.close(nothing)
    # By its name, Hypothesis' plugin makes no point of the rest of Hypothesis being there already.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    os._exit(pytest.main([*options, *tests], plugins=[Progress(told)]))


def main() -> None:
    gc.freeze()  # the libraries' objects are not looked through each time that a test collects
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
