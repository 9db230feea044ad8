"""Functions that a kernel may call: the time, chance, and a look ahead.

Compiled they are lowered by `unsafe.views`, on the words of the path that runs the kernel; here is the same for the
interpreter, which notes that path's words before it calls a kernel.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ixy.clock import monotonic_ns
from ixy.counts import NOW, RANDOM
from ixy.trouble import RANDOM_BELOW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RANDOM_MOST = 1 << 32
RANDOM_FACTOR = 0x2545_F491_4F6C_DD1D  # of xorshift64*; Vigna, "An experimental exploration of Marsaglia's generators"
_WORD = (1 << 64) - 1


class _Running(threading.local):
    """The path whose kernel this thread interprets.

    Attributes:
        counts: its words; None outside kernels.
    """

    counts: NDArray[np.int64] | None = None


running = _Running()


def now() -> int:
    """The time in ns, of the clock that `time.monotonic_ns` tells, or a virtual one: in a kernel, the same for all
    packets of a batch."""
    if running.counts is None:
        return monotonic_ns()
    if running.counts[NOW] == 0:
        running.counts[NOW] = monotonic_ns()
    return int(running.counts[NOW])


def random(below: int) -> int:
    """A number from 0 to `below` - 1, in a kernel. Two paths with the same seed draw the same (`ixy.Path`).

    Raises:
        IndexError: `below` is not within 1 and 2**32.
        RuntimeError: no kernel calls it.
    """
    if running.counts is None:
        raise RuntimeError("ixy.random draws in a kernel, from its path's seed: elsewhere use the module random")
    if not 1 <= below <= RANDOM_MOST:
        raise IndexError(RANDOM_BELOW.format(below, RANDOM_MOST))
    state = int(running.counts[RANDOM]) & _WORD
    state ^= state >> 12
    state ^= state << 25 & _WORD
    state ^= state >> 27
    running.counts[RANDOM] = (state ^ 1 << 63) - (1 << 63)
    return ((state * RANDOM_FACTOR & _WORD) >> 32) * below >> 32


def prefetch(elements: Any, index: int) -> None:
    """Have an element of a record's array brought into the cache, for a table that is larger: a function that looks at
    all packets of a batch first, and at the table then, waits once and not for each packet (`ixy.batch_kernel`).

    Raises:
        IndexError: there is no such element.
    """
    elements[index]  # the interpreter has no cache to bring it into
