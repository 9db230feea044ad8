"""What a card says about packets: asked for at `open`, seen in batches and packets, refused where it cannot be told."""

from __future__ import annotations

import socket
import time

import dpkt
import numpy as np
import pytest
from lab import OTHER, STATION, arrive, frame, open_card
from toeplitz import VECTORS

import ixy
from ixy import Flags
from ixy.device import Device
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError
from ixy.packets.packets import check_metadata, new_packets, swap
from ixy.registers import virtio as reg
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd, feed

ALL = ("flags", "hash", "vlan", "time")


def ip_frame(source: tuple[str, int], target: tuple[str, int], kind: str = "tcp", tag: int | None = None) -> bytes:
    """A frame with right checksums, made by dpkt; `kind` is tcp, udp or a protocol without ports."""
    ports = {"sport": source[1], "dport": target[1]}
    transport: dpkt.Packet | bytes = bytes(20)
    number = 253  # for experiments (RFC 3692)
    if kind == "tcp":
        transport, number = dpkt.tcp.TCP(**ports, data=b"x" * 8), dpkt.ip.IP_PROTO_TCP
    elif kind == "udp":
        transport, number = dpkt.udp.UDP(**ports, data=b"x" * 16, ulen=24), dpkt.ip.IP_PROTO_UDP
    ip = dpkt.ip.IP(src=socket.inet_aton(source[0]), dst=socket.inet_aton(target[0]), p=number, data=transport)
    ip.len = len(ip)
    packet = dpkt.ethernet.Ethernet(dst=STATION, src=OTHER, data=ip)
    data = bytes(packet).ljust(60, b"\0")
    return data if tag is None else data[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + data[12:]


A, B = ("10.0.0.1", 1000), ("10.0.0.2", 2000)


def test_kinds_and_checksums(machine: Machine) -> None:
    """Good and wrong checksums of IPv4, TCP and UDP, a UDP packet without one, IPv6, and what is not IP at all."""
    good, udp = ip_frame(A, B), ip_frame(A, B, "udp")
    bad_ip, bad_tcp, bad_udp = bytearray(good), bytearray(good), bytearray(udp)
    bad_ip[24] ^= 1
    bad_tcp[14 + 20 + 20] ^= 1
    bad_udp[14 + 20 + 8] ^= 1
    without = bytearray(udp)
    without[14 + 20 + 6 : 14 + 20 + 8] = bytes(2)
    udp6 = dpkt.ip6.IP6(
        src=bytes(15) + b"\1",
        dst=bytes(15) + b"\2",
        nxt=17,
        hlim=9,
        data=dpkt.udp.UDP(sport=1, dport=2, ulen=16, data=bytes(8)),
    )
    udp6.plen = 16
    v6 = bytes(dpkt.ethernet.Ethernet(dst=STATION, src=OTHER, type=0x86DD, data=udp6))
    expected = {
        bytes(good): Flags.IPV4 | Flags.TCP | Flags.IP_GOOD | Flags.L4_GOOD,
        bytes(udp): Flags.IPV4 | Flags.UDP | Flags.IP_GOOD | Flags.L4_GOOD,
        bytes(bad_ip): Flags.IPV4 | Flags.TCP | Flags.IP_BAD | Flags.L4_GOOD,
        bytes(bad_tcp): Flags.IPV4 | Flags.TCP | Flags.IP_GOOD | Flags.L4_BAD,
        bytes(bad_udp): Flags.IPV4 | Flags.UDP | Flags.IP_GOOD | Flags.L4_BAD,
        bytes(without): Flags.IPV4 | Flags.UDP | Flags.IP_GOOD,
        v6: Flags.IPV6 | Flags.UDP | Flags.L4_GOOD,
        frame(1): Flags(0),
    }
    with open_card(machine, metadata=["flags"]) as device:
        for data in expected:
            arrive(machine, data)
        with device.rx[0].receive() as batch:
            assert [Flags(flags) for flags in batch.flags.tolist()] == list(expected.values())
            assert [packet.flags for packet in batch] == list(expected.values())


def test_tags_are_taken_out(machine: Machine) -> None:
    """Priority 5 and VLAN 100 of a tagged frame, and nothing of one without; the frame arrives without its tag."""
    tagged, plain = ip_frame(A, B, tag=5 << 13 | 100), ip_frame(A, B)
    with open_card(machine, metadata=("vlan",)) as device:
        for data in (tagged, plain):
            arrive(machine, data)
        with device.rx[0].receive() as batch:
            assert batch.vlans.tolist() == [5 << 13 | 100, 0]
            assert [packet.vlan for packet in batch] == [5 << 13 | 100, 0]
            assert [bytes(packet) for packet in batch] == [plain, plain]
    with open_card(machine) as device:
        arrive(machine, tagged)
        assert [bytes(packet) for packet in device.rx[0].receive()] == [tagged]


def test_times_are_those_of_the_poll(machine: Machine) -> None:
    """All packets of a poll have one time, between the readings of the clock before and after it."""
    with open_card(machine, metadata=("time",)) as device:
        for _ in range(2):
            arrive(machine, frame(1))
            arrive(machine, frame(2))
            before = time.time_ns()
            with device.rx[0].receive() as batch:
                after = time.time_ns()
                assert before <= batch.times[0] == batch.times[1] <= after
                assert batch[1].time == batch.times[1]


def test_damaged_frames_shift_no_column(machine: Machine) -> None:
    """Of three frames the second spans buffers and is refused: the third's data stands in the second place."""
    with open_card(machine, metadata=ALL) as device:
        card = machine.cards["a"]
        card.write32(0x4240, card.read32(0x4240) | 1 << 2)  # HLREG0.JUMBOEN
        card.write32(0x4268, 9000 << 16)  # MAXFRS
        first, third = (ip_frame(source, target) for source, target, _, _ in VECTORS[:2])
        for data in (first, frame(2, 3000), third):
            arrive(machine, data)
        with device.rx[0].receive() as batch:
            assert batch.hashes.tolist() == [VECTORS[0][3], VECTORS[1][3]]
            assert batch.times[0] > 0
            assert batch.times[1] > 0
            assert [Flags.TCP in packet.flags for packet in batch] == [True, True]


def test_a_path_carries_what_it_was_told(machine: Machine) -> None:
    """Dropping packets keeps each one's columns together: the first and third of three go, with their hashes."""
    packets = new_packets(3, ALL)
    packets.ids[:], packets.lengths[:] = (7, 8, 9), (60, 61, 62)
    assert packets.flags is not None
    assert packets.hashes is not None
    assert packets.vlans is not None
    assert packets.times is not None
    for column, start in ((packets.flags, 10), (packets.hashes, 20), (packets.vlans, 30), (packets.times, 40)):
        column[:] = (start, start + 1, start + 2)
    swap(packets, 0, 0)
    swap(packets, 1, 2)
    assert packets.ids.tolist() == [7, 9, 8]
    kept = [column[:2].tolist() for column in packets if isinstance(column, np.ndarray)]
    assert kept == [[7, 9], [60, 62], [10, 12], [20, 22], [30, 32], [40, 42]]
    with open_card(machine, metadata=ALL) as device:
        path = ixy.Path(device.rx[0], device.tx[0])
        arrive(machine, ip_frame(*VECTORS[0][:2]))
        assert path.run(1) == 1
        assert path.state.packets.hashes is not None
        assert path.state.packets.hashes[0] == VECTORS[0][3]


def test_what_was_not_asked_for_is_absent(machine: Machine) -> None:
    """Its column is None, in compiled code a type of its own; asking for it says how to get it."""
    with open_card(machine, metadata=("hash",)) as device:
        arrive(machine, frame(1))
        with device.rx[0].receive() as batch:
            there = {name for name, column in batch._packets._asdict().items() if isinstance(column, np.ndarray)}
            assert there == {"ids", "lengths", "hashes"}
            for what, name in (
                (lambda: batch.vlans, "vlan"),
                (lambda: batch.flags, "flags"),
                (lambda: batch[0].time, "time"),
            ):
                with pytest.raises(ConfigurationError, match=rf"metadata=\('{name}',\)"):
                    what()


@pytest.mark.parametrize("names", [("colour",), ("hash", "colour"), ("",), (None,), (b"hash",)])
def test_names_that_nobody_knows(machine: Machine, names: tuple[str, ...]) -> None:
    """Refused by name before the card is touched."""
    with pytest.raises(ConfigurationError, match=f"metadata {names[-1]!r}: possible are flags, hash, vlan, time"):
        open_card(machine, metadata=names)
    assert machine.cards == {}


@pytest.mark.parametrize("names", ["hash", 7, None, b"hash"])
def test_what_are_no_names(machine: Machine, names: object) -> None:
    with pytest.raises((TypeError, ConfigurationError), match="metadata"):
        open_card(machine, metadata=names)  # pyright: ignore[reportArgumentType]


def test_names_are_taken_once_and_in_order() -> None:
    assert check_metadata("a", ["time", "hash", "time"], ALL) == ("hash", "time")


# ---------------------------------------------------------------------------------------------------------------------
# VirtIO

BASE = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS
KINDS = {
    "split": BASE,
    "packed": BASE | 1 << reg.RING_PACKED,
    "legacy": 1 << reg.ANY_LAYOUT,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_virtio_header_says(kind: str) -> None:
    """5.1.6.4.1: a checksum that was checked, one that was never made, and nothing at all."""
    back_end = BackEnd("model", KINDS[kind] | 1 << reg.GUEST_CSUM)
    driver = VirtioNet(InProcess(back_end), ring_size=64, pool_size=128, metadata=("flags", "time"))
    with Device(driver) as device:
        ring = device.rx[0].ring.state
        for said in (2, 1, 0, 3):
            place = int(back_end.queues[0].state[0]) & 63
            assert feed(back_end.queues[0], np.frombuffer(frame(said), np.uint8).copy(), 60)
            device.rx[0].pool._pools.bytes[ring.held.ids[place] - 1, -ring.header] = said
        with device.rx[0].receive() as batch:
            assert batch.flags.tolist() == [Flags.L4_GOOD, Flags.L4_PARTIAL, 0, Flags.L4_PARTIAL]
            assert batch.times.min() > 0


def test_what_a_virtio_device_cannot_tell() -> None:
    """Hashes and tags never; checksums where it does not offer GUEST_CSUM, which nobody else asks for."""
    for names, offered in ((("hash",), True), (("vlan",), True), (("flags",), False)):
        back_end = BackEnd("model", BASE | offered << reg.GUEST_CSUM)
        with pytest.raises(ConfigurationError, match=f"model: the device does not tell {names[0]!r}"):
            VirtioNet(InProcess(back_end), metadata=names)
    back_end = BackEnd("model", BASE | 1 << reg.GUEST_CSUM)
    driver = VirtioNet(InProcess(back_end))
    assert not driver.features.has(reg.GUEST_CSUM)
    driver.close()
