"""Count the packets and bytes of each UDP and TCP flow over IPv4 that passes from one device to another.

python examples/flow_counter.py sim:a,gen=60 sim:b,sink=a
"""

import sys
import time

import ixy

PLACES = 1 << 16  # a power of two; give it twice as many as there may be flows
PROBES = 16


class Flow(ixy.Record):
    src: int
    dst: int
    ports: int  # with the protocol before them
    packets: int
    bytes: int


class Flows(ixy.Record):
    others: int  # packets of no flow, or of one that found no place
    table = ixy.array(PLACES, Flow)


@ixy.kernel
def count(packet: ixy.Packet, flows: Flows) -> int:
    ip, udp, tcp = packet.ipv4, packet.udp, packet.tcp
    if not ip or not (udp or tcp):
        flows.others += 1
        return ixy.FORWARD
    ports = ip.protocol << 32 | ((udp.sport << 16 | udp.dport) if udp else (tcp.sport << 16 | tcp.dport))
    place = ((ip.src ^ ip.dst ^ ports) & 0x7FFF_FFFF) * 0x9E37_79B1 >> 20  # a product of no more than 63 bits
    for i in range(PROBES):
        flow = flows.table[(place + i) & (PLACES - 1)]
        if flow.packets == 0 or (flow.src == ip.src and flow.dst == ip.dst and flow.ports == ports):
            flow.src, flow.dst, flow.ports = ip.src, ip.dst, ports
            flow.packets += 1
            flow.bytes += packet.length
            return ixy.FORWARD
    flows.others += 1
    return ixy.FORWARD


def main(source: str, target: str, seconds: float = 1.0) -> None:
    flows, end = Flows(), time.monotonic() + seconds
    with ixy.open(source) as a, ixy.open(target) as b:
        path = ixy.Path(a.rx[0], b.tx[0], count, flows)
        while time.monotonic() < end:
            path.run()
    print(f"{sum(flow.packets > 0 for flow in flows.table)} flows, {flows.others} packets of none")


if __name__ == "__main__":
    main(*sys.argv[1:3])
