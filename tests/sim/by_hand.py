"""A card and its rings, driven by the test: it writes registers and descriptors as a driver would."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from ixy.packets.dma import DmaMemory, allocate_rings
from ixy.sim.machine import Machine

CTRL_EXT, RXCTRL, FCTRL, DMATXCTL = 0x18, 0x3000, 0x5080, 0x4A80
RDBAL, RDLEN, SRRCTL, RDT, RXDCTL = 0x1000, 0x1008, 0x1014, 0x1018, 0x1028
TDBAL, TDLEN, TXDCTL = 0x6000, 0x6008, 0x6028
ENABLE = 1 << 25

RX_RING, TX_RING, BUFFERS = 0, 1 << 12, 1 << 16  # places in the test's memory
SLOTS = 8  # descriptors per ring


def racing(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let software write a tail beyond the ring, just before a module's interpreted kernels read any."""
    real = module.load_acquire
    patch.setattr(module, "load_acquire", lambda array, at: 0xFFFF if at == RDT // 4 else real(array, at))


class Rig:
    """A card and 2 MiB of memory that it may reach, with the rings' descriptors as arrays of 64-bit words."""

    def __init__(self) -> None:
        self.machine = Machine(stepped=True)
        self.card = self.machine.plug_in("sim:a,ready=0")
        self.memory: DmaMemory = allocate_rings(1)
        self.bus = int(self.machine.map(self.memory).pages[0])
        words = self.memory.bytes.view(np.int64)
        self.rx = words[RX_RING // 8 :][: 2 * SLOTS].reshape(SLOTS, 2)
        self.tx = words[TX_RING // 8 :][: 2 * SLOTS].reshape(SLOTS, 2)

    def read(self, offset: int) -> int:
        return self.card.read32(offset)

    def write(self, offset: int, value: int) -> None:
        self.card.write32(offset, value)

    def buffer(self, slot: int) -> int:
        """Bus address of buffer `slot`."""
        return self.bus + BUFFERS + 4096 * slot

    def content(self, slot: int, size: int) -> bytes:
        return self.memory.bytes[BUFFERS + 4096 * slot :][:size].tobytes()

    def set_up(self, tail: int = SLOTS - 1) -> None:
        """Queue 0 both ways, 8 descriptors each, everything accepted, `tail` receive descriptors handed over."""
        self.card.config_write(4, 2, 1 << 2)
        for base, length, place in ((RDBAL, RDLEN, RX_RING), (TDBAL, TDLEN, TX_RING)):
            self.write(base, (self.bus + place) & 0xFFFFFFFF)
            self.write(base + 4, (self.bus + place) >> 32)
            self.write(length, SLOTS * 16)
        self.rx[:, 0] = [self.buffer(slot) for slot in range(SLOTS)]
        self.rx[:, 1] = 0
        self.write(SRRCTL, 1 << 25 | 1 << 28 | 2)
        self.write(FCTRL, 1 << 8 | 1 << 9 | 1 << 10)
        self.write(CTRL_EXT, 1 << 16)  # no snoop off, or payloads are spoilt (4.6.7)
        self.write(RXDCTL, ENABLE)
        self.write(TXDCTL, ENABLE)
        self.write(DMATXCTL, 1)
        self.write(RXCTRL, 1)
        self.write(RDT, tail)

    def post(self, slot: int, data: bytes, command: int = 0) -> None:
        """A transmit descriptor for a packet of one buffer; `command` adds bits."""
        self.memory.bytes[BUFFERS + 4096 * slot :][: len(data)] = np.frombuffer(data, np.uint8)
        self.tx[slot] = (
            self.buffer(slot),
            len(data) << 46 | 1 << 29 | 3 << 20 | 1 << 24 | 1 << 25 | command | len(data),
        )

    def close(self) -> None:
        self.card.config_write(4, 2, 0)
        self.machine.unmap(self.memory)
        self.machine.unplug(self.card)
        self.memory.close()
