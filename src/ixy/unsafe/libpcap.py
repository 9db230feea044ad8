"""libpcap, which compiles tcpdump's filter language (pcap-filter(7)).

How long that takes grows with the square of the number of terms and faster, and nothing can interrupt it. So a long
expression is compiled by a process of its own, which is ended if it takes too long.
"""

from __future__ import annotations

import struct
import subprocess
import sys

from ixy.bpf import Instruction, Program, verify
from ixy.errors import FilterError
from ixy.unsafe import libpcap_main
from ixy.unsafe.libpcap_main import INSTRUCTION, Missing, Refused, compile_text, library

_MOST_SHOWN = 200  # characters of an expression in a message
_SHORT = 1000  # bytes of an expression that takes a second at most
_PATIENCE = 30.0  # seconds for a longer one


def compile_expression(expression: str, *, optimize: bool = True) -> Program:
    """The verified program of a filter for Ethernet frames.

    A name in it is resolved: a host's may take as long as the resolver takes.

    Args:
        expression: in tcpdump's language; all packets match the empty one.
        optimize: let libpcap leave out what is not needed.

    Raises:
        FilterError: libpcap does not take it, in libpcap's words, or takes too long, or is not installed.
    """
    if "\0" in expression:
        raise FilterError(f"filter {_shortened(expression)}: has a NUL character in it")
    text = expression.encode(errors="surrogateescape")
    try:
        library()
        code = compile_text(text, optimize) if len(text) <= _SHORT else _compiled_apart(text, optimize)
    except Missing as error:
        raise FilterError(str(error)) from None
    except Refused as error:
        raise FilterError(f"filter {_shortened(expression)}: {error}") from None
    return verify(tuple(Instruction(*each) for each in struct.iter_unpack(INSTRUCTION, code)))


def _compiled_apart(text: bytes, optimize: bool) -> bytes:
    """`compile_text`, by a process of its own, unless this one may start none.

    Raises:
        Refused: libpcap says why, or has not ended in time, or has crashed.
    """
    command = [sys.executable, "-I", "-S", libpcap_main.__file__, str(int(optimize))]
    try:
        ended = subprocess.run(
            command, input=text, capture_output=True, timeout=_PATIENCE, start_new_session=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(
            f"libpcap takes more than {_PATIENCE:g} seconds for so many terms: write networks and ranges, such as "
            "net 10.0.0.0/8 and portrange 1-1024"
        ) from None
    except OSError:
        return compile_text(text, optimize)
    if ended.returncode < 0:
        raise Refused(f"libpcap dies of it, by signal {-ended.returncode}")
    if ended.returncode:
        raise Refused(ended.stderr.decode(errors="replace").strip())
    return ended.stdout


def _shortened(expression: str) -> str:
    """An expression for a message."""
    if len(expression) <= _MOST_SHOWN:
        return repr(expression)
    return f"{expression[: _MOST_SHOWN // 2]!r}…{expression[-_MOST_SHOWN // 2 :]!r} ({len(expression)} characters)"
