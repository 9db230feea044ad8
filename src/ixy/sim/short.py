"""Packets that leave a card too short, or without a check sequence, as their driver breaks a rule
(`card/driver_rules.py`)."""

from __future__ import annotations

from typing import Any

from ixy.jit import compiled
from ixy.sim import slots
from ixy.sim.card.judge import SHORT
from ixy.sim.card.receive import receive
from ixy.sim.card.state import FEATURES, LOOPBACK, VIRTUAL
from ixy.sim.loop import emit, hand_over
from ixy.sim.rack import SLOT, TIMED, Rack
from ixy.sim.slots import belongs_in
from ixy.sim.wires.clock import moment


@belongs_in(slots.LEAVE)
def _leave(image: Any, card: int, length: int, judged: int, _: int) -> int:
    return leave(image[0], card, length, judged)


@compiled
def leave(rack: Rack, card: int, length: int, judged: int) -> int:
    """Let the packet in the staging buffer leave that is no good: 0, as no frame is left that is.

    Without a check sequence it arrives nowhere: each partner drops it. One that is too short does so as it is, for
    whoever records it, though a partner that is a card drops it, too. What a pool sends so goes nowhere, as nobody has
    looked whose it is.
    """
    if judged == SHORT and length > 0 and rack.cards[card, FEATURES] & VIRTUAL == 0:
        start = card * SLOT
        if rack.cards[card, FEATURES] & LOOPBACK:
            receive(rack, card, start, length)
        else:
            now = moment() if rack.outputs[card, TIMED] != 0 else 0
            hand_over(rack, emit(rack, card, start, length, now), start, length, now)
    return 0
