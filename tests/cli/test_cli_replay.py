"""`ixy replay`: recordings are sent as they are, at their times, changed or divided."""

from __future__ import annotations

import json
import os
import struct
import subprocess

import dpkt
import pytest
from captures import frames, read_pcap, write_pcap
from conftest import COMMAND, ENVIRONMENT
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

SECOND = 10**9
OUT = "sim:a,tx_pcap=out.pcap,clock=virtual"


def record(path, packets, order="<"):
    """A capture in nanoseconds, of (time, frame) pairs."""
    header = struct.pack(f"{order}IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    records = [struct.pack("<IIII", t // SECOND, t % SECOND, len(frame), len(frame)) + frame for t, frame in packets]
    path.write_bytes(header + b"".join(records))


def times(path):
    with path.open("rb") as file:
        return [int(stamp * SECOND) for stamp, _ in dpkt.pcap.Reader(file)]


def gaps(path):
    stamps = times(path)
    return [stamp - stamps[0] for stamp in stamps]


MOMENTS = [0, 1, 17, 1_000_003, 1_000_003, 3_000_000_011]


@pytest.fixture
def recorded(tmp_path):
    """Six packets, one of 14 bytes."""
    packets = [*frames(5), bytes(range(14))]
    record(tmp_path / "in.pcap", [(10**18 + t, frame) for t, frame in zip(MOMENTS, packets, strict=True)])
    return packets


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], MOMENTS),
        (["--speed", "2"], [-(-t // 2) for t in MOMENTS]),
        (["--max-gap", "0.5"], [*MOMENTS[:5], 501_000_003]),
        (["--pps", "1000"], [n * 1_000_000 for n in range(6)]),
        (["--bps", "1M"], [0, 480_000, 1_736_000, 3_768_000, 6_576_000, 10_160_000]),
    ],
)
def test_gaps_are_exact_by_a_virtual_clock(ixy, tmp_path, recorded, options, expected):
    """Each packet goes when it is due, to the nanosecond, and the errors of gaps are told as 0."""
    ended = ixy("replay", "in.pcap", OUT, "--json", *options)
    assert ended.code == 0, ended.errors
    assert gaps(tmp_path / "out.pcap") == expected
    assert read_pcap(tmp_path / "out.pcap") == [packet.ljust(60, b"\0") for packet in recorded]
    assert ended.summary["sent"] == 6
    assert [ended.summary[name] for name in ("late_us", "stalls", "given_up_us")] == [0, 0, 0]
    assert [ended.summary[f"gap_error_{name}_ns"] for name in ("p50", "p99", "max")] == [0, 0, 0]


def test_loops_and_limits(ixy, tmp_path, recorded):
    """Three times six packets are cut at 14; each loop begins right after the last."""
    ended = ixy("replay", "in.pcap", OUT, "--loop", "3", "-c", "14", "--max-gap", "1", "--json")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [packet.ljust(60, b"\0") for packet in (recorded * 3)[:14]]
    length = 1_001_000_003
    assert gaps(tmp_path / "out.pcap") == [
        *(n * length + t for n in (0, 1) for t in (*MOMENTS[:5], length)),
        2 * length,
        2 * length + 1,
    ]


def test_more_packets_than_a_table(ixy, tmp_path):
    """In order, as fast as the device takes them."""
    packets = [(n, n.to_bytes(60, "big")) for n in range(10_000)]
    record(tmp_path / "in.pcap", packets)
    ended = ixy("replay", "in.pcap", OUT, "--topspeed", "--loop", "2")
    assert ended.code == 0, ended.errors
    assert [int.from_bytes(packet, "big") for packet in read_pcap(tmp_path / "out.pcap")] == list(range(10_000)) * 2


def test_what_is_odd_about_a_file_is_told(ixy, tmp_path):
    """Times that go back, a packet that was cut, one without a header, and an end amid a record."""
    frame = bytes(60)
    record(tmp_path / "in.pcap", [(5, frame), (3, frame), (9, b"short")])
    with (tmp_path / "in.pcap").open("ab") as file:
        file.write(struct.pack("<IIII", 0, 20, 60, 100) + frame + b"tail")
    ended = ixy("replay", "in.pcap", OUT)
    assert ended.code == 2
    where = "packet 5 at byte 273: truncated: 4 bytes of a record header of 16"
    assert ended.errors.splitlines() == [
        "ixy: in.pcap: packets that were cut when captured, and were sent so: 1",
        "ixy: in.pcap: left out packets without an Ethernet header, or too long for a buffer: 1",
        "ixy: in.pcap: times that go back: 1; sent in the order of the file",
        f"ixy: in.pcap: damaged, sent what was before: {where}",
    ]
    assert gaps(tmp_path / "out.pcap") == [0, 0, 17]


def test_two_sides_keep_their_times(ixy, tmp_path):
    """A client's packets go out of the first device, a server's out of the second, with mapped addresses."""

    def packet(source, target, flags):
        ends = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=source, dst=target)
        return bytes(ends / TCP(flags=flags) / bytes(6))

    talk = [("10.0.0.1", "10.0.0.2", "S"), ("10.0.0.2", "10.0.0.1", "SA"), ("10.0.0.1", "10.0.0.2", "A")]
    record(tmp_path / "in.pcap", [(n * 1_000_007, packet(*words)) for n, words in enumerate(talk)])
    sides = "sim:a,tx_pcap=a.pcap,clock=virtual", "sim:b,tx_pcap=b.pcap,clock=virtual"
    ended = ixy("replay", "in.pcap", *sides, "--map", "10.0.0.0/16=172.16.0.0/16", "--filter", "tcp")
    assert ended.code == 0, ended.errors
    there, back, last = (packet("172.16" + a[4:], "172.16" + b[4:], c) for a, b, c in talk)
    assert read_pcap(tmp_path / "a.pcap") == [there, last]
    assert read_pcap(tmp_path / "b.pcap") == [back]
    assert times(tmp_path / "b.pcap")[0] - times(tmp_path / "a.pcap")[0] == 1_000_007
    assert gaps(tmp_path / "a.pcap") == [0, 2_000_014]


def test_a_filter_and_a_vlan(ixy, tmp_path):
    frame = bytes(12) + b"\x08\x00" + bytes(46)
    record(tmp_path / "in.pcapng", [(0, frame), (1, bytes(60))])
    ended = ixy("replay", "in.pcapng", OUT, "--filter", "ip", "--vlan", "5")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [frame[:12] + b"\x81\x00\x00\x05" + frame[12:]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.pcap", OUT, "--pps", "1", "--topspeed"], "exclude each other"),
        (["in.pcap", OUT, "--vlan", "1", "--no-vlan"], "exclude each other"),
        (["in.pcap", OUT, "--filter", "tcp port"], "syntax error"),
        (["in.pcap", OUT, "--filter", "port 99"], "no packet to send"),
        (["in.pcap", OUT, "--map", "10.0.0.0/8"], "--map"),
        (["none.pcap", OUT], "none.pcap: No such file"),
        (["in.pcap", "sim:a,tx_pcap=../{}/in.pcap"], "is both read and written"),
        (["-", OUT, "sim:b,clock=virtual"], "a pipe is read once"),
        (["-", OUT, "udp"], "udp: no device's address; what is to be sent, --filter says: --filter 'udp'"),
        (["in.pcap", OUT, "udp", "port", "53"], "--filter 'udp port 53'"),
        (["in.pcap", OUT, OUT, OUT], "name one device or two"),
    ],
)
@pytest.mark.usefixtures("recorded")
def test_what_cannot_be_replayed(ixy, tmp_path, arguments, words):
    """One line, and nothing is lost."""
    before = (tmp_path / "in.pcap").read_bytes()
    assert words in ixy("replay", *(word.format(tmp_path.name) for word in arguments)).complaint()
    assert (tmp_path / "in.pcap").read_bytes() == before


def test_captured_and_replayed_by_pipes(ixy, tmp_path):
    """Two devices and two queues into one compressed file, in order of time, and from there on by a filter."""
    write_pcap(tmp_path / "a.pcap", frames(50))
    write_pcap(tmp_path / "b.pcap", frames(50, seed=7))
    ended = ixy(
        "capture",
        "sim:a,rx_pcap=a.pcap",
        "sim:b,rx_pcap=b.pcap",
        "both.pcapng.gz",
        "--queues",
        "2",
        "-c",
        "100",
        "--json",
    )
    assert ended.code == 0, ended.errors
    assert ended.summary["captured"] == ended.summary["matched"] == 100
    ended = ixy("replay", "both.pcapng.gz", OUT, "--topspeed", "--json")
    assert ended.code == 0, ended.errors
    assert sorted(read_pcap(tmp_path / "out.pcap")) == sorted(frames(50) + frames(50, seed=7))


@pytest.mark.parametrize("name", ["out.pcapng", "out.pcap"])
def test_a_wire_records_what_its_name_says(ixy, tmp_path, recorded, name):
    """What the card sends is in a file of that format, which is read again."""
    assert ixy("replay", "in.pcap", f"sim:a,tx_pcap={name},clock=virtual").code == 0
    assert (tmp_path / name).read_bytes()[:4] == (b"\n\r\r\n" if name == "out.pcapng" else b"\x4d\x3c\xb2\xa1")
    ended = ixy("replay", name, "sim:b,tx_pcap=again.pcap,clock=virtual")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "again.pcap") == [packet.ljust(60, b"\0") for packet in recorded]
    assert gaps(tmp_path / "again.pcap") == MOMENTS


def test_a_wire_does_not_compress(ixy, recorded):
    """One line, instead of a file that nobody can read."""
    assert recorded
    assert "not compressed here" in ixy("replay", "in.pcap", "sim:a,tx_pcap=out.pcap.gz,clock=virtual").complaint()


@pytest.mark.once
def test_what_comes_through_a_pipe_is_sent_as_it_comes(tmp_path):
    """The next packet is written when the report has it that the one before was sent."""
    packets = [(10**9 * n, n.to_bytes(60, "big")) for n in range(2)]
    record(tmp_path / "in.pcap", packets)
    content = (tmp_path / "in.pcap").read_bytes()
    command = [*COMMAND, "replay", "-", f"sim:a,tx_pcap={tmp_path / 'out.pcap'}", "--topspeed", "--json"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(content[:100])
        assert any(json.loads(line)["sent"] == 1 for line in process.stdout)
        process.stdin.write(content[100:])
        process.stdin.close()
        *_, summary = process.stdout
    assert (process.returncode, json.loads(summary)["sent"]) == (0, 2)
    assert read_pcap(tmp_path / "out.pcap") == [frame for _, frame in packets]


@pytest.mark.once
def test_a_pipe_that_is_sent_twice(ixy, tmp_path, recorded):
    """It is read to its end first."""
    with (tmp_path / "in.pcap").open("rb") as file:
        reader, writer = os.pipe()
        os.write(writer, file.read())
    os.close(writer)
    ended = ixy("replay", "-", OUT, "--topspeed", "--loop", "2", preexec_fn=lambda: os.dup2(reader, 0))
    os.close(reader)
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [packet.ljust(60, b"\0") for packet in recorded] * 2


@pytest.mark.once
def test_times_that_cannot_be_told(ixy, tmp_path):
    """All packets are sent, and then it is said; at a rate of its own nobody asks for the times."""

    def block(kind, body):
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 0))
    for stamp in (5, 1 << 62, 1 << 61, 6):
        content += block(6, struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, 60, 60) + bytes(60))
    (tmp_path / "in.pcapng").write_bytes(content)
    for options, sent, beyond in (
        (["--loop", "2"], 8, 2),
        (["--limit", "3"], 3, 2),
        (["--limit", "2"], 2, 1),
        (["--seconds", "0.5"], 1, 2),  # of which none is sent, but all were to be
    ):
        ended = ixy("replay", "in.pcapng", OUT, "--max-gap", "1", *options)
        *_, last = ended.errors.splitlines()
        said = f"ixy: in.pcapng: times beyond the years 1677 to 2262, taken for the nearest of these: {beyond}"
        assert (ended.code, last) == (2, said)
        assert gaps(tmp_path / "out.pcap") == [0, *4 * [SECOND], *3 * [2 * SECOND]][:sent]
    assert ixy("replay", "in.pcapng", OUT, "--limit", "1").code == 0
    assert ixy("replay", "in.pcapng", OUT, "--pps", "10").code == 0
