"""The profile by function: table 6.1 of the thesis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ixy.bench import profile
from ixy.bench.counters import INSTRUCTIONS, Clock, Counter, counter, no_counter, read_counter, read_ticks
from ixy.errors import Error
from ixy.evaluate import published
from ixy.evaluate.costs import OURS
from ixy.evaluate.effort import Effort
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Cell, Missing, Part, Table, of
from ixy.reporting.progress import Told

TITLE = "Profile by function (table 6.1)"

_BATCH = 32
_COLUMNS = ["", "receive", "transmit", "forwarding", "memory", "sum", "undivided"]
_HOW = (
    f"{_BATCH} packets a batch, in lock step. A clock is read between the parts, which are the kernels that a path has "
    "inlined; what reading it costs is taken off. It also keeps the processor from beginning one part before the other "
    "is done, which it may in the undivided path, measured in turns with them. Memory is a buffer taken "
    "from the pool and one given back for each packet, measured on their own and taken off receive and transmit, which "
    "do this."
)


def seconds(effort: Effort) -> float:
    return 3 + effort.repeat * effort.packets * 1e-6


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    told(0, "ticks by function")
    thesis = [[name, *parts, round(sum(parts), 1), None] for name, parts in published.PROFILE.items()]
    yield Table(
        "profile",
        f"What a packet costs by function, in {tick_unit()}",
        _COLUMNS,
        [[OURS, *_parts(effort, read_ticks, no_counter())], *thesis],
        f"{_HOW} The thesis's rows are cycles of a Xeon E3-1230 v2 at 1.6 GHz, by perf. {published.THESIS}.",
        effort.repeat,
    )
    told(0.5, "instructions by function")
    try:
        with counter(*INSTRUCTIONS) as instructions:
            row = [OURS, *_parts(effort, read_counter, instructions)]
    except Error as reason:
        yield Missing("Instructions by function", str(reason))
        return
    yield Table("profile_instructions", "Instructions a packet by function", _COLUMNS, [row], _HOW, effort.repeat)


def _parts(effort: Effort, clock: Clock, source: Counter) -> Sequence[Cell]:
    """Receive, transmit, forwarding, memory, their sum, and the undivided path."""
    found = profile.measure(_BATCH, effort.packets, effort.repeat, clock, source)
    receive, transmit, function, take, give, undivided = found.T
    parts = (receive - take, transmit - give, function, take + give)
    return [of(part.tolist()) for part in (*parts, receive + transmit + function, undivided)]
