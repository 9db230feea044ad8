"""The interrupts of receive queues: on an 82574, vector n of MSI-X belongs to queue n; older cards have one line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from ixy.bus import Interrupts
from ixy.drivers.interrupts import EventFile
from ixy.registers import Register, RegisterFile
from ixy.registers import e1000 as reg

_UNIT = 256e-9  # seconds: of the interval between interrupts (10.2.4.2, 10.2.4.3)
_LONGEST = 0xFFFF  # units

Control = Callable[[], AbstractContextManager[RegisterFile]]


class _CauseInterrupt(EventFile):
    """See `ixy.drivers.RxInterrupt`.

    Args:
        fd: the eventfd that counts the interrupts.
        cause: the bit of the queue's cause.
        interval: the register of the least time between two.
        control: the card's registers, for one thread at a time, while the card is open.
    """

    once = True

    def __init__(self, fd: int, cause: int, interval: Register, control: Control) -> None:
        super().__init__(fd)
        self._cause, self._interval, self._control = cause, interval, control

    def arm(self) -> None:
        """10.2.4.5: a cause that was kept while it was masked interrupts at once."""
        with self._control() as regs:
            regs.write(reg.IMS, self._cause)

    def disarm(self) -> None:
        with self._control() as regs:
            regs.write(reg.IMC, self._cause)

    def pace(self, seconds: float) -> None:
        with self._control() as regs:
            regs.write(self._interval, INTERVAL=min(round(seconds / _UNIT), _LONGEST))


class MessageInterrupt(_CauseInterrupt):
    """A vector of MSI-X. A message clears its cause (EIAC) and masks it (IAM; 10.2.4.7, 10.2.4.8)."""


class LineInterrupt(_CauseInterrupt):
    """The line. It is asserted until its causes are read, and others may share it: so the kernel masks it with each
    interrupt, until it is armed."""

    def __init__(self, interrupts: Interrupts, control: Control) -> None:
        super().__init__(interrupts.events[0], reg.CAUSE_RXT0, reg.ITR, control)
        self._interrupts = interrupts

    def arm(self) -> None:
        """SDM 13.4.17: reading the causes clears them."""
        with self._control() as regs:
            regs.read(reg.ICR)
            self._interrupts.rearm()
            regs.write(reg.IMS, self._cause)
