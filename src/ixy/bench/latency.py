"""Latency from wire to wire: from the moment that a frame arrives at one card to that when it leaves the other.

The path runs on one core, the two cards on another. Their loop is this module's: it looks at the clock when it delivers
a frame, and when it has sent one. A frame that is late, since the loop was held up, counts from when it is delivered.

Where the path waits for packets, the loop ends for each interrupt, which Python sends, as in `Machine`.

A thread that is not given its core, be it for a tick of the system's clock, makes frames late that the path had no part
in. So time is cut into slices, and those in which a thread stood still are told apart: this loop if it looks at the
clock after a gap, the path if its count of polls does not move while it has frames to take.
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
from ixy.counts import POLLED
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
from ixy.sim.wires.sink import ORDER
from ixy.tables.order import NEXT
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
_SLICE = SECOND // 1000  # ns
_SLICES = 1 << 16  # the last one is longer
_STILL = 5000  # ns for which neither thread has enough work, so that it stood still
_NEVER = -1  # the latency of a frame that was lost


class Passage(NamedTuple):
    """Frames that were sent through a path.

    Attributes:
        rate: of those that arrived, a second.
        lost: those that did not.
        latencies: of those that did, in nanoseconds, without the first tenth, shape (frames,), int64.
        calm: shape (frames,), whether each set out in a slice of a millisecond in which neither thread stood still. All
            are False of a path that waits, since it does.
        calm_share: of the slices, 0 to 1.
    """

    rate: float
    lost: int
    latencies: NDArray[np.int64]
    calm: NDArray[np.bool_]
    calm_share: float

    def only_calm(self) -> Passage | None:
        """The frames of calm slices alone; None if there are none."""
        if not self.calm.any():
            return None
        return self._replace(latencies=self.latencies[self.calm], calm=self.calm[self.calm])

    def histogram(self) -> Counter[int]:
        """How many frames took at least so many µs, a power of two, or 0, and less than the next."""
        exponents, counts = np.unique(np.frexp(self.latencies // 1000)[1], return_counts=True)
        return Counter({int(2**exponent) // 2: int(n) for exponent, n in zip(exponents, counts, strict=True)})

    def percentiles(self) -> dict[str, float]:
        """Latencies that so many percent of the frames did not exceed, in µs, by name."""
        ordered = np.percentile(self.latencies, list(PERCENTILES.values()), method="inverted_cdf") / 1e3
        return dict(zip(PERCENTILES, ordered.tolist(), strict=True))


class _Record(NamedTuple):
    """What the loop writes down.

    Attributes:
        departures, latencies: of each frame, in nanoseconds.
        disturbed: of each slice, not 0 if a thread stood still.
        progress: with what the loop goes on when it is called again.
    """

    departures: NDArray[np.int64]
    latencies: NDArray[np.int64]
    disturbed: NDArray[np.int64]
    progress: NDArray[np.int64]


def _record(frames: int) -> _Record:
    return _Record(
        np.zeros(frames, np.int64),
        np.full(frames, _NEVER, np.int64),
        np.zeros(_SLICES, np.int64),
        np.zeros(_PROGRESS, np.int64),
    )


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
        counts = path.state.counts
        _serve(host.rack, *cards, 0, counts, _record(0), np.zeros(1, np.int64))  # compiles, too
        record = _record(frames)
        with _wires(host, *cards, rate, counts, record) as wires, on_core(0):
            while wires.is_alive():
                path.run(_POLLS, wait)
        report = host.sink_report("a", "b")
    passage = _passage(record, waits)
    if passage.latencies.size == 0 or report.wrong or report.reordered or report.duplicated:
        raise Error(f"the benchmark's packets did not arrive as they should: {report}")
    return passage


def _passage(record: _Record, waits: bool) -> Passage:
    departures, latencies = record.departures, record.latencies
    frames = departures.size
    arrived = latencies != _NEVER
    count = int(np.count_nonzero(arrived))
    passed = int(np.max((departures + latencies)[arrived], initial=0) - departures[0])
    warm = np.flatnonzero(arrived & (np.arange(frames) >= frames // _WARM_UP))
    slices = np.minimum((departures[warm] - departures[0]) // _SLICE, _SLICES - 1)
    calm = (record.disturbed == 0) & (not waits)
    share = float(calm[np.unique(slices)].mean()) if slices.size else 0.0
    return Passage(count * SECOND / passed, frames - count, latencies[warm], calm[slices], share)


@contextmanager
def _wires(
    host: Machine,
    source: int,
    target: int,
    rate: int,
    counts: NDArray[np.int64],
    record: _Record,
) -> Generator[threading.Thread]:
    """A thread on another core that serves the cards. It has ended after the block, whatever ends that."""
    stop = np.zeros(1, np.int64)

    def serve() -> None:
        while not _serve(host.rack, source, target, rate, counts, record, stop):
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
    counts: NDArray[np.int64],
    record: _Record,
    stop: NDArray[np.int64],
) -> bool:
    """Deliver all frames to one card, and note when each departed and how long it took to leave the other.

    The sink has found them in order, so the number of the last frame that it has seen is that of the one just sent.
    False if there is an alarm to be answered first: then call it again.

    Args:
        rack, source, target: the two cards.
        rate: frames a second, or 0.
        counts: of the path.
        record: what is noted.
        stop: not 0 to end before all have arrived.
    """
    departures, latencies, progress = record.departures, record.latencies, record.progress
    frames = departures.size
    sink = rack.outputs[target]
    sent, arrived, start, last = progress[0], progress[1], progress[2], progress[3]
    if start == 0:
        start = last = monotonic_ns()
    looked = moved = monotonic_ns()
    polled = 0
    while arrived < frames and load_acquire(stop, 0) == 0:
        now = monotonic_ns()
        oldest = int(departures[arrived]) if arrived < sent else now
        if now - looked > _STILL:
            _disturb(record, min(looked, oldest), now)
        if now - oldest > _STILL:
            if counts[POLLED] != polled:
                polled, moved = counts[POLLED], now
            elif now - moved > _STILL:
                _disturb(record, oldest, now)
        looked = now
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
                arrived = sink[ORDER + NEXT]
                latencies[arrived - 1] = last - departures[arrived - 1]
        if rack.cards[source, RAISED] != 0:
            call(rack, INTERRUPT, source, 0, 0, 0)
        if load_acquire(rack.control, ALARM) != 0 or is_due(rack):
            progress[0], progress[1], progress[2], progress[3] = sent, arrived, start, last
            return False
        if now - last > _PATIENCE:
            break
    return True


@compiled
def _disturb(record: _Record, since: int, now: int) -> None:
    """Mark the slices from then to now, and the next one, in which what has gathered is worked off."""
    start = record.departures[0]
    first, last = (since - start) // _SLICE, (now - start) // _SLICE + 1
    for number in range(max(first, 0), min(last + 1, _SLICES)):
        record.disturbed[number] = 1
