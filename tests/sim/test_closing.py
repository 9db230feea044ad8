"""Closing a card that is interrupted meanwhile, or does not obey: memory stays as long as the card may write there."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from ixy.bus import Bar
from ixy.bus.simulated import SimulatedFunction
from ixy.drivers.ixgbe.device import Ixgbe
from ixy.errors import Error
from ixy.packets.dma import DmaMemory
from ixy.sim.machine import Machine


class InterruptedBar:
    """A card's registers; one access to them is interrupted once, as by a second Ctrl-C."""

    def __init__(self, bar: Bar) -> None:
        self.words = bar.words
        self._bar = bar
        self.left = -1  # accesses until then; none while negative

    def _count(self) -> None:
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt

    def read32(self, offset: int) -> int:
        self._count()
        return self._bar.read32(offset)

    def write32(self, offset: int, value: int) -> None:
        self._count()
        self._bar.write32(offset, value)


class InterruptedFunction(SimulatedFunction):
    """A card whose `InterruptedBar` is at hand; it keeps whether it was bus master whenever it lost memory."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("sim:a", machine)
        self.interrupted = InterruptedBar(super().bar(0))
        self.was_master: list[bool] = []

    def bar(self, index: int) -> Bar:  # noqa: ARG002
        return self.interrupted

    def unmap(self, memory: DmaMemory) -> None:
        self.was_master.append(bool(self.config_read(4, 2) & 1 << 2))
        super().unmap(memory)


def test_memory_stays_with_a_bus_master(machine: Machine) -> None:
    """Closing is interrupted at each access to a register in turn: bus mastering is off before memory goes back."""
    for accesses in range(1000):
        function = InterruptedFunction(machine)
        driver = Ixgbe(function)
        function.interrupted.left = accesses
        try:
            driver.close()
            break
        except KeyboardInterrupt:
            assert function.was_master == [False, False]  # the pool's memory, and the rings'
            assert not machine.rack.allowed.any()
    assert accesses > 10  # so many were interrupted, and then one was not
    assert function.was_master == [False, False]


def test_memory_stays_where_bus_mastering_does(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bus mastering cannot be turned off: the card keeps its memory, for it may write there, until it can."""
    function = InterruptedFunction(machine)
    driver = Ixgbe(function)
    with monkeypatch.context() as patch:
        patch.setattr(function, "config_write", Mock(side_effect=Error("sim:a: gone")))
        with pytest.raises(Error, match="gone"):
            driver.close()
    assert function.was_master == []
    assert machine.rack.allowed.any()
    driver.close()
    assert function.was_master == [False, False]
    assert not machine.rack.allowed.any()
