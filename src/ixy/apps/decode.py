"""Packets as others dissect them, who know more protocols: tshark, or Scapy, whichever is installed."""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from typing import IO, Any, Protocol, cast

from ixy.errors import ConfigurationError, Error
from ixy.formats import pcap
from ixy.formats.words import MAX_LENGTH, SECOND
from ixy.unsafe import privileges

_INDENT = "\n\t"
_BETWEEN = "-- ixy: the next packet --"  # what tshark prints behind each packet, of which it prints several lines
_PATIENCE = 2.0  # seconds for tshark to end; one that does not ends when it writes next

# What becomes tshark. Its dissectors are many, and read what anybody may have sent, so it has no privileges then, and
# root is nobody. The program is opened before, as root may find it where nobody does not. Where tshark may not look for
# files of its own, it dies; where there are none, it does not.
_LAUNCH = """
import os, runpy, sys
_, privileges, nobody, *command = sys.argv
own, program = runpy.run_path(privileges), os.open(command[0], os.O_RDONLY)
os.set_inheritable(program, True)
os.chdir("/")
if os.geteuid() == 0:
    os.environ.update(HOME="/", XDG_CONFIG_HOME="/")
    os.setgroups([])
    os.setresgid(*3 * [int(nobody)])
    os.setresuid(*3 * [int(nobody)])
own["give_up"]()
os.execve(program, command, os.environ)
"""
_NOBODY = 65534


class Decoder(Protocol):
    """Says what is in packets, one after the other."""

    def lines(self, time: int, data: bytes, length: int) -> list[str]:
        """What is in a packet.

        Args:
            time: when it came, ns since 1970.
            data: what there is of it.
            length: the bytes that it had on the wire.

        Raises:
            Error: nothing more is decoded.
        """
        ...

    def close(self) -> None: ...


def decoder(*, verbose: bool) -> Decoder:
    """What decodes packets.

    Args:
        verbose: all fields, else a line.

    Raises:
        ConfigurationError: nothing is installed that does.
    """
    program = shutil.which("tshark")
    if program is not None:
        return Tshark(program, verbose=verbose)
    try:
        return Scapy(verbose=verbose)
    except ImportError:
        raise ConfigurationError("--decode: apt-get install tshark, or pip install scapy") from None


def below(lines: list[str]) -> str:
    """Lines that go below another one."""
    return "".join(_INDENT + line.rstrip() for line in lines)


class Tshark:
    """One tshark for all packets. It reads a capture from a pipe, and has printed each packet before it waits for the
    next; so a packet is written and its lines are read, in turn.

    Args:
        program: where it is.
        verbose: see `decoder`.
    """

    def __init__(self, program: str, *, verbose: bool) -> None:
        self._verbose = verbose
        self._errors = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115
        options = ("-V", "-S", _BETWEEN) if verbose else ()
        launch = sys.executable, "-I", "-S", "-c", _LAUNCH, privileges.__file__, str(_NOBODY)
        self._process = subprocess.Popen(
            [*launch, program, "-n", "-l", "-r", "-", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us, who end it
        )
        assert self._process.stdin
        assert self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout
        self._write(pcap.file_header(MAX_LENGTH, nanoseconds=True))

    def lines(self, time: int, data: bytes, length: int) -> list[str]:
        seconds, rest = divmod(min(max(time, 0), pcap.LAST), SECOND)
        self._write(struct.pack("<IIII", seconds, rest, len(data), length) + data)
        if not self._verbose:
            return [self._line().strip()]
        lines = list(iter(self._line, _BETWEEN))
        return lines[:-1] if lines and not lines[-1] else lines

    def close(self) -> None:
        """Let tshark end, as its input does. A process that has given its privileges up could not kill it."""
        for file in (self._input, self._output):
            with suppress(OSError):
                file.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._errors.close()

    def _write(self, data: bytes) -> None:
        try:
            self._input.write(data)
            self._input.flush()
        except OSError:
            raise self._dead() from None

    def _line(self) -> str:
        line = self._output.readline()
        if not line.endswith(b"\n"):
            raise self._dead()
        return line.decode(errors="replace").rstrip("\r\n")

    def _dead(self) -> Error:
        """Why there is nothing more: its last words."""
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Error(f"--decode: tshark has ended by {how}{f': {said[-1]}' if said else ''}")


class Scapy:
    """Scapy, which dissects each packet by itself.

    Args:
        verbose: see `decoder`.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, *, verbose: bool) -> None:
        logging.getLogger("scapy").setLevel(logging.ERROR)  # it warns of networks that it finds no route for
        self._frame, self._verbose = cast(Any, import_module("scapy.all")).Ether, verbose

    def lines(self, time: int, data: bytes, length: int) -> list[str]:  # noqa: ARG002
        frame = self._frame(data)
        text: str = frame.show(dump=True) if self._verbose else frame.summary()
        return text.rstrip().split("\n")

    def close(self) -> None:
        pass
