"""Chance that can be repeated: numbers that follow from a seed and a count, for kernels and for Python alike.

There is no state but the count, so whoever knows both draws the same, from wherever he begins.
"""

from __future__ import annotations

from ixy.jit import compiled, shared

HALF = 0xFFFF_FFFF
_START = 0x9E37_79B9  # what seed 0 begins with, as `mixed(0)` is 0


@shared(compiled)
def mixed(value: int) -> int:
    """A number of 32 bits, each of which depends on all of `value`'s lower 32 bits; for two of these never the same.

    The steps of Christopher Wellons' lowbias32 with constants below 2^31, so that no product exceeds 63 bits.
    """
    value &= HALF
    value = (value ^ value >> 16) * 0x21F0_AAAD & HALF
    value = (value ^ value >> 15) * 0x735A_2D97 & HALF
    return value ^ value >> 15


@shared(compiled)
def drawn(seed: int, number: int) -> int:
    """Draw `number`, from 0 to 2^63 - 1, of those that follow from a seed of 32 bits: a number of 32 bits."""
    return mixed(key(seed, number) ^ number)


@shared(compiled)
def key(seed: int, number: int) -> int:
    """What 2^32 draws, from a multiple of that on, have in common."""
    return mixed((number >> 32) + seed + _START)


@shared(compiled)
def scaled(draw: int, below: int) -> int:
    """A number from 0 to `below` - 1, at most 2^31 - 1, for one of 32 bits; 0 where `below` is 0."""
    return draw * below >> 32
