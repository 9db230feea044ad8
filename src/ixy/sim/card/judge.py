"""What a simulated 82599 does when descriptors, rings or registers break the rules for drivers (`driver_rules.py`).

The kernels here are in slots: a driver that breaks none of the rules never has one compiled. Sections are those of the
Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim.card.frame import MAC_BYTES
from ixy.sim.card.layers import TCP_HEADER
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import (
    BREACHES,
    DEXT,
    FIRST,
    HUNG,
    IFCS,
    MSS,
    NO_SNOOP,
    OFFLOAD,
    PAYLEN,
    RS,
    RX_JUMP,
    RX_LOWER_BITS,
    RX_STRIDE,
    SPOILING,
    STAGED,
    TXCRCEN,
    TXPADEN,
)
from ixy.sim.rack import ALARM, SLOT, Rack
from ixy.unsafe import copy, load_acquire, store_release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What `judge` says: the packet leaves, the descriptor is not written back, the packet leaves without a check sequence,
# or too short; the queue hangs
FINE, UNREPORTED, UNCHECKED, SHORT = range(4)
HANGS = -2

NO_RULE = -1
_PAYLEN_MASK = (1 << 18) - 1
_LEGACY_FIELDS = reg.TX_VLE | reg.TX_IC  # what makes use of CSO, CSS and VLAN
_OFFLOADS = reg.TX_VLE | reg.TX_TSE | reg.TX_IXSM | reg.TX_TXSM | reg.TX_IC

_HLREG0 = reg.HLREG0.offset // 4
_TXDCTL, _TX_STRIDE = reg.TXDCTL.offset // 4, reg.TXDCTL.stride // 4
_TDH, _RDH = reg.TDH.offset // 4, reg.RDH.offset // 4
_TXCRCEN, _TXPADEN = reg.HLREG0.mask("TXCRCEN"), reg.HLREG0.mask("TXPADEN")

_CACHE_LINE = 64


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong with a packet, by its first descriptor and its last; they may be one


@compiled
def hangs_by(first: int, total: int) -> int:
    """The rule that a packet of `total` bytes breaks so that its queue hangs, or NO_RULE.

    A descriptor in legacy format seems to be meant as an advanced one that has what fields of those leave there: DTYP
    in CSO, PAYLEN in CSS and VLAN, of which it makes no use.
    """
    if first & reg.TX_DEXT:
        return PAYLEN if first & reg.TX_TSE == 0 and payload_length(first) != total else NO_RULE
    kind = first & reg.TX_DTYP
    if (kind == reg.TX_DATA or kind == reg.TX_CONTEXT) and first & _LEGACY_FIELDS == 0 and payload_length(first) != 0:
        return DEXT
    return NO_RULE


@compiled
def payload_length(command: int) -> int:
    """PAYLEN."""
    return (command >> reg.TX_PAYLEN_SHIFT) & _PAYLEN_MASK


@compiled
def asks_for_check(first: int, last: int) -> bool:
    """Whether a packet is to leave with a check sequence. Of advanced descriptors the first one says so (7.2.3.2.4)."""
    return (first if first & reg.TX_DEXT else first | last) & reg.TX_IFCS != 0


# ---------------------------------------------------------------------------------------------------------------------
# What becomes of it


@compiled
def judge(rack: Rack, card: int, queue: int, command: int) -> int:
    """What becomes of the descriptor that a transmit queue is at, which is odd; see `descriptors.is_odd`."""
    own = rack.cards[card]
    if command & reg.TX_EOP == 0:
        note(rack, card, RS, queue, tx_head(rack, card, queue))
        return UNREPORTED
    first = own[FIRST] if own[STAGED] else command
    total = own[STAGED] + (command & reg.TX_LENGTH_MASK)
    rule = hangs_by(first, total)
    if rule != NO_RULE:
        return hang(rack, card, queue, rule)
    control = load_acquire(rack.registers[card], _HLREG0)
    checked = asks_for_check(first, command)
    if not checked or control & _TXCRCEN == 0:
        note(rack, card, TXCRCEN if checked else IFCS, queue, tx_head(rack, card, queue))
        return UNCHECKED
    if control & _TXPADEN == 0 and total < MIN_FRAME and first & _OFFLOADS == 0:
        note(rack, card, TXPADEN, queue, tx_head(rack, card, queue))
        return SHORT
    return FINE


@compiled
def segments(rack: Rack, card: int, queue: int, length: int) -> bool:
    """Whether a packet of `length` bytes can be cut whose first descriptor asks for it; else its queue hangs."""
    first = rack.cards[card, OFFLOAD]
    if first & reg.TX_DEXT == 0:
        return True
    context = rack.contexts[card, queue, 1 if first & reg.TX_IDX else 0]
    mac_size = (context[0] >> reg.CONTEXT_MACLEN_SHIFT) & 0x7F
    transport_size = (context[1] >> reg.CONTEXT_L4LEN_SHIFT) & 0xFF
    headers = mac_size + (context[0] & reg.CONTEXT_IPLEN_MASK) + transport_size
    segment_size = (context[1] >> reg.CONTEXT_MSS_SHIFT) & 0xFFFF
    if segment_size == 0 or transport_size < TCP_HEADER or mac_size < MAC_BYTES or headers >= length:
        hang(rack, card, queue, MSS)
        return False
    if payload_length(first) != length - headers:
        hang(rack, card, queue, PAYLEN)
        return False
    return True


@compiled
def hang(rack: Rack, card: int, queue: int, rule: int) -> int:
    """A transmit queue fetches no more, though it reads as enabled; the packet that is being gathered is gone."""
    note(rack, card, rule, queue, tx_head(rack, card, queue))
    registers, place = rack.registers[card], _TXDCTL + queue * _TX_STRIDE
    store_release(registers, place, load_acquire(registers, place) | HUNG)
    rack.cards[card, STAGED] = rack.cards[card, OFFLOAD] = 0
    return HANGS


@compiled
def tx_head(rack: Rack, card: int, queue: int) -> int:
    return load_acquire(rack.registers[card], _TDH + queue * _TX_STRIDE)


@compiled
def note(rack: Rack, card: int, rule: int, queue: int, slot: int) -> None:
    """A rule is broken by descriptor `slot` of a queue; the first time, the card's owner is told."""
    column = BREACHES + 2 * rule
    rack.counters[card, column] += 1
    if rack.counters[card, column] == 1:
        rack.counters[card, column + 1] = queue << 32 | slot
        store_release(rack.control, ALARM, 1)


@compiled
def spoil(rack: Rack, card: int, queue: int, start: int, length: int) -> int:
    """A copy of a frame, of whose payload a byte in each cache line is wrong; where it lies on the tape."""
    at = queue * RX_STRIDE + (queue >> RX_LOWER_BITS) * RX_JUMP
    note(rack, card, NO_SNOOP, queue, load_acquire(rack.registers[card], _RDH + at))
    place = card * SLOT + SPOILING
    copy(rack.tape, place, rack.tape, start, length)
    damage(rack.tape, place + MAC_BYTES + 2, place + length)
    return place


@compiled
def damage(tape: NDArray[np.uint8], start: int, end: int) -> None:
    for i in range(start, end, _CACHE_LINE):
        tape[i] ^= 0xFF
