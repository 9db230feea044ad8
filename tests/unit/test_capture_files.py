"""pcapng and compressed captures, other links, and rotated files: beside the programs that others capture with."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ixy.captures.table import capture_chunks, read_capture
from ixy.errors import CaptureError, ConfigurationError
from ixy.formats.pcapng import nanoseconds
from ixy.formats.reading import Capture, Source, read
from ixy.formats.rotation import RotatingWriter, Rotation
from ixy.formats.words import ROWS
from ixy.formats.writing import Interface, Writer, append

SECOND = 10**9
NAMES = ["out.pcap", "out.pcapng", "out.pcap.gz", "out.pcapng.gz", "out.pcap.zst", "out.pcapng.zst"]
PACKETS = [
    (1_700_000_000 * SECOND + 123_456_789, bytes(range(60))),
    (1_700_000_001 * SECOND, bytes(range(256)) * 5),
    (1_700_000_001 * SECOND + 1, b"\x01" * 61),
    (1_700_000_002 * SECOND, b"x"),
]

needs_wireshark = pytest.mark.skipif(
    not shutil.which("editcap") or not shutil.which("tshark"),
    reason="editcap and tshark (Debian packages wireshark-common, tshark) are not installed",
)


def columns(packets: list[tuple[int, bytes]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Packets as the arguments of `Writer.write`."""
    lengths = np.array([len(frame) for _, frame in packets], np.int64)
    data = np.frombuffer(b"".join(frame for _, frame in packets), np.uint8)
    return np.array([t for t, _ in packets], np.int64), data, np.cumsum(lengths) - lengths, lengths


def contents(capture: Capture) -> list[tuple[int, bytes]]:
    """The (time, frame) pairs of a capture."""
    ends = capture.offsets + capture.lengths
    return [(int(t), capture.data[a:b].tobytes()) for t, a, b in zip(capture.times, capture.offsets, ends, strict=True)]


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block as the draft describes it."""
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", link: int = 1, options: bytes = b"", snaplen: int = 0) -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, snaplen) + options, order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def packet(stamp: int, frame: bytes, order: str = "<", number: int = 0) -> bytes:
    stamp &= 2**64 - 1
    head = struct.pack(f"{order}IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame + bytes(-len(frame) % 4), order)


def file_of(tmp_path: Path, content: bytes, name: str = "in.pcapng") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def run(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def scratch() -> Path:
    """A directory for properties, whose many examples write over one another."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


# ---------------------------------------------------------------------------------------------------------------------
# pcapng


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_of_either_byte_order(tmp_path: Path, order: str) -> None:
    """Two interfaces, in millionths and in 1/1024 seconds with 100 s added; blocks of packets, old, simple and new; a
    block that nobody knows."""
    fine = option(9, b"\x8a", order) + option(14, struct.pack(f"{order}q", 100), order) + option(2, b"eth1", order)
    old = struct.pack(f"{order}HHIIII", 1, 7, 0, 3 * 1024, 5, 9) + b"older" + bytes(3)
    simple = struct.pack(f"{order}I", 6) + b"simple" + bytes(2)
    content = section(order) + interface(order) + interface(order, options=fine)
    content += packet(1_500_000, b"first", order) + block(0xBAD, b"????", order) + block(2, old, order)
    content += packet(512, b"half", order, number=1) + block(3, simple, order)
    capture = read(file_of(tmp_path, content))
    assert contents(capture) == [
        (1_500_000_000, b"first"),
        (103 * SECOND, b"older"),
        (100 * SECOND + SECOND // 2, b"half"),
        (0, b"simple"),
    ]
    assert capture.interfaces.tolist() == [0, 1, 1, 0]
    assert capture.original.tolist() == [5, 9, 4, 6]
    assert capture.names == ["", "eth1"]
    assert (capture.cut, capture.damage) == (1, None)


def test_several_sections(tmp_path: Path) -> None:
    """A file behind a file, of the other byte order: the second's interfaces are others."""
    content = b"".join(section(order) + interface(order) + packet(1, b"abc", order) for order in "<>")
    capture = read(file_of(tmp_path, content))
    assert contents(capture) == [(1000, b"abc"), (1000, b"abc")]
    assert capture.interfaces.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("stamp", "units", "offset", "expected"),
    [
        (5, 1, 0, 5 * SECOND),
        (-1, SECOND, 0, -1),
        (-1_500_000, 10**6, 0, -1_500_000_000),
        (10**12 + 7 * 10**3, 10**12, -2, -SECOND + 7),
        (3 << 39, 1 << 40, 0, 1_500_000_000),
        (2**62, 1, 0, (2**63 // SECOND - 1) * SECOND),
        (-(2**63), 10**6, 0, -(2**63 // SECOND - 1) * SECOND),
        (2**63 - 1, 1, -(2**63) + 8, 7 * SECOND),
        (2**63 - 1, 1, 2**63 - 1, (2**63 // SECOND - 1) * SECOND),
    ],
)
def test_times_of_any_resolution(stamp: int, units: int, offset: int, expected: int) -> None:
    """Before 1970 and beyond 2262, which is told as the last moment that there is."""
    assert nanoseconds(stamp, units, offset) == expected


FAR, EARLY = 7_258_118_400 * SECOND, -1  # the year 2200, and 1969


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("out.pcap", [2**32 * SECOND - 1, 0, 5], "times before 1970 or beyond 2106, written as .*: 2"),
        ("out.pcapng", [FAR, 0, 5], "times before 1970 or beyond 2262, written as .*: 1"),
    ],
)
def test_times_that_a_format_cannot_tell(tmp_path: Path, name: str, told: list[int], words: str) -> None:
    """The nearest is written, and they are counted; what can be told is told, and nothing is said then."""
    with Writer(tmp_path / name) as writer:
        writer.write(*columns([(5, b"told")]))
        assert writer.complaint is None
        writer.write(*columns([(FAR, b"far"), (EARLY, b"early"), (5, b"told")]))
    assert re.fullmatch(rf".*/{name}: {words}", writer.complaint or "")
    assert read(tmp_path / name).times.tolist() == [5, *told]


def test_times_that_cannot_be_told(tmp_path: Path) -> None:
    """Microseconds reach 292,000 years either way, and nanoseconds 292: of five packets two are told as the nearest, by
    each way to read a file, and each time that it is read."""
    stamps = [5, 2**62, -5, -(2**63), 7]
    path = file_of(tmp_path, section() + interface() + b"".join(packet(stamp, b"frame") for stamp in stamps))
    bound = (2**63 // SECOND - 1) * SECOND
    capture = read(path)
    assert capture.times.tolist() == [5000, bound, -5000, -bound, 7000]
    assert capture.clamped == 2
    table = read_capture(path, fields=())
    assert (table.clamped, "times that cannot be told 2" in repr(table)) == (2, True)
    assert [each.clamped for each in capture_chunks(path, fields=(), packets=3)] == [2, 2]
    source, room = Source(path), np.zeros((ROWS, 8), np.int64)
    for _ in range(2):
        source.rewind()
        assert (source.fill(room), source.clamped) == (5, 2)
    cooked = file_of(tmp_path, section() + interface(link=101) + packet(2**62, b"\x45" * 20), "cooked.pcapng")
    assert read(cooked).clamped == 1


@settings(deadline=None)
@given(cut=st.integers(0, 300), noise=st.binary(max_size=3))
def test_damaged_files(scratch: Path, cut: int, noise: bytes) -> None:
    """A file that is cut, with nonsense behind: it is refused in a line, or gives its first packets."""
    whole = section() + interface() + b"".join(packet(n, bytes([n]) * 30) for n in range(3))
    path = file_of(scratch, whole[:cut] + noise)
    if cut + len(noise) < len(section()):
        with pytest.raises(CaptureError, match=r"^/.*in\.pcapng: .*$"):
            read(path)
        return
    if cut < len(section()):  # the nonsense has made a section of it, or something else
        with suppress(CaptureError):
            assert contents(read(path)) == []
        return
    found = contents(read(path))
    whole_ones = [n for n in range(3) if cut >= len(section() + interface()) + (n + 1) * len(packet(0, bytes(30)))]
    assert found[: len(whole_ones)] == [(n * 1000, bytes([n]) * 30) for n in whole_ones]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (section()[:20], "truncated: 20 bytes of a pcapng section's header of 28"),
        (section().replace(b"\x4d\x3c\x2b\x1a", b"abcd"), "a pcapng section of the byte order 61 62 63 64"),
        (section() + interface(link=9), r"link type 9 \(PPP\), which no Ethernet can be made of"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        read(file_of(tmp_path, content))


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b"\6\0\0\0", "after packet 1, at byte 88: truncated: 4 bytes of a block"),
        (struct.pack("<III", 6, 13, 0), "damaged: a block of 13 bytes"),
        (struct.pack("<III", 6, 64, 0), "truncated: 12 of 64 bytes of a block"),
        (packet(1, b"abc", number=5), "contradicts itself or names an unknown interface"),
    ],
)
def test_damage_is_told(tmp_path: Path, tail: bytes, words: str) -> None:
    """The packet before it is there."""
    capture = read(file_of(tmp_path, section() + interface() + packet(1, b"four----") + tail))
    assert len(capture) == 1
    assert words in (capture.damage or "")


# ---------------------------------------------------------------------------------------------------------------------
# Written and read again, by us and by others


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(NAMES),
    packets=st.lists(st.tuples(st.integers(0, 2**32 * SECOND - 1), st.binary(max_size=100)), max_size=12),
)
def test_round_trip(scratch: Path, name: str, packets: list[tuple[int, bytes]]) -> None:
    with Writer(scratch / name) as writer:
        for part in (packets[:3], packets[3:]):
            writer.write(*columns(part))
    capture = read(scratch / name)
    assert contents(capture) == packets
    assert capture.damage is None


@needs_wireshark
@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_others_read_what_is_written(tmp_path: Path, name: str) -> None:
    """tshark prints times to the nanosecond, lengths, and where a packet comes from; gzip and zstd take it."""
    with Writer(tmp_path / name, interfaces=[Interface("sim:a")]) as writer:
        writer.write(*columns(PACKETS))
    fields = ("frame.time_epoch", "frame.len", "frame.interface_name")
    lines = run("tshark", "-n", "-r", tmp_path / name, "-T", "fields", *(f"-e{field}" for field in fields)).splitlines()
    device = "sim:a" if "pcapng" in name else ""
    expected = [[f"{t // SECOND}.{t % SECOND:09}", str(len(frame)), device] for t, frame in PACKETS]
    assert [(line + "\t\t").split("\t")[:3] for line in lines] == expected
    if name.endswith(".gz"):
        run("gzip", "-t", tmp_path / name)
    if name.endswith(".zst"):
        whole = zstandard.ZstdDecompressor().stream_reader((tmp_path / name).read_bytes()).read()
        assert len(whole) > sum(len(frame) for _, frame in PACKETS)


@needs_wireshark
@pytest.mark.once
def test_drops_are_told_in_pcapng(tmp_path: Path) -> None:
    """Wireshark's own reading of the statistics block; tcpdump reads the packets."""
    path = tmp_path / "out.pcapng"
    with Writer(path, interfaces=[Interface("sim:a", lambda: {"received": 9, "dropped": 5})]) as writer:
        writer.write(*columns(PACKETS))
    summary = run("capinfos", path)
    assert "Name = sim:a" in summary
    assert "Number of stat entries = 1" in summary
    assert struct.pack("<HHQ", 5, 8, 5) in path.read_bytes()  # isb_ifdrop
    assert "22:13:20.123456789" in run("env", "TZ=UTC", "tcpdump", "--nano", "-nr", path)


@needs_wireshark
@pytest.mark.once
def test_reads_what_others_write(tmp_path: Path) -> None:
    """editcap and mergecap convert, cut and shift a capture; all that it then says is read."""
    with Writer(tmp_path / "a.pcap") as writer:
        writer.write(*columns(PACKETS))

    def edited(*options: str) -> Capture:
        run("editcap", *options, tmp_path / "a.pcap", tmp_path / "edited")
        return read(tmp_path / "edited")

    assert contents(edited("-F", "pcapng")) == PACKETS
    assert contents(edited("-F", "pcapng", "-t", "-1800000000")) == [(t - 18 * 10**17, frame) for t, frame in PACKETS]
    assert contents(edited("-F", "nsecpcap")) == PACKETS
    assert contents(edited("-F", "pcap"))[0][0] == PACKETS[0][0] // 1000 * 1000
    cut = edited("-F", "pcapng", "-s", "40")
    assert cut.cut == 3
    run("mergecap", "-w", tmp_path / "merged.pcapng", tmp_path / "a.pcap", tmp_path / "edited")
    assert len(read(tmp_path / "merged.pcapng")) == 2 * len(PACKETS)


# ---------------------------------------------------------------------------------------------------------------------
# Compression


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_files_are_known_by_their_first_bytes(tmp_path: Path, pack) -> None:
    """Two parts, packed one by one, and then a file that ends early, of which the beginning is read."""
    noise = np.random.default_rng(1).integers(0, 256, (1000, 500), np.uint8)
    plain = section() + interface() + b"".join(packet(n, row.tobytes()) for n, row in enumerate(noise))
    path = file_of(tmp_path, pack(plain[:1000]) + pack(plain[1000:]), "in.pcapng")
    assert len(read(path)) == 1000
    capture = read(file_of(tmp_path, pack(plain)[:-6], "cut.pcapng"))
    assert 0 < len(capture) <= 1000
    assert "truncated" in (capture.damage or "")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("gz", "zst"))])
def test_what_is_written_is_in_the_file_at_once(tmp_path: Path, name: str) -> None:
    """A writer that is killed leaves all that it was given."""
    with Writer(tmp_path / name) as writer:
        writer.write(*columns(PACKETS))
        (tmp_path / "copy").write_bytes((tmp_path / name).read_bytes())
        assert contents(read(tmp_path / "copy")) == PACKETS
        assert writer.packets == len(PACKETS)


# ---------------------------------------------------------------------------------------------------------------------
# Rows of packets of one length, which are read several at a time

LENGTHS = st.lists(st.tuples(st.sampled_from([0, 1, 60, 61, 64]), st.integers(1, 40)), min_size=1, max_size=5).map(
    lambda runs: [length for length, count in runs for _ in range(count)]
)


@settings(deadline=None)  # the first example compiles
@given(LENGTHS, st.sampled_from("<>"), st.data())
def test_rows_of_records_of_one_length(scratch: Path, lengths: list[int], order: str, data: st.DataObject) -> None:
    """Of a file that is cut anywhere, all records are there that are whole."""
    content, ends, expected = struct.pack(f"{order}IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1), [], []
    for number, length in enumerate(lengths):
        frame = bytes((number + i) % 256 for i in range(length))
        content += struct.pack(f"{order}IIII", number, 10 * number, length, length + number % 3) + frame
        ends.append(len(content))
        expected.append((number * SECOND + 10 * number, frame))
    cut = data.draw(st.integers(24, len(content)))
    capture = read(file_of(scratch, content[:cut], "row.pcap"))
    whole = sum(end <= cut for end in ends)
    assert contents(capture) == expected[:whole]
    assert capture.original.tolist() == [length + number % 3 for number, length in enumerate(lengths[:whole])]
    assert (capture.damage is None) == (cut in (24, *ends))


# What may be odd about a block: where, the word that stands there instead, and whether it is passed over
ODD = {
    "of statistics": (0, 5, True),
    "of no known kind": (0, 77, True),
    "of no interface": (8, 2, False),
    "with more bytes than it has": (20, 1 << 20, False),
    "with another length at its end": (-4, 4, False),
}


@settings(deadline=None)  # the first example compiles
@given(LENGTHS, st.sampled_from("<>"), st.sampled_from(["nothing", *ODD]), st.integers(0, 2**31), st.data())
def test_rows_of_blocks_of_one_length(
    scratch: Path, lengths: list[int], order: str, oddity: str, numbers: int, data: st.DataObject
) -> None:
    """Packets come from two interfaces, one of which counts nanoseconds and has a frame check sequence; a block that is
    odd is passed over, or ends the file."""
    fine = option(9, b"\x09", order) + option(13, b"\x04", order)
    content = section(order) + interface(order) + interface(order, options=fine)
    odd = data.draw(st.integers(0, len(lengths) - 1)) if oddity != "nothing" else len(lengths)
    where, word, passed = ODD.get(oddity, (0, 0, True))
    expected = []
    for number, length in enumerate(lengths):
        frame = bytes((number + i) % 256 for i in range(length))
        second = numbers >> number % 32 & 1
        found = bytearray(packet(-number - 1, frame, order, second))
        if number == odd:
            start = where % len(found)
            found[start : start + 4] = struct.pack(f"{order}I", word)
        elif number < odd or passed:
            time = (-number - 1) * (1 if second else 1000)
            expected.append((time, frame[: max(length - 4, 0)] if second else frame, second))
        content += found
    capture = read(file_of(scratch, content))
    assert [(*each, n) for each, n in zip(contents(capture), capture.interfaces.tolist(), strict=True)] == expected
    assert (capture.damage is None) == passed


# ---------------------------------------------------------------------------------------------------------------------
# Other links

IPV4 = bytes.fromhex("45000014000000004011000a0a0000010a000002")


@pytest.mark.parametrize(
    ("link", "header", "ethernet"),
    [
        (101, b"", "026978790002 026978790001 0800"),
        (113, bytes.fromhex("0001 0001 0006 aabbccddeeff 0000 0800"), "ffffffffffff aabbccddeeff 0800"),
        (276, bytes.fromhex("0800 0000 00000001 0001 00 06 aabbccddeeff 0000"), "026978790002 aabbccddeeff 0800"),
        (0, struct.pack("<I", 2), "026978790002 026978790001 0800"),
        (108, struct.pack(">I", 30), "026978790002 026978790001 86dd"),
    ],
)
def test_other_links_become_ethernet(tmp_path: Path, link: int, header: bytes, ethernet: str) -> None:
    """By pcap and by pcapng, whose names and times stay; a packet that is too short for its header is left out."""
    fine = option(9, b"\x09") + option(2, b"any")
    content = section() + interface(link=link, options=fine) + packet(2**62, header + IPV4) + packet(5, header[:-1])
    capture = read(file_of(tmp_path, content))
    assert contents(capture) == [(2**62, bytes.fromhex(ethernet) + IPV4)]
    assert capture.names == ["any"]
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    record = struct.pack("<IIII", 1, 2, len(header + IPV4), 100) + header + IPV4
    source = Source(file_of(tmp_path, head + record, "in.pcap"))
    table = np.zeros((ROWS, 8), np.int64)
    assert source.converted
    assert source.fill(table) == 1
    assert table[1:4, 0].tolist() == [34, 100 + 14 - len(header), SECOND + 2000]


# ---------------------------------------------------------------------------------------------------------------------
# Rotation


def rotated(path: Path, rotation: Rotation, times: list[int]) -> RotatingWriter:
    """Write a packet of 60 bytes at each time, all in one buffer."""
    buffer = np.zeros(1 << 16, np.uint8)
    with RotatingWriter(str(path), 0, rotation) as writer:
        used = 0
        for moment in times:
            used = append(buffer, used, writer.formats[0], moment, np.zeros(60, np.uint8), 0, 60)
        writer.flush(buffer, used)
    return writer


def test_files_by_size(tmp_path: Path) -> None:
    """A file that has more bytes than the limit gets no further packet, as tcpdump has it: 24 + 3 * 76 > 200."""
    writer = rotated(tmp_path / "out.pcap", Rotation(size=200), list(range(10)))
    assert (writer.packets, writer.files) == (10, 4)
    counts = {path.name: len(read(path)) for path in sorted(tmp_path.iterdir())}
    assert counts == {"out.pcap": 3, "out.pcap1": 3, "out.pcap2": 3, "out.pcap3": 1}


def test_files_in_turn(tmp_path: Path) -> None:
    """Of two files the older one is written over; numbers have as many digits as the last one."""
    rotated(tmp_path / "out.pcapng", Rotation(size=250, files=2), list(range(12)))
    found = [read(tmp_path / name).times.tolist() for name in ("out.pcapng0", "out.pcapng1")]
    assert found == [[8, 9], [10, 11]]  # 72 bytes of header and 92 a packet: two make more than 250


def test_files_by_time(tmp_path: Path) -> None:
    """Each has the packets of two seconds from its first one on, and its name has the time of that."""
    start = time.time_ns() + 100 * SECOND
    times = [start + n * SECOND for n in range(7)]
    writer = rotated(tmp_path / "%s.pcap", Rotation(seconds=2, files=3), times)
    assert writer.ended
    assert writer.packets == 4
    names = sorted(path.name for path in tmp_path.iterdir())[1:]
    assert names == [f"{(start + n * SECOND) // SECOND}.pcap" for n in (0, 2)]
    assert [read(tmp_path / name).times.tolist() for name in names] == [times[:2], times[2:4]]


@pytest.mark.parametrize(("path", "rotation"), [("-", Rotation(size=1)), ("out.pcap", Rotation(files=2))])
def test_rotation_that_cannot_be(path: str, rotation: Rotation) -> None:
    with pytest.raises(ConfigurationError):
        RotatingWriter(path, 0, rotation)
