"""What a packet costs that a tester receives and judges, in lock step with the model: its order, its bits, its latency.

Only the turns of the tester are timed. In the others the same packets, signed anew, are handed to the card. Beside it
stands a port that receives and throws away, so that both figures are of one measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.apps.compose import DEFAULT_FILL, compose
from ixy.apps.generate import Generator
from ixy.apps.receiver import CORRUPT, Receiver, label_of
from ixy.apps.sending import SenderKernels
from ixy.apps.streams import Stream
from ixy.apps.streamtable import COUNT, SIGNATURE_BYTES, table_of
from ixy.bench.costs import result
from ixy.bench.lockstep import RING_SIZE, tick_cost
from ixy.device import open_device
from ixy.errors import Error
from ixy.formats.signature import sign
from ixy.jit import compiled
from ixy.sim.card.receive import receive
from ixy.sim.machine import Machine
from ixy.sim.rack import INPUT_PART, SLOT, Rack
from ixy.sim.wires.tape import mapped
from ixy.tables.order import MISSING
from ixy.unsafe import now_ns, ticks

if TYPE_CHECKING:
    pass

PACKETS = 1 << 16  # of one figure
_STRETCH = 64  # batches, of which the median counts
_BATCH = 32
_PLACE = 2048  # bytes on the tape for a packet
_SIZES = {"receive and judge, 64 bytes": 60, "receive and judge, 1518 bytes": 1514}
_PLAIN = "receive and throw away, 64 bytes"


def measure(repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each size of packets: what one costs, in ticks, 32 at a time.

    Raises:
        Error: packets were lost, or found wrong.
    """
    host = Machine(stepped=True)
    with ExitStack() as stack:
        works: dict[str, tuple[Generator, Receiver, int, int]] = {}
        for number, (what, size) in enumerate({_PLAIN: 60, **_SIZES}.items()):
            device = stack.enter_context(open_device(f"sim:{number}", ring_size=RING_SIZE, sim=host, link_timeout=0))
            table = table_of(
                [Stream("s", compose({"ipv4": {}, "udp": {}}, DEFAULT_FILL, [size]))], tail=SIGNATURE_BYTES
            )
            receiver = Receiver(table, 0)
            receiver.begin(label_of(0, 1))
            table.streams[:, COUNT] = 1 << 40  # all are taken for sent
            judges = None if what == _PLAIN else receiver
            generator = Generator(device, table, batch=_BATCH, count=0, receiver=judges)
            card = host.cards[str(number)].index
            stack.enter_context(mapped(card * SLOT + INPUT_PART, _BATCH * _PLACE))
            for place in range(_BATCH):
                frame = host.rack.tape[card * SLOT + INPUT_PART + place * _PLACE :][:size]
                frame[:] = table.data[: int(table.sizes[0])]
            works[what] = generator, receiver, card, size
        costs = {what: np.zeros(repeat) for what in works}
        for work in works.values():
            _run(host.rack, *work, 2 * RING_SIZE // _BATCH + 1)
        for i in range(repeat):
            for what, work in works.items():
                costs[what][i] = _cost(host.rack, *work)
        for what, (_, receiver, _, _) in works.items():
            if what != _PLAIN and (receiver.others or receiver.rows[0, CORRUPT] or receiver.rows[0, MISSING]):
                raise Error("the benchmark's packets were not judged as they should be")
    for what, figures in costs.items():
        yield result(what, _BATCH, figures)


def _cost(rack: Rack, generator: Generator, receiver: Receiver, card: int, size: int) -> float:
    """Ticks per packet."""
    before, stretches = receiver.arrived.sum(), max(PACKETS // _BATCH // _STRETCH, 1)
    spent = [_run(rack, generator, receiver, card, size, _STRETCH) for _ in range(stretches)]
    judged = int(receiver.arrived.sum() - before)
    if generator.state.receiver is not None and judged != stretches * _STRETCH * _BATCH:
        raise Error(f"the benchmark's tester judged {judged} packets")
    return (float(np.median(spent)) / _STRETCH - tick_cost()) / _BATCH


def _run(rack: Rack, generator: Generator, receiver: Receiver, card: int, size: int, rounds: int) -> int:
    """Ticks that so many batches take."""
    first = int(receiver.arrived.sum())
    return int(
        _lock_step_kernel(generator.kernels)(rack, card, size, generator.state, receiver.state.label, first, rounds)
    )


@cache
def _lock_step_kernel(kernels: SenderKernels) -> Any:
    """The loop in which a tester and the model take turns."""
    begin, poll, end, _ = kernels

    @compiled
    def lock_step(rack: Rack, card: int, size: int, state: Any, label: int, first: int, rounds: int) -> int:
        spent = 0
        if not begin(state):
            return spent
        for number in range(rounds):
            for i in range(_BATCH):
                place = card * SLOT + INPUT_PART + i * _PLACE
                sign(rack.tape, place, size, 0, label, first + number * _BATCH + i, now_ns())
                receive(rack, card, place, size)
            start = ticks()
            poll(state)
            spent += ticks() - start
        end(state)
        return spent

    return lock_step
