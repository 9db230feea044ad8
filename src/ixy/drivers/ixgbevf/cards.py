"""The virtual functions that this driver knows. How many queues one has, its physical function says."""

from __future__ import annotations

from typing import NamedTuple

from ixy.drivers.ixgbe.cards import INTEL


class Card(NamedTuple):
    """One kind of function: its name, as `ixy list` shows it."""

    name: str


CARDS = {0x10ED: Card("82599 virtual function"), 0x1515: Card("X540 virtual function")}
"""By PCI device id; the vendor is Intel."""

SUPPORTED = {(INTEL, device): card.name for device, card in CARDS.items()}
"""Cards that this driver knows, by vendor and device id."""
