"""A process beside the driver, which stops the card if the driver dies.

Through sysfs nobody stops the card of a killed process: it would go on writing to where the packet buffers were, memory
that is somebody else's by then. So each card has a guardian, which keeps its memory until the card is at rest, and its
lock. The driver is the process that opened the card, and not those that it forks: they neither keep the card running
when it ends, nor stop the card when they end.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.bus.pci import explained
from ixy.errors import Error
from ixy.process import forget_in_child
from ixy.sandboxing import guardian_filter
from ixy.unsafe import privileges

if TYPE_CHECKING:
    from ixy.packets.dma import DmaMemory

log = logging.getLogger("ixy.bus")

_PROGRAM = Path(__file__).with_name("guardian_main.py")
_TIMEOUT = 30.0  # seconds for an answer, of which the first waits for an interpreter to start


class Guardian:
    """The guardian of one PCI function.

    Args:
        address: of the function, for messages.
        path: its directory in sysfs.
        config: its configuration space, open.
        lock: its lock, open.

    Raises:
        Error, PermissionDenied: the process cannot be started.
    """

    def __init__(self, address: str, path: Path, config: int, lock: int) -> None:
        self._address = address
        self._turn = threading.Lock()
        with explained(address, f"start its guardian process by {sys.executable}"), ExitStack() as undo:
            self._channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._channel.close)
            self._channel.settimeout(_TIMEOUT)
            with end:
                driver = os.pidfd_open(os.getpid())
                try:
                    self._process = _start(end.fileno(), driver, config, lock, path / "reset")
                finally:
                    os.close(driver)
            undo.pop_all()
        forget_in_child(self)

    def hold(self, memory: DmaMemory) -> None:
        """Keep `memory` from now on, whatever becomes of this process.

        Raises:
            Error: the guardian has died.
        """
        if not self._ask(f"hold {memory.offset}", memory.fd):
            raise Error(f"{self._address}: its guardian process has died; close the device and open it again")

    def release(self, memory: DmaMemory) -> None:
        """Let `memory` go, if it was held. The card does not know it any more."""
        self._ask(f"release {memory.offset}")

    def close(self) -> None:
        """Dismiss the guardian. The card is at rest."""
        try:
            if not self._ask("farewell"):
                log.warning("%s: its guardian process had died: nobody would have stopped the card", self._address)
        finally:
            self._channel.close()
            self._process.wait()

    def forget(self) -> None:
        """Close the channel; see `ixy.process.Inheritance`."""
        self._channel.close()

    def _ask(self, text: str, *files: int) -> bool:
        """Send a message, and wait until it has been obeyed; False if the guardian is dead."""
        message = text.encode()
        with self._turn:
            try:
                socket.send_fds(self._channel, [message], files)
                while answer := self._channel.recv(64):
                    if answer == message:  # others are to messages whose sender was interrupted
                        return True
            except OSError:
                self._process.kill()  # one that does not answer in time shall not wake up later
        return False


def _start(channel: int, driver: int, config: int, lock: int, reset: Path) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, out of reach of Ctrl-C, with no file of ours but these four, and a
    filter of its system calls, if there is one."""
    nothing, program = subprocess.DEVNULL, guardian_filter()
    with ExitStack() as stack:
        files, filter_ = [channel, driver, config, lock], -1
        if program is not None:
            filter_ = os.memfd_create("ixy-filter", os.MFD_CLOEXEC)
            stack.callback(os.close, filter_)
            os.pwrite(filter_, program, 0)
            files.append(filter_)
        arguments = map(str, (channel, driver, config, reset, privileges.__file__, filter_))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), *arguments],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            cwd="/",
            start_new_session=True,
            pass_fds=files,
        )
