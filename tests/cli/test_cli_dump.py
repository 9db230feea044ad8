"""`ixy dump`: packets as lines, and `ixy forward --filter`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from pathlib import Path

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


TSHARK = shutil.which("tshark")
DECODERS = [
    pytest.param("tshark", marks=pytest.mark.skipif(not TSHARK, reason="there is no tshark: apt-get install tshark")),
    "scapy",
]


def decoding_by(tmp_path, name):
    """Variables by which a command finds this decoder."""
    (tmp_path / "programs").mkdir()
    if name == "tshark":
        (tmp_path / "programs" / "tshark").symlink_to(TSHARK)
    return {"PATH": str(tmp_path / "programs")}


@pytest.mark.once
@pytest.mark.parametrize("name", DECODERS)
def test_decoded(ixy, tmp_path, name):
    """What tcpdump would not print is said below each packet's line: in a line, and with -v in many."""
    variables = decoding_by(tmp_path, name)
    lines = ixy("dump", "-r", "in.pcap", "-t", "--decode", variables=variables).output.splitlines()
    assert lines[::2] == [DNS_LINE, WEB_LINE, WEB_LINE, DNS_LINE, WEB_LINE]
    assert ["DNS" in line for line in lines[1::2]] == [True, False, False, True, False]
    assert all(line.startswith("\t") for line in lines[1::2])
    ended = ixy("dump", "-r", "in.pcap", "-tq", "--decode", "-v", variables=variables)
    assert ended.code == 0, ended.errors
    below = [part.splitlines()[1:] for part in ended.output.split("IP (")[1:]]
    for part, port in zip(below, (53, 8000, 8000, 53, 8000), strict=True):
        assert len(part) > 20
        assert sum("10.0.0.1" in line for line in part) >= 1
        assert any(str(port) in line or "domain" in line for line in part)


@pytest.mark.once
@pytest.mark.skipif(not TSHARK, reason="there is no tshark: apt-get install tshark")
def test_one_decoder_decodes_packets_as_they_come(start, tmp_path):
    """A packet's lines are there before the next packet is; its number and its time are what tshark says."""
    content = (tmp_path / "in.pcap").read_bytes()
    process = start("dump", "-r", "-", "-l", "-t", "--decode", variables=decoding_by(tmp_path, "tshark"), stdin=-1)
    at, place = 0, 24
    for line in (DNS_LINE, WEB_LINE, WEB_LINE):
        size = place + 16 + int.from_bytes(content[place + 8 : place + 12], "little")
        process.stdin.buffer.write(content[at:size])
        process.stdin.flush()
        at = place = size
        assert process.stdout.readline().rstrip() == line
        assert "10.0.0." in process.stdout.readline()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, ""), errors


@pytest.mark.once
def test_a_decoder_that_dies_is_told(ixy, tmp_path):
    """One that decodes two packets: their lines are there, and one more says why there are not more."""
    variables = decoding_by(tmp_path, "none")
    dying = tmp_path / "programs" / "tshark"
    sizes = 24 + 16 + len(DNS), 16 + len(WEB)
    reading = "\n".join(f"{shutil.which('head')} -c {size} >/dev/null; echo line" for size in sizes)
    dying.write_text(f"#!/bin/sh\n{reading}\necho tshark: no more >&2\nexit 3\n")
    dying.chmod(0o755)
    ended = ixy("dump", "-r", "in.pcap", "-t", "--decode", variables=variables)
    assert (ended.code, ended.output.splitlines()) == (2, [DNS_LINE, "\tline", WEB_LINE, "\tline"])
    assert ended.errors.splitlines()[-1] == "ixy: --decode: tshark has ended by exit code 3: tshark: no more"


@pytest.mark.once
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
def test_a_decoder_has_no_privileges(ixy, tmp_path):
    """It is nobody and has no capabilities, and has ended by itself when the command has, which could not kill it."""
    variables = decoding_by(tmp_path, "none")
    cat, grep = shutil.which("cat"), shutil.which("grep")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o777)
        decoder = tmp_path / "programs" / "tshark"
        decoder.write_text(
            f"#!/bin/sh\necho $({grep} -E '^(Uid|Gid|Groups|CapPrm|CapEff|NoNewPrivs)' /proc/self/status)\n"
            f"echo line; echo line; echo line; echo line\n{cat} >{place}/read; echo ended >{place}/ended\n"
        )
        decoder.chmod(0o755)
        ended = ixy("dump", "-r", "in.pcap", "-t", "--decode", "--sandbox", variables=variables)
        assert ended.code == 0, ended.errors
        nobody, none = "65534 65534 65534 65534", "0000000000000000"
        said = f"Uid: {nobody} Gid: {nobody} Groups: CapPrm: {none} CapEff: {none} NoNewPrivs: 1"
        assert ended.output.splitlines()[1] == f"\t{said}"
        assert (place / "ended").read_text() == "ended\n"
        assert (place / "read").read_bytes()[24 + 16 :].startswith(DNS)


@pytest.mark.once
def test_a_pipe(start, tmp_path):
    """Each packet's line comes when the packet came, of a capture that does not end; -c ends it."""
    content = (tmp_path / "in.pcap").read_bytes()
    process = start("dump", "-r", "-", "-t", "-c", "2", stdin=-1)
    first = 24 + 16 + len(DNS)
    process.stdin.buffer.write(content[: first + 20])
    process.stdin.flush()
    assert process.stdout.readline().rstrip() == DNS_LINE
    process.stdin.buffer.write(content[first + 20 : -1])
    process.stdin.flush()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()) == (0, [WEB_LINE]), errors


@pytest.mark.once
def test_times_that_a_file_cannot_tell(ixy, tmp_path):
    """All packets are printed or written, those of times that cannot be told with the nearest; how many, is said in one
    line."""

    def block(kind, body):
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 0))
    for stamp in (-5, 5, 1 << 52, 1 << 62):  # the third is in 2112, and the last in 148108
        stamp &= (1 << 64) - 1
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, 60, 60)
        content += block(6, head + WEB[:60])
    (tmp_path / "in.pcapng").write_bytes(content)
    ended = ixy("dump", "-r", "in.pcapng", "-tttt", variables={"TZ": "UTC"})
    what = "in.pcapng: times beyond the years 1677 to 2262, told as the nearest of these: 1"
    assert (ended.code, ended.errors.splitlines()[-1]) == (2, f"ixy: {what}")
    assert ended.output.splitlines()[-1].startswith("2262-")
    ended = ixy("dump", "-r", "in.pcapng", "-tttt", "-c", "3", variables={"TZ": "UTC"})
    assert ended.code == 0, ended.errors
    years = [line.split("-")[0] for line in ended.output.splitlines()]
    assert years == ["1969", "1970", "2112"]
    ended = ixy("dump", "-r", "in.pcapng", "-w", "out.pcap", "-c", "3")
    what = "out.pcap: times before 1970 or beyond 2106, written as the nearest that there are: 2"
    assert (ended.code, ended.errors.splitlines()[-1]) == (2, f"ixy: {what}")
    assert read_pcap(tmp_path / "out.pcap") == [WEB[:60]] * 3


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
