"""The flow director of the simulated card: its table, its commands, and what it does to packets.

Registers are written here as the drivers of Linux and DPDK write them (7.1.2.7, 8.2.3.21).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from flow_hash import IPV6, SCTP, TCP, UDP, flow_hash, stream
from hypothesis import given
from hypothesis import strategies as st
from lab import open_card
from scapy.layers import inet, inet6, sctp
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet
from steering import queue_of

from ixy.device import Device
from ixy.sim.card import flow_director, state
from ixy.sim.card.flow_director import Flow
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine

FDIRCTRL, FDIRIPSA, FDIRIPDA, FDIRPORT, FDIRVLAN, FDIRHASH, FDIRCMD = (
    *(0xEE00, 0xEE18, 0xEE1C, 0xEE20, 0xEE24, 0xEE28, 0xEE2C),
)
FDIRFREE, FDIRDIP4M, FDIRSIP4M, FDIRTCPM, FDIRUDPM, FDIRLEN = 0xEE38, 0xEE3C, 0xEE40, 0xEE44, 0xEE48, 0xEE4C
FDIRUSTAT, FDIRFSTAT, FDIRMATCH, FDIRMISS = 0xEE50, 0xEE54, 0xEE58, 0xEE5C
FDIRHKEY, FDIRSKEY, FDIRM, FDIRIP6M = 0xEE68, 0xEE6C, 0xEE70, 0xEE74
EICS, RXPBSIZE = 0x808, 0x3C00

BUCKET_KEY, SIGNATURE_KEY = 0x3DAD14E2, 0x174D3614  # of Linux and DPDK
PERFECT, REPORT, REPORT_ALWAYS = 1 << 4, 1 << 5, 1 << 7
DROP_QUEUE, FLEX_AT_ETHERTYPE, LONGEST, THRESHOLD = 127 << 8, 6 << 16, 10 << 24, 4 << 28
ADD, REMOVE, QUERY = 1, 2, 3
VALID, UPDATE, CLEARHT, DROP, LAST, COLLISION, QUEUE_EN = 1 << 2, 1 << 3, 1 << 8, 1 << 9, 1 << 11, 1 << 12, 1 << 15
ANY_VLAN, ANY_PRIORITY, ANY_POOL, ANY_PROTOCOL, ANY_FLEX, ANY_IPV6 = (1 << bit for bit in range(6))
FLM, TOO_LONG, WOULD_DROP, COLLIDED = 1 << 2, 1 << 20, 1 << 21, 1 << 22

SOURCE, TARGET, SPORT, DPORT = "10.1.2.3", "192.168.7.9", 1234, 53
V4, PORTS = IP(src=SOURCE, dst=TARGET), {"sport": SPORT, "dport": DPORT}
PACKET = V4 / inet.UDP(**PORTS)


@pytest.fixture
def machine() -> Machine:
    return Machine(stepped=True)


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    with open_card(machine, rx_queues=8, ring_size=64, pool_size=96) as device:
        device.set_rss_table([0])
        machine.cards["a"].ready.reads = 0
        yield device


@pytest.fixture
def card(machine: Machine, device: Device) -> Card:
    assert device.rx
    return machine.cards["a"]


def start(card: Card, control: int = PERFECT, size: int = 1) -> None:
    card.write32(RXPBSIZE, (512 - (32 << size)) << 10)
    card.write32(FDIRHKEY, BUCKET_KEY)
    card.write32(FDIRSKEY, SIGNATURE_KEY)
    card.write32(FDIRCTRL, size | control | DROP_QUEUE | FLEX_AT_ETHERTYPE | LONGEST | THRESHOLD)


def mask(card: Card, fdirm: int = ANY_VLAN | ANY_PRIORITY | ANY_POOL | ANY_FLEX | ANY_IPV6, **masks: int) -> None:
    """What is not compared; of addresses and ports nothing is masked unless `masks` say so."""
    card.write32(FDIRM, fdirm)
    for offset, name in ((FDIRSIP4M, "source"), (FDIRDIP4M, "target"), (FDIRTCPM, "tcp"), (FDIRUDPM, "udp")):
        card.write32(offset, masks.get(name, 0))


def command(card: Card, identity: int, what: int) -> int:
    """Name a filter by its hash and its number, and let the card do something; what FDIRCMD reads then."""
    card.write32(FDIRHASH, identity)
    card.write32(FDIRCMD, what)
    assert card.read32(FDIRCMD) & 3 == 0
    return card.read32(FDIRCMD)


def add_perfect(
    card: Card,
    index: int = 7,
    queue: int = 3,
    flags: int = 0,
    *,
    source: str = SOURCE,
    target: str = TARGET,
    sport: int = SPORT,
    dport: int = DPORT,
    kind: int = UDP,
    vlan: int = 0,
    flex: int = 0,
    bucket: int | None = None,
) -> int:
    """Add a filter as Linux and DPDK do; its identity in FDIRHASH."""
    card.write32(FDIRIPSA, struct.unpack("<I", socket.inet_aton(source))[0])
    card.write32(FDIRIPDA, struct.unpack("<I", socket.inet_aton(target))[0])
    card.write32(FDIRPORT, dport << 16 | sport)
    card.write32(FDIRVLAN, socket.htons(flex) << 16 | vlan)
    if bucket is None:
        bucket = flow_hash(BUCKET_KEY, stream(source, target, sport, dport, kind=kind, vlan=vlan, flex=flex)) & 0x1FFF
    identity = index << 16 | bucket
    command(card, identity, ADD | LAST | QUEUE_EN | kind << 5 | queue << 16 | flags)
    return identity


def signature(data: bytes) -> int:
    """What Linux's ATR and DPDK write into FDIRHASH."""
    return (flow_hash(SIGNATURE_KEY, data) & 0x7FFF) << 16 | flow_hash(BUCKET_KEY, data) & 0x7FFF


def descriptor(machine: Machine, card: Card) -> tuple[int, int, int]:
    """Of the last packet: RSS type, what is in the hash's place, and status and errors."""
    words = [int(machine.rack.cards[card.index, column]) for column in (state.WORD_0, state.WORD_1)]
    return words[0] & 15, words[0] >> 32 & 0xFFFFFFFF, words[1] & 0xFFFFFFFF


# ---------------------------------------------------------------------------------------------------------------------
# The hash


@given(
    st.integers(0, 0xFFFFFFFF),
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xEFFF)),
    st.integers(0, 7),
    st.integers(0, 63),
)
def test_hash_is_that_of_the_datasheet(
    key: int, source: object, target: object, numbers: tuple[int, int, int, int], kind: int, pool: int
) -> None:
    sport, dport, flex, vlan = numbers
    data = stream(str(source), str(target), sport, dport, kind=kind, vlan=vlan, flex=flex, pool=pool)
    flow = Flow(int(source), int(target), sport << 16 | dport, vlan, flex, kind, pool)  # type: ignore[call-overload]
    assert flow_director.hash_of(flow, key) == flow_hash(key, data)


def test_hash_by_known_values() -> None:
    """By the function of Linux and DPDK, in C, run elsewhere."""
    data = stream("10.1.2.3", "192.168.7.9", 1234, 53, kind=UDP)
    assert (flow_hash(BUCKET_KEY, data), flow_hash(SIGNATURE_KEY, data)) == (0x54F5, 0xE753)


# ---------------------------------------------------------------------------------------------------------------------
# The table


@pytest.mark.parametrize("size", [1, 2, 3])
def test_room(card: Card, size: int) -> None:
    """64, 128 or 256 KiB: so many signature filters minus one, or perfect ones minus two; none without."""
    start(card, 0, size)
    assert card.read32(FDIRCTRL) & 1 << 3
    assert card.read32(FDIRFREE) == (4096 << size) - 1
    card.write32(FDIRCMD, CLEARHT)
    card.write32(FDIRCMD, 0)
    start(card, PERFECT, size)
    assert card.read32(FDIRFREE) == (1024 << size) - 2


def test_no_room(card: Card) -> None:
    """PBALLOC 0 makes no table, and the next write still makes the first one."""
    start(card, PERFECT, 0)
    assert card.read32(FDIRFREE) == 0x8000  # as after a reset
    start(card)
    assert card.read32(FDIRFREE) == 2046


@pytest.mark.parametrize(
    ("size", "fits", "too_large"),
    [
        (1, {0: 448}, {0: 449}),
        (2, {0: 384}, {0: 448}),
        (3, {0: 256}, {0: 512}),
        (1, {0: 224, 1: 224}, {0: 448, 1: 512}),
    ],
)
def test_a_table_where_packets_lie(
    machine: Machine,
    device: Device,
    card: Card,
    size: int,
    fits: dict[int, int],
    too_large: dict[int, int],
) -> None:
    """7.1.2.7.5: 64, 128 or 256 of 512 KiB are the filters' that were there; else they match nothing."""
    start(card, PERFECT, size)
    mask(card)
    add_perfect(card)
    for buffers, queue in ((fits, 3), (too_large, 0), (fits, 3)):
        for number, kib in buffers.items():
            card.write32(RXPBSIZE + 4 * number, kib << 10)
        assert queue_of(machine, device, PACKET) == queue, buffers
        assert card.read32(FDIRCTRL) & 1 << 15 == 0
    assert card.breaches.collect()["flow-table-room"].count >= 1


def test_table_that_is_full(card: Card) -> None:
    """What has no room fails and is counted, and the card interrupts: when 64 places are left, and when none is."""
    start(card, 0)
    room = card.read32(FDIRFREE)
    for number in range(room):
        card.write32(FDIRHASH, number)
        card.write32(FDIRCMD, ADD | QUEUE_EN)
        if room - number - 1 in (65, 64):
            assert bool(card.read32(EICS) & 1 << 16) == (room - number - 1 == 64)
    assert card.read32(FDIRFREE) & 0xFFFF == 0
    assert card.read32(FDIRUSTAT) == room
    card.write32(0x800, 1 << 16)
    command(card, 5 << 16, ADD | QUEUE_EN)
    assert card.read32(FDIRFSTAT) == 1
    assert card.read32(EICS) & 1 << 16
    command(card, 3, REMOVE)
    command(card, 5 << 16, ADD | QUEUE_EN)
    assert (card.read32(FDIRFREE) & 0xFFFF, card.read32(FDIRFSTAT), card.read32(FDIRUSTAT)) == (0, 0, 1 << 16 | 1)


def test_query_and_remove(card: Card) -> None:
    """As Linux and DPDK remove a filter: they ask first whether it is there."""
    start(card)
    mask(card)
    identity = add_perfect(card)
    card.write32(FDIRIPSA, 0)
    found = command(card, identity, QUERY)
    assert found & VALID
    assert found >> 16 & 0x7F == 3
    assert card.read32(FDIRHASH) & 1 << 15
    assert card.read32(FDIRIPSA) == struct.unpack("<I", socket.inet_aton(SOURCE))[0]
    assert card.read32(FDIRPORT) == DPORT << 16 | SPORT
    assert command(card, identity + (1 << 16), QUERY) & VALID == 0
    assert command(card, identity ^ 1, QUERY) & VALID == 0
    assert card.read32(FDIRHASH) & 1 << 15 == 0
    command(card, identity, REMOVE)
    assert command(card, identity, QUERY) & VALID == 0
    assert card.read32(FDIRUSTAT) == 1 << 16 | 1
    command(card, identity, REMOVE)
    assert card.read32(FDIRFSTAT) == 1 << 8
    assert card.read32(FDIRFSTAT) == 0
    assert card.read32(FDIRFREE) == 2046


def test_lists(machine: Machine, device: Device, card: Card) -> None:
    """Filters of one bucket: each can be found and removed. FDIRLEN tells the longest list, less one."""
    start(card, 0)
    mask(card, 0x3F)
    data = stream(SOURCE, TARGET, SPORT, DPORT, kind=0)
    own = signature(data)
    others = [own ^ n << 16 for n in (1, 2, 3)]
    for queue, identity in enumerate([others[0], own, others[1], others[2]], 1):
        command(card, identity, ADD | QUEUE_EN | queue << 16)
    assert card.read32(FDIRLEN) & 0x3F == 3
    assert card.read32(FDIRLEN) == 0
    for removed in (others[1], others[0], others[2]):
        assert queue_of(machine, device, PACKET) == 2
        command(card, removed, REMOVE)
    assert queue_of(machine, device, PACKET) == 2
    command(card, own, REMOVE)
    assert queue_of(machine, device, PACKET) == 0


def test_same_filter_again(machine: Machine, device: Device, card: Card) -> None:
    """With another queue: it keeps its own and is marked as collided. With FILTER_UPDATE it gets the new one."""
    start(card)
    mask(card)
    add_perfect(card, 7, 3)
    add_perfect(card, 7, 3)
    assert card.read32(FDIRFREE) == 2045
    add_perfect(card, 8, 4)
    add_perfect(card, 8, 4)
    assert card.read32(FDIRFREE) == 1 << 16 | 2045
    assert queue_of(machine, device, PACKET) == 3
    assert descriptor(machine, card)[2] & COLLIDED
    identity = add_perfect(card, 7, 5, UPDATE)
    assert queue_of(machine, device, PACKET) == 5
    assert card.read32(FDIRFREE) == 1 << 16 | 2045
    command(card, identity, REMOVE)
    assert card.read32(FDIRFREE) == 2046


def test_a_table_is_made_anew_only_after_clearht(machine: Machine, device: Device, card: Card) -> None:
    """The flow of Linux and DPDK: FDIRFREE, CLEARHT on and off, FDIRHASH, FDIRCTRL (7.1.2.7.10)."""
    start(card)
    mask(card)
    add_perfect(card)
    card.write32(FDIRCTRL, card.read32(FDIRCTRL) & ~(1 << 3))
    assert queue_of(machine, device, PACKET) == 3
    card.write32(FDIRFREE, 0)
    card.write32(FDIRCMD, card.read32(FDIRCMD) | CLEARHT)
    card.write32(FDIRCMD, card.read32(FDIRCMD) & ~CLEARHT)
    card.write32(FDIRHASH, 0)
    card.write32(FDIRCTRL, card.read32(FDIRCTRL) & ~(1 << 3))
    assert card.read32(FDIRCTRL) & 1 << 3
    assert card.read32(FDIRFREE) == 2046
    assert queue_of(machine, device, PACKET) == 0
    add_perfect(card)
    assert queue_of(machine, device, PACKET) == 3


def test_reset_switches_it_off(machine: Machine, device: Device, card: Card) -> None:
    start(card)
    add_perfect(card)
    card.write32(0, 1 << 26)
    assert not machine.rack.cards[card.index, state.FEATURES] & state.FILTER
    command(card, 5 << 16, ADD | QUEUE_EN)
    assert card.read32(FDIRFSTAT) == 1  # there is no table
    start(card)
    assert card.read32(FDIRFREE) == 2046
    assert len(device.rx) == 8


def test_bits_that_take_their_time(card: Card) -> None:
    """FDIRCTRL.INIT_DONE and FDIRCMD.CMD, which clears itself: three reads of registers."""
    card.ready.reads = 3
    start(card)
    assert [bool(card.read32(FDIRCTRL) & 1 << 3) for _ in range(5)] == [False, False, False, True, True]
    card.write32(FDIRHASH, 5)
    card.write32(FDIRCMD, ADD | QUEUE_EN)
    assert [card.read32(FDIRCMD) & 3 for _ in range(5)] == [ADD, ADD, ADD, 0, 0]


@given(st.lists(st.tuples(st.sampled_from([FDIRCTRL, FDIRCMD, FDIRHASH, FDIRFREE, FDIRM]), st.integers(0, 2**32 - 1))))
def test_nonsense(writes: list[tuple[int, int]]) -> None:
    """Whatever is written, a packet arrives or not, and the number of free places is right."""
    machine = Machine(stepped=True)
    with open_card(machine, rx_queues=8, ring_size=64, pool_size=96) as device:
        card = machine.cards["a"]
        for offset, value in writes:
            card.write32(offset, value)
            queue_of(machine, device, PACKET)


# ---------------------------------------------------------------------------------------------------------------------
# Perfect match


def test_all_fields(machine: Machine, device: Device, card: Card) -> None:
    start(card)
    mask(card)
    add_perfect(card)
    assert queue_of(machine, device, PACKET) == 3
    assert queue_of(machine, device, Dot1Q(vlan=5) / PACKET) == 3
    assert descriptor(machine, card)[2] & FLM
    others = [
        IP(src="10.1.2.4", dst=TARGET) / inet.UDP(**PORTS),
        IP(src=SOURCE, dst="192.168.7.8") / inet.UDP(**PORTS),
        V4 / inet.UDP(sport=SPORT + 1, dport=DPORT),
        V4 / inet.UDP(sport=SPORT, dport=DPORT + 1),
        V4 / inet.TCP(**PORTS),
        IP(src=SOURCE, dst=TARGET, flags="MF") / inet.UDP(**PORTS),
        ARP(),
    ]
    for packet in others:
        assert queue_of(machine, device, packet) == 0
        assert not descriptor(machine, card)[2] & FLM
    assert (card.read32(FDIRMATCH), card.read32(FDIRMISS)) == (2, 5)  # a fragment and ARP are no candidates
    assert (card.read32(FDIRMATCH), card.read32(FDIRMISS)) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "transport"), [(UDP, inet.UDP(**PORTS)), (TCP, inet.TCP(**PORTS)), (SCTP, sctp.SCTP(**PORTS))]
)
def test_protocols(machine: Machine, device: Device, card: Card, kind: int, transport: Packet) -> None:
    start(card)
    mask(card)
    add_perfect(card, kind=kind)
    assert queue_of(machine, device, V4 / transport) == 3


def test_masks(machine: Machine, device: Device, card: Card) -> None:
    """Parts of addresses, whose first byte is the lowest of the mask, and of ports, whose highest bit is."""
    start(card)
    mask(card, source=0xFFFF0000, target=0xFF000000, udp=0xFFFF << 16 | 0x00FF)
    add_perfect(card, source="10.1.0.0", target="192.168.7.0", sport=SPORT & 0xFF, dport=0)
    assert queue_of(machine, device, PACKET) == 3
    assert queue_of(machine, device, IP(src="10.1.99.98", dst="192.168.7.1") / inet.UDP(sport=0x9900 + 0xD2)) == 3
    assert queue_of(machine, device, IP(src="10.2.2.3", dst=TARGET) / inet.UDP(**PORTS)) == 0
    assert queue_of(machine, device, V4 / inet.UDP(sport=SPORT + 1)) == 0


def test_any_protocol(machine: Machine, device: Device, card: Card) -> None:
    """Then fragments are candidates, and what has no ports."""
    start(card)
    mask(card, 0x3F, udp=0xFFFFFFFF, tcp=0xFFFFFFFF)
    add_perfect(card, sport=0, dport=0, kind=0)
    for packet in (PACKET, V4 / inet.TCP(), V4 / ICMP(), IP(src=SOURCE, dst=TARGET, frag=3) / b"12345678"):
        assert queue_of(machine, device, packet) == 3


def test_vlan_and_flexible_bytes(machine: Machine, device: Device, card: Card) -> None:
    start(card)
    mask(card, ANY_PRIORITY | ANY_POOL | ANY_IPV6)
    add_perfect(card, vlan=5, flex=0x8100)
    assert queue_of(machine, device, Dot1Q(vlan=5, prio=3) / PACKET) == 3
    assert queue_of(machine, device, Dot1Q(vlan=6) / PACKET) == 0
    assert queue_of(machine, device, PACKET) == 0
    mask(card, ANY_VLAN | ANY_POOL | ANY_FLEX)
    add_perfect(card, 8, 4, vlan=3 << 13)
    assert queue_of(machine, device, Dot1Q(vlan=9, prio=3) / PACKET) == 4
    assert queue_of(machine, device, Dot1Q(vlan=9, prio=2) / PACKET) == 0


def test_drop(machine: Machine, device: Device, card: Card) -> None:
    """Into a queue that is not enabled; it is good packet that arrived, and no packet that was missed."""
    start(card)
    mask(card)
    identity = add_perfect(card, queue=127, flags=DROP)
    before = device.stats()
    assert queue_of(machine, device, PACKET) is None
    after = device.stats()
    assert (after.rx_packets - before.rx_packets, after.rx_dropped - before.rx_dropped) == (1, 0)
    command(card, identity, REMOVE)
    assert queue_of(machine, device, PACKET) == 0
    add_perfect(card, queue=127, flags=DROP)
    card.write32(FDIRCTRL, card.read32(FDIRCTRL) & ~DROP_QUEUE | 6 << 8)
    assert queue_of(machine, device, PACKET) == 6


def test_drop_deep_in_a_list(machine: Machine, device: Device, card: Card) -> None:
    """Behind more than MAX_LENGTH filters, it goes to its queue instead, and the descriptor says so."""
    start(card)
    mask(card)
    bucket = flow_hash(BUCKET_KEY, stream(SOURCE, TARGET, SPORT, DPORT, kind=UDP)) & 0x1FFF
    for index in range(11):
        add_perfect(card, index, sport=index, bucket=bucket)
    assert queue_of(machine, device, V4 / inet.UDP(sport=1, dport=1)) == 0
    add_perfect(card, 100, 5, DROP)
    assert queue_of(machine, device, PACKET) == 5
    assert descriptor(machine, card)[2] & (TOO_LONG | WOULD_DROP) == TOO_LONG | WOULD_DROP


def test_what_the_descriptor_tells(machine: Machine, device: Device, card: Card) -> None:
    """Nothing, hash and number of the filter that matches, or hashes always (8.2.3.21.1)."""
    mask(card)
    start(card)
    identity = add_perfect(card, 99)
    hash_of = flow_hash(BUCKET_KEY, stream(SOURCE, TARGET, SPORT, DPORT, kind=UDP)) & 0x7FF
    other = flow_hash(BUCKET_KEY, stream(SOURCE, TARGET, 1, DPORT, kind=UDP)) & 0x7FF
    assert identity >> 16 == 99
    for control, matching, missing in (
        (0, None, None),
        (REPORT, hash_of << 16 | 99, None),
        (REPORT | REPORT_ALWAYS, hash_of << 16 | 99, other << 16),
    ):
        card.write32(FDIRCTRL, 1 | PERFECT | control)
        for packet, told in ((PACKET, matching), (V4 / inet.UDP(sport=1, dport=DPORT), missing)):
            queue_of(machine, device, packet)
            kind, value, _ = descriptor(machine, card)
            assert (kind == 15) == (told is not None)
            assert told is None or value == told


def test_filters_before_it_go_first(machine: Machine, device: Device, card: Card) -> None:
    """A packet that they have a queue for is counted as a match all the same."""
    start(card)
    mask(card)
    add_perfect(card)
    card.write32(0xE800, 6 << 21)
    card.write32(0xE600, 1 << 31 | 0x3F << 25 | 1 << 2)
    assert queue_of(machine, device, PACKET) == 6
    assert card.read32(FDIRMATCH) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Signatures


def test_signature_as_by_atr(machine: Machine, device: Device, card: Card) -> None:
    """Linux writes no masks, so that the flexible bytes count, which it lets be the Ethertype."""
    start(card, 0)
    data = stream(SOURCE, TARGET, SPORT, DPORT, kind=TCP, flex=0x0800)
    card.write32(FDIRHASH, signature(data))
    card.write32(FDIRCMD, ADD | UPDATE | LAST | QUEUE_EN | TCP << 5 | 6 << 16)
    assert queue_of(machine, device, V4 / inet.TCP(**PORTS)) == 6
    assert queue_of(machine, device, V4 / inet.UDP(**PORTS)) == 0
    assert queue_of(machine, device, IP(src=SOURCE, dst="192.168.7.8") / inet.TCP(**PORTS)) == 0
    card.write32(FDIRCMD, ADD | UPDATE | LAST | QUEUE_EN | TCP << 5 | 4 << 16)
    assert queue_of(machine, device, V4 / inet.TCP(**PORTS)) == 4
    tagged = stream(SOURCE, TARGET, SPORT, DPORT, kind=TCP, flex=0x8100, vlan=2 << 13 | 77)
    command(card, signature(tagged), ADD | UPDATE | LAST | QUEUE_EN | TCP << 5 | 5 << 16)
    assert queue_of(machine, device, Dot1Q(vlan=77, prio=2) / V4 / inet.TCP(**PORTS)) == 5


def test_signature_of_ipv6(machine: Machine, device: Device, card: Card) -> None:
    """With masks for each byte of an address, the lowest bit for the first."""
    source, target = "2001:db8::1:2:3", "fe80::9"
    packet = IPv6(src=source, dst=target) / inet.TCP(**PORTS)
    start(card, 0)
    mask(card)
    data = stream(source, target, SPORT, DPORT, kind=TCP | IPV6)
    command(card, signature(data), ADD | QUEUE_EN | 2 << 16)
    assert queue_of(machine, device, packet) == 2
    card.write32(FDIRIP6M, 0xC000 << 16 | 0x0003)
    assert queue_of(machine, device, packet) == 0
    data = stream("0:db8::1:2:3", "fe80::", SPORT, DPORT, kind=TCP | IPV6)
    command(card, signature(data), ADD | QUEUE_EN | 3 << 16)
    assert queue_of(machine, device, packet) == 3
    assert inet6.IPv6 is IPv6


def test_what_a_signature_tells(machine: Machine, device: Device, card: Card) -> None:
    start(card, REPORT)
    mask(card)
    data = stream(SOURCE, TARGET, SPORT, DPORT, kind=UDP)
    identity = signature(data)
    command(card, identity, ADD | QUEUE_EN | 2 << 16)
    assert queue_of(machine, device, PACKET) == 2
    kind, value, _ = descriptor(machine, card)
    assert kind == 15
    assert value == (identity & 0x1FFF) << 16 | identity >> 16
