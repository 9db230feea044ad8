"""`ixy generate`: a packet generator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.rate import Rate, bounded, wire_bits
from ixy.apps.receiver import Receiver, judge
from ixy.apps.report import Report
from ixy.apps.sending import SENT, lay, sender_kernels, sending_pool, throw_away
from ixy.apps.session import drain, open_devices, repeat
from ixy.apps.signals import stop_on_signals
from ixy.apps.streamtable import (
    COUNT,
    ENTRIES,
    FIRST,
    LENGTH,
    NUMBER_BYTES,
    SIGNATURE_BYTES,
    StreamTable,
    fill,
    next_frame,
    next_stream,
    rewind,
    write,
)
from ixy.arguments import integer
from ixy.clock import POLL, monotonic_ns, run_polls
from ixy.counts import COUNTS
from ixy.errors import OwnershipError
from ixy.formats.signature import sign
from ixy.jit import compiled, outlined
from ixy.pacing import FINE_PARTS, GIVEN_UP, SECOND, STARTED, catch_up, gaps_of, lateness, new_pace, next_due, pass_gap
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, MAX_PARTS, POOL_BUFFERS, STRIDE
from ixy.packets.packets import INDEX_MASK, NO_NEXT, Packets, new_packets
from ixy.packets.parts import lengthen, scatter
from ixy.packets.pool import Pools, pools
from ixy.polls import room_for
from ixy.unsafe import call_if, now_ns, own_lines, peek

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.settings import Settings
    from ixy.device import Device

log = logging.getLogger("ixy.apps")

BYTES = SENT + 1  # of a generator's `counts`
_NOTHING = -1
_NEARLY = 0.99  # of a rate, is the rate
_NEVER = 1 << 62  # packets, or ns: more than there will be
MAX_BURST = 4096  # packets


class Pacing(NamedTuple):
    """When packets are to go.

    Attributes:
        rate: how many; None for as many as the device takes.
        poisson: the gaps between them are random, those of a Poisson process.
        burst: so many go at once.
        seed: of those gaps, 0 to 2^32 - 1.
    """

    rate: Rate | None = None
    poisson: bool = False
    burst: int = 1
    seed: int = 0


AT_ONCE = Pacing()


class GeneratorState(NamedTuple):
    """A generator, as its kernel sees it.

    Attributes:
        rx, tx: states of the device's rings.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        pool: number of the pool to send from.
        packets: room for one batch,
        streams, frames: and of which stream and which frame each of them is, int32,
        numbers: and of those with signatures, which number in its stream, int64.
        held: which frame each buffer of the pool holds, shape (POOL_BUFFERS,), int32.
        table: what to send.
        pace: when, see `pacing.new_pace`; of no use if not
        paced: it is in use.
        gaps: behind a packet of each length up to the longest, shape (any, 2), int64: nanoseconds, and parts of one.
        limit: packets to send in all.
        until: in ns; what is due later is not sent.
        counts: shape (COUNTS,), int64.
        label: what signatures say of the first stream.
        skip: so many of a packet's first bytes they do not cover.
        receiver: what judges packets that arrive; None if they are thrown away.
        whole: room for one packet that lies in several buffers.
    """

    rx: Any
    tx: Any
    pools: Pools
    bytes: NDArray[np.uint8]
    pool: int
    packets: Packets
    streams: NDArray[np.int32]
    frames: NDArray[np.int32]
    numbers: NDArray[np.int64]
    held: NDArray[np.int32]
    table: StreamTable
    pace: NDArray[np.int64]
    paced: bool
    gaps: NDArray[np.int64]
    limit: int
    until: int
    counts: NDArray[np.int64]
    label: int = 0
    skip: int = 0
    receiver: Any = None
    whole: Any = None


class Generator:
    """Sends packets from the first queue of a device.

    Args:
        device: that sends.
        table: what to send, see `table_of`; its streams go on where they were.
        batch: the most packets sent at a time.
        pacing: when to send.
        count: how many packets to send, None for no limit.
        receiver: judges what arrives meanwhile, which is thrown away else.
        skip: if packets carry signatures, so many of their first bytes those do not cover.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of the ring, the rate is more than the line takes, or
            packets are longer than the buffers that they may have.
        MemoryUnavailable: no memory for the packets.
    """

    def __init__(
        self,
        device: Device,
        table: StreamTable,
        *,
        batch: int = 32,
        pacing: Pacing = AT_ONCE,
        count: int | None = None,
        receiver: Receiver | None = None,
        skip: int = 0,
    ) -> None:
        rx, tx = device.rx[0].ring, device.tx[0].ring
        batch = integer("batch", batch, 1, tx.size)
        self._device, self._receiver, self.mean_bits = device, receiver, mean_bits_of(table)
        self._longest = integer("bytes of a packet", longest_of(table), 0, BUFFER_SIZE * rx.parts)
        self.rate, pace, gaps = self._scheduled(pacing)
        made = prepare_signed if table.tail == SIGNATURE_BYTES else prepare
        room = room_for(rx.parts, device.tx[0].ring)
        self.kernels = sender_kernels(rx.kernel, tx.kernel, room, plan, made, judge if receiver else throw_away)
        self.state = GeneratorState(
            rx=rx.state,
            tx=tx.state,
            pools=pools(),
            bytes=pools().bytes.reshape(-1),
            pool=sending_pool(device, batch).number,
            packets=new_packets(batch, rx.metadata),
            streams=np.zeros(batch, np.int32),
            frames=np.zeros(batch, np.int32),
            numbers=np.zeros(batch, np.int64),
            held=np.full(POOL_BUFFERS, _NOTHING, np.int32),
            table=table,
            pace=pace,
            paced=self.rate is not None,
            gaps=gaps,
            limit=_NEVER if count is None else count,
            until=_NEVER,
            counts=own_lines(COUNTS),
            skip=skip,
            receiver=receiver and receiver.state,
            whole=np.zeros(BUFFER_SIZE * rx.parts, np.uint8),
        )
        device._rung_by(self.state.counts)  # pyright: ignore[reportPrivateUsage]

    def _scheduled(self, pacing: Pacing) -> tuple[Rate | None, NDArray[np.int64], NDArray[np.int64]]:
        """The rate, and its schedule."""
        rate = pacing.rate.on(self._device) if pacing.rate else None
        if rate:
            rate.check(self._device, self.mean_bits)
        return rate, *_schedule(rate, pacing, self.mean_bits, self._longest)

    def begin(self, pacing: Pacing, *, count: int | None = None, seconds: float | None = None, label: int = 0) -> None:
        """Send anew from now on, streams and counts from their beginning.

        Args:
            pacing, count: as above.
            seconds: for which packets are due; without a rate, it is the caller who ends.
            label: what signatures say of the first stream, see `GeneratorState`.

        Raises:
            ConfigurationError: as above.
        """
        self.rate, pace, gaps = self._scheduled(pacing)
        pace[STARTED] = begun = monotonic_ns() + POLL  # by a virtual clock the first poll comes then
        rewind(self.state.table)
        self.state.counts[SENT] = self.state.counts[BYTES] = 0
        self.state = self.state._replace(
            pace=pace,
            paced=self.rate is not None,
            gaps=gaps,
            limit=_NEVER if count is None else count,
            until=_NEVER if seconds is None else begun + round(seconds * SECOND) - 1,
            label=label,
            receiver=self._receiver and self._receiver.state,
        )

    def finish(self) -> None:
        """Send no more."""
        self.state = self.state._replace(limit=0)

    def run(self, polls: int) -> None:
        """Send a batch up to `polls` times, as far as packets are due and the ring takes them."""
        if run_polls(self._poll, polls, ended=self.done, due=self.due):
            self._device._rouse()  # pyright: ignore[reportPrivateUsage]

    def _poll(self, polls: int) -> int:
        """How many packets it has sent."""
        before = self.sent
        if self.kernels.run(self.state, polls) < 0:
            raise OwnershipError(f"{self._device.address}: a queue is in use by another thread")
        return self.sent - before

    def due(self) -> int | None:
        """When the next packet is due, in nanoseconds."""
        return int(next_due(self.state.pace)) if self.state.paced and not self.done() else None

    @property
    def sent(self) -> int:
        """How many packets were handed to the device."""
        return int(self.state.counts[SENT])

    @property
    def sent_bits(self) -> int:
        """What they take on the wire."""
        return wire_bits(0) * self.sent + 8 * int(self.state.counts[BYTES])

    @property
    def lateness(self) -> dict[str, float | int]:
        """How late packets were, see `pacing.lateness`."""
        return lateness(self.state.pace)

    @property
    def given_up(self) -> int:
        """How far behind its schedule it fell beyond what is caught up with, in nanoseconds."""
        return int(self.state.pace[GIVEN_UP])

    def done(self) -> bool:
        """Whether all is sent that was to be."""
        return self.sent >= self.state.limit or (self.state.paced and int(next_due(self.state.pace)) > self.state.until)


def longest_of(table: StreamTable) -> int:
    """Bytes of the longest packet."""
    return int(table.frames[:, LENGTH].max())


def mean_bits_of(table: StreamTable) -> float:
    """What a packet takes on the wire, on average."""
    bits = np.array([wire_bits(length) for length in range(longest_of(table) + 1)])
    frames = [table.entries[row[FIRST] : row[FIRST] + row[ENTRIES]] for row in table.streams]
    means = [bits[table.frames[each, LENGTH]].mean() for each in frames]
    return float(np.array(means)[table.order].mean())


def _schedule(
    rate: Rate | None, pacing: Pacing, mean_bits: float, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The words of a schedule, and the gap behind a packet of each length up to the longest."""
    burst = integer("burst", pacing.burst, 1, MAX_BURST)
    if rate is None:
        return new_pace(1), np.zeros((1, 2), np.int64)
    parts = FINE_PARTS if pacing.poisson else int(rate.amount)
    units = [1 if rate.unit == "pps" else wire_bits(length) for length in range(longest + 1)]
    gaps = gaps_of(units, int(rate.amount), parts)
    mean = (1 if rate.unit == "pps" else mean_bits) * 1e9 / float(rate.amount)
    return new_pace(parts, mean, burst=burst, seed=pacing.seed if pacing.poisson else None), gaps


def generate(
    address: str,
    table: StreamTable,
    settings: Settings,
    *,
    pacing: Pacing = AT_ONCE,
    strict: bool = False,
    left_out: int = 0,
) -> int:
    """Send packets from a device until the limit or a signal; the exit code.

    Args:
        table, pacing: see `Generator`.
        strict: a rate that is not reached gives exit code 1.
        left_out: how many packets of the user's are not in the table.

    Raises:
        ConfigurationError: the rate is out of bounds.
        Error: as `ixy.open` and `Generator`.
    """
    if pacing.rate:
        bounded("rate", pacing.rate)
    with stop_on_signals() as stop, open_devices([address], settings) as (device,):
        generator = Generator(device, table, batch=settings.batch, pacing=pacing, count=settings.count)
        with Report([device], [address], as_json=settings.as_json) as report:
            seconds = repeat(generator.run, generator.done, settings, stop, report)
            drain(device, generator.sent)
            report.results = {"generated": generator.sent, "left_out": left_out}
            missed = False
            if generator.rate:
                reached = _reached(generator, generator.rate, seconds)
                report.results["rate" if generator.rate.unit == "pps" else "bit_rate"] = reached
                missed = seconds > 0 and _missed(device.address, generator.rate, reached)
                report.results |= generator.lateness
    return stop.exit_code(settings) or int(strict and missed)


def _reached(generator: Generator, rate: Rate, seconds: float) -> int:
    """Packets or bits per second that were sent. One packet alone is as fast as it should be."""
    amount = generator.sent if rate.unit == "pps" else generator.sent_bits
    most = int(rate.amount) if generator.sent else 0
    return min(most, round(amount / seconds)) if generator.sent > 1 and seconds else most


def _missed(address: str, rate: Rate, reached: int) -> bool:
    """Whether a rate was not reached. If so, that is said."""
    if reached >= _NEARLY * float(rate.amount):
        return False
    log.warning("%s: the rate was not reached: %d of %s", address, reached, rate)
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@compiled
def plan(state: GeneratorState, room: int) -> int:
    """Choose the streams and frames of the packets that are to be sent now, `room` at most; how many."""
    pace, table = state.pace, state.table
    room = min(room, state.limit - state.counts[SENT])
    now = np.int64(0)
    if state.paced and room > 0:
        now = min(now_ns(), state.until)
        catch_up(pace, now)
    for i in range(min(room, state.packets.ids.size)):
        if state.paced and next_due(pace) > now:
            return i
        stream = next_stream(table)
        frame = next_frame(table, stream)
        length = np.int64(table.frames[frame, LENGTH])
        state.streams[i], state.frames[i], state.packets.lengths[i] = stream, frame, length
        if state.paced:
            pass_gap(pace, state.gaps[length, 0], state.gaps[length, 1])
    return max(min(room, state.packets.ids.size), 0)


@compiled
def prepare(state: GeneratorState, count: int) -> None:
    """Make the first `count` buffers the next packets, which will be sent. One that holds the right frame still is not
    copied again."""
    for i in range(count & INDEX_MASK):
        number = state.counts[SENT] + i
        if call_if(state.packets.nexts, make_long, (state, i, number)) != 0:
            continue
        start, size = make(state, i, number)
        if state.table.tail == NUMBER_BYTES:
            write(state.bytes, start + size - NUMBER_BYTES, NUMBER_BYTES // 2, number)


@compiled
def prepare_signed(state: GeneratorState, count: int) -> None:
    """The same with signatures. All say the same time, at which the last of the packets was made; but those in several
    buffers their own."""
    streams = state.table.streams
    for i in range(count & INDEX_MASK):
        state.numbers[i] = streams[int(state.streams[i]) & INDEX_MASK, COUNT]
        if call_if(state.packets.nexts, make_long, (state, i, 0)) == 0:
            make(state, i, 0)
    now = now_ns()
    for i in range(count & INDEX_MASK):
        if peek(state.packets.nexts, i, NO_NEXT) >= 0:
            continue
        start, size = (int(state.packets.ids[i]) & ID_MASK) * STRIDE, int(state.packets.lengths[i])
        label, number = state.label + int(state.streams[i]), int(state.numbers[i])
        sign(state.bytes, start, size, state.skip, label, number, now)


@compiled
def make(state: GeneratorState, i: int, number: int) -> tuple[int, int]:
    """Make buffer `i` the next packet but for its tail; where it begins, and its length.

    Args:
        number: see `streamtable.fill`.
    """
    table, target = state.table, state.bytes
    buffer, frame, size = int(state.packets.ids[i]), int(state.frames[i]), int(state.packets.lengths[i])
    slot, start = buffer & (POOL_BUFFERS - 1), (buffer & ID_MASK) * STRIDE
    if state.held[slot] != frame:
        lay(target, start, table.data, table.starts[frame & ID_MASK], int(table.sizes[frame & ID_MASK]), size)
        state.held[slot] = frame
    fill(table, target, start, int(state.streams[i]), frame, number)
    state.counts[BYTES] += size
    return start, size


@outlined
def make_long(state: GeneratorState, i: int, number: int) -> int:
    """Make packet `i`, tail and all, the next packet if one buffer does not hold it; its length then, else 0."""
    size = int(state.packets.lengths[i])
    if size <= BUFFER_SIZE:
        return 0
    table, whole, stream, frame = state.table, state.whole, int(state.streams[i]), int(state.frames[i]) & ID_MASK
    of_stream = int(table.streams[stream & INDEX_MASK, COUNT])
    lay(whole, 0, table.data, table.starts[frame], int(table.sizes[frame]), size)
    fill(table, whole, 0, stream, frame, number)
    if table.tail == NUMBER_BYTES:
        write(whole, size - NUMBER_BYTES, NUMBER_BYTES // 2, number)
    elif table.tail == SIGNATURE_BYTES:
        sign(whole, 0, size, state.skip, state.label + stream, of_stream, now_ns())
    lengthen(state.pools, state.pool, state.packets, i, size)
    scatter(state.pools, state.packets, i, whole, 0)
    forget(state, i)
    state.counts[BYTES] += size
    return size


@compiled
def forget(state: GeneratorState, i: int) -> None:
    """Note that the buffers of packet `i` hold no frame from its beginning to its end."""
    state.held[int(state.packets.ids[i]) & (POOL_BUFFERS - 1)] = _NOTHING
    buffer = peek(state.packets.nexts, i, NO_NEXT)
    for _ in range(MAX_PARTS - 1):
        if buffer < 0:
            break
        state.held[buffer & (POOL_BUFFERS - 1)] = _NOTHING
        buffer = int(state.pools.nexts[buffer & ID_MASK])
