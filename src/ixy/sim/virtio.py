"""A model of a VirtIO network device's back end, which works on rings in the memory of the same process.

It is honest and does what it is told: `feed` puts a frame into receive buffers, `drain` takes frames off the transmit
ring; neither knows of offloads, as `virtio_port` does. Addresses are checked: what lies outside the memory that the
driver has shared is refused and counted.

Sections are those of the Virtual I/O Device specification, version 1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.jit import compiled
from ixy.packets.dma import PAGE, window
from ixy.registers import virtio as reg
from ixy.unsafe import copy, load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUS_BASE = 1 << 36  # the device's address of the first byte of the process's window: no pointer equals it
PAGE_SHIFT = 12
MAX_RINGS = 16
_FLAGS = reg.PACKED_AVAIL | reg.PACKED_USED

# Words of a queue's `state`
NEXT = 0  # the next place to look at, counted without wrapping
FRAMES = 1  # put into buffers, or taken
BYTES = 2
REFUSED = 3  # addresses outside shared memory
STATE_WORDS = 8


class Queue(NamedTuple):
    """One ring, as the device sees it.

    Attributes:
        memory: the process's window, uint8.
        words, halves, longs: the same memory as int64, uint16 and uint32.
        allowed: per page of it, 1 if the driver shared it, uint8.
        state: shape (STATE_WORDS,), int64.
        size: descriptors.
        descriptors, driver, device: offsets of the ring's parts in the memory.
        packed: 1 for a packed ring.
        header: bytes before each frame.
    """

    memory: NDArray[np.uint8]
    words: NDArray[np.int64]
    halves: NDArray[np.uint16]
    longs: NDArray[np.uint32]
    allowed: NDArray[np.uint8]
    state: NDArray[np.int64]
    size: int
    descriptors: int
    driver: int
    device: int
    packed: int
    header: int


class BackEnd:
    """A network device without a wire.

    Args:
        name: for messages.
        features: what to offer.
        pairs: of queues.
        ring_limit: the most descriptors of a ring.

    Attributes:
        config: the device's configuration, 5.1.4.
        queues: the rings that the driver has set up, by index.
        doorbells: what the driver stored to notify, per ring.
        calls: the eventfds by which it interrupts, of those rings that have one. It does so as it is told.
        failed: the device says that it needs a reset.
    """

    def __init__(self, name: str, features: int, pairs: int = 1, ring_limit: int = 1024) -> None:
        self.name = name
        self.features = features
        self.config = bytearray(bytes.fromhex("020000000001") + bytes([reg.LINK_UP, 0, pairs, 0, 0xDC, 5]) + bytes(8))
        self.queues: dict[int, Queue] = {}
        self.doorbells = np.zeros(MAX_RINGS, np.uint16)
        self.calls: dict[int, int] = {}
        self.failed = False
        self._rings = 2 * pairs
        self._limit = ring_limit
        self._allowed = np.zeros(window().size // PAGE, np.uint8)

    def reset(self) -> None:
        """Forget the rings."""
        self.queues.clear()
        self.failed = False

    def ring_limit(self, index: int) -> int:
        return self._limit if index < self._rings else 0

    def set_ring(self, index: int, size: int, descriptors: int, driver: int, device: int, features: int) -> None:
        """Where ring `index` lies, and what was negotiated."""
        memory = window().bytes
        long_header = features >> reg.VERSION_1 & 1 or features >> reg.MRG_RXBUF & 1
        header = reg.HEADER_BYTES if long_header else reg.LEGACY_HEADER_BYTES
        self.queues[index] = Queue(
            memory,
            memory.view(np.int64),
            memory.view(np.uint16),
            memory.view(np.uint32),
            self._allowed,
            np.zeros(STATE_WORDS, np.int64),
            size,
            descriptors - BUS_BASE,
            driver - BUS_BASE,
            device - BUS_BASE,
            features >> reg.RING_PACKED & 1,
            reg.HASH_HEADER_BYTES if features >> reg.HASH_REPORT & 1 else header,
        )

    def map(self, offset: int, size: int) -> int:
        """The driver shares a part of its window; the device's address of the window."""
        self._allowed[offset // PAGE : (offset + size) // PAGE] = 1
        return BUS_BASE

    def unmap(self, offset: int, size: int) -> None:
        """The driver takes it back."""
        self._allowed[offset // PAGE : (offset + size) // PAGE] = 0


@compiled
def dma(queue: Queue, address: int, size: int) -> int:
    """The offset in memory of a device address, or -1 if the driver has not shared all of these bytes; counted."""
    offset = address - BUS_BASE
    if offset >= 0 and size > 0 and offset + size <= queue.memory.size:
        first, last = offset >> PAGE_SHIFT, (offset + size - 1) >> PAGE_SHIFT
        if queue.allowed[first] != 0 and queue.allowed[last] != 0:
            return offset
    queue.state[REFUSED] += 1
    return -1


@compiled
def next_descriptor(queue: Queue) -> int:
    """The index in `words` of the next available descriptor, or -1 if there is none."""
    place = queue.state[NEXT]
    slot = place & (queue.size - 1)
    if queue.packed != 0:
        word = (queue.descriptors >> 3) + 2 * slot
        flags = reg.PACKED_AVAIL if place & queue.size == 0 else reg.PACKED_USED
        return word if load_acquire(queue.words, word + 1) & _FLAGS == flags else -1
    available = queue.driver >> 1
    if load_acquire(queue.halves, available + 1) == place & 0xFFFF:
        return -1
    descriptor = load_acquire(queue.halves, available + 2 + slot)
    return (queue.descriptors >> 3) + 2 * descriptor


@compiled
def use(queue: Queue, word: int, length: int) -> None:
    """Give a descriptor back, into which `length` bytes were written (2.7.8, 2.8.21)."""
    place = queue.state[NEXT]
    slot = place & (queue.size - 1)
    queue.state[NEXT] = place + 1
    if queue.packed != 0:
        identifier = queue.words[word + 1] & (0xFFFF << reg.PACKED_ID_SHIFT)
        flags = _FLAGS if place & queue.size == 0 else 0
        store_release(queue.words, (queue.descriptors >> 3) + 2 * slot + 1, length | identifier | flags)
        return
    used = queue.device >> 2
    queue.longs[used + 1 + 2 * slot] = (word - (queue.descriptors >> 3)) >> 1
    queue.longs[used + 2 + 2 * slot] = length
    store_release(queue.halves, (queue.device >> 1) + 1, (place + 1) & 0xFFFF)


@compiled
def feed(queue: Queue, frame: NDArray[np.uint8], size: int) -> bool:
    """Put a frame, one buffer long at most, into the next receive buffer; False if the driver has given none."""
    word = next_descriptor(queue)
    if word < 0:
        return False
    header = queue.header
    offset = dma(queue, queue.words[word], header + size)
    if offset < 0 or queue.words[word + 1] & 0xFFFFFFFF < header + size:
        return False
    queue.memory[offset : offset + header] = 0
    if header != reg.LEGACY_HEADER_BYTES:
        queue.memory[offset + reg.NUM_BUFFERS] = 1
    copy(queue.memory, offset + header, frame, 0, size)
    use(queue, word, header + size)
    queue.state[FRAMES] += 1
    queue.state[BYTES] += size
    return True


@compiled
def drain(queue: Queue, frame: NDArray[np.uint8]) -> int:
    """Take the next frame off a transmit ring into `frame`; its size, 0 if there is none, -1 if it was refused."""
    word = next_descriptor(queue)
    if word < 0:
        return 0
    size = (queue.words[word + 1] & 0xFFFFFFFF) - queue.header
    offset = dma(queue, queue.words[word], size + queue.header)
    use(queue, word, 0)
    if offset < 0 or size > frame.size:
        return -1
    copy(frame, 0, queue.memory, offset + queue.header, size)
    queue.state[FRAMES] += 1
    queue.state[BYTES] += size
    return size
