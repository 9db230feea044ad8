"""A recording divided between the two ends of a network: what clients sent, and what servers did.

Of each pair of addresses the client is who sent the first packet, or the other one if that packet accepts a connection
(TCP's SYN and ACK): so tcpprep's mode "client" does. Addresses are those of IP or ARP, else those of the frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.apps.rewriting import TCP, Place, half, locate, quad
from ixy.jit import compiled
from ixy.tables.flows import hash as mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Words = NDArray[np.int64]

CLIENT, SERVER = 0, 1
_SYN_ACK = 0x12
_LEAST = 1 << 12  # places of a table


class Sides:
    """Knows the client of each pair of addresses seen so far: 16 bytes a pair, in a table that is half full at most."""

    def __init__(self) -> None:
        self._table = np.zeros((_LEAST, 2), np.int64)
        self._pairs = np.zeros(1, np.int64)

    def divide(self, data: Bytes, starts: Words, sizes: Words, sides: Words) -> None:
        """Say of each frame `data[starts[i]:][:sizes[i]]` who sent it: `CLIENT` or `SERVER`, into `sides`."""
        done = 0
        while done < starts.size:
            done = _divide(data, starts, sizes, sides, self._table, self._pairs, done)
            if done < starts.size:
                larger = np.zeros((2 * len(self._table), 2), np.int64)
                _move(self._table, larger)
                self._table = larger


@compiled
def _divide(data: Bytes, starts: Words, sizes: Words, sides: Words, table: Words, pairs: Words, first: int) -> int:
    """The first frame that was not looked at, as the table is half full."""
    for i in range(first, starts.size):
        if 2 * pairs[0] >= table.shape[0]:
            return i
        sides[i] = _side(data, starts[i], sizes[i], table, pairs)
    return starts.size


@compiled
def _side(data: Bytes, start: int, size: int, table: Words, pairs: Words) -> int:
    if size < 14:
        return CLIENT
    place = locate(data, start, size)
    source, target = _key(data, place.source, place.size), _key(data, place.target, place.size)
    upwards = 1 if source < target else 0
    key = max(mixed(min(source, target), max(source, target)), 1)
    at = _find(table, key)
    if table[at, 0] == 0:
        table[at, 0] = key
        table[at, 1] = 1 - upwards if _accepts_connection(data, start + size, place) else upwards
        pairs[0] += 1
    return CLIENT if table[at, 1] == upwards else SERVER


@compiled
def _key(data: Bytes, at: int, size: int) -> int:
    """A number for an address: itself, or of IPv6 a hash."""
    if size == 4:
        return quad(data, at)
    if size == 6:
        return quad(data, at) << 16 | half(data, at + 4)
    high = mixed(quad(data, at), quad(data, at + 4))
    return mixed(mixed(high, quad(data, at + 8)), quad(data, at + 12))


@compiled
def _accepts_connection(data: Bytes, end: int, place: Place) -> bool:
    return place.protocol == TCP and place.behind + 14 <= end and data[place.behind + 13] & _SYN_ACK == _SYN_ACK


@compiled
def _find(table: Words, key: int) -> int:
    """The place of a pair, or the free one where it belongs. The table's size is a power of two."""
    at = key & (table.shape[0] - 1)
    while table[at, 0] != 0 and table[at, 0] != key:
        at = (at + 1) & (table.shape[0] - 1)
    return at


@compiled
def _move(table: Words, larger: Words) -> None:
    for row in range(table.shape[0]):
        if table[row, 0] != 0:
            at = _find(larger, table[row, 0])
            larger[at, 0], larger[at, 1] = table[row, 0], table[row, 1]
