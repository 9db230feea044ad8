"""Starts the process that runs a student's code (`child.py`), and ends it, whatever it does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ixy.course.findings import Finding, Result
from ixy.course.material import Lab

DEADLINE = 30.0  # seconds that a check has, of which it needs a few
_GRACE = 2.0  # seconds more for a process that was told that its time is up
_START = 60.0  # seconds that a process may take to begin
_BLOCK = 1 << 16


def judge(
    lab: Lab, directory: Path, deadline: float = DEADLINE, *, quiet: bool = False, sandboxed: bool = False
) -> Result:
    """Run the check of a lab on the files in a directory.

    Args:
        deadline: seconds, after which the code is ended.
        quiet: what the code prints is thrown away; else it goes to standard error.
        sandboxed: the code can open no files, no sockets and no programs.
    """
    if not (directory / f"{lab.name}.py").is_file():
        return Result(lab.name, problem=Finding(f"there is no {lab.name}.py"))
    reader, writer = os.pipe()
    output = subprocess.DEVNULL if quiet else sys.stderr.fileno()
    given = [lab.name, str(directory.resolve()), str(writer), str(deadline), str(int(sandboxed))]
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ixy.course.child", *given],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            env=os.environ | {"IXY_JIT": "0", "PYTHONPATH": _path()},
            start_new_session=True,
        )
        try:
            told = _read(process, reader, deadline + _GRACE)
        finally:
            _end(process)
    finally:
        os.close(reader)
        os.close(writer)
    return _result(lab, told, process.returncode, deadline)


def _path() -> str:
    """Where the process finds what this one has found."""
    return os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)


def _read(process: subprocess.Popen[bytes], reader: int, seconds: float) -> bytes:
    """What the process writes until it ends, or so many seconds after it has begun, which it says by its first byte."""
    told = b""
    end = time.monotonic() + _START
    ended = os.pidfd_open(process.pid)
    try:
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([reader, ended], [], [], left)
            if reader in ready:
                end = end if told else time.monotonic() + seconds
                told += os.read(reader, _BLOCK)
            elif ended in ready:
                break
    finally:
        os.close(ended)
    return told


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # as long as nobody has waited for it the number is its own
    process.wait()


def _result(lab: Lab, told: bytes, code: int, deadline: float) -> Result:
    try:
        return Result.from_dict(json.loads(told))
    except ValueError:
        pass
    if code in (-signal.SIGKILL, -signal.SIGXCPU):
        sentence = f"the time is up: after {deadline:g} s your code was still running, and would not be stopped"
    elif code < 0:
        sentence = f"your code has crashed the process: {signal.Signals(-code).name}"
    else:
        sentence = f"your code has ended the program, with exit code {code}"
    return Result(lab.name, problem=Finding(sentence))
