"""The counters of a card, added up: they clear when they are read (10.2.7 of the 82574's datasheet; SDM 13.7).

Whoever wants one asks here, and nothing that a card has counted is lost between two who ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers import DeviceCounters
from ixy.registers import Register
from ixy.registers import e1000 as reg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ixy.drivers.e1000.cards import Card
    from ixy.registers import RegisterFile


class Counter(NamedTuple):
    """A counter of one register, or of two halves. Reading the high half clears both, so the low one goes first."""

    name: str
    low: Register
    high: Register | None = None


def _each(*rows: Register) -> list[Counter]:
    return [Counter(row.name, row) for row in rows]


def _sizes(row: Register) -> list[Counter]:
    """Of frames up to so many bytes."""
    return [Counter(f"{row.name}{size}", each) for size, each in zip((64, 127, 255, 511, 1023, 1522), row, strict=True)]


_GORC, _GOTC = Counter("GORC", reg.GORCL, reg.GORCH), Counter("GOTC", reg.GOTCL, reg.GOTCH)
_MISSED = _each(reg.MPC)
_ERRORS = _each(reg.CRCERRS, reg.ALGNERRC, reg.RXERRC, reg.RLEC, reg.RUC, reg.RFC, reg.ROC, reg.RJC)
_SUMMED = [*_each(reg.GPRC, reg.GPTC), _GORC, _GOTC, *_MISSED, *_ERRORS]
_OTHERS = [
    *_each(reg.SCC, reg.ECOL, reg.MCC, reg.LATECOL, reg.COLC, reg.DC, reg.TNCRS, reg.CEXTERR),
    *_each(reg.XONRXC, reg.XONTXC, reg.XOFFRXC, reg.XOFFTXC, reg.FCRUC),
    *(_sizes(reg.PRC) + _each(reg.BPRC, reg.MPRC, reg.RNBC, reg.MGTPRC, reg.MGTPDC, reg.MGTPTC)),
    *[Counter("TOR", reg.TORL, reg.TORH), Counter("TOT", reg.TOTL, reg.TOTH), *_each(reg.TPR, reg.TPT)],
    *(_sizes(reg.PTC) + _each(reg.MPTC, reg.BPTC, reg.TSCTC, reg.TSCTFC, reg.IAC)),
]
_OLDER = _each(reg.SYMERRS, reg.SEC)


class Statistics:
    """The counters of one card, since it was opened.

    Args:
        registers: the card's.
        card: what it is.
    """

    def __init__(self, registers: RegisterFile, card: Card) -> None:
        self._registers = registers
        self._all = [*_SUMMED, *_OTHERS, *([] if card.newer else _OLDER)]
        self._totals = dict.fromkeys((counter.name for counter in self._all), 0)
        self._cleared = {counter.name for counter in self._all} if card.newer else set[str]()  # by being read, as known
        self._kept: dict[str, int] = {}

    def begin(self) -> None:
        """After a reset: let all begin at 0 (4.6.4; SDM 13.7)."""
        self.take()
        self._totals = dict.fromkeys(self._totals, 0)

    def counters(self) -> DeviceCounters:
        """What all devices count. 64 bits of bytes and 32 of packets last for an hour at 1 Gbit/s and longer; then they
        stay where they are, so who asks for these now and then loses nothing."""
        self._read(_SUMMED)
        totals = self._totals
        return DeviceCounters(
            rx_packets=totals["GPRC"],
            rx_bytes=totals["GORC"],
            tx_packets=totals["GPTC"],
            tx_bytes=totals["GOTC"],
            rx_dropped=sum(totals[counter.name] for counter in _MISSED),
            rx_errors=sum(totals[counter.name] for counter in _ERRORS),
        )

    def all(self) -> dict[str, int]:
        """Each counter by the datasheet's name."""
        self.take()
        return dict(self._totals)

    def take(self) -> dict[int, int]:
        """What each of their registers held, by offset. It is counted."""
        return self._read(self._all)

    def _read(self, counters: Iterable[Counter]) -> dict[int, int]:
        held: dict[int, int] = {}
        for counter in counters:
            count = self._count(counter, held)
            if count:
                self._totals[counter.name] += self._new(counter, count)
        return held

    def _count(self, counter: Counter, held: dict[int, int]) -> int:
        count = held[counter.low.offset] = self._registers.read(counter.low)
        if counter.high is not None:
            above = held[counter.high.offset] = self._registers.read(counter.high)
            count += above << 32
        return count

    def _new(self, counter: Counter, count: int) -> int:
        """What was counted since the last time. Some counters of QEMU's 82540 and 82545 go on when they are read: what
        is still there when they are read once more was not cleared, and only what is more than last time is new. One
        that was seen to clear is not asked twice again: what is there then has come in between.
        """
        if counter.name in self._cleared:
            return count
        again = self._count(counter, {})
        if again < count:
            self._cleared.add(counter.name)
            return count + again
        before = self._kept.get(counter.name, 0)
        self._kept[counter.name] = again
        return again - before
