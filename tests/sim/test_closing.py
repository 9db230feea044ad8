"""Opening or closing a card that is interrupted, or does not obey: memory stays as long as the card may write there,
and in the end nothing is left.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any
from unittest.mock import Mock

import pytest
from lab import memory_files
from mdio import FakePhy
from recorded import RecordedCard, no_pauses

from ixy.drivers.ixgbe import Ixgbe
from ixy.errors import Error
from ixy.packets.dma import DmaMemory
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

SFP, T3, X540 = 0x10FB, 0x151C, 0x1528
ALIKE = range(reg.FTQF[1].offset, reg.FTQF[127].offset)  # a table: what happens at one of its registers happens at all


class Watched(RecordedCard):
    """A card that keeps whether it was bus master whenever it lost memory, and that can be interrupted.

    Attributes:
        left: accesses until one is interrupted, as by Ctrl-C, and no later one; none while negative.
    """

    def __init__(self, machine: Machine, device_id: int = SFP) -> None:
        super().__init__(machine, device_id)
        FakePhy(self)
        self.was_master: list[bool] = []
        self.left = -1
        self.before = self._count

    def _count(self, offset: int) -> None:
        self.left -= offset not in ALIKE
        if self.left == -1 and offset not in ALIKE:
            raise KeyboardInterrupt

    def unmap(self, memory: DmaMemory) -> None:
        self.was_master.append(self.bus_master)
        super().unmap(memory)

    def check_gone(self, mapped: int) -> None:
        """It lost as much memory as it had, each piece when it was no bus master any more, and was closed once."""
        assert self.was_master == [False] * mapped
        assert not self.bus_master
        assert not self.machine.rack.allowed.any()
        assert [access.kind for access in self.log].count("close") == 1
        assert self.log[-1].kind == "close"


def open_quickly(card: Watched) -> Ixgbe:
    return Ixgbe(card, rx_queues=2, tx_queues=2, ring_size=64, pool_size=96)


@pytest.mark.once
@pytest.mark.parametrize("device_id", [SFP, T3], ids=["SFP", "T3"])
def test_opening_that_is_interrupted_leaves_nothing(machine: Machine, device_id: int) -> None:
    """At each access to the card in turn: pools, rings and files are gone, and the card is silent and free."""
    files = memory_files()
    for accesses in range(10_000):
        card = Watched(machine, device_id)
        card.left = accesses
        with no_pauses(card):
            try:
                driver = open_quickly(card)
            except KeyboardInterrupt:
                card.check_gone([access.kind for access in card.log].count("map"))
                assert memory_files() == files
                continue
            card.left = -1
            driver.close()
            break
    assert accesses > 150  # so many were interrupted, and then one was not
    card.check_gone(3)


@pytest.mark.parametrize("device_id", [SFP, X540], ids=["SFP", "X540"])
def test_closing_that_is_interrupted_goes_on(machine: Machine, device_id: int) -> None:
    """At each access to the card in turn: no memory goes back to a bus master, and a second call ends it."""
    files = memory_files()
    for accesses in range(10_000):
        card = Watched(machine, device_id)
        with no_pauses(card):
            driver = open_quickly(card)
            card.left = accesses
            try:
                driver.close()
                break
            except KeyboardInterrupt:
                assert not any(card.was_master)
            driver.close()
        card.check_gone(3)
        assert memory_files() == files
    assert accesses >= 30
    card.check_gone(3)


def interrupted_after(steps: int, codes: set[CodeType]) -> Callable[..., Any]:
    """A trace function that interrupts the code objects `codes` after so many instructions, as a signal can."""
    left = steps

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    return trace


def test_closing_that_is_interrupted_anywhere(machine: Machine) -> None:
    """At each instruction of what decides that memory may go back: as above."""
    codes = {function.__code__ for function in (Ixgbe.close, Ixgbe._silence)}
    gc.collect()  # another test's device, closed by the collector, would be interrupted instead
    files = memory_files()
    for steps in range(10_000):
        card = Watched(machine)
        with no_pauses(card):
            driver = open_quickly(card)
            before = sys.gettrace()
            gc.disable()
            sys.settrace(interrupted_after(steps, codes))
            try:
                driver.close()
                break
            except KeyboardInterrupt:
                assert not any(card.was_master)
            finally:
                sys.settrace(before)
                gc.enable()
            driver.close()
        card.check_gone(3)
        assert memory_files() == files
    assert steps > 40


def test_memory_stays_where_bus_mastering_does(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bus mastering cannot be turned off: the card keeps its memory, for it may write there, until it can."""
    card = Watched(machine)
    driver = open_quickly(card)
    with monkeypatch.context() as patch:
        patch.setattr(card, "config_write", Mock(side_effect=Error("sim:a: gone")))
        with pytest.raises(Error, match="gone"):
            driver.close()
    assert card.was_master == []
    assert machine.rack.allowed.any()
    driver.close()
    card.check_gone(3)


def test_closing_twice_touches_nothing(machine: Machine) -> None:
    """A second call does nothing: another process may have the card by then."""
    card = Watched(machine)
    driver = open_quickly(card)
    driver.close()
    done = len(card.log)
    driver.close()
    assert len(card.log) == done


def test_closed_driver_refuses(machine: Machine) -> None:
    """Registers and memory are out of reach for whoever still has the driver."""
    card = Watched(machine)
    driver = open_quickly(card)
    driver.close()
    done = len(card.log)
    uses = [
        driver.mac,
        driver.link,
        driver.counters,
        driver.sent,
        lambda: driver.set_mac(bytes(6)),
        lambda: driver.set_mac_filter([]),
        lambda: driver.set_promiscuous(True),
        lambda: driver.set_vlan_filter(1, True),
        lambda: driver.wait_for_link(0),
        lambda: driver.attach(Mock()),
    ]
    for use in uses:
        with pytest.raises(Error, match=r"^sim:a is closed$"):
            use()
    assert len(card.log) == done
