"""What drivers of PCI cards with registers and rings have in common: one lock, one order in which a card is closed."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ixy.bus import set_bus_master
from ixy.drivers.pools import AttachedPools
from ixy.dropped import close_dropped
from ixy.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np
    from numpy.typing import NDArray

    from ixy.bus import Function
    from ixy.drivers import Link
    from ixy.packets.mempool import Mempool
    from ixy.registers import Register, RegisterFile


class PciCard:
    """A card under control. Its driver brings it up, and says by `_stop` how it is stopped and by `link` how that is.

    Args:
        function: the PCI function, which is closed at the end.
    """

    _registers: RegisterFile

    def __init__(self, function: Function) -> None:
        self.address = function.address
        self._function = function
        self._lock = threading.RLock()  # of the control plane
        self._attached = AttachedPools(function)
        self._running = False  # or it was touched, and must be stopped
        self._undo = ExitStack()
        self._undo.callback(function.close)

    def link(self) -> Link:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError

    def attach(self, pool: Mempool) -> None:
        """Let the card reach the buffers of `pool`."""
        with self._control():
            self._attached.attach(pool)

    def when_gone(self, tell: Callable[[], bool]) -> None:
        """A card stays where it is."""

    def rouse(self) -> None:
        self._function.rouse()

    def rung_by(self, words: NDArray[np.int64]) -> None:
        self._function.rung_by(words)

    def _doorbell(self, register: Register) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        return self._function.bar(0).words[register.offset // 4 : register.offset // 4 + 1]

    @contextmanager
    def _control(self) -> Generator[RegisterFile]:
        """The card's registers, for one thread at a time, and only until the card is closed."""
        with self._lock:
            if not self._running:
                raise Error(f"{self.address} is closed")
            yield self._registers

    def wait_for_link(self, timeout: float) -> Link:
        """Wait up to `timeout` seconds until the link is up; the state it then has."""
        deadline = time.monotonic() + timeout
        while not (link := self.link()).up and time.monotonic() < deadline:
            time.sleep(0.01)
        return link

    def close(self) -> None:
        """Stop the card, then take its memory away. A second call does nothing.

        Whatever interrupts this, memory goes back only from a card that is no bus master any more. If that cannot be
        had, close it again: it goes on where it was interrupted.
        """
        with self._lock:
            try:
                self._silence()
            finally:
                if not self._running:
                    self._undo.close()

    def __del__(self) -> None:
        if hasattr(self, "_undo"):  # nobody could close it: an exception came before anybody had it
            close_dropped(self.close)

    def _silence(self) -> None:
        """No DMA from here on."""
        if self._running:
            try:
                self._stop()
            finally:
                set_bus_master(self._function, False)
                self._running = False
