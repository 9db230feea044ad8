"""What a card can be asked without a change in it: who it is, its link, its registers; and what its EEPROM says.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ixy.drivers import Link
from ixy.drivers.ixgbe.cards import Connection
from ixy.drivers.ixgbe.semaphore import owned
from ixy.drivers.ixgbe.statistics import SETS, Statistics
from ixy.registers import Reading, readable
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ixy.drivers.ixgbe.cards import Card
    from ixy.registers import RegisterFile

FRAMING = 18  # bytes of a frame that are no payload: two addresses, a type, the check sequence
_MAX_FRAME = 1518


def mac(registers: RegisterFile) -> bytes:
    """The station's address from receive address register 0 (8.2.3.7.8)."""
    low, high = registers.read(reg.RAL[0]), registers.read(reg.RAH[0])
    return low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")


def link(registers: RegisterFile) -> Link:
    """The link's state, as the MAC has it (8.2.3.22.20)."""
    links = reg.LINKS.decode(registers.read(reg.LINKS))
    return Link(True, reg.LINK_SPEEDS.get(links["LINK_SPEED"], 0)) if links["LINK_UP"] else Link(False, 0)


def mtu(registers: RegisterFile) -> int:
    """The longest payload of a frame (8.2.3.22.8, 8.2.3.22.13)."""
    jumbo = registers.get(reg.HLREG0, "JUMBOEN")
    return (registers.get(reg.MAXFRS, "MFS") if jumbo else _MAX_FRAME) - FRAMING


def seen(registers: RegisterFile, card: Card) -> dict[str, Any]:
    """What a card's registers say of it, by the names of `ixy.drivers.info.Info`."""
    up, speed = link(registers)
    return {
        "mac": mac(registers).hex(":"),
        "mtu": mtu(registers),
        "link_up": up,
        "link_speed": speed,
        "max_rx_queues": reg.QUEUES,
        "max_tx_queues": reg.QUEUES,
        "features": abilities(card),
        "rx_offloads": rx_offloads(registers),
    }


def count(registers: RegisterFile, _card: Card) -> dict[str, int]:
    """A card's counters, which are cleared by this."""
    return Statistics(registers, SETS, SETS).all()


def abilities(card: Card) -> list[str]:
    """What a card can, in words."""
    fields = "five fields, " if card.five_fields else ""
    return [
        f"receive buffer of {card.rx_buffer} KiB",
        f"RSS over {card.rss_queues} queues by a table of {card.rss_entries}",
        f"rules by Ethertype, SYN, {fields}flow director",
    ]


def rx_offloads(registers: RegisterFile) -> list[str]:
    """What it does to packets that come in, as it is set up."""
    on: list[str] = []
    if registers.get(reg.MRQC, "MRQE"):
        on.append("RSS_HASH")
    if registers.get(reg.RXDCTL[0], "VME"):
        on.append("VLAN_STRIP")
    if registers.get(reg.VLNCTRL, "VFE"):
        on.append("VLAN_FILTER")
    if registers.get(reg.RXCSUM, "PCSD"):
        on += ["IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM", "SCTP_CKSUM"]
    if registers.get(reg.RSCCTL[0], "RSCEN"):
        on.append("TCP_LRO")
    if not registers.get(reg.HLREG0, "RXCRCSTRP"):
        on.append("KEEP_CRC")
    return on


_SENDING = {
    "checksum": ("IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM"),
    "vlan": ("VLAN_INSERT",),
    "segmentation": ("TCP_TSO",),
}


def tx_offloads(asked: Sequence[str], parts: int) -> list[str]:
    """What it does to packets that it sends; descriptors ask for that, and not registers."""
    return [name for offload in asked for name in _SENDING[offload]] + ["MULTI_SEGS"] * (parts > 1)


def firmware(registers: RegisterFile, card: Card) -> str | None:
    """The id of the image in the EEPROM, as `ethtool -i` shows it; None where the EEPROM cannot be read so."""
    if not card.eerd:
        return None
    inside = card.connection is Connection.INTERNAL_PHY
    with owned(registers, reg.SYNC_EEPROM, by_regsmp=True) if inside else nullcontext():
        low, high = (_word(registers, place) for place in reg.EEPROM_IMAGE)
    if not high & reg.EEPROM_HIGH_FIRST:
        low, high = high, low
    return f"{high << 16 | low:#010x}"


def _word(registers: RegisterFile, place: int) -> int:
    """A word of the EEPROM (8.2.3.2.2)."""
    registers.write(reg.EERD, START=1, ADDR=place)
    registers.wait(reg.EERD, 0.1, DONE=1)
    return registers.get(reg.EERD, "DATA")


def read_all(registers: RegisterFile, card: Card, cleared: Mapping[int, int] | None = None) -> list[Reading]:
    """All registers whose reading changes nothing.

    Args:
        cleared: what counters held when somebody read, and so cleared them, by offset. Then all others that reading
            clears are read too.
    """
    rows = [row for row in reg.ROWS if row is not reg.ERETA or card.rss_entries > 4 * reg.RETA.count]
    known = cleared or {}
    return [
        Reading(register, known[register.offset] if register.offset in known else registers.read(register))
        for register in readable(rows, clear=cleared is not None)
    ]
