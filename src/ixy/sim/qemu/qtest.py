"""Interrupts by way of QEMU's qtest socket.

QEMU's proxy protocol carries interrupts to KVM only. Its test interface reaches the emulated machine whatever runs it:
a message-signalled interrupt is a write to memory, a line is an input of the I/O APIC (QEMU docs/devel/qtest.rst).
"""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable

_IO_APIC = "/machine/q35/ioapic"
_PIRQ_E = 20  # the first of the I/O APIC's inputs that q35 gives to the slots 0 to 24 of its root bus


class Qtest:
    """The socket, shared by all functions of a machine and used from one thread.

    Nothing here waits for QEMU, which may be waiting for us: what the socket does not take stays in a queue, where a
    command that is already there moves to the end. So the queue is no longer than there are vectors and lines.

    Args:
        sock: connected to QEMU's `-chardev socket,id=qtest` (only by that id does `-qtest chardev:qtest` start it).
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._queue: dict[bytes, list[Callable[[int], None]]] = {}  # command → who wants the answer
        self._unsent = b""
        self._asked: deque[list[Callable[[int], None]]] = deque()  # who wants the answers that are under way
        self._received = b""
        self._asserting: dict[int, set[int]] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def handle(self) -> bool:
        """Take QEMU's answers and send what is queued, when the socket is readable. False: QEMU has gone."""
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return self._flush()
        except ConnectionResetError:
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(data) and self._flush()

    def _take(self, line: bytes) -> None:
        """One answer for each command: `OK`, and the value of a read."""
        takers = self._asked.popleft() if self._asked else []
        if value := re.fullmatch(rb"OK 0x([0-9a-f]{1,16})", line):
            for take in takers:
                take(int(value[1], 16))

    def write32(self, address: int, value: int) -> None:
        """Write 32 bits at the guest's physical `address`."""
        self._send(b"writel %#x %#x\n" % (address, value))

    def read64(self, address: int, take: Callable[[int], None]) -> None:
        """Read 64 bits at the guest's physical `address`; `take` gets them later."""
        self._send(b"readq %#x\n" % address, take)

    def drive(self, slot: int, asserted: bool) -> None:
        """Drive INTA of the function in `slot` of the root bus; the line is shared with other slots."""
        pin = _PIRQ_E + slot % 4
        before = self._asserting.setdefault(pin, set())
        after = before | {slot} if asserted else before - {slot}
        self._asserting[pin] = after
        if bool(before) != bool(after):
            level = b"%s unnamed-gpio-in %d" % (_IO_APIC.encode(), pin)
            self._queue.pop(b"set_irq_in %s %d\n" % (level, not asserted), None)
            self._send(b"set_irq_in %s %d\n" % (level, asserted))

    def _send(self, command: bytes, take: Callable[[int], None] | None = None) -> None:
        takers = self._queue.pop(command, [])
        self._queue[command] = [*takers, take] if take else takers
        self._flush()

    def _flush(self) -> bool:
        """Send what the socket takes. False: QEMU has gone."""
        try:
            while self._unsent or self._queue:
                if not self._unsent:
                    self._unsent = next(iter(self._queue))
                    self._asked.append(self._queue.pop(self._unsent))
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


class SlotInterrupts:
    """The interrupts of the function in one slot (device number) of a q35 machine's root bus."""

    def __init__(self, qtest: Qtest, slot: int) -> None:
        self._qtest = qtest
        self._slot = slot

    def message(self, address: int, data: int) -> None:
        """Send a message-signalled interrupt."""
        self._qtest.write32(address, data)

    def line(self, asserted: bool) -> None:
        """Drive the INTA line."""
        self._qtest.drive(self._slot, asserted)
