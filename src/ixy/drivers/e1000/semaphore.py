"""What the driver shares with the 82574's firmware, and with other software: NVM and PHY.

The registers are in chapter 10.2 of the Intel 82574 datasheet, revision 3.4: SWSM keeps drivers from each other,
EXTCNF_CTRL software from firmware and from the hardware that loads the NVM.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ixy.errors import DeviceTimeout
from ixy.registers import e1000 as reg

if TYPE_CHECKING:
    from collections.abc import Generator

    from ixy.registers import RegisterFile

log = logging.getLogger("ixy.e1000")

_PATIENCE = 0.5  # seconds: an owner that keeps it for so long is dead


@contextmanager
def owned(registers: RegisterFile) -> Generator[None]:
    """Own NVM and PHY for a while. An owner that does not let go, such as a process that was killed, is passed over."""
    _take(registers, reg.SWSM, SMBI=0)  # the read that finds 0 takes it
    try:
        registers.update(reg.EXTCNF_CTRL, MDIO_SW=1)  # which stays 0 while somebody else has it
        _take(registers, reg.EXTCNF_CTRL, MDIO_SW=1)
        yield
    finally:
        registers.update(reg.EXTCNF_CTRL, MDIO_SW=0)
        registers.write(reg.SWSM, SMBI=0)


def _take(registers: RegisterFile, register: reg.Register, **fields: int) -> None:
    try:
        registers.wait(register, _PATIENCE, **fields)
    except DeviceTimeout as error:
        log.warning("%s; going on", error)
