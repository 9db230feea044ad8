"""The VirtIO driver against a model of the device in the same process: honest, then lying."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixy.device import Device
from ixy.drivers.rings import CLEAN, NEXT
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.rings.packed import PackedRing
from ixy.drivers.virtio.rings.rings import VirtioRxRing, VirtioTxRing, resume_at
from ixy.drivers.virtio.rings.split import SplitRing
from ixy.drivers.virtio.rings.state import OFFERED
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError, UnsupportedDevice
from ixy.packets.batch import Batch, lent
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import DmaMapping, DmaMemory, allocated
from ixy.packets.mempool import drop, hold
from ixy.packets.packets import slots
from ixy.packets.pool import give, pools, take_soon
from ixy.path import Path
from ixy.registers import virtio as reg
from ixy.sim.virtio import REFUSED, BackEnd, drain, feed

SIZE = 16
POOL = 64
BASE = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS | 1 << reg.MRG_RXBUF
PACKED, IN_ORDER, EVENT = 1 << reg.RING_PACKED, 1 << reg.IN_ORDER, 1 << reg.EVENT_IDX
KINDS = {
    "split": BASE,
    "split in order": BASE | IN_ORDER,
    "split with events": BASE | EVENT,
    "split without VERSION_1": 1 << reg.ANY_LAYOUT | 1 << reg.MAC,
    "split with an MTU": BASE | 1 << reg.MTU,
    "packed": BASE | PACKED,
    "packed in order": BASE | PACKED | IN_ORDER,
    "packed with events": BASE | PACKED | EVENT,
    "packed with an MTU": BASE | PACKED | 1 << reg.MTU,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def opened(features: int, pairs: int = 1) -> Iterator[tuple[Device, BackEnd]]:
    back_end = BackEnd("model", features, pairs)
    driver = VirtioNet(InProcess(back_end), rx_queues=pairs, tx_queues=pairs, ring_size=SIZE, pool_size=POOL)
    with Device(driver) as device:
        yield device, back_end


def frame(number: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Bytes that are told apart from those of another frame."""
    return np.frombuffer(random.Random(number).randbytes(size), np.uint8)


def check_buffers(device: Device, held: list[Batch]) -> None:
    """Each buffer of the pool is in one place: on the free stack, in a ring, or in a batch of the user's."""
    pool = device.rx[0].pool
    free = slots(pool.available)
    assert take_soon(pools(), pool.number, free, len(free.ids)) == len(free.ids)
    give(pools(), free, 0, len(free.ids))
    places = [free.ids]
    places += [ring.state.held.ids for ring in (queue.ring for queue in device.rx)]
    for queue in device.tx:
        state = queue.ring.state
        places.append(state.held.ids[np.arange(state.state[CLEAN], state.state[NEXT]) % SIZE])
    places += [packets.ids[slice(*span)] for packets, span in (lent(batch) for batch in held if len(batch))]
    assert sorted(np.concatenate(places).tolist()) == pool.ids.tolist()


class BehindIommu(InProcess):
    """A device that is told addresses of an IOMMU; which rings it was told of."""

    def __init__(self, back_end: BackEnd) -> None:
        super().__init__(back_end)
        self.told: list[int] = []

    def set_ring(self, index: int, *where: Any) -> None:
        self.told.append(index)
        super().set_ring(index, *where)

    def map(self, memory: DmaMemory) -> DmaMapping:
        return replace(super().map(memory), translated=True)


def test_a_device_that_goes_past_the_iommu_is_refused() -> None:
    """Without ACCESS_PLATFORM it is told of no ring, and the memory is returned; with it, it is opened (6.1)."""
    before = allocated()
    bypassing = BehindIommu(BackEnd("model", BASE))
    with pytest.raises(UnsupportedDevice, match="model: behind an IOMMU the device must offer ACCESS_PLATFORM, and"):
        VirtioNet(bypassing, ring_size=SIZE, pool_size=POOL)
    assert bypassing.told == []
    assert allocated() == before
    translated = BehindIommu(BackEnd("model", BASE | 1 << reg.ACCESS_PLATFORM))
    with Device(VirtioNet(translated, ring_size=SIZE, pool_size=POOL)):
        assert translated.told == [0, 1]


@pytest.mark.parametrize("pool_size", [SIZE, SIZE + 31])
def test_a_pool_that_is_too_small_is_refused(pool_size: int) -> None:
    """All buffers would lie in the receive ring, or sent in the transmit ring: the message says how many it takes."""
    with pytest.raises(ConfigurationError, match=f"a pool of {pool_size} buffers: a ring of 16 needs at least 48"):
        VirtioNet(InProcess(BackEnd("model", BASE, 1)), ring_size=SIZE, pool_size=pool_size)


@every_kind
def test_frames_of_all_sizes_pass_in_both_directions(kind: str) -> None:
    """Five rounds of the rings, frames of 1 to 2,048 bytes: each arrives as it was sent, and is counted."""
    with opened(KINDS[kind]) as (device, back_end):
        sizes = [1, 60, 61, 1514, 2047, 2048, *range(100, 174)]
        taken = np.zeros(BUFFER_SIZE, np.uint8)
        for number, size in enumerate(sizes):
            assert feed(back_end.queues[0], frame(number, size), size)
            batch = device.rx[0].receive(1)
            assert bytes(batch[0][:]) == frame(number, size).tobytes()
            assert device.tx[0].send(batch) == 1
            assert drain(back_end.queues[1], taken) == size
            assert taken[:size].tobytes() == frame(number, size).tobytes()
        stats = device.stats()
        assert (stats.rx_packets, stats.tx_packets) == (len(sizes), len(sizes))
        assert stats.rx_bytes == stats.tx_bytes == sum(sizes) + 4 * len(sizes)
        assert back_end.queues[0].state[REFUSED] == back_end.queues[1].state[REFUSED] == 0
        check_buffers(device, [])


@every_kind
def test_a_full_transmit_ring_takes_no_more_until_the_device_has_sent(kind: str) -> None:
    """A ring of 16 takes 16 of 20 packets; when the device has sent them, the other four."""
    with opened(KINDS[kind]) as (device, back_end):
        batch = device.rx[0].pool.allocate(20)
        assert device.tx[0].send(batch) == SIZE
        assert device.tx[0].send(batch) == 0
        while drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8)):
            pass
        assert device.tx[0].send(batch) == 4
        check_buffers(device, [])


@every_kind
def test_packets_are_sent_when_the_device_has_taken_them(kind: str) -> None:
    """Two rounds of the ring, five packets at a time: all are counted when they are handed over, as sent one by one."""
    with opened(KINDS[kind]) as (device, back_end):
        for first in range(0, 2 * SIZE, 5):
            assert device.tx[0].send(device.rx[0].pool.allocate(5)) == 5
            for taken in range(5):
                assert device.stats().tx_packets == first + 5
                assert device.sent() == first + taken
                assert drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8))


@every_kind
def test_a_path_leaves_packets_in_the_receive_ring_while_the_transmit_ring_is_full(kind: str) -> None:
    """The second device sends nothing at first: a ring's worth of packets waits there, and seven where they arrived,
    however often the path is polled. Then all are sent, in order; none was refused.
    """
    taken = np.zeros(BUFFER_SIZE, np.uint8)
    with opened(KINDS[kind]) as (source, sender), opened(KINDS[kind]) as (target, receiver):
        path = Path(source.rx[0], target.tx[0], batch=4)
        fed = 0
        for number in range(SIZE + 7):
            fed += feed(sender.queues[0], frame(number, 60), 60)
            path.run(3)
        assert fed == SIZE + 7
        assert path.counts == (SIZE, SIZE, 0)
        for number in range(SIZE + 7):
            drain(receiver.queues[1], taken)
            assert taken[:60].tobytes() == frame(number, 60).tobytes()
            path.run(1)
        assert path.counts == (SIZE + 7, SIZE + 7, 0)
        assert (source.stats().rx_refused, source.stats().rx_starved) == (0, 0)


@every_kind
def test_packets_wait_in_the_ring_while_the_pool_is_empty(kind: str) -> None:
    """The user keeps all buffers: the next packet stays in the ring, which is counted, and comes when there is one."""
    with opened(KINDS[kind]) as (device, back_end):
        batch = device.rx[0].pool.allocate(POOL)
        assert feed(back_end.queues[0], frame(1, 60), 60)
        assert len(device.rx[0].receive(SIZE)) == 0
        assert device.stats().rx_starved == 1
        batch.free()
        assert len(device.rx[0].receive(SIZE)) == 1


@every_kind
def test_a_frame_that_is_sent_on_asks_for_nothing(kind: str) -> None:
    """Whatever header a received frame has, it is 0 when the frame is sent (5.1.6.2.1: num_buffers, too)."""
    with opened(KINDS[kind]) as (device, back_end):
        assert feed(back_end.queues[0], frame(1, 60), 60)
        header = pools().bytes[device.rx[0].ring.state.held.ids[0] - 1, -device.rx[0].ring.state.header :]
        batch = device.rx[0].receive(1)
        header[:] = 0
        header[-1] = 7
        assert device.tx[0].send(batch) == 1
        assert not header.any()


def test_buffers_are_merged_only_where_a_frame_may_need_several() -> None:
    """An MTU of 2,026 and framing of 22 fill a buffer of 2,048 bytes: MRG_RXBUF is of no use. With a byte more it is,
    and so it is when the device does not tell.
    """
    for offered, mtu, merged in ((1 << reg.MTU, 2026, False), (1 << reg.MTU, 2027, True), (0, 1500, True)):
        back_end = BackEnd("model", BASE | offered)
        back_end.config[reg.CONFIG_MTU : reg.CONFIG_MTU + 2] = mtu.to_bytes(2, "little")
        driver = VirtioNet(InProcess(back_end), ring_size=SIZE, pool_size=POOL)
        with Device(driver):
            assert driver.features.has(reg.MRG_RXBUF) == merged
            assert driver.mtu() == mtu


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith(("VERSION_1", "MTU"))])
def test_a_frame_over_three_buffers_is_refused_whole(kind: str) -> None:
    """The device fills two buffers and part of a third with one frame (5.1.6.4). It is counted once as refused; the
    frame after it arrives.
    """
    with opened(KINDS[kind]) as (device, back_end):
        first = device.rx[0].ring.state.held.ids[0]
        for size in (2048, 2048 + 12, 100):  # only the first begins with a header; the model writes one before each
            feed(back_end.queues[0], frame(size, size), min(size, 2048))
        header = pools().bytes[first - 1, -12:]
        assert header[10] == 1
        header[10] = 3
        feed(back_end.queues[0], frame(9, 99), 99)
        packets = [bytes(packet[:]) for _ in range(4) for packet in device.rx[0].receive(SIZE)]
        assert packets == [frame(9, 99).tobytes()]
        assert device.stats().rx_refused == 1
        check_buffers(device, [])


def swap_used(ring: SplitRing | PackedRing, one: int, other: int) -> None:
    """Let the device have used the buffers at two places in the other order: what it says of them is exchanged."""
    if isinstance(ring, SplitRing):
        pairs = ring.used.reshape(-1, 2)
        pairs[[one, other]] = pairs[[other, one]]
        return
    words = ring.descriptors[1::2]
    flags = -1 << 48
    first, second = int(words[one]), int(words[other])
    words[one] = second & ~flags | first & flags
    words[other] = first & ~flags | second & flags


@pytest.mark.parametrize("kind", ["split", "packed"])
def test_a_device_may_use_buffers_out_of_order(kind: str) -> None:
    """Of four received frames, the second and the fourth are reported in the other order, in each of ten rounds; frames
    are told by what is in their buffers.
    """
    with opened(KINDS[kind]) as (device, back_end):
        for turn in range(10):
            place = int(device.rx[0].ring.state.state[NEXT])
            for number in range(4):
                feed(back_end.queues[0], frame(10 * turn + number, 60), 60)
            swap_used(device.rx[0].ring.state, (place + 1) % SIZE, (place + 3) % SIZE)
            with device.rx[0].receive(SIZE) as batch:
                got = [bytes(packet[:]) for packet in batch]
            assert got == [frame(10 * turn + number, 60).tobytes() for number in (0, 3, 2, 1)]
            check_buffers(device, [])
        assert device.link.up


@pytest.mark.parametrize("kind", ["split", "packed"])
def test_a_buffer_used_twice_stops_the_ring(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The device says twice that it has used the same buffer: the first counts, the ring stops, the link is down."""
    with opened(KINDS[kind]) as (device, back_end):
        for number in range(2):
            feed(back_end.queues[0], frame(number, 60), 60)
        ring = device.rx[0].ring.state
        if isinstance(ring, SplitRing):
            ring.used[2] = ring.used[0]
        else:
            ring.descriptors[3] &= ~(0xFFFF << 32)
        assert len(device.rx[0].receive(SIZE)) == 1
        assert len(device.rx[0].receive(SIZE)) == 0
        assert not device.link.up
        assert device.stats().rx_errors == 1
        assert "receive ring 0 has stopped: the device has used a buffer that it did not have" in caplog.text
        check_buffers(device, [])


def test_an_index_that_jumps_stops_the_ring(caplog: pytest.LogCaptureFixture) -> None:
    """The device says that it has used more buffers than there are."""
    with opened(KINDS["split"]) as (device, _):
        device.rx[0].ring.state.used_flags[1] = SIZE + 1
        assert len(device.rx[0].receive(SIZE)) == 0
        assert not device.link.up
        assert "the device has used more buffers than it was given" in caplog.text


@every_kind
@pytest.mark.parametrize("length", [0, 1, 9, 2048 + 13, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_refused(kind: str, length: int) -> None:
    """Lengths below the header or above the buffer: that frame is dropped and counted, the next one arrives."""
    with opened(KINDS[kind]) as (device, back_end):
        for number in range(2):
            feed(back_end.queues[0], frame(number, 60), 60)
        ring = device.rx[0].ring.state
        if isinstance(ring, SplitRing):
            ring.used[1] = length
        else:
            ring.descriptors[1] = int(ring.descriptors[1]) & ~0xFFFFFFFF | length
        packets = [bytes(packet[:]) for _ in range(3) for packet in device.rx[0].receive(SIZE)]
        assert packets == [frame(1, 60).tobytes()]
        assert device.stats().rx_refused == 1


def test_a_device_that_needs_a_reset_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """It sets NEEDS_RESET (2.1.2): the link is down and the reason is logged, once."""
    with opened(KINDS["split"]) as (device, back_end):
        back_end.failed = True
        assert not device.link.up
        assert not device.link.up
        assert device.stats().rx_errors == 1
        assert caplog.text.count("the device needs a reset") == 1


def resume_position(ring: VirtioRxRing | VirtioTxRing) -> int:
    base = resume_at(ring)
    return base if isinstance(ring.state, SplitRing) else base & 0x7FFF


@every_kind
def test_a_new_back_end_resumes_where_the_last_one_stopped(kind: str) -> None:
    """The device has received 5 frames, 3 of which the driver took, and sent 4 of 7: it goes on at places 5 and 4."""
    with opened(KINDS[kind]) as (device, back_end):
        for number in range(5):
            feed(back_end.queues[0], frame(number, 60), 60)
        device.rx[0].receive(3)
        device.tx[0].send(device.rx[0].pool.allocate(7))
        for _ in range(4):
            drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8))
        assert resume_position(device.rx[0].ring) == 5  # type: ignore[arg-type]
        assert resume_position(device.tx[0].ring) == 4  # type: ignore[arg-type]


@every_kind
def test_where_to_resume_tells_the_round(kind: str) -> None:
    """SET_VRING_BASE: on a split ring the index that the device used last, in 16 bits. On a packed ring, for what is
    available and for what is used, the place and in bit 15 the wrap counter: 1 in the first round, 0 in the second.
    """
    with opened(KINDS[kind]) as (device, back_end):
        for position in range(2 * SIZE + 3):
            place = position % SIZE | (0x8000 if position // SIZE % 2 == 0 else 0)
            expected = place << 16 | place if "packed" in kind else position
            assert resume_at(device.rx[0].ring) == expected  # type: ignore[arg-type]
            assert resume_at(device.tx[0].ring) == expected  # type: ignore[arg-type]
            assert feed(back_end.queues[0], frame(position, 60), 60)
            with device.rx[0].receive(1) as batch:
                assert device.tx[0].send(batch) == 1
            assert drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8)) == 60


# ---------------------------------------------------------------------------------------------------------------------
# When the device is notified


class Bell:
    """The device's side of notifications for a ring: its wish, and whether the driver has rung since the last look."""

    def __init__(self, device: Device, back_end: BackEnd, index: int) -> None:
        queues = device.tx if index % 2 else device.rx
        self._ring: SplitRing | PackedRing = queues[index // 2].ring.state
        self._doorbell = back_end.doorbells[index : index + 1]

    def wish(self, wanted: bool) -> None:
        """Be notified always, or never: 2.7.8 and 2.8.14."""
        if isinstance(self._ring, SplitRing):
            self._ring.used_flags[0] = 0 if wanted else 1
        else:
            self._ring.device_event[1] = 0 if wanted else 1

    def wish_at(self, place: int) -> None:
        """Be notified when the buffer at `place`, counted from the first one on, is made available: 2.7.7, 2.8.10."""
        if isinstance(self._ring, SplitRing):
            self._ring.available_event[0] = place & 0xFFFF
        else:
            self._ring.device_event[:] = place % SIZE | (0x8000 if place // SIZE % 2 == 0 else 0), 2

    def rung(self) -> bool:
        rung = bool(self._doorbell[0])
        self._doorbell[0] = 0
        return rung


WITHOUT_EVENTS = [kind for kind in KINDS if "events" not in kind]
WITH_EVENTS = [kind for kind in KINDS if "events" in kind or kind.startswith("packed")]


@pytest.mark.parametrize("kind", WITHOUT_EVENTS)
def test_a_device_is_notified_if_it_wants_to_be(kind: str) -> None:
    """Of packets to send with each batch, and of fresh buffers by half a ring of 16. If it does not want it, never."""
    with opened(KINDS[kind]) as (device, back_end):
        receive, transmit = Bell(device, back_end, 0), Bell(device, back_end, 1)
        receive.rung()
        for turn in range(3 * SIZE):
            wanted = turn % (2 * SIZE) < SIZE
            receive.wish(wanted)
            transmit.wish(wanted)
            feed(back_end.queues[0], frame(turn, 60), 60)
            with device.rx[0].receive(1) as batch:
                assert device.tx[0].send(batch) == 1
            assert transmit.rung() == wanted
            assert receive.rung() == (wanted and turn % (SIZE // 2) == SIZE // 2 - 1)
            drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8))


@every_kind
def test_a_device_is_told_of_its_first_buffers(kind: str) -> None:
    with opened(KINDS[kind]) as (device, back_end):
        assert Bell(device, back_end, 0).rung()
        assert not Bell(device, back_end, 1).rung()


@pytest.mark.parametrize("kind", WITH_EVENTS)
def test_a_device_is_notified_at_the_place_that_it_names(kind: str) -> None:
    """Batches of three packets, over more than two rounds of the ring: the device is notified by that which makes the
    place available that it asked for, and by no other, whether that is the batch's first, its last, or one beside it.
    """
    with opened(KINDS[kind]) as (device, back_end):
        bell = Bell(device, back_end, 1)
        first = 0
        for turn in range(3 * SIZE):
            place = first + turn % 5 - 1  # before the batch, at its three places, after it
            bell.wish_at(place)
            assert device.tx[0].send(device.rx[0].pool.allocate(3)) == 3
            assert bell.rung() == (first <= place < first + 3), (first, place)
            first += 3
            for _ in range(3):
                drain(back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8))


def test_the_place_is_counted_in_16_bits() -> None:
    """A split ring whose index is about to wrap: three packets go to the places 65,534, 65,535 and 0."""
    with opened(KINDS["split with events"]) as (device, back_end):
        ring, bell = device.tx[0].ring, Bell(device, back_end, 1)
        for place, expected in ((65533, False), (65534, True), (65535, True), (65536, True), (65537, False)):
            ring.state.state[[NEXT, CLEAN, OFFERED]] = ring.state.used_flags[1] = 65534
            bell.wish_at(place)
            assert device.tx[0].send(device.rx[0].pool.allocate(3)) == 3
            assert bell.rung() == expected
            ring.drain()  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------------
# A device that lies

word = st.integers(0, 0xFFFF)
identifier = st.integers(0, 2 * SIZE) | word
length = st.sampled_from([0, 1, 11, 12, 13, 72, 2059, 2060, 2061, 0x7FFFFFFF, 0xFFFFFFFF])
slot = st.integers(0, SIZE - 1)
queue = st.integers(0, 1)
action = st.one_of(
    st.tuples(st.just("feed"), st.integers(1, 5)),
    st.tuples(st.just("drain"), st.integers(1, 5)),
    st.tuples(st.just("receive"), st.integers(1, SIZE)),
    st.tuples(st.just("send"), st.just(0)),
    st.tuples(st.just("free"), st.just(0)),
    st.tuples(st.just("move index"), queue, st.integers(-3, SIZE + 3) | word),
    st.tuples(st.just("use"), queue, slot, identifier, length, word),
    st.tuples(st.just("exchange"), queue, slot, slot),
    st.tuples(st.just("scribble"), queue, st.binary(min_size=8, max_size=64), slot),
    st.tuples(st.just("header"), slot, word),
)


class Liar:
    """A device that does what it likes with the memory that the driver has shared."""

    def __init__(self, device: Device, back_end: BackEnd) -> None:
        self.device = device
        self.back_end = back_end
        self.rings: list[SplitRing | PackedRing] = [device.rx[0].ring.state, device.tx[0].ring.state]
        self.held: list[Batch] = []

    def do(self, name: str, *values: object) -> None:
        getattr(self, "_" + name.replace(" ", "_"))(*values)

    def _feed(self, count: int) -> None:
        for number in range(count):
            feed(self.back_end.queues[0], frame(number, 60), 60)

    def _drain(self, count: int) -> None:
        for _ in range(count):
            drain(self.back_end.queues[1], np.zeros(BUFFER_SIZE, np.uint8))

    def _receive(self, limit: int) -> None:
        batch = self.device.rx[0].receive(limit)
        assert all(1 <= size <= BUFFER_SIZE for size in batch.lengths)
        self.held.append(batch)

    def _send(self, _: int) -> None:
        if self.held and len(self.held[0]):
            self.device.tx[0].send(self.held[0])
        self.held = [batch for batch in self.held if len(batch)]

    def _free(self, _: int) -> None:
        for batch in self.held:
            batch.free()
        self.held.clear()

    def _move_index(self, number: int, value: int) -> None:
        ring = self.rings[number]
        if isinstance(ring, SplitRing):
            ring.used_flags[1] = (int(ring.used_flags[1]) + value) & 0xFFFF

    def _use(self, number: int, place: int, used: int, size: int, flags: int) -> None:
        ring = self.rings[number]
        if isinstance(ring, SplitRing):
            ring.used[2 * place : 2 * place + 2] = used, size
        else:
            value = size | (used & 0xFFFF) << 32 | flags << 48
            ring.descriptors[2 * place + 1] = value - (1 << 64) if value >> 63 else value

    def _exchange(self, number: int, one: int, other: int) -> None:
        swap_used(self.rings[number], one, other)

    def _scribble(self, number: int, data: bytes, place: int) -> None:
        """Over descriptors, that is, over the addresses of buffers; on a split ring over the available ring too."""
        ring = self.rings[number]
        memory = ring.descriptors.view(np.uint8)
        part = np.frombuffer(data, np.uint8)[: len(memory) - 16 * place]
        memory[16 * place : 16 * place + len(part)] = part
        if isinstance(ring, SplitRing):
            ring.available[2 + place] = part[0]

    def _header(self, place: int, count: int) -> None:
        pools().bytes[self.rings[0].held.ids[place] - 1, -2:] = count & 0xFF, count >> 8


@given(kind=st.sampled_from(sorted(KINDS)), actions=st.lists(action, max_size=60))
@settings(deadline=None)
def test_a_lying_device_costs_no_buffer(kind: str, actions: list[tuple[str, ...]]) -> None:
    """A device writes into the rings whatever it likes. After each step every buffer is in exactly one place, a
    packet's length fits its buffer, and nothing raises; when the device is closed, all buffers are back.
    """
    with opened(KINDS[kind]) as (device, back_end):
        liar = Liar(device, back_end)
        for name, *values in actions:
            liar.do(name, *values)
            check_buffers(device, liar.held)
        assert device.link.up == (device.stats().rx_errors == 0)
        pool = device.rx[0].pool
        hold(pool, liar)
        liar.do("free", 0)
    assert pool.available == POOL
    drop(pool, liar)
