"""A card that is an X540: its ids, its PHY, its semaphore, its buffer, its clock."""

from __future__ import annotations

import pytest
from lab import arrive, frame, open_card, receive_all
from recorded import RecordedCard, no_pauses

from ixy.drivers.ixgbe import Ixgbe
from ixy.errors import AddressError
from ixy.registers import i82599 as reg
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

EEC, EERD, SW_FW_SYNC, RXPBSIZE, TXPBSIZE = 0x10010, 0x10014, 0x10160, 0x3C00, 0xCC00
LINKS, MSCA, MSRWD, TIMINCA, SYSTIML, SYSTIMH = 0x42A4, 0x425C, 0x4260, 0x8C14, 0x8C0C, 0x8C10
COMMAND, ADDRESS, WRITE, READ = 1 << 30, 0 << 26, 1 << 26, 3 << 26
REGSMP = 1 << 31
PMA, NEGOTIATION, VENDOR = 1, 7, 30


def read_phy(card: Card, device: int, register: int, port: int = 0) -> int:
    """Two frames on the management bus, by IEEE 802.3, clause 45: an address, then a read."""
    for opcode in (ADDRESS, READ):
        card.write32(MSCA, COMMAND | opcode | port << 21 | device << 16 | register)
        assert card.read32(MSCA) & COMMAND == 0
    return card.read32(MSRWD) >> 16


def write_phy(card: Card, device: int, register: int, value: int) -> None:
    card.write32(MSRWD, value)
    for opcode in (ADDRESS, WRITE):
        card.write32(MSCA, COMMAND | opcode | device << 16 | register)


def test_what_it_is(machine: Machine) -> None:
    """Its ids, the product that it names, and buffers of 384 and 160 KiB; its flash is up to date."""
    card = machine.plug_in("sim:a,card=x540,ready=0")
    assert card.config_read(0, 4) == 0x1528_8086
    assert card.config_read(0x2C, 4) == 0x0001_8086
    assert [card.read32(RXPBSIZE + 4 * i) for i in range(8)] == [384 << 10] * 8
    assert card.read32(TXPBSIZE) == 160 << 10
    assert card.read32(EEC) & (1 << 26 | 1 << 9) == 1 << 26 | 1 << 9
    words: list[int] = []
    for word in range(64):
        card.write32(EERD, word << 2 | 1)
        words.append(card.read32(EERD) >> 16)
    assert sum(words) & 0xFFFF == 0xBABA
    machine.unplug(card)


def test_a_card_of_one_name_is_what_its_address_says(machine: Machine) -> None:
    """Also after it was another one; and at the far end of a cable, before it is open."""
    for option, device in ((",card=x540", 0x1528), ("", 0x10FB), (",card=x540", 0x1528), (",card=82599", 0x10FB)):
        with open_card(machine, "sim:b,cable=a"):
            card = machine.plug_in(f"sim:a{option}")
            assert card.config_read(2, 2) == device
            machine.unplug(card)
    with pytest.raises(AddressError, match="sim:a,card=x550: no card is a 'x550': possible are 82599 and x540"):
        machine.plug_in("sim:a,card=x550")


def test_our_driver_runs_on_it(machine: Machine) -> None:
    with open_card(machine, "sim:a,cable=b,card=x540") as a, open_card(machine, "sim:b,card=x540") as b:
        assert a.link == b.link == (True, 10_000)
        arrive(machine, frame(1))
        with a.rx[0].receive() as batch:
            a.tx[0].send(batch)
        machine.step()
        assert receive_all(b) == [frame(1)]
        assert machine.cards["a"].read32(SW_FW_SYNC) == 0  # nothing is owned, and the semaphore is free


def test_the_driver_waits_for_the_firmware(machine: Machine) -> None:
    """The PHY is the firmware's for some looks. After each, the driver gives the semaphore back."""
    card = RecordedCard(machine, 0x1528, "sim:a,card=x540")
    looks: list[int] = []

    def sync(value: int) -> int:
        looks.append(value >> 31)
        return value & ~(1 << 6) | (1 << 6 if len(looks) < 8 else 0)

    card.replies[SW_FW_SYNC] = sync
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
        driver.close()
    assert looks[:9] == [0, 1, 1] * 3  # taken, looked who owns what, given back
    assert not any(access.is_("write", reg.SWSM, SWESMBI=1) for access in card.log)


def test_the_phy(machine: Machine) -> None:
    """An X540's identifier, at the first port's address and nowhere else; an 82599 has none."""
    card = machine.plug_in("sim:a,card=x540")
    assert (read_phy(card, PMA, 2), read_phy(card, PMA, 3)) == (0x0154, 0x0200)
    assert read_phy(card, PMA, 8) >> 14 == 0b10  # a device is there
    assert read_phy(card, PMA, 4) == 0b110001  # 10 Gbit/s, 1 Gbit/s, 100 Mbit/s
    assert read_phy(card, PMA, 2, port=1) == read_phy(card, 2, 2) == 0xFFFF
    machine.unplug(card)
    card = machine.plug_in("sim:a")
    assert read_phy(card, PMA, 2) == 0xFFFF
    machine.unplug(card)


@pytest.mark.parametrize(
    ("wire", "advertised", "speed"),
    [
        ("", {10_000, 1000, 100}, 3),
        ("", {1000, 100}, 2),
        ("", {100}, 1),
        ("", set[int](), 0),
        (",wire=1G", {10_000, 1000, 100}, 2),
        (",wire=1G", {10_000}, 0),
        (",wire=100M", {10_000, 100}, 1),
    ],
)
def test_negotiation(machine: Machine, wire: str, advertised: set[int], speed: int) -> None:
    """The fastest that is advertised, as Linux and DPDK do it, and that the wire has; LSC is raised."""
    with open_card(machine, "sim:b,cable=a"):
        card = machine.plug_in(f"sim:a,card=x540,ready=0{wire}")
        card.read32(reg.EICR.offset)
        write_phy(card, NEGOTIATION, 0x20, 0x1000 * (10_000 in advertised))
        write_phy(card, NEGOTIATION, 0xC400, 0x8000 * (1000 in advertised))
        write_phy(card, NEGOTIATION, 0x10, 0x100 * (100 in advertised))
        assert card.read32(reg.EICR.offset) == 0
        write_phy(card, NEGOTIATION, 0, 0x3200)
        assert read_phy(card, NEGOTIATION, 0) == 0x3000  # the restart clears itself
        assert card.read32(reg.EICR.offset) == 1 << 20
        assert card.read32(LINKS) == (1 << 30 | speed << 28 if speed else 0)
        assert bool(read_phy(card, NEGOTIATION, 1) & 1 << 2) == bool(speed)
        machine.unplug(card)


def test_a_phy_that_is_switched_off(machine: Machine) -> None:
    """Low power: there is no link, until it is on again."""
    with open_card(machine, "sim:b,cable=a"):
        card = machine.plug_in("sim:a,card=x540,ready=0")
        write_phy(card, VENDOR, 0, 1 << 11)
        assert card.read32(LINKS) == 0
        write_phy(card, VENDOR, 0, 0)
        assert card.read32(LINKS) == 1 << 30 | 3 << 28
        machine.unplug(card)


def test_the_semaphore(machine: Machine) -> None:
    """REGSMP is taken by the read that finds 0, and given back by writing 0; an 82599 has none."""
    card = machine.plug_in("sim:a,card=x540")
    assert [card.read32(SW_FW_SYNC) for _ in range(2)] == [0, REGSMP]
    card.write32(SW_FW_SYNC, REGSMP | 2)
    assert card.read32(SW_FW_SYNC) == REGSMP | 2
    card.write32(SW_FW_SYNC, 2)
    assert [card.read32(SW_FW_SYNC) for _ in range(2)] == [2, REGSMP | 2]
    machine.unplug(card)
    card = machine.plug_in("sim:a")
    assert [card.read32(SW_FW_SYNC) & REGSMP for _ in range(2)] == [0, 0]
    machine.unplug(card)


def test_the_clock(machine: Machine) -> None:
    """TIMINCA is added in each cycle of 6.4 ns, and has 31 bits: of Linux's value 2**28 are a nanosecond."""
    card = machine.plug_in("sim:a,card=x540")
    now = [10**12]
    card.clock._now = lambda: now[0]
    card.write32(TIMINCA, 0x66666666)
    now[0] += 60 * 10**9
    low = card.read32(SYSTIML)
    assert low | card.read32(SYSTIMH) << 32 == 9_375_000_000 * 0x66666666
    machine.unplug(card)
