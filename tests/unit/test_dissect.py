"""Packets as lines of text: tcpdump itself says what they are to be."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import Any

import pytest
from printed_traffic import Traffic, pcap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ixy.dissect.line import Style
from ixy.dissect.printer import Layout, Printer

pytestmark = pytest.mark.once

START = 1_700_000_000_123_456_789  # ns since 1970: 22:13:20 UTC
OPTIONS = [
    ("-n", {}, {}),
    ("-ne", {"link": True}, {}),
    ("-nv", {"verbose": 1}, {}),
    ("-nvv", {"verbose": 2}, {}),
    ("-nvvve", {"verbose": 3, "link": True}, {}),
    ("-nq", {"quiet": True}, {}),
    ("-nqe", {"quiet": True, "link": True}, {}),
    ("-nSx", {"absolute": True}, {"hex": 1}),
    ("-nxx", {}, {"hex": 2}),
    ("-nX", {}, {"hex_and_text": 1}),
    ("-nXX", {}, {"hex_and_text": 2}),
    ("-nA", {}, {"text": 1}),
    ("-nAA", {}, {"text": 2}),
    ("-nt", {}, {"stamp": 1}),
    ("-ntt", {}, {"stamp": 2}),
    ("-nttt", {}, {"stamp": 3}),
    ("-ntttt", {}, {"stamp": 4}),
    ("-nttttt", {}, {"stamp": 5}),
    ("-n# --nano", {}, {"numbers": True, "nanoseconds": True}),
]


@pytest.fixture(scope="module")
def packets() -> list[tuple[int, bytes, int]]:
    return Traffic(seed=7).packets(1500)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch):
    """A place with a time of its own, in summer another one."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="there is no tcpdump: apt-get install tcpdump")
@pytest.mark.parametrize(("options", "style", "layout"), OPTIONS, ids=[each[0] for each in OPTIONS])
def test_word_for_word(packets, options, style: dict[str, Any], layout: dict[str, Any]):
    """Header fields that are wrong, packets that are cut, options of all kinds: each line is tcpdump's."""
    command = ["tcpdump", *options.split(), "-r", "-"]
    theirs = subprocess.run(command, input=pcap(packets), capture_output=True, check=True).stdout.decode("latin1")
    printer = Printer(Style(**style), Layout(**layout))
    for packet in packets:
        ours = printer.text(*packet) + "\n"
        assert theirs[: len(ours)] == ours, packet[1].hex()
        theirs = theirs[len(ours) :]
    assert theirs == ""


def printed(packet: Packet, *, printer: Printer | None = None, cut: int | None = None, **style: Any) -> str:
    data = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)
    printer = printer or Printer(Style(**style), Layout(stamp=1))
    return printer.text(START, data[:cut], len(data))


def test_a_conversation_counts_from_its_beginning():
    """The first packet with an acknowledgement is printed as it is; from then on both sides count from there."""
    printer = Printer(layout=Layout(stamp=1))

    def said(src: str, sport: int, flags: str, seq: int, ack: int, data: bytes = b"") -> str:
        dst, dport = ("10.0.0.2", 9) if src == "10.0.0.1" else ("10.0.0.1", 4000)
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)
        return printed(IP(src=src, dst=dst) / tcp / data, printer=printer).partition("Flags ")[2]

    assert said("10.0.0.1", 4000, "S", 1000, 0) == "[S], seq 1000, win 8192, length 0"
    assert said("10.0.0.2", 9, "SA", 7000, 1001) == "[S.], seq 7000, ack 1001, win 8192, length 0"
    assert said("10.0.0.1", 4000, "A", 1001, 7001) == "[.], ack 1, win 8192, length 0"
    assert said("10.0.0.1", 4000, "PA", 1001, 7001, b"12345") == "[P.], seq 1:6, ack 1, win 8192, length 5"
    assert said("10.0.0.2", 9, "A", 7001, 1006) == "[.], ack 6, win 8192, length 0"


def test_without_tcpdump():
    """What tcpdump 4.99.3 prints, written down."""
    udp = IP(src="10.0.0.1", dst="10.0.0.2", id=7) / UDP(sport=1000, dport=2000) / b"12345"
    assert printed(udp) == "IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 5"
    assert printed(udp, cut=40) == "IP 10.0.0.1.1000 > 10.0.0.2.2000:  [|udp]"
    assert printed(udp, verbose=2) == (
        "IP (tos 0x0, ttl 64, id 7, offset 0, flags [none], proto UDP (17), length 33)\n"
        "    10.0.0.1.1000 > 10.0.0.2.2000: [udp sum ok] UDP, length 5"
    )
    dns = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / b"12345"
    assert printed(dns) == "IP 10.0.0.1.1000 > 10.0.0.2.53: UDP, length 5"  # what UDP carries is not looked at


def test_times_beyond_2038():
    """The field of a capture file reaches to 2106."""
    printer = Printer(layout=Layout(stamp=4))
    assert printer.text(3_000_000_000_000_001_000, b"\0" * 60, 60).startswith("2065-01-24 06:20:00.000001 ")


@pytest.mark.parametrize(
    ("size", "length", "said"), [(0, 0, "caplen==0, len==0"), (0, 60, "caplen==0"), (60, 50, "len(50) < caplen(60)")]
)
def test_records_that_cannot_be(size, length, said):
    assert Printer().text(START, bytes(size), length) == f"[Invalid header: {said}]"
