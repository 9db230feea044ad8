"""SYN cookies: TCP goes through from those who have acknowledged one; that first connection itself the server resets.

python examples/syn_cookies.py sim:a,gen=60 sim:b,sink=a
"""

import secrets
import sys
import time

import ixy
from ixy import tables

AGE, SYN, ACK, BACK, ON = 600 * tables.SECOND, 2, 16, 1, 2  # the last two are outputs


class Guard(ixy.Record):
    secret: int
    clients = ixy.array(1 << 16, tables.Entry)


def cookie(packet: ixy.Packet, secret: int, period: int) -> int:
    """What an acknowledgement must show. (Against guesses it needs another hash, such as SipHash.)"""
    source, target = packet.ipv4.src << 16 | packet.tcp.sport, packet.ipv4.dst << 16 | packet.tcp.dport
    return tables.hash(source ^ secret, target ^ period) & 0xFFFF_FFFF


@ixy.kernel
def guard(packet: ixy.Packet, state: Guard) -> int:
    ip, tcp, now = packet.ipv4, packet.tcp, ixy.now()
    if not ip or not tcp or tables.seek(state.clients, ip.src, 0, now, AGE) >= 0:
        return ON
    period = now >> 36  # a bit more than a minute
    if tcp.flags & (SYN | ACK) == SYN:
        answer = cookie(packet, state.secret, period)
        packet.eth.dst, packet.eth.src = packet.eth.src, packet.eth.dst
        ip.src, ip.dst, ip.length, ip.ttl = ip.dst, ip.src, 4 * ip.ihl + 20, 64  # without TCP's options
        tcp.sport, tcp.dport = tcp.dport, tcp.sport
        tcp.seq, tcp.ack, tcp.offset, tcp.flags = answer, tcp.seq + 1, 5, SYN | ACK
        ip.update_checksum()
        tcp.update_checksum()
        return BACK
    if tcp.ack - 1 & 0xFFFF_FFFF in (cookie(packet, state.secret, period), cookie(packet, state.secret, period - 1)):
        tables.find(state.clients, ip.src, 0, now, AGE)
        return ON
    return ixy.DROP


def main(clients: str, servers: str) -> None:
    state, end = Guard(), time.monotonic() + 1
    state.secret = secrets.randbits(62)
    with ixy.open(clients) as a, ixy.open(servers) as b:
        path = ixy.Path(a.rx[0], [a.tx[0], b.tx[0]], guard, state)
        while time.monotonic() < end:
            path.run(256)
        print(path.sent)


if __name__ == "__main__":
    main(*sys.argv[1:3])
