"""The counters of a virtual function: nothing clears them, and after their last bit they begin anew (8.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers import DeviceCounters
from ixy.drivers.ixgbe.statistics import CRC_BYTES
from ixy.registers import Register
from ixy.registers import i82599_vf as reg

if TYPE_CHECKING:
    from ixy.registers import RegisterFile


class Counter(NamedTuple):
    """A counter of one register, or of two, of which the high one has but some of the bits."""

    name: str
    low: Register
    high: Register | None = None

    @property
    def bits(self) -> int:
        return 32 if self.high is None else 36

    def read(self, registers: RegisterFile) -> int:
        """What it stands at. Both halves are of one moment if the high one did not change between."""
        if self.high is None:
            return registers.read(self.low)
        above = registers.get(self.high, "COUNT")
        below = registers.read(self.low)
        if (after := registers.get(self.high, "COUNT")) != above:
            above, below = after, registers.read(self.low)
        return above << 32 | below


COUNTERS = (
    Counter("VFGPRC", reg.VFGPRC),
    Counter("VFGORC", reg.VFGORC_LSB, reg.VFGORC_MSB),
    Counter("VFMPRC", reg.VFMPRC),
    Counter("VFGPTC", reg.VFGPTC),
    Counter("VFGOTC", reg.VFGOTC_LSB, reg.VFGOTC_MSB),
)


class Statistics:
    """The counters of one function since it was opened. At 10 Gbit/s the 36 bits for bytes last for 55 seconds.

    Args:
        registers: the function's.
    """

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        self._before: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def begin(self) -> None:
        """Count from here on."""
        self._before = self.read()
        self._totals = dict.fromkeys(self._before, 0)

    def read(self) -> dict[str, int]:
        """What the counters stand at."""
        return {counter.name: counter.read(self._registers) for counter in COUNTERS}

    def count(self, now: dict[str, int]) -> None:
        """Add what has been counted until the counters stood at `now`."""
        for counter in COUNTERS:
            self._totals[counter.name] += (now[counter.name] - self._before[counter.name]) % (1 << counter.bits)
        self._before = now

    def counters(self) -> DeviceCounters:
        """What all devices count. What a function's queues had no room for, only its physical function is told."""
        totals = self._totals
        return DeviceCounters(
            rx_packets=totals["VFGPRC"],
            # As an 82599's: frame check sequences are not counted where they are cut off.
            rx_bytes=totals["VFGORC"] + CRC_BYTES * totals["VFGPRC"],
            tx_packets=totals["VFGPTC"],
            tx_bytes=totals["VFGOTC"],
        )

    def all(self) -> dict[str, int]:
        """Each counter by the datasheet's name."""
        return dict(self._totals)
