"""One function of a card, physical or virtual, as far as both are alike: its rings in memory, its queues, its end.

Sections in comments are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ixy.arguments import integer
from ixy.bus import Irq, set_bus_master
from ixy.drivers import check_pool
from ixy.drivers.ixgbe.datapath import CLEAN_GROUP
from ixy.drivers.ixgbe.inside import FRAMING
from ixy.drivers.ixgbe.interrupts import QueueInterrupt, Vector
from ixy.drivers.ixgbe.offloads import DOES
from ixy.drivers.ixgbe.rings import (
    IxgbeCoalescingRxRing,
    IxgbeOffloadTxRing,
    IxgbePartsRxRing,
    IxgbeRxRing,
    IxgbeTxRing,
)
from ixy.drivers.offloads import check_offloads
from ixy.drivers.pools import AttachedPools
from ixy.dropped import close_dropped
from ixy.errors import ConfigurationError, DeviceTimeout, Error, UnsupportedDevice
from ixy.packets.buffers import BUFFER_SIZE, MAX_PARTS
from ixy.packets.dma import allocate_rings
from ixy.packets.mempool import Mempool
from ixy.packets.packets import check_metadata
from ixy.registers import Register, RegisterFile
from ixy.registers.i82599 import DESCRIPTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.bus import Function, Interrupts
    from ixy.drivers import DeviceCounters, Link, RxInterrupt
    from ixy.drivers.rings import FilledRing, SendingRing
    from ixy.drivers.rss import Rss

log = logging.getLogger("ixy.ixgbe")

DEVICE_STATUS, TRANSACTION_PENDING = 0xAA, 1 << 5  # in the configuration space (9.3.10.6)

RING_SIZES = [64 << n for n in range(7)]  # 64 to 4096: powers of two, so that an index wraps by a mask
_LEAST_RING = 128  # descriptors: as each packet may need a context, half of those that are free may count

TOLD = ("flags", "hash", "vlan", "time", "segments", "parts")  # of each packet, if asked for
DEFAULT_MTU, MAX_MTU = 1500, 9710  # bytes; with the latter a frame has 9.5 KiB
IN_BUFFERS = FRAMING - 4 + 8  # bytes of a frame besides: no check sequence, but up to two VLAN tags
COALESCED = 16  # the most buffers of a packet that the card has put together


class QueueRegisters(NamedTuple):
    """The registers of all queues of one direction: where the ring lies, its bytes, head and tail, and the control."""

    low: Register
    high: Register
    length: Register
    head: Register
    tail: Register
    control: Register


class CardFunction:
    """What the drivers of both kinds of functions begin with.

    Args:
        function: the PCI function; the driver closes it, also if the initialisation fails.
    """

    _rx: QueueRegisters
    _tx: QueueRegisters
    _vectors: int  # of MSI-X

    def __init__(self, function: Function) -> None:
        self.address = function.address
        self._function = function
        self._lock = threading.RLock()  # of the control plane
        self._attached = AttachedPools(function)
        self._metadata: Sequence[str] = ()
        self._interrupts: Interrupts | None = None
        self._running = False  # or it was touched, and must be stopped
        self._undo = ExitStack()
        self._undo.callback(function.close)
        self.rx_rings: list[FilledRing] = []
        self.tx_rings: list[SendingRing] = []
        self.rss: Rss | None = None

    # -----------------------------------------------------------------------------------------------------------------
    # What is asked for

    def _check_packets(
        self,
        metadata: Sequence[str],
        told: Sequence[str],
        offloads: Sequence[str],
        possible: Sequence[str],
        mtu: int | None,
        longest: int,
    ) -> None:
        """What packets are to be like.

        Args:
            told, possible: what the card can tell of them, and do to them.
            longest: the MTU that it can have.

        Raises:
            ConfigurationError: says what it does not do, or tell, or how long frames can be.
        """
        self._metadata = check_metadata(self.address, metadata, told)
        self._offloads = check_offloads(self.address, offloads, possible, self._metadata)
        self._mtu = check_mtu(self.address, mtu, longest, "parts" in self._metadata)
        self._longest = max(self._mtu + IN_BUFFERS, BUFFER_SIZE)
        self._parts = COALESCED if "coalescing" in self._offloads else -(-self._longest // BUFFER_SIZE)

    def _check_queues(self, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int, queues: int) -> None:
        """How many queues, and of which size, after `_check_packets`.

        Args:
            queues: the most that there can be, each way.

        Raises:
            ConfigurationError: says which parameter, and what is possible.
        """
        check_configuration(self.address, rx_queues, tx_queues, ring_size, pool_size, queues, self._parts)
        if "parts" in self._metadata and DOES.keys() & self._offloads and ring_size < _LEAST_RING:
            raise ConfigurationError(f"{self.address}: with offloads of packets in parts a ring needs {_LEAST_RING}")

    def _map_registers(self) -> None:
        self._bar = self._function.bar(0)
        self._registers = RegisterFile(self._bar, self.address, self._lock)

    # -----------------------------------------------------------------------------------------------------------------
    # Memory

    def _allocate(self, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int) -> None:
        """Memory for all rings in one piece, and a mempool for each receive queue, which its attachment keeps.

        All is there before the first is mapped: if the process may not lock enough memory, the error knows the sum.
        """
        ring_bytes = ring_size * DESCRIPTOR_BYTES
        memory = allocate_rings((rx_queues + tx_queues) * ring_bytes)
        self._undo.callback(memory.close)
        with ExitStack() as created:
            pools = [created.enter_context(Mempool(pool_size)) for _ in range(rx_queues)]  # attaching holds them
            self._ring_mapping = self._function.map(memory)
            self._undo.callback(self._function.unmap, memory)
            self._undo.callback(self._attached.detach_all)
            self._attached.lie_as(self._ring_mapping)
            for pool in pools:
                self._attached.attach(pool)
        slices = [memory.bytes[start : start + ring_bytes] for start in range(0, memory.size, ring_bytes)]
        for queue, pool in enumerate(pools):
            tail = self._bar.doorbell(self._rx.tail[queue].offset)
            self.rx_rings.append(self._rx_ring(slices[queue], tail, pool))
            self._undo.callback(self.rx_rings[-1].drain)
        for queue in range(tx_queues):
            tail = self._bar.doorbell(self._tx.tail[queue].offset)
            self.tx_rings.append(self._tx_ring(slices[rx_queues + queue], tail))
            self._undo.callback(self.tx_rings[-1].drain)

    def _rx_ring(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32], pool: Mempool) -> FilledRing:
        """A ring of the plain kind, unless packets may lie in several buffers."""
        addresses = self._attached.addresses
        if "coalescing" in self._offloads:
            return IxgbeCoalescingRxRing(memory, tail, addresses, pool, self._metadata, self._parts)
        if "parts" in self._metadata or "segments" in self._metadata:
            return IxgbePartsRxRing(memory, tail, addresses, pool, self._metadata, self._parts)
        return IxgbeRxRing(memory, tail, addresses, pool, self._metadata)

    def _tx_ring(self, memory: NDArray[np.uint8], tail: NDArray[np.uint32]) -> SendingRing:
        """A ring of the plain kind, unless something is asked of it that takes other kernels."""
        addresses = self._attached.addresses
        parts = MAX_PARTS if "parts" in self._metadata else 1
        if parts > 1 or DOES.keys() & self._offloads:
            return IxgbeOffloadTxRing(memory, tail, addresses, self._offloads, parts, self._longest)
        return IxgbeTxRing(memory, tail, addresses)

    def attach(self, pool: Mempool) -> None:
        """Let the card reach the buffers of `pool`."""
        with self._control():
            self._attached.attach(pool)

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """A card stays where it is."""

    def rouse(self) -> None:
        self._function.rouse()

    def rung_by(self, words: NDArray[np.int64]) -> None:
        self._function.rung_by(words)

    # -----------------------------------------------------------------------------------------------------------------
    # Queues

    def _set_ring(self, place: int, queue: int, registers: QueueRegisters) -> None:
        """Tell the card where a ring lies and that it is empty (7.1.9, 7.2.3.3)."""
        size = self.rx_rings[0].size * DESCRIPTOR_BYTES
        address = self._ring_mapping.address(place * size, size)
        self._registers.write(registers.low[queue], address & 0xFFFFFFFF)
        self._registers.write(registers.high[queue], address >> 32)
        self._registers.write(registers.length[queue], LEN=size)
        self._registers.write(registers.head[queue], HEAD=0)
        self._registers.write(registers.tail[queue], TAIL=0)

    def _start_rx_queues(self) -> None:
        """4.6.7.1: enable, then hand over all descriptors."""
        for ring in self.rx_rings:
            ring.fill()
        self._enable(self._rx.control, len(self.rx_rings))
        for queue, ring in enumerate(self.rx_rings):
            self._registers.write(self._rx.tail[queue], TAIL=ring.size - 1)

    def _enable(self, controls: Register, queues: int) -> None:
        """Enable so many queues, and wait until they are: each takes its time, but all together take no longer."""
        for queue in range(queues):
            self._registers.update(controls[queue], ENABLE=1)
        for queue in range(queues):
            self._registers.wait(controls[queue], 1.0, ENABLE=1)

    def _disable_queues(self) -> None:
        """4.6.7.1.2: all queues off, and wait until they are. A card that cannot is reset all the same."""
        controls = [self._rx.control[queue] for queue in range(len(self.rx_rings))]
        controls += [self._tx.control[queue] for queue in range(len(self.tx_rings))]
        for control in controls:
            self._registers.update(control, ENABLE=0)
        try:
            for control in controls:
                self._registers.wait(control, 1.0, ENABLE=0)
        except DeviceTimeout as error:
            log.warning("%s; resetting all the same", error)

    def _drain_bus(self) -> None:
        """Wait until nothing that the card has asked the bus for is pending (9.3.10.6); a broken one waits for ever."""
        deadline = time.monotonic() + 0.1
        while self._function.config_read(DEVICE_STATUS, 2) & TRANSACTION_PENDING and time.monotonic() < deadline:
            time.sleep(0.001)

    # -----------------------------------------------------------------------------------------------------------------
    # While it is open

    @contextmanager
    def _control(self) -> Generator[RegisterFile]:
        """The card's registers, for one thread at a time, and only until the card is closed."""
        with self._lock:
            if not self._running:
                raise Error(f"{self.address} is closed")
            yield self._registers

    def rx_interrupt(self, queue: int) -> RxInterrupt:
        """The interrupt of a receive queue. Asking for the first switches MSI-X on, for as many as there are vectors.

        Raises:
            UnsupportedDevice: the bus delivers no interrupts, or none is left for this queue.
        """
        with self._control() as regs:
            if queue >= self._vectors:
                last = self._vectors - 1
                raise UnsupportedDevice(f"{self.address}: receive queue {queue} has no interrupt, as 0 to {last} have")
            if self._interrupts is None:
                interrupts = self._function.interrupts(Irq.MSIX, min(len(self.rx_rings), self._vectors))
                self._undo.callback(interrupts.close)
                self._init_interrupts(regs)
                self._interrupts = interrupts
            return QueueInterrupt(self._interrupts.events[queue], self._vector(queue), self._control)

    def _init_interrupts(self, regs: RegisterFile) -> None:
        """Vector n of MSI-X is that of receive queue n, and nothing else causes an interrupt."""
        raise NotImplementedError

    def _vector(self, queue: int) -> Vector:
        """Where the vector of a receive queue is masked."""
        raise NotImplementedError

    def link(self) -> Link:
        """The link's state now."""
        raise NotImplementedError

    def wait_for_link(self, timeout: float) -> Link:
        """Wait up to `timeout` seconds until the link is up; the state it then has."""
        deadline = time.monotonic() + timeout
        while not (link := self.link()).up and time.monotonic() < deadline:
            time.sleep(0.01)
        return link

    def counters(self) -> DeviceCounters:
        """What the card counted."""
        raise NotImplementedError

    def sent(self) -> int:
        """Packets that have left the card, those counted once of which several frames are made, or that were refused.

        Frames are reckoned when their packet is put on the ring, so until all have left there may be fewer.
        """
        more = sum(ring.more_frames for ring in self.tx_rings if isinstance(ring, IxgbeOffloadTxRing))
        return max(self.counters().tx_packets - more, 0)

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def close(self) -> None:
        """Stop the card, then take its memory away. A second call does nothing.

        Whatever interrupts this, memory goes back only from a card that is no bus master any more. If that cannot be
        had, close it again: it goes on where it was interrupted.
        """
        with self._lock:
            try:
                self._silence()
            finally:
                if not self._running:
                    self._undo.close()

    def __del__(self) -> None:
        if hasattr(self, "tx_rings"):  # nobody could close it: an exception came before anybody had it
            close_dropped(self.close)

    def _silence(self) -> None:
        """No DMA from here on."""
        if self._running:
            try:
                self._stop()
            finally:
                set_bus_master(self._function, False)
                self._running = False

    def _stop(self) -> None:
        """Queues off, nothing pending, reset. Bus mastering goes last: what is pending needs it to be done."""
        raise NotImplementedError


def check_configuration(
    address: str, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int, queues: int, parts: int = 1
) -> None:
    """Refuse what cards or the driver do not support, before the card is touched.

    Args:
        queues: the most that there can be, each way.
        parts: the most buffers that a packet may take.

    Raises:
        ConfigurationError: says which parameter, and what is possible.
    """
    for kind, wanted in (("receive", rx_queues), ("transmit", tx_queues)):
        if not 1 <= wanted <= queues:
            raise ConfigurationError(f"{address}: {wanted} {kind} queues: 1 to {queues} are possible")
    if ring_size not in RING_SIZES:
        raise ConfigurationError(f"{address}: a ring of {ring_size} descriptors: possible are {RING_SIZES}")
    check_pool(address, pool_size, ring_size, CLEAN_GROUP + parts - 1)


def check_unicast(address: str, mac: bytes) -> None:
    """Refuse what cannot be a station's address.

    Raises:
        ConfigurationError: not 6 bytes, or a multicast address.
    """
    if len(mac) != 6 or mac[0] & 1:
        raise ConfigurationError(f"{address}: {mac.hex(':')} is no unicast MAC address")


def check_mtu(address: str, mtu: int | None, longest: int, parts: bool) -> int:
    """The MTU, one that the card can have.

    Args:
        longest: what it can have.
        parts: frames may take several buffers.

    Raises:
        ConfigurationError: says what is possible.
    """
    if mtu is None:
        return DEFAULT_MTU
    most = BUFFER_SIZE - IN_BUFFERS
    if integer(f"{address}: mtu", mtu, 1, longest) > most and not parts:
        raise ConfigurationError(f"{address}: mtu {mtu}: above {most} it takes several buffers: metadata=('parts',)")
    return mtu
