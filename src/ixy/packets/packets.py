"""Packets as kernels see them: a structure of arrays, an element a packet.

Buffer numbers and lengths are always there. The other columns are what a device says about a packet, and are there only
where they were asked for (`ixy.open(..., metadata=…)`): a column that is None has the type None, so a kernel that fills
or carries it is compiled to nothing. Kernels write columns by `unsafe.put` and `unsafe.move`, and ask by `unsafe.has`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntFlag
from itertools import count as count_from
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ixy.errors import ConfigurationError
from ixy.jit import CHECKING, compiled
from ixy.unsafe import date_ns, exchange, has, move, move_or, put

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Flags(IntFlag):
    """What a device found out about a packet. Of a checksum that it did not look at, it says neither good nor bad.

    Of a packet that is to be sent, IP_PARTIAL, L4_PARTIAL and VLAN say what is to be done to it. Kernels take flags as
    numbers: `packet.flags |= ixy.Flags.L4_PARTIAL`.
    """

    IP_GOOD = 1 << 0  # the checksum of the IPv4 header is right
    IP_BAD = 1 << 1
    L4_GOOD = 1 << 2  # the checksum of TCP or UDP is right
    L4_BAD = 1 << 3
    L4_PARTIAL = 1 << 4  # no checksum was made: the packet comes from this machine (VirtIO 1.2, 5.1.6.4.1)
    VLAN = 1 << 5  # a VLAN tag was taken out of the packet, see `vlans`
    HASH = 1 << 6  # the packet was hashed, see `hashes`
    IP_PARTIAL = 1 << 7  # the IPv4 header, if there is one, has no checksum yet
    IPV4 = 1 << 8
    IPV6 = 1 << 10
    TCP = 1 << 12
    UDP = 1 << 13


# Who has a buffer, as the checking mode notes it by number; other holders have numbers of their own.
NOBODY = 0  # it is no buffer of a living pool
FREE = 1  # its pool
PROGRAM = 2  # packets that were made without a number
_numbers = count_from(PROGRAM + 1)


# Rings and batches have at most so many entries. Masked with this, an index is known to be positive, and the compiler
# leaves out what Python's negative indices would need.
INDEX_MASK = 0xFFFF

NO_NEXT = -1  # the buffer in which a packet goes on that does not

_INT32 = np.dtype(np.int32)

METADATA = ("flags", "hash", "vlan", "time", "segments", "parts")
"""What can be asked for, by the names that `ixy.open` takes."""


class Packets(NamedTuple):
    """Some packets, or a ring's descriptors that hold packets.

    Attributes:
        ids: the packets' buffers, by number, int32.
        lengths: in bytes, without the frame check sequence, int32; left out by rings, which need not know them. Of a
            packet that goes on in another buffer, those in its first.
        flags: see `Flags`, uint32.
        hashes: RSS hash, uint32; 0 where `Flags.HASH` is not set.
        vlans: the tag that was taken out: priority, DEI and VLAN (IEEE 802.1Q), uint16; 0 where there was none.
        times: when the packet was received, in ns since 1970, int64: that of the poll, unless the device stamps.
        offsets: where in its buffer a packet begins, from the buffer's first byte on; negative in the headroom; int16.
        nexts: the buffer in which a packet goes on, or NO_NEXT, int32. From there on `Pools` knows the way: a packet of
            several parts is a chain, and who takes it takes all of its buffers.
        segments: bytes of TCP's payload in each of the segments that the packet was put together from, or that it is
            to be cut into, uint16; 0 where it is neither.
        holder: the number by which the checking mode knows these packets' owner.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    flags: NDArray[np.uint32] | None = None
    hashes: NDArray[np.uint32] | None = None
    vlans: NDArray[np.uint16] | None = None
    times: NDArray[np.int64] | None = None
    offsets: NDArray[np.int16] | None = None
    nexts: NDArray[np.int32] | None = None
    segments: NDArray[np.uint16] | None = None
    holder: int = PROGRAM


def new_packets(
    count: int, metadata: Sequence[str] = (), *, new: Callable[[int, Any], NDArray[Any]] = np.empty
) -> Packets:
    """Room for `count` packets, with the columns that are asked for by the names in `METADATA`.

    Args:
        new: makes a column, from `count` and its type.
    """
    ids, lengths = new(count, _INT32), new(count, _INT32)
    if not metadata and not CHECKING:
        return Packets(ids, lengths)  # to name columns that are not there takes a microsecond
    return Packets(
        ids=ids,
        lengths=lengths,
        flags=new(count, np.uint32) if "flags" in metadata else None,
        hashes=new(count, np.uint32) if "hash" in metadata else None,
        vlans=new(count, np.uint16) if "vlan" in metadata else None,
        times=new(count, np.int64) if "time" in metadata else None,
        nexts=new(count, np.int32) if "parts" in metadata else None,
        segments=new(count, np.uint16) if "segments" in metadata else None,
        holder=_new_holder(),
    )


def slots(count: int) -> Packets:
    """The descriptors of a ring: which buffer each holds. Its driver needs no more."""
    return Packets(np.zeros(count, np.int32), cast(Any, None), holder=_new_holder())


def _new_holder() -> int:
    """A number that no other packets have, in the checking mode."""
    return next(_numbers) if CHECKING else PROGRAM


def check_metadata(address: str, names: object, possible: Iterable[str]) -> tuple[str, ...]:
    """What is asked for as metadata, once each, in the order of `METADATA`.

    Args:
        possible: what the device can tell.

    Raises:
        TypeError: no sequence of names.
        ConfigurationError: says which name nobody knows, or which the device cannot tell.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"metadata must be names, such as ('hash', 'vlan'), not {names!r}")
    asked: list[object] = list(cast(Iterable[object], names))
    for name in asked:
        if name not in METADATA:
            raise ConfigurationError(f"{address}: metadata {name!r}: possible are {', '.join(METADATA)}")
        if name not in possible:
            raise ConfigurationError(f"{address}: the device does not tell {name!r}: leave it out of metadata")
    return tuple(name for name in METADATA if name in asked)


@compiled
def stamp(packets: Packets, first: int, last: int) -> None:
    """Note that packets `first` to `last` have just been received, if that was asked for."""
    if has(packets.times) and first < last:
        now = date_ns()
        for i in range(first, last):
            put(packets.times, i, now)


@compiled
def swap(packets: Packets, one: int, other: int) -> None:
    """Let packet `other` be at `one`, whose buffers are at `other` then. The rest of what stood at `one` is dropped."""
    ids = packets.ids
    ids[one], ids[other] = ids[other], ids[one]
    move(packets.lengths, one, packets.lengths, other)
    move(packets.flags, one, packets.flags, other)
    move(packets.hashes, one, packets.hashes, other)
    move(packets.vlans, one, packets.vlans, other)
    move(packets.times, one, packets.times, other)
    move(packets.offsets, one, packets.offsets, other)
    exchange(packets.nexts, one, other)
    move(packets.segments, one, packets.segments, other)


@compiled
def carry(target: Packets, to: int, source: Packets, start: int, count: int) -> None:
    """Let packets `to` and those after it be `count` others; columns that only `target` has say nothing."""
    to &= INDEX_MASK
    start &= INDEX_MASK
    for i in range(count & INDEX_MASK):
        target.ids[to + i] = source.ids[start + i]
        target.lengths[to + i] = source.lengths[start + i]
    for i in range(count & INDEX_MASK):
        move(target.flags, to + i, source.flags, start + i)
        move(target.hashes, to + i, source.hashes, start + i)
        move(target.vlans, to + i, source.vlans, start + i)
        move(target.times, to + i, source.times, start + i)
        move(target.offsets, to + i, source.offsets, start + i)
        move_or(target.nexts, to + i, source.nexts, start + i, NO_NEXT)
        move(target.segments, to + i, source.segments, start + i)
