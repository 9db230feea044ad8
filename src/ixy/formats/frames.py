"""Frames to send when nothing else is given."""

from __future__ import annotations

import struct

from ixy.errors import ConfigurationError

MIN_FRAME = 60  # bytes, without the frame check sequence
MAX_FRAME = 1514  # unless an MTU allows more
_LONGEST = 14 + 65535  # that an IPv4 header can tell of
_HEADERS = 42  # Ethernet, IPv4, UDP
_FILL = b"ixy"


def udp_frame(
    size: int = MIN_FRAME,
    source: bytes = bytes.fromhex("026978790001"),
    destination: bytes = bytes.fromhex("026978790002"),
) -> bytes:
    """An Ethernet frame of `size` bytes that holds a UDP datagram from 10.0.0.1 to 10.0.0.2.

    The IPv4 header has a right checksum; the UDP checksum is 0, so that the payload may change.

    Raises:
        ConfigurationError: `size` is not within 60 and 65549.
    """
    if not MIN_FRAME <= size <= _LONGEST:
        raise ConfigurationError(f"a frame of {size} bytes: {MIN_FRAME} to {_LONGEST} are possible")
    ethernet = destination + source + b"\x08\x00"
    udp = struct.pack(">HHHH", 42, 1337, size - 34, 0)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    ip = ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:]
    payload = (_FILL * (size // len(_FILL) + 1))[: size - _HEADERS]
    return ethernet + ip + udp + payload


def internet_checksum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071 over an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
