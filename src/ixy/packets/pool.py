"""Where free packet buffers are kept, as kernels see it. No other module knows what that looks like.

Each pool keeps its free buffers on a stack: what was freed last is given out first, while it is still in the cache. One
thread at a time works on a stack, its owner; who it is stands in the pool's word OWNER, and changes hands by an atomic
exchange. Who wants to give a buffer back to a pool that another thread owns puts it into the pool's ring instead, which
takes an atomic addition and never waits: the ring has room for all buffers there are. Who wants to take from it waits.

A compiled loop is owner from its first poll to its last. Before each poll it looks at one word, ATTENTION, which others
set: then it fetches what was returned, and lets those who wait have the pool for one call (`serve`). A lone thread pays
for all this with one load a poll.

Buffers change owners within kernels only. No signal handler and no collector can come between there, unless kernels are
interpreted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.jit import apart, compiled, outlined, shared
from ixy.once import once
from ixy.packets import checking
from ixy.packets.buffers import ID_MASK, MAX_PARTS, POOL_BUFFERS, POOL_SHIFT, POOLS, STRIDE
from ixy.packets.checking import hand_over, taken
from ixy.packets.dma import PACKET_REGION, window
from ixy.packets.packets import FREE, INDEX_MASK, NO_NEXT, Packets
from ixy.sandboxing import beforehand
from ixy.unsafe import call_if, fetch_add, load_acquire, monotonic_ns, nap, peek, store_release, swap_if, this_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a pool. Those that different threads write have a cache line each.
_FREE = 0  # how many buffers are on the stack
_HEAD = 1  # where in the ring the next returned buffer will be, counted without wrapping
_OWNER = 8  # the thread that works on the stack, 0 if none does
_DEPTH = 9  # how often it has claimed the pool
_ATTENTION = 16  # 1: buffers were returned, or somebody waits
_WAITING = 17  # how many threads wait
_TAIL = 24  # where in the ring the next buffer will be put
_WORDS = 32

NOWHERE = POOLS  # the pool of a ring between threads, which takes no buffers: it has words, and nothing is ever there
CLOSED = -1  # the owner of a pool that was closed, or never opened: nobody takes, and what is given is dropped

_CELLS = POOL_BUFFERS - 1  # a mask: of a ring
_PATIENCE = (
    1_000_000_000  # ns; an owner is away from its pool for a poll at most, unless the system runs others instead
)
_COURTESY = 256  # how often an owner yields for those who wait before it goes on


class Pools(NamedTuple):
    """All packet buffers of the process.

    Attributes:
        bytes: shape (POOLS * POOL_BUFFERS, STRIDE), uint8; only buffers of living pools are mapped.
        stack: the pools' stacks, shape (POOLS * POOL_BUFFERS,), int32.
        returned: the pools' rings, int32, likewise: the number of a buffer + 1, or 0.
        words: the pools' words, int64, 32 each; those of NOWHERE come after them.
        holders: who has each buffer, by number, shape (POOLS * POOL_BUFFERS,), int64; None without the checking mode.
        violations: what it has found, see `checking`; likewise.
        nexts: of a buffer in which a packet goes on, by number: the one in which it goes on from there, or NO_NEXT;
            shape (POOLS * POOL_BUFFERS,), int32. Where it goes on from its first buffer stands in `Packets`.
        sizes: how many of the packet's bytes are in such a buffer, likewise.
    """

    bytes: NDArray[np.uint8]
    stack: NDArray[np.int32]
    returned: NDArray[np.int32]
    words: NDArray[np.int64]
    holders: NDArray[np.int64]
    violations: NDArray[np.int64]
    nexts: NDArray[np.int32]
    sizes: NDArray[np.int32]


@once
def pools() -> Pools:
    """The buffers of this process. Their arrays are address space until a pool puts memory there."""
    count = POOLS * POOL_BUFFERS
    words = np.zeros(2 * POOLS * _WORDS, np.int64)
    words[_OWNER::_WORDS] = CLOSED
    holders, violations = checking.new_columns()
    return Pools(
        bytes=window().bytes[:PACKET_REGION].reshape(count, STRIDE),
        stack=np.zeros(count, np.int32),
        returned=np.zeros(count, np.int32),
        words=words,
        holders=holders,
        violations=violations,
        nexts=np.zeros(count, np.int32),
        sizes=np.zeros(count, np.int32),
    )


# ---------------------------------------------------------------------------------------------------------------------
# For the owner


@shared(compiled)
def _word(pool: int, which: int) -> int:
    """The index of one of a pool's words. Masked, it lies within `words` whatever `pool` is."""
    return (pool & (2 * POOLS - 1)) * _WORDS + which


@compiled
def pool_of(buffer: Any) -> int:
    """The number of the pool to which a buffer belongs."""
    return np.int64(buffer) >> POOL_SHIFT  # pyright: ignore[reportReturnType]


@compiled
def free_count(pools: Pools, pool: int) -> int:
    """How many buffers the owner of `pool` can take at once."""
    return pools.words[_word(pool, _FREE)]


@compiled
def fresh(pools: Pools, pool: int, free: int, i: int) -> int:
    """Buffer number `i` of those that the owner is about to take, where `free_count` was `free`; see `took`."""
    return pools.stack[((pool << POOL_SHIFT) + free - 1 - i) & ID_MASK]


@compiled
def took(pools: Pools, pool: int, left: int, packets: Packets) -> None:
    """The owner has taken buffers into `packets`, the first of them `fresh` number 0; `left` are left."""
    taken(pools, pool, left, free_count(pools, pool), packets.holder)
    pools.words[_word(pool, _FREE)] = left


@compiled
def trade(pools: Pools, pool: int, held: Packets, slot: int, packets: Packets, at: int, count: int) -> None:
    """Move buffers from a ring's descriptors `slot` on to packets `at` on, and put fresh ones into the descriptors.

    The caller owns `pool`, which has so many, and neither range wraps.
    """
    free = free_count(pools, pool)
    _replace(held.ids, slot, packets.ids, at, pools.stack, (pool << POOL_SHIFT) + free - count, count)
    took(pools, pool, free - count, held)


@apart
def _replace(
    held: NDArray[np.int32],
    slot: int,
    ids: NDArray[np.int32],
    at: int,
    stack: NDArray[np.int32],
    low: int,
    count: int,
) -> None:
    """Move numbers of `held` to `ids`, and others from a stack to where they were."""
    slot &= INDEX_MASK
    at &= INDEX_MASK
    low &= ID_MASK
    for i in range(count & INDEX_MASK):
        ids[at + i] = held[slot + i]
        held[slot + i] = stack[low + i]


@compiled
def refill(pools: Pools, pool: int) -> int:
    """Fetch what other threads returned; how many buffers the owner has then."""
    return _fetch_returned(pools.stack, pools.returned, pools.words, pool)


@outlined
def _fetch_returned(stack: NDArray[np.int32], returned: NDArray[np.int32], words: NDArray[np.int64], pool: int) -> int:
    if pool == NOWHERE:
        return 0
    base = (pool << POOL_SHIFT) & ID_MASK
    free = words[_word(pool, _FREE)]
    place = words[_word(pool, _HEAD)]
    while free < POOL_BUFFERS:
        cell = base + (place & _CELLS)
        buffer = load_acquire(returned, cell) - 1
        if buffer < 0:
            break
        returned[cell] = 0
        stack[base + free] = buffer
        free += 1
        place += 1
    words[_word(pool, _HEAD)] = place
    words[_word(pool, _FREE)] = free
    return free


@compiled
def take(pools: Pools, pool: int, packets: Packets, limit: int) -> int:
    """Take up to `limit` buffers of `pool` into `packets`; how many there were, 0 for a thread that does not own it."""
    if pools.words[_word(pool, _OWNER)] != this_thread():
        return 0
    ids = packets.ids
    free = free_count(pools, pool)
    limit = min(limit, ids.size)
    if free < limit:
        free = refill(pools, pool)
    count = min(limit, free)
    if count <= 0:
        return 0
    for i in range(count):
        ids[i] = fresh(pools, pool, free, i)
    took(pools, pool, free - count, packets)
    return count


# ---------------------------------------------------------------------------------------------------------------------
# Giving back, for any thread


@compiled
def give(pools: Pools, packets: Packets, first: int, last: int) -> None:
    """Give the buffers of packets `first` to `last` back, each to its own pool."""
    ids = packets.ids
    first, last = max(first, 0), min(last, ids.size)
    count = last - first
    if count <= 0:
        return
    count = hand_over(pools, packets, first, count, packets.holder, FREE)
    last = first + count
    call_if(packets.nexts, _give_rests, (pools, packets, first, last))
    pool = pool_of(ids[first])
    different = np.int32(0)
    for i in range(count):
        different = np.int32(different | (ids[first + i] ^ ids[first]))
    if (different >> POOL_SHIFT != 0) | (pools.words[_word(pool, _OWNER)] != this_thread()):
        _give_anywhere(pools.stack, pools.returned, pools.words, ids, first, last)
        return
    # All are of one pool, and this thread is its owner, as almost always: the compiler makes a few vector moves of it.
    free = free_count(pools, pool)
    top = ((pool << POOL_SHIFT) + free) & ID_MASK
    for i in range(count):
        pools.stack[top + i] = ids[first + i]
    pools.words[_word(pool, _FREE)] = free + count


@compiled
def give_seldom(pools: Pools, packets: Packets, first: int, last: int) -> None:
    """`give`, where it need not be quick, in a tenth of the machine code."""
    ids = packets.ids
    first, last = max(first, 0), min(last, ids.size)
    last = first + hand_over(pools, packets, first, last - first, packets.holder, FREE)
    call_if(packets.nexts, _give_rests, (pools, packets, first, last))
    _give_anywhere(pools.stack, pools.returned, pools.words, ids, first, last)


@outlined
def _give_rests(pools: Pools, packets: Packets, first: int, last: int) -> int:
    """The buffers in which packets go on, behind their first ones."""
    for i in range(first, last):
        buffer = peek(packets.nexts, i, NO_NEXT)
        for _ in range(MAX_PARTS - 1):
            if buffer < 0:
                break
            following = int(pools.nexts[buffer & ID_MASK])  # read first: from then on somebody else may have the buffer
            _give_one(pools, buffer)
            buffer = following
    return 0


@compiled
def _give_one(pools: Pools, buffer: int) -> None:
    """`_give_anywhere` of a buffer that stands in no array."""
    pool, words = pool_of(buffer), pools.words
    if claim(words, pool):
        free = words[_word(pool, _FREE)]
        pools.stack[((pool << POOL_SHIFT) + free) & ID_MASK] = buffer
        words[_word(pool, _FREE)] = free + 1
        release(words, pool)
    elif load_acquire(words, _word(pool, _OWNER)) != CLOSED:
        place = fetch_add(words, _word(pool, _TAIL), 1)
        store_release(pools.returned, ((pool << POOL_SHIFT) & ID_MASK) + (place & _CELLS), buffer + 1)
        call_attention(words, pool)


@outlined
def _give_anywhere(
    stack: NDArray[np.int32],
    returned: NDArray[np.int32],
    words: NDArray[np.int64],
    ids: NDArray[np.int32],
    first: int,
    last: int,
) -> None:
    """Buffers of several pools, or of pools that other threads own."""
    while first < last:
        pool = pool_of(ids[first])
        end = first + 1
        while end < last and pool_of(ids[end]) == pool:
            end += 1
        if claim(words, pool):
            _push(stack, words, pool, ids, first, end)
            release(words, pool)
        elif load_acquire(words, _word(pool, _OWNER)) != CLOSED:
            _return(returned, words, pool, ids, first, end)
        first = end


@compiled
def _push(
    stack: NDArray[np.int32], words: NDArray[np.int64], pool: int, ids: NDArray[np.int32], first: int, last: int
) -> None:
    """Put buffers of one pool, which this thread owns, on its stack."""
    free = words[_word(pool, _FREE)]
    for i in range(first, last):
        stack[((pool << POOL_SHIFT) + free) & ID_MASK] = ids[i]
        free += 1
    words[_word(pool, _FREE)] = free


@compiled
def call_attention(words: NDArray[np.int64], pool: int) -> None:
    """Have the owner of a pool `serve` before its next poll."""
    store_release(words, _word(pool, _ATTENTION), 1)


@compiled
def _return(
    returned: NDArray[np.int32], words: NDArray[np.int64], pool: int, ids: NDArray[np.int32], first: int, last: int
) -> None:
    """Put buffers of one pool into its ring, and let its owner know."""
    place = fetch_add(words, _word(pool, _TAIL), last - first)
    base = (pool << POOL_SHIFT) & ID_MASK
    for i in range(last - first):
        store_release(returned, base + ((place + i) & _CELLS), ids[first + i] + 1)
    call_attention(words, pool)


# ---------------------------------------------------------------------------------------------------------------------
# Owners


@compiled
def claim(words: NDArray[np.int64], pool: int) -> bool:
    """Become the owner of a pool, once more if this thread is; False if another thread is, or the pool is closed."""
    owner = _word(pool, _OWNER)
    found = load_acquire(words, owner)
    # An exchange in vain would take the line away from the owner, who looks at it whenever it gives.
    if found != this_thread() and (found != 0 or not swap_if(words, owner, 0, this_thread())):
        return False
    words[_word(pool, _DEPTH)] += 1
    return True


@outlined
def wait_for(words: NDArray[np.int64], pool: int) -> bool:
    """Become the owner of a pool as soon as it can be had; False if it is closed, or is not let go for a second."""
    if claim(words, pool):
        return True
    fetch_add(words, _word(pool, _WAITING), 1)
    end = monotonic_ns() + _PATIENCE
    mine = False
    while not mine and load_acquire(words, _word(pool, _OWNER)) != CLOSED and monotonic_ns() < end:
        call_attention(words, pool)
        nap(0)
        mine = claim(words, pool)
    fetch_add(words, _word(pool, _WAITING), -1)
    return mine


@compiled
def release(words: NDArray[np.int64], pool: int) -> None:
    """Undo one `claim` or `wait_for`."""
    words[_word(pool, _DEPTH)] -= 1
    if words[_word(pool, _DEPTH)] == 0:
        store_release(words, _word(pool, _OWNER), 0)


@compiled
def abandon(words: NDArray[np.int64]) -> None:
    """Undo all that this thread claimed of any pool: an exception has ended what would have released it."""
    for pool in range(POOLS):
        if load_acquire(words, _word(pool, _OWNER)) == this_thread():
            words[_word(pool, _DEPTH)] = 0
            store_release(words, _word(pool, _OWNER), 0)


@compiled
def take_soon(pools: Pools, pool: int, packets: Packets, limit: int) -> int:
    """`take`, by any thread, as soon as the pool can be had; -1 if it cannot."""
    if not wait_for(pools.words, pool):
        return -1
    count = take(pools, pool, packets, limit)
    release(pools.words, pool)
    return count


@compiled
def wanted(pools: Pools, pool: int) -> bool:
    """Whether the owner of a pool should `serve` others before it goes on; one load."""
    return load_acquire(pools.words, _word(pool, _ATTENTION)) != 0


@compiled
def serve(pools: Pools, pool: int) -> None:
    """Fetch what others returned, and let those who wait have the pool for a call. For its owner, who gets it back."""
    _serve(pools.stack, pools.returned, pools.words, pool)


@outlined
def _serve(stack: NDArray[np.int32], returned: NDArray[np.int32], words: NDArray[np.int64], pool: int) -> None:
    # Who returns a buffer sets the word after that. What reads the 1 and writes the 0 in one step sees all that was
    # done before the 1; what comes after sets it once more.
    swap_if(words, _word(pool, _ATTENTION), 1, 0)
    _fetch_returned(stack, returned, words, pool)
    if load_acquire(words, _word(pool, _WAITING)) == 0:
        return
    depth = words[_word(pool, _DEPTH)]
    words[_word(pool, _DEPTH)] = 0
    store_release(words, _word(pool, _OWNER), 0)
    for _ in range(_COURTESY):
        if load_acquire(words, _word(pool, _WAITING)) == 0:
            break
        nap(0)
    while not swap_if(words, _word(pool, _OWNER), 0, this_thread()):
        nap(0)
    words[_word(pool, _DEPTH)] = depth


# ---------------------------------------------------------------------------------------------------------------------
# Pools that come and go


def open_pool(pools: Pools, pool: int, ids: NDArray[np.int64]) -> None:
    """Let a pool that was closed have the buffers `ids`, all free; the last is taken first."""
    base = pool << POOL_SHIFT
    pools.returned[base : base + POOL_BUFFERS] = 0
    pools.stack[base : base + len(ids)] = ids
    words = pools.words[_word(pool, 0) : _word(pool, _WORDS)]
    words[[_HEAD, _TAIL, _ATTENTION, _DEPTH]] = 0
    words[_FREE] = len(ids)
    checking.opened(pools, ids)
    words[_OWNER] = 0


def available(pools: Pools, pool: int) -> int:
    """How many buffers of a pool are free, on its stack and in its ring. Exact while nobody takes or gives."""
    first = _word(pool, 0)
    free, head, tail = (int(pools.words[first + which]) for which in (_FREE, _HEAD, _TAIL))
    return free + tail - head


def owner(pools: Pools, pool: int) -> int:
    """Who works on a pool's stack: a thread, 0, or CLOSED."""
    return int(pools.words[_word(pool, _OWNER)])


@beforehand
def _compile_end() -> None:
    wait_for(np.zeros_like(pools().words), 0)  # words of no pool


def close_pool(pools: Pools, pool: int) -> bool:
    """Close a pool for good: from now on nobody takes, and what is given is dropped. False while a loop works on it."""
    if not wait_for(pools.words, pool):
        return owner(pools, pool) == CLOSED
    pools.words[_word(pool, _OWNER)] = CLOSED
    return True
