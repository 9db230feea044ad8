"""A network device's end of a pair of VirtIO rings, with offloads: strict, and in no hurry.

It works on the queues of a `BackEnd` in place of that one's kernels. What a driver hands it is looked at closely, and
what breaks a rule of the Virtual I/O Device specification, version 1.2, raises `RuleBroken`. What it is asked to do to
packets it does as hardware would: it adds up bytes from a place on, and cuts where it is told, by code of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.errors import Error
from ixy.registers import virtio as reg
from ixy.sim.virtio import dma

if TYPE_CHECKING:
    from ixy.sim.virtio import BackEnd, Queue

_NEXT, _WRITE = 1, 2  # of a descriptor's flags, 2.7.5
_AVAIL, _USED = 1 << 7, 1 << 15  # besides on a packed ring, 2.8.1
_TAGS = (0x8100, 0x88A8)
_IPV4, _IPV6, _TCP, _UDP = 0x0800, 0x86DD, 6, 17
_EXTENSIONS = (0, 43, 60)  # of IPv6: hop by hop, routing, destination
_FIN_PSH, _CWR = 0x09, 0x80


class RuleBroken(Error):
    """The driver does what the specification forbids; says what."""


class Header(NamedTuple):
    """What stands before a packet (5.1.6)."""

    flags: int = 0
    gso_type: int = 0
    header_length: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    buffers: int = 0
    hash_value: int = 0
    hash_report: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """From as many bytes as were negotiated: 10, 12 or 20."""
        return cls(*struct.unpack("<BBHHHHHIHxx", data.ljust(reg.HASH_HEADER_BYTES, b"\0")))

    def build(self, size: int) -> bytes:
        return struct.pack("<BBHHHHHIHxx", *self)[:size]


class Chain(NamedTuple):
    """A buffer of the driver's.

    Attributes:
        name: by which it is given back.
        pieces: where in memory its parts lie, and how large they are.
        place: how many were offered before it.
    """

    name: int
    pieces: Sequence[tuple[int, int]]
    place: int


class Sent(NamedTuple):
    """A packet that the driver has sent.

    Attributes:
        header: see `Header`.
        frame: its bytes.
        chain: its buffer, which the driver waits for.
    """

    header: Header
    frame: bytes
    chain: Chain


class Side:
    """One ring.

    Args:
        queue: where it lies.
        to_write: its buffers are there to be written.
    """

    def __init__(self, queue: Queue, *, to_write: bool) -> None:
        self.queue = queue
        self._flags = _WRITE if to_write else 0
        self._looked = self._used = 0  # so many descriptors on a packed ring, so many buffers on a split one
        self._out: dict[int, int] = {}  # descriptors of each buffer that was not given back

    def next(self) -> Chain | None:
        """The next buffer that the driver offers.

        Raises:
            RuleBroken: it is none for this ring.
        """
        found = self._packed() if self.queue.packed else self._split()
        if found is None:
            return None
        name, pieces = found
        if name in self._out:
            raise RuleBroken(f"buffer {name} is offered again before it came back")
        if name >= self.queue.size or len(pieces) > self.queue.size:
            raise RuleBroken(f"buffer {name} of {len(pieces)} descriptors on a ring of {self.queue.size}")
        self._out[name] = len(pieces)
        chain = Chain(name, pieces, self._looked)
        self._looked += len(pieces) if self.queue.packed else 1
        return chain

    def use(self, chain: Chain, written: int) -> None:
        """Give a buffer back, in which so many bytes were written (2.7.8, 2.8.21)."""
        descriptors = self._out.pop(chain.name)
        queue = self.queue
        slot = self._used % queue.size
        if queue.packed:
            flags = _AVAIL | _USED if self._used // queue.size % 2 == 0 else 0
            self._set(queue.descriptors + 16 * slot + 8, "<IHH", written, chain.name, flags)
            self._used += descriptors
        else:
            self._used += 1
            self._set(queue.device + 4 + 8 * slot, "<II", chain.name, written)
            self._set(queue.device + 2, "<H", self._used & 0xFFFF)

    def _split(self) -> tuple[int, list[tuple[int, int]]] | None:
        """2.7.6, and 2.7.5 of each descriptor."""
        queue = self.queue
        (index,) = self._get(queue.driver + 2, "<H")
        if index == self._looked & 0xFFFF:
            return None
        (name,) = self._get(queue.driver + 4 + 2 * (self._looked % queue.size), "<H")
        pieces: list[tuple[int, int]] = []
        flags, following = _NEXT, name
        while flags & _NEXT:
            if following >= queue.size or len(pieces) == queue.size:
                raise RuleBroken(f"buffer {name} goes on in descriptor {following}, or in a circle")
            address, length, flags, following = self._get(queue.descriptors + 16 * following, "<QIHH")
            pieces.append(self._piece(address, length, flags & ~_NEXT))
        return name, pieces

    def _packed(self) -> tuple[int, list[tuple[int, int]]] | None:
        """2.8.6: the descriptors of a buffer follow each other, and the last one says its name."""
        queue = self.queue
        pieces: list[tuple[int, int]] = []
        name, flags = 0, _NEXT
        while flags & _NEXT:
            position = self._looked + len(pieces)
            address, length, name, flags = self._get(queue.descriptors + 16 * (position % queue.size), "<QIHH")
            wrap = position // queue.size % 2 == 0
            if bool(flags & _AVAIL) != wrap or bool(flags & _USED) == wrap:
                if pieces:
                    raise RuleBroken(f"a buffer's descriptor {position} is not there when its first one is (2.8.17)")
                return None
            pieces.append(self._piece(address, length, flags & ~(_NEXT | _AVAIL | _USED)))
        return name, pieces

    def _piece(self, address: int, length: int, flags: int) -> tuple[int, int]:
        if flags != self._flags:
            raise RuleBroken(f"a descriptor with flags {flags:#x} on a ring for {self._flags:#x}")
        offset = dma(self.queue, address, length)
        if offset < 0:
            raise RuleBroken(f"{length} bytes at {address:#x} are not shared")
        return offset, length

    def _get(self, at: int, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.queue.memory[at : at + struct.calcsize(form)].tobytes())

    def _set(self, at: int, form: str, *values: int) -> None:
        memory: Any = self.queue.memory.data
        memory[at : at + struct.calcsize(form)] = struct.pack(form, *values)


class Port:
    """A pair of rings, once the driver has set them up.

    Args:
        back_end: whose.
        features: what was negotiated.
        pair: which one.

    Attributes:
        rx, tx: what the driver receives from, and what it sends through.
    """

    def __init__(self, back_end: BackEnd, features: int, pair: int = 0) -> None:
        self.rx = Side(back_end.queues[2 * pair], to_write=True)
        self.tx = Side(back_end.queues[2 * pair + 1], to_write=False)
        self._features = features
        self._ready: list[Chain] = []

    def _has(self, bit: int) -> bool:
        return bool(self._features >> bit & 1)

    # -----------------------------------------------------------------------------------------------------------------
    # To the driver

    def free(self) -> list[Chain]:
        """The buffers that the driver has offered to be written, and that are not."""
        while chain := self.rx.next():
            self._ready.append(chain)
        return self._ready

    def deliver(self, frame: bytes, header: Header = Header(), order: Sequence[int] = ()) -> bool:  # noqa: B008
        """Write a frame into as many buffers as it takes, all full but the last (5.1.6.4); False if there are too few.

        Args:
            header: of which `buffers` is filled in, unless it is there.
            order: which of the free buffers to take, by place; by default those that come first.
        """
        size = self.rx.queue.header
        data = header.build(size) + frame
        free = self.free()
        taken: list[tuple[Chain, bytes]] = []
        for chain in [free[i] for i in order] + [chain for i, chain in enumerate(free) if i not in order]:
            room = sum(length for _, length in chain.pieces)
            taken.append((chain, data[:room]))
            data = data[room:]
            if not data:
                break
        if data or (len(taken) > 1 and not self._has(reg.MRG_RXBUF)):
            return False
        first = taken[0][1]
        if size >= reg.HEADER_BYTES and header.buffers == 0:
            first = first[: reg.NUM_BUFFERS] + struct.pack("<H", len(taken)) + first[reg.NUM_BUFFERS + 2 :]
        self.fill(taken[0][0], first)
        for chain, part in taken[1:]:
            self.fill(chain, part)
        return True

    def fill(self, chain: Chain, data: bytes, said: int | None = None) -> None:
        """Write a buffer, and say so: that so many bytes were written."""
        memory: Any = self.rx.queue.memory.data
        left = data
        for offset, length in chain.pieces:
            part, left = left[:length], left[length:]
            memory[offset : offset + len(part)] = part
        self._ready.remove(chain)
        self.rx.use(chain, len(data) if said is None else said)

    # -----------------------------------------------------------------------------------------------------------------
    # From the driver

    def collect(self) -> Sent | None:
        """The next packet that the driver sends; it waits for the buffer's return by `done`.

        Raises:
            RuleBroken: the packet, or what is to be done to it, is not as the specification wants it (5.1.6.2.1).
        """
        chain = self.tx.next()
        if chain is None:
            return None
        memory = self.tx.queue.memory
        data = b"".join(memory[offset : offset + length].tobytes() for offset, length in chain.pieces)
        size = self.tx.queue.header
        sent = Sent(Header.parse(data[:size]), data[size:], chain)
        self._check(sent)
        return sent

    def done(self, sent: Sent) -> None:
        """Give the packet's buffer back."""
        self.tx.use(sent.chain, 0)

    def _check(self, sent: Sent) -> None:
        header, frame = sent.header, sent.frame
        if not frame:
            raise RuleBroken("a packet without a byte")
        if header.buffers or header.hash_value or header.hash_report or header.flags & ~reg.NEEDS_CSUM:
            raise RuleBroken(f"what only a device may say: {header}")
        if not header.flags:
            if header != Header():
                raise RuleBroken(f"fields that mean nothing without NEEDS_CSUM: {header}")
            return
        if not self._has(reg.CSUM):
            raise RuleBroken("a checksum is asked for, and CSUM was not negotiated")
        found = Parsed(frame)
        place = header.csum_start + header.csum_offset
        if (header.csum_start, place) != (found.transport, found.checksum):
            raise RuleBroken(f"a checksum of the bytes from {header.csum_start} on, at {place}: {found}")
        if header.gso_type == reg.GSO_NONE:
            if header.gso_size or header.header_length:
                raise RuleBroken(f"a size of segments, and none are asked for: {header}")
            return
        self._check_cut(header, found)

    def _check_cut(self, header: Header, found: Parsed) -> None:
        kind = {reg.GSO_TCPV4: (4, reg.HOST_TSO4), reg.GSO_TCPV6: (6, reg.HOST_TSO6)}
        version, feature = kind.get(header.gso_type & ~reg.GSO_ECN, (0, 0))
        if not version or not self._has(feature):
            raise RuleBroken(f"segments of type {header.gso_type:#x}, which was not negotiated")
        if (found.version, found.protocol) != (version, _TCP):
            raise RuleBroken(f"segments of type {header.gso_type:#x} of: {found}")
        if found.reduced != bool(header.gso_type & reg.GSO_ECN):
            raise RuleBroken("GSO_ECN is said of a packet without CWR, or not of one with it")
        if header.gso_type & reg.GSO_ECN and not self._has(reg.HOST_ECN):
            raise RuleBroken("segments of a packet with CWR, and HOST_ECN was not negotiated")
        if header.header_length != found.payload or not 0 < header.gso_size < len(found.frame) - found.payload:
            raise RuleBroken(f"headers of {header.header_length} bytes, segments of {header.gso_size}: {found}")
        if found.end != len(found.frame):
            raise RuleBroken("bytes behind a packet that is to be cut")
        if found.pseudo_sum() != found.half(found.checksum):
            raise RuleBroken(f"{found.half(found.checksum):#06x} in place of the pseudo header's sum")

    def frames(self, sent: Sent) -> list[bytes]:
        """What goes out on the wire of it."""
        header, frame = sent.header, bytearray(sent.frame)
        if not header.flags:
            return [sent.frame]
        if header.gso_type:
            return [bytes(part) for part in Parsed(sent.frame).segments(header.gso_size)]
        place = header.csum_start + header.csum_offset
        checksum = _complement(frame[header.csum_start :])
        if not checksum and header.csum_offset == 6:  # UDP's 0 is none (RFC 768)
            checksum = 0xFFFF
        frame[place : place + 2] = checksum.to_bytes(2)
        return [bytes(frame)]


class Parsed:
    """A frame of TCP or UDP, by where its headers begin.

    Raises:
        RuleBroken: it is none.
    """

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        kind, at = int.from_bytes(frame[12:14]), 14
        while kind in _TAGS:
            kind, at = int.from_bytes(frame[at + 2 : at + 4]), at + 4
        self.network = at
        self.version = {_IPV4: 4, _IPV6: 6}.get(kind, 0)
        if self.version == 4:
            self.transport, self.protocol = at + 4 * (frame[at] & 15), frame[at + 9]
            self.end = at + self.half(at + 2)
        elif self.version == 6:
            self.protocol, self.transport, self.end = frame[at + 6], at + 40, at + 40 + self.half(at + 4)
            while self.protocol in _EXTENSIONS:
                length = 8 * frame[self.transport + 1] + 8
                self.protocol, self.transport = frame[self.transport], self.transport + length
        if not self.version or self.protocol not in (_TCP, _UDP):
            raise RuleBroken(f"to make checksums and segments of what is neither TCP nor UDP: {frame[:64].hex()}")
        self.checksum = self.transport + (16 if self.protocol == _TCP else 6)
        self.payload = self.transport + (4 * (frame[self.transport + 12] >> 4) if self.protocol == _TCP else 8)
        self.reduced = self.protocol == _TCP and bool(frame[self.transport + 13] & _CWR)

    def __str__(self) -> str:
        return f"IPv{self.version}, protocol {self.protocol} at {self.transport}, its payload at {self.payload}"

    def half(self, at: int) -> int:
        return int.from_bytes(self.frame[at : at + 2])

    def pseudo_sum(self) -> int:
        """Of addresses, protocol and length (RFC 9293, 3.1)."""
        first, last = (12, 20) if self.version == 4 else (8, 40)
        addresses = self.frame[self.network + first : self.network + last]
        return ~_complement(addresses + struct.pack(">II", self.end - self.transport, self.protocol)) & 0xFFFF

    def segments(self, size: int) -> list[bytearray]:
        """The TCP segments of so many bytes each."""
        payload = self.frame[self.payload : self.end]
        starts = range(0, len(payload), size)
        return [
            self._segment(number, start, payload[start : start + size], start == starts[-1])
            for number, start in enumerate(starts)
        ]

    def _segment(self, number: int, start: int, payload: bytes, last: bool) -> bytearray:
        made = bytearray(self.frame[: self.payload] + payload)
        tcp = self.transport
        sequence = int.from_bytes(self.frame[tcp + 4 : tcp + 8]) + start
        made[tcp + 4 : tcp + 8] = (sequence & 0xFFFFFFFF).to_bytes(4)
        made[tcp + 13] &= ~((0 if last else _FIN_PSH) | (_CWR if start else 0)) & 0xFF
        length = len(made) - self.network
        if self.version == 4:
            identification = self.half(self.network + 4) + number
            made[self.network + 2 : self.network + 4] = length.to_bytes(2)
            made[self.network + 4 : self.network + 6] = (identification & 0xFFFF).to_bytes(2)
            made[self.network + 10 : self.network + 12] = bytes(2)
            made[self.network + 10 : self.network + 12] = _complement(made[self.network : tcp]).to_bytes(2)
        else:
            made[self.network + 4 : self.network + 6] = (length - 40).to_bytes(2)
        made[tcp + 16 : tcp + 18] = bytes(2)
        pseudo = Parsed(bytes(made)).pseudo_sum().to_bytes(2)
        made[tcp + 16 : tcp + 18] = _complement(pseudo + made[tcp:]).to_bytes(2)
        return made


def _complement(data: bytes | bytearray) -> int:
    """The internet checksum of some bytes (RFC 1071)."""
    padded = bytes(data) + bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
