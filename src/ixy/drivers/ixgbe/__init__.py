"""The driver of Intel's 82599 family.

Read `device.py` beside the datasheet, chapter 4.6: it brings the card up step by step; `cards.py` says in what cards
differ. `datapath.py` is what runs for every packet.
"""

from ixy.drivers.ixgbe.cards import SUPPORTED
from ixy.drivers.ixgbe.device import Ixgbe

__all__ = ["SUPPORTED", "Ixgbe"]
