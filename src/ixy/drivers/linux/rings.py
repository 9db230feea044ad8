"""What the rings of the kernel's interfaces share: they count, since an interface counts for all who use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.drivers.rings import CLEAN, COMMON_WORDS, NEXT, SendingRing
from ixy.jit import compiled, outlined
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Packets, carry
from ixy.packets.parts import total_length
from ixy.unsafe import call_if

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.pool import Pools

# Words of a ring's `state` besides the common ones
PACKETS = COMMON_WORDS  # that were received, or handed over to be sent
BYTES = COMMON_WORDS + 1  # of those packets, without frame check sequences
REFUSED = COMMON_WORDS + 2  # transmit: packets that the kernel never sends, as they are too short or too long
OWN_WORDS = COMMON_WORDS + 3  # where those of one driver begin

GROUP = 32  # packets that are on their way besides those in rings


@compiled
def count_packets(state: NDArray[np.int64], packets: Packets, first: int, count: int) -> None:
    """Count packets that a ring has received, or taken to send."""
    first &= INDEX_MASK
    total = 0
    for i in range(count & INDEX_MASK):
        total += packets.lengths[first + i]
    state[PACKETS] += count
    state[BYTES] += total


@compiled
def count_rests(state: NDArray[np.int64], pools: Pools, packets: Packets, first: int, count: int) -> None:
    """Besides: of packets that were just counted, what does not lie in their first buffers."""
    state[BYTES] += call_if(packets.nexts, _rests, (pools, packets, first, count))


@outlined
def _rests(pools: Pools, packets: Packets, first: int, count: int) -> int:
    total = 0
    for i in range(first, first + count):
        total += total_length(pools, packets, i) - packets.lengths[i]
    return total


@compiled
def hold(ring: Any, pools: Pools, packets: Packets, first: int, last: int) -> int:
    """Keep packets `first` to `last` in a transmit ring until it is full, to be sent from there; how many."""
    size = ring.held.ids.size
    following = ring.state[NEXT]
    count = min(last - first, size - (following - ring.state[CLEAN]))
    if count > 0:
        count = hand_over(pools, packets, first, count, packets.holder, ring.held.holder)
        slot = following & (size - 1)
        unwrapped = min(count, size - slot)
        carry(ring.held, slot, packets, first, unwrapped)
        carry(ring.held, 0, packets, first + unwrapped, count - unwrapped)
        count_packets(ring.state, packets, first, count)
        count_rests(ring.state, pools, packets, first, count)
        ring.state[NEXT] = following + count
    return max(count, 0)


class CountingRing:
    """A ring with these counters."""

    state: Any
    parts: int

    @property
    def packets(self) -> int:
        return int(self.state.state[PACKETS])

    @property
    def bytes(self) -> int:
        """Of these packets, with their frame check sequences."""
        return int(self.state.state[BYTES]) + 4 * self.packets


class CountingTxRing(SendingRing, CountingRing):
    """A transmit ring with these counters, in which packets wait until the other end takes them."""

    def sent(self) -> int:
        """Of `packets`, those that the other end has taken; what waits is tried once more."""
        raise NotImplementedError

    def compile_end(self) -> None:
        super().compile_end()
        self.sent()


class InterfaceTxRing(CountingTxRing):
    """A transmit ring of an interface, which does not take frames of any length."""

    @property
    def refused(self) -> int:
        """Packets that the kernel would never send, as they are longer than the interface's MTU allows, or too
        short."""
        return int(self.state.state[REFUSED])
