"""Headers of all packets of a batch, by name: `batch.ipv4.src` is an array, and `batch.ipv4.ttl -= 1` writes one.

Arrays are masked (`numpy.ma`) where a packet has no such header, or ends before its end. Which packets have one is
found out when the header is named.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.counts import COUNTS
from ixy.headers import ABSENT, Field, Header, fields, size
from ixy.jit import INTERPRETED, Direct, compiled
from ixy.packets.buffers import ID_MASK
from ixy.packets.packets import Packets
from ixy.packets.pool import Pools
from ixy.packets.views import packet_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.batch import Batch

# A batch and its headers look at the same arrays.
# pyright: reportPrivateUsage=false

_WIDE = 16  # bytes of a field that is two integers


class HeaderArrays:
    """One kind of header, of each packet of a batch.

    Each field is a masked array of int64, shape (len(batch),); an IPv6 address is two, its upper and its lower half,
    shape (len(batch), 2). Assigning writes to the packets that have the header, from a number, an address as text, or
    an array, of which what is masked is left out.

    Attributes:
        there: which packets have it, bool.
    """

    def __init__(self, batch: Batch, kind: type[Header]) -> None:
        at = np.full(len(batch), ABSENT, np.int64)
        _on_each(batch, _locating(kind.locate), at)
        vars(self).update(_batch=batch, _kind=kind, _at=at)

    @property
    def there(self) -> NDArray[np.bool_]:
        return self._left() != ABSENT

    def __getattr__(self, name: str) -> Any:
        kind: type[Header] = self._kind
        if name in kind.methods:
            return lambda: _on_each(self._batch, _calling(_whole(kind.methods[name])), self._left())
        field = self._field(name)
        words, there = self._words(field)
        values = words >> field.shift & field.mask if field.size < _WIDE else words
        return np.ma.MaskedArray(values, np.broadcast_to(~there.T, values.T.shape).T)

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._field(name)
        words, there = self._words(field)
        if isinstance(value, (str, bytes, tuple)):
            value = _number(field, value)
        there = there & ~_left_out(value, words.shape)
        values = np.broadcast_to(np.ma.getdata(value), words.shape).astype(np.int64, casting="same_kind")
        if field.size < _WIDE:
            mask = field.mask << field.shift
            values = words & ~mask | values << field.shift & mask
        octets = np.ascontiguousarray(values.astype(">i8")).view(np.uint8).reshape(len(there), -1)
        for i in range(field.size):
            self._bytes()[self._rows(there), self._left()[there] + field.offset + i] = octets[there, i - field.size]

    def __repr__(self) -> str:
        return f"<{self._kind.name} of {np.count_nonzero(self._at != ABSENT)} of {len(self._at)} packets>"

    def _left(self) -> NDArray[np.int64]:
        """Where the header begins in the packets that the batch still has: those at the front may have been sent."""
        self._batch._check()
        return self._at[len(self._at) - len(self._batch) :]

    def _field(self, name: str) -> Field[Any]:
        known = fields(self._kind)
        if name not in known:
            names = ", ".join([*known, *self._kind.methods, "there"])
            raise AttributeError(f"batch.{self._kind.name} has no {name!r}; it has {names}")
        return known[name]

    def _words(self, field: Field[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The bytes of a field as integers, and in which packets they are there."""
        at = self._left()
        there: NDArray[np.bool_] = at + size(self._kind) <= self._batch._column("lengths", "length")
        octets = np.zeros((len(there), max(field.size, 8)), np.uint8)
        for i in range(field.size):
            octets[there, i - field.size] = self._bytes()[self._rows(there), at[there] + field.offset + i]
        words = octets.view(">i8").astype(np.int64)
        return (words if field.size == _WIDE else words[:, 0]), there

    def _bytes(self) -> NDArray[np.uint8]:
        return self._batch.pool._pools.bytes

    def _rows(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        first, last = self._batch._limits
        return self._batch._packets.ids[first:last][chosen]


def _number(field: Field[Any], value: Any) -> Any:
    """What text, bytes or two halves mean, as integers of 64 bits."""
    number = field.number(value)
    if field.size < _WIDE:
        return number
    return np.array([number >> 64, number & (1 << 64) - 1], np.uint64).view(np.int64)


def _left_out(value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """For which packets an array that is assigned says nothing."""
    mask = np.broadcast_to(np.ma.getmaskarray(value), shape)
    return np.any(mask.reshape(shape[0], -1), axis=1)


def _on_each(batch: Batch, kernel: Any, at: NDArray[np.int64]) -> None:
    """Run a kernel on each packet of a batch."""
    batch._check()
    first, last = batch._limits
    kernel(batch.metadata, batch.pool._pools, batch._packets, first, last, at, np.zeros(COUNTS, np.int64))


@cache
def _whole(method: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    """A header's method, which changes the packet itself also where that is interpreted, and so a copy."""

    def call(packet: Any, at: int) -> None:
        method(packet, at)
        packet.write_back()

    return call if INTERPRETED else method


@cache
def _locating(locate: Callable[[Any], int]) -> Direct:
    @compiled
    def find(
        pools: Pools, packets: Packets, first: int, last: int, at: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        """Note where in packets `first` to `last` a header begins."""
        for i in range(first, last):
            at[i - first] = locate(packet_view(pools, packets.ids[i] & ID_MASK, packets, i, counts))

    return Direct(find)


@cache
def _calling(method: Callable[[Any, int], None]) -> Direct:
    @compiled
    def call(
        pools: Pools, packets: Packets, first: int, last: int, at: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        """Call a header's method in the packets that have the header."""
        for i in range(first, last):
            if at[i - first] != ABSENT:
                packet = packet_view(pools, packets.ids[i] & ID_MASK, packets, i, counts)
                method(packet, at[i - first])

    return Direct(cast(Any, call))
