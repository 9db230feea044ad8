"""When packets are due that are to be sent at a rate, or at the times that a capture recorded.

A sender that was held up, by a busy processor or a suspended machine, catches up within a bound; beyond it the schedule
moves on, as if it had started later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECOND = 1_000_000_000  # ns
CATCH_UP_PACKETS = 64  # so many late packets may go at once,
CATCH_UP_TIME = SECOND // 1000  # or those of so many nanoseconds, if that is more


@compiled
def due(schedule: NDArray[np.int64], at: int, rate: int, sent: int, now: int) -> int:
    """How many packets should be sent now: packet n is due n / rate seconds after the first call.

    Args:
        schedule: its word `at` says when it started, in nanoseconds; 0 at first.
        rate: packets per second. More than one in a nanosecond counts as that.
        sent: how many were sent.
        now: by the clock, in nanoseconds; not 0.
    """
    rate = min(rate, SECOND)
    if schedule[at] == 0:
        schedule[at] = now
    number = due_by(now - schedule[at], rate) - sent
    most = max(CATCH_UP_PACKETS, rate // (SECOND // CATCH_UP_TIME))
    if number > most:
        schedule[at] = now - due_time(sent + most - 1, rate)
        number = most
    return max(number, 0)


@compiled
def due_by(elapsed: int, rate: int) -> int:
    """How many packets are due in the first `elapsed` nanoseconds; `rate` is at most one a nanosecond."""
    seconds = elapsed // SECOND
    return seconds * rate + (elapsed - seconds * SECOND) * rate // SECOND + 1


@compiled
def due_time(number: int, rate: int) -> int:
    """The first nanosecond in which packet `number` is due."""
    seconds = number // rate
    return seconds * SECOND + ((number - seconds * rate) * SECOND + rate - 1) // rate
