"""What a card writes into receive descriptors of each kind, worked out from the datasheet's tables (7.1.5, 7.1.10)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from by_hand import BUFFERS, ENABLE, RDT, RXDCTL, SLOTS, SRRCTL, Rig, racing
from lab import OTHER, STATION, arrive, frame
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ixy.jit import INTERPRETED
from ixy.sim.card import formats

HLREG0, RDRXCTL, RXCSUM, PSRTYPE, VLNCTRL, RDH = 0x4240, 0x2F00, 0x5000, 0xEA00, 0x5088, 0x1010
GORCL, GORCH, TORL, TORH, QBRCL, QBRCH, RXMPC, QPRDC = (
    *(0x4088, 0x408C, 0x40C0, 0x40C4, 0x1034, 0x1038, 0x3FA0, 0x1430),
)
LEGACY, SPLIT, ALWAYS = 0, 2, 5
HEADERS = 2048  # where in a buffer's 4096 bytes the header buffer is
SPH, HBO = 1 << 31, 1 << 23
ETHERNET = Ether(src=OTHER, dst=STATION)
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def choose(rig: Rig, kind: int, room: int = 128) -> None:
    """Set the queue up with this DESCTYPE, packet buffers of 1 KiB and header buffers of `room` bytes."""
    rig.set_up()
    rig.write(SRRCTL, kind << 25 | 1 << 28 | (room // 64) << 8 | 1)
    if kind in (SPLIT, ALWAYS):
        rig.rx[:, 1] = rig.rx[:, 0] + HEADERS


def words(rig: Rig, slot: int) -> tuple[int, int]:
    first, second = rig.rx[slot].view("u8").tolist()
    return first, second


# ---------------------------------------------------------------------------------------------------------------------
# Legacy descriptors


def legacy(length: int, status: int, errors: int = 0, tag: int = 0, fragment: int = 0) -> int:
    """7.1.5: length 15:0, fragment checksum 31:16, status 39:32, errors 47:40, VLAN tag 63:48."""
    return length | fragment << 16 | status << 32 | errors << 40 | tag << 48


DD, EOP, VP, UDPCS, L4CS, IPCS = 1, 2, 8, 16, 32, 64
TCPE, IPE = 64, 128


@pytest.mark.parametrize(
    ("packet", "status", "errors"),
    [
        (ETHERNET / V4 / TCP() / bytes(10), L4CS | IPCS, 0),
        (ETHERNET / V4 / UDP(chksum=1) / bytes(20), UDPCS | L4CS | IPCS, TCPE),
        (ETHERNET / IP(chksum=1) / TCP() / bytes(10), L4CS | IPCS, IPE),
        (Ether(frame(3)), 0, 0),
    ],
)
def test_legacy(rig: Rig, packet: Packet, status: int, errors: int) -> None:
    """The buffer's address stays in the first word; all else is in the second one."""
    choose(rig, LEGACY)
    if IP in packet and packet[IP].chksum == 1:
        packet[IP].src, packet[IP].dst = "10.0.0.1", "10.0.0.2"
    data = bytes(packet)
    arrive(rig.machine, data)
    assert words(rig, 0) == (rig.buffer(0), legacy(len(data), DD | EOP | status, errors))
    assert rig.content(0, len(data)) == data
    assert rig.read(RDH) == 1


@pytest.mark.skipif(not INTERPRETED, reason="compiled, nothing comes between two reads")
@pytest.mark.parametrize("kind", [LEGACY, SPLIT])
def test_a_tail_that_is_written_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """A frame for two buffers finds one: it is lost, though the tail moves beyond the ring after the card's look."""
    choose(rig, kind)
    rig.write(RXDCTL, 0)
    rig.write(RXDCTL, ENABLE)
    rig.write(RDT, 1)
    racing(monkeypatch, formats)
    arrive(rig.machine, bytes(ETHERNET / V4 / TCP() / bytes(1400)))
    assert rig.read(RDH) == 0
    assert rig.read(QPRDC) == 1


def test_legacy_over_several_buffers(rig: Rig) -> None:
    """What the packet is about stands in its last descriptor."""
    choose(rig, LEGACY)
    data = bytes(ETHERNET / V4 / TCP() / bytes(1400))
    arrive(rig.machine, data)
    assert words(rig, 0) == (rig.buffer(0), legacy(1024, DD))
    assert words(rig, 1) == (rig.buffer(1), legacy(len(data) - 1024, DD | EOP | L4CS | IPCS))
    assert rig.content(0, 1024) + rig.content(1, len(data) - 1024) == data


def test_legacy_tag_and_fragment(rig: Rig) -> None:
    """A stripped tag, and the sum of a fragment's payload (7.1.11.3): 0x0102 + 0x0304."""
    choose(rig, LEGACY)
    rig.write(RXDCTL, 1 << 25 | 1 << 30)
    rig.write(RXCSUM, 1 << 12)
    plain = bytes(ETHERNET / IP(flags="MF", proto=6) / b"\x01\x02\x03\x04").ljust(60, b"\0")
    arrive(rig.machine, plain[:12] + b"\x81\x00\xa0\x07" + plain[12:])
    assert words(rig, 0)[1] == legacy(60, DD | EOP | VP | IPCS, tag=0xA007, fragment=0x0406)
    assert rig.content(0, 60) == plain


# ---------------------------------------------------------------------------------------------------------------------
# Header split


def advanced(length: int, status: int) -> int:
    return length << 32 | status


TCP_PACKET = bytes(ETHERNET / V4 / TCP(options=[("NOP", None)] * 8) / bytes(i % 251 for i in range(1200)))
TCP_TYPE, TCP_STATUS = 1 << 4 | 1 << 8, L4CS | IPCS
SPLIT_ALL = 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 12  # after TCP, UDP, IPv4, IPv6, Ethernet


@pytest.mark.parametrize("kind", [SPLIT, ALWAYS])
def test_headers_are_split_off(rig: Rig, kind: int) -> None:
    """Ethernet 14, IPv4 20, TCP 28 bytes in the header buffer, the payload of 1,200 in two packet buffers."""
    choose(rig, kind)
    rig.write(PSRTYPE, SPLIT_ALL)
    arrive(rig.machine, TCP_PACKET)
    assert words(rig, 0) == (SPH | 62 << 21, advanced(1024, DD))
    assert words(rig, 1) == (TCP_TYPE, advanced(176, DD | EOP | TCP_STATUS))
    assert rig.memory.bytes[BUFFERS + HEADERS :][:62].tobytes() == TCP_PACKET[:62]
    assert rig.content(0, 1024) + rig.content(1, 176) == TCP_PACKET[62:]
    assert rig.read(RDH) == 2


@pytest.mark.parametrize(
    ("packet", "split", "header"),
    [
        (ETHERNET / V4 / UDP() / bytes(100), 1 << 5, 42),
        (ETHERNET / V4 / UDP() / bytes(100), 1 << 8, 34),
        (ETHERNET / V4 / UDP() / bytes(100), 1 << 12, 14),
        (ETHERNET / V4 / UDP() / bytes(100), 1 << 4 | 1 << 9, 0),
        (ETHERNET / V6 / IPv6ExtHdrHopByHop() / TCP() / bytes(100), 1 << 4, 82),
        (ETHERNET / V6 / IPv6ExtHdrHopByHop() / TCP() / bytes(100), 1 << 9, 62),
        (ETHERNET / IP(flags="MF", proto=17) / bytes(100), 1 << 5 | 1 << 8, 34),
        (Ether(frame(1, 100)), 1 << 12, 14),
        (Ether(frame(1, 100)), 1 << 8 | 1 << 4, 0),
    ],
)
def test_which_headers_are_split_off(rig: Rig, packet: Packet, split: int, header: int) -> None:
    """As many as are there and PSRTYPE names (8.2.3.7.4); where it names none, all goes to the packet buffer."""
    choose(rig, SPLIT)
    rig.write(PSRTYPE, split)
    data = bytes(packet)
    arrive(rig.machine, data)
    first, second = words(rig, 0)
    assert first >> 21 & 0x7FF == (header | 1 << 10 if header else 0)
    assert second >> 32 & 0xFFFF == len(data) - header
    assert rig.content(0, len(data) - header) == data[header:]
    assert rig.memory.bytes[BUFFERS + HEADERS :][:header].tobytes() == data[:header]


@pytest.mark.parametrize(
    ("kind", "size", "split", "told", "status", "in_header"),
    [
        (SPLIT, 500, SPLIT_ALL, SPH | 78 << 21, HBO, 0),
        (SPLIT, 500, 0, 0, 0, 0),
        (ALWAYS, 500, SPLIT_ALL, SPH | 78 << 21, HBO, 64),
        (ALWAYS, 500, 0, 64 << 21, 0, 64),
    ],
)
def test_headers_that_do_not_fit(
    rig: Rig, kind: int, size: int, split: int, told: int, status: int, in_header: int
) -> None:
    """Of 78 bytes of headers and a header buffer of 64: the length is told, and that it was too much; they stay with
    the rest, of which the header buffer takes its part if it is always used (the table of 7.1.10).
    """
    choose(rig, kind, room=64)
    rig.write(PSRTYPE, split)
    data = bytes(ETHERNET / V6 / TCP(options=[("NOP", None)] * 4) / bytes(i % 249 for i in range(size)))
    arrive(rig.machine, data)
    first, second = words(rig, 0)
    assert first == told | 1 << 6 | 1 << 8
    assert second == advanced(len(data) - in_header, DD | EOP | L4CS | status)
    assert rig.memory.bytes[BUFFERS + HEADERS :][:in_header].tobytes() == data[:in_header]
    assert rig.content(0, len(data) - in_header) == data[in_header:]


def test_a_small_frame_fits_into_the_header_buffer(rig: Rig) -> None:
    """All of it goes there if that is always used, and none to the packet buffer."""
    choose(rig, ALWAYS)
    data = bytes(ETHERNET / V4 / TCP() / bytes(20))
    arrive(rig.machine, data)
    assert words(rig, 0) == (len(data) << 21 | TCP_TYPE, advanced(0, DD | EOP | TCP_STATUS))
    assert rig.memory.bytes[BUFFERS + HEADERS :][: len(data)].tobytes() == data


def test_a_frame_as_long_as_the_largest_header_buffer(rig: Rig) -> None:
    """HDR_LEN has 10 bits: its length is told as far as they go, and its headers are not said to be split off."""
    choose(rig, ALWAYS, room=1024)
    arrive(rig.machine, frame(1, 1024))
    assert words(rig, 0) == (1023 << 21, advanced(0, DD | EOP))


@pytest.mark.parametrize("kind", [3, 4, 6, 7])
def test_reserved_types_receive_nothing(rig: Rig, kind: int) -> None:
    """What a card does then is not said: here the frame is lost, counted, and no descriptor written."""
    choose(rig, kind)
    arrive(rig.machine, frame())
    assert words(rig, 0) == (rig.buffer(0), 0)
    assert rig.read(RDH) == 0
    assert rig.read(QPRDC) == 1


@pytest.mark.parametrize("kind", [LEGACY, SPLIT, ALWAYS])
def test_a_frame_needs_room(rig: Rig, kind: int) -> None:
    """Two descriptors of 1 KiB are left: what needs three of them is lost and counted, and nothing is written."""
    choose(rig, kind)
    rig.write(0x1018, 2)
    rig.write(HLREG0, 1 << 1 | 1 << 2)
    rig.write(0x4268, 9000 << 16)
    arrive(rig.machine, frame(1, 2500))
    assert (rig.read(QPRDC), rig.read(RDH)) == (1, 0)
    arrive(rig.machine, frame(2, 2000))
    assert (rig.read(QPRDC), rig.read(RDH)) == (0, 2)
    rig.write(SRRCTL, kind << 25 | 2 << 8 | 1)
    arrive(rig.machine, frame(3, 60))
    assert (rig.read(QPRDC), rig.read(RXMPC), rig.read(RDH)) == (0, 1, 2)


@pytest.mark.parametrize("kind", [LEGACY, SPLIT, ALWAYS])
def test_buffers_out_of_reach(rig: Rig, kind: int) -> None:
    """A descriptor whose buffers the card may not touch is not written back."""
    choose(rig, kind)
    rig.rx[0] = 8, 16
    arrive(rig.machine, frame(1, 500))
    assert rig.rx[0].tolist() == [8, 16]
    assert rig.machine.dma_refused(rig.card) > 0


@pytest.mark.parametrize("kind", [LEGACY, 1, SPLIT, ALWAYS])
def test_ring_wraps(rig: Rig, kind: int) -> None:
    """Packets of two descriptors each go around the ring of eight."""
    choose(rig, kind)
    rig.write(PSRTYPE, 1 << 12)
    for number in range(2 * SLOTS):
        for slot in (2 * number % SLOTS, (2 * number + 1) % SLOTS):
            rig.rx[slot] = rig.buffer(slot), rig.buffer(slot) + HEADERS if kind in (SPLIT, ALWAYS) else 0
        rig.write(0x1018, (2 * number + 3) % SLOTS)
        data = frame(number, 1400)
        arrive(rig.machine, data)
        first, second = 2 * number % SLOTS, (2 * number + 1) % SLOTS
        header = 14 if kind in (SPLIT, ALWAYS) else 0
        parts = rig.content(first, 1024) + rig.content(second, 1400 - 1024 - header)
        assert parts == data[header:]
        assert rig.read(RDH) == (2 * number + 2) % SLOTS


# ---------------------------------------------------------------------------------------------------------------------
# The frame check sequence, and what is counted


def check_sequence(data: bytes) -> bytes:
    """CRC-32, the lowest byte first."""
    return zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize(("mac", "dma", "kept"), [(1, 1, 0), (0, 1, 0), (1, 0, 0), (0, 0, 4)])
def test_the_check_sequence_is_kept(rig: Rig, mac: int, dma: int, kept: int) -> None:
    """Where neither HLREG0.RXCRCSTRP nor RDRXCTL.CRCSTRIP is set it lies behind the frame, and is counted."""
    rig.set_up()
    rig.write(HLREG0, 0xC0D & ~2 | mac << 1)
    rig.write(RDRXCTL, rig.read(RDRXCTL) & ~2 | dma << 1)
    data = frame(5, 200)
    arrive(rig.machine, data)
    assert rig.rx[0, 1] >> 32 == 200 + kept
    assert rig.content(0, 200 + kept) == data + check_sequence(data)[:kept]
    assert [rig.read(offset) for offset in (GORCL, GORCH, QBRCL, QBRCH)] == [200 + kept, 0] * 2
    assert (rig.read(TORL), rig.read(TORH)) == (204, 0)


def test_all_octets_include_all_check_sequences(rig: Rig) -> None:
    """TOR counts all frames from the address to the check sequence, kept or not: two good ones, of which the second
    finds no descriptor, one too short, one too long.
    """
    rig.set_up(tail=1)
    for mac in (1, 0):
        rig.write(HLREG0, 0xC0D & ~2 | mac << 1)
        sizes = (100, 200, 59, 9100)
        for size in sizes:
            arrive(rig.machine, frame(1, size))
        assert (rig.read(TORL), rig.read(TORH)) == (sum(size + 4 for size in sizes), 0)
        assert (rig.read(GORCL), rig.read(GORCH)) == (300 + (0 if mac else 8), 0)
        rig.write(0x1018, 2)


@pytest.mark.parametrize("kind", [LEGACY, 1, SPLIT])
def test_the_check_sequence_of_a_tagged_frame(rig: Rig, kind: int) -> None:
    """It is that of the frame as it arrived, though the tag is stripped; and the tag is counted (8.2.3.23.74)."""
    choose(rig, kind)
    rig.write(RXDCTL, 1 << 25 | 1 << 30)
    rig.write(HLREG0, 0xC09)
    plain = frame(5, 300)
    arrived = plain[:12] + b"\x81\x00\x00\x07" + plain[12:]
    arrive(rig.machine, arrived)
    assert rig.content(0, 304) == plain + check_sequence(arrived)
    assert [rig.read(offset) for offset in (GORCL, QBRCL)] == [308, 308]


def test_a_stripped_tag_is_counted(rig: Rig) -> None:
    """For the port and for the queue, though it does not come to memory with the frame."""
    rig.set_up()
    rig.write(RXDCTL, 1 << 25 | 1 << 30)
    plain = frame(5, 100)
    arrive(rig.machine, plain[:12] + b"\x81\x00\x00\x07" + plain[12:])
    assert rig.rx[0, 1] >> 32 & 0xFFFF == 100
    assert [rig.read(offset) for offset in (GORCL, QBRCL, TORL)] == [104, 104, 108]


@pytest.mark.parametrize(
    ("arrives", "left", "tag"),
    [
        ((0x88A8, 0x8100), (0x88A8,), True),
        ((0x88A8,), (0x88A8,), False),
        ((0x8100,), (0x8100,), False),
        ((), (), False),
    ],
)
def test_double_vlan_strips_the_inner_tag(rig: Rig, arrives: tuple[int, ...], left: tuple[int, ...], tag: bool) -> None:
    """With CTRL_EXT.EXTENDED_VLAN and EXVET, RXDCTL.VME takes the tag behind the outer one (7.4.5)."""
    rig.set_up()
    rig.write(RXDCTL, 1 << 25 | 1 << 30)
    rig.write(0x18, 1 << 26 | 1 << 16)
    rig.write(0x5078, 0x88A8 << 16)
    plain = frame(5, 100)
    outer = {0x88A8: b"\x88\xa8\x00\x05", 0x8100: b"\x81\x00\x00\x07"}
    arrive(rig.machine, plain[:12] + b"".join(outer[kind] for kind in arrives) + plain[12:])
    expected = plain[:12] + b"".join(outer[kind] for kind in left) + plain[12:]
    status = rig.rx[0].view("u8").tolist()[1]
    assert status >> 32 & 0xFFFF == len(expected)
    assert rig.content(0, len(expected)) == expected
    assert status >> 48 == (7 if tag else 0)
