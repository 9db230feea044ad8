"""Flow tables: what is known of each flow, by a key of two integers.

A table is an array of entries, of any size; with twice as many as there are flows, next to none finds no place. An
entry lies within some places behind that which its key's hash names (open addressing, linear probing). It is never
removed, but taken over by another flow once it has not been found for longer than its age: so there are no gaps, and
the search for a key may end at the first place that was never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np

from ixy.jit import checked, compiled, outlined, shared
from ixy.record import Elements, Record, add
from ixy.unsafe.records import clear

# Elements and records look at each other's insides.
# pyright: reportPrivateUsage=false

PROBES = 64  # places that a flow may have
FOREVER = 1 << 62  # an age that nothing reaches, in ns

_HALF, _SIGN = 0xFFFF_FFFF, 0x8000_0000
_WORD = (1 << 63) - 1  # of what is not negative compiled, either
_LOW = 0x7FFF_FFFF


class Entry(Record):
    """What the entries of a flow table begin with; a subclass says what is kept of a flow.

    Attributes:
        key0, key1: which flow it is, such as both addresses, and the ports.
        last: when it was found last, in ns; 0 where there was no flow yet.
    """

    key0: int
    key1: int
    last: int


E = TypeVar("E", bound=Entry)


@shared(checked)
def hash(key0: int, key1: int = 0) -> int:  # noqa: A001
    """A number of 63 bits. Each of its lower 32 bits depends on all bits of both keys: a product carries them upwards,
    and its upper half is mixed into its lower one. Only in a checked kernel may products wrap around."""
    value = (key0 ^ key0 >> 32 & _HALF) * 0x1E37_79B9_7F4A_7C15 & _WORD
    value = ((value ^ value >> 32) + (key1 ^ key1 >> 32 & _HALF)) * 0x3F58_476D_1CE4_E5B9 & _WORD
    return value ^ value >> 32


@shared(compiled)
def scaled(value: int, size: int) -> int:
    """A number below `size` for one of 31 bits."""
    return value * size >> 31


@shared(compiled)
def start(entries: Elements[Any], key0: int, key1: int = 0) -> int:
    """The place where a flow's entry is looked for first: what to `ixy.prefetch` of a table that is larger than the
    cache, and then to tell `find`."""
    return scaled(hash(key0, key1) & _LOW, len(entries))


@shared(compiled)
def find(entries: Elements[Any], key0: int, key1: int, now: int = 1, age: int = FOREVER, first: int = -1) -> int:
    """The place of a flow's entry, which is a new one if the flow has none: then all other fields are 0.

    Args:
        now: the time in ns; 0 counts as 1.
        age: in ns. An entry that was last found longer ago is another flow's to take over, or begins anew.
        first: what `start` has said of this flow, where that is known.

    Returns:
        -1 if there is no place for it.
    """
    size, now, free = len(entries), max(now, 1), -1
    place = first if 0 <= first < size else start(entries, key0, key1)
    key0, key1 = _signed(key0), _signed(key1)
    for _ in range(min(PROBES, size)):
        entry = entries[place & _LOW]  # which is known not to be negative
        if entry.last == 0:
            return _begin(entries, place if free < 0 else free, key0, key1, now)
        is_old = now - entry.last > age
        if entry.key0 == key0 and entry.key1 == key1:
            if is_old:
                return _begin(entries, place, key0, key1, now)
            entry.last = now
            return place
        if is_old and free < 0:
            free = place
        place = place + 1 if place + 1 < size else 0
    return _begin(entries, free, key0, key1, now) if free >= 0 else -1


@shared(compiled)
def seek(entries: Elements[Any], key0: int, key1: int, now: int = 1, age: int = FOREVER) -> int:
    """The place of a flow's entry, left as it is; -1 if the flow has none, or an old one."""
    size, place, key0, key1 = len(entries), start(entries, key0, key1), _signed(key0), _signed(key1)
    for _ in range(min(PROBES, size)):
        entry = entries[place]
        if entry.last == 0:
            return -1
        if entry.key0 == key0 and entry.key1 == key1:
            return place if now - entry.last <= age else -1
        place = place + 1 if place + 1 < size else 0
    return -1


@shared(compiled)
def _signed(key: int) -> int:
    """A key as its field has it: in the interpreter it may have more than 64 bits."""
    return ((key >> 32 & _HALF ^ _SIGN) - _SIGN) << 32 | key & _HALF


@shared(outlined)
def _begin(entries: Elements[Any], place: int, key0: int, key1: int, now: int) -> int:
    """Let an entry be a flow's from now on; its place."""
    clear(entries, place)
    entry = entries[place]
    entry.key0, entry.key1, entry.last = key0, key1, now
    return place


def used(entries: Elements[E], now: int = 1, age: int = FOREVER) -> Iterator[E]:
    """The entries that are flows', but for old ones."""
    last = entries._array["last"]
    for place in np.flatnonzero((last != 0) & (now - last <= age)):
        yield entries[int(place)]


def merge(into: Elements[E], other: Elements[E]) -> int:
    """Add each flow of another table, number by number, to the same one of this; for `Record.merge`.

    Returns:
        How many found no place.
    """
    lost = 0
    for entry in used(other):
        place = seek(into, entry.key0, entry.key1)
        last = max(entry.last, into[place].last if place >= 0 else 0)
        place = find(into, entry.key0, entry.key1, last)
        if place < 0:
            lost += 1
            continue
        found = into[place]
        add(cast(Any, found)._row, cast(Any, entry)._row)
        found.key0, found.key1, found.last = entry.key0, entry.key1, last
    return lost
