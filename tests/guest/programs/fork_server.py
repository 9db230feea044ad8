"""Runs in the guest: `fork_server.py FIFO` forks a Python for each process whose number is written there.

That process waits: its arguments are in FIFO.NUMBER.arguments, each ended by a zero, and FIFO.NUMBER is for the exit
code. The Python has its open files and its working directory.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path

import ixy.bus.binding
import ixy.device  # noqa: F401 (to have them imported is what this is for)

_PIDFD_GETFD = 438


def take_files(number: int) -> None:
    """Have the process's standard files, at the same places in them (pidfd_getfd(2))."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    process = os.pidfd_open(number)
    for fd in range(3):
        os.dup2(call(_PIDFD_GETFD, process, fd, 0), fd)
    os.close(process)


def run(arguments: list[str]) -> None:
    """Do as Python does: `-c CODE`, `-m MODULE` or a program, with arguments."""
    how, *rest = arguments
    if how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif how == "-m":
        sys.argv = ["", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


def prepare(arguments: list[str]) -> None:
    """Import the command line if it is wanted, once for all who are forked later."""
    if arguments[:2] == ["-m", "ixy"]:
        with suppress(ImportError):  # whoever needs it says so
            importlib.import_module("ixy.cli")
            importlib.import_module(f"ixy.apps.{arguments[2]}")


def serve(number: int, requests: str, arguments: list[str]) -> None:
    """Run what is asked for in a child, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(f"/proc/{number}/cwd")
    child = os.fork()
    if child == 0:
        Path("pid").write_text(str(os.getpid()))
        take_files(number)
        run(arguments)
        return
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    Path(f"{requests}.{number}").write_text(f"{code if code >= 0 else 128 - code}\n")
    os._exit(0)


def main() -> None:
    requests = sys.argv[1]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        with open(requests) as numbers:  # noqa: PTH123 (it is opened anew when all who write have gone)
            for number in map(int, numbers):
                arguments = Path(f"{requests}.{number}.arguments").read_text().split("\0")[:-1]
                prepare(arguments)
                if os.fork() == 0:
                    return serve(number, requests, arguments)


if __name__ == "__main__":
    main()
