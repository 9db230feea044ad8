"""The back end of vhost-user, `vhost-server:`, with a front end that a test writes byte by byte, and with our own."""

from __future__ import annotations

import logging
import os
import random
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vhost_front_end import (
    BUFFERS,
    GET_FEATURES,
    GET_PROTOCOL_FEATURES,
    GET_QUEUE_NUM,
    GET_VRING_BASE,
    GUEST,
    HEADER,
    INDIRECT,
    LOG_ALL,
    MRG_RXBUF,
    NEED_REPLY,
    RING_PACKED,
    SET_FEATURES,
    SET_MEM_TABLE,
    SET_VRING_ADDR,
    SET_VRING_BASE,
    SET_VRING_CALL,
    SET_VRING_ENABLE,
    SET_VRING_KICK,
    SET_VRING_NUM,
    SIZE,
    USER,
    VERSION_1,
    WRITE,
    FrontEnd,
    PackedRing,
    Piece,
    Ring,
    SplitRing,
)

import ixy
from ixy.errors import AddressError, DeviceBusy
from ixy.path import run
from ixy.telemetry.client import ask

RINGS = {"split": VERSION_1, "packed": VERSION_1 | RING_PACKED}
RX, TX = 0, 1  # the front end's first pair
TIMEOUT = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


@pytest.fixture
def device(path: Path) -> Iterator[ixy.Device]:
    with ixy.open(f"vhost-server:{path}", ring_size=64, pool_size=256, metadata=["flags"], link_timeout=0) as device:
        yield device


@pytest.fixture(params=RINGS)
def front(request: pytest.FixtureRequest, path: Path, device: ixy.Device) -> Iterator[FrontEnd]:  # noqa: ARG001
    """One that has introduced itself and shared its memory."""
    with FrontEnd(path, RINGS[request.param] | MRG_RXBUF) as front:
        front.introduce()
        assert front.table() == 0
        yield front


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.001)


def frame(number: int, size: int = 60) -> bytes:
    return (number.to_bytes(4, "big") + bytes(range(256)) * 8)[:size]


def put(front: FrontEnd, place: int, data: bytes, header: bytes = bytes(HEADER)) -> Piece:
    """A frame with its header in the memory, and the descriptor for both."""
    front.memory[place : place + HEADER + len(data)] = header + data
    return Piece(GUEST + place, HEADER + len(data))


def room(number: int, size: int) -> Piece:
    """A buffer of the front end's to receive into."""
    return Piece(GUEST + BUFFERS + 0x1000 * number, size, WRITE)


def receive(device: ixy.Device) -> list[bytes]:
    with device.rx[0].receive(64) as batch:
        return [bytes(packet[:]) for packet in batch]


def send(device: ixy.Device, frames: list[bytes]) -> int:
    """How many of the frames the device took."""
    with device.rx[0].pool.allocate(len(frames)) as batch:
        assert len(batch) == len(frames)
        for packet, data in zip(batch, frames, strict=True):
            packet.resize(len(data))
            packet[:] = data
        return device.tx[0].send(batch)


def check_idle(device: ixy.Device) -> None:
    """All buffers are free, and nothing was refused."""
    stats = device.stats()
    assert stats.rx_errors == stats.rx_refused == 0
    assert device.rx[0].pool.available == device.rx[0].pool.capacity


# ---------------------------------------------------------------------------------------------------------------------
# Frames


def test_frames_come_and_go(front: FrontEnd, device: ixy.Device) -> None:
    """Round after round of a ring of 8: what one side writes the other reads, in order, and both count it."""
    rx, tx = front.start(RX), front.start(TX)
    assert device.link.up
    for turn in range(5):
        sizes = [60, 1514, 2048, 61 + turn, 1]
        frames = [frame(turn, size) for size in sizes]
        names = [tx.offer(put(front, BUFFERS + 0x1000 * i, data)) for i, data in enumerate(frames)]
        assert receive(device) == frames
        assert [tx.used() for _ in names] == [(name, 0) for name in names]
        names = [rx.offer(room(i, 2100)) for i in range(5)]
        assert send(device, frames) == 5
        assert [rx.used() for _ in names] == [(n, HEADER + size) for n, size in zip(names, sizes, strict=True)]
        for i, data in enumerate(frames):
            place = BUFFERS + 0x1000 * i
            assert front.memory[place : place + HEADER + len(data)] == bytes(10) + b"\1\0" + data
    assert tx.used() is rx.used() is None
    stats = device.stats()
    assert stats.rx_packets == stats.tx_packets == 25
    assert stats.rx_bytes == stats.tx_bytes == sum(60 + 1514 + 2048 + 61 + turn + 1 + 5 * 4 for turn in range(5))
    check_idle(device)


def test_a_frame_in_pieces(front: FrontEnd, device: ixy.Device) -> None:
    """Its header alone, or divided; an empty piece; data in three: it is put together. One too long is dropped."""
    tx = front.start(TX)
    data = frame(7, 1500)
    place = put(front, BUFFERS, data).address
    header, body = place, place + HEADER
    parts = [Piece(header, HEADER), Piece(body, 500), Piece(body + 500, 0), Piece(body + 500, 1000)]
    for pieces in (parts, [Piece(header, 5), Piece(header + 5, 7 + 1500)]):
        name = tx.offer(*pieces)
        assert receive(device) == [data]
        assert tx.used() == (name, 0)
    assert receive(device) == []
    name = tx.offer(Piece(header, HEADER + 1500), Piece(body, 549))
    assert receive(device) == []
    assert tx.used() == (name, 0)
    assert device.stats().rx_refused == 1
    assert device.stats().rx_errors == 0


def test_a_frame_over_several_buffers(front: FrontEnd, device: ixy.Device) -> None:
    """1,500 bytes into buffers of 600: three are used at once, all but the last are full, and the header says three.
    While there are only two, the frame waits."""
    rx = front.start(RX)
    names = [rx.offer(room(i, 600)) for i in range(2)]
    assert send(device, [frame(1, 1500), frame(2)]) == 2
    assert rx.used() is None
    names += [rx.offer(room(i, 600)) for i in range(2, 4)]
    assert send(device, [frame(3)]) == 1
    assert [rx.used() for _ in range(4)] == [*zip(names, (600, 600, HEADER + 1500 - 1200, HEADER + 60), strict=True)]
    parts = [front.memory[BUFFERS + 0x1000 * i :][:600] for i in range(3)]
    assert parts[0][:HEADER] == bytes(10) + b"\3\0"
    assert (b"".join(parts))[HEADER : HEADER + 1500] == frame(1, 1500)
    assert rx.used() is None
    rx.offer(room(4, 600))
    assert device._driver.sent() == 3  # pyright: ignore[reportPrivateUsage]
    assert rx.used() == (4, HEADER + 60)
    check_idle(device)


def test_a_frame_too_large_for_the_buffers_is_dropped(
    path: Path, device: ixy.Device, caplog: pytest.LogCaptureFixture
) -> None:
    """Without mergeable buffers, whose buffers are too small gets nothing of it, and keeps them for the next."""
    with FrontEnd(path) as front:
        front.introduce()
        front.table()
        rx = front.start(RX)
        name = rx.offer(room(0, 600))
        assert send(device, [frame(0, 1500), frame(1)]) == 2
        assert rx.used() == (name, HEADER + 60)
        assert front.memory[BUFFERS + HEADER :][:60] == frame(1)
        assert rx.used() is None
    check_idle(device)
    assert device.stats().tx_packets == 2
    assert caplog.text.count("dropped 1 packets longer than the front end's buffers") == 1


def test_what_the_header_says_of_checksums(front: FrontEnd, device: ixy.Device) -> None:
    tx = front.start(TX)
    for i, header in enumerate((b"\0", b"\1", b"\2", b"\3")):
        tx.offer(put(front, BUFFERS + 0x1000 * i, frame(i), header.ljust(HEADER, b"\0")))
    with device.rx[0].receive(8) as batch:
        good, partial = int(ixy.Flags.L4_GOOD), int(ixy.Flags.L4_PARTIAL)
        assert batch.flags.tolist() == [0, partial, good, partial]


# ---------------------------------------------------------------------------------------------------------------------
# Calls, kicks, and rings that go on


def events(fd: int) -> int:
    """What an eventfd has counted."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_calls_and_kicks(front: FrontEnd, device: ixy.Device) -> None:
    """The front end is called once a batch, unless it says no; it is told not to kick, unless somebody waits."""
    rx, tx = front.start(RX), front.start(TX)
    packed = isinstance(tx, PackedRing)
    quiet = tx.device + (2 if packed else 0)
    assert front.memory[tx.start + quiet] == 1
    for i in range(3):
        tx.offer(put(front, BUFFERS + 0x1000 * i, frame(i)))
    assert len(receive(device)) == 3
    assert (events(tx.call), events(rx.call)) == (1, 0)
    silence(rx)
    rx.offer(room(0, 100))
    send(device, [frame(0)])
    assert rx.used()
    assert events(rx.call) == 0

    found: list[bytes] = []
    waiter = threading.Thread(
        target=lambda: found.extend(bytes(p[:]) for p in device.rx[0].receive(8, timeout=TIMEOUT))
    )
    waiter.start()
    until(lambda: front.memory[tx.start + quiet] == 0)
    tx.offer(put(front, BUFFERS, frame(9)))
    os.eventfd_write(tx.kick, 1)
    waiter.join(TIMEOUT)
    assert found == [frame(9)]
    assert front.memory[tx.start + quiet] == 1


def silence(ring: Ring) -> None:
    """Ask for no calls (2.7.7, 2.8.10)."""
    ring.memory[ring.start + ring.driver + (2 if isinstance(ring, PackedRing) else 0)] = 1


def base_of(front: FrontEnd, ring: int) -> int:
    """The ring stops; where it was."""
    index, base = struct.unpack("<II", front.ask(GET_VRING_BASE, struct.pack("<II", ring, 0)))
    assert index == ring
    return base


def test_a_ring_stops_and_goes_on(front: FrontEnd, device: ixy.Device) -> None:
    """It says where it has come to, 11 places on in a ring of 8, and begins there when it is started again. What comes
    meanwhile waits; a ring that is switched off (SET_VRING_ENABLE) likewise."""
    tx = front.start(TX)
    for i in range(11):
        tx.offer(put(front, BUFFERS, frame(i)))
        assert receive(device) == [frame(i)]
        assert tx.used()
    base = base_of(front, TX)
    packed = isinstance(tx, PackedRing)
    assert base == (0x0003_0003 if packed else 11)  # in the second round the wrap counter is 0
    tx.offer(put(front, BUFFERS, frame(11)))
    assert receive(device) == []
    at = USER + tx.start
    front.send(SET_VRING_BASE, struct.pack("<II", TX, base))
    front.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", TX, 0, at, at + tx.device, at + tx.driver, 0))
    front.send(SET_VRING_KICK, struct.pack("<Q", TX), (front.eventfd(),))
    front.word(GET_FEATURES)
    assert receive(device) == [frame(11)]
    front.send(SET_VRING_ENABLE, struct.pack("<II", TX, 0))
    front.word(GET_FEATURES)
    tx.offer(put(front, BUFFERS, frame(12)))
    assert receive(device) == []
    front.send(SET_VRING_ENABLE, struct.pack("<II", TX, 1))
    front.word(GET_FEATURES)
    assert receive(device) == [frame(12)]


@pytest.mark.parametrize("frames", [0, 3, 8, 11, 16, 21])
def test_a_packed_ring_whose_place_is_forgotten(frames: int, path: Path, device: ixy.Device) -> None:
    """QEMU says of a packed ring that it begins at 0 when it comes back to a back end: the ring tells where it is."""
    with FrontEnd(path, RINGS["packed"]) as front:
        front.introduce()
        front.table()
        tx = front.start(TX)
        for i in range(frames):
            tx.offer(put(front, BUFFERS, frame(i)))
            assert receive(device) == [frame(i)]
            assert tx.used()
        base_of(front, TX)
        for i in range(3):
            tx.offer(put(front, BUFFERS + 0x1000 * i, frame(100 + i)))
        at = USER + tx.start
        front.send(SET_VRING_BASE, struct.pack("<II", TX, 0x8000_8000))
        front.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", TX, 0, at, at + tx.device, at + tx.driver, 0))
        front.send(SET_VRING_KICK, struct.pack("<Q", TX), (front.eventfd(),))
        front.word(GET_FEATURES)
        assert receive(device) == [frame(100), frame(101), frame(102)]
        assert [tx.used() is not None for _ in range(4)] == [True, True, True, False]


def test_the_memory_changes_while_rings_run(front: FrontEnd, device: ixy.Device) -> None:
    """A second file comes, behind the first; a frame lies across both. Then the first has another address."""
    tx = front.start(TX)
    more = os.memfd_create("more")
    front.files.append(more)
    os.ftruncate(more, 4096)
    os.pwrite(more, frame(5)[20:], 0)
    both = (GUEST, SIZE, USER, 0), (GUEST + SIZE, 4096, USER + SIZE, 0)
    assert front.table(*both, fds=(front.fd, more)) == 0
    front.memory[SIZE - HEADER - 20 :] = bytes(HEADER) + frame(5)[:20]
    tx.offer(Piece(GUEST + SIZE - HEADER - 20, HEADER + 60))
    assert receive(device) == [frame(5)]
    assert front.table((0, SIZE, USER, 0)) == 0
    data = put(front, BUFFERS, frame(6))
    tx.offer(data._replace(address=data.address - GUEST))
    assert receive(device) == [frame(6)]
    assert device.stats().rx_errors == 0


def test_only_part_of_a_file_is_shared(path: Path, device: ixy.Device) -> None:
    """A region begins in the middle of a page of its file."""
    with FrontEnd(path) as front:
        front.introduce()
        assert front.table((GUEST, 0x8000, USER, 0), (GUEST + BUFFERS, 0x1000, USER + BUFFERS, BUFFERS + 0x100)) == 0
        tx = front.start(TX)
        put(front, BUFFERS + 0x100, frame(1))
        tx.offer(Piece(GUEST + BUFFERS, HEADER + 60))
        assert receive(device) == [frame(1)]


# ---------------------------------------------------------------------------------------------------------------------
# Front ends that come and go


def test_front_ends_come_and_go(path: Path, device: ixy.Device, caplog: pytest.LogCaptureFixture) -> None:
    """The first leaves: the link is down, and what is sent waits. The next one, of another kind, is given it. Before
    that, a second one at a time is turned away."""
    with FrontEnd(path) as first:
        first.introduce()
        first.table()
        first.start(RX), first.start(TX)
        assert device.link.up
        with FrontEnd(path) as second:
            assert second.ask(GET_FEATURES) == b""
        until(lambda: "a second front end was turned away" in caplog.text)
    until(lambda: not device.link.up)
    until(lambda: "the front end has gone; waiting for the next" in caplog.text)
    assert send(device, [frame(i) for i in range(70)]) == 64  # as many as the ring has places
    with FrontEnd(path, RINGS["packed"]) as third:
        third.introduce()
        third.table()
        rx = third.start(RX, size=64)
        third.start(TX)
        assert device.wait_for_link(TIMEOUT).up
        for i in range(64):
            rx.offer(room(i, 100))
        assert device._driver.sent() == 64  # pyright: ignore[reportPrivateUsage]
        assert third.memory[BUFFERS + 63 * 0x1000 + HEADER :][:60] == frame(63)
    check_idle(device)


@pytest.mark.once
def test_closing_takes_waiting_packets_back(path: Path) -> None:
    device = ixy.open(f"vhost-server:{path}", link_timeout=0)
    with ixy.Mempool(64) as pool:
        assert device.tx[0].send(pool.allocate(8)) == 8
        assert pool.available == pool.capacity - 8
        device.close()
        assert pool.available == pool.capacity
    assert not path.exists()


@pytest.mark.once
def test_the_socket(path: Path) -> None:
    """It is for this user alone. One that is left over is replaced; where somebody listens, or something else lies, it
    is said."""
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with ixy.open(f"vhost-server:{path}", link_timeout=0):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(DeviceBusy, match="another process listens there"):
            ixy.open(f"vhost-server:{path}", link_timeout=0)
        assert path.is_socket()
    path.write_text("mine")
    with pytest.raises(AddressError, match="something else than a socket"):
        ixy.open(f"vhost-server:{path}", link_timeout=0)
    assert path.read_text() == "mine"
    with pytest.raises(AddressError, match="no socket can be made there: Not a directory"):
        ixy.open(f"vhost-server:{path}/no/such", link_timeout=0)
    with pytest.raises(AddressError, match="ring=split and ring=packed are possible"):
        ixy.open(f"vhost-server:{path},queues=2", link_timeout=0)


@pytest.mark.once
def test_what_a_front_end_is_offered(path: Path) -> None:
    with (
        ixy.open(f"vhost-server:{path},ring=split", rx_queues=3, tx_queues=2, link_timeout=0) as device,
        FrontEnd(path) as front,
    ):
        offered = front.word(GET_FEATURES)
        assert offered & VERSION_1
        assert offered & MRG_RXBUF
        assert not offered & (RING_PACKED | LOG_ALL | 1)  # no checksums
        assert front.word(GET_PROTOCOL_FEATURES) == 0b1001
        assert front.word(GET_QUEUE_NUM) == 3
        assert [name for name in device.xstats() if name.endswith("_packets")] == [
            *("rx_q0_packets", "rx_q1_packets", "rx_q2_packets"),
            *("tx_q0_packets", "tx_q1_packets"),
        ]


@pytest.mark.once
def test_what_is_told_of_features(path: Path) -> None:
    """Those of the device, as far as they are offered; the protocol's own bit is none."""
    with ixy.open(f"vhost-server:{path},ring=split", link_timeout=0) as device:
        assert device.info.features == []
        assert device.info.refused == ["MRG_RXBUF", "MQ", "ANY_LAYOUT", "VERSION_1", "IN_ORDER"]
        with FrontEnd(path, VERSION_1 | MRG_RXBUF) as front:
            front.introduce()
            assert front.table() == 0
            assert device.info.features == ["MRG_RXBUF", "VERSION_1"]
            assert device.info.refused == ["MQ", "ANY_LAYOUT", "IN_ORDER"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox for root")
def test_in_a_sandbox(path: Path, tmp_path: Path) -> None:
    """Front ends come and go, and who asks is told so; in the end no socket is left. The kernels for that are there
    before, as nothing is kept of what is compiled in a sandbox."""
    script = """
        import ixy, sys
        from ixy.jitcache import Store
        late, load = [], Store.load
        with ixy.open(sys.argv[1], link_timeout=0) as device, ixy.serve_telemetry() as telemetry:
            ixy.sandbox()
            Store.load = lambda store, name, key: late.append(name) or load(store, name, key)
            print(telemetry.path, flush=True)
            sys.stdin.readline()
            device.sent()
        print(late)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), f"vhost-server:{path}"]
    environment = os.environ | {"RUNTIME_DIRECTORY": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        telemetry = Path(process.stdout.readline().strip())
        for ring in RINGS.values():
            with FrontEnd(path, ring) as front:
                front.introduce()
                assert front.table() == 0
                front.start(RX)
                front.start(TX)
                assert front.word(GET_FEATURES)  # what it said before was heard
                assert ask(telemetry, "/ixy/info,0")["link_up"]
            until(lambda: not ask(telemetry, "/ixy/info,0")["link_up"])
        process.stdin.close()
        assert process.stdout.read() == "[]\n"
        assert process.wait(TIMEOUT) == 0
    assert not path.exists()
    assert not telemetry.parent.exists()


# ---------------------------------------------------------------------------------------------------------------------
# Front ends that break the rules


def in_a_circle(ring: Ring) -> None:
    if isinstance(ring, PackedRing):
        for slot in range(ring.size):
            struct.pack_into("<QIHH", ring.memory, ring.start + 16 * slot, GUEST, 16, slot, 1 | 1 << 7)
        ring.offered += 1
        return
    struct.pack_into("<QIHH", ring.memory, ring.start, GUEST, 16, 1, 0)
    assert isinstance(ring, SplitRing)
    ring.show(0)


def jump(ring: Ring) -> None:
    ring._put(ring.driver + 2, "<H", 9)  # pyright: ignore[reportPrivateUsage]


def no_descriptor(ring: Ring) -> None:
    assert isinstance(ring, SplitRing)
    ring.show(8)


BREACHES: dict[str, tuple[Callable[[Ring], object], str]] = {
    "outside": (lambda ring: ring.offer(Piece(GUEST + SIZE, 100)), "outside the memory"),
    "below": (lambda ring: ring.offer(Piece(GUEST - 1, 100)), "outside the memory"),
    "over the end": (lambda ring: ring.offer(Piece(GUEST + SIZE - 99, 100)), "outside the memory"),
    "largest": (lambda ring: ring.offer(Piece((1 << 64) - 1, (1 << 32) - 1)), "outside the memory"),
    "smallest": (lambda ring: ring.offer(Piece(1 << 63, 100)), "outside the memory"),
    "to be written": (lambda ring: ring.offer(Piece(GUEST, 100, WRITE)), "do not make a buffer"),
    "indirect": (lambda ring: ring.offer(Piece(GUEST, 16, INDIRECT)), "do not make a buffer"),
    "in a circle": (in_a_circle, "do not make a buffer"),
    "too many": (jump, "more buffers than the ring has"),
    "no descriptor": (no_descriptor, "a descriptor that the ring does not have"),
}


SPLIT_ONLY = "too many", "no descriptor"  # packed rings have no index, and name no descriptors


@pytest.mark.parametrize(
    ("front", "breach"),
    [(ring, breach) for ring in RINGS for breach in BREACHES if ring == "split" or breach not in SPLIT_ONLY],
    indirect=["front"],
)
def test_a_ring_stops_that_breaks_the_rules(
    breach: str, front: FrontEnd, device: ixy.Device, caplog: pytest.LogCaptureFixture
) -> None:
    """The link is down, the reason is logged once, nothing is received; the other ring goes on. When the front end sets
    the ring up anew, as when its machine starts again, all is well."""
    rx, tx = front.start(RX), front.start(TX)
    do, reason = BREACHES[breach]
    do(tx)
    assert receive(device) == receive(device) == []
    assert not device.link.up
    assert not device.link.up
    assert device.stats().rx_errors == 1
    assert caplog.text.count("receive ring 0 has stopped, as the front end has broken the rules") == 1
    assert reason in caplog.text
    rx.offer(room(0, 100))
    send(device, [frame(1)])
    assert rx.used() == (0, HEADER + 60)
    base_of(front, TX)
    tx = front.start(TX)
    tx.offer(put(front, BUFFERS, frame(2)))
    assert receive(device) == [frame(2)]
    assert device.link.up
    check_idle(device)


@pytest.mark.parametrize(
    "piece",
    [
        Piece(GUEST + SIZE, 2000, WRITE),
        Piece(GUEST + SIZE - 30, 2000, WRITE),
        Piece(GUEST, 2000),
        Piece(GUEST, 5, WRITE),
    ],
)
def test_a_receive_ring_stops_likewise(piece: Piece, front: FrontEnd, device: ixy.Device) -> None:
    """What was to be sent waits for a ring that is in order."""
    rx = front.start(RX)
    rx.offer(piece)
    assert send(device, [frame(1)]) == 1
    assert device.stats().rx_errors == 1
    assert rx.used() is None
    base_of(front, RX)
    rx = front.start(RX)
    rx.offer(room(0, 100))
    assert device._driver.sent() == 1  # pyright: ignore[reportPrivateUsage]
    assert rx.used() == (0, HEADER + 60)
    check_idle(device)


def region(**changes: int) -> tuple[int, int, int, int]:
    values = {"guest": GUEST, "size": SIZE, "user": USER, "offset": 0} | changes
    return values["guest"], values["size"], values["user"], values["offset"]


TABLES = {
    "larger than its file": ([region(size=SIZE + 1)], "is not part of its file"),
    "behind its file": ([region(offset=SIZE)], "is not part of its file"),
    "offset overflows": ([region(offset=(1 << 64) - 4096)], "longer than addresses are"),
    "address overflows": ([region(guest=(1 << 64) - 4096)], "longer than addresses are"),
    "own address overflows": ([region(user=(1 << 64) - 4096)], "longer than addresses are"),
    "empty": ([region(size=0)], "is empty"),
    "twice": ([region(), region(guest=GUEST + SIZE - 1)], "two regions of memory have the address"),
    "nine": ([region(guest=GUEST + i * SIZE, user=USER + i * SIZE) for i in range(9)], "9 regions of memory"),
}


@pytest.mark.once
@pytest.mark.parametrize("lie", TABLES)
def test_memory_tables_that_lie(
    lie: str, front: FrontEnd, device: ixy.Device, caplog: pytest.LogCaptureFixture
) -> None:
    """While its rings run, a front end sends a table that cannot be: it is let go, in one line."""
    front.start(RX), front.start(TX)
    regions, reason = TABLES[lie]
    assert front.table(*regions) == -1
    until(lambda: "it was let go" in caplog.text)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert reason in line
    assert receive(device) == []
    assert not device.link.up


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.once
def test_files_that_are_none(path: Path, device: ixy.Device, caplog: pytest.LogCaptureFixture) -> None:
    """Memory in a pipe, in a file that cannot be written, or in none; calls by a pipe, kicks by a file."""
    reading, writing = os.pipe()
    sealed = os.open("/proc/self/exe", os.O_RDONLY)
    kick = struct.pack("<Q", TX)
    wrong: list[tuple[int, bytes, tuple[int, ...]]] = [
        (SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, *region()), (reading,)),
        (SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, *region(size=4096)), (sealed,)),
        (SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, *region()), ()),
        (SET_MEM_TABLE, struct.pack("<II", 1 << 31, 0), ()),
        (SET_VRING_CALL, kick, (writing,)),
        (SET_VRING_KICK, kick, (sealed,)),
        (SET_VRING_KICK, kick, ()),
        (SET_VRING_KICK, struct.pack("<Q", 2), (reading,)),
        (SET_VRING_NUM, struct.pack("<II", 0, 100), ()),
        (SET_VRING_NUM, b"", ()),
        (SET_FEATURES, struct.pack("<Q", 1 << 50), ()),
        (SET_FEATURES, struct.pack("<Q", LOG_ALL), ()),
        (99, b"", ()),
    ]
    before = open_files()
    for request, payload, fds in wrong:
        caplog.clear()
        with FrontEnd(path) as front:
            front.send(request, payload, fds)
            assert front.gone()
            until(lambda: "it was let go" in caplog.text)
            if payload == struct.pack("<Q", LOG_ALL):
                assert "wants its memory's changes logged (LOG_ALL)" in caplog.text
    for fd in (reading, writing, sealed):
        os.close(fd)
    assert open_files() == before - 3
    check_idle(device)


@pytest.mark.once
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 45), st.binary(max_size=80), st.integers(0, 2)), max_size=8), st.binary())
def test_nonsense(messages: list[tuple[int, bytes, int]], rest: bytes) -> None:
    """Whatever is said, the next front end is served."""
    server = shared_server()
    with FrontEnd(server) as front:
        try:
            for request, payload, files in messages:
                front.send(request, payload, (front.fd, front.eventfd())[:files], 1 | NEED_REPLY)
            front.socket.sendall(rest)
        except OSError:
            pass
    until(lambda: answers(server))


def answers(server: Path) -> bool:
    """Whether a front end that comes now is served; the one before it may still be being let go."""
    with FrontEnd(server) as front:
        return front.ask(GET_QUEUE_NUM) == struct.pack("<Q", 1)


_servers: list[tuple[Path, ixy.Device]] = []


def shared_server() -> Path:
    """A device for all examples of a test."""
    return _servers[0][0]


@pytest.fixture(autouse=True, scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("server") / "vhost"
    with ixy.open(f"vhost-server:{path}", ring_size=64, pool_size=256, link_timeout=0) as device:
        _servers.append((path, device))
        yield
        _servers.clear()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), kind=st.sampled_from(sorted(RINGS)))
def test_rings_full_of_nonsense(seed: int, kind: str) -> None:
    """The rings are filled with chance, now and then with addresses that are good; whatever that means, each call ends,
    no buffer of ours is lost, and nothing is written but where the front end's memory is."""
    path, device = _servers[0]
    dice = random.Random(seed)
    until(lambda: answers(path))
    front = connected(path, RINGS[kind] | MRG_RXBUF)
    with front:
        rings = front.start(RX, 16), front.start(TX, 16)
        for _ in range(20):
            for ring in rings:
                scribble(ring, dice)
            receive(device)
            send(device, [frame(i, dice.randrange(1, 2048)) for i in range(dice.randrange(1, 8))])
            for ring in rings:
                if device.stats().rx_errors and dice.random() < 0.5:
                    base = 0x8000_8000 if isinstance(ring, PackedRing) else 0
                    front.send(SET_VRING_BASE, struct.pack("<II", rings.index(ring), base))
        front.word(GET_FEATURES)
    stats = device.stats()
    assert stats.rx_packets >= 0
    waiting = stats.tx_packets - device._driver.sent()  # pyright: ignore[reportPrivateUsage]
    assert device.rx[0].pool.available == device.rx[0].pool.capacity - waiting


def connected(path: Path, features: int) -> FrontEnd:
    """A front end that is the only one, once the one before it is gone."""
    while True:
        front = FrontEnd(path, features)
        front.introduce()
        if front.table() == 0:
            return front
        front.close()


def scribble(ring: Ring, dice: random.Random) -> None:
    """Write chance into parts of a ring."""
    for slot in range(ring.size):
        if dice.random() < 0.6:
            address = dice.choice(
                [GUEST + dice.randrange(SIZE), GUEST + SIZE - dice.randrange(64), dice.getrandbits(64)]
            )
            length = dice.choice([dice.randrange(4096), dice.getrandbits(32), HEADER + 60])
            tail = [dice.getrandbits(16), dice.choice([0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83, 0x8000, 0x8002])]
            if isinstance(ring, SplitRing):
                tail.reverse()
            struct.pack_into("<QIHH", ring.memory, ring.start + 16 * slot, address, length, *tail)
    for place in range(ring.driver, ring.driver + 4 + 2 * ring.size):
        if dice.random() < 0.3:
            ring.memory[ring.start + place] = dice.choice([0, 0, 1, 2, 3, dice.getrandbits(8)])


def test_memory_that_goes_away(front: FrontEnd, device: ixy.Device, caplog: pytest.LogCaptureFixture) -> None:
    """A front end shortens the file in which its rings and frames lie: this process lives, and says so."""
    rx, tx = front.start(RX), front.start(TX)
    tx.offer(put(front, BUFFERS, frame(1)))
    rx.offer(room(0, 100))
    os.ftruncate(front.fd, 0)
    receive(device)
    send(device, [frame(2)])
    until(lambda: "the front end has shortened the memory that it shares; it was let go" in caplog.text)
    assert not device.link.up
    assert front.gone()
    with FrontEnd(front.socket.getpeername()) as second:
        second.introduce()
        assert second.table() == 0
        rx, tx = second.start(RX), second.start(TX)
        tx.offer(put(second, BUFFERS, frame(3)))
        assert receive(device) == [frame(3)]


def test_a_front_end_that_lets_calls_wait(
    front: FrontEnd, device: ixy.Device, caplog: pytest.LogCaptureFixture
) -> None:
    """It fills its eventfd, and makes it one at which who writes waits: the call ends all the same, and the ring
    stops."""
    call = os.eventfd(0)
    front.files.append(call)
    tx = front.start(TX, call=call)
    os.eventfd_write(call, (1 << 64) - 2)
    os.set_blocking(call, True)
    tx.offer(put(front, BUFFERS, frame(1)))
    assert receive(device) == [frame(1)]
    assert device.stats().rx_errors == 1
    assert "it does not take calls" in caplog.text


@pytest.mark.once
def test_half_a_message(path: Path, device: ixy.Device) -> None:
    """Who begins to speak and does not go on keeps nobody from closing the device."""
    with FrontEnd(path) as front:
        front.socket.sendall(b"\1\0\0")
        begun = time.monotonic()
        until(lambda: device._driver._server.connected)  # pyright: ignore
        device.close()
        assert time.monotonic() - begun < 9


# ---------------------------------------------------------------------------------------------------------------------
# With our own driver at the other end


def exchange(one: ixy.Device, other: ixy.Device, pool: ixy.Mempool, count: int) -> None:
    """Send frames through each queue of one device, and receive them from the other's queue of the same number."""
    for tx, rx in zip(one.tx, other.rx, strict=True):
        sent = 0
        back: list[bytes] = []
        deadline = time.monotonic() + TIMEOUT
        while len(back) < count:
            assert time.monotonic() < deadline, f"{len(back)} of {sent} frames have come"
            if sent < count and sent - len(back) < 64:
                with pool.allocate(min(16, count - sent)) as batch:
                    for i, packet in enumerate(batch):
                        data = frame(sent + i, 60 + (sent + i) % 1400)
                        packet.resize(len(data))
                        packet[:] = data
                    sent += tx.send(batch)
            with rx.receive(32) as batch:
                back += [bytes(packet[:]) for packet in batch]
        assert back == [frame(i, 60 + i % 1400) for i in range(count)]


@pytest.mark.parametrize("ring", RINGS)
def test_two_ends_in_one_process(ring: str, path: Path) -> None:
    """Frames pass both ways, through two pairs of queues, from pools that come later. The back end goes, and another
    one comes: the driver at the other end goes on with it."""
    shape = {"rx_queues": 2, "tx_queues": 2, "ring_size": 64}
    back = ixy.open(f"vhost-server:{path}", **shape, link_timeout=0)
    with ixy.open(f"vhost-user:{path},ring={ring}", **shape) as front, ixy.Mempool(512) as pool:
        assert back.wait_for_link(TIMEOUT).up
        exchange(front, back, pool, 300)
        exchange(back, front, pool, 300)
        assert front.stats().tx_packets == back.stats().rx_packets == 600
        assert front.stats().tx_bytes == back.stats().rx_bytes
        assert front.stats().rx_bytes == back.stats().tx_bytes
        back.close()
        until(lambda: not front.link.up)
        with ixy.open(f"vhost-server:{path}", **shape, link_timeout=TIMEOUT) as back:
            assert back.link.up
            exchange(back, front, pool, 100)
            exchange(front, back, pool, 100)
            until(lambda: front.link.up)


def test_a_path_between_two_back_ends_waits_for_both(tmp_path: Path) -> None:
    """`ixy forward vhost-server:a vhost-server:b` in small: what one driver sends, the other receives, with waits."""
    shape = {"ring_size": 64, "pool_size": 256}
    addresses = [str(tmp_path / name) for name in "ab"]
    with (
        ixy.open(f"vhost-server:{addresses[0]}", **shape, link_timeout=0) as a,
        ixy.open(f"vhost-server:{addresses[1]}", **shape, link_timeout=0) as b,
    ):
        there, back = ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0])
        stop = threading.Event()

        def forward() -> None:
            while not stop.is_set():
                run([there, back], 64, 0.01)

        worker = threading.Thread(target=forward)
        worker.start()
        try:
            with (
                ixy.open(f"vhost-user:{addresses[0]},ring=split", **shape) as one,
                ixy.open(f"vhost-user:{addresses[1]}", **shape) as other,
                ixy.Mempool(256) as pool,
            ):
                exchange(one, other, pool, 200)
                exchange(other, one, pool, 200)
        finally:
            stop.set()
            worker.join()
        assert there.counts.forwarded == back.counts.forwarded == 200
