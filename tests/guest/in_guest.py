"""How a test runs Python in a guest, which sees the host's files."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
_SOURCES = Path(__file__).parents[2] / "src"


def python(code: str) -> str:
    """A shell command that runs Python `code`, or a program with arguments, in the guest, kernels interpreted.

    Under emulation it takes many seconds to import the package, so the first of them starts a process that does, and
    all are forked from that. The process's number is in the file `pid` of the command's working directory.
    """
    server = f"env PYTHONPATH={_SOURCES} PYTHONDONTWRITEBYTECODE=1 IXY_JIT=0 {sys.executable}"
    return f"sh {PROGRAMS / 'fork.sh'} '{server} {PROGRAMS / 'fork_server.py'}' {code}"
