"""The interrupts of receive queues: vector n of MSI-X belongs to queue n."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from ixy.drivers.interrupts import EventFile
from ixy.registers import Register, RegisterFile
from ixy.registers import i82599 as reg

_UNIT = 2e-6  # seconds: of EITR's interval at 10 Gbit/s (8.2.3.5.12)
_LONGEST = 0x1FF  # units


class Vector(NamedTuple):
    """Where a vector is masked: registers in which a bit unmasks and masks it, and the one of its interval."""

    unmask: Register
    mask: Register
    interval: Register
    bit: int


def interval(vector: int) -> Register:
    """The register that says how long two interrupts of a vector are apart at least."""
    return reg.EITR[vector] if vector < reg.EITR.count else reg.EITR_HIGH[vector - reg.EITR.count]


def units(seconds: float) -> int:
    """A time as that register has it."""
    return min(round(seconds / _UNIT), _LONGEST)


class QueueInterrupt(EventFile):
    """See `ixy.drivers.RxInterrupt`.

    Args:
        fd: the eventfd that counts the vector's messages.
        vector: of the queue.
        control: the card's registers, for one thread at a time, while the card is open.
    """

    once = True  # 7.3.1.5: with a message its vector is masked (EIAM)

    def __init__(self, fd: int, vector: Vector, control: Callable[[], AbstractContextManager[RegisterFile]]) -> None:
        super().__init__(fd)
        self._vector = vector
        self._control = control

    def arm(self) -> None:
        """8.2.3.5.8: unmask the vector. A cause that was kept while it was masked makes a message at once."""
        with self._control() as regs:
            regs.write(self._vector.unmask, MASK=self._vector.bit)

    def disarm(self) -> None:
        """8.2.3.5.9: mask the vector, if no message has done so."""
        with self._control() as regs:
            regs.write(self._vector.mask, MASK=self._vector.bit)

    def pace(self, seconds: float) -> None:
        """8.2.3.5.12; the counter that runs goes on as it is (CNT_WDIS)."""
        with self._control() as regs:
            regs.write(self._vector.interval, INTERVAL=units(seconds), CNT_WDIS=1)
