"""One end of vhost-user, ours and DPDK's own, in turn, against the same DPDK at the other end.

The ends are a VirtIO driver, the front end, and a device, the back end. Each contender is started as a process of its
own, together with a fresh peer; it is measured receiving, sending and forwarding, with every batch size. The peer runs
on one core, the contender on another. Rates differ much between process starts, so the contenders take turns, and the
medians over several starts are compared.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from typing import Any, NamedTuple

from ixy.bench.testpmd import Testpmd, back_end
from ixy.bench.works import FRAME_BYTES, LOOPS, Turn
from ixy.device import open_device
from ixy.errors import Error, MemoryUnavailable
from ixy.packets.hugepages import free_huge_pages

PEER_CORE, OWN_CORE = 0, 1
ENDS = "front", "back"
RING_SIZE = 256
WINDOW = 0.05  # seconds over which a rate is taken; the best of some windows counts, as other programs only take away
WINDOWS = 5
BATCHES = (8, 32, 64)
SEEDS = 8  # batches of 32 packets that the peer lets loose to be forwarded in a circle
_TURN = 1 << 12  # polls
_MEMORY = ["-m", "256", "--in-memory"]  # of 2 MiB huge pages, from anonymous files: no mount is needed, nothing stays
PAGES = 2 * 128 + 16  # huge pages that two DPDK processes need, or one and ours

# What the contender does, and what the peer does meanwhile. Of what DPDK can do to packets on their way, swapping
# the addresses is what can be asked of both: it reads and writes each packet's first cache line.
WORKS = {"receive": ("rxonly", "txonly"), "transmit": ("txonly", "rxonly"), "forward": ("macswap", "io")}

# DPDK's driver in the variants that its authors call fast: its choice, and the vectorized one.
VARIANTS = {
    "split": {"default": "", "vectorized": ",mrg_rxbuf=0,in_order=0,vectorized=1"},
    "packed": {"default": ",packed_vq=1", "vectorized": ",packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1"},
}
_DRIVER_MEMORY = [*_MEMORY, "--single-file-segments", "--force-max-simd-bitwidth=512"]


def contenders(end: str, ring: str) -> list[str]:
    """Ours, and DPDK's in its variants; of a back end there is one."""
    return ["ixy", *(f"dpdk {variant}" for variant in (VARIANTS[ring] if end == "front" else ("default",)))]


class Rate(NamedTuple):
    """One measurement, in packets per second."""

    contender: str
    ring: str
    work: str
    batch: int
    rate: float


def compare(starts: int, rings: tuple[str, ...], report: Callable[[Rate], None], end: str = "front") -> dict[str, Any]:
    """Start every contender `starts` times in turn; medians, ranges and ratios of all that was measured.

    Args:
        report: is told each rate as it comes.
        end: of vhost-user at which the contenders are, one of `ENDS`.

    Raises:
        MemoryUnavailable: there are too few huge pages.
        Error: DPDK is not installed, or a process dies.
    """
    free = free_huge_pages()
    if free < PAGES:
        raise MemoryUnavailable(f"needed are {PAGES} huge pages, {free} are free; run: sudo ixy setup --pages {PAGES}")
    rates: list[Rate] = []
    for _ in range(starts):
        for ring in rings:
            for contender in contenders(end, ring):
                for rate in _measure(contender, ring, end):
                    report(rate)
                    rates.append(rate)
    rows = [_summary(rates, ring, work, batch, end) for ring, work, batch in product(rings, WORKS, BATCHES)]
    return {
        "end": end,
        "starts": starts,
        "frame_bytes": FRAME_BYTES,
        "ring_size": RING_SIZE,
        "unit": "packets/s",
        "results": rows,
    }


def _summary(rates: list[Rate], ring: str, work: str, batch: int, end: str) -> dict[str, Any]:
    """Medians of all contenders at one kind of work, and ours by the best of the others."""
    row: dict[str, Any] = {"ring": ring, "work": work, "batch": batch}
    for contender in contenders(end, ring):
        found = [rate.rate for rate in rates if rate[:4] == (contender, ring, work, batch)]
        row[contender] = {
            "median": round(statistics.median(found)),
            "min": round(min(found)),
            "max": round(max(found)),
        }
    best = max(row[name]["median"] for name in row if name.startswith("dpdk"))
    row["ratio"] = round(row["ixy"]["median"] / best, 3) if best else None
    return row


def _measure(contender: str, ring: str, end: str) -> Iterator[Rate]:
    """One start of a contender and of its peer. The back end listens, so it is started first."""
    start = _dpdk if contender.startswith("dpdk") else _ours
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = f"{directory}/vhost"
        if end == "front":
            peer = stack.enter_context(closing(back_end(path, "io", eal=_MEMORY)))
            rate_of = stack.enter_context(start(path, ring, contender.removeprefix("dpdk "), end))
        else:
            rate_of = stack.enter_context(start(path, ring, "default", end))
            peer = stack.enter_context(closing(_front_end(path, ring, "default", PEER_CORE)))
        for work, batch in product(WORKS, BATCHES):
            yield Rate(contender, ring, work, batch, _rate(peer, rate_of, work, batch))


def _front_end(path: str, ring: str, variant: str, core: int) -> Testpmd:
    """DPDK's driver."""
    port = f"net_virtio_user0,path={path},queues=1,queue_size={RING_SIZE}{VARIANTS[ring][variant]}"
    return Testpmd(port, "io", _DRIVER_MEMORY, [], core)


def _rate(peer: Testpmd, rate_of: Callable[[str, int], float], work: str, batch: int) -> float:
    """Let the peer play its part while the contender is measured."""
    peer.command(f"set fwd {WORKS[work][1]}")
    peer.command("set burst 32")
    peer.command("start tx_first " + str(SEEDS) if work == "forward" else "start")
    try:
        return rate_of(work, batch)
    finally:
        peer.command("stop")


# ---------------------------------------------------------------------------------------------------------------------
# DPDK's


@contextmanager
def _dpdk(path: str, ring: str, variant: str, end: str) -> Generator[Callable[[str, int], float]]:
    if end == "front":
        program = _front_end(path, ring, variant, OWN_CORE)
    else:
        program = Testpmd(f"net_vhost0,iface={path},queues=1", "io", _MEMORY, [], OWN_CORE)

    def rate_of(work: str, batch: int) -> float:
        program.command(f"set fwd {WORKS[work][0]}")
        program.command(f"set burst {batch}")
        program.command("start")
        rate = max(window(work != "receive") for _ in range(WINDOWS))
        program.command("stop")
        return rate

    def window(sent: bool) -> float:
        start, before = time.perf_counter(), program.counts()
        time.sleep(WINDOW)
        stop, after = time.perf_counter(), program.counts()
        packets = after.tx_packets - before.tx_packets if sent else after.rx_packets - before.rx_packets
        return packets / (stop - start)

    try:
        yield rate_of
    finally:
        program.close()


# ---------------------------------------------------------------------------------------------------------------------
# Ours, in a process of its own that is told what to do line by line


@contextmanager
def _ours(path: str, ring: str, _: str, end: str) -> Generator[Callable[[str, int], float]]:
    address = f"{'vhost-user' if end == 'front' else 'vhost-server'}:{path},ring={ring}"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines, orders = process.stdout, process.stdin

    def rate_of(work: str, batch: int) -> float:
        orders.write(f"{work} {batch}\n")
        orders.flush()
        answer = lines.readline()
        if not answer:
            raise Error("the measuring process has died")
        return float(answer)

    try:
        lines.readline()  # it is ready
        yield rate_of
    finally:
        process.communicate()


def main(address: str) -> None:
    """Measure as told on standard input: a kind of work and a batch size per line."""
    os.sched_setaffinity(0, {OWN_CORE})
    with open_device(address, ring_size=RING_SIZE, link_timeout=0) as device:
        print("ready", flush=True)
        for line in sys.stdin:
            work, batch = line.split()
            turn = LOOPS[work](device, int(batch))
            turn(_TURN)  # compiles the loop
            print(max(_window(turn) for _ in range(WINDOWS)), flush=True)


def _window(turn: Turn) -> float:
    """Packets per second; a turn says how many it moved."""
    start, packets = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < WINDOW:
        packets += turn(_TURN)
    return packets / spent


if __name__ == "__main__":
    main(*sys.argv[1:])
