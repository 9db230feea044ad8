"""What the rings of all drivers have in common: words of their state, who runs them, their life from filled to drained.

A ring has one runner at a time: a thread that receives or sends, for one call, or a compiled loop, from its first poll
to its last. Who it is stands in the ring's word RUNNER, which changes by an atomic exchange.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ixy.errors import OwnershipError
from ixy.jit import compiled
from ixy.packets.packets import Packets
from ixy.packets.pool import NOWHERE, Pools, give_seldom, pools, release, take_soon, wait_for
from ixy.unsafe import load_acquire, own_lines, store_release, swap_if, this_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.drivers import RxSingle, TxSingle
    from ixy.packets.mempool import Mempool

# Words of a ring's `state`; those of one driver alone come after them
NEXT = 0  # the descriptor that comes next, counted without wrapping
CLEAN = 1  # transmit: the oldest descriptor that still holds a buffer, counted likewise; receive: 0 until it is drained
DROPPED = 2  # receive: frames refused
STARVED = 3  # receive: times that the pool was empty
RUNNER = 4  # the thread that runs the ring, 0 if none does, or RETIRED
DEPTH = 5  # how often it has seized the ring
COMMON_WORDS = 6

RETIRED = -1  # the runner of a ring whose device is closed


def in_use(what: object) -> OwnershipError:
    """The error of who comes second to a queue or its pool: `what`, as the message is to begin."""
    return OwnershipError(f"{what} is in use by another thread: use one queue from one thread at a time")


def counts(rx_rings: Sequence[object], tx_rings: Sequence[object]) -> dict[str, int]:
    """What the driver counted of each queue, such as `rx_q0_packets`, as far as its rings count that."""
    return {
        f"{way}_q{number}_{name}": int(getattr(ring, attribute))
        for way, rings in (("rx", rx_rings), ("tx", tx_rings))
        for number, ring in enumerate(rings)
        for name, attribute in _COUNTED
        if hasattr(ring, attribute)
    }


# What a ring may count, by the names for it in reports and in the ring
_COUNTED = (
    ("packets", "packets"),
    ("bytes", "bytes"),
    ("refused", "dropped"),
    ("refused", "refused"),
    ("unchanged", "unchanged"),
    ("starved", "starved"),
)

# What `enter` answers
ENTERED, RING_BUSY, POOL_BUSY = 0, 1, 2


@compiled
def seize(words: NDArray[np.int64]) -> bool:
    """Become the runner of the ring with these words of state, once more if this thread is; False if another one is."""
    if load_acquire(words, RUNNER) != this_thread() and not swap_if(words, RUNNER, 0, this_thread()):
        return False
    words[DEPTH] += 1
    return True


@compiled
def leave(words: NDArray[np.int64]) -> None:
    """Undo one `seize`."""
    words[DEPTH] -= 1
    if words[DEPTH] == 0:
        store_release(words, RUNNER, 0)


@compiled
def desert(words: NDArray[np.int64]) -> None:
    """Undo all that this thread seized of a ring, if it did: an exception has ended what would have left it."""
    if load_acquire(words, RUNNER) == this_thread():
        words[DEPTH] = 0
        store_release(words, RUNNER, 0)


@compiled
def enter(ring: Any, pools: Pools) -> int:
    """Become the runner of a receive ring and the owner of its pool; who holds the one that could not be had, if so."""
    if not seize(ring.state):
        return RING_BUSY
    if ring.pool != NOWHERE and not wait_for(pools.words, ring.pool):
        leave(ring.state)
        return POOL_BUSY
    return ENTERED


@compiled
def exit_from(ring: Any, pools: Pools) -> None:
    """Undo `enter`."""
    if ring.pool != NOWHERE:
        release(pools.words, ring.pool)
    leave(ring.state)


class Ring:
    """A ring, as far as all have the same life.

    Args:
        state: what the ring's kernels work on, with `held`, the buffer in each descriptor, and `state`, its words.
    """

    parts = 1
    holds_chains = False

    def __init__(self, state: Any) -> None:
        self.state = state
        self.size = len(state.held.ids)

    def retire(self, timeout: float) -> bool:
        """Let nobody run the ring any more; False if a thread still does after `timeout` seconds."""
        words = self.state.state
        end = time.monotonic() + timeout
        while not (_retire(words) or words[RUNNER] == RETIRED):
            if time.monotonic() > end:
                return False
            time.sleep(0.0001)
        return True

    def compile_end(self) -> None:
        """Have compiled what the ring's end takes."""
        _retire(own_lines(COMMON_WORDS))


@compiled
def _retire(words: NDArray[np.int64]) -> bool:
    """A thread that seized the ring, left it by an exception, and asks now, does not run it."""
    return swap_if(words, RUNNER, 0, RETIRED) or swap_if(words, RUNNER, this_thread(), RETIRED)


class FilledRing(Ring):
    """A receive ring, whose descriptors hold buffers for the device; see `ixy.drivers.RxRing`.

    Args:
        state: as for `Ring`.
        pool: where buffers come from.
        offer: the kernel `offer(state, count)` that gives the buffers in the first `count` descriptors to the device.
        metadata: what the device is set up to tell of each packet.
    """

    kernel: Callable[..., int]
    ready: Callable[..., bool]
    single: RxSingle | None = None

    def __init__(self, state: Any, pool: Mempool, offer: Callable[..., None], metadata: Sequence[str] = ()) -> None:
        super().__init__(state)
        self.pool = pool
        self.metadata: Sequence[str] = tuple(metadata)
        self._offer = offer
        self._filled = 0

    def fill(self) -> None:
        """Give every descriptor a buffer, as far as they last."""
        self._filled = max(take_soon(pools(), self.pool.number, self.state.held, self.size), 0)
        self._offer(self.state, self._filled)

    def drain(self) -> None:
        """Take all buffers back. The device has stopped."""
        words = self.state.state
        _drain(pools(), self.state.held, words, self._filled - words[CLEAN])

    def compile_end(self) -> None:
        super().compile_end()
        _drain(pools(), self.state.held, own_lines(COMMON_WORDS), 0)

    @property
    def dropped(self) -> int:
        return int(self.state.state[DROPPED])

    @property
    def starved(self) -> int:
        return int(self.state.state[STARVED])


class SendingRing(Ring):
    """A transmit ring, which holds the buffers that are under way; see `ixy.drivers.TxRing`."""

    kernel: Callable[..., int]
    room: Callable[..., int]
    single: TxSingle | None = None
    offloads: Sequence[str] = ()

    def drain(self) -> None:
        """Take the buffers back that the device has not sent, or not reported. It has stopped."""
        _drain(pools(), self.state.held, self.state.state, self.in_flight)

    def compile_end(self) -> None:
        super().compile_end()
        _drain(pools(), self.state.held, own_lines(COMMON_WORDS), 0)

    @property
    def in_flight(self) -> int:
        return int(self.state.state[NEXT] - self.state.state[CLEAN])


@compiled
def _drain(pools: Pools, held: Packets, words: NDArray[np.int64], count: int) -> None:
    """Give back the buffers of so many descriptors, from CLEAN on."""
    size = held.ids.size
    start = words[CLEAN] & (size - 1)
    words[CLEAN] += count
    give_seldom(pools, held, start, min(start + count, size))
    give_seldom(pools, held, 0, start + count - size)
