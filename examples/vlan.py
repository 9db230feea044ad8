"""Put a VLAN tag into each packet that goes one way, and take it out of those that come back.

python examples/vlan.py sim:a,gen=60 sim:b,cable=c 77
"""

import sys
import time

import ixy


class Tag(ixy.Record):
    vlan: int
    refused: int  # packets that came back without the tag


@ixy.kernel
def push(packet: ixy.Packet, tag: Tag) -> int:
    if packet.length > 2044:
        return ixy.DROP
    packet.length += 4
    packet[16:] = packet[12:-4]
    packet[12], packet[13] = 0x81, 0x00
    packet.vlan.priority = 0
    packet.vlan.dei = 0
    packet.vlan.id = tag.vlan
    return ixy.FORWARD


@ixy.kernel
def pop(packet: ixy.Packet, tag: Tag) -> int:
    if not packet.vlan or packet.vlan.id != tag.vlan:
        tag.refused += 1
        return ixy.DROP
    packet[12:-4] = packet[16:]
    packet.length -= 4
    return ixy.FORWARD


def main(inside: str, trunk: str, vlan: str, seconds: float = 1.0) -> None:
    tags, end = [Tag(), Tag()], time.monotonic() + seconds
    with ixy.open(inside) as a, ixy.open(trunk) as b:
        out = ixy.Path(a.rx[0], b.tx[0], push, tags[0])
        back = ixy.Path(b.rx[0], a.tx[0], pop, tags[1])
        for tag in tags:
            tag.vlan = int(vlan)
        while time.monotonic() < end:
            out.run(64)
            back.run(64)
        print(f"tagged {out.counts.forwarded}, untagged {back.counts.forwarded}, refused {tags[1].refused}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
