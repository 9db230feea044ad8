"""Rings of samples: packets that a kernel keeps, to be read from another thread while it goes on.

The kernel never waits: it writes each sample over the oldest. Each slot has a number, odd while sample k is written to
it, 2 k + 1, and even once it is whole, 2 k + 2 (a sequence lock). The reader looks at the number, takes the sample, and
looks again: if that is not the same, what it took was torn, and is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ixy.arguments import integer
from ixy.headers import Bytes
from ixy.jit import compiled, shared
from ixy.record import Elements, Record, array, uint8
from ixy.unsafe import fence_acquire, load_acquire
from ixy.unsafe.records import publish

# Elements and records look at each other's insides.
# pyright: reportPrivateUsage=false

_WORD = 8  # bytes


class Samples(Record):
    """A ring of samples. A subclass says how many it has, and of which size: `slots = tables.slots(1024, 256)`.

    Attributes:
        written: how many samples the kernel has kept.
    """

    written: int


def slots(count: int, size: int) -> Elements[Any]:
    """The field `slots` of a ring: `count` samples of up to `size` bytes each.

    Raises:
        ConfigurationError: `count` or `size` is below 1, or too large.
    """

    class Slot(Record):
        time: int
        length: int
        number = array(1)
        data = array(integer("size", size, 1, 1 << 16), uint8)

    return array(count, Slot)


@shared(compiled)
def keep(samples: Any, packet: Bytes, time: int) -> None:
    """Put a packet into a ring, as many bytes of it as there is room for.

    Args:
        samples: the ring, a record of a subclass of `Samples`.
        time: in ns, of whichever clock.
    """
    number = samples.written
    slot = samples.slots[number % len(samples.slots)]
    publish(slot.number, 0, 2 * number + 1)
    slot.time = time
    slot.length = len(packet)
    for i in range(min(len(packet), len(slot.data))):
        slot.data[i] = packet[i]
    publish(slot.number, 0, 2 * number + 2)
    samples.written = number + 1


class Sample(NamedTuple):
    """A packet that was kept.

    Attributes:
        number: how many samples were kept before.
        time: that the kernel gave it, in ns.
        length: of the whole packet.
        data: its first bytes.
    """

    number: int
    time: int
    length: int
    data: bytes


class Reader:
    """Reads the samples of a ring one after the other, each once. Any number of readers may read a ring.

    Args:
        samples: the ring; of one for several workers, one worker's: `record[0]`.

    Attributes:
        missed: how many samples were overwritten before they could be read.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._slots: NDArray[Any] = cast(Any, samples).slots._array
        self._number_at: int = cast(Any, self._slots.dtype.fields)["number"][1] // _WORD
        self._next = 0
        self.missed = 0

    def read(self) -> Iterator[Sample]:
        """The samples that were kept by now, from the oldest on that is still there."""
        count, row, until = len(self._slots), np.empty(1, self._slots.dtype), self._samples.written
        ring, words = self._slots.view(np.int64), row.view(np.int64)
        while self._next < until:
            number = self._next
            if _take(ring, number % count * len(words), self._number_at, 2 * number + 2, words):
                self._next += 1
                slot, length = row[0], int(row[0]["length"])
                yield Sample(number, int(slot["time"]), length, slot["data"][:length].tobytes())
            else:
                self._next = max(number + 1, self._samples.written - count)
                self.missed += self._next - number


@compiled
def _take(ring: NDArray[np.int64], start: int, number_at: int, wanted: int, target: NDArray[np.int64]) -> bool:
    """Copy the slot that begins at a word, if it has the number that is wanted, and still has it at the end."""
    if load_acquire(ring, start + number_at) != wanted:
        return False
    for i in range(target.size):
        target[i] = ring[start + i]
    fence_acquire()
    return load_acquire(ring, start + number_at) == wanted
