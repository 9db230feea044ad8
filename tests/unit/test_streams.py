"""Streams: each packet that a table makes is one that Scapy would make, and has the values that were asked for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ixy.apps.compose import compose
from ixy.apps.rate import Rate, gap_after, parse_rate
from ixy.apps.streamfile import read_streams
from ixy.apps.streams import Choice, Stream, in_turn, parse_sizes
from ixy.apps.streamtable import NO_TAIL, NUMBER_BYTES, fill, next_frame, next_stream, table_of, write
from ixy.apps.templates import Templates
from ixy.errors import ConfigurationError
from ixy.formats.frames import udp_frame

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
scapy: Any = pytest.importorskip("scapy.all")

EXAMPLE = Path(__file__).parents[2] / "examples" / "streams.yaml"


def packets(streams: Sequence[Stream] | Templates, count: int, *, numbered: bool = False, seed: int = 0) -> list[bytes]:
    """The first packets that a table makes, all in one buffer, as the generator does."""
    table = table_of(streams, tail=NUMBER_BYTES if numbered else NO_TAIL, seed=seed)
    target, made = np.zeros(4096, np.uint8), list[bytes]()
    for number in range(count):
        stream = int(next_stream(table))
        frame = int(next_frame(table, stream))
        start, size = int(table.starts[frame]), int(table.frames[frame, 0])
        target[7 : 7 + size] = table.data[start : start + size]
        fill(table, target, 7, stream, frame, number)
        if numbered:
            write(target, 7 + size - 4, 2, number)
        made.append(target[7 : 7 + size].tobytes())
    return made


def recomputed(packet: bytes) -> bytes:
    """The packet as Scapy would have it, with lengths and checksums of its own."""
    parsed = scapy.Ether(packet)
    for layer in (scapy.IP, scapy.UDP, scapy.TCP, scapy.ICMP):
        if layer in parsed:
            del parsed[layer].chksum
    for layer in (scapy.ICMPv6EchoRequest,):
        if layer in parsed:
            del parsed[layer].cksum
    return bytes(parsed)


def stream(fields: dict[str, Choice], headers: dict[str, Any] | None = None, size: int = 80, **more: Any) -> Stream:
    headers = headers or {"ipv4": {}, "udp": {}}
    return Stream("s", compose(headers, b"fill", [size]), fields, **more)


def of(made: list[bytes], layer: Any, field: str) -> list[Any]:
    return [getattr(scapy.Ether(packet)[layer], field) for packet in made]


# ---------------------------------------------------------------------------------------------------------------------
# Packets


@pytest.mark.parametrize(
    "headers",
    [
        {"ipv4": {}, "udp": {}},
        {"ipv4": {"tos": 46}, "tcp": {"flags": 2}},
        {"vlan": {"id": 5}, "ipv4": {}, "icmp": {"id": 1}},
        {"ipv6": {"traffic_class": 7}, "udp": {}},
        {"vlan": {}, "ipv6": {}, "tcp": {}},
        {"ipv6": {}, "icmp6": {"sequence": 3}},
    ],
)
@pytest.mark.parametrize("size", [90, 91])
def test_headers_have_the_right_lengths_and_checksums(headers: dict[str, Any], size: int) -> None:
    """Frames of any headers, of even and odd size: as Scapy computes them; with numbers, still."""
    (frame,) = compose(headers, b"abc", [size])
    assert recomputed(frame) == frame
    numbered = packets([Stream("s", [frame])], 300, numbered=True)
    assert [packet[-4:] for packet in numbered] == [number.to_bytes(4, "big") for number in range(300)]
    assert all(recomputed(packet) == packet for packet in numbered)


def test_values_in_turn() -> None:
    """Addresses count by two and begin anew, a list is gone through, and each field counts for itself."""
    made = packets([stream({"ipv4.src": Choice(range(0x0A000001, 0x0A000006, 2)), "udp.dport": Choice([80, 443])})], 7)
    assert of(made, scapy.IP, "src") == [f"10.0.0.{n}" for n in (1, 3, 5, 1, 3, 5, 1)]
    assert of(made, scapy.UDP, "dport") == [80, 443, 80, 443, 80, 443, 80]
    assert all(recomputed(packet) == packet for packet in made)


def test_fields_of_all_widths() -> None:
    """Twelve bits, bytes, four and six of them, and the lower half of an IPv6 address; nothing beside changes."""
    headers = {"vlan": {"priority": 5}, "ipv6": {"hop_limit": 9, "src": "2001:db8::ffff:ffff:ffff:fff0"}, "tcp": {}}
    base = 0x2001_0DB8 << 96
    high = 0xFFFF_FFFF_FFFF_FFF0
    fields = {
        "eth.src": Choice(range(0x02FF_FFFF_FFFE, 0x0300_0000_0003)),
        "vlan.id": Choice(range(4000, 4096)),
        "ipv6.hop_limit": Choice([1, 255]),
        "ipv6.src": Choice(range(base + high, base + high + 16)),
        "tcp.seq": Choice(range(0xFFFF_FFF0, 1 << 32)),
        "tcp.flags": Choice([2, 16]),
        "payload[0:1]": Choice([7, 8]),
        "payload[2:8]": Choice(range(0xFFFF_FFFF_FFF0, 1 << 48)),
    }
    made = packets([stream(fields, headers, size=100)], 5, numbered=True)
    plain = packets([stream({}, headers, size=100)], 5, numbered=True)
    for n, packet in enumerate(made):
        parsed = scapy.Ether(packet)
        assert recomputed(packet) == packet
        assert (
            parsed.src == ["02:ff:ff:ff:ff:fe", "02:ff:ff:ff:ff:ff", "03:00:00:00:00:00", "03:00:00:00:00:01"][n % 4]
            or n == 4
        )
        assert (parsed.vlan, parsed[scapy.Dot1Q].prio) == (4000 + n, 5)
        assert (parsed[scapy.IPv6].hlim, parsed[scapy.IPv6].nh) == ([1, 255][n % 2], 6)
        assert parsed[scapy.IPv6].src == f"2001:db8::ffff:ffff:ffff:fff{n:x}"
        assert parsed[scapy.TCP].seq == 0xFFFF_FFF0 + n
        assert int(parsed[scapy.TCP].flags) == [2, 16][n % 2]
        load = bytes(parsed[scapy.TCP].payload)
        assert load[:8] == bytes([7 + n % 2]) + b"i" + (0xFFFF_FFFF_FFF0 + n).to_bytes(6, "big")
        assert load[8:] == bytes(scapy.Ether(plain[n])[scapy.TCP].payload)[8:]


def test_random_values_are_spread_evenly() -> None:
    """10,000 ports of 100: each about a hundred times, in range; another seed draws others, the same the same."""
    streams = [stream({"udp.sport": Choice(range(5000, 5100), random=True)})]
    made = packets(streams, 10_000)
    counts = Counter(int.from_bytes(packet[34:36], "big") for packet in made)
    assert set(counts) == set(range(5000, 5100))
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 150  # chi-squared, 99 degrees of freedom
    assert packets(streams, 50) == made[:50]
    assert packets(streams, 50, seed=1) != made[:50]


@pytest.mark.parametrize("random_flows", [False, True])
def test_flows_differ_and_keep_their_values(random_flows: bool) -> None:
    """3000 flows by three ports and a thousand addresses: each exists, no two are the same, and packets are of any."""
    fields = {
        "udp.sport": Choice([1, 2, 3], random=True),
        "ipv4.src": Choice(range(0x0A000000, 0x0A000000 + 1000), random=True),
    }
    made = packets([stream(fields, flows=3000, random_flows=random_flows)], 3000 if not random_flows else 40_000)
    flows = Counter((packet[26:30], packet[34:36]) for packet in made)
    assert len(flows) == 3000
    assert all(recomputed(packet) == packet for packet in made[:50])
    if not random_flows:
        assert set(flows.values()) == {1}


def test_few_flows_among_many_values() -> None:
    """Ten flows of random addresses and ports: ten pairs come again and again."""
    fields = {
        "ipv4.src": Choice(range(0x0A000000, 0x0B000000), random=True),
        "udp.sport": Choice(range(1024, 1 << 16), random=True),
    }
    made = packets([stream(fields, flows=10)], 500)
    assert len({(packet[26:30], packet[34:36]) for packet in made}) == 10
    assert len({packet[26:30] for packet in made}) == 10


def test_shares_are_kept_as_evenly_as_can_be() -> None:
    assert in_turn([3, 1]) == [0, 0, 1, 0]
    assert in_turn([10, 20, 10]) == [1, 0, 2, 1]
    streams = [Stream(str(n), [bytes([n]) * 60], share=share) for n, share in enumerate((5, 3, 2))]
    made = [packet[0] for packet in packets(streams, 1000)]
    assert Counter(made) == {0: 500, 1: 300, 2: 200}
    assert all(abs(made[:n].count(0) - n / 2) <= 1 for n in range(1000))


def test_sizes() -> None:
    """IMIX is 7 to 4 to 1; a range has each of its sizes; a list goes in turn."""
    assert Counter(parse_sizes("size", "imix", 60, 1514).each) == {60: 7, 590: 4, 1514: 1}
    assert parse_sizes("size", "64, 1e3", 60, 1514) == ([64, 1000], False)
    sizes = parse_sizes("size", "60-70", 60, 1514)
    frames = compose({"ipv4": {}, "udp": {}}, b"x", sizes.each)
    made = packets([Stream("s", frames, random_frames=sizes.random)], 1000, numbered=True)
    counts = Counter(map(len, made))
    assert set(counts) == set(range(60, 71))
    assert min(counts.values()) > 50
    assert all(recomputed(packet) == packet for packet in made)


def test_templates_keep_their_checksums_right_and_wrong() -> None:
    """Numbers are written into any frames: right checksums stay right, a wrong one is as far off as before, one of 0
    stays; a number that lies in the padding is covered by none; one that is partly covered is taken in part."""
    right = bytes(scapy.Ether() / scapy.IP(dst="1.2.3.4") / scapy.UDP() / b"some payload of mine")
    short = bytes(scapy.Ether() / scapy.IP(dst="1.2.3.4") / scapy.UDP() / b"ab").ljust(60, b"\0")
    partly = bytes(scapy.Ether() / scapy.IP(dst="1.2.3.4") / scapy.UDP() / (b"x" * 17)).ljust(60, b"\0")
    wrong = bytearray(right)
    wrong[41] ^= 1
    none = udp_frame(64)
    made = packets(Templates.of([right, short, partly, bytes(wrong), none], "test"), 500, numbered=True)
    for number, packet in enumerate(made):
        assert packet[-4:] == number.to_bytes(4, "big")
        correct = recomputed(packet)
        match number % 5:
            case 3:
                difference = int.from_bytes(packet[40:42], "big") - int.from_bytes(correct[40:42], "big")
                assert abs(difference) % 0xFFFF in (1, 0xFFFE)
            case 4:
                assert packet[40:42] == b"\0\0"
            case _:
                assert packet == correct


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_the_example() -> None:
    """The file that users are shown: shares, headers and checksums are as it says."""
    streams = read_streams(str(EXAMPLE))
    made = packets(streams, 1200, numbered=True)
    assert all(recomputed(packet) == packet for packet in made)
    kinds = Counter("tcp" if scapy.TCP in p else "dns" if scapy.Dot1Q in p else "new" for p in map(scapy.Ether, made))
    assert kinds == {"tcp": 600, "dns": 400, "new": 200}
    names = [scapy.Ether(packet) for packet in made if packet[12:14] == b"\x81\x00"]
    assert [packet.vlan for packet in names] == [100 + n % 100 for n in range(400)]
    assert [packet[scapy.IP].src for packet in names[:3]] == ["10.1.0.1", "10.1.0.3", "10.1.0.5"]


BEGIN = "streams:\n- name: web\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: streams: is missing"),
        ("streams: 5\n", "line 1: streams is a list"),
        ("streams: []\n", "line 1: 0 streams: 1 to 256 are possible"),
        ("flows:\n", "line 1: the file: 'flows' is unknown; there are streams"),
        (BEGIN + "  colour: red\n", "line 3: a stream: 'colour' is unknown"),
        (BEGIN + "  size: 64\n  size: 65\n", "line 4: 'size' is there twice"),
        (BEGIN + "  size: 59\n", "line 3: size 59: 60 to 1514 are possible"),
        (BEGIN + "  size: 90-70\n", "line 3: size 90-70: write the smaller size first"),
        (BEGIN + "  flows: 0\n", "line 3: flows 0: 1 to 2147483648 are possible"),
        (BEGIN + "  share: 0\n", "line 3: share 0: 1 to 4096 are possible"),
        (BEGIN + "  packet: {ipv4: {}, vlan: {}}\n", "line 3: vlan cannot follow ipv4: icmp, tcp, udp can"),
        (BEGIN + "  packet: {ipx: {}}\n", "line 3: packet: 'ipx' is unknown"),
        (BEGIN + "  packet:\n    ipv4: {sorce: 1}\n", "line 4: ipv4: 'sorce' is unknown"),
        (BEGIN + "  packet:\n    ipv4: {src: 10.0.0.300}\n", "line 4: ipv4.src: '10.0.0.300' is no IPv4"),
        (BEGIN + "  packet:\n    ipv4: {ttl: 256}\n", "line 4: ipv4.ttl 256: 0 to 255 are possible"),
        (
            BEGIN + "  packet:\n    ipv4: {src: {random: 10.0.0.1/8}}\n",
            "ipv4.src: 10.0.0.1/8 has host bits set",
        ),
        (BEGIN + "  packet:\n    ipv4: {ttl: {count: 9-1}}\n", "write the smaller value first"),
        (BEGIN + "  packet:\n    ipv4: {ttl: {cuont: 1-9}}\n", "line 4: ipv4.ttl: 'cuont' is unknown"),
        (BEGIN + "  packet:\n    ipv4: {ttl: {count: []}}\n", "line 4: 0 values"),
        (BEGIN + "  scapy: Ether()\n  size: 60\n", "line 4: scapy and size exclude each other"),
        (BEGIN + "  scapy: Ether(\n", "line 3: scapy 'Ether(': SyntaxError"),
        ("streams:\n- [\n", "line 3: "),
        ("streams: &a\n- *a\n", "it contains itself"),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, text: str, words: str) -> None:
    """An error names the file and the line."""
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        read_streams(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: stream({"ipv4.ttl": Choice([256])}), "s: ipv4.ttl 256: 0 to 255 are possible"),
        (lambda: stream({"tcp.dport": Choice([1])}), "s: tcp.dport: the packet has no tcp header"),
        (lambda: stream({"ipv4.checksum": Choice([1])}), "s: ipv4.checksum: it follows from the rest"),
        (lambda: stream({"payload[0:9]": Choice([1])}), "s: payload[0:9]: 1 to 8 bytes are possible"),
        (lambda: stream({"payload[30:60]": Choice([1])}), "1 to 8 bytes"),
        (lambda: stream({"payload[40:42]": Choice([1])}), "the payload has 38 bytes"),
        (lambda: stream({"payload[34:36]": Choice([1])}), "lies where the packet's number is written"),
        (lambda: stream({"ipv4.ttl": Choice([1]), "ipv4.protocol": Choice([17])}), "shares 16 bits"),
        (lambda: stream({"udp.dport": Choice([1, 2])}, flows=3), "s: 3 flows: its fields tell 2 apart"),
        (
            lambda: stream({}, {"ipv6": {}, "udp": {}}, size=65),
            "size 65: its headers and the number behind",
        ),
        (lambda: stream({}, {"ipv6": {}, "udp": {}}, size=61), "size 61: the headers alone have 62 bytes"),
        (lambda: stream({}, share=0), "share 0: 1 to 4096"),
        (lambda: stream({}, flows=0), "flows 0: 1 to"),
        (lambda: stream({"ipv6.src": Choice([1, 1 << 64])}, {"ipv6": {}, "udp": {}}), "differ in their lower 64 bits"),
    ],
)
def test_streams_that_cannot_be(made: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        table_of([made()], tail=NUMBER_BYTES)
    assert words in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Rates


def test_rates_as_people_write_them() -> None:
    assert parse_rate("rate", "1e6") == Rate(1_000_000, "pps") == parse_rate("rate", "1000kpps")
    assert parse_rate("rate", "2.5Gbps") == Rate(2_500_000_000, "bps") == parse_rate("rate", "2500 Mbit/s")
    assert str(parse_rate("rate", "33.3%")) == "33.3%"
    # 60 bytes are 84 on the wire; at 10 Gbit/s they take 67.2 ns
    assert gap_after(parse_rate("rate", "10Gbps"), 60, 10) == (67, 2)
    assert gap_after(parse_rate("rate", "3pps"), 60, 3) == (333_333_333, 1)


@pytest.mark.parametrize("text", ["0", "-5", "0%", "101%", "1.5pps", "3 parsecs", "2Tbps", "0bps", "1e13bps", "", "%"])
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^rate "):
        parse_rate("rate", text)
