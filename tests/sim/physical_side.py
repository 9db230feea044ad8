"""A driver of a simulated card's physical function that says to its virtual ones what a test wants, lies too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ixy.bus.simulated import SimulatedFunction
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

# What messages are, as Linux's ixgbe_mbx.h has them
RESET, SET_MAC, MULTICAST, VLAN, LPE, MACVLAN, NEGOTIATE, QUEUES, RETA, KEY, XCAST, LINK = (
    *(0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0B, 0x0C),
    0x10,
)
ACK, NACK, CTS = 0x80000000, 0x40000000, 0x20000000
V10, V11, V12, V13, V14 = 0, 2, 3, 4, 5
PING = 0x100
WORDS = 16

MAC = bytes.fromhex("02aabbcc0001")
SAYS_NOTHING = object()

Answer = Callable[[int, list[int]], object]


class PhysicalSide:
    """The physical function of card a. It answers within the access by which it is asked.

    Args:
        queues: of each function: 2 or 4.
        version: the newest that it knows, as messages number them.

    Attributes:
        asked: the requests so far: their kinds, infos, and the other words.
        answers: by kind, what answers it instead: a function of info and words that gives the words of the answer, the
            first whole, or SAYS_NOTHING.
        takes_note: whether requests are acknowledged.
    """

    msix_enabled = True  # as a card's `Sink`

    def __init__(self, machine: Machine, *, queues: int = 2, version: int = V14) -> None:
        self.function = SimulatedFunction("sim:a,vfs=2", machine)
        self.card = self.function.card
        self.queues, self.version = queues, version
        self.asked: list[tuple[int, int, list[int]]] = []
        self.answers: dict[int, Answer] = {}
        self.takes_note = True
        self._begin()

    def _begin(self) -> None:
        """Pools of as many queues, interrupts by mailboxes, functions told that it is up (7.10.2.9)."""
        write = self.card.write32
        write(reg.GCR_EXT.offset, {2: 3, 4: 2}[self.queues])
        write(reg.PFVTCTL.offset, 1)
        write(reg.GPIE.offset, 1 << 4)
        write(reg.IVAR_MISC.offset, 0x80 << 8)
        write(reg.EIMS.offset, 1 << 19)
        self.card.interrupt_own(self)
        self.function.config_write(4, 2, 4)
        write(reg.CTRL_EXT.offset, 1 << 14)

    def close(self) -> None:
        self.card.interrupt_no_more()
        self.function.close()

    def set_line(self, asserted: bool) -> None: ...

    def signal(self, vector: int) -> None:  # noqa: ARG002
        """An interrupt: look who has asked."""
        self.card.read32(reg.EICR.offset)  # which clears it
        waiting = self.card.read32(reg.PFMBICR[0].offset)
        self.card.write32(reg.PFMBICR[0].offset, waiting)
        for number in range(2):
            if waiting >> number & 1:
                self._serve(number)

    def _serve(self, number: int) -> None:
        words = self._words(number)
        kind, info = words[0] & 0xFFFF, words[0] >> 16 & 0xFF
        self.asked.append((kind, info, words[1:]))
        if self.takes_note:
            self.card.write32(reg.PFMAILBOX[number].offset, 1 << 1)
        answer = self.answers.get(kind, lambda info, words: self._honest(kind, info, words))(info, words[1:])
        if answer is not SAYS_NOTHING:
            self.say(answer, number)  # type: ignore[arg-type]

    def _words(self, number: int) -> list[int]:
        return [self.card.read32(reg.PFMBMEM[number * WORDS + word].offset) for word in range(WORDS)]

    def say(self, words: Sequence[int], number: int = 0) -> None:
        """Write words into the mailbox, and say that they are there."""
        control = reg.PFMAILBOX[number].offset
        self.card.write32(control, 1 << 3)
        for word, value in enumerate(words):
            self.card.write32(reg.PFMBMEM[number * WORDS + word].offset, value)
        self.card.write32(control, 1 << 0)

    def _honest(self, kind: int, info: int, words: list[int]) -> list[int]:
        yes = kind | info << 16 | ACK | CTS
        if kind == RESET:
            return [RESET | ACK, int.from_bytes(MAC[:4], "little"), int.from_bytes(MAC[4:], "little"), 0]
        if kind == NEGOTIATE and words[0] > self.version:
            return [kind | NACK | CTS]
        if kind == QUEUES:
            return [yes, self.queues, self.queues, 0, 0]
        if kind == XCAST:
            return [yes, min(words[0], 1)]  # Linux, of a function that it does not trust
        if kind in (RETA, KEY):
            return [kind | NACK | CTS]  # Linux, unless asked to tell
        if kind == LINK:
            return [yes, 1]
        return [yes, *words]

    def kinds(self) -> list[int]:
        """Of the requests so far."""
        return [kind for kind, _, _ in self.asked]
