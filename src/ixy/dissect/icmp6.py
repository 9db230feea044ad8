"""ICMPv6 (RFC 4443), neighbour discovery (RFC 4861) and multicast listeners (RFC 2710, RFC 3810)."""

from __future__ import annotations

from collections.abc import Callable

from ixy.dissect import ip
from ixy.dissect.line import Carrier, Line, flags, ipv6_text, named, protocol, should_be

_UNREACHABLE, _TOO_BIG, _EXCEEDED, _PARAMETER = 1, 2, 3, 4
_ECHO, _ECHO_REPLY, _QUERY, _REPORT, _DONE = 128, 129, 130, 131, 132
_SOLICITATION, _ADVERTISEMENT, _NEIGHBOR, _NEIGHBOR_ADVERTISEMENT, _REDIRECT = 133, 134, 135, 136, 137
_REPORT2, _HOME, _HOME_REPLY, _PREFIX, _PREFIX_ADVERTISEMENT = 143, 144, 145, 146, 147
_NAMES = {
    _UNREACHABLE: "destination unreachable",
    _TOO_BIG: "packet too big",
    _EXCEEDED: "time exceeded in-transit",
    _PARAMETER: "parameter problem",
    _ECHO: "echo request",
    _ECHO_REPLY: "echo reply",
    _QUERY: "multicast listener query",
    _REPORT: "multicast listener report",
    _DONE: "multicast listener done",
    _SOLICITATION: "router solicitation",
    _ADVERTISEMENT: "router advertisement",
    _NEIGHBOR: "neighbor solicitation",
    _NEIGHBOR_ADVERTISEMENT: "neighbor advertisement",
    _REDIRECT: "redirect",
    138: "router renumbering",
    139: "who-are-you request",
    140: "who-are-you reply",
    141: "inverse neighbor solicitation",
    142: "inverse neighbor advertisement",
    _REPORT2: "multicast listener report v2",
    _HOME: "ha discovery request",
    _HOME_REPLY: "ha discovery reply",
    _PREFIX: "mobile router solicitation",
    _PREFIX_ADVERTISEMENT: "mobile router advertisement",
    155: "RPL",
    200: "mtrace response",
    201: "mtrace message",
}
_LENGTH_FIRST = (
    *(_SOLICITATION, _ADVERTISEMENT, _NEIGHBOR, _NEIGHBOR_ADVERTISEMENT, _REDIRECT),
    *(_HOME_REPLY, _PREFIX_ADVERTISEMENT),
)
_QUOTED = 8  # where the datagram begins that a message is about
_PREFERENCES = ("medium", "high", "rsv", "low")  # of a router (RFC 4191)
_FOREVER = 0xFFFFFFFF


class _Cut(Exception):
    """The message was cut, or lengths in it are not right: that is said, and the line ends."""


@protocol(ip.ICMP6)
def icmp6(line: Line, at: int, length: int, carrier: Carrier) -> None:
    line.protocol = "icmp6"
    if length == 0:
        line.say("ICMP6, length 0 (invalid)")
        return
    verbose = line.style.verbose
    if verbose and not carrier.fragmented and line.has(at, length):
        stands, found = line.u16(at + 2), ip.checksum_of(line, at, length, ip.ICMP6, carrier)
        wrong = f"[bad icmp6 cksum 0x{stands:04x} -> 0x{should_be(stands, found):04x}!] "
        line.say(wrong if found else "[icmp6 sum ok] ")
    kind = line.u8(at)
    line.say(f"ICMP6, {named(_NAMES, kind, 'unknown icmp6 type ({})')}")
    if verbose and kind in _LENGTH_FIRST:
        line.say(f", length {length}")
    line.u8(at + 1)
    if kind not in _NAMES:
        line.say(f", length {length}")
        if verbose <= 1:
            line.hex("\n\t", at, length)
        return
    try:
        if kind in _MESSAGES and not _MESSAGES[kind](line, at, length):
            return
    except _Cut:
        line.cut()
        return
    line.say("" if verbose else f", length {length}")


# ---------------------------------------------------------------------------------------------------------------------
# Messages: each prints what it has; whether the line goes on


def _unreachable(line: Line, at: int, length: int) -> bool:
    code, quoted = line.u8(at + 1), at + _QUOTED
    names = {0: "unreachable route", 1: " unreachable prohibited", 2: "beyond scope", 3: "unreachable address"}
    names |= {4: "unreachable port"}
    line.say(f", {named(names, code, 'unknown unreach code ({})')}")
    if code in (0, 1, 3):
        line.say(f" {line.ipv6(quoted + 24)}")
    elif code == 2:
        line.say(f" {line.ipv6(quoted + 24)}, source address {line.ipv6(quoted + 8)}")
    elif code == 4:
        number, place = _upper(line, quoted)
        name = {ip.TCP: "tcp", ip.UDP: "udp"}[number]
        line.say(f", {line.ipv6(quoted + 24)} {name} port {line.u16(place + 2)}")
    elif line.style.verbose <= 1:
        line.hex("\n\t", at, length)
        return False
    return True


def _upper(line: Line, at: int) -> tuple[int, int]:
    """TCP or UDP of the datagram that is quoted, and where it begins.

    Raises:
        _Cut: it has neither, or not so far.
    """
    if not line.has(at, 7):
        raise _Cut
    following, place = line.u8(at + 6), at + 40
    while line.has(place, 4):
        if following in (ip.TCP, ip.UDP):
            return following, place
        if following in (ip.HOP_BY_HOP, ip.DESTINATION, ip.ROUTING):
            size = 8 * line.u8(place + 1) + 8
        elif following == ip.FRAGMENT and line.u16(place + 2) & 0xFFF8 == 0:
            size = 8
        elif following == ip.AUTHENTICATION:
            size = 4 * line.u8(place + 1) + 8
        else:
            break
        following, place = line.u8(place), place + size
    raise _Cut


def _too_big(line: Line, at: int, _length: int) -> bool:
    line.say(f", mtu {line.u32(at + 4)}")
    return True


def _exceeded(line: Line, at: int, _length: int) -> bool:
    code = line.u8(at + 1)
    if code == 0:
        line.say(f" for {line.ipv6(at + _QUOTED + 24)}")
    else:
        line.say(" (reassembly)" if code == 1 else f", unknown code ({code})")
    return True


def _parameter(line: Line, at: int, _length: int) -> bool:
    if not line.has(at + _QUOTED + 24, 16):
        raise _Cut
    code = line.u8(at + 1)
    names = {0: "erroneous", 1: "next header", 2: "option", 3: "incomplete header chain"}
    line.say(f", {names[code]} - octet {line.u32(at + 4)}" if code in names else f", code-#{code}")
    return True


def _echo(line: Line, at: int, _length: int) -> bool:
    line.say(f", id {line.u16(at + 4)}, seq {line.u16(at + 6)}")
    return True


def _listener(line: Line, at: int, _length: int) -> bool:
    if line.has(at, 24):
        line.say(f"max resp delay: {line.u16(at + 4)} addr: {line.ipv6(at + 8)}")
    return True


def _query(line: Line, at: int, length: int) -> bool:
    if length == 24:
        return _listener(line, at, length)
    if length < 28:
        line.say(f" unknown-version (len {length}) ")
        return True
    line.say(" v2")
    verbose, code = line.style.verbose, line.u16(at + 4)
    if verbose:
        line.say(f" [max resp delay={_floating(code, 15)}]")
    line.say(f" [gaddr {line.ipv6(at + 8)}")
    if verbose:
        bits = line.u8(at + 24)
        line.say(" sflag" if bits & 8 else "", f" robustness={bits & 7}" if bits & 7 else "")
        line.say(f" qqi={_floating(line.u8(at + 25), 7)}")
    sources = line.u16(at + 26)
    if sources and length < 28 + 16 * sources:
        line.say(" [invalid number of sources]")
    elif sources and verbose > 1:
        line.say(" {")
        for i in range(sources):
            line.say(f" {line.ipv6(at + 28 + 16 * i)}")
        line.say(" }")
    elif sources:
        line.say(f", {sources} source(s)")
    line.say("]")
    return True


def _floating(code: int, bits: int) -> int:
    """A number that has an exponent of three bits where its highest bit is set (RFC 3810, 5.1.3 and 5.1.9)."""
    if not code >> bits:
        return code
    width = bits - 3
    return (code & (1 << width) - 1 | 1 << width) << ((code >> width & 7) + 3)


def _report2(line: Line, at: int, length: int) -> bool:
    if length < 8:
        line.say(f" [invalid len {length}]")
        return True
    groups = line.u16(at + 6)
    line.say(f", {groups} group record(s)")
    place = 8
    for _ in range(groups if line.style.verbose else 0):
        if length < place + 20:
            line.say(" [invalid number of groups]")
            return True
        kinds = {1: "is_in", 2: "is_ex", 3: "to_in", 4: "to_ex", 5: "allow", 6: "block"}
        line.say(f" [gaddr {line.ipv6(at + place + 4)}")
        line.say(f" {named(kinds, line.u8(at + place), ' [v2-report-#{}]')}")
        sources = line.u16(at + place + 2)
        if length < place + 20 + 16 * sources:
            line.say(f" [invalid number of sources {sources}]")
            return True
        if line.style.verbose == 1:
            line.say(f", {sources} source(s)")
        else:
            line.say(" {")
            for i in range(sources):
                line.say(f" {line.ipv6(at + place + 20 + 16 * i)}")
            line.say(" }")
        place += 20 + 16 * sources
        line.say("]")
    return True


def _solicitation(line: Line, at: int, length: int) -> bool:
    if line.style.verbose:
        _options(line, at + 8, length - 8)
    return True


def _advertisement(line: Line, at: int, length: int) -> bool:
    if line.style.verbose:
        bits = line.u8(at + 5)
        names = {0x80: "managed", 0x40: "other stateful", 0x20: "home agent", 0x02: "ipv6 only"}
        times = f"reachable time {line.u32(at + 8)}ms, retrans timer {line.u32(at + 12)}ms"
        line.say(f"\n\thop limit {line.u8(at + 4)}, Flags [{flags(names, bits)}], pref {_preference(bits)}")
        line.say(f", router lifetime {line.u16(at + 6)}s, {times}")
        _options(line, at + 16, length - 16)
    return True


def _neighbor(line: Line, at: int, length: int) -> bool:
    line.say(f", who has {line.ipv6(at + 8)}")
    if line.style.verbose:
        _options(line, at + 24, length - 24)
    return True


def _neighbor_advertisement(line: Line, at: int, length: int) -> bool:
    line.say(f", tgt is {line.ipv6(at + 8)}")
    if line.style.verbose:
        names = {0x80000000: "router", 0x40000000: "solicited", 0x20000000: "override"}
        line.say(f", Flags [{flags(names, line.u32(at + 4))}]")
        _options(line, at + 24, length - 24)
    return True


def _redirect(line: Line, at: int, length: int) -> bool:
    line.say(f", {line.ipv6(at + 24)}")
    line.say(f" to {line.ipv6(at + 8)}")
    if line.style.verbose:
        _options(line, at + 40, length - 40)
    return True


def _identified(line: Line, at: int, _length: int) -> bool:
    line.say(f", id 0x{line.u16(at + 4):04x}")
    return True


def _home_reply(line: Line, at: int, length: int) -> bool:
    if line.style.verbose:
        _identified(line, at, length)
        for place in range(at + 8, at + length, 16):
            line.say(f", {line.ipv6(place)}")
    return True


def _prefix_advertisement(line: Line, at: int, length: int) -> bool:
    if line.style.verbose:
        _identified(line, at, length)
        bits = line.u16(at + 6)
        line.say(" " if bits & 0xC000 else "", "M" if bits & 0x8000 else "", "O" if bits & 0x4000 else "")
        _options(line, at + 8, length - 8)
    return True


_MESSAGES: dict[int, Callable[[Line, int, int], bool]] = {
    _UNREACHABLE: _unreachable,
    _TOO_BIG: _too_big,
    _EXCEEDED: _exceeded,
    _PARAMETER: _parameter,
    _ECHO: _echo,
    _ECHO_REPLY: _echo,
    _QUERY: _query,
    _REPORT: _listener,
    _DONE: _listener,
    _REPORT2: _report2,
    _SOLICITATION: _solicitation,
    _ADVERTISEMENT: _advertisement,
    _NEIGHBOR: _neighbor,
    _REDIRECT: _redirect,
    _NEIGHBOR_ADVERTISEMENT: _neighbor_advertisement,
    _HOME: _identified,
    _PREFIX: _identified,
    _HOME_REPLY: _home_reply,
    _PREFIX_ADVERTISEMENT: _prefix_advertisement,
}

# ---------------------------------------------------------------------------------------------------------------------
# Options of neighbour discovery (RFC 4861, 4.6)


def _options(line: Line, at: int, left: int) -> None:
    """
    Raises:
        _Cut: an option is cut, or has no length.
    """
    start = at
    while at < line.end:
        if not line.has(at, 2):
            raise _Cut
        if left <= 0:
            return
        kind, units = line.u8(at), line.u8(at + 1)
        size = 8 * units
        if not units or not line.has(at, size):
            raise _Cut
        name, show = _OPTIONS.get(kind, ("unknown", None))
        line.say(f"\n\t  {name} option ({kind}), length {size} ({units}): ")
        if show:
            show(line, start if kind == _REDIRECTED else at, units)
        elif line.style.verbose <= 1:
            line.hex("\n\t  ", at + 2, size - 2)
            return
        if line.style.verbose > 1:
            line.hex("\n\t    ", at + 2, size - 2)
        at, left = at + size, left - size


def _preference(bits: int) -> str:
    return _PREFERENCES[bits >> 3 & 3]


def _lifetime(seconds: int) -> str:
    return "infinity" if seconds == _FOREVER else f"{seconds}s"


def _link_address(line: Line, at: int, units: int) -> None:
    line.say(line.octets(at + 2, 8 * units - 2).hex(":"))


def _prefix(line: Line, at: int, units: int) -> None:
    names = {0x80: "onlink", 0x40: "auto", 0x20: "router"}
    line.say(f"{line.ipv6(at + 16)}/{line.u8(at + 2)}{'' if units == 4 else 'badlen'}")
    line.say(f", Flags [{flags(names, line.u8(at + 3))}], valid time {_lifetime(line.u32(at + 4))}")
    line.say(f", pref. time {_lifetime(line.u32(at + 8))}")


def _redirected(line: Line, start: int, units: int) -> None:
    line.hex("\n\t    ", start, 8 * units)


def _mtu(line: Line, at: int, units: int) -> None:
    line.say(f" {line.u32(at + 4)}", "" if units == 1 else "bad option length")


def _servers(line: Line, at: int, units: int) -> None:
    """RFC 8106, 5.1."""
    line.say(f" lifetime {line.u32(at + 4)}s,")
    for i in range((units - 1) // 2):
        line.say(f" addr: {line.ipv6(at + 8 + 16 * i)}")


def _domains(line: Line, at: int, units: int) -> None:
    """RFC 8106, 5.2: names as of RFC 1035, 3.1."""
    line.say(f" lifetime {line.u32(at + 4)}s, domain(s):")
    place, end = at + 8, at + 8 * units
    while place < end and line.u8(place):
        labels: list[str] = []
        while place < end and (size := line.u8(place)):
            if size > 63 or place + 1 + size > end:
                raise _Cut
            labels.append(line.octets(place + 1, size).decode("ascii", "replace"))
            place += 1 + size
        line.say(f" {'.'.join(labels)}.")
        place += 1


def _interval(line: Line, at: int, _units: int) -> None:
    line.say(f" {line.u32(at + 4)}ms")


def _home_agent(line: Line, at: int, _units: int) -> None:
    line.say(f" preference {line.u16(at + 4)}, lifetime {line.u16(at + 6)}")


def _route(line: Line, at: int, units: int) -> None:
    """RFC 4191, 2.3."""
    if units > 3:
        raise _Cut
    network = line.octets(at + 8, 8 * (units - 1)) + bytes(16 - 8 * (units - 1))
    line.say(f" {ipv6_text(network)}/{line.u8(at + 2)}, pref={_preference(line.u8(at + 3))}")
    line.say(f", lifetime={_lifetime(line.u32(at + 4))}")


_REDIRECTED = 4
_OPTIONS: dict[int, tuple[str, Callable[[Line, int, int], None] | None]] = {
    1: ("source link-address", _link_address),
    2: ("destination link-address", _link_address),
    3: ("prefix info", _prefix),
    _REDIRECTED: ("redirected header", _redirected),
    5: ("mtu", _mtu),
    7: ("advertisement interval", _interval),
    8: ("homeagent information", _home_agent),
    24: ("route info", _route),
    25: ("rdnss", _servers),
    31: ("dnssl", _domains),
}
