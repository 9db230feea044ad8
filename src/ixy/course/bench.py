"""A computer with simulated cards, for a student's driver: what `ixy.course` names, and who looks on.

The cards are those of `ixy.sim`, strict as always, and the rules that a driver breaks there are told as they are. What
could not be seen from within a card is looked at here: which memory is whose (`watch.py`).

Nothing happens by chance. Time is a number that grows with each access and each pause of the driver; the cards work in
between: an eager one at once, a lazy one when it must. So a driver that is too quick, or too slow, is found each time.
"""

from __future__ import annotations

import inspect
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ixy.course.findings import Finding
from ixy.course.watch import Watch, register_at
from ixy.packets.dma import allocate_rings
from ixy.registers import i82599 as reg
from ixy.sim.card import config, receive, transmit
from ixy.sim.card.config import ConfigSpace
from ixy.sim.card.offload import MIN_FRAME
from ixy.sim.card.state import RAISED
from ixy.sim.checklist import report_of
from ixy.sim.machine import BUS_BASE, Machine
from ixy.sim.rack import PAGE, SLOT
from ixy.sim.wires.tape import mapped

if TYPE_CHECKING:
    from types import FrameType

    from ixy.course.lending import Lent
    from ixy.sim.card.registers import Card
    from ixy.sim.checklist import Report

_READ_NS, _WRITE_NS, _MEMORY_NS, _LOOK_NS = 1000, 100, 50, 100  # what an access takes, and a look at the clock
_POLLS, _SLOW_POLL_NS = 100, 100_000  # after so many reads in vain each of them takes so long: time is to go on
_LAZY = 2000  # accesses between two turns of a lazy card
_MEMORY = 16 << 20  # bytes that there are for DMA
_LONGEST = 16 << 10  # bytes of the tape for a frame
_BAR_1 = 0x14
_FIRMWARE_BASE = 0x38_0000_0000  # where the computer's firmware has put the cards' registers
_SYSTEM_ERRORS = 1 << 8  # of the command register: firmware has set it
_WINDOW = 0x7F12_3456_0000  # where the process sees its memory, as far as the student knows

# Others on the bus: a host bridge, a graphics card, a network card of Intel's that is none of ours, one with our number
# of somebody else's
_OTHERS = (("00:00.0", 0x8086, 0x1237), ("00:02.0", 0x1234, 0x1111), ("02:00.0", 0x8086, 0x1528))
_IMPOSTOR = ("04:00.0", 0x1AF4, 0x10FB)
_EMPTY = ("00:01.0", "00:03.0", "05:00.0")
_CARDS = ("03:00.0", "03:00.1")


class Clock:
    """The time of the computer.

    Attributes:
        now: in nanoseconds.
    """

    def __init__(self, pause: Callable[[int], None]) -> None:
        self.now = 1_000_000_000
        self._pause = pause

    def look(self) -> int:
        """What it says; to look takes time, too."""
        self._pause(_LOOK_NS)
        return self.now

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self._pause(round(seconds * 1e9))

    @contextmanager
    def in_force(self) -> Generator[None]:
        """Python's own clocks are this one meanwhile."""
        before = {name: getattr(time, name) for name in ("sleep", "monotonic", "perf_counter", "time")}
        before |= {f"{name}_ns": getattr(time, f"{name}_ns") for name in ("monotonic", "perf_counter", "time")}
        try:
            for name in before:
                setattr(time, name, self.look if name.endswith("_ns") else lambda: self.look() / 1e9)
            time.sleep = self.sleep
            yield
        finally:
            for name, function in before.items():
                setattr(time, name, function)


class Port:
    """The port of a card, without a wire: what arrives there, and what has left.

    Attributes:
        arriving: frames that arrive as soon as the card can take them.
        left: frames that the card has sent.
        stalled: the partner has asked the card to send nothing.
    """

    def __init__(self, machine: Machine, card: Card, tape: int) -> None:
        self.card = card
        self.arriving: deque[bytes] = deque()
        self.left: list[bytes] = []
        self.stalled = False
        self._machine = machine
        self._rack = machine.rack
        self._tape = tape

    def work(self) -> None:
        """Let the card do what it can."""
        self._send()
        while self.arriving and receive.can_receive(self._rack, self.card.index):
            self.arrive(self.arriving.popleft())
        words = self._rack.cards[self.card.index]
        if words[RAISED]:
            words[RAISED] = 0
            self.card.interrupts.collect()

    def arrive(self, frame: bytes) -> None:
        """A frame arrives, whether the card can take it or not."""
        self._rack.tape[self._tape :][: len(frame)] = np.frombuffer(frame, np.uint8)
        receive.receive(self._rack, self.card.index, self._tape, len(frame))

    def _send(self) -> None:
        rack, index = self._rack, self.card.index
        while not self.stalled and transmit.can_transmit(rack, index, 0):
            length = transmit.fetch(rack, index, 0)
            if length == transmit.LATER:
                self._machine.answer()
            elif length > 0:
                length = max(length, MIN_FRAME)
                transmit.count_sent(rack, index, 0, index * SLOT, length)
                self.left.append(rack.tape[index * SLOT :][:length].tobytes())


class Space(ConfigSpace):
    """A card's configuration space, of which firmware has set what it sets: the registers lie beyond 4 GiB."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self._writable[_BAR_1 : _BAR_1 + 4] = b"\xff" * 4
        self.write(config.BAR_0, 4, place & 0xFFFFFFFF)
        self.write(_BAR_1, 4, place >> 32)
        self.write(config.COMMAND, 2, _SYSTEM_ERRORS)


class Bench:
    """The computer, as who judges a driver sees it.

    Args:
        directory: of the student's files.
        cards: how many are plugged in, 1 or 2.
        lazy: the cards take their time; else they are as quick as can be.

    Attributes:
        bus: what the driver is given.
        ports: of the cards.
        findings: what is wrong so far.
        clock: the computer's.
        accesses: how often each kind of access was made: "read", "write", "memory", and "RDT" and "TDT", written.
        log: accesses to registers: "read" or "write", of the card of this number, offset, value.
        last_read: the offset of the register that the driver has read, if that is the last that it did.
        pools: who has the student's buffers.
        before: what is called before a register is written, by its offset.
    """

    def __init__(self, directory: Path, cards: int = 1, *, lazy: bool = False) -> None:
        self.directory = str(directory)
        self.clock = Clock(self.pause)
        self.findings: list[Finding] = []
        self.accesses = {"read": 0, "write": 0, "memory": 0, "RDT": 0, "TDT": 0}
        self.log: list[tuple[str, int, int, int]] = []
        self.before: dict[int, Callable[[], None]] = {}
        self.pools: list[Lent] = []
        self.last_read: int | None = None
        self._last_value = 0
        self._polls = 0
        self.lazy = lazy
        self.ports: list[Port] = []
        self._known: set[str] = set()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()  # of what is due at one moment
        self._turn = 0
        self._stack = ExitStack()
        try:
            self.machine = Machine(stepped=True, now=lambda: self.clock.now)
            for number in range(cards):
                self._plug_in(number)
            self.memory = allocate_rings(_MEMORY)
            self._stack.callback(self.memory.close)
            self.memory.bytes[:] = 0xFF
            self.bus = BenchBus(self)
        except BaseException:
            self.close()
            raise

    def _plug_in(self, number: int) -> None:
        card = self.machine.plug_in(f"sim:course{number}")
        self._stack.callback(self.machine.unplug, card)
        tape = (card.index + 1) * SLOT - _LONGEST
        self._stack.enter_context(mapped(tape, _LONGEST))
        card.config = Space(_FIRMWARE_BASE + (number << 20) + (0x80000 if number else 0x280000))
        card.set_linked(True)
        self.ports.append(Port(self.machine, card, tape))

    def close(self) -> None:
        """Pull the cards out."""
        self._stack.close()

    # -----------------------------------------------------------------------------------------------------------------
    # Time

    def pause(self, nanoseconds: int) -> None:
        """The driver does nothing that cards see, for so long."""
        end = self.clock.now + nanoseconds
        while self._due and self._due[0][0] <= end:
            moment, _, happens = heappop(self._due)
            self.clock.now = max(self.clock.now, moment)
            happens()
            self.work()
        self.clock.now = max(self.clock.now, end)
        self._turn += 1
        if not self.lazy or self._turn % _LAZY == 0 or nanoseconds >= _READ_NS * 10:
            self.work()

    def later(self, seconds: float, happens: Callable[[], None]) -> None:
        """Let something happen when so much time has passed."""
        heappush(self._due, (self.clock.now + round(seconds * 1e9), next(self._order), happens))

    def next_due(self) -> int | None:
        """When something happens, in nanoseconds; None if nothing does."""
        return self._due[0][0] if self._due else None

    def work(self) -> None:
        """Let the cards do what they can."""
        for port in self.ports:
            port.work()
        self.note_breaches()

    def note_read(self, offset: int, value: int) -> None:
        """The driver has read a register. For who does so again and again, time goes faster."""
        again = self.last_read == offset and self._last_value == value
        self._polls = self._polls + 1 if again else 0
        self.last_read, self._last_value = offset, value
        if self._polls > _POLLS:
            self.pause(_SLOW_POLL_NS)

    # -----------------------------------------------------------------------------------------------------------------
    # What is wrong

    def note(self, sentence: str, subject: str = "", section: str = "", *, placed: bool = True) -> None:
        """Something is wrong. Of each kind only the first is told.

        Args:
            placed: the student's line that is being executed has to do with it.
        """
        if (subject, section) not in {(one.subject, one.section) for one in self.findings}:
            self.findings.append(Finding(sentence, subject, section, self.line() if placed else ""))

    def line(self) -> str:
        """The student's line that is being executed, as "lab5.py:31"."""
        frame: FrameType | None = inspect.currentframe()
        while frame is not None:
            directory, name = os.path.split(frame.f_code.co_filename)
            if directory == self.directory:  # and not beneath it, where Python's packages may be
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""

    def look(self) -> None:
        """Find what a driver breaks by leaving things as they are."""
        for port in self.ports:
            port.card.look()
        self.note_breaches(placed=False)

    def report(self, number: int = 0) -> Report:
        """What the driver did to a card: the steps of its initialisation, and the rules that were broken."""
        return report_of(self.ports[number].card)

    def note_breaches(self, *, placed: bool = True) -> None:
        """Note the rules that are broken by now."""
        for port in self.ports:
            for name, breach in port.card.breaches.collect().items():
                if name not in self._known:
                    self._known.add(name)
                    rule = breach.rule
                    self.note(f"{rule.sentence}; {breach.first}", rule.subject, rule.section, placed=placed)


class BenchBar:
    """BAR 0 of a card. Implements `ixy.course.Bar`."""

    def __init__(self, bench: Bench, card: Card, watch: Watch) -> None:
        self._bench = bench
        self._card = card
        self._watch = watch
        self._number = [port.card for port in bench.ports].index(card)

    def read32(self, offset: int) -> int:
        bench = self._bench
        bench.accesses["read"] += 1
        bench.pause(_READ_NS)
        if not self._answers(offset):
            return 0xFFFFFFFF
        value = self._card.read32(offset)
        bench.log.append(("read", self._number, offset, value))
        bench.note_breaches()
        bench.note_read(offset, value)
        return value

    def write32(self, offset: int, value: int) -> None:
        bench = self._bench
        bench.accesses["write"] += 1
        bench.last_read = None
        bench.pause(_WRITE_NS)
        if not 0 <= value <= 0xFFFFFFFF:
            register = register_at(offset)
            bench.note(
                f"{value:#x} has more than 32 bits, and is cut off: a 64-bit address goes into two registers, the "
                "lower half first, or a bit is shifted out",
                register.name.removesuffix("[0]") if register else f"{offset:#07x}",
                register.section if register else "8.2.3",
            )
            value &= 0xFFFFFFFF
        if self._answers(offset):
            if offset in bench.before:
                bench.before.pop(offset)()
            self._watch.before_write(offset, value)
            self._card.write32(offset, value)
            bench.log.append(("write", self._number, offset, value))
            bench.note_breaches()
            if not bench.lazy:
                bench.work()

    def _answers(self, offset: int) -> bool:
        if not self._card.config.has(config.COMMAND, config.COMMAND_MEMORY):
            self._bench.note(
                "the card does not answer: set bit 1 of the command register before you use its registers",
                "COMMAND",
                "PCI 6.2.2",
            )
            return False
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            self._bench.note(f"there is no register at {offset:#x}: offsets are multiples of 4", "", "8.2.2")
            return False
        return True


class BenchMemory:
    """Some memory. Implements `ixy.course.Memory`.

    Attributes:
        start: where it begins in the bench's memory.
        fresh: of each byte, whether it was written since the card gave it back.
        freed: it was given back.
    """

    def __init__(self, bench: Bench, start: int, size: int) -> None:
        self.size = size
        self.start = start
        self.address = BUS_BASE + bench.memory.offset + start
        self.pointer = _WINDOW + start
        self.fresh = bytearray(size)
        self.freed = False
        self._bench = bench

    def read(self, offset: int, size: int) -> bytes:
        self._bench.accesses["memory"] += 1
        self._bench.last_read = None
        self._bench.pause(_MEMORY_NS)
        self._check(offset, size)
        return self._bench.memory.bytes[self.start + offset :][:size].tobytes()

    def write(self, offset: int, data: bytes) -> None:
        self._bench.accesses["memory"] += 1
        self._bench.last_read = None
        self._bench.pause(_MEMORY_NS)
        self._check(offset, len(data))
        self._bench.bus.before_memory_write(self, offset, len(data))
        self._bench.memory.bytes[self.start + offset :][: len(data)] = np.frombuffer(data, np.uint8)
        self.fresh[offset : offset + len(data)] = b"\x01" * len(data)

    def free(self) -> None:
        self._check(0, 0)
        self._bench.bus.before_free(self)
        self.freed = True
        self._bench.bus.show(self, shown=False)

    def _check(self, offset: int, size: int) -> None:
        if self.freed:
            raise ValueError("this memory was freed")
        if offset < 0 or size < 0 or offset + size > self.size:
            self._bench.bus.before_beyond(self, offset)
            raise IndexError(f"bytes {offset} to {offset + size - 1} of memory that has {self.size}")


class BenchInterrupt:
    """A vector of MSI-X. Implements `ixy.course.Interrupt`, and is the card's sink of messages."""

    msix_enabled = True

    def __init__(self, bench: Bench, card: Card, vector: int) -> None:
        self._bench = bench
        self._card = card
        self._vector = vector
        self.sent = 0  # messages that nobody was told of
        self.slept = 0
        card.interrupt_own(self)

    def signal(self, vector: int) -> None:
        if vector == self._vector and self._card.masters_bus:
            self.sent += 1

    def set_line(self, asserted: bool) -> None:
        """With MSI-X there is no line."""

    def wait(self, timeout: float) -> bool:
        bench = self._bench
        self.slept += 1
        end = bench.clock.now + round(timeout * 1e9)
        bench.work()
        while not self.sent and bench.clock.now < end:
            due = bench.next_due()
            bench.pause(max((end if due is None else min(due, end)) - bench.clock.now, 1))
            bench.work()
        told, self.sent = self.sent > 0, 0
        return told


class BenchBus:
    """The bus. Implements `ixy.course.Bus`.

    Attributes:
        watches: who looks on at each card.
        memories: what was allocated.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._spaces = {where: _other(vendor, device) for where, vendor, device in (*_OTHERS, _IMPOSTOR)}
        self._cards = {where: port.card for where, port in zip(_CARDS, bench.ports, strict=False)}
        self.memories: list[BenchMemory] = []
        self.watches = {card.name: Watch(bench, card) for card in self._cards.values()}
        self._next = 0

    @property
    def cards(self) -> list[str]:
        """Where the cards are."""
        return list(self._cards)

    def slots(self) -> Sequence[str]:
        return sorted([*self._spaces, *self._cards, *_EMPTY])

    def config_read(self, where: str, offset: int, size: int) -> int:
        self._bench.pause(_READ_NS)
        if where in self._cards:
            return self._cards[where].config_read(offset, size)
        return self._spaces[where].read(offset, size) if where in self._spaces else (1 << 8 * size) - 1

    def config_write(self, where: str, offset: int, size: int, value: int) -> None:
        self._bench.pause(_READ_NS)
        if where in self._cards:
            self._cards[where].config_write(offset, size, value)
        elif where in self._spaces:
            self._spaces[where].write(offset, size, value)

    def map(self, address: int, size: int) -> BenchBar:
        for card in self._cards.values():
            place = card.config_read(_BAR_1, 4) << 32 | card.config_read(config.BAR_0, 4) & ~0xF
            if (address, size) == (place, config.BAR_SIZES[config.REGISTERS_BAR]):
                return BenchBar(self._bench, card, self.watches[card.name])
        raise ValueError(f"no device shows {size} bytes at {address:#x}")

    def allocate(self, size: int, alignment: int = 1) -> BenchMemory:
        if size <= 0 or alignment <= 0 or alignment & (alignment - 1):
            raise ValueError("size must be positive, and alignment a power of two")
        # Not better aligned than asked for, and a page away from all else, so that who goes beyond it is found
        start = -(-self._next // max(PAGE, alignment)) * max(PAGE, alignment)
        start += alignment if alignment < PAGE else 0
        end = -(-(start + size) // PAGE) * PAGE
        if end > self._bench.memory.size:
            raise MemoryError("the computer has no more memory for DMA: free some")
        self._next = end + PAGE
        memory = BenchMemory(self._bench, start, size)
        self.memories.append(memory)
        self.show(memory, shown=True)
        return memory

    def interrupt(self, where: str, vector: int = 0) -> BenchInterrupt:
        return BenchInterrupt(self._bench, self._cards[where], vector)

    # -----------------------------------------------------------------------------------------------------------------
    # For who looks on

    def show(self, memory: BenchMemory, *, shown: bool) -> None:
        """Let the cards reach memory, or no longer."""
        first = self._bench.memory.offset + memory.start
        with self._bench.machine.paused():
            self._bench.machine.rack.allowed[first // PAGE : -(-(first + memory.size) // PAGE)] = shown

    def find(self, address: int) -> BenchMemory | None:
        """The memory that a card sees at an address."""
        return next((one for one in self.memories if 0 <= address - one.address < one.size), None)

    def before_memory_write(self, memory: BenchMemory, offset: int, size: int) -> None:
        """The driver is about to write bytes."""
        for watch in self.watches.values():
            watch.before_memory_write(memory.address + offset, size)

    def before_free(self, memory: BenchMemory) -> None:
        """The driver is about to free memory."""
        for watch in self.watches.values():
            watch.before_free(memory)

    def before_beyond(self, memory: BenchMemory, offset: int) -> None:
        """The driver is about to go beyond its memory."""
        for watch in self.watches.values():
            watch.before_beyond(memory, offset)


def _other(vendor: int, device: int) -> ConfigSpace:
    """A device that is none of ours."""
    space = ConfigSpace(device=device)
    space.force(0, 2, vendor)
    return space
