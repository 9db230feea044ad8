"""All kinds of wires. A new kind is a file beside this one, and its name in `KINDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.sim.wires.cable import Cable
from ixy.sim.wires.generator import Generator
from ixy.sim.wires.record import Record
from ixy.sim.wires.replay import Replay
from ixy.sim.wires.sink import Sink
from ixy.sim.wires.stream import Stream
from ixy.sim.wires.tap import Tap

if TYPE_CHECKING:
    from ixy.sim.wires.wire import Wire

# In the order in which those of one address are plugged in: a sink looks at its generator.
KINDS: tuple[type[Wire], ...] = (Cable, Stream, Replay, Record, Tap, Generator, Sink)
for number, wire in enumerate(KINDS, 1):
    wire.kind = number
