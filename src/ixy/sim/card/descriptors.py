"""Transmit descriptors that are not as most are: legacy ones, those of packets with several buffers or with offloads,
contexts, and those that break a rule (`judge.py`).

The kernel is in a slot: a driver whose packets have one buffer each and no offload never has it compiled. Sections are
those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import Any

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.judge import FINE, NO_RULE, UNREPORTED, asks_for_check, hang, hangs_by
from ixy.sim.card.state import DTYP, FIRST, OFFLOAD, STAGED, STAGING, TX_TAIL, USUAL
from ixy.sim.card.transmit import LATER, NOWHERE, finish, gather
from ixy.sim.rack import Rack
from ixy.sim.slots import FETCH, belongs_in, call, lacks
from ixy.unsafe import load_acquire

_LEGACY_OFFLOADS = reg.TX_VLE | reg.TX_IC
_OFFLOADS = reg.TX_TIMESTAMP | reg.TX_VLE | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM


@belongs_in(FETCH)
def _fetch(image: Any, card: int, queue: int, head: int, word: int) -> int:
    return take(image[0], card, queue, head, word)


@compiled
def take(rack: Rack, card: int, queue: int, head: int, word: int) -> int:
    """Take the descriptor at `head` of a queue's ring, at `word` in memory; see `transmit.fetch`."""
    if word == NOWHERE:
        return hang(rack, card, queue, TX_TAIL)
    command = load_acquire(rack.words, word + 1)
    advanced = command & reg.TX_DEXT != 0
    length, judged = 0, FINE
    if advanced and command & reg.TX_DTYP == reg.TX_CONTEXT:
        index = 1 if command & reg.TX_IDX else 0
        rack.contexts[card, queue, index, 0] = rack.words[word]
        rack.contexts[card, queue, index, 1] = command
    elif advanced and command & reg.TX_DTYP != reg.TX_DATA:
        return hang(rack, card, queue, DTYP)
    else:
        offloads = command & (_OFFLOADS if advanced else _LEGACY_OFFLOADS)
        if offloads and lacks(rack, slots.BUILD):
            return LATER
        if is_odd(rack, card, command):
            judged = LATER if lacks(rack, slots.LEAVE) else call(rack, slots.JUDGE, card, queue, command, 0)
            if judged < 0:
                return judged
        length = take_data(rack, card, queue, rack.words[word], command, offloads)
        if command & reg.TX_EOP and judged != FINE:
            length = call(rack, slots.LEAVE, card, length, judged, 0)
        if length == 0 and rack.cards[card, STAGED] == 0:
            rack.cards[card, OFFLOAD] = 0  # there is nothing to do it to
    if command & reg.TX_RS and judged != UNREPORTED:
        finish(rack, card, queue, head, word)
    return length


@compiled
def is_odd(rack: Rack, card: int, command: int) -> bool:
    """Whether a descriptor that carries data, or the packet that it ends, may break a rule, so that it is judged."""
    own = rack.cards[card]
    if command & reg.TX_EOP == 0:
        return command & reg.TX_RS != 0
    first = own[FIRST] if own[STAGED] else command
    total = own[STAGED] + (command & reg.TX_LENGTH_MASK)
    if total == 0 and first & reg.TX_DEXT == 0:
        return False  # nothing leaves
    unusual = own[USUAL] == 0 and total != 0
    return unusual or hangs_by(first, total) != NO_RULE or not asks_for_check(first, command)


@compiled
def take_data(rack: Rack, card: int, queue: int, address: int, command: int, offloads: int) -> int:
    """Gather a descriptor's buffer; the length of the packet that it completes, else 0.

    Which offloads a packet asks for, its first descriptor says, and later ones say nothing of it (7.2.3.2.4).
    """
    own = rack.cards[card]
    if own[STAGED] == 0:
        own[FIRST] = command
        own[OFFLOAD] = command if offloads else 0
    own[STAGED] = gather(rack, card, address, own[STAGED], command & reg.TX_LENGTH_MASK)
    own[STAGING] = queue
    if command & reg.TX_EOP == 0:
        return 0
    length = own[STAGED]
    own[STAGED] = 0
    return length
