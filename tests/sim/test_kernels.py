"""Kernels that use packets by headers, length and metadata, and keep records: compiled, interpreted, and in Python."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import arrive, depart, frame, open_card
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

import ixy
from ixy.counts import COUNTS
from ixy.errors import ConfigurationError
from ixy.headers import HEADERS, Ipv4Address, Ipv6Address, MacAddress, fields
from ixy.jit import INTERPRETED
from ixy.packets.views import InterpretedPacket
from ixy.sim.machine import Machine

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
V4 = IP(src="10.1.2.3", dst="192.168.255.254", ttl=17, id=0xBEEF)
V6 = IPv6(src="2001:db8::1", dst="fe80::ffff:1", hlim=9, tc=0xAB, fl=0x54321)
PAYLOAD = Raw(bytes(range(40)))

# What Scapy calls the fields, where it has another name for them.
SCAPY: dict[str, tuple[type[ScapyPacket], dict[str, str]]] = {
    "eth": (Ether, {}),
    "vlan": (Dot1Q, {"priority": "prio", "id": "vlan"}),
    "arp": (
        ARP,
        {
            "hardware": "hwtype",
            "protocol": "ptype",
            "hardware_size": "hwlen",
            "protocol_size": "plen",
            "operation": "op",
            "sender_mac": "hwsrc",
            "sender": "psrc",
            "target_mac": "hwdst",
            "target": "pdst",
        },
    ),
    "ipv4": (IP, {"length": "len", "offset": "frag", "protocol": "proto", "checksum": "chksum"}),
    "ipv6": (IPv6, {"traffic_class": "tc", "flow": "fl", "length": "plen", "next_header": "nh", "hop_limit": "hlim"}),
    "icmp": (ICMP, {"checksum": "chksum", "sequence": "seq"}),
    "icmp6": (ICMPv6EchoRequest, {"checksum": "cksum", "sequence": "seq"}),
    "tcp": (TCP, {"offset": "dataofs", "checksum": "chksum", "urgent": "urgptr"}),
    "udp": (UDP, {"length": "len", "checksum": "chksum"}),
    "vxlan": (VXLAN, {}),
    "gre": (GRE, {"protocol": "proto"}),
}
NOT_SCAPY = {"df", "mf", "is_ack", "is_rst", "is_syn", "is_fin", "flags", "dei"}  # Scapy has them in another form

OPTIONS = [IPOption(b"\x01\x01\x01\x01" * 3)]
EXTENSIONS = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt()
REPLY = ARP(op=2, hwsrc="02:00:00:00:00:07", psrc="10.0.0.1", hwdst="02:00:00:00:00:08", pdst="10.0.0.2")

PACKETS = {
    "ipv4 and udp": ETHER / V4 / UDP(sport=1024, dport=53) / PAYLOAD,
    "options and tcp": ETHER / IP(src="1.2.3.4", options=OPTIONS) / TCP(flags="SA") / PAYLOAD,
    "a tag": ETHER / Dot1Q(vlan=77, prio=5) / V4 / UDP(sport=7, dport=9) / PAYLOAD,
    "two tags": ETHER / Dot1Q(type=0x8100, vlan=4095) / Dot1Q(vlan=12) / V4 / ICMP(id=5, seq=6) / PAYLOAD,
    "arp": ETHER
    / ARP(op=2, hwsrc="02:00:00:00:00:07", psrc="10.0.0.1", hwdst="02:00:00:00:00:08", pdst="10.0.0.2")
    / Raw(bytes(18)),
    "ipv6 and tcp": ETHER / V6 / TCP(sport=80, dport=8080, seq=0xFEDCBA98, ack=0x89ABCDEF, window=77) / PAYLOAD,
    "extension headers": ETHER
    / V6
    / IPv6ExtHdrHopByHop()
    / IPv6ExtHdrRouting()
    / IPv6ExtHdrDestOpt()
    / UDP()
    / PAYLOAD,
    "first fragment over ipv6": ETHER / V6 / IPv6ExtHdrFragment(offset=0, m=1, nh=17) / UDP(sport=3, dport=4) / PAYLOAD,
    "icmp6 in a vlan": ETHER / Dot1Q(vlan=3) / V6 / ICMPv6EchoRequest(id=3, seq=4) / PAYLOAD,
    "vxlan": ETHER / V4 / UDP(dport=4789) / VXLAN(vni=0xABCDEF) / ETHER / PAYLOAD,
    "gre": ETHER / V4 / GRE(proto=0x0800) / V4 / PAYLOAD,
}


def parsed(packet: ScapyPacket) -> ScapyPacket:
    """The packet with all that Scapy fills in when it makes bytes of one."""
    return Ether(bytes(packet))


def python_packet(machine: Machine, data: bytes) -> Any:
    device = open_card(machine)
    arrive(machine, data)
    return device, device.rx[0].receive()


def as_number(value: Any) -> Any:
    """What Scapy says of a field, as kernels see it."""
    if not isinstance(value, str):
        return int(value or 0)
    kind = MacAddress if value.count(":") == 5 else Ipv6Address if ":" in value else Ipv4Address
    return kind.parse(value)


@pytest.mark.parametrize("name", PACKETS)
def test_fields_are_what_scapy_reads(machine: Machine, name: str) -> None:
    """Of each header that is there every field, as Scapy dissects it; the others are false."""
    packet = parsed(PACKETS[name])
    device, batch = python_packet(machine, bytes(packet))
    with device, batch:
        ours = batch[0]
        for header, (layer, names) in SCAPY.items():
            view = getattr(ours, header)
            assert bool(view) == (layer in packet), header
            if not view:
                continue
            there = packet[layer]
            for field in fields(HEADERS[header]).keys() - NOT_SCAPY:
                assert getattr(view, field) == as_number(getattr(there, names.get(field, field))), (header, field)


def test_addresses_are_written_as_people_do(machine: Machine) -> None:
    device, batch = python_packet(machine, bytes(ETHER / V4 / UDP() / PAYLOAD))
    with device, batch:
        packet = batch[0]
        assert str(packet.ipv4.src) == "10.1.2.3"
        assert packet.ipv4.src == "10.1.2.3" == packet.ipv4.src
        assert packet.ipv4.src != "10.1.2.4"
        assert not packet.ipv4.src != "10.1.2.3"  # noqa: SIM202
        assert packet.ipv4.src != "nowhere"
        assert f"{packet.eth.src}" == "02:00:00:00:00:02"
        packet.ipv4.dst = "8.8.4.4"
        packet.eth.dst = "02-00-00-00-00-ff"
        assert packet.ipv4.dst == 0x08080404
        assert packet.eth.dst == 0x0200000000FF
        packet.eth.src = bytes.fromhex("020000000007")
        assert packet.eth.src == "02:00:00:00:00:07"
        with pytest.raises(ValueError, match="02:00:00"):
            packet.eth.dst = "nowhere"
        with pytest.raises(TypeError, match=r"packet.ipv4.ttl is a number"):
            packet.ipv4.ttl = "5"
        with pytest.raises(AttributeError, match="no 'tll'"):
            packet.ipv4.tll = 5
    assert Ipv4Address("10.0.0.1") == 0x0A000001
    assert Ipv6Address("::1") == (0, 1)
    assert f"{Ipv4Address(1):>10}" == "   0.0.0.1"


def test_truncated_headers_are_none(machine: Machine) -> None:
    """A packet cut anywhere: what lies within it whole is there, and reading never goes beyond its end."""
    data = bytes(ETHER / Dot1Q() / V4 / TCP() / PAYLOAD)
    ends = {"eth": 14, "vlan": 18, "ipv4": 38, "tcp": 58}
    device, batch = python_packet(machine, data)
    with device, batch:
        packet = batch[0]
        for length in range(1, len(data) + 1):
            packet.length = length
            assert {name for name in HEADERS if getattr(packet, name)} == {
                n for n, end in ends.items() if end <= length
            }


class Mark(enum.IntEnum):
    SEVEN = 7
    PLACE = 3


class Marks(ixy.Record):
    number: int
    fraction: float
    places = ixy.array(8)
    fractions = ixy.array(4, float)


@ixy.kernel
def mark(packet: ixy.Packet, marks: Marks) -> int:
    packet[48] = Mark.SEVEN
    packet[Mark.PLACE] = True
    packet[20:22] = Mark.SEVEN
    packet.eth.type = Mark.SEVEN
    marks.number = Mark.SEVEN
    marks.fraction = 7
    marks.places[Mark.PLACE] = Mark.SEVEN
    marks.places[1] = packet.length > 3
    marks.fractions[1] = 0.5
    marks.fractions[2] = 2
    return Mark.SEVEN


def test_members_of_enumerations_are_numbers(machine: Machine) -> None:
    """As are True and False: as an index, a byte, a field, a verdict."""
    with open_card(machine) as device:
        marks = Marks()
        arrive(machine, bytes(64))
        assert ixy.Path(device.rx[0], device.tx[0], mark, marks).run(1) == 1
        expected = bytearray(64)
        expected[3], expected[13], expected[20], expected[21], expected[48] = 1, 7, 7, 7, 7
        assert depart(machine) == [bytes(expected)]
        assert (marks.number, marks.fraction) == (7, 7.0)
        assert (list(marks.places), list(marks.fractions)) == ([0, 1, 0, 7, 0, 0, 0, 0], [0.0, 0.5, 2.0, 0.0])


class Seen(ixy.Record):
    """What a kernel saw, by fields of its own."""

    packets: int
    with_ip: int
    ports: int
    small: ixy.uint8
    signed: ixy.int16
    ratio: float
    lengths = ixy.array(16)
    high = ixy.array(2)


@ixy.kernel
def rewrite(packet: ixy.Packet, seen: Seen) -> int:
    """Something with everything: headers, narrow fields, arrays, the length, negative indices."""
    seen.packets += 1
    seen.small += 200
    seen.signed -= 30_000
    seen.ratio += 0.25
    seen.lengths[packet.length & 15] += 1
    seen.lengths[-1] += 1
    if packet.ipv6:
        high, low = packet.ipv6.src
        seen.high[0] ^= high
        seen.high[1] ^= low
        packet.ipv6.dst = packet.ipv6.src
        packet.ipv6.flow = packet.ipv6.hop_limit * 7
    ip = packet.ipv4
    if not ip:
        return ixy.FORWARD if packet[-1] & 1 else ixy.DROP
    seen.with_ip += 1
    if ip.ttl <= 1:
        return ixy.DROP
    ip.ttl -= 1
    ip.tos = 300
    ip.src, ip.dst = ip.dst, ip.src
    ip.update_checksum()
    packet.eth.dst = packet.eth.src + 1
    if packet.vlan:
        packet.vlan.priority += 3
        packet.vlan.id = -1
    if packet.udp:
        seen.ports += packet.udp.dport
        packet.udp.sport = 70_000
        packet.udp.update_checksum()
    if packet.tcp:
        packet.tcp.window -= 1
        packet.tcp.update_checksum()
    packet[0:2] = packet[4:6]
    if packet.length > 70:
        packet.length = 70
    return ixy.FORWARD


def mutated(data: Any) -> bytes:
    """One of the packets, with some bytes changed and perhaps cut."""
    packet = bytearray(bytes(data.draw(st.sampled_from(list(PACKETS.values())))))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(packet) - 1), st.integers(0, 255)), max_size=6)):
        packet[at] = value
    return bytes(packet[: data.draw(st.integers(60, max(len(packet), 60)))]).ljust(60, b"\0")


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 8, 32]))
def test_kernels_do_as_their_source_says(data: Any, batch: int) -> None:
    """Verdicts, bytes, lengths and state of random packets: through a path as the source does in the interpreter."""
    packets = [mutated(data) for _ in range(data.draw(st.integers(1, 12)))]
    machine = Machine(stepped=True)
    with open_card(machine) as device:
        seen, expected = Seen(), Seen()
        path = ixy.Path(device.rx[0], device.tx[0], rewrite, seen, batch=batch)
        for packet in packets:
            arrive(machine, packet)
        path.run(2 * len(packets))
        source = getattr(rewrite, "py_func", rewrite)
        left = []
        for packet in packets:
            row = np.zeros(2048, np.uint8)
            row[: len(packet)] = np.frombuffer(packet, np.uint8)
            columns: Any = path.state.packets._replace(lengths=np.array([len(packet)], np.int32))
            view = InterpretedPacket(row, columns, 0, np.zeros(COUNTS, np.int64), 0)
            if source(view, expected[0]) != ixy.DROP:
                left.append(bytes(view[:]))
        assert depart(machine) == left
        assert str(seen) == str(expected)
        assert path.counts.dropped == len(packets) - len(left)


@pytest.mark.parametrize("name", ["ipv4 and udp", "options and tcp", "two tags", "ipv6 and tcp", "icmp6 in a vlan"])
def test_checksums(machine: Machine, name: str) -> None:
    """Made anew from nothing, as Scapy makes them; and changed along with an address, by RFC 1624."""
    right = parsed(PACKETS[name])
    spoiled = bytearray(bytes(right))
    device, batch = python_packet(machine, bytes(spoiled))
    with device, batch:
        packet = batch[0]
        there = [each for header in ("ipv4", "icmp", "icmp6", "tcp", "udp") if (each := getattr(packet, header))]
        for header in there:
            header.checksum = 0x1234
        for header in there:
            header.update_checksum()
        assert bytes(packet) == bytes(right)
        if packet.ipv4:
            before = packet.ipv4.src
            packet.ipv4.src = "172.16.99.1"
            packet.ipv4.checksum = ixy.adjusted(packet.ipv4.checksum, before, packet.ipv4.src)
            changed = packet.ipv4.checksum
            packet.ipv4.update_checksum()
            assert packet.ipv4.checksum == changed


@ixy.kernel
def beyond(packet: ixy.Packet) -> int:
    return packet[99 + packet[0]]


@ixy.kernel
def no_udp(packet: ixy.Packet) -> int:
    return packet.udp.dport


@ixy.kernel
def cut_short(packet: ixy.Packet) -> int:
    eth = packet.eth
    packet.length = 13
    return eth.dst


@ixy.kernel
def too_long(packet: ixy.Packet) -> int:
    packet.length = 2049
    return ixy.FORWARD


@ixy.kernel
def mismatched(packet: ixy.Packet) -> int:
    packet[0:6] = packet[6:11]
    return ixy.FORWARD


@ixy.kernel
def beyond_the_array(packet: ixy.Packet, seen: Seen) -> int:
    return seen.lengths[packet.length]


@pytest.mark.parametrize(
    ("function", "record", "text"),
    [
        (beyond, None, "byte 101 of a packet of 60 bytes"),
        (no_udp, None, "packet.udp.dport: the packet has no such header"),
        (cut_short, None, "packet.eth.dst: the header ends at byte 14 of a packet of 13 bytes"),
        (too_long, None, "packet.length = 2049: it can be 1 to 2048"),
        (mismatched, None, "5 bytes are assigned to a slice of 6"),
        (beyond_the_array, Seen, "element 60 of an array of 16"),
    ],
)
@pytest.mark.parametrize("batch", [1, 32])
def test_errors_say_where_and_what(machine: Machine, function: Any, record: Any, text: str, batch: int) -> None:
    """An exception of the function's: in words, with the function's line, and the packet is counted as dropped."""
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], function, record() if record else None, batch=batch)
        for _ in range(2):  # the numbers of one failure are not the next one's
            arrive(machine, b"\x02" + frame(1)[1:])
            with pytest.raises(IndexError) as failure:
                path.run(4)
            assert str(failure.value) == text
            assert function.__name__ in [entry.name for entry in failure.traceback]
        assert path.counts.dropped == 2


def test_metadata_in_a_kernel(machine: Machine) -> None:
    """What the device tells of a packet, packet by packet and by batches."""

    class Told(ixy.Record):
        vlan: int
        hash: int
        packets: int

    @ixy.kernel
    def note(packet: Any, told: Told) -> int:
        told.vlan = packet.vlan
        told.hash = packet.hash
        told.packets += 1
        return ixy.DROP

    with open_card(machine, metadata=("vlan", "hash", "flags")) as device:
        for batch in (1, 32):
            told = Told()
            arrive(machine, bytes(ETHER / Dot1Q(vlan=77, prio=5) / V4 / UDP(sport=1024, dport=53) / PAYLOAD))
            with device.rx[0].receive() as received:
                expected = received[0].hash
            arrive(machine, bytes(ETHER / Dot1Q(vlan=77, prio=5) / V4 / UDP(sport=1024, dport=53) / PAYLOAD))
            assert ixy.Path(device.rx[0], device.tx[0], note, told, batch=batch).run(2) == 1
            assert (told.vlan, told.hash, told.packets) == (5 << 13 | 77, expected, 1)
            assert expected != 0


SOURCE, OTHER = Ipv4Address.parse("10.1.2.3"), Ipv6Address.parse("2001:db8::1")


@ixy.kernel
def from_one_of_two(packet: ixy.Packet) -> int:
    if packet.ipv4:
        return packet.ipv4.src == SOURCE
    return packet.ipv6.src == OTHER if packet.ipv6 else False


def test_addresses_in_a_kernel(machine: Machine) -> None:
    """Compared with constants."""
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], from_one_of_two)
        packets = [PACKETS["ipv4 and udp"], PACKETS["options and tcp"], PACKETS["ipv6 and tcp"], PACKETS["arp"]]
        for packet in packets:
            arrive(machine, bytes(packet))
        path.run(4)
        assert depart(machine) == [bytes(packets[0]), bytes(packets[2])]


SOURCE_TEXT = "10.1.2.3"


def is_source(address: int) -> bool:
    return address == "10.1.2.3"


class Matches(ixy.Record):
    found: int


@ixy.kernel
def compare_with_text(packet: ixy.Packet, matches: Matches) -> int:
    """A bit for each comparison that holds."""
    found = 0
    if packet.eth.dst == "02:00:00:00:00:01":
        found |= 1
    if "02-00-00-00-00-01" != packet.eth.src:  # noqa: SIM300
        found |= 2
    ip, other = packet.ipv4, packet.ipv6
    if ip:
        outer = "192.168.255.254"
        if "10.1.2.3" == ip.src:  # noqa: SIM300
            found |= 4
        if ip.src != "10.1.2.3":
            found |= 8
        if ip.src == SOURCE_TEXT and is_source(ip.src):
            found |= 16
        if ip.dst == outer and ip.src in (SOURCE, ip.dst, 7):
            found |= 32
    if other:
        source = other.src
        if source == "2001:db8::1":
            found |= 64
        if "FE80:0::ffff:1" != other.dst:  # noqa: SIM300
            found |= 128
        if other.src != other.dst:
            found |= 256
    if packet.arp and packet.arp.sender == "10.0.0.1" and packet.arp.target_mac == "02:00:00:00:00:08":
        found |= 512
    matches.found = found
    return ixy.FORWARD


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ipv4 and udp", 1 + 2 + 4 + 16 + 32),
        ("options and tcp", 1 + 2 + 8),
        ("ipv6 and tcp", 1 + 2 + 64 + 256),
        ("arp", 1 + 2 + 512),
    ],
)
def test_addresses_compare_with_text(machine: Machine, name: str, expected: int) -> None:
    """Written in place, either way round, in a local variable, a global one and a helper."""
    matches = Matches()
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], compare_with_text, matches)
        arrive(machine, bytes(PACKETS[name]))
        path.run(2)
    assert matches.found == expected


@ixy.kernel
def readdress(packet: ixy.Packet) -> int:
    packet.eth.src = "02:00:00:00:00:09"
    if packet.ipv4:
        packet.ipv4.dst = SOURCE_TEXT
        packet.ipv4.src = max(packet.ipv4.src, packet.ipv4.dst) if packet.ipv4.src & 1 else 7
    if packet.ipv6:
        packet.ipv6.src, packet.ipv6.dst = packet.ipv6.dst, packet.ipv6.src
        packet.ipv6.src = "::2"
    return ixy.FORWARD


def test_texts_are_assigned_as_addresses(machine: Machine) -> None:
    """What is written is what Scapy makes of the text; elsewhere an address is a number like others."""
    packets = [parsed(PACKETS[name]) for name in ("ipv4 and udp", "ipv6 and tcp")]
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], readdress)
        for packet in packets:
            arrive(machine, bytes(packet))
        path.run(4)
        four, six = (Ether(each) for each in depart(machine))
    assert [four.src, four[IP].src, four[IP].dst] == ["02:00:00:00:00:09", "10.1.2.3", "10.1.2.3"]
    assert [six.src, six[IPv6].src, six[IPv6].dst] == ["02:00:00:00:00:09", "::2", "2001:db8::1"]


def no_address(packet: ixy.Packet) -> int:
    return packet.ipv4.src == "10.0.0"


def of_another_kind(packet: ixy.Packet) -> int:
    return packet.eth.src == "10.0.0.1"


@pytest.mark.parametrize(
    ("function", "text"), [(no_address, "'10.0.0' is a text"), (of_another_kind, "'10.0.0.1' is no")]
)
def test_texts_that_are_no_such_addresses(machine: Machine, function: Any, text: str) -> None:
    """Refused in the user's line. The interpreter does not know beforehand which kind a field is, and they differ."""
    with open_card(machine) as device:
        if INTERPRETED and function is of_another_kind:
            arrive(machine, frame())
            path = ixy.Path(device.rx[0], device.tx[0], function)
            path.run(1)
            assert path.counts.dropped == 1
            return
        with pytest.raises(ixy.KernelError, match=text) as refused:
            ixy.Path(device.rx[0], device.tx[0], function)
    line = function.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}: {function.__name__}: " in str(refused.value)


@ixy.kernel
def write_hash(packet: Any) -> int:
    packet.hash = 1
    return ixy.FORWARD


@ixy.kernel
def write_nothing(packet: Any) -> int:
    packet.ipv4.sourc = 1
    return ixy.FORWARD


@pytest.mark.parametrize(("function", "text"), [(write_hash, "hash"), (write_nothing, "packet.ipv4 has no 'sourc'")])
def test_what_cannot_be_assigned(machine: Machine, function: Any, text: str) -> None:
    """Refused when the path is made, or, interpreted, when it comes to it."""
    with open_card(machine, metadata=("hash",)) as device:
        arrive(machine, bytes(PACKETS["ipv4 and udp"]))
        with pytest.raises((ixy.KernelError, AttributeError), match=text):
            ixy.Path(device.rx[0], device.tx[0], function).run(1)


def test_records(machine: Machine) -> None:
    """A record for each worker, and no path shares one; they add up; a closed path gives its record back."""
    with open_card(machine, rx_queues=2, tx_queues=2) as device:
        seen = Seen(workers=2)
        one, two = (ixy.Path(device.rx[i], device.tx[i], rewrite, seen) for i in range(2))
        with pytest.raises(ConfigurationError, match=r"workers=3"):
            ixy.Path(device.rx[0], device.tx[0], rewrite, seen)
        with pytest.raises(AttributeError, match=r"total\(\)"):
            _ = seen.packets
        arrive(machine, frame(1))
        assert one.run(2) + two.run(2) == 1
        assert sorted(seen[i].packets for i in range(2)) == [0, 1]
        total = seen.total()
        assert (total.packets, total.small, list(total.lengths)[12]) == (1, 200, 1)
    with open_card(machine) as device:
        ixy.Path(device.rx[0], device.tx[0], rewrite, seen)


def test_a_record_is_read_while_a_path_runs(machine: Machine) -> None:
    """From another thread, which sees the count rise to all that have come."""
    with open_card(machine) as device:
        seen = Seen()
        path = ixy.Path(device.rx[0], device.tx[0], rewrite, seen)
        path.run(0)
        for number in range(50):
            arrive(machine, frame(number))
        runner = threading.Thread(target=path.run)
        runner.start()
        while seen.packets < 50:
            pass
        runner.join()
        assert seen.packets == 50


def test_record_classes() -> None:
    """What fields there can be, and what is said of others."""
    with pytest.raises(TypeError, match=r"Wrong.name is 'str'"):

        class Wrong(ixy.Record):  # pyright: ignore[reportUnusedClass]
            name: str

    with pytest.raises(TypeError, match="packets is 0 at first"):

        class Begins(ixy.Record):  # pyright: ignore[reportUnusedClass]
            packets: int = 5

    with pytest.raises(TypeError, match="total: a record has that already"):

        class Hides(ixy.Record):  # pyright: ignore[reportUnusedClass]
            total: int

    class Base(ixy.Record):
        packets: int

    class More(Base):
        bytes: int
        row = ixy.array(4)

    more = More()
    more.packets = more.bytes = 7
    assert (more.packets, more.bytes, len(more.row)) == (7, 7, 4)
    with pytest.raises(TypeError, match="row is an array"):
        more.row = 5
    for count in (0, 1 << 28):
        with pytest.raises(ConfigurationError, match="count"):
            ixy.array(count)
    with pytest.raises(TypeError, match="no fields"):
        ixy.Record()

    class Entry(ixy.Record):
        key: int
        packets: ixy.uint32

    class Table(ixy.Record):
        entries = ixy.array(1 << 17, Entry)

    table = Table()
    table.entries[7].packets = -1
    table.entries[-1].key = 1 << 63
    assert (table.entries[7].packets, table.entries[(1 << 17) - 1].key) == (0xFFFFFFFF, -(1 << 63))
    assert np.asarray(table.entries)["packets"].sum() == 0xFFFFFFFF
    with pytest.raises(IndexError, match="element 131072 of an array of 131072"):
        _ = table.entries[1 << 17]
    with pytest.raises(AttributeError, match="no 'kay'; it has key, packets"):
        table.entries[0].kay = 1  # type: ignore[attr-defined]
    with open_card(Machine(stepped=True)) as device, pytest.raises(TypeError, match="record must be"):
        ixy.Path(device.rx[0], device.tx[0], rewrite, 32)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# What a kernel may ask for: the time, chance, numbers; and bytes that are put in and taken out


class Noted(ixy.Record):
    times = ixy.array(128)
    drawn = ixy.array(128)
    queues = ixy.array(128)


@ixy.kernel
def note(packet: ixy.Packet, noted: Noted) -> int:
    noted.times[packet.number] = ixy.now()
    noted.drawn[packet.number] = ixy.random(1000)
    noted.queues[packet.number] = packet.queue
    return ixy.now() == noted.times[packet.number]


def xorshift(seed: int) -> Iterator[int]:
    """What is drawn below 1000: xorshift64*, begun by SplitMix64."""
    state = (seed + 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state // 2**27) * 0x94D049BB133111EB % 2**64
    state ^= state // 2**31
    while True:
        state ^= state >> 12
        state ^= state << 25 & 2**64 - 1
        state ^= state >> 27
        yield (state * 0x2545F4914F6CDD1D % 2**64 >> 32) * 1000 >> 32


@pytest.mark.parametrize("batch", [4, 32])
def test_time_chance_and_numbers(machine: Machine, batch: int) -> None:
    """One time a batch, between those at which it was run; what is drawn follows from the seed; numbers go on."""
    noted, seed = Noted(), 12345
    with open_card(machine, rx_queues=2) as device:
        paths = [ixy.Path(rx, device.tx[0], note, noted, batch=batch, seed=seed) for rx in device.rx[1:]]
        device.set_rss_table([1])
        before = time.monotonic_ns()
        for _ in range(3):
            for number in range(batch):
                arrive(machine, bytes(ETHER / V4 / UDP(sport=number) / PAYLOAD))
            assert paths[0].run(1) == batch
        after = time.monotonic_ns()
        assert paths[0].counts == (3 * batch, 3 * batch, 0)
    count = 3 * batch
    times = np.asarray(noted.times)[:count]
    assert len(set(times)) == 3
    assert before <= times[0] <= times[-1] <= after
    assert list(times) == sorted(times)
    assert list(noted.drawn)[:count] == list(islice(xorshift(seed), count))
    assert set(list(noted.queues)[:count]) == {1}


@ixy.kernel
def draw_wrongly(packet: ixy.Packet) -> int:
    return ixy.random(packet[0] - 2)


def test_chance_needs_a_bound(machine: Machine) -> None:
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], draw_wrongly)
        arrive(machine, frame(1))
        with pytest.raises(IndexError, match=r"ixy\.random\(0\): it takes 1 to 4294967296"):
            path.run()
    with pytest.raises(RuntimeError, match="elsewhere use the module random"):
        ixy.random(10)
    assert abs(ixy.now() - time.monotonic_ns()) < 10**9


class Change(ixy.Record):
    at: int
    count: int


@ixy.kernel
def insert(packet: ixy.Packet, change: Change) -> int:
    packet.insert(change.at, change.count)
    return ixy.FORWARD


@ixy.kernel
def remove(packet: ixy.Packet, change: Change) -> int:
    packet.remove(change.at, change.count)
    return ixy.FORWARD


@pytest.mark.parametrize("batch", [1, 32])
@settings(max_examples=25, deadline=None)
@given(st.integers(60, 120), st.integers(-1, 121), st.integers(-2, 2048))
def test_bytes_put_in_and_taken_out(batch: int, size: int, at: int, count: int) -> None:
    """As with a list of bytes; what does not fit is refused, in words, and loses no buffer."""
    data, machine = frame(1, size), Machine(stepped=True)
    fits = 0 <= at <= size and count >= 0
    for function, expected, right in (
        (insert, data[:at] + bytes(max(count, 0)) + data[at:], fits and size + count <= 2048),
        (remove, data[:at] + data[at + count :], fits and at + count <= size and count < size),
    ):
        change = Change()
        change.at, change.count = at, count
        with open_card(machine) as device:
            path = ixy.Path(device.rx[0], device.tx[0], function, change, batch=batch)
            free = device.rx[0].pool.available
            arrive(machine, data)
            if right:
                path.run()
                (left,) = depart(machine)
                assert left[: len(expected)] == expected
                assert path.counts.forwarded == 1
            else:
                with pytest.raises(IndexError, match=r"byte .* of a packet of|packet.length = "):
                    path.run()
                assert path.counts.dropped == 1
                assert device.rx[0].pool.available == free


def test_bytes_put_in_and_taken_out_in_python(machine: Machine) -> None:
    data = frame(1, 80)
    device, batch = python_packet(machine, data)
    with device, batch:
        (packet,) = batch
        packet.insert(12, 4)
        assert packet[:] == data[:12] + bytes(4) + data[12:]
        packet.remove(2, 14)
        assert packet[:] == data[:2] + data[12:]
        assert len(packet) == 70
        for at, count in ((71, 1), (-1, 1), (60, 11), (0, 70), (0, -1)):
            with pytest.raises(ConfigurationError):
                packet.remove(at, count)
        for at, count in ((71, 1), (0, 2048)):
            with pytest.raises(ConfigurationError):
                packet.insert(at, count)
        assert packet[:] == data[:2] + data[12:]


MASK, WIDE, WIDER = (1 << 63) - 1, 0x1E3779B97F4A7C15, 0x4F1BBCDCBFA53E0B


class Mixed(ixy.Record):
    product: int
    sum: int


@ixy.kernel
def mix(packet: ixy.Packet, mixed: Mixed) -> int:
    one, other = packet.ipv4.src, packet.ipv4.dst
    value = (one * WIDE + other * WIDER) & MASK
    mixed.product = (value ^ value >> 32) * 0x58B76F1C93D4E5A9 & MASK
    mixed.sum = (value + mixed.product - (one << 40) * 77) & MASK
    return ixy.FORWARD


@pytest.mark.parametrize("source", ["10.1.2.3", "255.255.255.255", "0.0.0.1"])
def test_wide_products_that_are_masked(machine: Machine, source: str) -> None:
    """As integers without a limit have it: compiled code must not take a mask for superfluous."""
    mixed = Mixed()
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], mix, mixed)
        arrive(machine, bytes(ETHER / IP(src=source, dst="192.0.2.7") / UDP() / PAYLOAD))
        path.run(2)
    one, other = int(Ipv4Address(source)), 0xC0000207
    value = (one * WIDE + other * WIDER) % 2**63
    product = (value ^ value >> 32) * 0x58B76F1C93D4E5A9 % 2**63
    assert (mixed.product, mixed.sum) == (product, (value + product - one * 2**40 * 77) % 2**63)
