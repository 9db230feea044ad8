"""What both kinds of rings have, seen from the device's end: their state, where buffers lie, who works on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import OWN_WORDS
from ixy.drivers.vhost.memory import PLACE as REGION_PLACE
from ixy.drivers.vhost.memory import SIZE as REGION_SIZE
from ixy.drivers.vhost.memory import START as REGION_START
from ixy.drivers.vhost.memory import WIDTH
from ixy.jit import compiled
from ixy.unsafe import load_acquire, store_release, swap_if, this_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.packets import Packets

# Words of a ring's `state` besides those of `linux.rings`
LOCK = OWN_WORDS  # the thread that works on the ring in shared memory, 0 if none does
RUNNING = OWN_WORDS + 1  # 1 while there is a ring
BROKEN = OWN_WORDS + 2  # why it has stopped until the front end sets it up anew, 0 while it has not
PACKED = OWN_WORDS + 3  # 1 for a packed ring
SIZE = OWN_WORDS + 4  # descriptors, a power of two
DESCRIPTORS = OWN_WORDS + 5  # where the ring's parts lie in the memory
DRIVER = OWN_WORDS + 6
DEVICE = OWN_WORDS + 7
PLACE = OWN_WORDS + 8  # the place whose turn it is, counted without wrapping
HEADER = OWN_WORDS + 9  # bytes before each frame
MERGEABLE = OWN_WORDS + 10  # 1 if a frame may go on in the next buffer
CALL = OWN_WORDS + 11  # the file by which the front end is called, -1 if there is none
CALLING = OWN_WORDS + 12  # 1 while it is being written to
FENCE = OWN_WORDS + 13
REGION = OWN_WORDS + 14  # the region of the last buffer, as a place in `regions`
SAID = OWN_WORDS + 15  # the first byte of the header of the last frame that was received in pieces
# Of rings with offloads, or packets of several parts, see `offloads`
ABLE = OWN_WORDS + 16  # what the front end has accepted, see `virtio.headers`
ASKED = OWN_WORDS + 17  # transmit: what is to be done, whatever it has accepted
UNCHANGED = OWN_WORDS + 18  # transmit: packets that were sent as they are, as nothing could be done to them
FROM = OWN_WORDS + 19  # transmit: where what comes next of the packet at hand lies, how much of it, and in which buffer
LEFT = OWN_WORDS + 20  # it goes on
AHEAD = OWN_WORDS + 21
PARTS = OWN_WORDS + 22  # receive: the most buffers of a packet
STATE_WORDS = 32

# Values of BROKEN: what the front end did
BAD_INDEX, BAD_DESCRIPTOR, BAD_CHAIN, BAD_ADDRESS, BAD_CALL = 1, 2, 3, 4, 5
BREACHES = {
    BAD_INDEX: "it has offered more buffers than the ring has",
    BAD_DESCRIPTOR: "it has offered a descriptor that the ring does not have",
    BAD_CHAIN: "its descriptors do not make a buffer for that ring: in a circle, indirect, or of the wrong direction",
    BAD_ADDRESS: "it has offered a buffer outside the memory that it shares",
    BAD_CALL: "it does not take calls, and lets who calls wait",
}

MERGED = 64  # buffers that a packet of 64 KiB may need, if they are not very small
CHUNK = 32  # buffers that are looked at before the first is used

# What a descriptor says, once its flags are at bit 0 (VirtIO 1.2, 2.7.5 and 2.8.13)
TO_READ, NEXT_FLAG, WRITE_FLAG, INDIRECT_FLAG = 0, 1, 2, 4
KIND = NEXT_FLAG | WRITE_FLAG | INDIRECT_FLAG


class GuestRing(NamedTuple):
    """A ring of the front end's. Where it lies, and all that was negotiated, stands in `state`: it comes and goes.

    Attributes:
        memory: shared memory, see `GuestMemory`, uint8.
        halves, longs, words: the same as uint16, uint32, int64.
        regions: see `GuestMemory`.
        places, sizes, names: of the buffers that were looked at, shape (CHUNK,) or (MERGED,), int64: where each lies,
            its size, and then how much was written to it; by what name it is given back.
        held: packets that wait to be sent; none for a ring that receives.
        state: shape (STATE_WORDS,), int64.
        bytes: all packet buffers in a row; buffer n starts at n * STRIDE.
        header: what is put before each frame, shape (HEADER_BYTES,), uint8.
        message: what is written to call the front end, uint8.
        pool: number of the pool that buffers come from; -1 for a ring that sends.
    """

    memory: NDArray[np.uint8]
    halves: NDArray[np.uint16]
    longs: NDArray[np.uint32]
    words: NDArray[np.int64]
    regions: NDArray[np.int64]
    places: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: NDArray[np.int64]
    held: Packets
    state: NDArray[np.int64]
    bytes: NDArray[np.uint8]
    header: NDArray[np.uint8]
    message: NDArray[np.uint8]
    pool: int


@compiled
def occupy(state: NDArray[np.int64]) -> bool:
    """Be the one who works on the ring; False if somebody else does."""
    return load_acquire(state, LOCK) == this_thread() or swap_if(state, LOCK, 0, this_thread())


@compiled
def vacate(state: NDArray[np.int64]) -> None:
    store_release(state, LOCK, 0)


@compiled
def begin(state: NDArray[np.int64]) -> bool:
    """`occupy` a ring that runs. What changes it waits for `vacate`."""
    if load_acquire(state, RUNNING) == 0 or not occupy(state):
        return False
    if state[RUNNING] == 0 or state[BROKEN] != 0:
        vacate(state)
        return False
    return True


@compiled
def locate(ring: GuestRing, address: int, size: int) -> int:
    """The place in memory of `size` bytes, less than 2 ** 32, at a guest's address, if one region has them all; -1 if
    none has."""
    place = _within(ring, ring.state[REGION], address, size)
    return place if place >= 0 else _search(ring, address, size)


@compiled
def _within(ring: GuestRing, row: int, address: int, size: int) -> int:
    """The same in one region. Nothing is computed that overflows, whatever the address is."""
    start = ring.regions[row + REGION_START]
    if address < start:
        return -1
    offset = address - start
    if offset > ring.regions[row + REGION_SIZE] - size:
        return -1
    return ring.regions[row + REGION_PLACE] + offset


@compiled
def _search(ring: GuestRing, address: int, size: int) -> int:
    for row in range(0, ring.regions.size, WIDTH):
        place = _within(ring, row, address, size)
        if place >= 0 and ring.regions[row + REGION_SIZE] > 0:
            ring.state[REGION] = row
            return place
    return -1


@compiled
def extent(ring: GuestRing, address: int) -> int:
    """How many bytes a region has from a guest's address on; 0 if none has it."""
    for row in range(0, ring.regions.size, WIDTH):
        start = ring.regions[row + REGION_START]
        if address >= start and address - start < ring.regions[row + REGION_SIZE]:
            return ring.regions[row + REGION_SIZE] - (address - start)
    return 0
