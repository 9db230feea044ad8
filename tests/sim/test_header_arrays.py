"""Headers of whole batches, as masked arrays: the same as those of each packet, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lab import arrive, frame, open_card
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

import ixy
from ixy.errors import OwnershipError
from ixy.headers import HEADERS, fields
from ixy.sim.machine import Machine

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
PAYLOAD = Raw(bytes(range(40)))
PACKETS = [
    ETHER / IP(src="10.1.2.3", dst="192.168.255.254", ttl=17) / UDP(sport=1024, dport=53) / PAYLOAD,
    ETHER / IPv6(src="2001:db8::1", dst="fe80::ffff:1") / TCP(sport=80, dport=8080, seq=0xFEDCBA98) / PAYLOAD,
    ETHER / Dot1Q(vlan=77, prio=5) / IP(src="255.1.2.4", dst="10.0.0.1", ttl=200) / TCP(dport=443) / PAYLOAD,
    ETHER / Raw(bytes(60)),
]


@pytest.fixture
def batch(machine: Machine) -> Iterator[ixy.Batch]:
    with open_card(machine) as device:
        for packet in PACKETS:
            arrive(machine, bytes(packet))
        with device.rx[0].receive() as received:
            yield received


@pytest.mark.parametrize("name", [*HEADERS])
def test_each_field_is_that_of_each_packet(batch: ixy.Batch, name: str) -> None:
    """Masked where the packet has no such header."""
    arrays = getattr(batch, name)
    headers = [getattr(packet, name) for packet in batch]
    assert arrays.there.tolist() == [bool(header) for header in headers]
    for field in fields(HEADERS[name]):
        found = getattr(arrays, field)
        for i, header in enumerate(headers):
            if not header:
                assert np.ma.getmaskarray(found)[i].all()
            elif isinstance(getattr(header, field), tuple):
                assert tuple(found[i]) == getattr(header, field)
            else:
                assert found[i] == getattr(header, field)


def test_numbers_worked_out_here(batch: ixy.Batch) -> None:
    assert batch.ipv4.src.tolist() == [0x0A010203, None, 0xFF010204, None]
    assert (batch.ipv4.dst == ixy.Ipv4Address("10.0.0.1")).tolist() == [False, None, True, None]
    assert batch.tcp.dport.compressed().tolist() == [8080, 443]
    assert batch.tcp.seq[1] == 0xFEDCBA98
    assert batch.ipv6.src[1].tolist() == [0x20010DB800000000, 1]
    assert batch.ipv6.dst[1].tolist() == [0xFE80000000000000 - 2**64, 0xFFFF0001]
    assert batch.vlan.priority.tolist() == [None, None, 5, None]
    assert str(batch.udp) == "<udp of 1 of 4 packets>"


def test_what_is_assigned_is_written_to_those_that_have_it(batch: ixy.Batch) -> None:
    """Numbers, arrays, text; bits beside a field stay, and so does every other byte."""
    before = [packet[:] for packet in batch]
    batch.ipv4.ttl -= 1
    batch.ipv4.src = "172.16.0.9"
    batch.tcp.sport = np.ma.MaskedArray([1, 2, 3, 4], [False, False, True, False])
    batch.vlan.id = [1, 2, 3, 4]
    batch.ipv6.dst = "2001:db8::7"
    batch.eth.src = 0x020000000009
    batch.ipv4.update_checksum()
    expected = [Ether(data) for data in before]
    expected[0][IP].ttl, expected[2][IP].ttl = 16, 199
    for each in (expected[0], expected[2]):
        each[IP].src = "172.16.0.9"
        del each[IP].chksum
    expected[1][TCP].sport = 2
    expected[1][IPv6].dst = "2001:db8::7"
    expected[2][Dot1Q].vlan = 3
    for each in expected:
        each.src = "02:00:00:00:00:09"
    assert [packet[:] for packet in batch] == [bytes(each) for each in expected]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint64, np.int64])
def test_arrays_of_any_integers(batch: ixy.Batch, kind: type[np.integer[Any]]) -> None:
    """A field may have more bits than the numbers that are assigned."""
    numbers = np.array([1, 2, 3, 4], kind)
    batch.ipv4.src = numbers
    batch.vlan.priority = numbers
    batch.tcp.seq = numbers
    assert batch.ipv4.src.tolist() == [1, None, 3, None]
    assert batch.vlan.priority.tolist() == [None, None, 3, None]
    assert batch.tcp.seq.tolist() == [None, 2, 3, None]


def test_what_is_wrong_is_said(batch: ixy.Batch) -> None:
    with pytest.raises(AttributeError, match=r"batch\.ipv4 has no 'sourc'; it has version, ihl, .*update_checksum"):
        _ = batch.ipv4.sourc
    with pytest.raises(AttributeError, match=r"batch\.udp has no 'port'"):
        batch.udp.port = 7
    with pytest.raises(TypeError, match=r"packet\.udp\.dport is a number"):
        batch.udp.dport = "http"
    with pytest.raises(ValueError, match="broadcast"):
        batch.udp.dport = [1, 2]
    header: Any = batch.ipv4
    batch.free()
    for use in (lambda: header.src, lambda: batch.ipv4, header.update_checksum):
        with pytest.raises(OwnershipError, match="this batch was sent or freed"):
            use()


def test_what_is_left_when_some_were_sent(batch: ixy.Batch) -> None:
    """Headers that were named before are those of the packets that are still there."""
    ipv4, expected = batch.ipv4, Ether(batch[2][:])
    with ixy.Ring(32) as ring, ixy.Mempool(64) as pool:
        with pool.allocate(30) as others:
            ring.tx.send(others)
        assert ring.tx.send(batch) == 2
        assert ipv4.there.tolist() == [True, False]
        ipv4.ttl = 9
        ipv4.update_checksum()
        expected[IP].ttl = 9
        del expected[IP].chksum
        assert [packet[:] for packet in batch] == [bytes(expected), bytes(PACKETS[3])]


def test_a_header_that_was_cut(machine: Machine) -> None:
    """A packet that was cut within a header after it was received has it no more, for its arrays as for the packet."""
    with open_card(machine) as device:
        arrive(machine, bytes(PACKETS[0]))
        arrive(machine, frame(1))
        with device.rx[0].receive() as batch:
            udp = batch.udp
            batch[0].length = 38
            assert (udp.sport.tolist(), udp.dport.tolist()) == ([None, None], [None, None])
            assert not batch[0].udp
            udp.length = 9
            batch[0].length = 60
            assert udp.length[0] == 48
