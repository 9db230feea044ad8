"""The part of a simulated 82599 that software talks to: configuration space and registers, with their side effects.

A register without a rule below is memory, of which software changes the bits that its row says can be written. Sections
are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import os
import random
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ixy.registers import Register, Reset
from ixy.registers import i82599 as reg
from ixy.sim import timed
from ixy.sim.card import coalesce, config, formats, state, write_back
from ixy.sim.card.config import ConfigSpace
from ixy.sim.card.driver_rules import Breaches
from ixy.sim.card.eeprom import EEPROM_WORDS, build_eeprom, build_product_data
from ixy.sim.card.flow_director import FlowDirector
from ixy.sim.card.history import History
from ixy.sim.card.interrupts import MAILBOX, OWN_THREAD, Interrupts, Sink
from ixy.sim.card.mailbox import Mailboxes
from ixy.sim.card.models import DEFAULT, MODELS, Model
from ixy.sim.card.module import Module
from ixy.sim.card.phy import Phy
from ixy.sim.card.pools import BY_CLASS
from ixy.sim.card.ready import Ready
from ixy.sim.card.statistics import Statistics
from ixy.sim.card.supervision import Supervision
from ixy.sim.card.timestamps import Clock
from ixy.sim.card.transmit import USUAL_FORM
from ixy.sim.card.unmodelled import Unmodelled
from ixy.sim.card.virtual_function import VirtualFunction
from ixy.sim.card.words import Words
from ixy.sim.rack import FLIGHT, KIND, LINKED, NOTHING, PACED, SPEED, TIMED
from ixy.sim.slots import SPOIL, TRANSLATE, of_features, provide
from ixy.sim.wires.clock import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ixy.sim.machine import Machine

_MODELLED = frozenset(offset for row in reg.ROWS for offset in row.offsets)
_ONES = 0xFFFFFFFF
# Written without the rack's pause: what the rack looks at anew in each turn, or never
_DOORBELLS = (reg.RDT, reg.TDT, reg.IVAR, reg.EITR, reg.EITR_HIGH, reg.GPIE, reg.EIAC, reg.EIAM, reg.EIAM_EX)
_FINISHES = reg.HLREG0.mask("TXCRCEN", "TXPADEN")
_LINK_SPEEDS = {10**8: 1, 10**9: 2}  # LINKS.LINK_SPEED by bits per second
# Where the model keeps bits of its own
_HIDDEN = (
    (reg.RXDCTL, state.HUNG | state.SPOILT),
    (reg.TXDCTL, state.HUNG),
    (reg.RXCTRL, state.RX_CLOSED),
    (reg.DMATXCTL, state.TX_CLOSED),
    (reg.FDIRCTRL, state.OVERWRITTEN),
)
_TABLES = (
    *(reg.MTA, reg.VFTA, reg.MPSAR, reg.PFVLVF, reg.PFVLVFB, reg.PFUTA),
    *(reg.SAQF, reg.DAQF, reg.SDPQF, reg.L34TIMIR),
    *(reg.FDIRIPSA, reg.FDIRIPDA, reg.FDIRPORT, reg.FDIRVLAN, reg.FDIRHASH, reg.FDIRSIPV6),
)
_QUEUES_OF_MODE = {1: 3, 2: 2, 3: 1}  # GCR_EXT.VT_MODE: two to this are the queues of a pool,
_QUEUES_OF_MRQE = {8: 1, 10: 2, 11: 1, 12: 3, 13: 2}  # and MRQC.MRQE where there are no functions
_ALIASES = {alias + i * stride: row.offsets[i] for row, alias, stride, count in reg.ALIASES for i in range(count)}


def _places(row: Register) -> NDArray[np.intp]:
    """The words of BAR 0 that a row's registers are."""
    return np.array(row.offsets, np.intp) // 4


def _words(value: Callable[[Register], int], elsewhere: int = 0) -> NDArray[np.uint32]:
    """BAR 0 with a value for each row."""
    words = np.full(reg.BAR0_SIZE // 4, elsewhere, np.uint32)
    for row in reg.ROWS:
        words[_places(row)] = value(row)
    return words


def _reset_values() -> NDArray[np.uint32]:
    words = _words(lambda row: row.reset)
    for row in reg.ROWS:
        if row.first is not None:
            words[row.offset // 4] = row.first
    return words


_RESET_VALUES = _reset_values()
_WRITABLE = _words(lambda row: row.writable, _ONES)
_UNDEFINED = _words(lambda row: row.undefined & row.writable)
_KEPT = {
    kind: _words(lambda row, kind=kind: row.kept if row.survives is not None and row.survives >= kind else 0)
    for kind in Reset
}
_RX_CONTROLS, _TX_CONTROLS = _places(reg.RXDCTL), _places(reg.TXDCTL)
_FIVE_FIELDS, _ETHERTYPES = _places(reg.FTQF), _places(reg.ETQF)
_INSERTIONS, _SPOOF_CHECKS = _places(reg.PFVMVIR), _places(reg.PFVFSPOOF)
_CRC_STRIP = reg.RDRXCTL.mask("CRC_STRIP")


class Driver(Sink, Protocol):
    """A driver of the physical function that needs no thread.

    Attributes:
        functions: what it has done for each virtual function.
    """

    @property
    def functions(self) -> Sequence[Served]: ...

    def serve(self, *, wait: bool = True) -> None:
        """See to what it was interrupted for; without `wait`, to what can be seen to at once."""
        ...


class Served(Protocol):
    """What it has done for one; see `ixy.sim.physical.function.Function`."""

    mac: bytes
    refused: int
    flooded: int


class Card(Words):
    """One card of a machine.

    Args:
        machine: that the card is plugged into.
        index: of the card's row in the machine's rack.
        name: by which the user knows it.

    Attributes:
        config: its configuration space.
        model: which kind of card it is.
        interrupts, statistics, clock: its parts.
        ready: which bits take their time.
        unmodelled: what software does with registers that the model does not have.
        breaches: the rules that software has broken.
        history: what it did to bring the card up.
        mailboxes: by which it speaks with virtual functions.
        functions: these.
        driver: of the physical function, if that is ours.
    """

    def __init__(self, machine: Machine, index: int, name: str) -> None:
        self.name = name
        self.index = index
        self.mac = bytes([0x02, 0x69, 0x78, 0x79, 0, index + 1])  # locally administered; "ixy"
        self._machine = machine
        super().__init__(machine.rack.registers[index])
        self._words = machine.rack.cards[index]
        self._queues = machine.rack.queues[index]
        self.functions: tuple[VirtualFunction, ...] = ()
        self.driver: Driver | None = None
        self.interrupts = Interrupts(self._registers, machine.rack.done[index])
        self.statistics = Statistics(self._registers, machine.rack.counters[index], self._queues)
        self.clock = Clock(machine.rack, index, moment)
        self._module = Module()
        self.ready = Ready()
        self._flow_director = FlowDirector(
            self._registers, machine.rack.flows[index], self.ready, self.interrupts.flow_director_full
        )
        self.unmodelled = Unmodelled(name)
        self._describes = False
        self.history = History()
        self.breaches = Breaches(name, machine.rack.counters[index])
        self.mailboxes = Mailboxes(
            self._registers, self.breaches, partial(self.interrupts.raise_other, MAILBOX), self._tell_function
        )
        self._supervision = Supervision(self._registers, self.ready, self.breaches, self.history, machine.now)
        self._checks, self._seen = self._supervision.checks, self._supervision.seen
        self._reads: dict[int, Callable[[], int]] = {}
        self._writes: dict[int, Callable[[int], None]] = {}
        self._direct: dict[int, Callable[[int], None]] = {}
        self._set_rules()
        self.become(MODELS[DEFAULT])

    def become(self, model: Model) -> None:
        """Be a card of this kind, as after power-on."""
        self.model = model
        product = build_product_data(self.mac, model)
        self.config = ConfigSpace(product, model.device, model.subsystem)
        self._eeprom = build_eeprom(self.mac, model)
        self._phy = Phy() if model.has_phy else None
        self._resets = _RESET_VALUES.copy()
        for row, value in model.resets:
            self._resets[_places(row)] = value
        self.clock.counts_cycles = model.counts_cycles
        self._supervision.packet_memory = int(self._resets[reg.RXPBSIZE.offset // 4])
        self.power_on(f"sim:{self.name}")

    @property
    def used(self) -> bool:
        """Whether a driver has done something to it, or to a virtual function; not our own of the physical one."""
        asked = any(function.mailbox_requests for function in self.functions)
        return asked or (self.history.used and self.driver is None)

    def divide(self, functions: int) -> None:
        """Have so many virtual functions, from the first pool on (7.10.2)."""
        if functions:
            reads, writes = self.mailboxes.rules()
            self._reads |= reads
            self._direct |= writes
        self.functions = tuple(VirtualFunction(self._machine, self, number) for number in range(functions))
        with self._machine.paused():
            self._machine.rack.functions[self.index, : state.PHYSICAL] = 0
            self._words[state.FUNCTIONS], self._words[state.FUNCTION] = functions, state.PHYSICAL
            self._note_features()

    @property
    def wired(self) -> bool:
        """Whether something is plugged in."""
        rack = self._machine.rack
        return any(end[self.index, KIND] != NOTHING for end in (rack.inputs, rack.outputs))

    @property
    def linked(self) -> bool:
        """Whether somebody is at the other end of it: there is a link."""
        return bool(self._machine.rack.inputs[self.index, LINKED])

    def set_linked(self, linked: bool) -> None:
        """The link came up or went down. What serves a virtual machine sends interrupts by a thread of its own."""
        self._machine.rack.inputs[self.index, LINKED] = linked
        event = int(self._words[state.EVENT])
        self.interrupts.link_changed(send=event <= 0)
        self.attend(wait=False)
        if event > 0:
            os.eventfd_write(event, 1)

    # -----------------------------------------------------------------------------------------------------------------
    # What the bus asks for

    def config_read(self, offset: int, size: int) -> int:
        """`size` bytes of the configuration space."""
        return self.config.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write to the configuration space; the command register's bus master bit lets the card do DMA."""
        self.config.write(offset, size, value)
        self.set_bus_master(int(self.config.has(config.COMMAND, config.COMMAND_BUS_MASTER)))

    def interrupt_through(self, sink: Sink | None, event: int) -> None:
        """Send interrupts to `sink`; the rack adds one to the eventfd `event` when `interrupts.collect` has work."""
        with self._machine.paused():
            self.interrupts.sink = sink
            self._words[state.EVENT] = event
            if event == 0:
                self._words[state.RAISED] = 0  # what nobody was told of, nobody is; its words go with the wires
            self._note_features()

    def interrupt_own(self, sink: Sink) -> None:
        """Send interrupts to `sink`, in this process: the machine's thread does what `collect` does."""
        self.interrupts.expect = lambda _, throttled: self.expect(throttled)
        self.interrupt_through(sink, OWN_THREAD)

    def interrupt_for(self, driver: Driver) -> None:
        """Send interrupts to a driver that needs no thread; see `attend`."""
        self.driver = driver
        self.interrupt_through(driver, OWN_THREAD)

    def attend(self, *, wait: bool = True) -> None:
        """Whoever may have caused an interrupt has done what he was at: let such a driver see to it."""
        if self.driver is not None:
            self.driver.serve(wait=wait)

    def interrupt_no_more(self) -> None:
        """Send interrupts nowhere."""
        self.driver = None
        self.interrupt_through(None, 0)
        self.interrupts.expect = None
        self._machine.expect(self, False)

    def expect(self, throttled: float | None) -> None:
        """Tell the machine whether somebody in this process waits for an interrupt of one of the card's functions, and
        in how many seconds one may be sent that is throttled."""
        if self.interrupts_own:
            waits = self.interrupts.expect is not None and self.interrupts.waits
            waits = waits or any(function.interrupts.waits for function in self.functions)
            self._machine.expect(self, waits, throttled)

    def collect(self) -> None:
        """Take over what queues have done since the last time, each for its function."""
        size = self.pool_size
        for function in self.functions if self.divided else ():
            done = self.interrupts.take(range(function.number * size, (function.number + 1) * size))
            if done:
                function.done(done)
        self.interrupts.collect()

    def update_interrupts(self) -> float | None:
        """Send what is to be sent now; the seconds until something throttled may be sent, None if nothing is."""
        waits = [part.interrupts.update() for part in (self, *self.functions)]
        return min((wait for wait in waits if wait is not None), default=None)

    @property
    def masters_bus(self) -> bool:
        """Whether the card may use the bus."""
        return self.config.has(config.COMMAND, config.COMMAND_BUS_MASTER)

    @property
    def interrupts_own(self) -> bool:
        """Whether the machine's thread sees to the card's interrupts."""
        return int(self._words[state.EVENT]) == OWN_THREAD

    def stand_behind(self, root_table: int, requester: int) -> None:
        """Let an IOMMU translate the card's DMA, by tables in memory that it reaches; `root_table` 0: none does."""
        self.provide_translation(root_table)
        with self._machine.paused():
            self._words[state.ROOT_TABLE], self._words[state.REQUESTER] = root_table, requester
            self._physical[state.FUNCTION_ROOT], self._physical[state.FUNCTION_REQUESTER] = root_table, requester

    def provide_translation(self, root_table: int) -> None:
        """Have what translates where an IOMMU does."""
        if root_table:
            provide(self._machine.rack, TRANSLATE)

    def describe_all(self) -> None:
        """From now on report type and checksums of each packet, whether or not software asked for something of it.

        A card always does (7.1.6.2). Our own driver does not look unless it asked, and has not to wait for a kernel.
        """
        self._describes = True
        with self._machine.paused():
            self._note_features()

    def set_bus_master(self, enabled: int) -> None:
        """Let the card do DMA, or not."""
        with self._machine.paused():
            self._words[state.BUS_MASTER] = self._physical[state.FUNCTION_MASTER] = enabled

    @property
    def _physical(self) -> NDArray[np.int64]:
        """What the rack knows of the physical function while another one is at work."""
        return self._machine.rack.functions[self.index, state.PHYSICAL]

    def read32(self, offset: int) -> int:
        """A read of BAR 0 at a multiple of 4, with its side effects; beyond the BAR, all ones as on the bus."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return _ONES
        offset = _ALIASES.get(offset, offset)
        if offset not in _MODELLED:
            self.unmodelled.read(offset)
        if self._supervision.busy_until:
            self._supervision.hears(offset, writes=False)
        rule = self._reads.get(offset)
        value = self.ready.read(offset, rule() if rule else int(self._registers[offset // 4]))
        if seen := self._seen.get(offset):
            seen(value)
        if offset in self.history.reads:
            self.history.read(offset, value)
        return value

    def write32(self, offset: int, value: int) -> None:
        """A write to BAR 0 at a multiple of 4, with its side effects; beyond the BAR it goes nowhere."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return
        offset = _ALIASES.get(offset, offset)
        if offset not in _MODELLED:
            self.unmodelled.write(offset)
        if self._supervision.busy_until and not self._supervision.hears(offset, writes=True):
            return
        if offset in self.history.writes:
            self.history.write(offset, value)
        self._effect(offset, value)

    def write_for_function(self, offset: int, value: int) -> None:
        """A write by a virtual function to one of its registers, which lies here in the card's BAR 0.

        It is no part of what the physical function's driver does to bring the card up.
        """
        if not self._supervision.busy_until or self._supervision.hears(offset, writes=True):
            self._effect(offset, value)

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The register at `offset`, for kernels."""
        return self._registers[offset // 4 : offset // 4 + 1]

    def _effect(self, offset: int, value: int) -> None:
        """What a write does."""
        check = self._checks.get(offset)
        rule = self._direct.get(offset)
        if rule:
            if not check or check(value):
                rule(value)
            return
        # The rack pauses: when this returns, the write has taken effect on all that it does. A check may change what
        # the rack works with, too.
        with self._machine.paused():
            if check and not check(value):
                return
            rule = self._writes.get(offset)
            if rule:
                rule(value)
            else:
                self._take(offset, value)
            if self._supervision.concerns(offset) and self._supervision.settle():
                provide(self._machine.rack, SPOIL)
            self._note_features()

    def note_wire(self) -> None:
        """The wire has changed: what depends on it does."""
        with self._machine.paused():
            self._note_features()
            self.clock.retune()

    def _note_features(self) -> None:
        """Tell the rack which of the rarer things are enabled, and whether the card looks at the time for them."""
        registers, wire = self._registers, self._machine.rack.outputs[self.index]
        strips = bool((registers[_RX_CONTROLS] & reg.RXDCTL.mask("VME")).any())
        queues = self._get(reg.MRQC) & reg.MRQC.mask("MRQE")
        pools = bool(self._get(reg.PFVTCTL) & reg.PFVTCTL.mask("VT_ENA")) or queues in BY_CLASS
        self._words[state.POOL_SHIFT] = _QUEUES_OF_MODE.get(self._vt_mode) or _QUEUES_OF_MRQE.get(queues, 0)
        foreign = len(self.functions) * self.pool_size if self.divided else 0
        self.interrupts.foreign = self._supervision.foreign = foreign
        filters = self._filters or bool(self._get(reg.FDIRCTRL) & reg.FDIRCTRL.mask("PBALLOC"))
        cuts_crc = self._get(reg.HLREG0) & reg.HLREG0.mask("RXCRCSTRP") or self._get(reg.RDRXCTL) & _CRC_STRIP
        other_formats, coalesces = formats.are_used(registers), bool(cuts_crc) and coalesce.is_enabled(registers)
        describes = self._describes or not cuts_crc or other_formats or coalesces
        describes = describes or self._get(reg.RXCSUM) or self._get(reg.MRQC)
        features = (
            state.CLASSIFY * bool(describes or pools or filters)
            | state.FILTER * filters
            | state.POOLS * pools
            | state.FORMATS * other_formats
            | state.KEEP_CRC * (not cuts_crc)
            | state.REPORT * write_back.is_batched(registers)
            | state.COALESCE * coalesces
            | state.CHECK_VLAN * bool(self._get(reg.VLNCTRL) & reg.VLNCTRL.mask("VFE"))
            | state.STRIP_VLAN * strips
            | state.LOOPBACK * bool(self._get(reg.HLREG0) & reg.HLREG0.mask("LPBK"))
            | state.INTERRUPT * bool(self._words[state.EVENT])
            | state.STAMP * bool(self._get(reg.TSYNCRXCTL) & reg.TSYNCRXCTL.mask("EN"))
            | state.STAMP_SENT * bool(self._get(reg.TSYNCTXCTL) & reg.TSYNCTXCTL.mask("EN"))
            | state.LIMIT * bool(self._queues[:, state.QUEUE_FACTOR].any())
            | state.VIRTUAL * bool(self.functions or (pools and self._switches()))
            | state.CONTROL * bool(self._get(reg.MFLCN))
            | state.BUFFER * bool(self._words[state.BUFFERED] or (self._sends_pauses() and not self._wire_waits()))
        )
        plain = self._get(reg.HLREG0) & _FINISHES == _FINISHES
        self._words[state.USUAL] = USUAL_FORM if plain else 0
        time_counts = bool(wire[SPEED] or wire[FLIGHT] or features & state.BY_TIME or self._words[state.PAUSED_UNTIL])
        provide(self._machine.rack, *of_features(features), *(timed.SLOTS if time_counts else ()))
        self._words[state.FEATURES] = features
        wire[TIMED] = time_counts

    @property
    def _vt_mode(self) -> int:
        return self._decode(reg.GCR_EXT)["VT_MODE"]

    @property
    def divided(self) -> bool:
        """Whether queues belong to virtual functions: there are some, and GCR_EXT says how many queues each has."""
        return bool(self.functions) and self._vt_mode != 0

    @property
    def pool_size(self) -> int:
        """How many queues a pool has."""
        return 1 << int(self._words[state.POOL_SHIFT])

    def _switches(self) -> bool:
        """Whether frames that pools send go to others, are tagged for them, or are looked at."""
        registers = self._registers
        return bool(
            self._get(reg.PFDTXGSWC) & reg.PFDTXGSWC.mask("LBE")
            or registers[_INSERTIONS].any()
            or registers[_SPOOF_CHECKS].any()
        )

    def _sends_pauses(self) -> bool:
        """Whether software has switched on pause frames for the first packet buffer (3.7.7.3.3)."""
        enabled = self._get(reg.FCRTH[0]) & reg.FCRTH.mask("FCEN")
        return bool(enabled) and self._decode(reg.FCCFG)["TFCE"] == reg.TFCE_LINK

    def _wire_waits(self) -> bool:
        """Whether what delivers frames waits for the card by itself, so that there is nothing to ask for."""
        wire = self._machine.rack.inputs[self.index]
        return bool(wire[KIND] != NOTHING and wire[SPEED] == 0 and wire[PACED] == 0)

    def _note_filters(self) -> None:
        """Note whether there are filters by Ethertype, five fields or SYN."""
        registers = self._registers
        enabled = np.flatnonzero(registers[_FIVE_FIELDS] & reg.FTQF.mask("QUEUE_ENABLE"))
        self._words[state.FIVE_FIELDS] = int(enabled[-1]) + 1 if len(enabled) else 0
        self._filters = bool(
            len(enabled)
            or (registers[_ETHERTYPES] & reg.ETQF.mask("FILTER_ENABLE")).any()
            or self._get(reg.SYNQF) & reg.SYNQF.mask("QUEUE_ENABLE")
        )

    def look(self) -> None:
        """Find what software breaks by leaving things as they are; see `Breaches`."""
        self._supervision.look(self._masters, self._may_send)

    def _masters(self, queue: int) -> bool:
        """Whether the function that a queue belongs to may use the bus."""
        function = self._function_of(queue)
        return self.masters_bus if function is None else function.masters_bus

    def _may_send(self, queue: int) -> bool:
        """Whether PFVFTE lets a queue send."""
        function = self._function_of(queue)
        return function is None or bool(self._get(reg.PFVFTE[function.number // 32]) >> function.number % 32 & 1)

    def _function_of(self, queue: int) -> VirtualFunction | None:
        pool = queue // self.pool_size
        return self.functions[pool] if self.divided and pool < len(self.functions) else None

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing registers does that are more than memory, by offset."""
        return self._reads, self._writes | self._direct

    # -----------------------------------------------------------------------------------------------------------------
    # Reset

    def power_on(self, seed: int | str) -> None:
        """Everything as after power-on. What has no value then holds something else for each seed."""
        self.reset(Reset.POWER)
        noise = np.frombuffer(random.Random(seed).randbytes(reg.BAR0_SIZE), np.uint32)
        self._registers[:] |= noise & _UNDEFINED
        self._load_address()

    def reset(self, kind: Reset) -> None:
        """4.2.1: registers to their defaults but for what survives; statistics are as if they had been read."""
        kept = _KEPT[kind]
        self._registers[:] = self._registers & kept | self._resets & ~kept
        self._load_address()
        for column in state.UNTIL_RESET:
            self._words[column] = 0
        self._machine.rack.contexts[self.index] = 0
        self._queues[:, state.QUEUE_UNTIL_RESET] = 0
        self.statistics.reset()
        self.interrupts.reset()
        self._flow_director.reset()
        self.mailboxes.reset()
        self._note_filters()
        self.ready.forget()
        self._supervision.reset()
        self.history.reset()
        self.ready.begin(reg.EEC, reg.EEC.mask("AUTO_RD", "DONE"), turns=2)
        self.ready.begin(reg.RDRXCTL, reg.RDRXCTL.mask("DMAIDONE"), turns=2)
        if kind >= Reset.LINK:
            self._restart_link()
        self._note_features()

    def disable_queues(self, queues: range) -> None:
        """These queues stop, as a function of which they are is reset."""
        for queue in queues:
            for row in (reg.RXDCTL, reg.TXDCTL):
                if self._get(row[queue]):
                    self._effect(row.offsets[queue], 0)

    def function_level_reset(self, number: int) -> None:
        """A virtual function is reset through its configuration space: nothing comes to it, or goes, until the physical
        function says so again, which is told (8.2.3.27.5)."""
        word, bit = divmod(number, 32)
        for row in (reg.PFVFRE, reg.PFVFTE):
            self._put(row[word], self._get(row[word]) & ~(1 << bit))
        self._put(reg.PSRTYPE[number], 0)
        self._put(reg.PFVFLRE[word], self._get(reg.PFVFLRE[word]) | 1 << bit)
        self.interrupts.raise_other(MAILBOX)

    def _tell_function(self, number: int) -> None:
        if number < len(self.functions):
            self.functions[number].interrupts.mailbox()

    def _load_address(self) -> None:
        """The first receive address comes from the EEPROM (8.2.3.7.9)."""
        self._set(reg.RAL[0], ADDRESS=int.from_bytes(self.mac[:4], "little"))
        self._set(reg.RAH[0], ADDRESS=int.from_bytes(self.mac[4:], "little"), AV=1)

    def _restart_link(self) -> None:
        self.ready.begin(reg.LINKS, reg.LINKS.mask("LINK_UP", "LINK_SPEED"))
        self.ready.begin(reg.STATUS, reg.STATUS.mask("LINKUP"))

    # -----------------------------------------------------------------------------------------------------------------
    # Rules

    def _set_rules(self) -> None:
        reads, writes = self._reads, self._writes
        reads[reg.STATUS.offset] = self._read_status
        reads[reg.LINKS.offset] = self._read_links
        reads[reg.SWSM.offset] = self._read_swsm
        reads[reg.SW_FW_SYNC.offset] = self._read_sw_fw_sync
        reads[reg.I2CCTL.offset] = self._read_i2cctl
        reads[reg.RTTBCNRC.offset] = self._read_rttbcnrc
        for row, hidden in _HIDDEN:
            reads |= {offset: partial(self._read_visible, offset, ~hidden) for offset in row.offsets}
        reads |= self.statistics.rules()
        for part in (self.clock, self._flow_director):
            part_reads, part_writes = part.rules()
            reads |= part_reads
            writes |= part_writes
        writes[reg.SYNQF.offset] = partial(self._write_filter, reg.SYNQF.offset)
        writes |= {offset: partial(self._write_filter, offset) for offset in reg.ETQF.offsets}
        writes[reg.CTRL.offset] = self._write_ctrl
        writes[reg.CTRL_EXT.offset] = self._write_ctrl_ext
        writes[reg.EEC.offset] = self._write_eec
        writes[reg.EERD.offset] = self._write_eerd
        writes[reg.AUTOC.offset] = self._write_autoc
        writes[reg.RTTBCNRC.offset] = self._write_rttbcnrc
        writes[reg.MSCA.offset] = self._write_msca
        writes[reg.SECRXCTRL.offset] = self._write_secrxctrl
        writes[reg.DMATXCTL.offset] = self._write_dmatxctl
        for row, rule in (
            (reg.TXDCTL, self._write_txdctl),
            (reg.RXDCTL, self._write_rxdctl),
        ):
            writes |= {offset: partial(rule, queue) for queue, offset in enumerate(row.offsets)}
        self._set_direct_rules()

    def _set_direct_rules(self) -> None:
        """Rules whose effects the rack need not wait for."""
        interrupt_reads, interrupt_writes = self.interrupts.rules()
        self._reads |= interrupt_reads
        self._direct |= interrupt_writes
        self._direct |= {at: partial(self._write_pfvflrec, word) for word, at in enumerate(reg.PFVFLREC.offsets)}
        self._direct[reg.I2CCTL.offset] = self._write_i2cctl
        for row in (*_DOORBELLS, *_TABLES):
            self._direct |= {at: partial(self._take, at) for at in row.offsets}
        self._direct |= {at: partial(self._write_ftqf, at) for at in reg.FTQF.offsets}
        self._direct[reg.FDIRCMD.offset] = self._write_fdircmd

    def _read_visible(self, offset: int, visible: int) -> int:
        return int(self._registers[offset // 4]) & visible

    def _read_status(self) -> int:
        """PCIE_MASTER_ENABLE falls once software has disabled the master (5.2.5.3.2)."""
        disabled = self._decode(reg.CTRL)["PCIE_MASTER_DISABLE"]
        return reg.STATUS.value(PCIE_MASTER_ENABLE=1 - disabled, LINKUP=int(self.linked))

    def _read_links(self) -> int:
        """At 10 Gbit/s, unless the wire has a speed that the card also knows (8.2.3.22.20)."""
        speed = _LINK_SPEEDS.get(int(self._machine.rack.outputs[self.index, SPEED]), 3)
        speed = self._phy.speed(speed) if self._phy else speed
        return reg.LINKS.value(LINK_UP=1, LINK_SPEED=speed) if self.linked and speed else 0

    def _read_swsm(self) -> int:
        """Reading takes the semaphore: SMBI is 0 for the one who got it (10.5.4)."""
        value = self._get(reg.SWSM)
        self._put(reg.SWSM, value | reg.SWSM.mask("SMBI"))
        return value

    def _read_sw_fw_sync(self) -> int:
        """Of an X540, reading takes the semaphore: REGSMP is 0 for the one who got it."""
        value = self._get(reg.SW_FW_SYNC)
        if self.model.has_phy:
            self._put(reg.SW_FW_SYNC, value | reg.SW_FW_SYNC.mask("REGSMP"))
        return value

    def _write_ctrl(self, value: int) -> None:
        """Resets clear themselves; that of the link takes the device along (8.2.3.1.1)."""
        resets = value & reg.CTRL.mask("RST", "LRST")
        if not resets:
            self._take(reg.CTRL.offset, value)
            return
        self.reset(Reset.LINK if resets & reg.CTRL.mask("LRST") else Reset.SOFTWARE)
        self.ready.begin(reg.CTRL, resets, shown=resets)
        self._supervision.reset_begins()

    def _write_ctrl_ext(self, value: int) -> None:
        """PFRSTD tells virtual functions that the physical one is up again, and clears itself (8.2.3.1.3)."""
        self._take(reg.CTRL_EXT.offset, value)
        if value & reg.CTRL_EXT.mask("PFRSTD"):
            self.mailboxes.physical_done()

    def _write_pfvflrec(self, word: int, value: int) -> None:
        """The physical function has seen to the resets of these functions (8.2.3.27.6)."""
        register = reg.PFVFLRE[word]
        self._put(register, self._get(register) & ~value)

    def _write_eec(self, value: int) -> None:
        """Access to the EEPROM is granted as soon as it is asked for (8.2.3.2.1)."""
        self._take(reg.EEC.offset, value)
        self._set(reg.EEC, EE_GNT=reg.EEC.decode(value)["EE_REQ"])

    def _write_eerd(self, value: int) -> None:
        """Read one word of the EEPROM, which takes its time (8.2.3.2.2)."""
        fields = reg.EERD.decode(value)
        if fields["START"]:
            word = self._eeprom[fields["ADDR"] % EEPROM_WORDS]
            self._put(reg.EERD, reg.EERD.value(DONE=1, ADDR=fields["ADDR"], DATA=word))
            self.ready.begin(reg.EERD, reg.EERD.mask("DONE", "DATA"))

    def _write_secrxctrl(self, value: int) -> None:
        """The receive path through the security block empties (4.6.7)."""
        halts = reg.SECRXCTRL.decode(value)["RX_DIS"]
        self._take(reg.SECRXCTRL.offset, value)
        self._change(reg.SECRXSTAT, SECRX_RDY=halts)

    def _write_dmatxctl(self, value: int) -> None:
        """Setting TE enables transmit queue 0, too (8.2.3.9.10)."""
        starts = value & ~self._get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE")
        self._take(reg.DMATXCTL.offset, value)
        if starts:
            self._change(reg.TXDCTL[0], ENABLE=1)
            self._words[state.TX_QUEUES] = self._running(_TX_CONTROLS)

    def _write_txdctl(self, queue: int, value: int) -> None:
        """A packet of which only a part was fetched is forgotten with its queue; the software flush clears itself."""
        enabled = reg.TXDCTL.decode(value)["ENABLE"]
        self._change(reg.TXDCTL[queue], ENABLE=enabled)
        self._take(reg.TXDCTL.offsets[queue], value)
        self._words[state.TX_QUEUES] = self._running(_TX_CONTROLS)
        if not enabled:
            self._machine.rack.queues[self.index, queue, state.QUEUE_UNREPORTED] = 0
        if not enabled and self._words[state.STAGING] == queue:
            self._words[state.STAGED] = self._words[state.OFFLOAD] = 0

    def _write_rxdctl(self, queue: int, value: int) -> None:
        enabled = reg.RXDCTL.decode(value)["ENABLE"]
        self._change(reg.RXDCTL[queue], ENABLE=enabled)
        if not enabled:
            coalesce.forget(self._machine.rack, self.index, queue)
        self._take(reg.RXDCTL.offsets[queue], value)
        self._words[state.RX_QUEUES] = self._running(_RX_CONTROLS)

    def _running(self, controls: NDArray[np.intp]) -> int:
        """As many queues as the rack has to look at: up to the last that is enabled."""
        enabled = np.flatnonzero(self._registers[controls] & reg.RXDCTL.mask("ENABLE"))
        return int(enabled[-1]) + 1 if len(enabled) else 0

    def _write_filter(self, offset: int, value: int) -> None:
        """Enabled, it is looked at for each packet that arrives."""
        self._take(offset, value)
        self._note_filters()

    def _write_ftqf(self, offset: int, value: int) -> None:
        """Enabled, it is looked at for each packet that arrives. That drivers clear all of them is quick."""
        if not (value | int(self._registers[offset // 4])) & reg.FTQF.mask("QUEUE_ENABLE"):
            self._take(offset, value)
            return
        with self._machine.paused():
            self._write_filter(offset, value)
            self._note_features()

    def _write_fdircmd(self, value: int) -> None:
        """A command to the flow director. Those that add filters are frequent: Linux adds one for each 20th packet."""
        if self._flow_director.adds(value):
            self._flow_director.command(value)
            return
        with self._machine.paused():
            self._flow_director.command(value)

    def _write_autoc(self, value: int) -> None:
        """The link restarts (3.7.4.2)."""
        self._take(reg.AUTOC.offset, value)
        if value & reg.AUTOC.mask("RESTART_AN"):
            self._negotiate()

    def _negotiate(self) -> None:
        """The link goes down and comes up, if there is one."""
        self._restart_link()
        if self.linked:
            self.interrupts.link_changed()

    def _read_rttbcnrc(self) -> int:
        """That of the queue which RTTDQSEL selects (8.2.3.10.8)."""
        factor = int(self._limited[state.QUEUE_FACTOR])
        return reg.RTTBCNRC.value(RF=factor, RS_ENA=1) if factor else 0

    def _write_rttbcnrc(self, value: int) -> None:
        """For the queue that RTTDQSEL selects: it is so many times slower than the link (8.2.3.10.16)."""
        self._take(reg.RTTBCNRC.offset, value)
        fields = reg.RTTBCNRC.decode(value)
        self._limited[state.QUEUE_FACTOR] = fields["RF"] * fields["RS_ENA"]
        self._limited[state.QUEUE_DUE] = 0

    @property
    def _limited(self) -> NDArray[np.int64]:
        """The words of the transmit queue that RTTDQSEL selects."""
        return self._queues[self._get(reg.RTTDQSEL)]

    def _write_msca(self, value: int) -> None:
        """A frame on the management bus is done at once; where nobody answers, reads give ones (8.2.3.22.11)."""
        self._take(reg.MSCA.offset, value)
        data, restarts = 0xFFFF, False
        if self._phy:
            written = self._decode(reg.MSRWD)["WRITE"]
            data, restarts = self._phy.transfer(value, written, bool(self._read_links()))
        self._set(reg.MSRWD, READ=data)
        if restarts:
            self._negotiate()

    def _read_i2cctl(self) -> int:
        fields = self._decode(reg.I2CCTL)
        return reg.I2CCTL.value(**fields | {"CLK_IN": fields["CLK_OUT"], "DATA_IN": self._module.data})

    def _write_i2cctl(self, value: int) -> None:
        """Software drives the wires to the module bit by bit (8.2.3.1.6)."""
        self._put(reg.I2CCTL, value)
        fields = reg.I2CCTL.decode(value)
        self._module.drive(fields["CLK_OUT"], fields["DATA_OUT"])

    # -----------------------------------------------------------------------------------------------------------------
    # The register file

    def _take(self, offset: int, value: int) -> None:
        """What software writes changes the bits that it can write."""
        word = offset // 4
        writable = int(_WRITABLE[word])
        self._registers[word] = int(self._registers[word]) & ~writable | value & writable

    def _change(self, register: Register, **fields: int) -> None:
        """The card changes some fields, which takes its time to show."""
        before = self._get(register)
        self._set(register, **fields)
        if self._get(register) != before:
            self.ready.begin(register, register.mask(*fields), shown=before)
