"""`ixy forward` and `ixy echo`: from file to file, and stopped by signals."""

from __future__ import annotations

import json
import signal
import socket
from itertools import islice

import pytest
from captures import frames, read_pcap, write_pcap
from messages import COMPILING, complaints, report
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

# Fewer packets than a ring has descriptors, so that none can be dropped however the threads are scheduled.
PACKETS = 200


def test_files_hold_the_same_packets(ixy, tmp_path):
    """A capture replayed into one card and recorded behind the other: the same packets in the same order."""
    write_pcap(tmp_path / "in.pcap", frames(PACKETS))
    ended = ixy("forward", "--one-way", "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == frames(PACKETS)
    assert f"received {PACKETS}, forwarded {PACKETS}, dropped 0" in ended.output


def test_touch_raises_byte_48(ixy, tmp_path):
    """With `--touch`, byte 48 of each packet is one higher, modulo 256, and nothing else differs."""
    packets = frames(PACKETS)
    write_pcap(tmp_path / "in.pcap", packets)
    ended = ixy("forward", "--touch", "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    touched = [packet[:48] + bytes([(packet[48] + 1) % 256]) + packet[49:] for packet in packets]
    assert read_pcap(tmp_path / "out.pcap") == touched


def test_both_ways(ixy, tmp_path):
    """Each card gets a file and records what it sends: the files have changed sides."""
    one, other = frames(PACKETS), frames(PACKETS // 2, seed=100)
    write_pcap(tmp_path / "one.pcap", one)
    write_pcap(tmp_path / "other.pcap", other)
    addresses = ("sim:a,rx_pcap=one.pcap,tx_pcap=a.pcap", "sim:b,rx_pcap=other.pcap,tx_pcap=b.pcap")
    ended = ixy("forward", *addresses, "--count", str(PACKETS + PACKETS // 2))
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "b.pcap") == one
    assert read_pcap(tmp_path / "a.pcap") == other


@pytest.mark.parametrize("count", [1, 77])
def test_count_is_exact(ixy, tmp_path, count):
    """`--count` forwards so many packets, not a batch more, along both paths together."""
    write_pcap(tmp_path / "in.pcap", frames(PACKETS))
    ended = ixy("forward", "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", "--count", str(count))
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == frames(count)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("limited", [False, True])
def test_a_signal_ends_the_run_cleanly(start, tmp_path, number, limited):
    """Ctrl-C or SIGTERM after the first report: a summary follows, and the file holds just what the card sent.

    It is the normal end of a run without limit (exit code 0); a limited one says that it was cut short.
    """
    limit = ["--seconds", "3600"] if limited else []
    addresses = ("sim:a,gen=60,rate=1000", "sim:b,tx_pcap=out.pcap")
    process = start("forward", "--one-way", *addresses, "--json", *limit)
    rate = json.loads(process.stdout.readline())
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert complaints(errors) == ""
    assert process.returncode == (128 + number if limited else 0)
    summary = json.loads(output.splitlines()[-1])
    assert (rate["type"], summary["type"]) == ("rate", "summary")
    assert [device["device"] for device in rate["devices"]] == ["sim:a", "sim:b"]
    recorded = read_pcap(tmp_path / "out.pcap")
    assert len(recorded) == summary["forwarded"] == summary["devices"][1]["tx_packets"] > 0
    # The generator's numbers: nothing is missing in between.
    assert [int.from_bytes(packet[-4:], "big") for packet in recorded] == list(range(len(recorded)))


def test_a_line_per_device_and_second(start):
    """As text: a line for each device with packets a second, here 1000, and Mbit/s in and out."""
    process = start("forward", "sim:a,gen=60,rate=1000", "sim:b,sink=a")
    lines = list(islice(report(process.stdout), 2))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert [line.split()[0] for line in lines] == ["sim:a", "sim:b"]
    assert all(line.count("kpps") == line.count("Mbit/s") == 2 for line in lines)
    assert "sim:a → sim:b: sent " in output
    assert "lost 0, duplicated 0, reordered 0, wrong 0" in output


def test_output_that_nobody_reads(start):
    """The reader of the report goes away: the command ends without a word."""
    process = start("forward", "sim:a,gen=60,rate=1000", "sim:b,sink=a")
    next(report(process.stdout))
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert complaints(process.stderr.read()) == ""
    process.stderr.close()


def test_link_down_is_said_and_no_error(ixy):
    """A card with nothing plugged in: one line says that its link is down, and the run goes on."""
    ended = ixy("echo", "sim:a", "--link-timeout", "0", "--seconds", "0.1")
    assert ended.code == 0
    assert ended.errors == "ixy: sim:a: link is down\n"


def test_a_link_that_changes_is_said(start, tmp_path):
    """The other end of a cable comes and goes while a command runs: a line for each, and the run goes on."""
    path = str(tmp_path / "cable")
    process = start("echo", f"sim:a,cable=unix:{path}", "--link-timeout", "0", "--seconds", "100")
    next(report(process.stdout))  # it has begun
    said = (line for line in process.stderr if line != COMPILING)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        assert [next(said), next(said)] == ["ixy: sim:a: link is down\n", "ixy: sim:a: link is up\n"]
    assert next(said) == "ixy: sim:a: link is down\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_echo_swaps_addresses(ixy, tmp_path):
    """`ixy echo` sends each packet back with its MAC addresses swapped and nothing else changed."""
    packets = frames(PACKETS)
    write_pcap(tmp_path / "in.pcap", packets)
    ended = ixy("echo", "sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap", "--count", str(PACKETS))
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == [packet[6:12] + packet[:6] + packet[12:] for packet in packets]


def test_echo_to_a_generator(ixy):
    """A card's own generator and sink: all packets come back with their addresses swapped, and none is wrong."""
    ended = ixy("echo", "sim:a,gen=60,count=1000", "--count", "1000")
    assert ended.code == 0, ended.errors
    assert "sim:a → sim:a: sent 1000, received 1000, lost 0, duplicated 0, reordered 0, wrong 0" in ended.output


def test_rules(ixy, tmp_path):
    """What a rule drops does not come out; one that cannot be followed is refused before a device is opened.

    The first packet may come before the rule; where they have times, the others come once it is taken.
    """
    packets = [bytes(Ether() / IP(dst=f"10.0.0.{n % 2}") / UDP(dport=53)).ljust(60, b"\0") for n in range(3)]
    write_pcap(tmp_path / "in.pcap", packets)
    addresses = ("sim:a,rx_pcap=in.pcap,timing=original", "sim:b,tx_pcap=out.pcap")
    ended = ixy("forward", "--one-way", *addresses, "--count", "2", "--rule", "udp dst 10.0.0.1 drop")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == packets[::2]
    for rule, said in (
        ("udp to queue 2", "rule 'udp to queue 2': 'to' is not understood"),
        ("udp queue 2", "--rule: queue 2: 0 to 0 are there; --queues 3 has it"),
    ):
        ended = ixy("forward", "sim:nowhere,rx_pcap=none.pcap", "sim:b", "--rule", rule)
        assert (ended.code, ended.errors.count("\n")) == (2, 1)
        assert said in ended.errors
