"""Whole packets: time stamp, line, and their bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ixy.dissect.ethernet import ethernet
from ixy.dissect.line import Conversations, Line, Style, Truncated, hex_and_text_lines, hex_lines, text_lines

_SECOND = 1_000_000_000  # ns
DEFAULT, NONE, SINCE_1970, SINCE_LAST, WITH_DATE, SINCE_FIRST = range(6)


@dataclass(frozen=True)
class Layout:
    """What is printed around a packet's line, by tcpdump's options.

    Attributes:
        stamp: how often -t was given: the time of day, nothing, seconds since 1970, the time since the packet before,
            the date and time of day, the time since the first packet.
        nanoseconds: of time stamps, else microseconds.
        numbers: the packet's number (-#).
        hex, hex_and_text, text: the packet's bytes, without the link header (1: -x, -X, -A) or with it (2).
    """

    stamp: int = DEFAULT
    nanoseconds: bool = False
    numbers: bool = False
    hex: int = 0
    hex_and_text: int = 0
    text: int = 0


class Printer:
    """Prints packets, one after the other: what is printed of one may count from an earlier one.

    Args:
        style: what is printed of each packet.
        layout: what is printed around that.
    """

    def __init__(self, style: Style | None = None, layout: Layout | None = None) -> None:
        self._style, self._layout = style or Style(), layout or Layout()
        if self._style.quiet or self._layout.hex or self._layout.hex_and_text:
            self._style = replace(self._style, raw=False)
        self._conversations = Conversations()
        self._number = 0
        self._reference: int | None = None

    def text(self, stamp: int, data: bytes, length: int) -> str:
        """A packet as text, of one line or several, without an end of the last.

        Args:
            stamp: when it came, ns since 1970.
            data: what there is of it.
            length: the bytes that it had on the wire.
        """
        self._number += 1
        number = f"{self._number:5}  " if self._layout.numbers else ""
        wrong = _wrong(len(data), length)
        if wrong:
            return f"{number}[Invalid header:{wrong}]"
        line = Line(data, self._style, self._conversations)
        try:
            ethernet(line, length)
        except Truncated:
            line.cut()
            line.link_size = 0
        return number + self._stamp(stamp) + line.text + self._bytes(data, line.link_size)

    def _stamp(self, stamp: int) -> str:
        how = self._layout.stamp
        if how == NONE:
            return ""
        if how in (SINCE_LAST, SINCE_FIRST):
            return self._since(stamp)
        seconds, fraction = divmod(stamp, _SECOND)
        if how == SINCE_1970:
            return f"{seconds}{self._fraction(fraction)} "
        form = "%Y-%m-%d %H:%M:%S" if how == WITH_DATE else "%H:%M:%S"
        return f"{time.strftime(form, time.localtime(seconds))}{self._fraction(fraction)} "

    def _since(self, stamp: int) -> str:
        """The time since another packet, which may be later."""
        unit = 1 if self._layout.nanoseconds else 1000
        stamp = stamp // unit * unit
        before = stamp if self._reference is None else self._reference
        if self._reference is None or self._layout.stamp == SINCE_LAST:
            self._reference = stamp
        seconds, fraction = divmod(abs(stamp - before), _SECOND)
        sign = "-" if stamp < before else " "
        return f"{sign}{time.strftime('%H:%M:%S', time.gmtime(seconds))}{self._fraction(fraction)} "

    def _fraction(self, nanoseconds: int) -> str:
        return f".{nanoseconds:09}" if self._layout.nanoseconds else f".{nanoseconds // 1000:06}"

    def _bytes(self, data: bytes, link_size: int) -> str:
        """The packet's bytes in the lines below, if they are asked for."""
        layout = self._layout
        much = layout.hex_and_text or layout.hex or layout.text
        shown = data if much > 1 else data[link_size:]
        if not much or not shown:
            return ""
        if layout.hex_and_text:
            return hex_and_text_lines("\n\t", shown)
        return hex_lines("\n\t", shown) if layout.hex else text_lines(shown)


def _wrong(size: int, length: int) -> str:
    """What cannot be right about a packet's record."""
    if length and size > length:
        return f" len({length}) < caplen({size})"
    return ",".join(name for name, value in ((" caplen==0", size), (" len==0", length)) if not value)
