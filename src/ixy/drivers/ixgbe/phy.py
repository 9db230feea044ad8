"""A copper PHY beside the 82599, reached over the management bus (3.7.6, 8.2.3.22.11).

Devices and registers of a PHY are those of IEEE 802.3, clause 45.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.drivers import Link
from ixy.drivers.ixgbe.semaphore import owned
from ixy.errors import UnsupportedDevice
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.registers import RegisterFile

PORTS = 32  # addresses on the management bus
PMA, NEGOTIATION, VENDOR = 1, 7, 30  # devices within a PHY
PMA_ID = 2  # of PMA: the first half of the PHY's identifier
CONTROL = 0  # of NEGOTIATION
RESTART, ENABLE = 1 << 9, 1 << 12
LINK_STATUS = 1  # of VENDOR, in the PHY of these cards
LINK_UP, LINK_1G = 1 << 3, 1 << 4

_CYCLE_TIMEOUT = 0.01  # seconds


class Phy:
    """The PHY of one port.

    Args:
        registers: of the card.
        resource: the bit of SW_FW_SYNC that stands for this port's management bus.

    Raises:
        UnsupportedDevice: there is none.
    """

    def __init__(self, registers: RegisterFile, resource: int) -> None:
        self._registers = registers
        self._resource = resource
        with owned(registers, resource):
            self._port = self._find()

    def negotiate(self) -> None:
        """Negotiate the link anew."""
        with owned(self._registers, self._resource):
            control = self._read(self._port, NEGOTIATION, CONTROL)
            self._write(self._port, NEGOTIATION, CONTROL, control | RESTART | ENABLE)

    def link(self) -> Link:
        """The link's state."""
        with owned(self._registers, self._resource):
            status = self._read(self._port, VENDOR, LINK_STATUS)
        if not status & LINK_UP:
            return Link(False, 0)
        return Link(True, 1_000 if status & LINK_1G else 10_000)

    def _find(self) -> int:
        """Where on the bus somebody answers: without, it reads all ones."""
        for port in range(PORTS):
            if self._read(port, PMA, PMA_ID) not in (0, 0xFFFF):
                return port
        raise UnsupportedDevice(f"{self._registers.owner}: no PHY answers on the card's management bus")

    def _read(self, port: int, device: int, register: int) -> int:
        self._cycle(port, device, register, reg.MDI_ADDRESS)
        self._cycle(port, device, register, reg.MDI_READ)
        return self._registers.get(reg.MSRWD, "READ")

    def _write(self, port: int, device: int, register: int, value: int) -> None:
        self._registers.write(reg.MSRWD, WRITE=value)
        self._cycle(port, device, register, reg.MDI_ADDRESS)
        self._cycle(port, device, register, reg.MDI_WRITE)

    def _cycle(self, port: int, device: int, register: int, opcode: int) -> None:
        """One frame on the bus: the card clears COMMAND at its end."""
        self._registers.write(reg.MSCA, ADDRESS=register, DEVICE=device, PORT=port, OPCODE=opcode, COMMAND=1)
        self._registers.wait(reg.MSCA, _CYCLE_TIMEOUT, COMMAND=0)
