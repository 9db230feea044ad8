"""What a virtual function can be asked without a change in it: its link, its registers, its counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.drivers import Link
from ixy.drivers.ixgbevf.statistics import Statistics
from ixy.registers import Reading, readable
from ixy.registers import i82599_vf as reg
from ixy.registers.i82599 import LINK_SPEEDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ixy.drivers.ixgbevf.cards import Card
    from ixy.registers import RegisterFile


def link(registers: RegisterFile) -> Link:
    """The state of the card's link; functions of one card reach each other without (8.3)."""
    links = reg.VFLINKS.decode(registers.read(reg.VFLINKS))
    return Link(True, LINK_SPEEDS.get(links["LINK_SPEED"], 0)) if links["LINK_UP"] else Link(False, 0)


def seen(registers: RegisterFile, card: Card) -> dict[str, Any]:
    """What a function's registers say of it, by the names of `ixy.drivers.info.Info`. Its address is not among it."""
    up, speed = link(registers)
    return {
        "link_up": up,
        "link_speed": speed,
        "features": abilities(card),
        "rx_offloads": rx_offloads(registers),
    }


def count(registers: RegisterFile, _card: Card) -> dict[str, int]:
    """What a function's counters stand at, which is not cleared."""
    return Statistics(registers).read()


def abilities(_card: Card) -> list[str]:
    """What a function can, in words."""
    return ["what it is allowed, its physical function decides"]


def rx_offloads(registers: RegisterFile) -> list[str]:
    """What it does to packets that come in, as it is set up, as far as that is the function's own."""
    on = ["VLAN_FILTER", "IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM"]
    if registers.get(reg.VFPSRTYPE, "RQPL"):
        on.append("RSS_HASH")
    if registers.get(reg.VFRXDCTL[0], "VME"):
        on.append("VLAN_STRIP")
    return on


def read_all(registers: RegisterFile, _card: Card, cleared: Mapping[int, int] | None = None) -> list[Reading]:
    """All registers whose reading changes nothing; with `cleared`, also those that it clears."""
    return [Reading(register, registers.read(register)) for register in readable(reg.ROWS, clear=cleared is not None)]
