"""A number in a file that one process writes and another reads: neither has to ask the other."""

from __future__ import annotations

import mmap
from pathlib import Path

_BYTES = 8
_NOT_YET = -1


def new_tally(path: Path) -> memoryview:
    """Make the file, for who reads; the number is -1 until the other has opened it."""
    path.write_bytes(_NOT_YET.to_bytes(_BYTES, "little", signed=True))
    return _mapped(path)


def open_tally(path: str) -> memoryview:
    """The number, for who writes it, from 0 on: `tally[0] += 1`."""
    tally = _mapped(Path(path))
    tally[0] = 0
    return tally


def _mapped(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("q")
