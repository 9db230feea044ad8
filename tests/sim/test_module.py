"""The SFP+ module, read bit by bit as drivers do."""

from __future__ import annotations

import pytest

from ixy.sim.card.module import Module, build_module


class Master:
    """The bus's master: it drives clock and data, and looks at the data line while the clock is high."""

    def __init__(self) -> None:
        self.module = Module()

    def start(self) -> None:
        for clock, data in ((0, 1), (1, 1), (1, 0), (0, 0)):
            self.module.drive(clock, data)

    def stop(self) -> None:
        for clock, data in ((0, 0), (1, 0), (1, 1)):
            self.module.drive(clock, data)

    def bit(self, data: int) -> int:
        """One clock; what is on the line."""
        self.module.drive(0, data)
        self.module.drive(1, data)
        seen = self.module.data
        self.module.drive(0, data)
        return seen

    def send(self, byte: int) -> bool:
        """Send a byte; whether it was acknowledged."""
        for i in range(8):
            self.bit(byte >> 7 - i & 1)
        return self.bit(1) == 0

    def receive(self, *, more: bool) -> int:
        byte = 0
        for _ in range(8):
            byte = byte << 1 | self.bit(1)
        self.bit(0 if more else 1)
        return byte


@pytest.mark.parametrize("offset", [0, 3, 20, 255])
def test_a_byte_is_read(offset: int) -> None:
    """Address and offset, a new start, then the byte, which the master does not acknowledge."""
    master = Master()
    master.start()
    assert master.send(0xA0)
    assert master.send(offset)
    master.start()
    assert master.send(0xA1)
    assert master.receive(more=False) == build_module()[offset]
    master.stop()
    assert master.module.data == 1


def test_bytes_are_read_in_a_row_and_the_offset_wraps() -> None:
    master = Master()
    master.start()
    assert master.send(0xA0)
    assert master.send(250)
    master.start()
    assert master.send(0xA1)
    expected = build_module()[250:] + build_module()[:4]
    assert bytes(master.receive(more=i < 9) for i in range(10)) == expected


def test_other_addresses_are_not_answered() -> None:
    """A module without a diagnostic page has nothing at 0xA2; after the next start it listens again."""
    master = Master()
    master.start()
    assert not master.send(0xA2)
    assert not master.send(0x00)
    master.start()
    assert master.send(0xA0)


def test_what_is_written_is_lost() -> None:
    master = Master()
    master.start()
    for byte in (0xA0, 0, 0x55):
        assert master.send(byte)
    master.stop()
    master.start()
    master.send(0xA0)
    master.send(0)
    master.start()
    master.send(0xA1)
    assert master.receive(more=False) == 3


def test_the_checksums_are_right() -> None:
    """SFF-8472: byte 63 is the sum of those before, byte 95 of those from 64 on."""
    memory = build_module()
    assert sum(memory[:63]) & 0xFF == memory[63]
    assert sum(memory[64:95]) & 0xFF == memory[95]
