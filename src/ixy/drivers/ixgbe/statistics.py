"""The counters of a card, added up: they clear when they are read (8.2.3.23 of the 82599's datasheet).

Whoever wants one asks here, and nothing that a card has counted is lost between two who ask.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers import DeviceCounters
from ixy.registers import Register
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ixy.registers import RegisterFile

CRC_BYTES = 4
SETS = reg.QPRC.count  # of counters for queues
_SOON = 20.0  # seconds: at 10 Gbit/s, the 36 bits for bytes last for 55, and the 32 for the shortest packets for 288


class Counter(NamedTuple):
    """A counter of one register, or of two halves. Reading the high half clears both, so the low one goes first."""

    name: str
    low: Register
    high: Register | None = None


def _each(row: Register) -> list[Counter]:
    return [Counter(register.name, register) for register in (row if row.count > 1 else (row,))]


def _sizes(row: Register, name: str) -> list[Counter]:
    """Of frames up to so many bytes."""
    return [Counter(f"{name}{size}", each) for size, each in zip((64, 127, 255, 511, 1023, 1522), row, strict=True)]


_GPRC, _GPTC = Counter("GPRC", reg.GPRC), Counter("GPTC", reg.GPTC)
_GORC, _GOTC = Counter("GORC", reg.GORCL, reg.GORCH), Counter("GOTC", reg.GOTCL, reg.GOTCH)
_MISSED = _each(reg.RXMPC)
_ERRORS = [
    counter
    for row in (reg.CRCERRS, reg.ILLERRC, reg.ERRBC, reg.RLEC, reg.RUC, reg.RFC, reg.ROC, reg.RJC)
    for counter in _each(row)
]
_OTHERS = [
    *(_each(reg.BPRC) + _each(reg.MPRC) + _each(reg.BPTC) + _each(reg.MPTC)),
    *(_each(reg.TPR) + _each(reg.TPT) + [Counter("TOR", reg.TORL, reg.TORH)]),
    *(_sizes(reg.PRC64, "PRC") + _sizes(reg.PTC64, "PTC")),
    *(_each(reg.MSPDC) + _each(reg.MLFC) + _each(reg.MRFC) + _each(reg.XEC)),
    *(_each(reg.MNGPRC) + _each(reg.MNGPDC) + _each(reg.MNGPTC)),
    *(_each(reg.PXONTXC) + _each(reg.PXOFFTXC) + _each(reg.PXONRXCNT) + _each(reg.PXOFFRXCNT)),
    *(_each(reg.LXONTXC) + _each(reg.LXOFFTXC) + _each(reg.LXONRXCNT) + _each(reg.LXOFFRXCNT)),
    *(_each(reg.FDIRMATCH) + _each(reg.FDIRMISS)),
]


class Statistics:
    """The counters of one card, since it was opened.

    A queue from 16 on shares the counters of the one 16 before it: there are 16 sets.

    Args:
        registers: the card's.
        rx_queues, tx_queues: how many it has open.
    """

    def __init__(self, registers: RegisterFile, rx_queues: int, tx_queues: int) -> None:
        self._registers = registers
        self._rx_queues, self._tx_queues = rx_queues, tx_queues
        received, sent = range(min(rx_queues, SETS)), range(min(tx_queues, SETS))
        self._dropped = [Counter(f"QPRDC[{n}]", reg.QPRDC[n]) for n in received]
        self._summed = [_GPRC, _GORC, _GPTC, _GOTC, *self._dropped, *_MISSED, *_ERRORS]
        self._of_queues = [
            *(Counter(f"QPRC[{n}]", reg.QPRC[n]) for n in received),
            *(Counter(f"QBRC[{n}]", reg.QBRCL[n], reg.QBRCH[n]) for n in received),
            *(Counter(f"QPTC[{n}]", reg.QPTC[n]) for n in sent),
            *(Counter(f"QBTC[{n}]", reg.QBTCL[n], reg.QBTCH[n]) for n in sent),
        ]
        self._all = [*self._summed, *_OTHERS, *self._of_queues]
        self._totals = dict.fromkeys((counter.name for counter in self._all), 0)
        self._all_read = 0.0  # when they were

    def begin(self) -> None:
        """4.6.5, after a reset: say which queue counts where, and let all begin at 0."""
        for row, queues in ((reg.RQSMR, self._rx_queues), (reg.TQSM, self._tx_queues)):
            for number in range(-(-queues // 4)):
                self._registers.write(row[number], MAP=_counted_in(range(4 * number, min(4 * number + 4, queues))))
        self.take()
        self._totals = dict.fromkeys(self._totals, 0)

    def counters(self) -> DeviceCounters:
        """What all devices count. Who asks for that now and then keeps the other counters from their ends, too."""
        if time.monotonic() < self._all_read + _SOON:
            self._read(self._summed)
        else:
            self.take()
        totals = self._totals
        return DeviceCounters(
            rx_packets=totals["GPRC"],
            # The card does not count the frame check sequences that it cuts off.
            rx_bytes=totals["GORC"] + CRC_BYTES * totals["GPRC"],
            tx_packets=totals["GPTC"],
            tx_bytes=totals["GOTC"],
            rx_dropped=sum(totals[counter.name] for counter in (*self._dropped, *_MISSED)),
            rx_errors=sum(totals[counter.name] for counter in _ERRORS),
        )

    def all(self) -> dict[str, int]:
        """Each counter by the datasheet's name."""
        self.take()
        return dict(self._totals)

    def take(self) -> dict[int, int]:
        """What each of their registers held, by offset. It is counted."""
        self._all_read = time.monotonic()
        return self._read(self._all)

    def _read(self, counters: Iterable[Counter]) -> dict[int, int]:
        held: dict[int, int] = {}
        for name, low, high in counters:
            held[low.offset] = count = self._registers.read(low)
            if high is not None:
                held[high.offset] = above = self._registers.read(high)
                count += above << 32
            self._totals[name] += count
        return held


def _counted_in(queues: Iterable[int]) -> int:
    """The map from up to four queues to the counters of each (8.2.3.23.71, 8.2.3.23.73)."""
    return sum(queue % SETS << 8 * (queue % 4) for queue in queues)
