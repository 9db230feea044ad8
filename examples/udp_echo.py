"""Send each UDP packet for a port back to where it came from.

sudo python examples/udp_echo.py sim:a,tap=ixy0 7
sudo ip address add 10.0.0.1/24 dev ixy0 && sudo ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:09 dev ixy0
echo hello | nc -u -w 1 10.0.0.2 7
"""

import sys
import time

import ixy


class Echo(ixy.Record):
    port: int
    packets: int


@ixy.kernel
def echo(packet: ixy.Packet, state: Echo) -> int:
    udp = packet.udp
    if not udp or not packet.ipv4 or udp.dport != state.port:
        return ixy.DROP
    packet.eth.src, packet.eth.dst = packet.eth.dst, packet.eth.src
    packet.ipv4.src, packet.ipv4.dst = packet.ipv4.dst, packet.ipv4.src  # both checksums stay right
    udp.sport, udp.dport = udp.dport, udp.sport
    state.packets += 1
    return ixy.FORWARD


def main(device: str, port: str, seconds: float = 1e9) -> None:
    state, end = Echo(), time.monotonic() + seconds
    state.port = int(port)
    with ixy.open(device) as card:
        path = ixy.Path(card.rx[0], card.tx[0], echo, state)
        while time.monotonic() < end:
            path.run()
    print(f"{state.packets} packets went back")


if __name__ == "__main__":
    main(*sys.argv[1:3])
