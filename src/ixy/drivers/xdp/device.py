"""Control plane of an AF_XDP device: sockets bound to an interface's queues, and the program that fills them.

Source: Documentation/networking/af_xdp.rst of the Linux kernel, linux/if_xdp.h.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers import DEFAULT_POOL_SIZE, DEFAULT_RING_SIZE
from ixy.drivers.linux.device import LinuxDevice
from ixy.drivers.linux.interface import check_name, remedy
from ixy.drivers.linux.netlink import ETHERNET, LOOPBACK
from ixy.drivers.offloads import check_offloads
from ixy.drivers.rss import DEFAULT_KEY
from ixy.drivers.xdp.datapath import CHUNK, TAG_BYTES
from ixy.drivers.xdp.program import redirecting
from ixy.drivers.xdp.rings import (
    SOL_XDP,
    SharedRings,
    XdpPartsRxRing,
    XdpPartsTxRing,
    XdpRxRing,
    XdpTxRing,
)
from ixy.errors import AddressError, ConfigurationError, DeviceBusy, FilterError, MemoryUnavailable, UnsupportedDevice
from ixy.formats.links import HEADER
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.mempool import MAX_CAPACITY, Mempool
from ixy.packets.packets import check_metadata
from ixy.unsafe.libpcap import compile_expression
from ixy.unsafe.sockets import (
    AF_XDP,
    attach_program,
    bind_xdp,
    load_program,
    new_socket_map,
    program_name,
    put_socket,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.bpf import Program

log = logging.getLogger("ixy.xdp")

PREFIX = "xdp:"
NAME = "ixy_redirect"  # of the program, as `bpftool` and `ip link` show it

_UMEM_REG, _STATISTICS = 4, 7
_COUNTER_FORMAT = "=6Q"  # struct xdp_statistics
_COUNTERS = (
    *("rx_dropped", "rx_invalid_descs", "tx_invalid_descs"),
    *("rx_ring_full", "rx_fill_ring_empty_descs", "tx_ring_empty_descs"),
)
_UNALIGNED = 1
_COPY, _ZERO_COPY, _NEED_WAKEUP, _PARTS = 2, 4, 8, 16  # flags of bind
_GENERIC, _DRIVER = 2, 4  # flags of an XDP program: where it runs
_MODES = ("driver", "generic", "zerocopy")
_PATIENCE = 1.0  # seconds until the kernel has let go of a queue that was just closed
_AROUND = HEADER + TAG_BYTES  # bytes of a frame besides its payload
_DRAIN = 0.1  # seconds for what is to be sent when the device is closed
_CAPABILITIES = "+net_raw,+net_admin,+bpf,+ipc_lock"


class XdpAddress(NamedTuple):
    """What an address says.

    Attributes:
        name: of the interface.
        mode: one of "driver", "generic", "zerocopy"; empty for what the interface can.
        expression: which packets to take, in tcpdump's language; empty for all.
    """

    name: str
    mode: str
    expression: str


def parse(address: str) -> XdpAddress:
    """`xdp:NAME[,mode=MODE][,filter=EXPRESSION]`; the expression goes to the end.

    Raises:
        AddressError: malformed.
    """
    head, _, expression = address.removeprefix(PREFIX).partition(",filter=")
    if _ and not expression.strip():
        raise AddressError(f"{address}: filter= without a filter")
    name, *options = head.split(",")
    check_name(address, name)
    mode = ""
    for option in options:
        key, _, mode = option.partition("=")
        if key != "mode" or mode not in _MODES:
            raise AddressError(f"{address}: option {option!r}: mode={'|'.join(_MODES)} and filter=… are possible")
    return XdpAddress(name, mode, expression)


class XdpDevice(LinuxDevice):
    """An interface by AF_XDP. The kernel's network stack gets none of its packets, but for those that a filter leaves.

    Each queue of the interface that is used has a socket, and a pool that is the socket's memory. The program is gone
    when the process ends, however it ends.

    Where the MTU allows frames that are longer than a buffer, those come in parts. Without "parts" as metadata they are
    refused and counted.

    Args:
        address: see `parse`.
        rx_queues, tx_queues: how many of each, 1 to 64, and as many as the interface has; it spreads packets by itself.
        ring_size: a power of two, 64 to 32768.
        pool_size: packet buffers per queue, at least the size of a ring + 32.
        metadata: "time" and "parts" can be told.
        mtu: at most the interface's own, which the kernel keeps.
        force: take an interface that has an address or carries a route.

    Raises:
        AddressError: malformed, or there is no such interface.
        ConfigurationError: a parameter is out of range, or the interface has not so many queues.
        DeviceBusy: the interface is in use, or has an XDP program already.
        FilterError: the filter is malformed, or the kernel does not take it.
        PermissionDenied: the process lacks the rights.
        UnsupportedDevice: the interface, or the kernel, cannot do it.
    """

    name = "xdp"

    def __init__(
        self,
        address: str,
        rx_queues: int = 1,
        tx_queues: int = 1,
        ring_size: int = DEFAULT_RING_SIZE,
        pool_size: int = DEFAULT_POOL_SIZE,
        metadata: Sequence[str] = (),
        rss_key: bytes = DEFAULT_KEY,
        offloads: Sequence[str] = (),
        mtu: int | None = None,
        *,
        force: bool = False,
    ) -> None:
        wanted = parse(address)
        super().__init__(PREFIX + wanted.name, wanted.name, _CAPABILITIES)
        self.rx_rings: list[XdpRxRing] = []
        self.tx_rings: list[XdpTxRing] = []
        self._receiving, self._sending = self.rx_rings, self.tx_rings
        self._shared: list[SharedRings] = []
        self._link = -1
        self.mode = wanted.mode
        self._why_generic = ""
        self._in_parts = "parts" in metadata
        self._jumbo = self._in_parts or self.interface.first.mtu + _AROUND > BUFFER_SIZE
        self._check(rx_queues, tx_queues, ring_size, pool_size, rss_key)
        check_offloads(self.address, offloads, ())
        self._metadata = check_metadata(self.address, metadata, ("time", "parts"))
        self._check_mtu(mtu, self._metadata)
        chosen = compile_expression(wanted.expression) if wanted.expression else None
        if not (force or chosen):
            self.interface.refuse_if_used("take all of its packets all the same with --force, or some with filter=…")
        try:
            self._take_interface()
            self._undo.callback(self._attached.detach_all)
            for queue in range(max(rx_queues, tx_queues)):
                self._open_queue(queue, ring_size, pool_size, receive=queue < rx_queues, send=queue < tx_queues)
            self._allow(self.interface.first.mtu)
            self._attach(chosen, rx_queues, wanted)
        except BaseException:
            self.close()
            raise
        self._tell(rx_queues)

    def _check(self, rx_queues: int, tx_queues: int, ring_size: int, pool_size: int, rss_key: bytes) -> None:
        kind = self.interface.first.kind
        if kind != ETHERNET:
            what = (
                "a loopback interface, whose packets never leave the kernel" if kind == LOOPBACK else "none of Ethernet"
            )
            raise UnsupportedDevice(f"{self.address}: the interface is {what}")
        self._check_sizes(rx_queues, tx_queues, ring_size, pool_size)
        if rss_key != DEFAULT_KEY:
            raise ConfigurationError(f"{self.address}: the interface spreads packets by itself: no rss_key")

    # -----------------------------------------------------------------------------------------------------------------
    # Sockets

    def _parts(self) -> int:
        """In how many buffers a frame may lie: the longest that the MTU allows, and two where it allows none."""
        return max(-(-(self.interface.first.mtu + _AROUND) // BUFFER_SIZE), 2)

    def _open_queue(self, queue: int, ring_size: int, pool_size: int, *, receive: bool, send: bool) -> None:
        """A socket for a queue of the interface, over the memory of a pool of its own."""
        copies = ring_size if send else 0
        with Mempool(min(pool_size + copies, MAX_CAPACITY)) as pool:
            self._attached.attach(pool)
        sock = self._open_socket(pool)
        with self._explained("set up the rings of an AF_XDP socket"):
            shared = SharedRings(sock, ring_size)
        self._shared.append(shared)
        shape = shared, sock.fileno(), ring_size, pool
        rx = (
            XdpPartsRxRing(*shape, self._metadata, self._parts())
            if self._in_parts
            else XdpRxRing(*shape, self._metadata)
        )
        tx = XdpPartsTxRing(*shape) if self._in_parts else XdpTxRing(*shape)
        if receive:
            self.rx_rings.append(rx)
            self._undo.callback(rx.drain)
            rx.fill()
        if send:
            self.tx_rings.append(tx)
            self._undo.callback(tx.drain)
            tx.stock()
        self._bind(sock, queue)

    def _open_socket(self, pool: Mempool) -> socket.socket:
        with self._explained("open an AF_XDP socket"):
            try:
                sock = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                raise UnsupportedDevice(
                    f"{self.address}: this kernel has no AF_XDP: packet:{self.interface.first.name} works without"
                ) from error
        self._sockets.append(sock)
        region = struct.pack("=QQIIII", pool.memory.virtual_address, pool.memory.size, CHUNK, 0, _UNALIGNED, 0)
        try:
            sock.setsockopt(SOL_XDP, _UMEM_REG, region)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise ConfigurationError(f"{self.address}: no AF_XDP over this memory: {error.strerror}") from error
            raise MemoryUnavailable(
                f"{self.address}: the process may not lock {pool.memory.size} bytes of memory: raise its limit "
                f"(ulimit -l), or {remedy(_CAPABILITIES)}"
            ) from error
        return sock

    def _bind(self, sock: socket.socket, queue: int) -> None:
        """A queue that was just closed is busy for a moment still. Before Linux 6.6, no frame comes in parts.

        Raises:
            UnsupportedDevice: likewise, and they are asked for.
        """
        flags = _NEED_WAKEUP | (_ZERO_COPY if self.mode == "zerocopy" else _COPY) | (_PARTS if self._jumbo else 0)
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                bind_xdp(sock.fileno(), flags, self.interface.index, queue)
                if self._in_parts and not flags & _PARTS:
                    raise UnsupportedDevice(
                        f"{self.address}: this kernel, or the interface's driver, has no frames in parts, as Linux 6.6 "
                        "has them: leave out metadata 'parts' (--mtu)"
                    )
                return
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                if error.errno == errno.EINVAL and flags & _PARTS:
                    flags &= ~_PARTS
                    continue
                raise self._refusal(error, queue) from error

    def _refusal(self, error: OSError, queue: int) -> Exception:
        name = self.interface.first.name
        if error.errno == errno.EBUSY:
            return DeviceBusy(f"{self.address}: queue {queue} is in use: there is an AF_XDP socket already")
        if error.errno == errno.EINVAL:
            return ConfigurationError(
                f"{self.address}: the interface has no queue {queue}: ethtool -l {name} shows how many there are"
            )
        if error.errno == errno.EOPNOTSUPP and self.mode == "zerocopy":
            return UnsupportedDevice(
                f"{self.address}: the interface's driver has no zero-copy: leave out mode=zerocopy"
            )
        return UnsupportedDevice(f"{self.address}: cannot bind to queue {queue}: {error.strerror}")

    # -----------------------------------------------------------------------------------------------------------------
    # The program

    def _attach(self, chosen: Program | None, rx_queues: int, wanted: XdpAddress) -> None:
        """Sockets are in the map before the program runs: the first packet finds one."""
        with self._explained("load an XDP program"):
            sockets = new_socket_map(rx_queues)
        try:
            for queue, sock in enumerate(self._sockets[:rx_queues]):
                put_socket(sockets, queue, sock.fileno())
            program = self._load(redirecting(sockets, chosen), wanted.expression)
            try:
                self._link = self._attach_somehow(program)
            finally:
                os.close(program)
        finally:
            os.close(sockets)

    def _load(self, code: bytes, expression: str) -> int:
        try:
            return load_program(code, NAME, fragments=self._jumbo)
        except PermissionError:
            with self._explained("load an XDP program"):
                raise
        except OSError as error:
            if expression:
                raise FilterError(
                    f"{self.address}: the kernel does not take filter={expression!r}: {error.strerror}"
                ) from error
            raise UnsupportedDevice(f"{self.address}: the kernel takes no XDP program: {error.strerror}") from error

    def _attach_somehow(self, program: int) -> int:
        """In the driver, or, unless that is asked for, before the network stack."""
        modes = {"generic": [_GENERIC], "driver": [_DRIVER], "zerocopy": [_DRIVER]}.get(self.mode, [_DRIVER, _GENERIC])
        for mode in modes:
            try:
                link = attach_program(program, self.interface.index, mode)
            except OSError as error:
                self._refuse_if_taken(error)
                self._why_generic = self._reason(error)
                if mode == modes[-1]:
                    raise UnsupportedDevice(
                        f"{self.address}: cannot attach an XDP program: {self._why_generic}"
                    ) from error
            else:
                self.mode = self.mode or ("driver" if mode == _DRIVER else "generic")
                return link
        raise AssertionError

    def _refuse_if_taken(self, error: OSError) -> None:
        number = self.interface.now().program
        if error.errno in (errno.EBUSY, errno.EEXIST) and number:
            called = ""
            with suppress(OSError):  # only root may ask
                called = f" {program_name(number)}"
            raise DeviceBusy(
                f"{self.address}: XDP program{called} (id {number}) is attached to it: end what has attached it, or: "
                f"ip link set {self.interface.first.name} xdp off"
            ) from error

    def _reason(self, error: OSError) -> str:
        if error.errno == errno.ERANGE:
            return f"its MTU is more than its driver takes: ip link set {self.interface.first.name} mtu 1500"
        if error.errno == errno.EOPNOTSUPP:
            return "its driver knows no XDP"
        if error.errno == errno.ENOSPC:
            queues = self.interface.rx_queues()
            return f"it has {queues} receive queues, and its peer more to transmit: ethtool -L PEER tx {queues}"
        return str(error.strerror)

    def _tell(self, rx_queues: int) -> None:
        there = self.interface.rx_queues()
        log.info("%s: ready, %s mode, MAC %s", self.address, self.mode, self.mac().hex(":"))
        if self._why_generic:
            log.warning("%s: generic mode, which is slower: %s", self.address, self._why_generic)
        if self._jumbo and not self._in_parts:
            log.warning(
                "%s: with its MTU of %d, frames of more than %d bytes are dropped, and counted as refused",
                self.address,
                self.interface.first.mtu,
                BUFFER_SIZE,
            )
        if there > rx_queues:
            log.warning(
                "%s: it has %d receive queues, and %d opened: packets of the others go to the kernel; open as many, or "
                "have fewer by ethtool -L %s combined %d, where that is refused rx %d",
                self.address,
                there,
                rx_queues,
                self.interface.first.name,
                rx_queues,
                rx_queues,
            )

    # -----------------------------------------------------------------------------------------------------------------
    # While it runs, and the end

    def _allow(self, mtu: int) -> None:
        """The kernel completes what is too long for the interface as if it had sent it, so it is not handed over."""
        for ring in self.tx_rings:
            ring.allow(mtu + HEADER)

    def _lost(self) -> int:
        """What found no buffer, or no place."""
        counted = self._socket_counters()
        return sum(
            counted[f"q{queue}_socket_{name}"]
            for queue in range(len(self.rx_rings))
            for name in ("rx_dropped", "rx_ring_full")
        )

    def _socket_counters(self) -> dict[str, int]:
        size = struct.calcsize(_COUNTER_FORMAT)
        return {
            f"q{queue}_socket_{name}": count
            for queue, sock in enumerate(self._sockets)
            for name, count in zip(
                _COUNTERS, struct.unpack(_COUNTER_FORMAT, sock.getsockopt(SOL_XDP, _STATISTICS, size)), strict=True
            )
        }

    def _way(self) -> str:
        return f"AF_XDP, {self.mode} mode"

    def close(self) -> None:
        """Packets go to the kernel again; what is to be sent is sent, and then the kernel has nothing of ours. Only
        after that buffers are taken back. A second call does nothing, or goes on with it."""
        if not self._owner.mine():
            return
        with self._lock:
            self._detach()
            end = time.monotonic() + _DRAIN
            while sum(ring.in_flight for ring in self.tx_rings) and time.monotonic() < end:
                self.sent()
                time.sleep(0.001)
            self._close_sockets()
            super().close()

    def _detach(self) -> None:
        link, self._link = self._link, -1
        if link >= 0:
            os.close(link)

    def _close_sockets(self) -> None:
        for shared in self._shared:
            shared.close()
        for sock in self._sockets:
            sock.close()

    def forget(self) -> None:
        self._detach()
        self._close_sockets()
        super().forget()
