"""The clock of a card, and stamps of PTP messages (IEEE 1588). Expected values are worked out here by hand.

A cycle of the clock is 6.4 ns at 10 Gbit/s, ten times as long at 1 Gbit/s and a hundred times at 100 Mbit/s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import OTHER, STATION, arrive, batch_of, frame, open_card, receive_all

import ixy
from ixy.device import Device
from ixy.packets.mempool import Mempool
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

ETQF, TSYNCRXCTL, RXSTMPL, RXSTMPH, RXSATRL, RXSATRH, RXMTRL = 0x5128, 0x5188, 0x51E8, 0x51A4, 0x51A0, 0x51A8, 0x5120
TSYNCTXCTL, TXSTMPL, TXSTMPH = 0x8C00, 0x8C04, 0x8C08
SYSTIML, SYSTIMH, TIMINCA, TIMADJL, TIMADJH = 0x8C0C, 0x8C10, 0x8C14, 0x8C18, 0x8C1C
EN, VALID = 1 << 4, 1 << 0
V2_PLAIN, V1_UDP, V2, V2_EVENTS = (kind << 1 for kind in (0, 1, 2, 5))  # TSYNCRXCTL.TYPE
UP_EN = 1 << 19
IS_PTP = 1 << 31 | 1 << 30 | 0x88F7  # an Ethertype filter: enabled, to be stamped
TS = 1 << 16  # of a receive descriptor's second word
EVENTS, GENERAL = 319, 320  # ports


class Time:
    """A time that stands still."""

    def __init__(self, card: Card) -> None:
        self.ns = 10**12
        card.clock._now = lambda: self.ns


@pytest.fixture
def card(machine: Machine) -> Iterator[Card]:
    card = machine.plug_in("sim:a,ready=0")
    yield card
    machine.unplug(card)


def system_time(card: Card) -> int:
    low = card.read32(SYSTIML)
    return low | card.read32(SYSTIMH) << 32


# ---------------------------------------------------------------------------------------------------------------------
# The clock


@pytest.mark.parametrize(
    ("increment", "elapsed", "time"),
    [
        (1 << 24 | 2, 64, 20),  # 10 cycles
        (1 << 24 | 2, 63, 18),  # 9.8 cycles
        (3 << 24 | 5, 64, 15),  # three times three cycles
        (1 << 24 | 0xCCCCCC, 3600 * 10**9, 562_500_000_000 * 0xCCCCCC),  # what Linux writes, for an hour
        (1 << 24, 10**9, 0),
        (0xCCCCCC, 10**9, 0),
        (0, 10**9, 0),
    ],
)
def test_increments(card: Card, increment: int, elapsed: int, time: int) -> None:
    """Each so many cycles, TIMINCA 31:24, the clock grows by TIMINCA 23:0."""
    now = Time(card)
    card.write32(TIMINCA, increment)
    now.ns += elapsed
    assert system_time(card) == time


@pytest.mark.parametrize(("wire", "time"), [("10G", 1000), ("1G", 100), ("100M", 10), ("2.5G", 1000)])
def test_cycles_depend_on_the_link(machine: Machine, wire: str, time: int) -> None:
    card = machine.plug_in(f"sim:a,cable=b,wire={wire}")
    now = Time(card)
    card.write32(TIMINCA, 1 << 24 | 1)
    now.ns += 6400
    assert system_time(card) == time
    machine.unplug(card)


def test_the_clock_is_set_and_goes_on(card: Card) -> None:
    """From one half into the other, and from the end to the beginning."""
    now = Time(card)
    card.write32(TIMINCA, 1 << 24 | 0x10)
    card.write32(SYSTIML, 0xFFFFFFF0)
    card.write32(SYSTIMH, 5)
    now.ns += 7
    assert system_time(card) == 6 << 32
    card.write32(SYSTIML, 0xFFFFFFF8)
    card.write32(SYSTIMH, 0xFFFFFFFF)
    now.ns += 7
    assert system_time(card) == 8
    low = card.read32(SYSTIML)
    now.ns += 10**9
    assert low | card.read32(SYSTIMH) << 32 == 8  # which was latched


def test_another_increment_counts_from_now_on(card: Card) -> None:
    """10 cycles by 3, then 10 by 7; then none; a reset stops the clock at 0."""
    now = Time(card)
    for increment in (1 << 24 | 3, 1 << 24 | 7, 0):
        card.write32(TIMINCA, increment)
        now.ns += 64
    assert system_time(card) == 100
    card.write32(0, 1 << 26)
    now.ns += 64
    assert system_time(card) == 0
    card.write32(TIMINCA, 1 << 24 | 1)
    now.ns += 64
    assert system_time(card) == 10


def test_adjusting(card: Card) -> None:
    """TIMADJ is added when its upper half is written, or taken off where bit 31 says so."""
    Time(card)
    card.write32(TIMADJL, 7)
    assert system_time(card) == 0
    card.write32(TIMADJH, 2)
    assert system_time(card) == (2 << 32) + 7
    card.write32(TIMADJL, 8)
    card.write32(TIMADJH, 1 << 31)
    assert system_time(card) == (2 << 32) - 1


# ---------------------------------------------------------------------------------------------------------------------
# Messages


def message_v2(kind: int, version: int = 2) -> bytes:
    """A PTP message of version 2: its type, version, the clock's identity and port, and number."""
    return bytes([kind, version]) + bytes(18) + bytes.fromhex("0102030405060708 000a") + b"\x12\x34" + bytes(12)


def message_v1(control: int) -> bytes:
    """A PTP message of version 1."""
    return b"\0\1" + bytes(20) + bytes.fromhex("0a0b0c0d0e0f") + bytes(2) + b"\x43\x21" + bytes([control]) + bytes(91)


def plain(message: bytes, kind: int = 0x88F7, tag: bytes = b"") -> bytes:
    return (STATION + OTHER + tag + kind.to_bytes(2, "big") + message).ljust(60, b"\0")


def udp(message: bytes, port: int = EVENTS, version: int = 4, fragment: int = 0, options: int = 0) -> bytes:
    """A frame with a UDP packet, whose checksums nobody looks at."""
    datagram = b"\x10\x00" + port.to_bytes(2, "big") + (8 + len(message)).to_bytes(2, "big") + b"\0\0" + message
    if version == 6:
        header = b"\x60\0\0\0" + len(datagram).to_bytes(2, "big") + b"\x11\x40" + bytes(32)
        return STATION + OTHER + b"\x86\xdd" + header + datagram
    size = 20 + options + len(datagram)
    header = bytes([0x45 + options // 4, 0]) + size.to_bytes(2, "big") + b"\0\0" + fragment.to_bytes(2, "big")
    return STATION + OTHER + b"\x08\x00" + header + b"\x40\x11" + bytes(10 + options) + datagram


CASES = [
    *((V2_EVENTS, 0, plain(message_v2(kind)), kind < 8) for kind in range(16)),
    (V2_EVENTS, 0, plain(message_v2(0xF0)), True),  # the upper half of the byte is no part of the type
    (V2_EVENTS, 0, plain(message_v2(0, version=1)), False),
    (V2_EVENTS, 0, plain(message_v2(0), tag=b"\x81\x00\x60\x07"), True),
    (V2_EVENTS, 0, plain(message_v2(0), kind=0x88F8), False),
    (V2_EVENTS, 0, udp(message_v2(0)), True),
    (V2_EVENTS, 0, udp(message_v2(0), options=8), True),
    (V2_EVENTS, 0, udp(message_v2(0), version=6), True),
    (V2_EVENTS, 0, udp(message_v2(0), GENERAL), False),
    (V2_EVENTS, 0, udp(message_v2(0), fragment=0x2000), False),
    (V2_EVENTS, 0, udp(message_v2(0)[:33]).ljust(60, b"\0"), False),  # cut short
    *((V2, 1 << 8, udp(message_v2(kind)), kind in (1, 2, 3)) for kind in range(5)),  # those of path delays always
    *((V2_PLAIN, 0, plain(message_v2(kind)), kind in (0, 2, 3)) for kind in range(5)),
    (V2_PLAIN, 0, udp(message_v2(0)), False),
    *((V1_UDP, 1, udp(message_v1(control)), control == 1) for control in range(5)),
    (V1_UDP, 1, plain(message_v1(1)), False),
    (V1_UDP, 0, udp(message_v2(0)), False),
    (3 << 1, 0, plain(message_v2(0)), False),  # reserved
]


def last_status(machine: Machine, device: Device) -> int:
    """The second word of the descriptor that the card has written last."""
    registers, size = machine.rack.registers[0], device.rx[0].ring.size
    base = (int(registers[0x1004 // 4]) << 32 | int(registers[0x1000 // 4])) - machine.rack.base
    return int(machine.rack.words[base // 8 + 2 * ((int(registers[0x1010 // 4]) - 1) % size) + 1])


@pytest.mark.parametrize(("kind", "wanted", "data", "stamped"), CASES, ids=map(str, range(len(CASES))))
def test_what_is_stamped(machine: Machine, kind: int, wanted: int, data: bytes, stamped: bool) -> None:
    """By TSYNCRXCTL.TYPE, the types in RXMTRL, an Ethertype filter and the UDP port; the descriptor says so."""
    with open_card(machine) as device:
        card = machine.cards["a"]
        card.write32(ETQF + 4 * 3, IS_PTP)
        card.write32(RXMTRL, EVENTS << 16 | wanted)
        card.write32(TSYNCRXCTL, EN | kind)
        arrive(machine, data)
        assert bool(card.read32(TSYNCRXCTL) & VALID) == stamped
        assert bool(last_status(machine, device) & TS) == stamped
        assert receive_all(device) == [data]


@pytest.mark.parametrize(("register", "value"), [(TSYNCRXCTL, V2_EVENTS), (ETQF, IS_PTP & ~(1 << 30)), (ETQF, 0x88F7)])
def test_what_is_not_enabled(machine: Machine, register: int, value: int) -> None:
    """Neither stamps without EN, nor by a filter that is off or not meant for it."""
    with open_card(machine) as device:
        card = machine.cards["a"]
        card.write32(ETQF, IS_PTP)
        card.write32(TSYNCRXCTL, EN | V2_EVENTS)
        card.write32(register, value)
        arrive(machine, plain(message_v2(0)))
        assert card.read32(TSYNCRXCTL) & VALID == 0
        assert last_status(machine, device) & TS == 0


@pytest.mark.parametrize(("priority", "stamped"), [(3, True), (2, False)])
def test_a_filter_that_asks_for_a_priority(machine: Machine, priority: int, stamped: bool) -> None:
    """UP_EN: only frames whose tag has it match (8.2.3.7.21)."""
    with open_card(machine):
        card = machine.cards["a"]
        card.write32(ETQF, IS_PTP | 3 << 16 | UP_EN)
        card.write32(TSYNCRXCTL, EN | V2_EVENTS)
        arrive(machine, plain(message_v2(0), tag=b"\x81\x00" + (priority << 13).to_bytes(2, "big")))
        assert bool(card.read32(TSYNCRXCTL) & VALID) == stamped


def test_a_stamp_stays_until_it_is_read(machine: Machine) -> None:
    """Meanwhile no other is taken. It lies between two looks at the clock, and says whose message it is of."""
    with open_card(machine) as device:
        card = machine.cards["a"]
        card.write32(ETQF, IS_PTP)
        card.write32(TSYNCRXCTL, EN | V2_EVENTS)
        card.write32(TIMINCA, 1 << 24 | 1)
        before = system_time(card)
        arrive(machine, plain(message_v2(0)))
        after = system_time(card)
        arrive(machine, plain(message_v2(1)))
        assert last_status(machine, device) & TS == 0
        assert (card.read32(RXSATRH), card.read32(RXSATRL)) == (0x1234 << 16 | 0x0304, 0x05060708)
        assert before <= card.read32(RXSTMPL) <= after
        assert card.read32(TSYNCRXCTL) == EN | V2_EVENTS | VALID
        assert card.read32(RXSTMPH) == 0
        assert card.read32(TSYNCRXCTL) == EN | V2_EVENTS
        arrive(machine, plain(message_v2(1)))
        assert after <= card.read32(RXSTMPL)
        assert last_status(machine, device) & TS


def test_a_message_that_waits_in_the_packet_buffer(machine: Machine) -> None:
    """With pause frames on, and no descriptor: its descriptor says that it was stamped when it arrived."""
    with ixy.open("sim:a", sim=machine, link_timeout=0, ring_size=64) as device:
        card = machine.cards["a"]
        card.write32(ETQF, IS_PTP)
        card.write32(TSYNCRXCTL, EN | V2_EVENTS)
        card.write32(0x1014, card.read32(0x1014) & ~(1 << 28))  # SRRCTL: no DROP_EN
        card.write32(0x3260, 1 << 31 | 0x1000)  # FCRTH
        card.write32(0x3D00, 1 << 3)  # FCCFG
        for number in range(63):
            arrive(machine, frame(number))
        arrive(machine, plain(message_v2(0)))
        assert card.read32(TSYNCRXCTL) & VALID
        assert len(receive_all(device)) == 63
        machine.step()
        assert last_status(machine, device) & TS
        assert receive_all(device) == [plain(message_v2(0))]


# ---------------------------------------------------------------------------------------------------------------------
# Frames that leave


def ask_for_a_stamp(machine: Machine, number: int) -> None:
    """Change the transmit descriptor of this number: MAC, bit 19 of its second word (7.2.3.2.4)."""
    registers = machine.rack.registers[0]
    base = (int(registers[0x6004 // 4]) << 32 | int(registers[0x6000 // 4])) - machine.rack.base
    machine.rack.words[base // 8 + 2 * number + 1] |= 1 << 19


@pytest.mark.parametrize("enabled", [True, False])
def test_sent(machine: Machine, enabled: bool) -> None:
    """The frame that asks for it leaves as it is, whatever its length, and its stamp lies between two looks."""
    with Mempool(64) as pool, open_card(machine, "sim:a,cable=b") as a, open_card(machine, "sim:b") as b:
        card = machine.cards["a"]
        card.write32(TSYNCTXCTL, EN * enabled)
        card.write32(TIMINCA, 1 << 24 | 1)
        before = system_time(card)
        frames = [frame(0), plain(message_v2(0)), frame(2, 1500), frame(3)]
        a.tx[0].send(batch_of(pool, frames))
        ask_for_a_stamp(machine, 1)
        ask_for_a_stamp(machine, 2)
        machine.step(3)
        assert receive_all(b) == frames
        assert card.read32(TSYNCTXCTL) == (EN | VALID) * enabled
        assert (before <= card.read32(TXSTMPL) <= system_time(card)) == enabled
        assert card.read32(TXSTMPH) == 0
        assert card.read32(TSYNCTXCTL) == EN * enabled


def test_not_asked_for(machine: Machine) -> None:
    with Mempool(64) as pool, open_card(machine, "sim:a,cable=b") as a:
        card = machine.cards["a"]
        card.write32(TSYNCTXCTL, EN)
        a.tx[0].send(batch_of(pool, [plain(message_v2(0))]))
        machine.step()
        assert card.read32(TSYNCTXCTL) == EN
