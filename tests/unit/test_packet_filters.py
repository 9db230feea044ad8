"""Filters in tcpdump's language: libpcap's own filter judges interpreter and machine code, on mixed traffic."""

from __future__ import annotations

import ctypes
import pickle
import struct
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from mixed_traffic import EXPRESSIONS, traffic
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

import ixy
from ixy.bpf import Instruction, run, verify
from ixy.unsafe import libpcap
from ixy.unsafe.filters import accepts, matcher
from ixy.unsafe.libpcap_main import compile_text

DNS = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP() / UDP(sport=1000, dport=53) / b"question")
WEB = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP() / UDP(sport=1000, dport=80) / b"question")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("usec", ctypes.c_long), ("caplen", ctypes.c_uint32), ("len", ctypes.c_uint32)]


class Libpcap:
    """libpcap as a judge: it compiles an expression, and runs it in its own interpreter."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libpcap.so.0.8")
        self._library.pcap_open_dead.restype = ctypes.c_void_p
        place, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
        self._library.pcap_compile.argtypes = [place, place, text, ctypes.c_int, number]
        self._library.pcap_offline_filter.argtypes = [place, place, text]
        self._handle = self._library.pcap_open_dead(1, 262144)

    def compile(self, expression: str, optimize: bool) -> _Program | None:
        program = _Program()
        failed = self._library.pcap_compile(
            self._handle, ctypes.byref(program), expression.encode(), optimize, 0xFFFFFFFF
        )
        return None if failed else program

    def answers(self, program: _Program, packets: list[tuple[bytes, int]]) -> list[int]:
        """The value for each packet, as an unsigned number."""
        header, ask = _Header(), self._library.pcap_offline_filter
        where, place = ctypes.byref(program), ctypes.byref(header)
        values = []
        for packet, length in packets:
            header.caplen, header.len = len(packet), length
            values.append(ask(where, place, packet) & 0xFFFFFFFF)
        return values


@pytest.fixture(scope="module")
def packets() -> list[tuple[bytes, int]]:
    return traffic(5000)


def test_equal_to_libpcap(packets):
    """On 5,000 packets each program, optimised and not, returns what libpcap's own interpreter does."""
    libpcap = Libpcap()
    refused, both, different = [], 0, []
    for expression in EXPRESSIONS:
        for optimize in (True, False):
            program = libpcap.compile(expression, optimize)
            if program is None:
                with pytest.raises(ixy.FilterError):
                    ixy.filter(expression, optimize=optimize)
                refused.append(expression)
                continue
            match = matcher(ixy.filter(expression, optimize=optimize).program)
            answers = libpcap.answers(program, packets)
            both += len(set(map(bool, answers))) == 2
            if [match(packet, len(packet), length) for packet, length in packets] != answers:
                different.append((expression, optimize))
    assert different == []
    assert len(EXPRESSIONS) > 150
    assert len(refused) < 10
    assert both > 250  # most of them have hits and misses


def test_array_of_packets(packets):
    """What lies in an array is told apart as one by one."""
    data = np.frombuffer(b"".join(packet for packet, _ in packets), np.uint8)
    sizes = np.array([len(packet) for packet, _ in packets])
    lengths = np.array([length for _, length in packets])
    udp = ixy.filter("udp or len > 200")
    found = udp.matching(data, np.cumsum(sizes) - sizes, sizes, lengths)
    assert found.tolist() == [udp(packet, length) for packet, length in packets]
    assert 0 < np.count_nonzero(found) < len(packets)


def test_array_is_checked():
    udp = ixy.filter("udp")
    data = np.zeros(100, np.uint8)
    for starts, sizes in (([50], [51]), ([-1], [5]), ([0], [-1]), ([0, 1], [5])):
        with pytest.raises(ValueError, match=r"data|starts"):
            udp.matching(data, np.array(starts), np.array(sizes), np.array(sizes))


def test_what_a_filter_takes():
    """A packet's bytes in any form; and nothing else."""
    dns = ixy.filter("udp port 53")
    forms = (bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8), Ether)
    assert all(dns(form(DNS)) is True and dns(form(WEB)) is False for form in forms)
    for wrong in (None, 5, "packet", np.zeros(5, np.int64)):
        with pytest.raises(TypeError, match="a filter takes a packet"):
            dns(wrong)


def test_length_on_the_wire():
    """`len` is the packet's, not that of what is left of it."""
    long = ixy.filter("greater 1000")
    assert not long(DNS)
    assert long(DNS, 1000)


def test_a_batch(pool):
    """A batch is told apart at once; packets that were freed are not looked at."""
    dns = ixy.filter("udp port 53")
    batch = pool.allocate(3, len(DNS))
    for packet, content in zip(batch, (DNS, WEB, DNS), strict=True):
        packet[:] = content
    assert dns(batch).tolist() == [True, False, True]
    assert [dns(packet) for packet in batch] == [True, False, True]
    batch.free()
    with pytest.raises(ixy.OwnershipError):
        dns(batch)


@pytest.fixture
def pool():
    with ixy.Mempool(64) as pool:
        yield pool


def test_address_for_loops():
    """A loop that takes a filter as data calls it by its address; 0 is none, which all packets pass."""
    data = np.frombuffer(DNS + WEB, np.uint8)
    accept = getattr(accepts, "py_func", None) or _calling(accepts)
    address = ixy.filter("udp port 53").address
    assert address == ixy.filter("udp port 53").address != 0
    assert accept(address, data, 0, len(DNS), len(DNS))
    assert not accept(address, data, len(DNS), len(WEB), len(WEB))
    assert accept(0, data, len(DNS), len(WEB), len(WEB))


def _calling(intrinsic):
    from ixy.jit import compiled

    @compiled
    def call(address, data, start, size, length):
        return intrinsic(address, data, start, size, length)

    return call


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("udp prt 53", "syntax error"),
        ("host", "syntax error"),
        ("ip[", "syntax error"),
        ("port 70000", "illegal port number"),
        ("ip broadcast", "netmask not known"),
        ("vlan 5000", "VLAN tag"),
        ("udp\0", "NUL"),
        ("host 1.2.3.4 and vlan 5", "rejects all packets"),
        ("((((", "syntax error"),
    ],
)
def test_malformed(expression, reason):
    """libpcap's own message, in one line."""
    with pytest.raises(ixy.FilterError, match=reason) as caught:
        ixy.filter(expression)
    assert "\n" not in str(caught.value)


@pytest.mark.once
def test_long_expressions(monkeypatch):
    """Of a thousand characters and more, they mean the same. What is wrong with one is said in a line; so is that
    libpcap takes too long, whose time grows with the square of the number of terms at least."""
    hosts = " or ".join(f"host 10.0.{i}.2" for i in range(100))
    chosen = ixy.filter(hosts)
    assert struct.pack("HBBI" * len(chosen.program), *chain(*chosen.program)) == compile_text(hosts.encode(), True)
    assert [chosen(bytes(Ether() / IP(src=f"10.0.{i}.2"))) for i in (0, 99, 100)] == [True, True, False]
    with pytest.raises(ixy.FilterError, match=r"^filter .*\(\d+ characters\): .*: syntax error") as caught:
        ixy.filter(f"{hosts} or host")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(libpcap, "_PATIENCE", 0.1)
    with pytest.raises(ixy.FilterError, match=r"takes more than 0\.1 seconds .*portrange") as caught:
        ixy.filter(" or ".join(f"port {i}" for i in range(5000)))
    assert "\n" not in str(caught.value)


def test_no_text():
    with pytest.raises(TypeError, match="a filter is a text"):
        ixy.filter(53)


@pytest.mark.once
def test_without_libpcap():
    """It is said what to install."""
    script = (
        "import ctypes\n"
        "load = ctypes.CDLL\n"
        "def others(name, **options):\n"
        "    if 'pcap' in str(name): raise OSError\n"
        "    return load(name, **options)\n"
        "ctypes.CDLL = others\n"
        "import ixy\n"
        "ixy.filter('udp')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "FilterError: filters are compiled by libpcap, which is not installed: apt-get install" in ended.stderr


def test_order_of_vlan_and_host():
    """Behind `vlan` headers are looked for behind the tag. What was asked for before it, such a packet has not."""
    from scapy.layers.l2 import Dot1Q

    tagged = bytes(Ether() / Dot1Q(vlan=5) / IP(src="1.2.3.4") / UDP())
    assert ixy.filter("vlan 5 and host 1.2.3.4")(tagged)
    assert not ixy.filter("host 1.2.3.4 and (vlan 5 or tcp)")(tagged)


@pytest.mark.once
@pytest.mark.parametrize(
    "program",
    [
        [],
        [(0x00, 0, 0, 1)],  # does not return
        [(0x15, 1, 0, 1), (0x06, 0, 0, 0)],  # jumps beyond the end
        [(0x05, 0, 0, 1), (0x06, 0, 0, 0)],
        [(0x05, 0, 0, 0xFFFFFFFE), (0x06, 0, 0, 0)],  # jumps before the beginning
        [(0x02, 0, 0, 16), (0x06, 0, 0, 0)],  # word 16 of a memory of 16
        [(0x60, 0, 0, 99), (0x06, 0, 0, 0)],
        [(0xFF, 0, 0, 0), (0x06, 0, 0, 0)],  # no such instructions
        [(0x18, 0, 0, 0), (0x06, 0, 0, 0)],
        [(0x55, 0, 0, 0), (0x06, 0, 0, 0)],
        [(0x106, 0, 0, 0)],
    ],
)
def test_unsafe_programs_are_refused(program):
    with pytest.raises(ixy.FilterError):
        verify(tuple(Instruction(*each) for each in program))


@pytest.mark.once
def test_interpreter_by_hand():
    """What libpcap never generates: X and A wrap around, and A may be what is returned."""
    program = [(0x00, 0, 0, 0xFFFFFFFF), (0x04, 0, 0, 7), (0x07, 0, 0, 0), (0x87, 0, 0, 0), (0x16, 0, 0, 0)]
    program = verify(tuple(Instruction(*each) for each in program))
    assert run(program, b"", 0) == 6
    assert matcher(program)(b"", 0, 0) == 6


def test_repr_and_pickle():
    udp = ixy.filter("udp")
    assert repr(udp) == "ixy.filter('udp')"
    assert pickle.loads(pickle.dumps(udp))(DNS)


def test_a_long_expression_is_not_told_whole() -> None:
    """Of thousands of characters a message has the first and the last ones, and says how many they are."""
    expression = "host 10.0.0.1 or " * 500 + "no such thing"
    with pytest.raises(ixy.FilterError) as error:
        ixy.filter(expression)
    assert f"({len(expression)} characters)" in str(error.value)
    assert len(str(error.value)) < 400
