"""How the physical function is brought up, and its interrupts are served.

Everything goes through the card's registers. Sections are those of the Intel 82599 datasheet, revision 3.3; where it
leaves something open, it is done as Linux's ixgbe does it (ixgbe_sriov.c).
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ixy.errors import AddressError, DeviceTimeout
from ixy.registers import Register, RegisterFile
from ixy.registers import i82599 as reg
from ixy.registers import i82599_vf as vf
from ixy.sim.card import config
from ixy.sim.card.ready import MAX_READS
from ixy.sim.physical.filters import Filters
from ixy.sim.physical.function import Function

if TYPE_CHECKING:
    from ixy.sim.card.registers import Card
    from ixy.sim.spec import Grant

KEY_BYTES = 40
_RESET_SECONDS = 0.001
_TRIES = 4 * MAX_READS  # of a register whose bits take `ready=` reads
_MAX_POOLS_OF_4 = 32  # functions, with the physical one, up to which each has four queues; beyond it has two
_MODES = {4: (2, 10), 2: (3, 11)}  # by a pool's queues: GCR_EXT.VT_MODE, and MRQC.MRQE with RSS in pools
_MTQC = {4: 2, 2: 1}  # MTQC.NUM_TC_OR_Q
_HEADROOM = 24 << 10  # of the receive buffer, above FCRTH
_CAUSES = reg.EICR.mask("MAILBOX", "LSC")
_SIDES = 16  # functions in a register of PFMBICR


class Holding(Protocol):
    """The machine, as far as it is needed."""

    def held(self, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold the machine's lock; whether it could be had, which without `wait` may not be."""
        ...


class Physical:
    """The driver of one card's physical function. It is the sink of its interrupts.

    Args:
        host: the card's machine.

    Attributes:
        functions: what it has to do with each virtual function.
    """

    msix_enabled = True

    def __init__(self, host: Holding) -> None:
        self._host = host
        self._pending = False  # an interrupt is to be served
        self._causes = 0
        self.functions: list[Function] = []

    def begin(self, card: Card) -> None:
        """Bring the card up, with its functions kept from everything until they ask to be reset.

        Raises:
            DeviceTimeout: a bit that has to change does not.
        """
        self._card = card
        self.registers = RegisterFile(card, f"sim:{card.name}", threading.RLock())
        self._queues = 4 if len(card.functions) < _MAX_POOLS_OF_4 else 2
        self._reset()
        self.filters = Filters(self.registers, card.mac, len(card.functions))
        self._share_queues()
        self._receive()
        self._transmit()
        self.functions = [Function(self, number) for number in range(len(card.functions))]
        card.interrupt_for(self)
        self._interrupt()
        self.registers.update(reg.CTRL_EXT, PFRSTD=1)

    @property
    def index(self) -> int:
        """The card's among those of the process."""
        return self._card.index

    def name_of(self, number: int) -> str:
        """The name of a function."""
        return self._card.functions[number].name

    def grant(self, number: int, grant: Grant) -> None:
        """Let a function have this from its next reset on.

        Raises:
            AddressError: its address is another one's.
        """
        if grant.mac is not None and self.is_anothers(grant.mac, number):
            raise AddressError(
                f"sim:{self.name_of(number)}: mac={grant.mac.hex(':')} is the address of another function"
            )
        self.functions[number].granted(grant)

    def is_anothers(self, mac: bytes, number: int) -> bool:
        """Whether an address belongs to another function than this one, even if that has not asked for it yet."""
        known = any(function.mac == mac for function in self.functions if function.number != number)
        return known or self.filters.is_taken(mac, number)

    # -----------------------------------------------------------------------------------------------------------------
    # 4.6.3 Initialisation

    def _reset(self) -> None:
        registers = self.registers
        self._card.config_write(config.COMMAND, 2, config.COMMAND_MEMORY | config.COMMAND_BUS_MASTER)
        registers.write(reg.EIMC, 0x7FFFFFFF)
        registers.update(reg.CTRL, PCIE_MASTER_DISABLE=1)
        registers.write(reg.CTRL, RST=1)
        time.sleep(_RESET_SECONDS)
        self._await(reg.CTRL, RST=0)
        registers.write(reg.EIMC, 0x7FFFFFFF)
        self._await(reg.EEC, AUTO_RD=1)
        self._await(reg.RDRXCTL, DMAIDONE=1)
        registers.read(reg.LINKS)
        for row in (reg.GPRC, reg.GPTC):
            registers.read(row)
        registers.update(reg.CTRL_EXT, NS_DIS=1)

    def _await(self, register: Register, **fields: int) -> None:
        """Read until these fields have these values: that takes reads, not time."""
        for _ in range(_TRIES):
            if self.registers.read(register) & register.mask(*fields) == register.value(**fields):
                return
        wanted = " ".join(f"{name}={value}" for name, value in fields.items())
        raise DeviceTimeout(f"sim:{self._card.name}: {register.name} did not reach {wanted}")

    def _share_queues(self) -> None:
        """Divide the queues into pools, those of functions and one of the physical function (7.10.2.7)."""
        registers = self.registers
        mode, spread = _MODES[self._queues]
        registers.write(reg.GCR_EXT, VT_MODE=mode)
        key = random.Random(self._card.name).randbytes(KEY_BYTES)
        self.key = [int.from_bytes(key[i : i + 4], "little") for i in range(0, KEY_BYTES, 4)]
        self.table = [entry % self._queues for entry in range(reg.RETA.count * 4)]
        for register, word in zip(reg.RSSRK, self.key, strict=True):
            registers.write(register, word)
        for i, register in enumerate(reg.RETA):
            registers.write(register, int.from_bytes(bytes(self.table[4 * i : 4 * i + 4]), "little"))
        registers.write(reg.MRQC, MRQE=spread, FIELDS=reg.RSS_FIELDS)
        registers.write(reg.RXCSUM, PCSD=1)
        for queue in range(len(self._card.functions) * self._queues):
            registers.write(reg.PFQDE, QDE=1, QUEUE=queue, WE=1)  # who takes nothing loses what comes for him
        # There is no default pool, for nobody takes what is for no function.
        registers.write(reg.PFVTCTL, VT_ENA=1, DEF_PL=len(self._card.functions), DIS_DEF_PL=1, RPL_EN=1)
        registers.write(reg.PFDTXGSWC, LBE=1)

    @property
    def queues_of_function(self) -> int:
        """How many queues each function has, each way."""
        return self._queues

    def _receive(self) -> None:
        """4.6.7."""
        registers = self.registers
        size = registers.read(reg.RXPBSIZE[0])
        for buffer in list(reg.RXPBSIZE)[1:]:
            registers.write(buffer, 0)
        registers.write(reg.FCRTH[0], RTH=size - _HEADROOM >> 5)
        registers.update(reg.HLREG0, RXCRCSTRP=1, TXCRCEN=1, TXPADEN=1)
        registers.update(reg.RDRXCTL, CRC_STRIP=1, RSCFRSTSIZE=0, RSCACKC=1, FCOE_WRFIX=1)
        registers.write(reg.FCTRL, BAM=1)
        registers.write(reg.MCSTCTRL, MFE=1)
        registers.update(reg.VLNCTRL, VFE=1)
        registers.update(reg.SECRXCTRL, RX_DIS=1)
        self._await(reg.SECRXSTAT, SECRX_RDY=1)
        registers.write(reg.RXCTRL, RXEN=1)
        registers.update(reg.SECRXCTRL, RX_DIS=0)

    def _transmit(self) -> None:
        """4.6.8. Transmit queue 0, which TE enables, is the first function's, which will enable it by itself."""
        registers = self.registers
        registers.update(reg.RTTDCS, ARBDIS=1)
        registers.write(reg.MTQC, VT_ENA=1, NUM_TC_OR_Q=_MTQC[self._queues])
        for buffer in list(reg.TXPBSIZE)[1:]:
            registers.write(buffer, 0)
        registers.write(reg.TXPBTHRESH[0], THRESH=0xA0)
        registers.write(reg.DTXMXSZRQ, MAX_BYTES_NUM_REQ=0xFFF)
        registers.update(reg.RTTDCS, ARBDIS=0)
        registers.update(reg.DMATXCTL, TE=1)
        registers.update(reg.TXDCTL[0], ENABLE=0)

    def _interrupt(self) -> None:
        """4.6.6: for the mailbox, the resets of functions, and the link. Vector 0 is for all of these."""
        registers = self.registers
        registers.write(reg.GPIE, MULTIPLE_MSIX=1, EIMEN=1, EIAME=1, PBA_SUPPORT=1)
        registers.write(reg.IVAR_MISC, OTHER=reg.IVAR_VALID)
        registers.read(reg.EICR)
        for register in reg.PFMBIMR:
            registers.write(register, 0xFFFFFFFF)
        registers.write(reg.EIMS, _CAUSES)

    # -----------------------------------------------------------------------------------------------------------------
    # Interrupts

    def signal(self, vector: int) -> None:  # noqa: ARG002
        """A message: it is served as soon as who has caused it can wait."""
        self._pending = True

    def set_line(self, asserted: bool) -> None:
        """With MSI-X there is no line."""

    def serve(self, *, wait: bool = True) -> None:
        """See to what an interrupt was for.

        Args:
            wait: for the machine, whose thread itself must not, and sees to the link only.
        """
        if not self._pending:
            return
        with self._host.held(wait=wait) as held:
            while held and self._pending:
                self._pending = False
                self._causes |= self.registers.read(reg.EICR) & _CAUSES
                if self._causes & reg.EICR.mask("LSC"):
                    self._causes &= ~reg.EICR.mask("LSC")
                    for function in self.functions:
                        function.look_at_link()
                if self._causes and not wait:
                    self._pending = True  # for whoever has asked
                    return
                if self._causes:
                    self._causes = 0
                    self._serve_mailboxes()

    def _serve_mailboxes(self) -> None:
        """First who was reset, then requests, then what was acknowledged, as Linux does."""
        registers = self.registers
        for word, register in enumerate(reg.PFVFLRE):
            reset = registers.read(register)
            registers.write(reg.PFVFLREC[word], reset)
            for function in self._named(reset, 32 * word):
                function.was_reset()
        for word, register in enumerate(reg.PFMBICR):
            events = registers.read(register)
            registers.write(register, events)
            for function in self._named(events & 0xFFFF, _SIDES * word):
                function.answer()

    def _named(self, bits: int, first: int) -> list[Function]:
        """The functions with these bits, of which the lowest is that of number `first`."""
        return [function for function in self.functions[first : first + 32] if bits >> function.number - first & 1]

    # -----------------------------------------------------------------------------------------------------------------
    # For functions

    def read_words(self, number: int) -> list[int]:
        """What a function has put into its mailbox."""
        first = number * vf.MAILBOX_WORDS
        return [self.registers.read(reg.PFMBMEM[first + i]) for i in range(vf.MAILBOX_WORDS)]

    def write_words(self, number: int, words: list[int]) -> None:
        """Put words into it."""
        for i, word in enumerate(words):
            self.registers.write(reg.PFMBMEM[number * vf.MAILBOX_WORDS + i], word)

    def let_longer_frames_in(self, size: int) -> None:
        """Accept frames of so many bytes, check sequences included: a limit is all functions' (8.2.3.22.13)."""
        if size > self.registers.get(reg.MAXFRS, "MFS"):
            self.registers.update(reg.HLREG0, JUMBOEN=1)
            self.registers.write(reg.MAXFRS, MFS=size)
