"""The registers of the simulated card as the datasheet has them: reset values, what survives which reset, which bits
can be written, mirrors, and bits that take their time. Expected values are worked out here from the fields' own values.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
from lab import arrive, frame, open_card

from ixy.errors import AddressError
from ixy.packets.dma import allocate_rings
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

CTRL, STATUS, CTRL_EXT, I2CCTL, EEC, SWSM, SW_FW_SYNC = 0x0, 0x8, 0x18, 0x28, 0x10010, 0x10140, 0x10160
RST, LRST = 1 << 26, 1 << 3
MTA, VFTA, RAL, RAH, MPSAR, PFUTA, FTQF = 0x5200, 0xA000, 0xA200, 0xA204, 0xA600, 0xF400, 0xE600
RETA, RSSRK, PFVLVF, PFVLVFB = 0xEB00, 0xEB80, 0xF100, 0xF200
RDRXCTL, SECRXCTRL, SECRXSTAT, HLREG0, AUTOC, LINKS = 0x2F00, 0x8D00, 0x8D04, 0x4240, 0x42A0, 0x42A4
DMATXCTL, FCTRL, RXCTRL, MAXFRS = 0x4A80, 0x5080, 0x3000, 0x4268
AUTO_RD, DMAIDONE, LINK_UP, ENABLE = 1 << 9, 1 << 3, 1 << 30, 1 << 25
DONE = 0b1111111 << 15  # of the EEPROM's seven parts


def rx(offset: int, queue: int) -> int:
    """A register of a receive queue: those from 64 on lie elsewhere (8.2.3.8)."""
    return offset + 0x40 * queue if queue < 64 else offset - 0x1000 + 0xD000 + 0x40 * (queue - 64)


def tx(offset: int, queue: int) -> int:
    return offset + 0x40 * queue


RDBAL, RDBAH, RDLEN, RDH, SRRCTL, RDT, RXDCTL, DCA_RXCTRL = (
    *(0x1000, 0x1004, 0x1008, 0x1010, 0x1014, 0x1018, 0x1028, 0x100C),
)
TDBAL, TDBAH, TDLEN, TDH, TDT, TXDCTL, DCA_TXCTRL = 0x6000, 0x6004, 0x6008, 0x6010, 0x6018, 0x6028, 0x600C


@pytest.fixture
def machine() -> Machine:
    return Machine(stepped=True)


@pytest.fixture
def card(machine: Machine) -> Iterator[Card]:
    card = machine.plug_in("sim:a,ready=0")
    yield card
    machine.unplug(card)


# ---------------------------------------------------------------------------------------------------------------------
# Reset values

RESET_VALUES = {
    CTRL: 0,
    STATUS: 1 << 19,  # PCIe master enabled
    CTRL_EXT: 0,
    EEC: 1 << 4 | 1 << 8 | AUTO_RD | 8 << 11 | DONE,  # no writes to flash; EEPROM present, read, of 256 Kbit
    0x10148: 1 << 15,  # FWSM: firmware valid
    0x3260: 0,  # FCRTH
    RDRXCTL: DMAIDONE | 1 << 11 | 1 << 15 | 8 << 17,  # done; two reserved bits; RSCFRSTSIZE 8
    **{0x3C00 + 4 * n: 512 << 10 for n in range(8)},  # RXPBSIZE
    RXCTRL: 0,
    0x3190: sum(1 << 4 * n + 3 for n in range(8)),  # RXMEMWRAP: eight packet buffers, each empty
    DMATXCTL: 0x8100 << 16,  # VT
    0x4A88: 0xFF6 | 0xFF6 << 16,  # DTXTCPFLGL: CWR, FIN and PSH stay away from first and middle segments
    0x4A8C: 0xF7F,  # DTXTCPFLGH
    0x8100: 0x10,  # DTXMXSZRQ
    **{0xCC00 + 4 * n: 160 << 10 for n in range(8)},  # TXPBSIZE
    **{0x4950 + 4 * n: 150 if n == 0 else 0 for n in range(8)},  # TXPBTHRESH
    0x4900: 1 << 22 | 1 << 23,  # RTTDCS: BDPM, BPBFSM
    0xCD00: 0x224 << 22,  # RTTPCS: ARBD
    0x8800: 1,  # SECTXCTRL: disabled
    0x8808: 0x250,  # SECTXBUFFAF
    0x8810: 1 | 1 << 12,  # SECTXMINIFG
    SECRXCTRL: 1,
    SECRXSTAT & ~3: 2,
    HLREG0: 1 << 0 | 1 << 1 | 1 << 3 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 27,  # CRC both ways, padding, MDC, errors
    MAXFRS: 1518 << 16,
    AUTOC: 3 << 13,  # 10 Gbit/s serial
    0x42A8: 2 << 16,  # AUTOC2: SFI
    FCTRL: 0,
    0x5088: 0x8100,  # VLNCTRL: VET
    0x5090: 0,  # MCSTCTRL
    0x5000: 0,  # RXCSUM
    0xEC80: 0,  # MRQC
    0xEE00: 0,  # FDIRCTRL
    0xEE38: 0x8000,  # FDIRFREE
    0xEE68: 0x80000001,  # FDIRHKEY
    0xEE6C: 0x80800101,  # FDIRSKEY
    0x880: 0,  # EIMS
    0x898: 0,  # GPIE
}
QUEUE_VALUES = {
    RDLEN: 0,
    RDH: 0,
    RDT: 0,
    RXDCTL: 0,
    SRRCTL: 2 | 4 << 8,  # buffers of 2 KiB, headers of 256 bytes, legacy descriptors
    DCA_RXCTRL: 1 << 9 | 1 << 12 | 1 << 13 | 1 << 15,  # relaxed ordering, and the bit that must be cleared
    TDLEN: 0,
    TDH: 0,
    TDT: 0,
    TXDCTL: 0,
    DCA_TXCTRL: 1 << 9 | 1 << 11 | 1 << 13,
}


def place(offset: int, queue: int) -> int:
    return rx(offset, queue) if offset < 0x2000 else tx(offset, queue)


def test_reset_values(card: Card) -> None:
    assert {offset: card.read32(offset) for offset in RESET_VALUES} == RESET_VALUES
    for offset, value in QUEUE_VALUES.items():
        assert [card.read32(place(offset, queue)) for queue in range(128)] == [value] * 128, hex(offset)


@pytest.mark.parametrize("reset", [RST, LRST, RST | LRST])
def test_every_reset_brings_them_back(card: Card, reset: int) -> None:
    """Whatever was written before, but for the mode of the link, which a reset of the device leaves alone."""
    link = {AUTOC: 3 << 13, 0x42A8: 2 << 16}
    before = {offset: card.read32(offset) for offset in RESET_VALUES}
    for offset in (offset for offset in RESET_VALUES if offset != CTRL):
        extended_vlan = 1 << 26 if offset == CTRL_EXT else 0
        card.write32(offset, ~before[offset] & ~extended_vlan & 0xFFFFFFFF)
    for offset in QUEUE_VALUES:
        for queue in (0, 63, 64, 127):
            card.write32(place(offset, queue), 0xFFFFFFFF)
    card.write32(CTRL, reset)
    after = {offset: card.read32(offset) for offset in RESET_VALUES}
    if reset & LRST:
        assert after == before
    else:
        assert {at: value for at, value in after.items() if at not in link} == {
            at: value for at, value in before.items() if at not in link
        }
    for offset, value in QUEUE_VALUES.items():
        for queue in (0, 63, 64, 127):
            assert card.read32(place(offset, queue)) == value, hex(offset)


# ---------------------------------------------------------------------------------------------------------------------
# What survives

TABLES = {MTA: 128, VFTA: 128, MPSAR: 256, PFUTA: 128, FTQF: 128, RETA: 32, RSSRK: 10, PFVLVF: 64, PFVLVFB: 128}


def resets(card: Card, machine: Machine) -> dict[str, object]:
    """Each reset that leaves the power on, as something to call."""
    return {
        "RST": lambda: card.write32(CTRL, RST),
        "LRST": lambda: card.write32(CTRL, LRST),
        "function": lambda: machine.unplug(card),
    }


def contents(card: Card) -> list[int]:
    tables = [card.read32(at + 4 * n) for at, count in TABLES.items() for n in range(count)]
    bases = [card.read32(place(at, queue)) for at in (RDBAL, RDBAH, TDBAL, TDBAH) for queue in range(128)]
    addresses = [card.read32(at + 8 * n) for at in (RAL, RAH) for n in range(1, 128)]
    return tables + bases + addresses


def test_tables_hold_anything_after_power_on(machine: Machine) -> None:
    """4.2.1: they have no default. The same card has the same each time, another card or another seed something else.

    The low bits of rings' addresses are 0 all the same, no address but the station's is valid, and no filter enabled.
    """
    found: dict[str, list[int]] = {}
    for address in ("sim:a", "sim:a", "sim:b", "sim:a,seed=7", "sim:b,seed=7"):
        card = machine.plug_in(address)
        words = contents(card)
        assert sum(word != 0 for word in words) > 0.9 * len(words)
        assert found.setdefault(address, words) == words
        assert not any(card.read32(place(at, queue)) & 0x7F for at in (RDBAL, TDBAL) for queue in range(128))
        assert not any(card.read32(FTQF + 4 * n) >> 31 for n in range(128))
        assert [card.read32(RAH + 8 * n) >> 16 for n in range(128)] == [0x8000] + [0] * 127
        assert card.read32(RAL).to_bytes(4, "little") + card.read32(RAH).to_bytes(4, "little")[:2] == card.mac
        machine.unplug(card)
    assert found["sim:a,seed=7"] == found["sim:b,seed=7"]
    assert len({tuple(words) for words in found.values()}) == 3


@pytest.mark.parametrize("reset", ["RST", "LRST", "function"])
def test_tables_survive_every_reset(machine: Machine, reset: str) -> None:
    """… as long as there is power: what software has written stays, valid bits of addresses go (8.2.3.7.9)."""
    other = machine.plug_in("sim:b,cable=a")  # while it is there, the card keeps its power
    card = machine.plug_in("sim:a")
    for at, count in TABLES.items():
        for n in range(count):
            card.write32(at + 4 * n, 0x1000 + n)
    card.write32(RAL + 8, 0x12345678)
    card.write32(RAH + 8, 1 << 31 | 0x9ABC)
    card.write32(place(RDBAL, 100), 0xABCDE080)
    resets(card, machine)[reset]()  # type: ignore[operator]
    card = machine.plug_in("sim:a") if reset == "function" else card
    assert all(card.read32(at + 4 * n) == 0x1000 + n for at, count in TABLES.items() for n in range(count))
    assert (card.read32(RAL + 8), card.read32(RAH + 8)) == (0x12345678, 0x9ABC)
    assert card.read32(place(RDBAL, 100)) == 0xABCDE080
    for plugged in (card, other):
        machine.unplug(plugged)


@pytest.mark.parametrize("reset", ["RST", "LRST", "function"])
def test_what_else_survives(machine: Machine, reset: str) -> None:
    """Semaphores and the wires to the module go with the power alone; Extended VLAN and the link's mode before."""
    other = machine.plug_in("sim:b,cable=a")
    card = machine.plug_in("sim:a,ready=0")
    card.write32(SWSM, 2)
    card.write32(SW_FW_SYNC, 1 << 2)
    card.write32(I2CCTL, 0b1000)
    card.write32(CTRL_EXT, 1 << 16 | 1 << 26 | 1 << 28)
    card.write32(AUTOC, 1 << 13)
    resets(card, machine)[reset]()  # type: ignore[operator]
    card = machine.plug_in("sim:a,ready=0") if reset == "function" else card
    assert card.read32(SWSM) & 2
    assert card.read32(SW_FW_SYNC) == 1 << 2
    assert card.read32(I2CCTL) & 0b1010 == 0b1000
    assert card.read32(CTRL_EXT) == (0 if reset == "function" else 1 << 26)
    assert card.read32(AUTOC) == (1 << 13 if reset == "RST" else 3 << 13)
    for plugged in (card, other):
        machine.unplug(plugged)


def test_a_driver_finds_its_tables_clear(machine: Machine) -> None:
    """Ours clears what has no value after power-on, before it lets packets in (4.6.7)."""
    with open_card(machine, "sim:a,seed=99"):
        card = machine.cards["a"]
        for at in (MTA, VFTA, PFUTA, FTQF, PFVLVF, PFVLVFB):
            assert not any(card.read32(at + 4 * n) for n in range(TABLES[at])), hex(at)
        assert [card.read32(MPSAR + 4 * n) for n in range(256)] == [1, 0] * 128


# ---------------------------------------------------------------------------------------------------------------------
# What can be written


@pytest.mark.parametrize(
    ("offset", "bits"),
    [
        (CTRL, 1 << 2),
        (CTRL_EXT, 1 << 16 | 1 << 17 | 1 << 26 | 1 << 28),  # PFRSTD (bit 14) clears itself
        (RXCTRL, 1),
        (RDT, 0xFFFF),
        (place(RDT, 127), 0xFFFF),
        (TDT, 0xFFFF),
        (place(TDT, 127), 0xFFFF),
        (RDH, 0xFFFF),
        (TDH, 0xFFFF),
        (RDBAL, 0xFFFFFF80),
        (TDBAL, 0xFFFFFF80),
        (RDLEN, 0xFFF80),
        (TDLEN, 0xFFF80),
        (RAH + 8, 1 << 31 | 0xFFFF),
        (0x8100, 0xFFF),  # DTXMXSZRQ
        (0x3C00, 0x3FF << 10),  # RXPBSIZE
        (0xCC00, 0x3FF << 10),  # TXPBSIZE
        (0x4950, 0x3FF),  # TXPBTHRESH
        (0x5090, 7),  # MCSTCTRL
        (MAXFRS, 0xFFFF << 16),
        (0x3260, 0x8007FFF0),  # FCRTH, as Linux's register test has it
    ],
)
def test_bits_that_keep_what_is_written(card: Card, offset: int, bits: int) -> None:
    card.write32(offset, 0xFFFFFFFF & ~(RST | LRST) if offset == CTRL else 0xFFFFFFFF)
    assert card.read32(offset) == bits
    card.write32(offset, 0)
    assert card.read32(offset) == 0


@pytest.mark.parametrize("offset", [STATUS, LINKS, SECRXSTAT, 0x8804, 0x10148, 0x3190, 0x42B0, 0x4074])
def test_read_only(card: Card, offset: int) -> None:
    before = card.read32(offset)
    for value in (0, 0xFFFFFFFF):
        card.write32(offset, value)
        assert card.read32(offset) == before


def test_status_among_what_can_be_written(card: Card) -> None:
    """RDRXCTL.DMAIDONE, EEC's status bits and FDIRCTRL.INIT_DONE are the card's; TXDCTL.SWFLSH clears itself."""
    card.write32(RDRXCTL, 1 << 1)
    assert card.read32(RDRXCTL) == 1 << 1 | DMAIDONE
    card.write32(EEC, 0)
    assert card.read32(EEC) == 1 << 8 | AUTO_RD | 8 << 11 | DONE
    card.write32(0xEE00, 1)
    assert card.read32(0xEE00) == 1 | 1 << 3
    card.write32(TXDCTL, 1 << 26 | 1 << 8)
    assert card.read32(TXDCTL) == 1 << 8


@pytest.mark.parametrize(("head", "control"), [(RDH, RXDCTL), (TDH, TXDCTL)])
@pytest.mark.parametrize("queue", [0, 63, 64, 127])
def test_head_of_an_enabled_queue(card: Card, head: int, control: int, queue: int) -> None:
    """It is the card's (8.2.3.8.4, 8.2.3.9.8), and begins at 0, as the tail does (8.2.3.8.6, 8.2.3.9.10)."""
    tail = head + 8
    card.write32(place(head, queue), 3)
    card.write32(place(tail, queue), 4)
    card.write32(place(control, queue), ENABLE)
    assert [card.read32(place(end, queue)) for end in (head, tail)] == [0, 0]
    card.write32(place(head, queue), 5)
    assert card.read32(place(head, queue)) == 0
    card.write32(place(control, queue), 0)
    card.write32(place(head, queue), 5)
    assert card.read32(place(head, queue)) == 5


def test_a_ring_is_the_cards_until_it_pauses(machine: Machine, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disabling a queue takes its head and tail back to 0, but not before the card has come to rest."""
    card.write32(DMATXCTL, 1)
    machine.rack.registers[card.index, TDH // 4] = 5  # so many were sent
    heads: list[int] = []
    pause = machine.paused

    @contextmanager
    def paused() -> Generator[None]:
        heads.append(card.read32(TDH))
        with pause():
            yield

    monkeypatch.setattr(machine, "paused", paused)
    card.write32(TXDCTL, 0)
    assert (heads[0], card.read32(TDH)) == (5, 0)


def test_transmit_enable_enables_queue_0(card: Card) -> None:
    """8.2.3.9.10: setting DMATXCTL.TE does, once; no other queue is."""
    card.write32(DMATXCTL, 0x8100 << 16 | 1)
    assert [card.read32(place(TXDCTL, queue)) for queue in (0, 1, 127)] == [ENABLE, 0, 0]
    card.write32(TXDCTL, 0)
    card.write32(DMATXCTL, 0x8100 << 16 | 1)
    assert card.read32(TXDCTL) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Mirrors


@pytest.mark.parametrize(
    ("offset", "mirror"),
    [
        (CTRL, 0x4),
        (RAL + 8 * 15, 0x5400 + 8 * 15),
        (RAH + 8, 0x5404 + 8),
        (SRRCTL, 0x2100),
        (SRRCTL + 0x40 * 15, 0x2100 + 4 * 15),
        (DCA_RXCTRL + 0x40 * 15, 0x2200 + 4 * 15),
        (0xEC80, 0x5818),  # MRQC
        (RETA + 4 * 31, 0x5C00 + 4 * 31),
        (RSSRK + 4 * 9, 0x5C80 + 4 * 9),
    ],
)
def test_mirrors(card: Card, offset: int, mirror: int) -> None:
    """One register at two places."""
    for written, read in ((offset, mirror), (mirror, offset)):
        card.write32(written, 1 << 2)
        assert card.read32(read) & 1 << 2
        card.write32(written, 0)
        assert card.read32(read) & 1 << 2 == 0


def test_reset_by_the_mirror_of_ctrl(card: Card) -> None:
    card.write32(FCTRL, 1 << 10)
    card.write32(0x4, RST)
    assert card.read32(FCTRL) == 0


# ---------------------------------------------------------------------------------------------------------------------
# 128 queues


@pytest.mark.parametrize("queue", [0, 63, 64, 127])
def test_a_frame_comes_to_any_queue(machine: Machine, queue: int) -> None:
    """By the redirection table of an X550's width there is no other way; here the classifier is told by hand."""
    memory = allocate_rings(1)
    base = int(machine.map(memory).pages[0])
    words = memory.bytes.view("int64")
    card = machine.plug_in("sim:a,ready=0")
    card.config_write(4, 2, 1 << 2)
    for at, value in ((RDBAL, base & 0xFFFFFFFF), (RDBAH, base >> 32), (RDLEN, 128), (SRRCTL, 1 << 25 | 2)):
        card.write32(place(at, queue), value)
    words[0] = base + 0x10000
    card.write32(place(RXDCTL, queue), ENABLE)
    card.write32(place(RDT, queue), 7)
    card.write32(FCTRL, 1 << 9)
    card.write32(RXCTRL, 1)
    receive_by_queue(machine, queue, frame(5))
    assert memory.bytes[0x10000:][:60].tobytes() == frame(5)
    assert card.read32(place(RDH, queue)) == 1
    card.write32(0x2300 + queue // 4 * 4, 9 << 8 * (queue % 4))  # RQSMR: statistics 9
    assert card.read32(0x1030 + 0x40 * 9) == 1  # QPRC
    machine.unplug(card)
    machine.unmap(memory)
    memory.close()


def receive_by_queue(machine: Machine, queue: int, data: bytes) -> None:
    """A frame arrives that is for this queue."""
    from ixy.sim.card import receive
    from ixy.sim.rack import PAGE, SLOT
    from ixy.sim.wires.tape import mapped

    card = machine.cards["a"]
    start = (card.index + 1) * SLOT - PAGE
    with mapped(start, PAGE):
        machine.rack.tape[start:][: len(data)] = list(data)
        receive.store(machine.rack, card.index, queue, start, len(data), 0, 0)


def test_both_ways_through_all_queues(machine: Machine) -> None:
    """Our driver opens 128 each way; what arrives without a rule is spread over the first 16 and nothing is lost."""
    with open_card(machine, rx_queues=128, tx_queues=128, ring_size=64, pool_size=96) as device:
        card = machine.cards["a"]
        assert all(card.read32(place(at, q)) & ENABLE for at in (RXDCTL, TXDCTL) for q in range(128))
        assert [card.read32(place(RDT, queue)) for queue in range(128)] == [63] * 128
        for queue in (15, 63, 64, 127):
            receive_by_queue(machine, queue, frame(queue))
            with device.rx[queue].receive() as batch:
                assert [bytes(packet) for packet in batch] == [frame(queue)]
        arrive(machine, frame(7))
        with device.rx[0].receive() as batch:
            assert [bytes(packet) for packet in batch] == [frame(7)]


# ---------------------------------------------------------------------------------------------------------------------
# Ready bits


def reads(card: Card, offset: int, bits: int, count: int) -> list[int]:
    """Whether bits are set, so many times."""
    return [int(card.read32(offset) & bits == bits) for _ in range(count)]


@pytest.mark.parametrize("ready", [0, 1, 3, 5])
@pytest.mark.parametrize("reset", [RST, LRST, RST | LRST])
def test_a_reset_takes_its_time(machine: Machine, ready: int, reset: int) -> None:
    """Its bits read 1 for so many reads, then the EEPROM is read and the DMA engine started for as many."""
    card = machine.plug_in(f"sim:a,gen=60,ready={ready}")
    for _ in range(3 * ready):
        card.read32(LINKS)
    for offset, bits in ((EEC, AUTO_RD | DONE), (RDRXCTL, DMAIDONE)):
        card.write32(CTRL, reset)
        assert reads(card, CTRL, reset, ready + 1) == [1] * ready + [0]
        assert reads(card, offset, bits, ready + 1) == ([0] * (ready - 1) + [1, 1])[: ready + 1]
    card.write32(CTRL, reset)
    assert reads(card, LINKS, LINK_UP, ready + 1) == [0 if reset & LRST else 1] * ready + [1]
    machine.unplug(card)


@pytest.mark.parametrize("ready", [0, 2, 3])
def test_queues_take_their_time(machine: Machine, ready: int) -> None:
    """ENABLE reads back late, on and off; nothing hurries by being written again, and other reads are time too."""
    card = machine.plug_in(f"sim:a,ready={ready}")
    for control in (place(RXDCTL, 0), place(RXDCTL, 127), place(TXDCTL, 0), place(TXDCTL, 127)):
        card.write32(control, ENABLE)
        card.write32(control, ENABLE)
        assert reads(card, control, ENABLE, ready + 1) == [0] * ready + [1]
        card.write32(control, 0)
        assert reads(card, control, ENABLE, ready + 1) == [1] * ready + [0]
        card.write32(control, ENABLE)
        for _ in range(ready):
            card.read32(FCTRL)
        assert reads(card, control, ENABLE, 1) == [1]
    machine.unplug(card)


def test_paths_and_links_take_their_time(machine: Machine) -> None:
    """SECRX_RDY after RX_DIS, queue 0 after TE, LINKS and STATUS after a restart of the link."""
    card = machine.plug_in("sim:a,gen=60,ready=4")
    for _ in range(8):
        card.read32(FCTRL)
    card.write32(SECRXCTRL, 2)
    assert reads(card, SECRXSTAT, 1, 5) == [0, 0, 0, 0, 1]
    card.write32(DMATXCTL, 1)
    assert reads(card, TXDCTL, ENABLE, 5) == [0, 0, 0, 0, 1]
    card.write32(AUTOC, 3 << 13 | 1 << 12)
    assert reads(card, LINKS, LINK_UP, 5) == [0, 0, 0, 0, 1]
    card.write32(AUTOC, 3 << 13 | 1 << 12)
    assert reads(card, STATUS, 1 << 7, 5) == [0, 0, 0, 0, 1]
    machine.unplug(card)


def test_few_reads_without_being_told(machine: Machine) -> None:
    """Fewer than the ten that Linux's driver has patience for."""
    card = machine.plug_in("sim:a")
    card.write32(RXDCTL, ENABLE)
    read = reads(card, RXDCTL, ENABLE, 10)
    assert read[0] == 0
    assert 1 < read.index(1) < 9
    machine.unplug(card)


@pytest.mark.parametrize("option", ["ready=-1", "ready=x", "ready=1.5", "ready=1e9", "seed=-1", "seed=x"])
def test_options_that_make_no_sense(machine: Machine, option: str) -> None:
    with pytest.raises(AddressError, match=f"^sim:a,{option}: {option.partition('=')[0]}"):
        machine.plug_in(f"sim:a,{option}")


# ---------------------------------------------------------------------------------------------------------------------
# What is not modelled


def test_registers_that_are_not_modelled(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    """They are memory; their uses are counted by name, where it is known, and told once. Mirrors are none of them."""
    for value in (0, 5, 6):
        card.write32(0x5808, value)
    assert [card.read32(0x5808) for _ in range(2)] == [6, 6]
    for offset in (0xED10, 0xED14, 0xED2C):
        card.write32(offset, 1)
    assert card.read32(0x1FFF0) == 0
    for modelled in (CTRL, 0x4, 0x5400, FCTRL, 0x4074, 0x880, place(RDT, 127)):
        card.read32(modelled)
        card.write32(modelled, 0)
    uses = {name: (use.offset, use.reads, use.writes) for name, use in card.unmodelled.uses.items()}
    assert uses == {"WUFC": (0x5808, 2, 3), "FCRETA": (0xED10, 0, 3), "0x1fff0": (0x1FFF0, 1, 0)}
    assert [record.getMessage().partition(", which")[0] for record in caplog.records] == [
        "sim:a: the driver writes WUFC (0x05808)",
        "sim:a: the driver writes FCRETA (0x0ed10)",
        "sim:a: the driver reads the register at 0x1fff0",
    ]


def test_our_driver_uses_none_of_them(machine: Machine) -> None:
    with open_card(machine, rx_queues=2, tx_queues=2) as device:
        device.set_promiscuous(False)
        device.set_vlan_filter(5, True)
        device.stats()
        assert machine.cards["a"].unmodelled.uses == {}
