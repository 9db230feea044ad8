"""Looks whether what software does to registers breaks a rule for drivers (`driver_rules.py`), and lets happen what
follows.

What follows for packets is a bit in a register that the packets' kernels look at anyway (`state.HUNG` and others), so
that a driver that breaks no rule pays nothing. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

import numpy as np

from ixy import clock
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.card.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ixy.sim.card.driver_rules import Breaches
    from ixy.sim.card.history import History
    from ixy.sim.card.ready import Ready

# 8.2.3.1.1: "approximately 1 ms"
_RESET_NS = 900_000
# An enabled queue is there after microseconds. Who waits and does not look has waited this long.
_ENABLE_NS = 10_000_000
_HALF_TABLE = 32 << 10  # of the flow director, in bytes; PBALLOC says how many times it is doubled
# What drivers look at meanwhile, and semaphores, which are the firmware's as well
_ANSWER_ALWAYS = frozenset(row.offset for row in (reg.CTRL, reg.STATUS, reg.SWSM, reg.SW_FW_SYNC))
_RESETS = reg.CTRL.mask("RST", "LRST")
_UNALIGNED = 0x7F  # bits of a ring's base or length that must be 0
_ENABLE = reg.RXDCTL.mask("ENABLE")  # at the same place in TXDCTL
_NO_SNOOP = reg.DCA_RXCTRL.mask("MUST_BE_ZERO")
_NS_DIS = reg.CTRL_EXT.mask("NS_DIS")
_RXEN, _TE = reg.RXCTRL.mask("RXEN"), reg.DMATXCTL.mask("TE")
_BSIZEPACKET = reg.SRRCTL.mask("BSIZEPACKET")
_RX_SIZE, _TX_SIZE = reg.RXPBSIZE.mask("SIZE"), reg.TXPBSIZE.mask("SIZE")
_REQUESTS = reg.DTXMXSZRQ.mask("MAX_BYTES_NUM_REQ")
# What `settle` goes by
_SETTLED = frozenset(
    offset
    for row in (
        *(reg.RXCTRL, reg.RXDCTL, reg.RXPBSIZE, reg.SRRCTL, reg.DCA_RXCTRL, reg.CTRL_EXT),
        *(reg.DMATXCTL, reg.TXPBSIZE[0], reg.DTXMXSZRQ, reg.FDIRCTRL),
    )
    for offset in row.offsets
)

# Which values of MRQC.MRQE divide the queues as one of GCR_EXT.VT_MODE does: 0 (no functions), 16, 32 and 64 pools
_POOLS_OF_MODE = (frozenset(range(16)), frozenset((12,)), frozenset((10, 13)), frozenset((8, 11)))

_RX_CONTROLS = np.array(reg.RXDCTL.offsets, np.intp) // 4
_DCA_CONTROLS = np.array(reg.DCA_RXCTRL.offsets, np.intp) // 4
_SPLIT_CONTROLS = np.array(reg.SRRCTL.offsets, np.intp) // 4
_RX_SIZES = np.array(reg.RXPBSIZE.offsets, np.intp) // 4


def _has_come(moment: int) -> bool:
    """Whether a moment of the system's clock, by which drivers pause, is past. By a virtual clock their pauses take no
    time, so each is."""
    return clock.is_virtual() or monotonic_ns() >= moment


class Ring:
    """The registers of one queue, by the words that the rules for both directions use."""

    def __init__(self, side: str, queue: int) -> None:
        receives = side == "rx"
        self.side, self.queue = side, queue
        self.name = f"{'receive' if receives else 'transmit'} queue {queue}"
        self.control, self.head, self.tail, self.base, self.length = (
            row[queue]
            for row in (
                (reg.RXDCTL, reg.RDH, reg.RDT, reg.RDBAL, reg.RDLEN)
                if receives
                else (reg.TXDCTL, reg.TDH, reg.TDT, reg.TDBAL, reg.TDLEN)
            )
        )
        self.begun = 0  # when it was enabled, in nanoseconds
        self.unaligned: set[str] = set()  # the rules of its base and length that are broken
        self.seen_enabled = False
        self.lost = False  # its first bump, which came too early


_RINGS = tuple((side, queue) for side in ("rx", "tx") for queue in range(reg.QUEUES))


class Supervision(Words):
    """The supervision of one card.

    Args:
        registers: the card's.
        ready: which of its bits still read as they were.
        breaches: where what is found goes to.
        history: is told when a reset is over.

    Attributes:
        checks: by a register's offset, what looks at a value that is to be written; False if the write has no effect.
        seen: by offset, what is told a value that was read.
        busy_until: until then the card does not respond, in nanoseconds of the monotonic clock; 0: it does.
        packet_memory: what the card has for packets that it receives, in bytes.
        foreign: so many queues, the first ones, belong to virtual functions.
    """

    packet_memory = foreign = 0

    def __init__(self, registers: NDArray[np.uint32], ready: Ready, breaches: Breaches, history: History) -> None:
        super().__init__(registers)
        self._ready = ready
        self._breaches = breaches
        self._history = history
        self._rings = {(side, queue): Ring(side, queue) for side, queue in _RINGS}
        self.checks: dict[int, Callable[[int], bool]] = {}
        self.seen: dict[int, Callable[[int], None]] = {}
        self._done = False  # the reset, as far as software has seen
        self._set_checks()
        self.reset()

    def reset(self) -> None:
        """A reset of the card: nothing is wrong any more."""
        self._standing: set[tuple[str, str]] = set()
        self.busy_until = 0
        self._open = self._opens = self._disturbed = False
        for ring in self._rings.values():
            ring.unaligned.clear()
            ring.lost = False
            self.checks.pop(ring.tail.offset, None)

    def reset_begins(self) -> None:
        """Software has set CTRL.RST or LRST. Where bits take no time, no access comes too early."""
        self.busy_until = monotonic_ns() + _RESET_NS if self._ready.reads else 0
        self._done = False

    def _see_ctrl(self, value: int) -> None:
        self._done = not value & _RESETS

    def hears(self, register: int, *, writes: bool) -> bool:
        """Whether the card takes notice of an access. Until a reset is over, a write disturbs it (8.2.3.1.1)."""
        if _has_come(self.busy_until):
            self.busy_until = 0
            self._history.note("reset over")
            return True
        if register in _ANSWER_ALWAYS:
            return True
        heard = self._done or not writes
        where = f"{'write to' if writes else 'read of'} offset {register:#07x}"
        self._breaches.note("hurried-access" if heard else "early-access", where)
        if not heard:
            self._disturbed = True
            self._mark(reg.RDRXCTL, reg.RDRXCTL.mask("DMAIDONE"), False)
        return heard

    # -----------------------------------------------------------------------------------------------------------------
    # Before a write

    def _set_checks(self) -> None:
        checks = self.checks
        for ring in self._rings.values():
            checks[ring.control.offset] = partial(self._check_control, ring)
            checks[ring.head.offset] = partial(self._check_head, ring)
            checks[ring.base.offset] = partial(self._check_alignment, ring, f"{ring.side}-ring-base")
            checks[ring.length.offset] = partial(self._check_alignment, ring, f"{ring.side}-ring-length")
            self.seen[ring.control.offset] = partial(self._see_control, ring)
        self.seen[reg.CTRL.offset] = self._see_ctrl
        checks[reg.RXCTRL.offset] = self._check_rxctrl
        checks[reg.DMATXCTL.offset] = self._check_dmatxctl
        for register in reg.PFVFSPOOF:
            checks[register.offset] = partial(self._check_spoof, register)
        for row in (reg.TXPBSIZE, reg.TXPBTHRESH, reg.DTXMXSZRQ):
            checks |= {register.offset: partial(self._check_buffers, register) for register in row}

    def _check_control(self, ring: Ring, value: int) -> bool:
        """RXDCTL or TXDCTL: a queue is enabled, or disabled."""
        enabled = self._get(ring.control) & _ENABLE
        if value & _ENABLE and not enabled:
            if ring.side == "tx" and not self._get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE"):
                self._breaches.note("queue-before-engine", ring.name)
            self._begin(ring)
        elif enabled and not value & _ENABLE:
            self._end(ring)
        return True

    def _end(self, ring: Ring) -> None:
        """A queue is disabled. What was left in it is no tail that comes too early when it is enabled again."""
        self._clear_ends(ring)
        self._find(ring)
        self.checks.pop(ring.tail.offset, None)

    def _clear_ends(self, ring: Ring) -> None:
        self._registers[ring.head.offset // 4] = self._registers[ring.tail.offset // 4] = 0

    def _begin(self, ring: Ring) -> None:
        """A queue is enabled, and begins at 0 (8.2.3.8.6, 8.2.3.9.10). What its tail was before counts no more."""
        if self._get(reg.CTRL) & reg.CTRL.mask("PCIE_MASTER_DISABLE"):
            self._breaches.note("master-disabled", ring.name)
        for name in sorted(ring.unaligned):
            self._hang(ring, name)
        if self._get(ring.tail) not in (0, self._get(ring.head)):
            self._breaches.note(f"{ring.side}-tail-early", ring.name)
        self._clear_ends(ring)
        ring.begun, ring.seen_enabled = monotonic_ns(), False
        self.checks[ring.tail.offset] = partial(self._check_first_tail, ring)

    def _check_first_tail(self, ring: Ring, value: int) -> bool:
        """The first bump since the queue was enabled. From the first one that is in time on nobody looks any more.

        One that comes too early is lost: the queue fetches nothing before the next one. As long as no packets are let
        in, as in Linux's test of registers, that is no fault; of a virtual function, which tests its registers while
        other functions receive, if it stays so.
        """
        self._find(ring)
        if value == self._get(ring.head):
            return True
        waits = self._ready.waits_for(ring.control, _ENABLE) and not _has_come(ring.begun + _ENABLE_NS)
        if waits and ring.side == "rx":
            ring.lost = True
            self._mark(ring.control, state.HUNG, True)
            if self._get(reg.RXCTRL) & _RXEN and ring.queue >= self.foreign:
                self._breaches.note("rx-tail-early", ring.name)
            return True
        if not ring.seen_enabled:
            self._breaches.note("enable-not-awaited", ring.name)
        del self.checks[ring.tail.offset]
        return True

    def _find(self, ring: Ring) -> None:
        """A bump that was lost is so no more."""
        if ring.lost:
            ring.lost = False
            self._mark(ring.control, state.HUNG, False)

    def _see_control(self, ring: Ring, value: int) -> None:
        ring.seen_enabled |= bool(value & _ENABLE)

    def _check_head(self, ring: Ring, value: int) -> bool:
        """The head of an enabled queue is the card's."""
        if not self._get(ring.control) & _ENABLE:
            return True
        if value != self._get(ring.head):
            self._hang(ring, f"{ring.side}-head")
        return False

    def _check_alignment(self, ring: Ring, name: str, value: int) -> bool:
        """Of a ring's base or length, whose lowest bits are no bits of the register."""
        ring.unaligned.discard(name)
        if value & _UNALIGNED:
            ring.unaligned.add(name)
            if self._get(ring.control) & _ENABLE:
                self._hang(ring, name)
        return True

    def _hang(self, ring: Ring, name: str) -> None:
        """By this rule a queue fetches nothing any more."""
        self._breaches.note(name, ring.name)
        self._registers[ring.control.offset // 4] |= state.HUNG

    def _check_dmatxctl(self, value: int) -> bool:
        """Setting TE enables transmit queue 0, too (8.2.3.9.10)."""
        first = self._rings["tx", 0]
        rises = value & ~self._get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE")
        if rises and not self._get(first.control) & _ENABLE:
            self._begin(first)
        return True

    def _check_rxctrl(self, value: int) -> bool:
        """All that is to be done before packets are let in."""
        if not value & ~self._get(reg.RXCTRL) & reg.RXCTRL.mask("RXEN"):
            return True
        for ring in self._rings.values():
            if ring.lost:
                self._breaches.note("rx-tail-early", ring.name)
        halted = self._field(reg.SECRXCTRL, "RX_DIS") and self._field(reg.SECRXSTAT, "SECRX_RDY")
        receive, mac = self._decode(reg.RDRXCTL), self._decode(reg.HLREG0)
        water = self._field(reg.FCRTH[0], "RTH") << 5
        for name, wrong in (
            ("receive-path-open", not halted or self._ready.waits_for(reg.SECRXSTAT, reg.SECRXSTAT.mask("SECRX_RDY"))),
            ("strip-unequal", receive["CRC_STRIP"] != mac["RXCRCSTRP"]),
            ("coalescing-defaults", receive["RSCFRSTSIZE"] or not receive["RSCACKC"] or not receive["FCOE_WRFIX"]),
            ("high-water", not 0 < water < self._field(reg.RXPBSIZE[0], "SIZE") << 10),
            ("pools-unequal", self._field(reg.MRQC, "MRQE") not in _POOLS_OF_MODE[self._field(reg.GCR_EXT, "VT_MODE")]),
        ):
            if wrong:
                self._breaches.note(name, "when RXCTRL.RXEN was set")
        return True

    def _check_spoof(self, register: Register, value: int) -> bool:
        fields = register.decode(value)
        if fields["VLANAS"] & ~fields["MACAS"]:
            self._breaches.note("vlan-check-alone", register.name)
        return True

    def _check_buffers(self, register: Register, _value: int) -> bool:
        if not self._field(reg.RTTDCS, "ARBDIS"):
            self._breaches.note("arbiter-active", register.name)
        return True

    # -----------------------------------------------------------------------------------------------------------------
    # After a write: how things stand

    def concerns(self, offset: int) -> bool:
        """Whether `settle` has something to see to after a write."""
        return offset in _SETTLED or self._opens or self._disturbed

    def settle(self) -> bool:
        """See to what follows from how registers stand. Whether a queue spoils what it receives."""
        opened, sends = self._get(reg.RXCTRL) & _RXEN != 0, self._get(reg.DMATXCTL) & _TE != 0
        no_room = self._stands("rx-packet-buffer", "", opened and not self._get(reg.RXPBSIZE[0]) & _RX_SIZE)
        self._mark(reg.RXCTRL, state.RX_CLOSED, no_room or self._disturbed)
        no_buffer = self._stands("tx-packet-buffer", "", sends and not self._get(reg.TXPBSIZE[0]) & _TX_SIZE)
        no_request = self._stands("tx-requests", "", sends and not self._get(reg.DTXMXSZRQ) & _REQUESTS)
        self._mark(reg.DMATXCTL, state.TX_CLOSED, no_buffer or no_request or self._disturbed)
        overwritten = self._stands("flow-table-room", "", opened and self._lacks_table_room())
        self._mark(reg.FDIRCTRL, state.OVERWRITTEN, overwritten)
        spoils = opened and self._settle_queues()
        self._opens = opened and not self._open
        self._open = opened
        return spoils

    def _lacks_table_room(self) -> bool:
        """Whether there is a table of the flow director which does not fit beside the packet buffers (8.2.3.21.1)."""
        size = self._field(reg.FDIRCTRL, "PBALLOC")
        buffers = int((self._registers[_RX_SIZES] & _RX_SIZE).sum())
        return size > 0 and buffers + (_HALF_TABLE << size) > self.packet_memory

    def _settle_queues(self) -> bool:
        """Buffers of no size, and queues that snoop no caches. The latter can be seen to by the write after RXEN."""
        controls = self._registers[_RX_CONTROLS]
        enabled = (controls & _ENABLE) != 0
        for queue in (enabled & ((self._registers[_SPLIT_CONTROLS] & _BSIZEPACKET) == 0)).nonzero()[0].tolist():
            self._stands("rx-buffer-size", self._rings["rx", queue].name, True)
        if not self._open:
            return False
        spoilt = enabled & ((self._registers[_DCA_CONTROLS] & _NO_SNOOP) != 0)
        spoilt &= self._get(reg.CTRL_EXT) & _NS_DIS == 0
        self._registers[_RX_CONTROLS] = np.where(spoilt, controls | state.SPOILT, controls & ~np.uint32(state.SPOILT))
        return bool(spoilt.any())

    def look(self, masters: Callable[[int], bool], may_send: Callable[[int], bool]) -> None:
        """What can only be seen as it stands: descriptors wait that the card may not fetch.

        Args:
            masters: whether the function of a queue may use the bus,
            may_send: and whether the physical function lets it send.
        """
        for (side, queue), ring in self._rings.items():
            self._stands("rx-tail-early", ring.name, ring.lost and queue < self.foreign)
            waits = self._get(ring.control) & _ENABLE and self._get(ring.head) != self._get(ring.tail)
            if not waits:
                continue
            engine = self._get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE")
            self._stands("tx-disabled", ring.name, side == "tx" and not engine)
            self._stands("not-bus-master", ring.name, not masters(queue))
            self._stands("function-disabled", ring.name, side == "tx" and not may_send(queue))

    def _stands(self, name: str, where: str, wrong: bool) -> bool:
        """Note a rule that is broken as long as registers stand so: once."""
        if wrong and (name, where) not in self._standing:
            self._breaches.note(name, where or "as registers stand")
        (self._standing.add if wrong else self._standing.discard)((name, where))
        return wrong

    def _mark(self, register: Register, bit: int, on: bool) -> None:
        word = self._get(register)
        self._registers[register.offset // 4] = word | bit if on else word & ~bit

    def _field(self, register: Register, field: str) -> int:
        return register.fields[field].of(self._get(register))
