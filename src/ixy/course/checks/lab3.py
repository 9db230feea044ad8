"""The check of lab 3: reset, and the EEPROM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.course.checks.common import note_steps
from ixy.course.trials import EAGER, Labs, need, trial
from ixy.registers import i82599 as reg
from ixy.sim.card import config

if TYPE_CHECKING:
    from ixy.course import Bar
    from ixy.course.bench import Bench

_CHECKED_WORDS, _SUM = 0x40, 0xBABA  # 6.3.2


def _bar(bench: Bench) -> Bar:
    """The registers of a card that another driver has left behind."""
    (where,) = bench.bus.cards
    bench.bus.config_write(where, config.COMMAND, 2, config.COMMAND_MEMORY | config.COMMAND_BUS_MASTER)
    card = bench.ports[0].card
    card.write32(reg.EIMS.offset, 0xFFFF)
    card.write32(reg.FCTRL.offset, reg.FCTRL.value(UPE=1))
    card.read32(reg.EICR.offset)
    place = card.config_read(0x14, 4) << 32 | card.config_read(0x10, 4) & ~0xF
    return bench.bus.map(place, config.BAR_SIZES[config.REGISTERS_BAR])


@trial(EAGER)
def resets(labs: Labs, bench: Bench) -> None:
    """reset stops the card, resets it, and waits until that is over."""
    bar = _bar(bench)
    labs.lab3.reset(bar)
    bar.read32(reg.EEC.offset)  # comes too early if nobody has waited
    wanted = reg.CTRL.mask("RST", "LRST")
    written = [value for verb, _, offset, value in bench.log if (verb, offset) == ("write", reg.CTRL.offset)]
    need(
        any(value & wanted for value in written), "the card is not reset: set CTRL.RST and CTRL.LRST", "CTRL", "4.6.3.2"
    )
    need(wanted in [value & wanted for value in written], "set both RST and LRST: device and link", "CTRL", "4.6.3.2")
    note_steps(
        bench,
        "interrupts disabled before the reset",
        "DMA stopped before the reset",
        "interrupts disabled after the reset",
    )
    _note_impatience(bench)


def _note_impatience(bench: Bench) -> None:
    """Between the master disable and the reset, STATUS is to be looked at; after the reset, CTRL."""
    disable, resets = reg.CTRL.mask("PCIE_MASTER_DISABLE"), reg.CTRL.mask("RST", "LRST")
    disabled = resetting = False
    for verb, _, offset, value in bench.log:
        at_ctrl = offset == reg.CTRL.offset
        if resetting and verb == "write":
            bench.note(
                "after the reset read CTRL until RST and LRST are 0, before you write any register",
                "CTRL",
                "4.6.3.2",
                placed=False,
            )
        if verb == "write" and at_ctrl and value & resets and disabled:
            bench.note(
                "after CTRL.PCIE_MASTER_DISABLE wait until STATUS.PCIE_MASTER_ENABLE is 0 before the reset: requests "
                "may be on the bus",
                "STATUS",
                "5.2.5.3.2",
                placed=False,
            )
        if at_ctrl:
            resetting = bool(value & resets)
            disabled = bool(value & disable) if verb == "write" else disabled
        if verb == "read" and offset == reg.STATUS.offset and not value & reg.STATUS.mask("PCIE_MASTER_ENABLE"):
            disabled = False


@trial(EAGER)
def waits(labs: Labs, bench: Bench) -> None:
    """wait_until_ready waits for EEPROM and DMA engine."""
    bar = _bar(bench)
    labs.lab3.reset(bar)
    labs.lab3.wait_until_ready(bar)
    note_steps(bench, "EEPROM auto-read done", "DMA initialisation done")


@trial(EAGER)
def reads_eeprom(labs: Labs, bench: Bench) -> None:
    """read_eeprom gives each word, when it has been read."""
    bar = _bar(bench)
    labs.lab3.reset(bar)
    labs.lab3.wait_until_ready(bar)
    mac = bench.ports[0].card.mac
    for word in range(3):
        found = labs.lab3.read_eeprom(bar, word)
        need(isinstance(found, int), f"read_eeprom gives {found!r}, and not a number", "EERD", "8.2.3.2.2")
        wanted = int.from_bytes(mac[2 * word : 2 * word + 2], "little")
        waited = any(
            verb == "read" and offset == reg.EERD.offset and value & reg.EERD.mask("DONE")
            for verb, _, offset, value in bench.log
        )
        reason = "address from bit 2 on, START in bit 0, data from bit 16 on" if waited else "wait for EERD.DONE"
        need(found == wanted, f"word {word} is {wanted:#06x}, not {found:#06x}: {reason}", "EERD", "8.2.3.2.2")
    words = [labs.lab3.read_eeprom(bar, word) for word in range(_CHECKED_WORDS)]
    need(
        sum(words) & 0xFFFF == _SUM,
        f"words 0 to 0x3f add up to {sum(words) & 0xFFFF:#06x} and not to {_SUM:#06x}: wait for EERD.DONE each time",
        "EERD",
        "8.2.3.2.2",
    )
