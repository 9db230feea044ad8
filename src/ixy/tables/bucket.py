"""Token buckets: what may pass, at a rate in the long run and in a burst at once."""

from __future__ import annotations

from ixy.jit import compiled, shared
from ixy.record import Record

SECOND = 1_000_000_000  # ns


class Bucket(Record):
    """A token bucket, full at first. A record may begin with it, or an entry of a flow table:

        class Flow(tables.Entry, tables.Bucket):
            refused: int

    Attributes:
        tokens: that are in it, in billionths.
        filled: when that was so, in ns; 0 before the first.
    """

    tokens: int
    filled: int


@shared(compiled)
def take(bucket: Bucket, amount: int, rate: int, burst: int, now: int) -> bool:
    """Take tokens out of a bucket, all or none of them; whether they were there.

    Args:
        amount: of tokens, such as the bytes of a packet; up to 2**32.
        rate: tokens that come in a second, 0 or more.
        burst: the most tokens that it holds, up to 2**32.
        now: the time in ns; 0 counts as 1. One that goes back brings none.
    """
    full, now = burst * SECOND, max(now, 1)
    if bucket.filled == 0:
        bucket.tokens, bucket.filled = full, now
    missing, elapsed = full - bucket.tokens, now - bucket.filled
    if elapsed > 0:
        bucket.filled = now
        if elapsed >> 31 == 0 and rate >> 31 == 0:  # their product has no more than 62 bits
            gained = elapsed * rate
        elif rate == 0:
            gained = 0
        else:
            gained = missing if elapsed > missing // rate else elapsed * rate
        bucket.tokens += min(gained, missing)
    cost = amount * SECOND
    if cost > bucket.tokens:
        return False
    bucket.tokens -= cost
    return True
