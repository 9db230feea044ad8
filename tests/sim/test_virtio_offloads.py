"""VirtIO's offloads, and packets of several parts, against a strict model of a device: honest, then lying.

What packets must look like is worked out by Scapy.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import accounted
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from ixy.device import Device
from ixy.drivers.virtio.control import ControlQueue
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.rings.rings import resume_at
from ixy.drivers.virtio.rings.state import SKIPPING
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError
from ixy.packets.batch import Batch
from ixy.packets.packets import Flags
from ixy.packets.pool import pools
from ixy.path import Path
from ixy.registers import virtio as reg
from ixy.sim.virtio import BackEnd
from ixy.sim.virtio_port import Header, Port, RuleBroken, Sent

RING, POOL = 64, 256
BUFFER = 2048
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # Scapy is not to ask for addresses
COLUMNS = ("flags", "segments", "parts")
OFFLOADS = ("checksum", "segmentation", "coalescing")
LEGACY = (
    *(reg.CSUM, reg.GUEST_CSUM, reg.MAC, reg.GUEST_TSO4, reg.GUEST_TSO6, reg.HOST_TSO4, reg.HOST_TSO6),
    *(reg.HOST_ECN, reg.GUEST_ECN, reg.MRG_RXBUF, reg.ANY_LAYOUT),
)
EVERY = sum(1 << bit for bit in LEGACY)
MODERN = EVERY | 1 << reg.VERSION_1
KINDS = {
    "split": MODERN,
    "legacy": EVERY,
    "split with events": MODERN | 1 << reg.EVENT_IDX,
    "packed": MODERN | 1 << reg.RING_PACKED,
    "packed with events": MODERN | 1 << reg.RING_PACKED | 1 << reg.EVENT_IDX,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_rings = pytest.mark.parametrize("kind", ["split", "packed"])
PARTIAL, IP_PARTIAL = Flags.L4_PARTIAL, Flags.IP_PARTIAL


class Scene(NamedTuple):
    device: Device
    port: Port
    back_end: BackEnd

    def send(self, frames: Sequence[bytes], flags: Sequence[int], segments: Sequence[int]) -> list[Sent]:
        """Send frames, of which the first says how long all may be; what the device gets."""
        sent: list[Sent] = []
        for frame, flag, segment in zip(frames, flags, segments, strict=True):
            with self.device.rx[0].pool.allocate(1, len(frame), metadata=COLUMNS) as batch:
                batch[0][:] = frame
                batch.flags, batch.segments = flag, segment
                assert self.device.tx[0].send(batch) == 1
            found = self.port.collect()
            assert found is not None
            sent.append(found)
        return sent

    def one(self, frame: bytes, flags: int = 0, segment: int = 0) -> list[bytes]:
        """Send a frame; what goes out on the wire."""
        (sent,) = self.send([frame], [flags], [segment])
        self.port.done(sent)
        return self.port.frames(sent)

    def clean(self) -> int:
        """Have the transmit ring cleaned; its room."""
        ring = self.device.tx[0].ring
        return ring.room(ring.state, pools(), RING + 1)

    def unchanged(self) -> int:
        return int(self.device.tx[0].ring.unchanged)  # type: ignore[attr-defined]

    def receive(self) -> list[bytes]:
        with self.device.rx[0].receive(RING) as batch:
            return [bytes(packet) for packet in batch]


@contextmanager
def scene(
    features: int, metadata: Sequence[str] = COLUMNS, offloads: Sequence[str] = OFFLOADS, ring: int = RING
) -> Iterator[Scene]:
    back_end = BackEnd("model", features)
    driver = VirtioNet(InProcess(back_end), ring_size=ring, pool_size=POOL + ring, metadata=metadata, offloads=offloads)
    with Device(driver) as device:
        yield Scene(device, Port(back_end, int(driver.features)), back_end)
        assert accounted(device) == POOL + ring


def filled(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


# ---------------------------------------------------------------------------------------------------------------------
# What goes out


@st.composite
def packets(draw: st.DrawFn, tcp_only: bool = False, most: int = 9000) -> Any:
    """Headers of TCP or UDP over IPv4, with options, or IPv6, with an extension header, behind up to two VLAN tags."""
    made: Any = ETHER.copy()
    for vlan in draw(st.lists(st.integers(0, 4095), max_size=2)):
        made /= Dot1Q(vlan=vlan)
    if draw(st.booleans()):
        options = [IPOption_NOP()] * draw(st.integers(0, 8))
        made /= IP(src=draw(st.ip_addresses(v=4)).exploded, dst="10.0.0.1", id=draw(st.integers(0, 9)), options=options)
    else:
        made /= IPv6(src=draw(st.ip_addresses(v=6)).exploded, dst="2001:db8::1")
        if draw(st.booleans()):
            made /= IPv6ExtHdrDestOpt()
    port = draw(st.integers(1024, 65535))
    if tcp_only or draw(st.booleans()):
        options = [("NOP", None)] * draw(st.integers(0, 12))
        made /= TCP(sport=port, dport=80, seq=draw(st.integers(0, (1 << 32) - 1)), flags="PA", options=options)
    else:
        made /= UDP(sport=port, dport=7)
    return made, draw(st.binary(max_size=20)) + filled(draw(st.integers(0, 99)), draw(st.integers(0, most)))


def spoiled(frame: bytes, garbage: int, *, network: bool = True) -> bytes:
    """The frame with something else where its checksums are, also that of IPv4's header."""
    made = Ether(frame)
    made[TCP if TCP in made else UDP].chksum = garbage
    if IP in made and network:
        made[IP].chksum = garbage
    return bytes(made)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    what=st.lists(st.tuples(packets(), st.integers(0, 0xFFFF), st.binary(max_size=9)), min_size=1, max_size=4),
)
@settings(max_examples=30)
def test_checksums_are_made_whatever_stands_in_their_place(kind: str, what: list[Any]) -> None:
    """Packets as Scapy makes them, with garbage for their checksums, and some bytes behind them: they go out as they
    were. Those that say nothing go out as they are."""
    with scene(KINDS[kind]) as s:
        for (headers, payload), garbage, behind in what:
            whole = bytes(headers / Raw(payload))
            behind = behind if len(whole) + len(behind) <= BUFFER else b""
            bad = spoiled(whole, garbage) + behind
            assert s.one(bad, PARTIAL | (IP_PARTIAL if IP in headers else 0)) == [whole + behind]
            assert s.one(bad) == [bad]
        assert s.unchanged() == 0


def cut(headers: Any, payload: bytes, size: int) -> list[bytes]:
    """The segments, each made by Scapy from its fields."""
    made: list[bytes] = []
    for number, start in enumerate(range(0, max(len(payload), 1), size)):
        one = headers.copy()
        one[TCP].seq = (headers[TCP].seq + start) & 0xFFFFFFFF
        if start + size < len(payload):
            one[TCP].flags &= ~0x09
        if start:
            one[TCP].flags &= ~0x80
        if IP in one:
            one[IP].id = headers[IP].id + number
        made.append(bytes(one / Raw(payload[start : start + size])))
    return made


@given(
    kind=st.sampled_from(sorted(KINDS)),
    what=packets(tcp_only=True, most=60000),
    size=st.integers(500, 9000),
    reduced=st.booleans(),
)
@settings(max_examples=30)
def test_a_packet_is_cut_as_scapy_would(kind: str, what: Any, size: int, reduced: bool) -> None:
    """One of up to 60,000 bytes, with garbage for checksums, and CWR or not (RFC 3168): each segment is right."""
    headers, payload = what
    if reduced:
        headers[TCP].flags |= 0x80
    with scene(KINDS[kind]) as s:
        assert (
            s.one(spoiled(bytes(headers / Raw(payload)), 7), 0, size)
            == cut(headers, payload or b"\0", size)[: 1 if not payload else None]
            or not payload
        )
        assert s.unchanged() == 0


def test_without_a_feature_for_it_a_packet_with_cwr_is_not_cut() -> None:
    """The specification forbids it (5.1.6.2.1): it is sent as it is, and counted."""
    made = ETHER / IP() / TCP(flags="PAC") / Raw(bytes(3000))
    with scene(MODERN & ~(1 << reg.HOST_ECN)) as s:
        assert [len(frame) for frame in s.one(bytes(made), 0, 1000)] == [3054]
        assert s.unchanged() == 1


REFUSED = {
    "no IP": Ether(src=ETHER.src, dst=ETHER.dst, type=0x88B5) / Raw(bytes(100)),
    "ICMP": ETHER / IP(proto=1) / Raw(bytes(100)),
    "a fragment": ETHER / IP(flags="MF") / UDP() / Raw(bytes(100)),
    "cut short": ETHER / IP(len=500) / UDP(len=480) / Raw(bytes(100)),
    "no room for TCP": ETHER / IP() / Raw(bytes(19)),
    "TCP's header is longer than the packet": ETHER / IP() / TCP(dataofs=15),
    "IP's header is too short": ETHER / IP(ihl=4) / UDP(),
}


@both_rings
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_packet_for_that_is_sent_as_it_is(kind: str, name: str) -> None:
    """Only the header of IPv4 that there is gets its checksum where that was asked for."""
    frame = bytes(REFUSED[name])
    with scene(KINDS[kind]) as s:
        assert s.one(frame, PARTIAL) == [frame]
        assert s.unchanged() == 1
        s.one(frame, 0, 50)
        assert s.unchanged() == 2


@both_rings
def test_a_header_of_ipv6_has_no_checksum_to_be_made(kind: str) -> None:
    """So who wants both of all packets gets the one that there is."""
    right = bytes(ETHER / IPv6() / UDP() / Raw(bytes(100)))
    with scene(KINDS[kind]) as s:
        assert s.one(right[:60] + b"\x12\x34" + right[62:], PARTIAL | IP_PARTIAL) == [right]
        assert s.one(right, IP_PARTIAL) == [right]
        assert s.unchanged() == 0


@both_rings
def test_the_checksum_of_a_header_alone(kind: str) -> None:
    """IP_PARTIAL without L4_PARTIAL, also of a fragment: the driver makes it, and asks for nothing."""
    right = bytes(ETHER / IP(flags="MF") / UDP() / Raw(bytes(100)))
    wrong = right[:24] + b"\x12\x34" + right[26:]
    with scene(KINDS[kind]) as s:
        (sent,) = s.send([wrong], [IP_PARTIAL], [0])
        assert (sent.header, sent.frame) == (Header(), right)
        s.port.done(sent)
        assert s.one(REFUSED["no IP"].build(), IP_PARTIAL) == [REFUSED["no IP"].build()]
        assert s.unchanged() == 1


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 1 << 20))
@settings(max_examples=30)
def test_chains_sent_in_any_order_come_back_whole(kind: str, seed: int) -> None:
    """Packets of 1 to 33 buffers, which the device gives back in an order of its own: contents are right, no buffer is
    lost, none comes back early, and what is said to be sent is what was given back.
    """
    chance = random.Random(seed)
    with scene(KINDS[kind]) as s:
        device, out, done = s.device, [], 0
        for _ in range(25):
            size = chance.choice([60, 2048, 2049, 4096, 9000, chance.randint(1, 33 * BUFFER)])
            with device.rx[0].pool.allocate(1, size, metadata=COLUMNS) as batch:
                frame = filled(seed, size)
                for packet in batch:
                    packet[:] = frame
                    packet.flags = packet.segments = 0
                taken = device.tx[0].send(batch) if len(batch) else 0
            if taken:
                sent = s.port.collect()
                assert sent is not None
                assert sent.frame == frame
                assert len(sent.chain.pieces) == -(-size // BUFFER)
                out.append(sent)
            while out and (not taken or chance.random() < 0.5):
                s.port.done(out.pop(chance.randrange(len(out))))
                done += 1
                taken = True
            assert device.sent() == done
        while out:
            s.port.done(out.pop())
        assert s.clean() == RING
        assert device.rx[0].pool.available == POOL
        assert device.link.up


@both_rings
def test_a_back_end_that_comes_back_goes_on_behind_the_last_chain_sent(kind: str) -> None:
    """Of three packets in 1, 3 and 2 buffers two were sent."""
    with scene(KINDS[kind]) as s:
        for sent in s.send([filled(1, 60), filled(2, 3 * BUFFER), filled(3, 4000)], [0] * 3, [0] * 3)[:2]:
            s.port.done(sent)
        place = 4 | 0x8000
        assert resume_at(s.device.tx[0].ring) == (place << 16 | place if kind == "packed" else 2)  # type: ignore[arg-type]


@both_rings
def test_a_full_ring_takes_no_part_of_a_chain(kind: str) -> None:
    """Of six packets of 15 buffers a ring of 64 takes four; the rest stays the batch's."""
    with scene(KINDS[kind]) as s, s.device.rx[0].pool.allocate(6, 15 * BUFFER, metadata=COLUMNS) as batch:
        assert s.device.tx[0].send(batch) == 4
        assert len(batch) == 2
        assert s.device.tx[0].send(batch) == 0


# ---------------------------------------------------------------------------------------------------------------------
# What comes in


@given(
    kind=st.sampled_from(sorted(KINDS)),
    sizes=st.lists(st.integers(1, 4200) | st.integers(1, 33 * 2028), min_size=1, max_size=12),
    seed=st.none() | st.integers(0, 99),
)
@settings(max_examples=40)
def test_frames_of_all_lengths_are_received_whole(kind: str, sizes: list[int], seed: int | None) -> None:
    """Whatever buffers the device picks for them, and how many. Each is as it was written, in the order of its use."""
    chance = random.Random(seed)
    with scene(KINDS[kind]) as s:
        waiting: list[bytes] = []
        for number, size in enumerate(sizes):
            frame = filled(number, size)
            free = list(range(len(s.port.free())))
            if seed is not None:
                chance.shuffle(free)
            if not s.port.deliver(frame, order=free):
                assert s.receive() == waiting
                waiting = []
                if not s.port.deliver(frame):
                    continue
            waiting.append(frame)
        assert s.receive() == waiting
        assert s.device.stats().rx_refused == 0


@both_rings
@pytest.mark.parametrize("header", [12, 20])
def test_what_lies_around_the_end_of_a_buffer(kind: str, header: int) -> None:
    """The last buffer holds as much as a header, or a byte more or less: it is part of the packet, or is not."""
    features = KINDS[kind] | (HASHING if header == 20 else 0)
    with hashing(features, (*COLUMNS, "hash") if header == 20 else COLUMNS) as s:
        room = BUFFER - header
        for buffers in (1, 2, 5):
            for more in (1, header - 1, header, header + 1):
                frame = filled(more, room + (buffers - 1) * BUFFER + more)
                assert s.port.deliver(frame)
                with s.device.rx[0].receive(1) as batch:
                    assert bytes(batch[0]) == frame
                    assert batch.lengths.tolist() == [len(frame)]


@both_rings
def test_a_packet_waits_for_all_of_its_buffers(kind: str) -> None:
    """The device uses one after the other, with looks of the driver in between."""
    frame = filled(1, 5000)
    data = Header(buffers=3).build(12) + frame
    with scene(KINDS[kind]) as s:
        for chain in list(s.port.free())[:3]:
            assert s.receive() == []
            s.port.fill(chain, data[:BUFFER])
            data = data[BUFFER:]
        assert s.receive() == [frame]
        assert s.device.stats().rx_packets == 1
        assert s.device.stats().rx_bytes == 5004


@both_rings
def test_packets_wait_in_the_ring_while_the_pool_has_too_few_buffers(kind: str) -> None:
    """One of three buffers needs three."""
    with scene(KINDS[kind]) as s:
        assert s.port.deliver(filled(1, 5000))
        first, rest = s.device.rx[0].pool.allocate(POOL - 2), s.device.rx[0].pool.allocate(1)
        assert s.receive() == []
        assert s.device.stats().rx_starved == 1
        rest.free()
        assert s.receive() == []
        first.free()
        assert s.receive() == [filled(1, 5000)]


SEGMENTS = {
    "nothing": (Header(), 0, 0),
    "good": (Header(flags=reg.DATA_VALID), Flags.L4_GOOD, 0),
    "partial": (Header(flags=reg.NEEDS_CSUM, csum_start=34, csum_offset=16), PARTIAL, 0),
    "segments over IPv4": (
        Header(flags=reg.NEEDS_CSUM, gso_type=1, gso_size=1448, csum_start=34, csum_offset=16, header_length=66),
        PARTIAL,
        1448,
    ),
    "segments over IPv6": (Header(reg.NEEDS_CSUM, 4, 74, 1428, 54, 16), PARTIAL, 1428),
    "segments with CWR": (Header(reg.NEEDS_CSUM, 0x81, 54, 1460, 34, 16), PARTIAL, 1460),
    "the length of headers is a lie": (Header(reg.NEEDS_CSUM, 1, 65535, 1460, 34, 16), PARTIAL, 1460),
    "the longest that can be": (Header(reg.NEEDS_CSUM, 1, 54, 5000, 4996, 2), PARTIAL, 5000),
}


@every_kind
@pytest.mark.parametrize("said", SEGMENTS)
def test_what_headers_say_is_told(kind: str, said: str) -> None:
    header, flags, segments = SEGMENTS[said]
    with scene(KINDS[kind]) as s:
        assert s.port.deliver(filled(1, 5000), header)
        with s.device.rx[0].receive(1) as batch:
            assert batch.flags.tolist() == [flags]
            assert batch.segments.tolist() == [segments]


LIES = {
    "a checksum behind the packet": Header(flags=reg.NEEDS_CSUM, csum_start=4997, csum_offset=2),
    "a checksum far away": Header(flags=reg.NEEDS_CSUM, csum_start=65535, csum_offset=65535),
    "segments of nothing": Header(reg.NEEDS_CSUM, 1, 54, 0, 34, 16),
    "segments that are longer than the packet": Header(reg.NEEDS_CSUM, 1, 54, 5001, 34, 16),
    "segments of UDP": Header(reg.NEEDS_CSUM, 3, 54, 1000, 34, 6),
    "segments of UDP, the new kind": Header(reg.NEEDS_CSUM, 5, 54, 1000, 34, 6),
    "segments of no kind with CWR": Header(reg.NEEDS_CSUM, 0x80, 54, 1000, 34, 16),
    "segments of a kind that nobody knows": Header(reg.NEEDS_CSUM, 0x7F, 54, 1000, 34, 16),
    "34 buffers": Header(buffers=34),
    "65,535 buffers": Header(buffers=65535),
}


@both_rings
@pytest.mark.parametrize("lie", LIES)
def test_a_packet_whose_header_lies_is_refused(kind: str, lie: str) -> None:
    """It is counted; when the device has used as many buffers as it has spoken of, packets come again."""
    with scene(KINDS[kind]) as s:
        assert s.port.deliver(filled(1, 5000), LIES[lie])
        assert s.receive() == []
        assert s.device.stats().rx_refused == 1
        for _ in range(2 * RING):
            if not s.device.rx[0].ring.state.state[SKIPPING]:
                break
            s.port.deliver(b"x" * 60)
            assert s.receive() == []
        s.port.deliver(filled(2, 5000))
        assert s.receive() == [filled(2, 5000)]
        assert s.device.link.up


@both_rings
def test_segments_that_were_not_asked_for_are_refused(kind: str) -> None:
    """Without coalescing no header may speak of any, and with CWR only if that was negotiated."""
    good = Header(reg.NEEDS_CSUM, 1, 54, 1448, 34, 16)
    with scene(KINDS[kind], offloads=()) as s:
        s.port.deliver(filled(1, 5000), good)
        assert (s.receive(), s.device.stats().rx_refused) == ([], 1)
    with scene(KINDS[kind] & ~(1 << reg.GUEST_ECN)) as s:
        s.port.deliver(filled(1, 5000), good._replace(gso_type=0x81))
        assert (s.receive(), s.device.stats().rx_refused) == ([], 1)
        s.port.deliver(filled(1, 5000), good)
        assert s.receive() == [filled(1, 5000)]


@both_rings
@pytest.mark.parametrize("lengths", [(2047, 60), (2048, 0), (2048, 2049), (0, 60), (12, 60), (2049, 60), (1 << 31, 60)])
def test_buffers_that_are_not_as_full_as_said(kind: str, lengths: tuple[int, int]) -> None:
    """A packet in two buffers, of which the first must be full and the second hold something, and fit (5.1.6.4)."""
    with scene(KINDS[kind]) as s:
        for chain, length in zip(list(s.port.free())[:2], lengths, strict=True):
            s.port.fill(chain, Header(buffers=2).build(12), length)
        assert s.receive() == []
        s.port.deliver(filled(1, 60))
        assert s.receive() == [filled(1, 60)]
        assert s.device.stats().rx_refused == 1


@given(
    kind=st.sampled_from(["split", "packed", "legacy"]),
    said=st.lists(
        st.tuples(
            st.integers(0, 70),  # how long it is to seem
            st.lists(st.sampled_from([0, 1, 2, 3, 34, 255]) | st.integers(0, 255), min_size=20, max_size=20),
            st.sampled_from([1, 12, 13, 60, 2047, 2048, 2048, 2048, 2049, 1 << 31]),
        ),
        max_size=60,
    ),
)
def test_whatever_headers_say_no_buffer_is_lost(kind: str, said: list[Any]) -> None:
    """Any bytes for a header, any length: what comes is as long as its parts, and fits; when the device is closed, all
    buffers are back. With the checking mode, each was in one place all the time.
    """
    with scene(KINDS[kind]) as s:
        held: list[Batch] = []
        for hold, header, length in said:
            free = s.port.free()
            if not free:
                break
            s.port.fill(free[0], bytes(header), length)
            batch = s.device.rx[0].receive(4)
            for packet in batch:
                assert len(bytes(packet)) == len(packet) > 0
            if hold < 35:
                held.append(batch)
            else:
                batch.free()
        for batch in held:
            batch.free()
        assert s.device.link.up


@both_rings
@pytest.mark.parametrize("name", [1, 5, 63, 64, 0xFFFF])
def test_a_device_that_gives_back_what_it_does_not_have_stops_the_ring(kind: str, name: int) -> None:
    """A packet in three buffers has the name of the first, 0; nothing else has one."""
    with scene(KINDS[kind]) as s:
        (sent,) = s.send([filled(1, 6000)], [0], [0])
        s.port.tx._out[name] = 1
        s.port.tx.use(sent.chain._replace(name=name), 0)
        assert s.clean() == 0
        assert not s.device.link.up
        with s.device.rx[0].pool.allocate(1, metadata=COLUMNS) as batch:
            assert s.device.tx[0].send(batch) == 0


def test_an_index_that_jumps_stops_the_ring_of_chains() -> None:
    with scene(MODERN) as s:
        s.send([filled(1, 6000)], [0], [0])
        s.device.tx[0].ring.state.used_flags[1] = 2
        assert s.device.sent() == 1
        assert s.clean() == 0
        assert not s.device.link.up


# ---------------------------------------------------------------------------------------------------------------------
# Hashes

HASHING = 1 << reg.HASH_REPORT | 1 << reg.CTRL_VQ | 1 << reg.VERSION_1


class Obedient(BackEnd):
    """A device that can hash, and whose control queue says yes to all; what it was told."""

    def __init__(self, features: int) -> None:
        super().__init__("model", features)
        self.config[20:24] = (0x3F).to_bytes(4, "little")
        self.commands: list[bytes] = []

    def ring_limit(self, index: int) -> int:
        return 16 if index == 2 else super().ring_limit(index)


@contextmanager
def hashing(features: int, metadata: Sequence[str]) -> Iterator[Scene]:
    """A device opened so; commands are answered in place of the queue."""
    back_end = Obedient(features)
    patch = pytest.MonkeyPatch()
    patch.setattr(ControlQueue, "send", lambda _, command, data: back_end.commands.append(bytes(command) + data))
    try:
        driver = VirtioNet(InProcess(back_end), ring_size=RING, pool_size=POOL, metadata=metadata)
        with Device(driver) as device:
            yield Scene(device, Port(back_end, int(driver.features)), back_end)
    finally:
        patch.undo()


@both_rings
@pytest.mark.parametrize("metadata", [("hash",), (*COLUMNS, "hash")])
def test_hashes_are_told(kind: str, metadata: tuple[str, ...]) -> None:
    """The device is told what to hash, and by which key (5.1.6.5.6.4). What it reports of a packet is there: a hash
    with the number of what it is of, 1 to 9 (5.1.6.4.3.2); with another number there is none. What is sent says 0.
    """
    key = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
    with hashing(KINDS[kind] | HASHING, metadata) as s:
        assert s.back_end.commands == [bytes.fromhex("0402" + "3f000000" + "00" * 8 + "28" + key)]  # type: ignore[attr-defined]
        for report, told in ((0, 0), (1, 0xDEADBEEF), (9, 0xDEADBEEF), (10, 0), (65535, 0)):
            assert s.port.deliver(filled(report, 1900), Header(hash_value=0xDEADBEEF, hash_report=report))
            batch = s.device.rx[0].receive(1)
            assert batch.hashes.tolist() == [told]
            if "flags" in metadata:
                assert batch.flags.tolist() == [Flags.HASH if told else 0]
            assert s.device.tx[0].send(batch) == 1
            sent = s.port.collect()
            assert sent is not None
            assert (sent.header, sent.frame) == (Header(), filled(report, 1900))
            s.port.done(sent)


# ---------------------------------------------------------------------------------------------------------------------
# From device to device


@pytest.mark.parametrize("kinds", [("split", "packed"), ("packed", "legacy")])
def test_what_one_device_put_together_another_cuts(kinds: tuple[str, str]) -> None:
    """A path hands packets of 60,000 bytes on, and small ones with partial checksums: the same bytes of the flow come
    out, in segments that are right, and all buffers go home.
    """
    headers = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, flags="A", seq=7)
    with scene(KINDS[kinds[0]]) as one, scene(KINDS[kinds[1]]) as two:
        path = Path(one.device.rx[0], two.device.tx[0], batch=8)
        for number in range(12):
            size = 60000 if number % 3 == 0 else 100
            payload = filled(number, size)
            frame = spoiled(bytes(headers / Raw(payload)), 0, network=False)
            segments = 1448 if size > 1448 else 0
            said = Header(reg.NEEDS_CSUM, 1 if segments else 0, 54, segments, 34, 16)
            assert one.port.deliver(frame, said)
            path.run(4)
            sent = two.port.collect()
            assert sent is not None
            two.port.done(sent)
            assert two.port.frames(sent) == cut(headers, payload, 1448)
        assert path.counts == (12, 12, 0)
        assert two.unchanged() == 0
        assert two.clean() == RING


def test_a_path_waits_for_room_for_whole_chains() -> None:
    """The second device sends nothing at first: no packet is lost, and all are sent in the end, in order."""
    with scene(MODERN) as one, scene(MODERN) as two:
        path = Path(one.device.rx[0], two.device.tx[0], batch=8)
        frames = [filled(number, 20000) for number in range(8)]
        delivered, got = 0, list[bytes]()
        waiting: list[Sent] = []
        for turn in range(100):
            if delivered < len(frames):
                delivered += one.port.deliver(frames[delivered])
            path.run(2)
            while sent := two.port.collect():
                waiting.append(sent)
            if turn > 10 and waiting:
                got.append(waiting[0].frame)
                two.port.done(waiting.pop(0))
        assert got == frames
        assert one.device.stats().rx_refused == 0


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("missing", "metadata", "offloads", "message"),
    [
        (reg.CSUM, COLUMNS, ("checksum",), "model: the device does not do 'checksum': leave it out of offloads"),
        (reg.CSUM, COLUMNS, ("segmentation",), "the device does not do 'segmentation'"),
        (reg.HOST_TSO6, COLUMNS, ("segmentation",), "the device does not do 'segmentation'"),
        (reg.GUEST_TSO4, COLUMNS, ("coalescing",), "the device does not do 'coalescing'"),
        (reg.MRG_RXBUF, COLUMNS, (), "the device does not tell 'parts': leave it out of metadata"),
        (reg.GUEST_CSUM, ("flags",), (), "the device does not tell 'flags'"),
        (None, ("hash",), (), "the device does not tell 'hash'"),
        (None, ("vlan",), (), "the device does not tell 'vlan'"),
        (None, ("segments", "parts"), ("coalescing",), r"offload 'coalescing' needs metadata=\('flags',\) too"),
        (None, COLUMNS, ("stamps",), "the device does not do 'stamps'"),
        (None, COLUMNS, ("vlan",), "the device does not do 'vlan'"),
    ],
)
def test_what_a_device_cannot_do_is_refused_by_name(
    missing: int | None, metadata: tuple[str, ...], offloads: tuple[str, ...], message: str
) -> None:
    features = MODERN if missing is None else MODERN & ~(1 << missing)
    with pytest.raises(ConfigurationError, match=message), scene(features, metadata, offloads):
        pass


def opened(features: int = MODERN, device_mtu: int = 0, **options: Any) -> VirtioNet:
    back_end = BackEnd("model", features | (1 << reg.MTU if device_mtu else 0))
    back_end.config[reg.CONFIG_MTU : reg.CONFIG_MTU + 2] = device_mtu.to_bytes(2, "little")
    return VirtioNet(InProcess(back_end), **{"ring_size": RING, "pool_size": POOL} | options)


def test_rings_and_pools_that_are_too_small_for_chains_are_refused() -> None:
    """A packet has up to 33 parts, and needs as many buffers to be received against."""
    with pytest.raises(ConfigurationError, match="a ring of 32: packets of several parts need 64 at least"):
        opened(ring_size=32, metadata=("parts",))
    with pytest.raises(ConfigurationError, match="a pool of 127 buffers: a ring of 64 needs at least 128"):
        opened(pool_size=127, metadata=("parts",))
    opened(pool_size=128, metadata=("parts",)).close()


def test_an_mtu_is_the_devices_or_less() -> None:
    """One that a buffer does not hold needs parts; one above the device's is refused."""
    for options, mtu in (({}, 1500), ({"mtu": 1400}, 1400), ({"mtu": 9000, "metadata": ("parts",)}, 9000)):
        driver = opened(**options)
        assert driver.mtu() == mtu
        driver.close()
    with pytest.raises(ConfigurationError, match=r"mtu=2027: longer frames .* need metadata=\('parts',\) too"):
        opened(mtu=2027)
    opened(mtu=2026).close()
    with pytest.raises(ConfigurationError, match="mtu=4001: the device takes up to 4000"):
        opened(device_mtu=4000, mtu=4001, metadata=("parts",))
    driver = opened(device_mtu=4000, metadata=("parts",))
    assert driver.mtu() == 4000
    driver.close()


def test_what_was_negotiated_is_told() -> None:
    with scene(MODERN) as s:
        info = s.device.info
        assert list(info.rx_offloads) == ["UDP_CKSUM", "TCP_CKSUM", "TCP_LRO", "SCATTER"]
        assert list(info.tx_offloads) == ["UDP_CKSUM", "TCP_CKSUM", "TCP_TSO", "MULTI_SEGS"]
        assert s.device.xstats()["tx_q0_unchanged"] == 0
    with scene(MODERN, (), ()) as s:
        info = s.device.info
        assert (list(info.rx_offloads), list(info.tx_offloads)) == (["SCATTER"], [])
        assert s.device.tx[0].ring.parts == 1


# ---------------------------------------------------------------------------------------------------------------------
# The model is strict


def asked(s: Scene, header: Header) -> None:
    """Have a packet of TCP on the ring that asks for this."""
    frame = bytes(ETHER / IP() / TCP() / Raw(bytes(3000)))
    with s.device.rx[0].pool.allocate(1, len(frame), metadata=COLUMNS) as batch:
        batch[0][:] = frame
        assert s.device.tx[0].send(batch) == 1
    ring = s.device.tx[0].ring.state
    place = int(ring.held.ids[0]) * 2112 - 12
    ring.headers[place : place + 12] = np.frombuffer(header.build(12), np.uint8)


@pytest.mark.once
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (Header(flags=2), "what only a device may say"),
        (Header(buffers=1), "what only a device may say"),
        (Header(gso_type=1), "mean nothing without NEEDS_CSUM"),
        (Header(1, 0, 0, 0, 34, 6), "a checksum of the bytes from 34 on, at 40"),
        (Header(1, 0, 0, 0, 14, 36), "a checksum of the bytes from 14 on"),
        (Header(1, 0, 54, 0, 34, 16), "a size of segments"),
        (Header(1, 3, 54, 1000, 34, 16), "type 0x3, which was not negotiated"),
        (Header(1, 4, 54, 1000, 34, 16), "segments of type 0x4 of: IPv4"),
        (Header(1, 0x81, 54, 1000, 34, 16), "GSO_ECN is said of a packet without CWR"),
        (Header(1, 1, 40, 1000, 34, 16), "headers of 40 bytes"),
        (Header(1, 1, 54, 0, 34, 16), "segments of 0"),
        (Header(1, 1, 54, 3000, 34, 16), "segments of 3000"),
        (Header(1, 1, 54, 1000, 34, 16), "in place of the pseudo header's sum"),
    ],
)
def test_a_driver_that_asks_for_what_makes_no_sense_is_told(header: Header, message: str) -> None:
    with scene(MODERN) as s:
        asked(s, header)
        with pytest.raises(RuleBroken, match=message):
            s.port.collect()
