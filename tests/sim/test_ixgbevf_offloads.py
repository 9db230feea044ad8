"""What virtual functions of a simulated 82599 do to packets: checksums, tags, segments, frames over several buffers.

Expected values are Scapy's. Frames go along the wire, and to another function of the same card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from lab import frame, receive_all
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

import ixy
from ixy import Flags
from ixy.device import Device
from ixy.errors import ConfigurationError
from ixy.packets.mempool import Mempool
from ixy.sim.machine import Machine

COLUMNS = ("flags", "vlan", "segments", "parts")
ALL = ("checksum", "vlan", "segmentation")
OWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
TO_WIRE = Ether(src=OWN, dst="02:11:11:11:11:11")


class Functions:
    """Function 0, which does all, function 1, and card b at the end of the wire."""

    def __init__(self, mtu: int | None = None) -> None:
        self.machine = Machine(stepped=True)
        self.pool = Mempool(256)
        self._stack = ExitStack()
        self._stack.callback(self.pool.release)
        options = {"ring_size": 128, "pool_size": 400, "mtu": mtu, "metadata": COLUMNS}
        self.first = self._open(f"sim:a.vf0,vfs=2,cable=b,mac={OWN}", offloads=ALL, **options)
        self.second = self._open(f"sim:a.vf1,mac={OTHER}", **options)
        self.wire = self._open("sim:b", **options)

    def _open(self, address: str, **options: object) -> Device:
        return self._stack.enter_context(
            ixy.open(address, sim=self.machine, link_timeout=0, **options)  # type: ignore[arg-type]
        )

    def send(
        self, data: bytes, *, flags: int = 0, vlan: int = 0, segment: int = 0, sender: Device | None = None
    ) -> None:
        """One packet, in as many buffers as it needs."""
        with self.pool.allocate(1, len(data), metadata=COLUMNS) as batch:
            batch[0][:] = data
            batch.flags, batch.vlans, batch.segments = flags, vlan, segment
            assert (sender or self.first).tx[0].send(batch) == 1
        quiet = 0
        while quiet < 3:
            quiet = quiet + 1 if self.machine.step() == 0 else 0

    def close(self) -> None:
        """All buffers come home."""
        for device in (self.first, self.second, self.wire):
            device.close()
        assert self.pool.available == 256
        self._stack.close()


@pytest.fixture
def functions() -> Iterator[Functions]:
    functions = Functions()
    yield functions
    functions.close()


@pytest.fixture
def jumbo() -> Iterator[Functions]:
    functions = Functions(mtu=9000)
    yield functions
    functions.close()


def bare(packet: Packet, layer: type[Packet]) -> bytes:
    """Without the checksum of a layer, and nonsense in its place."""
    copy = packet.copy()
    copy[layer].chksum = 0x1234
    if copy.haslayer(IP):
        copy[IP].chksum = 0x5678
    return bytes(copy)


@pytest.mark.parametrize("network", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fe80::1", dst="fe80::2")])
@pytest.mark.parametrize("transport", [UDP(sport=1, dport=2), TCP(sport=1, dport=2, seq=3)])
def test_checksums(functions: Functions, network: Packet, transport: Packet) -> None:
    wanted = TO_WIRE / network / transport / Raw(bytes(range(100)))
    given = bare(wanted, type(transport))
    assert given != bytes(wanted)
    functions.send(given, flags=Flags.IP_PARTIAL | Flags.L4_PARTIAL)
    assert receive_all(functions.wire) == [bytes(wanted)]


def test_tags(functions: Functions) -> None:
    """The function may send in VLANs that it is a member of, and no others: those are spoofed (7.10.3.9.2)."""
    functions.first.set_vlan_filter(7, True)
    data = frame(1, 100, bytes.fromhex("021111111111"))
    data = data[:6] + bytes.fromhex(OWN.replace(":", "")) + data[12:]
    functions.send(data, flags=Flags.VLAN, vlan=7)
    with functions.wire.rx[0].receive() as batch:
        assert batch.vlans.tolist() == [7]
        assert bytes(batch[0]) == data
    functions.send(data, flags=Flags.VLAN, vlan=8)
    assert receive_all(functions.wire) == []


@pytest.mark.parametrize("network", [IP(src="10.0.0.1", dst="10.0.0.2", id=7), IPv6(src="fe80::1", dst="fe80::2")])
@pytest.mark.parametrize("to", ["wire", "function"])
def test_segments(functions: Functions, network: Packet, to: str) -> None:
    """A packet of 9,000 bytes of payload leaves in segments of 1,000, for the wire or for the other function."""
    payload = bytes(n * n % 251 for n in range(9000))
    link = Ether(src=OWN, dst=OTHER) if to == "function" else TO_WIRE
    packet = link / network / TCP(sport=5, dport=6, seq=100, flags="PA") / Raw(payload)
    functions.send(bytes(packet), segment=1000)
    seen = receive_all(functions.second if to == "function" else functions.wire)
    assert len(seen) == 9
    for number, data in enumerate(seen):
        found = Ether(data)
        assert bytes(found[TCP].payload) == payload[1000 * number : 1000 * (number + 1)]
        assert found[TCP].seq == 100 + 1000 * number
        assert str(found[TCP].flags) == ("PA" if number == 8 else "A")
        again = found.copy()
        del again[TCP].chksum
        if again.haslayer(IP):
            del again[IP].chksum
            assert found[IP].id == 7 + number
        assert bytes(again) == data
    assert functions.first.stats().tx_packets == 9
    assert functions.first._driver.sent() == 1


def test_what_is_told_of_transmit_offloads(functions: Functions) -> None:
    info = functions.first.info
    assert set(info.tx_offloads) == {"IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM", "VLAN_INSERT", "TCP_TSO", "MULTI_SEGS"}


@pytest.mark.parametrize("size", [1514, 2048, 2049, 4096, 9014])
def test_frames_over_several_buffers(jumbo: Functions, size: int) -> None:
    """An MTU that all are opened with: frames come and go in parts."""
    a, wire = jumbo.first, jumbo.wire
    assert a.info.mtu == 9000
    data = frame(1, size, bytes.fromhex(OWN.replace(":", "")))
    jumbo.send(data, sender=wire)
    with a.rx[0].receive() as batch:
        assert batch.lengths.tolist() == [size]
        assert bytes(batch[0]) == data
    back = bytes.fromhex("021111111111" + OWN.replace(":", "")) + data[12:]
    jumbo.send(back)
    assert receive_all(wire) == [back]
    assert a.rx[0].pool.available == 400 - 128


def test_mtu_of_who_has_no_parts() -> None:
    """As an 82599's: what one buffer holds, and no more."""
    machine = Machine(stepped=True)
    with pytest.raises(ConfigurationError, match="mtu 2027: above 2026 it takes several buffers"):
        ixy.open("sim:a.vf0", sim=machine, mtu=2027)
    with ixy.open("sim:a.vf0", sim=machine, mtu=2026, link_timeout=0) as device:
        assert device.info.mtu == 2026


def test_tags_in_packets_count_for_segments(functions: Functions) -> None:
    """A tag that is in the packet stays in each segment."""
    functions.first.set_vlan_filter(7, True)
    packet = TO_WIRE / Dot1Q(vlan=7) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=5, dport=6) / Raw(bytes(3000))
    functions.send(bytes(packet), segment=1400)
    with functions.wire.rx[0].receive() as batch:
        assert batch.vlans.tolist() == [7, 7, 7]
        assert [len(Ether(bytes(each))[TCP].payload) for each in batch] == [1400, 1400, 200]
