"""The PHY that is within each of these chips, by the management registers of IEEE 802.3, chapter 22."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from ixy.drivers.e1000.semaphore import owned
from ixy.registers import e1000 as reg

if TYPE_CHECKING:
    from ixy.drivers.e1000.cards import Card
    from ixy.registers import RegisterFile


def negotiate(registers: RegisterFile, card: Card) -> None:
    """Have the PHY negotiate, if it is switched off, as the kernel leaves it, or was told not to.

    Raises:
        DeviceTimeout: the PHY does not answer.
    """
    with owned(registers) if card.newer else nullcontext():
        control = _access(registers, reg.MDIC_READ, 0)
        if control & reg.BMCR_POWER_DOWN or not control & reg.BMCR_AUTONEG:
            wanted = control & ~reg.BMCR_POWER_DOWN | reg.BMCR_AUTONEG | reg.BMCR_RESTART
            _access(registers, reg.MDIC_WRITE, wanted)


def _access(registers: RegisterFile, operation: int, data: int) -> int:
    """Read or write the PHY's control register (10.2.2, MDIC); what was read."""
    registers.write(reg.MDIC, OP=operation, PHYADD=reg.PHY, REGADD=reg.BMCR, DATA=data)
    registers.wait(reg.MDIC, 0.1, READY=1)
    return registers.get(reg.MDIC, "DATA")
