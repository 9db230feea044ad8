"""A packet that is printed: its bytes, as far as they were captured, and the text so far."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple


class Truncated(Exception):
    """The packet was cut before the end of what is to be printed: the line ends here."""


@dataclass(frozen=True)
class Style:
    """What is printed of a packet, by tcpdump's options.

    Attributes:
        link: the Ethernet header (-e).
        verbose: how often -v was given.
        quiet: fewer words (-q).
        absolute: TCP sequence numbers as they are (-S).
        raw: the bytes of what is not known; not with -q, nor where all bytes are printed in digits.
    """

    link: bool = False
    verbose: int = 0
    quiet: bool = False
    absolute: bool = False
    raw: bool = True


@dataclass
class Conversations:
    """Where the sequence numbers of TCP conversations began: what is printed of them counts from there."""

    begun: dict[tuple[bytes, bytes, int, int], tuple[int, int]] = field(
        default_factory=dict[tuple[bytes, bytes, int, int], tuple[int, int]]
    )


class Line:
    """One packet.

    Args:
        data: what was captured of it.
        style: how it is printed.
        conversations: those of the packets before.

    Attributes:
        end: where the bytes end that may be read: those of the innermost header's payload that were captured.
        protocol: what is said of a packet that was cut.
        link_size: bytes of the link header, once it is printed.
    """

    def __init__(self, data: bytes, style: Style, conversations: Conversations) -> None:
        self.data, self.style, self.conversations = data, style, conversations
        self.end: int = len(data)
        self.protocol = ""
        self.link_size = 0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def say(self, *parts: str) -> None:
        self._parts += parts

    def cut(self) -> None:
        """Say that the packet was cut within the protocol at hand."""
        self.say(f" [|{self.protocol}]")

    def has(self, at: int, size: int) -> bool:
        """Whether so many bytes are there."""
        return at + size <= self.end

    def octets(self, at: int, size: int) -> bytes:
        """
        Raises:
            Truncated: they are not all there; likewise below.
        """
        if at + size > self.end:
            raise Truncated
        return self.data[at : at + size]

    def number(self, at: int, size: int) -> int:
        """An unsigned number in network byte order."""
        return int.from_bytes(self.octets(at, size), "big")

    def u8(self, at: int) -> int:
        if at >= self.end:
            raise Truncated
        return self.data[at]

    def u16(self, at: int) -> int:
        return self.number(at, 2)

    def u32(self, at: int) -> int:
        return self.number(at, 4)

    def mac(self, at: int) -> str:
        return self.octets(at, 6).hex(":")

    def ipv4(self, at: int) -> str:
        return ".".join(map(str, self.octets(at, 4)))

    def ipv6(self, at: int) -> str:
        return ipv6_text(self.octets(at, 16))

    @contextmanager
    def until(self, end: int) -> Generator[None]:
        """Within the block nothing is read from `end` on."""
        before = self.end
        self.end = min(before, end)
        yield  # an exception ends the line: nothing is to be restored then
        self.end = before

    def hex(self, indent: str, at: int, size: int) -> None:
        """Bytes in hexadecimal digits, as far as they are there."""
        self.say(hex_lines(indent, self.data[at : min(at + size, self.end)]))


def ipv6_text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)


class Carrier(NamedTuple):
    """The IP header that a protocol is behind.

    Attributes:
        version: 4 or 6.
        at: where it begins.
        protocol: what it says that follows, which may be an extension header.
        fragmented: the datagram is in fragments: its checksum is of more than what is here.
        src, dst: addresses as text.
    """

    version: int
    at: int
    protocol: int
    fragmented: bool
    src: str
    dst: str

    def ends(self, protocol: int, sport: int, dport: int) -> str:
        """Both ends with their ports; behind extension headers the addresses have been printed before."""
        if self.protocol != protocol:
            return f"{sport} > {dport}: "
        return f"{self.src}.{sport} > {self.dst}.{dport}: "


EtherPrinter = Callable[[Line, int, int], None]
"""Prints what is from a place on, of a length on the wire."""
ProtocolPrinter = Callable[[Line, int, int, Carrier], None]
"""The same behind an IP header."""

ETHER_TYPES: dict[int, EtherPrinter] = {}
PROTOCOLS: dict[int, ProtocolPrinter] = {}


def ether_type(number: int) -> Callable[[EtherPrinter], EtherPrinter]:
    """Mark the function that prints what has this EtherType."""

    def register(function: EtherPrinter) -> EtherPrinter:
        ETHER_TYPES[number] = function
        return function

    return register


def protocol(number: int) -> Callable[[ProtocolPrinter], ProtocolPrinter]:
    """Mark the function that prints the protocol of this number (IANA)."""

    def register(function: ProtocolPrinter) -> ProtocolPrinter:
        PROTOCOLS[number] = function
        return function

    return register


def named(names: Mapping[int, str], value: int, other: str = "unknown") -> str:
    """The name of a value; another text, in which {} is the value, where it has none."""
    return names.get(value) or other.format(value)


def flags(names: Mapping[int, str], value: int, between: str = ", ") -> str:
    """The names of the bits that are set."""
    return between.join(name for bit, name in names.items() if value & bit) or "none"


# ---------------------------------------------------------------------------------------------------------------------
# Bytes in lines of 16

_ROW = 16


def _rows(data: bytes) -> list[tuple[int, bytes, str]]:
    """Where each line begins, its bytes, and these in groups of two."""
    rows = ((at, data[at : at + _ROW]) for at in range(0, len(data), _ROW))
    return [(at, row, "".join(f" {row[i : i + 2].hex()}" for i in range(0, len(row), 2))) for at, row in rows]


def hex_lines(indent: str, data: bytes) -> str:
    return "".join(f"{indent}0x{at:04x}: {groups}" for at, _, groups in _rows(data))


def hex_and_text_lines(indent: str, data: bytes) -> str:
    return "".join(f"{indent}0x{at:04x}: {groups:<40}  {_graphic(row)}" for at, row, groups in _rows(data))


def _graphic(data: bytes) -> str:
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E else "." for byte in data)


def text_lines(data: bytes) -> str:
    """Bytes as text; what does not print is a dot, and a carriage return before the end of a line nothing."""
    parts: list[str] = ["\n"]
    for place, byte in enumerate(data):
        left = len(data) - place - 1
        if byte == 0x0D:
            parts.append("." if left > 1 and data[place + 1] != 0x0A else "")
        else:
            parts.append(chr(byte) if 0x20 <= byte <= 0x7E or byte in (0x09, 0x0A) else ".")
    return "".join(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Checksums (RFC 1071)


def checksum(data: bytes) -> int:
    """0 where the data contain their own checksum, and it is right."""
    total = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return ~(total % 0xFFFF or (0xFFFF if total else 0)) & 0xFFFF  # 2^16 is 1 modulo 2^16 - 1: that adds the words up


def should_be(stands: int, found: int) -> int:
    """The checksum that would have been right, by the one that stands there and what `checksum` found with it."""
    total = stands + found
    return (total & 0xFFFF) + (total >> 16)
