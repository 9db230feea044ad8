"""Which sources send most? Estimated by a count-min sketch, which needs the same memory however many there are.

python examples/heavy_hitters.py sim:a,gen=60 sim:b,sink=a
"""

import sys
import time

import ixy
from ixy import tables

KEPT = 16


class Source(ixy.Record):
    address: int
    packets: int


class Sketch(ixy.Record):
    counts = tables.sketch()
    heavy = ixy.array(KEPT, Source)


@ixy.kernel
def observe(packet: ixy.Packet, sketch: Sketch) -> int:
    if not packet.ipv4:
        return ixy.FORWARD
    source = packet.ipv4.src
    estimate = tables.count(sketch.counts, source)
    lightest = 0
    for i in range(KEPT):
        if sketch.heavy[i].address == source:
            sketch.heavy[i].packets = estimate
            return ixy.FORWARD
        if sketch.heavy[i].packets < sketch.heavy[lightest].packets:
            lightest = i
    if estimate > sketch.heavy[lightest].packets:
        sketch.heavy[lightest].address = source
        sketch.heavy[lightest].packets = estimate
    return ixy.FORWARD


def main(source: str, target: str, seconds: float = 1.0) -> None:
    sketch, end = Sketch(), time.monotonic() + seconds
    with ixy.open(source) as a, ixy.open(target) as b:
        path = ixy.Path(a.rx[0], b.tx[0], observe, sketch)
        while time.monotonic() < end:
            path.run(256)
    for found in sorted(sketch.heavy, key=lambda each: -each.packets):
        print(ixy.Ipv4Address(found.address), found.packets)


if __name__ == "__main__":
    main(*sys.argv[1:3])
