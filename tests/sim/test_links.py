"""A link is up while somebody is at the other end, and a card tells its driver when that changes."""

from __future__ import annotations

import gc
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import open_card, until

import ixy
from ixy.bus.simulated import SimulatedFunction
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

TAP = f"ixylink{os.getpid() % 100_000}"
needs_tap = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="needs root and /dev/net/tun"
)


def changed(machine: Machine, name: str) -> bool:
    """Whether a card's link has changed since the last look: the cause LSC, bit 20 of EICR, which reading clears."""
    return bool(machine.cards[name].read32(reg.EICR.offset) & 1 << 20)


def set_interface(state: str) -> None:
    subprocess.run(["ip", "link", "set", TAP, state], check=True)


def test_a_cable_to_nobody(machine: Machine) -> None:
    """Down until a card of that name is opened, and again when it is closed; the other card is told each time."""
    with open_card(machine, "sim:a,cable=nobody") as a:
        changed(machine, "a")
        for _ in range(2):
            assert a.link == (False, 0)
            assert not changed(machine, "a")
            with open_card(machine, "sim:nobody") as other:
                assert a.link == other.link == (True, 10_000)
                assert changed(machine, "a")
                assert not changed(machine, "a")
            assert changed(machine, "a")
    assert not machine.cards


def test_each_end_of_a_cable_can_go(machine: Machine) -> None:
    """Whichever has named it."""
    b = open_card(machine, "sim:b")
    with open_card(machine, "sim:a,cable=b"):
        assert b.link.up
    assert not b.link.up
    with open_card(machine, "sim:a") as a:
        assert a.link.up
        assert b.link.up
        b.close()
        assert not a.link.up


@pytest.mark.parametrize("wire", ["gen=60", "tx_pcap=/dev/null", "gen=60,tx_pcap=/dev/null", "sink=g"])
def test_what_always_is_there(machine: Machine, wire: str) -> None:
    with open_card(machine, "sim:g,gen=60"), open_card(machine, f"sim:a,{wire}") as device:
        assert device.link.up


def test_a_card_that_could_not_be_opened_is_nobody(machine: Machine) -> None:
    with open_card(machine, "sim:a,cable=b") as a:
        with pytest.raises(ixy.Error, match="a cable is plugged in already"):
            open_card(machine, "sim:b,gen=60")
        assert not a.link.up


@needs_tap
def test_an_interface_that_goes_down(machine: Machine) -> None:
    with open_card(machine, f"sim:a,tap={TAP}") as device:
        machine.step()
        assert device.link.up
        for _ in range(2):
            changed(machine, "a")
            set_interface("down")
            machine.step()
            assert not device.link.up
            assert changed(machine, "a")
            set_interface("up")
            machine.step()
            assert device.link.up
            assert changed(machine, "a")
        machine.step()
        assert not changed(machine, "a")


@needs_tap
@pytest.mark.parametrize("waits", [False, True])
def test_an_interface_of_running_cards(waits: bool) -> None:
    """Nobody asks, and no frame is sent; the cards' thread runs, or sleeps as somebody waits for a packet."""
    machine = Machine()
    with ixy.open(f"sim:a,tap={TAP}", sim=machine) as device:
        if waits:
            device.rx[0].wait(0)
        set_interface("down")
        until(lambda: not device.link.up)
        set_interface("up")
        until(lambda: device.link.up)


class Recorder:
    """A PCI function that keeps what its card sends."""

    msix_enabled = True

    def __init__(self) -> None:
        self.vectors: list[int] = []

    def signal(self, vector: int) -> None:
        self.vectors.append(vector)

    def set_line(self, asserted: bool) -> None:
        raise AssertionError(asserted)


def test_who_serves_a_virtual_machine_sends_the_interrupt(machine: Machine) -> None:
    """The thread that finds out only rouses the one that speaks to QEMU."""
    sink, event = Recorder(), os.eventfd(0, os.EFD_NONBLOCK)
    card = machine.plug_in("sim:a,cable=b")
    card.interrupt_through(sink, event)
    card.write32(reg.IVAR_MISC.offset, reg.IVAR_MISC.value(OTHER=0x85))
    card.write32(reg.EIMS.offset, 1 << 20)
    other = machine.plug_in("sim:b")
    assert sink.vectors == []
    assert os.eventfd_read(event) == 1
    card.interrupts.collect()
    assert sink.vectors == [5]
    for plugged in (card, other):
        machine.unplug(plugged)
    os.close(event)


def test_two_cards_at_once(machine: Machine) -> None:
    """Whoever looks last knows of both."""
    with ThreadPoolExecutor(1) as threads:
        with machine._seeing:  # as the other thread has it
            opening = threads.submit(machine.plug_in, "sim:b")
            until(lambda: "b" in machine.cards)
            time.sleep(0.05)
            a = machine.plug_in("sim:a,cable=b")
        b = opening.result()
    assert (a.linked, b.linked) == (True, True)
    for plugged in (a, b):
        machine.unplug(plugged)


def test_a_card_that_was_closed_is_not_closed_again(machine: Machine) -> None:
    """Its first owner is collected when the second one has it: the card is the cable's all the time."""
    with open_card(machine, "sim:a,cable=b") as a:
        first = SimulatedFunction("sim:b", machine)
        first.close()
        second = SimulatedFunction("sim:b", machine)
        first.close()
        del first
        gc.collect()
        assert a.link.up
        second.close()
        assert not a.link.up
