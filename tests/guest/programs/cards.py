"""Runs in the guest: just enough of two of QEMU's cards to see their DMA and their interrupts through the bus.

Sources: Intel 82574 datasheet, chapters 7 and 10; VirtIO specification 1.2, sections 2.7, 4.1 and 5.1.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable, Iterator

from ixy.bus import Function
from ixy.packets.dma import DmaMapping, DmaMemory

COMMAND, BUS_MASTER = 4, 1 << 2


def set_bus_master(function: Function) -> None:
    function.config_write(COMMAND, 2, function.config_read(COMMAND, 2) | BUS_MASTER)


def count(event: int) -> int:
    """How often an eventfd was signalled, after waiting for the first time; 0 if that never comes."""
    return struct.unpack("Q", os.read(event, 8))[0] if select.select([event], [], [], 10)[0] else 0


def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether the device makes `condition` true; 500,000 looks are some seconds."""
    return any(condition() for _ in range(500_000))


class E1000e:
    """An 82574L that sends one frame, or interrupts when it is told to."""

    ICR, ICS, IMS, IMC, IVAR = 0xC0, 0xC8, 0xD0, 0xD8, 0xE4
    TCTL, TDBAL, TDBAH, TDLEN, TDH, TDT = 0x400, 0x3800, 0x3804, 0x3808, 0x3810, 0x3818
    RXQ0, LINK_CHANGE, OTHER = 1 << 20, 1 << 2, 1 << 24

    def __init__(self, function: Function) -> None:
        self.bar = function.bar(0)
        set_bus_master(function)

    def send(self, ring: DmaMemory, ring_address: int, buffer_address: int) -> bool:
        """Send 60 bytes from the bus address `buffer_address`; whether the card says that it did.

        Legacy descriptor: address; length, command EOP | IFCS | RS; status DD (7.2.10.1).
        """
        ring.bytes[:16] = list(struct.pack("<QHBBBBH", buffer_address, 60, 0, 0b1011, 0, 0, 0))
        self.bar.write32(self.TCTL, 0)
        for register, value in (
            (self.TDBAL, ring_address & 0xFFFFFFFF),
            (self.TDBAH, ring_address >> 32),
            (self.TDLEN, 128),
            (self.TDH, 0),
            (self.TDT, 0),
            (self.TCTL, 1 << 1),  # enable
            (self.TDT, 1),
        ):
            self.bar.write32(register, value)
        self.wait_until_sent()
        return bool(ring.bytes[12] & 1)

    def wait_until_sent(self) -> None:
        """The head moves whether or not the DMA was allowed."""
        assert comes_true(lambda: self.bar.read32(self.TDH) == 1)

    def drop_causes(self) -> None:
        self.bar.write32(self.IMC, 0xFFFFFFFF)
        self.bar.write32(self.ICR, 0xFFFFFFFF)

    def let_throttling_end(self) -> None:
        """QEMU dies if its timer that throttles MSI-X, at most 128 µs, ends when MSI-X is off.

        A sleep is certain here: what wakes the guest is a timer of QEMU's as well, and they end in order.
        """
        time.sleep(0.01)

    def raise_cause(self, cause: int) -> None:
        self.bar.write32(self.IMS, cause)
        self.bar.write32(self.ICS, cause)


class VirtioNet:
    """A modern VirtIO network device that sends one frame by the split queue 1 and interrupts by MSI-X vector 0."""

    STATUS, SELECT, SIZE, VECTOR, ENABLE, NOTIFY = 20, 22, 24, 26, 28, 30
    DESCRIPTORS, AVAILABLE, USED = 32, 40, 48
    QUEUE = 1

    def __init__(self, function: Function) -> None:
        capabilities = dict(self._capabilities(function))
        (bar, self.common), (_, self.notify) = capabilities[1], capabilities[2]
        self.words = function.bar(bar).words
        self.halves = self.words.view("<u2")
        self.status = self.words.view("u1")[self.common + self.STATUS :]
        set_bus_master(function)

    @staticmethod
    def _capabilities(function: Function) -> Iterator[tuple[int, tuple[int, int]]]:
        """Kind, BAR and offset of each vendor-specific capability (4.1.4)."""
        at = function.config_read(0x34, 1)
        while at:
            if function.config_read(at, 1) == 9:
                yield (
                    function.config_read(at + 3, 1),
                    (function.config_read(at + 4, 1), function.config_read(at + 8, 4)),
                )
            at = function.config_read(at + 1, 1)

    def _half(self, offset: int, value: int) -> None:
        self.halves[(self.common + offset) // 2] = value

    def start(self, mapping: DmaMapping) -> None:
        """3.1.1: reset, features VERSION_1 and ACCESS_PLATFORM, one queue at the start of the memory, driver ok."""
        self.status[0] = 0
        assert comes_true(lambda: self.status[0] == 0)
        self.status[0] = 3
        self.words[(self.common + 8) // 4] = 1  # the high half of the features
        self.words[(self.common + 12) // 4] = 0b11
        self.status[0] = 11
        assert self.status[0] & 8, "the device refuses the features"
        self._half(self.SELECT, self.QUEUE)
        self._half(self.SIZE, 8)
        self._half(self.VECTOR, 0)
        for offset, place in ((self.DESCRIPTORS, 0), (self.AVAILABLE, 4096), (self.USED, 8192)):
            address = mapping.address(place, 4096)
            self.words[(self.common + offset) // 4] = address & 0xFFFFFFFF
            self.words[(self.common + offset) // 4 + 1] = address >> 32
        self._half(self.ENABLE, 1)
        self.status[0] = 15

    def send(self, memory: DmaMemory, mapping: DmaMapping) -> None:
        """A header of 12 bytes and a frame of 60; QEMU's notifications are 4 bytes apart (4.1.4.4)."""
        memory.bytes[:16] = list(struct.pack("<QIHH", mapping.address(12288, 72), 72, 0, 0))
        memory.bytes[4096:4102] = list(struct.pack("<HHH", 0, 1, 0))
        self.halves[(self.notify + 4 * self.QUEUE) // 2] = self.QUEUE

    @staticmethod
    def used(memory: DmaMemory) -> int:
        """How many buffers the device has given back."""
        return struct.unpack_from("<H", memory.bytes[8194:8196].tobytes())[0]
