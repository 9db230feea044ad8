"""Count-min sketch: how often each key was counted, in the same memory however many keys there are.

Each key has one counter in each of several rows; others may have the same, so the least of them is never too small. In
a table of c columns, after n counts in all, an estimate is too large by more than 2.72 n / c for one key in 54 (Cormode
and Muthukrishnan, "An improved data stream summary", 2005). The sum of two sketches is that of all that both have
counted.
"""

from __future__ import annotations

from ixy.arguments import integer
from ixy.jit import compiled, shared
from ixy.record import Elements, array
from ixy.tables.flows import hash, scaled  # noqa: A004

_ROWS = 4
_LOW = 0x7FFF_FFFF


def sketch(columns: int = 1 << 12) -> Elements[int]:
    """A field of a record that is a sketch.

    Raises:
        ConfigurationError: `columns` is below 1, or too large.
    """
    return array(_ROWS * integer("columns", columns, 1, 1 << 24))


@shared(compiled)
def count(counters: Elements[int], key0: int, key1: int = 0, amount: int = 1) -> int:
    """Count a key, `amount` times at once; how often it was counted by now, or a little more."""
    mixed, columns = hash(key0, key1), len(counters) // _ROWS
    least = 0
    for row in range(_ROWS):
        place = _place(mixed, row, columns)
        counters[place] += amount
        least = counters[place] if row == 0 else min(least, counters[place])
    return least


@shared(compiled)
def estimate(counters: Elements[int], key0: int, key1: int = 0) -> int:
    """How often a key was counted, or a little more."""
    mixed, columns = hash(key0, key1), len(counters) // _ROWS
    least = counters[_place(mixed, 0, columns)]
    for row in range(1, _ROWS):
        least = min(least, counters[_place(mixed, row, columns)])
    return least


@shared(compiled)
def _place(mixed: int, row: int, columns: int) -> int:
    """A key's counter in a row. Two halves of one hash are as good as a hash for each row (Kirsch and Mitzenmacher,
    "Less hashing, same performance", 2006)."""
    return row * columns + scaled(((mixed & _LOW) + row * (mixed >> 32)) & _LOW, columns)
