"""The mailboxes of a simulated 82599: 16 words for each virtual function, by which it and the physical function speak.

Who wants to write takes the words first: VFU is set only while PFU is not, and the other way round. A request or an
acknowledgement is an interrupt for the other side, where it waits until it is read (VF) or cleared (PF).

Sections are those of the Intel 82599 datasheet, revision 3.3: 7.10.2.9, 8.2.3.27.2 to 8.2.3.27.6, 8.3.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.registers import i82599_vf as vf
from ixy.sim.card.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.card.driver_rules import Breaches

FUNCTIONS = reg.PFMAILBOX.count
_SIDES = 16  # functions in one register of PFMBICR: a bit for the request of each, and one for what it acknowledged

_REQ, _ACK, _VFU, _PFU = (vf.VFMAILBOX.mask(name) for name in ("REQ", "ACK", "VFU", "PFU"))
_PFSTS, _PFACK, _RSTI, _RSTD = (vf.VFMAILBOX.mask(name) for name in ("PFSTS", "PFACK", "RSTI", "RSTD"))
_CLEARED_BY_READ = _PFSTS | _PFACK | _RSTD
_STS, _PF_ACK = reg.PFMAILBOX.mask("STS"), reg.PFMAILBOX.mask("ACK")
_PF_VFU, _PF_PFU, _RVFU = (reg.PFMAILBOX.mask(name) for name in ("VFU", "PFU", "RVFU"))


class Mailboxes(Words):
    """The mailboxes of one card.

    Args:
        registers: the card's.
        breaches: where what drivers do wrong goes to.
        tell_physical: is called when the physical function is to be interrupted,
        tell: and, with its number, when a virtual function is.
    """

    def __init__(
        self,
        registers: NDArray[np.uint32],
        breaches: Breaches,
        tell_physical: Callable[[], None],
        tell: Callable[[int], None],
    ) -> None:
        super().__init__(registers)
        self._breaches = breaches
        self._tell_physical = tell_physical
        self._tell = tell
        self._changing = threading.Lock()  # functions may be different threads'
        self._bits = [0] * FUNCTIONS  # of VFMAILBOX, as they stand
        self.reset()

    def reset(self) -> None:
        """The physical function is reset: functions are told by RSTI, until it says that it is done (PFRSTD)."""
        self._bits = [_RSTI] * FUNCTIONS

    def physical_done(self) -> None:
        """CTRL_EXT.PFRSTD was written (8.2.3.1.3)."""
        with self._changing:
            self._bits = [bits & ~_RSTI | _RSTD for bits in self._bits]
        for number in range(FUNCTIONS):
            self._tell(number)

    def function_reset(self, number: int) -> None:
        """A virtual function is reset: it has nothing of the mailbox, and has been told nothing."""
        with self._changing:
            self._bits[number] &= _RSTI | _PFU

    # -----------------------------------------------------------------------------------------------------------------
    # The virtual function's side

    def read(self, number: int) -> int:
        """VFMAILBOX."""
        with self._changing:
            bits = self._bits[number]
            self._bits[number] = bits & ~_CLEARED_BY_READ
        return bits

    def write(self, number: int, value: int) -> None:
        """VFMAILBOX: taking and leaving the words, a request, an acknowledgement."""
        with self._changing:
            bits = self._bits[number]
            takes = value & _VFU and not bits & _PFU
            self._bits[number] = bits & ~_VFU | (_VFU if takes else 0)
        if value & _REQ and bits & _RSTI:
            self._breaches.note("mailbox-during-reset", f"virtual function {number}")
        if value & (_REQ | _ACK):
            self._raise(number, bool(value & _REQ), bool(value & _ACK))

    def read_word(self, number: int, word: int) -> int:
        """A word of VFMBMEM."""
        return self._get(self._word(number, word))

    def write_word(self, number: int, word: int, value: int) -> None:
        """Write one; who has not taken them finds that the other side writes, too."""
        if not self._bits[number] & _VFU:
            self._breaches.note("mailbox-not-taken", f"VFMBMEM of virtual function {number}")
        self._put(self._word(number, word), value)

    def _word(self, number: int, word: int) -> Register:
        return reg.PFMBMEM[number * vf.MAILBOX_WORDS + word]

    def _raise(self, number: int, asks: bool, acknowledges: bool) -> None:
        register, bit = reg.PFMBICR[number // _SIDES], number % _SIDES
        with self._changing:
            self._put(register, self._get(register) | asks << bit | acknowledges << _SIDES + bit)
        if self._get(reg.PFMBIMR[number // 32]) >> number % 32 & 1:
            self._tell_physical()

    # -----------------------------------------------------------------------------------------------------------------
    # The physical function's side

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing its registers does, by offset."""
        reads: dict[int, Callable[[], int]] = {}
        writes: dict[int, Callable[[int], None]] = {}
        for number, offset in enumerate(reg.PFMAILBOX.offsets):
            reads[offset] = partial(self._read_physical, number)
            writes[offset] = partial(self._write_physical, number)
        for register in reg.PFMBICR:
            writes[register.offset] = partial(self._clear, register)
        for register in reg.PFMBIMR:
            writes[register.offset] = partial(self._put, register)
        for place, register in enumerate(reg.PFMBMEM):
            writes[register.offset] = partial(self._write_physical_word, place // vf.MAILBOX_WORDS, register)
        return reads, writes

    def _read_physical(self, number: int) -> int:
        bits = self._bits[number]
        return (_PF_VFU if bits & _VFU else 0) | (_PF_PFU if bits & _PFU else 0)

    def _write_physical(self, number: int, value: int) -> None:
        with self._changing:
            bits = self._bits[number]
            if value & _RVFU:  # for a function that is stuck
                bits &= ~_VFU
                register, bit = reg.PFMBICR[number // _SIDES], number % _SIDES
                self._put(register, self._get(register) & ~(1 << bit | 1 << _SIDES + bit))
            takes = value & _PF_PFU and not bits & _VFU
            bits = bits & ~_PFU | (_PFU if takes else 0)
            self._bits[number] = bits | (_PFSTS if value & _STS else 0) | (_PFACK if value & _PF_ACK else 0)
        if value & (_STS | _PF_ACK):
            self._tell(number)

    def _clear(self, register: Register, value: int) -> None:
        with self._changing:
            self._put(register, self._get(register) & ~value)

    def _write_physical_word(self, number: int, register: Register, value: int) -> None:
        if not self._bits[number] & _PFU:
            self._breaches.note("mailbox-not-taken", f"PFMBMEM of virtual function {number}")
        self._put(register, value)
