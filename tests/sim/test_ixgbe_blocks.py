"""Receiving by blocks does to ring, pool and batch what receiving one by one does, whatever the card writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import open_card

from ixy.device import Device
from ixy.drivers.ixgbe import datapath
from ixy.drivers.ixgbe.datapath import BLOCK, SKIPPING, hand_back, rx_batch, take_carefully, take_singly
from ixy.drivers.rings import DROPPED, NEXT, STARVED
from ixy.jit import CHECKING, INTERPRETED
from ixy.packets.buffers import device_address
from ixy.packets.dma import DmaMapping, DmaMemory
from ixy.packets.packets import new_packets
from ixy.packets.pool import POOL_SHIFT, free_count, pools
from ixy.registers.i82599 import RX_DD, RX_EOP
from ixy.sim.machine import Machine

RING, POOL = 64, 160
METADATA = ("flags", "hash", "vlan")

# The second word of a descriptor: status and errors, length, VLAN tag. Mostly a good frame, or the card's own word.
good = st.builds(
    lambda status, length, vlan: vlan << 48 | length << 32 | status | 3,
    st.integers(0, (1 << 32) - 1),
    st.integers(1, 2048),
    st.integers(0, (1 << 16) - 1),
)
words = good | st.integers(0, (1 << 64) - 1) | st.just(0)
rings = st.lists(good, min_size=RING, max_size=RING) | st.lists(words, min_size=RING, max_size=RING)


class ScatteredMachine(Machine):
    """As if each page lay elsewhere: addresses come from a table."""

    def map(self, memory: DmaMemory, holder: object = None) -> DmaMapping:
        return replace(super().map(memory, holder), window=None)


@pytest.fixture(scope="module", params=[Machine, ScatteredMachine])
def device(request: pytest.FixtureRequest) -> Any:
    with open_card(request.param(stepped=True), ring_size=RING, pool_size=POOL, metadata=METADATA) as device:
        yield device


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking so large an input takes minutes
@given(rings, st.integers(0, RING - 1), st.integers(0, 3 * RING), st.integers(0, POOL - RING), st.booleans(), st.data())
def test_blocks_and_one_by_one_agree(
    device: Device, written: list[int], start: int, limit: int, free: int, skipping: bool, data: st.DataObject
) -> None:
    """The same ring is received twice, from the same state: same packets, and the same left behind."""
    first = np.array(data.draw(st.lists(st.integers(0, (1 << 63) - 1), min_size=4, max_size=4)), np.int64)
    blocks, singles = (
        outcome(device, receive, first, written, start, limit, free, skipping) for receive in (rx_batch, one_by_one)
    )
    assert blocks == singles


@pytest.mark.parametrize("odd", [0, RX_DD | 60 << 32, RX_DD | RX_EOP, RX_DD | RX_EOP | 2049 << 32])
def test_one_odd_frame_in_two_blocks(device: Device, odd: int) -> None:
    """At any place: one that is not there, that goes on in the next buffer, is empty, or too long."""
    first = np.zeros(1, np.int64)
    for place in range(2 * BLOCK):
        written = [RX_DD | RX_EOP | 60 << 32] * (2 * BLOCK) + [0] * (RING - 2 * BLOCK)
        written[place] = odd
        blocks, singles = (
            outcome(device, receive, first, written, 0, RING, POOL - RING, False) for receive in (rx_batch, one_by_one)
        )
        assert blocks == singles


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel cannot be replaced")
def test_good_frames_are_taken_by_blocks(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of three blocks, of which the ring's end cuts the second: as many as are left over are looked at singly."""
    seen: list[int] = []

    def watched(ring: Any, pools: Any, packets: Any, before: int, limit: int) -> int:
        seen.append(before)
        return take_singly(ring, pools, packets, before, limit)

    monkeypatch.setattr(datapath, "take_singly", watched)
    good = [RX_DD | RX_EOP | 60 << 32] * RING
    outcome(device, rx_batch, np.zeros(1, np.int64), good, 0, 3 * BLOCK, POOL - RING, False)
    assert seen == []
    outcome(device, rx_batch, np.zeros(1, np.int64), good, RING - BLOCK, 3 * BLOCK, POOL - RING, False)
    assert seen == []
    outcome(device, rx_batch, np.zeros(1, np.int64), good, RING - BLOCK - 1, 2 * BLOCK, POOL - RING, False)
    assert seen == [BLOCK]


def outcome(
    device: Device,
    receive: Any,
    first: np.ndarray,
    written: list[int],
    start: int,
    limit: int,
    free: int,
    skipping: bool,
    metadata: Sequence[str] = METADATA,
) -> Any:
    """What there is after packets were received from a ring that the card has written so; it is as before then.

    Args:
        first: the first words of the descriptors, in turn.
        written: their second words, as many as the ring has.
        start: the descriptor whose turn it is.
        free: how many buffers the pool has.
    """
    state, kept = device.rx[0].ring.state, Snapshot(device)
    try:
        state.state[NEXT], state.state[SKIPPING] = start + 5 * RING, skipping
        kept.leave(free)
        state.descriptors[0::2] = np.resize(first, RING)
        state.descriptors[1::2] = np.array(written, np.uint64).view(np.int64)
        packets = new_packets(limit, metadata)
        count = receive(state, pools(), packets, limit)
        return packets_of(packets, count), ring_of(device, np.array(written)), kept.free()
    finally:
        kept.restore()


def one_by_one(state: Any, space: Any, packets: Any, limit: int) -> int:
    first = int(state.state[NEXT])
    count = take_carefully(state, space, packets, 0, limit)
    hand_back(state, first)
    return count


class Snapshot:
    """A device's receive ring and pool as they are; `restore` makes them so again."""

    def __init__(self, device: Device) -> None:
        state, space = device.rx[0].ring.state, pools()
        self.pool = state.pool
        self.stack = space.stack[self.pool << POOL_SHIFT : (self.pool + 1) << POOL_SHIFT]
        words = space.words.reshape(-1, 32)[self.pool]
        self.arrays = [state.descriptors, state.tail, state.held.ids, state.state, self.stack, words]
        if CHECKING:
            self.arrays.append(space.holders)
        self.copies = [array.copy() for array in self.arrays]
        self.words = words

    def restore(self) -> None:
        for array, copy in zip(self.arrays, self.copies, strict=True):
            array[:] = copy

    def leave(self, free: int) -> None:
        """Let the pool have so many free buffers: the lowest of its stack."""
        self.words[0] = free

    def free(self) -> list[int]:
        return self.stack[: free_count(pools(), self.pool)].tolist()


def packets_of(packets: Any, count: int) -> list[list[int]]:
    columns = packets.ids, packets.lengths, packets.flags, packets.hashes, packets.vlans
    return [column[:count].tolist() for column in columns if column is not None]


def ring_of(device: Device, written: np.ndarray) -> Any:
    """What is left in the ring. Which of the fresh buffers lies in which descriptor is free, if the card knows."""
    state = device.rx[0].ring.state
    fresh = (state.descriptors[1::2] == 0) & (written != 0)
    addresses = [device_address(state.addresses, buffer) for buffer in state.held.ids[fresh]]
    assert (state.descriptors[0::2][fresh] == addresses).all()
    counters = [int(state.state[word]) for word in (NEXT, SKIPPING, DROPPED, STARVED)]
    return sorted(state.held.ids.tolist()), fresh.tolist(), int(state.tail[0]), counters
