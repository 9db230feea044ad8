"""The PCI side of a simulated card: configuration, resets, and interrupts on their way to the guest."""

from __future__ import annotations

from typing import Protocol

from ixy.sim.card import config
from ixy.sim.card.config import ConfigSpace
from ixy.sim.qemu.memory import NO_MEMORY, GuestMemory
from ixy.sim.qemu.msix import Msix


class Device(Protocol):
    """What lies behind the PCI function: the registers, and all that they do.

    Offsets may be unaligned, as software likes, but no access crosses the end of the BAR.
    """

    def read(self, offset: int, size: int) -> int:
        """`size` (1, 2, 4 or 8) bytes of the registers at `offset` of BAR 0, with the read's side effects."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes of the registers at `offset` of BAR 0, with the write's side effects."""
        ...

    def reset(self) -> None:
        """Everything as after power-on: no DMA, no interrupt."""
        ...

    def set_memory(self, memory: GuestMemory) -> None:
        """From now on the device reaches this memory, and no longer what it was given before.

        It reaches none before the first call, nor while it is not bus master.
        """
        ...


class Interrupts(Protocol):
    """The way of a function's interrupts to the guest's processor."""

    def message(self, address: int, data: int) -> None:
        """Write 32 bits of `data` to `address`, as a message-signalled interrupt does."""
        ...

    def line(self, asserted: bool) -> None:
        """Drive the function's INTA line."""
        ...


class Endpoint:
    """One PCI function with a `Device` behind it.

    Attributes:
        config: its configuration space.
    """

    def __init__(self, config_space: ConfigSpace, device: Device, interrupts: Interrupts) -> None:
        self.config = config_space
        self._device = device
        self._interrupts = interrupts
        self._msix = Msix()
        self._memory = self._granted = NO_MEMORY
        self._line_wanted = self._line_driven = self._msi_pending = False

    # -- what the device does to the guest

    @property
    def msix_enabled(self) -> bool:
        """Whether each vector has a message of its own."""
        return self.config.has(config.MSIX_CONTROL, config.MSIX_ENABLE)

    @property
    def msi_enabled(self) -> bool:
        """Whether the line's rising is a message."""
        return self.config.has(config.MSI_CONTROL, config.MSI_ENABLE) and not self.msix_enabled

    def signal(self, vector: int) -> None:
        """Send the message of MSI-X `vector`, now or when its mask goes. Without MSI-X nothing is sent."""
        if self.msix_enabled:
            self._msix.request(vector)
            self._deliver()

    def set_line(self, asserted: bool) -> None:
        """Want the INTA line asserted or not; with MSI or MSI-X on, or INTx disabled, it stays as if not.

        With MSI, wanting it anew sends the message, now or when its mask goes.
        """
        self._msi_pending = asserted and (self._msi_pending or not self._line_wanted)
        self._line_wanted = asserted
        self._deliver()

    # -- what the guest does to the device

    def config_read(self, offset: int, size: int) -> int:
        """`size` bytes of the configuration space."""
        return self.config.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write to the configuration space, which can reset the function (PCI Express Base 3.0, 6.6.2)."""
        was_asleep = self._asleep
        self.config.write(offset, size, value)
        # Leaving D3hot resets the 82599: its No_Soft_Reset bit is 0.
        woken = was_asleep and not self._asleep
        if woken or self.config.has(config.EXPRESS_CONTROL, config.FUNCTION_RESET):
            self.reset()
        self._grant_memory()
        self._deliver()

    def decode(self, address: int, size: int) -> tuple[int, int] | None:
        """The BAR that claims `size` bytes at `address` and the offset within, or None."""
        return self.config.decode(address, size)

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """`size` bytes of a base address register's memory."""
        return self._msix.read(offset, size) if bar == self.config.layout.msix_bar else self._device.read(offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write to a base address register's memory."""
        if bar == self.config.layout.msix_bar:
            self._msix.write(offset, size, value)
            self._deliver()
        else:
            self._device.write(offset, size, value)

    def reset(self) -> None:
        """Everything as after power-on."""
        self.config.reset()
        self._grant_memory()
        self._device.reset()
        self._msix.reset()
        self.set_line(False)

    def set_memory(self, memory: GuestMemory) -> None:
        """The guest's memory was laid anew."""
        self._memory = memory
        self._grant_memory()

    # -- inside

    @property
    def _asleep(self) -> bool:
        return self.config.has(config.POWER_STATUS, config.POWER_STATE)

    @property
    def _bus_master(self) -> bool:
        return self.config.has(config.COMMAND, config.COMMAND_BUS_MASTER) and not self._asleep

    def _grant_memory(self) -> None:
        """Show the device the guest's memory while it is bus master, and none while it is not."""
        granted = self._memory if self._bus_master else NO_MEMORY
        if granted is not self._granted:
            self._granted = granted
            self._device.set_memory(granted)

    def _deliver(self) -> None:
        """Send what masks and enable bits let pass, and drive the line."""
        masked = self.config.has(config.MSIX_CONTROL, config.MSIX_MASK_ALL)
        if self.msix_enabled and self._bus_master and not masked:
            for address, data in self._msix.take():
                self._interrupts.message(address, data)
        self._deliver_msi()
        status = self.config.read(config.STATUS, 2) & ~config.STATUS_INTERRUPT
        self.config.force(config.STATUS, 2, status | config.STATUS_INTERRUPT * self._line_wanted)
        disabled = self.msix_enabled or self.msi_enabled or self.config.has(config.COMMAND, config.COMMAND_INTX_DISABLE)
        asserted = self._line_wanted and not disabled
        if asserted != self._line_driven:
            self._line_driven = asserted
            self._interrupts.line(asserted)

    def _deliver_msi(self) -> None:
        """The one message of MSI (PCI Local Bus 3.0, 6.8.1)."""
        space = self.config
        if self._msi_pending and self.msi_enabled and self._bus_master and not space.has(config.MSI_MASK, 1):
            self._msi_pending = False
            self._interrupts.message(space.read(config.MSI_ADDRESS, 8), space.read(config.MSI_DATA, 2))
        space.force(config.MSI_PENDING, 4, int(self._msi_pending and self.msi_enabled))
