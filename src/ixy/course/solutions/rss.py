"""Extra: receive-side scaling. The page is rss.md."""

import struct

from lab5 import DD, DESCRIPTOR, RxRing

from ixy.course import Bar

RXCSUM = 0x05000  # 8.2.3.7.5
RXCSUM_PCSD = 1 << 13
RETA = 0x0EB00  # 8.2.3.7.14: 32 registers of 4 entries
RSSRK = 0x0EB80  # 8.2.3.7.15: 10 registers of 4 bytes
MRQC = 0x0EC80  # 8.2.3.7.12
MRQC_RSS = 1
MRQC_TCP_IPV4 = 1 << 16
MRQC_IPV4 = 1 << 17
MRQC_UDP_IPV4 = 1 << 22

HASH_SHIFT = 32  # 7.1.6.2: the upper half of a descriptor's first word

YOURS = ("set_up", "hash_of_next")


def set_up(bar: Bar, key: bytes, table: list[int]) -> None:
    """Spread IPv4 packets by addresses, and by the ports of TCP and UDP. Key and table come before the switch.

    Args:
        key: 40 bytes.
        table: 128 numbers of queues, of which the lowest 7 bits of the hash choose one.
    """
    for number, word in enumerate(struct.unpack("<10I", key)):
        bar.write32(RSSRK + 4 * number, word)
    for number, entries in enumerate(struct.unpack("<32I", bytes(table))):
        bar.write32(RETA + 4 * number, entries)
    bar.write32(RXCSUM, bar.read32(RXCSUM) | RXCSUM_PCSD)
    bar.write32(MRQC, MRQC_RSS | MRQC_TCP_IPV4 | MRQC_IPV4 | MRQC_UDP_IPV4)


def hash_of_next(ring: RxRing) -> int | None:
    """The hash of the packet that `receive` gives next, None if there is none."""
    kind, status = struct.unpack("<QQ", ring.memory.read(ring.next * DESCRIPTOR, DESCRIPTOR))
    return kind >> HASH_SHIFT if status & DD else None
