"""Receive-side coalescing (7.11): what a driver finds in its ring, put together as drivers do, by NEXTP and RSCCNT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from by_hand import BUFFERS, ENABLE, RDBAL, RDLEN, RXDCTL, SLOTS, SRRCTL, Rig, racing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import OTHER, STATION, arrive, frame
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ixy.jit import INTERPRETED
from ixy.sim.card import formats

CTRL, RDH, RDT, RSCCTL, RFCTL, PSRTYPE, VLNCTRL = 0x0, 0x1010, 0x1018, 0x102C, 0x5008, 0xEA00, 0x5088
HLREG0, RDRXCTL, QPRDC = 0x4240, 0x2F00, 0x1430
ETHERNET = Ether(src=OTHER, dst=STATION)
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
FOUR, EIGHT, SIXTEEN = 1, 2, 3  # RSCCTL.MAXDESC


@dataclass
class Found:
    """A packet as a driver finds it.

    Attributes:
        segments: how many packets it was made of, 0 if the card says nothing of that.
        slots: its descriptors.
    """

    data: bytes
    segments: int
    slots: list[int]

    @property
    def packet(self) -> Any:
        return Ether(self.data)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    set_up(rig)
    yield rig
    rig.close()


def set_up(rig: Rig, most: int = SIXTEEN) -> None:
    """Packet buffers of 1 KiB."""
    rig.set_up()
    rig.write(SRRCTL, 1 << 25 | 1 << 28 | 2 << 8 | 1)
    rig.write(PSRTYPE, 1 << 4)
    rig.write(RSCCTL, 1 | most << 2)


def segment(
    sequence: int, size: int, flags: str = "A", network: Packet = V4, sport: int = 1000, **fields: Any
) -> bytes:
    """A TCP segment whose payload follows from the sequence numbers."""
    payload = bytes((sequence + i) % 251 for i in range(size))
    tcp = TCP(sport=sport, dport=2000, seq=sequence % 2**32, flags=flags, **fields)
    return bytes(ETHERNET / network / tcp / payload).ljust(60, b"\0")


def payload(sequence: int, size: int) -> bytes:
    return bytes((sequence + i) % 251 for i in range(size))


def found(rig: Rig, slots: int = SLOTS) -> list[Found]:
    """All packets that are complete, by the descriptors before RDH: each one's chain, from its first descriptor on."""
    words = [[int(word) for word in pair] for pair in rig.rx[:slots].view("u8").tolist()]
    packets: list[Found] = []
    seen: set[int] = set()
    for first in range(rig.read(RDH)):
        if first in seen or not words[first][1] & 1:
            continue
        data, segments, chain, slot = b"", 0, [], first
        while True:
            says, status = words[slot]
            assert status & 1
            chain.append(slot)
            data += rig.content(slot, status >> 32 & 0xFFFF)
            if says >> 17 & 15:
                segments += (says >> 17 & 15) - 1
            if status & 2:
                break
            slot = status >> 4 & 0xFFFF if says >> 17 & 15 else slot + 1
        seen.update(chain)
        packets.append(Found(data, segments, chain))
    return packets


def receive(rig: Rig, *frames: bytes) -> list[Found]:
    """Frames arrive within one turn of the card, which then ends."""
    for data in frames:
        arrive(rig.machine, data)
    rig.machine.step()
    return found(rig)


def assert_right(packet: Packet) -> None:
    """The lengths and the IPv4 checksum are those of the whole."""
    again = packet.copy()
    if IP in packet:
        del again[IP].len, again[IP].chksum
        again = Ether(bytes(again))
        assert (packet[IP].len, packet[IP].chksum) == (again[IP].len, again[IP].chksum)
    else:
        assert packet[IPv6].plen == len(packet[TCP])


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_segments_become_one_packet(rig: Rig, network: Packet) -> None:
    """Three of 700 bytes, over three buffers: headers of the first, acknowledgement and window of the last."""
    first, second, third = (segment(5000 + 700 * i, 700, network=network, ack=10 + i, window=100 + i) for i in range(3))
    (one,) = receive(rig, first, second, third)
    packet = one.packet
    assert bytes(packet[TCP].payload) == payload(5000, 2100)
    assert (one.segments, one.slots) == (3, [0, 1, 2])
    assert (packet[TCP].seq, packet[TCP].ack, packet[TCP].window) == (5000, 12, 102)
    assert_right(packet)
    assert len(one.data) == len(first) + 1400


def test_what_the_descriptors_say(rig: Rig) -> None:
    """RSCCNT less one is how many packets begin in a buffer; NEXTP, in 19:4, names the next; the last says the rest."""
    receive(rig, *(segment(100 + 700 * i, 700) for i in range(4)))
    words = [tuple(pair) for pair in rig.rx[:4].view("u8").tolist()]
    length = 54 + 4 * 700
    assert words[0] == (3 << 17, 1024 << 32 | 1 << 4 | 1)
    assert words[1] == (2 << 17, 1024 << 32 | 2 << 4 | 1)
    assert words[2] == (2 << 17 | 1 << 4 | 1 << 8, (length - 2048) << 32 | 0b11 | 1 << 5 | 1 << 6)
    assert rig.read(RDH) == 3


def test_nothing_is_written_before_it_is_complete(rig: Rig) -> None:
    """Not the last descriptor, until the turn ends; the one before is, once it is full."""
    for i in range(2):
        arrive(rig.machine, segment(700 * i, 700))
    assert rig.rx[0, 1] == 1024 << 32 | 1 << 4 | 1
    assert rig.rx[1].tolist() == [rig.buffer(1), 0]
    rig.machine.step()
    assert rig.rx[1, 1] & 3 == 3


def test_flows_side_by_side(rig: Rig) -> None:
    """Two connections whose segments alternate, with a datagram amid them: each has its own chain."""
    frames = [segment(700 * i, 700, sport=port) for i in range(3) for port in (1000, 1001)]
    other = bytes(ETHERNET / V4 / UDP() / bytes(50))
    packets = receive(rig, *frames[:3], other, *frames[3:])
    by_port = {one.packet[TCP].sport: one for one in packets if TCP in one.packet}
    assert by_port[1000].slots == [0, 2, 5]
    assert by_port[1001].slots == [1, 4, 6]
    assert all(bytes(one.packet[TCP].payload) == payload(0, 2100) for one in by_port.values())
    assert [one.data for one in packets if UDP in one.packet] == [other]


@pytest.mark.parametrize(
    ("second", "segments"),
    [
        (segment(100, 50, flags="PA"), [3]),
        (segment(100, 50, flags="FA"), [1, 0, 1]),
        (segment(100, 50, flags="SA"), [1, 0, 1]),
        (segment(100, 50, flags="RA"), [1, 0, 1]),
        (segment(100, 50, flags="UA"), [1, 0, 1]),
        (segment(100, 50, flags="EA"), [1, 0, 1]),
        (segment(100, 50, flags="CA"), [1, 0, 1]),
        (segment(100, 50, flags=""), [1, 0, 1]),
        (segment(100, 0), [1, 0, 1]),
        (segment(101, 50), [1, 1, 1]),
        (segment(50, 50), [1, 1, 1]),
        (segment(100, 50, chksum=1), [1, 0, 1]),
        (segment(100, 50, network=IP(src="10.0.0.1", dst="10.0.0.2", tos=4)), [1, 1, 1]),
        (segment(100, 50, network=IP(src="10.0.0.1", dst="10.0.0.2", tos=3)), [1, 0, 1]),
        (segment(100, 50, network=IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x94\x04\0\0")), [1, 0, 1]),
        (segment(100, 50, options=[("MSS", 1460)]), [1, 0, 1]),
        (segment(100, 50, options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]), [1, 1, 1]),
    ],
)
def test_what_ends_a_flow(rig: Rig, second: bytes, segments: list[int]) -> None:
    """After a first segment of 100 bytes comes one that is not like it, then one that would follow either. PSH is taken
    along; what may not be coalesced comes by itself, behind what it has ended; what only does not continue the flow
    begins another one.
    """
    third = segment(150, 30, flags="A")
    packets = receive(rig, segment(0, 100), second, third)
    if segments == [3]:
        assert [one.segments for one in packets] == [2, 1]
        assert packets[0].packet[TCP].flags == "PA"
    else:
        assert [one.segments for one in packets] == segments
        assert packets[1].data == second[: len(packets[1].data)]


def test_time_stamps_are_those_of_the_last(rig: Rig) -> None:
    """Two no-operations and the stamps, as all systems write them (RFC 7323, appendix A)."""
    stamps = [[("NOP", None), ("NOP", None), ("Timestamp", (100 + i, 200 + i))] for i in range(2)]
    (one,) = receive(rig, *(segment(600 * i, 600, options=stamps[i]) for i in range(2)))
    assert one.segments == 2
    assert dict(one.packet[TCP].options[2:])["Timestamp"] == (101, 201)
    assert bytes(one.packet[TCP].payload) == payload(0, 1200)


def test_sequence_numbers_wrap(rig: Rig) -> None:
    (one,) = receive(rig, *(segment(2**32 - 300 + 200 * i, 200) for i in range(3)))
    assert one.segments == 3
    assert one.packet[TCP].seq == 2**32 - 300


def test_padding_is_left_out(rig: Rig) -> None:
    """Segments of one byte are padded on the wire; what they carry is not."""
    (one,) = receive(rig, *(segment(i, 1)[:55].ljust(60, b"\xee") for i in range(5)))
    assert bytes(one.packet[TCP].payload) == payload(0, 5)


@pytest.mark.parametrize(("most", "chains"), [(0, [1, 1, 1, 1]), (FOUR, [4])])
def test_as_many_descriptors_as_allowed(rig: Rig, most: int, chains: list[int]) -> None:
    """Segments of 900 bytes in buffers of 1 KiB: four share four buffers, or none shares its one (8.2.3.8.13)."""
    rig.write(RSCCTL, 1 | most << 2)
    packets = receive(rig, *(segment(900 * i, 900) for i in range(4)))
    assert [len(one.slots) for one in packets] == chains
    assert b"".join(bytes(one.packet[TCP].payload) for one in packets) == payload(0, 3600)


def test_the_fifth_buffer_begins_another_packet(rig: Rig) -> None:
    rig.write(RSCCTL, 1 | FOUR << 2)
    packets = receive(rig, *(segment(900 * i, 900) for i in range(6)))
    assert [(one.segments, len(one.slots)) for one in packets] == [(4, 4), (2, 2)]


def test_no_more_than_fourteen_begin_in_a_buffer(rig: Rig) -> None:
    """RSCCNT has four bits (7.1.6.2)."""
    packets = receive(rig, *(segment(i, 1) for i in range(20)))
    assert [one.segments for one in packets] == [14, 6]


def test_a_full_ring_ends_a_flow(rig: Rig) -> None:
    """What has no descriptor left is lost; what was taken before is complete."""
    packets = receive(rig, *(segment(1000 * i, 1000) for i in range(9)))
    assert len(packets) == 1
    assert packets[0].slots == list(range(7))
    size = packets[0].segments * 1000
    assert bytes(packets[0].packet[TCP].payload) == payload(0, size)


def test_vlans_are_kept_apart(rig: Rig) -> None:
    """The same connection in another VLAN is another one, whose tag the descriptor tells."""
    rig.write(RXDCTL, 1 << 25 | 1 << 30)
    plain = [segment(600 * i, 600) for i in range(3)]
    tagged = [data[:12] + b"\x81\0\0" + bytes([5 + (i == 2)]) + data[12:] for i, data in enumerate(plain)]
    packets = receive(rig, *tagged)
    assert [one.segments for one in packets] == [2, 1]
    last = [one.slots[-1] for one in packets]
    assert [int(rig.rx[slot].view("u8").tolist()[1]) >> 48 for slot in last] == [5, 6]


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (RSCCTL, SIXTEEN << 2),
        (RFCTL, 1 << 5),
        (PSRTYPE, 1 << 5),
        (HLREG0, 0xC09),
    ],
    ids=["not enabled", "disabled for all", "TCP is not told apart", "check sequence kept"],
)
def test_what_it_takes(rig: Rig, offset: int, value: int) -> None:
    """Without that, each segment comes by itself, and no descriptor speaks of coalescing."""
    rig.write(offset, value)
    packets = receive(rig, segment(0, 100), segment(100, 100))
    assert [(one.segments, len(one.slots)) for one in packets] == [(0, 1), (0, 1)]


def test_a_queue_that_was_disabled(rig: Rig) -> None:
    """Its flows are forgotten: nothing is written into memory that may be somebody else's."""
    arrive(rig.machine, segment(0, 100))
    rig.write(RXDCTL, 0)
    before = rig.memory.bytes.tobytes()
    rig.machine.step()
    assert rig.memory.bytes.tobytes() == before


def test_a_reset_forgets_flows(rig: Rig) -> None:
    arrive(rig.machine, segment(0, 100))
    rig.write(0, 1 << 26)
    set_up(rig)
    (one,) = receive(rig, segment(100, 100))
    assert bytes(one.packet[TCP].payload) == payload(100, 100)


def test_buffers_out_of_reach(rig: Rig) -> None:
    """The flow ends there; what is behind it goes on."""
    rig.rx[0, 0] = 8
    rig.rx[2, 0] = 16
    for number in range(3):
        arrive(rig.machine, segment(900 * number, 900))
    rig.machine.step()
    assert rig.machine.dma_refused(rig.card) > 0
    assert rig.rx[0, 1] == 0


def test_a_ring_out_of_reach(rig: Rig) -> None:
    """A packet that finds no descriptor leaves those of the packet before it alone, which are the driver's again."""
    assert len(receive(rig, segment(0, 100, "PA"))) == 1
    rig.rx[0] = rig.buffer(0), 0
    rig.memory.bytes[BUFFERS:][:4096] = 0
    rig.write(RDBAL + 4, 0)
    assert receive(rig, segment(100, 100, "PA")) == []
    assert rig.rx[0].tolist() == [rig.buffer(0), 0]
    assert not rig.memory.bytes[BUFFERS:][:4096].any()


@pytest.mark.parametrize(
    ("offset", "value"),
    [(RDBAL + 4, 0), (RDBAL, None), (RDLEN, 0), (CTRL, 1 << 2)],
    ids=["out of reach", "another ring", "no length", "master disabled"],
)
@pytest.mark.parametrize("more", [[], [segment(700, 700)]], ids=["complete", "one more descriptor"])
def test_the_ring_moves_while_a_packet_grows(rig: Rig, offset: int, value: int | None, more: list[bytes]) -> None:
    """Its descriptor is not where it was any more: the card writes neither there nor to the new ring."""
    arrive(rig.machine, segment(0, 700))
    rig.write(offset, (rig.bus + 2048) & 0xFFFFFFFF if value is None else value)
    before = rig.memory.bytes[:BUFFERS].copy()
    for data in more:
        arrive(rig.machine, data)
    rig.machine.step()
    assert (rig.memory.bytes[:BUFFERS] == before).all()


@pytest.mark.skipif(not INTERPRETED, reason="compiled, nothing comes between two reads")
def test_a_tail_that_is_written_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the card takes was the card's when it looked whether the tail lies in the ring."""
    rig.write(RDT, 0)
    rig.write(RXDCTL, 0)
    rig.write(RXDCTL, ENABLE)
    rig.write(RDT, 2)
    racing(monkeypatch, formats)
    assert receive(rig, segment(0, 700), segment(700, 700), segment(1400, 700)) != []
    assert rig.read(RDH) == 2
    assert rig.read(QPRDC) == 1


def test_packets_are_counted_as_they_arrive(rig: Rig) -> None:
    """Coalesced or not (8.2.3.23)."""
    frames = [segment(600 * i, 600) for i in range(3)]
    receive(rig, *frames)
    assert (rig.read(0x1030), rig.read(0x4074)) == (3, 3)
    assert rig.read(0x1034) == sum(map(len, frames))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    segments=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 900), st.sampled_from(["A", "PA", "FA", "A", "A"]), st.booleans()),
        max_size=7,
    )
)
def test_no_byte_is_lost_or_moved(segments: list[tuple[int, int, str, bool]]) -> None:
    """Any segments of three connections, some with a gap before, in turns that end anywhere: of each connection, what
    its packets carry, put together, is what its segments carried, in order.
    """
    rig = Rig()
    try:
        set_up(rig)
        rig.write(RDT, SLOTS - 1)
        nexts, sent = [0, 0, 0], [b"", b"", b""]
        for port, size, flags, gap in segments:
            nexts[port] += 7 if gap else 0
            arrive(rig.machine, segment(nexts[port], size, flags, sport=port))
            if rig.read(0x3FA0) + rig.read(0x1430):
                break  # there was no room any more
            sent[port] += payload(nexts[port], size)
            nexts[port] += size
            if gap:
                rig.machine.step()
        rig.machine.step()
        carried = [b"", b"", b""]
        for one in found(rig):
            packet = one.packet
            size = packet[IP].len - 40
            assert_right(packet)
            carried[packet[TCP].sport] += bytes(packet[TCP])[20:][:size]
        assert carried == sent
    finally:
        rig.close()


def test_unlike_frames_are_left_alone(rig: Rig) -> None:
    """What is no TCP comes as ever."""
    data = frame(3, 200)
    (one,) = receive(rig, data)
    assert (one.data, one.segments) == (data, 0)
