"""Landlock, by which a process confines itself to some files of the system; `privileges.give_up` puts it in force.

Source: landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

_CREATE_RULESET, _ADD_RULE = 444, 445  # system calls, on all processors
_VERSION, _PATH_BENEATH = 1, 1

# Of linux/landlock.h: what may be done with files beneath a directory
_EXECUTE, _WRITE, _READ, _READ_DIRECTORY, _REMOVE_DIRECTORY, _REMOVE = (1 << bit for bit in range(6))
_MAKE_DIRECTORY, _MAKE_FILE, _MAKE_SOCKET, _TRUNCATE = 1 << 7, 1 << 8, 1 << 9, 1 << 14
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by the version of the interface
_ALL = (1 << 16) - 1  # from version 5 on
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE

READING = _READ | _READ_DIRECTORY
WRITING = READING | _WRITE | _TRUNCATE | _MAKE_FILE | _REMOVE | _MAKE_DIRECTORY | _REMOVE_DIRECTORY
REMOVING = _REMOVE | _REMOVE_DIRECTORY
MEETING = _READ_DIRECTORY | _MAKE_SOCKET | _REMOVE  # of sockets

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """That of the kernel's interface; 0 if it has none, or does not use it."""
    return max(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION), 0)


def new_ruleset(allowed: Mapping[int, Iterable[Path]]) -> int:
    """A ruleset that allows nothing but what is said; a file descriptor.

    Args:
        allowed: for READING, WRITING and MEETING, files and directories, and what lies beneath them. Those that are not
            there are left out.

    Raises:
        OSError: the kernel has no Landlock.
    """
    known = _KNOWN.get(version(), _ALL)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, struct.pack("=Q", known), 8, 0))
    try:
        for rights, paths in allowed.items():
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    _allow(ruleset, path, rights & known)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _allow(ruleset: int, path: Path, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0))
    finally:
        os.close(fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
