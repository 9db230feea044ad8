"""libpcap, called through its C interface. It is looked for when the first filter is compiled.

Run as a program, `libpcap_main.py OPTIMIZE`, it compiles the expression on standard input, 1 or 0 saying whether it is
optimised: the program comes on standard output, or on standard error why there is none. It imports the standard library
only.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_uint32, c_void_p
from ctypes.util import find_library
from functools import cache
from typing import Any, ClassVar

_NAMES = ("libpcap.so.0.8", "libpcap.so.1")  # of Debian, and of the others; to ask the linker takes far longer
_ETHERNET = 1  # DLT_EN10MB
_SNAPLEN = 262144  # bytes, which a program returns for a packet that matches; libpcap's MAXIMUM_SNAPLEN
_NO_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN: `ip broadcast` is refused
INSTRUCTION = "HBBI"  # struct bpf_insn of pcap/bpf.h: code, jt, jf, k
_BYTES = 8  # of one


class Missing(Exception):
    """There is no libpcap."""


class Refused(Exception):
    """libpcap does not take an expression, for a reason that it says."""


class _Program(ctypes.Structure):
    """struct bpf_program of pcap/bpf.h."""

    _fields_: ClassVar[Any] = [("length", c_uint), ("instructions", c_void_p)]


@cache
def library() -> ctypes.CDLL:
    """
    Raises:
        Missing: there is none.
    """
    found = _loaded()
    found.pcap_open_dead.restype = c_void_p
    found.pcap_open_dead.argtypes = [c_int, c_int]
    found.pcap_compile.argtypes = [c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32]
    found.pcap_geterr.restype = c_char_p
    found.pcap_geterr.argtypes = [c_void_p]
    found.pcap_freecode.argtypes = [POINTER(_Program)]
    found.pcap_close.argtypes = [c_void_p]
    return found


def _loaded() -> ctypes.CDLL:
    for name in _NAMES:
        with suppress(OSError):
            return ctypes.CDLL(name)
    with suppress(OSError):  # a process in a sandbox starts no linker
        if name := find_library("pcap"):
            return ctypes.CDLL(name)
    raise Missing("filters are compiled by libpcap, which is not installed: apt-get install libpcap0.8")


def compile_text(text: bytes, optimize: bool) -> bytes:
    """The program of an expression for Ethernet frames: instructions in the form `INSTRUCTION`.

    Raises:
        Missing, Refused: it cannot be had.
    """
    pcap, found = library(), _Program()
    handle = pcap.pcap_open_dead(_ETHERNET, _SNAPLEN)
    if not handle:
        raise Refused("libpcap is out of memory")
    try:
        if pcap.pcap_compile(handle, byref(found), text, optimize, _NO_NETMASK):
            reason: str = pcap.pcap_geterr(handle).decode(errors="replace")
            raise Refused(" ".join(reason.split()))
        try:
            return ctypes.string_at(found.instructions, found.length * _BYTES)
        finally:
            pcap.pcap_freecode(byref(found))
    finally:
        pcap.pcap_close(handle)


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(compile_text(sys.stdin.buffer.read(), sys.argv[1] == "1"))
    except (Missing, Refused) as error:
        sys.exit(str(error))
