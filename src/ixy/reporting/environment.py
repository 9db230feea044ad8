"""What a measured figure depends on: the machine, and the versions of what made the machine code."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ixy.jit import INTERPRETED


def describe() -> str:
    """One line for a table's caption."""
    kernels = "kernels interpreted" if INTERPRETED else f"Numba {version('numba')}"
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cpu_model()}, {cores} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, NumPy {version('numpy')}, {kernels}"
    )


def cpu_model() -> str:
    """The processor's name, or its architecture where the kernel tells no name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def our_version() -> str:
    """Ixy's."""
    try:
        return version("ixy")
    except PackageNotFoundError:
        return "run from its sources"


def date() -> str:
    """The day and the minute."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


def tick_unit() -> str:
    """What `unsafe.ticks` counts here."""
    return "TSC ticks" if platform.machine() == "x86_64" and not INTERPRETED else "ns"
