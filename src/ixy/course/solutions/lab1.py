"""Lab 1: find the card. The page is lab1.md."""

from ixy.course import Bus

# PCI Local Bus 3.0, 6.1: the configuration space
VENDOR = 0x00  # 2 bytes
DEVICE = 0x02  # 2 bytes
COMMAND = 0x04  # 2 bytes
MEMORY_SPACE = 1 << 1  # of COMMAND: the device shows its registers
BUS_MASTER = 1 << 2  # of COMMAND: the device may use the bus by itself

INTEL = 0x8086
DEVICE_82599 = 0x10FB

YOURS = ("find_cards", "enable")


def find_cards(bus: Bus) -> list[str]:
    """Where on the bus there is an 82599, in the order of `bus.slots()`."""
    found: list[str] = []
    for where in bus.slots():
        vendor = bus.config_read(where, VENDOR, 2)
        device = bus.config_read(where, DEVICE, 2)
        if vendor == INTEL and device == DEVICE_82599:
            found.append(where)
    return found


def enable(bus: Bus, where: str) -> None:
    """Let the device show its registers and use the bus. All other bits of COMMAND stay as they are."""
    command = bus.config_read(where, COMMAND, 2)
    bus.config_write(where, COMMAND, 2, command | MEMORY_SPACE | BUS_MASTER)
