"""Packets of many kinds, made with Scapy by a seed, and filters for them in tcpdump's language."""

from __future__ import annotations

import random

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

PORTS = (22, 53, 80, 443, 8080, 4789, 1812)
HOSTS = ("1.2.3.4", "10.0.0.1", "10.0.0.2", "192.168.1.77", "224.0.0.251", "255.255.255.255")
HOSTS6 = ("2001:db8::1", "fe80::2", "ff02::1", "2001:db8:1::7")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "01:00:5e:00:00:fb", "ff:ff:ff:ff:ff:ff")


def traffic(count: int) -> list[tuple[bytes, int]]:
    """So many packets: what there is of each, and its length on the wire. Every second one is the one before, and
    often damaged or cut."""
    chance = random.Random(2026)
    frames = [bytes(_frame(chance)) for _ in range(count // 2)]
    return [packet for frame in frames for packet in ((frame, len(frame)), _spoilt(chance, frame))]


def _spoilt(chance: random.Random, frame: bytes) -> tuple[bytes, int]:
    if chance.random() < 0.5:
        return frame[: chance.randint(1, len(frame))], len(frame)
    place = chance.randrange(len(frame))
    return frame[:place] + bytes([chance.randrange(256)]) + frame[place + 1 :], len(frame)


def _frame(chance: random.Random):
    ether = Ether(src=chance.choice(MACS[:2]), dst=chance.choice(MACS))
    kind = chance.randrange(20)
    if kind == 0:
        return ether / ARP(psrc=chance.choice(HOSTS), pdst=chance.choice(HOSTS), op=chance.randint(1, 2))
    if kind == 1:
        return Dot3(src=MACS[0], dst=MACS[1]) / LLC() / chance.choice((STP(), SNAP() / Raw(b"snap")))
    if kind == 2:
        return ether / PPPoE(sessionid=chance.randint(1, 3)) / PPP() / _ipv4(chance)
    if kind == 3:
        labels = MPLS(label=chance.choice((16, 1000)), s=0) / MPLS(label=17, s=1)
        return ether / chance.choice((MPLS(label=1000, s=1), labels)) / _ipv4(chance)
    if kind == 4:
        return ether / Raw(bytes(chance.randrange(256) for _ in range(chance.randint(0, 60))))
    tags = chance.choice(((), (), (), (Dot1Q(vlan=5),), (Dot1Q(vlan=6, prio=3),), (Dot1AD(vlan=5), Dot1Q(vlan=7))))
    for tag in tags:
        ether = ether / tag
    return ether / (_ipv6(chance) if kind < 10 else _ipv4(chance))


def _ipv4(chance: random.Random):
    ip = IP(src=chance.choice(HOSTS[:4]), dst=chance.choice(HOSTS), ttl=chance.choice((1, 64, 255)), id=7)
    ip.flags = chance.choice(("", "DF", "DF", "MF"))
    ip.frag = chance.choice((0, 0, 0, 0, 0, 185))
    if chance.random() < 0.15:
        ip.options = [IPOption_RR(length=7, pointer=4, routers=["10.9.9.9"])]
    inner = IP(src="10.7.7.7", dst="1.2.3.4") / UDP(sport=53, dport=53)
    tunnel = (
        GRE() / inner,
        GRE(key_present=1, key=5) / inner,
        UDP(dport=4789) / VXLAN(vni=100) / Ether() / inner,
        IPv6(src=HOSTS6[0], dst=HOSTS6[1]) / TCP(dport=80),
        inner,
        AH(spi=9, seq=1) / TCP(dport=443),
    )
    return ip / chance.choice((_payload(chance), _payload(chance), _payload(chance), chance.choice(tunnel)))


def _ipv6(chance: random.Random):
    packet = IPv6(src=chance.choice(HOSTS6), dst=chance.choice(HOSTS6), hlim=chance.choice((1, 64, 255)))
    extensions = (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(addresses=["2001:db8::9"]))
    for _ in range(chance.choice((0, 0, 0, 1, 2, 3))):
        packet = packet / chance.choice(extensions).copy()
    if chance.random() < 0.15:
        packet = packet / IPv6ExtHdrFragment(offset=chance.choice((0, 185)), m=1, id=9)
    more = (ICMPv6EchoRequest(), ICMPv6ND_NS(tgt=HOSTS6[0]))
    return packet / chance.choice((_payload(chance), _payload(chance), chance.choice(more)))


def _payload(chance: random.Random):
    sport, dport = chance.choice(PORTS), chance.choice((*PORTS, chance.randint(1024, 65535)))
    flags = chance.choice(("S", "SA", "A", "PA", "FA", "R"))
    protocols = (
        UDP(sport=sport, dport=dport),
        UDP(sport=sport, dport=dport),
        TCP(sport=sport, dport=dport, flags=flags),
        TCP(sport=sport, dport=dport, flags=flags, options=[("MSS", 1460), ("NOP", None)]),
        ICMP(type=chance.choice((0, 3, 8, 11)), code=chance.randint(0, 3)),
        SCTP(sport=sport, dport=dport),
    )
    return chance.choice(protocols) / Raw(bytes(chance.randrange(256) for _ in range(chance.choice((0, 4, 20, 200)))))


_PLAIN = """
ip|ip6|arp|rarp|tcp|udp|icmp|icmp6|sctp|igmp|pim|ah|esp|vrrp|stp|llc|iso|ipx|netbeui|atalk|aarp|decnet|lat|moprc
ether broadcast|ether multicast|ip multicast|ip6 multicast|multicast|broadcast
ether host 02:00:00:00:00:01|ether src 02:00:00:00:00:02|ether dst ff:ff:ff:ff:ff:ff|ether proto 0x0806
ether proto \\ip|ether[0] & 1 != 0|ether[12:2] > 1500|ether src 02:00:00:00:00:01 and not ip
host 1.2.3.4|src host 10.0.0.1|dst host 10.0.0.2|src or dst host 10.0.0.1|src and dst host 1.2.3.4
host 10.0.0.1 and host 10.0.0.2|host 10.0.0.1 and not host 10.0.0.2|host 1.2.3.4 or host 10.0.0.1 or host 10.0.0.2
net 10.0.0.0/8|src net 192.168|dst net 224.0.0.0/4|net 10.0.0.0 mask 255.255.255.0|not net 10|ip host 1.2.3.4
host 2001:db8::1|src host fe80::2|ip6 dst net ff02::/16|net 2001:db8::/32|src net 2001:db8:1::/48|arp host 10.0.0.1
port 53|udp port 53|tcp port 80|src port 443|dst port 22|udp dst port 4789|tcp src port 8080|not port 22
portrange 1-1023|udp portrange 53-80|src portrange 1024-65535|tcp dst portrange 80-443|port 53 or port 80
ip proto 47|ip proto \\udp|ip6 proto 17|ip6 proto 44|proto 17|ip protochain 17|ip6 protochain 17|ip6 protochain 6
ip6 protochain 58|protochain 6|proto \\sctp|ip proto 51|ip proto 4|ip6 proto 0|ip6 proto 43|ip6 proto 60
less 60|less 100|greater 60|greater 100|len > 64|len = 60|len % 2 = 0|len - 14 > 50|len & 1 = 1
vlan|vlan 5|vlan 6|vlan and ip|vlan 5 and host 10.0.0.1|vlan 5 and vlan 7|vlan and udp port 53|vlan and ip6|not vlan
vlan 6 and tcp|vlan or ip|vlan 5 and icmp|mpls|mpls 1000|mpls 1000 and ip|mpls and mpls|mpls 16 and host 1.2.3.4
pppoes|pppoes 2|pppoes and ip|pppoes 1 and tcp port 80|pppoed|host 1.2.3.4 and (vlan 5 or icmp6)
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10.0.0.0/8|tcp[tcpflags] = tcp-syn|tcp[13] & 0x12 = 0x12
tcp[tcpflags] & tcp-push != 0|tcp[0:2] > 1023|tcp[12] >> 4 > 5|tcp[(tcp[12] >> 2):4] = 0x47455420
icmp[icmptype] = icmp-echo|icmp[icmptype] = icmp-unreach|icmp[icmptype] != icmp-echoreply and icmp[icmpcode] = 1
icmp6[icmp6type] = icmp6-echo|icmp6[0] = 135|udp[4:2] > 20|udp[8] = 0|udp[8:4] & 0xff = 7
ip[0] & 0xf != 5|ip[6:2] & 0x1fff != 0|ip[6] & 0x20 != 0|ip[8] < 5|ip[8] = 64|ip[9] = 17|ip[2:2] > 100
ip[len - 20] = 1|ip[len - 40:4] > 7|ether[len - 4:4] > 0x80000000|ip[ip[0] & 0xf] = 5|ip[ip[2:2] - 1] > 100
ip6[6] = 17|ip6[7] = 255|ip6[4:2] > 50|ip6[40] = 58|ip6[0] >> 4 = 6|ip[12:4] = ip[16:4]|ip[12] = 10
(ip[2:2] - ((ip[0] & 0xf) << 2)) - ((tcp[12] & 0xf0) >> 2) != 0|ip[2:2] * 2 > 200|ip[2:2] / 3 > 20|ip[2:2] % 7 = 3
ip[4:2] << 40 = 0|ip[8] << ip[9] != 0|ip[8] >> ip[9] = 0|100 / ip[8] > 1|ip[2:2] / ip[6] > 1|ip[8] ^ ip[9] = 0x51
-ip[8] > 5|ip[8] - ip[9] > 0x7fffffff|ip[8] + ip[9] = 81|ip[8] * ip[9] > 1000|ip[8] | ip[9] = 0x51
ip and udp and port 53 and not host 1.2.3.4 and len < 500|(tcp or udp) and (port 80 or port 443) and not vlan
tcp and (src host 10.0.0.1 or dst host 10.0.0.1) and (port 22 or port 8080)|not (arp or icmp or icmp6)
ip6 and not (tcp or udp)|udp and ip[6:2] & 0x3fff = 0|ether proto 0x8100|ether proto 0x86dd and ip6[6] = 0
inbound|1 = 1|1 = 2|4 > 3|
"""
# "|" stands between filters, but not where a filter has one
EXPRESSIONS = [
    text.replace("\0", "|")
    for line in _PLAIN.strip().split("\n")
    for text in line.replace("syn|tcp-fin", "syn\0tcp-fin").replace("ip[8] | ip", "ip[8] \0 ip").split("|")
]
