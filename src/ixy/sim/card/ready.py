"""Bits that software waits for: a few register reads pass until they show what has become of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ixy.registers import Register

DEFAULT_READS = 3
MAX_READS = 1_000_000


class Ready:
    """Which bits of a card's registers still read as they were.

    Time passes by reads of registers, of whichever, so that who polls sees it pass, and a test knows when. Behind the
    bits all has happened: a queue whose ENABLE still reads 0 takes packets.

    Attributes:
        reads: how many reads it takes.
    """

    def __init__(self) -> None:
        self.reads = DEFAULT_READS
        self._now = 0
        # By offset: since when and for how many turns, which bits, and how they read meanwhile
        self._pending: dict[int, tuple[int, int, int, int]] = {}

    def begin(self, register: Register, bits: int, shown: int = 0, turns: int = 1) -> None:
        """From now on, and for so many times `reads` reads, these bits of a register read as in `shown`."""
        self._pending[register.offset] = self._now, turns, bits, shown & bits

    def read(self, offset: int, value: int) -> int:
        """What software reads of a register that holds `value`."""
        self._now += 1
        since, turns, bits, shown = self._pending.get(offset, (0, 0, 0, 0))
        return value & ~bits | shown if self._now <= since + turns * self.reads else value

    def waits_for(self, register: Register, bits: int) -> bool:
        """Whether any of these bits of a register still reads as it was."""
        since, turns, pending, _ = self._pending.get(register.offset, (0, 0, 0, 0))
        return bool(pending & bits) and self._now < since + turns * self.reads

    def forget(self) -> None:
        """A reset: nothing is pending any more."""
        self._pending.clear()
