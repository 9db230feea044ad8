"""What can become of a frame on a cable that impairs."""

from __future__ import annotations

from enum import IntFlag


class Fate(IntFlag):
    """What became of a frame; 0 of one that arrives as it was sent. What it means exactly, `wires/impair.py` says."""

    LOST = 1
    DUPLICATED = 2  # a copy of it arrives, too
    COPY = 4  # that is this one
    REORDERED = 8  # it was not delayed
    CORRUPTED = 16
    OVERFLOWED = 32  # too many were under way: it never arrives
