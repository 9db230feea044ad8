"""Trials: signed packets go from one port to the other, or both ways, and what arrives is judged.

with ixy.open("0000:03:00.0") as a, ixy.open("0000:03:00.1") as b:
    tester = Tester([a, b], [Stream("web", udp_frames)])
    result = tester.run(Trial(parse_rate("rate", "1Mpps"), seconds=10))
    print(result.lost, quantile(result.streams[0].latency, 0.99))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy import clock
from ixy.apps.generate import Generator, Pacing, mean_bits_of
from ixy.apps.neighbours import Neighbours
from ixy.apps.receiver import (
    CORRUPT,
    EXTENT,
    JITTER_LEAST,
    JITTER_MOST,
    JITTER_TOTAL,
    LEAST,
    MAX_STREAMS,
    MOST,
    TOTAL,
    Receiver,
    label_of,
)
from ixy.apps.sending import run_in_turn
from ixy.apps.session import slices
from ixy.apps.settings import MAX_COUNT, MAX_SECONDS
from ixy.apps.streams import Stream, payload_start, turned_round
from ixy.apps.streamtable import COUNT, SIGNATURE_BYTES, table_of
from ixy.arguments import integer, number
from ixy.errors import ConfigurationError, Error, OwnershipError
from ixy.formats.frames import MIN_FRAME
from ixy.formats.signature import sign
from ixy.pacing import next_due
from ixy.packets.buffers import BUFFER_SIZE
from ixy.tables.histogram import quantile
from ixy.tables.order import DUPLICATED, MISSING, NEXT, REORDERED, TOO_LATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.rate import Rate
    from ixy.apps.signals import Stop
    from ixy.device import Device

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
_FIRST = time.monotonic_ns() >> 20  # trial of this process: packets of an earlier one may still be under way
_trials = count()
_LONGEST = 50  # times `settle`: so long are packets awaited that go on arriving


@dataclass(frozen=True)
class Trial:
    """What is sent.

    Attributes:
        rate: in each direction; None for as fast as possible.
        seconds: so long; None for no limit. At a rate, the packets that are due within them, neither more nor fewer.
        count: packets in each direction; None for no limit.
        burst: so many go at once.
    """

    rate: Rate | None = None
    seconds: float | None = 1.0
    count: int | None = None
    burst: int = 1


@dataclass(frozen=True)
class Delays:
    """How long something took: how often and how long, in nanoseconds.

    Attributes:
        counters: a histogram, see `ixy.tables.histogram`.
        least, most, total: exactly; all are 0 of nothing.
        count: how many there were.
    """

    counters: NDArray[np.int64]
    least: int
    most: int
    total: int
    count: int

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> int:
        """What `share` of them did not exceed, within 1 %, and within the least and the most."""
        return min(max(quantile(self.counters, share), self.least), self.most)

    def as_dict(self) -> dict[str, Any]:
        """Nanoseconds, by name."""
        shares = {name: self.quantile(share) for name, share in SHARES.items()}
        return {"min": self.least, "mean": round(self.mean, 1), **shares, "max": self.most}

    @classmethod
    def sum(cls, several: Sequence[Delays]) -> Delays:
        """Those of several streams together; of one at least."""
        counted = [each for each in several if each.count]
        return cls(
            counters=np.sum([each.counters for each in several], axis=0),
            least=min((each.least for each in counted), default=0),
            most=max((each.most for each in counted), default=0),
            total=sum(each.total for each in counted),
            count=sum(each.count for each in counted),
        )


@dataclass(frozen=True)
class StreamResult:
    """What became of a stream's packets.

    Attributes:
        name: of the stream.
        direction: "A → B", addresses of devices.
        sent: packets that were handed to the device.
        received: packets that arrived, copies too.
        lost: of those sent, how many never arrived; of a trial that goes on, how many a later one overtook.
        duplicated: packets that arrived again.
        reordered: packets that arrived after a later one (RFC 4737).
        max_extent: the greatest number of packets between such a one and the first of the later ones.
        too_late: packets that arrived behind 65,536 later ones: nobody knows whether again, so they count as lost.
        corrupted: packets of which a bit was inverted.
        delays: from being handed to the device until a poll found it; of each packet the first that arrived (RFC 7679).
        jitters: by how much the delays differ of packets that arrived one after the other (RFC 3393).
        extents: a histogram, see `ixy.tables.histogram`.
    """

    name: str
    direction: str
    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    max_extent: int
    too_late: int
    corrupted: int
    delays: Delays
    jitters: Delays
    extents: NDArray[np.int64]

    @property
    def latency(self) -> NDArray[np.int64]:
        """The histogram of delays."""
        return self.delays.counters

    @property
    def jitter(self) -> NDArray[np.int64]:
        """The histogram of their differences."""
        return self.jitters.counters

    def as_dict(self) -> dict[str, Any]:
        """For programs: counts, and nanoseconds."""
        names = ("name", "direction", "sent", "received", "lost", "duplicated", "reordered", "max_extent", "too_late")
        counts = {name: getattr(self, name) for name in (*names, "corrupted")}
        return counts | {"latency_ns": self.delays.as_dict(), "jitter_ns": self.jitters.as_dict()}


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial.

    Attributes:
        streams: those of the first direction, then those of the second.
        others: packets that were no test packets, by the address of the port at which they arrived.
        seconds: for which packets were sent.
        rates: packets a second that were sent, by direction.
        behind: in nanoseconds, by how much a sender fell behind its schedule beyond what it catches up with. If it is
            not 0, the rate was not offered.
        stopped: a signal ended the trial.
    """

    streams: Sequence[StreamResult]
    others: Mapping[str, int]
    seconds: float
    rates: Mapping[str, float]
    behind: int
    stopped: bool = False

    def total(self, what: str) -> int:
        """A count of all streams together, by its name."""
        return sum(getattr(stream, what) for stream in self.streams)

    @property
    def sent(self) -> int:
        return self.total("sent")

    @property
    def received(self) -> int:
        return self.total("received")

    @property
    def lost(self) -> int:
        return self.total("lost")

    @property
    def loss_share(self) -> float:
        """Packets lost, of one sent."""
        return self.lost / self.sent if self.sent else 0.0

    @property
    def delays(self) -> Delays:
        """Of all streams together."""
        return Delays.sum([stream.delays for stream in self.streams])

    @property
    def jitters(self) -> Delays:
        return Delays.sum([stream.jitters for stream in self.streams])

    @property
    def ok(self) -> bool:
        """Whether all that was sent arrived, once and whole, if in another order: a device with several queues sends
        packets of several flows so."""
        return self.sent > 0 and not any(map(self.total, ("lost", "duplicated", "corrupted", "too_late")))


class Tester:
    """Two ports between which packets go.

    Args:
        ports: two open devices, whose first queues it uses.
        streams: what the first sends; up to 256.
        batch: the most packets handled at a time.
        both_ways: the second sends the same with addresses and ports exchanged.
        routed: signatures do not cover what lies before the payload of the packet with the longest headers, since
            routers change it.
        settle: how many seconds to wait for packets after the last one.

    Raises:
        ConfigurationError: there can be no such streams, or parameters are out of bounds.
        MemoryUnavailable: no memory for the packets.
    """

    def __init__(
        self,
        ports: Sequence[Device],
        streams: Sequence[Stream],
        *,
        batch: int = 32,
        both_ways: bool = False,
        routed: bool = False,
        settle: float = 0.2,
    ) -> None:
        integer("number of ports", len(ports), 2, 2)
        integer("number of streams", len(streams), 1, MAX_STREAMS)
        self._settle = number("settle", settle, 0, MAX_SECONDS)
        self.ports, self.streams, self.both_ways = list(ports), list(streams), both_ways
        ways = [self.streams, [turned_round(stream) for stream in streams]]
        longest = BUFFER_SIZE * min(port.rx[0].ring.parts for port in ports)
        tables = [table_of(way, tail=SIGNATURE_BYTES, longest=longest) for way in ways]
        skip = max(payload_start(frame) for stream in streams for frame in stream.frames) if routed else 0
        self._receivers = [Receiver(table, skip) for table in reversed(tables)]
        self._senders = [
            Generator(port, table, batch=batch, receiver=receiver, skip=skip)
            for port, table, receiver in zip(ports, tables, self._receivers, strict=True)
        ]
        one, other = self._senders
        self._loop = run_in_turn(one.kernels, other.kernels)
        self._started = self._ended = 0.0
        self._skip = skip
        self._prepared = False
        self._neighbours = [
            Neighbours(way, port.mac if routed else None) for port, way in zip(ports, ways, strict=True)
        ]

    def learn(self, stop: Stop | None = None) -> None:
        """Let what lies between learn where packets are to go, which takes `settle` (RFC 2544, section 23): the ports
        to which packets are to come announce who is behind them. What arrives of that is ignored.

        Args:
            stop: a signal ends it.

        Raises:
            Error: a port takes no packet.
            OwnershipError: a queue is in use by another thread.
        """
        self.prepare()
        number = self._begin(Trial(None, None, 0))
        for way in range(2):
            if self._sends(1 - way):
                for frame in self._neighbours[way].announcements():
                    self._send(way, self._signed(frame, label_of(number, way)))
        with nullcontext() if stop is None else stop.looked_at():
            end = self._started + self._settle
            slices(self._run, lambda now: bool(stop) or now >= end, self._answer, self._started)

    def _signed(self, frame: bytes, label: int) -> bytes:
        """A frame with a signature behind it, so that it is known as one of ours and counts for nothing."""
        size = max(len(frame), self._skip, MIN_FRAME - SIGNATURE_BYTES) + SIGNATURE_BYTES
        data = np.frombuffer(bytearray(frame.ljust(size, b"\0")), np.uint8)
        sign(data, 0, size, self._skip, label, 0, 0)
        return data.tobytes()

    def _answer(self, _now: float) -> None:
        """Answer who asks for the address of a packet's sender or receiver."""
        for way, (receiver, neighbours) in enumerate(zip(self._receivers, self._neighbours, strict=True)):
            for question in receiver.questions():
                if answer := neighbours.answer(question):
                    self._send(way, answer)

    def _send(self, way: int, frame: bytes) -> None:
        if not self.ports[way].tx[0]._send_frame(frame):  # pyright: ignore[reportPrivateUsage]
            raise Error(f"{self.ports[way].address}: it takes no packet: its ring is full")

    def run(
        self, trial: Trial, on_progress: Callable[[float], object] | None = None, stop: Stop | None = None
    ) -> TrialResult:
        """Send what a trial says, and wait for what arrives. What is left of trials before is ignored. Who asks a port
        for the address of a packet's sender or receiver, by ARP or neighbour discovery, is answered meanwhile.

        Args:
            on_progress: called with the time, in seconds by `ixy.clock`, every few milliseconds; `so_far` says how it
                stands.
            stop: a signal ends the trial, which has a result all the same.

        Raises:
            ConfigurationError: the trial has no end, or its rate is more than the line takes.
            OwnershipError: a queue is in use by another thread.
        """
        _check(trial)
        self.prepare()

        def tick(now: float) -> None:
            self._answer(now)
            if on_progress:
                on_progress(now)

        self._begin(trial)
        with nullcontext() if stop is None else stop.looked_at():
            self._ended = slices(self._run, lambda now: bool(stop) or self._sent_all(trial, now), tick, self._started)
            for sender in self._senders:
                sender.finish()
            settle = min(self._settle, 1.0) if stop else self._settle
            slices(self._run, self._settled(settle), tick, self._ended)
        return replace(self._result(over=True), stopped=bool(stop))

    def prepare(self) -> None:
        """Compile what is to run, unless that is done: the first trial does it else, before it begins."""
        if not self._prepared:
            self._poll(0)
            self._signed(b"", 0)
            for port, sender in zip(self.ports, self._senders, strict=True):
                port.tx[0]._compile_sending()  # pyright: ignore[reportPrivateUsage]
                next_due(sender.state.pace)  # of the first trial that has a rate
            self._prepared = True

    def so_far(self) -> TrialResult:
        """How the trial at hand stands: lost are packets that others have overtaken."""
        return self._result(over=False)

    def _begin(self, trial: Trial) -> int:
        """Let all counts be those of a new trial, which begins now; its number."""
        number = next(_trials) + (0 if clock.is_virtual() else _FIRST)
        for way, (sender, receiver) in enumerate(zip(self._senders, self._receivers, strict=True)):
            receiver.begin(label_of(number, 1 - way))
            pacing = Pacing(trial.rate if self._sends(way) else None, burst=trial.burst)
            packets = trial.count if self._sends(way) else 0
            sender.begin(pacing, count=packets, seconds=trial.seconds, label=label_of(number, way))
        self._started = self._ended = clock.monotonic()
        return number

    def _sends(self, way: int) -> bool:
        return way == 0 or self.both_ways

    def _sent_all(self, trial: Trial, now: float) -> bool:
        if all(sender.done() for sender in self._senders):
            return True
        return trial.rate is None and trial.seconds is not None and now - self._started >= trial.seconds

    def _settled(self, seconds: float) -> Callable[[float], bool]:
        """What says whether no packet has come for so long; it has an end in any case."""
        known, since = -1, self._ended

        def settled(now: float) -> bool:
            nonlocal known, since
            arrived = sum(int(receiver.arrived.sum()) for receiver in self._receivers)
            if arrived != known:
                known, since = arrived, now
            return now - since >= seconds or now - self._ended >= _LONGEST * seconds

        return settled

    def _run(self, polls: int) -> None:
        """Poll both ports so often. By a virtual clock, whenever something happens."""
        clock.run_polls(self._poll, polls, due=self._due)
        for port in self.ports:
            port._rouse()  # pyright: ignore[reportPrivateUsage]

    def _poll(self, polls: int) -> int:
        before = self._handled()
        one, other = self._senders
        done = self._loop(one.state, other.state, polls)
        if done < 0:
            raise OwnershipError(f"{self.ports[-1 - done].address}: a queue is in use by another thread")
        return self._handled() - before

    def _handled(self) -> int:
        """How many packets were sent and received."""
        arrived = sum(int(receiver.arrived.sum()) + receiver.others for receiver in self._receivers)
        return arrived + sum(sender.sent for sender in self._senders)

    def _due(self) -> int | None:
        """When cards do something next, or a packet is due: a poll is to come at each of these moments."""
        now = clock.monotonic_ns()
        moments = [clock.following(), *(sender.due() for sender in self._senders)]
        return min((moment for moment in moments if moment is not None and moment > now), default=None)

    def _result(self, *, over: bool) -> TrialResult:
        seconds = (self._ended if over else clock.monotonic()) - self._started
        streams, rates = list[StreamResult](), dict[str, float]()
        for way, sender in enumerate(self._senders):
            if not self._sends(way):
                continue
            a, b = self.ports[way].address, self.ports[1 - way].address
            receiver = self._receivers[1 - way]
            direction = f"{a} → {b}"
            sent = receiver.state.sent[:, COUNT].tolist()
            for place, stream in enumerate(self.streams):
                streams.append(_stream_result(stream.name, direction, receiver, place, sent[place], over=over))
            rates[direction] = sender.sent / seconds if seconds > 0 else 0.0
        others = {port.address: receiver.others for port, receiver in zip(self.ports, self._receivers, strict=True)}
        return TrialResult(streams, others, seconds, rates, max(sender.given_up for sender in self._senders))


def mean_bits(streams: Sequence[Stream]) -> float:
    """What a test packet of these streams takes on the wire, on average.

    Raises:
        ConfigurationError: there can be no such streams.
    """
    return mean_bits_of(table_of(streams, tail=SIGNATURE_BYTES))


def _check(trial: Trial) -> None:
    """
    Raises:
        ConfigurationError: a trial has no end, or its parameters are out of bounds.
    """
    if trial.seconds is None and trial.count is None:
        raise ConfigurationError("a trial needs an end: seconds, or a count of packets")
    if trial.seconds is not None:
        number("seconds", trial.seconds, 0, MAX_SECONDS)
    if trial.count is not None:
        integer("count", trial.count, 1, MAX_COUNT)


def _stream_result(name: str, direction: str, receiver: Receiver, place: int, sent: int, *, over: bool) -> StreamResult:
    row, state = [int(word) for word in receiver.rows[place]], receiver.state
    distinct = row[NEXT] - row[MISSING]
    return StreamResult(
        name=name,
        direction=direction,
        sent=sent,
        received=int(receiver.arrived[place]),
        lost=sent - distinct if over else row[MISSING],
        duplicated=row[DUPLICATED],
        reordered=row[REORDERED],
        max_extent=row[EXTENT],
        too_late=row[TOO_LATE],
        corrupted=row[CORRUPT],
        delays=Delays(state.latencies[place].copy(), row[LEAST] if distinct else 0, row[MOST], row[TOTAL], distinct),
        jitters=Delays(
            state.jitters[place].copy(),
            row[JITTER_LEAST] if distinct > 1 else 0,
            row[JITTER_MOST],
            row[JITTER_TOTAL],
            max(distinct - 1, 0),
        ),
        extents=state.extents[place].copy(),
    )
