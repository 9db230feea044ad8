"""Latency from wire to wire: from the moment that a frame arrives at one card to that when it leaves the other.

The path runs on one core, the two cards on another. Their loop is this module's: it looks at the clock when it delivers
a frame, and when it has sent one. A frame that is late, since the loop was held up, counts from when it is delivered.

Where the path waits for packets, the loop ends for each interrupt, which Python sends, as in `Machine`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.bench.lockstep import RING_SIZE
from ixy.bench.rates import on_core
from ixy.device import open_device
from ixy.errors import Error
from ixy.jit import INTERPRETED, compiled
from ixy.pacing import SECOND, due_time
from ixy.path import POLLS, Path, touch
from ixy.sim.card.receive import can_receive
from ixy.sim.card.state import RAISED
from ixy.sim.card.transmit import can_transmit, fetch
from ixy.sim.loop import deliver, is_due, send
from ixy.sim.machine import Machine
from ixy.sim.rack import ALARM
from ixy.sim.slots import INTERRUPT, call
from ixy.sim.wires.sink import NEXT
from ixy.unsafe import load_acquire, monotonic_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.rack import Rack

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99, "max": 100.0}

_WARM_UP = 10  # the first of so many parts of the frames is not looked at
_PATIENCE = 3 * SECOND  # ns without any frame, after which what has not arrived is lost
_POLLS = POLLS if INTERPRETED else 1 << 22  # of a run of the path; between two of them Python holds it up
_WAIT = 0.1  # seconds that a path waits at most
_PROGRESS = 4  # words
_NEVER = -1  # the latency of a frame that was lost


class Passage(NamedTuple):
    """Frames that were sent through a path.

    Attributes:
        rate: of those that arrived, a second.
        lost: those that did not.
        latencies: of those that did, in nanoseconds, without the first tenth, shape (frames,), int64.
    """

    rate: float
    lost: int
    latencies: NDArray[np.int64]

    def histogram(self) -> Counter[int]:
        """How many frames took at least so many µs, a power of two, or 0, and less than the next."""
        exponents, counts = np.unique(np.frexp(self.latencies // 1000)[1], return_counts=True)
        return Counter({int(2**exponent) // 2: int(n) for exponent, n in zip(exponents, counts, strict=True)})

    def percentiles(self) -> dict[str, float]:
        """Latencies that so many percent of the frames did not exceed, in µs, by name."""
        ordered = np.percentile(self.latencies, list(PERCENTILES.values()), method="inverted_cdf") / 1e3
        return dict(zip(PERCENTILES, ordered.tolist(), strict=True))


def measure(batch: int, rate: int, frames: int, *, waits: bool = False) -> Passage:
    """Send frames of 60 bytes through a path.

    Args:
        batch: of the path.
        rate: frames a second; 0 for as many as the card has room for.
        frames: how many.
        waits: the path waits while nothing comes, instead of polling.

    Raises:
        Error: a frame came out wrong, or none came at all.
    """
    host = Machine(stepped=True)
    with ExitStack() as stack:
        source = stack.enter_context(open_device("sim:a,gen=60", ring_size=RING_SIZE, sim=host))
        target = stack.enter_context(open_device("sim:b,sink=a,touch=48", ring_size=RING_SIZE, sim=host))
        path = Path(source.rx[0], target.tx[0], touch, batch=batch)
        wait = _WAIT if waits else None
        path.run(1)  # compiles
        path.run(1, None if wait is None else 0)
        cards = host.cards["a"].index, host.cards["b"].index
        none = np.zeros(0, np.int64)
        _serve(host.rack, *cards, 0, none, none, np.zeros(1, np.int64), np.zeros(_PROGRESS, np.int64))  # compiles, too
        departures, latencies = np.zeros(frames, np.int64), np.full(frames, _NEVER, np.int64)
        with _wires(host, *cards, rate, departures, latencies) as wires, on_core(0):
            while wires.is_alive():
                path.run(_POLLS, wait)
        report = host.sink_report("a", "b")
    warm = latencies[frames // _WARM_UP :]
    if np.all(warm == _NEVER) or report.wrong or report.reordered:
        raise Error(f"the benchmark's packets did not arrive as they should: {report}")
    arrived = latencies != _NEVER
    passed = int(np.max((departures + latencies)[arrived]) - departures[0])
    count = int(np.count_nonzero(arrived))
    return Passage(count * SECOND / passed, frames - count, warm[warm != _NEVER])


@contextmanager
def _wires(
    host: Machine,
    source: int,
    target: int,
    rate: int,
    departures: NDArray[np.int64],
    latencies: NDArray[np.int64],
) -> Generator[threading.Thread]:
    """A thread on another core that serves the cards. It has ended after the block, whatever ends that."""
    stop, progress = np.zeros(1, np.int64), np.zeros(_PROGRESS, np.int64)

    def serve() -> None:
        while not _serve(host.rack, source, target, rate, departures, latencies, stop, progress):
            host.answer()

    thread = threading.Thread(target=serve)
    try:
        with on_core(-1):
            thread.start()
        yield thread
    finally:
        stop[0] = 1
        if thread.ident is not None:
            thread.join()


@compiled
def _serve(
    rack: Rack,
    source: int,
    target: int,
    rate: int,
    departures: NDArray[np.int64],
    latencies: NDArray[np.int64],
    stop: NDArray[np.int64],
    progress: NDArray[np.int64],
) -> bool:
    """Deliver all frames to one card, and note when each departed and how long it took to leave the other.

    The sink has found them in order, so the number of the last frame that it has seen is that of the one just sent.
    False if there is an alarm to be answered first: then call it again.
    """
    frames = departures.size
    sink = rack.outputs[target]
    sent, arrived, start, last = progress[0], progress[1], progress[2], progress[3]
    if start == 0:
        start = last = monotonic_ns()
    while arrived < frames and load_acquire(stop, 0) == 0:
        now = monotonic_ns()
        if sent < frames and (can_receive(rack, source) if rate == 0 else due_time(sent, rate) <= now - start):
            departures[sent] = now
            deliver(rack, source, 0)
            sent += 1
            last = now
        while can_transmit(rack, target, 0):
            length = fetch(rack, target, 0)
            if length > 0:
                send(rack, target, 0, length, 0)
                last = monotonic_ns()
                arrived = sink[NEXT]
                latencies[arrived - 1] = last - departures[arrived - 1]
        if rack.cards[source, RAISED] != 0:
            call(rack, INTERRUPT, source, 0, 0, 0)
        if load_acquire(rack.control, ALARM) != 0 or is_due(rack):
            progress[0], progress[1], progress[2], progress[3] = sent, arrived, start, last
            return False
        if now - last > _PATIENCE:
            break
    return True
