"""The check of lab 1: find the card. Sections are those of PCI Local Bus 3.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.course.trials import EAGER, Labs, need, trial

if TYPE_CHECKING:
    from ixy.course.bench import Bench

_COMMAND = 0x04
_MEMORY_SPACE, _BUS_MASTER = 1 << 1, 1 << 2


@trial(EAGER, cards=2)
def finds_them(labs: Labs, bench: Bench) -> None:
    """find_cards finds the cards, and nothing else."""
    found = labs.lab1.find_cards(bench.bus)
    need(isinstance(found, list), f"find_cards gives {found!r}, and not a list of slots")
    for where in found:
        if where not in bench.bus.cards:
            vendor, device = (bench.bus.config_read(where, offset, 2) for offset in (0, 2))
            right = "Device ID" if vendor == 0x8086 else "Vendor ID"
            need(
                False,
                f"{where} is no 82599: vendor {vendor:#06x}, device {device:#06x}. It has both 0x8086 and 0x10fb",
                right,
                "PCI 6.2.1",
            )
    missing = [where for where in bench.bus.cards if where not in found]
    need(
        not missing,
        f"there is an 82599 at {', '.join(missing)}, too: vendor 0x8086 is at offset 0, device 0x10fb at offset 2, "
        "each of 2 bytes",
        "Vendor ID",
        "PCI 6.2.1",
    )
    need(found == bench.bus.cards, f"find_cards gives {found}, and not {bench.bus.cards}, in the order of slots()")


@trial(EAGER, cards=2)
def enables_one(labs: Labs, bench: Bench) -> None:
    """enable sets what a driver needs in the command register of one card."""
    first, second = bench.bus.cards
    before = {where: bench.bus.config_read(where, _COMMAND, 2) for where in (first, second)}
    labs.lab1.enable(bench.bus, first)
    command = bench.bus.config_read(first, _COMMAND, 2)
    if not command & _MEMORY_SPACE:
        bench.note(
            "set bit 1 of the command register: else the card does not show its registers", "COMMAND", "PCI 6.2.2"
        )
    need(
        bool(command & _BUS_MASTER),
        "set bit 2 of the command register: else the card does no DMA, and neither receives nor sends",
        "COMMAND",
        "PCI 6.2.2",
    )
    need(
        command & before[first] == before[first],
        f"the command register was {before[first]:#06x} and is {command:#06x}: keep the bits that firmware has set",
        "COMMAND",
        "PCI 6.2.2",
    )
    need(
        command == before[first] | _MEMORY_SPACE | _BUS_MASTER,
        f"the command register is {command:#06x}: set bits 1 and 2, and no others",
        "COMMAND",
        "PCI 6.2.2",
    )
    need(
        bench.bus.config_read(second, _COMMAND, 2) == before[second],
        f"the command register of {second} has changed, too, and {first} was to be enabled",
        "COMMAND",
        "PCI 6.2.2",
    )
