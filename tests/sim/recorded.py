"""A simulated card of any kind that keeps what its driver does to it, and can fail at any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest.mock import patch

from ixy.bus import Bar
from ixy.bus.simulated import SimulatedFunction
from ixy.packets.dma import DmaMapping, DmaMemory
from ixy.registers import Register
from ixy.sim.machine import Machine


class Access(NamedTuple):
    """One thing that the driver did.

    Attributes:
        kind: read, write (registers); config read, config write; map, unmap, close; sleep.
        place: the offset.
        value: what was read or written; of a sleep, microseconds.
    """

    kind: str
    place: int = 0
    value: int = 0

    def is_(self, kind: str, register: Register, **fields: int) -> bool:
        """Whether this is a read or a write of `register` in which `fields` have these values."""
        if (self.kind, self.place) != (kind, register.offset):
            return False
        return self.value & register.mask(*fields) == register.value(**fields)


class RecordedCard(SimulatedFunction):
    """A card.

    Attributes:
        log: all that was done, in order; what failed is not in it.
        before: called with the offset before each access, which it can fail.
        replies: what reading a register at an offset gives instead, made from what the model gives.
        written: called with the value when a register at an offset was written.
    """

    def __init__(self, machine: Machine, device_id: int = 0x10FB, address: str = "sim:a") -> None:
        super().__init__(address, machine)
        self.device_id = device_id
        self.log: list[Access] = []
        self.before: Callable[[int], None] = lambda _: None
        self.replies: dict[int, Callable[[int], int]] = {}
        self.written: dict[int, Callable[[int], None]] = {}
        self._bar = super().bar(0)
        self.words, self.doorbell = self._bar.words, self._bar.doorbell

    def _note(self, kind: str, place: int = 0, value: int = 0) -> None:
        self.log.append(Access(kind, place, value))

    # The registers

    def bar(self, index: int) -> Bar:
        assert index == 0
        return self

    def read32(self, offset: int) -> int:
        self.before(offset)
        value = self._bar.read32(offset)
        value = self.replies[offset](value) if offset in self.replies else value
        self._note("read", offset, value)
        return value

    def write32(self, offset: int, value: int) -> None:
        self.before(offset)
        self._note("write", offset, value)
        self._bar.write32(offset, value)
        if offset in self.written:
            self.written[offset](value)

    # The function

    def config_read(self, offset: int, size: int) -> int:
        self.before(offset)
        value = self.device_id if offset == 2 else super().config_read(offset, size)
        self._note("config read", offset, value)
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.before(offset)
        self._note("config write", offset, value)
        super().config_write(offset, size, value)

    def map(self, memory: DmaMemory) -> DmaMapping:
        self.before(0)
        self._note("map")
        return super().map(memory)

    def unmap(self, memory: DmaMemory) -> None:
        self._note("unmap")
        super().unmap(memory)

    def close(self) -> None:
        self._note("close")
        super().close()

    @property
    def bus_master(self) -> bool:
        return bool(self.card.config_read(4, 2) & 1 << 2)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, card: RecordedCard) -> None:
        self._card = card
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self._card.log.append(Access("sleep", value=round(seconds * 1e6)))


@contextmanager
def no_pauses(card: RecordedCard) -> Iterator[None]:
    """The driver's pauses are noted instead of made."""
    clock = Clock(card)
    modules = ("ixy.drivers.ixgbe.device", "ixy.drivers.ixgbe.semaphore", "ixy.registers")
    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(patch(f"{module}.time", clock))
        yield
