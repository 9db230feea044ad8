"""Structures in records, for kernels and for the program that looks at them while the path runs.

    class Flow(tables.Entry):
        packets: int

    class Flows(ixy.Record):
        table = ixy.array(1 << 16, Flow)
        lengths = tables.histogram()

    @ixy.kernel
    def count(packet: ixy.Packet, flows: Flows) -> int:
        tables.observe(flows.lengths, packet.length)
        if packet.ipv4:
            place = tables.find(flows.table, packet.ipv4.src, packet.ipv4.dst, ixy.now(), 60 * tables.SECOND)
            if place >= 0:
                flows.table[place].packets += 1
        return ixy.FORWARD

All functions do the same in compiled kernels, in interpreted ones, and where a program calls them, on the same record.
Keys, times and amounts are integers of 64 bits with a sign. Several threads may read; one writes.
"""

from ixy.tables.bucket import SECOND, Bucket, take
from ixy.tables.flows import FOREVER, Entry, find, hash, merge, seek, start, used  # noqa: A004
from ixy.tables.histogram import histogram, observe, quantile
from ixy.tables.routes import add_route, lookup, routes
from ixy.tables.samples import Reader, Sample, Samples, keep, slots
from ixy.tables.sketch import count, estimate, sketch

__all__ = [
    "FOREVER",
    "SECOND",
    "Bucket",
    "Entry",
    "Reader",
    "Sample",
    "Samples",
    "add_route",
    "count",
    "estimate",
    "find",
    "hash",
    "histogram",
    "keep",
    "lookup",
    "merge",
    "observe",
    "quantile",
    "routes",
    "seek",
    "sketch",
    "slots",
    "start",
    "take",
    "used",
]
