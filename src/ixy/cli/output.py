"""The command's standard output and standard error, whatever they are connected to."""

from __future__ import annotations

import io
import select
import sys
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NOBODY_READS = 1  # exit code
_ENCODING = "utf-8"


def prepare() -> None:
    """Make `sys.stdout` and `sys.stderr` streams that neither fail for a character nor lose anything without a word.

    What an encoding lacks, such as an arrow in ASCII, is replaced.
    """
    sys.stdout = _text(_Output(1), sys.stdout, "replace")
    sys.stderr = _text(_Stream(2), sys.stderr, "backslashreplace")


def for_programs() -> bool:
    """Whether the command that runs was asked for JSON."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def _text(raw: io.FileIO, before: TextIO | None, errors: str) -> TextIO:
    """Characters onto bytes, encoded as they were before; there is no stream where it was closed."""
    encoding = before.encoding if before else _ENCODING
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=True)


class _Stream(io.FileIO):
    """A standard stream, which others may share. After its first error it writes nothing more."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._failed:
            return len(memoryview(data))
        try:
            while (written := super().write(data)) is None:  # whoever shares it may have made it non-blocking
                select.select([], [self], [])
        except OSError as error:
            self._failed = True
            self.complain(error)
            return len(memoryview(data))
        return written

    def complain(self, error: OSError) -> None:
        """Standard error has nobody to tell what is wrong with it."""


class _Output(_Stream):
    """Standard output. Its first error ends the command: quietly if it is a pipe that nobody reads any more."""

    def complain(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(NOBODY_READS)
        raise click.ClickException(f"standard output: {error.strerror}") from None
