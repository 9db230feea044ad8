"""Streams: what a generator sends. A stream has frames, fields that differ from packet to packet, and a share.

    Stream("web", udp_frames(sizes("64-1500")), share=3, flows=1_000_000, fields={
        "ipv4.src": Choice(range(0x0A000000, 0x0B000000), random=True),
        "udp.dport": Choice([80, 443]),
    })

`streamtable` makes a table of them, on which the generator's kernel works.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import gcd
from typing import Any, NamedTuple, cast

from ixy.arguments import integer, whole_number
from ixy.errors import ConfigurationError
from ixy.headers import ABSENT, HEADERS, Icmp, Icmp6, Ipv4, Ipv6, Tcp, Udp, ether_type, fields

MAX_SHARE = 1 << 12  # shares without their common divisor, added up: packets until the order of streams repeats
MAX_CHOICES = 1 << 31  # values of one field
MAX_FLOWS = 1 << 31
_MAX_BYTES = 8  # that one field changes; of an IPv6 address the lower half
_MADE = ("checksum", "length", "version", "ihl", "offset")  # fields that follow from others
_PAYLOAD = re.compile(r"payload\[(\d{1,4}):(\d{1,4})\]")


@dataclass(frozen=True)
class Choice:
    """The values of a field: packet by packet the next one, or any.

    Attributes:
        values: a range, also a long one, or a list.
        random: each is drawn, else they come in turn.

    Raises:
        ConfigurationError: there are none, or more than 2^31.
    """

    values: Sequence[int]
    random: bool = False

    def __post_init__(self) -> None:
        first, last = (self.values[0], self.values[-1]) if self.values else (0, 0)
        step = self.values.step if isinstance(self.values, range) else 1
        count = (last - first) // step + 1 if isinstance(self.values, range) else len(self.values)
        if not self.values or count > MAX_CHOICES:
            raise ConfigurationError(f"{count if self.values else 0} values: 1 to {MAX_CHOICES} are possible")


@dataclass(frozen=True)
class Stream:
    """Packets of one kind.

    Attributes:
        name: for messages.
        frames: without their frame check sequences; sent in turn, as often as they are listed.
        fields: what differs, by the field's name, as "ipv4.src", or "payload[0:4]" for bytes behind the headers.
        share: how many packets of this stream are sent while others send theirs.
        flows: how many flows the packets are of; then the fields tell flows apart, and each flow keeps its own. None:
            each field has its next value, or any, with every packet.
        random_flows: each packet is of any flow, else of the next.
        random_frames: each packet is any frame, else the next.
    """

    name: str
    frames: Sequence[bytes]
    fields: Mapping[str, Choice] = field(default_factory=dict[str, Choice])
    share: int = 1
    flows: int | None = None
    random_flows: bool = True
    random_frames: bool = False

    def __post_init__(self) -> None:
        integer(f"{self.name}: share", self.share, 1, MAX_SHARE)
        if self.flows is not None:
            integer(f"{self.name}: flows", self.flows, 1, MAX_FLOWS)
        if not self.frames:
            raise ConfigurationError(f"{self.name}: no packet to send")


class Place(NamedTuple):
    """Where a field lies in a frame: `size` bytes from `offset` on, and in those the bits of `mask << shift`."""

    offset: int
    size: int
    shift: int
    mask: int


def place_of(name: str, frame: bytes) -> Place:
    """Where a field lies.

    Raises:
        ConfigurationError: there is no such field, this frame lacks it, or it is not for the user to set.
    """
    if found := _PAYLOAD.fullmatch(name):
        return _payload_place(name, frame, int(found[1]), int(found[2]))
    header, _, what = name.partition(".")
    kind = HEADERS.get(header)
    if kind is None:
        raise ConfigurationError(f"{name}: there is no header {header!r}; there are {', '.join(HEADERS)}, payload")
    wanted = fields(kind).get(what)
    if wanted is None:
        raise ConfigurationError(f"{name}: {header} has no {what!r}; it has {', '.join(fields(kind))}")
    if what in _MADE:
        raise ConfigurationError(f"{name}: it follows from the rest of the packet, and cannot be set")
    at = kind.locate(frame)
    if at == ABSENT:
        raise ConfigurationError(f"{name}: the packet has no {header} header")
    if wanted.size > _MAX_BYTES:
        return Place(at + wanted.offset + _MAX_BYTES, _MAX_BYTES, 0, (1 << 64) - 1)
    return Place(at + wanted.offset, wanted.size, wanted.shift, wanted.mask)


def _payload_place(name: str, frame: bytes, first: int, last: int) -> Place:
    start = payload_start(frame) + first
    if not 1 <= last - first <= _MAX_BYTES:
        raise ConfigurationError(f"{name}: 1 to {_MAX_BYTES} bytes are possible")
    if start + last - first > len(frame):
        raise ConfigurationError(f"{name}: the payload has {len(frame) - payload_start(frame)} bytes")
    return Place(start, last - first, 0, (1 << 8 * (last - first)) - 1)


def payload_start(frame: bytes) -> int:
    """Where what follows the headers begins."""
    for kind, size in ((Udp, 8), (Icmp, 8), (Icmp6, 8)):
        if (at := kind.locate(frame)) != ABSENT:
            return at + size
    if (at := Tcp.locate(frame)) != ABSENT:
        return at + 4 * (frame[at + 12] >> 4)
    if (at := Ipv4.locate(frame)) != ABSENT:
        return at + 4 * (frame[at] & 15)
    if (at := Ipv6.locate(frame)) != ABSENT:
        return at + 40
    return min(ether_type(cast(Any, frame)) + 2, len(frame))


_ENDS = {"eth": ("src", "dst"), "ipv4": ("src", "dst"), "ipv6": ("src", "dst")} | {
    "udp": ("sport", "dport"),
    "tcp": ("sport", "dport"),
}


def turned_round(stream: Stream) -> Stream:
    """The same packets from the other end: addresses and ports are exchanged. Checksums stay what they are."""
    other = {f"{header}.{one}": f"{header}.{two}" for header, ends in _ENDS.items() for one, two in (ends, ends[::-1])}
    varied = {other.get(name, name): choice for name, choice in stream.fields.items()}
    return replace(stream, frames=[_turned_round(frame) for frame in stream.frames], fields=varied)


def _turned_round(frame: bytes) -> bytes:
    turned = bytearray(frame)
    for header, ends in _ENDS.items():
        kind = HEADERS[header]
        at = kind.locate(frame)
        if at != ABSENT:
            one, other = (
                slice(at + end.offset, at + end.offset + end.size) for end in map(fields(kind).get, ends) if end
            )
            turned[one], turned[other] = frame[other], frame[one]
    return bytes(turned)


def numbers(name: str, choice: Choice) -> Choice:
    """A field's values as they stand in its bytes: those of an IPv6 address in its lower half.

    Raises:
        ConfigurationError: two of them differ in the upper half.
    """
    header, _, what = name.partition(".")
    if header not in HEADERS or fields(HEADERS[header])[what].size <= _MAX_BYTES:
        return choice
    first, last = min(choice.values[0], choice.values[-1]), max(choice.values[0], choice.values[-1])
    uppers = {first >> 64, last >> 64}
    if not isinstance(choice.values, range):
        uppers = {value >> 64 for value in choice.values}
    if len(uppers) > 1:
        raise ConfigurationError(f"{name}: addresses that differ in their lower 64 bits are possible")
    base = first >> 64 << 64
    if isinstance(choice.values, range):
        values: Sequence[int] = range(choice.values.start - base, choice.values.stop - base, choice.values.step)
    else:
        values = [value - base for value in choice.values]
    return Choice(values, choice.random)


def in_turn(shares: Sequence[int]) -> list[int]:
    """The order in which things with such shares have their turns, each as evenly as can be.

    The one that lacks most of its share is next, the first of several (smooth weighted round-robin).
    """
    divisor = reduce(gcd, shares)
    weights = [share // divisor for share in shares]
    total, lacking, order = sum(weights), [0] * len(weights), list[int]()
    for _ in range(total):
        lacking = [lack + weight for lack, weight in zip(lacking, weights, strict=True)]
        chosen = max(range(len(weights)), key=lambda i: lacking[i])
        lacking[chosen] -= total
        order.append(chosen)
    return order


# ---------------------------------------------------------------------------------------------------------------------
# Sizes

IMIX = {60: 7, 590: 4, 1514: 1}  # bytes: shares; IP packets of 40, 576 and 1500, as seen on the Internet


class Sizes(NamedTuple):
    """Sizes of frames in bytes, as often as each is to be sent, and whether each packet has any of them."""

    each: list[int]
    random: bool = False


def parse_sizes(name: str, text: str, low: int, high: int) -> Sizes:
    """What a user wrote: `64`, `64,512,1500` in turn, `64-1500` at random, `imix`.

    Raises:
        ConfigurationError: something else, or out of bounds.
    """
    if text.lower() == "imix":
        each = list(IMIX)
        return Sizes([integer(name, each[i], low, high) for i in in_turn(list(IMIX.values()))])
    first, dash, last = text.partition("-")
    if dash and first.strip():
        least, most = (whole_number(name, part.strip(), low, high) for part in (first, last))
        if least > most:
            raise ConfigurationError(f"{name} {text}: write the smaller size first")
        return Sizes(list(range(least, most + 1)), random=True)
    return Sizes([whole_number(name, part.strip(), low, high) for part in text.split(",")])


def check_place(name: str, place: Place, choice: Choice) -> None:
    """
    Raises:
        ConfigurationError: a value does not fit into the field.
    """
    values: Any = choice.values
    ends = (values[0], values[-1]) if isinstance(values, range) else (min(values), max(values))
    if min(ends) < 0 or max(ends) > place.mask:
        raise ConfigurationError(f"{name} {max(ends) if min(ends) >= 0 else min(ends)}: 0 to {place.mask} are possible")
