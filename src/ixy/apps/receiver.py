"""Judges test packets: which have arrived of those that were sent, in which order, how whole, and how late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.streamtable import COUNT
from ixy.formats.signature import CORRUPTED, FOREIGN, passed, read, sequence_of, stream_of, time_of
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK, STRIDE
from ixy.packets.packets import INDEX_MASK
from ixy.packets.parts import gather
from ixy.tables.histogram import PARTS, observe
from ixy.tables.order import DUPLICATED, MARKED, MISSING, NEXT, ORDER_WORDS, TOO_LATE, WINDOW, arrive
from ixy.unsafe import call_if, now_ns, own_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.streamtable import StreamTable

    Words = NDArray[np.int64]

# A row of `judged`: the words of `tables/order.py`, and then how many packets had an inverted bit, and the greatest
# extent; of latencies the least, the greatest, the sum and the last; of their differences the least, the greatest and
# the sum
(
    CORRUPT,
    EXTENT,
    LEAST,
    MOST,
    TOTAL,
    LAST,
    JITTER_LEAST,
    JITTER_MOST,
    JITTER_TOTAL,
    JUDGED_WORDS,
) = range(ORDER_WORDS, ORDER_WORDS + 10)

OTHER, ASKED, COUNTED = range(3)  # words of `counts`: packets that are no test packets, those of them kept, and room
_KEPT, _KEPT_BYTES = 64, 128  # packets that are kept until somebody looks at them, and bytes of each
_LEAST_BYTES = 42  # of a packet that asks for an address
_VLAN, _ARP, _IPV6, _ICMPV6 = 0x8100, 0x0806, 0x86DD, 58

# What signatures say of a stream: the trial, which way it goes, its number
STREAM_BITS, WAY_BITS, TRIAL_BITS = 8, 1, 7
MAX_STREAMS = 1 << STREAM_BITS
TRIALS = 1 << TRIAL_BITS
_SAME = (1 << STREAM_BITS + WAY_BITS) - 1  # of two labels, but for their trials

_FAR = 1 << 62  # ns


def label_of(trial: int, way: int) -> int:
    """What signatures say of the first stream of a trial that goes one way."""
    return (trial % TRIALS << WAY_BITS | way) << STREAM_BITS


class ReceiverState(NamedTuple):
    """A receiver, as its kernel sees it.

    Attributes:
        label: what signatures say of the first stream.
        skip: so many of a packet's first bytes they do not cover.
        sent: the rows of the sender's streams, shape (streams, STREAM_WORDS), int64.
        judged: of each stream JUDGED_WORDS, int64, shape (any,).
        windows: of each stream a window, see `tables/order.py`, likewise.
        latencies, jitters, extents: histograms, shape (streams, PARTS), int64.
        questions: the first bytes of packets that may ask for an address, a row each.
        counts: shape (COUNTED,), int64.
    """

    label: int
    skip: int
    sent: Words
    judged: Words
    windows: Words
    latencies: Words
    jitters: Words
    extents: Words
    questions: NDArray[np.uint8]
    counts: Words


class Receiver:
    """What judges the packets of a sender.

    For each stream it keeps 606 KB, of which 512 KB are touched only if packets are missing.

    Args:
        table: of the sender, with signatures.
        skip: so many of a packet's first bytes those do not cover.
    """

    def __init__(self, table: StreamTable, skip: int) -> None:
        streams = len(table.streams)
        self.state = ReceiverState(
            label=0,
            skip=skip,
            sent=table.streams,
            judged=own_lines(streams * JUDGED_WORDS),
            windows=np.zeros(streams * WINDOW, np.int64),
            latencies=np.zeros((streams, PARTS), np.int64),
            jitters=np.zeros((streams, PARTS), np.int64),
            extents=np.zeros((streams, PARTS), np.int64),
            questions=np.zeros((_KEPT, _KEPT_BYTES), np.uint8),
            counts=own_lines(COUNTED),
        )
        self.begin(0)

    def begin(self, label: int) -> None:
        """Judge anew, the streams of which signatures say this."""
        state = self.state = self.state._replace(label=label)
        state.windows.reshape(-1, WINDOW)[self.rows[:, MARKED] > 0] = 0  # others were never written
        for counters in (state.judged, state.latencies, state.jitters, state.extents, state.counts):
            counters[...] = 0
        self.rows[:, [LEAST, JITTER_LEAST]] = _FAR

    @property
    def rows(self) -> Words:
        """The words of each stream, shape (streams, JUDGED_WORDS)."""
        return self.state.judged.reshape(-1, JUDGED_WORDS)

    @property
    def arrived(self) -> Words:
        """How many packets of each stream have arrived, copies too, shape (streams,)."""
        rows = self.rows
        return rows[:, NEXT] - rows[:, MISSING] + rows[:, DUPLICATED] + rows[:, TOO_LATE]

    def questions(self) -> list[bytes]:
        """The first bytes of packets that may ask for an address (ARP, ICMPv6), which have come since the last call."""
        counts = self.state.counts
        found = [row.tobytes() for row in self.state.questions[: counts[ASKED]]]
        counts[ASKED] = 0
        return found

    @property
    def others(self) -> int:
        """How many packets have arrived that are no test packets."""
        return int(self.state.counts[OTHER])


@compiled
def judge(state: Any, count: int) -> None:
    """Judge the first `count` packets of a sender's state."""
    if count <= 0:
        return
    now = now_ns()
    for i in range(count & INDEX_MASK):
        if call_if(state.packets.nexts, judge_long, (state, i, now)) != 0:
            continue
        start = (int(state.packets.ids[i]) & ID_MASK) * STRIDE
        judge_one(state.receiver, state.bytes, start, int(state.packets.lengths[i]), now)


@outlined
def judge_long(state: Any, i: int, now: int) -> int:
    """Judge packet `i` if it lies in several buffers; its length then, else 0."""
    if state.packets.nexts[i] < 0:
        return 0
    size = gather(state.pools, state.packets, i, state.whole, 0, state.whole.size)
    judge_one(state.receiver, state.whole, 0, size, now)
    return size


@compiled
def judge_one(receiver: ReceiverState, data: NDArray[np.uint8], start: int, length: int, now: int) -> None:
    """Judge a packet that lies in `data` from `start` on, and has come `now`."""
    state, first, second = read(data, start, length, receiver.skip)
    label, sequence = stream_of(first), sequence_of(first)
    stream = label - receiver.label
    if state == FOREIGN or stream < 0 or stream >= receiver.sent.shape[0] or sequence >= receiver.sent[stream, COUNT]:
        receiver.counts[OTHER] += state == FOREIGN or not is_stale(receiver, label)
        if state == FOREIGN:
            keep_question(receiver, data, start, length)
        return
    at, words = stream * JUDGED_WORDS, receiver.judged
    words[at + CORRUPT] += state == CORRUPTED
    extent = arrive(words, at, receiver.windows, stream * WINDOW, sequence)
    if extent < 0:
        return
    if extent > 0:
        observe(receiver.extents[stream], extent)
        words[at + EXTENT] = max(words[at + EXTENT], extent)
    latency = passed(now, time_of(second))
    observe(receiver.latencies[stream], latency)
    words[at + LEAST] = min(words[at + LEAST], latency)
    words[at + MOST] = max(words[at + MOST], latency)
    words[at + TOTAL] += latency
    if words[at + NEXT] - words[at + MISSING] > 1:  # it is not the first
        jitter = abs(latency - words[at + LAST])
        observe(receiver.jitters[stream], jitter)
        words[at + JITTER_LEAST] = min(words[at + JITTER_LEAST], jitter)
        words[at + JITTER_MOST] = max(words[at + JITTER_MOST], jitter)
        words[at + JITTER_TOTAL] += jitter
    words[at + LAST] = latency


@outlined
def keep_question(receiver: ReceiverState, data: NDArray[np.uint8], start: int, length: int) -> None:
    """Keep a packet that may ask for an address, if there is room."""
    number, at = receiver.counts[ASKED], start + 12
    if number >= receiver.questions.shape[0] or length < _LEAST_BYTES:
        return
    at += 4 if ethertype(data, at) == _VLAN else 0
    kind = ethertype(data, at)
    if kind == _ARP or (kind == _IPV6 and data[at + 8] == _ICMPV6):
        for i in range(min(length, receiver.questions.shape[1])):
            receiver.questions[number, i] = data[start + i]
        for i in range(length, receiver.questions.shape[1]):
            receiver.questions[number, i] = 0
        receiver.counts[ASKED] = number + 1


@compiled
def ethertype(data: NDArray[np.uint8], at: int) -> int:
    return int(np.int64(data[at]) << 8 | np.int64(data[at + 1]))


@compiled
def is_stale(receiver: ReceiverState, label: int) -> bool:
    """Whether a stream is one of an earlier trial's."""
    stream = (label & _SAME) - (receiver.label & _SAME)
    return label >> STREAM_BITS != receiver.label >> STREAM_BITS and 0 <= stream < receiver.sent.shape[0]
