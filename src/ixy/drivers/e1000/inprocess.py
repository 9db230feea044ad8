"""A partner in the same process, as a PCI function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.bus import Slot
from ixy.errors import UnsupportedDevice
from ixy.packets.dma import DmaMapping
from ixy.sim.gigabit import BUS_BASE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.bus import Interrupts, Irq, Ports
    from ixy.packets.dma import DmaMemory
    from ixy.sim.gigabit import Gigabit


class InProcess:
    """See `ixy.bus.Function`.

    Args:
        card: the partner; it works when whoever has it says so.
    """

    address = "gigabit"

    def __init__(self, card: Gigabit) -> None:
        self.card = card

    def slot(self) -> Slot:
        return Slot("in this process")

    def config_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.card.config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.card.config[offset : offset + size] = value.to_bytes(size, "little")

    def bar(self, index: int) -> Gigabit:
        if index != 0:
            raise UnsupportedDevice(f"{self.address}: no BAR {index}")
        return self.card

    def ports(self, index: int) -> Ports:
        raise UnsupportedDevice(f"{self.address}: BAR {index} is no I/O ports")

    def map(self, memory: DmaMemory) -> DmaMapping:
        self.card.allow(memory, allowed=True)
        return DmaMapping.linear(memory, BUS_BASE)

    def unmap(self, memory: DmaMemory) -> None:
        self.card.allow(memory, allowed=False)

    def interrupt_vectors(self, kind: Irq) -> int:  # noqa: ARG002
        return 0

    def interrupts(self, kind: Irq, vectors: int) -> Interrupts:
        raise UnsupportedDevice(f"{self.address}: {vectors} {kind.value} interrupts: it has none")

    def rouse(self) -> None:
        """It never sleeps."""

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """Likewise."""

    def reset(self) -> None:
        """A driver resets it by a register."""

    def close(self) -> None:
        """It stays for whoever has it."""
