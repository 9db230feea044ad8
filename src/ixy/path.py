"""Paths: packets from a receive queue, through a user's function, to a transmit queue, all in compiled code.

The function is marked `@ixy.kernel`. It is given one packet at a time, and says what becomes of it; Numba
compiles it into the loop, so it runs at the data path's speed and without the GIL.

    @ixy.kernel
    def raise_byte(packet):
        packet[48] += 1
        return ixy.FORWARD

    path = ixy.Path(a.rx[0], b.tx[0], raise_byte)
    while True:
        path.run()
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np

from ixy import clock
from ixy.arguments import integer, number
from ixy.asking import BatchFunction, PacketFunction, PathState
from ixy.counts import (
    COUNTS,
    CULPRIT_BYTES,
    DROPPED,
    FORWARDED,
    IDLE,
    LOST,
    POLLED,
    QUEUE,
    RANDOM,
    RECEIVED,
    ROOM,
    STOP,
)
from ixy.device import RxQueue, TxQueue
from ixy.drivers.rings import ENTERED, POOL_BUSY, RING_BUSY, RUNNER, enter, exit_from, in_use, leave, seize
from ixy.errors import ConfigurationError, Error
from ixy.jit import Direct, checked, compiled
from ixy.kernels.bytecode import mentions
from ixy.kernels.check import check, is_at_once, mark_at_once
from ixy.outputs import SPARE, grouped, new_outputs
from ixy.outputs import poll_kernels as several_outputs
from ixy.packets import checking
from ixy.packets.batch import no_copies
from ixy.packets.mempool import Mempool
from ixy.packets.packets import new_packets
from ixy.packets.pool import pools
from ixy.packets.views import argument_types
from ixy.polls import poll_kernels
from ixy.record import Record
from ixy.ring import MIN_SIZE, Ring
from ixy.trouble import told
from ixy.unsafe import load_acquire, nap, own_lines, pause, this_thread
from ixy.verdicts import FORWARD, MAX_OUTPUTS, UP, copy_to
from ixy.waiting import MAX_TIMEOUT, PollOrWait

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.device import Port
    from ixy.packets.batch import Packet

F = TypeVar("F", bound=PacketFunction)
B = TypeVar("B", bound=BatchFunction)


def kernel(function: F) -> F:
    """Mark a function of a packet, to be compiled into a data path.

    It takes a `Packet`, and if it is to keep something, a `Record`; it returns `DROP`, which is 0, or `FORWARD`, or
    anything else, which forwards. The packet is indexed by byte and by slice, and has

    - a `length` that can be assigned, `insert(at, count)` and `remove(at, count)`;
    - headers by name, such as `packet.ipv4.ttl`, see `ixy.headers`;
    - what its device was opened for as metadata, the number of its receive `queue`, and its own `number`, counted from
      0 through the path.

    `ixy.now` tells the time, and `ixy.random` draws. An index outside the packet raises `IndexError`, which ends
    `Path.run` and loses no buffer. The function may use what Numba compiles and allocate nothing.
    """
    return checked(function)


def batch_kernel(function: B) -> B:
    """Mark a function of all packets of a batch, to be compiled into a data path.

    It takes the batch, and if it is to keep something, a `Record`, and returns nothing. `len(packets)` is how many
    there are, `packets[i]` is one of them, as a `kernel` sees it, and `packets.verdicts[i]` is what becomes of it:
    FORWARD unless it is assigned. It is for tables that are larger than the cache: places are found first, then used.

        @ixy.batch_kernel
        def count(packets: ixy.Batch, state: Flows) -> None:
            for i in range(len(packets)):
                state.places[i] = place_of(packets[i])
                ixy.prefetch(state.flows, state.places[i])
            for i in range(len(packets)):
                state.flows[state.places[i]].packets += 1
    """
    mark_at_once(function)
    return checked(function)


# A path and its queues look at each other's insides.
# pyright: reportPrivateUsage=false

_RX_BUSY, _POOL_BUSY, _TX_BUSY, _CLOSING = RING_BUSY, POOL_BUSY, 3, 4  # why a path cannot be run
_SECOND = 8  # is added to that if it is the second of two paths
_IDLE_POLLS = 0xFF  # a mask: after so many polls in vain, yield
_UP_SIZE = 1024  # packets that wait for Python
_PAUSES = 16  # after a poll in vain, some 0.3 µs
_WORD = (1 << 64) - 1
POLLS = 1 << 14  # how often a run polls each path, unless it is told


@kernel
def unchanged(_packet: Packet) -> int:
    """Forward the packet as it is."""
    return FORWARD


@kernel
def touch(packet: Packet) -> int:
    """Raise byte 48 by one, a realistic workload: the packet's first cache line is read and written."""
    packet[48] += 1
    return FORWARD


class PathCounts(NamedTuple):
    """What a path has done with packets. A path loses none: what finds no room in the transmit ring is not received.

    Attributes:
        received: taken from the receive queue.
        forwarded: handed to a transmit queue, or to Python.
        dropped: by the function's verdict.
    """

    received: int
    forwarded: int
    dropped: int

    @classmethod
    def sum(cls, paths: Iterable[Path]) -> PathCounts:
        """What all of some paths have done, one at least."""
        return cls(*map(sum, zip(*(path.counts for path in paths), strict=True)))


@no_copies
class Path:
    """Packets from one receive queue to one transmit queue, or to several.

    While a path runs, both queues are its own. Other threads may use its pool meanwhile: they get it between two polls.

    Args:
        rx, tx: the queues; of two devices or of one. With a list of transmit queues, of any devices, the function's
            verdict is the number of an output, from 1 on, 0 to drop the packet, `copy_to` for several, or UP for
            Python; an output without room holds all back.
        function: what to do with each packet, see `kernel`, or with each batch, see `batch_kernel`. It is compiled
            along with the functions that it calls.
        record: what the function is given besides the packet, for as long as this path lives.
        batch: the most packets taken at a time.
        seed: of what `ixy.random` draws, 0 to 2**63 - 1; without one, it draws differently each time.

    Raises:
        ConfigurationError: `batch` is below 1 or above the size of a ring, or another path has the record.
        Error: a device is closed.
        KernelError: the function cannot be compiled, or has a way out without a verdict.
        TypeError: no queues, no function, or no record.
    """

    def __init__(
        self,
        rx: RxQueue,
        tx: TxQueue | Sequence[TxQueue],
        function: PacketFunction | BatchFunction = unchanged,
        record: Record | None = None,
        *,
        batch: int = 32,
        seed: int | None = None,
    ) -> None:
        _check_queue("rx", rx, RxQueue)
        outputs = [tx] if isinstance(tx, TxQueue) else list(_check_outputs(tx))
        _check_parts(rx, outputs)
        _check_spare(rx, len(outputs))
        batch = integer("batch", batch, 1, min(queue.ring.size for queue in (rx, *outputs)))
        self._rx, self._outputs = rx, outputs
        self._ports: list[Port] = list(dict.fromkeys(queue.device for queue in (rx, *outputs)))
        self._check()
        if not isinstance(cast(object, record), Record | None):
            raise TypeError(f"record must be an ixy.Record, such as Counters(), not {record!r}; batch=… goes by name")
        dtype = record.dtype if record is not None else None
        packets = new_packets(batch, rx.ring.metadata, new=own_lines)
        at_once = is_at_once(function)
        checked_function = check(function, argument_types(packets, dtype, at_once))
        for queue in outputs:
            rx.ring.pool.supply(queue.device)
        self._up = _ring_to_python(rx, len(outputs)) if mentions(function, UP) else None
        up = self._up.tx if self._up is not None else None
        simple = isinstance(tx, TxQueue) and not (at_once or up or mentions(function, copy_to))
        if simple:
            to = outputs[0].ring.state
            self.kernels = poll_kernels(rx.ring, outputs[0].ring, checked_function, dtype, batch)
        else:
            rings = grouped([queue.ring for queue in outputs], rx.ring.parts)
            ring = up.ring if up else None
            to = new_outputs(rings, ring, packets)
            self.kernels = several_outputs(rx.ring, rings, ring, checked_function, dtype, at_once=at_once)
        checking.name(packets, f"a path from {rx} to {' and '.join(map(str, outputs))}")
        self.state = PathState(
            rx=rx.ring.state,
            tx=to,
            words=tuple(queue.ring.state.state for queue in (*outputs, *([up] if up else ()))),
            pools=pools(),
            packets=packets,
            counts=_new_counts(rx, 0 if simple else len(outputs), seed),
            limit=batch,
            record=record.claim(self) if record is not None else None,
            culprit=np.zeros(CULPRIT_BYTES, np.uint8),
        )
        self._poll_or_wait: PollOrWait | None = None
        self._loops: WeakKeyDictionary[Path, tuple[Direct, Direct]] = WeakKeyDictionary()
        for port in self._ports:
            port._paths.add(self)
            port._rung_by(self.state.counts)

    def run(self, polls: int = POLLS, wait: float | None = None) -> int:
        """Poll the receive queue `polls` times and forward what is there; how many packets were received.

        Args:
            wait: seconds to sleep, once nothing comes, until something does; None to poll on. Call it again and again:
                from load to load it polls as without, and each wait ends in time for whatever else there is to do.

        Raises:
            ConfigurationError: `polls` or `wait` is below 0.
            Error: a device is closed. Closing one ends a run in another thread.
            IndexError: the function went outside a packet, or there is no such output. The packets at hand were
                dropped, and counted so.
            OwnershipError: another thread uses one of the queues.
            UnsupportedDevice: there is a `wait`, and the bus delivers no interrupts.
        """
        return run([self], polls, wait)

    @property
    def closed(self) -> bool:
        """Whether it can run no more, as one of its devices is closed."""
        return any(port.closed for port in self._ports)

    @property
    def counts(self) -> PathCounts:
        """What the path has done so far."""
        counts = self.state.counts
        return PathCounts(*(int(counts[column]) for column in (RECEIVED, FORWARDED, DROPPED)))

    @property
    def up(self) -> RxQueue:
        """Where Python receives what the function said `ixy.UP` of, in any thread: `path.up.receive()`. Up to 1024
        packets wait there, in a small pool fewer; what finds no room is `lost`.

        Raises:
            ConfigurationError: the function does not name `ixy.UP`.
        """
        if self._up is None:
            raise ConfigurationError("the path's function does not name ixy.UP: no packet comes to Python")
        return self._up.rx

    @property
    def lost(self) -> int:
        """Packets for Python for which there was no room, and copies for which there was no buffer (`copy_to`)."""
        return int(self.state.counts[LOST])

    @property
    def sent(self) -> list[int]:
        """How many packets went to each output."""
        several: list[int] = self.state.counts[COUNTS:].tolist()
        return several if len(several) == len(self._outputs) else [self.counts.forwarded]

    def _check(self) -> None:
        for port in self._ports:
            port._check()

    def _rouse(self) -> None:
        """A run is over in which doorbells were rung: what sleeps is to look."""
        for port in self._ports:
            port._rouse()

    def _loop_with(self, other: Path) -> tuple[Direct, Direct]:
        """The loop over this path and another one, or itself alone, and what recovers them."""
        if other not in self._loops:
            loop = _loop_kernel(*(path.kernels.poll for path in dict.fromkeys((self, other))))
            self._loops[other] = Direct(loop), Direct(_recover_kernel(self.kernels.recover, other.kernels.recover))
        return self._loops[other]

    def _alternation(self, paths: Sequence[Path]) -> PollOrWait:
        """What decides when to poll these paths, of which this is the first, and when to wait."""
        queues = [path._rx for path in paths]
        if self._poll_or_wait is None or self._poll_or_wait.queues != queues:
            self._poll_or_wait = PollOrWait(queues)
        return self._poll_or_wait

    def _stop(self) -> None:
        """End a run of the path after its next poll, in whichever thread it is."""
        self.state.counts[STOP] = 1

    def _end(self) -> None:
        if self._up is not None:
            self._up.close()

    def _refusal(self, reason: int) -> Error:
        """Why a run could not begin, in words."""
        if reason == _CLOSING:
            names = dict.fromkeys(queue.device.address for queue in (self._rx, *self._outputs))
            return Error(f"{' or '.join(names)} is being closed: open it again")
        outputs = " or ".join(map(str, self._outputs))
        what = {_RX_BUSY: self._rx, _POOL_BUSY: f"the pool of {self._rx}", _TX_BUSY: outputs}[reason]
        return in_use(what)


def _ring_to_python(rx: RxQueue, outputs: int) -> Ring:
    """A ring for packets of a queue's pool, which does not take all buffers that the path has."""
    pool, size = rx.ring.pool, _UP_SIZE
    if isinstance(pool, Mempool):
        spare = max(pool.capacity - rx.ring.size - SPARE * outputs, 0)
        size = min(size, max(1 << (spare // 2).bit_length() - 1 if spare > 1 else 0, MIN_SIZE))
    ring = Ring(size, metadata=rx.ring.metadata)
    pool.supply(ring)
    return ring


def _new_counts(rx: RxQueue, outputs: int, seed: int | None) -> NDArray[np.int64]:
    """The words of a path from a queue, with room for the counts of so many outputs."""
    if seed is None:
        seed = int.from_bytes(os.urandom(7))
    counts = own_lines(COUNTS + outputs)
    counts[QUEUE] = rx.number
    # SplitMix64 spreads small seeds, and xorshift needs one that is not 0.
    counts[RANDOM] = _spread(integer("seed", seed, 0, sys.maxsize)) or 1
    return counts


def _spread(seed: int) -> int:
    """A number of 64 bits with a sign, in which all bits depend on those of the seed (Steele and others, 2014)."""
    word = (seed + 0x9E37_79B9_7F4A_7C15) & _WORD
    word = (word ^ word >> 30) * 0xBF58_476D_1CE4_E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D0_49BB_1331_11EB & _WORD
    word ^= word >> 31
    return (word ^ 1 << 63) - (1 << 63)


def _check_queue(name: str, queue: object, kind: type) -> None:
    if not isinstance(queue, kind):
        raise TypeError(f"{name} must be a queue of a device, such as device.{name}[0], not {queue!r}")


def _check_outputs(queues: object) -> Sequence[TxQueue]:
    """The transmit queues of a list, each once."""
    if not isinstance(queues, Sequence):
        raise TypeError(f"tx must be a queue of a device, such as device.tx[0], or a list of them, not {queues!r}")
    found = cast("Sequence[TxQueue]", queues)
    integer("number of outputs", len(found), 1, MAX_OUTPUTS)
    for queue in found:
        _check_queue("tx", queue, TxQueue)
    if len(set(map(id, found))) < len(found):
        raise ConfigurationError("an output is named twice: each transmit queue is one")
    return found


def _check_parts(rx: RxQueue, outputs: Sequence[TxQueue]) -> None:
    """Whether packets that lie in several buffers can go on."""
    for queue in outputs:
        if rx.ring.parts > 1:
            queue._check_parts()


def _check_spare(rx: RxQueue, outputs: int) -> None:
    """Whether packets would go on, with so many buffers as transmit rings may keep."""
    pool, needed = rx.ring.pool, rx.ring.size + SPARE * outputs + rx.ring.parts - 1
    if outputs > 1 and isinstance(pool, Mempool) and pool.capacity < needed:
        raise ConfigurationError(f"{rx}: {outputs} outputs need a pool of {needed} packet buffers")


def run(paths: Sequence[Path], polls: int = POLLS, wait: float | None = None) -> int:
    """Run one or two paths in turn, as a forwarder between two devices does; how many packets were received.

    With `wait`, see `Path.run`, for a packet on any of them.

    Raises:
        ConfigurationError: no path, or more than two.
        …: see `Path.run`.
    """
    integer("number of paths", len(paths), 1, 2)
    polls = integer("polls", polls, 0, sys.maxsize)
    for path in paths:
        if not isinstance(cast(object, path), Path):
            raise TypeError(f"paths are run, not {type(path).__name__}")
        path._check()
    if wait is None:
        received = _run(paths, polls)
    else:
        wait = number("wait", wait, 0, MAX_TIMEOUT)
        received = paths[0]._alternation(paths).run(lambda part: _run(paths, part), polls, wait)
        if not received and polls:  # what had to wait in a transmit ring, for room at the other end, can go now
            received = _run(paths, 1)
    if received:
        for path in paths:
            path._rouse()
    return received


def _run(paths: Sequence[Path], polls: int) -> int:
    loop, recover = paths[0]._loop_with(paths[-1])
    states = [path.state for path in paths]

    def poll(polls: int) -> int:
        received: int = loop((), *states, polls)
        if received < 0:
            for path in paths:
                path._check()
            second, reason = divmod(-received, _SECOND)
            raise paths[second]._refusal(reason)
        return received

    _recover(states, recover)  # another exception may have come in between, last time
    try:
        received = clock.run_polls(poll, polls)
    except BaseException as error:
        _recover(states, recover)
        if isinstance(error, IndexError):
            any(told(error, state.counts) for state in states)
        raise
    checking.report(pools())
    return int(received)  # interpreted, perhaps NumPy's


def _recover(states: Sequence[PathState], recover: Direct) -> None:
    """Let the kernel `recover` do its work if an exception has ended the loop: it is compiled when there is one."""
    if any(state.rx.state[RUNNER] > 0 for state in states):  # maybe it is another thread: the kernel knows
        recover((), states[0], states[-1])


@contextmanager
def entered(path: Path) -> Generator[None]:
    """Within the block this thread runs the path's queues, and may call `path.poll(path.state)` by itself.

    Raises:
        OwnershipError: another thread uses one of the queues.
    """
    reason = _enter(path.state)
    if reason != ENTERED:
        raise path._refusal(reason)
    try:
        yield
    finally:
        _exit(path.state)


@compiled
def _enter(path: PathState) -> int:
    """Become the runner of the path's queues and the owner of its pool; else say why not, and be neither."""
    reason = enter(path.rx, path.pools)
    if reason != ENTERED:
        return reason
    for k in range(len(path.words)):
        if not seize(path.words[k]):
            for taken in range(k):
                leave(path.words[taken])
            exit_from(path.rx, path.pools)
            return _TX_BUSY
    if load_acquire(path.counts, STOP) != 0:
        _exit(path)
        return _CLOSING
    path.counts[ROOM] = 0  # others may have sent meanwhile
    return ENTERED


@compiled
def _exit(path: PathState) -> None:
    """Undo `_enter`."""
    for k in range(len(path.words)):
        leave(path.words[k])
    exit_from(path.rx, path.pools)


@cache
def _recover_kernel(first: Any, second: Any) -> Any:
    """The kernel that, where an exception ended the loop, gives back the packets at hand, and leaves queues and pools:
    of two paths, or twice the same."""

    @compiled
    def recover(one: PathState, two: PathState) -> None:
        # Those that were not begun, or that another thread runs, are none of this thread's business.
        if load_acquire(one.rx.state, RUNNER) == this_thread():
            first(one)
        if load_acquire(two.rx.state, RUNNER) == this_thread():
            second(two)

    return recover


@cache
def _loop_kernel(first: Any, second: Any = None) -> Any:
    """The loop over one path, or over two in turn; less than 0 if it could not begin, see `run`."""
    if second is None:

        @compiled
        def loop_one(path: PathState, polls: int) -> int:
            reason = _enter(path)
            if reason != ENTERED:
                return -reason
            received = idle = 0
            for _ in range(polls):
                count = first(path)
                if count < 0:
                    break
                received += count
                note_poll(path, count)
                idle = yield_when_idle(count, idle)
            _exit(path)
            return received

        return loop_one

    @compiled
    def loop_two(one: PathState, two: PathState, polls: int) -> int:
        reason = _enter(one)
        if reason != ENTERED:
            return -reason
        reason = _enter(two)
        if reason != ENTERED:
            _exit(one)
            return -(_SECOND + reason)
        received = idle = 0
        for _ in range(polls):
            count, other = first(one), second(two)
            one.counts[ROOM] = two.counts[ROOM] = 0  # they may send through the same queues
            if count < 0 or other < 0:
                received += max(count, 0) + max(other, 0)
                break
            received += count + other
            note_poll(one, count + other)
            idle = yield_when_idle(count + other, idle)
        _exit(two)
        _exit(one)
        return received

    return loop_two


@compiled
def note_poll(path: PathState, count: int) -> None:
    """Count a poll, which may have been in vain."""
    path.counts[POLLED] += 1
    if count == 0:
        path.counts[IDLE] += 1


@compiled
def yield_when_idle(count: int, idle: int) -> int:
    """How long nothing has come, in polls; now and then another thread may have the processor meanwhile.

    After a poll in vain the device is left alone for a moment: each look takes the cache line that it writes next away
    from it, and a peer on another core then forwards a quarter less.
    """
    if count > 0:
        return 0
    for _ in range(_PAUSES):
        pause()
    if idle & _IDLE_POLLS == _IDLE_POLLS:
        nap(0)
    return idle + 1
