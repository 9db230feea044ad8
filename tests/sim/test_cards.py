"""In what the cards of the family differ: what each kind is told, and how its link comes up.

The model is an 82599 under whatever device id; what it lacks, such as a PHY, is added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from lab import arrive, frame
from mdio import FakePhy
from recorded import RecordedCard, no_pauses

from ixy.device import Device
from ixy.drivers.ixgbe import SUPPORTED, Ixgbe
from ixy.errors import ConfigurationError, DeviceTimeout, UnsupportedDevice
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

# Device ids as in the specification updates of the 82599, X540 and X550
SFI = [0x10FB, 0x1507, 0x154A, 0x154D, 0x1557, 0x1558]
BACKPLANE = [0x10F7, 0x10F8, 0x10F9, 0x10FC, 0x1514, 0x1517]
BESIDE_A_PHY = [0x151C]
WITH_A_PHY = [0x1528, 0x1560, 0x1563, 0x15D1]
MAC = 1 << 3  # SW_FW_SYNC: the MAC's registers


def opened(machine: Machine, device_id: int) -> tuple[RecordedCard, Ixgbe]:
    card = RecordedCard(machine, device_id)
    with no_pauses(card):
        return card, Ixgbe(card, ring_size=64, pool_size=96)


def closed(card: RecordedCard, driver: Ixgbe) -> None:
    with no_pauses(card):
        driver.close()


def written(card: RecordedCard, register: Register) -> list[int]:
    return [access.value for access in card.log if access[:2] == ("write", register.offset)]


def hexadecimal(device_id: int) -> str:
    return f"{device_id:04x}"


def test_every_supported_card_is_of_a_kind_here() -> None:
    """No card is in the list whose kind was not thought about."""
    assert sorted(SUPPORTED) == sorted((0x8086, number) for number in SFI + BACKPLANE + BESIDE_A_PHY + WITH_A_PHY)


@pytest.mark.parametrize("device_id", SFI + BACKPLANE + BESIDE_A_PHY + WITH_A_PHY, ids=hexadecimal)
def test_packet_buffers(machine: Machine, device_id: int) -> None:
    """Receive: 512 KiB on an 82599, 384 KiB on X540 and X550, and pause frames from 24 KiB below (4.6.3.2). Transmit:
    160 KiB on each, fetched for until 10 KiB, the longest frame, are left (8.2.3.9.16).
    """
    if device_id in BESIDE_A_PHY:
        card = RecordedCard(machine, device_id)
        FakePhy(card)
        with no_pauses(card):
            driver = Ixgbe(card, ring_size=64, pool_size=96)
    else:
        card, driver = opened(machine, device_id)
    receive, high_water = (0x60000, 0x5A000) if device_id in WITH_A_PHY else (0x80000, 0x7A000)
    assert [written(card, row) for row in reg.RXPBSIZE] == [[receive], *[[0]] * 7]
    assert written(card, reg.FCRTH[0]) == [high_water]
    assert [written(card, row) for row in reg.TXPBSIZE] == [[0x28000], *[[0]] * 7]
    assert [written(card, row) for row in reg.TXPBTHRESH] == [[0x96], *[[0]] * 7]
    closed(card, driver)


@pytest.mark.parametrize(("device_id", "entries", "most"), [(0x10FB, 128, 16), (0x1528, 128, 16), (0x1563, 512, 64)])
def test_redirection_tables(machine: Machine, device_id: int, entries: int, most: int) -> None:
    """128 entries of 4 bits from 0xEB00 on (8.2.3.7.14); on an X550 384 more from 0xEE80 on, and 6 bits in each."""
    card = RecordedCard(machine, device_id)
    with no_pauses(card):
        driver = Ixgbe(card, rx_queues=3, ring_size=64, pool_size=96)
    table = {place: value for kind, place, value in card.log if kind == "write" and 0xEB00 <= place < 0xEB80}
    table |= {place: value for kind, place, value in card.log if kind == "write" and 0xEE80 <= place < 0xF000}
    assert sorted(table) == [*range(0xEB00, 0xEB80, 4), *range(0xEE80, 0xEE80 + entries - 128, 4)]
    written = b"".join(table[place].to_bytes(4, "little") for place in sorted(table))
    assert list(written) == [place % 3 for place in range(entries)]
    closed(card, driver)
    card = RecordedCard(machine, device_id)
    with no_pauses(card):
        driver = Ixgbe(card, rx_queues=most + 1, ring_size=64, pool_size=96)
    assert driver.rss is not None
    assert set(driver.rss.table) == set(range(most))
    with pytest.raises(ConfigurationError, match=f"receive queue {most}: 0 to {most - 1} are possible"):
        driver.redirect(replace(driver.rss, table=(most,)))
    closed(card, driver)


# ---------------------------------------------------------------------------------------------------------------------
# Link


@pytest.mark.parametrize("device_id", SFI, ids=hexadecimal)
def test_sfi(machine: Machine, device_id: int) -> None:
    """4.6.4: SFI at 10 Gbit/s without negotiation, whatever the EEPROM says, then a restart."""
    card = RecordedCard(machine, device_id)
    card.replies[reg.AUTOC.offset] = lambda _: 0xC09C_2004  # of an EEPROM: LMS 1, and bits that must stay
    card.replies[reg.AUTOC2.offset] = lambda _: 0x0000_0000  # 10G_PMA_PMD_Serial: KR
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
    assert written(card, reg.AUTOC2) == [2 << 16]
    assert written(card, reg.AUTOC) == [0xC09C_7004]  # LMS 3 in bits 15:13, restart in bit 12
    assert written(card, reg.MSCA) == []
    closed(card, driver)


@pytest.mark.parametrize("device_id", BACKPLANE, ids=hexadecimal)
@pytest.mark.parametrize(
    "autoc",
    [
        pytest.param(0xC09D_8004, id="KX4-KX-KR"),  # LMS 4: negotiated
        pytest.param(0x009C_2104, id="CX4"),  # LMS 1: 10 Gbit/s, no negotiation; 10G_PMA_PMD 2
        pytest.param(0x009C_2004, id="XAUI"),  # LMS 1; 10G_PMA_PMD 0
    ],
)
def test_backplane(machine: Machine, device_id: int, autoc: int) -> None:
    """4.6.4: the EEPROM knows how the board is wired: the driver restarts the link and changes nothing else."""
    card = RecordedCard(machine, device_id)
    card.replies[reg.AUTOC.offset] = lambda _: autoc
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
    assert written(card, reg.AUTOC) == [autoc | 1 << 12]
    assert written(card, reg.AUTOC2) == []
    assert written(card, reg.MSCA) == []
    closed(card, driver)


@pytest.mark.parametrize("device_id", WITH_A_PHY, ids=hexadecimal)
def test_phy_within_the_chip(machine: Machine, device_id: int) -> None:
    """Its firmware brings the link up: the driver touches neither the MAC's mode nor the PHY."""
    card, driver = opened(machine, device_id)
    assert written(card, reg.AUTOC) == written(card, reg.AUTOC2) == written(card, reg.MSCA) == []
    closed(card, driver)


@pytest.fixture
def copper(machine: Machine) -> Iterator[tuple[RecordedCard, FakePhy, Ixgbe]]:
    """An 82599 beside a PHY, with a cable plugged into the MAC's side."""
    machine.plug_in("sim:b,cable=a")
    card = RecordedCard(machine, 0x151C)
    card.replies[reg.AUTOC.offset] = lambda _: 0x009C_2004
    phy = FakePhy(card)
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
        yield card, phy, driver
        driver.close()
    machine.unplug(machine.cards["b"])


def test_phy_beside_the_chip_negotiates(copper: tuple[RecordedCard, FakePhy, Ixgbe]) -> None:
    """IEEE 802.3, 45.2.7.1: negotiation is enabled (bit 12) and restarted (bit 9), other bits stay; the MAC's mode is
    the EEPROM's. The bus is used only while it is owned (10.5.4).
    """
    card, phy, _ = copper
    assert phy.memory[7, 0] == 0x2000 | 1 << 12 | 1 << 9
    assert written(card, reg.AUTOC) == [0x009C_3004]
    assert written(card, reg.AUTOC2) == []
    assert phy.lost == 0


@pytest.mark.parametrize(("status", "link"), [(0x08, (True, 10_000)), (0x18, (True, 1_000)), (0x10, (False, 0))])
def test_link_is_the_phys(copper: tuple[RecordedCard, FakePhy, Ixgbe], status: int, link: tuple[bool, int]) -> None:
    """The MAC sees the PHY, and that at 10 Gbit/s: whether a cable is plugged in, and how fast it is, the PHY knows."""
    _, phy, driver = copper
    phy.memory[30, 1] = status
    assert driver.link() == link
    assert phy.lost == 0


def test_phy_that_is_missing(machine: Machine) -> None:
    """Nobody answers: the card is refused, not brought up without a link, and stays no bus master."""
    card = RecordedCard(machine, 0x151C)
    with no_pauses(card), pytest.raises(UnsupportedDevice, match="sim:a: no PHY answers"):
        Ixgbe(card)
    assert not card.bus_master
    assert card.log[-1].kind == "close"


def test_management_bus_that_hangs(machine: Machine) -> None:
    """8.2.3.22.11: the card clears COMMAND when a frame is done; what is read before is of the frame before."""
    card = RecordedCard(machine, 0x151C)
    FakePhy(card)
    card.replies[reg.MSCA.offset] = lambda value: value | 1 << 30
    with no_pauses(card), pytest.raises(DeviceTimeout, match="sim:a: MSCA did not reach COMMAND=0"):
        Ixgbe(card, ring_size=64, pool_size=96)
    assert not card.bus_master


# ---------------------------------------------------------------------------------------------------------------------
# What is shared with firmware and the other port (10.5.4)


@pytest.mark.parametrize("device_id", [0x10FB, 0x1517, 0x1528], ids=hexadecimal)
def test_shared_registers_are_owned(machine: Machine, device_id: int) -> None:
    """AUTOC is written while SW_FW_SYNC says that software has the MAC, and so is RST on a card with a PHY inside;
    SW_FW_SYNC is written while SWSM is held. All is given back.
    """
    card, driver = opened(machine, device_id)
    owners = held = 0
    for access in card.log:
        if access.is_("write", reg.SWSM):
            held = 0
        elif access.is_("read", reg.SWSM):
            held = access.value & 0b10  # SWESMBI is there: firmware is out
        elif access.is_("read", reg.SW_FW_SYNC) and device_id in WITH_A_PHY:
            held = access.value >> 31 == 0  # REGSMP: the read that finds 0 takes it
        elif access.is_("write", reg.SW_FW_SYNC):
            assert held
            owners = access.value
        elif access[:2] in (("write", reg.AUTOC.offset), ("write", reg.AUTOC2.offset)):
            assert owners & MAC
        elif access.is_("write", reg.CTRL, RST=1) and device_id in WITH_A_PHY:
            assert owners & 1 << 1  # the first port's PHY
    assert owners == held == 0
    assert card.card.read32(reg.SWSM.offset) == 0
    closed(card, driver)


@pytest.mark.parametrize("owner", [MAC, MAC << 5, MAC | MAC << 5], ids=["driver", "firmware", "both"])
@pytest.mark.parametrize("semaphore", [0b00, 0b01], ids=["free", "SMBI"])
def test_owner_that_is_dead(machine: Machine, owner: int, semaphore: int) -> None:
    """10.5.4: who keeps a resource for a second, as a driver that was killed does, loses it; so does one that keeps
    the semaphore. What others own stays theirs.
    """
    card = RecordedCard(machine)
    others = 1 << 4 | 1 << 6
    state = {"sync": owner | others}
    card.replies[reg.SW_FW_SYNC.offset] = lambda _: state["sync"]
    card.written[reg.SW_FW_SYNC.offset] = lambda value: state.update(sync=value)
    card.replies[reg.SWSM.offset] = lambda value: value | semaphore
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
    assert reg.AUTOC.decode(written(card, reg.AUTOC)[-1])["LMS"] == 3
    assert state["sync"] == others
    assert sum(access.value for access in card.log if access.kind == "sleep") > 1_000_000
    closed(card, driver)


def test_owner_that_lets_go(machine: Machine) -> None:
    """10.5.4: the driver waits until firmware is done, and lets go of the semaphore between two looks."""
    card = RecordedCard(machine)
    looks: list[int] = []

    def sync(value: int) -> int:
        looks.append(card.card.read32(reg.SWSM.offset))
        return value | (MAC << 5 if len(looks) < 4 else 0)

    card.replies[reg.SW_FW_SYNC.offset] = sync
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
    start = card.log.index(next(access for access in card.log if access.is_("write", reg.SWSM)))
    end = card.log.index(next(access for access in card.log if access.is_("write", reg.AUTOC2)))
    released = [access for access in card.log[start:end] if access.is_("write", reg.SWSM, SMBI=0, SWESMBI=0)]
    assert len(released) == 4  # after three looks in vain, and one that found it free
    assert not any(access.is_("write", reg.AUTOC) for access in card.log[:end])
    closed(card, driver)


# ---------------------------------------------------------------------------------------------------------------------
# Cards that do not do as they are told


@pytest.mark.parametrize("device_id", [0x10FB, 0x1528], ids=hexadecimal)
def test_requests_that_stay_pending(machine: Machine, device_id: int) -> None:
    """5.2.5.3.2: master disable has no effect. The transmit path is flushed with nothing sent or received, once no
    transaction is pending; then the card is reset twice, more than 1 µs apart. Then it works.
    """
    card = RecordedCard(machine, device_id)
    card.replies[reg.STATUS.offset] = lambda value: value | 1 << 19
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
    log = card.log

    def place(register: Register, after: int = 0, **fields: int) -> int:
        return next(i for i in range(after, len(log)) if log[i].is_("write", register, **fields))

    first = place(reg.CTRL, RST=1)
    second = place(reg.CTRL, first + 1, RST=1)
    loopback = place(reg.HLREG0, LPBK=1)
    quiet = place(reg.RXCTRL, RXEN=0)
    clear = place(reg.GCR_EXT, BUFFERS_CLEAR=1)
    cleared = place(reg.GCR_EXT, BUFFERS_CLEAR=0)
    normal = place(reg.HLREG0, LPBK=0)
    assert max(loopback, quiet) < clear < cleared < first < second
    assert cleared < normal < first
    assert sum(access.value for access in log[clear:cleared] if access.kind == "sleep") >= 20
    assert sum(access.value for access in log[first:second] if access.kind == "sleep") > 1
    assert not any(access.is_("write", reg.CTRL, RST=1) for access in log[second + 1 :])
    device = Device(driver)
    arrive(machine, frame(1))
    with device.rx[0].receive() as batch:
        assert [bytes(packet) for packet in batch] == [frame(1)]
    with no_pauses(card):
        device.close()


def test_transactions_that_end_late(machine: Machine) -> None:
    """5.2.5.3.2: the flush waits until the PCIe capability's Device Status, bit 5, says that none is pending."""
    card = RecordedCard(machine)
    card.replies[reg.STATUS.offset] = lambda value: value | 1 << 19
    pending = [1 << 5] * 3 + [0]
    real = card.config_read
    card.config_read = lambda offset, size: pending.pop(0) if offset == 0xAA and pending else real(offset, size)  # type: ignore[method-assign]
    card.written[reg.GCR_EXT.offset] = lambda _: pytest.fail("flushed too early") if pending else None
    with no_pauses(card):
        Ixgbe(card, ring_size=64, pool_size=96).close()
    assert pending == []


STUCK = [
    (reg.CTRL, {"RST": 1}),
    (reg.EEC, {"AUTO_RD": 0}),
    (reg.RDRXCTL, {"DMAIDONE": 0}),
    (reg.SECRXSTAT, {"SECRX_RDY": 0}),
    (reg.RXDCTL[0], {"ENABLE": 0}),
    (reg.TXDCTL[0], {"ENABLE": 0}),
]


@pytest.mark.parametrize(("register", "fields"), STUCK, ids=lambda value: getattr(value, "name", ""))
def test_every_wait_ends(machine: Machine, register: Register, fields: dict[str, int]) -> None:
    """A register that never does what it should: an error names it, and the card is given up, silent."""
    card = RecordedCard(machine)
    card.replies[register.offset] = lambda value: value & ~register.mask(*fields) | register.value(**fields)
    with no_pauses(card), pytest.raises(DeviceTimeout, match=rf"sim:a: {register.name.replace('[', '.')[:-1]}"):
        Ixgbe(card, ring_size=64, pool_size=96)
    assert not card.bus_master
    assert card.log[-1].kind == "close"
    assert not machine.rack.allowed.any()


@pytest.mark.parametrize("register", [reg.RXDCTL[0], reg.TXDCTL[0]], ids=lambda row: row.name)
def test_queue_that_does_not_stop(machine: Machine, register: Register) -> None:
    """Closing waits for it, then resets the card all the same, and only then gives memory back."""
    card, driver = opened(machine, 0x10FB)
    card.log.clear()
    card.replies[register.offset] = lambda value: value | 1 << 25
    closed(card, driver)
    kinds = [access.kind for access in card.log]
    reset = next(i for i, access in enumerate(card.log) if access.is_("write", reg.CTRL, RST=1))
    assert reset < kinds.index("unmap")
    assert not machine.rack.allowed.any()
