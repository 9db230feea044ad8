"""Drop packets that came before: the same bytes as one of the last few thousand.

python examples/deduplicator.py sim:a,rx_pcap=in.pcap sim:b,tx_pcap=out.pcap
"""

import sys
import time

import ixy

PLACES = 1 << 13


class Seen(ixy.Record):
    duplicates: int
    digests = ixy.array(PLACES)


def digest(packet: ixy.Packet) -> int:
    """A hash over all bytes, as FNV-1a, with 54 bits: a product has no more than 63."""
    value = 0xBF29CE4842223
    for byte in packet:
        value = (value ^ byte) * 0x1B3 & 0x3F_FFFF_FFFF_FFFF
    return value | 1


@ixy.kernel
def first_only(packet: ixy.Packet, seen: Seen) -> int:
    value = digest(packet)
    place = value >> 8 & PLACES - 1
    if seen.digests[place] == value:
        seen.duplicates += 1
        return ixy.DROP
    seen.digests[place] = value
    return ixy.FORWARD


def main(source: str, target: str, seconds: float = 1.0) -> None:
    seen, end = Seen(), time.monotonic() + seconds
    with ixy.open(source) as a, ixy.open(target) as b:
        path = ixy.Path(a.rx[0], b.tx[0], first_only, seen)
        while time.monotonic() < end:
            path.run()
        print(f"passed {path.counts.forwarded}, dropped {seen.duplicates} duplicates")


if __name__ == "__main__":
    main(*sys.argv[1:3])
