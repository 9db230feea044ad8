"""The data path: kernels that copy frames out of a front end's buffers into ours, and the other way.

What the front end sends lies on a ring that it calls transmit, and is received here. Most buffers are in one piece and
large enough. Some at a time are looked at first, so that their memory is on its way to the cache, then copied, and then
given back together. What is odd, a frame in several pieces or over several buffers, goes one by one (`chains`).

Nothing that the front end writes is trusted: each value is read once, and what it names is looked for in the table of
the memory that it shares. What breaks the rules stops the ring until it is set up anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import count_packets, hold
from ixy.drivers.rings import CLEAN, NEXT, STARVED, leave, seize
from ixy.drivers.vhost.chains import put_chain, take_chain
from ixy.drivers.vhost.packed import offered as offered_packed
from ixy.drivers.vhost.packed import survey as survey_packed
from ixy.drivers.vhost.packed import use as use_packed
from ixy.drivers.vhost.packed import want_kicks as want_kicks_packed
from ixy.drivers.vhost.packed import wants_calls as wants_calls_packed
from ixy.drivers.vhost.split import offered as offered_split
from ixy.drivers.vhost.split import survey as survey_split
from ixy.drivers.vhost.split import use as use_split
from ixy.drivers.vhost.split import want_kicks as want_kicks_split
from ixy.drivers.vhost.split import wants_calls as wants_calls_split
from ixy.drivers.vhost.state import (
    CALL,
    CALLING,
    CHUNK,
    FENCE,
    HEADER,
    PACKED,
    SAID,
    TO_READ,
    WRITE_FLAG,
    GuestRing,
    begin,
    vacate,
)
from ixy.jit import compiled, outlined
from ixy.packets.buffers import BUFFER_SIZE, ID_MASK, STRIDE
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, Flags, Packets, stamp
from ixy.packets.pool import Pools, free_count, fresh, give, took
from ixy.registers.virtio import DATA_VALID, HEADER_BYTES, LEGACY_HEADER_BYTES, NEEDS_CSUM
from ixy.unsafe import copy, has, load_acquire, load_big, put, store_ordered, store_release, write_file

_ONE_BUFFER = 0x0100  # the last eight bytes of a long header, as a number in network byte order
_GOOD, _PARTIAL = int(Flags.L4_GOOD), int(Flags.L4_PARTIAL)


class TxKernels(NamedTuple):
    """The kernels of a ring that sends: see `ixy.drivers.TxRing`, and one for what waits."""

    batch: Callable[..., int]
    room: Callable[..., int]
    flush: Callable[..., None]


@compiled
def offered(ring: GuestRing) -> int:
    """Whether the front end has offered a buffer that was not used; how many, where that can be told."""
    return offered_packed(ring, 0) if ring.state[PACKED] != 0 else offered_split(ring, 0)


@compiled
def survey(ring: GuestRing, limit: int, kind: int) -> int:
    return survey_packed(ring, limit, kind) if ring.state[PACKED] != 0 else survey_split(ring, limit, kind)


@compiled
def use(ring: GuestRing, count: int) -> None:
    if ring.state[PACKED] != 0:
        use_packed(ring, count)
    else:
        use_split(ring, count)


@compiled
def call(ring: GuestRing) -> None:
    """Tell the front end of what was used, if it wants to be told.

    It has the file too, and may let us wait there: CALLING says that we do, and who speaks with it looks after that.
    """
    state = ring.state
    if state[CALL] < 0:
        return
    store_ordered(state, FENCE, 1)  # what was used is seen before it is read whether to call
    if wants_calls_packed(ring) if state[PACKED] != 0 else wants_calls_split(ring):
        store_release(state, CALLING, 1)
        write_file(state[CALL], ring.message, 0, ring.message.size)
        store_release(state, CALLING, 0)


@compiled
def want_kicks(ring: GuestRing, wanted: bool) -> None:
    """Have the front end tell of the next buffer, or not. What came before, a look afterwards shows."""
    if begin(ring.state):
        if ring.state[PACKED] != 0:
            want_kicks_packed(ring, wanted)
        else:
            want_kicks_split(ring, wanted)
        vacate(ring.state)


# ---------------------------------------------------------------------------------------------------------------------
# Receive


@compiled
def ready(ring: GuestRing) -> bool:
    """Whether there is a frame."""
    found = 0
    if begin(ring.state):
        found = offered(ring)
        vacate(ring.state)
    return found > 0


@compiled
def rx_batch(ring: GuestRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take up to `limit` frames, each into a buffer of the pool. While that is empty they stay with the front end."""
    if not begin(ring.state):
        return 0
    count = take(ring, pools, packets, limit)
    vacate(ring.state)
    if count == 0:
        return 0
    count_packets(ring.state, packets, 0, count)
    stamp(packets, 0, count)
    return hand_over(pools, packets, 0, count, ring.held.holder, packets.holder)


@compiled
def take(ring: GuestRing, pools: Pools, packets: Packets, limit: int) -> int:
    """Take frames by chunks up to an odd one, and that, if it is the first; how many."""
    free = free_count(pools, ring.pool)
    most = min(limit, free)
    count = used = 0
    while count < most:
        found = survey(ring, min(most - count, CHUNK), TO_READ)
        done = take_plain(ring, pools, packets, count, found, free)
        if done > 0:
            use(ring, done)
            used += done
            count += done
            if done < CHUNK:
                break
        elif used > 0 or offered(ring) == 0:
            break
        else:
            used = 1
            count += take_odd(ring, packets, fresh(pools, ring.pool, free, 0))
    took(pools, ring.pool, free - count, ring.held)
    if used > 0:
        call(ring)
    elif free == 0 and limit > 0 and offered(ring) > 0:
        ring.state[STARVED] += 1
    return count


@compiled
def take_plain(ring: GuestRing, pools: Pools, packets: Packets, before: int, found: int, free: int) -> int:
    """Copy frames out of the buffers that were looked at, behind `before` packets, up to an odd one; how many."""
    header = ring.state[HEADER]
    before &= INDEX_MASK
    for i in range(found):
        length = ring.sizes[i] - header
        if length <= 0 or length > BUFFER_SIZE:
            return i
        buffer = fresh(pools, ring.pool, free, before + i)
        target: Any = (np.int64(buffer) & ID_MASK) * STRIDE
        copy(ring.bytes, target, ring.memory, ring.places[i] + header, length)
        packets.ids[before + i] = buffer
        packets.lengths[before + i] = length
        if has(packets.flags):
            describe(packets, before + i, load_acquire(ring.memory, ring.places[i]))
        ring.sizes[i] = 0
    return found


@compiled
def describe(packets: Packets, i: int, said: int) -> None:
    """Note what the first byte of the header says of packet `i`'s checksum (5.1.6.2), if that was asked for."""
    good = _GOOD if said & DATA_VALID != 0 else 0
    put(packets.flags, i, _PARTIAL if said & NEEDS_CSUM != 0 else good)


@compiled
def take_odd(ring: GuestRing, packets: Packets, buffer: int) -> int:
    """Take the next frame, whatever its pieces, as the first packet; 0 if there was none, or it was dropped."""
    length = take_chain(ring, buffer)
    if length <= 0:
        return 0
    packets.ids[0] = buffer
    packets.lengths[0] = length
    describe(packets, 0, ring.state[SAID])
    return 1


# ---------------------------------------------------------------------------------------------------------------------
# Transmit


@compiled
def deliver(ring: GuestRing, _pools: Pools, slot: int, count: int) -> int:
    """Copy `count` packets that wait from `slot` on, as far as there are buffers; how many are done with."""
    done = 0
    while done < count:
        found = survey(ring, min(count - done, CHUNK), WRITE_FLAG)
        plain = put_plain(ring, slot + done, found)
        use(ring, plain)
        done += plain
        if plain == 0:
            if offered(ring) == 0 or not put_odd(ring, slot + done):
                break
            done += 1
    return done


@compiled
def put_plain(ring: GuestRing, slot: int, found: int) -> int:
    """Copy packets into the buffers that were looked at, up to one that is too small; how many."""
    header = ring.state[HEADER]
    for i in range(found):
        length = max(min(ring.held.lengths[slot + i], BUFFER_SIZE), 0)
        if header + length > ring.sizes[i]:
            return i
        place = ring.places[i]
        put_header(ring, place)
        source: Any = (np.int64(ring.held.ids[slot + i]) & ID_MASK) * STRIDE
        copy(ring.memory, place + header, ring.bytes, source, length)
        ring.sizes[i] = header + length
    return found


@compiled
def put_header(ring: GuestRing, place: int) -> None:
    """No offload, one buffer (5.1.6.2).

    A header that says so is not written: both sides keep its cache line as long as neither has more to say.
    """
    long = ring.state[HEADER] == HEADER_BYTES
    rest = HEADER_BYTES - 8 if long else LEGACY_HEADER_BYTES - 8
    if load_big(ring.memory, place) != 0 or load_big(ring.memory, place + rest) != (_ONE_BUFFER if long else 0):
        copy(ring.memory, place, ring.header, 0, ring.state[HEADER])


@compiled
def put_odd(ring: GuestRing, slot: int) -> bool:
    """Copy a packet into whatever comes; False if that is not enough, or the ring has stopped."""
    length = max(min(ring.held.lengths[slot], BUFFER_SIZE), 0)
    return put_chain(ring, int(ring.held.ids[slot]), int(length))


def transmitting(deliver: Callable[..., int], hold: Callable[..., int]) -> TxKernels:
    """The kernels of a ring that sends.

    Args:
        deliver: `deliver(ring, pools, slot, count)` copies packets that wait, as far as there are buffers for them; how
            many are done with.
        hold: `hold(ring, pools, packets, first, last)` keeps packets in the ring until it is full; how many.
    """

    @compiled
    def flush(ring: GuestRing, pools: Pools) -> None:
        """Copy what waits, as far as there are buffers; ours go back to their pools."""
        state = ring.state
        if not begin(state):
            return
        size = ring.held.ids.size
        before = state[CLEAN]
        going = True
        while going and state[CLEAN] < state[NEXT]:
            slot = state[CLEAN] & (size - 1) & INDEX_MASK
            count = min(state[NEXT] - state[CLEAN], size - slot)
            done = deliver(ring, pools, slot, count)
            give(pools, ring.held, slot, slot + done)
            state[CLEAN] += done
            going = done == count
        if state[CLEAN] > before:
            call(ring)
        vacate(state)

    @outlined
    def flush_rest(ring: GuestRing, pools: Pools) -> None:
        flush(ring, pools)

    @compiled
    def tx_room(ring: GuestRing, pools: Pools, _wanted: int) -> int:
        """How many packets the ring has room for, of those that wait for buffers of the front end's."""
        if ring.state[CLEAN] < ring.state[NEXT]:
            flush_rest(ring, pools)
        return ring.held.ids.size - (ring.state[NEXT] - ring.state[CLEAN])

    @compiled
    def tx_batch(ring: GuestRing, pools: Pools, packets: Packets, first: int, last: int) -> int:
        """Take packets `first` to `last` until the ring is full, and copy as many as the front end has buffers for; how
        many it took."""
        count = hold(ring, pools, packets, first, last)
        flush(ring, pools)
        return count

    @compiled
    def flush_once_more(ring: GuestRing, pools: Pools) -> None:
        """`flush`, unless a thread that runs the ring does so."""
        if seize(ring.state):
            flush(ring, pools)
            leave(ring.state)

    return TxKernels(tx_batch, tx_room, flush_once_more)


transmit = transmitting(deliver, hold)
