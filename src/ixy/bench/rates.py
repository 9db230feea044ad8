"""Packets per second: the driver's thread on one core, the model's on another.

The generator is as fast as the card takes frames, so a rate is that of the slower of the two sides.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.device import open_device
from ixy.errors import Error
from ixy.path import Path, touch
from ixy.sim.machine import Machine

if TYPE_CHECKING:
    from ixy.device import RxQueue, TxQueue


@dataclass(frozen=True)
class Rate:
    """Packets per second, in millions, over several windows.

    Attributes:
        what: what forwarded them: `compiled`, `numpy` or `packets`.
        batch: the most packets taken at a time.
        windows: the rate in each.
    """

    what: str
    batch: int
    windows: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.windows)

    def as_json(self) -> dict[str, Any]:
        """One object for programs."""
        low, high = min(self.windows), max(self.windows)
        return {
            "what": self.what,
            "batch": self.batch,
            "mpps": round(self.median, 3),
            "mpps_min": round(low, 3),
            "mpps_max": round(high, 3),
        }


class Ends(NamedTuple):
    """Where packets come from and where they go."""

    rx: RxQueue
    tx: TxQueue


Forwarder = Callable[[], int]  # takes some packets along; how many were handed to the transmit queue


def compiled_forwarder(ends: Ends, batch: int) -> Forwarder:
    """All in compiled code, thousands of polls at a time."""
    path = Path(ends.rx, ends.tx, touch, batch=batch)

    def forward() -> int:
        before = path.counts.forwarded
        path.run()
        return path.counts.forwarded - before

    return forward


def numpy_forwarder(ends: Ends, batch: int) -> Forwarder:
    """Ordinary Python, one statement of NumPy for a whole batch."""

    def forward() -> int:
        packets = ends.rx.receive(batch)
        if not packets:
            return 0
        packets.bytes[:, 48] += 1
        return ends.tx.send(packets)

    return forward


def packets_forwarder(ends: Ends, batch: int) -> Forwarder:
    """Ordinary Python, packet by packet."""

    def forward() -> int:
        packets = ends.rx.receive(batch)
        for packet in packets:
            packet[48] += 1
        return ends.tx.send(packets) if packets else 0

    return forward


FORWARDERS = {"compiled": compiled_forwarder, "numpy": numpy_forwarder, "packets": packets_forwarder}


def measure(what: str, batch: int, seconds: float, repeat: int) -> Rate:
    """The rate of one of `FORWARDERS` between two simulated cards, in `repeat` windows of so many seconds.

    Raises:
        Error: packets came out wrong or in another order.
    """
    with _ends() as (host, ends):
        forward = FORWARDERS[what](ends, batch)
        _window(forward, seconds / 10)  # compiles, and fills the caches
        rate = Rate(what, batch, [_window(forward, seconds) / 1e6 for _ in range(repeat)])
        _check(host)
    return rate


def _window(forward: Forwarder, seconds: float) -> float:
    """Packets per second during one window."""
    packets = 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        packets += forward()
    return packets / passed


@contextmanager
def _ends() -> Generator[tuple[Machine, Ends]]:
    """Two cards of a machine that runs on a core of its own."""
    host = Machine()
    with ExitStack() as stack:
        with on_core(-1):  # the machine's thread starts with its first card
            source = stack.enter_context(open_device("sim:a,gen=60", sim=host))
        stack.enter_context(on_core(0))
        sink = stack.enter_context(open_device("sim:b,sink=a,touch=48", sim=host))
        yield host, Ends(source.rx[0], sink.tx[0])


@contextmanager
def on_core(number: int) -> Generator[None]:
    """This thread, and the threads that it starts meanwhile, stay on one of the cores that the process may use."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _check(host: Machine) -> None:
    """Nothing came out changed or in another order. Loss is no error: a rate without loss is another question."""
    report = host.sink_report("a", "b")
    if report.received == 0 or report.wrong or report.reordered or report.duplicated:
        raise Error(f"the benchmark's packets did not arrive as they should: {report}")
