"""What a packet costs that a tester receives and judges, in lock step with the model: its order, its bits, its latency.

In its turns the model hands the same packets, signed anew, to the card. Beside it stands a port that receives and
throws away, so that both figures are of one measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy.apps.compose import DEFAULT_FILL, compose
from ixy.apps.generate import Generator
from ixy.apps.receiver import CORRUPT, Receiver, label_of
from ixy.apps.streams import Stream
from ixy.apps.streamtable import COUNT, SIGNATURE_BYTES, table_of
from ixy.bench.lockstep import RING_SIZE
from ixy.bench.turns import BATCH, Work, measured
from ixy.device import open_device
from ixy.errors import Error
from ixy.formats.signature import sign
from ixy.jit import compiled
from ixy.sim.card.receive import receive
from ixy.sim.machine import Machine
from ixy.sim.rack import INPUT_PART, SLOT, Rack
from ixy.sim.wires.tape import mapped
from ixy.tables.order import MISSING
from ixy.unsafe import now_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACE = 2048  # bytes on the tape for a packet
_SIZES = {"receive and judge, 64 bytes": 60, "receive and judge, 1518 bytes": 1514}
_PLAIN = "receive and throw away, 64 bytes"


class Arrivals(NamedTuple):
    """What the model does in its turns.

    Attributes:
        card: to which packets are handed.
        size: theirs, in bytes.
        label: of their signatures.
        signed: how many there were; shape (1,), int64.
    """

    rack: Rack
    card: int
    size: int
    label: int
    signed: NDArray[np.int64]


def measure(repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each size of packets: what one costs, in ticks, 32 at a time.

    Raises:
        Error: packets were lost, or found wrong.
    """
    host = Machine(stepped=True)
    with ExitStack() as stack:
        works, receivers = dict[str, Work](), list[Receiver]()
        for number, (what, size) in enumerate({_PLAIN: 60, **_SIZES}.items()):
            device = stack.enter_context(open_device(f"sim:{number}", ring_size=RING_SIZE, sim=host, link_timeout=0))
            table = table_of(
                [Stream("s", compose({"ipv4": {}, "udp": {}}, DEFAULT_FILL, [size]))], tail=SIGNATURE_BYTES
            )
            receiver = Receiver(table, 0)
            receiver.begin(label_of(0, 1))
            table.streams[:, COUNT] = 1 << 40  # all are taken for sent
            judges = None if what == _PLAIN else receiver
            generator = Generator(device, table, batch=BATCH, count=0, receiver=judges)
            card = host.cards[str(number)].index
            stack.enter_context(mapped(card * SLOT + INPUT_PART, BATCH * _PLACE))
            for place in range(BATCH):
                frame = host.rack.tape[card * SLOT + INPUT_PART + place * _PLACE :][:size]
                frame[:] = table.data[: int(table.sizes[0])]
            signed = np.zeros(1, np.int64)
            given = Arrivals(host.rack, card, size, receiver.state.label, signed)
            works[what] = Work(generator, _deliver, given, _handled(signed, judges))
            receivers += [judges] if judges else []
        yield from measured(works, repeat)
        if any(each.others or each.rows[0, CORRUPT] or each.rows[0, MISSING] for each in receivers):
            raise Error("the benchmark's packets were not judged as they should be")


def _handled(signed: NDArray[np.int64], judges: Receiver | None) -> Callable[[], int]:
    """What says how many packets were judged; of a port that throws them away, how many were handed to it."""
    return lambda: int(judges.arrived.sum() if judges else signed[0])


@compiled
def _deliver(given: Arrivals, _number: int) -> None:
    """Packets, signed anew, are handed to the card."""
    for i in range(BATCH):
        place = given.card * SLOT + INPUT_PART + i * _PLACE
        sign(given.rack.tape, place, given.size, 0, given.label, given.signed[0], now_ns())
        receive(given.rack, given.card, place, given.size)
        given.signed[0] += 1
