"""What the commands compile, compiled beforehand."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ixy import jitcache
from ixy.apps.capture import Recorder
from ixy.apps.echo import swap_addresses
from ixy.apps.forward import Chosen, touch_if_chosen, unchanged_if_chosen
from ixy.apps.generate import Generator as PacketGenerator
from ixy.apps.relay import Relay
from ixy.apps.streams import Stream
from ixy.apps.streamtable import NUMBER_BYTES, table_of
from ixy.apps.tester import Tester
from ixy.bench import rates, virtio
from ixy.compiling import watched
from ixy.device import Device, open_device
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.formats.frames import udp_frame
from ixy.formats.writing import Writer
from ixy.jit import INTERPRETED, ORDINARY
from ixy.path import touch, unchanged
from ixy.polls import SMALL
from ixy.sim.machine import Machine
from ixy.sim.slots import provide_all
from ixy.sim.virtio import BackEnd

if TYPE_CHECKING:
    from ixy.asking import PacketFunction

_BATCH = 32


class Preparation:
    """Compiles what the commands need of each kind of device.

    Attributes:
        complete: everything was compiled, and can be kept.
    """

    def __init__(self) -> None:
        self.complete = False
        self._entries = 0

    def run(self) -> Iterator[str]:
        """Lines that say what was done.

        Raises:
            Error: something cannot be opened or compiled.
        """
        if INTERPRETED:
            yield "kernels are interpreted (IXY_JIT=0): there is nothing to compile"
            self.complete = True
            return
        begun = time.process_time()
        with watched(self._count):
            for what, devices in (
                ("the 82599's driver", simulated_pair("stepped")),
                ("simulated cards", simulated_pair("running")),
                *((f"the VirtIO driver, {ring} rings", virtio_pair(ring)) for ring in virtio.RINGS),
            ):
                before = self._entries
                with devices as (a, b):
                    _compile_commands(a, b)
                yield f"{what}: {self._entries - before} compiled"
            before = self._entries
            provide_all(Machine(stepped=True).rack)
            yield f"what is rare on simulated cards: {self._entries - before} compiled"
            before = self._entries
            _compile_dump()
            yield f"dump: {self._entries - before} compiled"
            before = self._entries
            _compile_benchmarks()
            yield f"benchmarks: {self._entries - before} compiled"
        failure = jitcache.failure()
        self.complete = not failure
        yield f"{self._entries} in all, {time.process_time() - begun:.1f} s of processor time"
        if ORDINARY:
            yield f"compiled as Numba does by itself: {ORDINARY}"
        yield f"not kept: {failure}" if failure else f"kept in {', '.join(sorted(map(str, jitcache.used())))}"

    def _count(self, _entry: str, done: int, total: int) -> None:
        self._entries += done == total


@contextmanager
def simulated_pair(kind: str) -> Generator[tuple[Device, Device]]:
    """Two simulated cards; those that are only "stepped" have drivers, and no model that would run."""
    machine = Machine(stepped=kind == "stepped")
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_device(f"sim:{name}", link_timeout=0, sim=machine)) for name in ("one", "other")
        ]
        yield opened[0], opened[1]


@contextmanager
def virtio_pair(ring: str) -> Generator[tuple[Device, Device]]:
    """Two VirtIO devices in this process with split or packed rings."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(Device(VirtioNet(InProcess(BackEnd(name, virtio.RINGS[ring])))))
            for name in ("one", "other")
        ]
        yield opened[0], opened[1]


def compile_paths(ways: Sequence[tuple[Device, Device]], function: PacketFunction, batch: int = _BATCH) -> None:
    """Compile the loop of a command that takes packets along some ways."""
    Relay(ways, function, batch).run(0)


def _compile_commands(a: Device, b: Device) -> None:
    """The loops of `ixy forward`, `echo`, `generate`, `test` and `capture`."""
    for batch in (_BATCH, SMALL):
        for function in (touch, unchanged):
            compile_paths([(a, b)], function, batch)
            compile_paths([(a, b), (b, a)], function, batch)
        compile_paths([(a, a)], swap_addresses, batch)
        for function in (touch_if_chosen, unchanged_if_chosen):
            Relay([(a, b)], function, batch, record=Chosen).run(0)
    streams = [Stream("frames", [udp_frame()])]
    PacketGenerator(a, table_of(streams, tail=NUMBER_BYTES), batch=_BATCH).run(0)
    Tester([a, b], streams, batch=_BATCH).prepare()
    with Writer(os.devnull) as file:
        Recorder([a.rx[0]], file, _BATCH, None).run(0)


def _compile_dump() -> None:
    """What receives packets with their times, one by one."""
    with open_device("sim:one", metadata=("time",), link_timeout=0, sim=Machine(stepped=True)) as device:
        device.rx[0].receive(_BATCH)


def _compile_benchmarks() -> None:
    for kind in rates.FORWARDERS:
        rates.measure(kind, _BATCH, 0.1, 1)
    for ring in virtio.RINGS:
        virtio.lock_step(ring, _BATCH, 1)
