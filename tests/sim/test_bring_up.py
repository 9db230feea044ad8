"""What the datasheet asks of a driver that brings a card up or stops it, as rules over the accesses that it makes.

A rule says what must have happened before something else; it leaves open in which order the driver does the rest.
Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from mdio import FakePhy
from recorded import Access, RecordedCard, no_pauses

from ixy.drivers.ixgbe import Ixgbe
from ixy.drivers.ixgbe.datapath import RxState, TxState
from ixy.packets.dma import window
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.machine import BUS_BASE, Machine

SFP, KR, T3, X540, X550 = 0x10FB, 0x1517, 0x151C, 0x1528, 0x1563
RX, TX, RING = 2, 3, 128

ENABLES = [*((reg.RXDCTL[n], {"ENABLE": 1}) for n in range(RX)), *((reg.TXDCTL[n], {"ENABLE": 1}) for n in range(TX))]


def master(access: Access) -> bool | None:
    """Whether this lets the card do DMA, or no longer (PCI Local Bus 3.0, 6.2.2)."""
    return bool(access.value & 1 << 2) if access[:2] == ("config write", 4) else None


class Trace(list[Access]):
    """What a driver did, with questions about it."""

    def places(self, kind: str, register: Register, **fields: int) -> list[int]:
        """Where `register` was read or written with these fields."""
        return [i for i, access in enumerate(self) if access.is_(kind, register, **fields)]

    def where(self, condition: Callable[[Access], object]) -> list[int]:
        return [i for i, access in enumerate(self) if condition(access)]

    def last_before(self, place: int, register: Register) -> int:
        """What `register` was last written to before `place`."""
        return [access.value for access in self[:place] if access[:2] == ("write", register.offset)][-1]

    def paused(self, start: int, end: int) -> int:
        """Microseconds that were slept between two places."""
        return sum(access.value for access in self[start:end] if access.kind == "sleep")


@pytest.fixture(params=[SFP, KR, T3, X540, X550], ids=lambda device_id: f"{device_id:04x}")
def card(request: pytest.FixtureRequest, machine: Machine) -> RecordedCard:
    card = RecordedCard(machine, request.param)
    FakePhy(card)
    return card


@pytest.fixture
def driver(card: RecordedCard) -> Iterator[Ixgbe]:
    with no_pauses(card):
        driver = Ixgbe(card, RX, TX, RING, 200)
        yield driver
        driver.close()


@pytest.fixture
def up(card: RecordedCard, driver: Ixgbe) -> Trace:  # noqa: ARG001
    """The accesses from the start until the card runs."""
    return Trace(card.log)


@pytest.fixture
def down(card: RecordedCard, driver: Ixgbe) -> Trace:
    """Those of closing it."""
    card.log.clear()
    driver.close()
    return Trace(card.log)


def reset_done(trace: Trace) -> int:
    """Where the reset was seen to be over."""
    (reset,) = trace.places("write", reg.CTRL, RST=1)
    return next(i for i in trace.places("read", reg.CTRL, RST=0, LRST=0) if i > reset)


def masked(trace: Trace, start: int, end: int) -> bool:
    """All interrupts were masked, then what was pending was dropped, between two places (4.6.3.1)."""
    rows = [(reg.EIMC, 0x7FFFFFFF), (reg.EIMC_EX[0], 0xFFFFFFFF), (reg.EIMC_EX[1], 0xFFFFFFFF)]
    masks = [[i for i in trace.places("write", row, MASK=mask) if start < i < end] for row, mask in rows]
    reads = [i for i in trace.places("read", reg.EICR) if start < i < end]
    return all(masks) and bool(reads) and max(reads) > max(min(places) for places in masks)


# ---------------------------------------------------------------------------------------------------------------------
# Reset


def test_interrupts_are_off_before_and_after_the_reset(up: Trace) -> None:
    """4.6.3.1. A driver that polls never switches them on."""
    (reset,) = up.places("write", reg.CTRL, RST=1)
    done = reset_done(up)
    assert masked(up, -1, reset)
    assert masked(up, done, min(up.where(master)))
    for register in (reg.EIMS, *reg.EIMS_EX):
        assert not up.places("write", register)


def test_reset_waits_for_the_bus(up: Trace) -> None:
    """5.2.5.3.2: master disable is written, read back, and has taken effect, before the device is reset (4.2.1.6)."""
    (reset,) = up.places("write", reg.CTRL, RST=1)
    disable = up.places("write", reg.CTRL, PCIE_MASTER_DISABLE=1, RST=0)[0]
    read_back = next(i for i in up.places("read", reg.CTRL, PCIE_MASTER_DISABLE=1) if i > disable)
    quiet = next(i for i in up.places("read", reg.STATUS, PCIE_MASTER_ENABLE=0) if i > read_back)
    assert quiet < reset


def test_no_access_while_the_reset_begins(up: Trace) -> None:
    """8.2.3.1.1: for 1 ms after RST is written, no register is touched."""
    (reset,) = up.places("write", reg.CTRL, RST=1)
    following = next(i for i in range(reset + 1, len(up)) if up[i].kind != "sleep")
    assert up.paused(reset, following) >= 1000


def test_mac_is_left_alone_after_the_reset(up: Trace) -> None:
    """4.6.3.2: nothing is touched for 10 ms."""
    done = reset_done(up)
    following = next(i for i in range(done + 1, len(up)) if up[i].kind != "sleep")
    assert up.paused(done, following) >= 10_000


def test_link_reset_spares_a_phy_within_the_chip(card: RecordedCard, up: Trace) -> None:
    """A global reset is one of device and link (4.6.3.2); on X540 and X550 the latter would reset the PHY too."""
    (reset,) = up.places("write", reg.CTRL, RST=1)
    assert reg.CTRL.decode(up[reset].value)["LRST"] == int(card.device_id not in (X540, X550))


def test_eeprom_and_dma_are_ready_before_anything_is_set(up: Trace) -> None:
    """4.6.3: the EEPROM sets the link and the address, so it comes before both; the DMA engine before the rings."""
    done = reset_done(up)
    loaded = next(i for i in up.places("read", reg.EEC, AUTO_RD=1) if i > done)
    initialised = next(i for i in up.places("read", reg.RDRXCTL, DMAIDONE=1) if i > done)
    for register in (reg.AUTOC, reg.AUTOC2, reg.RAL[0], reg.RAH[0], reg.MSCA):
        assert all(i > loaded for i in up.places("read", register) + up.places("write", register) if i > done)
    rows = (*reg.RXPBSIZE, *reg.TXPBSIZE, reg.RDRXCTL, reg.DMATXCTL, reg.RDBAL[0], reg.TDBAL[0], reg.RXDCTL[0])
    for register in rows:
        assert all(i > initialised for i in up.places("write", register))


def test_statistics_are_cleared_before_packets_arrive(up: Trace) -> None:
    """4.6.5: each counter that the driver adds up is read between the reset and RXEN."""
    start, end = reset_done(up), up.places("write", reg.RXCTRL, RXEN=1)[0]
    counters = (reg.GPRC, reg.GPTC, reg.GORCL, reg.GORCH, reg.GOTCL, reg.GOTCH, reg.QPRDC[0], *reg.RXMPC)
    errors = (reg.CRCERRS, reg.ILLERRC, reg.ERRBC, reg.RLEC, reg.RUC, reg.RFC, reg.ROC, reg.RJC)
    for register in (*counters, *errors):
        assert any(start < i < end for i in up.places("read", register)), register.name


def test_counters_of_two_halves(card: RecordedCard, driver: Ixgbe) -> None:
    """8.2.3.23: reading the high half clears both, so the low one comes before it, with nothing between."""
    card.log.clear()
    driver.counters()
    places = [access.place for access in card.log]
    for low, high in ((reg.GORCL, reg.GORCH), (reg.GOTCL, reg.GOTCH)):
        assert places.index(high.offset) == places.index(low.offset) + 1


# ---------------------------------------------------------------------------------------------------------------------
# Receive and transmit


def test_card_is_bus_master_before_it_fetches(up: Trace) -> None:
    """PCI 6.2.2: no queue is enabled, and neither path, before the card may reach memory."""
    allowed = up.where(master)[0]
    for register, fields in (*ENABLES, (reg.RXCTRL, {"RXEN": 1}), (reg.DMATXCTL, {"TE": 1})):
        assert min(up.places("write", register, **fields)) > allowed


def test_receive_path_is_halted_while_it_is_enabled(up: Trace) -> None:
    """4.6.7: RXEN is set between RX_DIS with the path seen empty, and the end of RX_DIS. All else is set by then."""
    (enabled,) = up.places("write", reg.RXCTRL, RXEN=1)
    halted = max(i for i in up.places("write", reg.SECRXCTRL, RX_DIS=1) if i < enabled)
    empty = next(i for i in up.places("read", reg.SECRXSTAT, SECRX_RDY=1) if i > halted)
    released = up.places("write", reg.SECRXCTRL, RX_DIS=0)
    assert halted < empty < enabled < released[-1]
    assert not any(halted < i < enabled for i in released)
    rows = (reg.FCTRL, reg.HLREG0, reg.RDRXCTL, *reg.RXPBSIZE, *reg.SRRCTL, *reg.RXDCTL, *reg.RDT, *reg.FTQF)
    for register in rows:
        assert all(i < enabled for i in up.places("write", register)), register.name


@pytest.mark.parametrize("queue", range(RX))
def test_receive_queue(driver: Ixgbe, up: Trace, queue: int) -> None:
    """4.6.7.1: ring and buffers are set, then the queue is enabled, seen to be, and only then given descriptors."""
    (enabled,) = up.places("write", reg.RXDCTL[queue], ENABLE=1)
    seen = next(i for i in up.places("read", reg.RXDCTL[queue], ENABLE=1) if i > enabled)
    tails = up.places("write", reg.RDT[queue])
    assert [up[i].value for i in tails if i < seen] in ([], [0])
    assert [up[i].value for i in tails if i > seen] == [RING - 1]
    assert up.last_before(enabled, reg.RDLEN[queue]) == 16 * RING
    assert up.last_before(enabled, reg.RDH[queue]) == 0
    # 8.2.3.8.7: advanced descriptors in one buffer of 2 KiB, and a full queue drops what comes
    assert up.last_before(enabled, reg.SRRCTL[queue]) & (7 << 25 | 1 << 28 | 31) == 1 << 25 | 1 << 28 | 2
    # 4.6.7: no no-snoop; 8.2.3.11.1: bit 12 must be 0
    assert up.last_before(enabled, reg.CTRL_EXT) & 1 << 16
    assert not up.last_before(enabled, reg.DCA_RXCTRL[queue]) & 1 << 12
    check_place(
        driver.rx_rings[queue].state,
        up.last_before(enabled, reg.RDBAL[queue]),
        up.last_before(enabled, reg.RDBAH[queue]),
    )


@pytest.mark.parametrize("queue", range(TX))
def test_transmit_queue(driver: Ixgbe, up: Trace, queue: int) -> None:
    """4.6.8, 4.6.8.1: ring and thresholds are set and transmission is on, then the queue is enabled, and seen to be."""
    (enabled,) = up.places("write", reg.TXDCTL[queue], ENABLE=1)
    assert up.places("write", reg.DMATXCTL, TE=1)[0] < enabled
    assert any(i > enabled for i in up.places("read", reg.TXDCTL[queue], ENABLE=1))
    assert [up[i].value for i in up.places("write", reg.TDT[queue])] in ([], [0])
    assert up.last_before(enabled, reg.TDLEN[queue]) == 16 * RING
    assert up.last_before(enabled, reg.TDH[queue]) == 0
    # 7.2.3.4.1: some descriptors are fetched ahead; 8.2.3.9.10: with RS once in 32, none is held back (WTHRESH)
    control = reg.TXDCTL.decode(up[enabled].value)
    assert control["PTHRESH"] >= control["HTHRESH"] >= 4
    assert control["WTHRESH"] == 0
    check_place(
        driver.tx_rings[queue].state,
        up.last_before(enabled, reg.TDBAL[queue]),
        up.last_before(enabled, reg.TDBAH[queue]),
    )


def check_place(ring: RxState | TxState, low: int, high: int) -> None:
    """A card that writes to the address that it was told writes into the driver's ring."""
    place = (high << 32 | low) - BUS_BASE
    before = ring.descriptors[0]
    window().bytes[place : place + 8] = 0x5A
    assert ring.descriptors[0] == 0x5A5A5A5A5A5A5A5A
    ring.descriptors[0] = before


def test_all_packets_come_in_at_first(up: Trace) -> None:
    """8.2.3.7.1: broadcasts, and in promiscuous mode the rest; 8.2.3.7.19: no 5-tuple filter takes any away."""
    (enabled,) = up.places("write", reg.RXCTRL, RXEN=1)
    fields = reg.FCTRL.decode(up.last_before(enabled, reg.FCTRL))
    assert (fields["BAM"], fields["UPE"], fields["MPE"], fields["SBP"]) == (1, 1, 1, 0)
    for register in reg.FTQF:
        assert not up.last_before(enabled, register) & 1 << 31


def test_frame_check_sequences_are_the_cards(up: Trace) -> None:
    """8.2.3.22.8, 8.2.3.8.8: cut off on receive, both bits alike; made on transmit, and short packets padded."""
    (receiving,), (sending,) = up.places("write", reg.RXCTRL, RXEN=1), up.places("write", reg.DMATXCTL, TE=1)
    assert up.last_before(receiving, reg.HLREG0) & 1 << 1
    assert up.last_before(receiving, reg.RDRXCTL) & 1 << 1
    assert up.last_before(sending, reg.HLREG0) & 1 << 0
    assert up.last_before(sending, reg.HLREG0) & 1 << 10


def test_transmit_buffers_are_set_while_the_arbiter_rests(up: Trace) -> None:
    """4.6.11.3: sizes, thresholds and requests to the bus are set under ARBDIS, which ends before transmission."""
    (rests,), (goes_on,) = up.places("write", reg.RTTDCS, ARBDIS=1), up.places("write", reg.RTTDCS, ARBDIS=0)
    for register in (*reg.TXPBSIZE, *reg.TXPBTHRESH, reg.DTXMXSZRQ):
        assert all(rests < i < goes_on for i in up.places("write", register))
    assert goes_on < up.places("write", reg.DMATXCTL, TE=1)[0]


# ---------------------------------------------------------------------------------------------------------------------
# The end


def test_closing_stops_all_queues_first(down: Trace) -> None:
    """4.6.7.1.2: reception off, each queue off and seen to be, before the card is kept from the bus."""
    disabled = down.places("write", reg.CTRL, PCIE_MASTER_DISABLE=1)[0]
    assert down.places("write", reg.RXCTRL, RXEN=0)[0] < disabled
    for register, _ in ENABLES:
        written = down.places("write", register, ENABLE=0)[0]
        assert any(written < i < disabled for i in down.places("read", register, ENABLE=0))


def test_closing_resets_and_then_takes_memory_away(down: Trace) -> None:
    """Reset, seen to be done, interrupts masked (4.6.3.1); then no bus master; then memory; then the card is let go."""
    off = down.where(lambda access: master(access) is False)[0]
    assert masked(down, reset_done(down), off)
    unmapped = down.where(lambda access: access.kind == "unmap")
    assert len(unmapped) == 1 + RX  # the rings, and a pool for each receive queue
    assert off < min(unmapped)
    assert max(unmapped) < len(down) - 1
    assert [access.kind for access in down[off + 1 :]] == ["unmap"] * (1 + RX) + ["close"]
