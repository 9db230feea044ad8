"""How a path takes one batch along: kernels made of two rings' kernels and a user's function.

There are two ways, which do the same. By batches, all packets are received, then looked at, then sent, in loops over
many packets that do one thing each. Packet by packet, each is taken from its receive descriptor to its transmit
descriptor in one loop; that is quicker while batches are small. It knows good packets only: whatever else there is goes
by batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.asking import PacketFunction, PathState, asking
from ixy.counts import (
    AT,
    BED,
    BEGUN,
    CULPRIT,
    CULPRIT_BYTES,
    DROPPED,
    FORWARDED,
    HEARD,
    HELD,
    LEFT,
    NOW,
    PAUSE,
    RECEIVED,
    STOP,
)
from ixy.drivers.rings import NEXT, desert
from ixy.jit import compiled, outlined
from ixy.packets.buffers import ID_MASK
from ixy.packets.checking import hand_over
from ixy.packets.packets import INDEX_MASK, stamp, swap
from ixy.packets.pool import abandon, free_count, fresh, give, refill, serve, wanted
from ixy.packets.views import packet_at_hand, packet_view
from ixy.unsafe import load_acquire, store_release, write_file
from ixy.verdicts import DROP

if TYPE_CHECKING:
    import numpy as np

    from ixy.drivers import RxRing, RxSingle, TxRing, TxSingle
    from ixy.packets.pool import Pools

STOPPED = -1  # what a poll answers when the path is to end
SMALL = 15  # batches up to this many packets go packet by packet; from there on the other way is as quick

ALL = 1 << 16  # more packets than any ring has room for, so that it is cleaned


class PollKernels(NamedTuple):
    """What moves packets along a path. For the runner of both rings.

    Attributes:
        poll: `poll(path) -> received` takes one batch along; STOPPED if the path is to end.
        recover: `recover(path)` drops the packets at hand, after the function has raised an exception.
    """

    poll: Callable[[PathState], int]
    recover: Callable[[PathState], None]


def poll_kernels(
    rx: RxRing, tx: TxRing, function: PacketFunction, record: np.dtype[Any] | None, batch: int
) -> PollKernels:
    """The kernels for batches of up to `batch` packets.

    Args:
        function: takes a packet, and a record of this dtype if there is one.
    """
    ask = asking(function, record)
    by_batches = _by_batches(rx.kernel, tx.kernel, room_for(rx.parts, tx), ask)
    if batch > SMALL or rx.single is None or tx.single is None:
        return by_batches
    return _packet_by_packet(rx.single, tx.single, tx.room, ask, by_batches)


def room_for(parts: int, tx: TxRing) -> Callable[..., int]:
    """The kernel `room` of a ring, for packets of up to so many parts."""
    return _divided(tx.room, 1 if tx.holds_chains else parts)


@cache
def _divided(tx_room: Callable[..., int], parts: int) -> Callable[..., int]:
    if parts == 1:
        return tx_room

    @compiled
    def room(ring: Any, pools: Pools, wanted: int) -> int:
        return tx_room(ring, pools, min(wanted * parts, ALL)) // parts

    return room


@compiled
def is_stopped(path: PathState) -> bool:
    """Let others have the pool, if they want it; whether the path is to end."""
    if wanted(path.pools, path.rx.pool):
        serve(path.pools, path.rx.pool)
    return load_acquire(path.counts, STOP) | load_acquire(path.counts, PAUSE) != 0


@outlined
def rouse(counts: Any) -> None:
    """Rouse the simulated cards that sleep, if a doorbell was rung since they fell asleep; they looked once more then.

    Polls that find nothing see to it: one that finds packets has no time for it, and as long as the cards sleep no ring
    has room for many. The word goes first: who falls asleep again sets it anew.
    """
    bed = load_acquire(counts, BED)
    if counts[RECEIVED] != load_acquire(counts, HEARD):
        store_release(counts, BED, 0)
        write_file(bed - 1, counts, RECEIVED, 8)  # an eventfd, to which any number but 0 may be added


@compiled
def leave_all(path: PathState) -> None:
    """Leave the rings and the pool, however often they were entered."""
    abandon(path.pools.words)
    for k in range(len(path.words)):
        desert(path.words[k])
    desert(path.rx.state)


@compiled
def accuse(path: PathState, buffer: Any, number: int) -> None:
    """Keep the first bytes of the packet with which the function raised an exception, `number` of those at hand."""
    path.counts[CULPRIT] = path.counts[RECEIVED] + number
    for i in range(CULPRIT_BYTES):
        path.culprit[i] = path.pools.bytes[buffer & ID_MASK, i]


@compiled
def drop_held(path: PathState) -> None:
    """Drop the packets at hand, and leave everything."""
    held = path.counts[HELD]
    if held > 0:
        at = path.counts[AT]
        accuse(path, path.packets.ids[at], at + 1)
    path.counts[HELD] = path.counts[NOW] = 0
    path.counts[RECEIVED] += held
    path.counts[DROPPED] += held
    give(path.pools, path.packets, 0, held)
    leave_all(path)


@cache
def _by_batches(
    rx_batch: Callable[..., int],
    tx_batch: Callable[..., int],
    tx_room: Callable[..., int],
    ask: Callable[[PathState, Any], int],
) -> PollKernels:

    @outlined
    def fetch_buffers(path: PathState) -> None:
        """Have the transmit ring cleaned: the buffers that the receive ring lacks may lie there, sent."""
        tx_room(path.tx, path.pools, ALL)
        refill(path.pools, path.rx.pool)

    @compiled
    def verdict(path: PathState, i: int) -> int:
        """What the function says of packet `i`."""
        path.counts[AT] = i
        buffer = path.packets.ids[i] & ID_MASK
        return ask(path, packet_view(path.pools, buffer, path.packets, i, path.counts))

    @outlined
    def compact(path: PathState, first: int, received: int) -> int:
        """Go on with the function after packet `first`, the first to be dropped, and move those that are kept to the
        front; how many there are."""
        kept = first
        for i in range(first + 1, received):
            if verdict(path, i) != DROP:
                swap(path.packets, kept, i)
                kept += 1
        return kept

    @compiled
    def poll(path: PathState) -> int:
        packets, counts = path.packets, path.counts
        if is_stopped(path):
            return STOPPED
        # What the transmit ring has no room for stays in the receive ring: if packets are lost, the card counts them.
        limit = min(path.limit, tx_room(path.tx, path.pools, path.limit))
        received = rx_batch(path.rx, path.pools, packets, limit)
        if received == 0:
            if free_count(path.pools, path.rx.pool) == 0:
                fetch_buffers(path)
            if load_acquire(counts, BED) != 0:
                rouse(counts)
            return 0
        counts[HELD] = received
        kept = received
        for i in range(received & INDEX_MASK):
            if verdict(path, i) == DROP:
                kept = compact(path, i, received)
                break
        sent = tx_batch(path.tx, path.pools, packets, 0, kept)
        give(path.pools, packets, sent, received)
        counts[HELD] = counts[NOW] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += sent
        counts[DROPPED] += received - kept
        return received

    return PollKernels(poll, drop_held)


@cache
def _packet_by_packet(
    rx: RxSingle,
    tx: TxSingle,
    tx_room: Callable[..., int],
    ask: Callable[[PathState, Any], int],
    by_batches: PollKernels,
) -> PollKernels:
    begin, look, describe, replace, _ = rx
    load, keep, settle = tx.load, _keeping(ask), _settling(rx.finish, tx.finish)

    @outlined
    def poll_by_batches(path: PathState) -> int:
        return by_batches.poll(path)

    @compiled
    def poll(path: PathState) -> int:
        held, sent, packets, counts, pools = path.rx.held, path.tx.held, path.packets, path.counts, path.pools
        if is_stopped(path):
            return STOPPED
        room = tx_room(path.tx, pools, path.limit)  # which may give buffers back
        free = free_count(pools, path.rx.pool)
        limit = begin(path.rx, min(path.limit, room, free))
        first, following = path.rx.state[NEXT], path.tx.state[NEXT]
        received = kept = 0
        while received < limit:  # each packet is number 0 while it is at hand
            slot = (first + received) & (held.ids.size - 1) & INDEX_MASK
            length = look(path.rx, slot)
            if length == 0:
                break
            received += 1
            counts[BEGUN] = received
            buffer = held.ids[slot]
            describe(path.rx, slot, packets, 0)
            stamp(packets, 0, 1)
            length = keep(path, buffer, length, received - 1)
            if length == 0 or hand_over(pools, held, slot, 1, held.holder, sent.holder) == 0:
                replace(path.rx, slot, buffer)
                counts[LEFT] += 1
            else:
                replace(path.rx, slot, fresh(pools, path.rx.pool, free, kept))
                load(path.tx, (following + kept) & (sent.ids.size - 1) & INDEX_MASK, buffer, length)
                kept += 1
        if received == 0:
            return poll_by_batches(path)
        settle(path, received, kept)
        return received

    return PollKernels(poll, _recovering(replace, settle, by_batches))


@cache
def _keeping(ask: Callable[[PathState, Any], int]) -> Callable[[PathState, Any, int, int], int]:
    @compiled
    def keep(path: PathState, buffer: int, length: int, i: int) -> int:
        """The length of packet `i` of the batch after the function has seen it; 0 if it is to be dropped."""
        packet = packet_at_hand(path.pools.bytes, buffer & ID_MASK, length, path.packets, i, path.counts)
        return packet.length if ask(path, packet) != DROP else 0

    return keep


@cache
def _settling(take: Callable[..., None], send: Callable[..., None]) -> Callable[[PathState, int, int], None]:
    @compiled
    def settle(path: PathState, received: int, kept: int) -> None:
        """Note what has become of packets whose descriptors are written, and ring both doorbells."""
        counts = path.counts
        take(path.rx, path.pools, received, kept)
        send(path.tx, kept)
        counts[NOW] = counts[BEGUN] = counts[LEFT] = 0
        counts[RECEIVED] += received
        counts[FORWARDED] += kept
        counts[DROPPED] += received - kept

    return settle


@cache
def _recovering(
    replace: Callable[..., None], settle: Callable[[PathState, int, int], None], by_batches: PollKernels
) -> Callable[[PathState], None]:
    @compiled
    def recover(path: PathState) -> None:
        begun = path.counts[BEGUN]
        if begun > 0:  # the last one was not finished: its buffer stays in its descriptor
            slot = (path.rx.state[NEXT] + begun - 1) & (path.rx.held.ids.size - 1)
            accuse(path, path.rx.held.ids[slot], begun)
            replace(path.rx, slot, path.rx.held.ids[slot])
            settle(path, begun, begun - 1 - path.counts[LEFT])
        by_batches.recover(path)

    return recover
