"""`Device.rules`: packets that come to certain queues, or to none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import arrive, open_card
from recorded import RecordedCard
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw
from steering import queue_of

import ixy
from ixy.device import Device
from ixy.drivers.ixgbe import Ixgbe
from ixy.drivers.rules import parse_rule
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError, DeviceTimeout
from ixy.registers import Register, RegisterFile, virtio
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd

V4 = IP(src="10.1.2.3", dst="192.168.7.9")
PACKET = V4 / UDP(sport=1234, dport=53)


@pytest.fixture
def machine() -> Machine:
    return Machine(stepped=True)


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, rx_queues=32, ring_size=64, pool_size=96) as device:
        device.set_rss_table([0])
        yield device


# ---------------------------------------------------------------------------------------------------------------------
# What they do


@pytest.mark.parametrize(
    ("rule", "table", "matching", "others"),
    [
        ({"ethertype": 0x9000}, "Ethertype", [Raw(b"x"), Dot1Q(vlan=1, type=0x9000)], [ARP(), PACKET]),
        ({"syn": True}, "SYN", [V4 / TCP(flags="S"), IPv6() / TCP(flags="SA")], [V4 / TCP(flags="A"), PACKET]),
        ({"protocol": "udp"}, "five fields", [PACKET, IPv6() / UDP()], [V4 / TCP(), ARP()]),
        ({"src": "10.1.2.3"}, "five fields", [PACKET, V4 / ICMP()], [IP(src="10.1.2.4"), IP(dst="10.1.2.3")]),
        ({"dst": "192.168.7.9"}, "five fields", [PACKET], [IP(dst="192.168.7.8") / UDP()]),
        ({"dst": ixy.Ipv4Address("192.168.7.9")}, "five fields", [PACKET], [IP(dst="192.168.7.8") / UDP()]),
        (
            {"protocol": "sctp", "sport": 7, "dport": 9},
            "five fields",
            [V4 / SCTP(sport=7, dport=9)],
            [V4 / SCTP(sport=9, dport=7), V4 / UDP(sport=7, dport=9)],
        ),
        (
            {"protocol": "udp", "src": "10.1.2.3", "dst": "192.168.7.9", "sport": 1234, "dport": 53},
            "five fields",
            [PACKET, Dot1Q(vlan=3) / PACKET],
            [V4 / UDP(sport=1234, dport=54), V4 / TCP(sport=1234, dport=53)],
        ),
        (
            {"src": "10.1.0.0/16"},
            "flow director",
            [PACKET, IP(src="10.1.255.1") / ICMP()],
            [IP(src="10.2.0.1") / UDP()],
        ),
        (
            {"protocol": "tcp", "dst": "192.168.0.0/17", "dport": 80},
            "flow director",
            [IP(dst="192.168.127.1") / TCP(sport=5, dport=80)],
            [IP(dst="192.168.128.1") / TCP(dport=80), IP(dst="192.168.1.1") / TCP(dport=81)],
        ),
        ({"vlan": 77}, "flow director", [Dot1Q(vlan=77, prio=5) / PACKET], [Dot1Q(vlan=78) / PACKET, PACKET]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_packets_to_a_queue(
    machine: Machine, device: Device, rule: dict[str, Any], table: str, matching: list[Packet], others: list[Packet]
) -> None:
    """To any queue, above those of RSS too, until the rule is removed."""
    added = device.rules.add(**rule, queue=31)
    assert added.table == table
    assert [queue_of(machine, device, packet) for packet in matching] == [31] * len(matching)
    assert [queue_of(machine, device, packet) for packet in others] == [0] * len(others)
    device.rules.remove(added)
    assert [queue_of(machine, device, packet) for packet in matching] == [0] * len(matching)


def test_drop(machine: Machine, device: Device) -> None:
    """They are counted as received by the device, and not as dropped for want of room."""
    rule = device.rules.add(protocol="udp", dport=53, drop=True)
    assert queue_of(machine, device, PACKET) is None
    assert queue_of(machine, device, V4 / UDP(dport=54)) == 0
    assert (device.stats().rx_packets, device.stats().rx_dropped) == (2, 0)
    device.rules.remove(rule)
    assert queue_of(machine, device, PACKET) == 0


def test_which_comes_first(machine: Machine, device: Device) -> None:
    """Among rules by five fields the priority, then SYN, which a priority puts before them; then the flow director."""
    packet = V4 / TCP(sport=1, dport=80, flags="S")
    device.rules.add(protocol="tcp", dst="192.168.0.0/16", queue=1)
    assert queue_of(machine, device, packet) == 1
    syn = device.rules.add(syn=True, queue=2)
    assert queue_of(machine, device, packet) == 2
    device.rules.add(protocol="tcp", dport=80, queue=3, priority=2)
    device.rules.add(dst="192.168.7.9", queue=4, priority=5)
    assert queue_of(machine, device, packet) == 4
    device.rules.remove(syn)
    device.rules.add(syn=True, queue=2, priority=1)
    assert queue_of(machine, device, packet) == 2


def test_list(machine: Machine, device: Device) -> None:
    assert len(device.rules) == 0
    first = device.rules.add(protocol="udp", dst="10.0.0.1", dport=53, queue=2)
    second = device.rules.add(src="10.0.0.0/8", drop=True)
    third = device.rules.add(ethertype=0x9000, queue=3)
    assert list(device.rules) == [first, second, third]
    assert [str(rule) for rule in device.rules] == [
        "udp dst 10.0.0.1 dport 53 → queue 2",
        "src 10.0.0.0/8 → drop",
        "ethertype 0x9000 → queue 3",
    ]
    device.rules.remove(second)
    assert list(device.rules) == [first, third]
    device.rules.clear()
    assert list(device.rules) == []
    assert queue_of(machine, device, V4 / UDP()) == 0
    assert device.rules.add(src="10.0.0.0/8", drop=True) == second


def test_rules_end_with_the_device(machine: Machine, device: Device) -> None:
    device.rules.add(dst="192.168.7.9", queue=1)
    device.rules.add(src="10.0.0.0/8", drop=True)
    device.rules.add(syn=True, queue=2)
    device.close()
    with pytest.raises(ixy.Error, match="sim:a is closed"):
        list(device.rules)
    with open_card(machine, rx_queues=2, ring_size=64, pool_size=96) as again:
        assert list(again.rules) == []
        assert not machine.rack.cards[machine.cards["a"].index, state.FEATURES] & state.FILTER


def test_metadata_of_packets_by_ethertype(machine: Machine) -> None:
    """The card tells the filter's number in the place of the kind: it is no kind."""
    with open_card(machine, rx_queues=2, metadata=("flags",), ring_size=64, pool_size=96) as device:
        for number in range(8):
            device.rules.add(ethertype=0x9010 + number, queue=1)
        for number in range(8):
            arrive(machine, bytes(Ether(dst="02:69:78:79:00:01", type=0x9010 + number)).ljust(60, b"\0"))
        with device.rx[1].receive() as batch:
            assert batch.flags.tolist() == [0] * 8


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(0, 255), st.integers(0, 3), st.integers(1, 31)),
        unique_by=lambda rule: rule[:3],
        max_size=40,
    ),
    st.booleans(),
)
def test_many_rules(machine: Machine, rules: list[tuple[str, int, int, int]], by_flow_director: bool) -> None:
    """Each finds its packets, in either of the tables, and when some are gone."""
    with open_card(machine, rx_queues=32, ring_size=64, pool_size=96) as device:
        device.set_rss_table([0])
        source = "10.0.0.0/8" if by_flow_director else "10.1.2.3"
        made = [
            device.rules.add(protocol=protocol, src=source, dst=f"10.9.0.{host}", dport=port, queue=queue)
            for protocol, host, port, queue in rules
        ]
        for rule in made[::3]:
            device.rules.remove(rule)
        for place, (protocol, host, port, queue) in enumerate(rules):
            packet = IP(src="10.1.2.3", dst=f"10.9.0.{host}") / {"tcp": TCP, "udp": UDP}[protocol](dport=port)
            assert queue_of(machine, device, packet) == (0 if place % 3 == 0 else queue)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"queue": 1}, "sim:a: a rule says which packets"),
        ({"dst": "10.0.0.1"}, "sim:a: a rule has a queue, or drop=True, and not both"),
        ({"dst": "10.0.0.1", "queue": 1, "drop": True}, "and not both"),
        ({"dst": "10.0.0.1", "queue": 32}, "sim:a: queue 32: 0 to 31 are possible"),
        ({"dst": "10.0.0.300", "queue": 1}, "sim:a: dst: '10.0.0.300' is no IPv4 address such as 10.0.0.1"),
        ({"src": "2001:db8::1", "queue": 1}, "is no IPv4 address"),
        ({"src": "10.0.0.0/33", "queue": 1}, "sim:a: src 10.0.0.0/33: bits 33: 1 to 32 are possible"),
        ({"src": "10.0.0.1/8", "queue": 1}, "sim:a: src 10.0.0.1/8: bits are set behind the first 8"),
        ({"protocol": "icmp", "queue": 1}, "sim:a: protocol 'icmp': possible are tcp, udp, sctp"),
        ({"dport": 53, "queue": 1}, "sim:a: ports are those of a protocol: tcp, udp or sctp"),
        ({"protocol": "udp", "dport": 65536, "queue": 1}, "sim:a: dport 65536: 0 to 65535 are possible"),
        ({"ethertype": 0x5FF, "queue": 1}, "sim:a: ethertype 1535: 1536 to 65535 are possible"),
        ({"ethertype": 0x0800, "queue": 1}, "Ethertype is not for IP packets"),
        ({"ethertype": 0x0806, "drop": True}, "ethertype 0x0806 → drop cannot be had: its table by Ethertype does not"),
        ({"ethertype": 0x0806, "vlan": 1, "queue": 1}, "a rule by ethertype compares nothing else, such as vlan"),
        ({"syn": True, "drop": True}, "by SYN does not drop"),
        ({"syn": True, "protocol": "tcp", "queue": 1}, "a rule by syn compares nothing else, such as protocol"),
        ({"vlan": 4096, "queue": 1}, "sim:a: vlan 4096: 0 to 4095 are possible"),
        ({"dst": "10.0.0.1", "queue": 1, "priority": 8}, "sim:a: priority 8: 1 to 7 are possible"),
        ({"dst": "10.0.0.0/8", "queue": 1, "priority": 2}, "flow director has no priorities"),
    ],
)
def test_refused(device: Device, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        device.rules.add(**rule)
    assert message in str(refused.value)
    assert list(device.rules) == []


@pytest.mark.parametrize(
    "rule", [{"queue": 1.5}, {"dst": 1.5}, {"dst": b"\x0a\0\0\1"}, {"protocol": 17}, {"drop": "yes"}, {"syn": None}]
)
def test_wrong_types(device: Device, rule: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        device.rules.add(**{"vlan": 1, "queue": 1} | ({"queue": None} if "drop" in rule else {}) | rule)


def test_tables_that_are_full(device: Device) -> None:
    device.rules.add(syn=True, queue=1)
    for number in range(8):
        device.rules.add(ethertype=0x9010 + number, queue=1)
    for number in range(128):
        device.rules.add(protocol="udp", dport=number, queue=1)
    with pytest.raises(ConfigurationError, match="all 8 places for rules by Ethertype are taken"):
        device.rules.add(ethertype=0x9000, queue=1)
    with pytest.raises(ConfigurationError, match="all 128 places for rules by five fields are taken"):
        device.rules.add(protocol="udp", dport=128, queue=1)
    with pytest.raises(ConfigurationError, match="all 1 places for rules by SYN are taken"):
        device.rules.add(syn=True, queue=1, priority=1)
    assert len(device.rules) == 137


def test_a_table_that_cannot_be_made(machine: Machine, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device goes on receiving, and the rule can be tried again."""
    wait = RegisterFile.wait

    def fails(self: RegisterFile, register: Register, timeout: float, **fields: int) -> None:
        if register is reg.FDIRCTRL:
            raise DeviceTimeout("no table")
        wait(self, register, timeout, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(RegisterFile, "wait", fails)
        with pytest.raises(DeviceTimeout, match="no table"):
            device.rules.add(src="10.1.0.0/16", queue=3)
    assert list(device.rules) == []
    assert queue_of(machine, device, PACKET) == 0
    device.rules.add(src="10.1.0.0/16", queue=3)
    assert queue_of(machine, device, PACKET) == 3


def test_same_packets_twice(device: Device) -> None:
    rule = device.rules.add(dst="10.0.0.1", queue=1)
    with pytest.raises(ConfigurationError, match=r"there is a rule dst 10\.0\.0\.1 → queue 1 already: remove"):
        device.rules.add(dst="10.0.0.1", queue=2)
    device.rules.remove(rule)
    with pytest.raises(ConfigurationError, match="is none of its rules"):
        device.rules.remove(rule)


class Interrupted(Exception):
    """As a signal's handler raises it, anywhere."""


class InterruptingCard(RecordedCard):
    """A card that can interrupt its driver before an access to it, and after a write."""

    def write32(self, offset: int, value: int) -> None:
        super().write32(offset, value)
        self.before(offset)


@pytest.fixture
def card(machine: Machine) -> RecordedCard:
    return InterruptingCard(machine)


@pytest.fixture
def interruptible(card: RecordedCard) -> Iterator[Device]:
    with Device(Ixgbe(card, rx_queues=2, ring_size=64, pool_size=96)) as device:
        device.set_rss_table([0])
        yield device
        card.before = lambda _: None


def interrupts(card: RecordedCard, moment: int, call: Callable[[], object], again: bool = False) -> bool:
    """Whether a call was interrupted at this moment of those at which the card can; `again`: and at all that follow."""
    count = -1

    def before(_: int) -> None:
        nonlocal count
        count += 1
        if count == moment or (again and count > moment):
            raise Interrupted

    card.before = before
    try:
        call()
    except Interrupted:
        return True
    finally:
        card.before = lambda _: None
    return False


ONE_PER_TABLE = pytest.mark.parametrize(
    ("rule", "other", "packet"),
    [
        ({"ethertype": 0x9000}, {"ethertype": 0x9100}, Raw(b"x")),
        ({"syn": True}, {"syn": True, "priority": 1}, V4 / TCP(flags="S")),
        ({"protocol": "udp"}, {"protocol": "sctp"}, PACKET),
        ({"src": "10.1.0.0/16"}, {"dst": "10.0.0.0/8"}, PACKET),
    ],
    ids=["Ethertype", "SYN", "five fields", "flow director"],
)


@pytest.mark.once
@ONE_PER_TABLE
def test_interrupted_while_it_is_added(
    machine: Machine,
    card: RecordedCard,
    interruptible: Device,
    rule: dict[str, Any],
    other: dict[str, Any],
    packet: Packet,
) -> None:
    """Wherever that is, the rule is not there, nor in the card. What is undone may be interrupted too: then it is not
    from the next rule of its kind on."""
    rules, moments = interruptible.rules, 0
    while interrupts(card, moments, partial(rules.add, **rule, queue=1)):
        assert (list(rules), queue_of(machine, interruptible, packet)) == ([], 0), moments
        assert interrupts(card, moments, partial(rules.add, **rule, queue=1), again=True)
        rules.remove(rules.add(**other, queue=1))
        assert (list(rules), queue_of(machine, interruptible, packet)) == ([], 0), moments
        moments += 1
    assert moments > 0
    assert len(rules) == 1
    assert queue_of(machine, interruptible, packet) == 1


@pytest.mark.once
@ONE_PER_TABLE
def test_interrupted_while_it_is_removed(
    machine: Machine,
    card: RecordedCard,
    interruptible: Device,
    rule: dict[str, Any],
    other: dict[str, Any],
    packet: Packet,
) -> None:
    """Wherever that is, the rule is still there, and can be removed."""
    rules, moments = interruptible.rules, 0
    added = rules.add(**rule, queue=1)
    while interrupts(card, moments, partial(rules.remove, added)):
        assert list(rules) == [added], moments
        moments += 1
    assert moments > 0
    assert (list(rules), queue_of(machine, interruptible, packet)) == ([], 0)
    assert rules.add(**other, queue=1) in rules


def test_the_flow_director_compares_the_same_in_all_rules(machine: Machine, device: Device) -> None:
    """Its masks are for all; the next first rule may set others."""
    first = device.rules.add(src="10.1.0.0/16", drop=True)
    for other in ({"src": "10.0.0.0/8"}, {"dst": "10.1.0.0/16"}, {"src": "10.1.0.0/16", "vlan": 3}):
        with pytest.raises(ConfigurationError, match=r"in the first of them, src 10\.1\.0\.0/16 → drop"):
            device.rules.add(**other, drop=True)
    device.rules.remove(first)
    device.rules.add(src="10.0.0.0/8", drop=True)
    assert queue_of(machine, device, PACKET) is None


def test_a_table_that_is_never_made(machine: Machine, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card does not answer while the flow director is set up: there is no rule, and packets come as before."""
    wait = RegisterFile.wait

    def wait_in_vain(self: RegisterFile, register: Register, timeout: float, **fields: int) -> None:
        if register is reg.FDIRCTRL:
            raise DeviceTimeout("sim:a: FDIRCTRL.INIT_DONE stays 0")
        wait(self, register, timeout, **fields)

    monkeypatch.setattr(RegisterFile, "wait", wait_in_vain)
    with pytest.raises(DeviceTimeout):
        device.rules.add(src="10.0.0.0/8", drop=True)
    assert list(device.rules) == []
    assert queue_of(machine, device, PACKET) == 0


def test_virtio_has_none() -> None:
    with Device(VirtioNet(InProcess(BackEnd("model", 1 << virtio.VERSION_1)), ring_size=16, pool_size=64)) as device:
        assert list(device.rules) == []
        with pytest.raises(ConfigurationError, match=r"a VirtIO device has no rules"):
            device.rules.add(dst="10.0.0.1", queue=0)


# ---------------------------------------------------------------------------------------------------------------------
# As text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("udp dst 10.0.0.1:53 → queue 2", {"protocol": "udp", "dst": "10.0.0.1", "dport": 53, "queue": 2}),
        ("tcp src 10.0.0.0/8:80 sport 7 -> drop", None),
        ("tcp src 10.0.0.0/8 dport 80 drop", {"protocol": "tcp", "src": "10.0.0.0/8", "dport": 80, "drop": True}),
        ("ethertype 0x88f7 queue 1", {"ethertype": 0x88F7, "queue": 1}),
        ("ethertype 35063 queue 1", {"ethertype": 0x88F7, "queue": 1}),
        ("ethertype 2048 queue 1", {"ethertype": 0x0800, "queue": 1}),
        ("syn priority 3 queue 1", {"syn": True, "priority": 3, "queue": 1}),
        ("vlan 5 drop", {"vlan": 5, "drop": True}),
    ],
)
def test_rule_as_text(text: str, meant: dict[str, object] | None) -> None:
    if meant is None:
        with pytest.raises(ConfigurationError, match="sport is there twice"):
            parse_rule(text)
    else:
        assert parse_rule(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("udp to queue 2", "rule 'udp to queue 2': 'to' is not understood"),
        ("udp dport", "a value is missing behind 'dport'"),
        ("udp dport http queue 2", "dport 'http' is no number"),
        ("udp tcp queue 2", "protocol is there twice"),
        ("ethertype ptp queue 2", "ethertype 'ptp': write it in hexadecimal, such as 0x88f7, or in decimal"),
        ("ethertype 88f7 queue 2", "ethertype '88f7': write it in hexadecimal"),
        ("ethertype 0806 queue 2", "ethertype '0806': write it in hexadecimal"),
        ("ethertype 0x88_f7 queue 2", "ethertype '0x88_f7': write it in hexadecimal"),
        ("ethertype -0x806 queue 2", "ethertype '-0x806': write it in hexadecimal"),
        ("ethertype 0x5ff queue 2", "ethertype 0x5ff: 0x600 to 0xffff are possible"),
        ("ethertype 65536 queue 2", "ethertype 65536: 0x600 to 0xffff are possible"),
    ],
)
def test_text_that_is_no_rule(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_rule(text)
    assert message in str(refused.value)


def test_rules_print_as_they_can_be_written(device: Device) -> None:
    for text in ("udp src 10.1.0.0/16 dport 53 → drop", "ethertype 0x88f7 → queue 3", "vlan 5 → drop", "syn → queue 1"):
        rule = device.rules.add(**parse_rule(text))  # type: ignore[arg-type]
        assert str(rule) == text
        device.rules.clear()
