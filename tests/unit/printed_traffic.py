"""Frames for a printer, made by a seed: fields that are wrong among them, and each may be cut anywhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    HAO,
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6HAADReply,
    ICMPv6HAADRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6MPAdv,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptAdvInterval,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptHAInfo,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6NDOptRouteInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    Pad1,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

PORTS = (1000, 2000, 3000, 40001, 50000)  # whose payload tcpdump does not look at
HOSTS = ("10.0.0.1", "10.0.0.2", "192.168.3.4", "224.0.0.251")
HOSTS6 = ("2001:db8::1", "fe80::2", "ff02::1", "::", "::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "1:0:0:4::8")
_START = 1_700_000_000_000_000_000  # ns since 1970


class Traffic:
    """Makes frames by a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def packets(self, count: int) -> list[tuple[int, bytes, int]]:
        """So many: a time in ns, what there is of the packet, and its length. A quarter of them is cut."""
        frames = [bytes(self._frame()) for _ in range(count)]
        return [(_START + self._number(10**13), self._cut(frame), len(frame)) for frame in frames]

    def _cut(self, frame: bytes) -> bytes:
        return frame[: self._chance.randint(1, len(frame))] if self._seldom(4) else frame

    def _number(self, below: int) -> int:
        return self._chance.randrange(below)

    def _seldom(self, of: int) -> bool:
        return self._number(of) == 0

    def _one(self, values: Sequence[Any]) -> Any:
        return self._chance.choice(values)

    def _bytes(self, *sizes: int) -> bytes:
        return self._chance.randbytes(self._one(sizes))

    def _frame(self) -> Packet:
        frame = Ether(src="02:00:00:00:00:01", dst=self._one(("02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff")))
        kind = self._number(20)
        if kind == 0:
            return Ether(src=frame.src, dst=frame.dst, type=self._one((0x88B5, 0x1234, 0x6004))) / self._payload()
        for _ in range(self._one((0, 0, 0, 1, 2))):
            tag = Dot1Q(vlan=self._number(4096), prio=self._number(8), dei=self._number(2))
            frame = frame / self._one((tag, Dot1AD(vlan=3)))
        return frame / (self._arp() if kind < 3 else self._ipv6() if kind < 11 else self._ipv4())

    def _payload(self) -> Raw:
        return Raw(self._bytes(0, 1, 5, 20, 33))

    def _arp(self) -> Packet:
        if self._seldom(5):
            sizes = {"hwlen": self._one((6, 6, 0, 4)), "plen": self._one((4, 4, 6))}
            kinds = {"hwtype": self._one((1, 6, 7, 77)), "ptype": self._one((0x800, 0x1000, 0x86DD))}
            return ARP(op=self._number(12), **kinds, **sizes) / Raw(bytes(20))
        target = self._one(("00:00:00:00:00:00", "02:00:00:00:00:05"))
        sender = {"psrc": "10.0.0.1", "hwsrc": "02:00:00:00:00:01"}
        return ARP(op=self._one((1, 1, 2, 3, 4, 8, 9)), pdst="10.0.0.2", hwdst=target, **sender)

    def _ipv4(self) -> Packet:
        packet = IP(src=self._one(HOSTS), dst=self._one(HOSTS), id=self._number(65536))
        packet.tos, packet.ttl = self._one((0, 0, 0x10, 1, 2, 3, 255)), self._one((0, 1, 64, 255))
        packet.flags, packet.frag = self._one(("", "DF", "MF", "DF+MF", "evil")), self._one((0, 0, 0, 0, 185))
        if self._seldom(5):
            packet.options = [self._option() for _ in range(self._one((1, 2)))]
        kind = self._number(10)
        payload = self._tcp() if kind < 4 else self._udp() if kind < 6 else self._other4()
        if isinstance(payload, Raw):
            packet.proto = 1 if kind < 9 else self._one((253, 200, 59))
        for field, values, odds in (("chksum", 65536, 20), ("len", 200, 20), ("ihl", 16, 30), ("version", 16, 50)):
            if self._seldom(odds):
                setattr(packet, field, self._number(values))
        return packet / payload

    def _option(self) -> Any:
        record = IPOption_RR(routers=["1.2.3.4", "5.6.7.8"], pointer=self._one((4, 8, 12, 5)))
        times = IPOption_Timestamp(flg=self._one((0, 1, 2, 3)), pointer=self._one((5, 9, 6)))
        broken = Raw(bytes((self._one((7, 82, 99, 130, 148, 68)), self._one((2, 3, 4, 6)))) + bytes(4))
        others = (bytes((131, 7, 4, 1, 2, 3, 4)), b"\x01", b"\x94\x04\x00\x05")
        return self._one((record, times, broken, *map(Raw, others)))

    def _other4(self) -> Packet:
        within = (IP(src="9.9.9.9", dst="8.8.8.8") / self._udp(), IPv6() / self._tcp())
        return self._one((self._icmp(), self._icmp(), self._icmp(), self._one(within)))

    def _udp(self) -> Packet:
        odd: dict[str, int] = self._one(({}, {}, {"chksum": 0}, {"chksum": 5}, {"len": self._number(60)}))
        return UDP(sport=self._one(PORTS), dport=self._one(PORTS), **odd) / self._payload()

    def _tcp(self) -> Packet:
        options = b"".join(self._tcp_option() for _ in range(self._one((0, 0, 1, 2, 3))))[:40]
        options += bytes(-len(options) % 4)
        flags = self._one((0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0, 0xC2, 0x38, 0xFF))
        size = 5 + len(options) // 4 if not self._seldom(20) else self._number(16)
        numbers = {"seq": self._number(1 << 32), "ack": self._number(1 << 32), "window": self._number(65536)}
        header = TCP(sport=self._one(PORTS), dport=self._one(PORTS), flags=flags, urgptr=self._number(9), **numbers)
        header.dataofs = size
        return header / Raw(options) / self._payload()

    def _tcp_option(self) -> bytes:
        kind = self._one((1, 2, 3, 4, 5, 8, 8, 9, 11, 13, 19, 20, 28, 29, 30, 30, 34, 254))
        if kind == 1:
            return b"\x01"
        sizes = {2: 2, 3: 1, 4: 0, 5: 8, 8: 8, 11: 4, 13: 4, 19: 16, 20: 2, 28: 2}
        size = sizes.get(kind, self._one((0, 1, 2, 4, 8, 10, 18)))
        size = self._one((1, 2, 4, 10)) if self._seldom(8) else size
        return bytes((kind, size + 2)) + self._bytes(size)

    def _icmp(self) -> Packet:
        kind = self._one((0, 8, 3, 3, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 18, 40))
        head = bytes((kind, self._number(17 if kind == 3 else 4), 0, 0)) + self._bytes(4)
        if kind in (0, 8):
            return ICMP(type=kind, id=self._number(65536), seq=self._number(65536)) / self._payload()
        if kind not in (3, 4, 5, 11, 12):
            return Raw(head + self._bytes(0, 4, 12, 16))
        about = bytes(IP(src="10.1.1.1", dst="10.2.2.2", id=9) / self._one((self._udp(), self._tcp(), ICMP())))
        if self._seldom(3):  # RFC 4884: with a label of MPLS, and something else
            label = b"\x20\x00\x00\x00\x00\x08\x01\x01" + self._bytes(4)
            about = (about + bytes(128))[:128] + label + b"\x00\x06\x02\x03ab"
        right = checksum(head + about).to_bytes(2, "big")
        return Raw(head[:2] + (right if not self._seldom(5) else b"\x12\x34") + head[4:] + about)

    def _ipv6(self) -> Packet:
        packet: Packet = IPv6(src=self._one(HOSTS6), dst=self._one(HOSTS6), hlim=self._number(256))
        packet.tc, packet.fl = self._one((0, 0, 5)), self._one((0, 0, 77))
        for field, value, odds in (("plen", 100, 30), ("plen", 1, 30), ("version", 16, 50)):
            if self._seldom(odds):
                setattr(packet, field, self._number(value))
        for _ in range(self._one((0, 0, 0, 1, 1, 2))):
            packet = packet / self._extension()
        kind = self._number(10)
        payload = self._tcp() if kind < 2 else self._udp() if kind < 4 else self._icmp6() if kind < 9 else Raw(b"data")
        if isinstance(payload, Raw):
            packet.lastlayer().nh = self._one((59, 1, 200))
        return packet / payload

    def _extension(self) -> Packet:
        ahead: list[list[Any]] = [[], [RouterAlert(value=5)], [Jumbo(jumboplen=self._one((5, 70000)))], [Pad1()]]
        ahead.append([HBHOptUnknown(otype=77, optdata=b"xy")])
        behind: list[list[Any]] = [[], [HAO(hoa="2001:db8::99")], [PadN(optdata=b"\0\0")]]
        route = {"type": self._one((0, 0, 2, 4, 7)), "segleft": 1, "reserved": self._one((0, 5))}
        hops = ["2001:db8::9", "2001:db8::a"][: self._one((1, 2))]
        kinds: tuple[Callable[[], Packet], ...] = (
            lambda: IPv6ExtHdrHopByHop(options=self._one(ahead)),
            lambda: IPv6ExtHdrDestOpt(options=self._one(behind)),
            lambda: IPv6ExtHdrRouting(addresses=hops, **route),
            lambda: IPv6ExtHdrFragment(offset=self._one((0, 0, 0, 185)), m=1, id=self._number(1 << 32)),
        )
        return self._one(kinds)()

    def _icmp6(self) -> Packet:
        about = IPv6(src="2001:db8::aa", dst="2001:db8::bb") / self._one(
            (
                UDP(sport=1, dport=2),
                TCP(dport=7),
                ICMPv6EchoRequest(),
                IPv6ExtHdrHopByHop() / UDP(dport=8),
                IPv6ExtHdrFragment() / UDP(dport=8),
            )
        )
        sources = self._one(([], ["fe80::1", "fe80::2"]))
        record = ICMPv6MLDMultAddrRec(rtype=self._number(8), dst="ff02::9", sources=sources)
        query = {"mrd": self._number(65536), "S": self._number(2), "QRV": self._number(8), "QQIC": self._number(256)}
        return self._one(
            (
                *(self._discovery() for _ in range(5)),
                ICMPv6EchoRequest(id=5, seq=7) / self._payload(),
                ICMPv6EchoReply(id=5, seq=8) / self._payload(),
                ICMPv6DestUnreach(code=self._number(7)) / about,
                ICMPv6PacketTooBig(mtu=1280) / about,
                ICMPv6TimeExceeded(code=self._number(4)) / about,
                ICMPv6ParamProblem(code=self._number(6), ptr=9) / about,
                ICMPv6MLQuery(mladdr="ff02::5", mrd=self._number(65536)),
                ICMPv6MLReport(mladdr="ff02::5"),
                ICMPv6MLQuery2(mladdr="ff02::6", sources=sources, sources_number=self._one((None, 3)), **query),
                ICMPv6MLReport2(records=[record], records_number=self._one((None, 2))),
                ICMPv6HAADRequest(),
                ICMPv6HAADReply(addresses=["fe80::7"]),
                ICMPv6MPAdv(),
                ICMPv6Unknown(type=self._one((5, 100, 141, 142, 254)), msgbody=b"abcdefgh"),
            )
        )

    def _discovery(self) -> Packet:
        about = {"routerlifetime": 1800, "reachabletime": 5, "retranstimer": 6, "prf": self._number(4)}
        packet = self._one(
            (
                ICMPv6ND_NS(tgt="2001:db8::5"),
                ICMPv6ND_NA(tgt="fe80::9", R=self._number(2), S=self._number(2), O=self._number(2)),
                ICMPv6ND_RS(),
                ICMPv6ND_RA(M=self._number(2), O=self._number(2), H=self._number(2), **about),
                ICMPv6ND_Redirect(tgt="fe80::1", dst="2001:db8::7"),
            )
        )
        for _ in range(self._one((0, 1, 2))):
            packet = (
                packet
                / self._one(
                    (
                        ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
                        ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:02"),
                        ICMPv6NDOptPrefixInfo(prefix="2001:db8::", validlifetime=self._one((5, 0xFFFFFFFF))),
                        ICMPv6NDOptMTU(mtu=1500),
                        ICMPv6NDOptRDNSS(dns=["2001:db8::53"], lifetime=5),
                        ICMPv6NDOptRouteInfo(plen=64, prefix="2001:db8:5::", prf=self._number(4)),
                        ICMPv6NDOptRedirectedHdr(pkt=IPv6() / UDP()),
                        ICMPv6NDOptAdvInterval(advint=5),
                        ICMPv6NDOptHAInfo(),
                        ICMPv6NDOptUnknown(type=99, data=b"abcdef"),
                        ICMPv6NDOptDNSSL(searchlist=["example.com", "a.b"], lifetime=9),
                    )
                ).copy()
            )
        return packet


def pcap(packets: Sequence[tuple[int, bytes, int]]) -> bytes:
    """A capture file of them, with nanoseconds."""
    records = (struct.pack("<IIII", t // 10**9, t % 10**9, len(data), size) + data for t, data, size in packets)
    return struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1) + b"".join(records)
