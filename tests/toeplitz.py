"""What receive-side scaling must compute, worked out here from its definition, and the published vectors for it."""

from __future__ import annotations

from typing import NamedTuple


class Vector(NamedTuple):
    """A flow: addresses and ports, the hash over the addresses, and that over the ports too."""

    source: tuple[str, int]
    target: tuple[str, int]
    addresses: int
    ports: int


# Microsoft, "Verifying the RSS Hash Calculation"; the 82599's datasheet has them too (7.1.2.8.3)
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
VECTORS = [
    Vector(("66.9.149.187", 2794), ("161.142.100.80", 1766), 0x323E8FC2, 0x51CCC178),
    Vector(("199.92.111.2", 14230), ("65.69.140.83", 4739), 0xD718262A, 0xC626B0EA),
    Vector(("24.19.198.95", 12898), ("12.22.207.184", 38024), 0xD2D0A5DE, 0x5C2B394A),
    Vector(("38.27.205.30", 48228), ("209.142.163.6", 2217), 0x82989176, 0xAFC7327F),
    Vector(("153.39.163.191", 44251), ("202.188.127.2", 1303), 0x5D1809C5, 0x10E828A2),
]
VECTORS_6 = [
    Vector(("3ffe:2501:200:1fff::7", 2794), ("3ffe:2501:200:3::1", 1766), 0x2CC18CD5, 0x40207D3D),
    Vector(("3ffe:501:8::260:97ff:fe40:efab", 14230), ("ff02::1", 4739), 0x0F0C461C, 0xDDE51BBF),
    Vector(("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251), ("fe80::200:f8ff:fe21:67cf", 38024), 0x4B61E985, 0x02D1FEEF),
]


def toeplitz(key: bytes, data: bytes) -> int:
    """For each bit of the data that is set, the 32 bits of the key from the same place on, added without carry."""
    bits = int.from_bytes(key, "big")
    width = 8 * len(key)
    value = 0
    for i in range(8 * len(data)):
        if data[i // 8] >> (7 - i % 8) & 1:
            value ^= bits >> (width - 32 - i) & 0xFFFFFFFF
    return value
