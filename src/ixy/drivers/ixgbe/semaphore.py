"""What the driver shares with the card's firmware, and with the driver of the card's other port.

Section 10.5.4 of the Intel 82599 datasheet, revision 3.3: SW_FW_SYNC says who owns what, and a semaphore guards it.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ixy.errors import DeviceTimeout
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from collections.abc import Generator

    from ixy.registers import RegisterFile

log = logging.getLogger("ixy.ixgbe")

_OWNED = 1.0  # seconds after which an owner is taken for dead
_PAUSE = 0.005  # seconds between two looks at who owns what


@contextmanager
def owned(registers: RegisterFile, resources: int, *, by_regsmp: bool = False) -> Generator[None]:
    """Own `resources`, bits of SW_FW_SYNC.SOFTWARE, for a while.

    An owner that keeps them for a second, such as a process that was killed, is taken for dead, and they are taken away
    from it.

    Args:
        by_regsmp: the semaphore against the firmware is in SW_FW_SYNC itself, as X540 and X550 have it.
    """
    deadline = time.monotonic() + _OWNED
    while not _take(registers, resources, by_regsmp, by_force=time.monotonic() > deadline):
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        with _semaphore(registers, by_regsmp):
            owners = reg.SW_FW_SYNC.decode(registers.read(reg.SW_FW_SYNC))
            registers.write(reg.SW_FW_SYNC, **owners | {"SOFTWARE": owners["SOFTWARE"] & ~resources})


def _take(registers: RegisterFile, resources: int, by_regsmp: bool, *, by_force: bool) -> bool:
    """Become the owner; False if somebody else is."""
    with _semaphore(registers, by_regsmp):
        owners = reg.SW_FW_SYNC.decode(registers.read(reg.SW_FW_SYNC))
        if by_force:
            log.warning("%s: the owner of %#x in SW_FW_SYNC does not let go", registers.owner, resources)
            owners = {who: what & ~resources for who, what in owners.items()}
        free = not (owners["SOFTWARE"] | owners["FIRMWARE"]) & resources
        if free:
            registers.write(reg.SW_FW_SYNC, **owners | {"SOFTWARE": owners["SOFTWARE"] | resources})
        return free


@contextmanager
def _semaphore(registers: RegisterFile, by_regsmp: bool) -> Generator[None]:
    """Hold both halves of the semaphore: against the other port's driver and against the firmware.

    One that cannot be had within the time that the datasheet recommends is held by something dead.
    """
    try:
        registers.wait(reg.SWSM, 0.01, SMBI=0)  # the read that finds 0 takes it
    except DeviceTimeout as error:
        log.warning("%s", error)
    try:
        try:
            if by_regsmp:
                registers.wait(reg.SW_FW_SYNC, 3.0, REGSMP=0)  # again, the read that finds 0
            else:
                registers.update(reg.SWSM, SWESMBI=1)
                registers.wait(reg.SWSM, 3.0, SWESMBI=1)
        except DeviceTimeout as error:
            log.warning("%s", error)
        yield
    finally:
        if by_regsmp:
            registers.update(reg.SW_FW_SYNC, REGSMP=0)
        registers.update(reg.SWSM, SMBI=0, SWESMBI=0)
