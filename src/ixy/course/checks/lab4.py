"""The check of lab 4: DMA memory."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ixy.course.trials import EAGER, Labs, need, trial

if TYPE_CHECKING:
    from ixy.course.bench import Bench

_ALIGNMENT, _DESCRIPTOR = 128, 16
_LONGEST_FRAME = 1518
_COUNT = 40


@trial(EAGER)
def splits(labs: Labs, _bench: Bench) -> None:
    """halves splits an address for two registers."""
    for address in (0x0123_4567_89AB_CD00, 0xFFFF_FF80, 0x1_0000_0000):
        low, high = address & 0xFFFFFFFF, address >> 32
        found = labs.lab4.halves(address)
        need(
            found == (low, high),
            f"the halves of {address:#x} are {low:#x} and {high:#x}, the lower one first, not {_shown(found)}",
            "RDBAL and RDBAH",
            "8.2.3.8.1",
        )


def _shown(found: Any) -> str:
    """What was given, in hexadecimal if it is numbers."""
    try:
        return " and ".join(f"{half:#x}" for half in found)
    except (TypeError, ValueError):
        return repr(found)


@trial(EAGER)
def makes_rings(labs: Labs, bench: Bench) -> None:
    """new_ring gives memory where a card accepts a ring."""
    for size in (32, 8, 256):
        memory = labs.lab4.new_ring(bench.bus, size)
        need(memory in bench.bus.memories, f"new_ring gives {memory!r}, and not memory of bus.allocate")
        need(
            memory.address % _ALIGNMENT == 0,
            f"the ring lies at {memory.address:#x}, which is no multiple of 128: RDBAL has no bits for less",
            "RDBAL",
            "8.2.3.8.1",
        )
        need(
            memory.size >= size * _DESCRIPTOR,
            f"a ring of {size} descriptors of 16 bytes has {size * _DESCRIPTOR} bytes, not {memory.size}",
            "RDLEN",
            "8.2.3.8.3",
        )
        need(
            not any(memory.read(0, size * _DESCRIPTOR)),
            "the ring is not all zeros: what memory held before would look like descriptors that are done (DD)",
            "DD",
            "7.1.6.2",
        )


@trial(EAGER)
def lends_buffers(labs: Labs, bench: Bench) -> None:
    """A pool lends each buffer once, and takes it back once."""
    pool = labs.lab4.Pool(bench.bus, _COUNT)
    taken: list[Any] = [pool.take() for _ in range(_COUNT)]
    need(None not in taken, f"a pool of {_COUNT} buffers gave None before all were taken", "Pool.take")
    need(len(set(taken)) == _COUNT, "a buffer was lent twice: one buffer, one user", "Pool.take")
    places = sorted(pool.address(buffer) for buffer in taken)
    apart = min(after - before for before, after in pairwise(places))
    need(apart >= _LONGEST_FRAME, f"buffers lie {apart} bytes apart: a frame of 1518 bytes would run over", "Pool")
    for place in (places[0], places[-1] + _LONGEST_FRAME - 1):
        need(
            bench.bus.find(place) is not None,
            f"a buffer reaches to {place:#x}, which is no memory that the card sees: addresses begin at Memory.address",
            "Packet Buffer Address",
            "7.1.6.1",
        )
    need(pool.take() is None, "all buffers are lent: take gives None then", "Pool.take")
    pool.give(taken[7])
    need(pool.take() == taken[7], "a buffer that was given back is free again", "Pool.give")
    for buffer in taken:
        pool.give(buffer)
    for wrong, what in ((taken[0], "given back twice"), (1, "no buffer")):
        refused = False
        try:
            pool.give(wrong)
        except ValueError:
            refused = True
        need(refused, f"a buffer that is {what} is a ValueError: else two users would have it", "Pool.give")
    again: list[Any] = [pool.take() for _ in range(_COUNT)]
    need(set(again) == set(taken), "not all buffers came back", "Pool.give")
