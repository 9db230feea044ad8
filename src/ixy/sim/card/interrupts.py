"""The interrupts of a simulated 82599: causes, masks, vectors, throttling (datasheet 7.3.1 to 7.3.4, 8.2.3.5)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from ixy import clock
from ixy.jit import compiled
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card.state import EVENT, NOTICE, RAISED
from ixy.sim.rack import ALARM, AWAITED, SLOT, Rack
from ixy.unsafe import load_acquire, store_release, write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

VECTORS = reg.VECTORS
_QUEUE_CAUSES = 0xFFFF
_OTHER_CAUSES = 0x7FFF0000
_LOW = 0xFFFFFFFF
_VALID = 0x80
_ALLOCATION = 0x3F
_INTERVAL_NS = 2000  # unit of EITR's interval at 10 Gbit/s (8.2.3.5.12)

LINK_CHANGE, FLOW_DIRECTOR, MAILBOX = (reg.EICR.mask(name) for name in ("LSC", "FLOW_DIRECTOR", "MAILBOX"))


OWN_THREAD = -1  # in the place of a file descriptor, in EVENT: the thread that runs the cards sees to it, by an alarm


@compiled
def notify(rack: Rack, card: int) -> int:
    """Tell the card's owner that queues are `done` with something: it adds one to an eventfd. What write(2) gave.

    The rack's own thread is told only while it would interrupt somebody; else the word RAISED stays as it is, and is
    looked at again in the next turn.
    """
    if rack.cards[card, EVENT] == OWN_THREAD:
        if (load_acquire(rack.control, AWAITED) >> card) & 1:
            rack.cards[card, RAISED] = 0
            store_release(rack.control, ALARM, 1)
        return 0
    rack.cards[card, RAISED] = 0
    place = card * SLOT + NOTICE
    for i in range(8):
        rack.tape[place + i] = 1 if i == 0 else 0
    return write_file(rack.cards[card, EVENT], rack.tape, place, 8)


class Sink(Protocol):
    """Where interrupts go: a PCI function."""

    @property
    def msix_enabled(self) -> bool: ...
    def signal(self, vector: int) -> None: ...
    def set_line(self, asserted: bool) -> None: ...


class Interrupts:
    """The interrupt logic of one card. Any thread may use it: that which serves the card's registers, and the rack's.

    Args:
        registers: the card's, for the rows that are plain memory: IVAR, EITR, GPIE, EIAC, EIAM.
        done: the queues that have something to say, as in `Rack.done`.

    Attributes:
        sink: where interrupts go; without one they are only seen in the registers.
        foreign: so many queues, the first ones, belong to virtual functions, whose interrupts theirs are.
        expect: is told whether somebody waits for one, that is, whether any is not masked; and in how many seconds
            something throttled may be sent, None if nothing is.
    """

    def __init__(self, registers: NDArray[np.uint32], done: NDArray[np.uint8]) -> None:
        self.sink: Sink | None = None
        self.expect: Callable[[bool, float | None], None] | None = None
        self.foreign = 0
        self._turn = threading.RLock()
        self._registers = registers
        self._done = done
        self.reset()

    def reset(self) -> None:
        """No cause, everything masked."""
        self._vectors = 0  # causes of queues, a bit for each vector
        self._other = 0  # the other causes, at their places in EICR
        self._vector_mask = self._other_mask = 0
        self._signalled = 0  # vectors whose message is sent, while what caused it stays
        self._allowed = [0] * VECTORS  # when, in nanoseconds, the next message of a vector may be sent
        self._done[:] = 0
        self._tell()

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing the registers does, by offset."""
        reads: dict[int, Callable[[], int]] = {
            reg.EICR.offset: self._read_causes,
            reg.EICS.offset: lambda: self._causes,
            reg.EIMS.offset: lambda: self._other_mask | self._vector_mask & _QUEUE_CAUSES,
        }
        writes: dict[int, Callable[[int], None]] = {
            reg.EICR.offset: lambda value: self._clear(value & _QUEUE_CAUSES, value),
            reg.EICS.offset: lambda value: self._raise(value & _QUEUE_CAUSES, value),
            reg.EIMS.offset: lambda value: self._unmask(value & _QUEUE_CAUSES, value),
            reg.EIMC.offset: lambda value: self._mask(value & _QUEUE_CAUSES, value),
        }
        for i in range(2):
            reads[reg.EIMS_EX[i].offset] = lambda i=i: self._vector_mask >> 32 * i & _LOW
            writes[reg.EICS_EX[i].offset] = lambda value, i=i: self._raise(value << 32 * i)
            writes[reg.EIMS_EX[i].offset] = lambda value, i=i: self._unmask(value << 32 * i)
            writes[reg.EIMC_EX[i].offset] = lambda value, i=i: self._mask(value << 32 * i)
        return reads, writes

    def collect(self) -> None:
        """Take over what queues have done since the last time."""
        with self._turn:
            self._raise(self._collected())

    def _collected(self) -> int:
        """The vectors of the queues that have done something."""
        vectors = 0
        for number, sends in self.take(range(self.foreign, reg.QUEUES)):
            entry = self._get(reg.IVAR, number // 2) >> (16 * (number % 2) + 8 * sends) & 0xFF
            if entry & _VALID:
                vectors |= 1 << (entry & _ALLOCATION)
        return vectors

    def take(self, queues: range) -> list[tuple[int, bool]]:
        """Those of these queues that have done something since the last time, each with whether it sends."""
        found: list[tuple[int, bool]] = []
        # A copy: the rack goes on writing, and NumPy gives up on an array that changes while it is searched.
        for place in self._done.copy().nonzero()[0].tolist():
            sends, number = divmod(place, reg.QUEUES)
            if number in queues:
                self._done[place] = 0
                found.append((number, bool(sends)))
        return found

    @property
    def waits(self) -> bool:
        """Whether somebody waits for one, that is, whether any is not masked."""
        return bool(self._vector_mask or self._other_mask)

    def link_changed(self, *, send: bool = True) -> None:
        """The link came up or went down; unless it is to `send`, the next `collect` tells."""
        with self._turn:
            self._other |= LINK_CHANGE
            if send:
                self.update()

    def raise_other(self, causes: int) -> None:
        """Causes that are none of queues, at their places in EICR."""
        self._raise(0, causes)

    def flow_director_full(self) -> None:
        """Its table is full, or nearly."""
        self._raise(0, FLOW_DIRECTOR)

    def update(self) -> float | None:
        """Send what is to be sent now. The seconds until something throttled may be sent, None if nothing is.

        A message is sent when a cause that is not masked appears, and again only after it went.
        """
        with self._turn:
            wait = self._send_all()
            self._tell(wait)
            return wait

    def _send_all(self) -> float | None:
        if self.sink is None:
            return None
        if not self.sink.msix_enabled:
            self.sink.set_line(
                bool(self._vectors & self._vector_mask & _QUEUE_CAUSES or self._other & self._other_mask)
            )
            return None
        wanted = self._wanted()
        self._signalled &= wanted
        wait = None
        for vector in _bits(wanted & ~self._signalled):
            now = clock.monotonic_ns()
            left = self._allowed[vector] - now
            if left <= 0:
                self._send(vector, now)
            else:
                wait = left / 1e9 if wait is None else min(wait, left / 1e9)
        return wait

    # -- inside

    def _tell(self, wait: float | None = None) -> None:
        if self.expect is not None:
            self.expect(self.waits, wait)

    @property
    def _causes(self) -> int:
        return self._other | self._vectors & _QUEUE_CAUSES

    def _wanted(self) -> int:
        """The vectors with a cause that is not masked."""
        wanted = self._vectors & self._vector_mask
        entry = self._get(reg.IVAR_MISC) >> 8 & 0xFF
        if self._other & self._other_mask and entry & _VALID:
            wanted |= 1 << (entry & _ALLOCATION)
        return wanted

    def _send(self, vector: int, now: int) -> None:
        """Send a message; what EIAC and EIAM say is cleared and masked with it (7.3.1.5)."""
        assert self.sink is not None
        self._signalled |= 1 << vector
        high_vectors = ~_QUEUE_CAUSES
        self._vectors &= ~(1 << vector & (self._get(reg.EIAC) | high_vectors))
        if self._get(reg.GPIE) & reg.GPIE.mask("EIAME"):
            auto_mask = self._get(reg.EIAM_EX) | self._get(reg.EIAM_EX, 1) << 32
            self._vector_mask &= ~(1 << vector & auto_mask)
        throttle = self._get(reg.EITR, vector) if vector < reg.EITR.count else self._get(reg.EITR_HIGH, vector - 24)
        self._allowed[vector] = now + reg.EITR.decode(throttle)["INTERVAL"] * _INTERVAL_NS
        self.sink.signal(vector)
        self._signalled &= self._wanted()

    def _read_causes(self) -> int:
        """Reading clears; with EIAM it masks too (7.3.1.4). GPIE.OCD keeps the causes of queues."""
        with self._turn:
            causes = self._causes
            kept = _QUEUE_CAUSES if self._get(reg.GPIE) & reg.GPIE.mask("OCD") else 0
            self._clear(causes & ~kept & _QUEUE_CAUSES, causes)
            if causes:
                auto_mask = self._get(reg.EIAM)
                self._mask(auto_mask & _QUEUE_CAUSES, auto_mask)
            return causes

    def _raise(self, vectors: int, other: int = 0) -> None:
        with self._turn:
            self._vectors |= vectors
            self._other |= other & _OTHER_CAUSES
            self.update()

    def _clear(self, vectors: int, other: int) -> None:
        with self._turn:
            self._vectors &= ~vectors
            self._other &= ~other
            self.update()

    def _unmask(self, vectors: int, other: int = 0) -> None:
        """What queues did while all was masked, nobody may have been told: it is looked up now."""
        with self._turn:
            self._vector_mask |= vectors
            self._other_mask |= other & _OTHER_CAUSES
            self._tell()
            self._raise(self._collected())

    def _mask(self, vectors: int, other: int = 0) -> None:
        with self._turn:
            self._vector_mask &= ~vectors
            self._other_mask &= ~other
            self.update()

    def _get(self, register: Register, index: int = 0) -> int:
        return int(self._registers[register.offset // 4 + index])


def _bits(mask: int) -> list[int]:
    """The numbers of the bits that are set."""
    return [bit for bit in range(VECTORS) if mask >> bit & 1]
