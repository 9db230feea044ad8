"""Who sends most, and to which ports? The top talkers of a capture, ten million packets in a few seconds.

python examples/top_talkers.py capture.pcap
python examples/top_talkers.py capture.pcapng.gz "tcp and not port 22"
"""

import sys
import time
from collections import Counter

import numpy as np

import ixy

FIELDS = ("ipv4.src", "ipv4.dst", "tcp.dport", "udp.dport")
TOP = 10


def totals(numbers: np.ma.MaskedArray, lengths: np.ndarray) -> Counter[int]:
    """Bytes by number, of the packets that have one."""
    there = ~np.ma.getmaskarray(numbers)
    known, places = np.unique(numbers.data[there], return_inverse=True)
    sums = np.bincount(places, lengths[there], known.size)
    return Counter(dict(zip(known.tolist(), sums.astype(int).tolist(), strict=True)))


def main(path: str, filter: str | None = None) -> None:  # noqa: A002
    begun, packets = time.perf_counter(), 0
    sources: Counter[int] = Counter()
    ports = {"tcp": Counter[int](), "udp": Counter[int]()}
    for chunk in ixy.capture_chunks(path, FIELDS, filter):  # a file may be larger than memory
        packets += len(chunk)
        lengths = chunk["length"]
        sources += totals(chunk["ipv4.src"], lengths)
        for protocol, known in ports.items():
            known += totals(chunk[f"{protocol}.dport"], lengths)
        if chunk.damage:
            print(chunk.damage, file=sys.stderr)
    for address, size in sources.most_common(TOP):
        print(f"{ixy.Ipv4Address(address):15} {size:>15,} bytes")
    for protocol, known in ports.items():
        for port, size in known.most_common(TOP):
            print(f"{protocol} port {port:<6} {size:>15,} bytes")
    print(f"{packets:,} packets in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:3])
