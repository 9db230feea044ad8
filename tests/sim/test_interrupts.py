"""The model's interrupts: causes, masks, messages, throttling; what a driver reads and what reaches the processor."""

from __future__ import annotations

import time

import numpy as np
import pytest

import ixy
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.card.interrupts import LINK_CHANGE, Interrupts
from ixy.sim.machine import Machine


class Recorder:
    """A PCI function that keeps what it is told."""

    def __init__(self, msix_enabled: bool) -> None:
        self.msix_enabled = msix_enabled
        self.signals: list[int] = []
        self.asserted = False

    def signal(self, vector: int) -> None:
        self.signals.append(vector)

    def set_line(self, asserted: bool) -> None:
        self.asserted = asserted


class Card:
    """A card's interrupt logic: registers, and queues that have something to say."""

    def __init__(self, *, msix: bool = True) -> None:
        self.registers = np.zeros(reg.BAR0_SIZE // 4, np.uint32)
        self.done = np.zeros(2 * reg.QUEUES, np.uint8)
        self.interrupts = Interrupts(self.registers, self.done)
        self.sink = self.interrupts.sink = Recorder(msix)
        self.reads, self.writes = self.interrupts.rules()

    def read(self, register: Register) -> int:
        return self.reads[register.offset]()

    def write(self, register: Register, value: int) -> None:
        rule = self.writes.get(register.offset)
        if rule:
            rule(value)
        else:
            self.registers[register.offset // 4] = value

    def finish(self, queue: int, *, sends: bool = False) -> None:
        """A queue has received or sent something."""
        self.done[queue + reg.QUEUES * sends] = 1
        self.interrupts.collect()


@pytest.fixture
def card() -> Card:
    """Receive queue 0 has vector 5, transmit queue 3 vector 9, the link vector 1; as Linux sets it, but no throttle."""
    card = Card()
    card.write(reg.IVAR[0], reg.IVAR.value(RX_EVEN=0x85))
    card.write(reg.IVAR[1], reg.IVAR.value(TX_ODD=0x89))
    card.write(reg.IVAR_MISC, reg.IVAR_MISC.value(OTHER=0x81))
    card.write(reg.GPIE, reg.GPIE.value(MULTIPLE_MSIX=1, EIAME=1))
    card.write(reg.EIAC, 0xFFFF)
    card.write(reg.EIAM_EX[0], 0xFFFFFFFF)
    return card


def test_a_queue_signals_its_vector(card: Card) -> None:
    """Each queue has its own entry; one whose entry is not valid says nothing."""
    card.write(reg.EIMS_EX[0], 0xFFFFFFFF)
    card.finish(0)
    card.finish(3, sends=True)
    card.finish(1)
    assert card.sink.signals == [5, 9]


def test_a_message_clears_its_cause_and_masks_itself(card: Card) -> None:
    """With EIAC and EIAM_EX there is one message until software unmasks the vector, and then one if there was more."""
    card.write(reg.EIMS_EX[0], 1 << 5)
    card.finish(0)
    assert card.read(reg.EICS) == 0
    assert card.read(reg.EIMS) == 0
    card.finish(0)
    card.finish(0)
    assert card.sink.signals == [5]
    assert card.read(reg.EICS) == 1 << 5
    card.write(reg.EIMS_EX[0], 1 << 5)
    assert card.sink.signals == [5, 5]


def test_a_masked_cause_waits(card: Card) -> None:
    """What comes while a vector is masked is sent when the mask goes; the other half of the vectors works alike."""
    card.write(reg.IVAR[0], reg.IVAR.value(RX_EVEN=0x80 | 40))
    card.finish(0)
    assert card.sink.signals == []
    card.write(reg.EIMS_EX[1], 1 << 8)
    assert card.sink.signals == [40]
    assert card.read(reg.EIMS_EX[1]) == 1 << 8


def test_a_link_change_is_told_once_and_stays_until_cleared(card: Card) -> None:
    """LSC is no cause that clears itself: software writes it back to EICR."""
    card.write(reg.EIMS, LINK_CHANGE)
    card.interrupts.link_changed()
    card.interrupts.link_changed()
    assert card.sink.signals == [1]
    assert card.read(reg.EICS) == LINK_CHANGE
    card.write(reg.EICR, LINK_CHANGE)
    assert card.read(reg.EICS) == 0
    card.interrupts.link_changed()
    assert card.sink.signals == [1, 1]


def test_software_raises_causes(card: Card) -> None:
    """EICS and EICS_EX, which drivers use to try interrupts and to wake a queue."""
    card.write(reg.EIMS_EX[0], 1 << 5 | 1 << 20)
    card.write(reg.EICS, 1 << 5)
    card.write(reg.EICS_EX[0], 1 << 20)
    assert card.sink.signals == [5, 20]


def test_throttling_delays_the_second_message(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """EITR holds 50 units of 2 µs: the second message comes when 100 µs have gone by, and the wait is told."""
    now = 1_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    card.write(reg.EITR[5], reg.EITR.value(INTERVAL=50))
    card.write(reg.EIAM_EX[0], 0)
    card.write(reg.EIMS_EX[0], 1 << 5)
    card.finish(0)
    now += 40_000
    card.finish(0)
    assert card.sink.signals == [5]
    assert card.interrupts.update() == pytest.approx(60e-6)
    now += 60_000
    assert card.interrupts.update() is None
    assert card.sink.signals == [5, 5]


def test_without_msix_the_line_follows_the_causes() -> None:
    """Reading EICR clears the causes, masks what EIAM says, and the line goes."""
    card = Card(msix=False)
    card.write(reg.IVAR[0], reg.IVAR.value(RX_EVEN=0x80))
    card.write(reg.EIAM, 1)
    card.write(reg.EIMS, 1 | LINK_CHANGE)
    card.finish(0)
    assert card.sink.asserted
    assert card.read(reg.EICR) == 1
    assert not card.sink.asserted
    assert card.read(reg.EIMS) == LINK_CHANGE
    card.finish(0)
    assert not card.sink.asserted
    card.write(reg.EIMS, 1)
    assert card.sink.asserted
    card.write(reg.EIMC, 1)
    assert not card.sink.asserted


def test_a_reset_forgets_all(card: Card) -> None:
    card.write(reg.EIMS, 0xFFFF)
    card.finish(1)
    card.finish(0)
    card.interrupts.reset()
    assert card.read(reg.EIMS) == 0
    assert card.read(reg.EICR) == 0


def test_what_nobody_was_told_of_is_forgotten_when_nobody_is_to_be_told() -> None:
    """Packets that come while all vectors are masked are told of when one is unmasked. If there is nobody any more,
    the card has nothing to say, and no memory to say it in: its wire is unplugged."""
    machine = Machine(stepped=True)
    with ixy.open("sim:a,gen=60", sim=machine) as device:
        device.rx[0].fileno()  # switches interrupts on
        card = machine.cards["a"]
        card.write32(reg.EIMC_EX[0].offset, 0xFFFFFFFF)
        machine.step(10)
        assert machine.rack.cards[card.index, state.RAISED] == 1
        card.interrupt_no_more()
        assert machine.rack.cards[card.index, state.RAISED] == 0
        machine.step(10)
        assert machine.rack.cards[card.index, state.RAISED] == 0
