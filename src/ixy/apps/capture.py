"""`ixy capture`: what a device receives goes into a pcap file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.report import Report
from ixy.apps.session import open_devices, patiently, repeat
from ixy.apps.settings import MAX_SNAPLEN
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.clock import run_polls
from ixy.drivers.rings import ENTERED, enter, exit_from, in_use
from ixy.formats.files import check_place
from ixy.formats.writing import Format, Writer, append, record_bytes
from ixy.jit import compiled
from ixy.packets.buffers import BUFFER_SIZE, STRIDE
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, give, pools, serve, wanted
from ixy.unsafe import date_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.settings import Settings
    from ixy.device import RxQueue

_RECORDS_SIZE = 4 << 20  # bytes of records that are gathered before they are written
USED, CAPTURED, COUNTS = 0, 1, 8  # words of a capture's `counts`


class CaptureState(NamedTuple):
    """A capture, as its kernel sees it.

    Attributes:
        rx: state of the receive ring.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        packets: room for one batch.
        form: of the records.
        records: shape (size,), uint8, filled up to `counts[USED]`.
        limit: packets to capture in all.
        counts: shape (COUNTS,), int64.
    """

    rx: Any
    pools: Pools
    bytes: NDArray[np.uint8]
    packets: Packets
    form: Format
    records: NDArray[np.uint8]
    limit: int
    counts: NDArray[np.int64]


class Recorder:
    """Packets from a receive queue into a file.

    Args:
        rx: the queue.
        writer: the file.
        batch: the most packets taken at a time.
        count: how many packets to capture, None for no limit.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of the ring.
    """

    def __init__(self, rx: RxQueue, writer: Writer, batch: int, count: int | None) -> None:
        batch = integer("batch", batch, 1, rx.ring.size)
        self._rx = rx
        self._writer = writer
        self._kernel = _capture_kernel(rx.ring.kernel)
        size = max(_RECORDS_SIZE, batch * record_bytes(BUFFER_SIZE))
        self._state = CaptureState(
            rx=rx.ring.state,
            pools=pools(),
            bytes=pools().bytes.reshape(-1),
            packets=new_packets(batch),
            form=writer.format,
            records=np.zeros(size, np.uint8),
            limit=sys.maxsize if count is None else count,
            counts=np.zeros(COUNTS, np.int64),
        )

    def run(self, polls: int) -> int:
        """Poll the queue up to `polls` times, and write what was there to the file; how many packets were.

        A call with 0 compiles it all.

        Raises:
            CaptureError: the disk is full, the pipe closed, or the like.
            OwnershipError: another thread uses the queue.
        """
        return run_polls(self._poll, polls, ended=self.done)

    def _poll(self, polls: int) -> int:
        before = int(self._state.counts[CAPTURED])
        if not self._kernel(self._state, polls):
            raise in_use(self._rx)
        used = int(self._state.counts[USED])
        if used or polls == 0:  # of none, so that all that writes is compiled, too
            self._state.counts[USED] = 0
            self._writer.flush(self._state.records, used)
        return int(self._state.counts[CAPTURED]) - before

    def done(self) -> bool:
        """Whether the limit is reached."""
        return bool(self._state.counts[CAPTURED] >= self._state.limit)


def capture(address: str, path: str, settings: Settings, *, snaplen: int, wait: bool = False) -> int:
    """Write what a device receives to a pcap file until the limit or a signal; the exit code.

    Args:
        path: of the file; "-" is standard output, and then the report goes to standard error.
        snaplen: bytes of a packet that are kept, 1 to 262144.
        wait: sleep while no packets come.

    Raises:
        CaptureError: the file cannot be opened or written. What was written stays readable.
        ConfigurationError: `snaplen` is out of bounds.
        Error: as `ixy.open`.
    """
    snaplen = integer("snaplen", snaplen, 1, MAX_SNAPLEN)
    check_place(path)
    with stop_on_signals() as stop, open_devices([address], settings) as (device,), Writer(path, snaplen) as file:
        recorder = Recorder(device.rx[0], file, settings.batch, settings.count)
        work = patiently(recorder.run, device.rx) if wait else recorder.run
        with Report([device], [address], as_json=settings.as_json, file=path) as report:
            try:
                repeat(work, recorder.done, settings, stop, report)
            finally:
                report.results = {"captured": file.packets}
    return stop.exit_code(settings)


@cache
def _capture_kernel(rx_batch: Callable[..., int]) -> Any:
    """The kernel that turns packets into records."""

    @compiled
    def capture_some(state: CaptureState, polls: int) -> bool:
        """Take packets until the limit is reached, or there might be no room for the records of a batch.

        False if the queue is not to be had.
        """
        counts, packets = state.counts, state.packets
        if enter(state.rx, state.pools) != ENTERED:
            return False
        batch = packets.ids.size
        room = state.records.size - batch * record_bytes(BUFFER_SIZE)
        used = counts[USED]
        for _ in range(polls):
            if used > room:
                break
            if wanted(state.pools, state.rx.pool):
                serve(state.pools, state.rx.pool)
            limit = min(batch, state.limit - counts[CAPTURED])
            received = rx_batch(state.rx, state.pools, packets, limit)
            if received == 0:
                continue
            now = date_ns()
            for i in range(received):
                start = int(packets.ids[i]) * STRIDE
                used = append(state.records, used, state.form, now, state.bytes, start, packets.lengths[i])
            give(state.pools, packets, 0, received)
            counts[CAPTURED] += received
        counts[USED] = used
        exit_from(state.rx, state.pools)
        return True

    return capture_some
