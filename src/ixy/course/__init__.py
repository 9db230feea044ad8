"""A course: write your own driver for Intel's 82599.

What is here is all that a student's driver is given. A PCI bus hands out configuration spaces, the registers of cards,
and memory that cards reach by themselves; the rest is the student's. `bench.py` puts simulated cards behind it.

`ixy course` has the labs: their pages in `pages/`, solutions in `solutions/`, of which the skeletons are made
(`material.py`), and what judges them in `checks/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Bar", "Bus", "Interrupt", "Memory"]


class Bar(Protocol):
    """The registers of a card: memory that its base address register shows."""

    def read32(self, offset: int) -> int:
        """The register of 32 bits at byte `offset`. Reading may change the card."""
        ...

    def write32(self, offset: int, value: int) -> None:
        """Write the register of 32 bits at byte `offset`."""
        ...


class Memory(Protocol):
    """Memory that the card reaches, too, without asking the processor: DMA. It holds anything at first.

    Attributes:
        size: in bytes.
        address: where the card sees its first byte; the bytes behind it follow.
        pointer: where this process sees it, which means nothing to a card.
    """

    size: int
    address: int
    pointer: int

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes from `offset` on."""
        ...

    def free(self) -> None:
        """Give the memory back. The card does not reach it any more."""
        ...


class Interrupt(Protocol):
    """A message of MSI-X that the card can send."""

    def wait(self, timeout: float) -> bool:
        """Sleep until the card has sent it, up to `timeout` seconds; whether it has. A message is told once."""
        ...


class Bus(Protocol):
    """A PCI bus."""

    def slots(self) -> Sequence[str]:
        """Where a device may be, such as "01:00.0"; most are empty."""
        ...

    def config_read(self, where: str, offset: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes of a device's configuration space; all ones where there is no device."""
        ...

    def config_write(self, where: str, offset: int, size: int, value: int) -> None:
        """Write `size` bytes of a device's configuration space."""
        ...

    def map(self, address: int, size: int) -> Bar:
        """The registers that lie at `address` of the computer's memory.

        Raises:
            ValueError: no device shows memory of that size there.
        """
        ...

    def allocate(self, size: int, alignment: int = 1) -> Memory:
        """Memory for DMA whose address is a multiple of `alignment`, a power of two, and as a rule of no more."""
        ...

    def interrupt(self, where: str, vector: int = 0) -> Interrupt:
        """Switch MSI-X of a device on, and have one of its vectors."""
        ...
