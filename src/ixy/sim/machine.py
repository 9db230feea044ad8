"""The machine that simulated cards are plugged into: it runs them, and lets them reach memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

import numpy as np

from ixy.errors import AddressError, DeviceBusy
from ixy.packets.dma import DmaMapping, DmaMemory, window
from ixy.sim import rack as state
from ixy.sim.card.registers import Card
from ixy.sim.rack import CARDS, PAGE, PAUSE, PAUSED, PLUGGED, RESUMED, STOP, Rack, new_rack
from ixy.sim.spec import Spec, parse_spec
from ixy.sim.wires.plugs import Plug, tape
from ixy.sim.wires.wires import CABLE, GENERATOR, run, step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.sim.qemu.memory import GuestMemory

log = logging.getLogger("ixy.sim")

# Where the simulated bus shows DMA memory. No pointer of a process looks like this, so a driver that hands a pointer to
# a card is found out.
BUS_BASE = 0x0A_0000_0000_0000


class SinkReport(NamedTuple):
    """What a generator sent and its sink found.

    Attributes:
        sent: frames that the generator has delivered to its card.
        received: frames that arrived at the sink.
        lost: numbers missing in the sequence, up to the last one that arrived.
        reordered: frames that arrived after a later one.
        wrong: frames whose length or bytes are not as expected.
    """

    sent: int
    received: int
    lost: int
    reordered: int
    wrong: int


# All machines of the process. They share the tape, so no two cards have the same index.
_machines: WeakSet[Machine] = WeakSet()


class Machine:
    """Up to 16 simulated cards.

    Args:
        stepped: no thread runs the cards: they move only in `step`, which makes a test deterministic.
        memory: a virtual machine's memory, at whose places the cards' bus addresses point; by default the cards reach
            the DMA memory of this process, at bus addresses that start at `BUS_BASE`.
    """

    def __init__(self, *, stepped: bool = False, memory: NDArray[np.uint8] | None = None) -> None:
        if memory is None:
            self.rack: Rack = new_rack(window().bytes, BUS_BASE, tape())
        else:
            self.rack = new_rack(memory, 0, tape())
        self._shown: list[slice] = []
        self.cards: dict[str, Card] = {}
        _machines.add(self)
        self._stepped = stepped
        self._thread: threading.Thread | None = None
        self._plugs: dict[str, Plug] = {}
        self._pauses = 0  # how often `paused` is nested
        self._lock = threading.RLock()

    # -----------------------------------------------------------------------------------------------------------------
    # Cards

    def plug_in(self, address: str) -> Card:
        """Take the card that `address` names, and plug in what it says.

        Raises:
            AddressError: malformed, or too many cards.
            DeviceBusy: the card is open already.
            CaptureError, PermissionDenied, …: what is to be plugged in cannot be.
        """
        spec = parse_spec(address)
        if spec.name in self._plugs:
            raise DeviceBusy(f"sim:{spec.name} is open already: close it first")
        card = self._card(spec.name)
        try:
            with self.paused():
                self._plugs[spec.name] = self._plug(card, spec)
        except BaseException:
            self._forget_idle_cards()
            raise
        self._run()
        return card

    def unplug(self, card: Card) -> None:
        """Take the card's wire away, as when a device is closed; files are complete then.

        Raises:
            CaptureError: what the card sent could not all be written to its file.
        """
        plug = self._plugs.pop(card.name, None)
        if plug is None:
            return
        self._report_refused(card)
        try:
            with self.paused():
                plug.remove()
        finally:
            self._forget_idle_cards()
            if not self._plugs:
                self.stop()

    def sink_report(self, generator: str, sink: str) -> SinkReport:
        """What the generator of one card sent, and what the sink of another found."""
        sent = self.rack.wires[self.cards[generator].index]
        found = self.rack.wires[self.cards[sink].index]
        columns = (state.RECEIVED, state.LOST, state.REORDERED, state.WRONG)
        return SinkReport(int(sent[state.POSITION]), *(int(found[column]) for column in columns))

    def dma_refused(self, card: Card) -> int:
        """How many DMA accesses of the card were refused."""
        return int(self.rack.counters[card.index, state.DMA_REFUSED])

    def _card(self, name: str) -> Card:
        """The card of this name; one that was only the far end of a cable so far, or a new one."""
        if name not in self.cards:
            taken = {card.index for machine in _machines for card in machine.cards.values()}
            free = [index for index in range(CARDS) if index not in taken]
            if not free:
                raise AddressError(f"sim:{name}: {CARDS} simulated cards are in use, that is all there are")
            self.rack.counters[free[0]] = 0
            self.rack.queues[free[0]] = 0
            self.rack.wires[free[0]] = 0
            self.cards[name] = Card(self, free[0], name)
            self._set_plugged()
        return self.cards[name]

    def _plug(self, card: Card, spec: Spec) -> Plug:
        """Plug in the wire, and both ends if it is a cable."""
        if spec.cable is not None:
            self._connect(card, spec.cable)
        elif spec.plugs_in and card.wired:
            raise AddressError(f"sim:{spec.name}: a cable is plugged in already: open it as sim:{spec.name}")
        plug = Plug(self.rack, card.index, spec, self._generator(spec))
        card.wired = card.wired or plug.wired
        return plug

    def _generator(self, spec: Spec) -> int | None:
        """The card whose generator the sink checks, if there is a sink."""
        if spec.sink is None:
            return None
        if spec.gen and spec.sink == spec.name:
            return self.cards[spec.name].index
        source = self.cards.get(spec.sink)
        if source is None or self.rack.wires[source.index, state.INPUT] != GENERATOR:
            raise AddressError(f"sim:{spec.name},sink={spec.sink}: open sim:{spec.sink} with a generator (gen=) first")
        return source.index

    def _connect(self, card: Card, peer_name: str) -> None:
        peer = self._card(peer_name)
        if peer is card:
            raise AddressError(f"sim:{card.name}: a cable to itself: name another card")
        for near, far in ((card, peer), (peer, card)):
            wire = self.rack.wires[near.index]
            if near.wired and (wire[state.OUTPUT] != CABLE or wire[state.PEER] != far.index):
                raise AddressError(f"sim:{near.name}: something else is plugged in already")
        for near, far in ((card, peer), (peer, card)):
            wire = self.rack.wires[near.index]
            wire[state.INPUT] = wire[state.OUTPUT] = CABLE
            wire[state.PEER] = far.index
            near.wired = True

    def _forget_idle_cards(self) -> None:
        """Cards that nobody has open, nor a cable to an open one, are gone."""
        open_indices = {self.cards[name].index for name in self._plugs}
        for name, card in list(self.cards.items()):
            wire = self.rack.wires[card.index]
            cabled = card.wired and wire[state.OUTPUT] == CABLE and int(wire[state.PEER]) in open_indices
            if name not in self._plugs and not cabled:
                del self.cards[name]
        self._set_plugged()

    def _set_plugged(self) -> None:
        self.rack.control[PLUGGED] = sum(1 << card.index for card in self.cards.values())

    def _report_refused(self, card: Card) -> None:
        refused = self.dma_refused(card)
        if refused:
            address = int(self.rack.counters[card.index, state.DMA_ADDRESS])
            log.error("sim:%s: %d DMA accesses outside mapped memory, the last to %#x", card.name, refused, address)

    # -----------------------------------------------------------------------------------------------------------------
    # Memory

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Let all cards reach `memory`, until each one that maps it has unmapped it."""
        with self.paused():
            self._allowed(memory)[:] += 1
        first = BUS_BASE + memory.offset
        pages = np.arange(first, first + memory.size, memory.page_size, dtype=np.int64)
        return DmaMapping(pages, memory.page_size)

    def unmap(self, memory: DmaMemory) -> None:
        """Undo one `map`: DMA to `memory` is refused after the last."""
        with self.paused():
            self._allowed(memory)[:] -= 1

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
        return sum(step(self.rack) for _ in range(turns))

    @contextmanager
    def paused(self) -> Generator[None]:
        """No card does anything meanwhile."""
        with self._lock:
            self._pauses += 1
            if self._pauses == 1:
                self._pause()
            try:
                yield
            finally:
                self._pauses -= 1
                if self._pauses == 0:
                    self.rack.control[RESUMED] = self.rack.control[PAUSE]

    def _pause(self) -> None:
        """Ask the thread to pause, and wait until it does: a turn of all cards at most."""
        self.rack.control[PAUSE] += 1
        while self._thread is not None and self.rack.control[PAUSED] != self.rack.control[PAUSE]:
            time.sleep(0.00001)

    def _run(self) -> None:
        if self._stepped or self._thread is not None:
            return
        self.rack.control[STOP] = 1
        run(self.rack)  # compiles, in the caller's thread, which a signal interrupts
        self.rack.control[STOP] = 0
        self._thread = threading.Thread(target=run, args=(self.rack,), name="ixy-sim", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread that runs the cards."""
        if self._thread is not None:
            self.rack.control[STOP] = 1
            self._thread.join()
            self._thread = None
