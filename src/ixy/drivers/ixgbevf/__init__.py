"""The driver of virtual functions of Intel's 82599 and X540 (SR-IOV).

Read `device.py` beside the datasheet, chapter 7.10. What a virtual function may not do by itself it asks its physical
one for: `mailbox.py` is how, `physical.py` is what. Rings and what runs for every packet are those of the 82599,
`ixy.drivers.ixgbe`.
"""

from ixy.drivers.ixgbevf.cards import SUPPORTED
from ixy.drivers.ixgbevf.device import IxgbeVf

__all__ = ["SUPPORTED", "IxgbeVf"]
