"""How long `ixy evaluate` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repeat: how often each figure.
        packets: in lock step, of each side in one repetition.
        window: seconds over which a rate is taken.
        batches: sizes.
        starts: how often each process of a comparison is started.
    """

    repeat: int
    packets: int
    window: float
    batches: Sequence[int]
    starts: int

    def rounds(self, batch: int) -> int:
        """Batches in one repetition."""
        return -(-self.packets // batch)


FULL = Effort(repeat=7, packets=1 << 18, window=1.0, batches=(1, 2, 4, 8, 16, 32, 64, 128, 256), starts=5)
QUICK = Effort(repeat=5, packets=1 << 17, window=0.4, batches=(1, 8, 32, 64, 256), starts=2)
