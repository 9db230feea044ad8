"""The machine that simulated cards are plugged into: it runs them, and lets them reach memory."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakSet, ref

import numpy as np

from ixy import clock
from ixy.counts import BED, HEARD, RECEIVED
from ixy.errors import AddressError, ConfigurationError, DeviceBusy, Error
from ixy.once import once
from ixy.packets.dma import DmaMapping, DmaMemory, window
from ixy.process import Owner
from ixy.registers import Reset
from ixy.sim import short as short  # whose kernel finds its slot by itself
from ixy.sim import switch as switch
from ixy.sim import timed
from ixy.sim.bed import Bed
from ixy.sim.card import descriptors as descriptors  # as this one's does
from ixy.sim.card import state
from ixy.sim.card.registers import Card
from ixy.sim.checklist import Report, report_of
from ixy.sim.loop import ALARMED, PARKED, STOPPED, run, step
from ixy.sim.physical import Physical
from ixy.sim.rack import (
    ALARM,
    ASLEEP,
    AWAITED,
    BROKEN,
    CARDS,
    DUE,
    FAR,
    FOLLOWING,
    FREE,
    KIND,
    NOTHING,
    PAGE,
    PAUSE,
    PAUSED,
    PLUGGED,
    REST,
    RESUMED,
    SLOT,
    SPEED,
    STOP,
    Rack,
    new_rack,
)
from ixy.sim.slots import of_wire, provide, provide_wanted
from ixy.sim.spec import Grant, Spec, check_files, function_of, parse_spec
from ixy.sim.virtual import advance
from ixy.sim.wires import flight
from ixy.sim.wires.cable import PEER, Cable, way
from ixy.sim.wires.impair import Impaired, counts, under_way
from ixy.sim.wires.sink import SinkReport, report
from ixy.sim.wires.tape import mapped, tape
from ixy.sim.wires.wire import Port, Wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.card.virtual_function import VirtualFunction
    from ixy.sim.qemu.memory import GuestMemory

__all__ = ["BUS_BASE", "Machine", "SinkReport", "machine"]

log = logging.getLogger("ixy.sim")

# Where the simulated bus shows DMA memory. No pointer of a process looks like this, so a driver that hands a pointer to
# a card is found out.
BUS_BASE = 0x0A_0000_0000_0000

_NAP = 50e-6  # seconds: the shortest sleep when something is due
_SHORTEST_SLEEP, _LONGEST_SLEEP = 0.001, 0.1  # when nothing is
_WATCH = 100_000_000  # nanoseconds: so late is it noticed that a partner has gone who did not say so

# All machines of the process. They share the tape, so no two cards have the same index: who takes or frees one holds
# the lock.
_machines: WeakSet[Machine] = WeakSet()
_indices = threading.RLock()  # the collector may close a device while a card is being made


def _forget() -> None:
    """A forked child has no machine yet."""
    global _machines, _indices
    _machines, _indices = WeakSet[Machine](), threading.RLock()


os.register_at_fork(after_in_child=_forget)


@dataclass
class Plug:
    """An open card, what its address says, and who has it, if that is known."""

    card: Card
    spec: Spec
    holder: ReferenceType[object] | None
    stack: ExitStack = field(default_factory=ExitStack)
    physical: Physical | None = None  # who is its physical function's driver, if that is ours
    # Who has its virtual ones, by their numbers
    functions: dict[int, ReferenceType[object] | None] = field(default_factory=dict[int, Any])

    @property
    def wires(self) -> tuple[Wire, ...]:
        """What is plugged into it."""
        return self.spec.wires

    @property
    def forgotten(self) -> bool:
        """Whether who had it is gone."""
        return self.holder is not None and self.holder() is None

    def drop_forgotten(self) -> None:
        """Take back the virtual functions whose holders are gone."""
        for number in [number for number, holder in self.functions.items() if holder is not None and holder() is None]:
            self.take_back(number)

    def take_back(self, number: int) -> None:
        """A virtual function is open no more: it is reset."""
        function = self.card.functions[number]
        function.interrupt_no_more()
        function.config.reset()
        function.set_bus_master(0)
        function.reset()
        self.functions.pop(number, None)


class Machine:
    """Up to 16 simulated cards. Any number of threads may plug cards in and unplug them.

    Args:
        stepped: no thread runs the cards: they move only in `step`, which makes a test deterministic.
        memory: a virtual machine's memory, at whose places the cards' bus addresses point; by default the cards reach
            the DMA memory of this process, at bus addresses that start at `BUS_BASE`.
        now: the clock by which the cards' drivers pause, in nanoseconds; by default the system's.

    Attributes:
        rack: the state of all cards.
        cards: those that are open, and those at the far end of a cable to one, by name.
        owner: the process whose machine it is; what others do to their copy of it touches nothing.
    """

    def __init__(
        self,
        *,
        stepped: bool = False,
        memory: NDArray[np.uint8] | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.now = now
        if memory is None:
            self.rack: Rack = new_rack(window().bytes, BUS_BASE, tape())
        else:
            self.rack = new_rack(memory, 0, tape())
        self.cards: dict[str, Card] = {}
        self.owner = Owner()
        self._plugs: dict[str, Plug] = {}
        self._reports: dict[str, Report] = {}  # of cards that are gone
        self._holders: dict[int, set[int]] = {}  # who has memory mapped, by its offset
        self._shown: list[slice] = []
        self._stepped = stepped
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None  # what ended the thread
        self._parked = False
        self._bed: Bed | None = None  # where the thread sleeps,
        self._slept = _SHORTEST_SLEEP  # and for how long the last time
        self._goes_to_bed = False  # all who may rouse the thread know that it sleeps once it has looked again
        self._loops: list[ReferenceType[NDArray[np.int64]]] = []  # words of the paths that ring doorbells
        self._lock = threading.RLock()
        self._expecting = threading.RLock()
        self._seeing = threading.RLock()
        self._look = 0  # when to look for partners
        with _indices:
            _machines.add(self)

    # -----------------------------------------------------------------------------------------------------------------
    # Cards

    def plug_in(self, address: str, holder: object = None) -> Card:
        """Take the card that `address` names, and plug in what it says.

        Args:
            holder: who takes it. If he is gone and has not unplugged it, since an exception came before he knew that he
                had it, the next one gets it.

        Raises:
            AddressError: malformed, or too many cards.
            DeviceBusy: the card is open already.
            OwnershipError: this is another process's machine.
            CaptureError, PermissionDenied, …: what is to be plugged in cannot be.
        """
        spec = parse_spec(address)
        if spec.vf is not None:
            raise AddressError(f"{address}: is a virtual function, which is plugged in with its card")
        return self._plug_in(spec, holder).card

    def plug_in_function(self, address: str, holder: object = None) -> VirtualFunction:
        """Take the virtual function that `address` names; with the first one of a card, that is plugged in.

        Whoever has the card itself is the driver of its physical function. If nobody has, that is ours, see
        `ixy.sim.physical`, until the last of the functions is given back.

        Raises:
            AddressError: malformed; or the card has fewer functions, or is plugged in already, in another way.
            DeviceBusy: the function is open already.
            …: as `plug_in`.
        """
        spec = parse_spec(address)
        if spec.vf is None:
            raise AddressError(f"{address}: is no virtual function: write sim:{spec.name}.vf0")
        with self._lock:
            self._pull_forgotten()
            plug = self._plugs.get(spec.name)
            if plug is not None:
                return self._take_function(plug, spec, holder)
        physical = Physical(self)
        plug = self._plug_in(spec, physical, physical, {spec.vf: None if holder is None else ref(holder)})
        try:
            with self._lock:
                physical.begin(plug.card)
                physical.grant(spec.vf, spec.grant)
        except BaseException:
            self._pull(plug)
            raise
        return plug.card.functions[spec.vf]

    def _take_function(self, plug: Plug, spec: Spec, holder: object) -> VirtualFunction:
        """Take a virtual function of a card that is plugged in."""
        number, functions = spec.vf or 0, plug.card.functions
        if not spec.shared:
            raise AddressError(
                f"sim:{spec.full_name}: sim:{spec.name} is open already, with what is plugged in: "
                f"open it as sim:{spec.full_name}"
            )
        if number >= len(functions):
            raise AddressError(
                f"sim:{spec.full_name}: sim:{spec.name} was opened with vfs={len(functions)}: "
                f"that takes vfs={number + 1} at least"
            )
        if number in plug.functions:
            raise DeviceBusy(f"sim:{spec.full_name} is open already: close it first")
        if plug.physical is None and spec.grant != Grant():
            raise AddressError(
                f"sim:{spec.full_name}: another driver has the physical function, and says what its functions may: "
                "leave out mac, vlan, spoof and trust"
            )
        if plug.physical is not None and not plug.physical.functions:
            raise DeviceBusy(f"sim:{spec.name} is just being plugged in: try again")
        if plug.physical is not None:
            plug.physical.grant(number, spec.grant)
        plug.functions[number] = None if holder is None else ref(holder)
        return functions[number]

    def unplug_function(self, function: VirtualFunction, holder: object = None) -> None:
        """Give a virtual function back; with the last one the card is unplugged, if its other driver is ours. A second
        call does nothing.

        Args:
            holder: who had taken it; another one may have it by now, who keeps it.

        Raises:
            CaptureError: what the card sent could not all be written to its file.
        """
        plug = self._plugs.get(function.card.name)
        if plug is None or plug.card is not function.card or not self.owner.mine():
            return
        with self._lock:
            taken = plug.functions.get(function.number)
            known = None if taken is None else taken()
            if function.number in plug.functions and (holder is None or known is None or known is holder):
                plug.take_back(function.number)
            if plug.physical is not None and not plug.functions:
                self._report_refused(plug.card)
                self._pull(plug)

    def _pull_forgotten(self) -> None:
        """Unplug what nobody has any more."""
        for plug in list(self._plugs.values()):
            plug.drop_forgotten()
            if plug.forgotten or (plug.physical is not None and not plug.functions):
                self._pull(plug)

    def _plug_in(
        self,
        spec: Spec,
        holder: object,
        physical: Physical | None = None,
        functions: dict[int, ReferenceType[object] | None] | None = None,
    ) -> Plug:
        self.owner.check(f"the machine of sim:{spec.name}")
        plug: Plug | None = None
        try:
            with self._lock:
                self._pull_forgotten()
                if spec.name in self._plugs:
                    ours = self._plugs[spec.name].physical is not None
                    what = "in use by its virtual functions: close them" if ours else "open already: close it"
                    raise DeviceBusy(f"sim:{spec.name} is {what} first")
                check_files((*_plugged_wires(), *spec.wires))
                self._check_clock(spec)
                card = self.card(spec.name)
                if card.model is not spec.model:
                    with self.paused():
                        card.become(spec.model)
                if len(card.functions) != spec.vfs:
                    card.divide(spec.vfs)
                card.ready.reads = spec.ready
                known = None if holder is None else ref(holder)
                plug = self._plugs[spec.name] = Plug(card, spec, known, physical=physical, functions=functions or {})
                if spec.virtual:
                    clock.start(self)
                self.rack.control[FOLLOWING] = FAR if spec.virtual else 0
            self._connect(plug)
            if spec.seed is not None:
                with self.paused():
                    card.power_on(spec.seed)
            self._set_speeds()
            self._see_links()
            if any(wire.watched for wire in spec.wires):
                self._rouse_by(1)
            self._run()
            return plug
        except BaseException:
            if plug is not None:
                self._pull(plug)
            raise

    def unplug(self, card: Card, holder: object = None) -> None:
        """Take the card's wire away, as when a device is closed; files are complete then. A second call does nothing.

        Args:
            holder: who had taken it. A card at the far end of a cable may be another holder's by now, who keeps it.

        Raises:
            CaptureError: what the card sent could not all be written to its file.
        """
        plug = self._plugs.get(card.name)
        if plug is None or plug.card is not card or not self.owner.mine():
            return
        known = None if plug.holder is None else plug.holder()
        if holder is None or known is None or known is holder:
            self._report_refused(card)
            self._pull(plug)

    def card(self, name: str) -> Card:
        """The card of this name; one that was only the far end of a cable so far, or a new one.

        Raises:
            AddressError: there are too many.
        """
        with self._lock, _indices:
            if name not in self.cards:
                taken = {card.index for machine in _machines for card in machine.cards.values()}
                free = [index for index in range(CARDS) if index not in taken]
                if not free:
                    raise AddressError(f"sim:{name}: {CARDS} simulated cards are in use, that is all there are")
                for rows in (
                    self.rack.cards,
                    self.rack.counters,
                    self.rack.queues,
                    self.rack.functions,
                    self.rack.inputs,
                    self.rack.outputs,
                ):
                    rows[free[0]] = 0
                self.cards[name] = Card(self, free[0], name)
                self._set_plugged()
            return self.cards[name]

    def wires(self) -> list[Wire]:
        """What is plugged into the open cards."""
        return [wire for plug in list(self._plugs.values()) for wire in plug.wires]

    def sink_report(self, generator: str, sink: str) -> SinkReport:
        """What the generator of one card sent, and what the sink of another found."""
        return report(self.rack, self.cards[generator], self.cards[sink])

    def report(self, name: str) -> Report:
        """What the driver of a card did; see `ixy.sim.report`.

        Raises:
            ConfigurationError: no such card was ever open.
        """
        name = function_of(name)[0]
        if name in self.cards:
            return report_of(self.cards[name])
        if name not in self._reports:
            raise ConfigurationError(f"sim:{name} was never open: open it, then ask for its report")
        return self._reports[name]

    def impairments(self, name: str, *, arriving: bool = False) -> NDArray[np.void]:
        """What the cable has done to each frame that a card sent, or to each that was sent to it.

        Returns:
            Of each frame its number, from 0, when it was `sent` and `arrives`, in ns of the monotonic clock or of a
            virtual one, `what` became of it, a sum of `Fate`s, its length in bytes without the frame check sequence,
            and the number of the bit that was inverted, -1 if none was. A frame that never arrives has 0 as `arrives`.
            A copy has an element of its own, behind its original. Of the last 1,048,576 frames, the oldest first;
            shape (n,), structured.

        Raises:
            ConfigurationError: no such card is open, or nothing impairs its frames.
        """
        with self.paused():
            return flight.records(self.rack.tape_words, self._way(name, arriving))

    def impaired(self, name: str, *, arriving: bool = False) -> Impaired:
        """The same in numbers of frames, all of them; raises likewise."""
        return counts(self.rack.tape_words, self._way(name, arriving))

    def under_way(self, name: str) -> int:
        """How many frames that a card sent are on their way along a cable that impairs.

        Raises:
            Error: the thread that runs the cards has died: they would never arrive.
        """
        self._check_thread()
        card = self.card_of(name)
        found = way(self.rack, card.index, arriving=False) if card is not None else 0
        return under_way(self.rack.tape_words, found) if found else 0

    def _way(self, name: str, arriving: bool) -> int:
        found = way(self.rack, self.cards[name].index, arriving) if name in self.cards else 0
        if not found:
            raise ConfigurationError(
                f"sim:{name}: nothing impairs its frames: open it with a cable that does, such as cable=b,loss=0.01"
            )
        return found

    def dma_refused(self, card: Card) -> int:
        """How many DMA accesses of the card were refused."""
        return int(self.rack.counters[card.index, state.DMA_REFUSED])

    def dma_refused_to(self, name: str) -> int:
        """The same of a card or a virtual function by its name; 0 if there is none that is open."""
        card = self.card_of(name)
        if card is None:
            return 0
        number = function_of(name)[1]
        return self.dma_refused(card) if number is None else card.functions[number].dma_refused

    def card_of(self, name: str) -> Card | None:
        """The open card that has this name, or has the virtual function with this name."""
        return self.cards.get(function_of(name)[0])

    def _connect(self, plug: Plug) -> None:
        """Plug in the wires. They may wait long for their files: the other cards go on meanwhile."""
        card, port = plug.card, Port(self, plug.card)
        if card.wired and not all(wire.stays for wire in plug.wires):
            raise AddressError(f"sim:{card.name}: a cable is plugged in already: open it as sim:{card.name}")
        plug.stack.enter_context(mapped(card.index * SLOT, state.PART_SIZE))
        if plug.spec.speed or any(wire.timed for wire in plug.wires):
            provide(self.rack, *timed.SLOTS)
        for wire in plug.wires:
            provide(self.rack, *of_wire(wire))
            plug.stack.enter_context(wire.plugged(port))
            with self.paused():
                if wire.next_frame is not None:
                    port.input[KIND] = wire.kind
                if wire.emit is not None:
                    port.output[KIND] = wire.kind

    def _pull(self, plug: Plug) -> None:
        """Undo all that was done for an open card."""
        card, rack = plug.card, self.rack
        with ExitStack() as stack:
            stack.callback(self._forget, card)
            for number in list(plug.functions):
                stack.callback(plug.take_back, number)
            stack.callback(plug.stack.close)  # goes on where the first was interrupted
            stack.callback(plug.stack.close)
            with self.paused():
                card.reset(Reset.FUNCTION)
                card.interrupt_no_more()
                if rack.outputs[card.index, KIND] != Cable.kind:
                    rack.inputs[card.index, KIND] = rack.outputs[card.index, KIND] = NOTHING

    def _set_speeds(self) -> None:
        """Let frames take their time where an address says so; a cable is as fast as the slower of its ends."""
        with self._lock:
            speeds = {plug.card.index: plug.spec.speed for plug in list(self._plugs.values())}
            for index in range(CARDS):
                inward, outward = self.rack.inputs[index], self.rack.outputs[index]
                ends = [speeds.get(index, 0), speeds.get(int(outward[PEER]), 0) if outward[KIND] == Cable.kind else 0]
                speed = min(filter(None, ends), default=0)
                if speed != outward[SPEED]:
                    with self.paused():
                        outward[SPEED] = inward[SPEED] = speed
                        inward[FREE] = outward[FREE] = inward[REST] = outward[REST] = 0
            with self.paused():
                for card in list(self.cards.values()):
                    card.note_wire()

    def _see_links(self) -> None:
        """Find out which cards have somebody at the other end, and tell those for which it changed."""
        with self._seeing:  # first: of two who look at once, the later one must know what the other one knew
            plugs = list(self._plugs.values())
            present = {plug.card.index for plug in plugs}
            for plug in plugs:
                if plug.card.linked != (linked := self._has_partner(plug, present)):
                    log.info("sim:%s: the link is %s", plug.card.name, "up" if linked else "down")
                    plug.card.set_linked(linked)

    def _has_partner(self, plug: Plug, present: set[int]) -> bool:
        """Whether somebody is at the other end of what is plugged in: of a cable, another open card."""
        output = self.rack.outputs[plug.card.index]
        if output[KIND] == Cable.kind:
            return int(output[PEER]) in present
        return plug.card.wired and all(wire.linked(Port(self, plug.card)) for wire in plug.wires)

    def _watch(self) -> None:
        """Look now and then for partners that come and go without a word."""
        watched = [(wire, plug) for plug in list(self._plugs.values()) for wire in plug.wires if wire.watched]
        if watched:
            now = time.monotonic_ns()
            if self._stepped or now >= self._look:
                self._look = now + _WATCH
                for wire, plug in watched:
                    wire.tend(Port(self, plug.card))
                self._see_links()
            self._rouse_by(self._look)

    def _forget(self, card: Card) -> None:
        """A card is open no more; the thread ends with the last."""
        with self._lock:
            with self._seeing:
                self._plugs.pop(card.name, None)
                if card.linked:
                    card.set_linked(False)
            self._set_speeds()
            self._see_links()
            self._forget_idle_cards()
            if not self._plugs:
                self.stop()
                self.rack.control[DUE] = 0
                clock.stop(self)

    def _forget_idle_cards(self) -> None:
        """Cards that nobody has open, nor a cable to an open one, are gone."""
        open_indices = {plug.card.index for plug in self._plugs.values()}
        with _indices:
            for name, card in list(self.cards.items()):
                output = self.rack.outputs[card.index]
                cabled = output[KIND] == Cable.kind and int(output[PEER]) in open_indices
                if name not in self._plugs and not cabled:
                    self._reports[name] = report_of(card)
                    del self.cards[name]
            self._set_plugged()

    def _set_plugged(self) -> None:
        self.rack.control[PLUGGED] = sum(1 << card.index for card in self.cards.values())

    def _check_clock(self, spec: Spec) -> None:
        """All simulated cards of a process share a clock.

        Raises:
            AddressError: another one goes by another.
        """
        plugs = [plug for machine in list(_machines) for plug in list(machine._plugs.values()) if not plug.forgotten]
        other = next((plug.spec for plug in plugs if plug.spec.virtual != spec.virtual), None)
        if other is not None:
            raise AddressError(
                f"sim:{spec.name}: all simulated cards of a process share a clock, and sim:{other.name} is open "
                f"{'with' if other.virtual else 'without'} clock=virtual: give it to all of them or to none"
            )

    def _report_refused(self, card: Card) -> None:
        refused = self.dma_refused(card)
        if refused:
            address = int(self.rack.counters[card.index, state.DMA_ADDRESS])
            log.error("sim:%s: %d DMA accesses outside mapped memory, the last to %#x", card.name, refused, address)

    # -----------------------------------------------------------------------------------------------------------------
    # Memory

    def map(self, memory: DmaMemory, holder: object = None) -> DmaMapping:
        """Let all cards reach `memory`, until each holder that maps it has unmapped it."""
        with self.paused():
            self._holders.setdefault(memory.offset, set()).add(id(holder))
            self._allow(memory)
        return DmaMapping.linear(memory, BUS_BASE)

    def unmap(self, memory: DmaMemory, holder: object = None) -> None:
        """DMA to `memory` is refused once no holder is left. To do it twice does no harm."""
        if self.owner.mine():
            with self.paused():
                self._holders.get(memory.offset, set()).discard(id(holder))
                self._allow(memory)

    def _allow(self, memory: DmaMemory) -> None:
        self._allowed(memory)[:] = len(self._holders.get(memory.offset, ()))

    def show(self, memory: GuestMemory) -> None:
        """Let all cards reach what belongs to this layout of a virtual machine's memory, and nothing else."""
        with self.paused():
            for pages in self._shown:
                self.rack.allowed[pages] = 0
            ends = [(place, place + size) for _, size, place in memory.regions.tolist()]
            self._shown = [slice(start // PAGE, end // PAGE) for start, end in ends]
            for pages in self._shown:
                self.rack.allowed[pages] = 1

    def _allowed(self, memory: DmaMemory) -> NDArray[np.uint8]:
        return self.rack.allowed[memory.offset // PAGE : (memory.offset + memory.size) // PAGE]

    # -----------------------------------------------------------------------------------------------------------------
    # Running

    def step(self, turns: int = 1) -> int:
        """Give each card `turns` turns; how many frames and descriptors were handled. For a stepped machine."""
        self.owner.check("a simulated machine")
        work = 0
        self._watch()
        for _ in range(turns):
            work += step(self.rack)
            while self.rack.control[ALARM] and self.answer():
                work += step(self.rack)
        return work

    def advance(self, end: int | None, woken: Callable[[], bool] | None = None) -> int:
        """Let the cards work by the virtual clock; see `ixy.clock.Cards`."""
        self.owner.check("a simulated machine")
        work = 0
        with self._lock:
            while woken is None or not woken():
                done, over = advance((), self.rack, clock.WORDS, FAR if end is None else end)
                work += int(done)
                if over:
                    break
                if self.rack.control[ALARM]:
                    self.answer()
        return work

    def following(self) -> int | None:
        """When something happens next, as far as was known after the last turn; None for never."""
        control = self.rack.control
        moment = min(int(control[FOLLOWING]), int(control[DUE]) or FAR)
        return moment if moment != FAR else None

    @contextmanager
    def paused(self) -> Generator[None]:
        """No card does anything meanwhile.

        The pause is over when nobody holds the lock, even if whoever had it was interrupted before he could say so:
        see `_park`.

        Raises:
            Error: the thread that runs the cards has died, and why.
        """
        self.owner.check("a simulated machine")
        control = self.rack.control
        with self._lock:
            nested = control[PAUSE] != control[RESUMED]
            try:
                if not nested:
                    control[PAUSE] += 1
                self._await_pause()
                yield
            finally:
                if not nested:
                    control[RESUMED] = control[PAUSE]

    @contextmanager
    def held(self, *, wait: bool = True) -> Generator[bool]:
        """Hold the machine's lock, without a pause of the cards; whether it could be had, which without `wait` may not
        be."""
        held = self._lock.acquire(blocking=wait)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _await_pause(self) -> None:
        """Wait until the thread pauses: a turn of all cards at most, unless it is being compiled."""
        control = self.rack.control
        self.rouse()
        while self._thread is not None and not self._parked and control[PAUSED] != control[PAUSE]:
            self._check_thread()
            time.sleep(0.00001)
        self._check_thread()

    def _check_thread(self) -> None:
        """Raise `Error` if the thread has ended that should run, and go on without it."""
        thread = self._thread
        if thread is None or thread.is_alive():
            return
        self._thread = None
        if thread.ident is not None and not self.rack.control[STOP]:
            raise Error(f"the thread that runs the simulated cards has died: {self._cause()}") from self._failure

    def _cause(self) -> str:
        if self._failure is None:
            return "it ended before it began"
        return f"{type(self._failure).__name__}: {self._failure}"

    def _run(self) -> None:
        """Start the thread, if it does not run."""
        with self._lock:
            runs = self._thread is not None and self._thread.is_alive() and not self.rack.control[STOP]
            if runs or self._stepped or clock.is_virtual():
                return
            self.stop()  # whoever did it before was interrupted
            self.rack.control[STOP] = 1
            try:
                run(self.rack)  # compiles, in the caller's thread, which a signal interrupts
            except Exception as error:
                raise Error(f"the simulated cards cannot run: {type(error).__name__}: {error}") from error
            self.rack.control[STOP] = 0
            self._parked, self._failure = False, None
            self.rack.control[ASLEEP] = 0
            self._bed = self._bed or Bed()
            self._thread = threading.Thread(target=self._serve, name="ixy-sim", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                raise Error(f"no thread for the simulated cards: {error}") from error

    def _serve(self) -> None:
        """What the thread does."""
        try:
            while (reason := run(self.rack)) != STOPPED:
                if reason == PARKED:
                    self._park()
                elif reason == ALARMED:
                    self.answer()
                else:
                    self._sleep()
        except BaseException as error:
            self._failure = error

    def _park(self) -> None:
        """Wait without turning for the end of a long pause; whoever was interrupted in one has left it open."""
        self._parked = True
        while not self.rack.control[STOP]:
            if self._lock.acquire(timeout=0.01):
                self.rack.control[RESUMED] = self.rack.control[PAUSE]
                self._parked = False
                self._lock.release()
                return

    def answer(self) -> bool:
        """See to what the alarm was for. Whether a turn of the cards was cut short, as a kernel was not there yet."""
        self.rack.control[ALARM] = 0
        self._tell_broken()
        for card in list(self.cards.values()):
            card.breaches.collect()
        self._interrupt()
        self._watch()
        return provide_wanted(self.rack)

    def _interrupt(self) -> None:
        """Send the interrupts of cards whose owners are in this process; what is throttled is due later."""
        with self._expecting:
            self.rack.control[DUE] = 0
        for plug in list(self._plugs.values()):
            if plug.card.interrupts_own:
                plug.card.collect()  # which tells `expect`
                plug.card.attend(wait=False)

    def expect(self, card: Card, waits: bool, throttled: float | None = None) -> None:
        """Whether somebody waits for an interrupt of the card; in how many seconds one may be sent that is throttled.

        While somebody waits, the thread sleeps when there is nothing to do.
        """
        control, bit = self.rack.control, 1 << card.index
        with self._expecting:
            control[AWAITED] = int(control[AWAITED]) | bit if waits else int(control[AWAITED]) & ~bit
            if throttled is not None:
                self._rouse_by(clock.monotonic_ns() + round(throttled * 1e9))
                self.rouse()

    def _rouse_by(self, due: int) -> None:
        """Let the machine see to something at that time, or before."""
        with self._expecting:
            self.rack.control[DUE] = min(due, int(self.rack.control[DUE]) or due)

    def rouse(self) -> None:
        """If the thread sleeps, let it look what there is to do."""
        if self.rack.control[ASLEEP] and self._bed is not None:
            self._bed.rouse()

    def _sleep(self) -> None:
        """Sleep until something is due, or somebody rouses the thread.

        He has to know that it sleeps, so it says so first, and looks once more. So it does each time, as the loop of a
        path, or of a generator, rouses it but once. A doorbell of another loop rouses nobody: for that the thread looks
        now and then.
        """
        control, bed = self.rack.control, self._bed
        assert bed is not None
        self._goes_to_bed = not (self._goes_to_bed and control[ASLEEP])
        if self._goes_to_bed:
            self._say_that_it_sleeps(bed)
        else:
            ports = [(wire, Port(self, plug.card)) for plug in list(self._plugs.values()) for wire in plug.wires]
            dues = [due for wire, port in ports if (due := wire.due(port)) is not None]
            dues += [int(control[DUE])] if control[DUE] else []
            left = (min(dues) - time.monotonic_ns()) / 1e9 if dues else _LONGEST_SLEEP
            self._slept = min(2 * self._slept, _LONGEST_SLEEP)
            bed.sleep([fd for wire, port in ports for fd in wire.files(port)], min(max(left, _NAP), self._slept))

    def _say_that_it_sleeps(self, bed: Bed) -> None:
        if not self.rack.control[ASLEEP]:
            self._slept = _SHORTEST_SLEEP
        self.rack.control[ASLEEP] = 1
        for words in (loop() for loop in self._loops):
            if words is not None:
                words[HEARD] = words[RECEIVED]
                words[BED] = bed.fd + 1

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """The loop of the path with these words rings doorbells of the cards: that rouses the thread when it sleeps."""
        with self._expecting:
            self._loops = [loop for loop in self._loops if loop() is not None] + [ref(words)]

    def _tell_broken(self) -> None:
        """Say which wires have broken since the last time."""
        inputs = self.rack.inputs
        for plug in list(self._plugs.values()):
            if inputs[plug.card.index, BROKEN]:
                inputs[plug.card.index, BROKEN] = 0
                self._look = 0
                for wire in plug.wires:
                    if said := wire.broken(Port(self, plug.card)):
                        log.warning("sim:%s: %s", plug.card.name, said)

    def stop(self) -> None:
        """End the thread that runs the cards."""
        if not self.owner.mine():
            return
        with self._lock:
            self.rack.control[STOP] = 1
            self.rouse()
            if self._thread is not None and self._thread.is_alive():
                self._thread.join()
            self._thread = None


@once
def machine() -> Machine:
    """The machine that `sim:` addresses are plugged into, one for the process."""
    return Machine()


def _plugged_wires() -> list[Wire]:
    """What is plugged into all open cards of the process."""
    return [wire for machine in list(_machines) for wire in machine.wires()]


@atexit.register
def _stop_all() -> None:
    """At the end of the process no thread runs cards whose memory goes, and what they recorded is in its files."""
    for machine in list(_machines):
        for card in list(machine.cards.values()):
            try:
                machine.unplug(card)
            except Error as error:
                log.error("%s", error)
