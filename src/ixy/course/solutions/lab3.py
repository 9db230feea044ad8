"""Lab 3: reset, and the EEPROM. The page is lab3.md."""

import time

from lab1 import enable
from lab2 import map_card

from ixy.course import Bar, Bus

CTRL = 0x00000  # 8.2.3.1.1
CTRL_MASTER_DISABLE = 1 << 2
CTRL_LRST = 1 << 3
CTRL_RST = 1 << 26
STATUS = 0x00008  # 8.2.3.1.2
STATUS_MASTER_ENABLE = 1 << 19
EIMC = 0x00888  # 8.2.3.5.4
ALL_INTERRUPTS = 0x7FFFFFFF
EEC = 0x10010  # 8.2.3.2.1
EEC_AUTO_RD = 1 << 9
RDRXCTL = 0x02F00  # 8.2.3.8.8
RDRXCTL_DMAIDONE = 1 << 3
EERD = 0x10014  # 8.2.3.2.2
EERD_START = 1 << 0
EERD_DONE = 1 << 1
EERD_ADDR_SHIFT = 2
EERD_DATA_SHIFT = 16

YOURS = ("reset", "wait_until_ready", "read_eeprom")


def wait_for(bar: Bar, offset: int, mask: int, value: int) -> int:
    """Read a register until its bits `mask` are `value`; all that was read then."""
    deadline = time.monotonic() + 1
    while True:
        read = bar.read32(offset)
        if read & mask == value:
            return read
        if time.monotonic() > deadline:
            raise TimeoutError(f"register {offset:#07x} reads {read:#010x}: bits {mask:#x} never became {value:#x}")


def reset(bar: Bar) -> None:
    """Bring the card into the state that the datasheet describes, whatever it did before."""
    bar.write32(EIMC, ALL_INTERRUPTS)
    bar.write32(CTRL, bar.read32(CTRL) | CTRL_MASTER_DISABLE)
    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)
    bar.write32(CTRL, CTRL_RST | CTRL_LRST)
    time.sleep(0.001)
    wait_for(bar, CTRL, CTRL_RST | CTRL_LRST, 0)
    time.sleep(0.01)
    bar.write32(EIMC, ALL_INTERRUPTS)


def wait_until_ready(bar: Bar) -> None:
    """Wait until the card has read its EEPROM, and until its DMA engine is initialised."""
    wait_for(bar, EEC, EEC_AUTO_RD, EEC_AUTO_RD)
    wait_for(bar, RDRXCTL, RDRXCTL_DMAIDONE, RDRXCTL_DMAIDONE)


def read_eeprom(bar: Bar, word: int) -> int:
    """A word of 16 bits of the EEPROM."""
    bar.write32(EERD, word << EERD_ADDR_SHIFT | EERD_START)
    return wait_for(bar, EERD, EERD_DONE, EERD_DONE) >> EERD_DATA_SHIFT


def open_card(bus: Bus, where: str) -> Bar:
    """The registers of a card that is reset and ready."""
    enable(bus, where)
    bar = map_card(bus, where)
    reset(bar)
    wait_until_ready(bar)
    return bar
