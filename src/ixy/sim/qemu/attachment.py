"""Simulated 82599s as PCI functions of a virtual machine that QEMU runs.

The cards are those of `Machine`, with the same wires; a kernel thread runs them, and `serve` answers QEMU.
"""

from __future__ import annotations

import os
import selectors
import socket
from abc import ABC, abstractmethod
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
    from ixy.sim.card.interrupts import Sink
    from ixy.sim.card.registers import Card
    from ixy.sim.card.virtual_function import VirtualFunction
    from ixy.sim.spec import Spec

FIRST_SLOT = 0x10  # on the root bus; QEMU gives lower ones to its own devices
MAX_CARDS = 8

_ONES = 0xFFFFFFFF


class _PciDevice(ABC):
    """A function of a simulated card as the `Device` of an endpoint.

    Attributes:
        function: the physical function, which is the card, or a virtual one.
    """

    def __init__(
        self, machine: Machine, function: Card | VirtualFunction, interrupts: Interrupts, iommu: Iommu | None = None
    ) -> None:
        self.function = function
        self._iommu = iommu
        self._memory = NO_MEMORY
        self.endpoint = Endpoint(function.config, self, interrupts)
        self._machine = machine
        # A driver that sends packets of several buffers would see its ring full while this is compiled, and drop some.
        provide(machine.rack, FETCH)

    def read(self, offset: int, size: int) -> int:
        """Registers are 32 bits wide; a smaller read takes its part of one, a larger one reads two."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        shift = offset % 4 * 8
        return self.function.read32(offset - offset % 4) >> shift & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A smaller write than 32 bits goes nowhere: the registers have no byte enables (8.1.1)."""
        for i in range(size // 4):
            self.function.write32(offset + 4 * i, value >> 32 * i & _ONES)

    @abstractmethod
    def reset(self) -> None: ...

    def set_memory(self, memory: GuestMemory) -> None:
        self._memory = memory
        if memory is NO_MEMORY:
            self.function.set_bus_master(0)
        else:
            self._machine.show(memory)
            if self._iommu is None:
                self.function.set_bus_master(1)
            else:
                self._iommu.look(self._grant)

    def _grant(self, root_table: int, requester: int) -> None:
        """DMA begins once it is known whether an IOMMU stands in its way; the guest sees a slow bus."""
        if self._memory is not NO_MEMORY:
            self.function.stand_behind(root_table, requester)
            self.function.set_bus_master(1)


class Events:
    """What tells of a card's interrupts, as a party to `serve`.

    Args:
        sink: of the physical function's.
    """

    def __init__(self, card: Card, sink: Sink | None) -> None:
        self.card = card
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        card.interrupt_through(sink, self._event)

    def fileno(self) -> int:
        return self._event

    def handle(self) -> bool:
        os.eventfd_read(self._event)
        self.card.collect()
        self.card.attend()
        return True

    def close(self) -> None:
        """Interrupt no more. The rack must have stopped."""
        os.close(self._event)


class PciCard(_PciDevice, Events):
    """A simulated card, as a party to `serve` too."""

    def __init__(self, machine: Machine, card: Card, interrupts: Interrupts, iommu: Iommu | None = None) -> None:
        _PciDevice.__init__(self, machine, card, interrupts, iommu)
        Events.__init__(self, card, self.endpoint)

    def reset(self) -> None:
        with self._machine.paused():
            self.card.reset(Reset.FUNCTION)


class PciFunction(_PciDevice):
    """A virtual function of a card, which has its interrupts sent with those of all others."""

    def __init__(
        self, machine: Machine, function: VirtualFunction, interrupts: Interrupts, iommu: Iommu | None = None
    ) -> None:
        super().__init__(machine, function, interrupts, iommu)
        self.virtual = function
        function.interrupt_through(self.endpoint)

    def reset(self) -> None:
        self.virtual.reset()


class Attachment:
    """Cards for one virtual machine.

    Args:
        addresses: of the cards, such as `sim:a,tap=ixy0`.

    Attributes:
        cards: those that are functions of the machine themselves, in the order of their addresses. The first address is
            that of what is in slot `FIRST_SLOT` of the root bus.
        functions: virtual functions, likewise.
        simulated: all cards, those with these functions included.
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
        self.functions: list[PciFunction] = []
        self.simulated: list[Card] = []
        self.arguments: list[str] = []
        self.fds: list[int] = []
        self._parties: list[Party] = []
        self._endpoints: list[Endpoint] = []
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
            for slot, (address, spec) in enumerate(zip(addresses, specs, strict=True), FIRST_SLOT):
                self._attach(stack, address, spec, SlotInterrupts(qtest, slot), Iommu(qtest, slot))
                self._propose(stack, address, spec, slot, memory)
            reporting = ReportSocket(self.simulated)
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
                waits = [left for card in self.simulated if (left := card.update_interrupts()) is not None]
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

    def _attach(self, stack: ExitStack, address: str, spec: Spec, interrupts: SlotInterrupts, iommu: Iommu) -> None:
        """Plug in a card, or the virtual function of one."""
        if spec.vf is not None:
            self._attach_function(stack, self.machine.plug_in_function(address), interrupts, iommu)
            return
        card = self.machine.plug_in(address)
        card.describe_all()
        pci_card = PciCard(self.machine, card, interrupts, iommu)
        stack.callback(pci_card.close)
        stack.callback(self.machine.unplug, card)
        self.simulated.append(card)
        self.cards.append(pci_card)
        self._parties.append(pci_card)
        self._endpoints.append(pci_card.endpoint)

    def _attach_function(
        self, stack: ExitStack, function: VirtualFunction, interrupts: SlotInterrupts, iommu: Iommu
    ) -> None:
        card = function.card
        if card not in self.simulated:  # its physical function is ours, and no function of the machine
            card.describe_all()
            events = Events(card, card.interrupts.sink)
            stack.callback(events.close)
            self.simulated.append(card)
            self._parties.append(events)
        stack.callback(self.machine.unplug_function, function)
        pci_function = PciFunction(self.machine, function, interrupts, iommu)
        self.functions.append(pci_function)
        self._endpoints.append(pci_function.endpoint)

    def _propose(self, stack: ExitStack, address: str, spec: Spec, slot: int, memory: MemoryMap) -> None:
        """Have QEMU put what was attached last into a slot."""
        proxy = Proxy(self._connect(stack), self._endpoints[-1], memory, address)
        stack.callback(proxy.close)
        name = spec.full_name.replace(".", "-")
        self.arguments += ["-device", f"x-pci-proxy-dev,id={name},fd={self.fds[-1]},addr={slot:#x}"]
        self._parties.append(proxy)
