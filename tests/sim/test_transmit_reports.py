"""When and how a card says that it is done with transmit descriptors (7.2.3.5), and what null descriptors do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from by_hand import BUFFERS, SLOTS, TXDCTL, Rig
from lab import depart, frame

TDH, TDT, TDWBAL, TDWBAH, IVAR = 0x6010, 0x6018, 0x6038, 0x603C, 0x900
RS, DD, ENABLE = 1 << 27, 1 << 32, 1 << 25
PLACE = BUFFERS - 64  # in the test's memory, where the head is written


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def head_in_memory(rig: Rig) -> list[int]:
    """The three dwords around the place: only the one amid is the card's."""
    return rig.memory.bytes.view(np.uint32)[PLACE // 4 - 1 :][:3].tolist()


def done(rig: Rig) -> list[bool]:
    return [int(word) == DD for word in rig.tx[:, 1]]


def post(rig: Rig, number: int, first: int = 0, **bits: int) -> None:
    for slot in range(first, first + number):
        rig.post(slot % SLOTS, frame(slot), bits.get("command", RS))
    rig.write(TDT, (first + number) % SLOTS)


def test_the_head_is_written_instead(rig: Rig) -> None:
    """Where TDWBAL's lowest bit is set: a dword with the index behind the descriptor, when RS is met; nothing else."""
    rig.set_up()
    rig.memory.bytes.view(np.uint32)[PLACE // 4 - 1 :][:3] = 7, 8, 9
    rig.write(TDWBAH, (rig.bus + PLACE) >> 32)
    rig.write(TDWBAL, (rig.bus + PLACE) & 0xFFFFFFFF | 1)
    post(rig, 2, command=0)
    assert len(depart(rig.machine)) == 2
    assert head_in_memory(rig) == [7, 8, 9]
    post(rig, 1, first=2)
    before = rig.tx.tolist()
    assert len(depart(rig.machine)) == 1
    assert head_in_memory(rig) == [7, 3, 9]
    assert rig.tx.tolist() == before
    for first in (3, 5, 7):
        post(rig, 2, first=first)
        assert len(depart(rig.machine)) == 2
    assert head_in_memory(rig) == [7, 1, 9]
    assert rig.read(TDH) == 1


def test_a_head_out_of_reach(rig: Rig) -> None:
    """It is not written, the access is counted, and packets go on leaving."""
    rig.set_up()
    rig.write(TDWBAH, 0)
    rig.write(TDWBAL, 1)
    post(rig, 3)
    assert len(depart(rig.machine)) == 3
    assert rig.machine.dma_refused(rig.card) == 3


@pytest.mark.parametrize("threshold", [0, 1])
def test_each_is_reported_at_once(rig: Rig, threshold: int) -> None:
    rig.set_up()
    rig.write(TXDCTL, ENABLE | threshold << 16)
    post(rig, 3)
    for number in range(3):
        depart(rig.machine, limit=1)
        assert done(rig)[:3] == [slot <= number for slot in range(3)]


def test_several_are_reported_together(rig: Rig) -> None:
    """With WTHRESH 3: the third descriptor that asks for it brings the reports of all three; around the ring, too."""
    rig.set_up()
    rig.write(TXDCTL, ENABLE | 3 << 16)
    for first in (0, 4, 8):
        post(rig, 4, first=first)
        rig.tx[(first + 1) % SLOTS, 1] &= ~RS  # this one does not ask
        slots = [slot % SLOTS for slot in range(first, first + 4)]
        for _ in range(3):
            depart(rig.machine, limit=1)
            assert not any(done(rig)[slot] for slot in slots)
        depart(rig.machine, limit=1)
        assert [done(rig)[slot] for slot in slots] == [True, False, True, True]


def test_the_end_of_a_turn_reports_the_rest(rig: Rig) -> None:
    """As the timer of EITR would: nothing that was sent stays unreported, and an interrupt tells of it."""
    rig.set_up()
    rig.write(TXDCTL, ENABLE | 8 << 16)
    post(rig, 3)
    rig.machine.step()
    assert done(rig)[:4] == [True, True, True, False]
    rig.machine.step()
    post(rig, 2, first=3)
    depart(rig.machine)
    assert done(rig)[3:5] == [False, False]


def test_a_queue_that_was_disabled_reports_nothing_more(rig: Rig) -> None:
    """Its memory may be somebody else's by then."""
    rig.set_up()
    rig.write(TXDCTL, ENABLE | 8 << 16)
    post(rig, 3)
    depart(rig.machine)
    rig.write(TXDCTL, 0)
    rig.machine.step()
    assert not any(done(rig))


@pytest.mark.parametrize("legacy", [True, False])
def test_null_descriptors(rig: Rig, legacy: bool) -> None:
    """Without a length nothing is fetched and nothing leaves (7.2.3.3); it is reported all the same, and amid a packet
    it adds nothing.
    """
    rig.set_up()
    kind = 0 if legacy else 1 << 29 | 3 << 20
    eop, ifcs = 1 << 24, 1 << 25
    data = frame(1, 100)
    rig.memory.bytes[BUFFERS:][:100] = np.frombuffer(data, np.uint8)
    rig.tx[0] = 0, kind | eop | ifcs | RS
    rig.tx[1] = rig.buffer(0), kind | 60 | ifcs | 100 << 46 * (not legacy)
    rig.tx[2] = 0, kind | ifcs
    rig.tx[3] = rig.buffer(0) + 60, kind | 40 | eop | ifcs | RS
    if legacy:
        rig.tx[1, 1] = kind | 60 | ifcs
    rig.write(TDT, 4)
    assert depart(rig.machine) == [data]
    assert done(rig)[:4] == [True, False, False, True]
    assert rig.machine.dma_refused(rig.card) == 0
