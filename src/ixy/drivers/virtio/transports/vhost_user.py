"""VirtIO across vhost-user: the rings and packets are shared with another process, which is the device.

This is the front end. It hands the back end file descriptors of its memory over a UNIX socket, says where the rings
lie, and has nothing more to do with it: packets go through shared memory alone. When the back end goes away, the link
is down; as soon as one listens again, it is handed the same rings and goes on where the one before it stopped. The data
path notices nothing but that nothing moves meanwhile.

Source: the Vhost-user Protocol of QEMU (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ixy.arguments import integer
from ixy.bus import Slot
from ixy.bus.pci import explained
from ixy.drivers.interrupts import SharedEventFile
from ixy.drivers.virtio.features import Features
from ixy.drivers.virtio.transports.transport import Doorbell, RingAddresses, file_doorbell
from ixy.drivers.virtio.transports.vhost_messages import (
    CLOSING,
    PROTOCOL_FEATURES,
    PROTOCOL_MQ,
    PROTOCOL_REPLY_ACK,
    TIMEOUT,
    Connection,
    Region,
    Request,
)
from ixy.errors import AddressError, ConfigurationError, Error, UnsupportedDevice
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import PAGE, DmaMapping, DmaMemory
from ixy.process import forget_in_child
from ixy.registers import virtio as reg

log = logging.getLogger("ixy.virtio")

PREFIX = "vhost-user:"
RETRY = 0.1  # seconds between two looks for a back end that has gone

# The first byte of the process's DMA window, as descriptors name it and as ring addresses do. Neither is a pointer.
GUEST_BASE = 1 << 36
USER_BASE = 1 << 44

_PROTOCOL_FEATURES = 1 << PROTOCOL_FEATURES

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
_MAX_PAIRS = 128  # SET_VRING_KICK and SET_VRING_CALL have 8 bits for the number of a ring


def parse(address: str, prefix: str = PREFIX) -> tuple[str, int]:
    """The path of the socket and the feature bits that the user does not want: `vhost-user:PATH[,ring=split]`.

    Args:
        prefix: what the address begins with; each end of a socket has one.

    Raises:
        AddressError: malformed.
    """
    path, *options = address.removeprefix(prefix).split(",")
    unwanted = 0
    for option in options:
        key, _, value = option.partition("=")
        if key != "ring" or value not in ("split", "packed"):
            raise AddressError(f"{address}: option {option!r}: ring=split and ring=packed are possible")
        unwanted = 1 << reg.RING_PACKED if value == "split" else 0
    if not path:
        raise AddressError(f"{address}: write {prefix}/path/to/socket")
    return path, unwanted


class _Ring(NamedTuple):
    """A ring as the driver set it up, to be told to every back end that comes."""

    addresses: RingAddresses
    resume: Callable[[], int]


class _Bells(NamedTuple):
    """File descriptors by which the two sides of a ring wake each other.

    The back end is woken by a pipe. With an eventfd, which both sides share, it could fill the counter and make the
    descriptor a blocking one, and who sends packets would wait for it. Our end of a pipe is ours alone. As with an
    eventfd the back end reads 8 bytes; our copy of its end keeps the pipe whole when it goes.

    Attributes:
        kick: the end of the pipe that the back end reads.
        ring: the end that we write.
        call: an eventfd by which the back end wakes us, if we wait. It may do to it what it likes.
    """

    kick: int
    ring: int
    call: int


_RING = (1).to_bytes(8, "little")  # what is written to wake the other side


def _bells() -> _Bells:
    kick, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.fcntl(ring, fcntl.F_SETPIPE_SZ, PAGE)  # so many calls are enough for a back end that sleeps
        return _Bells(kick, ring, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    except BaseException:
        os.close(kick)
        os.close(ring)
        raise


class _Offer(NamedTuple):
    """What a back end says of itself: its features, and how many pairs of queues it has."""

    features: int
    pairs: int


class VhostUser:
    """A back end across a socket; see `ixy.drivers.virtio.transports.transport.Transport`.

    Once it runs, one thread speaks with the back end: it takes up those that come, and stops the rings at the end. Only
    memory that comes later is shared by whoever brings it.

    Args:
        address: `vhost-user:/path/to/socket`, perhaps with options, see `parse`.

    Raises:
        AddressError: nobody listens there.
        PermissionDenied: the socket is out of this user's reach.
        UnsupportedDevice: who listens is no vhost-user back end, or one that makes no sense.
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
        self._bells: dict[int, _Bells] = {}
        self._calls: dict[int, SharedEventFile] = {}
        self._accepted = 0
        self._running = False
        self._unwatched = False
        self._complaint = ""
        self._tell_gone: Callable[[], bool] = lambda: False
        self._lock = threading.RLock()  # of the conversation
        self._monitor: threading.Thread | None = None
        self._connection: Connection | None = None
        with explained(self.address, "open a file"):
            self._closing = os.eventfd(0, os.EFD_CLOEXEC)
        forget_in_child(self)
        try:
            with explained(self.address, "open a file"):
                self._connection = Connection(self._path, self._closing)
            offer = self._introduce(self._connection)
        except BaseException:
            self.close()
            raise
        self._offered = offer.features
        self._config[reg.CONFIG_MAX_PAIRS : reg.CONFIG_MAX_PAIRS + 2] = offer.pairs.to_bytes(2, "little")

    # -----------------------------------------------------------------------------------------------------------------
    # What every transport does

    def slot(self) -> Slot:
        return Slot("vhost-user")

    def reset(self) -> None:
        """Stop the rings, and leave the back end. If this is interrupted, call it once more."""
        if self._monitor is not None:
            os.eventfd_write(self._closing, 1)
            self._monitor.join()  # all that it may wait for is bounded by `CLOSING`
        self._leave()

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
        with explained(self.address, "open a file"):
            self._bells[index] = _bells()
        return file_doorbell(self._bells[index].ring, _RING)

    def set_ring(self, index: int, addresses: RingAddresses, resume: Callable[[], int]) -> None:
        """The back end hears of the ring when the driver is ready: it wants the memory first."""
        self._rings[index] = _Ring(addresses, resume)

    def interrupt(self, queue: int, queues: int) -> SharedEventFile:  # noqa: ARG002
        """The rings' eventfds are there from the start."""
        if queue not in self._calls:
            with explained(self.address, "open a file"):
                self._calls[queue] = SharedEventFile(self._bells[2 * queue].call)
        return self._calls[queue]

    def start(self) -> None:
        """Hand everything over, and watch the back end from then on.

        Raises:
            ConfigurationError: the back end does not take the memory.
            Error: it went away, or does not answer; or the process can have no more threads.
        """
        with self._lock:
            self._running = True  # some rings may be, from now on, whatever goes wrong
            try:
                self._hand_over(self._connected())
            except OSError as error:
                self._drop()
                raise Error(f"{self.address}: the back end went away: {error.strerror or error}") from error
        self._monitor = threading.Thread(target=self._watch, name="ixy-vhost-user", daemon=True)
        try:
            self._monitor.start()
        except RuntimeError as error:
            self._monitor = None
            raise Error(f"{self.address}: {error}") from error

    def failed(self) -> bool:
        """Whether nobody watches the back end any more."""
        return self._unwatched

    def when_gone(self, tell: Callable[[], bool]) -> None:
        self._tell_gone = tell

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Share `memory` with the back end.

        Raises:
            ConfigurationError: the back end takes no more pieces of memory.
        """
        with self._lock:
            self._memory.append(memory)
            try:
                self._share()
            except BaseException:
                self._memory.remove(memory)
                raise
        return DmaMapping.linear(memory, GUEST_BASE)

    def unmap(self, memory: DmaMemory) -> None:
        """Forget `memory`. The back end keeps its mapping until the connection is closed, but touches it no more."""
        with self._lock:
            if memory in self._memory:
                self._memory.remove(memory)

    def close(self) -> None:
        """Give all up that belongs to the device."""
        self.forget()

    def forget(self) -> None:
        """Close all files; see `ixy.process.Inheritance`."""
        self._drop()
        while self._calls:
            self._calls.popitem()[1].close()
        while self._bells:
            _, bells = self._bells.popitem()
            for fd in bells:
                os.close(fd)
        if self._closing >= 0:
            os.close(self._closing)
            self._closing = -1

    # -----------------------------------------------------------------------------------------------------------------
    # The conversation

    def _connected(self) -> Connection:
        if self._connection is None:
            raise ConnectionError("not connected")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _introduce(self, connection: Connection) -> _Offer:
        """Become the owner and settle the protocol; what the back end offers."""
        pairs = 1
        try:
            connection.send(Request.SET_OWNER)
            features = connection.ask(Request.GET_FEATURES)
            connection.extended = bool(features & _PROTOCOL_FEATURES)
            if connection.extended:
                protocol = connection.ask(Request.GET_PROTOCOL_FEATURES) & (PROTOCOL_MQ | PROTOCOL_REPLY_ACK)
                connection.send_word(Request.SET_PROTOCOL_FEATURES, protocol)
                connection.acknowledges = bool(protocol & PROTOCOL_REPLY_ACK)
                pairs = connection.ask(Request.GET_QUEUE_NUM) if protocol & PROTOCOL_MQ else 1
        except OSError as error:
            raise UnsupportedDevice(f"{self.address}: no vhost-user back end answers there: {error}") from error
        integer(f"{self.address}: the back end's number of queues", pairs, 1, reg.MAX_PAIRS, error=UnsupportedDevice)
        return _Offer(features, min(pairs, _MAX_PAIRS))

    def _hand_over(self, connection: Connection) -> None:
        """Features, memory, rings. The order matters: a ring's addresses lie in memory that is known by then."""
        protocol = _PROTOCOL_FEATURES if connection.extended else 0
        connection.send_word(Request.SET_FEATURES, self._accepted | protocol)
        connection.send_regions(self._regions())
        for index, ring in self._rings.items():
            size, *addresses = ring.addresses
            connection.send_ring(Request.SET_VRING_NUM, index, size)
            connection.send_ring(Request.SET_VRING_BASE, index, ring.resume())
            descriptors, driver, device = (address - GUEST_BASE + USER_BASE for address in addresses)
            connection.send_addresses(index, descriptors, device, driver)
            connection.send_fd(Request.SET_VRING_KICK, index, self._bells[index].kick)
            connection.send_fd(Request.SET_VRING_CALL, index, self._bells[index].call)
        if connection.extended:
            for index in self._rings:
                connection.send_ring(Request.SET_VRING_ENABLE, index, 1)
        connection.ask(Request.GET_FEATURES)  # an answer comes after all that was sent before has been done
        for bells in self._bells.values():
            with suppress(BlockingIOError):  # the pipe is full: the back end has something to read
                os.write(bells.ring, _RING)

    def _regions(self) -> list[Region]:
        return [
            Region(GUEST_BASE + memory.offset, memory.size, USER_BASE + memory.offset, memory.fd)
            for memory in self._memory
        ]

    def _share(self) -> None:
        """Tell a running back end of memory that has come. One that has gone hears of it when it is back."""
        if not self._running or self._connection is None:
            return
        self._connection.allow(TIMEOUT)
        try:
            self._connection.send_regions(self._regions())
        except ConfigurationError:
            raise  # it has answered
        except OSError:
            log.debug("%s: the back end has gone; it is told of the memory when it is back", self.address)
            self._connection.hang_up()
        except BaseException:
            self._connection.hang_up()  # an answer may be under way
            raise

    def _leave(self) -> None:
        """Let the back end stop the rings, and close the connection."""
        with self._lock:
            if self._connection is not None and self._running:
                self._connection.allow(CLOSING)
                try:
                    self._connection.stop_rings(list(self._rings))
                except OSError as error:
                    log.warning("%s: the back end has not said that it has stopped: %s", self.address, error)
                self._drop()
            self._running = False

    # -----------------------------------------------------------------------------------------------------------------
    # Back ends that come and go

    def _watch(self) -> None:
        """Wait for the back end to go, then for one to come, until the device is closed."""
        try:
            while self._gone():
                self._lose()
                while not self._reconnected():
                    if self._closes(RETRY):
                        break
            self._leave()
        except BaseException:
            self._unwatched = True
            log.exception("%s: nobody watches the back end any more", self.address)

    def _gone(self) -> bool:
        """Wait until the back end has gone (True), or the device is to be closed."""
        poll = select.poll()
        poll.register(self._closing, select.POLLIN)
        if self._connection is not None:
            poll.register(self._connection.fileno(), select.POLLRDHUP)
        return all(fd != self._closing for fd, _ in poll.poll())

    def _lose(self) -> None:
        with self._lock:
            self._drop()
        if not self._tell_gone():
            log.warning("%s: the back end has gone; waiting for it to come back", self.address)

    def _closes(self, timeout: float) -> bool:
        """Whether the device is to be closed, after waiting for that for `timeout` seconds."""
        poll = select.poll()
        poll.register(self._closing, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _reconnected(self) -> bool:
        """Look whether a back end listens, and hand it the rings.

        Whatever it says, and whatever goes wrong about it, the next look may find a better one.
        """
        connection: Connection | None = None
        try:
            connection = Connection(self._path, self._closing)
            with self._lock:
                self._take_up(connection)
                self._connection = connection
        except AddressError:
            return False  # nobody listens
        except Exception as error:
            if connection is not None:
                connection.close()
            self._complain(str(error) or repr(error))
            return False
        self._complaint = ""
        log.warning("%s: the back end is back", self.address)
        return True

    def _complain(self, complaint: str) -> None:
        """Once, as long as it stays the same: there are several tries a second."""
        if complaint != self._complaint:
            log.warning("%s: the back end that came does not do: %s", self.address, complaint)
        self._complaint = complaint

    def _take_up(self, connection: Connection) -> None:
        """Continue with a back end that offers what was accepted from the first."""
        offer = self._introduce(connection)
        missing = Features(self._accepted & ~offer.features)
        if missing:
            raise UnsupportedDevice(f"it lacks {', '.join(missing.names())}")
        if 2 * offer.pairs < len(self._rings):
            raise UnsupportedDevice(f"it has {offer.pairs} pairs of queues, and {len(self._rings) // 2} are in use")
        self._hand_over(connection)
