"""`ixy replay`: a recording is sent as it was recorded, at a rate, or as fast as a device takes it.

A file is read a part at a time while it is sent: a table of some thousand packets that says where each lies in the
mapped file, and when it is due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy import clock
from ixy.apps.report import Report
from ixy.apps.rewriting import Rewriting, copy_rewritten, most_bytes, rewriting
from ixy.apps.sending import SENT, lay, pad, sender_kernels, sending_pool
from ixy.apps.session import chosen_by, drain, longest_frame, open_devices, repeat
from ixy.apps.sides import Sides
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.clock import run_polls
from ixy.counts import COUNTS
from ixy.errors import CaptureError, ConfigurationError, OwnershipError
from ixy.formats.frames import MIN_FRAME
from ixy.formats.links import HEADER
from ixy.formats.piped import Piped, arriving, is_piped, read_only
from ixy.formats.reading import Source
from ixy.formats.words import INDEX, LENGTH, OFFSET, ORIGINAL, ROWS, TIME
from ixy.jit import Direct, compiled, outlined
from ixy.pacing import (
    AS_RECORDED,
    AT_ONCE,
    BACK,
    CATCH_UP_PACKETS,
    KEEPING,
    NO_BOUND,
    NUMBER,
    SHORTENED,
    STARTED,
    Timing,
    begin_again,
    lateness,
    look,
    new_plan,
    planned_all,
)
from ixy.packets.buffers import BUFFER_SIZE, STRIDE
from ixy.packets.packets import Packets, new_packets
from ixy.packets.parts import lengthen, scatter
from ixy.packets.pool import Pools, pools
from ixy.polls import room_for
from ixy.tables.histogram import PARTS, observe, quantile
from ixy.unsafe import call_if, now_ns, own_lines
from ixy.unsafe.filters import accepts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.settings import Settings
    from ixy.device import Device
    from ixy.filters import Filter

    Bytes = NDArray[np.uint8]
    Table = NDArray[np.int64]

log = logging.getLogger("ixy.apps")

_PART = 4096  # packets of a table
_TURN = 8  # polls of a device before it is the other one's turn
_PATIENCE = 0.01  # seconds that a packet is waited for that is to come through a pipe: signals and reports wait too
_BOTH = -1  # of a recording's sides

# Rows of a table of packets that are to be sent, besides those of `words`: when they are due after the first, and who
# sent them
DUE, SIDE, ALL_ROWS = ROWS, ROWS + 1, ROWS + 2

# Words of a player's `place`: the next packet of the table, the end of its packets, and whether the recording ends
# there too; the time at which packets were taken, of the last one before when it was, and was due
AT, END, ENDS, NOW, LAST, LAST_DUE, PLACE = 0, 1, 2, 3, 4, 5, 8
# Words of what was found out of a recording
CUT, UNFIT, FOUND = range(3)


class PlayerState(NamedTuple):
    """Who plays to a device, as its kernel sees it.

    Attributes:
        rx, tx: states of the device's rings; what arrives is thrown away.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        pool: number of the pool to send from.
        packets: room for one batch.
        whole: room for one packet.
        data: the recording.
        table: shape (ALL_ROWS, n), int64.
        rules: what is changed in each frame, if `rewrites`.
        most: bytes of a frame that one buffer holds, whatever is changed.
        paced: packets have times when they are due.
        place: shape (PLACE,), int64.
        keeping: of all who play the recording, see `pacing.look`.
        counts: see `sending.SenderKernels`.
        errors: a histogram of the differences, in nanoseconds, between gaps as they were and as they should be.
    """

    rx: Any
    tx: Any
    pools: Pools
    bytes: Bytes
    pool: int
    packets: Packets
    whole: Bytes
    data: Bytes
    table: Table
    rules: Rewriting
    rewrites: bool
    most: int
    paced: bool
    place: NDArray[np.int64]
    counts: NDArray[np.int64]
    keeping: NDArray[np.int64]
    errors: NDArray[np.int64]


class Recording:
    """The packets of a capture that are to be sent, in order, each with the time when it is due.

    Args:
        source: the capture. One that comes through a pipe is sent once.
        timing: when packets are due.
        loops: how often the file is sent, 0 for without end.
        limit: of packets in all, None for none.
        only: which packets are sent, None for all.
        side: `sides.CLIENT` or `SERVER` for what they sent, None for all.
        room: bytes that a frame may have.

    Attributes:
        source: the capture.
        data: where its packets lie; a copy of those that are not sent yet, if they come through a pipe.
        over: there are no further packets.
        plan: when its packets are due.
        found: packets that were cut when they were recorded, and that were left out as they have no whole Ethernet
            header or are too long.
        clamped: packets whose times are beyond what can be told.
        damage: why the file ended early, or None.
    """

    def __init__(
        self,
        source: Source | Piped,
        timing: Timing,
        *,
        loops: int = 1,
        limit: int | None = None,
        only: Filter | None = None,
        side: int | None = None,
        room: int = BUFFER_SIZE,
    ) -> None:
        self.source = source
        self._waiting = np.zeros(0 if isinstance(source, Source) else 2 * _PART * room, np.uint8)
        self.data = source.data if isinstance(source, Source) else read_only(self._waiting[:])
        self.plan, self.found = new_plan(timing, room), np.zeros(FOUND, np.int64)
        self._left, self._limit = loops, limit or 0
        self._only, self._room = only.address if only else 0, room
        self._side, self._sides = _BOTH if side is None else side, None if side is None else Sides()
        self.over = False
        self.clamped = 0
        self.damage: str | None = None

    def fill(self, table: Table, kept: int = 0) -> int:
        """Fill a table with the next packets, of a short file with those of several loops; how many it holds then,
        fewer than `_PART` only at the end, or where no more have come through a pipe. The first one is waited for.

        Args:
            table: shape (ALL_ROWS, 2 * _PART), int64; it holds `kept`, fewer than `_PART`.
        """
        if isinstance(self.source, Piped):
            return self._take(self.source, table, kept)
        while kept < _PART and not self.over:
            end = self.source.fill(table, kept, kept + _PART)
            if end == kept:
                self._rewind()
                continue
            kept = self._keep(table, kept, end)
        return kept

    def _take(self, pipe: Piped, table: Table, kept: int) -> int:
        """The same, of what has come through a pipe. Packets that are not sent yet move to the front of `data`."""
        _gather(self._waiting, 0, self.data, table, 0, kept)
        enough = CATCH_UP_PACKETS if clock.is_virtual() else 1  # that the next packets need not be waited for
        while kept < _PART and not self.over:
            forever = clock.is_virtual() or self._planned == 0
            patience = 0.0 if kept >= enough else None if forever else _PATIENCE
            end = pipe.fill(table, patience, kept, kept + _PART)
            self.over, self.clamped, self.damage = pipe.over, pipe.clamped, pipe.damage if pipe.over else None
            if end == kept:
                break
            place = int(table[OFFSET, kept - 1] + table[LENGTH, kept - 1]) if kept else 0
            before, kept = kept, self._keep(table, kept, end)
            _gather(self._waiting, place, pipe.data, table, before, kept)
        return kept

    def _keep(self, table: Table, first: int, end: int) -> int:
        """Leave of the columns from `first` to `end` those packets that are to be sent, and say when; where they end.
        All sides have the same plan, so that what they send keeps its times."""
        data = self.source.data
        if self._sides:
            rows = table[:, first:end]
            self._sides.divide(data, rows[OFFSET], rows[LENGTH], rows[SIDE])
        left = self._limit - self._planned if self._limit else end
        end = _choose(data, table, first, end, self._only, self._side, self._room, left, self.found)
        _plan_all((), self.plan, table[TIME, first:end], table[LENGTH, first:end], table[DUE, first:end])
        self.over = self.over or 0 < self._limit <= self._planned
        return end if self._side == _BOTH else _of_side(table, first, end, self._side)

    @property
    def _planned(self) -> int:
        """How many packets there were so far, of both sides."""
        return int(self.plan.words[NUMBER])

    def _rewind(self) -> None:
        """Begin once more, right after the last packet, if that is asked for and there is one."""
        assert isinstance(self.source, Source)
        self.clamped, self.damage = self.source.clamped, self.source.damage
        self._left -= 1
        self.over = self._left == 0 or self._planned == 0
        self.source.rewind()
        begin_again(self.plan)


class Player:
    """Sends a recording from the first queue of a device.

    Args:
        device: that sends.
        recording: what to send.
        batch: the most packets sent at a time.
        rules: what is changed in each frame.
        keeping: of all players that play at the same time, shape (KEEPING,), int64, zeros.

    Attributes:
        kernels, state: what sends, and what it works on.
        errors: a histogram (`tables.histogram`) of the errors of gaps, in ns.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of the ring.
        MemoryUnavailable: no memory for the packets.
    """

    def __init__(
        self,
        device: Device,
        recording: Recording,
        batch: int,
        rules: Rewriting,
        keeping: NDArray[np.int64],
    ) -> None:
        rx, tx = device.rx[0].ring, device.tx[0].ring
        batch = integer("batch", batch, 1, tx.size)
        self.errors = np.zeros(PARTS, np.int64)
        self._device, self._recording = device, recording
        self.kernels = sender_kernels(rx.kernel, tx.kernel, room_for(rx.parts, device.tx[0].ring), plan, prepare)
        self._place = np.zeros(PLACE, np.int64)
        self.state = PlayerState(
            rx=rx.state,
            tx=tx.state,
            pools=pools(),
            bytes=pools().bytes.reshape(-1),
            pool=sending_pool(device, batch).number,
            packets=new_packets(batch, rx.metadata),
            whole=np.zeros(BUFFER_SIZE * rx.parts, np.uint8),
            data=recording.data,
            table=np.zeros((ALL_ROWS, 2 * _PART), np.int64),
            rules=rules,
            rewrites=rules.vlan != rewriting().vlan or rules.families.size > 0,
            most=BUFFER_SIZE - most_bytes(0, rules),
            paced=recording.plan.timing.kind != AT_ONCE,
            place=self._place,
            counts=own_lines(COUNTS),
            keeping=keeping,
            errors=self.errors,
        )
        device._rung_by(self.state.counts)  # pyright: ignore[reportPrivateUsage]
        self._over = False
        self.fill()

    def run(self, polls: int) -> int:
        """Send up to `polls` batches, as far as packets are due and the ring takes them; how many packets.

        Raises:
            CaptureError: the file goes on with packets of another link.
            OwnershipError: another thread uses a queue.
        """
        before, left = self.sent, polls
        while True:
            tried = self.kernels.run(self.state, left)
            if tried < 0:
                raise OwnershipError(f"{self._device.address}: a queue is in use by another thread")
            left -= tried
            if self.at_end and polls:
                self.fill()
            if left <= 0 or self.at_end:
                break
        if self.sent > before:
            self._device._rouse()  # pyright: ignore[reportPrivateUsage]
        return self.sent - before

    def due(self) -> int | None:
        """When the next packet is due, by the clock in nanoseconds; None if that is not known yet."""
        started, at = int(self.state.keeping[STARTED]), int(self._place[AT])
        if self.at_end or not started:
            return None
        return started + int(self.state.table[DUE, at])

    @property
    def sent(self) -> int:
        """How many packets were handed to the device."""
        return int(self.state.counts[SENT])

    @property
    def at_end(self) -> bool:
        """Whether the table needs more packets to go on."""
        return not goes_on(self._place)

    def done(self) -> bool:
        """Whether all is sent."""
        return self._over

    def fill(self) -> None:
        """Go on to the next packets of the recording, once nearly all of the table are sent."""
        table, at, end = self.state.table, int(self._place[AT]), int(self._place[END])
        table[:, : end - at] = table[:, at:end].copy()
        count = self._recording.fill(table, end - at)
        self._place[AT], self._place[END], self._place[ENDS] = 0, count, count < _PART
        self._over = count == 0 and self._recording.over


def replay(
    path: str,
    addresses: Sequence[str],
    settings: Settings,
    *,
    timing: Timing,
    loops: int = 1,
    expression: str = "",
    rules: Rewriting | None = None,
) -> int:
    """Send the packets of a capture file from a device, or what clients sent from one and the rest from another one,
    until all are sent, or the limit, or a signal; the exit code.

    Args:
        path: of the file; "-" is standard input.
        timing: when packets are due.
        loops: how often the file is sent, 0 for without end.
        expression: a filter in tcpdump's language, for the packets to send; all match the empty one.
        rules: what is changed in each frame.

    Raises:
        CaptureError: the file cannot be read; or it ends within a packet, and what is before that was sent; or it has
            times that cannot be told.
        ConfigurationError: there is no packet to send; or a pipe is to be read twice.
        FilterError: the filter is malformed, or libpcap not installed.
        Error: as `ixy.open`.
    """
    rules = rewriting() if rules is None else rules
    keeping = np.zeros(KEEPING, np.int64)
    with ExitStack() as stack:
        room = longest_frame(settings) - most_bytes(0, rules)
        sources = _sources(path, len(addresses), loops, stack)
        recordings = _recordings(sources, timing, loops, settings.count, chosen_by(expression), room)
        stop = stack.enter_context(stop_on_signals())
        devices = stack.enter_context(open_devices(addresses, settings, reads=[path]))
        players = [
            Player(device, recording, settings.batch, rules, keeping)
            for device, recording in zip(devices, recordings, strict=True)
        ]
        if all(player.done() for player in players):
            raise ConfigurationError(f"{path}: no packet to send")
        with Report(devices, addresses, as_json=settings.as_json) as report:
            report.progress = lambda: {"sent": sum(player.sent for player in players)}
            over = _all(players)
            seconds = repeat(_run(players), over, settings, stop, report)
            for device, player in zip(devices, players, strict=True):
                drain(device, player.sent)
            report.results = _results(players, recordings, keeping, seconds)
    _tell(path, recordings)
    _check(path, recordings[0])
    return 0 if over() else stop.exit_code(settings)


def _sources(path: str, number: int, loops: int, stack: ExitStack) -> list[Source | Piped]:
    """The capture, for so many devices, each of which reads it by itself. What comes through a pipe is sent as it
    comes, but if it is to be sent several times.

    Raises:
        CaptureError: it cannot be read.
        ConfigurationError: a pipe cannot be read by two.
    """
    piped = is_piped(path)
    if piped and number > 1:
        raise ConfigurationError(f"{path}: a pipe is read once, and two devices read it by themselves: name a file")
    if piped and loops == 1:
        return [stack.enter_context(arriving(path))]
    return [Source(path) for _ in range(number)]


def _recordings(
    sources: Sequence[Source | Piped], timing: Timing, loops: int, limit: int | None, only: Filter | None, room: int
) -> list[Recording]:
    """What each device sends: all, or of two what clients and what servers sent."""
    sides = range(len(sources)) if len(sources) > 1 else [None]
    return [
        Recording(source, timing, loops=loops, limit=limit, only=only, side=side, room=room)
        for source, side in zip(sources, sides, strict=True)
    ]


def _check(path: str, recording: Recording) -> None:
    """
    Raises:
        CaptureError: the file was damaged, or its times were not what they should be.
    """
    wrong = [f"damaged, sent what was before: {recording.damage}"] if recording.damage else []
    if recording.clamped and recording.plan.timing.kind == AS_RECORDED:
        wrong.append(f"times beyond the years 1677 to 2262, taken for the nearest of these: {recording.clamped}")
    if wrong:
        raise CaptureError(f"{path}: {'; '.join(wrong)}")


def _all(players: Sequence[Player]) -> Callable[[], bool]:
    return lambda: all(player.done() for player in players)


def _run(players: Sequence[Player]) -> Callable[[int], int]:
    """What lets all players send for so many polls, in turns."""

    def turns(polls: int) -> int:
        turn = polls if len(players) == 1 else min(polls, _TURN)
        return sum(player.run(turn) for _ in range(max(polls // turn if turn else 1, 1)) for player in players)

    def first() -> int | None:
        return min((moment for player in players if (moment := player.due()) is not None), default=None)

    return lambda polls: run_polls(turns, polls, ended=_all(players), due=first)


def _results(
    players: Sequence[Player],
    recordings: Sequence[Recording],
    keeping: NDArray[np.int64],
    seconds: float,
) -> dict[str, Any]:
    """What the summary tells."""
    errors = np.sum([player.errors for player in players], axis=0)
    sent = sum(player.sent for player in players)
    results: dict[str, Any] = {
        "sent": sent,
        "left_out": int(sum(recording.found[UNFIT] for recording in recordings)),
        "cut": int(sum(recording.found[CUT] for recording in recordings)),
    }
    if recordings[0].plan.timing.kind == AT_ONCE:
        return results | {"rate": round(sent / seconds) if seconds else 0}
    results |= lateness(keeping)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        results[f"gap_error_{name}_ns"] = quantile(errors, share)
    return results


def _tell(path: str, recordings: Sequence[Recording]) -> None:
    """What the user may not expect of the file."""
    first = recordings[0]
    if first.source.converted:
        log.warning("%s: packets of another link, sent as Ethernet", path)
    if cut := sum(int(recording.found[CUT]) for recording in recordings):
        log.warning("%s: packets that were cut when captured, and were sent so: %d", path, cut)
    if unfit := sum(int(recording.found[UNFIT]) for recording in recordings):
        log.warning("%s: left out packets without an Ethernet header, or too long for a buffer: %d", path, unfit)
    if back := int(first.plan.words[BACK]):
        log.warning("%s: times that go back: %d; sent in the order of the file", path, back)
    if shortened := int(first.plan.words[SHORTENED]):
        log.warning("%s: gaps that were shortened: %d", path, shortened)


# ---------------------------------------------------------------------------------------------------------------------
# Kernels

_plan_all = Direct(planned_all)


@compiled
def _choose(
    data: Bytes,
    table: Table,
    first: int,
    end: int,
    only: int,
    side: int,
    room: int,
    limit: int,
    found: NDArray[np.int64],
) -> int:
    """Leave only those in the columns `first` to `end` of a table that are to be sent, of both sides and up to `limit`;
    where they end."""
    if only == 0 and end - first <= limit and _are_whole(table, first, end, room):
        return end
    kept = first
    for i in range(first, end):
        if kept - first == limit:
            break
        start, size, original = table[OFFSET, i], table[LENGTH, i], table[ORIGINAL, i]
        if not accepts(only, data, start, size, original):
            continue
        ours = side == _BOTH or table[SIDE, i] == side
        if size < HEADER or size > room:
            found[UNFIT] += 1 if ours else 0
            continue
        found[CUT] += 1 if ours and size < original else 0
        _move(table, kept, i)
        kept += 1
    return kept


@compiled
def _are_whole(table: Table, first: int, end: int, room: int) -> bool:
    """Whether all packets are as they were, and fit; one loop without a branch, as this is so almost always."""
    odd = False
    for i in range(first, end):
        size = table[LENGTH, i]
        odd |= (size < HEADER) | (size > room) | (size < table[ORIGINAL, i])
    return not odd


@compiled
def _of_side(table: Table, first: int, end: int, side: int) -> int:
    """Leave only those that this side has sent; where they end. All sides have the same plan, so that what they send
    keeps its times."""
    kept = first
    for i in range(first, end):
        if table[SIDE, i] == side:
            _move(table, kept, i)
            kept += 1
    return kept


@compiled
def _move(table: Table, to: int, source: int) -> None:
    for row in range(ALL_ROWS):
        table[row, to] = table[row, source]


@compiled
def _gather(target: Bytes, end: int, source: Bytes, table: Table, first: int, last: int) -> None:
    """Move the packets from number `first` up to `last` of a table to `target[end:]`, one right after the other, where
    none lies further ahead than before if both arrays are one."""
    for i in range(first, last):
        start, size = table[OFFSET, i], table[LENGTH, i]
        for k in range(size):
            target[end + k] = source[start + k]
        table[OFFSET, i] = end
        end += size


@compiled
def goes_on(place: NDArray[np.int64]) -> bool:
    """Whether a table has all packets that are looked at, those that may be caught up with, or is the last one."""
    left = place[END] - place[AT]
    return left >= CATCH_UP_PACKETS or (left > 0 and place[ENDS] != 0)


@compiled
def plan(state: PlayerState, room: int) -> int:
    """How many packets should be sent now, at most a batch, and -1 where the table needs more packets."""
    place, table = state.place, state.table
    if not goes_on(place):
        return -1
    at = place[AT] & INDEX
    end = min(place[END], at + min(room, state.packets.ids.size))
    if not state.paced:
        return end - at
    due, last = table[DUE, at], at + CATCH_UP_PACKETS - 1
    place[NOW] = now_ns()
    late = look(state.keeping, due, table[DUE, last] - due if last < place[END] else NO_BOUND, place[NOW])
    number = 0
    while at + number < end and table[DUE, at + number] <= due + late:
        number += 1
    return number


@compiled
def prepare(state: PlayerState, count: int) -> None:
    """Make the first `count` buffers the next packets, which will be sent; short ones are padded, as on a wire."""
    table, at = state.table, state.place[AT] & INDEX
    for i in range(count):
        start, size = int(state.packets.ids[i]) * STRIDE, table[LENGTH, at + i]
        if size > state.most:
            call_if(state.packets.nexts, prepare_parts, (state, i, table[OFFSET, at + i], size))
            continue
        if state.rewrites:
            size = copy_rewritten(state.bytes, start, state.data, table[OFFSET, at + i], size, state.rules)
            pad(state.bytes, start, size, MIN_FRAME)
        else:
            lay(state.bytes, start, state.data, table[OFFSET, at + i], size, MIN_FRAME)
        state.packets.lengths[i] = max(size, MIN_FRAME)
    if state.paced:
        _note_gaps(state, count)
    state.place[AT] += count


@outlined
def prepare_parts(state: PlayerState, i: int, start: int, size: int) -> int:
    """Make packet `i` the frame at `data[start:]`, which one buffer may not hold; its length."""
    if state.rewrites:
        size = copy_rewritten(state.whole, 0, state.data, start, size, state.rules)
        lengthen(state.pools, state.pool, state.packets, i, size)
        scatter(state.pools, state.packets, i, state.whole, 0)
    else:
        lengthen(state.pools, state.pool, state.packets, i, size)
        scatter(state.pools, state.packets, i, state.data, start)
    return size


@compiled
def _note_gaps(state: PlayerState, count: int) -> None:
    """Note how far the gaps before so many packets are from what they should be."""
    place, errors = state.place, state.errors
    now, at = place[NOW], place[AT] & INDEX
    last, last_due, sent = place[LAST], place[LAST_DUE], state.counts[SENT]
    for i in range(count):
        moment = state.table[DUE, at + i]
        if sent + i > 0:
            observe(errors, abs((now - last) - (moment - last_due)))
        last, last_due = now, moment
    place[LAST], place[LAST_DUE] = last, last_due
