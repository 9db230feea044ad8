"""The kinds of cards that the model can be, and in what they differ from an 82599.

Where nothing else is said, the X540's values are those that its drivers (Linux, DPDK) want.
"""

from __future__ import annotations

from typing import NamedTuple

from ixy.registers import Register
from ixy.registers import i82599 as reg


class Model(NamedTuple):
    """One kind.

    Attributes:
        name: of the chip.
        device, subsystem: its PCI ids; the vendor is Intel.
        vf_device: that of its virtual functions.
        part: number of the card, in its vital product data.
        resets: registers, or rows of them, that have another value after a reset.
        has_phy: a copper PHY within the chip is on the management bus, and decides on the link. Firmware shares it by a
            semaphore in SW_FW_SYNC.
        counts_cycles: TIMINCA says in how many cycles of the clock the increment is added; else it has 31 bits.
    """

    name: str
    device: int
    subsystem: int
    vf_device: int
    part: str
    resets: tuple[tuple[Register, int], ...] = ()
    has_phy: bool = False
    counts_cycles: bool = True


MODELS = {
    "82599": Model("82599", 0x10FB, 0x000C, 0x10ED, "E10G42BTDA"),
    "x540": Model(
        "X540",
        0x1528,
        0x0001,
        0x1515,
        "X540T2",
        resets=((reg.RXPBSIZE, 384 << 10), (reg.EEC, reg.EEC.reset | reg.EEC.mask("FLUDONE"))),
        has_phy=True,
        counts_cycles=False,
    ),
}
"""By the names that addresses have for them."""

DEFAULT = "82599"
