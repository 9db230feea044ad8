"""The control plane from two threads at once: whatever one does in the midst of what another does.

A first call is held up at each of its accesses to the card in turn, while a second thread makes another call. With a
lock the second waits, without one it is done by then, and has seen or left something that is half of each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from lab import OTHER, STATION, arrive, frame
from recorded import RecordedCard

from ixy.drivers.ixgbe import Ixgbe
from ixy.drivers.rules import Rule, make_rule
from ixy.errors import ConfigurationError, Error
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

PATIENCE = 0.02  # seconds after which the second call is taken to wait


class Held(RecordedCard):
    """A card at which a call can be held up."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.before = self._count
        self._left = -1
        self._thread: threading.Thread | None = None

    def _count(self, _: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self._left -= 1
            if self._left == -1 and self._thread is not None:
                self._thread.start()
                self._thread.join(PATIENCE)

    def during(self, first: Callable[[], object], second: Callable[[], object], accesses: int) -> bool:
        """Call `second` before access number `accesses` of `first`; False if there was no such access."""
        self._left = accesses
        self._thread = threading.Thread(target=second)
        try:
            first()
        finally:
            met = self._thread.ident is not None
            if met:
                self._thread.join()
            self._left = -1
        return met


@pytest.fixture
def card(machine: Machine) -> Held:
    return Held(machine)


@pytest.fixture
def driver(card: Held) -> Iterator[Ixgbe]:
    driver = Ixgbe(card, ring_size=64, pool_size=96)
    yield driver
    driver.close()


def test_no_count_is_lost_or_counted_twice(machine: Machine, card: Held, driver: Ixgbe) -> None:
    """Each counter clears when it is read: two threads that ask at once add up all there is, and never less."""
    arrived = accesses = 0
    seen = [0]
    met = True
    while met:
        for _ in range(3):
            arrive(machine, frame(arrived))
            arrived += 1
        met = card.during(
            lambda: seen.append(driver.counters().rx_packets),
            lambda: seen.append(driver.counters().rx_packets),
            accesses,
        )
        assert set(seen[-2 if met else -1 :]) == {arrived}
        accesses += 1
    counters = driver.counters()
    assert (counters.rx_packets, counters.rx_bytes) == (arrived, 64 * arrived)
    assert accesses > 20


def test_address_is_of_one_piece(card: Held, driver: Ixgbe) -> None:
    """Two threads set addresses: it is the one or the other; and so it is for one who reads while it is set."""
    accesses = 0
    while card.during(lambda: driver.set_mac(STATION), lambda: driver.set_mac(OTHER), accesses):
        assert driver.mac() in (STATION, OTHER)
        accesses += 1
    assert accesses == 2
    read: list[bytes] = []
    for accesses in range(2):
        driver.set_mac(STATION)
        assert card.during(lambda: read.append(driver.mac()), lambda: driver.set_mac(OTHER), accesses)
    assert len(read) == 2
    assert set(read) <= {STATION, OTHER}


def test_filters_keep_what_each_thread_set(card: Held, driver: Ixgbe) -> None:
    """VLANs 1 and 2 share a register, and the filter's switch depends on promiscuous mode: nothing is undone."""
    accesses, met = 0, True
    while met:
        for vlan in (1, 2):
            driver.set_vlan_filter(vlan, False)
        driver.set_promiscuous(True)
        assert card.read32(reg.VLNCTRL.offset) & 1 << 30 == 0
        met = card.during(lambda: driver.set_vlan_filter(1, True), lambda: driver.set_vlan_filter(2, True), accesses)
        assert card.read32(reg.VFTA[0].offset) == (0b110 if met else 0b010)
        met |= card.during(lambda: driver.set_vlan_filter(1, True), lambda: driver.set_promiscuous(False), accesses)
        driver.set_promiscuous(False)
        assert card.read32(reg.VLNCTRL.offset) & 1 << 30
        assert card.read32(reg.FCTRL.offset) & (1 << 8 | 1 << 9) == 0
        accesses += 1
    assert accesses > 4


def test_switches_agree(card: Held, driver: Ixgbe) -> None:
    """One thread makes the card promiscuous, another ends it: filters of addresses and of VLANs say the same."""
    driver.set_vlan_filter(1, True)
    accesses = 0
    while card.during(lambda: driver.set_promiscuous(True), lambda: driver.set_promiscuous(False), accesses):
        promiscuous = card.read32(reg.FCTRL.offset) & 1 << 9 != 0
        filters = card.read32(reg.VLNCTRL.offset) & 1 << 30 != 0
        assert filters is not promiscuous
        driver.set_promiscuous(False)
        accesses += 1
    assert accesses == 4


def test_mac_filter_is_one_list(card: Held, driver: Ixgbe) -> None:
    """Two threads set filters: the card lets one list in or the other, and never some of both."""
    mine, yours = [bytes([2, 0, 0, 0, 0, n]) for n in range(3)], [bytes([2, 0, 0, 0, 1, n]) for n in range(2)]
    accesses = 0
    while card.during(lambda: driver.set_mac_filter(mine), lambda: driver.set_mac_filter(yours), accesses):
        assert filtered(card) in (mine, yours)
        accesses += 1
    assert accesses >= 6


def filtered(card: Held) -> list[bytes]:
    """The addresses after the station's own that are valid."""
    pairs = [(card.read32(reg.RAL[n].offset), card.read32(reg.RAH[n].offset)) for n in range(1, 128)]
    return [low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little") for low, high in pairs if high & 1 << 31]


def test_closing_waits_for_whoever_uses_the_card(machine: Machine) -> None:
    """A card is closed while statistics are read: they are read whole, and no access comes after the end."""
    accesses, met = 0, True
    while met:
        card = Held(machine)
        driver = Ixgbe(card, ring_size=64, pool_size=96)
        arrive(machine, frame(accesses))
        counted: list[int] = []
        met = card.during(
            lambda counted=counted, driver=driver: counted.append(driver.counters().rx_packets), driver.close, accesses
        )
        assert counted == [1]
        driver.close()
        assert card.log[-1].kind == "close"
        with pytest.raises(Error, match="sim:a is closed"):
            driver.counters()
        accesses += 1
    assert accesses > 20


def test_two_threads_close(machine: Machine) -> None:
    """The second waits until the first is done, and then does nothing."""
    accesses, met = 0, True
    while met:
        card = Held(machine)
        driver = Ixgbe(card, ring_size=64, pool_size=96)
        met = card.during(driver.close, driver.close, accesses)
        kinds = [access.kind for access in card.log]
        assert (kinds.count("unmap"), kinds.count("close"), kinds[-1]) == (2, 1, "close")
        assert not machine.rack.allowed.any()
        accesses += 1
    assert accesses > 15


def test_of_two_that_add_the_same_rule_one_does(card: Held, driver: Ixgbe) -> None:
    """The other one is told that it is there."""
    rule = make_rule("sim:a", 1, protocol="udp", dport=53, queue=0)
    told: list[str] = []

    def add() -> None:
        try:
            driver.add_rule(rule)
        except ConfigurationError as error:
            told.append(str(error))

    accesses = 0
    while card.during(add, add, accesses):
        assert [added.fields for added in driver.rules] == [rule.fields]
        assert len(told) == accesses + 1
        driver.remove_rule(driver.rules[0])
        accesses += 1
    assert accesses > 0


def test_of_two_that_remove_a_rule_one_does(card: Held, driver: Ixgbe) -> None:
    """The other one is told that it is gone."""
    told: list[str] = []
    rule = make_rule("sim:a", 1, protocol="udp", dport=53, queue=0)

    def remove(added: Rule) -> None:
        try:
            driver.remove_rule(added)
        except ConfigurationError as error:
            told.append(str(error))

    accesses = 0
    while card.during(*(partial(remove, driver.add_rule(rule)),) * 2, accesses):
        assert driver.rules == []
        assert len(told) == accesses + 1
        assert "is none of its rules" in told[-1]
        accesses += 1
    assert accesses > 0
