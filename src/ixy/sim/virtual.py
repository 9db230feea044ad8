"""How cards work by a virtual clock: in the thread of their driver, from one moment at which something happens to the
next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import Direct, compiled
from ixy.sim.loop import step
from ixy.sim.rack import ALARM, DUE, FAR, FOLLOWING, Rack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


TURNS = 1 << 14  # after which Python has a look at signals


@compiled
def _advance(rack: Rack, clock: NDArray[np.int64], end: int) -> tuple[int, bool]:
    """Give the cards turns until the clock says `end`, or with FAR as long as something is due.

    At each moment they have as many as there is something to do. How much was done, and whether that was all: it ends
    early with an alarm, and after many turns.
    """
    control = rack.control
    work = 0
    for _ in range(TURNS):
        control[FOLLOWING] = FAR
        done = step(rack)
        work += done
        due = control[DUE] if control[DUE] != 0 else FAR
        if due <= clock[0]:
            control[ALARM] = 1
        if control[ALARM] != 0:
            break
        if done > 0:
            continue
        moment = max(min(control[FOLLOWING], due), clock[0] + 1)  # never back, whatever a wire says
        if moment > end or moment == FAR:
            if end != FAR:
                clock[0] = end
            return work, True
        clock[0] = moment
    return work, False


advance = Direct(_advance)
