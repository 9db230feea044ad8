"""Jumbo frames on the simulated 82599: received in several buffers, and what a card writes that makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lab import accounted, arrive, depart, frame, open_card

import ixy
from ixy.device import Device
from ixy.drivers.rings import DROPPED, NEXT, enter, exit_from
from ixy.errors import ConfigurationError
from ixy.packets.packets import Packets, new_packets
from ixy.packets.parts import all_buffers, total_lengths
from ixy.packets.pool import POOL_SHIFT, free_count, give, pools
from ixy.registers.i82599 import RX_DD, RX_EOP
from ixy.sim.machine import Machine

RING, POOL, MTU, PARTS = 64, 160, 9710, 5
SIZES = [60, 1518, 1519, 2047, 2048, 2049, 4096, 4097, 6144, 8192, 8193, 9000, 9724]


def open_jumbo(machine: Machine, address: str = "sim:a", mtu: int = MTU, pool_size: int = POOL) -> Device:
    options: dict[str, Any] = {"metadata": ("flags", "parts"), "mtu": mtu, "ring_size": RING, "pool_size": pool_size}
    return open_card(machine, address, **options)


def test_frames_of_all_sizes_are_received_whole() -> None:
    """In as many buffers as they need, with what the card says of them; what is longer than allowed is counted."""
    machine = Machine(stepped=True)
    with open_jumbo(machine) as device:
        assert (device.info.mtu, device.rx[0].ring.parts) == (MTU, PARTS)
        frames = [frame(number, size) for number, size in enumerate(SIZES)]
        for each in (*frames[:5], frame(99, 9725), *frames[5:]):
            arrive(machine, each)
        with device.rx[0].receive() as batch:
            assert batch.lengths.tolist() == SIZES
            assert [bytes(packet) for packet in batch] == frames
            assert accounted(device) == POOL - sum(-(-size // 2048) for size in SIZES)
        assert (device.stats().rx_packets, device.stats().rx_errors, accounted(device)) == (len(SIZES), 1, POOL)


def test_tags_come_on_top_of_the_mtu() -> None:
    """The longest frame, with a VLAN tag: 9.5 KiB less its check sequence, and 4 bytes more."""
    machine = Machine(stepped=True)
    with open_jumbo(machine) as device:
        tagged = frame(1, 9728)[:12] + bytes.fromhex("81000005") + frame(1, 9728)[16:]
        arrive(machine, tagged)
        with device.rx[0].receive() as batch:
            assert [bytes(packet) for packet in batch] == [tagged]


def test_what_is_what_with_another_mtu() -> None:
    """A small one refuses what others take; above one buffer it takes parts, and a pool for them."""
    machine = Machine(stepped=True)
    with open_card(machine, mtu=576) as device:
        for size in (590, 591):
            arrive(machine, frame(size, size))
        with device.rx[0].receive() as batch:
            assert batch.lengths.tolist() == [590]
    with open_card(machine, mtu=2026) as device:
        arrive(machine, frame(1, 2040))
        assert len(device.rx[0].receive()) == 1
    for options, text in (
        ({"mtu": 2027}, r"sim:a: mtu 2027: above 2026 it takes several buffers: metadata=\('parts',\)"),
        ({"mtu": 9711, "metadata": ("parts",)}, "sim:a: mtu 9711: 68 to 9710 are possible"),
        ({"mtu": MTU, "metadata": ("parts",), "ring_size": RING, "pool_size": RING + 35}, "needs at least 100"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            open_card(machine, **options)


def test_the_pool_runs_empty_in_the_midst_of_a_frame() -> None:
    """Frames are taken whole or stay: the card waits for buffers, and drops what then finds none."""
    machine = Machine(stepped=True)
    with open_jumbo(machine, pool_size=RING + 36) as device:
        frames = [frame(number, 9000) for number in range(14)]
        kept: list[ixy.Batch] = []
        for each in frames:
            arrive(machine, each)  # 63 descriptors hold 12 of 5 buffers, and no more
        kept.append(device.rx[0].receive())
        assert [bytes(packet) for packet in kept[0]] == frames[:7]  # 36 buffers are fresh
        assert len(device.rx[0].receive()) == 0
        assert (device.stats().rx_starved, device.stats().rx_dropped) == (2, 2)
        kept.clear()
        with device.rx[0].receive() as batch:
            assert [bytes(packet) for packet in batch] == frames[7:12]
        assert accounted(device) == RING + 36


# ---------------------------------------------------------------------------------------------------------------------
# What a card writes that makes no sense


@pytest.fixture(scope="module")
def device() -> Any:
    with open_jumbo(Machine(stepped=True)) as device:
        yield device


word = st.builds(
    lambda length, end, there: length << 32 | (RX_EOP if end else 0) | (RX_DD if there else 0),
    st.sampled_from([0, 1, 60, 2047, 2048, 2049, 0xFFFF]) | st.integers(1, 2048),
    st.booleans(),
    st.sampled_from([True] * 30 + [False]),
)
good = st.builds(lambda length, end: length << 32 | RX_DD | (RX_EOP if end else 0), st.integers(1, 2048), st.booleans())


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate], deadline=None, max_examples=100)
@given(
    st.lists(good, min_size=RING, max_size=RING) | st.lists(word, min_size=RING, max_size=RING),
    st.integers(0, RING - 1),
    st.lists(st.integers(1, RING), min_size=1, max_size=4),
)
def test_whatever_is_written_no_buffer_is_lost(
    device: Device, written: list[int], start: int, limits: list[int]
) -> None:
    """Frames without an end, of too many parts, with parts of no length or too long are refused, and counted when they
    end; all others are taken whole, in order. Each buffer is free, in the ring, or in one packet."""
    state, pool = device.rx[0].ring.state, device.rx[0].pool
    state.state[NEXT], before = start, int(state.state[DROPPED])
    state.descriptors[1::2] = np.roll(np.array(written, np.int64), start)
    model = Model(written)
    for limit in limits:
        expected = model.receive(limit, free_count(pools(), pool.number))
        packets = new_packets(limit, ("flags", "parts"))
        count = take(device, packets, limit)
        assert total_lengths(pools(), packets, 0, count).tolist() == expected
        assert (int(state.state[DROPPED]) - before, int(state.state[NEXT]) - start) == (model.dropped, model.at)
        elsewhere = np.concatenate([all_buffers(pools(), packets, 0, count), state.held.ids, free_ids(pool.number)])
        assert sorted(elsewhere.tolist()) == pool.ids.tolist()
        give(pools(), packets, 0, count)
    assert pool.available == POOL - RING
    state.state[:8] = [0, 0, 0, 0, state.state[4], state.state[5], 0, PARTS]


def take(device: Device, packets: Packets, limit: int) -> int:
    """Receive as the runner of the queue."""
    ring = device.rx[0].ring
    assert enter(ring.state, pools()) == 0
    count = ring.kernel(ring.state, pools(), packets, limit)
    exit_from(ring.state, pools())
    return count


def free_ids(pool: int) -> np.ndarray:
    first = pool << POOL_SHIFT
    return pools().stack[first : first + free_count(pools(), pool)]


class Model:
    """What is to become of descriptors: the lengths of frames."""

    def __init__(self, written: list[int]) -> None:
        self.words, self.at, self.dropped, self.skipping = [*written, 0], 0, 0, False

    def receive(self, limit: int, free: int) -> list[int]:
        taken: list[int] = []
        for _ in range(limit):
            frame = self._frame()
            if frame is None:  # not all of it is there
                break
            if frame and len(frame) > free:
                break
            if frame:
                taken.append(sum(frame))
                free -= len(frame)
                self.at += len(frame)
            elif not self._refuse():
                break
        return taken

    def _frame(self) -> list[int] | None:
        """The parts of the next frame; none if it is no good."""
        if self.skipping:
            return []
        parts: list[int] = []
        for each in self.words[self.at : self.at + PARTS]:
            if not each & RX_DD:
                return None
            parts.append(each >> 32)
            if not 1 <= parts[-1] <= 2048:
                return []
            if each & RX_EOP:
                return parts
        return []

    def _refuse(self) -> bool:
        """Go to the end of a frame; whether that is there."""
        while self.words[self.at] & RX_DD:
            self.at += 1
            self.skipping = not self.words[self.at - 1] & RX_EOP
            if not self.skipping:
                self.dropped += 1
                return True
        return False


# ---------------------------------------------------------------------------------------------------------------------
# From card to card


@ixy.kernel
def touch_last(packet: ixy.Packet) -> int:
    """Raise a byte of the first part; drop what is of one size."""
    packet[48] += 1
    return ixy.DROP if packet.total == 4097 else ixy.FORWARD


def touched(data: bytes) -> bytes:
    return data[:48] + bytes([data[48] + 1 & 0xFF]) + data[49:]


def test_frames_pass_through_a_path_from_card_to_card() -> None:
    """Sizes from 60 to 9,724 bytes, round and round through rings of 64 descriptors; every buffer comes home."""
    machine = Machine(stepped=True)
    with open_jumbo(machine, "sim:a") as one, open_jumbo(machine, "sim:b") as other:
        path = ixy.Path(one.rx[0], other.tx[0], touch_last)
        expected: list[bytes] = []
        left: list[bytes] = []
        for number in range(120):
            data = frame(number, SIZES[number % len(SIZES)])
            arrive(machine, data)
            expected += [touched(data)] if len(data) != 4097 else []
            path.run(1)
            left += depart(machine, name="b")
        path.run(2)
        left += depart(machine, name="b")
        assert left == expected
        assert (path.counts.received, path.counts.forwarded) == (120, len(expected))
        other.tx[0].send(one.rx[0].pool.allocate(1, metadata=("parts",)))  # cleans
        depart(machine, name="b")
        assert accounted(one) + other.tx[0].in_flight == POOL


def test_a_full_transmit_ring_holds_frames_back() -> None:
    """A card that sends nothing: what is received is what its ring has room for, whole; the rest goes later."""
    machine = Machine(stepped=True)
    with open_jumbo(machine, "sim:a") as one, open_jumbo(machine, "sim:b") as other:
        path = ixy.Path(one.rx[0], other.tx[0])
        frames = [frame(number, 9000) for number in range(24)]
        for data in frames[:12]:
            arrive(machine, data)
        path.run(3)
        for data in frames[12:]:
            arrive(machine, data)
        path.run(3)
        held = path.counts.received
        assert held == path.counts.forwarded == 12  # of 63 descriptors they take 60
        left: list[bytes] = []
        for _ in range(3):
            left += depart(machine, name="b")
            path.run(3)
        assert left + depart(machine, name="b") == frames


def test_batches_are_sent_whole() -> None:
    """Made by the program, and Scapy's; a card without parts refuses them by name."""
    scapy = pytest.importorskip("scapy.all")
    machine = Machine(stepped=True)
    with open_jumbo(machine) as device:
        with device.rx[0].pool.allocate(3, 9000, metadata=("parts",)) as batch:
            for number, packet in enumerate(batch):
                packet[:] = frame(number, 9000)
            assert device.tx[0].send(batch) == 3
        assert depart(machine) == [frame(number, 9000) for number in range(3)]
        packet = scapy.Ether(src="02:00:00:00:00:01") / scapy.IP(dst="10.0.0.2") / scapy.UDP() / bytes(8000)
        assert device.tx[0].send_scapy(packet) == 1
        [data] = depart(machine)
        assert data[6:] == bytes(packet)[6:]
        with pytest.raises(ConfigurationError, match="packet 1: 70042 bytes, and 33 buffers have 67584"):
            device.tx[0].send_scapy(scapy.Ether() / bytes(70028))
        arrive(machine, data)
        with device.rx[0].receive() as batch:
            [back] = ixy.to_scapy(batch)
            assert (bytes(back), back.wirelen) == (data, len(data))
