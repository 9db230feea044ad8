"""A vhost-user front end of a test, which says what the test wants, and the driver's side of its rings.

Messages and rings are written out here a second time, from QEMU's specification of the protocol and from sections 2.7
and 2.8 of the VirtIO specification 1.2.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 11, 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 16, 17, 18
MRG_RXBUF, LOG_ALL, PROTOCOL_FEATURES, VERSION_1, RING_PACKED = 1 << 15, 1 << 26, 1 << 30, 1 << 32, 1 << 34
REPLY_ACK = 1 << 3
NEED_REPLY = 8

GUEST, USER = 0x4_0000_0000, 0x7F00_0000_0000  # the first byte of the memory, in descriptors and in messages
SIZE = 4 << 20  # bytes of memory
HEADER = 12
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
RING_BYTES = 0x4000  # that each ring has of the memory; buffers come after all of them
BUFFERS = 0x10_0000
TIMEOUT = 30.0


class Piece(NamedTuple):
    """A descriptor: address, length, flags without those of packed rings."""

    address: int
    length: int
    flags: int = 0


class FrontEnd:
    """A connection, and memory of one region.

    Args:
        path: of the socket.
        features: to accept, besides those that each connection needs.
    """

    def __init__(self, path: Path | str, features: int = VERSION_1) -> None:
        self.features = features
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        self.memory = mmap.mmap(self.fd, SIZE)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))
        self.files: list[int] = []

    def __enter__(self) -> FrontEnd:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self.memory.close()
        for fd in (*self.files, self.fd):
            os.close(fd)

    def send(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = 1) -> None:
        message = struct.pack("<III", request, flags, len(payload)) + payload
        if fds:
            socket.send_fds(self.socket, [message], fds)
        else:
            self.socket.sendall(message)

    def ask(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = 1) -> bytes:
        """What is answered; empty if the connection is closed."""
        try:
            self.send(request, payload, fds, flags)
            head = self._read(12)
            return self._read(struct.unpack("<III", head)[2]) if head else b""
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def word(self, request: int, flags: int = 1) -> int:
        return int.from_bytes(self.ask(request, flags=flags), "little")

    def gone(self) -> bool:
        """Whether the back end has hung up; waits for that."""
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionResetError:
            pass
        return True

    def eventfd(self) -> int:
        self.files.append(os.eventfd(0, os.EFD_NONBLOCK))
        return self.files[-1]

    def introduce(self) -> None:
        """Become the owner, and settle features."""
        self.send(SET_OWNER)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
        self.send(SET_FEATURES, struct.pack("<Q", self.features | PROTOCOL_FEATURES))

    def table(self, *regions: tuple[int, int, int, int], fds: tuple[int, ...] | None = None) -> int:
        """Share memory: guest's address, size, own address, offset in the file; the answer, -1 if there is none."""
        regions = regions or ((GUEST, SIZE, USER, 0),)
        payload = struct.pack("<II", len(regions), 0) + b"".join(struct.pack("<QQQQ", *region) for region in regions)
        answer = self.ask(SET_MEM_TABLE, payload, (self.fd,) * len(regions) if fds is None else fds, 1 | NEED_REPLY)
        return int.from_bytes(answer, "little") if answer else -1

    def start(self, index: int, size: int = 8, base: int | None = None, call: int | None = None) -> Ring:
        """Set ring `index` up, and let it run."""
        ring = (PackedRing if self.features & RING_PACKED else SplitRing)(self, index, size)
        if base is None:
            base = 0x8000_8000 if self.features & RING_PACKED else 0
        self.send(SET_VRING_NUM, struct.pack("<II", index, size))
        self.send(SET_VRING_BASE, struct.pack("<II", index, base))
        at = USER + ring.start
        addresses = at, at + ring.device, at + ring.driver
        self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, *addresses, 0))
        ring.call = self.eventfd() if call is None else call
        self.send(SET_VRING_CALL, struct.pack("<Q", index), (ring.call,))
        ring.kick = self.eventfd()
        self.send(SET_VRING_KICK, struct.pack("<Q", index), (ring.kick,))
        self.send(SET_VRING_ENABLE, struct.pack("<II", index, 1))
        self.word(GET_FEATURES)  # all that was said before has been heard
        return ring

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                return b""
            data += part
        return data


class Ring:
    """One ring, from the driver's end."""

    call = kick = -1

    def __init__(self, front_end: FrontEnd, index: int, size: int) -> None:
        self.memory = front_end.memory
        self.start = index * RING_BYTES
        self.size = size
        self.driver = 16 * size
        self.device = 16 * size + 0x1000
        self.offered = self.taken = 0  # buffers of a split ring, descriptors of a packed one
        self.memory[self.start : self.start + RING_BYTES] = bytes(RING_BYTES)

    def offer(self, *pieces: Piece) -> int:
        """Offer a buffer; its name."""
        raise NotImplementedError

    def used(self) -> tuple[int, int] | None:
        """The next buffer that was used: its name and the bytes written, None if there is none."""
        raise NotImplementedError

    def await_used(self) -> tuple[int, int]:
        deadline = time.monotonic() + TIMEOUT
        while (found := self.used()) is None:
            assert time.monotonic() < deadline, "no buffer was used"
        return found

    def _get(self, offset: int, form: str) -> int:
        return struct.unpack_from(form, self.memory, self.start + offset)[0]

    def _put(self, offset: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.memory, self.start + offset, *values)


class SplitRing(Ring):
    """2.7. Buffers take descriptors in turn."""

    def __init__(self, front_end: FrontEnd, index: int, size: int) -> None:
        super().__init__(front_end, index, size)
        self._descriptors = 0

    def offer(self, *pieces: Piece) -> int:
        head = self._descriptors % self.size
        self._descriptors += len(pieces)
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            slot = (head + number) % self.size
            flags = piece.flags | (0 if last else NEXT)
            self._put(16 * slot, "<QIHH", piece.address, piece.length, flags, (slot + 1) % self.size)
        self.show(head)
        return head

    def show(self, head: int) -> None:
        """Offer the descriptor of this number, whatever it says."""
        self._put(self.driver + 4 + 2 * (self.offered % self.size), "<H", head)
        self.offered += 1
        self._put(self.driver + 2, "<H", self.offered & 0xFFFF)

    def used(self) -> tuple[int, int] | None:
        if self._get(self.device + 2, "<H") == self.taken & 0xFFFF:
            return None
        at = self.device + 4 + 8 * (self.taken % self.size)
        self.taken += 1
        return self._get(at, "<I"), self._get(at + 4, "<I")


class PackedRing(Ring):
    """2.8. A buffer's name is the number of its first descriptor, and its first descriptor is made available last."""

    def __init__(self, front_end: FrontEnd, index: int, size: int) -> None:
        super().__init__(front_end, index, size)
        self._steps: dict[int, int] = {}

    def offer(self, *pieces: Piece) -> int:
        name = self.offered % self.size
        self._steps[name] = len(pieces)
        for number in range(len(pieces) - 1, -1, -1):
            place = self.offered + number
            flags = pieces[number].flags | (NEXT if number < len(pieces) - 1 else 0)
            flags |= AVAIL if place // self.size % 2 == 0 else USED
            self._put(16 * (place % self.size), "<QIHH", pieces[number].address, pieces[number].length, name, flags)
        self.offered += len(pieces)
        return name

    def used(self) -> tuple[int, int] | None:
        at = 16 * (self.taken % self.size)
        both = AVAIL | USED if self.taken // self.size % 2 == 0 else 0
        if self._get(at + 14, "<H") & (AVAIL | USED) != both:
            return None
        name = self._get(at + 12, "<H")
        self.taken += self._steps[name]
        return name, self._get(at + 8, "<I")
