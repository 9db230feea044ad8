"""The model of the card, register by register, without the driver: the test writes what a driver would."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from by_hand import SLOTS, Rig
from hypothesis import given
from hypothesis import strategies as st
from lab import BROADCAST, OTHER, arrive, depart, frame

from ixy.registers import i82599 as reg
from ixy.sim.card.state import QUEUE_RX, QUEUE_RX_BYTES, RX_SIZES
from ixy.sim.machine import BUS_BASE, Machine
from ixy.sim.rack import CARDS

CTRL, STATUS, EICR, EIMS, EIMC = 0x0, 0x8, 0x800, 0x880, 0x888
EEC, EERD, SWSM, FWSM = 0x10010, 0x10014, 0x10140, 0x10148
RXCTRL, FCTRL, HLREG0, MAXFRS, AUTOC, LINKS = 0x3000, 0x5080, 0x4240, 0x4268, 0x42A0, 0x42A4
SECRXCTRL, SECRXSTAT, DMATXCTL, RDRXCTL = 0x8D00, 0x8D04, 0x4A80, 0x2F00
MCSTCTRL, MTA, RAL, RAH = 0x5090, 0x5200, 0xA200, 0xA204
GPRC, BPRC, MPRC, GPTC, GORCL, GORCH, GOTCL, GOTCH, TPR, RUC, ROC = (
    *(0x4074, 0x4078, 0x407C, 0x4080, 0x4088, 0x408C, 0x4090, 0x4094, 0x40D0, 0x40A4, 0x40AC),
)
RXMPC, QPRDC = 0x3FA0, 0x1430
CTRL_EXT = 0x18
RDBAL, RDBAH, RDLEN, RDH, SRRCTL, RDT, RXDCTL = 0x1000, 0x1004, 0x1008, 0x1010, 0x1014, 0x1018, 0x1028
TDBAL, TDBAH, TDLEN, TDH, TDT, TXDCTL = 0x6000, 0x6004, 0x6008, 0x6010, 0x6018, 0x6028
ENABLE = 1 << 25
DD, EOP = 1, 2


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


# ---------------------------------------------------------------------------------------------------------------------
# Registers


def test_reset_values(rig: Rig) -> None:
    """What the datasheet gives as values after reset, of the registers that software looks at first."""
    assert rig.read(STATUS) & 1 << 19
    assert rig.read(EEC) & (1 << 8 | 1 << 9) == 1 << 8 | 1 << 9
    assert rig.read(RDRXCTL) & 1 << 3
    assert rig.read(MAXFRS) >> 16 == 1518
    assert rig.read(AUTOC) >> 13 & 7 == 3
    assert rig.read(0x100C) & 1 << 12  # DCA_RXCTRL: the bit that must be cleared is set
    assert rig.read(FWSM) & 1 << 15
    for offset in (CTRL, EIMS, RXCTRL, FCTRL, RDT, RDH, TDT, RXDCTL, TXDCTL, GPRC, EICR):
        assert rig.read(offset) == 0, hex(offset)


def test_identity_in_config_space(rig: Rig) -> None:
    """8086:10fb, an Ethernet controller; only the command register is writable."""
    config = rig.card.config_read
    assert (config(0, 2), config(2, 2), config(9, 3)) == (0x8086, 0x10FB, 0x020000)
    assert config(0, 4) == 0x10FB8086
    rig.card.config_write(0, 4, 0)
    assert config(0, 4) == 0x10FB8086
    rig.card.config_write(4, 2, 0x0006)
    assert config(4, 2) == 0x0006


@pytest.mark.parametrize("bit", [26, 3])
def test_reset_clears(rig: Rig, bit: int) -> None:
    """CTRL.RST and CTRL.LRST bring all registers back, statistics to zero, and clear themselves."""
    rig.set_up()
    arrive(rig.machine, frame())
    rig.write(RAL, 0x12345678)
    rig.write(CTRL, 1 << bit)
    assert rig.read(CTRL) == 0
    for offset in (RXCTRL, RDLEN, RDH, RDT, RXDCTL, TXDCTL, FCTRL, GPRC, GORCL, GORCH):
        assert rig.read(offset) == 0, hex(offset)
    assert rig.read(RAL).to_bytes(4, "little") + rig.read(RAH).to_bytes(4, "little")[:2] == rig.card.mac
    assert rig.read(RAH) >> 31 == 1
    assert rig.read(MAXFRS) >> 16 == 1518


def test_access_beyond_the_bar(rig: Rig) -> None:
    """Beyond BAR 0, or not at a multiple of 4: reads are all ones, writes go nowhere."""
    for offset in (reg.BAR0_SIZE, -4, 2, 1 << 40):
        assert rig.read(offset) == 0xFFFFFFFF
        rig.write(offset, 1)
    assert rig.read(CTRL) == 0


def eeprom_word(rig: Rig, address: int) -> int:
    rig.write(EERD, 1 | address << 2)
    value = rig.read(EERD)
    assert value & 2  # done
    assert value >> 2 & 0x3FFF == address
    return value >> 16


def test_eeprom(rig: Rig) -> None:
    """Words 0 to 0x3F add up to 0xBABA (6.3.2); the first three are the address that the receive filter starts with."""
    words = [eeprom_word(rig, address) for address in range(0x40)]
    assert sum(words) & 0xFFFF == 0xBABA
    assert b"".join(word.to_bytes(2, "little") for word in words[:3]) == rig.card.mac
    assert eeprom_word(rig, 0x3FFF) == 0


def test_eeprom_reads_only_when_started(rig: Rig) -> None:
    """Without the start bit there is nothing done."""
    rig.write(EERD, 5 << 2)
    assert rig.read(EERD) & 2 == 0


def test_eeprom_request_and_grant(rig: Rig) -> None:
    """The grant follows the request both ways, and the card says that an EEPROM is there (8.2.3.2.1)."""
    rig.write(EEC, 1 << 6)
    assert rig.read(EEC) & (1 << 6 | 1 << 7) == 1 << 6 | 1 << 7
    rig.write(EEC, 0)
    assert rig.read(EEC) & (1 << 6 | 1 << 7) == 0
    assert rig.read(EEC) & 1 << 8


def test_semaphore(rig: Rig) -> None:
    """Reading SWSM takes SMBI: the first reader sees 0, later ones 1, until it is written 0 (10.5.4)."""
    assert [rig.read(SWSM) & 1 for _ in range(3)] == [0, 1, 1]
    rig.write(SWSM, 2)
    assert rig.read(SWSM) & 2  # the second semaphore can be set meanwhile
    rig.write(SWSM, 0)
    assert rig.read(SWSM) & 1 == 0


def test_interrupt_masks(rig: Rig) -> None:
    """EIMS sets bits, EIMC clears bits, neither touches others."""
    rig.write(EIMS, 0x0F)
    rig.write(EIMS, 0x30)
    rig.write(EIMC, 0x05)
    assert rig.read(EIMS) == 0x3A
    rig.write(EIMC, 0x7FFFFFFF)
    assert rig.read(EIMS) == 0


def test_master_disable(rig: Rig) -> None:
    """CTRL.PCIE_MASTER_DISABLE makes STATUS say that the master is off, and the card does no DMA (5.2.5.3.2)."""
    rig.set_up()
    rig.write(CTRL, 1 << 2)
    assert rig.read(STATUS) & 1 << 19 == 0
    arrive(rig.machine, frame())
    assert (rig.rx[0, 1], rig.read(RDH)) == (0, 0)
    rig.post(0, frame())
    rig.write(TDT, 1)
    assert depart(rig.machine) == []
    rig.write(CTRL, 0)
    assert rig.read(STATUS) & 1 << 19
    assert depart(rig.machine) == [frame()]


def test_read_only_registers(rig: Rig) -> None:
    """Writing STATUS, LINKS and SECRXSTAT does nothing."""
    before = [rig.read(offset) for offset in (STATUS, LINKS, SECRXSTAT)]
    for offset in (STATUS, LINKS, SECRXSTAT):
        rig.write(offset, 0xFFFFFFFF)
    assert [rig.read(offset) for offset in (STATUS, LINKS, SECRXSTAT)] == before


def test_restart_of_the_link_clears_itself(rig: Rig) -> None:
    """AUTOC.RESTART_AN is gone when read, the mode stays."""
    rig.write(AUTOC, 3 << 13 | 1 << 12)
    assert rig.read(AUTOC) == 3 << 13


def test_security_path_empties(rig: Rig) -> None:
    """SECRXSTAT follows SECRXCTRL.RX_DIS (4.6.7)."""
    assert rig.read(SECRXSTAT) & 1 == 0
    rig.write(SECRXCTRL, 2)
    assert rig.read(SECRXSTAT) & 1 == 1
    rig.write(SECRXCTRL, 0)
    assert rig.read(SECRXSTAT) & 1 == 0


def test_link_follows_the_wire(rig: Rig) -> None:
    """Nothing plugged in: down. With a cable: up, at 10 Gbit/s."""
    assert rig.read(LINKS) == 0
    assert rig.read(STATUS) & 1 << 7 == 0
    other = rig.machine.plug_in("sim:b,cable=a")
    assert rig.read(LINKS) == 1 << 30 | 3 << 28
    assert rig.read(STATUS) & 1 << 7
    rig.machine.unplug(other)


def test_sixteen_cards() -> None:
    """A machine has room for 16 cards; the 17th is refused, one that leaves makes room, all addresses differ."""
    machine = Machine(stepped=True)
    cards = [machine.plug_in(f"sim:card{number}") for number in range(CARDS)]
    assert len({card.mac for card in cards}) == CARDS == 16
    with pytest.raises(Exception, match="sim:more: 16 simulated cards are in use"):
        machine.plug_in("sim:more")
    machine.unplug(cards.pop())
    cards.append(machine.plug_in("sim:more"))
    for card in cards:
        machine.unplug(card)


# ---------------------------------------------------------------------------------------------------------------------
# Statistics


def test_statistics_count_and_clear(rig: Rig) -> None:
    """Two unicast frames, one multicast, one broadcast, one too short, one too long; one sent. Reading clears."""
    rig.set_up()
    for data in (frame(1, 60), frame(2, 100), frame(3, destination=b"\x01" * 6), frame(4, destination=BROADCAST)):
        arrive(rig.machine, data)
    arrive(rig.machine, bytes(59))
    arrive(rig.machine, bytes(1515))
    rig.post(0, frame(0, 200))
    rig.write(TDT, 1)
    assert len(depart(rig.machine)) == 1
    expected = {GPRC: 4, BPRC: 1, MPRC: 1, TPR: 6, RUC: 1, ROC: 1, GPTC: 1, GORCL: 60 + 100 + 60 + 60, GORCH: 0}
    expected |= {GOTCL: 204, GOTCH: 0, RXMPC: 0, QPRDC: 0}
    assert {offset: rig.read(offset) for offset in expected} == expected
    assert {offset: rig.read(offset) for offset in expected} == dict.fromkeys(expected, 0)


def test_halves_of_a_byte_count_belong_together(rig: Rig) -> None:
    """A frame that arrives between the reads of the two halves is in the next reading, not lost."""
    rig.set_up()
    arrive(rig.machine, frame())
    assert rig.read(GORCL) == 60
    arrive(rig.machine, frame())
    assert rig.read(GORCH) == 0
    assert (rig.read(GORCL), rig.read(GORCH)) == (60, 0)


def test_byte_count_has_36_bits(rig: Rig) -> None:
    """More than 4 GiB since the last reading: the high half holds what the low one cannot; at its end it stays."""
    counters = rig.machine.rack.queues[rig.card.index, 0]
    counters[QUEUE_RX_BYTES] += 5 * 2**32 + 7
    assert (rig.read(GORCL), rig.read(GORCH)) == (7, 5)
    counters[QUEUE_RX_BYTES] += 2**40
    assert (rig.read(GORCL), rig.read(GORCH)) == (0xFFFFFFFF, 0xF)
    assert (rig.read(GORCL), rig.read(GORCH)) == (0, 0)


def test_packet_count_sticks_at_its_end(rig: Rig) -> None:
    """A 32-bit counter does not wrap (8.2.3.23); another counter of the same thing clears by itself."""
    rig.machine.rack.counters[rig.card.index, RX_SIZES] += 2**32 + 5
    rig.machine.rack.queues[rig.card.index, 0, QUEUE_RX] += 2**32 + 5
    assert rig.read(GPRC) == 0xFFFFFFFF
    assert rig.read(GPRC) == 0
    assert rig.read(0x1030) == 0xFFFFFFFF  # QPRC[0]


def test_drops_are_counted_where_the_queue_says(rig: Rig) -> None:
    """No free descriptor: QPRDC if the queue drops by itself (SRRCTL.DROP_EN), else RXMPC, the packet buffer's."""
    rig.set_up(tail=1)
    arrive(rig.machine, frame(1))
    arrive(rig.machine, frame(2))
    assert (rig.read(QPRDC), rig.read(RXMPC)) == (1, 0)
    rig.write(SRRCTL, 1 << 25 | 2)
    arrive(rig.machine, frame(3))
    assert (rig.read(QPRDC), rig.read(RXMPC)) == (0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Receive


def test_receive_writes_back(rig: Rig) -> None:
    """One frame: the buffer holds it, the descriptor length, DD and EOP; the head moves, other descriptors do not."""
    rig.set_up()
    arrive(rig.machine, frame(5, 100))
    assert rig.content(0, 100) == frame(5, 100)
    assert int(rig.rx[0, 1]) == 100 << 32 | DD | EOP
    assert not rig.rx[1:, 1].any()
    assert (rig.read(RDH), rig.read(RDT)) == (1, 7)


def test_receive_over_several_buffers(rig: Rig) -> None:
    """A jumbo frame of 5000 bytes: three buffers of 2 KiB, the last with EOP."""
    rig.set_up()
    rig.write(HLREG0, 1 << 1 | 1 << 2)
    rig.write(MAXFRS, 9018 << 16)
    arrive(rig.machine, frame(5, 5000))
    assert [int(word) for word in rig.rx[:4, 1]] == [2048 << 32 | DD, 2048 << 32 | DD, 904 << 32 | DD | EOP, 0]
    assert rig.content(0, 2048) + rig.content(1, 2048) + rig.content(2, 904) == frame(5, 5000)


def test_receive_needs_room_for_the_whole_frame(rig: Rig) -> None:
    """Two free buffers for a frame of three: dropped whole, and a small one behind it still comes in."""
    rig.set_up(tail=2)
    rig.write(HLREG0, 1 << 1 | 1 << 2)
    rig.write(MAXFRS, 9018 << 16)
    arrive(rig.machine, frame(5, 5000))
    assert (rig.read(RDH), rig.read(QPRDC)) == (0, 1)
    arrive(rig.machine, frame(6))
    assert int(rig.rx[0, 1]) == 60 << 32 | DD | EOP


@pytest.mark.parametrize(
    ("what", "offset", "value"),
    [
        ("receiver off", RXCTRL, 0),
        ("queue off", RXDCTL, 0),
        ("ring empty", RDT, 0),
        ("tail beyond the ring", RDT, SLOTS),
        ("tail far beyond", RDT, 0xFFFF),
        ("head beyond the ring", RDH, SLOTS),
        ("ring of no length", RDLEN, 0),
        ("buffers of no size", SRRCTL, 1 << 25),
    ],
)
def test_no_receive(rig: Rig, what: str, offset: int, value: int) -> None:
    """When the write has returned, a frame that arrives changes no byte of memory."""
    rig.set_up()
    if offset == RDH:  # only of a queue that is not enabled
        rig.write(RXDCTL, 0)
    rig.write(offset, value)
    rig.write(RXDCTL, 0 if offset == RXDCTL else ENABLE)
    before = rig.memory.bytes.copy()
    for _ in range(20):
        arrive(rig.machine, frame(1))
    assert np.array_equal(rig.memory.bytes, before), what
    assert rig.machine.dma_refused(rig.card) == 0


def test_no_dma_without_bus_mastering(rig: Rig) -> None:
    """The command register's bit 2 gates receive and transmit; what arrives meanwhile is missed."""
    rig.set_up()
    rig.card.config_write(4, 2, 0)
    before = rig.memory.bytes.copy()
    arrive(rig.machine, frame(1))
    assert np.array_equal(rig.memory.bytes, before)
    assert rig.read(RXMPC) == 1
    rig.post(0, frame(2), command=1 << 27)
    rig.write(TDT, 1)
    before = rig.memory.bytes.copy()
    assert depart(rig.machine) == []
    assert np.array_equal(rig.memory.bytes, before)  # no write-back either
    rig.card.config_write(4, 2, 1 << 2)
    assert depart(rig.machine) == [frame(2)]


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_rings_of_nonsense(head: int, tail: int, length: int) -> None:
    """Whatever stands in the ring registers, both directions end, and no DMA leaves the memory that was allowed."""
    rig = Rig()
    rig.set_up()
    for offset, value in ((RDH, head), (RDT, tail), (RDLEN, length), (TDLEN, length), (TDH, head), (TDT, tail)):
        rig.write(offset, value)
    for number in range(3):
        arrive(rig.machine, frame(number))
    depart(rig.machine, 100)
    rig.machine.step(3)
    rig.close()


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


def test_transmit_reports_where_asked(rig: Rig) -> None:
    """Three packets, the second with RS: all leave, only the second descriptor says DD (7.2.3.5.1)."""
    rig.set_up()
    for slot in range(3):
        rig.post(slot, frame(slot, 100 + slot), command=1 << 27 if slot == 1 else 0)
    written = rig.tx[:3, 1].copy()
    rig.write(TDT, 3)
    assert depart(rig.machine) == [frame(slot, 100 + slot) for slot in range(3)]
    assert int(rig.tx[1, 1]) == 1 << 32
    assert rig.tx[[0, 2], 1].tolist() == written[[0, 2]].tolist()
    assert rig.read(TDH) == 3


def test_transmit_gathers_buffers(rig: Rig) -> None:
    """A packet of three descriptors, EOP on the last, is one frame; it counts once."""
    rig.set_up()
    data = frame(1, 900)
    for slot in range(3):
        rig.post(slot, data[300 * slot : 300 * slot + 300])
        rig.tx[slot, 1] = int(rig.tx[slot, 1]) & (1 << 46) - 1 | 900 << 46  # PAYLEN is the packet's
        if slot < 2:
            rig.tx[slot, 1] &= ~(1 << 24)
    rig.write(TDT, 3)
    assert depart(rig.machine) == [data]
    assert rig.read(GPTC) == 1


def test_transmit_skips_context_descriptors(rig: Rig) -> None:
    """A context descriptor (7.2.3.2.3) between two packets carries no data; it is reported where asked."""
    rig.set_up()
    rig.post(0, frame(0))
    rig.tx[1] = (0, 1 << 29 | 2 << 20 | 1 << 27)
    rig.post(2, frame(2))
    rig.write(TDT, 3)
    assert depart(rig.machine) == [frame(0), frame(2)]
    assert int(rig.tx[1, 1]) == 1 << 32


@pytest.mark.parametrize(
    ("what", "offset", "value"),
    [("queue off", TXDCTL, 0), ("engine off", DMATXCTL, 0), ("tail beyond", TDT, SLOTS), ("no length", TDLEN, 0)],
)
def test_no_transmit(rig: Rig, what: str, offset: int, value: int) -> None:
    """When the write has returned, nothing leaves, and no byte of memory changes."""
    rig.set_up()
    rig.post(0, frame(0), command=1 << 27)
    rig.write(TDT, 1)
    rig.write(offset, value)
    before = rig.memory.bytes.copy()
    assert depart(rig.machine, 100) == [], what
    assert rig.machine.step() == 0
    assert np.array_equal(rig.memory.bytes, before)


# ---------------------------------------------------------------------------------------------------------------------
# DMA


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(0, id="null"),
        pytest.param(-1, id="all ones"),
        pytest.param(BUS_BASE - 2048, id="before the bus's memory"),
        pytest.param(BUS_BASE, id="memory that was never mapped"),
        pytest.param(0x7F00_0000_0000, id="a pointer"),
        pytest.param(1 << 62, id="far away"),
    ],
)
def test_dma_outside_mapped_memory_is_refused(rig: Rig, address: int, caplog: pytest.LogCaptureFixture) -> None:
    """Receive and transmit to a wrong address: no harm, the card counts, and says so when it is unplugged."""
    rig.set_up()
    rig.rx[0, 0] = address
    arrive(rig.machine, frame(1))
    assert int(rig.rx[0, 1]) & DD == 0
    rig.post(0, frame(2))
    rig.tx[0, 0] = address
    rig.write(TDT, 1)
    assert depart(rig.machine) == []
    assert rig.machine.dma_refused(rig.card) == 2
    caplog.set_level(logging.ERROR, "ixy.sim")
    rig.machine.unplug(rig.card)
    assert caplog.messages == [f"sim:a: 2 DMA accesses outside mapped memory, the last to {address:#x}"]


def test_dma_over_the_end_of_mapped_memory_is_refused(rig: Rig) -> None:
    """A buffer that begins in the last mapped page and ends behind it: refused whole, its first part too."""
    rig.set_up()
    start = rig.memory.size - 50
    rig.rx[0, 0] = rig.bus + start
    arrive(rig.machine, frame(1, 60))
    assert not rig.memory.bytes[start:].any()
    assert rig.machine.dma_refused(rig.card) == 1
    rig.rx[0, 0] = rig.bus + rig.memory.size - 60
    arrive(rig.machine, frame(1, 60))
    assert rig.memory.bytes[-60:].tobytes() == frame(1, 60)


def test_ring_outside_mapped_memory(rig: Rig) -> None:
    """A ring at an address of nonsense: refused and counted, in both directions."""
    rig.set_up()
    rig.write(RDBAH, 0)
    rig.write(TDBAH, 0)
    arrive(rig.machine, frame(1))
    rig.write(TDT, 1)
    assert depart(rig.machine) == []
    assert rig.machine.dma_refused(rig.card) == 2


def test_unmapped_memory_is_out_of_reach(rig: Rig) -> None:
    """Memory that was mapped and unmapped again is refused, and mapped again it is reached."""
    rig.set_up()
    rig.machine.unmap(rig.memory)
    arrive(rig.machine, frame(1))
    assert rig.machine.dma_refused(rig.card) == 1
    rig.machine.map(rig.memory)
    arrive(rig.machine, frame(2))
    assert rig.content(0, 60) == frame(2)


# ---------------------------------------------------------------------------------------------------------------------
# Filters, each against the datasheet's words computed in another way


def accepts(rig: Rig, address: bytes) -> bool:
    before = rig.read(RDH)
    rig.write(RDT, (before - 1) % SLOTS)
    arrive(rig.machine, frame(0, destination=address))
    return rig.read(RDH) != before


addresses = st.binary(min_size=6, max_size=6)


def hash_bits(address: bytes, offset: int) -> int:
    """7.1.1.1.2: bits 47:36, 46:35, 45:34 or 43:32 of the address, whose bit 47 is the last byte's highest."""
    value = int.from_bytes(address, "little")
    low = {0: 36, 1: 35, 2: 34, 3: 32}[offset]
    return value >> low & 0xFFF


@given(address=addresses, other=addresses, offset=st.integers(0, 3), enabled=st.booleans())
def test_multicast_table(address: bytes, other: bytes, offset: int, enabled: bool) -> None:
    """With one bit of the table set, those multicast addresses come in whose 12 bits name it, if the filter is on."""
    address, other = bytes([address[0] | 1]) + address[1:], bytes([other[0] | 1]) + other[1:]
    rig = Rig()
    rig.set_up()
    rig.write(FCTRL, 0)
    rig.write(MCSTCTRL, offset | (4 if enabled else 0))
    bit = hash_bits(address, offset)
    for word in range(128):  # what the table held at power-on
        rig.write(MTA + 4 * word, 0)
    rig.write(MTA + 4 * (bit // 32), 1 << bit % 32)
    for candidate in (address, other):
        if candidate != BROADCAST:
            assert accepts(rig, candidate) == (enabled and hash_bits(candidate, offset) == bit)
    rig.close()


@given(address=addresses, entry=st.integers(0, 127), valid=st.booleans(), flip=st.integers(0, 47))
def test_exact_filters(address: bytes, entry: int, valid: bool, flip: int) -> None:
    """An address in any of 128 entries comes in if the entry is valid; with one bit flipped it does not."""
    rig = Rig()
    rig.set_up()
    rig.write(FCTRL, 0)
    rig.write(RAH, 0)  # the station's own entry is off
    rig.write(RAL + 8 * entry, int.from_bytes(address[:4], "little"))
    rig.write(RAH + 8 * entry, int.from_bytes(address[4:], "little") | (1 << 31 if valid else 0))
    flipped = (int.from_bytes(address, "big") ^ 1 << flip).to_bytes(6, "big")
    assert accepts(rig, address) == (valid and address != BROADCAST)
    assert not accepts(rig, flipped)
    rig.close()


@pytest.mark.parametrize(
    ("bit", "accepted"),
    [(8, {"multicast"}), (9, {"unicast"}), (10, {"broadcast"}), (1, set())],
    ids=["MPE", "UPE", "BAM", "SBP"],
)
def test_modes(rig: Rig, bit: int, accepted: set[str]) -> None:
    """Each of FCTRL's bits lets in one kind of address, and only that."""
    rig.set_up()
    rig.write(FCTRL, 1 << bit)
    kinds = {"unicast": OTHER, "multicast": b"\x01\0\x5e\0\0\x01", "broadcast": BROADCAST}
    assert {kind for kind, address in kinds.items() if accepts(rig, address)} == accepted


@pytest.mark.parametrize(("jumbo", "longest"), [(False, 1514), (True, 8996)])
def test_longest_frame(rig: Rig, jumbo: bool, longest: int) -> None:
    """1518 bytes with the frame check sequence; MAXFRS counts only with HLREG0.JUMBOEN (8.2.3.22.8)."""
    rig.set_up()
    rig.write(MAXFRS, 9000 << 16)
    rig.write(HLREG0, 1 << 1 | jumbo << 2)
    for size in (longest, longest + 1):
        arrive(rig.machine, frame(0, size))
    assert (rig.read(GPRC), rig.read(ROC)) == (1, 1)
