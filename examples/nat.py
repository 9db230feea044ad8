"""Source NAT: hosts of 10.0.0.0/8 reach others from one address, each TCP or UDP flow or ping from a port of its own.

python examples/nat.py sim:a,gen=60 sim:b,sink=a 192.0.2.1
"""

import sys
import time

import ixy
from ixy import tables

INSIDE, ECHO, FIRST, PORTS, AGE = 10, 8, 4096, 60_000, 300 * tables.SECOND


class Nat(ixy.Record):
    address: int
    flows = ixy.array(PORTS, tables.Entry)  # by address and port inside, and protocol; the place is the port outside


@ixy.kernel
def translate(packet: ixy.Packet, nat: Nat) -> int:
    ip, tcp, udp, icmp, now = packet.ipv4, packet.tcp, packet.udp, packet.icmp, ixy.now()
    if not ip or ip.mf or not (tcp or udp or icmp):
        return ixy.DROP
    back, place = ip.dst == nat.address, -1
    source, target = (tcp.sport, tcp.dport) if tcp else (udp.sport, udp.dport) if udp else (icmp.id, icmp.id)
    old = ip.dst << 16 | target if back else ip.src << 16 | source
    if back and FIRST <= target < FIRST + PORTS:
        place = tables.seek(nat.flows, nat.flows[target - FIRST].key0, ip.protocol, now, AGE)
    elif not back and ip.src >> 24 == INSIDE and not (icmp and icmp.type != ECHO):
        place = tables.find(nat.flows, old, ip.protocol, now, AGE)
    if place < 0 or (back and place != target - FIRST):
        return ixy.DROP
    new, nat.flows[place].last = (nat.flows[place].key0 if back else nat.address << 16 | FIRST + place), now
    ip.src, ip.dst = (ip.src, new >> 16) if back else (new >> 16, ip.dst)
    source, target = (source, new) if back else (new, target)  # of which a field takes 16 bits
    ip.checksum = ixy.adjusted(ip.checksum, old >> 16, new >> 16)
    if tcp:
        tcp.sport, tcp.dport, tcp.checksum = source, target, ixy.adjusted(tcp.checksum, old, new)
    elif udp:
        udp.sport, udp.dport = source, target
        udp.checksum = (ixy.adjusted(udp.checksum, old, new) or 0xFFFF) if udp.checksum else 0
    else:
        icmp.id, icmp.checksum = new, ixy.adjusted(icmp.checksum, old & 0xFFFF, new & 0xFFFF)
    return ixy.FORWARD


def main(inside: str, outside: str, address: str, seconds: float = 1.0) -> None:
    nat, end = Nat(paths=2), time.monotonic() + seconds
    nat.address = ixy.Ipv4Address.parse(address)
    with ixy.open(inside) as a, ixy.open(outside) as b:
        out, back = ixy.Path(a.rx[0], b.tx[0], translate, nat), ixy.Path(b.rx[0], a.tx[0], translate, nat)
        while time.monotonic() < end:
            out.run(64)
            back.run(64)


if __name__ == "__main__":
    main(*sys.argv[1:4])
