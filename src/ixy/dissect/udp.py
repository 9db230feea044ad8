"""UDP (RFC 768)."""

from __future__ import annotations

from ixy.dissect import ip
from ixy.dissect.line import Carrier, Line, protocol, should_be

_HEADER = 8
_LONGEST = 65535  # bytes that its field of a length can tell


@protocol(ip.UDP)
def udp(line: Line, at: int, length: int, carrier: Carrier) -> None:
    line.protocol = "udp"
    if not line.has(at, 4):
        line.say(f"{carrier.src} > {carrier.dst}: " if carrier.protocol == ip.UDP else "")
        line.cut()
        return
    line.say(carrier.ends(ip.UDP, line.u16(at), line.u16(at + 2)))
    if length < _HEADER:
        line.say(f"truncated-udp {length}")
        return
    if not line.has(at, 6):
        line.cut()
        return
    told = line.u16(at + 4)
    if told == 0 and length > _LONGEST:  # a jumbogram (RFC 2675, 4)
        told = length
    if told < _HEADER:
        line.say(f"truncated-udplength {told}")
        return
    told, left = told - _HEADER, length - _HEADER
    if not line.has(at, _HEADER):
        line.cut()
        return
    left = min(told, left)
    if line.style.verbose and not carrier.fragmented:
        _checksum(line, at, left, carrier)
    if told > left and not carrier.fragmented:
        line.say(f"UDP, bad length {told} > {left}")
    else:
        line.say(f"UDP, length {told}")


def _checksum(line: Line, at: int, size: int, carrier: Carrier) -> None:
    """IPv6 needs one; over IPv4 it is looked at with -vv."""
    if carrier.version == 4 and line.style.verbose < 2:
        return
    stands = line.u16(at + 6)
    if carrier.version == 4 and stands == 0:
        line.say("[no cksum] ")
    elif line.has(at + _HEADER, size):
        found = ip.checksum_of(line, at, size + _HEADER, ip.UDP, carrier)
        right = f"[bad udp cksum 0x{stands:04x} -> 0x{should_be(stands, found):04x}!] "
        line.say(right if found else "[udp sum ok] ")
