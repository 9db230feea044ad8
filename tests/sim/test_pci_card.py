"""A simulated card behind a PCI function, with a guest's memory but no guest: access sizes, DMA, interrupts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card import config
from ixy.sim.machine import Machine
from ixy.sim.qemu.attachment import PciCard
from ixy.sim.qemu.memory import GuestMemory, MemoryMap, Section
from ixy.sim.qemu.qtest import SlotInterrupts

RING, BUFFER, NOWHERE = 0x1000, 0x4000, 0x1234_0000
MEMORY_SIZE = 0x10000
MESSAGE_ADDRESS, MESSAGE_DATA = 0xFEE00000, 0x41


class Recorder(SlotInterrupts):
    """Keeps messages instead of sending them."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, int]] = []

    def message(self, address: int, data: int) -> None:
        self.messages.append((address, data))

    def line(self, asserted: bool) -> None:
        pass


class Rig:
    """A card that moves only in `step`, and 64 KiB of memory at guest address 0."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, MEMORY_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.layout: GuestMemory = self.map.lay([Section(0, MEMORY_SIZE, 0, fd)])
        os.close(fd)
        self.machine = Machine(stepped=True, memory=self.map.bytes)
        self.card = self.machine.plug_in("sim:a")
        self.interrupts = Recorder()
        self.pci = PciCard(self.machine, self.card, self.interrupts)
        self.endpoint = self.pci.endpoint

    def close(self) -> None:
        self.machine.unplug(self.card)
        self.pci.close()
        self.map.close()

    def write(self, register: Register, value: int) -> None:
        self.endpoint.bar_write(config.REGISTERS_BAR, register.offset, 4, value)

    def read(self, register: Register) -> int:
        return self.endpoint.bar_read(config.REGISTERS_BAR, register.offset, 4)

    def command(self, value: int) -> None:
        """Write the function's command register."""
        self.endpoint.config_write(config.COMMAND, 2, value)

    def descriptor(self, number: int, address: int) -> None:
        """Lay a descriptor that sends 60 bytes from `address` and asks for a report."""
        words = address.to_bytes(8, "little") + (60 | reg.TX_EOP | reg.TX_IFCS | reg.TX_RS).to_bytes(8, "little")
        self.map.bytes[RING + 16 * number : RING + 16 * number + 16] = list(words)

    def done(self, number: int) -> bool:
        return bool(self.map.bytes[RING + 16 * number + 12] & 1)

    def start_queue(self) -> None:
        self.write(reg.TDBAL[0], RING)
        self.write(reg.TDBAH[0], 0)
        self.write(reg.TDLEN[0], 128)
        self.write(reg.DMATXCTL, reg.DMATXCTL.value(TE=1))
        self.write(reg.TXDCTL[0], reg.TXDCTL.value(ENABLE=1))


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.endpoint.set_memory(rig.layout)
    rig.command(config.COMMAND_MEMORY | config.COMMAND_BUS_MASTER)
    yield rig
    rig.close()


def test_dma_to_nowhere_is_refused_and_the_card_goes_on(rig: Rig) -> None:
    """Of three packets the second lies where there is no memory: two are sent, one refusal is counted."""
    rig.start_queue()
    for number, address in enumerate((BUFFER, NOWHERE, BUFFER)):
        rig.descriptor(number, address)
    rig.write(reg.TDT[0], 3)
    rig.machine.step(4)
    assert rig.read(reg.TDH[0]) == 3
    assert [rig.done(number) for number in range(3)] == [True] * 3
    assert rig.read(reg.GPTC) == 2
    assert rig.machine.dma_refused(rig.card) == 1


def test_a_ring_in_no_memory_is_refused(rig: Rig) -> None:
    """The ring itself lies nowhere: each descriptor is refused, nothing is sent, and nothing runs for ever."""
    rig.start_queue()
    rig.write(reg.TDBAL[0], NOWHERE)
    rig.write(reg.TDT[0], 5)
    rig.machine.step(10)
    assert rig.read(reg.GPTC) == 0
    assert rig.machine.dma_refused(rig.card) == 5


def test_a_card_interrupts_by_msi(rig: Rig) -> None:
    """MSI on, MSI-X not: one message, for the queue's cause that is not masked; reading EICR makes room for another."""
    for offset, size, value in ((0x54, 4, MESSAGE_ADDRESS), (0x5C, 2, MESSAGE_DATA), (0x52, 2, 1)):
        rig.endpoint.config_write(offset, size, value)
    rig.start_queue()
    rig.write(reg.IVAR[0], 0x80 << 8)
    rig.write(reg.EIMS, 1)
    for number in range(2):
        rig.descriptor(number, BUFFER)
        rig.write(reg.TDT[0], number + 1)
        rig.machine.step(4)
        assert rig.pci.handle()
        assert rig.interrupts.messages == [(MESSAGE_ADDRESS, MESSAGE_DATA)] * (number + 1)
        assert rig.read(reg.EICR) == 1


def test_without_bus_mastering_nothing_moves(rig: Rig) -> None:
    rig.start_queue()
    rig.descriptor(0, BUFFER)
    rig.command(config.COMMAND_MEMORY)
    rig.write(reg.TDT[0], 1)
    rig.machine.step(4)
    assert rig.read(reg.TDH[0]) == 0
    rig.command(config.COMMAND_MEMORY | config.COMMAND_BUS_MASTER)
    rig.machine.step(4)
    assert rig.done(0)


def test_memory_that_the_guest_gave_away_is_not_reached(rig: Rig) -> None:
    """A new layout has only the lower half of the memory: a buffer in the upper half is refused from then on."""
    rig.start_queue()
    rig.descriptor(0, MEMORY_SIZE // 2)
    rig.endpoint.set_memory(GuestMemory(rig.layout.bytes, rig.layout.regions // [[1, 2, 1]]))
    rig.write(reg.TDT[0], 1)
    rig.machine.step(4)
    assert rig.machine.dma_refused(rig.card) == 1


def test_a_finished_queue_sends_its_message(rig: Rig) -> None:
    """Transmit queue 0 has vector 2: after the report the rack raises the event, and the message goes out."""
    rig.endpoint.config_write(config.MSIX_CONTROL, 2, config.MSIX_ENABLE)
    for offset, value in ((0, MESSAGE_ADDRESS), (4, 0), (8, MESSAGE_DATA), (12, 0)):
        rig.endpoint.bar_write(config.MSIX_BAR, 2 * 16 + offset, 4, value)
    rig.write(reg.IVAR[0], reg.IVAR.value(TX_EVEN=0x82))
    rig.write(reg.EIMS_EX[0], 1 << 2)
    rig.start_queue()
    rig.descriptor(0, BUFFER)
    rig.write(reg.TDT[0], 1)
    rig.machine.step(2)
    assert rig.pci.handle()
    assert rig.interrupts.messages == [(MESSAGE_ADDRESS, MESSAGE_DATA)]


def test_accesses_of_other_sizes(rig: Rig) -> None:
    """Two registers in one read of 64 bits, bytes of one; writes smaller than a register are lost; beyond, ones."""
    rig.write(reg.RAL[1], 0x44332211)
    rig.write(reg.RAH[1], 0x80006655)
    assert rig.pci.read(reg.RAL[1].offset, 8) == 0x8000665544332211
    assert rig.pci.read(reg.RAL[1].offset + 1, 2) == 0x3322
    rig.pci.write(reg.RAL[1].offset, 1, 0xFF)
    assert rig.read(reg.RAL[1]) == 0x44332211
    assert rig.pci.read(reg.BAR0_SIZE, 4) == 0xFFFFFFFF


def test_older_places_of_registers(rig: Rig) -> None:
    """Receive address 3 can be reached at 0x5418 too, as Linux does."""
    rig.pci.write(0x05418, 4, 0xCAFE)
    assert rig.read(reg.RAL[3]) == 0xCAFE


def test_a_reset_stops_the_queues(rig: Rig) -> None:
    rig.start_queue()
    rig.endpoint.reset()
    assert rig.read(reg.TXDCTL[0]) == 0
    rig.command(config.COMMAND_MEMORY | config.COMMAND_BUS_MASTER)
    rig.write(reg.TDT[0], 1)
    assert rig.machine.step(2) == 0
