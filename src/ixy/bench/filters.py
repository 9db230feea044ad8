"""What a filter costs a packet, and how long it takes until a new one is ready.

Packets come in random order, another one each time: a processor learns the order of packets that come again, and
predicts then every branch of a filter, which it never does of traffic.
"""

from __future__ import annotations

import random
import statistics
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.counts import COUNTS
from ixy.filters import Filter
from ixy.jit import INTERPRETED, compiled
from ixy.packets.buffers import STRIDE
from ixy.packets.packets import Packets, new_packets
from ixy.packets.views import packet_view
from ixy.reporting.environment import tick_unit
from ixy.unsafe import ticks
from ixy.unsafe.filters import accepts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

EXPRESSIONS = (
    "udp port 53",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10.0.0.0/8",
    "host 1.2.3.4 and (port 80 or icmp6)",
    "greater 100",
)
_PACKETS = 1024
_LOOKS = 1 << 10 if INTERPRETED else 1 << 16  # in one measurement
_NEW = 20  # filters that are made to see how long one takes


def measure(repeat: int) -> Iterator[dict[str, Any]]:
    """Ticks a packet, inlined and by address, on mixed traffic and where all miss; then seconds for a new filter."""
    memory, packets = _traffic()
    chance = np.random.default_rng(1)
    for expression in EXPRESSIONS:
        chosen = Filter(expression)
        passed = [chosen(memory[i, :length].tobytes()) for i, length in enumerate(packets.lengths.tolist())]
        for way, kernel in (("inlined", _inlined(chosen.program, chosen.compilable)), ("by address", _by_address())):
            found: dict[str, Any] = {"filter": expression, "way": way, "hits": round(sum(passed) / _PACKETS, 3)}
            missing = passed.index(False)
            for what, orders in (
                ("mixed", [chance.integers(0, _PACKETS, _LOOKS) for _ in range(repeat + 1)]),
                ("miss", [np.full(_LOOKS, missing)] * (repeat + 1)),
            ):
                costs = [kernel(chosen.address, memory, packets, order) / _LOOKS for order in orders]
                found[what] = round(statistics.median(costs[1:]), 2)  # the first compiles
            yield found | {"unit": tick_unit()}
    yield {"filter": "a new one", "ready_seconds": round(_until_ready(), 4)}


def _until_ready() -> float:
    """From its text to its machine code, the median of some."""
    spent: list[float] = []
    for port in range(_NEW):
        started = time.perf_counter()
        _ = Filter(f"udp port {20_000 + port} and not host 10.0.0.1").address
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


@cache
def _by_address() -> Callable[..., int]:
    @compiled
    def run(address: int, memory: NDArray[np.uint8], packets: Packets, order: NDArray[np.int64]) -> int:
        """Ticks to look at packets in this order."""
        data, hits, start = memory.reshape(-1), 0, ticks()
        for place in order:
            length = int(packets.lengths[place])
            hits += accepts(address, data, place * STRIDE, length, length)
        packets.ids[0] = hits  # or LLVM leaves it all out
        return ticks() - start

    return run


@cache
def _inlined(_program: object, match: Any) -> Callable[..., int]:
    counts = np.zeros(COUNTS, np.int64)

    @compiled
    def run_within(
        memory: NDArray[np.uint8], packets: Packets, order: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> int:
        """The same, with the filter in the loop."""
        hits, start = 0, ticks()
        for place in order:
            hits += match(packet_view(memory, place, packets, place, counts))
        packets.ids[0] = hits
        return ticks() - start

    def run(_address: int, memory: NDArray[np.uint8], packets: Packets, order: NDArray[np.int64]) -> int:
        return run_within(memory, packets, order, counts)

    return run


# ---------------------------------------------------------------------------------------------------------------------
# Mixed traffic


def _traffic() -> tuple[NDArray[np.uint8], Packets]:
    """Different packets as they lie in buffers: IPv4, IPv6, tagged, ARP; UDP, TCP, ICMP; some in fragments."""
    chance = random.Random(1)
    memory, packets = np.zeros((_PACKETS, STRIDE), np.uint8), new_packets(_PACKETS)
    for place in range(_PACKETS):
        frame = _frame(chance)
        memory[place, : len(frame)] = np.frombuffer(frame, np.uint8)
        packets.lengths[place] = len(frame)
    return memory, packets


def _frame(chance: random.Random) -> bytes:
    tag = b"\x81\x00\x00\x05" if chance.random() < 1 / 8 else b""
    kind = chance.randrange(10)
    if kind == 0:
        content = b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + chance.randbytes(20)
    elif kind < 4:
        number, payload = _payload(chance, 58)
        addresses = b"".join(b"\x20\x01\x0d\xb8" + bytes(11) + chance.randbytes(1) for _ in range(2))
        content = b"\x86\xdd\x60" + bytes(3) + len(payload).to_bytes(2, "big") + bytes((number, 64)) + addresses
        content += payload
    else:
        number, payload = _payload(chance, 1)
        fragment = b"\x20\xb9" if chance.random() < 1 / 16 else b"\x40\x00"
        hosts = (b"\x01\x02\x03\x04", b"\x0a\x00\x00\x01", b"\xc0\xa8\x01\x02")
        addresses = b"".join(chance.choices(hosts, k=2))
        content = b"\x08\x00\x45\x00" + (20 + len(payload)).to_bytes(2, "big") + b"\x00\x07" + fragment + b"\x40"
        content += bytes((number, 0, 0)) + addresses + payload
    return (bytes(12) + tag + content).ljust(60, b"\0")


def _payload(chance: random.Random, icmp: int) -> tuple[int, bytes]:
    """A protocol's number, and its header and data."""
    number = chance.choice((6, 17, 17, icmp))
    ports = [chance.choice((22, 53, 80, 443, 4789, 8080)), chance.randrange(32768, 61000)]  # of a service, a client
    chance.shuffle(ports)
    flags = bytes((0x50, chance.choice((0x02, 0x10, 0x18, 0x11))))
    header = b"".join(port.to_bytes(2, "big") for port in ports) + bytes(8) + flags + bytes(6)
    return number, header + bytes(chance.choice((0, 20, 100)))


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A line for each."""
    for found in results:
        if "ready_seconds" in found:
            yield f"a new filter is ready after {1000 * found['ready_seconds']:.1f} ms"
        else:
            unit = found["unit"]
            yield f"{found['filter']}, {found['way']}: {found['mixed']} {unit} mixed, {found['miss']} where all miss"
