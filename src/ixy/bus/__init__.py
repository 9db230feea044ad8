"""The seam between a driver and its device.

A driver is handed a `Function`, one function of one PCI device, and never asks what stands behind it: a card reached
through sysfs, one reached through VFIO, or a simulated one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ixy.packets.dma import DmaMapping, DmaMemory


class Bar(Protocol):
    """A base address register's memory.

    Attributes:
        words: the memory as 32-bit words, shape (size / 4,), uint32.
    """

    words: NDArray[np.uint32]

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The register at byte `offset` as an array of one word, for kernels that ring it."""
        ...

    def read32(self, offset: int) -> int:
        """One 32-bit read at byte `offset`, with the register's side effects."""
        ...

    def write32(self, offset: int, value: int) -> None:
        """One 32-bit write at byte `offset`, with the register's side effects."""
        ...


class Irq(Enum):
    """Kinds of interrupts: a shared line, or messages, of which MSI-X has one address and mask each."""

    INTX = "INTx"
    MSI = "MSI"
    MSIX = "MSI-X"


class Interrupts(Protocol):
    """Interrupts that are on, until `close`.

    Attributes:
        events: a non-blocking eventfd(2) for each vector: readable after an interrupt, and reading it takes the number
            of interrupts since.
    """

    events: Sequence[int]

    def rearm(self) -> None:
        """After an INTx interrupt was handled, let the line interrupt again. Messages need none of this."""
        ...

    def close(self) -> None:
        """Switch the interrupts off and close `events`."""
        ...


class Ports(Protocol):
    """A base address register's I/O ports.

    Attributes:
        fd, start: the file through which they are reached, and where they begin in it, for kernels that ring doorbells.
    """

    fd: int
    start: int

    def read(self, offset: int, size: int) -> int:
        """Read a register of `size` (1, 2 or 4) bytes at byte `offset`."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register of `size` bytes at byte `offset`."""
        ...


class PcieLink(NamedTuple):
    """The PCI Express link of a device: lanes, and the rate of each in GT/s; what it is and what the device could.

    Source: PCI Express Base 3.0, 7.8.6 and 7.8.8.
    """

    speed: float
    width: int
    max_speed: float
    max_width: int


class Slot(NamedTuple):
    """Where a device is plugged in.

    Attributes:
        bus: how it is reached: "sysfs", "VFIO", "simulated".
        numa_node: that it is attached to; None where there is but one.
        pcie: its link; None if it has none that is known.
    """

    bus: str
    numa_node: int | None = None
    pcie: PcieLink | None = None


class Function(Protocol):
    """One function of a PCI device, taken by this process alone until `close`.

    Attributes:
        address: as the user wrote it, for messages.
    """

    address: str

    def slot(self) -> Slot:
        """Where the device is plugged in."""
        ...

    def config_read(self, offset: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes of the configuration space at `offset`."""
        ...

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes of the configuration space at `offset`."""
        ...

    def bar(self, index: int) -> Bar:
        """Base address register `index`, mapped."""
        ...

    def ports(self, index: int) -> Ports:
        """Base address register `index`, which is I/O ports and not memory."""
        ...

    def map(self, memory: DmaMemory) -> DmaMapping:
        """Let the device reach `memory`, and say at which addresses."""
        ...

    def unmap(self, memory: DmaMemory) -> None:
        """Take `memory` from the device. It must not use it any more."""
        ...

    def interrupt_vectors(self, kind: Irq) -> int:
        """How many interrupts of `kind` can be had; 0 where the bus delivers none, and the driver polls."""
        ...

    def interrupts(self, kind: Irq, vectors: int) -> Interrupts:
        """Switch the first `vectors` interrupts of `kind` on. Messages also need bus mastering."""
        ...

    def rouse(self) -> None:
        """Python has rung a doorbell: a device that sleeps, as only a simulated one does, is to look."""
        ...

    def rung_by(self, words: NDArray[np.int64]) -> None:
        """The loop of the path with these words (`ixy.counts`) rings doorbells: where a device sleeps, which only a
        simulated one does, that loop is to rouse it."""
        ...

    def reset(self) -> None:
        """Reset the function by the means of PCI; the configuration space is kept."""
        ...

    def close(self) -> None:
        """Give the device up. The driver has stopped it, and bus mastering is off."""
        ...


# The PCI command register
COMMAND = 0x04
BUS_MASTER = 1 << 2


def set_bus_master(function: Function, enabled: bool) -> None:
    """Let the device do DMA, or not (PCI Local Bus 3.0, 6.2.2)."""
    command = function.config_read(COMMAND, 2)
    command = command | BUS_MASTER if enabled else command & ~BUS_MASTER
    function.config_write(COMMAND, 2, command)
