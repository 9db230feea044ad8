"""The interrupts of a virtual function of a simulated 82599: three vectors of MSI-X, for its queues and its mailbox.

Sections are those of the Intel 82599 datasheet, revision 3.3: 7.3.4.3, 8.3.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ixy import clock
from ixy.registers import i82599 as physical
from ixy.registers import i82599_vf as reg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.card.interrupts import Sink

_ALL = (1 << reg.VECTORS) - 1
_VALID, _ALLOCATION = 0x80, 3
_INTERVAL_NS = 2000  # unit of VTEITR's interval at 10 Gbit/s
_EIAME = physical.GPIE.mask("EIAME")


class VfInterrupts:
    """The interrupt logic of one function. Any thread may use it: that which serves its registers, and the rack's.

    Args:
        words: the function's own registers, for the rows that are plain memory: VTIVAR, VTEITR, VTEIAC, VTEIAM.
        card: those of its card, for GPIE.
        expect: is told that who waits for an interrupt has changed, and in how many seconds something that is throttled
            may be sent, None if nothing is.

    Attributes:
        sink: where interrupts go; without one they are only seen in the registers.
    """

    def __init__(
        self, words: NDArray[np.uint32], card: NDArray[np.uint32], expect: Callable[[float | None], None]
    ) -> None:
        self.sink: Sink | None = None
        self._expect = expect
        self._turn = threading.RLock()
        self._words, self._card = words, card
        self.reset()

    def reset(self) -> None:
        """No cause, everything masked."""
        self._causes = self._mask = self._signalled = 0
        self._allowed = [0] * reg.VECTORS

    @property
    def waits(self) -> bool:
        """Whether somebody waits for one."""
        return self.sink is not None and self._mask != 0

    def rules(self) -> tuple[dict[int, Callable[[], int]], dict[int, Callable[[int], None]]]:
        """What reading and writing the registers does, by offset."""
        reads: dict[int, Callable[[], int]] = {
            reg.VTEICR.offset: self._read_causes,
            reg.VTEICS.offset: lambda: self._causes,
            reg.VTEIMS.offset: lambda: self._mask,
            reg.VTEIMC.offset: lambda: 0,
        }
        writes: dict[int, Callable[[int], None]] = {
            reg.VTEICR.offset: lambda value: self._set(self._causes & ~value, self._mask),
            reg.VTEICS.offset: self.cause,
            reg.VTEIMS.offset: lambda value: self._set(self._causes, self._mask | value & _ALL),
            reg.VTEIMC.offset: lambda value: self._set(self._causes, self._mask & ~value),
        }
        return reads, writes

    def mailbox(self) -> None:
        """Something has come by the mailbox."""
        self.cause(self._vectors([self._get(reg.VTIVAR_MISC.offset)]))

    def queues(self, done: Iterable[tuple[int, bool]]) -> None:
        """These of the function's queues have done something; each with whether it sends."""
        self.cause(
            self._vectors(
                self._get(reg.VTIVAR.offset + 4 * (queue // 2)) >> (16 * (queue % 2) + 8 * sends) & 0xFF
                for queue, sends in done
            )
        )

    def cause(self, vectors: int) -> None:
        with self._turn:
            self._set(self._causes | vectors & _ALL, self._mask)

    def update(self) -> float | None:
        """Send what is to be sent now. The seconds until something throttled may be sent, None if nothing is.

        A message is sent when a cause that is not masked appears, and again only after it went.
        """
        with self._turn:
            wait = self._send_all()
            self._expect(wait)
            return wait

    # -- inside

    def _send_all(self) -> float | None:
        if self.sink is None or not self.sink.msix_enabled:
            return None
        wanted = self._causes & self._mask
        self._signalled &= wanted
        wait = None
        for vector in (vector for vector in range(reg.VECTORS) if (wanted & ~self._signalled) >> vector & 1):
            now = clock.monotonic_ns()
            left = self._allowed[vector] - now
            if left <= 0:
                self._send(self.sink, vector, now)
            else:
                wait = left / 1e9 if wait is None else min(wait, left / 1e9)
        return wait

    def _send(self, sink: Sink, vector: int, now: int) -> None:
        """Send a message; what VTEIAC and VTEIAM say is cleared and masked with it, as in 7.3.1.5."""
        self._signalled |= 1 << vector
        self._causes &= ~(1 << vector & self._get(reg.VTEIAC.offset))
        if int(self._card[physical.GPIE.offset // 4]) & _EIAME:
            self._mask &= ~(1 << vector & self._get(reg.VTEIAM.offset))
        throttle = reg.VTEITR.decode(self._get(reg.VTEITR[vector].offset))
        self._allowed[vector] = now + throttle["INTERVAL"] * _INTERVAL_NS
        sink.signal(vector)
        self._signalled &= self._causes & self._mask

    def _read_causes(self) -> int:
        """Reading clears."""
        with self._turn:
            causes = self._causes
            self._set(0, self._mask)
            return causes

    def _set(self, causes: int, mask: int) -> None:
        with self._turn:
            self._causes, self._mask = causes, mask
            self.update()

    def _vectors(self, entries: Iterable[int]) -> int:
        """The vectors of these allocations that are valid."""
        vectors = 0
        for entry in entries:
            vectors |= 1 << (entry & _ALLOCATION) if entry & _VALID else 0
        return vectors

    def _get(self, offset: int) -> int:
        return int(self._words[offset // 4])
