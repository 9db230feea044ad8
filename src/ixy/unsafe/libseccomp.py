"""libseccomp, which makes the kernel's filters of system calls of lists of names, called through its C interface.

It is looked for when the first filter is made: nothing else in ixy needs it. Source: seccomp_rule_add(3) and others.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Sequence
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any, ClassVar, NamedTuple

from ixy.errors import Error

_NAME = "libseccomp.so.2"
MISSING = "libseccomp is not installed: apt-get install libseccomp2"

# Of seccomp.h
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_TSYNC, _SSB, _OPTIMIZE, _RAW_ERRORS = 4, 7, 8, 9  # attributes
_BINARY_TREE = 2
_MASKED_EQUAL = 7
_UNKNOWN = -1


class Rule(NamedTuple):
    """A system call that is allowed.

    Attributes:
        name: its own.
        arguments: what they must be, for each its number, a mask, and its value behind that; empty for anything.
    """

    name: str
    arguments: Sequence[tuple[int, int, int]] = ()


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_: ClassVar[Any] = [("argument", c_uint), ("how", c_int), ("mask", c_uint64), ("value", c_uint64)]


@cache
def _library() -> ctypes.CDLL:
    """
    Raises:
        Error: it is not there.
    """
    try:
        library = ctypes.CDLL(_NAME)
    except OSError:
        raise Error(MISSING) from None
    library.seccomp_init.restype = c_void_p
    library.seccomp_init.argtypes = [c_uint32]
    library.seccomp_release.argtypes = [c_void_p]
    library.seccomp_attr_set.argtypes = [c_void_p, c_int, c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [c_char_p]
    library.seccomp_rule_add_array.argtypes = [c_void_p, c_uint32, c_int, c_uint, c_void_p]
    library.seccomp_load.argtypes = [c_void_p]
    library.seccomp_export_bpf.argtypes = [c_void_p, c_int]
    return library


class Filter:
    """A filter that refuses all system calls with EPERM but those that are allowed.

    Args:
        rules: those; names that the library does not know are left out.
        absent: calls that look as if the kernel had none (ENOSYS), upon which the C library does without.

    Attributes:
        names: of the calls that are allowed, at least with some arguments.

    Raises:
        Error: libseccomp is not installed.
        OSError: it refuses.
    """

    def __init__(self, rules: Iterable[Rule], absent: Iterable[str] = ()) -> None:
        self._library = _library()
        self._context = self._library.seccomp_init(_ERRNO | errno.EPERM)
        self.names: set[str] = set()
        self._set(_RAW_ERRORS, 1)
        self._set(_OPTIMIZE, _BINARY_TREE)
        self._set(_SSB, 1)  # what the processor guesses stays as it was: to forbid that would slow the data path down
        for rule in rules:
            if self._add(_ALLOW, rule):
                self.names.add(rule.name)
        for name in absent:
            self._add(_ERRNO | errno.ENOSYS, Rule(name))

    def load(self) -> None:
        """Filter the calls of all threads of the process, from now on and for good.

        Raises:
            OSError: the kernel has no such filters, or a thread has another one.
        """
        self._set(_TSYNC, 1)
        _checked(self._library.seccomp_load(self._context))

    def program(self) -> bytes:
        """The filter as the kernel takes it, for another process."""
        fd = os.memfd_create("ixy-filter", os.MFD_CLOEXEC)
        try:
            _checked(self._library.seccomp_export_bpf(self._context, fd))
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    def _set(self, attribute: int, value: int) -> None:
        """Set an attribute, which an older library may not have: then it is not needed."""
        result = self._library.seccomp_attr_set(self._context, attribute, value)
        if attribute == _TSYNC:
            _checked(result)

    def _add(self, action: int, rule: Rule) -> bool:
        number = self._library.seccomp_syscall_resolve_name(rule.name.encode())
        if number == _UNKNOWN:
            return False
        compared = [_Comparison(place, _MASKED_EQUAL, mask, value) for place, mask, value in rule.arguments]
        room = (_Comparison * len(compared))(*compared)
        _checked(self._library.seccomp_rule_add_array(self._context, action, number, len(compared), room))
        return True

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.seccomp_release(self._context)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
