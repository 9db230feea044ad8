"""What a vhost-user back end is told, message by message, and that it can work with nothing but that.

Numbers and layouts of messages are those of QEMU's specification of the protocol (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import mmap
import os
import random
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from vhost_back_end import GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, BackEnd, word
from virtio_side import Side

import ixy
from ixy.device import Device
from ixy.errors import ConfigurationError

RING = 64
MQ, REPLY_ACK, OTHERS = 1 << 0, 1 << 3, 1 << 1 | 1 << 5 | 1 << 15
PROTOCOL = 1 << 30
VERSION_1, RING_PACKED, IN_ORDER, MRG_RXBUF, EVENT_IDX, INDIRECT = 1 << 32, 1 << 34, 1 << 35, 1 << 15, 1 << 29, 1 << 28
MAC, STATUS, MTU, MULTIPLE = 1 << 5, 1 << 16, 1 << 3, 1 << 22  # of which a back end knows nothing


class Message(NamedTuple):
    request: int
    flags: int
    payload: bytes
    files: int


class Recorder(BackEnd):
    """Offers what it is told to, and writes down what it is told."""

    def __init__(self, path: Path, features: int, protocol: int | None = MQ | REPLY_ACK, pairs: int = 1) -> None:
        self.messages: list[Message] = []
        offered = {GET_FEATURES: features | (PROTOCOL if protocol is not None else 0), GET_QUEUE_NUM: pairs}
        offered |= {GET_PROTOCOL_FEATURES: (protocol or 0) | OTHERS}
        answers = {request: (lambda _, __, r=request, v=value: word(r, v)) for request, value in offered.items()}
        super().__init__(path, answers)  # type: ignore[arg-type]

    def _usual(self, request: int, flags: int, payload: bytes) -> bytes:
        count = sum(message.files for message in self.messages)
        self.messages.append(Message(request, flags, payload, len(self.files) - count))
        return super()._usual(request, flags, payload)

    def payloads(self, request: int) -> list[bytes]:
        return [message.payload for message in self.messages if message.request == request]


def device_at(path: Path, **options: int) -> Device:
    return ixy.open(f"vhost-user:{path}", ring_size=RING, pool_size=2 * RING, link_timeout=0, **options)


@contextmanager
def opened(
    path: Path, features: int, protocol: int | None = MQ | REPLY_ACK, pairs: int = 1, **options: int
) -> Iterator[tuple[Device, Recorder]]:
    with Recorder(path, features, protocol, pairs) as back_end, device_at(path, **options) as device:
        yield device, back_end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


def regions(payload: bytes) -> list[tuple[int, int, int, int]]:
    """Of SET_MEM_TABLE: guest address, size, user address and offset in the file of each."""
    count, padding = struct.unpack_from("<II", payload)
    assert padding == 0
    assert len(payload) == 8 + 32 * count
    return [struct.unpack_from("<QQQQ", payload, 8 + 32 * n) for n in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# The messages


@pytest.mark.parametrize("protocol", [None, 0, MQ, REPLY_ACK, MQ | REPLY_ACK])
@pytest.mark.parametrize(
    ("offered", "accepted"),
    [(VERSION_1 | INDIRECT | MAC, VERSION_1), (VERSION_1 | RING_PACKED | IN_ORDER, VERSION_1 | RING_PACKED | IN_ORDER)],
)
def test_the_conversation(path: Path, protocol: int | None, offered: int, accepted: int) -> None:
    """Owner, features, protocol, number of queues; then features, memory, and for each ring its size, its base, its
    addresses and its two files; it is enabled at last, where there are protocol features. A reply is asked for where
    the back end gives one. At the end the rings are stopped.
    """
    with opened(path, offered, protocol) as (device, back_end):
        extended = protocol is not None
        known = (protocol or 0) & (MQ | REPLY_ACK)
        reply = 8 if known & REPLY_ACK else 0
        told = back_end.messages
        introduction: list[tuple[int, int, bytes]] = [(3, 1, b""), (1, 1, b"")]
        if extended:
            introduction += [(15, 1, b""), (16, 1, struct.pack("<Q", known))]
        if known & MQ:
            introduction += [(17, 1, b"")]
        assert [message[:3] for message in told[: len(introduction)]] == introduction
        rest = told[len(introduction) :]
        assert rest[0] == (2, 1, struct.pack("<Q", accepted | (PROTOCOL if extended else 0)), 0)
        assert (rest[1].request, rest[1].flags, rest[1].files) == (5, 1 | reply, 2)
        for guest, size, user, offset in regions(rest[1].payload):
            assert (guest % 4096, size % 4096, user % 4096, offset) == (0, 0, 0, 0)
        base = 1 << 15 | 1 << 31 if accepted & RING_PACKED else 0
        for number in range(2):
            ring = rest[2 + 5 * number : 7 + 5 * number]
            assert ring[0] == (8, 1, struct.pack("<II", number, RING), 0)
            assert ring[1] == (10, 1, struct.pack("<II", number, base), 0)
            assert (ring[2].request, ring[2].flags, ring[2].files) == (9, 1, 0)
            assert struct.unpack("<IIQQQQ", ring[2].payload)[:2] == (number, 0)
            assert struct.unpack("<IIQQQQ", ring[2].payload)[5] == 0
            assert ring[3] == (12, 1, struct.pack("<Q", number), 1)
            assert ring[4] == (13, 1, struct.pack("<Q", number), 1)
        enabled = [(18, 1, struct.pack("<II", number, 1), 0) for number in range(2)] if extended else []
        assert rest[12:] == [*enabled, (1, 1, b"", 0)]
        assert device.link.up
        assert len(device.mac) == 6
        assert device.mac[0] == 2
        back_end.messages.clear()
    assert [message[:3] for message in back_end.messages] == [(11, 1, struct.pack("<II", n, 0)) for n in range(2)]


def test_addresses_are_random(path: Path) -> None:
    """The front end makes up its own, locally administered; two devices differ in more than a byte."""
    addresses = []
    for _ in range(2):
        with opened(path, VERSION_1) as (device, _):
            addresses.append(device.mac)
        path.unlink()
    assert sum(one != other for one, other in zip(*addresses, strict=True)) >= 2


def test_an_address_that_is_set(path: Path) -> None:
    """Nobody but this program needs to know."""
    with opened(path, VERSION_1) as (device, back_end):
        back_end.messages.clear()
        device.mac = bytes.fromhex("0200000000aa")
        assert device.mac == bytes.fromhex("0200000000aa")
        assert device.link.up
        assert back_end.messages == []


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_as_many_queues_as_the_back_end_has(path: Path, pairs: int) -> None:
    with opened(path, VERSION_1, pairs=3, rx_queues=pairs, tx_queues=1) as (_, back_end):
        sizes = [struct.unpack("<II", payload) for payload in back_end.payloads(8)]
        assert sizes == [(number, RING) for number in range(2 * pairs)]
    path.unlink()
    with (
        pytest.raises(ConfigurationError, match="4 queues: 1 to 3 are possible"),
        opened(path, VERSION_1, pairs=3, rx_queues=4),
    ):
        pass


def test_memory_that_comes_later(path: Path) -> None:
    """A pool of the program's is a third piece, told with the other two; eight are the most."""
    with opened(path, VERSION_1) as (device, back_end):
        pools = [ixy.Mempool(16) for _ in range(7)]
        for number, pool in enumerate(pools):
            if number < 6:
                device.attach(pool)
                assert len(regions(back_end.payloads(5)[-1])) == 3 + number
            else:
                with pytest.raises(ConfigurationError, match="9 pieces of memory"):
                    device.attach(pool)
        for pool in pools:
            pool.release()


# ---------------------------------------------------------------------------------------------------------------------
# The memory


class Mapped:
    """The regions of SET_MEM_TABLE in this process, once more: bytes by addresses in descriptors."""

    def __init__(self, back_end: Recorder) -> None:
        files = [fd for request, fd in back_end.files if request == 5]
        table = regions(back_end.payloads(5)[-1])
        self.regions = [
            (guest, user, mmap.mmap(fd, size, offset=offset))
            for (guest, size, user, offset), fd in zip(table, files[-len(table) :], strict=True)
        ]

    def guest(self, user: int) -> int:
        """The address in descriptors of what a ring address names."""
        (found,) = [g + user - u for g, u, memory in self.regions if 0 <= user - u < len(memory)]
        return found

    def _find(self, part: slice) -> tuple[mmap.mmap, slice]:
        ((memory, start),) = [
            (memory, part.start - guest) for guest, _, memory in self.regions if 0 <= part.start - guest < len(memory)
        ]
        return memory, slice(start, start + part.stop - part.start)

    def __getitem__(self, part: slice) -> bytes:
        memory, where = self._find(part)
        return memory[where]

    def __setitem__(self, part: slice, data: bytes) -> None:
        memory, where = self._find(part)
        memory[where] = bytes(data)

    def close(self) -> None:
        for _, _, memory in self.regions:
            memory.close()


def sides(back_end: Recorder, packed: bool, header: int) -> tuple[Mapped, list[Side]]:
    """The rings as the messages tell of them since the last SET_FEATURES."""
    memory = Mapped(back_end)
    found: list[Side] = []
    for number in range(2):
        _, _, descriptors, used, available, _ = struct.unpack("<IIQQQQ", back_end.payloads(9)[number - 2])
        _, begin = struct.unpack("<II", back_end.payloads(10)[number - 2])
        if packed:
            half = begin & 0xFFFF
            assert begin >> 16 == half
            begin = half & 0x7FFF | (0 if half & 0x8000 else RING)
        queue: Any = SimpleNamespace(
            memory=memory,
            size=RING,
            descriptors=memory.guest(descriptors),
            driver=memory.guest(available),
            device=memory.guest(used),
            packed=int(packed),
            header=header,
        )
        found.append(Side(queue, base=0, begin=begin))
    return memory, found


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | RING_PACKED, VERSION_1 | MRG_RXBUF])
def test_frames_pass_through_what_was_shared(path: Path, features: int) -> None:
    """The back end takes 100 frames from the transmit ring and puts 100 into the receive ring, through its own mapping
    of the files that it got. It is woken at once, and for what is sent.
    """
    header = 12
    with opened(path, features) as (device, back_end):
        kicks = [fd for request, fd in back_end.files if request == 12]
        for fd in kicks:
            assert select.select([fd], [], [], 10)[0]
            assert os.read(fd, 8) == (1).to_bytes(8, "little")
        memory, (receive, transmit) = sides(back_end, bool(features & RING_PACKED), header)
        for number in range(100):
            data = random.Random(number).randbytes(60 + number)
            receive.look()
            buffer = next(iter(receive.with_device.values()))
            assert buffer.length == header + 2048
            receive.write(buffer, bytes(10) + b"\1\0" + data)
            receive.use(buffer.id, header + len(data))
            batch = device.rx[0].receive(8)
            assert [bytes(packet) for packet in batch] == [data]
            assert device.tx[0].send(batch) == 1
            (buffer,) = transmit.look()
            assert transmit.read(buffer) == bytes(header) + data
            transmit.use(buffer.id, 0)
            assert os.read(kicks[1], 8) == (1).to_bytes(8, "little")
        memory.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("taken", [3, 67])
def test_the_next_back_end_goes_on(path: Path, packed: bool, taken: int) -> None:
    """The first back end goes when it has used some buffers; the next one is told where to go on, and finds the rest of
    what was sent.
    """
    features = VERSION_1 | (RING_PACKED if packed else 0)
    first = Recorder(path, features)
    with device_at(path) as device:
        memory, (receive, transmit) = sides(first, packed, 12)
        for number in range(taken):
            receive.look()
            buffer = next(iter(receive.with_device.values()))
            receive.write(buffer, bytes(12) + bytes([number]) * 60)
            receive.use(buffer.id, 72)
            batch = device.rx[0].receive(1)
            assert bytes(batch[0]) == bytes([number]) * 60
            assert device.tx[0].send(batch) == 1
            transmit.use(transmit.look()[0].id, 0)
        with device.rx[0].pool.allocate(2) as batch:
            batch.bytes[:, :60] = 0xEE
            assert device.tx[0].send(batch) == 2
        memory.close()
        first.close()
        path.unlink()
        with Recorder(path, features) as second:
            second.wait_for(GET_FEATURES, 2)
            bases = [struct.unpack("<II", payload) for payload in second.payloads(10)]
            if packed:
                half = taken % RING | (0x8000 if taken // RING % 2 == 0 else 0)
                assert bases == [(0, half << 16 | half), (1, half << 16 | half)]
            else:
                assert bases == [(0, taken), (1, taken)]
            memory, (receive, transmit) = sides(second, packed, 12)
            assert [transmit.read(buffer) for buffer in transmit.look()] == [bytes(12) + b"\xee" * 60] * 2
            receive.look()
            assert len(receive.with_device) >= RING // 2
            memory.close()
            assert device.wait_for_link(10).up
