"""Captures as arrays and Arrow tables: the same fields that Scapy finds, whatever the packets and the file are like."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import zstandard
from mixed_traffic import traffic
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import NoPayload, Packet, Raw
from scapy.utils import PcapNgWriter

import ixy
from ixy.captures import table as tables
from ixy.errors import CaptureError, ConfigurationError, FilterError
from ixy.headers import HEADERS

SECOND = 10**9
EVERYTHING = tuple(HEADERS)


def pcap(packets: list[tuple[int, bytes, int]], order: str = "<", nanoseconds: bool = True, link: int = 1) -> bytes:
    """A pcap file of packets: time in ns, bytes, length on the wire."""
    tick = 1 if nanoseconds else 1000
    content = struct.pack(f"{order}IHHIIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for time, data, length in packets:
        content += struct.pack(f"{order}IIII", time // SECOND, time % SECOND // tick, len(data), length) + data
    return content


def block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def pcapng(packets: list[tuple[int, bytes]], resolution: int = 9) -> bytes:
    """A pcapng file of packets: a stamp of 64 bits in units of that resolution, bytes."""
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    options = struct.pack("<HHB3xHH4s", 9, 1, resolution, 2, 4, b"eth7")
    content = section + block(1, struct.pack("<HHI", 1, 0, 0) + options)
    for stamp, data in packets:
        stamp &= 2**64 - 1
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
        content += block(6, head + data + bytes(-len(data) % 4))
    return content


def file_of(tmp_path: Path, content: bytes, name: str = "in.pcap") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def udp(number: int) -> bytes:
    """A datagram from 10.0.x.y to port `number`."""
    host = f"10.0.{number >> 8 & 0xFF}.{number & 0xFF}"
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=host) / UDP(dport=number) / "data")


# ---------------------------------------------------------------------------------------------------------------------
# Beside Scapy

_EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting, IPv6ExtHdrFragment, AH)
_MAC, _IP = (lambda text: int(ixy.MacAddress(text))), (lambda text: int(ixy.Ipv4Address(text)))


def _wide(text: str) -> tuple[int, int]:
    return struct.unpack(">qq", int(ixy.Ipv6Address(text)).to_bytes(16))


# How Scapy names each field, and makes the number of it
_SCAPYS: dict[str, dict[str, Any]] = {
    "eth": {"dst": lambda p: _MAC(p.dst), "src": lambda p: _MAC(p.src), "type": lambda p: p.type},
    "vlan": {"priority": lambda p: p.prio, "dei": lambda p: p.dei, "id": lambda p: p.vlan, "type": lambda p: p.type},
    "arp": {
        "hardware": lambda p: p.hwtype,
        "protocol": lambda p: p.ptype,
        "hardware_size": lambda p: p.hwlen,
        "protocol_size": lambda p: p.plen,
        "operation": lambda p: p.op,
        "sender_mac": lambda p: _MAC(p.hwsrc),
        "sender": lambda p: _IP(p.psrc),
        "target_mac": lambda p: _MAC(p.hwdst),
        "target": lambda p: _IP(p.pdst),
    },
    "ipv4": {
        "version": lambda p: p.version,
        "ihl": lambda p: p.ihl,
        "tos": lambda p: p.tos,
        "length": lambda p: p.len,
        "id": lambda p: p.id,
        "df": lambda p: int(p.flags.DF),
        "mf": lambda p: int(p.flags.MF),
        "offset": lambda p: p.frag,
        "ttl": lambda p: p.ttl,
        "protocol": lambda p: p.proto,
        "checksum": lambda p: p.chksum,
        "src": lambda p: _IP(p.src),
        "dst": lambda p: _IP(p.dst),
    },
    "ipv6": {
        "version": lambda p: p.version,
        "traffic_class": lambda p: p.tc,
        "flow": lambda p: p.fl,
        "length": lambda p: p.plen,
        "next_header": lambda p: p.nh,
        "hop_limit": lambda p: p.hlim,
        "src": lambda p: _wide(p.src),
        "dst": lambda p: _wide(p.dst),
    },
    "icmp": {"type": lambda p: p.type, "code": lambda p: p.code, "checksum": lambda p: p.chksum},
    "icmp6": {"type": lambda p: p.type, "code": lambda p: p.code, "checksum": lambda p: p.cksum},
    "tcp": {
        "sport": lambda p: p.sport,
        "dport": lambda p: p.dport,
        "seq": lambda p: p.seq,
        "ack": lambda p: p.ack,
        "offset": lambda p: p.dataofs,
        "flags": lambda p: int(p.flags) & 0xFF,
        "is_ack": lambda p: int(p.flags.A),
        "is_rst": lambda p: int(p.flags.R),
        "is_syn": lambda p: int(p.flags.S),
        "is_fin": lambda p: int(p.flags.F),
        "window": lambda p: p.window,
        "checksum": lambda p: p.chksum,
        "urgent": lambda p: p.urgptr,
    },
    "udp": {
        "sport": lambda p: p.sport,
        "dport": lambda p: p.dport,
        "length": lambda p: p.len,
        "checksum": lambda p: p.chksum,
    },
    "vxlan": {"flags": lambda p: int(p.flags), "vni": lambda p: p.vni},
    "gre": {"protocol": lambda p: p.proto},
}


_VXLAN = (b"\x08", b"\x0c")  # flags: there is a number; and what is behind it is told


def _of_scapy(data: bytes) -> dict[str, Packet]:
    """The outermost headers of a frame, as Scapy finds them, by our names."""
    packet: Any = Ether(data)
    found = {"eth": packet}
    packet = packet.payload
    for _ in range(2):
        if isinstance(packet, (Dot1Q, Dot1AD)):
            found.setdefault("vlan", packet)
            packet = packet.payload
    if isinstance(packet, ARP):
        found["arp"] = packet
    elif isinstance(packet, IP):
        found["ipv4"], packet = packet, packet.payload
    elif isinstance(packet, IPv6):
        found["ipv6"], packet = packet, packet.payload
        while isinstance(packet, _EXTENSIONS):
            packet = packet.payload
    else:
        packet = NoPayload()
    kinds = {"tcp": TCP, "udp": UDP, "gre": GRE, "icmp": ICMP, "icmp6": (ICMPv6EchoRequest, ICMPv6ND_NS)}
    for name, kind in kinds.items():
        if (
            isinstance(packet, kind)
            and ("ipv4" in found) >= (name == "icmp")
            and ("ipv6" in found) >= (name == "icmp6")
        ):
            found[name] = packet
    if "udp" in found and packet.dport == 4789 and packet.original[8:9] in _VXLAN and len(packet.original) >= 16:
        found["vxlan"] = VXLAN(packet.original[8:])  # which by itself Scapy takes for DNS where the other port is 53
    return found


def _number(name: str, field: str, header: Any) -> Any:
    """A field as Scapy has it."""
    if name == "eth" and field == "type" and not isinstance(header, Ether):
        return header.len  # IEEE 802.3
    return _SCAPYS[name][field](header)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[bytes, int]], ixy.CaptureTable]:
    """Packets of all kinds, every second one whole, and the table of a file of them."""
    packets = traffic(2000)
    content = pcap([(i * SECOND, data, length) for i, (data, length) in enumerate(packets)])
    path = file_of(tmp_path_factory.mktemp("mixed"), content)
    return packets, ixy.read_capture(path, EVERYTHING)


def test_fields_are_those_that_scapy_finds(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    """In whole packets the same headers; wherever both find one, also in what is damaged or cut, the same numbers."""
    packets, table = mixed
    compared = dict.fromkeys(_SCAPYS, 0)
    for i, (data, _) in enumerate(packets):
        whole = i % 2 == 0
        theirs = _of_scapy(data) if len(data) >= 14 else {}
        for name, known in _SCAPYS.items():
            absent = table.absent(f"{name}.x")
            assert absent is not None
            if whole and name != "vxlan":  # by the port alone, other protocols are taken for it
                assert (name in theirs) is not bool(absent[i]), (i, name, data.hex())
            if name not in theirs or absent[i] or (name == "arp" and not whole):
                continue
            compared[name] += 1
            for field in known:
                ours = table[f"{name}.{field}"][i]
                number = tuple(ours.tolist()) if np.ndim(ours) else int(ours)
                assert number == _number(name, field, theirs[name]), (i, name, field, data.hex())
    assert min(compared.values()) > 10, compared


def test_packets_by_themselves(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    """What is there of every packet."""
    packets, table = mixed
    assert table["captured"].tolist() == [len(data) for data, _ in packets]
    assert table["length"].tolist() == [length for _, length in packets]
    assert table["time"].tolist() == [i * SECOND for i in range(2000)]
    assert not table["interface"].any()


@pytest.mark.once
def test_types_are_as_small_as_can_be(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    _, table = mixed
    kinds = {"tcp.is_syn": "u1", "udp.dport": "u2", "vlan.id": "u2", "ipv4.src": "u4", "vxlan.vni": "u4"}
    kinds |= {"ipv6.flow": "u4", "eth.src": "u8", "time": "M8[ns]", "length": "i8"}
    assert {name: table[name].dtype for name in kinds} == {name: np.dtype(kind) for name, kind in kinds.items()}
    assert table["ipv6.src"].shape == (2000, 2)


@pytest.mark.once
def test_the_structured_array_has_all_columns(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    _, table = mixed
    rows = table.to_numpy()
    assert rows.dtype.names == table.columns
    for name in ("time", "length", "ipv4.src", "ipv6.dst", "tcp.flags"):
        assert rows[name].tolist() == table[name].tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Arrow


def test_arrow_values_are_numpys(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    """Null where a packet has no such header; addresses as numbers, and 16 bytes."""
    _, table = mixed
    arrow = table.to_arrow(text=False)
    assert tuple(arrow.column_names) == table.columns
    assert arrow.schema.field("time").type == pyarrow.timestamp("ns", tz="UTC")
    assert arrow["time"].cast(pyarrow.int64()).to_pylist() == table["time"].astype(np.int64).tolist()
    for name in table.columns[1:]:
        column = table[name]
        expected = column.tolist()
        if column.ndim == 2:
            expected = [None if None in row else struct.pack(">qq", *row) for row in expected]
        assert arrow[name].to_pylist() == expected, name


@pytest.mark.once
def test_arrow_addresses_are_texts(mixed: tuple[list[tuple[bytes, int]], ixy.CaptureTable]) -> None:
    packets, table = mixed
    arrow = table.to_arrow()
    for name in ("eth.src", "ipv4.src", "ipv6.dst", "arp.sender"):
        assert arrow.schema.field(name).type == pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    for header, field, theirs in (("eth", "src", "src"), ("ipv4", "src", "src"), ("ipv6", "dst", "dst")):
        texts = arrow[f"{header}.{field}"].to_pylist()
        for text, (data, _) in list(zip(texts, packets, strict=True))[::2]:  # those that are whole
            found = _of_scapy(data).get(header)
            assert text == (found and getattr(found, theirs))


@pytest.mark.once
def test_without_pyarrow(tmp_path: Path) -> None:
    path = file_of(tmp_path, pcap([(0, udp(7), 60)]))
    program = "import sys; sys.modules['pyarrow'] = None; import ixy; ixy.read_capture(sys.argv[1], ()).to_arrow()"
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert ended.stderr.endswith("ConfigurationError: Arrow tables need pyarrow; run: pip install 'ixy[arrow]'\n")


# ---------------------------------------------------------------------------------------------------------------------
# Files


def numbers(table: ixy.CaptureTable) -> list[int]:
    return table["udp.dport"].tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [True, False])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_pcap_of_any_kind(tmp_path: Path, order: str, nanoseconds: bool, pack: Any) -> None:
    content = pcap([(7_000_001_000, udp(53), 99), (3 * SECOND, udp(54), 47)], order, nanoseconds)
    table = ixy.read_capture(file_of(tmp_path, pack(content)))
    assert table["time"].tolist() == [7_000_001_000, 3 * SECOND]
    assert (table["captured"].tolist(), table["length"].tolist()) == ([46, 46], [99, 47])
    assert (numbers(table), table.damage) == ([53, 54], None)


def test_pcapng_with_interfaces(tmp_path: Path) -> None:
    table = ixy.read_capture(file_of(tmp_path, pcapng([(5, udp(53)), (6, udp(54))])), ["udp.dport"])
    assert (table.interfaces, table["interface"].tolist(), numbers(table)) == (["eth7"], [0, 0], [53, 54])


def test_other_links_are_read_as_ethernet(tmp_path: Path) -> None:
    """Raw IP; as in a replay, with Ethernet headers that the file does not have."""
    content = pcap([(0, udp(53)[14:], 32)], link=101)
    table = ixy.read_capture(file_of(tmp_path, content), ["eth.type", "udp.dport"])
    assert (table["eth.type"].tolist(), numbers(table), table["length"].tolist()) == ([0x0800], [53], [46])


@pytest.mark.parametrize(
    ("resolution", "stamp", "moment"),
    [
        (9, -1, -1),  # a nanosecond before 1970
        (6, -86_400 * 10**6, -86_400 * SECOND),
        (9, 4_102_444_800 * SECOND, 4_102_444_800 * SECOND),  # in 2100
        (6, 20_000_000_000 * 10**6, (2**63 // SECOND - 1) * SECOND),  # in 2603: the last that can be told
        (6, -(20_000_000_000 * 10**6), -(2**63 // SECOND - 1) * SECOND),
        (9, -(2**63), -(2**63)),
    ],
)
def test_times_far_away(tmp_path: Path, resolution: int, stamp: int, moment: int) -> None:
    table = ixy.read_capture(file_of(tmp_path, pcapng([(stamp, udp(53)), (0, udp(54))], resolution)))
    assert table["time"].astype(np.int64).tolist() == [moment, 0]
    assert table.to_arrow()["time"].cast(pyarrow.int64()).to_pylist() == [moment, 0]
    assert numbers(table) == [53, 54]


def test_times_of_pcap_reach_beyond_2038(tmp_path: Path) -> None:
    table = ixy.read_capture(file_of(tmp_path, pcap([((2**32 - 1) * SECOND, udp(53), 46)])), ())
    assert table["time"][0].astype("M8[s]").item() == datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC).replace(tzinfo=None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and columns of which many are needed."""
    monkeypatch.setattr(tables, "_PART", 16)
    monkeypatch.setattr(tables, "_FIRST", 24)


@pytest.fixture
def many(tmp_path: Path, small: None) -> Path:  # noqa: ARG001
    """A file of 200 datagrams to ports 0 to 199, of rising sizes."""
    return file_of(tmp_path, pcap([(i, udp(i) + bytes(i), 60) for i in range(200)]))


@pytest.mark.parametrize("expression", [None, "udp dst portrange 100-117", "udp dst port 199", "tcp"])
@pytest.mark.parametrize("packets", [1, 16, 17, 200, 1000])
def test_chunks_are_the_whole(many: Path, expression: str | None, packets: int) -> None:
    """A filter takes what it takes of a `ixy.filter`; each chunk but the last is full."""
    accepted = {None: range(200), "tcp": [], "udp dst port 199": [199]}.get(expression, range(100, 118))
    whole = ixy.read_capture(many, filter=expression)
    chunks = list(ixy.capture_chunks(many, filter=expression, packets=packets))
    assert numbers(whole) == [*accepted]
    assert [number for chunk in chunks for number in numbers(chunk)] == [*accepted]
    assert all(len(chunk) == packets for chunk in chunks[:-1])
    assert chunks[0].columns == whole.columns


@pytest.mark.parametrize("packets", [7, 1000])
def test_of_a_file_that_was_cut_the_rest_is_there(many: Path, packets: int) -> None:
    """The last chunk tells where it ends, and no other one."""
    content = many.read_bytes()
    many.write_bytes(content[:-100])
    whole = ixy.read_capture(many)
    assert numbers(whole) == [*range(199)]
    start = len(content) - 16 - 46 - 199
    assert whole.damage == f"packet 200 at byte {start}: truncated: 145 of 245 bytes"
    assert repr(whole).endswith(f"udp.dport, damaged {whole.damage}>")
    chunks = list(ixy.capture_chunks(many, packets=packets))
    assert sum(map(len, chunks)) == 199
    assert [chunk.damage for chunk in chunks] == [None] * (len(chunks) - 1) + [whole.damage]


@pytest.mark.once
def test_a_file_without_packets(tmp_path: Path) -> None:
    path = file_of(tmp_path, pcap([]))
    table = ixy.read_capture(path, ("ipv6.src", "eth.src"))
    assert (len(table), table.damage, len(table.to_numpy())) == (0, None, 0)
    assert table.to_arrow().num_rows == 0
    assert [len(chunk) for chunk in ixy.capture_chunks(path)] == [0]


@pytest.mark.once
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated: 0 bytes of a pcap file's header of 24"),
        (b"\x7fELF\x02\x01\x01\x00" * 9, "not a pcap or pcapng file: it begins with 7f 45 4c 46"),
        (pcap([], link=105), "link type 105 (IEEE 802.11), which no Ethernet can be made of"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    """Refused at once, in one line."""
    path = file_of(tmp_path, content)
    for read in (ixy.read_capture, ixy.capture_chunks):
        with pytest.raises(CaptureError) as raised:
            read(path)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for


@pytest.mark.once
def test_a_header_means_all_its_fields(tmp_path: Path) -> None:
    path = file_of(tmp_path, pcap([(0, udp(53), 46)]))
    table = ixy.read_capture(path, ("udp", "time", "udp.dport", "ipv4.ttl"))
    assert table.columns[4:] == ("udp.sport", "udp.dport", "udp.length", "udp.checksum", "ipv4.ttl")
    assert (table["ipv4.ttl"] == 64).all()
    assert ixy.read_capture(path, ()).columns == ("time", "captured", "length", "interface")


@pytest.mark.once
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (("ipv4.sorc",), ConfigurationError, "field 'ipv4.sorc': ipv4 has version, ihl,"),
        (("ip.src",), ConfigurationError, "field 'ip.src': headers are eth, vlan,"),
        ("ipv4.src", TypeError, "fields must be names, such as"),
        ((4,), TypeError, "a field is a name such as 'ipv4.src', not 4"),
    ],
)
def test_fields_that_are_none(tmp_path: Path, fields: Any, error: type[Exception], words: str) -> None:
    path = file_of(tmp_path, pcap([]))
    for read in (ixy.read_capture, ixy.capture_chunks):
        with pytest.raises(error, match=words):
            read(path, fields)


@pytest.mark.once
def test_what_else_is_wrong(tmp_path: Path) -> None:
    path = file_of(tmp_path, pcap([]))
    with pytest.raises(FilterError, match="syntax error"):
        ixy.read_capture(path, filter="udp port")
    with pytest.raises(ConfigurationError, match="packets 0"):
        ixy.capture_chunks(path, packets=0)
    with pytest.raises(KeyError, match=r"no column 'tcp\.seq': there are time"):
        ixy.read_capture(path)["tcp.seq"]


def test_addresses_compare_with_ours(tmp_path: Path) -> None:
    frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IPv6(src="2001:db8::7") / Raw(b"x"))
    path = file_of(tmp_path, pcap([(0, udp(1), 46), (0, udp(2), 46), (0, frame, len(frame))]))
    table = ixy.read_capture(path, ("ipv4.src", "ipv6.src"))
    assert (table["ipv4.src"] == ixy.Ipv4Address("10.0.0.2")).tolist() == [False, True, None]
    assert ixy.Ipv6Address(tuple(table["ipv6.src"][2].tolist())) == "2001:db8::7"


def test_a_file_that_scapy_has_written(tmp_path: Path) -> None:
    with PcapNgWriter(str(tmp_path / "scapy.pcapng")) as writer:
        for number in range(3):
            writer.write(Ether(udp(number)))
    assert numbers(ixy.read_capture(tmp_path / "scapy.pcapng")) == [0, 1, 2]
