"""The check of the extra about receive-side scaling."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

from ixy.course.checks.common import card_of, compare_received, lend
from ixy.course.trials import Labs, need, trial
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.course.bench import Bench

_QUEUES = 4
_TABLE = [(7 * place + place // 5) % _QUEUES for place in range(128)]
_KEY = random.Random(0).randbytes(40)
_UDP, _TCP, _OTHER = 17, 6, 47


def _open(labs: Labs, bench: Bench) -> list[Any]:
    """Four rings of one card, which spreads packets."""
    bar = labs.lab3.open_card(bench.bus, card_of(bench, labs))
    pool, _ = lend(bench, labs, _QUEUES * 40)
    labs.lab5.prepare_receive(bar)
    rings = [labs.lab5.RxRing(bench.bus, bar, pool, 32, queue) for queue in range(_QUEUES)]
    for ring in rings:
        labs.lab5.start(ring)
        labs.lab5.allow_snooping(ring)
    labs.rss.set_up(bar, _KEY, _TABLE)
    labs.lab5.open_receive_path(bar)
    return rings


def toeplitz(key: bytes, data: bytes) -> int:
    """7.1.2.8.1: of each bit of the data that is 1, the 32 bits of the key that begin at its place."""
    bits, value = int.from_bytes(key, "big"), 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            value ^= bits >> (8 * len(key) - 32 - place) & 0xFFFFFFFF
    return value


def _packet(number: int, protocol: int) -> tuple[bytes, int]:
    """An IPv4 packet, and its hash."""
    chance = random.Random(number)
    source, destination, ports = (chance.randbytes(4) for _ in range(3))
    body = ports + chance.randbytes(40)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 64, protocol, 0) + source + destination
    frame = b"\xff" * 6 + bytes.fromhex("02aabbccddee") + b"\x08\x00" + header + body
    hashed = source + destination + (ports if protocol in (_UDP, _TCP) else b"")
    return frame, toeplitz(_KEY, hashed)


def _why(bench: Bench) -> tuple[str, str, str]:
    """What is not as it should be."""
    ring = next(iter(bench.bus.watches.values())).rx[0]
    if ring.get(reg.MRQC) & reg.MRQC.mask("MRQE") != reg.MRQE_RSS:
        return "MRQC.MRQE is not 1: packets are not spread", "MRQC", "8.2.3.7.12"
    for number, word in enumerate(struct.unpack("<10I", _KEY)):
        if ring.get(reg.RSSRK[number]) != word:
            return (
                f"RSSRK[{number}] is not bytes {4 * number} to {4 * number + 3} of the key, the first lowest",
                "RSSRK",
                "8.2.3.7.15",
            )
    for number, word in enumerate(struct.unpack("<32I", bytes(_TABLE))):
        if ring.get(reg.RETA[number]) != word:
            return (
                f"RETA[{number}] does not hold entries {4 * number} to {4 * number + 3}, the first lowest",
                "RETA",
                "8.2.3.7.14",
            )
    fields = ring.get(reg.MRQC) >> 16
    if fields & 0x43 != 0x43:
        return "MRQC names the fields that are hashed: bits 16, 17 and 22 for TCP, IPv4 and UDP", "MRQC", "8.2.3.7.12"
    if fields != 0x43:
        return f"MRQC hashes other fields, too: {fields:#x}", "MRQC", "8.2.3.7.12"
    if not ring.get(reg.RXCSUM) & reg.RXCSUM.mask("PCSD"):
        return "RXCSUM.PCSD is not set: descriptors hold a checksum in the hash's place", "RXCSUM", "8.2.3.7.5"
    return "the hash is the upper half of the first word", "RSS Hash", "7.1.6.2"


@trial()
def spreads(labs: Labs, bench: Bench) -> None:
    """Each packet comes to the queue that the table has for its hash."""
    rings = _open(labs, bench)
    for number in range(60):
        frame, value = _packet(number, (_UDP, _TCP, _OTHER)[number % 3])
        wanted = _TABLE[value & 127]
        bench.ports[0].arrive(frame)
        hashes = [labs.rss.hash_of_next(ring) for ring in rings]
        got = [labs.lab5.receive(ring) for ring in rings]
        found = [queue for queue, packet in enumerate(got) if packet is not None]
        need(
            found == [wanted],
            f"a packet with hash {value:#010x} came to queue {found}, not {wanted}: {_why(bench)[0]}",
            *_why(bench)[1:],
        )
        compare_received([got[wanted]], [frame])
        need(
            hashes[wanted] == value,
            f"hash_of_next gives {hashes[wanted]!r} for a packet with hash {value} ({value:#010x}): {_why(bench)[0]}",
            *_why(bench)[1:],
        )
        others = [value for queue, value in enumerate(hashes) if queue != wanted]
        need(
            others == [None] * len(others), "hash_of_next gives a hash where no packet is: look for DD", "DD", "7.1.6.2"
        )
