"""One conversation with a front end: what it asks, what it says of its rings, and what is wrong about that.

Source: the Vhost-user Protocol of QEMU (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ixy.drivers.vhost.memory import Shared
from ixy.drivers.vhost.rings import Setting, VhostRxRing, VhostTxRing
from ixy.drivers.virtio.features import DOING, Features
from ixy.drivers.virtio.headers import CUTS, CUTS_ECN, JOINS, JOINS_ECN, SUMS, TELLS
from ixy.drivers.virtio.transports.vhost_messages import (
    HEADER,
    LOG_ALL,
    NEED_REPLY,
    PROTOCOL_FEATURES,
    PROTOCOL_MQ,
    PROTOCOL_REPLY_ACK,
    REPLY,
    TIMEOUT,
    VERSION,
    VERSION_MASK,
    Region,
    Request,
)
from ixy.errors import Error, MemoryUnavailable
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.drivers.vhost.interrupts import KickInterrupt
    from ixy.drivers.vhost.memory import GuestMemory

log = logging.getLogger("ixy.vhost")

_MAX_PAYLOAD = 1024  # bytes; a table of 8 regions has 264
_MAX_FILES = 16
_WORD, _RING, _ADDRESSES = struct.Struct("<Q"), struct.Struct("<II"), struct.Struct("<IIQQQQ")
_TABLE, _REGION = struct.Struct("<II"), struct.Struct("<QQQQ")
_NO_FILE, _INDEX = 1 << 8, 0xFF  # in what comes with SET_VRING_KICK and others of that kind
_LOGGED = 1  # a ring whose writes are to be logged
_PROTOCOL = PROTOCOL_MQ | PROTOCOL_REPLY_ACK


# What the front end does is the other way round for us: we receive what it sends.
_ABLE = {
    reg.CSUM: TELLS,
    reg.HOST_TSO4: JOINS,
    reg.HOST_ECN: JOINS_ECN,
    reg.GUEST_CSUM: SUMS,
    reg.GUEST_TSO4: CUTS,
    reg.GUEST_ECN: CUTS_ECN,
}


class Offer(NamedTuple):
    """What front ends are offered: features of the device, and how many pairs of rings there are."""

    features: int
    pairs: int


class Broken(Error):
    """A front end breaks the rules; the message says how, and goes on from "the front end"."""


class Port(Protocol):
    """What a front end's rings are connected to.

    Attributes:
        memory: where its memory is mapped.
    """

    memory: GuestMemory

    def ring(self, index: int) -> VhostRxRing | VhostTxRing:
        """Ours at the other end of its ring `index`."""
        ...

    def interrupt(self, index: int) -> KickInterrupt | None:
        """Who is to hear of its kicks on that ring."""
        ...


class _Ring:
    """A ring as far as the front end has described it; addresses are its own."""

    def __init__(self) -> None:
        self.size = 0
        self.base = 0
        self.descriptors = self.used = self.available = -1
        self.kicked = False  # it has been started
        self.enabled = False
        self.files: dict[Request, int] = {}

    def set_file(self, request: Request, fd: int) -> None:
        """Have a file from now on, -1 for none; the one before it is closed."""
        before = self.files.pop(request, -1)
        if before >= 0:
            os.close(before)
        if fd >= 0:
            self.files[request] = fd

    def file(self, request: Request) -> int:
        return self.files.get(request, -1)


class FrontEnd:
    """A front end that has connected.

    Args:
        sock: the connection; it is closed with this.
        port: what its rings are connected to. None of them runs yet.
        offer: what it is offered.
        closing: an eventfd that is readable once the device is to be closed. Nobody waits for the front end then.

    Attributes:
        features: that it has accepted.
    """

    def __init__(self, sock: socket.socket, port: Port, offer: Offer, closing: int) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._port = port
        self._offer = offer
        self._closing = closing
        self._rings = [_Ring() for _ in range(2 * offer.pairs)]
        self.features = Features(0)
        self._settled = False
        self._acknowledges = False
        self._calling: set[int] = set()
        self._files: list[int] = []  # that came beside the message at hand and are nobody's yet
        self._handlers: dict[Request, Callable[[bytes], bytes | None]] = {
            Request.GET_FEATURES: self._get_features,
            Request.SET_FEATURES: self._set_features,
            Request.SET_OWNER: self._ignore,
            Request.RESET_OWNER: self._ignore,
            Request.SET_MEM_TABLE: self._set_mem_table,
            Request.SET_LOG_BASE: self._refuse_log,
            Request.SET_LOG_FD: self._refuse_log,
            Request.SET_VRING_NUM: self._set_num,
            Request.SET_VRING_ADDR: self._set_addr,
            Request.SET_VRING_BASE: self._set_base,
            Request.GET_VRING_BASE: self._get_base,
            Request.SET_VRING_KICK: self._set_kick,
            Request.SET_VRING_CALL: self._set_call,
            Request.SET_VRING_ERR: self._set_err,
            Request.GET_PROTOCOL_FEATURES: lambda _: _WORD.pack(_PROTOCOL),
            Request.SET_PROTOCOL_FEATURES: self._set_protocol,
            Request.GET_QUEUE_NUM: lambda _: _WORD.pack(self._offer.pairs),
            Request.SET_VRING_ENABLE: self._enable,
        }

    @property
    def at_rest(self) -> bool:
        """Whether it has stopped its rings, or started none."""
        return not any(ring.kicked for ring in self._rings)

    def close(self) -> None:
        """End the conversation; its rings stop, and its memory is let go of."""
        with self._all_stopped() as rings:
            for ring in rings:
                ring.shut_down()
            self._port.memory.clear()
        for index, ring in enumerate(self._rings):
            self._watch(index, -1)
            for request in list(ring.files):
                ring.set_file(request, -1)
        self._drop_files()
        self.socket.close()

    def forget(self) -> None:
        """Close the files; see `ixy.process.Inheritance`."""
        for ring in self._rings:
            for request in list(ring.files):
                ring.set_file(request, -1)
        self._drop_files()
        self.socket.close()

    # -----------------------------------------------------------------------------------------------------------------
    # Messages

    def hear(self) -> None:
        """Take one message, and answer it. The socket is readable.

        Raises:
            Broken: it breaks the rules.
            OSError: it has gone, or does not end what it has begun to say.
        """
        try:
            number, flags, size = HEADER.unpack(self._receive(HEADER.size))
            if flags & VERSION_MASK != VERSION:
                raise Broken(f"speaks version {flags & VERSION_MASK} of the protocol, not {VERSION}")
            if size > _MAX_PAYLOAD:
                raise Broken(f"sends a message of {size} bytes")
            payload = self._receive(size)
            try:
                request = Request(number)
            except ValueError:
                raise Broken(f"sends message {number}, which it was not offered") from None
            answer = self._handled(request, payload)
            if answer is None and self._acknowledges and flags & NEED_REPLY:
                answer = _WORD.pack(0)
            if answer is not None:
                self._send(HEADER.pack(number, VERSION | REPLY, len(answer)) + answer)
        finally:
            self._drop_files()

    def _handled(self, request: Request, payload: bytes) -> bytes | None:
        try:
            return self._handlers[request](payload)
        except struct.error:
            raise Broken(f"sends {request.name} with {len(payload)} bytes") from None
        except MemoryUnavailable as error:
            raise Broken(f"sends {request.name}: {error}") from error

    def _receive(self, size: int) -> bytes:
        """The next `size` bytes; file descriptors beside them are kept for who wants them."""
        data = b""
        end = time.monotonic() + TIMEOUT
        while len(data) < size:
            self._await_more(end)
            part, files, _, _ = socket.recv_fds(self.socket, size - len(data), _MAX_FILES, socket.MSG_CMSG_CLOEXEC)
            self._files += files
            if not part:
                raise ConnectionError("the connection was closed")
            data += part
        return data

    def _await_more(self, end: float) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(end - time.monotonic(), 0) * 1000)]
        if self._closing in ready:
            raise ConnectionError("the device is to be closed")
        if not ready:
            raise TimeoutError("it does not end what it has begun to say")

    def _send(self, data: bytes) -> None:
        """An answer is short; a front end that leaves no room for one reads none."""
        try:
            sent = self.socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            raise TimeoutError("it does not read the answers")

    def _drop_files(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _file(self, what: str) -> int:
        """The file that came beside the message; it is the caller's now."""
        if len(self._files) != 1:
            raise Broken(f"sends {what} with {len(self._files)} files")
        return self._files.pop()

    # -----------------------------------------------------------------------------------------------------------------
    # What it settles first

    def _ignore(self, payload: bytes) -> None:
        """There is nothing to be done."""

    def _get_features(self, _: bytes) -> bytes:
        return _WORD.pack(self._offer.features | 1 << PROTOCOL_FEATURES)

    def _set_features(self, payload: bytes) -> None:
        (features,) = _WORD.unpack(payload)
        if features >> LOG_ALL & 1:
            self._refuse_log(payload)
        strange = Features(features & ~(self._offer.features | 1 << PROTOCOL_FEATURES))
        if strange:
            raise Broken(f"accepts {', '.join(strange.names())}, which it was not offered")
        with self._all_changed():
            self.features = Features(features)
            self._settled = True
        log.info("the front end accepts %s", ", ".join(Features(features & ~(1 << PROTOCOL_FEATURES)).names()))

    def _refuse_log(self, _: bytes) -> None:
        raise Broken("wants its memory's changes logged (LOG_ALL), for migration, which is not possible here")

    def _set_protocol(self, payload: bytes) -> None:
        (features,) = _WORD.unpack(payload)
        if features & ~_PROTOCOL:
            raise Broken(f"accepts protocol features {features & ~_PROTOCOL:#x}, which it was not offered")
        self._acknowledges = bool(features & PROTOCOL_REPLY_ACK)

    def _set_mem_table(self, payload: bytes) -> None:
        """The memory is another one from now on: rings stop, and go on where they were."""
        (count, _), rest = _TABLE.unpack(payload[: _TABLE.size]), payload[_TABLE.size :]
        if len(rest) != count * _REGION.size or count != len(self._files):
            raise Broken(f"sends {count} regions of memory with {len(self._files)} files and {len(rest)} bytes")
        table = [
            Shared(Region(guest, size, user, fd), offset)
            for (guest, size, user, offset), fd in zip(_REGION.iter_unpack(rest), self._files, strict=True)
        ]
        with self._all_changed():
            self._port.memory.lay(table)

    # -----------------------------------------------------------------------------------------------------------------
    # Rings

    def _ring(self, index: int) -> _Ring:
        if index >= len(self._rings):
            raise Broken(f"speaks of ring {index}, and there are {len(self._rings)}")
        return self._rings[index]

    def _described(self, payload: bytes) -> tuple[_Ring, int, int]:
        """A ring, its index, and a number."""
        index, value = _RING.unpack(payload)
        return self._ring(index), index, value

    def _set_num(self, payload: bytes) -> None:
        ring, index, size = self._described(payload)
        if not 1 <= size <= reg.MAX_RING_SIZE or size & (size - 1):
            raise Broken(f"sets up ring {index} with {size} descriptors, which is no power of two up to 32768")
        with self._changed(index):
            ring.size = size

    def _set_addr(self, payload: bytes) -> None:
        index, flags, descriptors, used, available, _ = _ADDRESSES.unpack(payload)
        if flags & _LOGGED:
            self._refuse_log(payload)
        ring = self._ring(index)
        with self._changed(index):
            ring.descriptors, ring.used, ring.available = descriptors, used, available

    def _set_base(self, payload: bytes) -> None:
        """Where the ring goes on: an index, or on a packed ring a place with its wrap counter, twice."""
        ring, index, base = self._described(payload)
        with self._changed(index):
            ring.base = base & 0xFFFF

    def _get_base(self, payload: bytes) -> bytes:
        """The ring is to stop."""
        ring, index, _ = self._described(payload)
        with self._changed(index):
            ring.kicked = False
        for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL):
            self._set_file(index, request, -1)
        packed = self.features.has(reg.RING_PACKED)
        return _RING.pack(index, ring.base << 16 | ring.base if packed else ring.base)

    def _set_kick(self, payload: bytes) -> None:
        """The ring is to start."""
        index, fd = self._given_file(Request.SET_VRING_KICK, payload)
        with self._changed(index):
            self._set_file(index, Request.SET_VRING_KICK, fd)
            self._rings[index].kicked = True

    def _set_call(self, payload: bytes) -> None:
        index, fd = self._given_file(Request.SET_VRING_CALL, payload)
        with self._changed(index):
            self._set_file(index, Request.SET_VRING_CALL, fd)

    def _set_err(self, payload: bytes) -> None:
        """What goes wrong is logged here; nobody is told by a file."""
        _, fd = self._given_file(Request.SET_VRING_ERR, payload)
        if fd >= 0:
            os.close(fd)

    def _enable(self, payload: bytes) -> None:
        ring, index, enabled = self._described(payload)
        with self._changed(index):
            ring.enabled = bool(enabled)

    def _given_file(self, request: Request, payload: bytes) -> tuple[int, int]:
        """A ring's number, and the file for it, -1 if it is to have none."""
        (word,) = _WORD.unpack(payload)
        self._ring(word & _INDEX)
        return word & _INDEX, -1 if word & _NO_FILE else self._file(request.name)

    def _set_file(self, index: int, request: Request, fd: int) -> None:
        """Let the ring have a file by which it is waked, or wakes."""
        if fd >= 0 and not _wakes(request, fd):
            os.close(fd)
            raise Broken(f"sends {request.name} with a file that is no eventfd")
        if request == Request.SET_VRING_KICK:
            self._watch(index, -1)
        self._rings[index].set_file(request, fd)
        if fd >= 0:
            os.set_blocking(fd, False)
        if request == Request.SET_VRING_KICK:
            self._watch(index, fd)

    def _watch(self, index: int, fd: int) -> None:
        interrupt = self._port.interrupt(index)
        if interrupt is not None:
            interrupt.watch(fd)

    # -----------------------------------------------------------------------------------------------------------------
    # Ours at their other ends

    @contextmanager
    def _all_stopped(self) -> Generator[Sequence[VhostRxRing | VhostTxRing]]:
        """All rings, on none of which anybody works within the block."""
        with ExitStack() as stack:
            rings = [self._port.ring(index) for index in range(len(self._rings))]
            for ring in rings:
                stack.enter_context(ring.stopped())
            yield rings

    @contextmanager
    def _all_changed(self) -> Generator[None]:
        """Stop all rings, let what they share be changed within the block, and let them go on."""
        with self._all_stopped() as rings:
            for index, ring in enumerate(rings):
                self._note_place(index)
                ring.shut_down()
            yield
            for index in range(len(rings)):
                self._go_on(index)

    @contextmanager
    def _changed(self, index: int) -> Generator[None]:
        """Stop a ring, let it be described anew within the block, and let it go on if all is there."""
        ring = self._port.ring(index)
        with ring.stopped():
            self._note_place(index)
            ring.shut_down()
            yield
            self._go_on(index)

    def _note_place(self, index: int) -> None:
        """Where a ring that is stopped has come to."""
        ring = self._port.ring(index)
        if ring.has_begun:
            size, place = self._rings[index].size, ring.place
            if self.features.has(reg.RING_PACKED):
                self._rings[index].base = place % size | (0x8000 if place & size == 0 else 0)
            else:
                self._rings[index].base = place & 0xFFFF

    def _go_on(self, index: int) -> None:
        """Let a ring run, if it may, from its base on."""
        ring = self._rings[index]
        extended = self.features.has(PROTOCOL_FEATURES)
        described = min(ring.size, ring.descriptors + 1, ring.used + 1, ring.available + 1) > 0
        if self._settled and described and ring.kicked and (ring.enabled or not extended):
            self._port.ring(index).set_up(self._setting(index))

    def _setting(self, index: int) -> Setting:
        """The ring, as ours takes it.

        Raises:
            Broken: it does not lie in the memory that is shared.
        """
        ring, has = self._rings[index], self.features.has
        size, packed = ring.size, has(reg.RING_PACKED)
        place = ring.base & 0x7FFF if packed else ring.base
        if packed and place >= size:
            raise Broken(f"lets ring {index} of {size} descriptors begin at {place}")
        if packed and not ring.base & 0x8000:
            place += size  # the wrap counter is 1 in the first round
        driver, device = (4, 4) if packed else (2 * (size + 3), 2 * 3 + 8 * size)
        parts = (
            self._found(index, ring.descriptors, size * reg.DESCRIPTOR_BYTES, 8),
            self._found(index, ring.available, driver, 2),
            self._found(index, ring.used, device, 4),
        )
        if packed:
            place = packed_place(self._port.memory.bytes[parts[0] :][: size * reg.DESCRIPTOR_BYTES], place)
        long_header = has(reg.VERSION_1) or has(reg.MRG_RXBUF)
        return Setting(
            size,
            *parts,
            place=place,
            packed=int(packed),
            mergeable=int(has(reg.MRG_RXBUF)),
            header=reg.HEADER_BYTES if long_header else reg.LEGACY_HEADER_BYTES,
            call=ring.file(Request.SET_VRING_CALL),
            able=able(self.features),
        )

    def _found(self, index: int, address: int, size: int, alignment: int) -> int:
        place = self._port.memory.find(address, size)
        if place < 0 or place % alignment:
            raise Broken(f"sets up ring {index} at {address:#x}+{size:#x}, which is not in the memory that it shares")
        return place

    # -----------------------------------------------------------------------------------------------------------------
    # What goes wrong meanwhile

    def look(self) -> None:
        """Look after the front end; several times a second.

        Raises:
            Broken: it has shortened the memory that it shares.
        """
        if self._port.memory.lost:
            raise Broken("has shortened the memory that it shares")
        waiting = {index for index in range(len(self._rings)) if self._port.ring(index).calling}
        for index in self._calling & waiting:
            self._port.ring(index).release()
        self._calling = waiting


def able(accepted: Features) -> int:
    """What packets may be, each way, with these features; see `virtio.headers`. Both kinds of segments go together."""
    if not accepted.can(DOING["segmentation"]):
        accepted = Features(accepted & ~(1 << reg.HOST_TSO4))
    if not accepted.can(DOING["coalescing"]):
        accepted = Features(accepted & ~(1 << reg.GUEST_TSO4))
    return sum(bit for feature, bit in _ABLE.items() if accepted.has(feature))


def packed_place(descriptors: NDArray[np.uint8], base: int) -> int:
    """Where a packed ring goes on: at its base, unless the ring contradicts that.

    QEMU does not find out where a back end had come to that has ended, and says where that began. But each descriptor
    has a bit that changes when it is used: all from the base on must not have changed in its round. If some have, and
    there is one place where those that have end and the others begin, the ring goes on there. Of a buffer of several
    descriptors only the first changes, so a ring with such can be told only as long as it does not contradict.

    Args:
        descriptors: shape (16 * size,), uint8.
        base: a place counted without wrapping, within the first two rounds.
    """
    changed = np.signbit(descriptors.view(np.int64)[1::2])  # the highest bit of the flags (2.8.13)
    size = changed.size
    mine = base & size == 0  # what the bit is once it is used in this round
    borders = np.flatnonzero(changed[1:] != changed[:-1]) + 1
    if not np.any(changed[base % size :] == mine) or borders.size > 1:
        return base
    if borders.size == 1:
        return int(borders[0]) + (0 if changed[0] else size)
    return size if changed[0] else 0


def _wakes(request: Request, fd: int) -> bool:
    """Whether a file is one by which processes wake each other. We may be waked by a pipe too; who would have us write
    to one could let it become full."""
    if request == Request.SET_VRING_KICK and stat.S_ISFIFO(os.fstat(fd).st_mode):
        return True
    return str(Path(f"/proc/self/fd/{fd}").readlink()) == "anon_inode:[eventfd]"
