"""TCP (RFC 9293) and its options."""

from __future__ import annotations

from collections.abc import Callable

from ixy.dissect import ip
from ixy.dissect.line import Carrier, Line, Truncated, flags, protocol, should_be
from ixy.dissect.mptcp import mptcp

_HEADER = 20
FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
_FLAGS = {FIN: "F", SYN: "S", RST: "R", 0x08: "P", ACK: ".", URG: "U", 0x40: "E", 0x80: "W"}
_WORD = (1 << 32) - 1
_RST_DATA = 30  # bytes of what a reset says that are printed


@protocol(ip.TCP)
def tcp(line: Line, at: int, length: int, carrier: Carrier) -> None:
    line.protocol = "tcp"
    if not line.has(at, 4):
        line.say(f"{carrier.src} > {carrier.dst}:")
        line.cut()
        return
    line.say(carrier.ends(ip.TCP, line.u16(at), line.u16(at + 2)))
    if not line.has(at, _HEADER):
        line.cut()
        return
    header = 4 * (line.u8(at + 12) >> 4)
    payload = (length - header) & _WORD
    if header < _HEADER:
        line.say(f" tcp {payload} [bad hdr length {header} - too short, < {_HEADER}]")
        return
    too_long = f" [bad hdr length {header} - too long, > {length}]" if header > length else ""
    if line.style.quiet:
        line.say(f"tcp {payload}", too_long)
        return
    bits = line.u8(at + 13)
    line.say(f"Flags [{flags(_FLAGS, bits, between='')}]")
    numbers = _Numbers(line, at, bits, carrier)
    if too_long:
        line.say(too_long)
        return
    if line.style.verbose and not carrier.fragmented and line.has(at, length):
        _checksum(line, at, length, carrier)
    if line.style.verbose > 1 or payload or bits & (SYN | FIN | RST):
        line.say(f", seq {numbers.seq}", f":{(numbers.seq + payload) & _WORD}" if payload else "")
    line.say(f", ack {numbers.ack}" if bits & ACK else "", f", win {line.u16(at + 14)}")
    line.say(f", urg {line.u16(at + 18)}" if bits & URG else "")
    if header > _HEADER and not _Options(line, at, header, length, bits, numbers).printed():
        return
    line.say(f", length {payload}")
    if payload:
        _payload(line, at, header, payload, bits)


def _checksum(line: Line, at: int, length: int, carrier: Carrier) -> None:
    found, stands = ip.checksum_of(line, at, length, ip.TCP, carrier), line.u16(at + 16)
    line.say(f", cksum 0x{stands:04x} ")
    line.say(f"(incorrect -> 0x{should_be(stands, found):04x})" if found else "(correct)")


def _payload(line: Line, at: int, header: int, size: int, bits: int) -> None:
    """What a reset carries (RFC 9293, 3.5.3); anything else is not looked at."""
    if not line.has(at, header):
        line.say(f" [remaining caplen({line.end - at}) < header length({header})]")
        raise Truncated
    if bits & RST and line.style.verbose:
        data = line.data[at + header : min(at + header + min(size, _RST_DATA), line.end)]
        line.say(" [RST" if line.has(at + header, size) else " [!RST", "+" if size > _RST_DATA else "", " ")
        line.say("".join(map(_character, data)), "]")


def _character(byte: int) -> str:
    """As `cat -v` shows it."""
    meta, byte = ("M-", byte & 0x7F) if byte & 0x80 else ("", byte)
    return meta + (chr(byte) if 0x20 <= byte <= 0x7E else f"^{chr(byte ^ 0x40)}")


class _Numbers:
    """Sequence numbers as they are printed: counted from where the conversation began, as of its first packet with an
    acknowledgement, which is printed as it is.

    Attributes:
        seq, ack: of this packet.
        begun: what the receiver's numbers are counted from, for selective acknowledgements.
    """

    def __init__(self, line: Line, at: int, bits: int, carrier: Carrier) -> None:
        self.seq, self.ack, self.begun = line.u32(at + 4), line.u32(at + 8), 0
        if line.style.absolute or not bits & ACK:
            return
        place, size = (carrier.at + 12, 4) if carrier.version == 4 else (carrier.at + 8, 16)
        one, other = (line.octets(place, size), line.u16(at)), (line.octets(place + size, size), line.u16(at + 2))
        back = (one[1], one[0]) > (other[1], other[0])  # both ways are one conversation
        low, high = (other, one) if back else (one, other)
        key, known = (low[0], high[0], low[1], high[1]), line.conversations.begun
        if key not in known or bits & SYN:
            own, peers = self.seq, (self.ack - 1) & _WORD
            known[key] = (peers, own) if back else (own, peers)
            self.begun = peers
            return
        low_begun, high_begun = known[key]
        own, peers = (high_begun, low_begun) if back else (low_begun, high_begun)
        self.seq, self.ack, self.begun = (self.seq - own) & _WORD, (self.ack - peers) & _WORD, peers


class _Bad(Exception):
    """An option is not as it should be."""


class _Options:
    """The options of a header."""

    def __init__(self, line: Line, at: int, header: int, length: int, bits: int, numbers: _Numbers) -> None:
        self._line, self._bits, self._numbers = line, bits, numbers
        self._at, self._left = at + _HEADER, header - _HEADER
        self._complete = line.has(at, length)

    def printed(self) -> bool:
        """Print them; whether the line goes on behind them."""
        line, between = self._line, ""
        line.say(", options [")
        try:
            while self._left > 0:
                line.say(between)
                kind = self._one()
                between = ","
                if kind == 0:
                    break
        except _Bad:
            line.say("[bad opt]", "]" if between else "")
            return False
        except _Cut:
            line.cut()
            line.say(">" if between else "")
            return False
        line.say("]")
        return True

    def _one(self) -> int:
        """Print an option and go behind it; its kind."""
        line = self._line
        kind = line.u8(self._at)
        self._at += 1
        size = 1
        if kind > 1:
            size = line.u8(self._at)
            self._at += 1
            if size < 2 or size > self._left:
                raise _Bad
            self._left -= 1
        self._left -= 1
        name, show = _OPTIONS.get(kind, (f"unknown-{kind}", _Options.unknown))
        line.say(name)
        taken = show(self, size - 2) if show else 0
        self._at, self._left = self._at + taken, self._left - taken
        if taken + (2 if kind > 1 else 1) != size:
            line.say(f"[len {size}]")
        return kind

    def _check(self, size: int) -> int:
        """Whether so many bytes of an option are there."""
        if size > self._left:
            raise _Bad
        if not self._line.has(self._at, size):
            raise _Cut
        return size

    def _number(self, size: int) -> int:
        self._check(size)
        return self._line.number(self._at, size)

    def unknown(self, size: int) -> int:
        self._line.say(" 0x" if size else "")
        for i in range(size):
            self._check(i + 1)
            self._line.say(f"{self._line.u8(self._at + i):02x}")
        return size

    def segment(self, _size: int) -> int:
        self._line.say(f" {self._number(2)}")
        return 2

    def scale(self, _size: int) -> int:
        self._line.say(f" {self._number(1)}")
        return 1

    def word(self, _size: int) -> int:
        self._line.say(f" {self._number(4)}")
        return 4

    def times(self, _size: int) -> int:
        self._check(8)
        self._line.say(f" val {self._line.u32(self._at)} ecr {self._line.u32(self._at + 4)}")
        return 8

    def blocks(self, size: int) -> int:
        """Selective acknowledgements (RFC 2018)."""
        if size % 8:
            self._line.say(" invalid sack")
            return size
        self._line.say(f" {size // 8} ")
        for i in range(0, size, 8):
            self._check(i + 8)
            first, last = (self._line.u32(self._at + i + place) - self._numbers.begun for place in (0, 4))
            self._line.say(f"{{{first & _WORD}:{last & _WORD}}}")
        return size

    def signature(self, _size: int) -> int:
        """RFC 2385; without the secret it cannot be checked."""
        self._check(16)
        why = "shared secret not supplied with -M" if self._complete else "snaplen too short"
        self._line.say(f" {why}, can't check - {self._line.octets(self._at, 16).hex()}")
        return 16

    def capabilities(self, _size: int) -> int:
        self._check(2)
        self._line.say(f" cap {self._line.u8(self._at):02x} id {self._line.u8(self._at + 1)}")
        return 2

    def authentication(self, size: int) -> int:
        """RFC 5925, 2.2."""
        if size < 2:
            self._line.say(" (invalid)")
            return size
        self._line.say(f" keyid {self._number(1)}")
        self._check(2)
        self._line.say(f" rnextkeyid {self._line.u8(self._at + 1)}", " mac 0x" if size > 2 else "")
        for i in range(2, size):
            self._check(i + 1)
            self._line.say(f"{self._line.u8(self._at + i):02x}")
        return size

    def timeout(self, _size: int) -> int:
        """RFC 5482: in minutes or seconds."""
        value = self._number(2)
        self._line.say(f" 0x{value:x} {(value >> 1) * (60 if value & 1 else 1)}")
        return 2

    def multipath(self, size: int) -> int:
        self._check(size)
        with self._line.until(self._at + size):
            good = mptcp(self._line, self._at, size, self._bits)
        if not good:
            raise _Bad
        return size

    def fast_open(self, size: int) -> int:
        self._check(size)
        self._line.say(" ")
        self._cookie(self._at, size)
        return size

    def experiment(self, size: int) -> int:
        """RFC 6994."""
        self._check(size)
        if size < 2:
            raise _Bad
        magic = self._line.u16(self._at)
        if magic == 0xF989:
            self._line.say("-tfo")
            self._cookie(self._at + 2, size - 2)
        else:
            self._line.say(f"-{magic:04x}")
        return size

    def _cookie(self, at: int, size: int) -> None:
        """RFC 7413, 4.1.1."""
        if size == 0:
            self._line.say(" cookiereq")
        elif size % 2 or not 4 <= size <= 16:
            self._line.say(" (invalid)")
        else:
            self._line.say(f" cookie {self._line.octets(at, size).hex()}")


class _Cut(Exception):
    """The options were cut."""


_OPTIONS: dict[int, tuple[str, Callable[[_Options, int], int] | None]] = {
    0: ("eol", None),
    1: ("nop", None),
    2: ("mss", _Options.segment),
    3: ("wscale", _Options.scale),
    4: ("sackOK", None),
    5: ("sack", _Options.blocks),
    6: ("echo", _Options.word),
    7: ("echoreply", _Options.word),
    8: ("TS", _Options.times),
    11: ("cc", _Options.word),
    12: ("ccnew", _Options.word),
    13: ("", _Options.word),
    19: ("md5", _Options.signature),
    20: ("scps", _Options.capabilities),
    28: ("uto", _Options.timeout),
    29: ("tcp-ao", _Options.authentication),
    30: ("mptcp", _Options.multipath),
    34: ("tfo", _Options.fast_open),
    254: ("exp", _Options.experiment),
}
