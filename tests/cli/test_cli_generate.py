"""`ixy generate`: sizes, numbers, rates and templates, seen in a file of what the card sent."""

from __future__ import annotations

import socket

import dpkt
import pytest
from captures import frames, read_pcap, write_pcap

from ixy.apps.templates import from_scapy


def test_numbered_udp_packets(ixy, tmp_path):
    """1000 packets, more than the ring holds: whole UDP packets whose last 4 bytes count from 0."""
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", "--size", "128", "--count", "1000", "--json")
    assert ended.code == 0, ended.errors
    packets = read_pcap(tmp_path / "out.pcap")
    assert [int.from_bytes(packet[-4:], "big") for packet in packets] == list(range(1000))
    assert {packet[:-4] for packet in packets} == {packets[0][:-4]}
    assert len(packets[0]) == 128
    datagram = dpkt.ethernet.Ethernet(packets[0]).data
    assert dpkt.in_cksum(bytes(datagram)[:20]) == 0
    assert datagram.data.ulen == 128 - 14 - 20
    assert ended.summary["generated"] == ended.summary["devices"][0]["tx_packets"] == 1000


def test_rate_is_not_exceeded(ixy):
    """101 packets at 1000 per second take 100 intervals of a millisecond at least."""
    ended = ixy("generate", "sim:a,tx_pcap=/dev/null", "--rate", "1e3", "--count", "101", "--json")
    assert ended.code == 0, ended.errors
    assert ended.summary["seconds"] >= 0.1


def test_a_rate_that_is_not_reached_is_said(ixy):
    """No card sends a billion packets a second: a line says how many it were, and the summary does."""
    ended = ixy("generate", "sim:a,tx_pcap=/dev/null", "--rate", "1e9", "--count", "2000", "--json")
    assert ended.code == 0
    rate = ended.summary["rate"]
    assert 0 < rate < 990_000_000
    assert ended.errors == f"ixy: sim:a: the rate was not reached: {rate} of 1000000000 packets per second\n"


def test_a_rate_that_is_reached_is_reported(ixy):
    """Two packets, a second apart: the rate is the one that was asked for, and there is no complaint."""
    ended = ixy("generate", "sim:a,tx_pcap=/dev/null", "--rate", "1", "--count", "2")
    assert (ended.code, ended.errors) == (0, "")
    assert "generated 2, left out 0, rate 1, late us " in ended.output


def test_a_slow_wire_takes_all(ixy, tmp_path):
    """The ring holds what takes 1.8 s at 1 Mbit/s: it is sent before the end, however long that takes."""
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap,wire=1M", "--size", "1514", "--count", "150", "--json")
    assert ended.code == 0, ended.errors
    assert len(read_pcap(tmp_path / "out.pcap")) == ended.summary["devices"][0]["tx_packets"] == 150


def test_what_a_cable_delays_arrives_before_the_end(ixy, tmp_path):
    """The last packet is sent long before the first arrives: all do, and are counted."""
    path = tmp_path / "cable"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ended = ixy("generate", f"sim:a,cable=unix:{path},delay=1s", "--count", "10", "--json")
        assert ended.code == 0, ended.errors
        assert (ended.summary["cables"][0]["sent"], ended.summary["cables"][0]["arrived"]) == (10, 10)
        with listener.accept()[0] as peer:
            assert len(peer.recv(4096, socket.MSG_WAITALL)) == 10 * (4 + 60)


def test_templates_in_turn(ixy, tmp_path):
    """Three packets of a file, unchanged, in turn; the short one is padded to what Ethernet sends."""
    templates = [b"a" * 42, b"b" * 60, b"c" * 1514]
    write_pcap(tmp_path / "in.pcap", templates)
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", "--template", "in.pcap", "--no-sequence", "--count", "1000")
    assert ended.code == 0, ended.errors
    padded = [b"a" * 42 + bytes(18), *templates[1:]]
    assert read_pcap(tmp_path / "out.pcap") == [padded[number % 3] for number in range(1000)]


def test_frames_that_fit_no_buffer_are_left_out(ixy, tmp_path):
    """A packet of 3000 bytes among others: it is left out, which is said and counted."""
    write_pcap(tmp_path / "in.pcap", [b"a" * 60, b"b" * 3000, b"c" * 60])
    arguments = ("--template", "in.pcap", "--no-sequence", "--count", "2", "--json")
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", *arguments)
    assert ended.code == 0
    assert ended.errors == "ixy: in.pcap: left out frames longer than a buffer of 2048 bytes: 1\n"
    assert ended.summary["left_out"] == 1
    assert read_pcap(tmp_path / "out.pcap") == [b"a" * 60, b"c" * 60]


def test_a_damaged_template_is_used_up_to_the_damage(ixy, tmp_path):
    """A file that was cut within its third packet: the two before it are sent, and it is said at the end."""
    write_pcap(tmp_path / "in.pcap", frames(3))
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole[:-1])
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", "--template", "in.pcap", "--no-sequence", "--count", "2")
    assert ended.complaint().startswith("ixy: in.pcap: damaged, used the 2 packets before: packet 3 ")
    assert read_pcap(tmp_path / "out.pcap") == frames(2)


def test_scapy_asks_nobody(monkeypatch):
    """Who has an address would be asked on a network of the machine: a packet without a destination goes to all."""
    monkeypatch.setattr("scapy.layers.l2.srp1", lambda *_, **__: pytest.fail("somebody was asked"))
    templates = from_scapy("Ether(src='02:00:00:00:00:01')/IP(src='10.9.9.1', dst='10.9.9.9')")
    assert templates.data[:12].tobytes().hex() == "ffffffffffff020000000001"


def test_scapy_expression(ixy, tmp_path):
    """An expression that stands for four packets: each is sent in turn."""
    expression = 'Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")/IP(src="10.0.0.1", dst="10.0.0.4/30")/UDP()'
    arguments = ("--scapy", f'{expression}/("x" * 18)', "--no-sequence", "--count", "5")
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", *arguments)
    assert ended.code == 0, ended.errors
    packets = read_pcap(tmp_path / "out.pcap")
    assert [packet[30:34] for packet in packets] == [bytes([10, 0, 0, last]) for last in (4, 5, 6, 7, 4)]
    assert packets[0][:14] == bytes.fromhex("0200000000020200000000010800")


STREAMS = """
streams:
- share: 2
  flows: 1000
  packet:
    ipv4: {src: {random: 10.0.0.0/8}}
    udp: {sport: {random: 1024-65535}}
- size: 1514
  packet: {vlan: {id: {count: 5-7}}, ipv6: {}, tcp: {}}
"""


def test_streams_of_a_file(ixy, tmp_path):
    """Two streams by shares, through the generator's own loop: fields, numbers and checksums."""
    (tmp_path / "streams.yaml").write_text(STREAMS)
    ended = ixy("generate", "sim:a,tx_pcap=out.pcap", "--streams", "streams.yaml", "--count", "3000")
    assert (ended.code, ended.errors) == (0, "")
    packets = read_pcap(tmp_path / "out.pcap")
    assert [int.from_bytes(packet[-4:], "big") for packet in packets] == list(range(3000))
    assert [len(packet) for packet in packets] == [60, 1514, 60] * 1000
    assert [packet[15] for packet in packets[1::3]] == [5 + n % 3 for n in range(1000)]
    assert 600 < len({(packet[26:30], packet[34:36]) for packet in packets if len(packet) == 60}) <= 1000
    for packet in packets[:99]:
        ip = dpkt.ethernet.Ethernet(packet).data
        dpkt_sum = ip.data.sum
        ip.data.sum = 0
        if isinstance(ip, dpkt.ip.IP):
            assert dpkt.in_cksum(packet[14:34]) == 0
            pseudo = packet[26:34] + b"\0\x11" + packet[38:40]
        else:
            pseudo = packet[26:58] + packet[22:24].rjust(4, b"\0") + b"\0\0\0\x06"
        assert dpkt.in_cksum(pseudo + bytes(ip.data)) == dpkt_sum


def test_the_same_seed_sends_the_same(ixy, tmp_path):
    (tmp_path / "streams.yaml").write_text(STREAMS)
    sent = []
    for seed in ("1", "1", "2"):
        command = ("generate", "sim:a,tx_pcap=out.pcap", "--streams", "streams.yaml", "--count", "100")
        assert ixy(*command, "--seed", seed).code == 0
        sent.append(read_pcap(tmp_path / "out.pcap"))
    assert sent[0] == sent[1] != sent[2]


def test_a_strict_rate_that_is_missed_is_exit_code_1(ixy):
    """No card sends a billion packets a second; without --strict-rate that is said only."""
    arguments = ("generate", "sim:a,tx_pcap=/dev/null", "--rate", "1e9", "--count", "2000")
    assert ixy(*arguments).code == 0
    ended = ixy(*arguments, "--strict-rate")
    assert (ended.code, ended.errors.count("the rate was not reached")) == (1, 1)
    assert ixy("generate", "sim:a,tx_pcap=/dev/null", "--rate", "10", "--count", "1", "--strict-rate").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "20Mpps"], "rate 20000000 packets per second: that is 13440.0 Mbit/s on the wire, and the line"),
        (["--rate", "10.1Gbps"], "rate 10100000000 bits per second: that is 10100.0 Mbit/s on the wire"),
        (["--rate", "5%", "--size", "imix", "--poisson", "--burst", "0"], "--burst 0: 1 to 4096 are possible"),
        (["--poisson"], "go with a --rate"),
        (["--streams", "none.yaml"], "none.yaml: No such file"),
        (["--streams", "bad.yaml"], "bad.yaml: line 3: flows 0: 1 to"),
    ],
)
def test_what_a_line_does_not_take(ixy, tmp_path, arguments, words):
    (tmp_path / "bad.yaml").write_text("streams:\n- share: 1\n  flows: 0\n")
    assert words in ixy("generate", "sim:a,wire=10G,tx_pcap=out.pcap", *arguments).complaint()


def test_a_share_of_no_line(ixy):
    complaint = ixy("generate", "sim:a,tx_pcap=out.pcap", "--rate", "50%").complaint()
    assert "has no line of which 50% could be" in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "59"], "--size 59: 60 to 1514 are possible"),
        (["--size", "1515"], "--size 1515: 60 to 1514 are possible"),
        (["--rate", "fast"], "--rate 'fast' is no number"),
        (["--rate", "0"], "--rate 0: 1 to 1000000000 are possible"),
        (["--size", "60", "--template", "in.pcap"], "exclude each other"),
        (["--template", "empty.pcap"], "empty.pcap: no packet to send"),
        (["--template", "missing.pcap"], "missing.pcap: No such file"),
        (["--scapy", "Ether("], "--scapy 'Ether(': SyntaxError"),
        (["--scapy", "Ethernet()"], "NameError: name 'Ethernet' is not defined"),
        (["--scapy", "[1]"], "1 is no packet"),
        (["--scapy", 'Ether()/IP(dst="10.0.0.0/8")'], "more than 65536 packets"),
        (["--scapy", "[Ether(type=(1, 3)) for _ in range(21846)]"], "more than 65536 packets"),
        (["--scapy", "(Ether() for _ in range(65537))"], "more than 65536 packets"),
        (["--scapy", "IP()/UDP()"], "IP without an Ethernet header: write Ether() before it"),
        (["--scapy", "[Ether(), Raw(bytes(60))]"], "Raw without an Ethernet header: write Ether() before it"),
        (["--scapy", "b'no packet'"], "110 is no packet"),
        (["--scapy", "[]"], "--scapy: no packet to send"),
        (["--scapy", "1 / 0"], "ZeroDivisionError: division by zero"),
    ],
)
def test_bad_input(ixy, tmp_path, arguments, words):
    """What cannot be sent: one line, and exit code 2."""
    write_pcap(tmp_path / "in.pcap", frames(1))
    write_pcap(tmp_path / "empty.pcap", [])
    assert words in ixy("generate", "sim:a,tx_pcap=out.pcap", *arguments).complaint()
