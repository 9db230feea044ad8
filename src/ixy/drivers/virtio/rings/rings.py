"""The rings of one device: their layout in memory, and their life from filled to drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.rings import NEXT, FilledRing, SendingRing
from ixy.drivers.virtio.rings import packed, split
from ixy.drivers.virtio.rings.packed import PackedRing
from ixy.drivers.virtio.rings.split import SplitRing
from ixy.drivers.virtio.rings.state import BREACHES, BROKEN, BYTES, PACKETS, STATE_WORDS
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses
from ixy.jit import Direct
from ixy.packets.dma import PAGE
from ixy.packets.packets import slots
from ixy.packets.pool import pools
from ixy.registers.virtio import DESCRIPTOR_BYTES, EVENT_DISABLE, NO_INTERRUPT
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ixy.packets.buffers import Addresses
    from ixy.packets.mempool import Mempool


class Layout(NamedTuple):
    """Where the parts of a ring lie, in bytes from its start.

    A split ring is laid out as a legacy device wants it, 2.7.2: the used ring starts on a page of its own. What the
    device writes is apart from what the driver writes on a packed ring, too: they share no cache line.
    """

    size: int
    driver: int
    device: int
    bytes: int

    def addresses(self, start: int) -> RingAddresses:
        """The device's addresses of the parts of a ring whose first byte has address `start`."""
        return RingAddresses(self.size, start, start + self.driver, start + self.device)


def split_layout(size: int) -> Layout:
    driver = size * DESCRIPTOR_BYTES
    device = _pages(driver + 2 * (size + 3))
    return Layout(size, driver, device, _pages(device + 2 * 3 + 8 * size))


def packed_layout(size: int) -> Layout:
    driver = size * DESCRIPTOR_BYTES
    return Layout(size, driver, driver + 64, _pages(driver + 128))


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


class Terms(NamedTuple):
    """What was negotiated, as far as the rings care: 0 or 1 each, but for the bytes of the header."""

    header: int
    mergeable: int
    in_order: int
    event_index: int
    packed: bool

    def layout(self, size: int) -> Layout:
        return packed_layout(size) if self.packed else split_layout(size)


class _Counting:
    """What the driver counts, since the device does not."""

    state: SplitRing | PackedRing

    @property
    def packets(self) -> int:
        return int(self.state.state[PACKETS])

    @property
    def bytes(self) -> int:
        """Of these packets, with their frame check sequences."""
        return int(self.state.state[BYTES]) + 4 * self.packets

    @property
    def breach(self) -> str | None:
        """Why the ring has stopped for good: what the device did; None while it runs."""
        return BREACHES.get(int(self.state.state[BROKEN]))


class VirtioRxRing(FilledRing, _Counting):
    """A receive ring; see `ixy.drivers.RxRing`.

    Args:
        memory: of the ring, shape (layout.bytes,), uint8.
        terms: what was negotiated.
        size: descriptors.
        doorbell: to notify the device with.
        addresses: where the device sees the header before each buffer.
        pool: where buffers come from.
        metadata: what is told of each packet.
    """

    def __init__(
        self,
        memory: NDArray[np.uint8],
        terms: Terms,
        size: int,
        doorbell: Doorbell,
        addresses: Addresses,
        pool: Mempool,
        metadata: Sequence[str] = (),
    ) -> None:
        kernels = packed if terms.packed else split
        self.kernel = kernels.rx_batch
        self.ready = kernels.ready
        self._want, self._want_none = Direct(kernels.want_interrupt), Direct(kernels.want_no_interrupt)
        state = _state(memory, terms, size, doorbell, addresses, pool.number)
        super().__init__(state, pool, kernels.offer_all, metadata)

    def want_interrupt(self) -> None:
        """Have the device interrupt for the next packet. One that came before need not: look once more."""
        self._want((), self.state)

    def want_no_interrupt(self) -> None:
        """Have it interrupt no more; now and then it may."""
        self._want_none((), self.state)


class VirtioTxRing(SendingRing, _Counting):
    """A transmit ring; see `ixy.drivers.TxRing`. Parameters as for `VirtioRxRing`."""

    def __init__(
        self, memory: NDArray[np.uint8], terms: Terms, size: int, doorbell: Doorbell, addresses: Addresses
    ) -> None:
        kernels = packed if terms.packed else split
        self.kernel = kernels.tx_batch
        self.room = kernels.tx_room
        super().__init__(_state(memory, terms, size, doorbell, addresses, -1))

    @property
    def sent(self) -> int:
        """Of `packets`, those that the device has taken from the ring."""
        ring = self.state
        place = split.sent_up_to(ring) if isinstance(ring, SplitRing) else packed.sent_up_to(ring)
        return self.packets - (int(ring.state[NEXT]) - place)


def resume_at(ring: VirtioRxRing | VirtioTxRing) -> int:
    """Where a back end that takes the ring over goes on, as vhost-user wants it (SET_VRING_BASE).

    On a split ring, the index up to which the one before it has used buffers. On a packed ring, that place and its wrap
    counter, for the available and for the used side.
    """
    if isinstance(ring.state, SplitRing):
        return int(ring.state.used_flags[split.INDEX])
    position = packed.resume_at(ring.state)
    half = position % ring.size | (0x8000 if position & ring.size == 0 else 0)
    return half << 16 | half


def _state(
    memory: NDArray[np.uint8], terms: Terms, size: int, doorbell: Doorbell, addresses: Addresses, pool: int
) -> SplitRing | PackedRing:
    """A ring before its first packet; `pool` is -1 for a transmit ring."""
    memory[:] = 0
    common: dict[str, Any] = {
        "held": slots(size),
        "order": np.arange(size, dtype=np.int32),
        "place": np.arange(size, dtype=np.int32),
        "state": own_lines(STATE_WORDS),
        "addresses": addresses,
        "headers": pools().bytes.reshape(-1).view(np.int32),
        "doorbell": doorbell,
        "pool": pool,
        "header": terms.header,
        "mergeable": terms.mergeable,
        "in_order": terms.in_order,
    }
    if terms.packed:
        return _packed_ring(memory, size, common)
    return _split_ring(memory, size, terms.event_index, common)


def _split_ring(memory: NDArray[np.uint8], size: int, event_index: int, common: dict[str, Any]) -> SplitRing:
    layout = split_layout(size)
    available = memory[layout.driver : layout.driver + 2 * (size + 3)].view(np.uint16)
    # The driver polls. With EVENT_IDX the flag has no effect, and used_event stays 0: one interrupt in 65,536.
    available[split.FLAGS] = 0 if event_index else NO_INTERRUPT
    available[split.PLACES : split.PLACES + size] = np.arange(size)
    used_end = layout.device + 4 + 8 * size
    return SplitRing(
        descriptors=memory[: layout.driver].view(np.int64),
        available=available,
        used_flags=memory[layout.device : layout.device + 4].view(np.uint16),
        used=memory[layout.device + 4 : used_end].view(np.uint32),
        available_event=memory[used_end : used_end + 2].view(np.uint16),
        event_index=event_index,
        **common,
    )


def _packed_ring(memory: NDArray[np.uint8], size: int, common: dict[str, Any]) -> PackedRing:
    layout = packed_layout(size)
    driver_event = memory[layout.driver : layout.driver + 4].view(np.uint16)
    driver_event[1] = EVENT_DISABLE  # the driver polls
    return PackedRing(
        descriptors=memory[: layout.driver].view(np.int64),
        driver_event=driver_event,
        device_event=memory[layout.device : layout.device + 4].view(np.uint16),
        **common,
    )
