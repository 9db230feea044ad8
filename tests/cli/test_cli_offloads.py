"""`ixy forward --offload`: what devices do for it, and what is refused in one line."""

from __future__ import annotations

import pytest
from captures import read_pcap, write_pcap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="10.0.0.1", dst="10.0.0.2")


def test_tags_are_taken_out_and_put_in(ixy, tmp_path):
    """Packets with a tag and without leave as they came."""
    packets = [bytes(ETHERNET / Dot1Q(vlan=5, prio=i % 8) / V4 / UDP() / bytes(40)) for i in range(20)]
    packets += [bytes(ETHERNET / V4 / UDP() / bytes(40)) for _ in range(20)]
    write_pcap(tmp_path / "in.pcap", packets)
    addresses = "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap"
    ended = ixy("forward", "--one-way", *addresses, "--count", "40", "--offload", "vlan")
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == packets


def test_segments_are_put_together_and_cut(ixy, tmp_path):
    """The stream of a connection is the same afterwards, in as many segments."""
    payload = [bytes([i]) * 1000 for i in range(60)]
    packets = [
        bytes(ETHERNET / V4 / TCP(sport=1, dport=2, seq=1000 * i, flags="A") / part) for i, part in enumerate(payload)
    ]
    write_pcap(tmp_path / "in.pcap", packets)
    addresses = "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap"
    ended = ixy("forward", "--one-way", *addresses, "--seconds", "2", "--offload", "coalescing,segmentation", "--json")
    assert ended.code == 0, ended.errors
    assert 0 < ended.summary["forwarded"] < 60
    found = [Ether(data) for data in read_pcap(tmp_path / "out.pcap")]
    assert b"".join(bytes(packet[TCP].payload) for packet in found) == b"".join(payload)
    assert [packet[TCP].seq for packet in found] == [1000 * i for i in range(60)]


@pytest.mark.once
@pytest.mark.parametrize(
    ("offload", "text"),
    [
        ("colour", "--offload: offload 'colour': possible are checksum, vlan, segmentation, coalescing, stamps"),
        ("vlan,", "--offload: offload '': possible are"),
        ("stamps", "sim:a: the device does not do 'stamps': leave it out of offloads"),
    ],
)
def test_what_is_refused(ixy, offload, text):
    ended = ixy("forward", "sim:a", "sim:b", "--offload", offload)
    assert ended.code == 2
    assert text in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.once
def test_what_is_left_undone_is_told(ixy, tmp_path):
    """A card that puts segments together needs one that cuts them: else packets are too long."""
    segments = [TCP(sport=1, dport=2, seq=1400 * i, flags="A") / bytes(1400) for i in range(20)]
    write_pcap(tmp_path / "in.pcap", [bytes(ETHERNET / V4 / segment) for segment in segments])
    addresses = "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap"
    options = ("--seconds", "1", "--offload", "coalescing", "--json")
    ended = ixy("forward", "--one-way", *addresses, *options, variables={"IXY_JIT": "0"})
    left = ended.summary["forwarded"] - ended.summary["devices"][1]["tx_packets"]
    assert left > 0
    told = "sim:b: packets that were not sent, as they were longer than a frame may be and nothing cut them"
    assert ended.errors == f"ixy: {told}: {left}\n"
