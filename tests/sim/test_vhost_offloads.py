"""The back end of vhost-user with offloads and packets of several parts: a front end written byte by byte, and our own.

What packets must look like is worked out by Scapy.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from vhost_front_end import BUFFERS, GUEST, HEADER, MRG_RXBUF, RING_PACKED, VERSION_1, WRITE, FrontEnd, Piece

import ixy
from ixy.errors import ConfigurationError
from ixy.packets.packets import Flags
from ixy.registers import virtio as reg
from ixy.sim.virtio_port import Header, Parsed

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # Scapy is not to ask for addresses
COLUMNS = ("flags", "segments", "parts")
OFFLOADS = ("checksum", "segmentation", "coalescing")
RINGS = {"split": VERSION_1, "packed": VERSION_1 | RING_PACKED}
THERE = (reg.CSUM, reg.HOST_TSO4, reg.HOST_TSO6, reg.HOST_ECN)
BACK = (reg.GUEST_CSUM, reg.GUEST_TSO4, reg.GUEST_TSO6, reg.GUEST_ECN)
ALL = sum(1 << bit for bit in THERE + BACK)
RX, TX = 0, 1  # the front end's first pair
RING = 256
TIMEOUT = 30.0
both_rings = pytest.mark.parametrize("ring", RINGS)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ixy.Device]:
    address = f"vhost-server:{tmp_path / 'vhost'}"
    with ixy.open(address, ring_size=64, pool_size=256, metadata=COLUMNS, offloads=OFFLOADS, link_timeout=0) as opened:
        yield opened
        assert opened.rx[0].pool.available == 256


def front_end(tmp_path: Path, ring: str, features: int = ALL | MRG_RXBUF) -> FrontEnd:
    front = FrontEnd(tmp_path / "vhost", RINGS[ring] | features)
    front.introduce()
    assert front.table() == 0
    return front


def filled(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def put(front: FrontEnd, data: bytes, sizes: list[int]) -> list[Piece]:
    """Bytes in pieces of these sizes, the last as long as it takes, a page apart."""
    pieces: list[Piece] = []
    place = BUFFERS
    while data:
        size = sizes.pop(0) if sizes else len(data)
        part, data = data[:size], data[size:]
        front.memory[place : place + len(part)] = part
        pieces.append(Piece(GUEST + place, len(part)))
        place += len(part) + 4096
    return pieces


def rooms(front: FrontEnd, ring: Any, sizes: list[int], place: int = BUFFERS) -> list[int]:
    """Offer buffers to receive into; where they lie."""
    places: list[int] = []
    for size in sizes:
        front.memory[place : place + size] = bytes([0xEE]) * size
        ring.offer(Piece(GUEST + place, size, WRITE))
        places.append(place)
        place += size + 64
    return places


def taken(front: FrontEnd, ring: Any, places: list[int]) -> tuple[Header, bytes]:
    """What was written into the buffers that were used, the first of which says how many they are."""
    written = [ring.await_used()[1]]
    header = Header.parse(front.memory[places[0] : places[0] + HEADER])
    written += [ring.await_used()[1] for _ in range(header.buffers - 1)]
    data = b"".join(front.memory[at : at + size] for at, size in zip(places, written, strict=False))
    return header, data[HEADER:]


# ---------------------------------------------------------------------------------------------------------------------
# What comes in


@given(
    ring=st.sampled_from(sorted(RINGS)),
    cases=st.lists(
        st.tuples(
            st.integers(1, 5000) | st.sampled_from([2048, 2049, 4096, 60000, 33 * 2048]),
            st.lists(st.integers(1, 20000) | st.sampled_from([1, 12, 2048, 2060]), max_size=6),
        ),
        min_size=1,
        max_size=5,
    ),
)
@settings(max_examples=25)
def test_frames_in_any_pieces_are_received_whole(
    ring: str, cases: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("vhost") / "v"
    with (
        ixy.open(
            f"vhost-server:{path}", ring_size=64, pool_size=128, metadata=COLUMNS, offloads=OFFLOADS, link_timeout=0
        ) as device,
        FrontEnd(path, RINGS[ring] | ALL | MRG_RXBUF) as front,
    ):
        front.introduce()
        assert front.table() == 0
        tx = front.start(TX, RING)
        for number, (size, sizes) in enumerate(cases):
            frame = filled(number, size)
            tx.offer(*put(front, bytes(HEADER) + frame, list(sizes)))
            with device.rx[0].receive(4) as batch:
                assert [bytes(packet) for packet in batch] == [frame]
                assert (batch.flags.tolist(), batch.segments.tolist()) == ([0], [0])
            assert tx.used() is not None
        assert device.stats().rx_bytes == sum(size + 4 for size, _ in cases)
        assert device.rx[0].pool.available == 128


GOOD = Header(reg.NEEDS_CSUM, 1, 54, 1448, 34, 16)
SAID = {
    "partial": (Header(reg.NEEDS_CSUM, csum_start=34, csum_offset=6), Flags.L4_PARTIAL, 0),
    "good": (Header(reg.DATA_VALID), Flags.L4_GOOD, 0),
    "segments over IPv4": (GOOD, Flags.L4_PARTIAL, 1448),
    "segments over IPv6, with CWR": (GOOD._replace(gso_type=0x84), Flags.L4_PARTIAL, 1448),
}
LIES = {
    "a checksum behind the packet": GOOD._replace(gso_type=0, csum_start=4999),
    "segments of nothing": GOOD._replace(gso_size=0),
    "segments longer than the packet": GOOD._replace(gso_size=5001),
    "segments of UDP": GOOD._replace(gso_type=3),
}


@both_rings
def test_what_headers_say_is_told_if_it_can_be_true(ring: str, device: ixy.Device, tmp_path: Path) -> None:
    with front_end(tmp_path, ring) as front:
        tx = front.start(TX, RING)
        for header, flags, segments in SAID.values():
            tx.offer(*put(front, header.build(HEADER) + filled(1, 5000), [70, 3000]))
            with device.rx[0].receive(4) as batch:
                assert (batch.flags.tolist(), batch.segments.tolist()) == ([flags], [segments])
        refused = [lie.build(HEADER) + filled(1, 5000) for lie in LIES.values()]
        refused += [bytes(HEADER) + filled(1, 33 * 2048 + 1), bytes(HEADER), bytes(HEADER - 1)]
        for data in refused:
            tx.offer(*put(front, data, [70, 3000]))
            assert len(device.rx[0].receive(4)) == 0
        assert device.stats().rx_refused == len(LIES) + 3
        assert device.stats().rx_errors == 0


@both_rings
def test_segments_that_were_not_accepted_are_refused(ring: str, device: ixy.Device, tmp_path: Path) -> None:
    with front_end(tmp_path, ring, MRG_RXBUF | 1 << reg.CSUM) as front:
        tx = front.start(TX, RING)
        tx.offer(*put(front, GOOD.build(HEADER) + filled(1, 5000), []))
        assert len(device.rx[0].receive(1)) == 0
        assert device.stats().rx_refused == 1


@both_rings
def test_a_frame_stays_with_the_front_end_while_there_are_too_few_buffers(
    ring: str, device: ixy.Device, tmp_path: Path
) -> None:
    with front_end(tmp_path, ring) as front:
        tx = front.start(TX, RING)
        tx.offer(*put(front, bytes(HEADER) + filled(1, 5000), []))
        held = device.rx[0].pool.allocate(254)
        assert len(device.rx[0].receive(1)) == 0
        assert tx.used() is None
        assert device.stats().rx_starved == 1
        held.free()
        with device.rx[0].receive(1) as batch:
            assert bytes(batch[0]) == filled(1, 5000)


# ---------------------------------------------------------------------------------------------------------------------
# What goes out


def send(device: ixy.Device, frame: bytes, flags: int = 0, segments: int = 0) -> None:
    with device.rx[0].pool.allocate(1, len(frame), metadata=COLUMNS) as batch:
        batch[0][:] = frame
        batch.flags, batch.segments = flags, segments
        assert device.tx[0].send(batch) == 1


@both_rings
def test_packets_go_into_as_many_buffers_as_it_takes(ring: str, device: ixy.Device, tmp_path: Path) -> None:
    """Of a size each, and of several; as soon as there are enough."""
    with front_end(tmp_path, ring) as front:
        for number, sizes in enumerate(([1526] * 45, [65562], [12, 2048, 70000], [100, 13] * 9 + [65000], [4096] * 17)):
            frame = filled(number, 65000)
            rx = front.start(RX, RING)
            places = rooms(front, rx, sizes[:1])
            send(device, frame)
            if len(sizes) > 1:
                assert rx.used() is None
                places += rooms(front, rx, sizes[1:], places[0] + sizes[0] + 64)
            assert device.sent() == number + 1
            assert taken(front, rx, places)[1] == frame
            assert device.stats().tx_bytes == (number + 1) * (65000 + 4)  # with check sequences


def packets() -> list[Any]:
    networks = (IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2"))
    transports = (TCP(sport=1, dport=2, flags="PA"), UDP(sport=3, dport=4))
    return [
        ETHER / network / transport / Raw(filled(size, size))
        for network in networks
        for transport in transports
        for size in (1, 1000, 5001)
    ]


def partial(made: Any) -> bytes:
    """With something else for checksums."""
    wrong = Ether(bytes(made))
    wrong[TCP if TCP in wrong else UDP].chksum = 0x1234
    if IP in wrong:
        wrong[IP].chksum = 0x4321
    return bytes(wrong)


@both_rings
@pytest.mark.parametrize("accepted", [ALL, 0], ids=["accepted", "not accepted"])
def test_checksums_are_asked_for_or_made(accepted: int, ring: str, device: ixy.Device, tmp_path: Path) -> None:
    """A front end that takes packets without checksums is told where they are, and one that does not gets them made."""
    with front_end(tmp_path, ring, accepted | MRG_RXBUF) as front:
        for made in packets():
            right = bytes(made)
            rx = front.start(RX, RING)
            places = rooms(front, rx, [4096, 4096])
            send(device, partial(made), Flags.L4_PARTIAL | (Flags.IP_PARTIAL if IP in made else 0))
            header, frame = taken(front, rx, places)
            assert header.flags == (reg.NEEDS_CSUM if accepted else 0)
            if accepted:
                found = Parsed(frame)
                assert header.csum_start == found.transport
                assert header.csum_start + header.csum_offset == found.checksum
                assert found.half(found.checksum) == found.pseudo_sum()
                frame = (
                    frame[: found.checksum] + right[found.checksum : found.checksum + 2] + frame[found.checksum + 2 :]
                )
            assert frame == right


@both_rings
def test_what_a_front_end_does_not_cut_is_dropped(ring: str, device: ixy.Device, tmp_path: Path) -> None:
    """One that does is told how."""
    made = ETHER / IP() / TCP(flags="A") / Raw(filled(1, 9000))
    for features, there in ((ALL, True), (ALL & ~(1 << reg.GUEST_TSO6), False), (0, False)):
        with front_end(tmp_path, ring, features | MRG_RXBUF) as front:
            rx = front.start(RX, RING)
            places = rooms(front, rx, [4096] * 4)
            send(device, partial(made), Flags.L4_PARTIAL, 1448)
            if there:
                header, frame = taken(front, rx, places)
                assert header._replace(buffers=0) == Header(1, 1, 54, 1448, 34, 16)
                assert len(frame) == 9054
            else:
                assert rx.used() is None
    assert device.stats().tx_packets == 3
    assert device.xstats()["tx_q0_refused"] == 2


@both_rings
@pytest.mark.parametrize("features", [0, 1 << reg.GUEST_CSUM], ids=["no checksums", "checksums"])
def test_a_packet_that_is_one_segment_need_not_be_cut(
    features: int, ring: str, device: ixy.Device, tmp_path: Path
) -> None:
    """It gets its checksums, by whom ever, and goes on."""
    made = ETHER / IP() / TCP(flags="A") / Raw(filled(1, 1448))
    with front_end(tmp_path, ring, features | MRG_RXBUF) as front:
        rx = front.start(RX, RING)
        places = rooms(front, rx, [4096])
        send(device, partial(made), 0, 1448)
        header, frame = taken(front, rx, places)
        assert header == (Header(1, 0, 0, 0, 34, 16, 1) if features else Header(buffers=1))
        assert frame[:50] + frame[52:] == bytes(made)[:50] + bytes(made)[52:]
        if not features:
            assert frame == bytes(made)
        xstats = device.xstats()
        assert (xstats["tx_q0_refused"], xstats["tx_q0_unchanged"]) == (0, 0)


@both_rings
def test_what_cannot_be_done_to_a_packet_is_counted(ring: str, device: ixy.Device, tmp_path: Path) -> None:
    with front_end(tmp_path, ring) as front:
        rx = front.start(RX, RING)
        send(device, bytes(Ether(src=ETHER.src, dst=ETHER.dst, type=0x88B5) / Raw(bytes(60))), Flags.L4_PARTIAL)
        assert device.xstats()["tx_q0_unchanged"] == 0  # it waits
        places = rooms(front, rx, [2100])
        assert device.sent() == 1
        assert taken(front, rx, places)[0] == Header(buffers=1)
        assert device.xstats()["tx_q0_unchanged"] == 1


# ---------------------------------------------------------------------------------------------------------------------
# With our own front end


@both_rings
def test_two_ends_of_ours(ring: str, tmp_path: Path) -> None:
    """Packets without checksums, of up to 60,000 bytes, go from end to end and come back: each end is told what the
    other one was asked to do."""
    shape: dict[str, Any] = {"ring_size": RING, "pool_size": 1024, "metadata": COLUMNS, "offloads": OFFLOADS}
    path = tmp_path / "v"
    with (
        ixy.open(f"vhost-server:{path}", **shape, link_timeout=0) as back,
        ixy.open(f"vhost-user:{path},ring={ring}", **shape) as front,
    ):
        assert back.wait_for_link(TIMEOUT).up
        for one, other in ((front, back), (back, front)):
            for made in packets():
                size = len(made) if UDP in made else 60000
                big = made if UDP in made else made.__class__(bytes(made)[: -len(made[Raw])]) / Raw(filled(2, size))
                segments = 0 if UDP in made else 1448
                if IP in big:
                    del big[IP].len, big[IP].chksum
                elif IPv6 in big:
                    del big[IPv6].plen
                frame = partial(big)
                send(one, frame, Flags.L4_PARTIAL, segments)
                with other.rx[0].receive(4, timeout=TIMEOUT) as batch:
                    assert (batch.flags.tolist(), batch.segments.tolist()) == ([Flags.L4_PARTIAL], [segments])
                    found = Parsed(bytes(batch[0]))
                    assert found.half(found.checksum) == found.pseudo_sum()
                    assert found.frame[found.payload :] == bytes(big)[found.payload :]
        assert front.stats().rx_refused == back.stats().rx_refused == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": ("hash",)}, "does not tell 'hash'"),
        ({"offloads": ("vlan",), "metadata": ("vlan",)}, "does not tell 'vlan'"),
        ({"offloads": ("stamps",), "metadata": ("time",)}, "does not do 'stamps'"),
        ({"offloads": ("coalescing",), "metadata": ("segments", "parts")}, r"needs metadata=\('flags',\) too"),
        ({"mtu": 9000}, r"mtu=9000: longer frames than a buffer holds need metadata=\('parts',\) too"),
        ({"metadata": ("parts",), "pool_size": 120}, "needs at least 128"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ixy.open(f"vhost-server:{tmp_path / 'v'}", **({"ring_size": 64, "link_timeout": 0} | options))
