"""Simulated 82599s as PCI functions of a virtual machine that QEMU runs.

The cards are those of `Machine`, with the same wires; a kernel thread runs them, and `serve` answers QEMU.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ixy.errors import AddressError
from ixy.registers import Reset
from ixy.sim.card.iommu import Iommu
from ixy.sim.machine import Machine
from ixy.sim.qemu.endpoint import Endpoint, Interrupts
from ixy.sim.qemu.memory import NO_MEMORY, GuestMemory, MemoryMap
from ixy.sim.qemu.proxy import Party, Proxy
from ixy.sim.qemu.qtest import Qtest, SlotInterrupts
from ixy.sim.qemu.reporting import ReportSocket
from ixy.sim.slots import FETCH, provide
from ixy.sim.spec import check_files, parse_spec

if TYPE_CHECKING:
    from ixy.sim.card.registers import Card

FIRST_SLOT = 0x10  # on the root bus; QEMU gives lower ones to its own devices
MAX_CARDS = 8

_ONES = 0xFFFFFFFF


class PciCard:
    """A simulated card as the `Device` of an endpoint, and as a party to `serve`: it has interrupts to send."""

    def __init__(self, machine: Machine, card: Card, interrupts: Interrupts, iommu: Iommu | None = None) -> None:
        self.card = card
        self._iommu = iommu
        self._memory = NO_MEMORY
        self.endpoint = Endpoint(card.config, self, interrupts)
        self._machine = machine
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        card.interrupt_through(self.endpoint, self._event)
        # A driver that sends packets of several buffers would see its ring full while this is compiled, and drop some.
        provide(machine.rack, FETCH)

    # -- as a device

    def read(self, offset: int, size: int) -> int:
        """Registers are 32 bits wide; a smaller read takes its part of one, a larger one reads two."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        shift = offset % 4 * 8
        return self.card.read32(offset - offset % 4) >> shift & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A smaller write than 32 bits goes nowhere: the registers have no byte enables (8.1.1)."""
        for i in range(size // 4):
            self.card.write32(offset + 4 * i, value >> 32 * i & _ONES)

    def reset(self) -> None:
        with self._machine.paused():
            self.card.reset(Reset.FUNCTION)

    def set_memory(self, memory: GuestMemory) -> None:
        self._memory = memory
        if memory is NO_MEMORY:
            self.card.set_bus_master(0)
        else:
            self._machine.show(memory)
            if self._iommu is None:
                self.card.set_bus_master(1)
            else:
                self._iommu.look(self._grant)

    def _grant(self, root_table: int, requester: int) -> None:
        """DMA begins once it is known whether an IOMMU stands in its way; the guest sees a slow bus."""
        if self._memory is not NO_MEMORY:
            self.card.stand_behind(root_table, requester)
            self.card.set_bus_master(1)

    # -- as a party

    def fileno(self) -> int:
        return self._event

    def handle(self) -> bool:
        os.eventfd_read(self._event)
        self.card.interrupts.collect()
        return True

    def close(self) -> None:
        """Interrupt no more. The rack must have stopped."""
        os.close(self._event)


class Attachment:
    """Cards for one virtual machine.

    Args:
        addresses: of the cards, such as `sim:a,tap=ixy0`.

    Attributes:
        cards: in the order of their addresses; the first is in slot `FIRST_SLOT` of the root bus.
        arguments: what QEMU's command line needs.
        fds: file descriptors that QEMU must inherit.

    Raises:
        AddressError: malformed, or too many cards.
        Error: what is to be plugged into a card cannot be.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        if not 1 <= len(addresses) <= MAX_CARDS:
            raise AddressError(f"{len(addresses)} cards: 1 to {MAX_CARDS} are possible")
        specs = [parse_spec(address) for address in addresses]
        check_files(wire for spec in specs for wire in spec.wires)
        for address, spec in zip(addresses, specs, strict=True):
            if spec.virtual:
                raise AddressError(f"{address}: a virtual machine goes by the system's clock: leave out clock=virtual")
        self.cards: list[PciCard] = []
        self.arguments: list[str] = []
        self.fds: list[int] = []
        self._parties: list[Party] = []
        self._theirs: list[socket.socket] = []
        with ExitStack() as stack:
            memory = MemoryMap()
            stack.callback(memory.close)
            self.machine = Machine(memory=memory.bytes)
            qtest_socket = self._connect(stack)
            qtest = Qtest(qtest_socket)
            self._parties.append(qtest)
            self.arguments += ["-chardev", f"socket,id=qtest,fd={self.fds[-1]}"]
            self.arguments += ["-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
            for slot, address in enumerate(addresses, FIRST_SLOT):
                self._attach(stack, address, slot, qtest, memory)
            reporting = ReportSocket(card.card for card in self.cards)
            stack.callback(reporting.close)
            self._parties.append(reporting)
            self._stack = stack.pop_all()

    def release(self) -> None:
        """Close QEMU's ends of the sockets, once it has inherited them: only so is its death seen."""
        for theirs in self._theirs:
            theirs.close()

    def serve(self) -> None:
        """Answer QEMU until it has gone.

        Raises:
            ProxyError: QEMU does not keep to the protocol.
            MemoryUnavailable: the guest's memory cannot be mapped.
        """
        # Not epoll, whose timeout has a resolution of a millisecond: interrupts are throttled by microseconds.
        with selectors.SelectSelector() as selector:
            for party in self._parties:
                selector.register(party, selectors.EVENT_READ, party)
            wait: float | None = None
            while all(key.data.handle() for key, _ in selector.select(wait)):
                waits = [left for card in self.cards if (left := card.card.interrupts.update()) is not None]
                wait = min(waits, default=None)

    def hang_up(self) -> None:
        """Answer QEMU no more: the guest's accesses to the cards give ones."""
        for party in self._parties:
            if isinstance(party, Proxy):
                party.close()

    def close(self) -> None:
        """Unplug the cards; what they recorded is in its files then.

        Raises:
            CaptureError: it is not, and how much of it is.
        """
        self._stack.close()

    def _connect(self, stack: ExitStack) -> socket.socket:
        """Our end of a new pair of sockets."""
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        stack.callback(theirs.close)
        self._theirs.append(theirs)
        self.fds.append(theirs.fileno())
        return ours

    def _attach(self, stack: ExitStack, address: str, slot: int, qtest: Qtest, memory: MemoryMap) -> None:
        card = self.machine.plug_in(address)
        card.describe_all()
        pci_card = PciCard(self.machine, card, SlotInterrupts(qtest, slot), Iommu(qtest, slot))
        stack.callback(pci_card.close)
        stack.callback(self.machine.unplug, card)
        proxy = Proxy(self._connect(stack), pci_card.endpoint, memory, address)
        stack.callback(proxy.close)
        self.arguments += ["-device", f"x-pci-proxy-dev,id={card.name},fd={self.fds[-1]},addr={slot:#x}"]
        self.cards.append(pci_card)
        self._parties += [proxy, pci_card]
