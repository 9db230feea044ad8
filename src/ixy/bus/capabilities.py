"""The capabilities in a configuration space, and what that of PCI Express says of the link.

Source: PCI Local Bus 3.0, 6.7 (capabilities); PCI Express Base 3.0, 7.8 (the one of PCI Express).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.bus import PcieLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ConfigRead = Callable[[int, int], int]  # of an offset, and of so many bytes there

_STATUS, _HAS_LIST, _FIRST = 0x06, 1 << 4, 0x34
_MOST = 48  # capabilities that fit into 192 bytes: a list that is longer runs in a circle

_EXPRESS = 0x10
_LINK_CAPABILITIES, _LINK_STATUS = 0x0C, 0x12
_SPEEDS = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}  # GT/s


def capabilities(config_read: ConfigRead) -> Iterator[tuple[int, int]]:
    """The id of each capability, and where it lies."""
    if not config_read(_STATUS, 2) & _HAS_LIST:
        return
    place = config_read(_FIRST, 1) & ~3
    for _ in range(_MOST):
        if place == 0:
            return
        yield config_read(place, 1), place
        place = config_read(place + 1, 1) & ~3


def pcie_link(config_read: ConfigRead) -> PcieLink | None:
    """The link of a function; None if it says of none."""
    place = next((place for kind, place in capabilities(config_read) if kind == _EXPRESS), None)
    if place is None:
        return None
    could, now = config_read(place + _LINK_CAPABILITIES, 4), config_read(place + _LINK_STATUS, 2)
    return PcieLink(_speed(now), _width(now), _speed(could), _width(could))


def _speed(register: int) -> float:
    return _SPEEDS.get(register & 0xF, 0.0)


def _width(register: int) -> int:
    return register >> 4 & 0x3F
