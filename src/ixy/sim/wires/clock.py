"""The clock of wires that keep times: it starts when what the card receives is being received.

What goes on at a moment that is yet to come says so by `awaits`: a virtual clock goes from one to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim.card.state import EVENT, RX_JUMP, RX_LOWER_BITS, RX_QUEUES, RX_STRIDE
from ixy.sim.rack import FOLLOWING, HEADS, STARTED, TAILS, Rack
from ixy.unsafe import load_acquire, now_ns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RDH = reg.RDH.offset // 4
_RDT = reg.RDT.offset // 4

_RUNNING = -1  # in place of a sum


@compiled
def moment() -> int:
    """The time by which frames are under way, in nanoseconds."""
    return now_ns()


@compiled
def is_virtual(rack: Rack) -> bool:
    """Whether the clock is virtual."""
    return rack.control[FOLLOWING] != 0


@compiled
def awaits(rack: Rack, due: int) -> None:
    """Something goes on at that time."""
    if due < rack.control[FOLLOWING]:
        rack.control[FOLLOWING] = due


@compiled
def now(rack: Rack, card: int) -> int:
    """The time by which a card's wire delivers, in nanoseconds; 0 while it has to wait.

    Software that polls may have opened the card long before it looks at it: its loop is still being compiled. So the
    wire begins with a frame, and while that lies in its queue the clock stands still. A virtual machine's driver, which
    is interrupted, is ready; and a virtual clock stands still by itself.
    """
    wire, registers = rack.inputs[card], rack.registers[card]
    queues = rack.cards[card, RX_QUEUES]
    time = moment()
    if is_virtual(rack):
        return time
    if wire[STARTED] == 0:  # there was no frame yet
        interrupted = rack.cards[card, EVENT] > 0
        wire[TAILS] = _RUNNING if interrupted else total(registers, _RDT, queues)
        wire[HEADS] = total(registers, _RDH, queues)
    elif wire[TAILS] != _RUNNING:
        if total(registers, _RDT, queues) != wire[TAILS]:
            wire[TAILS] = _RUNNING
        elif total(registers, _RDH, queues) != wire[HEADS]:  # it was not filtered out
            wire[STARTED] = time
            return 0
    return time


@compiled
def total(registers: NDArray[np.uint32], register: int, queues: int) -> int:
    """The sum of a register of all receive queues."""
    value = 0
    for queue in range(queues):
        value += load_acquire(registers, register + queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP)
    return value
