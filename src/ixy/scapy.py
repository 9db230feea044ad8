"""Scapy on any device: a socket for those functions of Scapy's that take one, and an interface for the others.

    from scapy.all import ARP, ICMP, IP, Ether, sniff, srp1
    from ixy.scapy import IxySocket, interface

    with ixy.open("sim:a,tap=ixy0") as device:
        with IxySocket(device, filter="arp or icmp") as socket:
            answer = socket.sr1(Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(), timeout=1)
            packets = sniff(opened_socket=socket, count=10)
        answer = srp1(Ether() / ARP(psrc="10.0.0.2", pdst="10.0.0.1"), iface=interface(device), timeout=1)

Scapy is loaded with this module.
"""

from __future__ import annotations

import math
import select as system
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ixy import clock
from ixy.arguments import integer
from ixy.device import MAX_QUEUES, Device, open_device
from ixy.errors import Error, UnsupportedDevice
from ixy.filters import Filter
from ixy.packets.scapy import frame_of, library, moment, octets, seconds
from ixy.waiting import Wait

if TYPE_CHECKING:
    from ixy.packets.batch import Batch

# A socket looks into the queues that it is made of.
# pyright: reportPrivateUsage=false

_BATCH = 32  # packets that are received at a time
_scapy = library("ixy.scapy")
_SuperSocket: Any = _scapy.SuperSocket
_InterfaceProvider: Any = _scapy.InterfaceProvider


class IxySocket(_SuperSocket):
    """A `SuperSocket` of Scapy's that receives from and sends to a device: for `sniff(opened_socket=…)`, also in
    another thread (`AsyncSniffer`), `sndrcv`, `bridge_and_sniff`, answering machines (`socket.am(ARP_am, …)`), and with
    methods of its own, `sr1`, `sr`, `sniff`.

    Who waits sleeps until the device interrupts; where the bus delivers no interrupts, it looks each millisecond.
    Scapy's timeouts are seconds of the system's clock: by a virtual one a wait with a timeout takes as long by both, a
    wait without is over as soon as a packet comes, and all is to be done in one thread.

    Args:
        device: a device, which stays open when the socket is closed; or an address, which is opened, and closed with
            the socket.
        queue: the number of its receive queue and of its transmit queue.
        filter: packets to be received, in tcpdump's language, applied by compiled code; all others are dropped.

    Attributes:
        device: see above.

    Raises:
        ConfigurationError: there is no such queue.
        FilterError: as `ixy.filter`.
        …: as `ixy.open`, for an address.
    """

    desc = "frames to and from a device that ixy drives"
    _opened: Device | None = None

    def __init__(self, device: Device | str, queue: int = 0, filter: Filter | str | None = None) -> None:  # noqa: A002
        queue = integer("queue", queue, 0, MAX_QUEUES - 1)
        self._filter = Filter(filter) if isinstance(filter, str) else filter
        if isinstance(device, str):
            device = self._opened = open_device(device, rx_queues=queue + 1, tx_queues=queue + 1, metadata=("time",))
        most = min(len(device.rx), len(device.tx)) - 1
        integer(f"{device.address}: queue", queue, 0, most)
        self.device, self.iface = device, device.address
        self._rx, self._tx = device.rx[queue], device.tx[queue]
        self._frames: deque[tuple[bytes, int]] = deque()  # that were received, and when, in ns since 1970

    def send(self, x: Any) -> int:
        """Send a packet; how many bytes it has. One without an Ethernet source comes from the device, and one without a
        destination goes to everybody.

        Raises:
            ConfigurationError: it is longer than a buffer.
            Error: there was no room for it for a second.
            TypeError: no packet with an Ethernet header.
        """
        frame = frame_of(_scapy, x, self.device.mac)
        x.sent_time = clock.date_ns() / 1e9
        if not self._tx._send_frame(frame):
            raise Error(f"{self._tx} takes no packet: its ring is full, or all buffers are in use")
        return len(frame)

    def recv_raw(self, x: int = _scapy.MTU) -> tuple[Any, bytes, Any]:
        """The next packet: how Scapy is to dissect it, up to `x` bytes of it, and its time. It is waited for.

        Raises:
            EOFError: the socket or its device is closed.
        """
        while not self._frames:
            if self._over():
                raise EOFError
            self.select([self], None)
        data, received = self._frames.popleft()
        return _scapy.Ether, data[:x], seconds(_scapy, received)

    def recv(self, x: int = _scapy.MTU, **options: Any) -> Any:
        """The next packet, dissected; it is waited for. Raises as `recv_raw`."""
        packet: Any = _SuperSocket.recv(self, x, **options)
        if packet is not None:
            packet.wirelen = len(packet.original)
        return packet

    def sr(self, *args: Any, **options: Any) -> Any:
        """Send packets and receive answers, see Scapy's `sndrcv`. By a virtual clock they are sent first."""
        options.setdefault("threaded", not clock.is_virtual())
        return _SuperSocket.sr(self, *args, **options)

    def fileno(self) -> int:
        """A file that is readable when a packet may have come; raises as `RxQueue.fileno`."""
        return self._rx.fileno()

    def close(self) -> None:
        """Close the socket, and the device if the socket has opened it."""
        self.closed = True
        if self._opened is not None:
            self._opened.close()

    @staticmethod
    def select(sockets: Sequence[Any], remain: float | None = _scapy.conf.recv_poll_rate) -> list[Any]:
        """Those of some sockets from which something can be received, or that are closed; they are waited for so many
        seconds, without an end for None. Other kinds of Scapy's sockets may be among them."""
        ours = [each for each in sockets if isinstance(each, IxySocket)]
        others = [each for each in sockets if not isinstance(each, IxySocket)]
        return (_select_virtually if clock.is_virtual() else _select)(ours, others, remain)

    def _look(self) -> bool:
        """Take what has come; whether `recv` has something, or nothing more to wait for."""
        if not self._frames and not self._over():
            try:
                with self._rx.receive(min(_BATCH, self._rx.ring.size)) as batch:
                    self._take(batch)
            except Error:
                if not self._over():  # another thread has closed it just now
                    raise
        return bool(self._frames) or self._over()

    def _take(self, batch: Batch) -> None:
        """Keep what passes the filter of a batch."""
        passed = [True] * len(batch) if self._filter is None or not len(batch) else self._filter(batch)
        for packet, wanted in zip(batch, passed, strict=True):
            if wanted:
                self._frames.append((octets(packet), moment(packet)))

    def _over(self) -> bool:
        return self.closed or self.device.closed


def interface(device: Device, queue: int = 0) -> Any:
    """An interface of Scapy's, for functions that open sockets by themselves: `srp1(…, iface=interface(device))`,
    `sniff(iface=…)`, `sendp(…, iface=…)`, `ARP_am(iface=…)`. Their filters are compiled, as those of an `IxySocket`.

    Args:
        device, queue: as of `IxySocket`; the device stays open.
    """
    return _scapy.NetworkInterface(
        _Provider(device, queue),
        {
            "name": device.address,
            "network_name": device.address,
            "description": device.address,
            "mac": device.mac.hex(":"),
        },
    )


class _Provider(_InterfaceProvider):
    """Makes the sockets of an interface."""

    name = "ixy"

    def __init__(self, device: Device, queue: int) -> None:
        self._open = partial(_socket, device, queue)

    def _l2socket(self, _dev: Any) -> Any:
        return self._open

    _l2listen = _l2socket


def _socket(
    device: Device,
    queue: int,
    filter: str | None = None,  # noqa: A002
    nofilter: int = 0,
    **_: Any,  # what Scapy asks of the system's sockets: the protocol, to be promiscuous
) -> IxySocket:
    return IxySocket(device, queue, None if nofilter else filter)


# ---------------------------------------------------------------------------------------------------------------------
# Waiting for several sockets


def _select(ours: list[IxySocket], others: list[Any], remain: float | None) -> list[Any]:
    """By the system's clock: other threads may do something, and other sockets get something."""
    end = math.inf if remain is None else time.monotonic() + remain
    while True:
        ready: list[Any] = [each for each in ours if each._look()]
        left = 0.0 if ready else max(end - time.monotonic(), 0.0)
        ready += _listen([] if ready else ours, others, left)
        if ready or time.monotonic() >= end:
            return ready


def _listen(ours: list[IxySocket], others: list[Any], seconds: float) -> list[Any]:
    """Wait until there may be something for ours, or there is for others; those of the others."""
    closed = [each for each in others if each.closed]
    watched: list[Any] = [each for each in others if not each.closed]
    for each in ours:
        try:
            each.fileno()
            watched.append(each)
        except UnsupportedDevice:
            seconds = min(seconds, clock.LOOK_AGAIN)
        except Error:  # its device was closed meanwhile
            seconds = 0.0
    readable = system.select(watched, [], [], 0.0 if closed else None if seconds == math.inf else seconds)[0]
    return closed + [each for each in readable if each not in ours]


def _select_virtually(ours: list[IxySocket], others: list[Any], remain: float | None) -> list[Any]:
    """By a virtual clock: nothing happens but by waiting here."""
    queues = [each._rx for each in ours if not each._over()]
    ready: list[Any] = []
    start = clock.monotonic()
    with Wait(queues, [queue.bell() for queue in queues], remain) as wait:
        while True:
            ready = [each for each in ours if each._look()] + _listen([], others, 0.0)
            if ready or not wait.sleep(wait.look()):
                break
    if remain is not None:
        time.sleep(clock.monotonic() - start)
    return ready
