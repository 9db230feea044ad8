"""Trials along cables that impair, by a virtual clock: the report equals what the cables did, packet for packet and
nanosecond for nanosecond."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dpkt
import numpy as np
import pytest

import ixy
from ixy.apps import tester as apps
from ixy.apps.compose import compose
from ixy.apps.rate import Rate, parse_rate
from ixy.apps.receiver import CORRUPT, LEAST, MOST, Receiver, judge_one
from ixy.apps.streams import Choice, Stream, turned_round
from ixy.apps.streamtable import COUNT, SIGNATURE_BYTES, table_of
from ixy.apps.tester import Delays, StreamResult, Trial, TrialResult
from ixy.device import Device
from ixy.errors import ConfigurationError
from ixy.formats.frames import MIN_FRAME
from ixy.formats.signature import sign
from ixy.packets.mempool import Mempool
from ixy.sim.fates import Fate
from ixy.sim.machine import machine
from ixy.tables.histogram import PARTS, observe

POLL = 1000  # ns
MPPS = Rate(parse_rate("rate", "1Mpps").amount)

UDP = Stream("udp", compose({"ipv4": {}, "udp": {}}, b"ixy", [60]))
MIXED = [
    Stream("small", compose({"ipv4": {}, "udp": {}}, b"ixy", [60, 61]), share=2),
    Stream("six", compose({"ipv6": {}, "udp": {}}, b"ixy", [80]), {"udp.sport": Choice(range(1024, 2048))}),
    Stream("tagged", compose({"vlan": {"id": 7}, "ipv4": {}, "tcp": {}}, b"ixy", [76]), {"vlan.id": Choice([7, 8])}),
]


@contextmanager
def ports(options: str = "", far: str = "") -> Iterator[list[Device]]:
    """Two cards at a cable of 10 Gbit/s that goes by a virtual clock."""
    addresses = f"sim:test-a,cable=test-b,wire=10G,clock=virtual{options}", f"sim:test-b,clock=virtual{far}"
    with ExitStack() as stack:
        yield [stack.enter_context(ixy.open(address, link_timeout=0)) for address in addresses]


def order_of(streams: Sequence[Stream], count: int) -> list[tuple[int, int, int]]:
    """The stream, the number in its stream and the length of each packet, by a plain loop over shares."""
    shares, lacking = [stream.share for stream in streams], [0] * len(streams)
    numbers, packets = [0] * len(streams), list[tuple[int, int, int]]()
    for _ in range(count):
        lacking = [lack + share for lack, share in zip(lacking, shares, strict=True)]
        chosen = lacking.index(max(lacking))
        lacking[chosen] -= sum(shares)
        frames = streams[chosen].frames
        packets.append((chosen, numbers[chosen], len(frames[numbers[chosen] % len(frames)])))
        numbers[chosen] += 1
    return packets


class Expected:
    """What is to be reported of a stream, from the cable's account of frames."""

    def __init__(self) -> None:
        self.arrived, self.latencies = list[int](), list[int]()
        self.extents = list[int]()
        self.sent = self.duplicated = self.corrupted = 0

    def arrive(self, number: int, latency: int, corrupted: bool) -> None:
        self.corrupted += corrupted
        if number in self.arrived:
            self.duplicated += 1
            return
        first = next((j for j, other in enumerate(self.arrived) if other > number), None)
        if first is not None:
            self.extents.append(len(self.arrived) - first)
        self.arrived.append(number)
        self.latencies.append(latency)

    def check(self, found: StreamResult) -> None:
        assert (found.sent, found.lost) == (self.sent, self.sent - len(self.arrived))
        assert (found.received, found.duplicated) == (len(self.arrived) + self.duplicated, self.duplicated)
        assert (found.reordered, found.max_extent) == (len(self.extents), max(self.extents, default=0))
        assert (found.corrupted, found.too_late) == (self.corrupted, 0)
        assert found.extents.tolist() == counted(self.extents)
        check_delays(found.delays, self.latencies)
        check_delays(found.jitters, np.abs(np.diff(self.latencies)).tolist())


def counted(values: Sequence[int]) -> list[int]:
    counters = np.zeros(PARTS, np.int64)
    for value in values:
        observe(counters, value)
    return counters.tolist()


def check_delays(found: Delays, values: Sequence[int]) -> None:
    assert found.counters.tolist() == counted(values)
    ends = (min(values), max(values)) if values else (0, 0)
    assert (found.least, found.most, found.total, found.count) == (*ends, sum(values), len(values))


def expected(streams: Sequence[Stream], told: Any, count: int, gap: int, burst: int, *, late: bool) -> list[Expected]:
    """What is to be reported, where packets were handed over `gap` ns apart, `burst` at once.

    Args:
        told: the cable's records.
        late: its times count from when a frame's last bit has left, else from its first.
    """
    packets, found = order_of(streams, count), [Expected() for _ in streams]
    originals = told[told["what"] & Fate.COPY == 0]
    assert originals["number"].tolist() == list(range(count))
    first = int(originals["sent"][0]) - (passing(packets[0][2]) if late else 0)
    handed = [first + index // burst * burst * gap for index in range(count)]
    if burst == 1:  # each finds the line free
        for moment, (_, _, length), row in zip(handed, packets, originals, strict=True):
            assert row["sent"] - moment == (passing(length) if late else 0)
    for stream, _, _ in packets:
        found[stream].sent += 1
    for row in sorted((row for row in told if row["arrives"]), key=lambda row: row["arrives"]):
        stream, number, length = packets[row["number"]]
        assert row["length"] == length
        latency = int(row["arrives"]) - handed[row["number"]]
        found[stream].arrive(number, latency, bool(row["what"] & Fate.CORRUPTED))
    return found


def passing(length: int) -> int:
    """Whole ns that a frame takes on a free line: its bytes, the check sequence, preamble and gap."""
    return (length + 4 + 20) * 8 // 10


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "cable",
    [
        "loss=0.05",
        "delay=20us,duplicate=0.1",
        "delay=50us,jitter=20us",
        "delay=10us,reorder=0.1",
        "corrupt=0.3",
        "loss=0.05,delay=9us,jitter=7us,duplicate=0.05,reorder=0.05,corrupt=0.1",
    ],
)
def test_the_report_equals_what_a_cable_did(cable: str, seed: int) -> None:
    """Four streams' worth of packets one way, of all kinds and of odd lengths too."""
    with ports(f",{cable},seed={seed}") as (a, b):
        result = apps.Tester([a, b], MIXED).run(Trial(MPPS, count=800))
        told = machine().impairments("test-a")
    for stream, each in zip(result.streams, expected(MIXED, told, 800, 1000, 1, late=True), strict=True):
        each.check(stream)
    assert (result.sent, result.behind) == (800, 0)
    assert result.others == {"sim:test-a": 0, "sim:test-b": 0}
    assert [stream.name for stream in result.streams] == ["small", "six", "tagged"]


@pytest.mark.parametrize(("rate", "gap", "burst"), [("10Mpps", 100, 1), ("500kpps", 2000, 8)])
def test_both_ways(rate: str, gap: int, burst: int) -> None:
    """Each direction of a cable does other things; bursts wait for the line."""
    with ports(",delay=9us,jitter=7us,loss=0.02,duplicate=0.05,corrupt=0.1,seed=3") as (a, b):
        result = apps.Tester([a, b], [UDP], both_ways=True).run(Trial(parse_rate("rate", rate), count=600, burst=burst))
        there, back = machine().impairments("test-a"), machine().impairments("test-b")
    (one,) = expected([UDP], there, 600, gap, burst, late=True)
    one.check(result.streams[0])
    assert result.streams[0].direction == "sim:test-a → sim:test-b"
    assert result.streams[1].direction == "sim:test-b → sim:test-a"
    if burst == 1:  # of what is sent back, the records tell when the first bit left
        (other,) = expected([UDP], back, 600, gap, burst, late=False)
        other.check(result.streams[1])
    assert result.streams[1].lost == (back["what"] == Fate.LOST).sum()


def test_totals_are_those_of_all_streams() -> None:
    with ports(",delay=9us,jitter=7us,loss=0.1,seed=4") as (a, b):
        result = apps.Tester([a, b], MIXED).run(Trial(MPPS, count=400))
        told = machine().impaired("test-a")
    assert (result.sent, result.received, result.lost) == (400, told.arrived, told.lost)
    assert result.loss_share == told.lost / 400
    assert result.delays.count == sum(stream.delays.count for stream in result.streams)
    assert result.delays.least == min(stream.delays.least for stream in result.streams)
    assert not result.ok


def test_many_trials_of_one_tester() -> None:
    """Each begins anew. What comes late of one, as its wait was too short, is not taken for another's."""
    with ports(",delay=20ms") as (a, b):
        tester = apps.Tester([a, b], [UDP], settle=0.0001)
        for _ in range(3):
            early = tester.run(Trial(MPPS, count=50))
            assert (early.sent, early.received, early.lost) == (50, 0, 50)
        tester = apps.Tester([a, b], [UDP], settle=0.1)
        result = tester.run(Trial(MPPS, count=50))
        assert (result.received, result.lost, sum(result.others.values()), result.ok) == (50, 0, 0, True)
        assert (result.delays.least, result.delays.most) == (20_000_067, 20_000_067)


def test_a_rate_for_a_time_is_so_many_packets() -> None:
    """Those that are due from the beginning to before the end: at 3 Mpps in a tenth of a millisecond 300."""
    with ports() as (a, b):
        tester = apps.Tester([a, b], [UDP])
        result = tester.run(Trial(parse_rate("rate", "3Mpps"), seconds=0.0001))
        assert (result.sent, result.received, result.ok) == (300, 300, True)
        assert tester.run(Trial(MPPS, seconds=0.0001, count=7)).sent == 7


def test_as_fast_as_the_line_is() -> None:
    """Without a rate, the ring is kept full: 14.88 packets a microsecond go, and none is lost."""
    with ports() as (a, b):
        result = apps.Tester([a, b], [UDP]).run(Trial(count=3000))
        assert (result.sent, result.received, result.ok) == (3000, 3000, True)


def test_what_others_send_is_told_apart() -> None:
    """ARP, a frame that is too short, and a test packet that was never sent are counted at the port where they come;
    a test packet that comes back to who has sent it, too."""
    with ports() as (a, b), Mempool(64) as pool:
        tester = apps.Tester([a, b], [UDP])
        tester.prepare()
        told: list[TrialResult] = []

        def meddle(_now: float) -> None:
            if not told:
                told.append(tester.so_far())
                a.tx[0].send(pool.allocate(3, 60))
                b.tx[0].send(pool.allocate(2, 60))

        result = tester.run(Trial(MPPS, count=20), meddle)
    assert result.others == {"sim:test-a": 2, "sim:test-b": 3}
    assert (result.sent, result.received, result.ok) == (20, 20, True)


def test_packets_are_what_they_say(tmp_path) -> None:
    """Checksums are right whatever the signatures say, by dpkt; on the way back addresses are exchanged."""
    for name, streams in (("there", MIXED), ("back", [turned_round(stream) for stream in MIXED])):
        path = tmp_path / f"{name}.pcap"
        with ixy.open(f"sim:test-a,tx_pcap={path}", link_timeout=0) as a, ixy.open("sim:test-b", link_timeout=0) as b:
            apps.Tester([a, b], streams, settle=0).run(Trial(count=40))
        with path.open("rb") as file:
            packets = [data for _, data in dpkt.pcap.Reader(file)]
        assert len(packets) == 40
        for data in packets:
            check_packet(data, "10.0.0.1" if name == "there" else "10.0.0.2")


def check_packet(data: bytes, source: str) -> None:
    """IPv4 source, lengths and checksums."""
    ethernet = dpkt.ethernet.Ethernet(data)
    packet = ethernet.data
    if isinstance(packet, dpkt.ip.IP):
        assert ".".join(map(str, packet.src)) == source
        assert dpkt.in_cksum(data[payload_of(data) - 20 :][:20]) == 0
    segment = packet.data
    body = bytes(segment)
    pseudo = packet.src + packet.dst + len(body).to_bytes(4, "big") + bytes([0, 0, 0, getattr(packet, "nxt", packet.p)])
    assert dpkt.in_cksum(pseudo + body) == 0


def payload_of(data: bytes) -> int:
    """Where what is behind IPv4's header begins."""
    return 38 if data[12:14] == b"\x81\x00" else 34


@pytest.mark.parametrize(("routed", "corrupted"), [(True, 0), (False, 1)])
def test_behind_routers_headers_may_change(routed: bool, corrupted: int) -> None:
    """A frame of which one bit of an address has changed is whole where headers are not compared; one of which a bit of
    the payload has changed is corrupted in any case."""
    skip = 42 if routed else 0
    frame = np.frombuffer(UDP.frames[0], np.uint8).copy()
    receiver = Receiver(table_of([UDP], tail=SIGNATURE_BYTES), skip)
    receiver.state.sent[0, COUNT] = 2
    for number, place in enumerate((3, 50)):
        sign(frame, 0, 60, skip, 0, number, 1000)
        frame[place] ^= 4
        judge_one(receiver.state, frame, 0, 60, 1500)
        frame[place] ^= 4
        assert receiver.rows[0, CORRUPT] == corrupted + number
    assert (receiver.arrived.tolist(), receiver.others) == ([2], 0)
    assert (receiver.rows[0, LEAST], receiver.rows[0, MOST]) == (500, 500)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([Stream("s", compose({"ipv6": {}, "udp": {}}, b"x", [79]))], "s: size 79: .* signature .* need 80 bytes"),
        ([Stream("s", [UDP.frames[0] + bytes(10)])], "s: size 70: its datagram ends within the last 18 bytes"),
        ([Stream("s", UDP.frames, {"payload[0:2]": Choice([1])})], "s: payload.* where the packet's signature is"),
        ([UDP] * 257, "number of streams 257: 1 to 256 are possible"),
    ],
)
def test_streams_that_cannot_be_signed(streams: list[Stream], message: str) -> None:
    with ports() as (a, b), pytest.raises(ConfigurationError, match=message):
        apps.Tester([a, b], streams)


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial(seconds=None), "a trial needs an end"),
        (Trial(count=0), "count 0: 1 to"),
        (Trial(parse_rate("rate", "15Mpps")), "the line of sim:test-a has 10000"),
        (Trial(MPPS, burst=0), "burst 0"),
    ],
)
def test_trials_that_cannot_be(trial: Trial, message: str) -> None:
    with ports() as (a, b), pytest.raises(ConfigurationError, match=message):
        apps.Tester([a, b], [UDP]).run(trial)


def test_turned_round() -> None:
    """Addresses and ports of frames and of fields are exchanged, nothing else, and twice is not at all."""
    stream = Stream("s", MIXED[1].frames, {"ipv6.src": Choice([5]), "udp.dport": Choice([6])})
    turned = turned_round(stream)
    assert set(turned.fields) == {"ipv6.dst", "udp.sport"}
    (frame,), (other,) = stream.frames, turned.frames
    assert (
        other
        == frame[6:12]
        + frame[:6]
        + frame[12:22]
        + frame[38:54]
        + frame[22:38]
        + frame[56:58]
        + frame[54:56]
        + frame[58:]
    )
    assert turned_round(turned) == stream
    assert len(frame) > MIN_FRAME
