"""`ixy dump`: packets as lines, and `ixy forward --filter`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest
from captures import read_pcap, write_pcap
from messages import complaints
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

HEAD = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
DNS = bytes(HEAD / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / (b"question" * 4))
WEB = bytes(HEAD / IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=1000, dport=8000, seq=7) / (b"request" * 4))
DNS_LINE = "IP 10.0.0.1.1000 > 10.0.0.2.53: UDP, length 32"
WEB_LINE = "IP 10.0.0.2.1000 > 10.0.0.1.8000: Flags [S], seq 7:35, win 8192, length 28"
COUNTS = "{} packets captured\n{} packets received by filter\n0 packets dropped by the device\n"


@pytest.fixture(autouse=True)
def _captured(tmp_path):
    write_pcap(tmp_path / "in.pcap", [DNS, WEB, WEB, DNS, WEB])


def test_a_file(ixy):
    ended = ixy("dump", "-r", "in.pcap", "-nt")
    assert (ended.code, ended.output.splitlines()) == (0, [DNS_LINE, WEB_LINE, WEB_LINE, DNS_LINE, WEB_LINE])
    assert ended.errors == "reading from file in.pcap, link-type EN10MB (Ethernet)\n"


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="there is no tcpdump: apt-get install tcpdump")
def test_the_same_options_as_tcpdump(ixy, tmp_path):
    """In the same words, several in one: the command understands them as tcpdump does."""
    options = ("-nevvXX", "-tttt", "-c", "2", "-r", "in.pcap", "tcp", "port", "8000")
    theirs = subprocess.run(["tcpdump", *options], cwd=tmp_path, capture_output=True, check=True)
    assert ixy("dump", *options).bytes == theirs.stdout


def test_a_device(ixy):
    """Some packets of one, and on standard error, as tcpdump has it, what was seen."""
    ended = ixy("dump", "sim:a,rx_pcap=in.pcap", "-t", "-c", "2", "udp port 53")
    assert (ended.code, ended.output.splitlines()) == (0, [DNS_LINE, DNS_LINE])
    said = ended.errors.partition("\n")
    assert said[0] == "listening on sim:a,rx_pcap=in.pcap, link-type EN10MB (Ethernet), snapshot length 262144 bytes"
    assert said[2] == COUNTS.format(2, 2)


def test_into_a_file(ixy, tmp_path):
    ended = ixy("dump", "-r", "in.pcap", "-w", "out.pcap", "-s", "60", "tcp")
    assert (ended.code, ended.output) == (0, "")
    assert read_pcap(tmp_path / "out.pcap") == [WEB[:60]] * 3


def test_objects(ixy):
    """With --json an object a packet: when, how long, and each header by its fields."""
    ended = ixy("dump", "-r", "in.pcap", "--json", "-x", "tcp")
    first, *rest = map(json.loads, ended.output.splitlines())
    assert len(rest) == 2
    assert (first["number"], first["time_ns"], first["length"]) == (1, 1_000_000_001_000_000_000, len(WEB))
    assert first["ipv4"]["src"] == "10.0.0.2"
    assert (first["tcp"]["dport"], first["tcp"]["seq"]) == (8000, 7)
    assert (first["line"], bytes.fromhex(first["bytes"])) == (WEB_LINE, WEB)
    assert "udp" not in first


def test_decoded(ixy):
    """What tcpdump would not print in a line Scapy says below it."""
    first, second, *_ = ixy("dump", "-r", "in.pcap", "-t", "--decode").output.splitlines()
    assert first == DNS_LINE
    assert second.startswith("\t")
    assert "DNS" in second


def test_ctrl_c(start):
    """A dump without a limit ends well."""
    process = start("dump", "sim:a,gen=60,rate=1000", "-l")
    assert process.stdout is not None
    assert "UDP" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "received by filter" in errors


def test_nobody_reads(start, tmp_path):
    """`| head -1` ends it without a word."""
    write_pcap(tmp_path / "long.pcap", [DNS] * 20_000)
    reader, writer = os.pipe()
    process = start("dump", "-r", "long.pcap", stdout=writer)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaints(errors) == "reading from file long.pcap, link-type EN10MB (Ethernet)\n"


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-r", "in.pcap", "udp", "prt"], "can't parse filter expression: syntax error"),
        (["sim:a", "ip["], "filter 'ip['"),
        ([], "name a device, or a file with -r FILE"),
        (["-r", "none.pcap"], "none.pcap: No such file"),
        (["-r", "in.pcap", "-w", "in.pcap"], "in.pcap: in use: it is being read"),
        (["-r", "in.pcap", "-w", "no/out.pcap"], "no/out.pcap: No such file"),
        (["-r", "in.pcap", "-s", "262145"], "--snaplen 262145: 0 to"),
        (["-r", "in.pcap", "-w", "out.pcap", "--json"], "leave out --json and --decode"),
        (["udp", "port", "53"], "udp: no device address"),
    ],
)
def test_bad_input(ixy, arguments, reason):
    ended = ixy("dump", *arguments)
    *_, last = ended.errors.splitlines()
    assert (ended.code, "Traceback" in ended.errors) == (2, False)
    assert last.startswith("ixy: ")
    assert reason in last


def test_a_file_that_ends_within_a_packet(ixy, tmp_path):
    """What is before that is printed."""
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole[:-1])
    ended = ixy("dump", "-r", "in.pcap", "-t")
    assert ended.code == 2
    assert ended.output.splitlines() == [DNS_LINE, WEB_LINE, WEB_LINE, DNS_LINE]
    assert ended.errors.splitlines()[-1].startswith("ixy: in.pcap: packet 5 at byte ")


@pytest.mark.parametrize(("expression", "kept"), [("udp port 53", [DNS] * 2), ("not udp", [WEB] * 3)])
def test_forward_what_a_filter_accepts(ixy, tmp_path, expression, kept):
    ends = "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap"
    ended = ixy("forward", "--one-way", *ends, "--count", "5", "--filter", expression, "--json")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == kept
    found = {name: ended.summary[name] for name in ("received", "forwarded", "dropped", "filtered")}
    assert found == {"received": 5, "forwarded": len(kept), "dropped": 0, "filtered": 5 - len(kept)}


@pytest.mark.once
def test_forward_with_a_malformed_filter(ixy):
    assert "syntax error" in ixy("forward", "sim:a", "sim:b", "--filter", "udp prt").complaint()
