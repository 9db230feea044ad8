"""What a packet costs that a generator makes, in lock step with the model: of one stream, and of four in turn.

Only the generator's turns are timed. In the others the card takes all that it was handed. All are measured in turns, on
cards of one machine, each with a generator of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.apps.generate import Generator, Pacing
from ixy.apps.rate import parse_rate
from ixy.apps.sending import SenderKernels
from ixy.apps.streams import Choice, Stream
from ixy.apps.streamtable import NO_TAIL, NUMBER_BYTES, table_of
from ixy.bench.costs import result
from ixy.bench.lockstep import RING_SIZE, tick_cost
from ixy.device import open_device
from ixy.errors import Error
from ixy.formats.frames import udp_frame
from ixy.headers import Ipv4Address
from ixy.jit import compiled
from ixy.sim.loop import drain
from ixy.sim.machine import Machine
from ixy.sim.rack import Rack
from ixy.unsafe import ticks

if TYPE_CHECKING:
    pass

PACKETS = 1 << 16  # of one figure
_STRETCH = 64  # batches, of which the median counts
_MILLION = 1_000_000
_STREAMS = 4
_BATCH = 32


def _frame(number: int) -> bytes:
    """A UDP packet with a checksum, from a network of its own."""
    frame = bytearray(udp_frame())
    frame[26] += number
    frame[40:42] = b"\x12\x34"  # any that is not 0 is kept up to date
    return bytes(frame)


def _fields(number: int) -> dict[str, Choice]:
    network = int(Ipv4Address("10.0.0.0")) + (number << 24)
    return {
        "ipv4.src": Choice(range(network, network + (1 << 24)), random=True),
        "udp.sport": Choice(range(1024, 1 << 16), random=True),
    }


def _works() -> dict[str, tuple[list[Stream], bool, Pacing]]:
    """What is measured: streams, whether packets are numbered, and when they are due."""
    plain = [Stream(str(number), [_frame(number)]) for number in range(_STREAMS)]
    random = [Stream(str(number), [_frame(number)], _fields(number)) for number in range(_STREAMS)]
    flows = [Stream(str(number), [_frame(number)], _fields(number), flows=_MILLION) for number in range(_STREAMS)]
    fastest = Pacing()
    return {
        "one stream, always the same packet": (plain[:1], False, fastest),
        "one stream, numbered, checksum": (plain[:1], True, fastest),
        "4 streams, random addresses and ports, checksums": (random, True, fastest),
        "4 streams of 1,000,000 random flows, checksums": (flows, True, fastest),
        "… at a rate": (flows, True, Pacing(parse_rate("rate", "1000Mpps"))),
        "… at random moments": (flows, True, Pacing(parse_rate("rate", "1000Mpps"), poisson=True)),
    }


def measure(repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each kind of streams: what a packet costs, in ticks, 32 at a time.

    Raises:
        Error: packets were lost.
    """
    host = Machine(stepped=True)
    with ExitStack() as stack:
        generators: dict[str, tuple[Generator, int]] = {}
        for number, (what, (streams, numbered, pacing)) in enumerate(_works().items()):
            device = stack.enter_context(open_device(f"sim:{number}", ring_size=RING_SIZE, sim=host, link_timeout=0))
            table = table_of(streams, tail=NUMBER_BYTES if numbered else NO_TAIL)
            generators[what] = Generator(device, table, batch=_BATCH, pacing=pacing), host.cards[str(number)].index
        costs = {what: np.zeros(repeat) for what in generators}
        for generator, card in generators.values():
            _run(host.rack, card, generator, 2 * RING_SIZE // _BATCH + 1)  # each buffer was used, each schedule began
        for i in range(repeat):
            for what, (generator, card) in generators.items():
                costs[what][i] = _cost(host.rack, card, generator)
    for what, figures in costs.items():
        yield result(what, _BATCH, figures)


def _cost(rack: Rack, card: int, generator: Generator) -> float:
    """Ticks per packet."""
    before, stretches = generator.sent, max(PACKETS // _BATCH // _STRETCH, 1)
    spent = [_run(rack, card, generator, _STRETCH) for _ in range(stretches)]
    if generator.sent - before != stretches * _STRETCH * _BATCH:
        raise Error(f"the benchmark's generator sent {generator.sent - before} packets")
    return (float(np.median(spent)) / _STRETCH - tick_cost()) / _BATCH


def _run(rack: Rack, card: int, generator: Generator, rounds: int) -> int:
    """Ticks that so many batches take."""
    return int(_lock_step_kernel(generator.kernels)(rack, card, generator.state, rounds))


@cache
def _lock_step_kernel(kernels: SenderKernels) -> Any:
    """The loop in which a generator and the model take turns."""
    begin, poll, end, _ = kernels

    @compiled
    def lock_step(rack: Rack, card: int, state: Any, rounds: int) -> int:
        spent = 0
        if not begin(state):
            return spent
        for _ in range(rounds):
            start = ticks()
            poll(state)
            spent += ticks() - start
            while drain(rack, card) > 0:
                pass
        end(state)
        return spent

    return lock_step
