"""Which of the card's registers make up which statistic (8.2.3.23 of the Intel 82599 datasheet, revision 3.3)."""

from __future__ import annotations

import pytest
from lab import open_card

from ixy.drivers import DeviceCounters
from ixy.registers import Register
from ixy.sim.machine import Machine

# Offsets of the registers: good packets and bytes, missed packets of eight buffers, drops of queues, and errors: CRC,
# illegal bytes, bytes, length, undersize, fragments, oversize, jabber
GPRC, GPTC, GORCL, GORCH, GOTCL, GOTCH = 0x4074, 0x4080, 0x4088, 0x408C, 0x4090, 0x4094
MISSED = [0x3FA0 + 4 * n for n in range(8)]
DROPPED = 0x1430
ERRORS = [0x4000, 0x4004, 0x4008, 0x4040, 0x40A4, 0x40A8, 0x40AC, 0x40B0]


def test_counters_are_sums_of_registers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each register has counted a number of its own, twice, of which no two make up a third."""
    with open_card(machine) as device:
        numbers = {offset: 1 << place for place, offset in enumerate([*MISSED, DROPPED, *ERRORS, GPRC, GPTC])}
        numbers[DROPPED] = 3  # together with the first two that were missed
        numbers |= {GORCL: 0x12345678, GORCH: 0x9, GOTCL: 0x87654321, GOTCH: 0xA}
        read: list[int] = []

        def counted(register: Register) -> int:
            read.append(register.offset)
            return numbers[register.offset]

        monkeypatch.setattr(device._driver._registers, "read", counted)
        for turn in (1, 2):
            assert device._driver.counters() == DeviceCounters(
                rx_packets=turn * (1 << 17),
                rx_bytes=turn * (0x9_12345678 + 4 * (1 << 17)),  # and check sequences
                tx_packets=turn * (1 << 18),
                tx_bytes=turn * 0xA_87654321,
                rx_dropped=turn * (0xFF + 3),
                rx_errors=turn * 0x1FE00,
            )
        assert sorted(read) == sorted([*numbers, *numbers])
        monkeypatch.undo()


def test_counters_begin_at_nothing() -> None:
    """What a driver does not count is 0, such as packets that a VirtIO device drops."""
    assert DeviceCounters() == (0, 0, 0, 0, 0, 0)
