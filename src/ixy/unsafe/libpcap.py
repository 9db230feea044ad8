"""libpcap, which compiles tcpdump's filter language (pcap-filter(7)), called through its C interface.

It is looked for when the first filter is compiled: nothing else in ixy needs it.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_uint8, c_uint16, c_uint32, c_void_p
from ctypes.util import find_library
from functools import cache
from typing import Any, ClassVar

from ixy.bpf import Instruction, Program, verify
from ixy.errors import FilterError

_NAMES = ("libpcap.so.0.8", "libpcap.so.1")  # of Debian, and of the others; to ask the linker takes far longer
_ETHERNET = 1  # DLT_EN10MB
_SNAPLEN = 262144  # bytes, which a program returns for a packet that matches; libpcap's MAXIMUM_SNAPLEN
_MOST_SHOWN = 200  # characters of an expression in a message
_NO_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN: `ip broadcast` is refused


class _Instruction(ctypes.Structure):
    """struct bpf_insn of pcap/bpf.h."""

    _fields_: ClassVar[Any] = [("code", c_uint16), ("jt", c_uint8), ("jf", c_uint8), ("k", c_uint32)]


class _Program(ctypes.Structure):
    """struct bpf_program of the same."""

    _fields_: ClassVar[Any] = [("length", c_uint), ("instructions", POINTER(_Instruction))]


@cache
def _library() -> ctypes.CDLL:
    """
    Raises:
        FilterError: there is none.
    """
    library = _loaded()
    library.pcap_open_dead.restype = c_void_p
    library.pcap_open_dead.argtypes = [c_int, c_int]
    library.pcap_compile.argtypes = [c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32]
    library.pcap_geterr.restype = c_char_p
    library.pcap_geterr.argtypes = [c_void_p]
    library.pcap_freecode.argtypes = [POINTER(_Program)]
    library.pcap_close.argtypes = [c_void_p]
    return library


def _loaded() -> ctypes.CDLL:
    for name in (*_NAMES, find_library("pcap")):
        try:
            if name is not None:
                return ctypes.CDLL(name)
        except OSError:
            continue
    raise FilterError("filters are compiled by libpcap, which is not installed: apt-get install libpcap0.8")


def compile_expression(expression: str, *, optimize: bool = True) -> Program:
    """The verified program of a filter for Ethernet frames.

    A name in it is resolved: a host's may take as long as the resolver takes.

    Args:
        expression: in tcpdump's language; all packets match the empty one.
        optimize: let libpcap leave out what is not needed.

    Raises:
        FilterError: libpcap does not take it, in libpcap's words, or is not installed.
    """
    if "\0" in expression:
        raise FilterError(f"filter {_shortened(expression)}: has a NUL character in it")
    library, found = _library(), _Program()
    handle = library.pcap_open_dead(_ETHERNET, _SNAPLEN)
    if not handle:
        raise FilterError("filter: libpcap is out of memory")
    try:
        text = expression.encode(errors="surrogateescape")
        if library.pcap_compile(handle, byref(found), text, optimize, _NO_NETMASK):
            reason: str = library.pcap_geterr(handle).decode(errors="replace")
            raise FilterError(f"filter {_shortened(expression)}: {' '.join(reason.split())}")
        try:
            parts = (found.instructions[place] for place in range(found.length))
            return verify(tuple(Instruction(each.code, each.jt, each.jf, each.k) for each in parts))
        finally:
            library.pcap_freecode(byref(found))
    finally:
        library.pcap_close(handle)


def _shortened(expression: str) -> str:
    """An expression for a message."""
    if len(expression) <= _MOST_SHOWN:
        return repr(expression)
    return f"{expression[: _MOST_SHOWN // 2]!r}…{expression[-_MOST_SHOWN // 2 :]!r} ({len(expression)} characters)"
