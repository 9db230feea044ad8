"""The hash of the flow director, worked out bit by bit from its definition."""

from __future__ import annotations

import struct
from ipaddress import ip_address

UDP, TCP, SCTP, IPV6 = 1, 2, 3, 4  # kinds of flows, as in FDIRCMD.L4TYPE and IPV6


def stream(
    source: str = "0.0.0.0",
    target: str = "0.0.0.0",
    sport: int = 0,
    dport: int = 0,
    *,
    kind: int = 0,
    vlan: int = 0,
    flex: int = 0,
    pool: int = 0,
) -> bytes:
    """What is hashed, 42 bytes (datasheet of the X550, table 7-12)."""
    addresses = b"".join(ip_address(address).packed.ljust(16, b"\0") for address in (source, target))
    return struct.pack(">H32sHHHBB", vlan, addresses, sport, dport, flex, pool, kind)


def flow_hash(key: int, data: bytes) -> int:
    """For i from 0 to 350: if bit i + 1 of the key, over and over, is set, add bits 15 + i to i without carry, of the
    data with its own last 15 bits before it and its own first 15 bits behind it (7.1.3.6.16).
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    around = bits[-15:] + bits + bits[:15]
    keys = f"{key:032b}"[::-1]
    total = 0
    for i in range(351):
        if keys[(i + 1) % 32] == "1":
            end = len(around) - i
            total ^= int(around[end - 16 : end], 2)
    return total
