"""A model of Intel's 82599, and the wires that can be plugged into it.

The model stands on the other side of the bus: with the driver it shares the map of the registers, and DMA memory.
`rack.py` is its state, `card/` a card: the part that works on packets and the part that software talks to; `wires/` is
what is plugged into its port, a file for each. `loop.py` gives them their turns, in a thread of compiled code, or
`virtual.py` by a virtual clock.
`machine.py` holds the cards together, and `qemu/` makes them PCI functions of a virtual machine. `physical/` drives a
card of which only virtual functions are opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ixy.sim.fates import Fate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.checklist import Report

__all__ = ["Fate", "impairments", "report"]


def report(card: str) -> Report:
    """What a driver did to a card of this process: a check-list of its initialisation, and the rules that it broke.

    Args:
        card: its name, "a" or "sim:a", or that of a virtual function of it. A card that was closed is reported as it
            was.

    Raises:
        TypeError: the name is no text.
        ConfigurationError: no such card was ever open.
    """
    from ixy.sim.machine import machine

    if not isinstance(cast(object, card), str):
        raise TypeError(f"card must be a name, such as 'a', not {card!r}")
    return machine().report(card.removeprefix("sim:"))


def impairments(card: str, *, arriving: bool = False) -> NDArray[np.void]:
    """What a cable has done to each frame that a card of this process sent; see `ixy.sim.machine.Machine.impairments`.

    Args:
        card: its name, "a" or "sim:a".
        arriving: to those that were sent to it, instead.

    Raises:
        TypeError: the name is no text.
        ConfigurationError: no such card is open, or nothing impairs its frames.
    """
    from ixy.sim.machine import machine

    if not isinstance(cast(object, card), str):
        raise TypeError(f"card must be a name, such as 'a', not {card!r}")
    return machine().impairments(card.removeprefix("sim:"), arriving=arriving)
