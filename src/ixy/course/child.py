"""The process in which a student's code runs: `python -m ixy.course.child LAB DIRECTORY FD SECONDS SANDBOX`.

It runs the check of a lab, and writes the result into the file descriptor, as JSON. The process is there for this
alone: so its clocks can be those of the simulated computer, and it can be ended whatever the code does.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

import ixy
from ixy.course.findings import Finding, Result
from ixy.course.trials import OutOfTime, cases, check

_AGAIN = 0.5  # seconds after which whoever has caught `OutOfTime` gets another one
_MEMORY = 1 << 30  # bytes of its own
_MORE = 10  # seconds of the processor beyond the deadline


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


def main(lab: str, directory: Path, result: int, seconds: float, *, sandboxed: bool) -> None:
    """Run a check, and say what it found."""
    logging.getLogger("ixy").setLevel(logging.CRITICAL)  # the rules that are broken are findings
    cases(lab)  # all of ours is imported before the student's names come first
    sys.dont_write_bytecode = True
    sys.path.insert(1, str(directory))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + _MORE, int(seconds) + _MORE))
    if sandboxed:
        ixy.sandbox()
    os.write(result, b"\n")  # it begins
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        found = check(lab, directory)
    except OutOfTime:  # it came between two trials
        found = Result(lab, problem=Finding("the time is up: your code has taken all of it"))
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(result, "w") as file:
        json.dump(found.as_dict(), file)
    os._exit(0)  # threads of the student's, and what he wants to be done at the end, hold nobody up


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sandboxed=sys.argv[5] == "1")
