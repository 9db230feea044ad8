"""What the model does to packets on their way out, judged by Scapy: checksums, tags, segments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.card.offload import build
from ixy.sim.machine import Machine
from ixy.sim.rack import SLOT

# With addresses: for want of one, Scapy would ask the network for it.
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

V4 = IP(src="10.0.0.1", dst="10.0.0.2", id=0xFFFF)
V6 = IPv6(src="fd00::1", dst="fd00::2")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with a card that has a tape."""
    machine = Machine(stepped=True)
    card = machine.plug_in("sim:a")
    yield machine
    machine.unplug(card)


def frames_of(machine: Machine, packet: bytes, command: int, context: tuple[int, int] = (0, 0)) -> list[bytes]:
    """The frames that a packet becomes under the first descriptor's command and a context descriptor."""
    rack, card = machine.rack, machine.cards["a"].index
    stage = card * SLOT
    rack.tape[stage : stage + len(packet)] = np.frombuffer(packet, np.uint8)
    rack.cards[card, state.OFFLOAD] = command
    rack.contexts[card, 0, 0] = context
    frames = []
    while length := build(rack, card, 0, len(packet), len(frames)):
        frames.append(rack.tape[stage + state.SEGMENT :][:length].tobytes())
    return frames


def context_for(packet: Packet, segment_size: int = 0, tag: int = 0) -> tuple[int, int]:
    """The context descriptor that a driver would write for a packet."""
    network = packet.payload
    is_v4, transport = isinstance(network, IP), network.payload
    size = len(network) - len(transport)
    header = len(transport) - len(transport.payload)
    first = size | 14 << 9 | tag << 16
    kind = 1 if isinstance(transport, TCP) else 0
    second = is_v4 << 10 | kind << 11 | 2 << 20 | 1 << 29 | header << 40 | segment_size << 48
    return first, second - (1 << 64) if second >> 63 else second


def fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_sum(packet: Packet, *, with_length: bool) -> int:
    """The pseudo header's sum, as drivers leave it in the checksum's place."""
    network = packet.payload
    raw = bytes(network)
    addresses = raw[12:20] if isinstance(network, IP) else raw[8:40]
    words = [int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2)]
    protocol = 6 if TCP in packet else 17
    return fold(sum(words) + protocol + (len(network.payload) if with_length else 0))


def correct(frame: bytes) -> bytes:
    """The frame as it would be if its checksums were worked out anew."""
    packet = Ether(frame)
    for layer in (IP, TCP, UDP):
        if layer in packet:
            del packet[layer].chksum
    return bytes(packet)


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("size", [0, 1, 6, 1001])
def test_checksums_are_inserted(machine: Machine, network: Packet, transport: type[Packet], size: int) -> None:
    """The checksums that the card inserts are those that Scapy works out."""
    packet = ETHERNET / network / transport() / bytes(i % 251 for i in range(size))
    whole = Ether(bytes(packet))
    whole[transport].chksum = pseudo_sum(whole, with_length=True)
    if IP in whole:
        whole[IP].chksum = 0x1234
    (frame,) = frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_IXSM | reg.TX_TXSM, context_for(whole))
    assert frame == bytes(packet).ljust(60, b"\0")


def test_a_udp_checksum_of_zero_becomes_ones(machine: Machine) -> None:
    """Zero would say that there is none (RFC 768): the payload is chosen so that the sum comes out as zero."""
    whole = Ether(bytes(ETHERNET / V4 / UDP() / b"\0\0"))
    payload = whole[UDP].chksum.to_bytes(2, "big")
    whole = Ether(bytes(ETHERNET / V4 / UDP() / payload))
    whole[UDP].chksum = pseudo_sum(whole, with_length=True)
    (frame,) = frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_TXSM, context_for(whole))
    assert Ether(frame)[UDP].chksum == 0xFFFF


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_segmentation(machine: Machine, network: Packet) -> None:
    """3,500 bytes in segments of 1,000: each has its lengths, sequence number, flags and checksums; none is lost."""
    payload = bytes(i % 253 for i in range(3500))
    whole = Ether(bytes(ETHERNET / network / TCP(seq=0xFFFFFF00, flags="CFPA", options=[("NOP", None)] * 12) / payload))
    whole[TCP].chksum = pseudo_sum(whole, with_length=False)
    frames = frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_TSE | reg.TX_TXSM, context_for(whole, 1000))
    packets = [Ether(frame) for frame in frames]
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == payload
    assert [len(packet[TCP].payload) for packet in packets] == [1000, 1000, 1000, 500]
    assert [packet[TCP].seq for packet in packets] == [(0xFFFFFF00 + i * 1000) % 2**32 for i in range(4)]
    assert [str(packet[TCP].flags) for packet in packets] == ["AC", "AC", "AC", "FPA"]  # by the reset values
    assert all(frame == correct(frame) for frame in frames)
    if network is V4:
        assert [packet[IP].id for packet in packets] == [0xFFFF, 0, 1, 2]


@pytest.mark.parametrize("change", ["no MSS", "headers longer than the packet", "no TCP header"])
def test_a_context_that_makes_no_sense_sends_nothing(machine: Machine, change: str) -> None:
    """The device neither loops nor reads beyond the packet."""
    whole = Ether(bytes(ETHERNET / V4 / TCP() / bytes(100)))
    first, second = context_for(whole, 0 if change == "no MSS" else 10)
    if change == "headers longer than the packet":
        first |= 0x1FF | 0x7F << 9
    elif change == "no TCP header":
        second &= ~(0xFF << 40)
    assert frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_TSE, (first, second)) == []


def test_a_reset_forgets_contexts(machine: Machine) -> None:
    """A driver that wrote one before may not rely on it."""
    card = machine.cards["a"]
    machine.rack.contexts[card.index] = 1
    card.write32(0, 1 << 26)
    assert not machine.rack.contexts[card.index].any()


WORD = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(command=WORD, context=st.tuples(WORD, WORD), size=st.integers(1, 300))
def test_no_descriptor_makes_it_run_away(machine: Machine, command: int, context: tuple[int, int], size: int) -> None:
    """Whatever descriptors say: there are no more frames than bytes, and none is longer than packet and tag."""
    frames = frames_of(machine, bytes(size), command, context)
    assert len(frames) <= size
    assert all(len(frame) <= max(size + 4, 60) for frame in frames)


def test_a_tag_is_inserted(machine: Machine) -> None:
    """By an advanced descriptor from its context, by a legacy descriptor from itself."""
    packet = bytes(ETHERNET / V4 / UDP() / bytes(50))
    expected = bytes(ETHERNET / Dot1Q(vlan=0x123, prio=5) / V4 / UDP() / bytes(50))
    context = context_for(Ether(packet), tag=0xA123)
    assert frames_of(machine, packet, reg.TX_DEXT | reg.TX_VLE, context) == [expected.ljust(60, b"\0")]
    assert frames_of(machine, packet, reg.TX_VLE | (0xA123 << 48) - (1 << 64)) == [expected.ljust(60, b"\0")]


@pytest.mark.parametrize(("legacy", "register", "kind"), [(False, 0x88A8, 0x88A8), (True, 0x9100, 0x9100)])
def test_the_ethertype_of_an_inserted_tag(machine: Machine, legacy: bool, register: int, kind: int) -> None:
    """DMATXCTL.VT (8.2.3.9.2)."""
    machine.cards["a"].write32(0x4A80, register << 16)
    packet = bytes(ETHERNET / V4 / UDP() / bytes(50))
    command = reg.TX_VLE | (7 << 48 if legacy else reg.TX_DEXT)
    (frame,) = frames_of(machine, packet, command, context_for(Ether(packet), tag=7))
    assert frame == packet[:12] + kind.to_bytes(2, "big") + b"\0\7" + packet[12:]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tag_behind_the_outer_one(machine: Machine, legacy: bool) -> None:
    """In double VLAN mode, DMATXCTL.GDV, software has put the outer tag there (7.4.5)."""
    machine.cards["a"].write32(0x4A80, 0x8100 << 16 | 1 << 3)
    packet = bytes(ETHERNET)[:12] + b"\x88\xa8\0\5\x08\0" + bytes(V4 / UDP() / bytes(50))
    command = reg.TX_VLE | (7 << 48 if legacy else reg.TX_DEXT)
    (frame,) = frames_of(machine, packet, command, (20 | 18 << 9 | 7 << 16, 1 << 10 | 2 << 20 | 1 << 29))
    assert frame == packet[:16] + b"\x81\0\0\7" + packet[16:]


def test_flags_of_segments_are_what_registers_say(machine: Machine) -> None:
    """DTXTCPFLGL for the first and for those amid, DTXTCPFLGH for the last; bit 8 is NS, beside the header's length."""
    card = machine.cards["a"]
    card.write32(0x4A88, 0x010 | 0x1FE << 16)  # the first one keeps ACK alone, those amid all but FIN
    card.write32(0x4A8C, 0x009)  # the last one keeps PSH and FIN
    whole = Ether(bytes(ETHERNET / V4 / TCP(flags="FSRPAUECN") / bytes(300)))
    whole[TCP].chksum = pseudo_sum(whole, with_length=False)
    frames = frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_TSE | reg.TX_TXSM, context_for(whole, 100))
    assert [int(Ether(frame)[TCP].flags) for frame in frames] == [0x010, 0x1FE, 0x009]
    assert [Ether(frame)[TCP].dataofs for frame in frames] == [5, 5, 5]
    assert all(frame == correct(frame) for frame in frames)


def test_a_packet_of_one_segment_keeps_its_flags(machine: Machine) -> None:
    """What is both the first and the last one is the packet that software made."""
    whole = Ether(bytes(ETHERNET / V4 / TCP(flags="FPAC") / bytes(50)))
    whole[TCP].chksum = pseudo_sum(whole, with_length=False)
    (frame,) = frames_of(machine, bytes(whole), reg.TX_DEXT | reg.TX_TSE | reg.TX_TXSM, context_for(whole, 100))
    assert str(Ether(frame)[TCP].flags) == "FPAC"


def test_the_checksum_of_sctp(machine: Machine) -> None:
    """Of the chunk that RFC 3720 gives as an example for CRC-32C, 32 bytes of zeros, the check value is 0x8A9136AA."""
    network = IP(src="10.0.0.1", dst="10.0.0.2", proto=132)
    packet = bytes(ETHERNET / network / bytes(32))
    context = 20 | 14 << 9, 1 << 10 | 2 << 11 | 2 << 20 | 1 << 29
    (frame,) = frames_of(machine, packet, reg.TX_DEXT | reg.TX_TXSM, context)
    assert frame[34 + 8 : 34 + 12] == bytes.fromhex("aa36918a")
    assert frame[:42] + bytes(4) + frame[46:66] == packet


def test_a_legacy_checksum(machine: Machine) -> None:
    """From byte 14 on, to be put at byte 24: an IPv4 header's, with nothing behind it."""
    packet = bytearray(bytes(ETHERNET / V4))
    expected = bytes(packet)
    packet[24:26] = 0, 0
    assert frames_of(machine, bytes(packet), reg.TX_IC | 24 << 16 | 14 << 40) == [expected.ljust(60, b"\0")]
