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
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from ixy.arguments import integer, number
from ixy.drivers.rings import in_use
from ixy.errors import Error, UnsupportedDevice
from ixy.process import forget_in_child

if TYPE_CHECKING:
    from ixy.drivers import RxInterrupt, RxRing
    from ixy.packets.batch import Batch

MAX_TIMEOUT = 86_400.0  # seconds
_LOOK_AGAIN = 0.001  # seconds between two looks where no interrupt tells when to look
_PATIENCE = 1.0  # seconds without a free buffer, after which who waits without end is told


class Bell:
    """The interrupt of a receive queue, with a file of its own.

    Attributes:
        fd: readable after an interrupt, until the next `arm`.
    """

    def __init__(self, interrupt: RxInterrupt) -> None:
        self._interrupt = interrupt
        self._armed = False
        self.fd = os.dup(interrupt.fd)
        forget_in_child(self)

    def arm(self) -> None:
        """Forget what has rung; ring for the next packet. Look once more afterwards."""
        self._interrupt.clear()
        self._armed = True
        self._interrupt.arm()

    def disarm(self) -> None:
        """Ring no more."""
        if self._armed:
            self._interrupt.disarm()
            self._armed = False

    def ring(self) -> None:
        """Ring although there is no packet."""
        self._interrupt.wake()

    def forget(self) -> None:
        """Close the file; see `ixy.process.Inheritance`."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.forget()


class Sight(Enum):
    """What is seen in a receive ring."""

    PACKETS = "a packet can be received"
    NOTHING = "none has come"
    STARVED = "one has come, but the pool has no buffer to put in its place"


class _Wait:
    """A wait on a queue, which knows it by a weak reference: of who was interrupted at the wrong moment none is left.

    Args:
        queue: what is waited for, for messages.
        bell: what to sleep on; without one, looks are a millisecond apart.
        timeout: seconds, rounded up to milliseconds; None for no end.
    """

    def __init__(self, queue: WaitingQueue, bell: Bell | None, timeout: float | None) -> None:
        self.bell = bell
        self._queue = queue
        self._end = math.inf if timeout is None else time.monotonic() + number("timeout", timeout, 0, MAX_TIMEOUT)
        self._starved_since: float | None = None

    def sleep(self, sight: Sight) -> bool:
        """After this sight sleep until there may be another one; False if the time is up.

        Raises:
            Error: packets wait, but for a second there was no buffer, and the time has no end.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        self._note(sight)
        if sight is Sight.PACKETS:
            return True
        if sight is Sight.STARVED or self.bell is None:
            time.sleep(min(_LOOK_AGAIN, left))  # nothing tells when buffers come back
        else:
            poll = select.poll()
            poll.register(self.bell.fd, select.POLLIN)
            poll.poll(None if left == math.inf else math.ceil(left * 1000))
        return True

    async def sleep_async(self, sight: Sight) -> None:
        """The same in a coroutine, without an end."""
        import asyncio  # which takes long to load

        self._note(sight)
        if sight is Sight.PACKETS:
            return
        if sight is Sight.STARVED or self.bell is None:
            await asyncio.sleep(_LOOK_AGAIN)
            return
        loop = asyncio.get_running_loop()
        rung = loop.create_future()
        fd = self.bell.fd
        loop.add_reader(fd, lambda: rung.done() or rung.set_result(None))
        try:
            await rung
        finally:
            loop.remove_reader(fd)

    def _note(self, sight: Sight) -> None:
        """Without an end nobody waits for buffers for ever."""
        now = time.monotonic()
        if sight is not Sight.STARVED:
            self._starved_since = None
        elif self._starved_since is None:
            self._starved_since = now
        elif self._end == math.inf and now - self._starved_since > _PATIENCE:
            buffers = self._queue.ring.pool.capacity
            raise Error(
                f"{self._queue}: packets wait, but all {buffers} buffers of its pool are in use: free or send what was "
                f"received, or open the device with a larger pool_size"
            )


class WaitingQueue:
    """A receive queue, as far as it can be waited for, by one thread or coroutine at a time."""

    ring: RxRing

    def __init__(self) -> None:
        self._bell: Bell | None = None
        self._watched: Bell | None = None  # the same, once its file was asked for
        self._waiter: ReferenceType[_Wait] | None = None
        self._turn = threading.RLock()  # of those who change these

    def _interrupt(self) -> RxInterrupt:
        """The queue's interrupt; see `ixy.drivers.Driver.rx_interrupt`. Of a closed device, raises `Error`."""
        raise NotImplementedError

    def _poll(self, limit: int) -> Batch:
        """A batch of what is there."""
        raise NotImplementedError

    def _look(self) -> Sight:
        """What could be received."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until there is a packet to receive; False if none came in `timeout` seconds, for ever if that is None.

        Waiting once lets the device interrupt for the queue; the first time takes a moment longer. Closing the device
        ends a wait in another thread.

        Raises:
            Error: the device is closed; or the wait has no end, and packets wait for buffers of an empty pool.
            OwnershipError: another thread uses the queue, or waits for it.
            UnsupportedDevice: the bus delivers no interrupts; the message says what to do.
        """
        with self._waiting(self._own_bell(), timeout) as wait:
            sight = self._look()
            while sight is not Sight.PACKETS and wait.sleep(self._look_armed(wait)):
                sight = self._look()
            self._settle(wait, sight is Sight.PACKETS)
            return sight is Sight.PACKETS

    def fileno(self) -> int:
        """A file for `select`, `poll` or an event loop: readable when a packet has come, until `receive` finds none.

        Raises:
            Error: the device is closed. Closing it makes the file readable, and then closes that.
            UnsupportedDevice: the bus delivers no interrupts; the message says what to do.
        """
        bell = self._own_bell()
        with self._turn:
            first, self._watched = self._watched is None, bell
        if first:
            bell.arm()
            if self._look() is not Sight.NOTHING:
                bell.ring()
        return bell.fd

    async def receive_async(self, limit: int = 32) -> Batch:
        """Up to `limit` packets, at least one; the coroutine waits for it. `async for batch in queue` does the same.

        Raises:
            …: as `wait`.
        """
        limit = integer("limit", limit, 1, self.ring.size)
        with self._waiting(self._own_bell(), None) as wait:
            while not len(batch := self._poll(limit)):
                await wait.sleep_async(self._look_armed(wait))
            self._settle(wait, True)
            return batch

    def __aiter__(self) -> WaitingQueue:
        return self

    async def __anext__(self) -> Batch:
        return await self.receive_async()

    def _receive_in(self, timeout: float, limit: int) -> Batch:
        """What `receive` does with a timeout, after it has found nothing."""
        with self._waiting(self._bell_if_any(), timeout) as wait:
            batch = self._poll(limit)
            while not len(batch) and wait.sleep(self._look_armed(wait)):
                batch = self._poll(limit)
            self._settle(wait, len(batch) > 0)
            return batch

    def _receive_watched(self, limit: int, bell: Bell) -> Batch:
        """What `receive` does once there is a file: what it leaves in the ring, the file tells."""
        batch = self._poll(limit)
        if len(batch):
            bell.disarm()
            return batch
        bell.arm()
        if self._look() is not Sight.NOTHING:
            bell.ring()
        return batch

    def _look_armed(self, wait: _Wait) -> Sight:
        """What there is, once what comes later rings."""
        if wait.bell is not None:
            wait.bell.arm()
        return self._look()

    @contextmanager
    def _waiting(self, bell: Bell | None, timeout: float | None) -> Generator[_Wait]:
        """A wait, if nobody else waits."""
        wait = _Wait(self, bell, timeout)
        with self._turn:
            if self._waiter is not None and self._waiter() is not None:
                raise in_use(self)
            self._waiter = ref(wait)
        try:
            yield wait
        finally:
            self._waiter = None

    def _settle(self, wait: _Wait, found: bool) -> None:
        """After a wait: no interrupts, but for a file that somebody watches; that tells what may be left."""
        if wait.bell is None:
            return
        if self._watched is None:
            wait.bell.disarm()
        elif found:
            wait.bell.ring()

    def _own_bell(self) -> Bell:
        """The queue's bell."""
        with self._turn:
            if self._bell is None:
                self._bell = Bell(self._interrupt())
            return self._bell

    def _bell_if_any(self) -> Bell | None:
        try:
            return self._own_bell()
        except UnsupportedDevice:
            return None

    def _end_waits(self) -> None:
        """The device is marked as closed: whoever waits is to see it."""
        with self._turn:
            bell, self._bell, self._watched = self._bell, None, None
        if bell is not None:
            bell.ring()
