"""Signatures of test packets: sums by plain arithmetic, each single bit inverted, and what others send."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.apps.compose import compose
from ixy.formats import signature
from ixy.formats.signature import CORRUPTED, FOREIGN, INTACT

FRAMES = {
    "IPv4": compose({"ipv4": {}, "udp": {}}, b"ixy", [60])[0],
    "IPv4, odd": compose({"ipv4": {}, "udp": {}}, b"ixy", [77])[0],
    "IPv6": compose({"ipv6": {}, "udp": {}}, b"ixy", [80])[0],
    "IPv6, odd": compose({"ipv6": {}, "udp": {}}, b"\xff", [91])[0],
    "VLAN": compose({"vlan": {"id": 5}, "ipv4": {}, "udp": {}}, b"\0", [64])[0],
    "zeros": bytes(60),
    "ones": b"\xff" * 66,
}
STREAM, SEQUENCE, TIME = 0xABCD, 0x123456789ABC, 0xFEDCBA987654


def signed(frame: bytes, skip: int = 0, stream: int = STREAM, sequence: int = SEQUENCE, time: int = TIME) -> bytes:
    """A frame whose last bytes are a signature; it lies at an odd place, between others."""
    room = np.full(len(frame) + 20, 0x55, np.uint8)
    room[7 : 7 + len(frame)] = np.frombuffer(frame, np.uint8)
    signature.sign(room, 7, len(frame), skip, stream, sequence, time)
    assert (room[:7] == 0x55).all()
    assert (room[7 + len(frame) :] == 0x55).all()
    return room[7 : 7 + len(frame)].tobytes()


def read(frame: bytes, skip: int = 0) -> tuple[int, int, int, int]:
    """What it is, its stream, sequence and time."""
    room = np.concatenate([np.full(3, 0xAA, np.uint8), np.frombuffer(frame, np.uint8), np.full(30, 0xAA, np.uint8)])
    state, first, second = signature.read(room, 3, len(frame), skip)
    return state, signature.stream_of(first), signature.sequence_of(first), signature.time_of(second)


def words(data: bytes) -> list[int]:
    """Words of 16 bits, the last of which is whole."""
    data = b"\0" * (len(data) % 2) + data
    return list(struct.unpack(f">{len(data) // 2}H", data))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("skip", [0, 14, 33, 60])
def test_both_sums_are_constants(frame: bytes, skip: int) -> None:
    """The layout, and the two sums modulo 65,535 by their definition."""
    data = signed(frame, skip)
    assert data[:-18] == frame[:-18]
    own = words(data[-18:])
    assert data[-18:-4] == STREAM.to_bytes(2, "big") + SEQUENCE.to_bytes(6, "big") + TIME.to_bytes(6, "big")
    assert sum(own) % 65535 == 0x6978
    weighted = sum(weight * word for weight, word in zip(range(8, -1, -1), own, strict=True))
    assert (sum(words(data[skip:-18])) + weighted) % 65535 == 0x7921
    assert read(data, skip) == (INTACT, STREAM, SEQUENCE, TIME)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("skip", [0, 42])
def test_each_inverted_bit_is_found_and_put_right(frame: bytes, skip: int) -> None:
    """Whichever bit is inverted, the packet is known; before `skip`, nobody looks."""
    data = signed(frame, skip)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        expected = INTACT if bit // 8 < min(skip, len(data) - 18) else CORRUPTED
        assert read(bytes(changed), skip) == (expected, STREAM, SEQUENCE, TIME), bit


def test_no_two_bits_look_alike() -> None:
    """By how much the sums are off when a bit is set or cleared: 288 ways in the signature, 32 before it, all differ,
    and none is 0."""
    signs = [(sign << bit) % 65535 if sign > 0 else -(1 << bit) % 65535 for sign in (1, -1) for bit in range(16)]
    syndromes = [(0, off) for off in signs] + [(off, weight * off % 65535) for weight in range(9) for off in signs]
    assert len(set(syndromes) | {(0, 0)}) == len(syndromes) + 1 == 321


@given(
    st.binary(min_size=18, max_size=200), st.integers(0, 65535), st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1)
)
def test_any_bytes_can_be_signed(frame: bytes, stream: int, sequence: int, time: int) -> None:
    assert read(signed(frame, 0, stream, sequence, time)) == (INTACT, stream, sequence, time)


def test_what_others_send_is_foreign() -> None:
    """Short frames, empty ones, and noise, which looks like a test packet in 321 of 2^32 cases."""
    noise = random.Random(1)
    assert all(read(noise.randbytes(noise.randint(0, 100)))[0] == FOREIGN for _ in range(2000))
    assert read(b"") == read(bytes(17)) == read(bytes(60)) == read(b"\xff" * 60) == (FOREIGN, 0, 0, 0)


def test_two_bits_are_told_from_one() -> None:
    """Two inverted bits that lie 7 apart are never taken for none."""
    data = signed(FRAMES["IPv4"])
    for one, other in pairwise(range(0, 8 * 60, 7)):
        changed = bytearray(data)
        changed[one // 8] ^= 1 << one % 8
        changed[other // 8] ^= 1 << other % 8
        assert read(bytes(changed))[0] != INTACT


@pytest.mark.parametrize("moment", [0, 1, 1 << 47, (1 << 48) - 1])
def test_times_go_round(moment: int) -> None:
    """Modulo 2^48 ns, which are three days."""
    for passed in (0, 1, 10**9, (1 << 47) - 1, -1):
        assert signature.passed(moment + passed, moment % (1 << 48)) == passed


def test_a_frame_is_a_udp_packet_still() -> None:
    """Which others take for one: dpkt finds its bytes where they are."""
    datagram = dpkt.ethernet.Ethernet(signed(FRAMES["IPv4"])).data.data
    assert datagram.data == signed(FRAMES["IPv4"])[-18:]
