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


def _chain(kernels: list[tuple[int, Any]], link: Callable[[int, Any, Any], Any]) -> Any:
    """One kernel of those of all kinds: a comparison for each but the last. The card must have one of these wires."""
    *others, (_, chain) = kernels
    for kind, own in reversed(others):
        chain = link(kind, own, chain)
    return chain


def _next_frame_link(kind: int, own: Any, rest: Any) -> Any:
    @compiled
    def next_frame(rack: Rack, card: int, now: int) -> tuple[int, int]:
        if rack.inputs[card, KIND] == kind:
            return own(rack, card, now)
        return rest(rack, card, now)

    return next_frame


def _emit_link(kind: int, own: Any, rest: Any) -> Any:
    @compiled
    def emit(rack: Rack, card: int, start: int, length: int) -> int:
        if rack.outputs[card, KIND] == kind:
            return own(rack, card, start, length)
        return rest(rack, card, start, length)

    return emit


next_frame: Callable[[Rack, int, int], tuple[int, int]] = _chain(
    [(kind.kind, kind.next_frame) for kind in KINDS if kind.next_frame is not None], _next_frame_link
)
emit: Callable[[Rack, int, int, int], int] = _chain(
    [(kind.kind, kind.emit) for kind in KINDS if kind.emit is not None], _emit_link
)
