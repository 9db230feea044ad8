"""What the gigabit cards are asked to do to packets, done by a card that is written down here, in Python, from the
Software Developer's Manual (3.3.6, 3.3.7, 3.5) and by nothing of the driver's: what leaves is what Scapy makes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from ixy.device import Device
from ixy.drivers.e1000 import E1000
from ixy.drivers.e1000.inprocess import InProcess
from ixy.packets.packets import Flags
from ixy.sim.gigabit import BUS_BASE, NEWER, OLDER, Gigabit

METADATA = ("flags", "vlan", "segments", "parts")
BOTH = int(Flags.IP_PARTIAL | Flags.L4_PARTIAL)
RING = 128


class Sender:
    """A transmit ring as the card sees it: descriptors are taken from the head, and a context stays."""

    def __init__(self, card: Gigabit) -> None:
        self.card, self.context = card, (0, 0)

    def _register(self, offset: int) -> int:
        return int(self.card.words[offset // 4])

    def frames(self) -> Iterator[bytes]:
        """What leaves for all that was handed over."""
        base = self._register(0x3800) | self._register(0x3804) << 32
        size = self._register(0x3808) // 16
        gathered, memory = b"", self.card.port.memory
        while (head := self._register(0x3810)) != self._register(0x3818):
            place = base - BUS_BASE + 16 * head
            first, second = struct.unpack("<QQ", memory[place : place + 16].tobytes())
            assert second >> 29 & 1, "no extended descriptor"
            if second >> 20 & 15 == 0:
                assert not second >> 27 & 1, "a context is reported by nobody here"
                self.context = first, second
            else:
                assert second >> 20 & 15 == 1
                start, length = first - BUS_BASE, second & 0xFFFFF
                assert 0 < length <= 2048
                assert self.card.port.allowed[start >> 12]
                gathered += memory[start : start + length].tobytes()
                if second >> 24 & 1:
                    yield from self._finished(bytearray(gathered), second)
                    gathered = b""
            if second >> 27 & 1:
                memory[place + 12] |= 1  # DD
            self.card.words[0x3810 // 4] = (head + 1) % size
        assert not gathered

    def _finished(self, packet: bytearray, command: int) -> Iterator[bytes]:
        for piece in self._cut(packet) if command >> 26 & 1 else [packet]:
            self._sums(piece, command >> 40 & 3)
            if command >> 30 & 1:
                piece[12:12] = b"\x81\x00" + (command >> 48).to_bytes(2, "big")
            yield bytes(piece)

    def _sums(self, packet: bytearray, wanted: int) -> None:
        first, _ = self.context
        if wanted & 1:
            start, place, end = first & 0xFF, first >> 8 & 0xFF, first >> 16 & 0xFFFF
            packet[place : place + 2] = inverted(packet[start : end + 1])
        if wanted & 2:
            start, place, end = first >> 32 & 0xFF, first >> 40 & 0xFF, first >> 48
            assert end == 0
            packet[place : place + 2] = inverted(packet[start:])

    def _cut(self, packet: bytearray) -> Iterator[bytearray]:
        """SDM 3.5.6: lengths, IPv4's identification, sequence number and flags of each segment."""
        first, second = self.context
        assert second >> 26 & 1, "the context is not one for segmentation"
        network, transport = first & 0xFF, first >> 32 & 0xFF
        headers, segment, payload = second >> 40 & 0xFF, second >> 48, second & 0xFFFFF
        assert headers + payload == len(packet)
        for number, start in enumerate(range(headers, len(packet), segment)):
            piece = packet[:headers] + packet[start : start + segment]
            if second >> 25 & 1:
                add(piece, network + 2, 2, len(piece) - network)
                add(piece, network + 4, 2, number)
            else:
                add(piece, network + 4, 2, len(piece) - network - 40)
            add(piece, transport + 4, 4, number * segment)
            if start + segment < len(packet):
                piece[transport + 13] &= ~9
            place = first >> 40 & 0xFF
            sums = int.from_bytes(piece[place : place + 2], "big") + len(piece) - transport
            piece[place : place + 2] = ((sums & 0xFFFF) + (sums >> 16)).to_bytes(2, "big")
            yield piece


def add(packet: bytearray, place: int, size: int, value: int) -> None:
    before = int.from_bytes(packet[place : place + size], "big")
    packet[place : place + size] = ((before + value) % (1 << 8 * size)).to_bytes(size, "big")


def inverted(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def opened(kind: int, **options: Any) -> tuple[Device, Sender]:
    card = Gigabit(kind)
    offloads = ("checksum", "vlan", "segmentation")
    driver = E1000(InProcess(card), ring_size=RING, pool_size=512, metadata=METADATA, offloads=offloads, **options)
    return Device(driver), Sender(card)


def sent(device: Device, sender: Sender, packet: bytes, **columns: int) -> list[bytes]:
    with device.rx[0].pool.allocate(1, len(packet), metadata=METADATA) as batch:
        batch[0][:] = packet
        for name, value in columns.items():
            setattr(batch, name, value)
        assert device.tx[0].send(batch) == 1
    return list(sender.frames())


def spoilt(frame: Any) -> bytes:
    """The frame with nonsense in place of its checksums."""
    copy = Ether(bytes(frame))
    for layer in (IP, TCP, UDP):
        if copy.haslayer(layer):
            copy[layer].chksum = 0xDEAD
    return bytes(copy)


ETHER = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
NETWORKS = [
    IP(src="10.0.0.1", dst="10.0.0.2", id=77),
    IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_Timestamp()]),
    IPv6(src="fd00::1", dst="fd00::2"),
    IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt(),
]
TRANSPORTS = [UDP(sport=1, dport=2), TCP(sport=1, dport=2, seq=0xFFFFFF00, flags="PAF")]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NETWORKS),
    st.sampled_from(TRANSPORTS),
    st.binary(max_size=1400),
    st.sampled_from([0, 1]),
    st.sampled_from([NEWER, OLDER]),
    st.integers(0, 0xFFFF),
)
def test_checksums_and_tags(network: Any, transport: Any, payload: bytes, tags: int, kind: int, tag: int) -> None:
    """Of UDP and TCP over IPv4 with options and IPv6 with extension headers, with a tag in the packet or put in."""
    inner = (Dot1Q(vlan=5) if tags else Raw()) / network if tags else network
    frame = bytes(ETHER / inner / transport / payload)
    device, sender = opened(kind)
    with device:
        assert sent(device, sender, spoilt(frame), flags=BOTH) == [frame]
        tagged = frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]
        assert sent(device, sender, spoilt(frame), flags=BOTH | int(Flags.VLAN), vlans=tag) == [tagged]
        assert sent(device, sender, frame) == [frame]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NETWORKS), st.integers(1, 20_000), st.integers(500, 1448), st.sampled_from([NEWER, OLDER]))
def test_segments(network: Any, size: int, segment: int, kind: int) -> None:
    """A packet of up to 20,000 bytes, in up to ten buffers: the segments are those that Scapy makes. An 82540 cuts none
    of IPv6: what a frame cannot hold does not leave then, and is counted."""
    payload = np.random.default_rng(size).bytes(size)
    whole = bytes(ETHER / network / TRANSPORTS[1] / payload)
    expected: list[bytes] = []
    for number, start in enumerate(range(0, size, segment)):
        piece = Ether(bytes(ETHER / network / TRANSPORTS[1] / payload[start : start + segment]))
        piece[TCP].seq = (0xFFFFFF00 + start) & 0xFFFFFFFF
        if start + segment < size:
            piece[TCP].flags = "A"
        del piece[TCP].chksum
        if piece.haslayer(IP):
            piece[IP].id += number
            del piece[IP].chksum
        expected.append(bytes(piece))
    device, sender = opened(kind)
    with device:
        found = sent(device, sender, spoilt(whole), flags=BOTH, segments=segment)
        if kind == OLDER and IPv6 in network and len(expected) > 1:
            assert found == [] or found == [spoilt(whole)]
            assert device.xstats()["tx_q0_refused"] + device.xstats()["tx_q0_unchanged"] == 1
        else:
            assert found == expected


@pytest.mark.parametrize("kind", [NEWER, OLDER])
@pytest.mark.parametrize(
    "packet",
    [
        bytes(ETHER / IP(frag=5) / Raw(b"x" * 50)),
        bytes(ETHER / IP() / UDP() / b"abc")[:30],
        bytes(60),
        bytes(ETHER / IP(proto=47) / Raw(b"x" * 30)),
    ],
)
def test_headers_that_are_not_what_was_asked_for_leave_as_they_are(packet: bytes, kind: int) -> None:
    device, sender = opened(kind)
    with device:
        assert sent(device, sender, packet, flags=int(Flags.L4_PARTIAL), segments=100) == [packet]
        assert device.xstats()["tx_q0_unchanged"] == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(15, 9022), min_size=1, max_size=60), st.sampled_from([NEWER, OLDER]))
def test_jumbo_frames_go_round(sizes: list[int], kind: int) -> None:
    """Frames of up to 9,022 bytes are received in parts, as a card writes them into the ring, and leave so; in the end
    no buffer is missing."""
    device, sender = opened(kind, mtu=9000)
    with device:
        pool, tail = device.rx[0].pool, 0
        words, memory = device.rx[0].ring.state.descriptors, sender.card.port.memory
        for size in sizes:
            frame = bytes(number % 251 for number in range(size))
            for start in range(0, size, 2048):
                place, part = int(words[2 * tail]) - BUS_BASE, frame[start : start + 2048]
                memory[place : place + len(part)] = np.frombuffer(part, np.uint8)
                status = 3 if start + 2048 >= size else 1
                if kind == NEWER:
                    words[2 * tail], words[2 * tail + 1] = 0, len(part) << 32 | status
                else:
                    words[2 * tail + 1] = status << 32 | len(part)
                tail = (tail + 1) % RING
            with device.rx[0].receive() as batch:
                assert [bytes(packet) for packet in batch] == [frame]
                assert device.tx[0].send(batch) == 1
            assert list(sender.frames()) == [frame]
        assert pool.available + device.tx[0].ring.in_flight == 512 - RING
