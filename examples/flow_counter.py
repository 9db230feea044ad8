"""Count the packets and bytes of each UDP and TCP flow over IPv4 that passes from one device to another.

python examples/flow_counter.py sim:a,gen=60 sim:b,sink=a
"""

import sys
import time

import ixy
from ixy import tables

AGE = 300 * tables.SECOND  # after which a flow is forgotten where another one needs its place


class Flow(tables.Entry):  # key0 is the source's address and port, key1 protocol and destination's address and port
    packets: int
    bytes: int


class Flows(ixy.Record):
    others: int  # packets of no flow, or of one that found no place
    table = ixy.array(1 << 16, Flow)


@ixy.kernel
def count(packet: ixy.Packet, flows: Flows) -> int:
    ip, udp, tcp = packet.ipv4, packet.udp, packet.tcp
    place = -1
    if ip and (udp or tcp):
        sport, dport = (udp.sport, udp.dport) if udp else (tcp.sport, tcp.dport)
        target = ip.protocol << 48 | ip.dst << 16 | dport
        place = tables.find(flows.table, ip.src << 16 | sport, target, ixy.now(), AGE)
    if place >= 0:
        flows.table[place].packets += 1
        flows.table[place].bytes += packet.length
    else:
        flows.others += 1
    return ixy.FORWARD


def main(source: str, target: str, seconds: float = 1.0) -> None:
    flows, end = Flows(), time.monotonic() + seconds
    with ixy.open(source) as a, ixy.open(target) as b:
        path = ixy.Path(a.rx[0], b.tx[0], count, flows)
        while time.monotonic() < end:
            path.run(256)
    print(f"{sum(1 for _ in tables.used(flows.table))} flows, {flows.others} packets of none")


if __name__ == "__main__":
    main(*sys.argv[1:3])
