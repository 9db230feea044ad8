"""IPv4 (RFC 791)."""

from __future__ import annotations

from ixy.dissect import ip
from ixy.dissect.line import Carrier, Line, Truncated, checksum, ether_type, flags, named, protocol, should_be

_FLAGS = {0x2000: "+", 0x4000: "DF", 0x8000: "rsvd"}
_OFFSET, _MORE = 0x1FFF, 0x2000
_ECN = ("", ",ECT(1)", ",ECT(0)", ",CE")  # RFC 3168
_END, _NOP, _RECORD, _TIMES, _LOOSE, _STRICT, _ALERT = 0, 1, 7, 68, 131, 137, 148
_OPTIONS = {
    _END: "EOL",
    _NOP: "NOP",
    _TIMES: "timestamp",
    130: "security",
    _RECORD: "RR",
    _STRICT: "SSRR",
    _LOOSE: "LSRR",
    _ALERT: "RA",
    82: "traceroute",
}


@ether_type(0x0800)
def ipv4(line: Line, at: int, length: int) -> None:
    line.protocol = "ip"
    version = line.u8(at) >> 4
    if version != 4:
        line.say("IP6, wrong link-layer encapsulation" if version == 6 else f"IP{version}", " (invalid)")
        return
    if not line.style.link:
        line.say("IP ")
    if not line.has(at, 20):
        line.cut()
        return
    header, total = 4 * (line.u8(at) & 15), line.u16(at + 2)
    if length < 20:
        line.say(f"truncated-ip {length}")
        return
    if header < 20:
        line.say(f"bad-hlen {header}")
        return
    if length < total:
        line.say(f"truncated-ip - {total - length} bytes missing! ")
    if total < header:
        line.say(f"bad-len {total}")
        return
    with line.until(at + total):
        _datagram(line, at, header, total - header)


def _datagram(line: Line, at: int, header: int, length: int) -> None:
    fragment, number = line.u16(at + 6), line.u8(at + 9)
    src, dst = line.ipv4(at + 12), line.ipv4(at + 16)
    if line.style.verbose and not _details(line, at, header, fragment, number):
        line.say(f"{src} > {dst}: ")
        line.cut()
        return
    if fragment & _OFFSET:
        line.say(f"{src} > {dst}: ip-proto-{number}")
        return
    if number not in (*ip.WITH_PORTS, ip.SCTP, ip.DCCP):
        line.say(f"{src} > {dst}: ")
    if not line.has(at, header):
        line.say(f" [remaining caplen({line.end - at}) < header length({header})]")
        raise Truncated
    carrier = Carrier(4, at, number, bool(fragment & _MORE), src, dst)
    ip.payload(line, at + header, length, number, carrier)


def _details(line: Line, at: int, header: int, fragment: int, number: int) -> bool:
    """The fields in brackets; False if the options were cut."""
    tos, ttl, complete = line.u8(at + 1), line.u8(at + 8), True
    line.say(f"(tos 0x{tos:x}{_ECN[tos & 3]}{f', ttl {ttl}' if ttl else ''}, id {line.u16(at + 4)}")
    line.say(f", offset {8 * (fragment & _OFFSET)}, flags [{flags(_FLAGS, fragment)}]")
    line.say(f", proto {named(ip.NAMES, number)} ({number}), length {line.u16(at + 2)}")
    if header > 20:
        line.say(", options (")
        complete = _options(line, at + 20, header - 20)
        line.say("" if complete else " [truncated-option]", ")")
    if line.has(at, header):
        found, stands = checksum(line.octets(at, header)), line.u16(at + 10)
        line.say(f", bad cksum {stands:x} (->{should_be(stands, found):x})!" if found else "")
    line.say(")\n    ")
    return complete


def _options(line: Line, at: int, left: int) -> bool:
    """Options, with commas between them; False if they were cut."""
    between = ""
    while left > 0:
        line.say(between)
        kind, size = line.u8(at), 1
        line.say(named(_OPTIONS, kind, "unknown {}"))
        between = ","
        if kind not in (_END, _NOP):
            size = line.u8(at + 1)
        if size > left or (size < 2 and kind not in (_END, _NOP)):
            line.say(f" [bad length {size}]")
            return True
        if not line.has(at, size):
            return False
        if kind == _END:
            return True
        _option(line, kind, at, size)
        at, left = at + size, left - size
    return True


def _option(line: Line, kind: int, at: int, size: int) -> None:
    if kind == _TIMES:
        _times(line, at, size)
    elif kind in (_RECORD, _STRICT, _LOOSE):
        _route(line, at, size)
    elif kind == _ALERT and size < 4:
        line.say(f" [bad length {size}]")
    elif kind == _ALERT and line.u16(at + 2):
        line.say(f" value {line.u16(at + 2)}")


def _route(line: Line, at: int, size: int) -> None:
    """Addresses; behind each that has been reached, a comma."""
    if size < 3:
        line.say(f" [bad length {size}]")
        return
    line.say(f" [bad length {size}]" if size + 1 & 3 else "")
    pointer = line.u8(at + 2) - 1
    if pointer < 3 or pointer + 1 & 3 or pointer > size + 1:
        line.say(f" [bad ptr {line.u8(at + 2)}]")
    for place in range(3, size, 4):
        line.say(f" {line.ipv4(at + place)}", "," if pointer % (1 << 32) > place else "")


def _times(line: Line, at: int, size: int) -> None:
    """Time stamps, of which ^ shows the next."""
    if size < 4:
        line.say(f"[bad length {size}]")
        return
    kind = line.u8(at + 3) & 15
    hop = 4 if kind == 0 else 8
    line.say(" TS{", f"[bad length {size}]" if size - 4 & hop - 1 else "")
    pointer, place = (line.u8(at + 2) - 1) % (1 << 32), 0
    if pointer < 4 or pointer - 4 & hop - 1 or pointer > size + 1:
        line.say(f"[bad ptr {line.u8(at + 2)}]")
    names = {0: "TSONLY", 1: "TS+ADDR", 3: "PRESPEC"}
    line.say(names.get(kind) or f"[bad ts type {kind}]")
    if kind in names:
        before, place = " ", 4
        while place < size:
            before = " ^ " if pointer == place else before
            address = line.ipv4(at + place) if hop == 8 else ""
            line.say(f"{before}{line.u32(at + place + hop - 4)}@{address}")
            before, place = " ", place + hop
    line.say(" ^ " if pointer == place else "")
    missed = line.u8(at + 3) >> 4
    line.say(f" [{missed} hops not recorded]}} " if missed else "}")


@protocol(ip.IPV4)
def ipv4_within(line: Line, at: int, length: int, _carrier: Carrier) -> None:
    ipv4(line, at, length)
