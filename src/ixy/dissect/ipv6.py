"""IPv6 and its extension headers (RFC 8200)."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from ixy.dissect import ip
from ixy.dissect.line import Carrier, Line, ether_type, named, protocol

_HEADER = 40
_EXTENSIONS = (ip.HOP_BY_HOP, ip.DESTINATION, ip.FRAGMENT, ip.ROUTING)
_PAD1, _PADN, _ALERT, _JUMBO, _HOME = 0, 1, 5, 0xC2, 0xC9  # RFC 2711, RFC 2675, RFC 6275
_HOME_SIZE = 18  # bytes
_SIZES = {_ALERT: ("rtalert", 4, True), _JUMBO: ("jumbo", 6, True), _HOME: ("homeaddr", _HOME_SIZE, False)}
_NOTHING = 255  # before the first extension header
_LONGEST = 65536  # bytes from which on a payload is a jumbogram


class _Stop(Exception):
    """An extension header is not right: nothing behind it is printed."""


class _Chain(NamedTuple):
    """What is behind an extension header.

    Attributes:
        size: of the extension header.
        jumbo: the length of a jumbogram; 0 where it is none.
    """

    size: int
    jumbo: int = 0


@ether_type(0x86DD)
def ipv6(line: Line, at: int, length: int) -> None:
    line.protocol = "ip6"
    if not line.has(at, _HEADER):
        line.cut()
        return
    if length < _HEADER:
        line.say(f"truncated-ip6 {length}")
        return
    if not line.style.link:
        line.say("IP6 ")
    version = line.u8(at) >> 4
    if version != 6:
        line.say(f"version error: {version} != 6")
        return
    size = line.u16(at + 4)
    total = size + _HEADER if size else length + _HEADER
    if size and length < total:
        line.say(f"truncated-ip6 - {total - length} bytes missing!")
    if line.style.verbose:
        _details(line, at, size)
    with line.until(at + total), suppress(_Stop):
        _datagram(line, at, length, total)


def _details(line: Line, at: int, size: int) -> None:
    word, following = line.u32(at), line.u8(at + 6)
    traffic_class, flow = word >> 20 & 0xFF, word & 0xFFFFF
    line.say("(", f"class 0x{traffic_class:02x}, " if traffic_class else "")
    line.say(f"flowlabel 0x{flow:05x}, " if flow else "")
    line.say(f"hlim {line.u8(at + 7)}, next-header {named(ip.NAMES, following)} ({following}) payload length: {size}) ")


def _datagram(line: Line, at: int, length: int, total: int) -> None:
    """The extension headers, and what follows them."""
    size, first = line.u16(at + 4), line.u8(at + 6)
    src, dst = line.ipv6(at + 8), line.ipv6(at + 24)
    if first not in (*ip.WITH_PORTS, ip.SCTP, ip.DCCP):
        line.say(f"{src} > {dst}: ")
    following, place, before, fragmented = first, at + _HEADER, _NOTHING, False
    jumbo, seen = 0, False
    while following in _EXTENSIONS:
        if following == ip.HOP_BY_HOP:
            _check_order(line, seen, before)
            seen = True
        chain = _extension(line, following, place, at, size)
        if following == ip.HOP_BY_HOP and not size and not (chain and chain.jumbo):
            line.say("[No valid Jumbo Payload Hop-by-Hop option found] (invalid)")
            raise _Stop
        if chain is None:
            return
        jumbo, fragmented = chain.jumbo or jumbo, fragmented or following == ip.FRAGMENT
        if following == ip.FRAGMENT and line.end <= place + chain.size:
            return
        before, following, place = following, line.u8(place), place + chain.size
        line.protocol = "ip6"
        if total < place - at:
            line.cut()
            return
    _payload(line, at, length, total, place, following, jumbo, Carrier(6, at, first, fragmented, src, dst))


def _check_order(line: Line, seen: bool, before: int) -> None:
    """There is one hop-by-hop header at most, and it is the first (RFC 8200, 4.1)."""
    if seen:
        line.say("[The Hop-by-Hop Options header was already found] (invalid)")
        raise _Stop
    if before != _NOTHING:
        line.say("[The Hop-by-Hop Options header don't follow the IPv6 header] (invalid)")
        raise _Stop


def _payload(
    line: Line, at: int, length: int, total: int, place: int, number: int, jumbo: int, carrier: Carrier
) -> None:
    """What is behind the headers, of the length that they tell."""
    left = total - (place - at)
    if jumbo:
        left = jumbo + _HEADER - (place - at)
        if left < 0:
            line.cut()
            return
        if length < jumbo + _HEADER:
            line.say(f"truncated-ip6 - {jumbo + _HEADER - length} bytes missing!")
    elif line.u16(at + 4) == 0:
        if place > at + _HEADER:
            line.cut()
            return
        left = 0
        line.end = min(line.end, place)
    ip.payload(line, place, left, number, carrier)


def _extension(line: Line, kind: int, at: int, start: int, size: int) -> _Chain | None:
    """Print an extension header; None where nothing behind it can be told."""
    if kind == ip.ROUTING:
        return _routing(line, at)
    if kind == ip.FRAGMENT:
        return _fragment(line, at, start, size)
    name = "hbhopt" if kind == ip.HOP_BY_HOP else "dstopt"
    line.protocol = name
    whole = 8 * line.u8(at + 1) + 8
    if not line.has(at, whole):
        line.cut()
        return None
    line.say("HBH " if kind == ip.HOP_BY_HOP else "DSTOPT ")
    if kind == ip.DESTINATION and not line.style.verbose:
        return _Chain(whole)
    jumbo = _options(line, at + 2, whole - 2, size if kind == ip.HOP_BY_HOP else None)
    if jumbo is None:
        line.cut()
        return None
    return _Chain(whole, jumbo)


def _options(line: Line, at: int, size: int, payload: int | None) -> int | None:
    """Options; the length of a jumbogram, 0 if there is none, and None if they are cut or not right.

    Args:
        payload: the length that the IPv6 header tells; None for options of the destination.
    """
    verbose, jumbo, seen, place = line.style.verbose > 0, 0, False, 0
    while place < size:
        kind, here = line.u8(at + place), at + place
        if kind == _PAD1:
            line.say("(pad1)" if verbose else "")
            place += 1
            continue
        left = size - place
        whole = line.u8(here + 1) + 2 if left > 1 else left + 1
        if whole > left:
            return None
        wrong = _wrong_size(kind, whole, left)
        if wrong:
            line.say(wrong)
            return None
        if kind == _JUMBO:
            wanted = line.u32(here + 2)
            reason = _no_jumbo(wanted, seen, payload)
            line.say(f"(jumbo: {wanted}{reason}) " if verbose else "")
            jumbo, seen = (jumbo if reason else wanted), True
        elif verbose and kind == _HOME:
            line.say(f"(homeaddr: {line.ipv6(here + 2)}")
            if not _within_home(line, here + _HOME_SIZE, whole - _HOME_SIZE):
                return None
            line.say(")")
        elif verbose:
            line.say(_option(line, kind, here, whole))
        place += whole
    line.say(" " if verbose else "")
    return jumbo


def _wrong_size(kind: int, whole: int, left: int) -> str:
    """What is wrong with the size of an option; empty if nothing is."""
    if kind not in _SIZES:
        return ""
    name, least, exact = _SIZES[kind]
    if left < least:
        return f"({name}: trunc)"
    return f"({name}: invalid len {whole - 2})" if whole < least or (exact and whole > least) else ""


def _option(line: Line, kind: int, at: int, whole: int) -> str:
    if kind == _PADN:
        return "(padn)"
    if kind == _ALERT:
        return f"(rtalert: 0x{line.u16(at + 2):04x}) "
    return f"(opt_type 0x{kind:02x}: len={whole - 2})"


def _within_home(line: Line, at: int, size: int) -> bool:
    """Options within a home address option; False if they are cut."""
    place = 0
    while place < size:
        kind = line.u8(at + place)
        whole = 1 if kind == _PAD1 else line.u8(at + place + 1) + 2 if place + 1 < size else size + 1
        if place + whole > size:
            return False
        names = {_PAD1: ", pad1", _PADN: ", padn"}
        line.say(names.get(kind) or f", sopt_type 0x{kind:02x}: len={whole - 2}")
        place += whole
    return True


def _no_jumbo(wanted: int, seen: bool, payload: int | None) -> str:
    """Why a jumbo option does not count (RFC 2675, 3); empty if it does."""
    if seen:
        return " - already seen"
    if payload is None:
        return " - not a hop-by-hop option"
    if payload:
        return " - payload len != 0"
    return " - < 65536" if wanted < _LONGEST else ""


def _routing(line: Line, at: int) -> _Chain | None:
    if not line.has(at, 1):
        line.cut()
        return None
    line.protocol = "rt6"
    line.say("RT6")
    words = line.u8(at + 1)
    line.say(f" (len={words}")
    kind = line.u8(at + 2)
    line.say(f", type={kind}", " [Deprecated]" if kind == 0 else "")
    line.say(f", segleft={line.u8(at + 3)}")
    if kind not in (0, 2, 4):
        line.say(" (unknown type) (invalid)")
        return None
    if kind == 4:  # RFC 8754
        line.say(f", last-entry={line.u8(at + 4)}")
        if line.u8(at + 5) or line.style.verbose:
            line.say(f", flags=0x{line.u8(at + 5):x}")
        line.say(f", tag={line.u16(at + 6):x}")
    elif line.u32(at + 4) or line.style.verbose:
        line.say(f", rsv=0x{line.u32(at + 4):x}")
    if words % 2:
        line.say(f" (invalid length {words}) (invalid)")
        return None
    for number in range(words // 2):
        line.say(f", [{number}]{line.ipv6(at + 8 + 16 * number)}")
    line.say(") ")
    return _Chain(8 * words + 8)


def _fragment(line: Line, at: int, start: int, size: int) -> _Chain | None:
    line.protocol = "frag6"
    offset = line.u16(at + 2) & 0xFFF8
    left = (_HEADER + size - (at - start) - 8) % (1 << 64)
    identification = f"0x{line.u32(at + 4):08x}:" if line.style.verbose else ""
    line.say(f"frag ({identification}{offset}|{left})")
    if offset:
        return None
    line.say(" ")
    return _Chain(8)


@protocol(ip.IPV6)
def ipv6_within(line: Line, at: int, length: int, _carrier: Carrier) -> None:
    ipv6(line, at, length)
