"""The rings of one device: their layout in memory, and their life from filled to drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.drivers.rings import NEXT, FilledRing, SendingRing
from ixy.drivers.virtio.rings import packed, packed_offloads, split, split_offloads
from ixy.drivers.virtio.rings.packed import PackedRing
from ixy.drivers.virtio.rings.split import SplitRing
from ixy.drivers.virtio.rings.state import ABLE, BREACHES, BROKEN, BYTES, PACKETS, PARTS, ROOM, STATE_WORDS, UNCHANGED
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses
from ixy.jit import Direct
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import PAGE
from ixy.packets.packets import slots
from ixy.packets.pool import pools
from ixy.registers.virtio import DESCRIPTOR_BYTES, EVENT_DISABLE, HASH_HEADER_BYTES, NO_INTERRUPT
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
    """What was negotiated, as far as the rings care.

    Attributes:
        header: its bytes.
        mergeable, in_order, event_index: 0 or 1.
        packed: the kind of rings.
        able: of offloads, see `virtio.headers`.
        parts: the most buffers that a packet may lie in.
    """

    header: int
    mergeable: int
    in_order: int
    event_index: int
    packed: bool
    able: int = 0
    parts: int = 1

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
        self.ready = kernels.ready
        self._want, self._want_none = Direct(kernels.want_interrupt), Direct(kernels.want_no_interrupt)
        state = _state(memory, terms, size, doorbell, addresses, pool.number)
        offer_all, self.kernel = kernels.offer_all, kernels.rx_batch
        if _tells_more(terms, metadata):
            special = packed_offloads if terms.packed else split_offloads
            offer_all, self.kernel = special.offer_all, special.rx_batch
            state = _with_offloads(state, terms)
            # What goes on in another buffer begins there where its header would.
            state.state[ROOM] = BUFFER_SIZE if terms.parts > 1 else terms.header + BUFFER_SIZE
            state.state[PARTS] = terms.parts
        self.parts = terms.parts
        super().__init__(state, pool, offer_all, metadata)

    def want_interrupt(self) -> None:
        """Have the device interrupt for the next packet. One that came before need not: look once more."""
        self._want((), self.state)

    def want_no_interrupt(self) -> None:
        """Have it interrupt no more; now and then it may."""
        self._want_none((), self.state)


class VirtioTxRing(SendingRing, _Counting):
    """A transmit ring; see `ixy.drivers.TxRing`. Parameters as for `VirtioRxRing`, and the device's `offloads`."""

    def __init__(
        self,
        memory: NDArray[np.uint8],
        terms: Terms,
        size: int,
        doorbell: Doorbell,
        addresses: Addresses,
        offloads: Sequence[str] = (),
    ) -> None:
        kernels = packed if terms.packed else split
        state = _state(memory, terms, size, doorbell, addresses, -1)
        if offloads or terms.parts > 1 or terms.header == HASH_HEADER_BYTES:
            kernels = packed_offloads if terms.packed else split_offloads
            state = _with_offloads(state, terms)
            state.order[:] = 0  # none of its places is a packet's first
        self.kernel = kernels.tx_batch
        self.room = kernels.tx_room
        self.offloads: Sequence[str] = tuple(offloads)
        self.parts = terms.parts
        super().__init__(state)

    @property
    def sent(self) -> int:
        """Of `packets`, those that the device has taken from the ring."""
        ring = self.state
        if has_offloads(ring):
            return split_offloads.sent_count(ring) if isinstance(ring, SplitRing) else packed_offloads.sent_count(ring)
        place = split.sent_up_to(ring) if isinstance(ring, SplitRing) else packed.sent_up_to(ring)
        return self.packets - (int(ring.state[NEXT]) - place)

    @property
    def unchanged(self) -> int:
        """Packets that were sent as they are: what was asked for could not be done to them."""
        return int(self.state.state[UNCHANGED])


def resume_at(ring: VirtioRxRing | VirtioTxRing) -> int:
    """Where a back end that takes the ring over goes on, as vhost-user wants it (SET_VRING_BASE).

    On a split ring, the index up to which the one before it has used buffers. On a packed ring, that place and its wrap
    counter, for the available and for the used side.
    """
    if isinstance(ring.state, SplitRing):
        return int(ring.state.used_flags[split.INDEX])
    special = has_offloads(ring.state) and isinstance(ring, VirtioTxRing)
    position = packed_offloads.resume_at(ring.state) if special else packed.resume_at(ring.state)
    half = position % ring.size | (0x8000 if position & ring.size == 0 else 0)
    return half << 16 | half


def _tells_more(terms: Terms, metadata: Sequence[str]) -> bool:
    """Whether more is told of received packets than the kernels for plain ones know of."""
    return terms.header == HASH_HEADER_BYTES or not {"hash", "segments", "parts"}.isdisjoint(metadata)


def has_offloads(ring: SplitRing | PackedRing) -> bool:
    """Whether its kernels are those with offloads, and packets of several parts."""
    return ring.headers.dtype == np.uint8


def _with_offloads(ring: SplitRing | PackedRing, terms: Terms) -> SplitRing | PackedRing:
    """The ring for these kernels, which look at headers byte by byte."""
    ring.state[ABLE] = terms.able
    return ring._replace(headers=pools().bytes.reshape(-1))


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
