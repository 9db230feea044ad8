"""What the rings of all drivers have in common: words of their state, and their life from filled to drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.packets.buffers import buffers, give

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.packets.mempool import Mempool

# Words of a ring's `state`; those of one driver alone come after them
NEXT = 0  # the descriptor that comes next, counted without wrapping
CLEAN = 1  # transmit: the oldest descriptor that still holds a buffer, counted likewise
DROPPED = 2  # receive: frames refused
STARVED = 3  # receive: times that the pool was empty
COMMON_WORDS = 4

# Rings and batches have at most so many entries. Masked with this, an index is known to be positive, and the compiler
# leaves out what Python's negative indices would need.
INDEX_MASK = 0xFFFF


class FilledRing:
    """A receive ring, whose descriptors hold buffers for the device; see `ixy.drivers.RxRing`.

    Args:
        state: what the ring's kernels work on, with `ids`, the buffer in each descriptor, and `state`, its words.
        pool: where buffers come from.
        fill: the kernel `fill(state, buffers) -> filled` that gives a buffer to each descriptor, as far as they last.
    """

    def __init__(self, state: Any, pool: Mempool, fill: Callable[..., int]) -> None:
        self.state = state
        self.pool = pool
        self.size = len(state.ids)
        self._fill = fill
        self._filled = 0

    def fill(self) -> None:
        """Give every descriptor a buffer."""
        self._filled = self._fill(self.state, buffers())

    def drain(self) -> None:
        """Take all buffers back. The device has stopped."""
        give(buffers(), self.state.ids, 0, self._filled)
        self._filled = 0

    @property
    def dropped(self) -> int:
        return int(self.state.state[DROPPED])

    @property
    def starved(self) -> int:
        return int(self.state.state[STARVED])


class SendingRing:
    """A transmit ring, which holds the buffers that are under way; see `ixy.drivers.TxRing`.

    Args:
        state: as for `FilledRing`.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        self.size = len(state.ids)

    def drain(self) -> None:
        """Take the buffers back that the device has not sent, or not reported. It has stopped."""
        words = self.state.state
        slots = np.arange(int(words[CLEAN]), int(words[NEXT])) % self.size
        give(buffers(), self.state.ids[slots], 0, len(slots))
        words[CLEAN] = words[NEXT]

    @property
    def in_flight(self) -> int:
        return int(self.state.state[NEXT] - self.state.state[CLEAN])
