"""The checking mode, `IXY_CHECK=1`: who has each packet buffer is written down, and looked at when that changes.

Whoever has buffers has a number, which stands in its `Packets`: a ring, a path, a batch. A buffer passes from one
holder to another by `hand_over` and `taken`, which find out when it was not the giver's. Kernels never raise: what
should not be is recorded, the buffer stays where it is, and when the call is over, `report` raises it, or `log_report`
logs it.

Without the mode the arrays for all this are None, and kernels are compiled as if nothing of it were there.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.errors import OwnershipError
from ixy.jit import CHECKING, compiled, outlined
from ixy.packets.buffers import ID_MASK, MAX_PARTS, POOL_BUFFERS, POOL_SHIFT, POOLS
from ixy.packets.packets import FREE, NOBODY, PROGRAM, Packets, swap
from ixy.unsafe import call_if, fetch_add, swap_if

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ixy.packets.pool import Pools

log = logging.getLogger("ixy.packets")

# Words of the record of violations, and of each violation in it
_FOUND = 0  # how many were found
_WRITTEN = 1  # how many of them are written down
_TOLD = 2  # how many of them were reported
_VIOLATIONS = 3  # the first of them
_BUFFER, _HAD, _GIVER, _TAKER, _WIDTH = 0, 1, 2, 3, 4
_ROOM = 64  # as many are written down until they are reported


def new_columns() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns `holders` and `violations` of `Pools`, None without the checking mode."""
    if not CHECKING:
        return cast(Any, None), cast(Any, None)
    return np.zeros(POOLS * POOL_BUFFERS, np.int64), np.zeros(_VIOLATIONS + _ROOM * _WIDTH, np.int64)


# ---------------------------------------------------------------------------------------------------------------------
# For kernels


@compiled
def hand_over(pools: Pools, packets: Packets, first: int, count: int, giver: int, taker: int) -> int:
    """Note that the buffers of `count` packets from `first` on pass from one holder to another; how many did.

    Packets whose buffers are not all the giver's are put behind the others.
    """
    if not CHECKING:
        return count
    return _hand_over(pools.holders, pools.violations, pools.nexts, packets, first, count, giver, taker)


@compiled
def taken(pools: Pools, pool: int, first: int, last: int, taker: int) -> None:
    """Note that somebody takes the free buffers that lie from `first` to `last` on the stack of `pool`."""
    if CHECKING:
        base = (pool << POOL_SHIFT) & ID_MASK
        _taken(pools.holders, pools.violations, pools.stack, base + first, base + last, taker)


@outlined
def _hand_over(
    holders: NDArray[np.int64],
    violations: NDArray[np.int64],
    nexts: NDArray[np.int32],
    packets: Packets,
    first: int,
    count: int,
    giver: int,
    taker: int,
) -> int:
    end = first
    for i in range(first, first + count):
        if _pass(holders, violations, packets.ids[i], giver, taker):
            if call_if(packets.nexts, _stops_at, (holders, violations, nexts, packets.nexts, i, giver, taker)) == 0:
                swap(packets, end, i)
                end += 1
            else:
                _pass(holders, violations, packets.ids[i], taker, giver)
    return end - first


@outlined
def _stops_at(
    holders: NDArray[np.int64],
    violations: NDArray[np.int64],
    nexts: NDArray[np.int32],
    column: NDArray[np.int32],
    i: int,
    giver: int,
    taker: int,
) -> int:
    """Note that the buffers in which packet `i` goes on pass; if one is not the giver's, none does: its place, else 0.

    A chain that comes back to itself has no other end: that buffer is the taker's already.
    """
    buffer = int(column[i])
    for place in range(1, MAX_PARTS):
        if buffer < 0:
            break
        if not _pass(holders, violations, buffer, giver, taker):
            buffer = int(column[i])
            for _ in range(1, place):
                _pass(holders, violations, buffer, taker, giver)
                buffer = int(nexts[buffer & ID_MASK])
            return place
        buffer = int(nexts[buffer & ID_MASK])
    return 0


@outlined
def _taken(
    holders: NDArray[np.int64],
    violations: NDArray[np.int64],
    stack: NDArray[np.int32],
    first: int,
    last: int,
    taker: int,
) -> None:
    for i in range(first, last):
        _pass(holders, violations, stack[i], FREE, taker)


@compiled
def _pass(holders: NDArray[np.int64], violations: NDArray[np.int64], buffer: int, giver: int, taker: int) -> bool:
    """Note that a buffer passes from one holder to another; False, and a violation, if it is not the giver's."""
    place = buffer & ID_MASK
    if place == buffer and swap_if(holders, place, giver, taker):
        return True
    _record(violations, buffer, holders[place] if place == buffer else NOBODY, giver, taker)
    return False


@outlined
def _record(violations: NDArray[np.int64], buffer: int, had: int, giver: int, taker: int) -> None:
    number = fetch_add(violations, _FOUND, 1)
    if number - violations[_TOLD] < _ROOM:
        row = _VIOLATIONS + number % _ROOM * _WIDTH
        violations[row + _BUFFER] = buffer
        violations[row + _HAD] = had
        violations[row + _GIVER] = giver
        violations[row + _TAKER] = taker
    fetch_add(violations, _WRITTEN, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Pools that come and go


def opened(pools: Pools, ids: NDArray[np.int64]) -> None:
    """Note that the buffers of a new pool are free."""
    if CHECKING:
        pools.holders[ids] = FREE


def closed(pools: Pools, ids: NDArray[np.int64], kept: Iterable[NDArray[np.int32]]) -> None:
    """Note that the buffers of a pool are no more. Those are lost that are not free, nor kept by batches.

    Args:
        ids: all buffers of the pool, by number.
        kept: the buffers that each of its batches still has; they may give them back, in vain.
    """
    if not CHECKING:
        return
    gone = np.setdiff1d(ids, np.concatenate([ids[:0], *kept]))
    for buffer in gone[pools.holders[gone] != FREE]:
        _record(pools.violations, int(buffer), int(pools.holders[buffer]), NOBODY, NOBODY)
    pools.holders[gone] = NOBODY


# ---------------------------------------------------------------------------------------------------------------------
# What is told


_names = {FREE: "its pool", PROGRAM: "the program"}
_telling = threading.Lock()


def name(packets: Packets, called: str) -> None:
    """Say what a holder is called in reports. Those without a name are batches."""
    if CHECKING:
        _names[packets.holder] = called


def report(pools: Pools) -> None:
    """Raise what was found.

    Raises:
        OwnershipError: says which buffer, who had it, and who did what with it.
    """
    if CHECKING and (found := _found(pools)):
        raise OwnershipError(found)


def log_report(pools: Pools) -> None:
    """Log what was found, where nothing can be raised."""
    if CHECKING and (found := _found(pools)):
        log.error(found)


def _found(pools: Pools) -> str:
    """What was found since it was last asked for, in a sentence."""
    violations = pools.violations
    with _telling:
        first, last = int(violations[_TOLD]), int(violations[_FOUND])
        if first == last or last != violations[_WRITTEN]:  # another thread is just writing: the next call tells it
            return ""
        row = _VIOLATIONS + first % _ROOM * _WIDTH
        sentence = _sentence(*violations[row : row + _WIDTH].tolist())
        violations[_TOLD] = last
    return sentence if last - first == 1 else f"{sentence}; and {last - first - 1} more"


def _sentence(buffer: int, had: int, giver: int, taker: int) -> str:
    if giver == taker == NOBODY:
        return f"lost buffer: {buffer} was not given back, {_called(had)} had it last"
    if taker == FREE:
        kind, did = ("double free" if had == FREE else "free of another's buffer"), f"{_called(giver)} freed {buffer}"
    elif giver == FREE:
        kind, did = "buffer that is not free", f"{_called(taker)} took {buffer} from its pool"
    else:
        kind = "use after free" if had == FREE else "use after send" if had in _names else "foreign buffer"
        did = f"{_called(giver)} passed {buffer} to {_called(taker)}"
    return f"{kind}: {did}, but " + (f"{_called(had)} had it" if had != NOBODY else "it is of no living pool")


def _called(holder: int) -> str:
    return _names.get(holder, f"batch {holder}")
