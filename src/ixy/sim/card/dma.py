"""How a simulated 82599 reaches memory: DMA, through an IOMMU where one stands before the card, and descriptors.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.jit import compiled
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card.iommu import READ, WRITE
from ixy.sim.card.state import BUS_MASTER, DMA_ADDRESS, DMA_REFUSED, ROOT_TABLE
from ixy.sim.rack import PAGE, PAGE_SHIFT, Rack
from ixy.sim.slots import call
from ixy.unsafe import copy, load_acquire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CTRL = reg.CTRL.offset // 4
_MASTER_DISABLE = reg.CTRL.mask("PCIE_MASTER_DISABLE")


@compiled
def dma(rack: Rack, card: int, address: int, size: int, access: int) -> int:
    """The offset in memory of a bus address, or -1 if the card may not touch all of these bytes.

    They must lie in one page where an IOMMU stands before the card. A refused access is counted, and its address kept.
    """
    offset = address - rack.base
    if rack.cards[card, ROOT_TABLE] != 0:
        offset = call(rack, slots.TRANSLATE, card, address, access, 0)
    if offset >= 0 and size > 0 and offset + size <= rack.memory.size:
        page = offset >> PAGE_SHIFT
        last = (offset + size - 1) >> PAGE_SHIFT
        while page < last and load_acquire(rack.allowed, page) != 0:
            page += 1
        if load_acquire(rack.allowed, page) != 0:
            return offset
    rack.counters[card, DMA_REFUSED] += 1
    rack.counters[card, DMA_ADDRESS] = address
    return -1


@compiled
def run_length(rack: Rack, card: int, address: int, size: int) -> int:
    """How many of `size` bytes at a bus address lie together: an IOMMU scatters pages."""
    return size if rack.cards[card, ROOT_TABLE] == 0 else min(size, PAGE - address % PAGE)


@compiled
def dma_read(rack: Rack, card: int, address: int, target: NDArray[np.uint8], to: int, size: int) -> bool:
    """Read `size` bytes of memory at a bus address; False if the card may not."""
    done = 0
    while True:
        part = run_length(rack, card, address + done, size - done)
        place = dma(rack, card, address + done, part, READ)
        if place < 0:
            return False
        copy(target, to + done, rack.memory, place, part)
        done += part
        if done >= size:
            return True


@compiled
def dma_write(rack: Rack, card: int, address: int, source: NDArray[np.uint8], start: int, size: int) -> bool:
    """Write `size` bytes to memory at a bus address; False if the card may not."""
    done = 0
    while True:
        part = run_length(rack, card, address + done, size - done)
        place = dma(rack, card, address + done, part, WRITE)
        if place < 0:
            return False
        copy(rack.memory, place, source, start + done, part)
        done += part
        if done >= size:
            return True


@compiled
def masters(rack: Rack, card: int) -> bool:
    """Whether the card may use the bus: the command register allows it, and no master disable is on (5.2.5.3.2)."""
    disabled = load_acquire(rack.registers[card], _CTRL) & _MASTER_DISABLE
    return disabled == 0 and rack.cards[card, BUS_MASTER] != 0


@compiled
def ring_word(rack: Rack, card: int, low: int, high: int, slot: int) -> int:
    """The index in `words` of a descriptor whose ring's base is in registers `low` and `high`, or -1."""
    registers = rack.registers[card]
    base = (load_acquire(registers, high) << 32) | (load_acquire(registers, low) & 0xFFFFFF80)
    offset = dma(rack, card, base + slot * reg.DESCRIPTOR_BYTES, reg.DESCRIPTOR_BYTES, READ | WRITE)
    return offset >> 3 if offset >= 0 else -1
