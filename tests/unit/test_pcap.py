"""Capture files: what this project writes others read, what others write it reads, and damage costs no whole packet."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixy.errors import CaptureError, ConfigurationError
from ixy.formats.reading import Capture, read
from ixy.formats.writing import Writer, append, record_bytes

SECOND = 10**9
ARP = bytes.fromhex(
    "ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a000001 000000000000 0a000002".replace(" ", "")
).ljust(60, b"\0")
PACKETS = [
    (1_700_000_000 * SECOND + 123_456_789, ARP),
    (1_700_000_001 * SECOND, ARP + bytes(range(256)) * 5),
    (0, b"x"),
]

times = st.integers(0, 2**32 * SECOND - 1)
packets = st.lists(st.tuples(times, st.binary(max_size=100)), max_size=12)


def contents(capture: Capture) -> list[tuple[int, bytes]]:
    """The (time, frame) pairs of a capture."""
    starts, ends = capture.offsets, capture.offsets + capture.lengths
    return [(int(t), capture.data[a:b].tobytes()) for t, a, b in zip(capture.times, starts, ends, strict=True)]


def by_hand(packets: list[tuple[int, bytes]], order: str = "<", tick: int = 1, link: int = 1) -> bytes:
    """A pcap file as the draft describes it, made with `struct` alone."""
    magic = {1: 0xA1B23C4D, 1000: 0xA1B2C3D4}[tick]
    header = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    records = [
        struct.pack(f"{order}IIII", t // SECOND, t % SECOND // tick, len(frame), len(frame)) + frame
        for t, frame in packets
    ]
    return header + b"".join(records)


def columns(packets: list[tuple[int, bytes]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Packets as the arguments of `Writer.write`: their frames lie one after the other in one array."""
    lengths = np.array([len(frame) for _, frame in packets], np.int64)
    data = np.frombuffer(b"".join(frame for _, frame in packets), np.uint8)
    return np.array([t for t, _ in packets], np.int64), data, np.cumsum(lengths) - lengths, lengths


@pytest.fixture(scope="module")
def scratch() -> Path:
    """A directory for properties, whose many examples write over one another."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of PACKETS, written by `Writer`."""
    path = tmp_path / "written.pcap"
    with Writer(path) as writer:
        writer.write(*columns(PACKETS))
    return path


def file_of(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "in.pcap"
    path.write_bytes(content)
    return path


def refusal(path: object) -> str:
    """The message with which `read` refuses a file: one line that names the file."""
    with pytest.raises(CaptureError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tick", [1, 1000])
def test_reads_both_byte_orders_and_resolutions(tmp_path: Path, order: str, tick: int) -> None:
    """A file made by hand: frames, lengths and times come back, times to the file's resolution."""
    capture = read(file_of(tmp_path, by_hand(PACKETS, order, tick)))
    assert contents(capture) == [(t // tick * tick, frame) for t, frame in PACKETS]
    assert capture.original.tolist() == [len(frame) for _, frame in PACKETS]
    assert capture.damage is None
    assert len(capture) == 3


@pytest.mark.parametrize("nanoseconds", [False, True])
def test_reads_what_dpkt_writes(tmp_path: Path, nanoseconds: bool) -> None:
    """A file from dpkt's writer, which puts the machine's own byte order: the same packets come back."""
    stream = io.BytesIO()
    writer = dpkt.pcap.Writer(stream, nano=nanoseconds)
    for number in range(5):
        writer.writepkt(ARP + bytes([number]), ts=number + 0.5)
    capture = read(file_of(tmp_path, stream.getvalue()))
    assert contents(capture) == [(n * SECOND + SECOND // 2, ARP + bytes([n])) for n in range(5)]


def test_times_reach_to_2106(tmp_path: Path) -> None:
    """Seconds are unsigned 32-bit: the last moment before the overflow is read as itself."""
    last = 2**32 * SECOND - 1
    assert read(file_of(tmp_path, by_hand([(last, ARP)], ">"))).times.tolist() == [last]


def test_empty_capture(tmp_path: Path) -> None:
    """A header alone is a capture of no packets, undamaged."""
    capture = read(file_of(tmp_path, by_hand([])))
    assert len(capture) == 0
    assert capture.damage is None


def test_more_packets_than_one_table(tmp_path: Path) -> None:
    """Reading goes on where the first table of 65536 records was full, and stops right at a full last table."""
    for count in (65536, 65537, 131072):
        frames = [(n, n.to_bytes(4, "big")) for n in range(count)]
        capture = read(file_of(tmp_path, by_hand(frames)))
        assert contents(capture) == frames
        assert capture.damage is None
        del capture  # the file is rewritten


def test_cut_frames_keep_their_original_length(tmp_path: Path) -> None:
    """A record of 4 bytes of a 1500-byte frame: both lengths come back."""
    record = struct.pack("<IIII", 1, 2, 4, 1500) + b"abcd"
    capture = read(file_of(tmp_path, by_hand([]) + record))
    assert contents(capture) == [(SECOND + 2, b"abcd")]
    assert capture.original.tolist() == [1500]


def test_cut_frames_are_counted(tmp_path: Path) -> None:
    """Of three frames two were longer on the wire than the file has them; a frame check sequence left out is no cut."""
    records = b"".join(struct.pack("<IIII", 1, 0, 60, original) + bytes(60) for original in (61, 60, 1514))
    assert read(file_of(tmp_path, by_hand([]) + records)).cut == 2
    assert read(file_of(tmp_path, by_hand(PACKETS))).cut == 0


def test_frame_check_sequences_are_left_out(tmp_path: Path) -> None:
    """The link type says that frames end in 4 bytes of FCS: lengths go without, also where a frame was cut."""
    content = by_hand([(0, ARP + b"FCS!")], link=0x24000001)
    content += struct.pack("<IIII", 0, 1, 60, 64) + ARP
    content += struct.pack("<IIII", 0, 2, 10, 64) + ARP[:10]
    content += struct.pack("<IIII", 0, 3, 2, 2) + b"??"
    capture = read(file_of(tmp_path, content))
    assert contents(capture) == [(0, ARP), (1, ARP), (2, ARP[:10]), (3, b"")]
    assert capture.original.tolist() == [60, 60, 60, 0]


def test_reads_a_pipe(tmp_path: Path) -> None:
    """A FIFO that another thread fills cannot be mapped; its packets come all the same."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    feeder = threading.Thread(target=fifo.write_bytes, args=[by_hand(PACKETS)])
    feeder.start()
    capture = read(fifo)
    feeder.join()
    assert contents(capture) == PACKETS


@settings(deadline=None)  # the first example compiles
@given(packets, st.sampled_from("<>"), st.sampled_from([1, 1000]), st.data())
def test_a_cut_file_gives_the_packets_before_the_cut(
    scratch: Path, packets: list[tuple[int, bytes]], order: str, tick: int, data: st.DataObject
) -> None:
    """A file cut anywhere past its header: the packets wholly before the cut, and damage iff it is inside a record."""
    content = by_hand(packets, order, tick)
    cut = data.draw(st.integers(24, len(content)))
    capture = read(file_of(scratch, content[:cut]))
    ends = [len(by_hand(packets[:n])) for n in range(len(packets) + 1)]
    whole = sum(end <= cut for end in ends) - 1
    assert contents(capture) == [(t // tick * tick, frame) for t, frame in packets[:whole]]
    assert (capture.damage is None) == (cut in ends)
    if capture.damage:
        assert f"packet {whole + 1} at byte {ends[whole]}: truncated" in capture.damage


@settings(deadline=None)  # the first example compiles
@given(st.binary(max_size=200))
def test_any_bytes_after_the_header(scratch: Path, noise: bytes) -> None:
    """Noise for records: every frame delivered lies inside the file, and what follows the last is named damaged."""
    capture = read(file_of(scratch, by_hand([]) + noise))
    ends = capture.offsets + capture.lengths
    assert (capture.offsets >= 40).all()
    assert (ends <= 24 + len(noise)).all()
    assert (capture.damage is None) == (max([24, *ends]) == 24 + len(noise))


@pytest.mark.parametrize("length", [262145, 2**31, 2**32 - 1])
def test_impossible_length(tmp_path: Path, length: int) -> None:
    """A record that claims more than any capture holds: the packet before it is used, and the damage named."""
    record = struct.pack("<IIII", 0, 0, length, length) + bytes(262145)
    capture = read(file_of(tmp_path, by_hand([(7, ARP)]) + record))
    assert contents(capture) == [(7, ARP)]
    assert capture.damage == f"packet 2 at byte 100: damaged: a length of {length} bytes"


def test_damage_lines(tmp_path: Path) -> None:
    """What is missing is counted: in the record's header, and in the frame."""
    content = by_hand([(7, ARP), (8, ARP)])
    assert read(file_of(tmp_path, content[:-1])).damage == "packet 2 at byte 100: truncated: 59 of 60 bytes"
    assert (
        read(file_of(tmp_path, content[:105])).damage
        == "packet 2 at byte 100: truncated: 5 bytes of a record header of 16"
    )


def test_missing_file(tmp_path: Path) -> None:
    """The system's reason is given."""
    assert "No such file" in refusal(tmp_path / "none.pcap")


def test_directory(tmp_path: Path) -> None:
    """A directory is called one."""
    assert "Is a directory" in refusal(tmp_path)


def test_foreign_file(tmp_path: Path) -> None:
    """A file of another kind is shown by its first bytes."""
    assert "not a pcap or pcapng file: it begins with 7f 45 4c 46" in refusal(
        file_of(tmp_path, b"\x7fELF" + bytes(100))
    )


@pytest.mark.parametrize("size", range(24))
def test_truncated_file_header(tmp_path: Path, size: int) -> None:
    """A file that ends within its header, an empty one included."""
    assert f"truncated: {size} bytes of a pcap file's header of 24" in refusal(file_of(tmp_path, by_hand([])[:size]))


@pytest.mark.parametrize(("number", "name"), [(9, "PPP"), (127, "IEEE 802.11 with radiotap"), (9999, "unknown")])
def test_wrong_link_type(tmp_path: Path, number: int, name: str) -> None:
    """The link type is given by number and name, in either byte order."""
    for order in "<>":
        message = refusal(file_of(tmp_path, by_hand(PACKETS, order, link=number)))
        assert f"link type {number} ({name}), which no Ethernet can be made of" in message


def test_other_version(tmp_path: Path) -> None:
    """Version 2.2 has the two lengths of a record swapped: it is refused, not misread."""
    content = by_hand(PACKETS).replace(struct.pack("<HH", 2, 4), struct.pack("<HH", 2, 2), 1)
    assert "pcap version 2.2, not 2.4" in refusal(file_of(tmp_path, content))


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@settings(deadline=None)  # the first example compiles
@given(packets, st.booleans())
def test_round_trip(scratch: Path, packets: list[tuple[int, bytes]], nanoseconds: bool) -> None:
    """Any frames at any times: the file is the one made by hand, and reads as what was written."""
    path = scratch / "round.pcap"
    with Writer(path, nanoseconds=nanoseconds) as writer:
        writer.write(*columns(packets))
        assert writer.packets == len(packets)
    tick = 1 if nanoseconds else 1000
    assert path.read_bytes() == by_hand(packets, tick=tick)
    assert contents(read(path)) == [(t // tick * tick, frame) for t, frame in packets]


def test_dpkt_reads_what_is_written(written: Path) -> None:
    """dpkt, whose times are floating point: frames are equal, times within a microsecond."""
    with written.open("rb") as file:
        read = list(dpkt.pcap.Reader(file))
    assert [frame for _, frame in read] == [frame for _, frame in PACKETS]
    assert [float(t) for t, _ in read] == pytest.approx([t / SECOND for t, _ in PACKETS], abs=1e-6)


def test_scapy_reads_what_is_written(written: Path) -> None:
    """Scapy, whose times are decimal: frames and times are equal, to the nanosecond."""
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(written)) as reader:
        assert reader.nano
        assert [(meta.sec * SECOND + meta.usec, frame) for frame, meta in reader] == PACKETS


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
def test_tcpdump_reads_what_is_written(written: Path) -> None:
    """tcpdump prints the time to the nanosecond and understands the ARP request."""
    command = ["tcpdump", "-nr", written, "-tt", "--nano", "-c", "1"]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert line.startswith("1700000000.123456789 ARP, Request who-has 10.0.0.2 tell 10.0.0.1")


@pytest.mark.skipif(not shutil.which("capinfos"), reason="capinfos (Debian package wireshark-common) is not installed")
def test_wireshark_reads_what_is_written(written: Path) -> None:
    """Wireshark's capinfos finds the type, the encapsulation, and all three packets."""
    summary = subprocess.run(["capinfos", "-tEcs", written], check=True, capture_output=True, text=True).stdout
    assert "nanosecond" in summary
    assert "Ethernet" in summary
    assert f"Number of packets:   {len(PACKETS)}" in summary


def test_snaplen(tmp_path: Path) -> None:
    """Frames above the snapshot length are cut, and their records tell the length that they had."""
    path = tmp_path / "cut.pcap"
    with Writer(path, snaplen=20) as writer:
        writer.write(*columns(PACKETS))
    capture = read(path)
    assert contents(capture) == [(t, frame[:20]) for t, frame in PACKETS]
    assert capture.original.tolist() == [60, 1340, 1]
    assert struct.unpack_from("<I", path.read_bytes(), 16) == (20,)


@pytest.mark.parametrize("snaplen", [-1, 262145])
def test_snaplen_out_of_range(tmp_path: Path, snaplen: int) -> None:
    """Refused before the file is touched."""
    with pytest.raises(ConfigurationError, match=f"snaplen {snaplen} "):
        Writer(tmp_path / "none.pcap", snaplen=snaplen)
    assert not (tmp_path / "none.pcap").exists()


def test_many_frames_take_few_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 records of 1016 bytes are three buffers of 1 MiB, and each is one write."""
    sizes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: sizes.append(write(fd, data)) or sizes[-1])
    count = 3000
    with Writer(tmp_path / "many.pcap") as writer:
        zeros = np.zeros(count, np.int64)
        writer.write(np.arange(count), np.zeros(1000, np.uint8), zeros, zeros + 1000)
    assert sum(sizes) == 24 + count * 1016
    assert len(sizes) == 1 + 3
    assert read(tmp_path / "many.pcap").times.tolist() == list(range(count))


def test_what_is_written_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Each call's packets can be read before the next call and before the file is closed."""
    path = tmp_path / "live.pcap"
    with Writer(path) as writer:
        for count in (1, 2, 3):
            writer.write(*columns(PACKETS[count - 1 : count]))
            assert contents(read(path)) == PACKETS[:count]
            assert writer.packets == count


def test_append_fills_a_buffer_to_the_last_byte(tmp_path: Path) -> None:
    """Rows of a two-dimensional array, as packet buffers are: two records fit exactly, a third leaves all as it is."""
    rows = np.arange(3 * 100, dtype=np.uint8).reshape(3, 100)
    flat = rows.reshape(-1)
    size = 2 * (16 + 60)
    assert record_bytes(60) >= 76
    buffer = np.full(size + 8, 0xEE, np.uint8)
    with Writer(tmp_path / "rows.pcap") as writer:
        used = append(buffer[:size], 0, writer.format, 5, flat, 100, 60)
        assert used == 76
        assert append(buffer[: size - 1], used, writer.format, 6, flat, 200, 60) == 76
        used = append(buffer[:size], used, writer.format, 6, flat, 200, 60)
        assert used == size
        assert append(buffer[:size], used, writer.format, 7, flat, 0, 0) == size
        assert buffer[size:].tolist() == [0xEE] * 8
        writer.flush(buffer, used)
        assert writer.packets == 2
    assert contents(read(tmp_path / "rows.pcap")) == [(5, rows[1, :60].tobytes()), (6, rows[2, :60].tobytes())]


@pytest.mark.parametrize(("start", "length"), [(-1, 10), (0, 101), (100, 1), (0, -1), (2**62, 2**62)])
def test_frames_outside_the_data_are_refused(tmp_path: Path, start: int, length: int) -> None:
    """The first frame is good and written, the second lies outside: no memory beyond the array is read."""
    path = tmp_path / "out.pcap"
    with Writer(path) as writer, pytest.raises(ValueError, match="frame 1 lies outside"):
        writer.write(np.array([1, 2]), np.zeros(100, np.uint8), np.array([0, start]), np.array([100, length]))
    assert contents(read(path)) == [(1, bytes(100))]


def test_columns_of_different_length(tmp_path: Path) -> None:
    """Three times for one frame: refused."""
    with Writer(tmp_path / "out.pcap") as writer, pytest.raises(ValueError, match="3 times, 1 starts and 1 len"):
        writer.write(np.zeros(3, np.int64), np.zeros(9, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`-` writes to descriptor 1 and leaves it open for others."""
    with Writer("-") as writer:
        writer.write(*columns(PACKETS))
    os.write(1, b"after")
    assert capfdbinary.readouterr().out == by_hand(PACKETS) + b"after"


def run_with_output(program: str, output: str) -> str:
    """What a program says on standard error whose standard output the shell redirects so."""
    command = ["bash", "-c", f'"$0" -c "$1" {output}', sys.executable, program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr.strip()


REFUSED = """
import sys
from ixy.formats.reading import read
from ixy.formats.writing import Writer
{0}
try: Writer("-")
except Exception as error: print(error, file=sys.stderr)
"""


@pytest.mark.parametrize("before", ["", "from ixy.streams import occupy; occupy()"])
def test_standard_output_that_is_closed(before: str) -> None:
    """Refused, also where another file has taken its number."""
    assert run_with_output(REFUSED.format(before), ">&-") == "standard output is closed: name a file"


def test_standard_output_takes_one_capture() -> None:
    """The second is refused as long as the first is there."""
    message = run_with_output(REFUSED.format("first = Writer('-')"), "| cat >/dev/null")
    assert message == "standard output takes one capture: name a file for the other"
    assert run_with_output(REFUSED.format("Writer('-').close()"), "| cat >/dev/null") == ""


def test_standard_output_is_a_file_that_is_read(written: Path) -> None:
    """A shell appends standard output to the capture that is being read: refused, and the capture stays as it was."""
    before = written.read_bytes()
    message = run_with_output(REFUSED.format(f"capture = read('{written}')"), f">>{written}")
    assert "in use" in message
    assert written.read_bytes() == before
    run_with_output(REFUSED.format(""), f">>{written}")
    with Writer(written):  # the lock of one who only appended is not kept
        pass


def test_overwrites_an_older_file(written: Path) -> None:
    """An existing longer file is emptied first; a second close does nothing."""
    writer = Writer(written)
    writer.close()
    writer.close()
    assert written.read_bytes() == by_hand([])


def test_cannot_open(tmp_path: Path) -> None:
    """A directory, and a file in none."""
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "none" / "x.pcap", "No such file")]:
        with pytest.raises(CaptureError, match=reason) as caught:
            Writer(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_file_in_use_is_not_emptied(written: Path) -> None:
    """A capture is open for reading, then for writing: a writer would pull the file from under it, and is refused."""
    capture = read(written)
    with pytest.raises(CaptureError, match="in use"):
        Writer(written)
    assert contents(capture) == PACKETS
    del capture
    with Writer(written), pytest.raises(CaptureError, match="in use"):
        Writer(written)


# ---------------------------------------------------------------------------------------------------------------------
# Full disks and closed pipes


def test_full_device() -> None:
    """/dev/full refuses the first byte."""
    with pytest.raises(CaptureError, match=r"^/dev/full: disk full; packets written whole: 0$"):
        Writer("/dev/full")


LIMITED = """
import resource, signal, sys
import numpy as np
from ixy.formats.reading import Capture, read
from ixy.formats.writing import Writer, append, record_bytes
from ixy.errors import CaptureError
path, limit = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = None
try:
    with Writer(path) as writer:
        zeros = np.zeros(10, np.int64)
        writer.write(np.arange(10), np.full(84, 7, np.uint8), zeros, zeros + 84)
        writer.write(np.arange(10, 20), np.full(84, 7, np.uint8), zeros, zeros + 84)
except CaptureError as error:
    print(error)
print(writer.packets if writer else None)
"""


@pytest.mark.parametrize(
    ("limit", "packets"), [(10, None), (24, 0), (24 + 99, 0), (24 + 100, 1), (24 + 1000, 10), (24 + 1550, 15)]
)
def test_no_room_for_the_next_record(tmp_path: Path, limit: int, packets: int | None) -> None:
    """20 records of 100 bytes into a file that may not grow further: it ends after its last whole record."""
    path = tmp_path / "limited.pcap"
    command = [sys.executable, "-c", LIMITED, path, str(limit)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    reason = "file too large for the limit on file sizes (ulimit -f)"
    assert lines == [f"{path}: {reason}; packets written whole: {packets or 0}", str(packets)]
    if packets is None:
        assert path.read_bytes() == b""
    else:
        assert contents(read(path)) == [(t, bytes([7]) * 84) for t in range(packets)]
        assert path.stat().st_size == 24 + packets * 100


def test_a_record_torn_by_a_full_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes 150 bytes of two 76-byte records, then none: the file keeps one, and later packets follow it."""
    path = tmp_path / "full.pcap"
    write = os.write
    with Writer(path) as writer:
        room = 150

        def full(fd: int, data: memoryview) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = write(fd, data[:room])
            room -= taken
            return taken

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(CaptureError, match=f"^{path}: disk full; packets written whole: 1$"):
                writer.write(*columns([(1, ARP), (2, ARP)]))
        writer.write(*columns([(3, ARP)]))
    assert contents(read(path)) == [(1, ARP), (3, ARP)]


def test_closed_pipe() -> None:
    """The reader of a pipe has gone: the next packets fail, those before are counted."""
    reading, writing = os.pipe()
    with Writer(f"/dev/fd/{writing}") as writer:
        os.close(writing)
        writer.write(*columns(PACKETS))
        os.close(reading)
        with pytest.raises(CaptureError, match=r"pipe closed; packets written whole: 3$"):
            writer.write(*columns(PACKETS))


def test_pipe_closed_in_the_middle() -> None:
    """A reader takes 100 records of 1016 bytes and goes, while the writer waits for room to write all 1000.

    The count is of what went into the pipe: all that was read, and at most a pipe's capacity more.
    """
    reading, writing = os.pipe()
    with Writer(f"/dev/fd/{writing}") as writer:
        os.close(writing)

        def read_some() -> None:
            with os.fdopen(reading, "rb", buffering=0) as pipe:
                left = 24 + 100 * 1016
                while left:
                    left -= len(pipe.read(left))

        reader = threading.Thread(target=read_some)
        reader.start()
        zeros = np.zeros(1000, np.int64)
        with pytest.raises(CaptureError, match="pipe closed"):
            writer.write(zeros, np.zeros(1000, np.uint8), zeros, zeros + 1000)
        reader.join()
        assert 100 <= writer.packets <= 100 + 65536 // 1016 + 1


def test_pipe_that_does_not_block() -> None:
    """A pipe set to non-blocking by someone else fills up: the writer waits for its reader, and nothing is lost."""
    reading, writing = os.pipe()
    received: list[bytes] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(f"/dev/fd/{writing}"))
        os.set_blocking(writer._fd, False)
        os.close(writing)
        reader = threading.Thread(target=lambda: received.append(Path(f"/dev/fd/{reading}").read_bytes()))
        reader.start()
        for _ in range(10):
            writer.write(*columns(PACKETS * 100))
    reader.join()
    os.close(reading)
    assert b"".join(received) == by_hand(PACKETS * 1000)


def test_a_failing_close_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system reports at the end that the disk is full: that is an error too, and the file is closed."""
    writer = Writer(tmp_path / "late.pcap")
    close = os.close

    def late(fd: int) -> None:
        close(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", late)
        with pytest.raises(CaptureError, match="disk full; packets written whole: 0"):
            writer.close()
    writer.close()


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems cannot lock: files are written and read there all the same."""

    def refuse(_fd: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Writer(tmp_path / "far.pcap") as writer:
        writer.write(*columns(PACKETS))
    assert contents(read(tmp_path / "far.pcap")) == PACKETS


def test_copies_a_capture(tmp_path: Path, written: Path) -> None:
    """What `read` gives is what `write` takes, whatever integers the lengths are: the copy is the same file."""
    capture = read(written)
    for kind in (np.int64, np.int32, np.uint16):
        with Writer(tmp_path / "copy.pcap") as writer:
            writer.write(capture.times, capture.data, capture.offsets, capture.lengths.astype(kind))
        assert (tmp_path / "copy.pcap").read_bytes() == written.read_bytes()
