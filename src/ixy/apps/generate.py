"""`ixy generate`: a packet generator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.report import Report
from ixy.apps.sending import send_kernel
from ixy.apps.session import drain, open_devices, repeat
from ixy.apps.settings import MAX_RATE
from ixy.apps.signals import stop_on_signals
from ixy.arguments import integer
from ixy.clock import run_polls
from ixy.errors import OwnershipError
from ixy.formats.frames import MIN_FRAME
from ixy.jit import compiled
from ixy.pacing import due as due_by_rate
from ixy.pacing import due_time
from ixy.packets.buffers import POOL_BUFFERS, STRIDE
from ixy.packets.mempool import Mempool
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, pools
from ixy.unsafe import copy, now_ns

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


class GeneratorState(NamedTuple):
    """A generator, as its kernel sees it.

    Attributes:
        rx, tx: states of the device's rings; what arrives is thrown away.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        pool: number of the pool to send from.
        packets: room for one batch.
        held: which template each buffer of the pool holds, shape (POOL_BUFFERS,), int32.
        data, starts, sizes: the templates, see `Templates`.
        numbered: whether packets carry a sequence number.
        rate: packets per second, 0 for as many as the device takes.
        limit: packets to send in all, 0 for no limit.
        counts: shape (COUNTS,), int64.
    """

    rx: Any
    tx: Any
    pools: Pools
    bytes: NDArray[np.uint8]
    pool: int
    packets: Packets
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
        batch = integer("batch", batch, 1, tx.size)
        # As many buffers as can be in flight, and a batch: fewer buffers stay in the cache better.
        with Mempool(tx.size + batch) as pool:
            device.attach(pool)  # which holds it
        self._device = device
        self._kernel = send_kernel(rx.kernel, tx.kernel, due, prepare, _sent)
        self._state = GeneratorState(
            rx=rx.state,
            tx=tx.state,
            pools=pools(),
            bytes=pools().bytes.reshape(-1),
            pool=pool.number,
            packets=new_packets(batch),
            held=np.full(POOL_BUFFERS, _NOTHING, np.int32),
            data=templates.data,
            starts=templates.starts,
            sizes=templates.sizes,
            numbered=numbered,
            rate=rate,
            limit=count or 0,
            counts=np.zeros(COUNTS, np.int64),
        )

    def run(self, polls: int) -> None:
        """Send a batch up to `polls` times, as far as packets are due and the ring takes them."""
        run_polls(self._poll, polls, ended=self.done, due=self._due)

    def _poll(self, polls: int) -> int:
        """How many packets it has sent."""
        before = self.sent
        if self._kernel(self._state, polls) < 0:
            raise OwnershipError(f"{self._device.address}: a queue is in use by another thread")
        return self.sent - before

    def _due(self) -> int | None:
        """When the next packet is due, in nanoseconds."""
        rate = self._state.rate
        return int(self._state.counts[STARTED]) + due_time(self.sent, rate) if rate else None

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
    number = state.packets.ids.size
    if state.limit > 0:
        number = min(number, state.limit - sent)
    if state.rate > 0:
        number = min(number, due_by_rate(state.counts, STARTED, state.rate, sent, now_ns()))
    return number


@compiled
def prepare(state: GeneratorState, count: int) -> None:
    """Make the first `count` buffers the next packets. One that holds the right template still is not copied again."""
    number = state.counts[SENT]
    template = number % state.sizes.size
    for i in range(count):
        buffer = int(state.packets.ids[i])
        slot, start, size = buffer & (POOL_BUFFERS - 1), buffer * STRIDE, state.sizes[template]
        if state.held[slot] != template:
            copy(state.bytes, start, state.data, state.starts[template], size)
            for place in range(size, MIN_FRAME):
                state.bytes[start + place] = 0
            state.held[slot] = template
        size = max(size, MIN_FRAME)
        if state.numbered:
            for byte in range(SEQUENCE_BYTES):
                state.bytes[start + size - 1 - byte] = ((number + i) >> 8 * byte) & 0xFF
        state.packets.lengths[i] = size
        template = template + 1 if template + 1 < state.sizes.size else 0


@compiled
def _sent(state: GeneratorState, count: int) -> None:
    """Note that so many packets were sent."""
    state.counts[SENT] += count
