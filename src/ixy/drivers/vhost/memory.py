"""The memory that a front end shares, mapped here: its guest's, or its own.

It comes in regions, each a part of a file. In descriptors stand a guest's addresses, in messages the front end's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.virtio.transports.vhost_messages import MAX_REGIONS, Region
from ixy.errors import MemoryUnavailable
from ixy.unsafe import Window
from ixy.unsafe.faults import Guard

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ADDRESS_SPACE = 512 << 30  # reserved for each device; more memory than that cannot be mapped
_ALIGNMENT = 1 << 30  # of the window, that of the largest pages
_END = 1 << 63  # all memory ends before this address: addresses are positive int64

# Words of a row of `GuestMemory.regions`
START, SIZE, PLACE, WIDTH = 0, 1, 2, 3


class Shared(NamedTuple):
    """A region as a front end describes it: see `Region`, and where in its file it begins."""

    region: Region
    file_offset: int


class GuestMemory:
    """The regions of one front end after the other.

    All lie in one array that stays as long as the device, so that kernels know it; nothing of it may be touched but
    what the table says.

    Attributes:
        bytes: the array.
        regions: by guest's addresses: start, size, and the place in `bytes`; MAX_REGIONS rows in one array, int64.
            Unused ones are at the end, and have size 0.
    """

    def __init__(self) -> None:
        self._window = Window(_ADDRESS_SPACE, _ALIGNMENT)
        self.bytes: NDArray[np.uint8] = self._window.bytes
        self.regions = np.zeros(MAX_REGIONS * WIDTH, np.int64)
        self._rows = self.regions.reshape(MAX_REGIONS, WIDTH)
        self._mapped: list[tuple[Region, int]] = []  # with their places
        self._guards: list[Guard] = []
        self._end = 0

    def lay(self, table: Sequence[Shared]) -> None:
        """Map these regions instead of those before. Nobody may be using those.

        Raises:
            MemoryUnavailable: a region is not what a file has, or cannot be mapped. There are none then.
        """
        self.clear()
        try:
            _check_apart(table)
            for row, shared in enumerate(table):
                place = self._map(shared)
                self._mapped.append((shared.region, place))
                self._rows[row] = shared.region.guest, shared.region.size, place
        except BaseException:
            self.clear()
            raise

    def clear(self) -> None:
        """Let go of all regions. Who still touches one, as a poll that was stopped for long may, does no harm."""
        self.regions[:] = 0
        self._mapped.clear()
        if self._end > 0:
            self._window.idle(0, self._end)
        while self._guards:
            self._guards.pop().close()
        self._end = 0

    def close(self) -> None:
        """Let go of all; arrays of it must not be touched any more."""
        self.clear()
        self._window.close()

    @property
    def lost(self) -> bool:
        """Whether the front end has shortened a file, and somebody has touched what was there."""
        return any(guard.lost for guard in self._guards)

    def find(self, address: int, size: int) -> int:
        """The place of `size` bytes at one of the front end's own addresses; -1 if it has not shared all of them."""
        for region, place in self._mapped:
            if region.user <= address and address + size <= region.user + region.size:
                return place + address - region.user
        return -1

    def _map(self, shared: Shared) -> int:
        """Map the pages that a region lies in; the place of its first byte."""
        region, offset = shared
        what = f"memory at {region.guest:#x}+{region.size:#x}"
        status = os.fstat(region.fd)
        if region.size == 0 or max(region.guest, region.user, offset) + region.size >= _END:
            raise MemoryUnavailable(f"{what} is empty, or longer than addresses are")
        if offset + region.size > status.st_size:
            raise MemoryUnavailable(f"{what} is not part of its file of {status.st_size:#x} bytes")
        page = max(status.st_blksize, _PAGE) if status.st_blksize & (status.st_blksize - 1) == 0 else _PAGE
        first = offset // page * page
        size = -(-(offset + region.size) // page) * page - first
        place = -(-self._end // page) * page
        if place + size > self._window.size:
            raise MemoryUnavailable(f"{what} cannot be mapped: it is more than {_ADDRESS_SPACE >> 30} GiB in all")
        self._guards.append(Guard(self._window, place, size))
        self._window.map(place, size, region.fd, first)
        self._end = place + size
        return place + offset - first


_PAGE = 4096


def _check_apart(table: Sequence[Shared]) -> None:
    """
    Raises:
        MemoryUnavailable: there are too many regions, or two have the same addresses.
    """
    if len(table) > MAX_REGIONS:
        raise MemoryUnavailable(f"{len(table)} regions of memory: {MAX_REGIONS} are possible")
    ranges = sorted((region.guest, region.guest + region.size) for region, _ in table)
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise MemoryUnavailable(f"two regions of memory have the address {start:#x}")
