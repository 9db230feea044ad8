"""Simulated cards behind the same seam as real ones."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from ixy import clock
from ixy.bus import Irq, Slot
from ixy.bus.capabilities import pcie_link
from ixy.dropped import close_dropped
from ixy.errors import UnsupportedDevice
from ixy.process import forget_in_child
from ixy.registers import Reset
from ixy.registers.i82599_vf import VECTORS as VF_VECTORS
from ixy.sim.card.interrupts import VECTORS
from ixy.sim.spec import parse_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.bus import Ports
    from ixy.packets.dma import DmaMapping, DmaMemory
    from ixy.sim.card.registers import Card
    from ixy.sim.card.virtual_function import VirtualFunction
    from ixy.sim.machine import Machine


def simulated_function(address: str, host: Machine) -> SimulatedFunction | SimulatedVirtualFunction:
    """The simulated card, or the virtual function of one, that an address names; raises as these do."""
    virtual = parse_spec(address).vf is not None
    return SimulatedVirtualFunction(address, host) if virtual else SimulatedFunction(address, host)


Simulated = TypeVar("Simulated", "Card", "VirtualFunction")


class _Simulated(ABC, Generic[Simulated]):
    """What a simulated card and its virtual functions have in common as functions of a bus."""

    card: Simulated
    address: str
    vectors: int  # of MSI-X

    def __init__(self, host: Machine) -> None:
        self.machine = host
        self._mapped: list[DmaMemory] = []

    def slot(self) -> Slot:
        return Slot("simulated", pcie=pcie_link(self.config_read))

    def config_read(self, offset: int, size: int) -> int:
        return self.card.config_read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.card.config_write(offset, size, value)

    def bar(self, index: int) -> SimulatedBar:
        if index != 0:
            raise UnsupportedDevice(f"{self.address}: no BAR {index}")
        return self._registers()

    @abstractmethod
    def _registers(self) -> SimulatedBar:
        """BAR 0."""

    def ports(self, index: int) -> Ports:
        raise UnsupportedDevice(f"{self.address}: BAR {index} is no I/O ports")

    def map(self, memory: DmaMemory) -> DmaMapping:
        self._mapped.append(memory)
        return self.machine.map(memory, self)

    def unmap(self, memory: DmaMemory) -> None:
        self.machine.unmap(memory, self)
        if memory in self._mapped:
            self._mapped.remove(memory)

    def interrupt_vectors(self, kind: Irq) -> int:
        return self.vectors if kind is Irq.MSIX else 0

    def interrupts(self, kind: Irq, vectors: int) -> SimulatedInterrupts:
        """Deliver the first `vectors` interrupts.

        Raises:
            UnsupportedDevice: the card has fewer, or none of this kind.
        """
        if vectors > (available := self.interrupt_vectors(kind)):
            raise UnsupportedDevice(f"{self.address}: {vectors} {kind.value} interrupts: it has {available}")
        return SimulatedInterrupts(self.card, vectors)

    def rouse(self) -> None:
        self.machine.rouse()
        clock.settle()

    def rung_by(self, words: NDArray[np.int64]) -> None:
        self.machine.rung_by(words)

    @abstractmethod
    def reset(self) -> None: ...

    @abstractmethod
    def _unplug(self) -> None:
        """Give it back to the machine."""

    def close(self) -> None:
        """What was not unmapped, since that was interrupted, is now."""
        for memory in list(self._mapped):
            self.unmap(memory)
        self._unplug()

    def __del__(self) -> None:
        if hasattr(self, "address"):  # else the machine finds out by itself that nobody has the card
            close_dropped(self.close)


class SimulatedFunction(_Simulated["Card"]):
    """A simulated card; see `ixy.bus.Function`.

    Args:
        address: `sim:…`, see `ixy.sim.spec`.
        host: the machine to plug it into.

    Raises:
        AddressError, DeviceBusy, CaptureError, …: as `Machine.plug_in`.
    """

    vectors = VECTORS

    def __init__(self, address: str, host: Machine) -> None:
        super().__init__(host)
        self.card = host.plug_in(address, self)
        self.address = f"sim:{self.card.name}"

    def _registers(self) -> SimulatedBar:
        return SimulatedBar(self.card, self.machine.rack.registers[self.card.index])

    def reset(self) -> None:
        with self.machine.paused():
            self.card.reset(Reset.FUNCTION)

    def _unplug(self) -> None:
        self.machine.unplug(self.card, self)


class SimulatedVirtualFunction(_Simulated["VirtualFunction"]):
    """A virtual function of a simulated card; see `ixy.bus.Function`.

    Args:
        address: `sim:NAME.vf0…`, see `ixy.sim.spec`.
        host: the machine to plug its card into.

    Raises:
        AddressError, DeviceBusy, CaptureError, …: as `Machine.plug_in_function`.
    """

    vectors = VF_VECTORS

    def __init__(self, address: str, host: Machine) -> None:
        super().__init__(host)
        self.card = host.plug_in_function(address, self)
        self.address = f"sim:{self.card.name}"

    def _registers(self) -> SimulatedBar:
        return SimulatedBar(self.card, self.card.own_words)

    def reset(self) -> None:
        self.card.reset()

    def _unplug(self) -> None:
        self.machine.unplug_function(self.card, self)


class SimulatedBar:
    """BAR 0 of a simulated card: kernels write doorbells into the card's register memory, which the card polls."""

    def __init__(self, card: Card | VirtualFunction, words: NDArray[np.uint32]) -> None:
        self.words = words
        self.read32 = card.read32
        self.write32 = card.write32
        self.doorbell = card.doorbell


class SimulatedInterrupts:
    """Messages of a simulated card. Implements `ixy.bus.Interrupts`, and is the card's `Sink`."""

    msix_enabled = True

    def __init__(self, card: Card | VirtualFunction, vectors: int) -> None:
        self._card = card
        self.events: Sequence[int] = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(vectors)]
        forget_in_child(self)
        card.interrupt_own(self)

    def signal(self, vector: int) -> None:
        """A message is a write by a bus master."""
        if vector < len(self.events) and self._card.masters_bus:
            os.eventfd_write(self.events[vector], 1)

    def set_line(self, asserted: bool) -> None:
        """With MSI-X there is no line."""

    def rearm(self) -> None:
        """Messages need none of this."""

    def close(self) -> None:
        self._card.interrupt_no_more()
        self.forget()

    def forget(self) -> None:
        """Close the files; see `ixy.process.Inheritance`."""
        events, self.events = self.events, []
        for event in events:
            os.close(event)

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "events") and not _ending():
            self.forget()
