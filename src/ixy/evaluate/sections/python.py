"""What ordinary Python reaches: objects, NumPy, compiled functions, and the driver itself in the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

from ixy.bench import rates
from ixy.errors import Error
from ixy.evaluate.effort import Effort
from ixy.evaluate.machine import need_cores
from ixy.reporting.parts import Cell, Missing, Part, Spread, Table, of, per
from ixy.reporting.progress import Told

TITLE = "Ways to write it"

_WAYS = (
    ("compiled", 32, "a function that is compiled into the path"),
    ("numpy", 256, "NumPy over a batch"),
    ("numpy", 64, "NumPy over a batch"),
    ("packets", 64, "a loop over Packet objects"),
)
_INTERPRETED_BATCH = 64
_INTERPRETED_ROUNDS = 32


def seconds(effort: Effort) -> float:
    return 15 + len(_WAYS) * (1 + effort.repeat * effort.window)


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    rows: list[list[Cell]] = []
    try:
        need_cores(2)
        for number, (what, batch, words) in enumerate(_WAYS):
            told(0.7 * number / len(_WAYS), words)
            measured = rates.measure(what, batch, effort.window, effort.repeat)
            rows.append([words, batch, of(measured.windows)])
    except Error as reason:
        yield Missing("The rates of compiled functions, NumPy and objects", str(reason))
    told(0.7, "the driver in the interpreter")
    rows.append(
        ["all in the interpreter (IXY_JIT=0), the driver's turns alone", _INTERPRETED_BATCH, _interpreted(effort)]
    )
    yield Table(
        "ways_to_write_it",
        "Packets forwarded, in Mpps",
        ["way", "batch", "Mpps"],
        rows,
        "60-byte packets, one byte of each raised. The forwarder runs on one core, the simulated cards with generator "
        "and checking sink on another, so a rate is that of the slower of the two; in the interpreter they take turns.",
        effort.repeat,
    )


def _interpreted(effort: Effort) -> Spread:
    """Mpps of the driver's turns, by the same benchmark in a process whose kernels are not compiled."""
    options = ["--batch", str(_INTERPRETED_BATCH), "--rounds", str(_INTERPRETED_ROUNDS), "--repeat", str(effort.repeat)]
    process = subprocess.run(
        [sys.executable, "-m", "ixy", "bench", "forward", *options, "--json"],
        env=os.environ | {"IXY_JIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        raise Error(f"the driver in the interpreter cannot be measured: {process.stderr.strip()}")
    cost = json.loads(process.stdout)
    nanoseconds = Spread(*(cost[f"cycles_per_packet{end}"] for end in ("", "_min", "_max")))
    return per(1e3, nanoseconds)
