"""The statistics registers of a simulated 82599: what its kernels have counted, since a register was last read.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.card.frame import CRC_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

_STICKY = 0xFFFFFFFF  # statistics stay there instead of wrapping (8.2.3.23)
_WIDE_STICKY = (1 << 36) - 1
_STATISTICS = reg.QPRC.count  # sets of counters for queues

_COLUMNS = [
    (reg.BPRC, state.RX_BROADCAST),
    (reg.MPRC, state.RX_MULTICAST),
    (reg.BPTC, state.TX_BROADCAST),
    (reg.MPTC, state.TX_MULTICAST),
    (reg.RUC, state.RX_UNDERSIZE),
    (reg.ROC, state.RX_OVERSIZE),
    (reg.RXMPC[0], state.RX_MISSED),
    (reg.LXONTXC, state.XON_SENT),
    (reg.LXOFFTXC, state.XOFF_SENT),
    (reg.LXONRXCNT, state.XON_RECEIVED),
    (reg.LXOFFRXCNT, state.XOFF_RECEIVED),
    (reg.FDIRMATCH, state.FLOW_MATCHES),
    (reg.FDIRMISS, state.FLOW_MISSES),
    (reg.SSVPC, state.SPOOFED),
    *zip(reg.PRC64, range(state.RX_SIZES, state.RX_SIZES + 6), strict=True),
    *zip(reg.PTC64, range(state.TX_SIZES, state.TX_SIZES + 6), strict=True),
]


class Statistics:
    """The statistics of one card.

    Args:
        registers: the card's, for the map from queues to counters.
        counters, queues: the card's rows of the rack's arrays.
    """

    def __init__(self, registers: NDArray[np.uint32], counters: NDArray[np.int64], queues: NDArray[np.int64]) -> None:
        self._registers = registers
        self._counters = counters
        self._queues = queues
        self._narrow: dict[int, Callable[[], int]] = {}
        self._wide: list[tuple[Register, Register, Callable[[], int]]] = []
        self._cleared: dict[int, int] = {}
        self._latched: dict[int, int] = {}
        for register, column in _COLUMNS:
            self._narrow[register.offset] = lambda column=column: int(counters[column])
        self._set_port_rules()
        self._set_queue_rules()

    def rules(self) -> dict[int, Callable[[], int]]:
        """What reading the registers does, by offset."""
        reads: dict[int, Callable[[], int]] = {}
        for offset, total in self._narrow.items():
            reads[offset] = lambda offset=offset, total=total: min(self._take(offset, total()), _STICKY)
        for low, high, total in self._wide:
            reads[low.offset] = lambda low=low, total=total: self._latch(low.offset, total()) & 0xFFFFFFFF
            reads[high.offset] = lambda low=low, total=total: self._take_latched(low.offset, total()) >> 32
        return reads

    def reset(self) -> None:
        """As if every register had been read."""
        self._latched = {}
        self._cleared = {offset: total() for offset, total in self._narrow.items()}
        self._cleared |= {low.offset: total() for low, _, total in self._wide}

    def total(self, register: Register) -> int:
        """What a statistics register would hold if nobody ever read it; of a pair, the low one holds the whole."""
        if register.offset in self._narrow:
            return self._narrow[register.offset]()
        return next(total() for low, _, total in self._wide if low.offset == register.offset)

    def _set_port_rules(self) -> None:
        """The sums."""
        self._narrow[reg.GPRC.offset] = lambda: self._sum(state.RX_SIZES, 6)
        self._narrow[reg.GPTC.offset] = lambda: self._sum(state.TX_SIZES, 6)
        self._narrow[reg.TPT.offset] = lambda: self._sum(state.TX_SIZES, 6)
        self._narrow[reg.TPR.offset] = lambda: self._sum(state.RX_SIZES, 6) + self._sum(state.RX_UNDERSIZE, 3)
        received = lambda: int(self._queues[:, state.QUEUE_RX_BYTES].sum()) + self._sum(state.RX_LOST_BYTES)  # noqa: E731
        self._wide.append((reg.GORCL, reg.GORCH, received))
        self._wide.append((reg.TORL, reg.TORH, lambda: received() + self._beyond_good()))
        self._wide.append((reg.GOTCL, reg.GOTCH, self._sent))

    def _sent(self) -> int:
        """The bytes that left: those of all queues but what went from pool to pool only, and of pause frames."""
        queues = int(self._queues[:, state.QUEUE_TX_BYTES].sum())
        return queues - self._sum(state.TX_LOOPED_BYTES) + 64 * self._sum(state.XON_SENT, 2)

    def _beyond_good(self) -> int:
        """What TOR counts beyond GORC: refused frames, and the check sequences of all others that GORC leaves out."""
        good = self._sum(state.RX_SIZES, 6)
        return self._sum(state.RX_REFUSED_BYTES) + CRC_BYTES * good - self._sum(state.RX_KEPT_BYTES)

    def _sum(self, column: int, number: int = 1) -> int:
        return int(self._counters[column : column + number].sum())

    def _set_queue_rules(self) -> None:
        for i in range(_STATISTICS):
            for register, row, column in (
                (reg.QPRC, reg.RQSMR, state.QUEUE_RX),
                (reg.QPRDC, reg.RQSMR, state.QUEUE_DROPPED),
                (reg.QPTC, reg.TQSM, state.QUEUE_TX),
            ):
                self._narrow[register[i].offset] = lambda i=i, row=row, column=column: self._total(i, row, column)
            for low, high, row, column in (
                (reg.QBRCL, reg.QBRCH, reg.RQSMR, state.QUEUE_RX_BYTES),
                (reg.QBTCL, reg.QBTCH, reg.TQSM, state.QUEUE_TX_BYTES),
            ):
                total = lambda i=i, row=row, column=column: self._total(i, row, column)  # noqa: E731
                self._wide.append((low[i], high[i], total))

    def _total(self, statistic: int, row: Register, column: int) -> int:
        """What the queues that are mapped to a statistic have counted (8.2.3.23.71, 8.2.3.23.73)."""
        total = 0
        counts = self._queues[:, column].copy()  # the rack goes on counting
        for queue in counts.nonzero()[0].tolist():
            mapped = int(self._registers[row.offset // 4 + queue // 4]) >> 8 * (queue % 4) & 15
            total += int(counts[queue]) if mapped == statistic else 0
        return total

    def _take(self, offset: int, total: int) -> int:
        count = total - self._cleared[offset]
        self._cleared[offset] = total
        return max(count, 0)  # the map from queues to counters may have changed meanwhile

    def _latch(self, offset: int, total: int) -> int:
        """Reading the low half latches both, so that they belong together."""
        self._latched[offset] = total
        return min(max(total - self._cleared[offset], 0), _WIDE_STICKY)

    def _take_latched(self, offset: int, total: int) -> int:
        """Reading the high half clears what was latched."""
        return min(self._take(offset, self._latched.pop(offset, total)), _WIDE_STICKY)
