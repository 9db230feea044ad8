"""What a card can be asked without a change in it: who it is, its link, its registers; and what its EEPROM says.

Sections are those of the Intel 82574 datasheet, revision 3.4.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ixy.drivers import Link
from ixy.drivers.e1000.semaphore import owned
from ixy.drivers.e1000.statistics import Statistics
from ixy.registers import Reading, readable
from ixy.registers import e1000 as reg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ixy.drivers.e1000.cards import Card
    from ixy.registers import RegisterFile

MTU, LONGEST_MTU = 1500, 9000  # bytes: without RCTL.LPE, and what the 82574 takes with it


def mac(registers: RegisterFile) -> bytes:
    """The station's address from receive address register 0 (10.2.5)."""
    low, high = registers.read(reg.RAL[0]), registers.read(reg.RAH[0])
    return low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")


def link(registers: RegisterFile) -> Link:
    """The link's state, as the MAC has it (10.2.2)."""
    status = reg.STATUS.decode(registers.read(reg.STATUS))
    return Link(True, reg.SPEEDS[status["SPEED"]]) if status["LU"] else Link(False, 0)


def mtu(registers: RegisterFile) -> int:
    """The longest payload of a frame."""
    return LONGEST_MTU if registers.get(reg.RCTL, "LPE") else MTU


def seen(registers: RegisterFile, card: Card) -> dict[str, Any]:
    """What a card's registers say of it, by the names of `ixy.drivers.info.Info`."""
    up, speed = link(registers)
    return {
        "mac": mac(registers).hex(":"),
        "mtu": mtu(registers),
        "link_up": up,
        "link_speed": speed,
        "max_rx_queues": card.queues,
        "max_tx_queues": card.queues,
        "features": abilities(card),
        "rx_offloads": rx_offloads(registers, card),
    }


def count(registers: RegisterFile, card: Card) -> dict[str, int]:
    """A card's counters, which are cleared by this."""
    return Statistics(registers, card).all()


def abilities(card: Card) -> list[str]:
    """What a card can, in words."""
    return [f"RSS over {reg.QUEUES} queues by a table of {reg.RETA_ENTRIES}"] if card.newer else []


def rx_offloads(registers: RegisterFile, card: Card) -> list[str]:
    """What it does to packets that come in, as it is set up."""
    on: list[str] = []
    if card.newer and registers.get(reg.MRQC, "MRQE"):
        on.append("RSS_HASH")
    if registers.get(reg.CTRL, "VME"):
        on.append("VLAN_STRIP")
    if registers.get(reg.RCTL, "VFE"):
        on.append("VLAN_FILTER")
    if registers.get(reg.RXCSUM, "IPOFLD"):
        on.append("IPV4_CKSUM")
    if registers.get(reg.RXCSUM, "TUOFLD"):
        on += ["UDP_CKSUM", "TCP_CKSUM"]
    if not registers.get(reg.RCTL, "SECRC"):
        on.append("KEEP_CRC")
    return on


def eeprom(registers: RegisterFile, card: Card, *places: int) -> list[int]:
    """Words of the EEPROM (10.2.2; SDM 13.4.4).

    Raises:
        DeviceTimeout: it does not answer.
    """
    row = reg.EERD if card.newer else reg.EERD_8254X
    words: list[int] = []
    with owned(registers) if card.newer else nullcontext():
        for place in places:
            registers.write(row, START=1, ADDR=place)
            registers.wait(row, 0.1, DONE=1)
            words.append(registers.get(row, "DATA"))
    return words


def firmware(registers: RegisterFile, card: Card) -> str:
    """The version of the image in the EEPROM, as `ethtool -i` shows it."""
    (word,) = eeprom(registers, card, reg.EEPROM_VERSION)
    return f"{word >> 12:d}.{word >> 4 & 0xFF:d}-{word & 0xF:d}"


def read_all(registers: RegisterFile, card: Card, cleared: Mapping[int, int] | None = None) -> list[Reading]:
    """All registers whose reading changes nothing.

    Args:
        cleared: what counters held when somebody read, and so cleared them, by offset. Then all others that reading
            clears are read too.
    """
    known = cleared or {}
    return [
        Reading(register, known[register.offset] if register.offset in known else registers.read(register))
        for register in readable(reg.rows(newer=card.newer), clear=cleared is not None)
    ]
