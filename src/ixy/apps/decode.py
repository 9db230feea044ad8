"""Packets as others dissect them, who know more protocols: Scapy, or tshark, whichever is installed."""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from ixy.errors import ConfigurationError
from ixy.formats.pcap import file_header
from ixy.formats.words import MAX_LENGTH

_INDENT = "\n\t"
_HEADER = file_header(MAX_LENGTH, nanoseconds=False)


class Decoder:
    """Says what is in a packet, in lines that go below its own.

    Args:
        verbose: all fields, else a line.

    Raises:
        ConfigurationError: neither is installed.
    """

    def __init__(self, verbose: bool) -> None:
        self._decode = _scapy(verbose) or _tshark(verbose)

    def text(self, data: bytes) -> str:
        lines = self._decode(data).rstrip().split("\n")
        return "".join(_INDENT + line.rstrip() for line in lines)


def starts_programs() -> bool:
    """Whether each packet takes a program to be started: there is no Scapy."""
    return find_spec("scapy") is None


def _scapy(verbose: bool) -> Callable[[bytes], str] | None:
    logging.getLogger("scapy").setLevel(logging.ERROR)  # it warns of networks that it finds no route for
    try:
        kind = cast(Any, import_module("scapy.all")).Ether
    except ImportError:
        return None
    return lambda data: kind(data).show(dump=True) if verbose else kind(data).summary()


def _tshark(verbose: bool) -> Callable[[bytes], str]:
    program = shutil.which("tshark")
    if program is None:
        raise ConfigurationError("--decode: pip install scapy, or apt-get install tshark")
    command = [program, "-n", "-r", "-", *(("-V",) if verbose else ())]

    def decode(data: bytes) -> str:
        record = struct.pack("<IIII", 0, 0, len(data), len(data))
        ended = subprocess.run(command, input=_HEADER + record + data, capture_output=True, check=False)
        return ended.stdout.decode(errors="replace")

    return decode
