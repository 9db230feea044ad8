"""Packet by packet or by batches: a path does the same, whatever arrives and whenever the other card sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import arrive, depart, frame, number_of, open_card

import ixy
from ixy import polls
from ixy.drivers.rings import CLEAN, DROPPED, NEXT
from ixy.path import PathCounts
from ixy.sim.machine import Machine

RING, POOL = 64, 96  # as few buffers as there can be
DD, EOP = 1, 2  # of a receive descriptor, 7.1.6.2
GOOD, PART, EMPTY, LONG = (None, ~EOP & 0xFFFFFFFF | 60 << 32, DD | EOP, DD | EOP | 2049 << 32)


@ixy.kernel
def no_threes(packet: Any) -> int:
    """Drop every third packet, mark the others."""
    if packet[21] % 3 == 0:
        return ixy.DROP
    packet[30] += 1
    return ixy.FORWARD


@ixy.kernel
def beyond(packet: Any) -> int:
    """Drop packet 3; go outside packet 5."""
    if packet[21] == 5:
        packet[len(packet)] = 1
    return ixy.DROP if packet[21] == 3 else ixy.FORWARD


@dataclass(frozen=True)
class Round:
    """Frames arrive, the path takes what it can, and perhaps the other card sends."""

    kinds: list[int | None]
    sends: bool


rounds = st.builds(
    Round,
    st.lists(st.just(GOOD) | st.sampled_from([GOOD, PART, EMPTY, LONG]), max_size=20),
    st.booleans(),
)


class Cards:
    """A path between two cards of a machine of its own."""

    def __init__(self, batch: int, small: int, function: Any = no_threes, pool: int = POOL) -> None:
        machine = Machine(stepped=True)
        self.machine = machine
        self.a = open_card(machine, ring_size=RING, pool_size=pool)
        self.b = open_card(machine, "sim:b", ring_size=RING)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(polls, "SMALL", small)
            self.path = ixy.Path(self.a.rx[0], self.b.tx[0], function, batch=batch)
        self.arrived = 0
        self.pool = pool

    def __enter__(self) -> Cards:
        return self

    def __exit__(self, *_: object) -> None:
        self.a.close()
        self.b.close()

    def arrive(self, kind: int | None) -> None:
        """A frame, which the card describes by another word than its own, if that is given."""
        state = self.a.rx[0].ring.state
        if self.arrived - state.state[NEXT] >= RING - 1:
            return
        arrive(self.machine, frame(self.arrived))
        if kind is not None:
            state.descriptors[2 * (self.arrived % RING) + 1] = kind
        self.arrived += 1

    def play(self, one: Round) -> Any:
        """What there is to be seen of the round."""
        for kind in one.kinds:
            self.arrive(kind)
        received = self.path.run(2 * RING)
        words = self.a.rx[0].ring.state.state
        left = depart(self.machine, name="b") if one.sends else []
        return received, self.path.counts, int(words[NEXT]), int(words[DROPPED]), left

    def lost(self) -> int:
        """Buffers that are neither free, nor in a ring."""
        return self.pool - RING - self.a.rx[0].pool.available - self.b.tx[0].in_flight

    def buffers(self) -> np.ndarray:
        """All that lie in the receive ring, or are under way."""
        sent = self.b.tx[0].ring.state
        under_way = np.arange(sent.state[CLEAN], sent.state[NEXT]) % RING
        return np.concatenate([self.a.rx[0].ring.state.held.ids, sent.held.ids[under_way]])


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(1, 15), st.lists(rounds, min_size=1, max_size=12))
def test_both_ways_do_the_same(batch: int, played: list[Round]) -> None:
    """Good frames, frames of several buffers, of no length or too long; the pool runs out while nothing is sent. No
    frame is received twice or lost, and no buffer lies in two places."""
    with Cards(batch, small=15) as one, Cards(batch, small=0) as other:
        for turn in [*played, Round([], sends=True), Round([], sends=True)]:
            assert one.play(turn) == other.play(turn)
            assert one.lost() == other.lost() == 0
            assert len(set(one.buffers())) == len(one.buffers())


def test_many_packets() -> None:
    """The transmit ring is cleaned again and again: all packets come, once and in order."""
    with Cards(8, small=15, pool=4 * RING) as cards:
        for first in range(0, 40 * 30, 30):
            for _ in range(30):
                cards.arrive(GOOD)
            assert cards.path.run(100) == 30
            left = [number_of(data) for data in depart(cards.machine, name="b")]
            assert left == [number for number in range(first, first + 30) if (number & 0xFF) % 3]
        assert cards.lost() == 0


@pytest.mark.parametrize("batch", [1, 8])
def test_exception_amid_a_batch(batch: int) -> None:
    """Packet 5 ends the run: those before it are forwarded or dropped as they were to be, it is dropped, those behind
    it wait for the next run. Both doorbells were rung: the cards go on."""
    with Cards(batch, small=15, function=beyond) as cards:
        for _ in range(8):
            cards.arrive(GOOD)
        with pytest.raises(IndexError):
            cards.path.run(100)
        assert cards.path.counts == PathCounts(received=6, forwarded=4, dropped=2)
        assert [number_of(data) for data in depart(cards.machine, name="b")] == [0, 1, 2, 4]
        assert int(cards.a.rx[0].ring.state.tail[0]) == 5
        assert cards.path.run(100) == 2
        for number in range(8, 8 + RING):
            cards.arrive(GOOD)
            assert cards.path.run(2) == 1
            assert [number_of(data) for data in depart(cards.machine, name="b")][-1:] == [number]
        assert cards.lost() == 0
        assert len(set(cards.buffers())) == len(cards.buffers())


def test_exception_where_frames_are_odd() -> None:
    """A frame that spans buffers makes the path go by batches: it is the batch that is dropped, and nothing else."""
    with Cards(8, small=15, function=beyond) as cards:
        for kinds in ([GOOD, GOOD], [PART]):
            for kind in kinds:
                cards.arrive(kind)
            cards.path.run(100)
        assert cards.path.counts == PathCounts(received=2, forwarded=2, dropped=0)
        for kind in (LONG, GOOD, GOOD):
            cards.arrive(kind)
        with pytest.raises(IndexError):
            cards.path.run(100)
        assert cards.path.counts == PathCounts(received=4, forwarded=2, dropped=2)
        assert cards.lost() == 0
