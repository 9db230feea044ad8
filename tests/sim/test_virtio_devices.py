"""The VirtIO driver against devices that use buffers in an order of their own, by batches, slowly, or wrongly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lab import accounted
from virtio_side import Buffer, Side

from ixy.device import Device
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.rings.rings import resume_at
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.packets.batch import Batch, lent
from ixy.packets.mempool import Mempool, drop, hold
from ixy.packets.packets import slots
from ixy.packets.pool import give, pools, take_soon
from ixy.registers import virtio as reg
from ixy.sim.virtio import BackEnd

SIZE, POOL = 16, 80
BASE = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS | 1 << reg.MRG_RXBUF
LEGACY = 1 << reg.ANY_LAYOUT | 1 << reg.MAC
PACKED, IN_ORDER, EVENTS = 1 << reg.RING_PACKED, 1 << reg.IN_ORDER, 1 << reg.EVENT_IDX
KINDS = {"split": BASE, "legacy": LEGACY, "events": BASE | EVENTS, "packed": BASE | PACKED}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_rings = pytest.mark.parametrize("kind", ["split", "packed"])


class Scene:
    """A driver, and the device's side of its receive and its transmit ring."""

    def __init__(self, device: Device, back_end: BackEnd) -> None:
        self.device = device
        self.pool = device.rx[0].pool
        self.rx, self.tx = Side(back_end.queues[0]), Side(back_end.queues[1])
        self.header = back_end.queues[0].header
        self.frames = 0

    def deliver(self, buffer: Buffer, size: int = 60, buffers: int = 1) -> bytes:
        """The device writes a frame, the first of `buffers`, and says that it has."""
        self.frames += 1
        data = random.Random(self.frames).randbytes(size)
        header = bytes(10) + buffers.to_bytes(2, "little")
        self.rx.write(buffer, header[: self.header] + data)
        self.rx.use(buffer.id, self.header + size)
        return data

    def receive(self, limit: int = SIZE) -> list[bytes]:
        with self.device.rx[0].receive(limit) as batch:
            return [bytes(packet) for packet in batch]

    def send(self, count: int) -> list[bytes]:
        """Send so many frames, each of another length: what they are."""
        batch = self.pool.allocate(count)
        frames: list[bytes] = []
        for packet in batch:
            self.frames += 1
            frames.append(random.Random(self.frames).randbytes(60 + self.frames % 100))
            packet.resize(len(frames[-1]))
            packet[:] = frames[-1]
        assert self.device.tx[0].send(batch) == count
        return frames

    def clean(self) -> int:
        """Have the transmit ring cleaned; its room."""
        ring = self.device.tx[0].ring
        return ring.room(ring.state, pools(), ring.size + 1)

    def free(self) -> set[int]:
        """The numbers of the pool's free buffers."""
        packets = slots(self.pool.available)
        assert take_soon(pools(), self.pool.number, packets, len(packets.ids)) == len(packets.ids)
        give(pools(), packets, 0, len(packets.ids))
        return set(packets.ids.tolist())


@contextmanager
def scene(features: int, size: int = SIZE) -> Iterator[Scene]:
    back_end = BackEnd("model", features)
    with Device(VirtioNet(InProcess(back_end), ring_size=size, pool_size=POOL + size)) as device:
        found = Scene(device, back_end)
        yield found
        assert accounted(device) == POOL + size


# ---------------------------------------------------------------------------------------------------------------------
# What is offered


@every_kind
def test_receive_buffers_as_the_device_finds_them(kind: str) -> None:
    """All places of the ring, once each; header and 2,048 bytes, apart from each other, for the device to write."""
    with scene(KINDS[kind]) as s:
        buffers = s.rx.look()
        assert [buffer.id for buffer in buffers] == list(range(SIZE))
        assert {(buffer.length, buffer.writable) for buffer in buffers} == {(s.header + 2048, True)}
        addresses = sorted(buffer.address for buffer in buffers)
        assert min(after - before for before, after in itertools.pairwise(addresses)) >= s.header + 2048


@every_kind
def test_frames_to_send_as_the_device_finds_them(kind: str) -> None:
    """For 100 frames, 1 to 7 at a time: a header of zeros and the frame, which the device may only read."""
    with scene(KINDS[kind]) as s:
        for turn in range(25):
            frames = s.send(1 + turn % 7)
            buffers = s.tx.look()
            assert [s.tx.read(buffer) for buffer in buffers] == [bytes(s.header) + data for data in frames]
            assert not any(buffer.writable for buffer in buffers)
            for buffer in buffers:
                s.tx.use(buffer.id, 0)
            assert s.clean() == SIZE


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("kind", ["split", "legacy", "events"])
def test_fresh_buffers_are_offered_by_groups(kind: str, size: int) -> None:
    """By 32, or by half a small ring: the index moves once in so many packets."""
    group = min(32, size // 2)
    with scene(KINDS[kind], size) as s:
        s.rx.look()
        for number in range(3 * size):
            s.deliver(next(iter(s.rx.with_device.values())))
            assert len(s.receive()) == 1
            assert len(s.rx.look()) == (group if number % group == group - 1 else 0)


@pytest.mark.parametrize(("size", "group"), [(16, 15), (32, 31), (64, 32), (128, 32)])
@both_rings
def test_sent_buffers_are_taken_back_by_groups(kind: str, size: int, group: int) -> None:
    """Once 32 are out, or all but one of a small ring; the device has sent them all. Sending more costs nothing as long
    as fewer are.
    """
    with scene(KINDS[kind], size) as s:
        for out in (group - 1, group, group + 1):
            for part in (out // 2, out - out // 2):
                s.send(part)
            for buffer in s.tx.look():
                s.tx.use(buffer.id, 0)
            s.send(1)
            assert s.device.tx[0].in_flight == (1 if out >= group else out + 1)
            for buffer in s.tx.look():
                s.tx.use(buffer.id, 0)
            assert s.clean() == size


@every_kind
@pytest.mark.parametrize("before", [0, 3, SIZE + 5])
def test_room_cleans_only_where_it_must(kind: str, before: int) -> None:
    """Six packets were sent of seven: who asks for the room there is leaves them; who asks for one more does not."""
    with scene(KINDS[kind]) as s:
        ring = s.device.tx[0].ring
        for _ in range(before):
            s.send(1)
            s.tx.use(s.tx.look()[0].id, 0)
            assert s.clean() == SIZE
        s.send(7)
        for buffer in s.tx.look()[:6]:
            s.tx.use(buffer.id, 0)
        for wanted in (1, SIZE - 8, SIZE - 7):
            assert ring.room(ring.state, pools(), wanted) == SIZE - 7
            assert ring.in_flight == 7
        assert ring.room(ring.state, pools(), SIZE - 6) == SIZE - 1
        assert ring.in_flight == 1
        with s.pool.allocate(SIZE) as batch:
            assert s.device.tx[0].send(batch) == SIZE - 1
        assert ring.room(ring.state, pools(), 1) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Orders


@every_kind
@pytest.mark.parametrize("seed", range(6))
def test_frames_arrive_in_the_order_of_their_use(kind: str, seed: int) -> None:
    """300 frames in buffers that the device picks at random, received by batches of random sizes: each is what the
    device wrote, in the order in which it said so.
    """
    chance = random.Random(seed)
    with scene(KINDS[kind]) as s:
        waiting: list[bytes] = []
        for _ in range(100):
            s.rx.look()
            for _ in range(min(chance.randint(0, 6), len(s.rx.with_device))):
                buffer = s.rx.with_device[chance.choice(sorted(s.rx.with_device))]
                waiting.append(s.deliver(buffer, chance.choice([1, 60, 61, 1514, 2047, 2048])))
            limit = chance.randint(1, SIZE)
            assert s.receive(limit) == waiting[:limit]
            del waiting[:limit]
        assert s.device.stats().rx_packets == s.frames - len(waiting)
        assert s.device.stats().rx_refused == 0
        assert s.device.link.up


@every_kind
@pytest.mark.parametrize("seed", range(6))
def test_just_those_buffers_come_back_that_were_sent(kind: str, seed: int) -> None:
    """The device sends what it has been given in random order, some of it at a time: the pool has the buffers of just
    those packets again, and the others' contents stay.
    """
    chance = random.Random(seed)
    with scene(KINDS[kind]) as s:
        out: dict[int, tuple[int, bytes]] = {}  # by the id of the descriptor: number of the buffer, and frame
        for _ in range(60):
            room = s.clean()
            assert room == SIZE - len(out)
            if room:
                batch, frames = prepared(s, chance.randint(1, room))
                numbers = lent(batch)[0].ids.tolist()
                assert s.device.tx[0].send(batch) == len(frames)
                for buffer, number, data in zip(s.tx.look(), numbers, frames, strict=True):
                    out[buffer.id] = number, data
            for number in chance.sample(sorted(out), chance.randint(0, len(out))):
                assert s.tx.read(s.tx.with_device[number]) == bytes(s.header) + out.pop(number)[1]
                s.tx.use(number, 0)
            assert s.clean() == SIZE - len(out)
            assert s.free().isdisjoint(number for number, _ in out.values())
            assert s.pool.available == POOL - len(out)


def prepared(s: Scene, count: int) -> tuple[Batch, list[bytes]]:
    batch = s.pool.allocate(count)
    frames: list[bytes] = []
    for packet in batch:
        s.frames += 1
        frames.append(random.Random(s.frames).randbytes(64))
        packet.resize(64)
        packet[:] = frames[-1]
    return batch, frames


@pytest.mark.parametrize("kind", [BASE | IN_ORDER, BASE | PACKED | IN_ORDER], ids=["split", "packed"])
@pytest.mark.parametrize("seed", range(4))
def test_buffers_come_back_by_batches_in_order(kind: int, seed: int) -> None:
    """With IN_ORDER the device names the last of a batch only (2.7.9, 2.8.7): all of it has been sent. Where a device
    that takes over would go on follows from that.
    """
    chance = random.Random(seed)
    with scene(kind) as s:
        out: list[int] = []
        sent = 0
        for _ in range(60):
            if room := s.clean():
                s.send(chance.randint(1, room))
                out += [buffer.id for buffer in s.tx.look()]
            if batch := chance.randint(0, len(out)):
                s.tx.use(out[batch - 1], 0, batch)
                del out[:batch]
                sent += batch
            assert s.device.sent() == sent
            place = sent % SIZE | (0 if sent // SIZE % 2 else 0x8000)
            assert resume_at(s.device.tx[0].ring) == (place << 16 | place if kind & PACKED else sent)  # type: ignore[arg-type]
            assert s.clean() == SIZE - len(out)
            assert s.device.stats().rx_errors == 0


# ---------------------------------------------------------------------------------------------------------------------
# Frames that are refused


@every_kind
@pytest.mark.parametrize(("size", "good"), [(0, False), (1, True), (2048, True), (2049, False), (1 << 20, False)])
def test_lengths_at_the_bounds(kind: str, size: int, good: bool) -> None:
    """A frame has at least one byte, and no more than its buffer."""
    with scene(KINDS[kind]) as s:
        first, second, third = s.rx.look()[:3]
        before = s.deliver(first)
        s.deliver(second, min(size, 2048))
        if size > 2048:
            length = (s.header + size).to_bytes(4, "little")
            queue = s.rx._queue
            at = queue.descriptors + 16 * 1 + 8 if queue.packed else queue.device + 4 + 8 * 1 + 4
            s.rx._memory[at : at + 4] = length
        after = s.deliver(third)
        frames = [data for _ in range(3) for data in s.receive()]
        assert frames[0] == before
        assert frames[-1] == after
        assert len(frames) == (3 if good else 2)
        assert s.device.stats().rx_refused == (0 if good else 1)
        assert s.device.stats().rx_bytes == sum(len(data) + 4 for data in frames)


@both_rings
@pytest.mark.parametrize("seed", range(8))
def test_frames_over_several_buffers_are_refused(kind: str, seed: int) -> None:
    """Among good frames, some span two to four buffers (5.1.6.4), picked at random and used bit by bit, with looks of
    the driver in between: each is refused once, all others arrive, and the buffers serve again.
    """
    chance = random.Random(seed)
    with scene(KINDS[kind]) as s:
        expected: list[bytes] = []
        got: list[bytes] = []
        refused = 0

        def pick() -> Buffer:
            while not s.rx.look() and not s.rx.with_device:
                got.extend(s.receive())
            return s.rx.with_device[chance.choice(sorted(s.rx.with_device))]

        for _ in range(60):
            spans = chance.choice([1, 1, 1, 2, 3, 4])
            if spans == 1:
                expected.append(s.deliver(pick()))
            else:
                refused += 1
                s.deliver(pick(), 2048, spans)
                for rest in range(spans - 1, 0, -1):
                    if chance.random() < 0.3:
                        got += s.receive(chance.randint(1, 4))
                    buffer = pick()
                    s.rx.use(buffer.id, 100 if rest == 1 else buffer.length)
            if chance.random() < 0.5:
                got += s.receive(chance.randint(1, 4))
        for _ in range(2 * SIZE):
            got += s.receive()
        assert got == expected
        assert s.device.stats().rx_refused == refused
        assert s.device.link.up


@both_rings
@pytest.mark.parametrize("said", [0, 1])
def test_a_full_frame_in_one_buffer_is_none_over_several(kind: str, said: int) -> None:
    """2,048 bytes fill the buffer; that the header counts one buffer, or none, does not matter."""
    with scene(KINDS[kind]) as s:
        data = s.deliver(s.rx.look()[0], 2048, said)
        assert s.receive() == [data]


def test_batches_of_frames_in_order_are_refused() -> None:
    """A device with IN_ORDER that names the last of three received buffers only does not tell the others' lengths."""
    with scene(BASE | IN_ORDER) as s:
        for turn in range(20):
            s.rx.look()
            ids = list(s.rx.with_device)[:4]
            s.rx.use(ids[2], s.header + 60, 3)
            data = s.deliver(s.rx.with_device[ids[3]])
            assert [data for _ in range(3) for data in s.receive()] == [data]
            assert s.device.stats().rx_refused == turn + 1
            assert s.device.link.up


def test_a_batch_of_received_frames_stops_a_packed_ring() -> None:
    """There, each frame has a descriptor of its own (2.8.7 is for what is read)."""
    with scene(BASE | PACKED | IN_ORDER) as s:
        s.rx.use(s.rx.look()[2].id, s.header + 60, 3)
        assert s.receive() == []
        assert not s.device.link.up


# ---------------------------------------------------------------------------------------------------------------------
# Devices that break the rules


def stopped(s: Scene, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """The link is down, the reason is logged, and nothing moves any more."""
    assert not s.device.link.up
    assert s.device.stats().rx_errors == 1
    assert reason in caplog.text


@both_rings
@pytest.mark.parametrize("bad", ["again", "beyond", "far beyond"])
@pytest.mark.parametrize("before", [0, 5, SIZE + 3])
def test_a_sent_buffer_that_the_device_did_not_have(
    kind: str, bad: str, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After some packets that were sent as they should, two are out of eight: the device names one that it has already
    used, or a descriptor that there is none of. What it does after that is not looked at.
    """
    with scene(KINDS[kind]) as s:
        for _ in range(before):
            s.send(1)
            s.tx.use(s.tx.look()[0].id, 0)
            s.clean()
        s.send(8)
        ids = [buffer.id for buffer in s.tx.look()]
        for id in ids[:6]:  # noqa: A001
            s.tx.use(id, 0)
        assert s.clean() == SIZE - 2
        s.tx.use({"again": ids[2], "beyond": SIZE, "far beyond": 0xFFFF}[bad], 0)
        s.tx.use(ids[6], 0)
        assert s.clean() == 0
        stopped(s, "transmit ring 0 has stopped: the device has used a buffer that it did not have", caplog)
        in_flight = s.device.tx[0].in_flight
        assert in_flight == 2
        s.tx.use(ids[7], 0)
        assert s.clean() == 0
        with s.pool.allocate(3) as batch:
            assert s.device.tx[0].send(batch) == 0
        assert s.device.tx[0].in_flight == in_flight


@pytest.mark.parametrize("before", [0, 5, SIZE + 3])
@pytest.mark.parametrize("more", [0, 1, 1000, 65_535])
def test_an_index_of_sent_buffers_beyond_those_there_are(
    before: int, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Three are out; so many more than these are said to be used."""
    with scene(BASE | IN_ORDER) as s:
        for _ in range(before):
            s.send(1)
            s.tx.use(s.tx.look()[0].id, 0)
            s.clean()
        s.send(3)
        s.tx.index(before + 3 + more)
        if more in (0, 65_535):  # 65,535 more is one less
            assert s.clean() == (SIZE if more == 0 else SIZE - 1)
        else:
            assert s.clean() == 0
            stopped(s, "transmit ring 0 has stopped: the device has used more buffers than it was given", caplog)
            with s.pool.allocate(3) as batch:
                assert s.device.tx[0].send(batch) == 0
            assert s.device.tx[0].in_flight == 3


@both_rings
@pytest.mark.parametrize("bad", ["again", "beyond"])
@pytest.mark.parametrize("before", [0, 5, SIZE + 3])
def test_a_received_buffer_that_the_device_did_not_have(
    kind: str, bad: str, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Of four frames the third is in a buffer that the device has used for the first, or in none: two arrive."""
    with scene(KINDS[kind]) as s:
        for _ in range(before):
            s.rx.look()
            s.deliver(next(iter(s.rx.with_device.values())))
            s.receive()
        s.rx.look()
        buffers = list(s.rx.with_device.values())
        frames = [s.deliver(buffers[0]), s.deliver(buffers[1])]
        s.rx.use(buffers[0].id if bad == "again" else SIZE, s.header + 60)
        s.deliver(buffers[2])
        assert [data for _ in range(3) for data in s.receive()] == frames
        stopped(s, "receive ring 0 has stopped: the device has used a buffer that it did not have", caplog)


@pytest.mark.parametrize("before", [0, 5, SIZE + 3])
def test_a_received_index_beyond_what_was_offered(before: int, caplog: pytest.LogCaptureFixture) -> None:
    """All that the device has may be used at once, and one more may not."""
    with scene(BASE) as s:
        for _ in range(before):
            s.rx.look()
            s.deliver(next(iter(s.rx.with_device.values())))
            s.receive()
        s.rx.look()
        frames = [s.deliver(buffer) for buffer in list(s.rx.with_device.values())]
        s.rx.index(before + len(frames) + 1)
        assert s.receive() == []
        stopped(s, "receive ring 0 has stopped: the device has used more buffers than it was given", caplog)
        s.rx.index(before + len(frames))
        assert s.receive() == []


@every_kind
def test_all_that_was_offered_may_be_used_at_once(kind: str) -> None:
    """Four times: the ring is empty then, and each frame is there."""
    with scene(KINDS[kind]) as s:
        for _ in range(4):
            s.rx.look()
            frames = [s.deliver(buffer) for buffer in list(s.rx.with_device.values())]
            assert s.receive() == frames
            assert s.receive() == []
        assert s.device.link.up


@both_rings
def test_a_refused_frame_in_a_buffer_that_the_device_did_not_have(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A frame over three buffers, the second of which is the first once more: it is refused, and the ring stops."""
    with scene(KINDS[kind]) as s:
        buffers = s.rx.look()
        s.deliver(buffers[0], 2048, 3)
        s.rx.use(buffers[0].id, buffers[0].length)
        s.rx.use(buffers[1].id, 100)
        assert [data for _ in range(3) for data in s.receive()] == []
        assert s.device.stats().rx_refused == 1
        stopped(s, "receive ring 0 has stopped: the device has used a buffer that it did not have", caplog)


@every_kind
@pytest.mark.parametrize("before", [0, 5, 13, SIZE, SIZE + 7])
@pytest.mark.parametrize("count", [1, 3, 7, SIZE])
def test_what_was_not_sent_comes_back(kind: str, before: int, count: int) -> None:
    """Wherever in the ring it lies when the device is closed."""
    with scene(KINDS[kind]) as s:
        pool = s.pool
        hold(pool, s)
        for _ in range(before):
            s.send(1)
            s.tx.use(s.tx.look()[0].id, 0)
            assert s.clean() == SIZE
        s.send(count)
        assert pool.available == POOL - count
    assert pool.available == POOL + SIZE
    with pool.allocate(POOL + SIZE) as batch:
        assert sorted(lent(batch)[0].ids.tolist()) == pool.ids.tolist()
    drop(pool, s)


def test_pools_of_several_devices(caplog: pytest.LogCaptureFixture) -> None:
    """Packets of a pool of the program's are sent too, and go home to it."""
    with scene(BASE) as s, Mempool(8) as own:
        assert s.device.tx[0].send(own.allocate(8)) == 8
        assert own.available == 0
        for buffer in s.tx.look():
            s.tx.use(buffer.id, 0)
        assert s.clean() == SIZE
        assert (own.available, caplog.text) == (8, "")
