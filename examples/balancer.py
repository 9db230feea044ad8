"""L4 load balancer: each flow for an address goes to one of the servers that have it, by Maglev's consistent hashing.

python examples/balancer.py sim:a,gen=60 sim:b,sink=a 192.0.2.1 02:00:00:00:00:01 02:00:00:00:00:02
"""

import sys
import time
from hashlib import sha256

import ixy
from ixy import tables

SIZE = 65_537  # a prime, some hundred times as many as there are servers


class Balancer(ixy.Record):
    address: int
    macs = ixy.array(256)
    lookup = ixy.array(SIZE, ixy.uint8)  # the number of a server, from 1 on


def populate(balancer: Balancer, servers: dict[int, str]) -> None:
    """Let servers in turn take the next free place of their permutations (Eisenbud and others, "Maglev", 2016, 3.4)."""
    places, orders = [0] * SIZE, list[list[int]]()
    for number, mac in servers.items():
        balancer.macs[number], digest = ixy.MacAddress.parse(mac), int.from_bytes(sha256(mac.encode()).digest()[:8])
        orders.append([number, digest % SIZE, digest // SIZE % (SIZE - 1) + 1])  # with where it begins, and its step
    for turn in range(SIZE):
        number, place, step = orders[turn % len(orders)]
        while places[place]:
            place = (place + step) % SIZE
        places[place], orders[turn % len(orders)][1] = number, place
    for place, number in enumerate(places):
        balancer.lookup[place] = number


@ixy.kernel
def balance(packet: ixy.Packet, balancer: Balancer) -> int:
    ip, tcp, udp = packet.ipv4, packet.tcp, packet.udp
    if not ip or ip.dst != balancer.address or not (tcp or udp):
        return ixy.DROP
    server = balancer.lookup[tables.hash(ip.src, tcp.sport if tcp else udp.sport) % SIZE]
    packet.eth.dst = balancer.macs[server]
    return server  # with a list of transmit queues, each server may be behind a device of its own


def main(clients: str, servers: str, address: str, *macs: str) -> None:
    balancer, end = Balancer(), time.monotonic() + 1
    balancer.address = ixy.Ipv4Address.parse(address)
    populate(balancer, dict(enumerate(macs, 1)))
    with ixy.open(clients) as a, ixy.open(servers) as b:
        path = ixy.Path(a.rx[0], b.tx[0], balance, balancer)
        while time.monotonic() < end:
            path.run(256)
        print(path.counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
