"""Intel's gigabit cards, and in what they differ."""

from __future__ import annotations

from typing import NamedTuple

from ixy.registers import e1000 as reg

INTEL = 0x8086


class Card(NamedTuple):
    """One kind of card.

    Attributes:
        name: as `ixy list` shows it.
        newer: an 82574: on PCI Express, two queues with RSS, extended receive descriptors, MSI-X, and firmware with
            which NVM and PHY are shared.
    """

    name: str
    newer: bool = False

    @property
    def queues(self) -> int:
        """Receive queues, and as many transmit queues."""
        return reg.QUEUES if self.newer else 1


CARDS = {
    0x100E: Card("82540EM"),
    0x100F: Card("82545EM"),
    0x10D3: Card("82574L", newer=True),
}
"""By PCI device id; the vendor is Intel."""

SUPPORTED = {(INTEL, device): card.name for device, card in CARDS.items()}
"""Cards that this driver knows, by vendor and device id."""
