"""VirtIO across vhost-user: the rings and packets are shared with another process, which is the device.

This is the front end. It hands the back end file descriptors of its memory over a UNIX socket, says where the rings
lie, and has nothing more to do with it: packets go through shared memory alone. When the back end goes away, the link
is down; as soon as one listens again, it is handed the same rings and goes on where the one before it stopped. The data
path notices nothing but that nothing moves meanwhile.

Source: the Vhost-user Protocol of QEMU (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.virtio.features import Features
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses, file_doorbell, ring_doorbell
from ixy.drivers.virtio.transports.vhost_messages import Connection, Region, Request
from ixy.errors import AddressError, ConfigurationError, Error, UnsupportedDevice
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import DmaMapping, DmaMemory
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("ixy.virtio")

PREFIX = "vhost-user:"
RETRY = 0.1  # seconds between two looks for a back end that has gone

# The first byte of the process's DMA window, as descriptors name it and as ring addresses do. Neither is a pointer.
GUEST_BASE = 1 << 36
USER_BASE = 1 << 44

_PROTOCOL_FEATURES = 1 << 30  # in place of a device feature: the back end has protocol features
_PROTOCOL_MQ = 1 << 0
_PROTOCOL_REPLY_ACK = 1 << 3

# What a back end cannot offer by itself, because the front end has the configuration and the control queue. This one
# has an address, a link, an MTU and as many queues as the back end.
_FRONT_END = {reg.MAC, reg.STATUS, reg.MTU, reg.MQ, reg.CTRL_VQ, reg.CTRL_RX, reg.CTRL_VLAN, reg.CTRL_RX_EXTRA} | {
    reg.CTRL_MAC_ADDR,
    reg.CTRL_GUEST_OFFLOADS,
    reg.GUEST_ANNOUNCE,
    reg.SPEED_DUPLEX,
    reg.ACCESS_PLATFORM,
}
_FRONT_END_MASK = sum(1 << bit for bit in _FRONT_END)
_OFFERED = 1 << reg.MAC | 1 << reg.STATUS | 1 << reg.MTU | 1 << reg.MQ
MTU = BUFFER_SIZE - reg.FRAMING  # the largest that fits a buffer


def parse(address: str) -> tuple[str, int]:
    """The path of the socket and the feature bits that the user does not want: `vhost-user:PATH[,ring=split]`.

    Raises:
        AddressError: malformed.
    """
    path, *options = address.removeprefix(PREFIX).split(",")
    unwanted = 0
    for option in options:
        key, _, value = option.partition("=")
        if key != "ring" or value not in ("split", "packed"):
            raise AddressError(f"{address}: option {option!r}: ring=split and ring=packed are possible")
        unwanted = 1 << reg.RING_PACKED if value == "split" else 0
    if not path:
        raise AddressError(f"{address}: write vhost-user:/path/to/socket")
    return path, unwanted


class _Ring(NamedTuple):
    """A ring as the driver set it up, to be told to every back end that comes."""

    addresses: RingAddresses
    resume: Callable[[], int]


class VhostUser:
    """A back end across a socket; see `ixy.drivers.virtio.transports.transport.Transport`.

    Args:
        address: `vhost-user:/path/to/socket`, perhaps with options, see `parse`.

    Raises:
        AddressError: nobody listens there.
        PermissionDenied: the socket is out of this user's reach.
        UnsupportedDevice: who listens is no vhost-user back end.
    """

    legacy = False
    mac_writable = True
    fixed_size = False

    def __init__(self, address: str) -> None:
        self._path, _ = parse(address)
        self.address = f"{PREFIX}{self._path}"
        self._config = bytearray(20)
        self._config[reg.CONFIG_MAC : reg.CONFIG_MAC + 6] = bytes([2]) + secrets.token_bytes(5)  # locally administered
        self._config[reg.CONFIG_MTU : reg.CONFIG_MTU + 2] = MTU.to_bytes(2, "little")
        self._memory: list[DmaMemory] = []
        self._rings: dict[int, _Ring] = {}
        self._kicks: dict[int, int] = {}
        self._calls: dict[int, int] = {}
        self._accepted = 0
        self._running = False
        self._lock = threading.RLock()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._monitor: threading.Thread | None = None
        try:
            self._connection: Connection | None = Connection(self._path)
            self._offered = self._introduce(self._connection)
        except BaseException:
            os.close(self._stop)
            raise

    # -----------------------------------------------------------------------------------------------------------------
    # What every transport does

    def reset(self) -> None:
        """Stop the rings: the back end has stopped with one when it has said how far it has come."""
        with self._lock:
            if self._running and self._connection is not None:
                self._running = False
                try:
                    for index in self._rings:
                        self._connection.ask_ring(Request.GET_VRING_BASE, index)
                except OSError:
                    log.warning("%s: the back end has gone", self.address)
            self._running = False
            self._rings.clear()

    def features(self) -> int:
        return self._offered & ~_FRONT_END_MASK & ~_PROTOCOL_FEATURES | _OFFERED

    def accept(self, features: Features) -> None:
        self._accepted = int(features) & ~_FRONT_END_MASK

    def config_read(self, offset: int, size: int) -> int:
        up = self._connection is not None and self._running
        self._config[reg.CONFIG_STATUS] = reg.LINK_UP if up else 0
        return int.from_bytes(self._config[offset : offset + size], "little")

    def config_write(self, offset: int, data: bytes) -> None:
        self._config[offset : offset + len(data)] = data

    def ring_limit(self, index: int) -> int:
        pairs = int.from_bytes(self._config[reg.CONFIG_MAX_PAIRS : reg.CONFIG_MAX_PAIRS + 2], "little")
        return reg.MAX_RING_SIZE if index < 2 * pairs else 0

    def doorbell(self, index: int) -> Doorbell:
        self._kicks[index] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._calls[index] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return file_doorbell(self._kicks[index], (1).to_bytes(8, "little"))

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:
        """The back end hears of the ring when the driver is ready: it wants the memory first."""
        self._rings[index] = _Ring(addresses, resume)

    def start(self) -> None:
        """Hand everything over, and watch the back end from then on.

        Raises:
            Error: the back end went away.
        """
        with self._lock:
            try:
                self._hand_over(self._connected())
            except OSError as error:
                raise Error(f"{self.address}: the back end went away: {error.strerror or error}") from error
            self._running = True
        self._monitor = threading.Thread(target=self._watch, name="ixy-vhost-user", daemon=True)
        self._monitor.start()

    def failed(self) -> bool:
        return False

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Share `memory` with the back end.

        Raises:
            ConfigurationError: the back end takes no more pieces of memory.
        """
        with self._lock:
            self._memory.append(memory)
            try:
                self._share()
            except ConfigurationError:
                self._memory.remove(memory)
                raise
        first = GUEST_BASE + memory.offset
        return DmaMapping(np.arange(first, first + memory.size, memory.page_size, dtype=np.int64), memory.page_size)

    def unmap(self, memory: DmaMemory) -> None:
        """Forget `memory`. The back end keeps its mapping until the connection is closed, but touches it no more."""
        self._memory.remove(memory)

    def close(self) -> None:
        """Leave the back end."""
        os.eventfd_write(self._stop, 1)
        if self._monitor is not None:
            self._monitor.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for fd in (self._stop, *self._kicks.values(), *self._calls.values()):
            os.close(fd)

    # -----------------------------------------------------------------------------------------------------------------
    # The conversation

    def _connected(self) -> Connection:
        if self._connection is None:
            raise ConnectionError("not connected")
        return self._connection

    def _introduce(self, connection: Connection) -> int:
        """Become the owner and settle the protocol; what the back end offers."""
        try:
            connection.send(Request.SET_OWNER)
            offered = connection.ask(Request.GET_FEATURES)
            pairs = 1
            if offered & _PROTOCOL_FEATURES:
                protocol = connection.ask(Request.GET_PROTOCOL_FEATURES) & (_PROTOCOL_MQ | _PROTOCOL_REPLY_ACK)
                connection.send_word(Request.SET_PROTOCOL_FEATURES, protocol)
                connection.acknowledges = bool(protocol & _PROTOCOL_REPLY_ACK)
                pairs = connection.ask(Request.GET_QUEUE_NUM) if protocol & _PROTOCOL_MQ else 1
        except OSError as error:
            connection.close()
            raise UnsupportedDevice(f"{self.address}: no vhost-user back end answers there: {error}") from error
        self._config[reg.CONFIG_MAX_PAIRS : reg.CONFIG_MAX_PAIRS + 2] = pairs.to_bytes(2, "little")
        return offered

    def _hand_over(self, connection: Connection) -> None:
        """Features, memory, rings. The order matters: a ring's addresses lie in memory that is known by then."""
        protocol = self._offered & _PROTOCOL_FEATURES
        connection.send_word(Request.SET_FEATURES, self._accepted | protocol)
        connection.send_regions(self._regions())
        for index, ring in self._rings.items():
            size, *addresses = ring.addresses
            connection.send_ring(Request.SET_VRING_NUM, index, size)
            connection.send_ring(Request.SET_VRING_BASE, index, ring.resume())
            descriptors, driver, device = (address - GUEST_BASE + USER_BASE for address in addresses)
            connection.send_addresses(index, descriptors, device, driver)
            connection.send_fd(Request.SET_VRING_KICK, index, self._kicks[index])
            connection.send_fd(Request.SET_VRING_CALL, index, self._calls[index])
        if protocol:
            for index in self._rings:
                connection.send_ring(Request.SET_VRING_ENABLE, index, 1)
        connection.ask(Request.GET_FEATURES)  # an answer comes after all that was sent before has been done
        for fd in self._kicks.values():
            ring_doorbell(file_doorbell(fd, (1).to_bytes(8, "little")))

    def _regions(self) -> list[Region]:
        return [
            Region(GUEST_BASE + memory.offset, memory.size, USER_BASE + memory.offset, memory.fd)
            for memory in self._memory
        ]

    def _share(self) -> None:
        """Tell a running back end of memory that has come. One that has gone hears of it when it is back."""
        if self._running and self._connection is not None:
            try:
                self._connection.send_regions(self._regions())
            except OSError:
                log.debug("%s: the back end has gone; it is told of the memory when it is back", self.address)

    # -----------------------------------------------------------------------------------------------------------------
    # Back ends that come and go

    def _watch(self) -> None:
        """Wait for the back end to go, then for one to come, until the device is closed."""
        for connection in self._connections():
            with self._lock:
                self._connection = None
            connection.close()
            log.warning("%s: the back end has gone; waiting for it to come back", self.address)
            while not self._stopped(RETRY) and not self._reconnect():
                pass

    def _connections(self) -> Iterator[Connection]:
        """Connections that have ended."""
        while self._connection is not None:
            connection = self._connection
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLRDHUP)
            poll.register(self._stop, select.POLLIN)
            if any(fd == self._stop for fd, _ in poll.poll()):
                return
            yield connection

    def _stopped(self, timeout: float) -> bool:
        return bool(select.select([self._stop], [], [], timeout)[0])

    def _reconnect(self) -> bool:
        """Look whether a back end listens, and hand it the rings."""
        try:
            connection = Connection(self._path)
        except Error:
            return False
        with self._lock:
            try:
                self._take_up(connection)
            except (Error, OSError) as error:
                log.warning("%s: the back end that came does not do: %s", self.address, error)
                connection.close()
                return False
            self._connection = connection
        log.warning("%s: the back end is back", self.address)
        return True

    def _take_up(self, connection: Connection) -> None:
        """Continue with a back end that offers what was accepted from the first."""
        self._offered = self._introduce(connection)
        missing = Features(self._accepted & ~self._offered)
        if missing:
            raise UnsupportedDevice(f"it lacks {', '.join(missing.names())}")
        if self._running:
            self._hand_over(connection)
