"""The driver of Intel's gigabit cards: the 82574 (in Linux e1000e) and the older 82540 and 82545 (e1000).

Read `device.py` beside the datasheet of the 82574, chapter 4.6, or the manual of the older ones, chapter 14: it brings
the card up step by step; `cards.py` says in what cards differ. `datapath.py` is what runs for every packet.
"""

from ixy.drivers.e1000.cards import SUPPORTED
from ixy.drivers.e1000.device import E1000

__all__ = ["E1000", "SUPPORTED"]
