"""`ixy capture`: what devices receive goes into a capture file, or a row of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.report import Report
from ixy.apps.session import chosen_by, open_devices, patiently, repeat
from ixy.apps.settings import MAX_SNAPLEN
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.clock import is_virtual, run_polls
from ixy.drivers.rings import ENTERED, enter, exit_from, in_use
from ixy.formats.behind import Behind, File
from ixy.formats.files import check_place
from ixy.formats.rotation import ONE_FILE, RotatingWriter, Rotation
from ixy.formats.writing import Format, Interface, append, record_bytes
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, STRIDE
from ixy.packets.packets import NO_NEXT, Packets, new_packets
from ixy.packets.parts import gather, total_length
from ixy.packets.pool import Pools, give, pools, serve, wanted
from ixy.unsafe import call_if, date_ns, peek
from ixy.unsafe.filters import accepts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.settings import Settings
    from ixy.device import Device, RxQueue
    from ixy.filters import Filter

log = logging.getLogger("ixy.apps")

_PART = 2 << 20  # bytes of records that are gathered before they are written
_SLOW = 0.1  # seconds that a file may be waited for without a word
_TURN = 8  # polls of a queue before it is the next one's turn: no ring may fill meanwhile
USED, END, RECEIVED, MATCHED, COUNTS = 0, 1, 2, 3, 8  # words of a capture's `counts`


class CaptureState(NamedTuple):
    """A capture from one queue, as its kernel sees it.

    Attributes:
        rx: state of the receive ring.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        packets: room for one batch.
        whole: room for one packet that lies in several buffers, of the longest that there may be.
        longest: bytes of a packet.
        filter: the address of a filter's machine code, 0 for none.
        form: of the records.
        records: shape (size,), uint8, of all queues; filled up to `counts[USED]`, and to be up to `counts[END]`.
        limit: packets to capture in all.
        counts: shape (COUNTS,), int64; of all queues.
    """

    rx: Any
    pools: Pools
    bytes: NDArray[np.uint8]
    packets: Packets
    whole: NDArray[np.uint8]
    longest: int
    filter: int
    form: Format
    records: NDArray[np.uint8]
    limit: int
    counts: NDArray[np.int64]


class Recorder:
    """Packets from receive queues into a file, in the order of time: each has the time at which it was taken.

    Args:
        queues: from which packets are taken.
        file: has an interface for each queue, by its format.
        batch: the most packets taken at a time.
        count: how many packets to capture, None for no limit.
        only: which packets are captured, None for all.

    Attributes:
        kernels, states: of each queue, what polls it, and what that works on.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of a ring.
    """

    def __init__(
        self, queues: Sequence[RxQueue], file: File, batch: int, count: int | None, only: Filter | None = None
    ) -> None:
        batch = min(integer("batch", batch, 1, queue.ring.size) for queue in queues)
        self._queues, self._file = queues, file
        self._counts = np.zeros(COUNTS, np.int64)
        self._written = 0
        longest = BUFFER_SIZE * max(queue.ring.parts for queue in queues)
        self._part = max(_PART, 2 * batch * record_bytes(longest))
        self._records = np.zeros(file.parts * self._part, np.uint8)
        self._go_on(0)
        self.kernels = [_capture_kernel(queue.ring.kernel) for queue in queues]
        self.states = [
            CaptureState(
                rx=queue.ring.state,
                pools=pools(),
                bytes=pools().bytes.reshape(-1),
                packets=new_packets(batch, queue.ring.metadata),
                whole=np.zeros(longest, np.uint8),
                longest=longest,
                filter=only.address if only else 0,
                form=form,
                records=self._records,
                limit=sys.maxsize if count is None else count,
                counts=self._counts,
            )
            for queue, form in zip(queues, file.formats, strict=True)
        ]

    def run(self, polls: int) -> int:
        """Poll the queues up to `polls` times, and write what was there to the file; how many packets were.

        A call with 0 compiles it all.

        Raises:
            CaptureError: the disk is full, the pipe closed, or the like.
            OwnershipError: another thread uses a queue.
        """
        return run_polls(self._poll, polls, ended=self.done)

    def _poll(self, polls: int) -> int:
        before = self.received
        turn = polls if len(self._queues) == 1 else min(polls, _TURN)
        for _ in range(polls // turn if polls else 1):
            for queue, kernel, state in zip(self._queues, self.kernels, self.states, strict=True):
                if not kernel(state, turn):
                    raise in_use(queue)
                if self._counts[END] - self._counts[USED] < self._part // 2:
                    self.flush()
        self.flush()
        return self.received - before

    def flush(self) -> None:
        """Write what the kernels have gathered, and go on in the next part of their memory."""
        used = int(self._counts[USED])
        packets, self._written = self.matched - self._written, self.matched
        self._file.flush(self._records[self._first :], used - self._first, packets)
        if used > self._first:
            self._go_on((self._first + self._part) % self._records.size)

    def _go_on(self, first: int) -> None:
        self._first = first
        self._counts[USED], self._counts[END] = first, first + self._part

    @property
    def received(self) -> int:
        """Packets that were taken from the queues."""
        return int(self._counts[RECEIVED])

    @property
    def matched(self) -> int:
        """Those of them that are to be captured."""
        return int(self._counts[MATCHED])

    def done(self) -> bool:
        """Whether the limit is reached."""
        return self.matched >= self.states[0].limit


def capture(
    addresses: Sequence[str],
    path: str,
    settings: Settings,
    *,
    snaplen: int,
    wait: bool = False,
    queues: int = 1,
    expression: str = "",
    rotation: Rotation = ONE_FILE,
) -> int:
    """Write what devices receive to a capture file until the limit or a signal; the exit code.

    Args:
        path: of the file, whose name says the format; "-" is standard output, and then the report goes to standard
            error.
        snaplen: bytes of a packet that are kept, 1 to 262144; 0 for all.
        wait: sleep while no packets come.
        queues: of each device.
        expression: a filter in tcpdump's language, for the packets to capture; all match the empty one.
        rotation: when the next file begins.

    Raises:
        CaptureError: a file cannot be opened or written. What was written stays readable.
        ConfigurationError: `snaplen` is out of bounds.
        FilterError: the filter is malformed, or libpcap not installed.
        Error: as `ixy.open`.
    """
    snaplen = integer("snaplen", snaplen, 0, MAX_SNAPLEN)
    only = chosen_by(expression)
    check_place(path)
    with stop_on_signals() as stop, open_devices(addresses, settings, queues=queues, writes=[path]) as devices:
        interfaces = [_interface(device, number) for device in devices for number in range(queues)]
        file = RotatingWriter(path, snaplen, rotation, interfaces)
        with file if is_virtual() else Behind(file) as taker:
            rx = [queue for device in devices for queue in device.rx]
            recorder = Recorder(rx, taker, settings.batch, settings.count, only)
            work = patiently(recorder.run, rx) if wait else recorder.run
            with Report(devices, addresses, as_json=settings.as_json, file=path) as report:
                report.progress = lambda: _counted(recorder, file, taker, devices)
                try:
                    repeat(work, lambda: recorder.done() or file.ended, settings, stop, report, rotation.folders(path))
                    with stop.looked_at():
                        _finish(path, taker)
                finally:
                    report.results = report.progress()
                    if rotation != ONE_FILE:
                        report.results["files"] = file.files
    return 0 if file.ended else stop.exit_code(settings)


def _finish(path: str, taker: File) -> None:
    """Wait until all is written; and say if the file was too slow, for then the card has had to wait, or to drop."""
    if isinstance(taker, Behind):
        taker.finish()
        if taker.waited > _SLOW:
            log.warning("%s: it took less than came, and had to be waited for: for %.1f s", path, taker.waited)


def _counted(recorder: Recorder, file: RotatingWriter, taker: File, devices: Sequence[Device]) -> dict[str, int]:
    """What was captured, and what was lost: because the card had no room for it, and because the file had none."""
    pending = taker.pending if isinstance(taker, Behind) else 0
    return {
        "received": recorder.received,
        "matched": file.packets if file.ended else recorder.matched,
        "captured": file.packets,
        "lost_by_card": sum(device.stats().rx_dropped for device in devices),
        "lost_by_file": 0 if file.ended else max(recorder.matched - file.packets - pending, 0),
    }


def _interface(device: Device, queue: int) -> Interface:
    """A queue of a device, as a pcapng file tells of it. What the device has counted stands with the first."""
    several = len(device.rx) > 1

    def counts() -> dict[str, int]:
        stats = device.stats()
        return {"received": stats.rx_packets + stats.rx_dropped, "dropped": stats.rx_dropped}

    name = f"{device.address} queue {queue}" if several else device.address
    return Interface(name, counts if queue == 0 else None)


@outlined
def append_parts(state: CaptureState, i: int, used: int, now: int) -> int:
    """Put the record of a packet that lies in several buffers behind the others; where it ends."""
    length = gather(state.pools, state.packets, i, state.whole, 0, state.whole.size)
    return append(state.records, used, state.form, now, state.whole, 0, length)


@cache
def _capture_kernel(rx_batch: Callable[..., int]) -> Any:
    """The kernel that turns packets into records."""

    @compiled
    def capture_some(state: CaptureState, polls: int) -> bool:
        """Take packets until the limit is reached, or there might be no room for the records of a batch.

        False if the queue is not to be had.
        """
        counts, packets, form = state.counts, state.packets, state.form
        if enter(state.rx, state.pools) != ENTERED:
            return False
        batch = packets.ids.size
        room = counts[END] - batch * record_bytes(state.longest)
        used = counts[USED]
        for _ in range(polls):
            if used > room:
                break
            if wanted(state.pools, state.rx.pool):
                serve(state.pools, state.rx.pool)
            limit = min(batch, state.limit - counts[MATCHED])
            received = rx_batch(state.rx, state.pools, packets, limit)
            if received == 0:
                continue
            now = date_ns()
            matched = 0
            for i in range(received):
                start, length = int(packets.ids[i]) * STRIDE, int(packets.lengths[i])
                if not accepts(state.filter, state.bytes, start, length, total_length(state.pools, packets, i)):
                    continue
                if peek(packets.nexts, i, NO_NEXT) < 0:
                    used = append(state.records, used, form, now, state.bytes, start, length)
                else:
                    used = call_if(packets.nexts, append_parts, (state, i, used, now))
                matched += 1
            give(state.pools, packets, 0, received)
            counts[RECEIVED] += received
            counts[MATCHED] += matched
        counts[USED] = used
        exit_from(state.rx, state.pools)
        return True

    return capture_some
