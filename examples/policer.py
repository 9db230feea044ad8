"""Let each /24 of sources send so many bytes a second, and a burst at once; what goes beyond is dropped.

python examples/policer.py sim:a,gen=60 sim:b,sink=a 100000 15000
"""

import sys
import time

import ixy
from ixy import tables

AGE = 60 * tables.SECOND  # by then, a bucket is full again


class Source(tables.Entry, tables.Bucket):
    dropped: int


class Policer(ixy.Record):
    rate: int
    burst: int
    others: int  # packets that no bucket is for, or that found no place for it
    sources = ixy.array(1 << 16, Source)


@ixy.kernel
def police(packet: ixy.Packet, policer: Policer) -> int:
    ip, now = packet.ipv4, ixy.now()
    place = tables.find(policer.sources, ip.src >> 8, 0, now, AGE) if ip else -1
    if place < 0:
        policer.others += 1
        return ixy.FORWARD
    source = policer.sources[place]
    if tables.take(source, packet.length, policer.rate, policer.burst, now):
        return ixy.FORWARD
    source.dropped += 1
    return ixy.DROP


def main(source: str, target: str, rate: str, burst: str) -> None:
    policer, end = Policer(), time.monotonic() + 1
    policer.rate, policer.burst = int(rate), int(burst)
    with ixy.open(source) as a, ixy.open(target) as b:
        path = ixy.Path(a.rx[0], b.tx[0], police, policer)
        while time.monotonic() < end:
            path.run(256)
        print(f"passed {path.counts.forwarded}")
    for found in tables.used(policer.sources):
        print(f"{ixy.Ipv4Address(found.key0 << 8)}/24: dropped {found.dropped}")


if __name__ == "__main__":
    main(*sys.argv[1:5])
