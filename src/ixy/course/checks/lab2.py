"""The check of lab 2: map the card and read a register."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.course.trials import EAGER, Labs, need, trial
from ixy.sim.card import config

if TYPE_CHECKING:
    from ixy.course.bench import Bench

_BAR_0, _BAR_1 = 0x10, 0x14
_SIZE = config.BAR_SIZES[config.REGISTERS_BAR]


def _place(bench: Bench, where: str) -> int:
    low, high = (bench.bus.config_read(where, offset, 4) for offset in (_BAR_0, _BAR_1))
    return high << 32 | low & ~0xF


@trial(EAGER, cards=2)
def finds_address(labs: Labs, bench: Bench) -> None:
    """bar_address gives the address that firmware has chosen."""
    for where in bench.bus.cards:
        wanted, found = _place(bench, where), labs.lab2.bar_address(bench.bus, where)
        need(isinstance(found, int), f"bar_address gives {found!r}, and not a number")
        if found == wanted:
            continue
        reason = "it is made of BAR 0 and BAR 1"
        if found == wanted & 0xFFFFFFFF:
            reason = "it is a BAR of 64 bits, whose upper half is in the next one, at offset 0x14"
        elif found & ~0xF == wanted:
            reason = "the lowest 4 bits of BAR 0 say of what kind it is, and are no part of the address"
        elif found & 0xFFFFFFFF == wanted >> 32:
            reason = "its halves are swapped: BAR 0, at offset 0x10, is the lower one"
        need(False, f"the registers of {where} lie at {wanted:#x}, not at {found:#x}: {reason}", "BAR 0", "PCI 6.2.5.1")


@trial(EAGER)
def finds_size(labs: Labs, bench: Bench) -> None:
    """bar_size gives the size, and leaves the BAR as it was."""
    (where,) = bench.bus.cards
    before = _place(bench, where)
    size = labs.lab2.bar_size(bench.bus, where)
    need(
        _place(bench, where) == before,
        f"the BAR was {before:#x} and is {_place(bench, where):#x}: write back what it held",
        "BAR 0",
        "PCI 6.2.5.1",
    )
    need(
        size == _SIZE,
        f"the size is {_SIZE:#x}, not {size:#x}: write ones, and read which bits keep them; without the lowest 4 bits, "
        "their complement and 1 is the size"
        if isinstance(size, int)
        else f"bar_size gives {size!r}, and not a number",
        "BAR 0",
        "PCI 6.2.5.1",
    )


@trial(EAGER, cards=2)
def reads_address(labs: Labs, bench: Bench) -> None:
    """mac_address gives the card's own address, through registers that map_card has found."""
    for where, port in zip(bench.bus.cards, bench.ports, strict=True):
        command = bench.bus.config_read(where, config.COMMAND, 2)
        bench.bus.config_write(where, config.COMMAND, 2, command | config.COMMAND_MEMORY)
        found, wanted = labs.lab2.mac_address(labs.lab2.map_card(bench.bus, where)), port.card.mac
        if found == wanted:
            continue
        need(isinstance(found, bytes), f"mac_address gives {found!r}, and not 6 bytes")
        reason = "its first 4 bytes are RAL, its last 2 the lower half of RAH"
        subject, section = "RAL", "8.2.3.7.8"
        if sorted(found) == sorted(wanted):
            reason = "the lowest byte of RAL is the first on the wire: registers are little-endian"
        elif found[:4] == wanted[:4]:
            reason, subject, section = "its last 2 bytes are the lower half of RAH", "RAH", "8.2.3.7.9"
        need(False, f"the address is {wanted.hex(':')}, not {found.hex(':')}: {reason}", subject, section)
