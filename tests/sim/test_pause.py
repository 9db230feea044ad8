"""Pause frames (IEEE 802.3, annex 31B): obeyed, passed on or not, and sent."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab import OTHER, STATION, arrive, batch_of, frame, number_of, open_card, receive_all

import ixy
from ixy.packets.mempool import Mempool
from ixy.sim.card import state
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine
from ixy.sim.rack import TIMED

FCTTV, FCRTL, FCRTH, FCRTV, FCCFG, MFLCN, RXPBSIZE = 0x3200, 0x3220, 0x3260, 0x32A0, 0x3D00, 0x4294, 0x3C00
LXONTXC, LXOFFTXC, LXONRXCNT, LXOFFRXCNT = 0x3F60, 0x3F68, 0x41A4, 0x41A8
RDLEN, RDH, RDT, HLREG0, MAXFRS, RDRXCTL = 0x1008, 0x1010, 0x1018, 0x4240, 0x4268, 0x2F00
SRRCTL, RXMPC, GPTC, GOTCL, GOTCH, MPTC = 0x1014, 0x3FA0, 0x4080, 0x4090, 0x4094, 0x40F0
PMCF, DPF, RFCE = 1, 2, 8
TFCE, FCEN, XONE, DROP_EN = 1 << 3, 1 << 31, 1 << 31, 1 << 28
GROUP = bytes.fromhex("0180c2000001")


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


def control(quanta: int, destination: bytes = GROUP, opcode: int = 1) -> bytes:
    """A MAC control frame: its type, an opcode, and so many quanta of 512 bits."""
    body = b"\x88\x08" + opcode.to_bytes(2, "big") + quanta.to_bytes(2, "big")
    return (destination + OTHER + body).ljust(60, b"\0")


def received(card: Card) -> tuple[int, int]:
    """How many XON and XOFF frames the card has received."""
    return card.read32(LXONRXCNT), card.read32(LXOFFRXCNT)


def keep_frames(card: Card, high: int, low: int, quanta: int = 0xFFFF) -> None:
    """Send pause frames, by these thresholds in bytes, and drop nothing."""
    card.write32(SRRCTL, card.read32(SRRCTL) & ~DROP_EN)
    card.write32(FCTTV, quanta)
    card.write32(FCRTV, quanta // 2)
    card.write32(FCRTL, XONE | low)
    card.write32(FCRTH, FCEN | high)
    card.write32(FCCFG, TFCE)


def allow_long_frames(card: Card) -> None:
    card.write32(HLREG0, card.read32(HLREG0) | 1 << 2)
    card.write32(MAXFRS, 9000 << 16)


# ---------------------------------------------------------------------------------------------------------------------
# Received


@pytest.mark.parametrize("destination", [GROUP, STATION], ids=["group", "station"])
@pytest.mark.parametrize(("wire", "speed"), [(",wire=10M", 10**7), ("", 10**10)])
def test_a_card_pauses_and_goes_on(machine: Machine, pool: Mempool, destination: bytes, wire: str, speed: int) -> None:
    """For so many times 512 bits of the line's rate; where frames take no time, of 10 Gbit/s."""
    with open_card(machine, f"sim:a,cable=b{wire}") as a, open_card(machine, "sim:b") as b:
        card = machine.cards["a"]
        card.write32(MFLCN, RFCE | DPF)
        before = time.monotonic_ns()
        arrive(machine, control(1000, destination))
        after = time.monotonic_ns()
        until = int(machine.rack.cards[card.index, state.PAUSED_UNTIL])
        lasts = 512_000 * 10**9 // speed
        assert before + lasts <= until <= after + lasts
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(10)]))
        found: list[bytes] = []
        while not found:
            machine.step()
            found = receive_all(b)
        assert time.monotonic_ns() >= until
        while len(found) < 10:
            machine.step()
            found += receive_all(b)
        assert [number_of(data) for data in found] == list(range(10))
        assert received(card) == (0, 1)
        assert receive_all(a) == []
        assert bool(machine.rack.outputs[card.index, TIMED]) == bool(wire)


def test_a_card_that_may_send_again_looks_at_no_time(machine: Machine) -> None:
    """XON ends what a pause of 3 ms began, though nothing is to be sent."""
    with open_card(machine, "sim:a,cable=b"), open_card(machine, "sim:b"):
        card = machine.cards["a"]
        card.write32(MFLCN, RFCE)
        arrive(machine, control(0xFFFF))
        machine.step()
        assert machine.rack.outputs[card.index, TIMED]
        arrive(machine, control(0))
        machine.step()
        assert not machine.rack.outputs[card.index, TIMED]


def test_xon_ends_a_pause(machine: Machine, pool: Mempool) -> None:
    """A pause of 33 s at 1 Mbit/s is over at once."""
    with open_card(machine, "sim:a,cable=b,wire=1M") as a, open_card(machine, "sim:b") as b:
        card = machine.cards["a"]
        card.write32(MFLCN, RFCE | DPF)
        arrive(machine, control(0xFFFF))
        a.tx[0].send(batch_of(pool, [frame(7)]))
        machine.step(10)
        assert receive_all(b) == []
        arrive(machine, control(0))
        machine.step()
        assert receive_all(b) == [frame(7)]
        assert received(card) == (1, 1)


@pytest.mark.parametrize(
    ("register", "data", "counted", "passes"),
    [
        (RFCE | DPF, control(9), 1, False),
        (RFCE, control(9), 1, True),
        (DPF, control(9), 0, True),  # which says nothing while pause frames are not obeyed
        (PMCF, control(9), 0, True),
        (RFCE | DPF, control(9, opcode=2), 0, False),
        (RFCE | DPF | PMCF, control(9, opcode=2), 0, True),
        (RFCE | DPF, control(9, destination=OTHER), 0, True),
        (RFCE | DPF, control(9, destination=STATION), 1, False),
    ],
)
def test_what_the_driver_sees(machine: Machine, register: int, data: bytes, counted: int, passes: bool) -> None:
    """MFLCN says whether pause frames are obeyed and discarded, and whether other MAC control frames pass."""
    with open_card(machine) as device:
        card = machine.cards["a"]
        card.write32(MFLCN, register)
        arrive(machine, data)
        assert receive_all(device) == [data] * passes
        assert received(card) == (0, counted)


def test_a_reset_ends_a_pause(machine: Machine) -> None:
    with open_card(machine):
        card = machine.cards["a"]
        card.write32(MFLCN, RFCE)
        arrive(machine, control(0xFFFF))
        card.write32(0, 1 << 26)
        assert machine.rack.cards[card.index, state.PAUSED_UNTIL] == 0


# ---------------------------------------------------------------------------------------------------------------------
# Sent


@pytest.mark.parametrize("wire", ["", ",wire=1G", ",wire=1G,delay=1us"])
def test_a_slow_receiver_loses_nothing(machine: Machine, pool: Mempool, wire: str) -> None:
    """Two cards on a cable: the one that receives 300 frames has 63 descriptors, and takes few at a time."""
    with (
        open_card(machine, f"sim:a,cable=b{wire}") as a,
        ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b,
    ):
        machine.cards["a"].write32(MFLCN, RFCE | DPF)
        keep_frames(machine.cards["b"], 0x1000, 0x800)
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(300)]))
        found: list[bytes] = []
        while len(found) < 300:
            machine.step()
            with b.rx[0].receive(3) as batch:
                found += [bytes(packet) for packet in batch]
        assert [number_of(data) for data in found] == list(range(300))
        assert b.stats().rx_dropped == 0


def test_when_the_partner_is_stopped(machine: Machine, pool: Mempool) -> None:
    """63 frames of 60 bytes find descriptors. Of those that wait, 64 bytes each with their check sequences, the 65th
    is the one that exceeds 4096 bytes. When less than half of that is left, the partner may go on.
    """
    with (
        open_card(machine, "sim:a,cable=b,wire=1M") as a,
        ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b,
    ):
        card, partner = machine.cards["b"], machine.cards["a"]
        partner.write32(MFLCN, RFCE | DPF)
        keep_frames(card, 0x1000, 0x800)
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(200)]))
        while not machine.rack.cards[card.index, state.XOFF_AGAIN]:
            machine.step()
        assert a.sent() == 63 + 65
        assert machine.rack.cards[card.index, state.BUFFERED] == 65 * 64
        assert (card.read32(LXONTXC), card.read32(LXOFFTXC)) == (0, 1)
        assert received(partner) == (0, 1)
        found: list[bytes] = []
        for left in (65 - 32, 1):  # 32 descriptors are given back: as many frames find one
            with b.rx[0].receive(32) as batch:
                found += [bytes(packet) for packet in batch]
            machine.step()
            assert machine.rack.cards[card.index, state.BUFFERED] == left * 64
            assert card.read32(LXONTXC) == (left == 1)
        while len(found) < 200:
            machine.step()
            found += receive_all(b)
        assert [number_of(data) for data in found] == list(range(200))
        assert received(partner) == (1, 0)


def test_a_pause_frame(machine: Machine, pool: Mempool) -> None:
    """What is sent, and that it is counted with all else that is."""
    with (
        open_card(machine, "sim:a,cable=b,wire=1M") as a,
        ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b,
    ):
        card = machine.cards["b"]
        keep_frames(card, 0, 0, 0x1234)  # from the first frame on that waits
        a.tx[0].send(batch_of(pool, [frame()] * 64))
        while a.sent() < 64:
            machine.step()
        station = bytes.fromhex("026978790002")
        (sent,) = receive_all(a)  # a does not obey, so it passes
        assert sent == (GROUP + station + bytes.fromhex("8808 0001 1234")).ljust(60, b"\0")
        assert [card.read32(counter) for counter in (GPTC, MPTC, GOTCL, GOTCH)] == [1, 1, 64, 0]
        assert len(receive_all(b)) == 63
        machine.step()
        (sent,) = receive_all(a)
        assert sent[16:18] == b"\0\0"


def test_xoff_is_repeated(machine: Machine, pool: Mempool) -> None:
    """So much before its time is over as FCRTV says: with a quantum of 51.2 ns, each 51.2 ns × (1000 - 900)."""
    with open_card(machine, "sim:a,cable=b") as a, ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64):
        card = machine.cards["b"]
        keep_frames(card, 0, 0, 1000)
        card.write32(FCRTV, 900)
        before = time.monotonic_ns()
        a.tx[0].send(batch_of(pool, [frame()] * 64))
        machine.step()
        again = int(machine.rack.cards[card.index, state.XOFF_AGAIN])
        assert before + 5120 <= again <= time.monotonic_ns() + 5120
        sent = 0
        while sent < 3:
            machine.step()
            sent += card.read32(LXOFFTXC)
        assert time.monotonic_ns() >= again + 5120


def test_the_packet_buffer_is_finite(machine: Machine, pool: Mempool) -> None:
    """A partner that does not obey: 1 KiB keeps 16 frames of 64 bytes; what does not fit is counted as missed."""
    with open_card(machine, "sim:a,cable=b") as a, ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b:
        card = machine.cards["b"]
        card.write32(RXPBSIZE, 1 << 10)
        keep_frames(card, 0x400, 0x200)
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(100)]))
        machine.step(2)
        assert card.read32(RXMPC) == 100 - 63 - 16
        found = receive_all(b)
        machine.step()
        found += receive_all(b)
        assert [number_of(data) for data in found] == list(range(63 + 16))


def test_large_frames_around_the_end_of_the_buffer(machine: Machine, pool: Mempool) -> None:
    """Sizes that do not divide the buffer's, many times its contents: each comes out as it went in, and in order."""
    with (
        open_card(machine, "sim:a,cable=b,wire=100M") as a,
        ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b,
    ):
        machine.cards["a"].write32(MFLCN, RFCE | DPF)
        keep_frames(machine.cards["b"], 500 << 10, 100 << 10)
        frames = [frame(number, 60 + number * 37 % 1455) for number in range(3000)]
        found: list[bytes] = []
        sent = 0
        while len(found) < 3000:
            if sent < 3000:
                with batch_of(pool, frames[sent : sent + 100]) as batch:
                    sent += a.tx[0].send(batch)
            machine.step()
            with b.rx[0].receive(40) as batch:
                found += [bytes(packet) for packet in batch]
        assert found == frames


def test_a_frame_that_no_ring_could_hold(machine: Machine, pool: Mempool) -> None:
    """It is missed, and those behind it arrive: with a ring of 8 descriptors the card has 7 at most."""
    with open_card(machine, "sim:a,cable=b") as a, ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b:
        card = machine.cards["b"]
        keep_frames(card, 0x1000, 0x800)
        allow_long_frames(card)
        card.write32(SRRCTL, card.read32(SRRCTL) & ~31 | 1)
        card.write32(RDLEN, 8 * 16)
        card.write32(RDT, 7)
        arrive(machine, frame(1, 8 << 10), "b")
        assert (card.read32(RXMPC), card.read32(RDH)) == (1, 0)
        a.tx[0].send(batch_of(pool, [frame(2)]))
        machine.step()
        assert receive_all(b) == [frame(2)]


def test_a_frame_waits_for_room_for_its_check_sequence(machine: Machine) -> None:
    """Two descriptors, of 1 KiB each, are just enough for a frame of 2044 bytes where that is kept."""
    with open_card(machine):
        card = machine.cards["a"]
        keep_frames(card, 0x1000, 0x800)
        allow_long_frames(card)
        card.write32(SRRCTL, card.read32(SRRCTL) & ~31 | 1)
        card.write32(HLREG0, card.read32(HLREG0) & ~2)
        card.write32(RDRXCTL, card.read32(RDRXCTL) & ~2)
        card.write32(RDT, 2)
        for size, waits in ((2048, True), (2044, False)):
            arrive(machine, frame(1, size))
            assert bool(machine.rack.cards[card.index, state.BUFFERED]) == waits
            card.write32(RDT, card.read32(RDT) + 3)
            machine.step()
            assert machine.rack.cards[card.index, state.BUFFERED] == 0
            card.write32(RDT, card.read32(RDH) + 2)
        assert card.read32(RXMPC) == 0


def test_nothing_waits_for_a_queue_that_hangs(machine: Machine) -> None:
    """What is for it is missed, as without a packet buffer."""
    with open_card(machine) as device:
        card = machine.cards["a"]
        keep_frames(card, 0x1000, 0x800)
        card.write32(RDT, card.read32(RDH))
        card.write32(RDH, card.read32(RDH) + 1)
        arrive(machine, frame())
        assert machine.rack.cards[card.index, state.BUFFERED] == 0
        assert card.read32(RXMPC) == 1
        assert receive_all(device) == []


def test_two_cards_that_do_not_obey(machine: Machine, pool: Mempool) -> None:
    """Each keeps the other's pause frames, too, and answers them once in a turn, though it names no time at all."""
    with (
        ixy.open("sim:a,cable=b", sim=machine, link_timeout=0, ring_size=64) as a,
        ixy.open("sim:b", sim=machine, link_timeout=0, ring_size=64) as b,
    ):
        for device in (a, b):
            device.tx[0].send(batch_of(pool, [frame(number) for number in range(63)]))
        machine.step()
        for name, device in (("a", a), ("b", b)):
            keep_frames(machine.cards[name], 0, 0, 0)
            device.tx[0].send(batch_of(pool, [frame(63)]))
        machine.step(4)
        assert all(1 <= machine.cards[name].read32(LXONTXC) <= 5 for name in "ab")
        assert [number_of(data) for data in receive_all(a)] == list(range(63))


def test_a_pause_that_names_no_time_takes_some(machine: Machine, pool: Mempool) -> None:
    """By a virtual clock: XOFF is repeated after a quantum of 51 ns at the least, so that time goes on."""
    with (
        open_card(machine, "sim:a,cable=b,loss=1e-9,clock=virtual") as a,
        ixy.open("sim:b,clock=virtual", sim=machine, link_timeout=0, ring_size=64),
    ):
        card = machine.cards["b"]
        keep_frames(card, 0, 0, 1000)
        card.write32(FCRTV, 1000)
        a.tx[0].send(batch_of(pool, [frame()] * 70))
        for _ in range(5):
            before = ixy.now()
            assert len(a.rx[0].receive(timeout=1e-6))
            assert 1 <= card.read32(LXOFFTXC) <= (ixy.now() - before) // 51 + 1
