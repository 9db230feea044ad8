"""The rules for drivers: our driver breaks none, and is told of each fault; it fails by those that are punished.

A fault is put between driver and card: a write to a register that comes otherwise or not at all, or a descriptor that
is changed before the card fetches it. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from by_hand import Rig
from lab import batch_of, frame, number_of, open_card, receive_all

import ixy
from ixy.bus import Function
from ixy.bus.simulated import SimulatedBar
from ixy.drivers.ixgbe import device as driver
from ixy.errors import DeviceTimeout
from ixy.packets.mempool import Mempool
from ixy.registers import Register, RegisterFile
from ixy.registers import i82599 as reg
from ixy.sim.card import driver_rules as rules
from ixy.sim.card import state, supervision
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

GROUP = 32  # packets; the last asks for a report of status
FIRST = bytes.fromhex("026978790001")
SECOND = bytes.fromhex("026978790002")  # the addresses of cards a and b
EOP, IFCS, RS, DEXT, TSE, DTYP, PAYLEN = 1 << 24, 1 << 25, 1 << 27, 1 << 29, 1 << 31, 3 << 20, 46
HLREG0, CTRL, MASTER_DISABLE = 0x4240, 0x0, 1 << 2
PERFECT_64_KIB = 1 << 4 | 1  # FDIRCTRL: there are no filters yet that could be lost


class Outcome(NamedTuple):
    """What became of GROUP packets in each direction: how many arrived as they were sent, and whether status did."""

    sent: int
    received: int
    reported: bool


GOOD = Outcome(GROUP, GROUP, True)

Write = Callable[[int, int], None]
Writes = Callable[[Card, Write, int, int], None]
Descriptors = Callable[[Card, np.ndarray], None]


class Fault(NamedTuple):
    """What a driver does wrong, and what becomes of its packets then.

    Attributes:
        outcome: None if the card cannot be opened.
        writes: makes its writes to registers in the driver's stead; is handed the card, what writes, offset and value.
        descriptors: once packets are sent, changes the transmit ring, words of shape (n, 2), before the card looks.
        patch: changes the driver itself.
    """

    outcome: Outcome | None
    writes: Writes | None = None
    descriptors: Descriptors | None = None
    patch: Callable[[pytest.MonkeyPatch], None] | None = None


def instead(register: Register, change: Callable[[int], int | None]) -> Writes:
    """Another value is written to a register, or none."""

    def writes(_: Card, write: Write, offset: int, value: int) -> None:
        changed = change(value) if offset == register.offset else value
        if changed is not None:
            write(offset, changed)

    return writes


def after(register: Register, other: Register, value: int) -> Writes:
    """Behind each write to a register comes one to another."""

    def writes(_: Card, write: Write, offset: int, written: int) -> None:
        write(offset, written)
        if offset == register.offset:
            write(other.offset, value)

    return writes


def before(register: Register, bit: int, other: Register, value: int) -> Writes:
    """Before a bit of a register is set comes a write to another."""

    def writes(_: Card, write: Write, offset: int, written: int) -> None:
        if offset == register.offset and written & bit:
            write(other.offset, value)
        write(offset, written)

    return writes


def never(*offsets: int) -> Writes:
    def writes(_: Card, write: Write, offset: int, value: int) -> None:
        if offset not in offsets:
            write(offset, value)

    return writes


def on_slot(slot: int, change: Callable[[int], int]) -> Descriptors:
    """The second word of one descriptor is changed."""

    def descriptors(_: Card, ring: np.ndarray) -> None:
        ring[slot, 1] = np.uint64(change(int(ring[slot, 1])) & (1 << 64) - 1)

    return descriptors


def of_a(thing: driver.Ixgbe | Function) -> bool:
    return thing.address == "sim:a"


def is_quick(patch: pytest.MonkeyPatch) -> None:
    """Between two accesses passes no time, however busy the computer is."""
    patch.setattr(supervision, "monotonic_ns", lambda: 0)


def is_slow(patch: pytest.MonkeyPatch) -> None:
    """Between two accesses passes a second."""
    patch.setattr(supervision, "monotonic_ns", partial(next, count(0, 10**9)))


def waits_for_no_reset(patch: pytest.MonkeyPatch) -> None:
    """No pause after a reset, nor a look whether it is over."""
    wait = RegisterFile.wait

    def impatient(self: RegisterFile, register: Register, timeout: float, **fields: int) -> None:
        if register is not reg.CTRL or self.owner != "sim:a":
            wait(self, register, timeout, **fields)

    patch.setattr(RegisterFile, "wait", impatient)
    patch.setattr(driver, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    is_quick(patch)


def waits_for_no_queue(patch: pytest.MonkeyPatch) -> None:
    """ENABLE is set, and not read back."""
    wait = RegisterFile.wait

    def impatient(self: RegisterFile, register: Register, timeout: float, **fields: int) -> None:
        if register is not reg.RXDCTL[0] or self.owner != "sim:a":
            wait(self, register, timeout, **fields)

    patch.setattr(RegisterFile, "wait", impatient)


def bumps_at_once(patch: pytest.MonkeyPatch) -> None:
    waits_for_no_queue(patch)
    is_quick(patch)


def bumps_by_luck(patch: pytest.MonkeyPatch) -> None:
    waits_for_no_queue(patch)
    is_slow(patch)


def masters_nothing(patch: pytest.MonkeyPatch) -> None:
    set_bus_master = driver.set_bus_master
    patch.setattr(driver, "set_bus_master", lambda function, on: set_bus_master(function, on and not of_a(function)))


def starts_no_transmit(patch: pytest.MonkeyPatch) -> None:
    enable = driver.Ixgbe._enable
    patch.setattr(
        driver.Ixgbe,
        "_enable",
        lambda self, controls, queues: enable(self, controls, 0 if of_a(self) and controls is reg.TXDCTL else queues),
    )


def starts_transmit(card: Card, _: np.ndarray) -> None:
    """DMATXCTL.TE enables the first queue, too (8.2.3.9.10)."""
    card.write32(reg.DMATXCTL.offset, 1)


def pointer(_: Card, ring: np.ndarray) -> None:
    ring[0, 0] = 0x7F12_3456_7000


def bumps_beyond(card: Card, ring: np.ndarray) -> None:
    card.write32(reg.TDT[0].offset, len(ring))


ENABLE = 1 << 25
NOTHING_SENT, NOTHING_RECEIVED = Outcome(0, GROUP, False), Outcome(GROUP, 0, True)
NOTHING = Outcome(0, 0, False)
FAULTS = {
    "early-access": Fault(None, patch=waits_for_no_reset),
    "rx-ring-base": Fault(NOTHING_RECEIVED, instead(reg.RDBAL[0], lambda value: value + 64)),
    "rx-ring-length": Fault(NOTHING_RECEIVED, instead(reg.RDLEN[0], lambda value: value + 16)),
    "rx-buffer-size": Fault(NOTHING_RECEIVED, instead(reg.SRRCTL[0], lambda value: value & ~0x1F)),
    "rx-tail-early": Fault(NOTHING_RECEIVED, patch=bumps_at_once),
    "rx-head": Fault(NOTHING_RECEIVED, after(reg.RXCTRL, reg.RDH[0], 5)),
    "rx-packet-buffer": Fault(NOTHING_RECEIVED, instead(reg.RXPBSIZE[0], lambda _: 0)),
    "flow-table-room": Fault(GOOD, after(reg.RXCTRL, reg.FDIRCTRL, PERFECT_64_KIB)),
    "no-snoop": Fault(NOTHING_RECEIVED, never(reg.CTRL_EXT.offset, reg.DCA_RXCTRL[0].offset)),
    "rx-tail-beyond": Fault(NOTHING_RECEIVED, instead(reg.RDT[0], lambda value: value and value + 1)),
    "tx-ring-base": Fault(NOTHING_SENT, instead(reg.TDBAL[0], lambda value: value + 64)),
    "tx-ring-length": Fault(NOTHING_SENT, instead(reg.TDLEN[0], lambda value: value + 16)),
    "tx-tail-early": Fault(NOTHING_SENT, never(reg.DMATXCTL.offset), starts_transmit, starts_no_transmit),
    "tx-head": Fault(NOTHING_SENT, after(reg.RXCTRL, reg.TDH[0], 5)),
    "tx-disabled": Fault(NOTHING_SENT, instead(reg.DMATXCTL, lambda value: value & ~1)),
    "tx-packet-buffer": Fault(NOTHING_SENT, instead(reg.TXPBSIZE[0], lambda _: 0)),
    "tx-requests": Fault(NOTHING_SENT, instead(reg.DTXMXSZRQ, lambda _: 0)),
    "tx-tail-beyond": Fault(NOTHING_SENT, descriptors=bumps_beyond),
    "payload-length": Fault(Outcome(2, GROUP, False), descriptors=on_slot(2, lambda word: word & (1 << PAYLEN) - 1)),
    "descriptor-extension": Fault(Outcome(2, GROUP, False), descriptors=on_slot(2, lambda word: word & ~DEXT)),
    "descriptor-type": Fault(Outcome(2, GROUP, False), descriptors=on_slot(2, lambda word: word & ~DTYP)),
    "segmentation": Fault(Outcome(2, GROUP, False), descriptors=on_slot(2, lambda word: word | TSE)),
    "report-without-end": Fault(Outcome(GROUP - 1, GROUP, False), descriptors=on_slot(31, lambda word: word & ~EOP)),
    "no-check-sequence": Fault(Outcome(GROUP - 1, GROUP, True), descriptors=on_slot(2, lambda word: word & ~IFCS)),
    "check-sequence-off": Fault(Outcome(0, GROUP, True), instead(reg.HLREG0, lambda value: value & ~1)),
    "padding-off": Fault(Outcome(GROUP // 2, GROUP, True), instead(reg.HLREG0, lambda value: value & ~(1 << 10))),
    "dma-refused": Fault(Outcome(GROUP - 1, GROUP, True), descriptors=pointer),
    "master-disabled": Fault(NOTHING, before(reg.RXDCTL[0], ENABLE, reg.CTRL, MASTER_DISABLE)),
    "not-bus-master": Fault(NOTHING, patch=masters_nothing),
    # Cards bear these.
    "hurried-access": Fault(GOOD, patch=is_quick),
    "receive-path-open": Fault(GOOD, before(reg.RXCTRL, 1, reg.SECRXCTRL, 0)),
    "enable-not-awaited": Fault(GOOD, patch=bumps_by_luck),
    "strip-unequal": Fault(GOOD, instead(reg.RDRXCTL, lambda value: value & ~(1 << 1))),
    "coalescing-defaults": Fault(GOOD, instead(reg.RDRXCTL, lambda value: value & ~(1 << 25))),
    "high-water": Fault(GOOD, instead(reg.FCRTH[0], lambda _: 0)),
    "queue-before-engine": Fault(GOOD, before(reg.DMATXCTL, 1, reg.TXDCTL[0], ENABLE)),
    "arbiter-active": Fault(GOOD, after(reg.RTTDCS, reg.RTTDCS, 0)),
}


# Those of virtual functions: `test_virtual_functions.py`
OF_FUNCTIONS = {
    *("function-disabled", "mailbox-not-taken", "mailbox-during-reset", "pools-unequal", "vlan-check-alone"),
}
OF_CARDS = [rule for rule in rules.RULES if rule.name not in OF_FUNCTIONS]


@pytest.fixture
def pool() -> Iterator[Mempool]:
    with Mempool(256) as pool:
        yield pool


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Puts a fault between the driver of card a and the card."""

    def put(fault: Fault) -> None:
        if fault.patch is not None:
            fault.patch(monkeypatch)
        if fault.writes is None:
            return
        writes, make = fault.writes, SimulatedBar.__init__

        def made(self: SimulatedBar, card: Card, words: np.ndarray) -> None:
            make(self, card, words)
            if card.name == "a":
                self.write32 = lambda offset, value: writes(card, card.write32, offset, value)

        monkeypatch.setattr(SimulatedBar, "__init__", made)

    return put


def exchange(machine: Machine, pool: Mempool, descriptors: Descriptors | None = None) -> Outcome:
    """GROUP packets from card a to b, and as many from b to a; half of them are short."""
    with open_card(machine, "sim:a,cable=b") as a, open_card(machine, "sim:b") as b:
        out = [frame(n, 60 if n % 2 else 40, SECOND) for n in range(GROUP)]
        assert a.tx[0].send(batch_of(pool, out)) == GROUP
        ring = a.tx[0].ring.state.descriptors.view(np.uint64).reshape(-1, 2)
        if descriptors is not None:
            descriptors(machine.cards["a"], ring)
        assert b.tx[0].send(batch_of(pool, [frame(n, 60, FIRST) for n in range(GROUP)])) == GROUP
        machine.step(100)
        reported = bool(ring[GROUP - 1, 1] >> np.uint64(32) & np.uint64(1)) and not ring[GROUP - 1, 1] & np.uint64(RS)
        sent = [data for data in receive_all(b) if data == out[number_of(data)].ljust(60, b"\0")]
        received = [data for data in receive_all(a) if data == frame(number_of(data), 60, FIRST)]
        machine.cards["a"].look()
        return Outcome(len(sent), len(received), reported)


def test_a_driver_that_breaks_no_rule(machine: Machine, pool: Mempool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ixy.sim")
    assert exchange(machine, pool) == GOOD
    assert not [rule.name for rule in rules.RULES if rule.sentence in caplog.text]


@pytest.mark.parametrize("rule", OF_CARDS, ids=lambda rule: rule.name)
def test_each_fault_is_told(
    rule: rules.Rule,
    machine: Machine,
    pool: Mempool,
    faulty: Callable[[Fault], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The packets fare as the rule says, it is counted, with the first place, and told once by its sentence."""
    caplog.set_level(logging.INFO, "ixy.sim")
    fault = FAULTS[rule.name]
    faulty(fault)
    card = machine.card("a")
    if fault.outcome is None:
        with pytest.raises(DeviceTimeout):
            exchange(machine, pool)
    else:
        assert exchange(machine, pool, fault.descriptors) == fault.outcome
    found = card.breaches.collect()
    punished = {name for name, breach in found.items() if breach.rule.punished}
    assert punished == ({rule.name} if rule.punished else set())
    assert found[rule.name].count >= 1
    told = [message for message in caplog.messages if message.startswith(f"sim:a: {rule.sentence}")]
    assert len(told) == 1
    assert found[rule.name].first in told[0]


def test_no_access_is_early_by_a_virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's pauses take no time by it, and how long they take by the system's clock counts for nothing."""
    is_quick(monkeypatch)
    with ixy.open("sim:rules-a,clock=virtual", link_timeout=0):
        assert ixy.sim.report("rules-a").broken == []


def test_a_test_of_registers_is_not_punished(machine: Machine) -> None:
    """As Linux's `ethtool -t` does it: no packet is let in, and what was there before is written back."""
    card = machine.plug_in("sim:a")
    card.write32(reg.RXDCTL.offset, 1 << 25)
    for pattern in (0x5A5A, 0xA5A5, 0, 0xFFFF):
        card.write32(reg.RDT.offset, pattern)
        assert card.read32(reg.RDT.offset) == pattern
        card.write32(reg.RDT.offset, 0)
    card.write32(reg.RXDCTL.offset, 0)
    for register, mask in ((reg.RDBAL[0], 0xFFFFFF80), (reg.RDLEN[0], 0xFFF80)):
        before = card.read32(register.offset)
        card.write32(register.offset, 0x5A5A5A5A)
        assert card.read32(register.offset) == 0x5A5A5A5A & mask
        card.write32(register.offset, before)
    assert not any(breach.rule.punished for breach in card.breaches.collect().values())


def test_a_packet_that_is_too_short_goes_where_others_go() -> None:
    """Looped back, it comes to the card that sent it, which counts it as undersized (8.2.3.23)."""
    rig = Rig()
    try:
        rig.set_up()
        rig.write(HLREG0, rig.read(HLREG0) & ~reg.HLREG0.mask("TXPADEN") | reg.HLREG0.mask("LPBK"))
        rig.post(0, frame(1)[:40])
        rig.write(reg.TDT.offset, 1)
        rig.machine.step()
        assert rig.read(reg.RUC.offset) == 1
    finally:
        rig.close()


def test_each_rule_says_all() -> None:
    """A name of its own, and what is punished has a source; what kernels look for is a rule."""
    assert len(rules.BY_NAME) == len(rules.RULES)
    assert all(bool(rule.source) == rule.punished for rule in rules.RULES)
    assert set(rules.OF_KERNELS) == set(range(state.KERNEL_RULES))
    assert set(rules.OF_KERNELS.values()) <= set(rules.BY_NAME)
