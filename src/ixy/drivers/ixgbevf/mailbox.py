"""The mailbox through which a virtual function asks its physical one, whose driver answers.

How the mailbox works is in section 7.10.2.9.1 of the Intel 82599 datasheet, revision 3.3: 16 words that both sides see,
and a register that says who owns them, that something lies there, and that it was read. What is written there is an
agreement between drivers: the first word says what is asked for; an answer repeats it, with a bit for yes or no, and
one that says that the physical function knows this one, and so will listen.

What the other side says is not trusted. Every wait has a deadline.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ixy.errors import ConfigurationError, DeviceTimeout, Error
from ixy.registers import i82599_vf as reg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ixy.registers import RegisterFile

_KIND = 0xFFFF  # of the first word

PATIENCE = 1.0  # seconds: the other side is a driver, which sleeps at times
_PAUSE = 2e-5  # seconds between two looks; an answer takes some 100 µs

_CLEARED = reg.VFMAILBOX.mask("PFSTS", "PFACK", "RSTD")  # by reading
_OURS, _MAIL, _TAKEN = (reg.VFMAILBOX.mask(name) for name in ("VFU", "PFSTS", "PFACK"))
_RESETTING, _RESET_DONE = reg.VFMAILBOX.mask("RSTI"), reg.VFMAILBOX.mask("RSTD")
_ALL_ONES = 0xFFFFFFFF  # what a read gives that nobody answers


class Refused(ConfigurationError):
    """The physical function says no."""


class Lost(Error):
    """The physical function does not know this one any more; it must be opened again."""


class Mailbox:
    """The mailbox of one virtual function. For one thread at a time.

    Attributes:
        lost: why nothing can be asked any more, and nothing is received or sent; None as long as all is well.
    """

    def __init__(self, registers: RegisterFile) -> None:
        self.lost: str | None = None
        self._registers = registers
        self._seen = 0  # bits that reading has cleared, and that nobody has asked for yet

    def begin(self) -> None:
        """After a reset of this function: wait until the physical one is no longer in a reset itself, and forget all.

        Raises:
            DeviceTimeout: it stays in reset, as where no driver has it.
        """
        deadline = time.monotonic() + PATIENCE
        while (state := self._look()) & _RESETTING:
            if time.monotonic() > deadline:
                why = "the card is gone" if state == _ALL_ONES else "no driver has it up"
                raise DeviceTimeout(
                    f"{self._registers.owner}: its physical function is in reset, {why}: VFMAILBOX reads {state:#010x}"
                )
            time.sleep(_PAUSE)
        self._seen, self.lost = 0, None

    def ask(self, name: str, kind: int, words: Sequence[int] = (), info: int = 0) -> list[int]:
        """Ask for something, and wait for the answer: the words after the first.

        Args:
            name: what is asked for, for messages.
            kind: its number.
            words: what is said besides.
            info: 8 bits for the first word.

        Raises:
            Refused: the physical function says no.
            Lost: it does not know this function, and so does not listen.
            DeviceTimeout: it does not answer.
            Error: its answer makes no sense.
        """
        self.listen()
        self._check()
        self._own(name)
        self._seen &= ~(_MAIL | _TAKEN)  # what lies there is overwritten; if it was important, so is the answer
        for register, word in zip(reg.VFMBMEM, [info << reg.INFO_SHIFT | kind, *words], strict=False):
            self._registers.write(register, word)
        self._registers.write(reg.VFMAILBOX, REQ=1)  # which gives the mailbox back, too
        self._await(_TAKEN, f"does not take note of {name}", time.monotonic() + PATIENCE)
        return self._judged(name, kind, self._answer(name))

    def listen(self) -> None:
        """Take note of what the physical function has said or done unasked."""
        if self.lost is not None:
            return
        state = self._look()
        if state == _ALL_ONES:
            self.lost = "its registers read all ones: the card is gone"
        elif state & (_RESETTING | _RESET_DONE):
            self.lost = "its physical function was reset"
        elif state & _MAIL:
            self._hear(self._read("its message")[0])

    def _hear(self, word: int) -> None:
        """What was said unasked: that something about the link is new, and whether this function is still known."""
        if not word & reg.CTS:
            self.lost = "its physical function wants it to begin anew"

    def _check(self) -> None:
        """
        Raises:
            Lost: says why.
        """
        if self.lost is not None:
            raise Lost(f"{self._registers.owner}: {self.lost}: open it again")

    def _judged(self, name: str, kind: int, answer: list[int]) -> list[int]:
        word = answer[0]
        if word & _KIND != kind or bool(word & reg.ACK) == bool(word & reg.NACK):
            raise Error(f"{self._registers.owner}: its physical function answers {name} with {word:#010x}: no sense")
        if word & reg.NACK and not word & reg.CTS and kind != reg.RESET:
            self._hear(word)
            self._check()
        if word & reg.NACK:
            raise Refused(f"{self._registers.owner}: its physical function refuses {name}")
        return answer[1:]

    # -----------------------------------------------------------------------------------------------------------------
    # The words and who owns them

    def _look(self) -> int:
        """What the register says, and has said."""
        state = self._registers.read(reg.VFMAILBOX)
        self._seen |= state & _CLEARED
        return state | self._seen

    def _await(self, bit: int, trouble: str, deadline: float) -> None:
        """Wait for a bit until `deadline`, and forget it."""
        while True:
            late = time.monotonic() > deadline  # asked before the look, as in `RegisterFile.wait`
            state = self._look()
            if state & (_RESETTING | _RESET_DONE):
                self.listen()
                self._check()
            if state & bit:
                self._seen &= ~bit
                return
            if late:
                raise DeviceTimeout(
                    f"{self._registers.owner}: its physical function {trouble} within {PATIENCE:g} s: "
                    f"VFMAILBOX reads {state:#010x}"
                )
            time.sleep(_PAUSE)

    def _own(self, name: str) -> None:
        """Own the words, which the physical function does while it writes or reads them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            late = time.monotonic() > deadline
            self._registers.write(reg.VFMAILBOX, VFU=1)
            state = self._look()
            if state & _OURS:
                return
            if late:
                raise DeviceTimeout(
                    f"{self._registers.owner}: its physical function keeps the mailbox, which {name} is to go through: "
                    f"VFMAILBOX reads {state:#010x}"
                )
            time.sleep(_PAUSE)

    def _answer(self, name: str) -> list[int]:
        """The words of the answer. What is said unasked before it is no answer, and does not put off the deadline."""
        deadline = time.monotonic() + PATIENCE
        while True:
            late = time.monotonic() > deadline
            self._await(_MAIL, f"does not answer {name}", deadline)
            words = self._read(name)
            if words[0] & _KIND != reg.CONTROL:
                return words
            self._hear(words[0])
            self._check()
            if late:
                raise DeviceTimeout(
                    f"{self._registers.owner}: its physical function speaks of other things and does not answer {name} "
                    f"within {PATIENCE:g} s"
                )

    def _read(self, name: str) -> list[int]:
        """The words, and say that they were read."""
        self._own(name)
        self._seen &= ~_MAIL
        words = [self._registers.read(register) for register in reg.VFMBMEM]
        self._registers.write(reg.VFMAILBOX, ACK=1)  # which gives the mailbox back, too
        return words
