"""All kinds of wires, and the kernels that let each card's wire do its part.

A new kind is a file beside this one, and its name in `KINDS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.jit import compiled
from ixy.sim.rack import KIND, Rack
from ixy.sim.wires.cable import Cable
from ixy.sim.wires.generator import Generator
from ixy.sim.wires.record import Record
from ixy.sim.wires.replay import Replay
from ixy.sim.wires.sink import Sink
from ixy.sim.wires.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.sim.wires.wire import Wire

# In the order in which those of one address are plugged in: a sink looks at its generator.
KINDS: tuple[type[Wire], ...] = (Cable, Replay, Record, Tap, Generator, Sink)
for number, wire in enumerate(KINDS, 1):
    wire.kind = number


def _next_frame() -> Callable[[Rack, int, int], tuple[int, int]]:
    """The kernel `next_frame` of whichever wire a card has: a chain of one comparison for each kind."""

    @compiled
    def nothing(_rack: Rack, _card: int, _now: int) -> tuple[int, int]:
        return 0, 0

    chain: Any = nothing
    for kind in KINDS:
        if kind.next_frame is not None:
            chain = _next_frame_link(kind.kind, kind.next_frame, chain)
    return chain


def _next_frame_link(kind: int, own: Any, rest: Any) -> Any:
    @compiled
    def next_frame(rack: Rack, card: int, now: int) -> tuple[int, int]:
        if rack.inputs[card, KIND] == kind:
            return own(rack, card, now)
        return rest(rack, card, now)

    return next_frame


def _emit() -> Callable[[Rack, int, int, int], int]:
    """The kernel `emit`, likewise."""

    @compiled
    def nothing(_rack: Rack, _card: int, _start: int, _length: int) -> int:
        return -1

    chain: Any = nothing
    for kind in KINDS:
        if kind.emit is not None:
            chain = _emit_link(kind.kind, kind.emit, chain)
    return chain


def _emit_link(kind: int, own: Any, rest: Any) -> Any:
    @compiled
    def emit(rack: Rack, card: int, start: int, length: int) -> int:
        if rack.outputs[card, KIND] == kind:
            return own(rack, card, start, length)
        return rest(rack, card, start, length)

    return emit


next_frame = _next_frame()
emit = _emit()
