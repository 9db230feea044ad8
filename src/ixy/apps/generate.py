"""`ixy generate`: a packet generator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.report import Report
from ixy.apps.session import drain, open_devices, repeat
from ixy.apps.settings import MAX_RATE
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.device import check_batch
from ixy.jit import compiled
from ixy.packets.buffers import POOL_BUFFERS, STRIDE, Buffers, buffers, give, take
from ixy.packets.mempool import Mempool
from ixy.unsafe import copy, monotonic_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.apps.settings import Settings
    from ixy.apps.templates import Templates
    from ixy.device import Device

log = logging.getLogger("ixy.apps")

SENT, STARTED, COUNTS = 0, 1, 8  # words of a generator's `counts`
SEQUENCE_BYTES = 4  # a packet's number, in its last bytes, big-endian
_NOTHING = -1
_NEARLY = 0.99  # of a rate, is the rate
_SECOND = 1_000_000_000  # ns


class GeneratorState(NamedTuple):
    """A generator, as its kernel sees it.

    Attributes:
        rx, tx: states of the device's rings; what arrives is thrown away.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        pool: number of the pool to send from.
        ids, lengths: room for one batch.
        held: which template each buffer of the pool holds, shape (POOL_BUFFERS,), int32.
        data, starts, sizes: the templates, see `Templates`.
        numbered: whether packets carry a sequence number.
        rate: packets per second, 0 for as many as the device takes.
        limit: packets to send in all, 0 for no limit.
        counts: shape (COUNTS,), int64.
    """

    rx: Any
    tx: Any
    buffers: Buffers
    bytes: NDArray[np.uint8]
    pool: int
    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    held: NDArray[np.int32]
    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    numbered: bool
    rate: int
    limit: int
    counts: NDArray[np.int64]


class Generator:
    """Sends packets made from templates, in turn, from the first queue of a device.

    Args:
        device: that sends.
        templates: what to send.
        batch: the most packets sent at a time.
        rate: packets per second, 0 for as many as the device takes.
        count: how many packets to send, None for no limit.
        numbered: write the packet's number, from 0, into its last 4 bytes, big-endian.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of the ring.
        MemoryUnavailable: no memory for the packets.
    """

    def __init__(
        self, device: Device, templates: Templates, batch: int, rate: int, count: int | None, numbered: bool
    ) -> None:
        rx, tx = device.rx[0].ring, device.tx[0].ring
        check_batch(batch, tx.size)
        # As many buffers as can be in flight, and a batch: fewer buffers stay in the cache better.
        pool = Mempool(tx.size + batch)
        device.attach(pool)
        pool.release()  # attaching holds it
        self._kernel = _send_kernel(rx.kernel, tx.kernel)
        self._state = GeneratorState(
            rx=rx.state,
            tx=tx.state,
            buffers=buffers(),
            bytes=buffers().bytes.reshape(-1),
            pool=pool.number,
            ids=np.zeros(batch, np.int32),
            lengths=np.zeros(batch, np.int32),
            held=np.full(POOL_BUFFERS, _NOTHING, np.int32),
            data=templates.data,
            starts=templates.starts,
            sizes=templates.lengths,
            numbered=numbered,
            rate=rate,
            limit=count or 0,
            counts=np.zeros(COUNTS, np.int64),
        )

    def run(self, polls: int) -> None:
        """Send a batch up to `polls` times, as far as packets are due and the ring takes them."""
        self._kernel(self._state, polls)

    @property
    def sent(self) -> int:
        """How many packets were handed to the device."""
        return int(self._state.counts[SENT])

    def done(self) -> bool:
        """Whether the limit is reached."""
        return 0 < self._state.limit <= self.sent


def generate(address: str, templates: Templates, settings: Settings, *, rate: int, numbered: bool) -> int:
    """Send packets from a device until the limit or a signal; the exit code.

    Args:
        rate: packets per second, 1 to 10^9, or 0 for as many as the device takes.
        numbered: see `Generator`.

    Raises:
        ConfigurationError: `rate` is out of bounds.
        Error: as `ixy.open` and `Generator`.
    """
    rate = integer("rate", rate, 0, MAX_RATE)
    with stop_on_signals() as stop, open_devices([address], settings) as (device,):
        generator = Generator(device, templates, settings.batch, rate, settings.count, numbered)
        with Report([device], [address], as_json=settings.as_json) as report:
            seconds = repeat(generator.run, generator.done, settings, stop, report)
            drain(device, generator.sent)
            report.results = {"generated": generator.sent, "left_out": templates.left_out}
            if rate:
                report.results["rate"] = _reached(device.address, rate, generator.sent, seconds)
    return stop.exit_code(settings)


def _reached(address: str, rate: int, packets: int, seconds: float) -> int:
    """Packets per second that were sent. If they are fewer than asked for, that is said."""
    reached = min(rate, round(packets / seconds)) if seconds else rate
    if reached < _NEARLY * rate:
        log.warning("%s: the rate was not reached: %d of %d packets per second", address, reached, rate)
    return reached


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@compiled
def due(state: GeneratorState) -> int:
    """How many packets should be sent now, by the clock that starts with the first call; at most a batch."""
    sent = state.counts[SENT]
    number = state.ids.size
    if state.limit > 0:
        number = min(number, state.limit - sent)
    if state.rate > 0:
        now = monotonic_ns()
        if state.counts[STARTED] == 0:
            state.counts[STARTED] = now
        elapsed = now - state.counts[STARTED]
        seconds = elapsed // _SECOND
        rest = elapsed - seconds * _SECOND
        # Packet n is due n / rate after the first.
        number = min(number, seconds * state.rate + rest * state.rate // _SECOND + 1 - sent)
    return number


@compiled
def prepare(state: GeneratorState, count: int) -> None:
    """Make the buffers `ids[:count]` the next packets. One that holds the right template still is not copied again."""
    number = state.counts[SENT]
    template = number % state.sizes.size
    for i in range(count):
        buffer = int(state.ids[i])
        slot, start, size = buffer & (POOL_BUFFERS - 1), buffer * STRIDE, state.sizes[template]
        if state.held[slot] != template:
            copy(state.bytes, start, state.data, state.starts[template], size)
            state.held[slot] = template
        if state.numbered:
            for byte in range(SEQUENCE_BYTES):
                state.bytes[start + size - 1 - byte] = ((number + i) >> 8 * byte) & 0xFF
        state.lengths[i] = size
        template = template + 1 if template + 1 < state.sizes.size else 0


@cache
def _send_kernel(rx_batch: Callable[..., int], tx_batch: Callable[..., int]) -> Any:
    """The generator's loop."""

    @compiled
    def send_some(state: GeneratorState, polls: int) -> None:
        packets, ids, lengths = state.buffers, state.ids, state.lengths
        for _ in range(polls):
            give(packets, ids, 0, rx_batch(state.rx, packets, ids, lengths, ids.size))
            count = take(packets, state.pool, ids, due(state))
            prepare(state, count)
            # Also with nothing to send: it takes back the buffers of packets that were sent.
            sent = tx_batch(state.tx, packets, ids, lengths, 0, count)
            give(packets, ids, sent, count)
            state.counts[SENT] += sent

    return send_some
