"""Interrupts by way of QEMU's qtest socket.

QEMU's proxy protocol carries interrupts to KVM only. Its test interface reaches the emulated machine whatever runs it:
a message-signalled interrupt is a write to memory, a line is an input of the I/O APIC (QEMU docs/devel/qtest.rst).
"""

from __future__ import annotations

import socket

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
        self._queue: dict[bytes, None] = {}
        self._unsent = b""
        self._asserting: dict[int, set[int]] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def handle(self) -> bool:
        """Drop QEMU's answers and send what is queued, when the socket is readable. False: QEMU has gone."""
        try:
            gone = not self._socket.recv(65536)
        except BlockingIOError:
            gone = False
        except ConnectionResetError:
            gone = True
        return not gone and self._flush()

    def write32(self, address: int, value: int) -> None:
        """Write 32 bits at the guest's physical `address`."""
        self._send(b"writel %#x %#x\n" % (address, value))

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

    def _send(self, command: bytes) -> None:
        self._queue.pop(command, None)
        self._queue[command] = None
        self._flush()

    def _flush(self) -> bool:
        """Send what the socket takes. False: QEMU has gone."""
        try:
            while self._unsent or self._queue:
                if not self._unsent:
                    self._unsent = next(iter(self._queue))
                    del self._queue[self._unsent]
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
