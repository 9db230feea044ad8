"""ICMP (RFC 792), with what later RFCs have added."""

from __future__ import annotations

from ixy.dissect import ip
from ixy.dissect.ipv4 import ipv4
from ixy.dissect.line import Carrier, Line, checksum, named, protocol, should_be

_ECHO_REPLY, _UNREACHABLE, _QUENCH, _REDIRECT, _ECHO, _ADVERTISEMENT = 0, 3, 4, 5, 8, 9
_EXCEEDED, _PARAMETER, _TIMES, _TIMES_REPLY, _MASK_REPLY = 11, 12, 13, 14, 18
_QUOTING = (_UNREACHABLE, _QUENCH, _REDIRECT, _EXCEEDED, _PARAMETER)
_EXTENDABLE = (_UNREACHABLE, _EXCEEDED, _PARAMETER)
_QUOTED = 8  # where the datagram begins that a message is about
_NAMES = {
    _QUENCH: "source quench",
    10: "router solicitation",
    15: "information request",
    16: "information reply",
    17: "address mask request",
}

_PROTOCOL, _PORT, _TOO_BIG = 2, 3, 4
_UNREACHABLE_CODES = {
    0: "net {} unreachable",
    1: "host {} unreachable",
    5: "{} unreachable - source route failed",
    6: "net {} unreachable - unknown",
    7: "host {} unreachable - unknown",
    8: "{} unreachable - source host isolated",
    9: "net {} unreachable - admin prohibited",
    10: "host {} unreachable - admin prohibited",
    11: "net {} unreachable - tos prohibited",
    12: "host {} unreachable - tos prohibited",
    13: "host {} unreachable - admin prohibited filter",
    14: "host {} unreachable - host precedence violation",
    15: "host {} unreachable - precedence cutoff",
}
_REDIRECT_CODES = {
    0: "redirect {} to net {}",
    1: "redirect {} to host {}",
    2: "redirect-tos {} to net {}",
    3: "redirect-tos {} to host {}",
}
_EXCEEDED_CODES = {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}


@protocol(ip.ICMP)
def icmp(line: Line, at: int, length: int, carrier: Carrier) -> None:
    line.protocol = "icmp"
    kind, code = line.u8(at), line.u8(at + 1)
    what = _message(line, at, kind, code)
    if what is None:
        line.cut()
        return
    line.say(f"ICMP {what}, length {length}")
    if not line.style.verbose:
        return
    if not carrier.fragmented and line.has(at, length) and (found := checksum(line.octets(at, length))):
        stands = line.u16(at + 2)
        line.say(f" (wrong icmp cksum {stands:x} (->{should_be(stands, found):x})!)")
    if kind in _QUOTING:
        line.say("\n\t")
        quoted, size = at + _QUOTED, line.u16(at + _QUOTED + 2)
        with line.until(quoted + size):
            ipv4(line, quoted, size)
    line.protocol = "icmp"
    if kind in _EXTENDABLE and length > _EXTENSION:
        _extension(line, at, length)


def _message(line: Line, at: int, kind: int, code: int) -> str | None:
    """What a message says; None if it was cut."""
    if kind in (_ECHO, _ECHO_REPLY):
        return f"echo {'request' if kind == _ECHO else 'reply'}, id {line.u16(at + 4)}, seq {line.u16(at + 6)}"
    if kind == _UNREACHABLE:
        return _unreachable(line, at, code)
    if kind == _REDIRECT:
        text = _REDIRECT_CODES.get(code) or f"redirect-#{code} {{}} to {{}}"
        return text.format(line.ipv4(at + _QUOTED + 16), line.ipv4(at + 4))
    if kind == _ADVERTISEMENT:
        return _advertisement(line, at)
    if kind == _EXCEEDED:
        return named(_EXCEEDED_CODES, code, "time exceeded-#{}") if line.has(at + _QUOTED + 16, 4) else None
    if kind == _PARAMETER:
        return f"parameter problem - code {code}" if code else f"parameter problem - octet {line.u8(at + 4)}"
    if kind == _MASK_REPLY:
        return f"address mask is 0x{line.u32(at + 8):08x}"
    if kind == _TIMES:
        return f"time stamp query id {line.u16(at + 4)} seq {line.u16(at + 6)}"
    if kind == _TIMES_REPLY:
        return _times(line, at) if line.has(at + 16, 4) else None
    return named(_NAMES, kind, "type-#{}")


def _unreachable(line: Line, at: int, code: int) -> str | None:
    quoted = at + _QUOTED
    if code == _PORT:
        return _port(line, quoted) if line.has(quoted + 9, 1) else None
    if code == _PROTOCOL:
        return f"{line.ipv4(quoted + 16)} protocol {line.u8(quoted + 9)} unreachable"
    if code == _TOO_BIG:  # RFC 1191
        mtu = line.u16(at + 6)
        return f"{line.ipv4(quoted + 16)} unreachable - need to frag{f' (mtu {mtu})' if mtu else ''}"
    return (_UNREACHABLE_CODES.get(code) or f"{{}} unreachable - #{code}").format(line.ipv4(quoted + 16))


def _port(line: Line, quoted: int) -> str:
    port, number = line.u16(quoted + 4 * (line.u8(quoted) & 15) + 2), line.u8(quoted + 9)
    name = {ip.TCP: "tcp", ip.UDP: "udp"}.get(number) or f"protocol {number}"
    return f"{line.ipv4(quoted + 16)} {name} port {port} unreachable"


def _advertisement(line: Line, at: int) -> str | None:
    """RFC 1256."""
    if not line.has(at + 4, 4):
        return None
    count, size, lifetime = line.u8(at + 4), line.u8(at + 5), line.u16(at + 6)
    text = f"router advertisement lifetime {_duration(lifetime)} {count}:"
    if size != 2:
        return f"{text} [size {size}]"
    for place in range(at + 8, at + 8 + 8 * count, 8):
        if not line.has(place, 8):
            return None
        text += f" {{{line.ipv4(place)} {line.u32(place + 4)}}}"
    return text


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    if minutes == 0:
        return str(seconds)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _times(line: Line, at: int) -> str:
    """Milliseconds since midnight."""
    text = f"time stamp reply id {line.u16(at + 4)} seq {line.u16(at + 6)}: "
    return text + ", ".join(
        f"{name} {_clock(line.u32(at + place))}" for name, place in (("org", 8), ("recv", 12), ("xmit", 16))
    )


def _clock(milliseconds: int) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandths:03}"


# ---------------------------------------------------------------------------------------------------------------------
# What may be behind the datagram that a message quotes (RFC 4884)

_EXTENSION = 136  # bytes before it
_VERSION = 2
_CLASSES = {1: "MPLS Stack Entry", 2: "Interface Identification"}  # RFC 4950, RFC 5837


def _extension(line: Line, at: int, length: int) -> None:
    start, size = at + _EXTENSION, length - _EXTENSION
    if not line.has(at, _EXTENSION + 5):
        line.cut()
        return
    if line.u8(at + 5) == 0 and line.has(start, size) and checksum(line.octets(start, size)):
        return  # the message does not say that there is one, and it does not look like one
    version = line.u8(start) >> 4
    line.say(f"\n\tICMP Multi-Part extension v{version}")
    if version != _VERSION:
        line.say(" packet not supported")
        return
    if line.has(start, size):
        right = "incorrect" if checksum(line.octets(start, size)) else "correct"
        line.say(f", checksum 0x{line.u16(start + 2):04x} ({right}), length {size}")
    place, left = start + 4, size - 4
    while left > 4:
        if not line.has(place, 4):
            line.cut()
            return
        whole, kind, subtype = line.u16(place), line.u8(place + 2), line.u8(place + 3)
        line.say(f"\n\t  {named(_CLASSES, kind)} Object ({kind}), Class-Type: {subtype}, length {whole}")
        place, left = place + 4, left - 4
        if kind == 0 or whole < 4:
            return
        if (kind, subtype) == (1, 1):
            label = line.u32(place)
            last = ", [S]" if label & 0x100 else ""
            line.say(f"\n\t    label {label >> 12}, tc {label >> 9 & 7}{last}, ttl {label & 0xFF}")
        else:
            line.hex("\n\t    ", place, whole - 4)
        if left < whole - 4:
            return
        place, left = place + whole - 4, left - (whole - 4)
