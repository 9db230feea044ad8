"""DPDK's net_ixgbe, unmodified, is the judge of the simulated 82599: testpmd drives it in a guest.

The test is at the other end of the wire, and knows each frame that it sends and each that must come back.
"""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import dpkt
import pytest
from dpdk import Port, guest_with_testpmd
from toeplitz import KEY, toeplitz

pytestmark = pytest.mark.skipif(
    not shutil.which("dpdk-testpmd"), reason="dpdk-testpmd (Debian packages dpdk, dpdk-dev) is not installed"
)

QUEUES = 4
HERE = bytes.fromhex("020000000001")
PEER = bytes.fromhex("020000000000")  # to which testpmd sends what it forwards
CRC = 4
BUFFER = 2048  # bytes of a packet in one of testpmd's buffers
SIZES = [60, 61, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 1500, 1514]
A, B = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
A6, B6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd00::1", "fd00::2"))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with guest_with_testpmd(tmp_path_factory.mktemp("guest") / "dpdk") as port:
        yield port


def plain(port: Port, size: int = 60, number: int = 0, to: bytes | None = None, kind: int = 0x88B5) -> bytes:
    """A frame of a kind that no protocol takes, full of bytes of its own."""
    head = (to or port.mac) + HERE + kind.to_bytes(2, "big") + number.to_bytes(4, "big")
    return head + bytes((number + i) % 251 for i in range(size - len(head)))


def ethernet(port: Port, packet: dpkt.ip.IP | dpkt.ip6.IP6, tag: int | None = None) -> bytes:
    kind = (dpkt.ethernet.ETH_TYPE_IP if packet.v == 4 else dpkt.ethernet.ETH_TYPE_IP6).to_bytes(2, "big")
    tagged = b"" if tag is None else b"\x81\x00" + tag.to_bytes(2, "big")
    return (port.mac + HERE + tagged + kind + bytes(packet)).ljust(60, b"\0")


def ip(segment: dpkt.tcp.TCP | dpkt.udp.UDP, source: bytes = A, target: bytes = B) -> dpkt.ip.IP | dpkt.ip6.IP6:
    """A packet whose checksums dpkt works out."""
    protocol = dpkt.ip.IP_PROTO_TCP if isinstance(segment, dpkt.tcp.TCP) else dpkt.ip.IP_PROTO_UDP
    if len(source) == 4:
        return dpkt.ip.IP(src=source, dst=target, p=protocol, ttl=64, data=segment, len=20 + len(segment))
    return dpkt.ip6.IP6(src=source, dst=target, nxt=protocol, hlim=64, data=segment, plen=len(segment))


def udp(source: int, target: int, data: bytes = b"payload") -> dpkt.udp.UDP:
    return dpkt.udp.UDP(sport=source, dport=target, ulen=8 + len(data), data=data)


def tcp(source: int, target: int, data: bytes = b"payload", **fields: int) -> dpkt.tcp.TCP:
    return dpkt.tcp.TCP(sport=source, dport=target, data=data, **fields)


def forwarded(port: Port, frame: bytes) -> bytes:
    """What testpmd's MAC forwarding makes of a frame."""
    return PEER + port.mac + frame[12:]


# Which receive and transmit functions the driver takes, by its own words, and what makes it take them.
WHOLE = ["port config all rxq 1", "port config all txq 1", "port config all rxfreet 32"]
PATHS = {
    "vector": (WHOLE, ["Vector rx enabled", "Vector tx enabled"]),
    "bulk": (
        [*WHOLE, "port config 0 rxq 0 ring_size 160", "port config 0 tx_offload multi_segs on"],
        ["doesn't meet Vector Rx", "Rx Burst Bulk Alloc Preconditions are satisfied", "Using full-featured tx"],
    ),
    "single": (
        [*WHOLE, "port config all rxfreet 8", "port config 0 tx_offload multi_segs off"],
        ["Rx Burst Bulk Alloc Preconditions are not satisfied", "Using simple tx"],
    ),
    "scattered": (
        [*WHOLE, "port config 0 rxq 0 ring_size 256", "port config 0 rx_offload scatter on"],
        ["Using Vector Scattered Rx"],
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_frames_of_all_sizes_are_forwarded(port: Port, path: str) -> None:
    """400 frames, none lost, none changed but for the addresses, through each of the driver's functions."""
    commands, words = PATHS[path]
    said = port.configure(*commands)
    for word in words:
        assert word in said
    frames = [plain(port, size, number) for number, size in enumerate(SIZES * 30)]
    with port.forwarding("mac"):
        for start in range(0, len(frames), 130):
            port.wire.send(frames[start : start + 130])
            expected = [forwarded(port, frame) for frame in frames[start : start + 130]]
            assert port.wire.receive(130) == expected
    received = port.offer([plain(port, size) for size in SIZES])
    assert [packet.length for packet in received] == SIZES


def test_transmission(port: Port) -> None:
    """What testpmd makes of its own: UDP packets in one buffer, and in three; those in `start tx_first` are counted."""
    port.configure(*WHOLE, "port config 0 rx_offload scatter off", "port config 0 tx_offload multi_segs on")
    for sizes in ("64", "100,200,300"):
        length = sum(map(int, sizes.split(",")))
        port.tell("set verbose 0", "set fwd mac", f"set txpkts {sizes}", "start tx_first 3")
        frames = port.wire.receive(3 * 32)
        assert port.wire.is_silent()
        port.tell("stop")
        for frame in frames:
            packet = dpkt.ethernet.Ethernet(frame)
            assert (packet.dst, packet.src) == (PEER, port.mac)
            assert len(frame) == length
            assert packet.data.len == length - 14
            assert packet.data.data.ulen == length - 34
    port.tell("set txpkts 64")


def test_statistics_equal_what_was_sent(port: Port) -> None:
    """Frames of all sizes, to the card, to all and to a group, forwarded: the counters of both ways.

    The driver takes the check sequences out of those counters in which the card counts them.
    """
    port.configure(*WHOLE)
    group = bytes.fromhex("01005e000001")
    frames = [plain(port, size, to=to) for size, to in product(SIZES, (port.mac, b"\xff" * 6, group))]
    before = port.statistics()
    with port.forwarding("io"):
        port.wire.send(frames)
        assert port.wire.receive(len(frames)) == frames
    after = port.statistics()
    total = sum(map(len, frames))
    sizes = [len(frame) + CRC for frame in frames]
    expected = {
        "good_packets": len(frames),
        "good_bytes": total,
        "total_packets": len(frames),
        "q0_packets": len(frames),
    }
    expected |= {"broadcast_packets": len(SIZES), "multicast_packets": len(SIZES), "size_64_packets": sizes.count(64)}
    for low, high in ((65, 127), (128, 255), (256, 511), (512, 1023)):
        expected[f"size_{low}_to_{high}_packets"] = sum(low <= size <= high for size in sizes)
    expected["size_1024_to_max_packets"] = sum(size >= 1024 for size in sizes)
    expected = {f"{way}_{name}": value for way in ("rx", "tx") for name, value in expected.items()}
    expected |= {"rx_q0_bytes": total, "rx_total_bytes": total}
    assert {name: after[name] - before[name] for name in expected} == expected
    assert [name for name in after if "error" in name and after[name]] == []


SPREAD = [f"port config all rxq {QUEUES}", f"port config all txq {QUEUES}"]


def flows(count: int, target: int = 9) -> list[tuple[bytes, dpkt.ip.IP | dpkt.ip6.IP6]]:
    """TCP, UDP and other ports over both kinds of IP; each packet with what RSS hashes of it."""
    found = []
    for number in range(count):
        source, to = ((A, B), (A6, B6))[number // 2 % 2]
        segment = (tcp, udp)[number % 2](10000 + number, target)
        ports = (10000 + number).to_bytes(2, "big") + target.to_bytes(2, "big")
        found.append((source + to + ports, ip(segment, source, to)))
    return found


def reta(port: Port, table: Sequence[int]) -> None:
    """Fill the redirection table."""
    for start in range(0, 128, 8):
        entries = ",".join(f"({entry},{table[entry]})" for entry in range(start, start + 8))
        port.tell(f"port config 0 rss reta {entries}")


def test_flows_are_spread_by_the_table(port: Port) -> None:
    """64 flows by a known key: hash and queue are those worked out here; then the table is changed, and obeyed."""
    port.configure(*SPREAD)
    for kind in ("ipv4", "ipv4-tcp", "ipv4-udp", "ipv6", "ipv6-tcp", "ipv6-udp"):
        port.tell(f"port config 0 rss-hash-key {kind} {KEY.hex()}")
    port.tell("port config all rss all")
    tables = [[entry % QUEUES for entry in range(128)], [entry // 7 * 3 % QUEUES for entry in range(128)]]
    offered = flows(64)
    hashes = {toeplitz(KEY, data) for data, _ in offered}
    assert len(hashes) == 64
    for table in tables:
        reta(port, table)
        found = port.offer([ethernet(port, packet) for _, packet in offered])
        assert {packet.values["RSS hash"] for packet in found} == hashes
        assert all(packet.queue == table[packet.values["RSS hash"] % 128] for packet in found)
        assert {packet.queue for packet in found} == set(range(QUEUES))


def test_queues_stop_and_start(port: Port) -> None:
    """Frames for a queue that is stopped are lost, those for others are not; started again, it receives."""
    port.configure(*SPREAD)
    port.tell("port config all rss all")
    frames = [ethernet(port, packet) for _, packet in flows(32)]
    counts = Counter(packet.queue for packet in port.offer(frames))
    assert len(counts) == QUEUES
    port.tell("port 0 rxq 1 stop")
    remaining = Counter(packet.queue for packet in port.offer(frames))
    assert remaining == {queue: count for queue, count in counts.items() if queue != 1}
    port.tell("port 0 rxq 1 start", "port 0 txq 1 stop", "port 0 txq 1 start")
    assert Counter(packet.queue for packet in port.offer(frames)) == counts
    with port.forwarding("mac"):
        port.wire.send(frames)
        assert sorted(port.wire.receive(len(frames))) == sorted(forwarded(port, frame) for frame in frames)


def test_vlan(port: Port) -> None:
    """Tags are taken off and told, one VLAN of two passes the filter, and tags are put in."""
    port.configure(*WHOLE, "port config 0 tx_offload vlan_insert on", "tx_vlan set 0 291")
    frames = [ethernet(port, ip(udp(7, 9, bytes(100))), tag) for tag in (7, 8, 0x6007)]
    port.tell("vlan set strip on 0")
    found = port.offer(frames)
    assert [packet.values["VLAN tci"] for packet in found] == [7, 8, 0x6007]
    assert all(packet.flags >= {"VLAN", "VLAN_STRIPPED"} and packet.length == len(frames[0]) - 4 for packet in found)
    port.tell("vlan set strip off 0", "vlan set filter on 0", "rx_vlan add 7 0")
    found = port.offer(frames)
    assert [packet.length for packet in found] == [len(frames[0])] * 2
    port.tell("rx_vlan rm 7 0")
    assert port.offer(frames) == []
    port.tell("vlan set filter off 0")
    bare = ethernet(port, ip(udp(7, 9, bytes(100))))
    with port.forwarding("mac"):
        port.wire.send([bare])
        sent = forwarded(port, bare)
        assert port.wire.receive(1) == [sent[:12] + b"\x81\x00\x01\x23" + sent[12:]]
    port.configure("tx_vlan reset 0", "port config 0 tx_offload vlan_insert off")


def test_checksums_received(port: Port) -> None:
    """What the card says of checksums, right ones and wrong ones, over both kinds of IP.

    That one of UDP is wrong DPDK does not take from an 82599, which says so of packets without one, too.
    """
    port.configure(*WHOLE, *(f"port config 0 rx_offload {kind}_cksum on" for kind in ("ipv4", "udp", "tcp")))
    good = [ethernet(port, packet) for _, packet in flows(4)]
    for packet in port.offer(good):
        assert {"L4_CKSUM_GOOD", "IP_CKSUM_GOOD"} <= packet.flags
    kinds = ["L3_IPV4 L4_TCP", "L3_IPV4 L4_UDP", "L3_IPV6 L4_TCP", "L3_IPV6 L4_UDP"]
    assert [packet.kind for packet in port.offer(good)] == [f"L2_ETHER {kind}" for kind in kinds]
    wrong = [bytearray(frame) for frame in good]
    for frame, ports in zip(wrong, (34, 34, 54, 54), strict=True):
        frame[ports] ^= 1
    told_wrong = [packet.flags for packet in port.offer([bytes(frame) for frame in wrong])]
    assert ["L4_CKSUM_BAD" in flags for flags in told_wrong] == [True, False, True, False]
    assert ["L4_CKSUM_UNKNOWN" in flags for flags in told_wrong] == [False, True, False, True]
    assert all("L4_CKSUM_GOOD" not in flags for flags in told_wrong)
    wrong_ip = bytearray(good[0])
    wrong_ip[24] ^= 1
    (told,) = port.offer([bytes(wrong_ip)])
    assert {"L4_CKSUM_GOOD", "IP_CKSUM_BAD"} <= told.flags
    port.configure(*(f"port config 0 rx_offload {kind}_cksum off" for kind in ("ipv4", "udp", "tcp")))


HARDWARE = [f"csum set {kind} hw 0" for kind in ("ip", "udp", "tcp")]
SOFTWARE = [f"csum set {kind} sw 0" for kind in ("ip", "udp", "tcp")]


def test_checksums_sent(port: Port) -> None:
    """testpmd's checksum engine leaves them to the card: they are those that dpkt works out."""
    port.configure(*WHOLE, *HARDWARE)
    frames = [
        ethernet(port, ip((tcp, udp)[number % 2](7, 9, bytes(range(number))), *ends))
        for number, ends in product(range(40), ((A, B), (A6, B6)))
    ]
    with port.forwarding("csum"):
        port.wire.send(frames)
        assert port.wire.receive(len(frames)) == [forwarded(port, frame) for frame in frames]


JUMBO = ["port config mtu 0 9000", "port config 0 rx_offload scatter on", "port config 0 tx_offload multi_segs on"]


def test_jumbo_frames(port: Port) -> None:
    """Frames over several buffers, up to 9,018 bytes with the check sequence; a longer one is not taken."""
    port.configure(*WHOLE, *JUMBO)
    sizes = [60, BUFFER, BUFFER + 1, 2 * BUFFER, 5000, 9014]
    frames = [plain(port, size) for size in sizes]
    found = port.offer([*frames, plain(port, 9100)])
    assert [(packet.length, packet.segments) for packet in found] == [(size, -(-size // BUFFER)) for size in sizes]
    with port.forwarding("mac"):
        port.wire.send(frames)
        assert port.wire.receive(len(frames)) == [forwarded(port, frame) for frame in frames]


@pytest.mark.parametrize("ends", [(A, B), (A6, B6)], ids=["IPv4", "IPv6"])
def test_segmentation(port: Port, ends: tuple[bytes, bytes]) -> None:
    """Large TCP packets are cut by the card: the parts make up the whole, with right headers and checksums."""
    port.configure(*WHOLE, *JUMBO, *HARDWARE, "tso set 800 0")
    data = bytes(i % 251 for i in range(7000))
    whole = tcp(7, 9, data, seq=1000, flags=dpkt.tcp.TH_ACK | dpkt.tcp.TH_PUSH | dpkt.tcp.TH_FIN)
    with port.forwarding("csum"):
        port.wire.send([ethernet(port, ip(whole, *ends))])
        frames = port.wire.receive(9)
        assert port.wire.is_silent()
    for number, frame in enumerate(frames):
        packet = dpkt.ethernet.Ethernet(frame)
        part = data[number * 800 : (number + 1) * 800]
        last = dpkt.tcp.TH_PUSH | dpkt.tcp.TH_FIN if number == 8 else 0
        segment = tcp(7, 9, part, seq=1000 + number * 800, flags=dpkt.tcp.TH_ACK | last)
        expected = ip(segment, *ends)
        if expected.v == 4:
            expected.id = packet.data.id
        assert frame == forwarded(port, ethernet(port, expected))
    port.configure("tso set 0 0", *SOFTWARE, "port config mtu 0 1500")


def test_check_sequence_kept(port: Port) -> None:
    """The card leaves the check sequences, the driver takes them off: frames and counts are as before."""
    port.configure(*WHOLE, "port config 0 rx_offload keep_crc on")
    frames = [plain(port, size) for size in (60, 61, 1514)]
    assert [packet.length for packet in port.offer(frames)] == [60, 61, 1514]
    before = port.statistics()
    with port.forwarding("mac"):
        port.wire.send(frames)
        assert port.wire.receive(len(frames)) == [forwarded(port, frame) for frame in frames]
    after = port.statistics()
    assert after["rx_good_bytes"] - before["rx_good_bytes"] == sum(map(len, frames))
    assert after["rx_q0_bytes"] - before["rx_q0_bytes"] == sum(map(len, frames))
    port.configure("port config 0 rx_offload keep_crc off")


def rule(port: Port, words: str) -> None:
    """Make a rule of DPDK's flow language."""
    assert "Flow rule #" in port.tell(f"flow create 0 ingress pattern {words} / end")


def test_rules(port: Port) -> None:
    """An Ethertype, a 5-tuple and SYN packets each to a queue of its own, others by RSS; then there are no rules."""
    port.configure(*SPREAD)
    reta(port, [0] * 128)
    rule(port, "eth type is 0x88b6 / end actions queue index 1")
    rule(port, "ipv4 src is 10.0.0.1 dst is 10.0.0.2 proto is 17 / udp src is 7 dst is 9 / end actions queue index 2")
    rule(port, "eth / ipv4 / tcp flags spec 2 flags mask 2 / end actions queue index 3")
    frames = {
        "Ethertype": plain(port, kind=0x88B6),
        "other Ethertype": plain(port),
        "5-tuple": ethernet(port, ip(udp(7, 9))),
        "another port": ethernet(port, ip(udp(7, 10))),
        "SYN": ethernet(port, ip(tcp(7, 9, flags=dpkt.tcp.TH_SYN))),
        "ACK": ethernet(port, ip(tcp(7, 9, flags=dpkt.tcp.TH_ACK))),
    }

    def queues() -> dict[str, int]:
        return {name: port.offer([frame])[0].queue for name, frame in frames.items()}

    expected = {"Ethertype": 1, "other Ethertype": 0, "5-tuple": 2, "another port": 0, "SYN": 3, "ACK": 0}
    assert queues() == expected
    port.tell("flow flush 0")
    assert queues() == dict.fromkeys(frames, 0)


def test_flow_director(port: Port) -> None:
    """A perfect match leads to a queue, or to nowhere; matches and misses are counted."""
    port.configure(*SPREAD)
    reta(port, [0] * 128)
    addresses = "eth / ipv4 src is 10.0.0.1 dst is 10.0.0.2"
    rule(port, f"{addresses} / udp src is 7 dst is 9 / end actions queue index 2 / mark id 5")  # by mark no 5-tuple
    before = port.statistics()
    assert [port.offer([ethernet(port, ip(udp(source, 9)))])[0].queue for source in (7, 8)] == [2, 0]
    after = port.statistics()
    assert after["flow_director_matched_filters"] - before["flow_director_matched_filters"] == 1
    assert after["flow_director_missed_filters"] - before["flow_director_missed_filters"] == 1
    port.tell("flow destroy 0 rule 0")
    assert [packet.queue for packet in port.offer([ethernet(port, ip(udp(7, 9)))])] == [0]
    # The driver drops by addresses only.
    rule(port, f"{addresses} / end actions drop")
    assert len(port.offer([ethernet(port, ip(udp(7, 9), *ends)) for ends in ((A, B), (B, A))])) == 1
    port.tell("flow destroy 0 rule 0")


def test_reset(port: Port) -> None:
    """The port is reset, set up again, and forwards."""
    port.tell("port stop 0", "port reset 0", "port start 0")
    frames = [ethernet(port, packet) for _, packet in flows(32)]
    with port.forwarding("mac"):
        port.wire.send(frames)
        assert sorted(port.wire.receive(len(frames))) == sorted(forwarded(port, frame) for frame in frames)


def test_nothing_went_wrong_meanwhile(port: Port) -> None:
    """The card met no DMA that it was refused."""
    assert port.attachment.machine.dma_refused(port.card) == 0
