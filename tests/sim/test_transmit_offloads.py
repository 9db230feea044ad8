"""What the driver asks of an 82599 for packets on their way out: checksums, tags, segments, judged by Scapy.

Frames go through the strict model, which inserts and cuts by code of its own, and along a cable to a second card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import open_card, receive_all
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from ixy import Flags
from ixy.device import Device
from ixy.drivers.ixgbe import offloads
from ixy.errors import ConfigurationError
from ixy.packets.batch import Batch
from ixy.packets.mempool import Mempool
from ixy.packets.parts import link
from ixy.packets.pool import pools
from ixy.sim.machine import Machine

NOTHING, IP_PARTIAL, L4_PARTIAL, VLAN = Flags(0), Flags.IP_PARTIAL, Flags.L4_PARTIAL, Flags.VLAN
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
COLUMNS = ("flags", "vlan", "segments", "parts")
ALL = ("checksum", "vlan", "segmentation")
RING, BUFFER = 128, 2048


@dataclass
class Asked:
    """A packet, and what is asked for it.

    Attributes:
        parts: the lengths of its parts; it lies in one if there are none.
    """

    data: bytes
    flags: Flags = NOTHING
    tag: int = 0
    segment: int = 0
    parts: Sequence[int] = ()


@dataclass
class Pair:
    """A card whose driver sends, and one at the other end of the cable."""

    machine: Machine
    sender: Device
    receiver: Device
    pool: Mempool

    def exchange(self, *packets: Asked) -> list[bytes]:
        """Send packets one by one; the frames that arrive."""
        frames: list[bytes] = []
        for one in packets:
            with self.batch(one) as batch:
                assert self.sender.tx[0].send(batch) == 1
            frames += self.arrived()
        return frames

    def batch(self, one: Asked) -> Batch:
        batch = in_parts(self.pool, one.data, one.parts or [len(one.data)])
        batch.flags, batch.vlans, batch.segments = int(one.flags), one.tag, one.segment
        return batch

    def arrived(self) -> list[bytes]:
        """The frames that come to the other end until nothing moves any more."""
        frames, quiet = [], 0
        while quiet < 3:
            quiet = quiet + 1 if self.machine.step() == 0 else 0
            frames += receive_all(self.receiver)
        return frames

    def word(self, which: int) -> int:
        return int(self.sender.tx[0].ring.state.state[which])


def in_parts(pool: Mempool, data: bytes, sizes: Sequence[int]) -> Batch:
    """A packet that lies in as many buffers as there are sizes."""
    assert sum(sizes) == len(data)
    batch = pool.allocate(1, max(sizes[0], 1), metadata=COLUMNS)
    rest = pool.allocate(len(sizes) - 1, 1) if len(sizes) > 1 else None
    buffers = [] if rest is None else rest._packets.ids[: len(rest)].tolist()
    batch[0][: sizes[0]] = data[: sizes[0]]
    batch._packets.lengths[0] = sizes[0]
    at = sizes[0]
    for k, (buffer, size) in enumerate(zip(buffers, sizes[1:], strict=True)):
        pools().bytes[buffer, :size] = list(data[at : at + size])
        link(pools(), buffer, size, buffers[k + 1] if k + 1 < len(buffers) else -1)
        at += size
    if rest is not None:
        if pools().holders is not None:
            pools().holders[buffers] = batch._packets.holder
        batch._packets.nexts[0] = buffers[0]
        rest._limits[0] = rest._limits[1]  # they are the first packet's now
    return batch


def open_pair(machine: Machine, **options: Any) -> tuple[Device, Device]:
    asked = {"ring_size": RING, "pool_size": 256, "metadata": COLUMNS, "offloads": ALL} | options
    sender = open_card(machine, "sim:a,cable=b", **asked)
    return sender, open_card(machine, "sim:b", ring_size=1024, pool_size=4096)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    machine = Machine(stepped=True)
    sender, receiver = open_pair(machine)
    with sender, receiver, Mempool(2048) as pool:
        yield Pair(machine, sender, receiver, pool)
        assert machine.cards["a"].breaches.collect() == {}


# ---------------------------------------------------------------------------------------------------------------------
# Packets: as Scapy makes them, and as they are handed over, with nonsense in place of checksums


def ipv4(words: int) -> Packet:
    return IP(src="10.1.2.3", dst="10.4.5.6", id=0xFFFE, options=[IPOption(b"\x01" * 4 * words)] if words else [])


def options(size: int) -> Packet:
    """An extension header with so many bytes of an option."""
    return IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(size))])


def ipv6(*extensions: Packet) -> Packet:
    packet: Packet = IPv6(src="fd00::1", dst="fd00::2")
    for extension in extensions:
        packet = packet / extension.copy()
    return packet


def tcp(words: int = 0, **fields: Any) -> Packet:
    return TCP(sport=1, dport=2, **({"flags": "A"} | fields), options=[("NOP", None)] * 4 * words)


extensions = st.lists(st.sampled_from([IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()]), max_size=3)
networks = st.integers(0, 10).map(ipv4) | extensions.map(lambda some: ipv6(*some))
transports = st.integers(0, 10).map(tcp) | st.just(UDP(sport=1, dport=2))
in_packet = st.sampled_from([[], [Dot1Q(vlan=5)], [Dot1AD(vlan=9), Dot1Q(vlan=5, prio=7)]])
wishes = st.sampled_from([IP_PARTIAL, L4_PARTIAL, IP_PARTIAL | L4_PARTIAL, NOTHING])


def build(tags: Sequence[Packet], network: Packet, transport: Packet, payload: bytes) -> Packet:
    packet = ETHERNET.copy()
    for tag in tags:
        packet = packet / tag
    return Ether(bytes(packet / network.copy() / transport.copy() / payload))


def spoilt(packet: Packet, wishes: Flags) -> bytes:
    """The packet with nonsense in place of those checksums."""
    packet = packet.copy()
    if IP in packet and IP_PARTIAL in wishes:
        packet[IP].chksum = 0x1234
    if L4_PARTIAL in wishes:
        packet[TCP if TCP in packet else UDP].chksum = 0x5678
    return bytes(packet)


def tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:]


def padded(frame: bytes) -> bytes:
    return frame.ljust(60, b"\0")


# ---------------------------------------------------------------------------------------------------------------------
# Checksums and tags


@given(in_packet, networks, transports, st.binary(max_size=40), wishes, st.none() | st.integers(0, 0xFFFF))
def test_checksums_and_tags(
    pair: Pair,
    tags: list[Packet],
    network: Packet,
    transport: Packet,
    payload: bytes,
    wishes: Flags,
    tag: int | None,
) -> None:
    """What was asked for is as Scapy makes it, whatever stood there; of nothing else a bit is changed."""
    packet = build(tags, network, transport, payload)
    if tag is None:
        asked, expected = Asked(spoilt(packet, wishes), wishes, 0x777), bytes(packet)
    else:
        asked, expected = Asked(spoilt(packet, wishes), wishes | VLAN, tag), tagged(bytes(packet), tag)
    assert pair.exchange(asked) == [padded(expected)]


@given(networks, transports, st.binary(min_size=1, max_size=9))
def test_what_is_behind_the_packet_is_left_out(pair: Pair, network: Packet, transport: Packet, behind: bytes) -> None:
    """The card would take it into the checksum."""
    packet = build([], network, transport, bytes(30))
    asked = Asked(spoilt(packet, L4_PARTIAL) + behind, L4_PARTIAL)
    assert pair.exchange(asked) == [padded(bytes(packet))]


def test_many_in_one_batch(pair: Pair) -> None:
    """Different wishes side by side: each packet has its own, and order is kept."""
    packets = [build([], ipv4(i % 3), tcp(i % 2), bytes([i]) * 20) for i in range(24)]
    wishes = [(NOTHING, IP_PARTIAL, L4_PARTIAL, IP_PARTIAL | L4_PARTIAL)[i % 4] for i in range(24)]
    with pair.pool.allocate(24, 60, metadata=COLUMNS) as batch:
        for packet, made, wish in zip(batch, packets, wishes, strict=True):
            data = spoilt(made, wish)
            packet.resize(len(data))
            packet[:] = data
            packet.flags = wish
        assert pair.sender.tx[0].send(batch) == 24
    assert pair.arrived() == [padded(bytes(packet)) for packet in packets]


def test_a_context_is_written_where_it_changes(pair: Pair) -> None:
    """Packets whose headers alternate between two forms take no further ones: the card keeps both."""
    forms = [(build([], ipv4(words), tcp(), b"x"), L4_PARTIAL) for words in (0, 1)]
    asked = [Asked(spoilt(packet, wish), wish) for packet, wish in forms]
    pair.exchange(*asked)
    before = pair.word(offloads.PLACE)
    pair.exchange(*asked * 4)
    assert pair.word(offloads.PLACE) == before + 8
    third = build([], ipv4(2), tcp(), b"x")
    pair.exchange(Asked(spoilt(third, L4_PARTIAL), L4_PARTIAL), asked[1], asked[0])
    assert pair.word(offloads.PLACE) == before + 8 + 5  # it takes the place of the first, which comes back


@pytest.mark.parametrize(
    ("packet", "flags", "segment"),
    [
        (ETHERNET / ARP(), IP_PARTIAL, 0),
        (ETHERNET / ARP(), L4_PARTIAL, 0),
        (ETHERNET / ipv4(0) / ICMP() / bytes(40), L4_PARTIAL, 0),
        (ETHERNET / IP(flags="MF") / UDP() / bytes(32), L4_PARTIAL, 0),
        (ETHERNET / IP(frag=3) / UDP() / bytes(32), IP_PARTIAL | L4_PARTIAL, 0),
        (ETHERNET / ipv6(IPv6ExtHdrFragment(m=1)) / UDP() / bytes(32), L4_PARTIAL, 0),
        (ETHERNET / IP(ihl=15, len=40) / bytes(20), IP_PARTIAL, 0),
        (ETHERNET / IP(len=500) / UDP() / bytes(32), L4_PARTIAL, 0),
        (ETHERNET / ipv4(0) / TCP(dataofs=15) / bytes(20), L4_PARTIAL, 0),
        (ETHERNET / ipv4(0) / UDP() / bytes(100), NOTHING, 10),
        (ETHERNET / ipv6(*[options(30)] * 6) / TCP() / bytes(100), NOTHING, 10),
        (ETHERNET / ipv6(*[options(250)] * 2) / UDP() / bytes(9), L4_PARTIAL, 0),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_what_does_not_fit_leaves_as_it_is(pair: Pair, packet: Packet, flags: Flags, segment: int) -> None:
    """Counted, and never by a descriptor that makes no sense."""
    before = pair.sender.xstats()["tx_q0_unchanged"]
    assert pair.exchange(Asked(bytes(packet), flags, 0, segment)) == [padded(bytes(packet))]
    assert pair.sender.xstats()["tx_q0_unchanged"] == before + 1


def test_ipv6_has_no_header_checksum(pair: Pair) -> None:
    """Who asks for both checksums of all packets gets the one that there is."""
    packet, both = build([], ipv6(), UDP(), b"abc"), IP_PARTIAL | L4_PARTIAL
    before = pair.word(offloads.UNCHANGED)
    assert pair.exchange(Asked(spoilt(packet, both), both)) == [padded(bytes(packet))]
    assert pair.word(offloads.UNCHANGED) == before


# ---------------------------------------------------------------------------------------------------------------------
# Segments


def cuts(total: int, least: int) -> st.SearchStrategy[list[int]]:
    """The lengths of parts into which so many bytes can be cut, `least` at least in the first, none above a buffer."""

    def sizes(marks: set[int]) -> list[int]:
        ends: list[int] = []
        for end in sorted({min(least, total), *marks, total}):
            start = ends[-1] if ends else 0
            ends += [*range(start + BUFFER, end, BUFFER), end]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    return st.sets(st.integers(least, total), max_size=6).map(sizes)


def segments_of(packet: Packet, transport: Packet, size: int) -> list[bytes]:
    """What a packet becomes: by Scapy, from RFC 9293 and the reset values of DTXTCPFLGL and DTXTCPFLGH."""
    payload = bytes(packet[TCP].payload)[: len(packet[TCP].payload)]
    count = max(-(-len(payload) // size), 1)
    frames: list[bytes] = []
    for i in range(count):
        piece = packet.copy()
        piece[TCP].remove_payload()
        piece = piece / payload[i * size : (i + 1) * size]
        del piece[TCP].chksum
        if IP in piece:
            del piece[IP].chksum, piece[IP].len
            piece[IP].id = (piece[IP].id + i) & 0xFFFF
        else:
            del piece[IPv6].plen
        piece[TCP].seq = (piece[TCP].seq + i * size) & 0xFFFFFFFF
        if i < count - 1:
            piece[TCP].flags = str(transport.flags).translate({ord("F"): None, ord("P"): None})
        if i > 0:
            piece[TCP].flags = str(piece[TCP].flags).replace("C", "") if i == count - 1 else piece[TCP].flags
        frames.append(bytes(piece))
    return frames


@settings(max_examples=40)
@given(in_packet, networks, st.integers(0, 10), st.integers(1, 6000), st.integers(1, 1300), st.booleans(), st.data())
def test_segments(
    pair: Pair,
    tags: list[Packet],
    network: Packet,
    words: int,
    size: int,
    segment: int,
    tag: bool,
    data: st.DataObject,
) -> None:
    """Frames by frame what Scapy makes of the same bytes, wherever the parts of the packet begin."""
    segment = max(segment, size // 40)
    transport = tcp(words, flags="APF", seq=0xFFFFFF00)
    payload = bytes(i % 251 for i in range(size))
    packet = build(tags, network, transport, payload)
    whole = spoilt(packet, L4_PARTIAL | IP_PARTIAL)
    parts = data.draw(cuts(len(whole), len(whole) - size))
    expected = segments_of(packet, transport, segment)
    asked = Asked(whole, VLAN if tag else NOTHING, 0x2345, segment, parts)
    if tag:
        expected = [tagged(frame, 0x2345) for frame in expected]
    assert pair.exchange(asked) == [padded(frame) for frame in expected]


def test_a_packet_of_64_kib(pair: Pair) -> None:
    """The longest that IPv4 knows: its payload arrives in 45 segments, in order."""
    payload = bytes(i % 251 for i in range(65535 - 40))
    packet = build([], ipv4(0), tcp(), payload)
    frames = pair.exchange(Asked(spoilt(packet, L4_PARTIAL), L4_PARTIAL, 0, 1460, parts_of(len(packet))))
    assert len(frames) == 45
    assert b"".join(bytes(Ether(frame)[TCP].payload) for frame in frames) == payload
    assert frames == segments_of(packet, tcp(), 1460)


def parts_of(size: int) -> list[int]:
    """Of a packet in full buffers, and a last one."""
    return [BUFFER] * (size // BUFFER) + [size % BUFFER] * (size % BUFFER > 0)


@given(st.integers(60, BUFFER), st.data())
def test_parts_without_anything_else(pair: Pair, size: int, data: st.DataObject) -> None:
    """A frame in several buffers, of which some may be empty, is one frame."""
    frame = bytes(ETHERNET)[:14] + bytes(i % 251 for i in range(size - 14))
    frame = frame[:12] + b"\x88\xb5" + frame[14:]
    parts = data.draw(cuts(min(size, 1514), 1))
    places = data.draw(st.lists(st.integers(1, len(parts)), max_size=3))
    for place in places:
        parts.insert(place, 0)
    assert pair.exchange(Asked(frame[: sum(parts)], parts=parts)) == [frame[: sum(parts)]]


def test_what_no_frame_holds_is_refused(pair: Pair) -> None:
    """Longer than a buffer without being cut, in segments that are too long, or of no bytes: counted and given back."""
    total = pair.pool.available + pair.sender.tx[0].in_flight
    before = pair.sender.xstats()["tx_q0_refused"]
    long = build([], ipv4(0), tcp(), bytes(5000))
    for asked in (
        Asked(bytes(long), parts=parts_of(len(long))),
        Asked(bytes(long), L4_PARTIAL, parts=parts_of(len(long))),
        Asked(bytes(long), segment=2500, parts=parts_of(len(long))),
        Asked(b"", parts=[0, 0]),
    ):
        assert pair.exchange(asked) == []
    assert pair.sender.xstats()["tx_q0_refused"] == before + 4
    assert pair.pool.available + pair.sender.tx[0].in_flight == total
    frame = padded(bytes(ETHERNET))
    assert pair.exchange(Asked(frame)) == [frame]


# ---------------------------------------------------------------------------------------------------------------------
# The ring


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.booleans()), max_size=40), st.data())
def test_buffers_come_home(pair: Pair, packets: list[tuple[int, int, bool]], data: st.DataObject) -> None:
    """Packets of any parts and wishes, handed over in batches as there is room, while the card works now and then:
    each frame arrives once, in order, and but for those of a group no buffer stays in the ring."""
    pair.arrived()  # an example before may have been given up
    total = pair.pool.available + pair.sender.tx[0].in_flight
    sent: list[bytes] = []
    arrived: list[bytes] = []
    for number, (parts, words, wish) in enumerate(packets):
        packet = build([], ipv4(words), UDP(sport=number, dport=1), bytes(64))
        flags = L4_PARTIAL if wish else NOTHING
        size = len(packet)
        sizes = [size - (parts - 1), *[1] * (parts - 1)]
        batch = pair.batch(Asked(spoilt(packet, flags), flags, parts=sizes))
        while True:
            room = pair.sender.tx[0].ring.room(pair.sender.tx[0].ring.state, pools(), 1 << 16)
            taken = pair.sender.tx[0].send(batch)
            assert taken == 1 or room < parts
            if taken:
                break
            arrived += pair.arrived()
        sent.append(bytes(packet))
        if data.draw(st.booleans()):
            arrived += pair.arrived()
    arrived += pair.arrived()
    assert arrived == [padded(frame) for frame in sent]
    pair.sender.tx[0].ring.room(pair.sender.tx[0].ring.state, pools(), 1 << 16)
    assert pair.pool.available + pair.sender.tx[0].in_flight == total
    assert pair.sender.tx[0].in_flight < 32


def test_reports_are_asked_for_in_time(pair: Pair) -> None:
    """The last descriptor of a packet, of 32 at least one, unless a single packet has more."""
    ring = pair.sender.tx[0].ring
    for number in range(3 * RING):
        pair.exchange(Asked(padded(bytes(ETHERNET)), parts=[20, 20, 20]))
        state = ring.state.state
        assert state[offloads.PLACE] - state[offloads.MARKED] < 32
        assert number < 20 or state[offloads.MARKED] > 0


def test_what_is_cut_counts_once(machine: Machine) -> None:
    """`Device.sent` counts a packet once, however many frames are made of it, so that closing waits for all."""
    sender, receiver = open_pair(machine)
    with sender, receiver, Mempool(256) as pool:
        pair = Pair(machine, sender, receiver, pool)
        packet = build([], ipv4(0), tcp(), bytes(1000))
        with pair.batch(Asked(bytes(packet), segment=100)) as batch:
            assert sender.tx[0].send(batch) == 1
        assert sender.sent() < 1
        assert len(pair.arrived()) == 10
        assert sender.sent() == 1
        assert pool.available + sender.tx[0].in_flight == 256


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for when the card is opened


def test_info_tells_offloads(machine: Machine) -> None:
    with open_card(machine, metadata=COLUMNS, offloads=ALL) as device:
        names = ["IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM", "VLAN_INSERT", "TCP_TSO", "MULTI_SEGS"]
        assert device.info.tx_offloads == names
    with open_card(machine, metadata=["vlan"], offloads=["vlan"]) as device:
        assert device.info.tx_offloads == ["VLAN_INSERT"]
    with open_card(machine) as device:
        assert device.info.tx_offloads == []


def test_a_plain_ring_stays_one(machine: Machine) -> None:
    """Metadata alone changes nothing about what is sent."""
    with open_card(machine, metadata=["flags", "vlan"]) as device:
        assert device.tx[0].ring.single is not None


@pytest.mark.parametrize(("name", "missing"), [("checksum", "flags"), ("vlan", "vlan"), ("segmentation", "segments")])
def test_an_offload_needs_its_column(machine: Machine, name: str, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"sim:a: offload '{name}' needs metadata=\\('{missing}',\\) too"):
        open_card(machine, offloads=[name])


def test_a_ring_too_short_for_the_longest_packet(machine: Machine) -> None:
    with pytest.raises(ConfigurationError, match="a ring needs 128"):
        open_pair(machine, ring_size=64)


def test_tags_without_flags(machine: Machine) -> None:
    """Then a tag of 0 means that there is none."""
    sender, receiver = open_pair(machine, metadata=["vlan"], offloads=["vlan"])
    frame = padded(bytes(ETHERNET)[:12] + b"\x88\xb5")
    with sender, receiver, Mempool(64) as pool:
        pair = Pair(machine, sender, receiver, pool)
        for tag, expected in ((0, frame), (7, tagged(frame, 7))):
            with pool.allocate(1, 60, metadata=["vlan"]) as batch:
                batch[0][:] = frame
                batch.vlans = tag
                sender.tx[0].send(batch)
            assert pair.arrived() == [expected]


def test_what_a_ring_does_not_do_is_left_alone(machine: Machine) -> None:
    """Columns that no offload was asked for say nothing."""
    sender, receiver = open_pair(machine, offloads=["vlan"])
    packet = build([], ipv4(0), tcp(), bytes(100))
    with sender, receiver, Mempool(64) as pool:
        pair = Pair(machine, sender, receiver, pool)
        asked = Asked(spoilt(packet, L4_PARTIAL), L4_PARTIAL | VLAN, 5, 10)
        assert pair.exchange(asked) == [tagged(asked.data, 5)]
