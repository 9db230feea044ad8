"""Frames made of headers by name: what nobody sets follows from the rest, lengths and checksums as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME
from ixy.headers import HEADERS, Header, Ipv6Address, fields, size

# What may follow a header, and by which number the one before announces it: an EtherType, or a protocol
_FOLLOWING = {
    "eth": {"vlan": 0x8100, "arp": 0x0806, "ipv4": 0x0800, "ipv6": 0x86DD},
    "vlan": {"arp": 0x0806, "ipv4": 0x0800, "ipv6": 0x86DD},
    "ipv4": {"icmp": 1, "tcp": 6, "udp": 17},
    "ipv6": {"tcp": 6, "udp": 17, "icmp6": 58},
}
_ANNOUNCED = {"eth": "type", "vlan": "type", "ipv4": "protocol", "ipv6": "next_header"}
_TYPE = 0x88B5  # "for local experiments" (IEEE 802, 9.2.3), where nothing else is announced

# What else is there where nobody says it; addresses are those of `formats.frames`
_USUAL: dict[str, dict[str, Any]] = {
    "eth": {"src": "02:69:78:79:00:01", "dst": "02:69:78:79:00:02", "type": _TYPE},
    "vlan": {"id": 1, "type": _TYPE},
    "arp": {"hardware": 1, "protocol": 0x0800, "hardware_size": 6, "protocol_size": 4, "operation": 1}
    | {"sender_mac": "02:69:78:79:00:01", "sender": "10.0.0.1", "target": "10.0.0.2"},
    "ipv4": {"version": 4, "ihl": 5, "ttl": 64, "protocol": 253, "src": "10.0.0.1", "dst": "10.0.0.2"},
    "ipv6": {"version": 6, "hop_limit": 64, "next_header": 253, "src": "fd00::1", "dst": "fd00::2"},
    "icmp": {"type": 8},
    "icmp6": {"type": 128},
    "tcp": {"sport": 42, "dport": 1337, "offset": 5, "flags": 0x10, "window": 0xFFFF},
    "udp": {"sport": 42, "dport": 1337},
}
DEFAULT_FILL = b"ixy"
_RANDOM = "random"


def compose(headers: Mapping[str, Mapping[str, Any]], fill: bytes, sizes: list[int]) -> list[bytes]:
    """Frames of several sizes with the same headers.

    Args:
        headers: names, from the outermost to the innermost, and fields as they are assigned in `ixy.headers`.
        fill: what the payload repeats, one byte at least.
        sizes: bytes of each.

    Raises:
        ConfigurationError: no such header or field, it cannot be there, or a size is too small for the headers.
    """
    places = _places(headers)
    end = places[-1][1] + size(HEADERS[places[-1][0]])
    frame = bytearray(end)
    for (name, at), following in zip(places, [*places[1:], (None, 0)], strict=True):
        values = _USUAL[name] | _announcement(name, following[0]) | dict(headers.get(name, {}))
        _put_fields(HEADERS[name](frame, at), values)
    return [_sized(frame, places, fill, wanted) for wanted in sizes]


def _places(headers: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Each header and where it begins."""
    places, at, before = list[tuple[str, int]](), 0, ""
    for name in ["eth", *(name for name in headers if name != "eth")]:
        possible = _FOLLOWING.get(before, {}) if before else {"eth": 0}
        if name not in possible:
            known = ", ".join(possible) or "nothing but the payload"
            raise ConfigurationError(f"{name} cannot follow {before}: {known} can")
        places.append((name, at))
        at += size(HEADERS[name])
        before = name
    return places


def _announcement(name: str, following: str | None) -> dict[str, int]:
    return {_ANNOUNCED[name]: _FOLLOWING[name][following]} if following else {}


def _put_fields(header: Header, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = fields(type(header)).get(name)
        said = f"{header.name}.{name}"
        if field is None:
            raise ConfigurationError(f"{said}: {header.name} has {', '.join(fields(type(header)))}")
        try:
            number = field.number(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{said}: {error}") from error
        if not 0 <= number <= field.mask:
            raise ConfigurationError(f"{said} {number}: 0 to {field.mask} are possible")
        field.__set__(header, Ipv6Address.of(number) if field.size == 16 else number)


def _sized(headers: bytearray, places: list[tuple[str, int]], fill: bytes, wanted: int) -> bytes:
    """A frame of this size."""
    if wanted < len(headers):
        raise ConfigurationError(f"size {wanted}: the headers alone have {len(headers)} bytes")
    room = wanted - len(headers)
    frame = headers + (fill * (room // len(fill) + 1))[:room]
    for name, at in reversed(places):  # a checksum covers what is within
        header: Any = HEADERS[name](frame, at)
        if name in ("ipv4", "udp"):
            header.length = wanted - at
        elif name == "ipv6":
            header.length = wanted - at - size(HEADERS[name])
    for name, at in reversed(places):
        update: Callable[[], None] | None = getattr(HEADERS[name](frame, at), "update_checksum", None)
        if update:
            update()
    return bytes(frame)


def payload_fill(text: str) -> bytes:
    """What a payload repeats: `random`, bytes as 0x…, or a text.

    Raises:
        ConfigurationError: an empty text, or no whole bytes.
    """
    if text == _RANDOM:
        return os.urandom(MAX_FRAME)
    if text.startswith("0x"):
        try:
            text_bytes = bytes.fromhex(text[2:])
        except ValueError:
            raise ConfigurationError(f"payload {text}: write two hexadecimal digits a byte") from None
    else:
        text_bytes = text.encode()
    if not text_bytes:
        raise ConfigurationError("payload: write at least one byte")
    return text_bytes
