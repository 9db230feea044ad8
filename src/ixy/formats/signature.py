"""The signature of a test packet: its last bytes, which say which packet it is, when it was sent, and whether any bit
of it has changed on its way.

It has nine words of 16 bits, in network byte order:

    stream     1 word
    sequence   3 words  the packet's number in its stream, modulo 2^48
    time       3 words  when it was sent, in nanoseconds, modulo 2^48
    checked    1 word
    balance    1 word

Two sums are constants, of words in ones' complement as in the Internet checksum (RFC 1071), so modulo 2^16 - 1. The
first is that of the nine words: `balance` makes it so, and the checksum of a datagram that ends with a signature is
the same whatever the signature says. The second is that of the words before the signature, and of eight times its
first word, seven times its second and so on, once `checked`, which makes it so (as in Fletcher's checksum).

A bit that was inverted changes its word by ± 2^k. Before the signature that shows in the second sum alone. In it the
first sum changes by ± 2^k and the second by the word's weight times that: the one says which bit it is, and the other,
divided by it, which word. So no inverted bit remains unseen, and one in the signature is put right.

Words are counted backwards from the signature, so that it may begin at an odd byte. What lies before `skip` is in no
sum: behind routers, those are headers, which they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ixy.jit import compiled, outlined
from ixy.unsafe import load_big, store_big

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

BYTES = 18
SUM = 0x6978  # of the nine words
_CHECKED_SUM = 0x7921
_MODULUS = 0xFFFF  # 2^16 is 1 modulo this: words may be added up in twos or threes
_HALF = 0xFFFF_FFFF
_WORD = 0xFFFF
_NUMBER = (1 << 48) - 1
_WORDS = 8  # without `balance`, whose weight is 0

INTACT, CORRUPTED, FOREIGN = range(3)  # of a packet: as it was sent; a bit is inverted; no test packet


@compiled
def sign(frame: Bytes, start: int, length: int, skip: int, stream: int, sequence: int, time: int) -> None:
    """Write a signature into the last bytes of a frame.

    Args:
        start, length: where in `frame` it begins, and how many bytes it has, 18 at least.
        skip: so many of its first bytes are not compared.
        stream: 0 to 65,535.
        sequence, time: taken modulo 2^48.
    """
    at = start + length - BYTES
    first = int(np.int64(stream) << 48) | sequence & _NUMBER  # which may wrap around, in the interpreter too
    second = int((np.int64(time) & _NUMBER) << 16)
    total = _sum_before(frame, at, length - BYTES - skip) + _weighted_sum(first, second)
    second |= _complement(total, _CHECKED_SUM)
    balance = _complement(_sum(first) + _sum(second), SUM)
    store_big(frame, at, first)
    store_big(frame, at + 8, second)
    frame[at + 16], frame[at + 17] = balance >> 8, balance & 0xFF


@compiled
def read(frame: Bytes, start: int, length: int, skip: int) -> tuple[int, int, int]:
    """What a frame's signature says: INTACT, CORRUPTED or FOREIGN, and of what is not foreign two integers, for
    `stream_of`, `sequence_of` and `time_of`. The arguments are those of `sign`, of a frame of any length."""
    if length < BYTES:
        return FOREIGN, 0, 0
    at = start + length - BYTES
    first, second = load_big(frame, at), load_big(frame, at + 8)
    balance = load_big(frame, at + BYTES - 8) & _WORD
    one = (_sum(first) + _sum(second) + balance + _MODULUS - SUM) % _MODULUS
    two = _sum_before(frame, at, length - BYTES - skip) + _weighted_sum(first, second)
    two = (two + _MODULUS - _CHECKED_SUM) % _MODULUS
    if one | two == 0:
        return INTACT, first, second
    return _corrected(first, second, balance, one, two)


@compiled
def stream_of(first: int) -> int:
    return first >> 48 & _WORD


@compiled
def sequence_of(first: int) -> int:
    return first & _NUMBER


@compiled
def time_of(second: int) -> int:
    return second >> 16 & _NUMBER


@compiled
def passed(now: int, time: int) -> int:
    """How long ago a time was, in nanoseconds: two days at most, or as much below 0."""
    half = 1 << 47
    return (now - time + half & _NUMBER) - half


@compiled
def _sum(words: int) -> int:
    """The sum of four words, not reduced."""
    return (words >> 32 & _HALF) + (words & _HALF)


@compiled
def _weighted_sum(first: int, second: int) -> int:
    """The words of a signature by their weights, from 8 down to 1."""
    high, low = 4 * _sum(first), 0
    for words in (first, second):
        low += 4 * (words >> 48 & _WORD) + 3 * (words >> 32 & _WORD) + 2 * (words >> 16 & _WORD) + (words & _WORD)
    return high + low


@compiled
def _sum_before(frame: Bytes, end: int, size: int) -> int:
    """The sum of the words in the `size` bytes before `end`, not reduced; of an odd number, the first byte counts as
    the lower half of a word. A signature follows, so 8 bytes are there wherever one begins."""
    size = max(size, 0)
    at, odd = end - size, 8 * (size & 7)
    words = load_big(frame, at) >> 1 >> 63 - odd & (1 << odd) - 1
    total = _sum(words)
    at += size & 7
    for _ in range(size >> 3):
        total += _sum(load_big(frame, at))
        at += 8
    return total


@compiled
def _complement(total: int, wanted: int) -> int:
    """The word that makes a sum the wanted one."""
    return (wanted + _MODULUS - total % _MODULUS) % _MODULUS


# ---------------------------------------------------------------------------------------------------------------------
# Which bit it was


@outlined
def _corrected(first: int, second: int, balance: int, one: int, two: int) -> tuple[int, int, int]:
    """What the signature said before a bit was inverted, if one alone explains by how much the sums are off."""
    if one == 0:
        return (CORRUPTED, first, second) if _bit(two) >= 0 or _bit(_MODULUS - two) >= 0 else (FOREIGN, 0, 0)
    risen = _bit(one) >= 0
    bit = _bit(one) if risen else _bit(_MODULUS - one)
    if bit < 0:
        return FOREIGN, 0, 0
    for weight in range(_WORDS + 1):
        if (weight * one - two) % _MODULUS == 0:
            shift = 16 * ((weight - 1) & 3) + bit
            words = balance << 48 if weight == 0 else first if weight > 4 else second
            if (words >> shift & 1 != 0) != risen:
                return FOREIGN, 0, 0
            if weight == 0:
                return CORRUPTED, first, second
            if weight > 4:
                return CORRUPTED, first ^ 1 << shift, second
            return CORRUPTED, first, second ^ 1 << shift
    return FOREIGN, 0, 0


@compiled
def _bit(value: int) -> int:
    """Which power of two a number is, -1 if none."""
    for bit in range(16):
        if value == 1 << bit:
            return bit
    return -1
