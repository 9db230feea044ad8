"""Answer ARP requests and pings for an IPv4 address, on the device that they come from; all else is dropped.

sudo python examples/responder.py sim:a,tap=ixy0 10.0.0.2
sudo ip address add 10.0.0.1/24 dev ixy0 && ping 10.0.0.2
"""

import sys
import time

import ixy

ECHO, REPLY = 8, 0  # ICMP


class Station(ixy.Record):
    mac: int
    address: int
    answered: int


@ixy.kernel
def respond(packet: ixy.Packet, me: Station) -> int:
    arp = packet.arp
    if arp and arp.operation == 1 and arp.target == me.address:
        arp.operation = 2
        arp.target_mac, arp.target = arp.sender_mac, arp.sender
        arp.sender_mac, arp.sender = me.mac, me.address
    elif packet.icmp and packet.icmp.type == ECHO and packet.ipv4.dst == me.address and not packet.ipv4.mf:
        packet.icmp.type = REPLY
        packet.icmp.checksum = ixy.adjusted(packet.icmp.checksum, ECHO << 8, REPLY << 8)
        packet.ipv4.src, packet.ipv4.dst = packet.ipv4.dst, packet.ipv4.src
    else:
        return ixy.DROP
    packet.eth.dst, packet.eth.src = packet.eth.src, me.mac
    me.answered += 1
    return ixy.FORWARD


def main(device: str, address: str, seconds: float = 1e9) -> None:
    me, end = Station(), time.monotonic() + seconds
    with ixy.open(device) as card:
        me.mac = int.from_bytes(card.mac, "big")
        me.address = ixy.Ipv4Address.parse(address)
        path = ixy.Path(card.rx[0], card.tx[0], respond, me)
        while time.monotonic() < end:
            path.run()
    print(f"answered {me.answered}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
