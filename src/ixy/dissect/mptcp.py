"""The option of Multipath TCP (RFC 8684, and RFC 6824 before it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ixy.dissect.line import Line

_SYN, _ACK = 0x02, 0x10
_Show: TypeAlias = Callable[[Line, int, int, int], bool]


def mptcp(line: Line, at: int, size: int, bits: int) -> bool:
    """Print the option, whose data begins at a place; False if it is not as it should be.

    Args:
        size: of the data, in bytes.
        bits: the flags of the segment.
    """
    line.protocol = "mptcp"
    if size < 1:
        return False
    kind = min(line.u8(at) >> 4, len(_SUBTYPES) - 1)
    name, show = _SUBTYPES[kind]
    line.say(f" {size + 2} {name}")
    return show(line, at - 2, size + 2, bits)


def _hex(line: Line, at: int, size: int) -> str:
    return f"0x{line.number(at, size):x}"


def _capable(line: Line, at: int, size: int, bits: int) -> bool:
    begins = size in (4, 12) and bits & _SYN
    goes_on = size in (20, 22) and bits & (_SYN | _ACK) == _ACK
    if not begins and not goes_on:
        return False
    version = line.u8(at + 2) & 15
    if version > 1:
        line.say(f" Unknown Version ({version})")
        return True
    line.say(f" v{version}", " csum" if line.u8(at + 3) & 0x80 else "")
    keys = [_hex(line, at + 4 + 8 * i, 8) for i in range(1 if size == 12 else 2 if size >= 20 else 0)]
    line.say(f" {{{','.join(keys)}}}" if keys else "")
    return True


def _join(line: Line, at: int, size: int, bits: int) -> bool:
    wanted = {12: _SYN, 16: _SYN | _ACK, 24: _ACK}.get(size)
    if wanted is None or bits & wanted != wanted:
        return False
    if size != 24:
        line.say(" backup" if line.u8(at + 2) & 1 else "", f" id {line.u8(at + 3)}")
    if size == 12:
        line.say(f" token {_hex(line, at + 4, 4)} nonce {_hex(line, at + 8, 4)}")
    elif size == 16:
        line.say(f" hmac {_hex(line, at + 4, 8)} nonce {_hex(line, at + 12, 4)}")
    else:
        line.say(f" hmac 0x{line.octets(at + 4, 20).hex()}")
    return True


def _sequence(line: Line, at: int, size: int, bits: int) -> bool:
    """Data sequence signal."""
    if size < 4 or bits & _SYN:
        return False
    told, place, end = line.u8(at + 3), at + 4, at + size
    line.say(" fin" if told & 0x10 else "")
    for name, there, wide in (("ack", 0x01, 0x02), ("seq", 0x04, 0x08)):
        if told & there:
            width = 8 if told & wide else 4
            line.say(f" {name} ")
            if end - place < width:
                return False
            line.say(str(line.number(place, width)))
            place += width
    if told & 0x04:
        if end - place < 4:
            return False
        line.say(f" subseq {line.u32(place)}")
        place += 4
        if end - place < 2:
            return False
        line.say(f" len {line.u16(place)}")
        place += 2
        if end - place >= 2:
            line.say(f" csum {_hex(line, place, 2)}")
            place += 2
    return place == end


def _add_address(line: Line, at: int, size: int, _bits: int) -> bool:
    if size not in (8, 10, 16, 18, 20, 22, 28, 30):
        return False
    version = {6: "v0-ip6", 4: "v0-ip4", 1: "v1-echo", 0: "v1"}.get(line.u8(at + 2) & 15) or "[bad version/echo]"
    line.say(f" {version} id {line.u8(at + 3)}")
    wide = size >= 20
    line.say(f" {line.ipv6(at + 4) if wide else line.ipv4(at + 4)}")
    place, left = at + (20 if wide else 8), size - (20 if wide else 8)
    if left in (2, 10):
        line.say(f":{line.u16(place)}")
        place, left = place + 2, left - 2
    line.say(f" hmac {_hex(line, place, 8)}" if left == 8 else "")
    return True


def _remove_address(line: Line, at: int, size: int, _bits: int) -> bool:
    if size < 4:
        return False
    line.say(" id", *(f" {number}" for number in line.octets(at + 3, size - 3)))
    return True


def _priority(line: Line, at: int, size: int, _bits: int) -> bool:
    if size not in (3, 4):
        return False
    line.say(" backup" if line.u8(at + 2) & 1 else " non-backup", f" id {line.u8(at + 3)}" if size == 4 else "")
    return True


def _fail(line: Line, at: int, size: int, _bits: int) -> bool:
    if size != 12:
        return False
    line.say(f" seq {line.number(at + 4, 8)}")
    return True


def _fast_close(line: Line, at: int, size: int, _bits: int) -> bool:
    if size != 12:
        return False
    line.say(f" key {_hex(line, at + 4, 8)}")
    return True


def _unknown(_line: Line, _at: int, _size: int, _bits: int) -> bool:
    return True


_SUBTYPES: tuple[tuple[str, _Show], ...] = (
    ("capable", _capable),
    ("join", _join),
    ("dss", _sequence),
    ("add-addr", _add_address),
    ("rem-addr", _remove_address),
    ("prio", _priority),
    ("fail", _fail),
    ("fast-close", _fast_close),
    ("unknown", _unknown),
)
