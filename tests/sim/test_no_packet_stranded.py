"""A queue is armed while packets arrive: whatever comes between what, nobody sleeps while a packet lies in the ring.

Both sides are cut where the other one may come in between: the driver looks, forgets what has rung, arms, looks once
more, and sleeps; the device writes a packet, and then sees whether it is to interrupt. All ways to do the one's steps
between the other's are tried. Who would sleep with nothing left to wake him has stranded a packet.
"""

from __future__ import annotations

import itertools
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab import arrive, frame, open_card
from virtio_side import Side

from ixy import waiting
from ixy.device import Device, RxQueue
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.registers import virtio as reg
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd
from ixy.waiting import Sight

PACKETS = 2
PLACES = 9  # between the driver's steps, from the first on, where the device's are tried; others come while it sleeps
RING = 64

Step = Callable[[], None]
Steps = Callable[[], list[Step]]
"""The device's steps for one packet, in their order."""


@contextmanager
def card() -> Iterator[tuple[Device, Steps]]:
    """An 82599: it writes the packet back, and in its next turn it sees to interrupts."""
    machine = Machine(stepped=True)
    with open_card(machine, ring_size=RING, pool_size=2 * RING) as device:
        yield device, lambda: [lambda: arrive(machine, frame()), lambda: [machine.step(), None][1]]


@contextmanager
def virtio(features: int) -> Iterator[tuple[Device, Steps]]:
    """A VirtIO device by 2.7.7 and 2.8.10 of the specification: it uses a buffer, then looks whether to interrupt."""
    back_end = BackEnd("virtio", features | 1 << reg.VERSION_1)
    with Device(VirtioNet(InProcess(back_end), ring_size=RING, pool_size=2 * RING)) as device:
        queue = back_end.queues[0]
        side = Side(queue)
        used = 0

        def number(offset: int) -> int:
            return int.from_bytes(queue.memory[offset : offset + 2].tobytes(), "little")

        def wanted() -> bool:
            if queue.packed:
                return number(queue.driver + 2) == reg.EVENT_ENABLE
            if features >> reg.EVENT_IDX & 1:
                return (used - number(queue.driver + 4 + 2 * RING) - 1) & 0xFFFF < 1
            return number(queue.driver) & reg.NO_INTERRUPT == 0

        def use() -> None:
            nonlocal used
            side.look()
            buffer = next(iter(side.with_device.values()))
            side.write(buffer, bytes(queue.header) + frame())
            side.use(buffer.id, queue.header + 60)
            used += 1

        def interrupt() -> None:
            if wanted() and 0 in back_end.calls:
                waiting.os.eventfd_write(back_end.calls[0], 1)

        yield device, lambda: [use, interrupt]


DEVICES = {
    "card": card,
    "split": lambda: virtio(0),
    "split, event index": lambda: virtio(1 << reg.EVENT_IDX),
    "packed": lambda: virtio(1 << reg.RING_PACKED),
}


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


class Interleaving:
    """One way to do the device's steps between the driver's."""

    def __init__(self, steps: list[Step], places: tuple[int, ...]) -> None:
        self._left = deque(zip(places, steps, strict=True))
        self._place = 0

    def between(self) -> None:
        """The driver is between two steps."""
        while self._left and self._left[0][0] <= self._place:
            self._left.popleft()[1]()
        self._place += 1

    def sleep(self, fd: int) -> None:
        """The driver sleeps until a step of the device wakes it."""
        while not readable(fd):
            assert self._left, "a packet is stranded"
            self._left.popleft()[1]()

    def cut(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """The device may come in between before this step of the driver."""
        usual = getattr(owner, name)

        def step(*arguments: Any) -> Any:
            self.between()
            return usual(*arguments)

        monkeypatch.setattr(owner, name, step)


def sleeping(interleaving: Interleaving) -> Callable[[Any, Sight], bool]:
    """What stands for the sleep of who waits."""

    def sleep(wait: Any, sight: Sight) -> bool:
        if sight is Sight.NOTHING:
            interleaving.sleep(wait._bells[0].fd)
        return True

    return sleep


def by_waiting(queue: RxQueue, _: Interleaving) -> int:
    assert queue.wait()
    return len(queue.receive(1))


def by_receiving(queue: RxQueue, _: Interleaving) -> int:
    return len(queue.receive(1, timeout=3600))


def by_select(queue: RxQueue, interleaving: Interleaving) -> int:
    interleaving.sleep(queue.fileno())
    return len(queue.receive(1))


@pytest.mark.parametrize("receive", [by_waiting, by_receiving, by_select])
@pytest.mark.parametrize("kind", DEVICES)
def test_no_packet_is_stranded(
    kind: str, receive: Callable[[RxQueue, Interleaving], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DEVICES[kind]() as (device, steps):
        queue = device.rx[0]
        bell: Any = queue.bell()
        driver_steps = [(queue, "look"), (queue, "_poll"), (bell._interrupt, "clear"), (bell._interrupt, "arm")]
        for places in itertools.combinations_with_replacement(range(PLACES + 1), 2 * PACKETS):
            interleaving = Interleaving([step for _ in range(PACKETS) for step in steps()], places)
            with monkeypatch.context() as patches:
                for owner, name in driver_steps:
                    interleaving.cut(patches, owner, name)
                patches.setattr(waiting.Wait, "sleep", sleeping(interleaving))
                received = 0
                while received < PACKETS:
                    received += receive(queue, interleaving)
            assert len(queue.receive()) == 0
