"""Jumbo frames by the commands: `--mtu 9000` takes them whole, both ways."""

from __future__ import annotations

from random import Random

import pytest
from captures import read_pcap, write_pcap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from ixy.cli import run

SIZES = [60, 1514, 1515, 2048, 2049, 4097, 8192, 9000, 9014]
JUMBO = ("--mtu", "9000")
INTERPRETED = {"IXY_JIT": "0"}  # where another test, here or in test_cli_linux.py, has the same kernels compiled


def jumbo_frames() -> list[bytes]:
    """Fewer than a ring has room for, however the threads are scheduled."""
    chance = Random(5)
    return [chance.randbytes(12) + b"\x88\xb5" + chance.randbytes(size - 14) for size in SIZES * 4]


def received(frames: list[bytes]) -> list[bytes]:
    """With addresses that a card takes for no group's."""
    return [bytes([data[0] & 0xFE]) + data[1:] for data in frames]


@pytest.mark.once
def test_forward_passes_frames_on_whole(ixy, tmp_path):
    frames = received(jumbo_frames())
    write_pcap(tmp_path / "in.pcap", frames)
    count = ("--count", str(len(frames)))
    ended = ixy(
        "forward", "--one-way", *JUMBO, "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", *count, variables=INTERPRETED
    )
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == frames


@pytest.mark.once
def test_echo_sends_whole_frames_back(ixy, tmp_path):
    frames = received(jumbo_frames())
    write_pcap(tmp_path / "in.pcap", frames)
    count = ("--count", str(len(frames)))
    ended = ixy("echo", *JUMBO, "sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap", *count, variables=INTERPRETED)
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [data[6:12] + data[:6] + data[12:] for data in frames]


@pytest.mark.once
def test_capture_and_dump_write_whole_frames(ixy, tmp_path):
    """Without the option they are errors that the card counts; a filter sees how long they are."""
    frames = received(jumbo_frames())
    write_pcap(tmp_path / "in.pcap", frames)
    long = [data for data in frames if len(data) >= 2049]
    count, device = ("--count", str(len(long))), "sim:a,rx_pcap=in.pcap"
    for command in (
        ("capture", device, "out.pcap", "greater 2049"),
        ("dump", "-w", "out.pcap", device, "greater 2049"),
    ):
        ended = ixy(*command, *JUMBO, *count, variables=INTERPRETED)
        assert ended.code == 0, ended.errors
        assert read_pcap(tmp_path / "out.pcap") == long
        (tmp_path / "out.pcap").unlink()


@pytest.mark.once
def test_dump_prints_whole_frames(ixy, tmp_path):
    """Their bytes, and what another program sees in them."""
    frames = received(jumbo_frames())[4 : len(SIZES)]
    write_pcap(tmp_path / "in.pcap", frames)
    count = ("--count", str(len(frames)))
    ended = ixy("dump", "--decode", "-xx", *JUMBO, "sim:a,rx_pcap=in.pcap", *count, variables=INTERPRETED)
    assert ended.code == 0, ended.errors
    lines = ended.output.splitlines()
    printed = "".join(line.partition(":")[2] for line in lines if line.startswith("\t0x"))
    assert bytes.fromhex(printed) == b"".join(frames)
    others = [line for line in lines if not line.startswith("\t0x")]
    assert len(others) == 2 * len(frames)
    assert all(f" {len(data)} " in line for data, line in zip(frames, others[1::2], strict=True))


def test_replay_sends_whole_frames(ixy, tmp_path):
    """As they were, and with a tag more; what is longer still is left out, and that is said."""
    frames = [*jumbo_frames(), bytes(9023)]
    write_pcap(tmp_path / "in.pcap", frames)
    ended = ixy("replay", *JUMBO, "in.pcap", "sim:a,tx_pcap=out.pcap", "--topspeed", "--json", variables=INTERPRETED)
    assert (ended.code, ended.summary["sent"], ended.summary["left_out"]) == (0, len(frames) - 1, 1)
    assert read_pcap(tmp_path / "out.pcap") == frames[:-1]
    ended = ixy("replay", *JUMBO, "in.pcap", "sim:a,tx_pcap=out.pcap", "--topspeed", "--vlan", "5")
    assert ended.code == 0, ended.errors
    tagged = [data[:12] + bytes.fromhex("81000005") + data[12:] for data in frames[:-1]]
    assert read_pcap(tmp_path / "out.pcap") == tagged


def udp(size: int, number: int) -> bytes:
    """What the generator sends, its number in the end, as Scapy builds it."""
    payload = (b"ixy" * size)[: size - 42 - 4] + number.to_bytes(4, "big")
    ends = {"src": "02:69:78:79:00:01", "dst": "02:69:78:79:00:02"}
    return bytes(
        Ether(**ends) / IP(src="10.0.0.1", dst="10.0.0.2", id=0) / UDP(sport=42, dport=1337, chksum=0) / payload
    )


def test_generate_sends_whole_frames(ixy, tmp_path):
    """Of sizes on both sides of a buffer's; buffers that held another frame are written anew."""
    count = ("--count", "300", "--ring", "64")
    ended = ixy("generate", *JUMBO, "sim:a,tx_pcap=out.pcap", "--size", "60,2048,2049,4096,9014", *count)
    assert ended.code == 0, ended.errors
    sizes = [60, 2048, 2049, 4096, 9014] * 60
    assert read_pcap(tmp_path / "out.pcap") == [udp(size, number) for number, size in enumerate(sizes)]


@pytest.mark.once
def test_templates_are_sent_whole(ixy, tmp_path):
    """What is longer than the MTU allows is left out, which is said."""
    frames = [data for data in jumbo_frames()[: len(SIZES)] if len(data) != 60]
    write_pcap(tmp_path / "in.pcap", [*frames, bytes(9023)])
    arguments = ("sim:a,tx_pcap=out.pcap", "--template", "in.pcap", "--no-sequence", "--count", str(2 * len(frames)))
    ended = ixy("generate", *JUMBO, *arguments, variables=INTERPRETED)
    assert (ended.code, read_pcap(tmp_path / "out.pcap")) == (0, 2 * frames)
    assert ended.errors == "ixy: in.pcap: left out frames longer than the MTU allows, 9022 bytes: 1\n"


STREAMS = """
streams:
  - size: 9014,61
    flows: 50
    packet:
      ipv4: {src: {random: 10.0.0.0/8}}
      udp: {sport: {random: 1024-65535}}
  - size: 3001
    packet:
      ipv6: {}
      tcp: {dport: {count: [80, 443]}}
"""


@pytest.mark.once
def test_streams_of_long_frames_have_right_checksums(ixy, tmp_path):
    """Fields and numbers change in them as in others; Scapy makes the same checksums."""
    (tmp_path / "streams.yaml").write_text(STREAMS)
    arguments = ("sim:a,tx_pcap=out.pcap", "--streams", "streams.yaml", "--count", "40")
    ended = ixy("generate", *JUMBO, *arguments, variables=INTERPRETED)
    assert ended.code == 0, ended.errors
    packets = [Ether(data) for data in read_pcap(tmp_path / "out.pcap")]
    assert [len(packet) for packet in packets] == [9014, 3001, 61, 3001] * 10
    assert [int.from_bytes(bytes(packet)[-4:], "big") for packet in packets] == list(range(40))
    assert len({(packet[IP].src, packet[UDP].sport) for packet in packets[::2]}) > 10
    for packet in packets:
        again = packet.copy()
        for layer in (IP, UDP, TCP):
            if layer in again:
                del again[layer].chksum
        assert bytes(again) == bytes(packet)


def test_test_packets_are_judged_whole(ixy):
    """Of any length; those of which the cable inverts a bit are found, wherever that is."""
    cable = "sim:a,cable=b,wire=10G,corrupt=0.2,seed=1,clock=virtual", "sim:b,clock=virtual"
    arguments = ("--size", "60,2048,2049,9014", "--rate", "100kpps", "--count", "200", "--json")
    ended = ixy("test", *cable, *JUMBO, *arguments)
    summary = ended.summary
    (there,) = (way for way in summary["cables"] if way["from"] == "sim:a")
    assert 20 < there["corrupted"] < 60
    counted = {name: summary[name] for name in ("sent", "received", "lost", "reordered", "corrupted")}
    assert counted == {"sent": 200, "received": 200, "lost": 0, "reordered": 0, "corrupted": there["corrupted"]}
    assert sum(summary["others"].values()) == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "sim:a", *JUMBO, "--size", "9015"), "--size 9015: 60 to 9014 are possible"),
        (("test", "sim:a", "sim:b", "--size", "1515"), "--size 1515: 60 to 1514 are possible"),
        (("echo", "sim:a", "--mtu", "9711"), " to 9710 are possible"),
        (("echo", "sim:a", "--mtu", "67"), "--mtu 67"),
    ],
)
def test_what_cannot_be(capsys, arguments, words):
    """One line says what can."""
    assert run(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
