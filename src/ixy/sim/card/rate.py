"""The rate limiter of a transmit queue (7.7.2.1 of the Intel 82599 datasheet, revision 3.3)."""

from __future__ import annotations

from ixy.jit import compiled
from ixy.pacing import SECOND
from ixy.registers import i82599 as reg
from ixy.sim.card.state import QUEUE_DUE, QUEUE_FACTOR, QUEUE_REST
from ixy.sim.rack import FASTEST, SPEED, Rack
from ixy.unsafe import load_acquire

_RTTBCNRM = reg.RTTBCNRM.offset // 4
_PARTS = 1 << 20  # of a nanosecond
_UNIT = 1 << 14  # of the factor


@compiled
def limit(rack: Rack, card: int, queue: int, size: int, now: int) -> None:
    """A queue has sent frames of `size` bytes, with their check sequences: note when it may send again.

    Preamble and gap count for nothing, as MoonGen's authors have found on cards. A queue that has sent less than it
    might makes up for as many KiB at once as RTTBCNRM says (8.2.3.10.15).
    """
    own = rack.queues[card, queue]
    credit = (load_acquire(rack.registers[card], _RTTBCNRM) & 0x7FF) << 10
    earliest = now - lasts(rack, card, queue, credit) // _PARTS
    if own[QUEUE_DUE] < earliest:
        own[QUEUE_DUE], own[QUEUE_REST] = earliest, 0
    parts = int(own[QUEUE_REST]) + lasts(rack, card, queue, size)
    own[QUEUE_DUE] += parts // _PARTS
    own[QUEUE_REST] = parts % _PARTS


@compiled
def lasts(rack: Rack, card: int, queue: int, size: int) -> int:
    """How long a queue needs for so many bytes, in parts of a nanosecond."""
    speed = int(rack.outputs[card, SPEED])
    line = float(8 * size) * SECOND * _PARTS / (speed if speed > 0 else FASTEST)
    return int(line * float(rack.queues[card, queue, QUEUE_FACTOR]) / _UNIT)
