"""Lab 2: map the card and read a register. The page is lab2.md."""

from ixy.course import Bar, Bus

BAR_0 = 0x10  # 4 bytes: the lower half of the address of the registers, and 4 bits that say what kind of BAR it is
BAR_1 = 0x14  # 4 bytes: the upper half
BAR_KIND = 0xF  # the 4 bits

RAL = 0x0A200  # 8.2.3.7.8: the first 4 bytes of receive address 0
RAH = 0x0A204  # 8.2.3.7.9: its last 2 bytes, in the lower half

YOURS = ("bar_address", "bar_size", "mac_address")


def bar_address(bus: Bus, where: str) -> int:
    """Where the registers of a device lie in the memory of the computer: 64 bits."""
    low = bus.config_read(where, BAR_0, 4) & ~BAR_KIND
    high = bus.config_read(where, BAR_1, 4)
    return high << 32 | low


def bar_size(bus: Bus, where: str) -> int:
    """How many bytes there are. What the BAR held before, it holds afterwards."""
    before = bus.config_read(where, BAR_0, 4)
    bus.config_write(where, BAR_0, 4, 0xFFFFFFFF)
    kept = bus.config_read(where, BAR_0, 4) & ~BAR_KIND
    bus.config_write(where, BAR_0, 4, before)
    return (~kept & 0xFFFFFFFF) + 1


def mac_address(bar: Bar) -> bytes:
    """The 6 bytes of the card's own address, in the order in which they go over the wire."""
    low, high = bar.read32(RAL), bar.read32(RAH)
    return low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")


def map_card(bus: Bus, where: str) -> Bar:
    """The registers of a device."""
    return bus.map(bar_address(bus, where), bar_size(bus, where))
