"""Waiting for packets, instead of polling for them: what a receive queue offers to who would rather sleep.

A device interrupts for a packet that comes after the interrupt was armed. So who waits looks, arms, looks once more,
and sleeps only then: a packet that came before the arming is seen, one that comes later interrupts, and none is left
lying. While packets are being taken the interrupt is off.

An interrupt is a file that becomes readable. The file belongs to a bell, and the bell to all who hold it: the queue,
until its device is closed, and whoever waits. So a file that somebody sleeps on is not closed; closing rings it.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from ixy import clock
from ixy.arguments import integer, number
from ixy.drivers.rings import in_use
from ixy.errors import Error, UnsupportedDevice
from ixy.process import forget_in_child

if TYPE_CHECKING:
    from ixy.drivers import RxInterrupt, RxRing
    from ixy.packets.batch import Batch

MAX_TIMEOUT = 86_400.0  # seconds
_SHORTEST, _LONGEST = 4, 1 << 14  # polls between two decisions to go on polling or to wait
_RARE = 16  # polls for a packet: where more are needed, and polls take half a microsecond, to wake costs less
_CROWD = 8  # packets that lie there after an interrupt: it could have come later
_OFTEN = 500e-6  # seconds between two wake-ups: each takes some 100 µs of the processor's time, the interrupt included
_PACES = (0.0, 10e-6, 20e-6, 40e-6, 80e-6, 160e-6, 320e-6, 640e-6)  # seconds between two interrupts
_PATIENCE = 1.0  # seconds without a free buffer, after which who waits without end is told


class Bell:
    """The interrupt of a receive queue, with a file of its own, which outlives the device.

    Attributes:
        fd: readable after an interrupt, until the next `arm`.
    """

    def __init__(self, interrupt: RxInterrupt) -> None:
        self._interrupt: RxInterrupt | None = interrupt  # None once the device is closed
        self._armed = False
        self._turn = threading.RLock()  # of those who use the interrupt, and of who closes the device
        self.fd = os.dup(interrupt.fd)
        forget_in_child(self)

    def arm(self) -> None:
        """Forget what has rung; ring for the next packet. Look once more afterwards."""
        with self._turn:
            if self._interrupt is not None:
                self._interrupt.clear()
                self._armed = True
                self._interrupt.arm()

    def disarm(self) -> None:
        """Ring no more. What an interrupt has switched off need not be switched off again."""
        with self._turn:
            if self._interrupt is not None and self._armed:
                self._armed = False
                if not (self._interrupt.once and self._has_rung()):
                    self._interrupt.disarm()

    def _has_rung(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def pace(self, seconds: float) -> None:
        """Let so long pass between two rings, as far as the device can."""
        with self._turn:
            if self._interrupt is not None:
                self._interrupt.pace(seconds)

    def ring(self) -> None:
        """Ring although there is no packet."""
        with self._turn:
            if self._interrupt is not None:
                self._interrupt.wake()

    def retire(self) -> None:
        """Ring for the last time: the device's files and memory, which the interrupt uses, are to go."""
        with self._turn:
            self.ring()
            self._interrupt = None

    def forget(self) -> None:
        """Close the file; see `ixy.process.Inheritance`."""
        self._interrupt = None
        fd, self.fd = self.fd, -1  # first: a number that is closed may be another file's
        if fd >= 0:
            os.close(fd)

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "fd") and not _ending():
            self.forget()


class Sight(Enum):
    """What is seen in receive rings."""

    PACKETS = "a packet can be received"
    NOTHING = "none has come"
    STARVED = "one has come, but the pool has no buffer to put in its place"


class Wait:
    """A wait for packets on some queues, for nobody else meanwhile.

    A queue knows it by a weak reference: of who was interrupted at the wrong moment none is left.

    Args:
        bells: of the queues; without them, looks are a millisecond apart.
        timeout: seconds, rounded up to milliseconds; None for no end.

    Raises:
        OwnershipError: on entering: somebody waits for one of the queues.
    """

    def __init__(self, queues: Sequence[WaitingQueue], bells: Sequence[Bell], timeout: float | None) -> None:
        self._queues, self._bells = queues, bells
        self._end = math.inf if timeout is None else clock.monotonic() + number("timeout", timeout, 0, MAX_TIMEOUT)
        self._starved_since: float | None = None
        self._seen = Sight.NOTHING  # since the last arming

    def __enter__(self) -> Wait:
        for queue in self._queues:
            queue.let_wait(self)
        return self

    def __exit__(self, *exception: object) -> None:
        """No interrupts from here on, but for files that somebody watches: those tell what may be left."""
        for queue in self._queues:
            queue.end_wait(self, self._seen)

    def look(self) -> Sight:
        """What there is, once what comes later rings."""
        for bell in self._bells:
            bell.arm()
        self._seen = self.peek()
        return self._seen

    def peek(self) -> Sight:
        """What there is, while bells are as they were."""
        sights = [queue.look() for queue in self._queues]
        return next((sight for sight in (Sight.PACKETS, Sight.STARVED) if sight in sights), Sight.NOTHING)

    def sleep(self, sight: Sight) -> bool:
        """After this sight sleep until there may be another one; False if the time is up.

        Raises:
            Error: packets wait, but for a second there was no buffer, and the time has no end. Or it has none by a
                virtual clock, and nothing is to come.
        """
        left = self._end - clock.monotonic()
        if left <= 0:
            return False
        self._note(sight)
        if sight is Sight.STARVED or not self._bells:
            clock.sleep(min(clock.LOOK_AGAIN, left))  # nothing tells when buffers come back
        elif sight is Sight.NOTHING:
            self._listen(left)
        return True

    def _listen(self, seconds: float) -> None:
        files = select.poll()
        for bell in self._bells:
            files.register(bell.fd, select.POLLIN)
        if not clock.listen(files, seconds):
            raise Error(
                f"{self._queues[0]}: nothing is under way, so by its virtual clock nothing will ever come: wait with "
                f"a timeout"
            )

    async def sleep_async(self, sight: Sight) -> None:
        """The same in a coroutine, of one queue and without an end."""
        self._note(sight)
        if sight is Sight.STARVED:
            await clock.sleep_async(clock.LOOK_AGAIN)
        elif sight is Sight.NOTHING:
            await clock.listen_async(self._bells[0].fd)

    def _note(self, sight: Sight) -> None:
        """Without an end nobody waits for buffers for ever."""
        now = clock.monotonic()
        if sight is not Sight.STARVED:
            self._starved_since = None
        elif self._starved_since is None:
            self._starved_since = now
        elif self._end == math.inf and now - self._starved_since > _PATIENCE:
            raise Error(
                f"{self._queues[0]}: packets wait, but all buffers of its pool are in use: free or send what "
                f"was received, or open the device with a larger pool_size"
            )


class WaitingQueue:
    """A receive queue, as far as it can be waited for, by one thread or coroutine at a time."""

    ring: RxRing

    def __init__(self) -> None:
        self._bell: Bell | None = None
        self._watched: Bell | None = None  # the same, once its file was asked for
        self._waiter: ReferenceType[Wait] | None = None
        self._turn = threading.RLock()  # of those who change these

    def _check(self) -> None:
        """Raise `Error` if the device is closed."""
        raise NotImplementedError

    def _interrupt(self) -> RxInterrupt:
        """The queue's interrupt; see `ixy.drivers.Driver.rx_interrupt`."""
        raise NotImplementedError

    def _poll(self, limit: int) -> Batch:
        """A batch of what is there."""
        raise NotImplementedError

    def look(self) -> Sight:
        """What could be received.

        Raises:
            Error: the device is closed.
            OwnershipError: another thread uses the queue.
        """
        raise NotImplementedError

    # What users call

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until there is a packet to receive; False if none came in `timeout` seconds, for ever if that is None.

        Waiting once lets the device interrupt for the queue; the first time takes a moment longer. Closing the device
        ends a wait in another thread.

        Raises:
            Error: the device is closed; or the wait has no end, and packets wait for buffers of an empty pool.
            OwnershipError: another thread uses the queue, or waits for it.
            UnsupportedDevice: the bus delivers no interrupts; the message says what to do.
        """
        clock.tick()
        with Wait([self], [self.bell()], timeout) as wait:
            sight = self.look()
            while sight is not Sight.PACKETS and wait.sleep(wait.look()):
                sight = self.look()
            return sight is Sight.PACKETS

    def fileno(self) -> int:
        """A file for `select`, `poll` or an event loop: readable when a packet has come, until `receive` finds none.

        Raises:
            Error: the device is closed. Closing it makes the file readable, and then closes that.
            UnsupportedDevice: the bus delivers no interrupts, or the clock is virtual; the message says what to do.
        """
        if clock.is_virtual():
            raise UnsupportedDevice(
                f"{self}: with clock=virtual nothing happens while a program waits elsewhere: call wait(timeout) or "
                f"receive(timeout=…)"
            )
        bell = self.bell()
        with self._turn:
            first, self._watched = self._watched is None, bell
        if first:
            self._arm_watched(bell)
        return bell.fd

    async def receive_async(self, limit: int = 32) -> Batch:
        """Up to `limit` packets, at least one; the coroutine waits for it. `async for batch in queue` does the same.

        The other coroutines have their turn first, also while packets are there all the time. A file of `fileno` may be
        watched besides.

        Raises:
            …: as `wait`.
        """
        import asyncio  # which takes long to load

        limit = integer("limit", limit, 1, self.ring.size)
        with Wait([self], [self.bell()], None) as wait:
            await asyncio.sleep(0)  # before anything is received: who is cancelled here loses nothing
            while not len(batch := self._poll(limit)):
                await wait.sleep_async(wait.look())
            return batch

    def __aiter__(self) -> WaitingQueue:
        return self

    async def __anext__(self) -> Batch:
        return await self.receive_async()

    # What `receive` does besides polling

    def _receive_in(self, timeout: float, limit: int) -> Batch:
        """With a timeout, after it has found nothing."""
        with Wait([self], self._bells_if_any(), timeout) as wait:
            batch = self._poll(limit)
            while not len(batch) and wait.sleep(wait.look()):
                batch = self._poll(limit)
            return batch

    def _receive_watched(self, limit: int, bell: Bell) -> Batch:
        """Once there is a file: what is left in the ring, that tells."""
        batch = self._poll(limit)
        if len(batch):
            bell.disarm()
        else:
            self._arm_watched(bell)
        return batch

    def _arm_watched(self, bell: Bell) -> None:
        bell.arm()
        if self.look() is not Sight.NOTHING:
            bell.ring()

    # Bells, and who waits

    def bell(self) -> Bell:
        """The queue's bell.

        Raises:
            UnsupportedDevice: the bus delivers no interrupts; the message says what to do.
        """
        with self._turn:
            self._check()  # here: closing comes before, or finds the bell
            if self._bell is None:
                self._bell = Bell(self._interrupt())
            return self._bell

    def _bells_if_any(self) -> Sequence[Bell]:
        try:
            return [self.bell()]
        except UnsupportedDevice:
            return []

    def let_wait(self, wait: Wait) -> None:
        """Let it be the one wait for this queue."""
        with self._turn:
            other = self._waiter and self._waiter()
            if other is not None and other is not wait:
                raise in_use(self)
            self._waiter = ref(wait)

    def end_wait(self, wait: Wait, seen: Sight) -> None:
        """That wait is over, if it was one; after the last arming this was seen."""
        with self._turn:
            if self._waiter is None or self._waiter() is not wait:
                return
            self._waiter = None
            bell, watched = self._bell, self._watched
        if watched is None and bell is not None:
            bell.disarm()
        if watched is not None and seen is not Sight.NOTHING:
            watched.ring()

    def end_waits(self) -> None:
        """The device is marked as closed: whoever waits is to see it."""
        with self._turn:
            bell, self._bell, self._watched = self._bell, None, None
        if bell is not None:
            bell.retire()


class PollOrWait:
    """Polls queues while there is load, and waits while there is none.

    It polls by stretches, longer and longer ones while enough packets come that waking for them would cost more; when
    fewer come, it waits. Who wakes takes what is there by a short stretch. Where packets gather until somebody wakes,
    or he wakes all too often, interrupts are let come later, by some microseconds.

    Args:
        queues: one at least.

    Raises:
        UnsupportedDevice: the bus delivers no interrupts; the message says what to do.
    """

    def __init__(self, queues: Sequence[WaitingQueue]) -> None:
        self.queues = queues
        self._bells = [queue.bell() for queue in queues]
        self._stretch = _SHORTEST  # polls
        self._idle = False  # to poll on is too dear for what comes
        self._woken = False  # the next stretch is the first after a wait
        self._last = -math.inf  # when somebody woke for the last time
        self._pace = 0  # which one

    def run(self, poll: Callable[[int], int], polls: int, timeout: float) -> int:
        """Poll up to so many times, or until hardly anything comes; how many packets came. If none did, wait for
        some, up to `timeout` seconds.

        Args:
            poll: `poll(polls)` polls so many times; how many packets came. With 0 it is only made ready.
        """
        if polls == 0:
            for queue in self.queues:
                queue.look()
            return poll(0)
        received = 0
        while polls > 0 and not self._idle:
            part = min(self._stretch, polls)
            count = poll(part)
            polls -= part
            received += count
            self._adapt(part, count)
        if self._idle and received == 0:
            self._wait(timeout)
        return received

    def _adapt(self, polls: int, count: int) -> None:
        """Find out how long to go on polling, and the first time after a wait, when to be woken the next time."""
        if self._woken:
            self._set_pace(count)
        self._woken = False
        self._idle = count * _RARE < polls
        if not self._idle:
            self._lengthen()
        elif count > 0:
            self._stretch = _SHORTEST

    def _lengthen(self) -> None:
        self._stretch = min(2 * self._stretch, _LONGEST)

    def _set_pace(self, count: int) -> None:
        """Later, if many packets lay there, or it is soon after the last time; sooner, if it was one after long."""
        now = clock.monotonic()
        since, self._last = now - self._last, now
        step = 1 if count >= _CROWD or since < _OFTEN else -1 if count <= 1 and since > 2 * _OFTEN else 0
        pace = min(max(self._pace + step, 0), len(_PACES) - 1)
        if pace != self._pace:
            self._pace = pace
            for bell in self._bells:
                bell.pace(_PACES[pace])

    def _wait(self, timeout: float) -> None:
        """Wait, unless packets are there all along: they could not be taken on, for want of buffers or of room."""
        with Wait(self.queues, self._bells, timeout) as wait:
            if wait.look() is not Sight.NOTHING:
                self._lengthen()
                self._idle = False
                return
            while self._idle and wait.sleep(Sight.NOTHING):
                self._idle = wait.peek() is Sight.NOTHING and wait.look() is Sight.NOTHING
            self._woken = not self._idle
            self._stretch = _SHORTEST
