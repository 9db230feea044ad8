"""Standard streams that a process was started without, as some daemons start their children.

What is opened next takes the lowest free number. A ring's eventfd or a capture file with the number 1 is written into
by the next `print`. So the numbers 0 to 2 are taken before ixy opens anything; the C library does the same for
privileged programs (glibc, csu/check_fds.c).
"""

from __future__ import annotations

import os
import stat
from fcntl import F_GETFL, fcntl
from pathlib import Path

# Each is opened the wrong way round, so that who uses it gets an error, and nothing vanishes without a word.
_WRONG_WAY = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_RDONLY}


def occupy() -> None:
    """Open /dev/null in place of each standard stream that is closed. Costs three system calls if none is."""
    for descriptor, mode in _WRONG_WAY.items():
        try:
            os.fstat(descriptor)
        except OSError:
            _take(descriptor, mode)


def closed(descriptor: int) -> bool:
    """Whether standard stream 0, 1 or 2 is closed, or open the wrong way round, which comes to the same."""
    try:
        mode = fcntl(descriptor, F_GETFL) & os.O_ACCMODE
    except OSError:
        return True
    return mode == _WRONG_WAY[descriptor]


def is_output(path: str) -> bool:
    """Whether a path is standard output: `-`, or another name of what it is connected to, such as /dev/stdout."""
    if path == "-":
        return True
    try:
        output, file = os.fstat(1), Path(path).stat()
    except OSError:
        return False
    return not stat.S_ISCHR(output.st_mode) and os.path.samestat(output, file)


def _take(descriptor: int, mode: int) -> None:
    """Make the lowest free number that of /dev/null; a thread that opens files meanwhile may be first."""
    opened = os.open(os.devnull, mode)
    if opened == descriptor:
        os.set_inheritable(opened, True)  # children keep their descriptors off it too
    else:
        os.close(opened)
