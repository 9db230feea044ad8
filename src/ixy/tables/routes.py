"""Routing tables: for an IPv4 address, the value of the longest prefix that it lies in.

Of an address, the first 16 bits are a place in the first 65,536 elements, where the value stands, or the number of a
group of 256 elements for the next 8 bits, in which likewise the value stands or a group for the last 8 (as DIR-24-8 of
Gupta, Lin and McKeown, 1998, with smaller steps). With the value stands how long its prefix is, so that routes can be
added in any order, and while a path looks them up.
"""

from __future__ import annotations

from ipaddress import IPv4Network

import numpy as np
from numpy.typing import NDArray

from ixy.arguments import integer
from ixy.errors import ConfigurationError
from ixy.jit import compiled, shared
from ixy.record import Elements, array, uint32

# Elements and records look at each other's insides.
# pyright: reportPrivateUsage=false

_FIRST = 1 << 16  # elements of the first level
_GROUP = 1 << 8
_BITS = (16, 24, 32)  # of an address that are known behind each level
_HAS_GROUP = 1 << 31  # an element's value is the number of a group
_LENGTH = 24  # the bit at which a prefix's length stands, plus one: 0 is no route
_VALUE = (1 << _LENGTH) - 1


def routes(groups: int = 256) -> Elements[int]:
    """A field of a record that is a routing table, of 256 KB and 1 KB for each group.

    Args:
        groups: of 256 addresses that begin with the same 24 bits, or of 256 such blocks, that can be told apart.

    Raises:
        ConfigurationError: `groups` is below 1, or too large.
    """
    return array(_FIRST + _GROUP * integer("groups", groups, 1, 1 << 17), uint32)


@shared(compiled)
def lookup(table: Elements[int], address: int) -> int:
    """The value of the longest prefix that an address lies in; -1 if there is none."""
    found = table[address >> 16 & 0xFFFF]
    if found >= _HAS_GROUP:
        found = table[_FIRST + ((found & _VALUE) << 8 | address >> 8 & 0xFF)]
        if found >= _HAS_GROUP:
            found = table[_FIRST + ((found & _VALUE) << 8 | address & 0xFF)]
    return found & _VALUE if found != 0 else -1


def add_route(table: Elements[int], prefix: str, value: int) -> None:
    """Give a prefix a value, or another one. It cannot be taken away.

    Args:
        prefix: such as "10.0.0.0/8"; one address is a prefix too.
        value: 0 to 2**24 - 1, such as the number of an output.

    Raises:
        ConfigurationError: `prefix` is none, `value` is out of bounds, or there are not enough groups. All is looked up
            as before then.
    """
    try:
        network = IPv4Network(prefix)
    except ValueError as error:
        raise ConfigurationError(f"no IPv4 prefix: {error}") from None
    value = integer("value", value, 0, _VALUE)
    address, length, memory = int(network.network_address), network.prefixlen, table._array
    place, level = address >> 16, 0
    while length > _BITS[level]:
        level += 1
        place = _group(memory, place, prefix) + (address >> 32 - _BITS[level] & 0xFF)
    _cover(memory, place, 1 << _BITS[level] - length, (length + 1) << _LENGTH | value)


def _group(memory: NDArray[np.uint32], place: int, prefix: str) -> int:
    """Where the group begins to which an element leads, a new one if it leads to none."""
    if memory[place] < _HAS_GROUP:
        number = int(np.count_nonzero(memory >= _HAS_GROUP))  # one element leads to each
        start = _FIRST + _GROUP * number
        if start == len(memory):
            raise ConfigurationError(f"{prefix}: all {number} groups are taken: make the table by routes({2 * number})")
        memory[start : start + _GROUP] = memory[place]
        memory[place] = _HAS_GROUP | number  # from now on a kernel goes there
    return _FIRST + _GROUP * (int(memory[place]) & _VALUE)


def _cover(memory: NDArray[np.uint32], start: int, count: int, route: int) -> None:
    """Write a route to elements, but where there is one with a longer prefix."""
    block = memory[start : start + count]
    block[block >> _LENGTH <= route >> _LENGTH] = route  # what leads to a group is larger than any
    for found in block[block >= _HAS_GROUP]:
        _cover(memory, _FIRST + _GROUP * int(found & _VALUE), _GROUP, route)
