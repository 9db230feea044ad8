"""A virtual function of a simulated 82599: what software sees of it, its own configuration space and BAR 0.

Its queues are those of its pool. A register of one is the card's, so it does there what it does to the physical
function. Sections are those of the Intel 82599 datasheet, revision 3.3: 7.10.2, 8.3, 9.5.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ixy import clock
from ixy.registers import Register
from ixy.registers import i82599 as physical
from ixy.registers import i82599_vf as reg
from ixy.sim.card import config, state
from ixy.sim.card.config import VF_LAYOUT, ConfigSpace
from ixy.sim.card.vf_interrupts import VfInterrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ixy.sim.card.interrupts import Sink
    from ixy.sim.card.registers import Card
    from ixy.sim.machine import Machine

log = logging.getLogger("ixy.sim")

_ONES = 0xFFFFFFFF
# Rows of queues, and what they are to the physical function
_RX_ROWS = (
    (reg.VFRDBAL, physical.RDBAL),
    (reg.VFRDBAH, physical.RDBAH),
    (reg.VFRDLEN, physical.RDLEN),
    (reg.VFDCA_RXCTRL, physical.DCA_RXCTRL),
    (reg.VFRDH, physical.RDH),
    (reg.VFSRRCTL, physical.SRRCTL),
    (reg.VFRDT, physical.RDT),
    (reg.VFRXDCTL, physical.RXDCTL),
)
_TX_ROWS = (
    (reg.VFTDBAL, physical.TDBAL),
    (reg.VFTDBAH, physical.TDBAH),
    (reg.VFTDLEN, physical.TDLEN),
    (reg.VFDCA_TXCTRL, physical.DCA_TXCTRL),
    (reg.VFTDH, physical.TDH),
    (reg.VFTDT, physical.TDT),
    (reg.VFTXDCTL, physical.TXDCTL),
    (reg.VFTDWBAL, physical.TDWBAL),
    (reg.VFTDWBAH, physical.TDWBAH),
)
_OF_QUEUES = {offset: (row, queue) for own, row in (*_RX_ROWS, *_TX_ROWS) for queue, offset in enumerate(own.offsets)}
# Memory of the function's own, with the bits that software can write
_MEMORY = {
    offset: row.writable
    for row in (reg.VTEIAC, reg.VTEIAM, reg.VTEITR, reg.VTIVAR, reg.VTIVAR_MISC, reg.VTRSCINT)
    for offset in row.offsets
}
_IGNORED = frozenset(reg.VFRSCCTL.offsets)  # nothing is coalesced in pools


class VirtualFunction:
    """One virtual function of a card.

    Args:
        number: of the function, which is that of its pool.

    Attributes:
        name: that of the card, and ".vf" with the number.
        config: its configuration space.
        interrupts: its part.
        mailbox_requests: how many requests it has sent.
        own_words: those of its registers that are memory, and no other function's.
    """

    def __init__(self, machine: Machine, card: Card, number: int) -> None:
        self.card = card
        self.number = number
        self.name = f"{card.name}.vf{number}"
        self.mailbox_requests = 0
        self.config = ConfigSpace(device=card.model.vf_device, layout=VF_LAYOUT)
        self._machine = machine
        self._registers = machine.rack.registers[card.index]
        self._own = machine.rack.functions[card.index, number]
        self._queues = machine.rack.queues[card.index]
        self.own_words: NDArray[np.uint32] = np.zeros(reg.BAR0_SIZE // 4, np.uint32)
        self._told: set[int] = set()  # registers that it has used though there are none
        self.interrupts = VfInterrupts(self.own_words, self._registers, self._expect)
        self._reads, self._writes = self.interrupts.rules()
        self._set_rules()

    # -----------------------------------------------------------------------------------------------------------------
    # What the bus asks for

    def config_read(self, offset: int, size: int) -> int:
        """`size` bytes of the configuration space."""
        return self.config.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write to the configuration space; the command register's bus master bit lets the function do DMA."""
        self.config.write(offset, size, value)
        self.set_bus_master(int(self.masters_bus))

    @property
    def masters_bus(self) -> bool:
        """Whether the function may use the bus."""
        return self.config.has(config.COMMAND, config.COMMAND_BUS_MASTER)

    def set_bus_master(self, enabled: int) -> None:
        """Let the function do DMA, or not."""
        with self._machine.paused():
            self._own[state.FUNCTION_MASTER] = enabled

    def stand_behind(self, root_table: int, requester: int) -> None:
        """As `Card.stand_behind`: the IOMMU knows each function by a number of its own."""
        self.card.provide_translation(root_table)
        with self._machine.paused():
            self._own[state.FUNCTION_ROOT], self._own[state.FUNCTION_REQUESTER] = root_table, requester

    def interrupt_through(self, sink: Sink | None) -> None:
        """Send interrupts to `sink`."""
        with self._machine.paused():
            self.interrupts.sink = sink
        self.interrupts.update()

    def interrupt_own(self, sink: Sink) -> None:
        """Send interrupts to `sink`, in this process: the machine's thread does what `Card.collect` does."""
        self.interrupt_through(sink)

    def interrupt_no_more(self) -> None:
        """Send interrupts nowhere."""
        self.interrupt_through(None)

    def _expect(self, throttled: float | None) -> None:
        self.card.expect(throttled)

    def read32(self, offset: int) -> int:
        """A read of BAR 0 at a multiple of 4, with its side effects; beyond the BAR, all ones as on the bus."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return _ONES
        if offset in _OF_QUEUES:
            place = self._place(offset)
            return self.card.read32(place) if place is not None else 0
        rule = self._reads.get(offset)
        if rule is None and offset not in _MEMORY and offset not in _IGNORED:
            self._tell("reads", offset)
        return rule() if rule else int(self.own_words[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """A write to BAR 0 at a multiple of 4, with its side effects; beyond the BAR it goes nowhere."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return
        if offset in _OF_QUEUES:
            place = self._place(offset)
            if place is not None:
                self.card.write_for_function(place, value)
            return
        rule = self._writes.get(offset)
        if rule:
            rule(value)
        elif offset in _MEMORY:
            self.own_words[offset // 4] = value & _MEMORY[offset]
        elif offset not in _IGNORED and offset not in self._reads:
            self._tell("writes", offset)

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The tail of a queue, for kernels: as an array of the one word that the card looks at.

        A function that has fewer queues, or none yet, gets a word that nobody looks at.
        """
        place = self._place(offset) if offset in _OF_QUEUES else None
        words, at = (self.own_words, offset // 4) if place is None else (self._registers, place // 4)
        return words[at : at + 1]

    def _place(self, offset: int) -> int | None:
        """Where in the card's BAR 0 a register of one of the function's queues is; None if it has no such queue."""
        row, queue = _OF_QUEUES[offset]
        queues = self.queues
        return row.offsets[queues[queue]] if queue < len(queues) else None

    def _tell(self, verb: str, offset: int) -> None:
        if offset not in self._told:
            self._told.add(offset)
            log.warning(
                "sim:%s: the driver %s offset %#07x, where a virtual function of an 82599 has no register",
                *(self.name, verb, offset),
            )

    # -----------------------------------------------------------------------------------------------------------------
    # Resets

    def reset(self) -> None:
        """A function-level reset (4.2.1): the physical function is told, and decides when packets come and go again."""
        with self._machine.paused():
            self._disable()
            self.own_words[:] = 0
            self.card.function_level_reset(self.number)
        self.card.attend()

    def _write_control(self, value: int) -> None:
        """VFCTRL.RST resets the enable bits of queues, and what belongs to interrupts."""
        if value & reg.VFCTRL.mask("RST"):
            with self._machine.paused():
                self._disable()

    def _disable(self) -> None:
        self.card.disable_queues(self.queues)
        self.card.mailboxes.function_reset(self.number)
        for offset in _MEMORY:
            self.own_words[offset // 4] = 0
        self.interrupts.reset()
        self.interrupts.update()

    # -----------------------------------------------------------------------------------------------------------------
    # Registers

    @property
    def queues(self) -> range:
        """Its queues among the card's."""
        size = self.card.pool_size if self.card.divided else 0
        return range(self.number * size, (self.number + 1) * size)

    def done(self, queues: Iterable[tuple[int, bool]]) -> None:
        """These of the card's queues, which are the function's, have done something."""
        first = self.queues.start
        self.interrupts.queues((queue - first, sends) for queue, sends in queues)

    def _set_rules(self) -> None:
        mailboxes, number = self.card.mailboxes, self.number
        reads, writes = self._reads, self._writes
        reads[reg.VFCTRL.offset] = lambda: 0
        reads[reg.VFSTATUS.offset] = lambda: self.card.read32(physical.STATUS.offset) & _mask(reg.VFSTATUS)
        reads[reg.VFLINKS.offset] = lambda: self.card.read32(physical.LINKS.offset) & _mask(reg.VFLINKS)
        reads[reg.VFFRTIMER.offset] = lambda: clock.monotonic_ns() // 1000 & _ONES
        reads[reg.VFRXMEMWRAP.offset] = lambda: physical.RXMEMWRAP.reset
        reads[reg.VFMAILBOX.offset] = lambda: mailboxes.read(number)
        reads[reg.VFPSRTYPE.offset] = lambda: self.card.read32(physical.PSRTYPE[number].offset)
        writes[reg.VFCTRL.offset] = self._write_control
        writes[reg.VFMAILBOX.offset] = self._write_mailbox
        writes[reg.VFPSRTYPE.offset] = partial(self.card.write_for_function, physical.PSRTYPE[number].offset)
        for word, offset in enumerate(reg.VFMBMEM.offsets):
            reads[offset] = partial(mailboxes.read_word, number, word)
            writes[offset] = partial(mailboxes.write_word, number, word)
        unmask = writes[reg.VTEIMS.offset]
        writes[reg.VTEIMS.offset] = lambda value: self._unmask(unmask, value)
        for row, count in (
            (reg.VFGPRC, lambda: self._count(state.QUEUE_RX)),
            (reg.VFGPTC, lambda: self._count(state.QUEUE_TX)),
            (reg.VFGORC_LSB, lambda: self._count(state.QUEUE_RX_BYTES)),
            (reg.VFGORC_MSB, lambda: self._count(state.QUEUE_RX_BYTES) >> 32 & 15),
            (reg.VFGOTC_LSB, lambda: self._count(state.QUEUE_TX_BYTES)),
            (reg.VFGOTC_MSB, lambda: self._count(state.QUEUE_TX_BYTES) >> 32 & 15),
            (reg.VFMPRC, lambda: int(self._own[state.FUNCTION_MULTICAST])),
        ):
            reads[row.offset] = lambda count=count: count() & _ONES

    def _write_mailbox(self, value: int) -> None:
        self.mailbox_requests += value & reg.VFMAILBOX.mask("REQ")
        self.card.mailboxes.write(self.number, value)
        self.card.attend()

    def _unmask(self, unmask: Callable[[int], None], value: int) -> None:
        """What queues did while all was masked, nobody may have been told: it is looked up now."""
        unmask(value)
        self.card.collect()

    def _count(self, column: int) -> int:
        queues = self.queues
        return int(self._queues[queues.start : queues.stop, column].sum())

    # -----------------------------------------------------------------------------------------------------------------
    # What became of it

    @property
    def spoofed(self) -> int:
        """How many frames it was kept from sending, as they had the address or the VLAN of others."""
        return int(self._own[state.FUNCTION_SPOOFED])

    @property
    def dma_refused(self) -> int:
        """How many of its DMA accesses were refused."""
        return int(self._own[state.FUNCTION_REFUSED])

    @property
    def received(self) -> int:
        """How many frames came into its queues."""
        return self._count(state.QUEUE_RX)

    @property
    def sent(self) -> int:
        """How many frames it has sent."""
        return self._count(state.QUEUE_TX)


def _mask(row: Register) -> int:
    return row.mask(*row.fields)
