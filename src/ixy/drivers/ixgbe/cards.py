"""The cards of the 82599 family, and in what they differ."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

INTEL = 0x8086


class Connection(Enum):
    """What lies between the MAC and the cable, and so who brings the link up."""

    SFI = "SFI"
    """An SFP+ or QSFP+ cage: the driver selects 10 Gbit/s over SFI."""
    BACKPLANE = "backplane"
    """KX4, KR, CX4 or XAUI, by the wiring of the board: the EEPROM has set AUTOC, the driver starts the link."""
    EXTERNAL_PHY = "external PHY"
    """A copper PHY on the management bus: it negotiates when the driver says so, and knows the link."""
    INTERNAL_PHY = "internal PHY"
    """A copper PHY within the chip, whose firmware brings the link up."""


class Card(NamedTuple):
    """One kind of card.

    Attributes:
        name: as `ixy list` shows it.
        connection: to the cable.
        rx_buffer: what the chip stores received packets in, in KiB.
        rss_entries: of the redirection table.
        rss_queues: how many queues it can name.
        five_fields: whether there are filters by addresses, ports and protocol besides the flow director's.
        eerd: whether the EEPROM can be read by EERD; else firmware would have to be asked.
    """

    name: str
    connection: Connection = Connection.SFI
    rx_buffer: int = 512
    rss_entries: int = 128
    rss_queues: int = 16
    five_fields: bool = True
    eerd: bool = True


TX_BUFFER = 160
"""KiB that each chip stores packets in before it sends them."""

CARDS = {
    0x10F7: Card("82599 KX4", Connection.BACKPLANE),
    0x10F8: Card("82599 backplane", Connection.BACKPLANE),
    0x10F9: Card("82599 CX4", Connection.BACKPLANE),
    0x10FB: Card("82599ES SFP+"),
    0x10FC: Card("82599 XAUI", Connection.BACKPLANE),
    0x1507: Card("82599 SFP+ EM"),
    0x1514: Card("82599 KX4 mezzanine", Connection.BACKPLANE),
    0x1517: Card("82599 KR", Connection.BACKPLANE),
    0x151C: Card("82599 T3", Connection.EXTERNAL_PHY),
    0x154A: Card("X520-4 SFP+"),
    0x154D: Card("X520 SFP+"),
    0x1557: Card("82599EN SFP+"),
    0x1558: Card("X520-Q1 QSFP+"),
    0x1528: Card("X540-AT2", Connection.INTERNAL_PHY, 384),
    0x1560: Card("X540-AT1", Connection.INTERNAL_PHY, 384),
    0x1563: Card("X550-T2", Connection.INTERNAL_PHY, 384, 512, 64, five_fields=False, eerd=False),
    0x15D1: Card("X550-T1", Connection.INTERNAL_PHY, 384, 512, 64, five_fields=False, eerd=False),
}
"""By PCI device id; the vendor is Intel."""

SUPPORTED = {(INTEL, device): card.name for device, card in CARDS.items()}
"""Cards that this driver knows, by vendor and device id."""
