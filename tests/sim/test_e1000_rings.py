"""The rings of the gigabit cards: what a descriptor says is read rightly, in either format, and whatever a card writes,
no buffer is lost, and receiving by blocks does what receiving one by one does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_ixgbe_blocks import outcome

from ixy.device import Device
from ixy.drivers.e1000 import E1000
from ixy.drivers.e1000.datapath import BLOCK, hand_back, rx_batch, take_carefully
from ixy.drivers.e1000.inprocess import InProcess
from ixy.drivers.rings import DROPPED
from ixy.packets.batch import lent
from ixy.packets.packets import Flags
from ixy.sim.gigabit import NEWER, OLDER, REFUSED, Gigabit, deliver, drain

RING, POOL = 64, 160
METADATA = {NEWER: ("flags", "hash", "vlan"), OLDER: ("flags", "vlan")}


class Pair:
    """A device and the card that it drives."""

    def __init__(self, kind: int, **options: Any) -> None:
        self.card = Gigabit(kind)
        options = {"ring_size": RING, "pool_size": POOL, "metadata": METADATA[kind]} | options
        self.device = Device(E1000(InProcess(self.card), **options))

    def deliver(self, frame: bytes) -> bool:
        return bool(deliver(self.card.port, 0, np.frombuffer(frame, np.uint8), len(frame)))

    def drain(self) -> list[bytes]:
        """The frames that are to be sent."""
        taken, found = np.zeros(2048, np.uint8), list[bytes]()
        while size := drain(self.card.port, 0, taken):
            found.append(taken[:size].tobytes())
        return found

    def write(self, place: int, first: int, second: int) -> None:
        """Write a receive descriptor as a card would."""
        words = self.device.rx[0].ring.state.descriptors
        words[2 * place], words[2 * place + 1] = np.array([first, second], np.uint64).view(np.int64)


@pytest.fixture(scope="module", params=[NEWER, OLDER], ids=["82574", "82540"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    with pair.device:
        yield pair


@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_frames_go_round_the_rings(kind: int) -> None:
    """528 frames of all lengths, 1 to 32 at a time: all come in order and unchanged, and leave so; the strict partner
    finds no descriptor that it could not understand, and in the end no buffer is missing."""
    pair, number = Pair(kind, metadata=(), pool_size=4 * RING), 0
    with pair.device as device:
        for count in range(1, 33):
            frames = [bytes([(number + i) % 251]) * (14 + (number + i) * 37 % 1501) for i in range(count)]
            number += count
            assert all(pair.deliver(frame) for frame in frames)
            with device.rx[0].receive(32) as batch:
                assert [bytes(packet) for packet in batch] == frames
                assert device.tx[0].send(batch) == count
            assert pair.drain() == frames
        assert pair.card.port.state[REFUSED] == 0
        assert device.rx[0].pool.available == 3 * RING - device.tx[0].ring.in_flight
        assert device.tx[0].ring.in_flight < RING
    assert not pair.card.port.allowed.any()


# What stands in a descriptor, and what it means, flags, VLAN and hash: 7.1.3, 7.1.4 of the datasheet, SDM 3.2.3
GOOD = Flags.IP_GOOD | Flags.L4_GOOD | Flags.IPV4
MEANINGS = {
    NEWER: [
        # UDP over IPv4, all checksums right, with a tag; hashed (type 1)
        (0x12345678_00000001, 0x6005_0064_0002007B, GOOD | Flags.UDP | Flags.VLAN | Flags.HASH, 0x6005, 0x12345678),
        # TCP over IPv4, its checksum wrong
        (0, 0x0000_0064_20020063, Flags.IP_GOOD | Flags.L4_BAD | Flags.IPV4 | Flags.TCP, 0, 0),
        # an IPv4 header whose checksum is wrong; TCP or UDP was not looked at
        (0, 0x0000_0064_40020043, Flags.IP_BAD | Flags.IPV4, 0, 0),
        # TCP over IPv6, which has no checksum of its own; a hash of 0 is one too (type 4)
        (0x00000000_00000004, 0x0000_0064_00060023, Flags.L4_GOOD | Flags.IPV6 | Flags.TCP | Flags.HASH, 0, 0),
        # verdicts are to be ignored
        (0, 0x0000_0064_60010067, Flags.IPV4, 0, 0),
        # neither IP nor a tag, although there are bits where tag and hash would stand
        (0xFFFFFFFF_00000000, 0xABCD_0064_00000003, Flags(0), 0, 0),
    ],
    OLDER: [
        (0, 0x6005_00_6B_BEEF_0064, GOOD | Flags.VLAN, 0x6005, None),
        (0, 0x0000_20_63_BEEF_0064, Flags.IP_GOOD | Flags.L4_BAD | Flags.IPV4, 0, None),
        (0, 0x0000_40_43_0000_0064, Flags.IP_BAD | Flags.IPV4, 0, None),
        (0, 0xABCD_60_67_0000_0064, Flags(0), 0, None),
        (0, 0x0000_00_03_0000_0064, Flags(0), 0, None),
    ],
}


@pytest.mark.parametrize("copies", [1, BLOCK], ids=["alone", "in a block"])
@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_what_a_descriptor_says(kind: int, copies: int) -> None:
    pair = Pair(kind)
    with pair.device as device:
        place = 0
        for first, second, flags, vlan, hashed in MEANINGS[kind]:
            for _ in range(copies):
                pair.write(place, first, second)
                place = (place + 1) % RING
            with device.rx[0].receive() as batch:
                assert batch.lengths.tolist() == [100] * copies
                assert batch.flags.tolist() == [int(flags)] * copies
                assert batch.vlans.tolist() == [vlan] * copies
                if hashed is not None:
                    assert batch.hashes.tolist() == [hashed] * copies


# The second word of a descriptor: mostly a good frame, or whatever the card likes, or still the driver's.
def good(kind: int) -> st.SearchStrategy[int]:
    lengths, vlans = st.integers(1, 2048), st.integers(0, (1 << 16) - 1)
    if kind == NEWER:
        return st.builds(
            lambda length, vlan, status: vlan << 48 | length << 32 | status << 2 | 3,
            lengths,
            vlans,
            st.integers(0, 0xFFF),
        )
    return st.builds(
        lambda length, vlan, status: vlan << 48 | (status << 2 | 3) << 32 | length, lengths, vlans, st.integers(0, 63)
    )


@st.composite
def rings(draw: st.DrawFn, kind: int) -> list[int]:
    words = good(kind) | st.integers(0, (1 << 64) - 1) | st.just(0)
    some = draw(st.sampled_from([good(kind), words]))
    return draw(st.lists(some, min_size=RING, max_size=RING))


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], max_examples=60)
@given(st.data(), st.integers(0, RING - 1), st.integers(0, 3 * RING), st.integers(0, POOL - RING), st.booleans())
def test_blocks_and_one_by_one_agree(
    pair: Pair, data: st.DataObject, start: int, limit: int, free: int, skipping: bool
) -> None:
    """The same ring is received twice, from the same state: same packets, and the same left behind."""
    kind = NEWER if pair.card.port.extended else OLDER
    written = data.draw(rings(kind))
    first = np.array(data.draw(st.lists(st.integers(0, (1 << 63) - 1), min_size=4, max_size=4)), np.int64)
    blocks, singles = (
        outcome(pair.device, receive, first, written, start, limit, free, skipping, METADATA[kind])
        for receive in (rx_batch, one_by_one)
    )
    assert blocks == singles


def one_by_one(state: Any, space: Any, packets: Any, limit: int) -> int:
    first = int(state.state[0])
    count = take_carefully(state, space, packets, 0, limit)
    hand_back(state, first)
    return count


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_whatever_a_card_writes_no_buffer_is_lost(kind: int, data: st.DataObject) -> None:
    """Write-backs with lengths that cannot be, ends that are missing, errors: what comes has a length that a buffer
    has, no damaged frame comes, what does not is counted, and in the end all buffers are there, each once."""
    written = data.draw(rings(kind))
    pair = Pair(kind)
    with pair.device as device:
        for place, word in enumerate(written):
            pair.write(place, 0, word)
        came = 0
        while True:
            with device.rx[0].receive() as batch:
                if not batch:
                    break
                assert ((batch.lengths >= 1) & (batch.lengths <= 2048)).all()
                came += len(batch)
        assert came <= sum(1 for word in written if whole(kind, word))
        assert device.stats().rx_refused == device.rx[0].ring.state.state[DROPPED]
        pool = device.rx[0].pool
        held = device.rx[0].ring.state.held.ids.tolist()
        with pool.allocate(POOL - RING) as rest:
            assert len(set(lent(rest)[0].ids[: len(rest)].tolist()) | set(held)) == POOL


def whole(kind: int, word: int) -> bool:
    """Whether a descriptor's word is that of a frame in one buffer, undamaged, by the datasheet's figures."""
    if kind == NEWER:
        done, damaged, length = word & 3 == 3, word & 0x97000000, word >> 32 & 0xFFFF
    else:
        done, damaged, length = word >> 32 & 3 == 3, word >> 40 & 0x97, word & 0xFFFF
    return done and not damaged and 1 <= length <= 2048


def test_a_damaged_frame_is_refused_once(pair: Pair) -> None:
    """CE, SE, SEQ, CXE, RXE, each alone; the frame after it comes."""
    before = pair.device.stats().rx_refused
    newer = pair.card.port.extended
    start = int(pair.device.rx[0].ring.state.state[0])
    for step, error in enumerate((1, 2, 4, 0x10, 0x80)):
        for more, bits in ((0, error), (1, 0)):
            word = bits << 24 | 60 << 32 | 3 if newer else bits << 40 | 3 << 32 | 60
            pair.write((start + 2 * step + more) % RING, 0, word)
    with pair.device.rx[0].receive() as batch:
        assert batch.lengths.tolist() == [60] * 5
    assert pair.device.stats().rx_refused == before + 5
