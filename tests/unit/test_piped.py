"""Captures that come through a pipe: each packet is there as soon as its last byte is, and nothing is lost or kept."""

from __future__ import annotations

import gzip
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ixy.errors import CaptureError
from ixy.formats.piped import Piped, arriving
from ixy.formats.reading import Source
from ixy.formats.words import LENGTH, OFFSET, ORIGINAL, ROWS, TIME

IPV4 = bytes.fromhex("45000014000000004011000a0a0000010a000002")
FRAMES = [bytes([number]) * (60 + number) for number in range(5)]


def pcap(frames: list[bytes], link: int = 1, order: str = "<") -> list[bytes]:
    """A capture: its header, and each packet's record; a packet a microsecond."""
    header = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    sizes = [struct.pack(f"{order}IIII", 0, number, len(frame), len(frame)) for number, frame in enumerate(frames)]
    return [header, *(size + frame for size, frame in zip(sizes, frames, strict=True))]


def block(kind: int, body: bytes, order: str) -> bytes:
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def pcapng(frames: list[bytes], link: int = 1, order: str = "<") -> list[bytes]:
    """The same, with a name of the writing program that makes the header longer."""
    program = struct.pack(f"{order}HH", 4, 96) + b"x" * 96
    header = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1) + program, order)
    header += block(1, struct.pack(f"{order}HHI", link, 0, 0), order)
    heads = [struct.pack(f"{order}IIIII", 0, 0, number, len(each), len(each)) for number, each in enumerate(frames)]
    bodies = [head + frame + bytes(-len(frame) % 4) for head, frame in zip(heads, frames, strict=True)]
    return [header, *(block(6, body, order) for body in bodies)]


def zstd(data: bytes) -> bytes:
    """Compressed in two blocks, as else nothing of it can be read until all is there."""
    packing = zstandard.ZstdCompressor().compressobj()
    half = packing.compress(data[: len(data) // 2]) + packing.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return half + packing.compress(data[len(data) // 2 :]) + packing.flush()


@contextmanager
def pipe() -> Iterator[tuple[int, str]]:
    """The end of a pipe that is written to, and the name of the other end; the former may be closed."""
    reading, writing = os.pipe()
    try:
        yield writing, f"/dev/fd/{reading}"
    finally:
        os.close(reading)


def taken(source: Source | Piped, table: np.ndarray, count: int) -> list[tuple[int, bytes]]:
    """The times and frames of a table."""
    assert (table[LENGTH, :count] == table[ORIGINAL, :count]).all()
    rows = table[[TIME, OFFSET, LENGTH], :count].T.tolist()
    return [(time, source.data[start : start + size].tobytes()) for time, start, size in rows]


def rest(source: Source | Piped, room: int = 3) -> list[tuple[int, bytes]]:
    """All that comes until the end, a few packets at a time."""
    table, found = np.zeros((ROWS, room), np.int64), list[tuple[int, bytes]]()
    while count := source.fill(table):
        found += taken(source, table, count)
    return found


def outcome(begin: Callable[[], Source | Piped]) -> tuple[list[tuple[int, bytes]], str | None]:
    """All packets, and what is wrong with their end or else with their beginning."""
    try:
        source = begin()
    except CaptureError as error:
        return [], str(error)
    return rest(source), source.damage


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [pcap, pcapng])
def test_each_packet_comes_at_once(kind, order: str) -> None:
    """It is there before the next one is written, and before its own last byte nothing is."""
    header, *records = kind(FRAMES, order=order)
    table = np.zeros((ROWS, 8), np.int64)
    with ExitStack() as stack, pipe() as (writing, name):
        os.write(writing, header + records[0])
        source = stack.enter_context(arriving(name))
        assert isinstance(source, Piped)
        for number, frame in enumerate(FRAMES):
            assert taken(source, table, source.fill(table)) == [(1000 * number, frame)]
            if number + 1 < len(FRAMES):
                os.write(writing, records[number + 1])
        os.close(writing)
        assert source.fill(table) == 0
    assert (source.damage, source.clamped, source.converted) == (None, 0, False)


@pytest.mark.once
@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed(pack) -> None:
    """By its first bytes; and what is cut is told after what is before that."""
    frames = [bytes(np.random.default_rng(number).integers(0, 256, 1000, np.uint8)) for number in range(40)]
    packed = pack(b"".join(pcapng(frames)))
    for end, whole in ((len(packed), True), (len(packed) - 6, False)):
        with pipe() as (writing, name):
            os.write(writing, packed[:end])
            os.close(writing)
            with arriving(name) as source:
                found = rest(source)
        assert found == [(1000 * number, frame) for number, frame in enumerate(frames)][: len(found)]
        assert (len(found) == len(frames) if whole else len(found) > 0, source.damage is None) == (True, whole)


@pytest.mark.once
def test_packets_of_another_link() -> None:
    """Raw IP becomes Ethernet as it comes; of PPP there is none, which is said."""
    with pipe() as (writing, name):
        os.write(writing, b"".join(pcap([IPV4, b"", IPV4], link=101)))
        os.close(writing)
        with arriving(name) as source:
            assert [frame[12:] for _, frame in rest(source)] == [b"\x08\x00" + IPV4] * 2
        assert source.converted
    with pipe() as (writing, name):
        os.write(writing, b"".join(pcap([IPV4], link=9)))
        os.close(writing)
        with pytest.raises(CaptureError, match=r"link type 9 \(PPP\)"), arriving(name) as source:
            rest(source)


@settings(deadline=None, max_examples=30)
@given(kind=st.sampled_from([pcap, pcapng]), end=st.integers(0, 600), cuts=st.lists(st.integers(0, 600), max_size=4))
def test_a_pipe_is_read_like_a_file(tmp_path_factory, kind, end: int, cuts: list[int]) -> None:
    """However it is cut into parts, and wherever it ends: the same packets, and the same words on its end."""
    content = b"".join(kind(FRAMES))[:end]
    path = tmp_path_factory.getbasetemp() / "cut.pcap"
    path.write_bytes(content)
    ends = [*sorted(min(cut, len(content)) for cut in cuts), len(content)]
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # of which each part is read by itself
    with one, other.makefile("rb") as file:
        for part in filter(None, (content[a:b] for a, b in zip([0, *ends], ends, strict=False))):
            one.send(part)
        one.close()
        other.close()
        assert outcome(lambda: Piped(path, file)) == outcome(lambda: Source(path))


@pytest.mark.once
@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (struct.pack("<IIII", 0, 0, 1 << 20, 1 << 20), "damaged: a length of 1048576 bytes"),
        (b"".join(pcapng([]))[:12], "truncated: 12 bytes of a record header"),
    ],
)
def test_damage_ends_it(tail: bytes, words: str) -> None:
    """At once, though the pipe goes on; or when it is over."""
    header, record = pcap(FRAMES[:1])
    with pipe() as (writing, name):
        os.write(writing, header + record + tail)
        if "truncated" in words:
            os.close(writing)
        with arriving(name) as source:
            assert rest(source) == [(0, FRAMES[0])]
        if "damaged" in words:
            os.close(writing)
    assert words in (source.damage or "")


@pytest.mark.once
def test_what_is_no_capture(tmp_path: Path) -> None:
    """A pipe is refused by its first bytes, a missing file by the system's words."""
    with pipe() as (writing, name):
        os.write(writing, b"GET / HTTP/1.1\r\nHost: example.org\r\n")
        with pytest.raises(CaptureError, match="not a pcap or pcapng file: it begins with 47 45 54 20"), arriving(name):
            pass
        os.close(writing)
    with pytest.raises(CaptureError, match=r"none\.pcap: No such file"), arriving(tmp_path / "none.pcap"):
        pass
