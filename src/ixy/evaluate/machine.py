"""The machine at hand: what figures depend on, and the clock in which they are counted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ixy.bench import testpmd
from ixy.errors import Error
from ixy.jit import compiled
from ixy.packets.hugepages import free_huge_pages
from ixy.reporting.environment import date, describe, our_version, tick_unit
from ixy.reporting.parts import Missing
from ixy.unsafe import monotonic_ns, ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SECOND = 1_000_000_000  # ns
_CALIBRATION = _SECOND // 20
_QUIET = 0.5  # processes that run on average, and do not yet disturb
_CPUINFO = Path("/proc/cpuinfo")


def facts() -> dict[str, str]:
    """The machine and the versions of what was measured, by name."""
    return {
        "machine": describe(),
        "clock": f"{tick_unit()}, {tick_rate() / 1e9:.2f} a nanosecond",
        "ixy": our_version(),
        "C compiler": _compiler(),
        "DPDK": _dpdk() or "none",
        "huge pages": f"{free_huge_pages()} of 2 MiB are free",
        "load": f"{os.getloadavg()[0]:.1f} processes ran on average in the minute before",
        "date": date(),
    }


def lacks() -> list[Missing]:
    """What figures of all sections suffer from."""
    return [*_clock_lacks(), *_quiet_lacks()]


def _clock_lacks() -> Iterator[Missing]:
    if tick_unit() == "ns":
        yield Missing("A time-stamp counter", "figures are in nanoseconds of the system's clock, and coarser")
    elif "constant_tsc" not in _CPUINFO.read_text():
        yield Missing("A constant time-stamp counter", "its rate changes, so packets a second made of ticks are wrong")


def _quiet_lacks() -> Iterator[Missing]:
    load = os.getloadavg()[0]
    if load > _QUIET:
        yield Missing(
            "A quiet machine",
            f"in the minute before, {load:.1f} processes ran on average; rates and latencies need two idle cores, so "
            "end other programs and measure again",
        )


def need_cores(count: int) -> None:
    """See to it that the process may use so many cores.

    Raises:
        Error: it may not.
    """
    available = len(os.sched_getaffinity(0))
    if available < count:
        raise Error(f"{count} cores are needed, and this process may use {available}")


@cache
def tick_rate() -> float:
    """Ticks in a second."""
    if tick_unit() == "ns":
        return float(_SECOND)
    first, last = np.zeros(2, np.int64), np.zeros(2, np.int64)
    _read_clocks(first)
    while last[1] < first[1] + _CALIBRATION:
        _read_clocks(last)
    passed, nanoseconds = (last - first).tolist()
    return passed * _SECOND / nanoseconds


@compiled
def _read_clocks(clocks: NDArray[np.int64]) -> None:
    clocks[0] = ticks()
    clocks[1] = monotonic_ns()


def _compiler() -> str:
    """The first C compiler that there is, in its own words."""
    for name in filter(shutil.which, ("gcc", "cc", "clang")):
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
        return (said.stdout.splitlines() or [name])[0]
    return "none"


def _dpdk() -> str:
    """DPDK's version, as testpmd's environment tells it before its help."""
    if shutil.which(testpmd.PROGRAM) is None:
        return ""
    command = [testpmd.PROGRAM, "-v", "--no-huge", "--no-pci", "--no-telemetry", "--in-memory", "-h"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = [
        line.split("'")[1].removeprefix("DPDK ")
        for line in (said.stdout + said.stderr).splitlines()
        if "RTE Version: '" in line
    ]
    return (found or ["unknown version"])[0]
