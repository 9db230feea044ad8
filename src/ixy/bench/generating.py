"""What a packet costs that a generator makes, in lock step with the model: of one stream, and of four in turn.

In its turns the card takes all that it was handed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ixy.apps.generate import Generator, Pacing
from ixy.apps.rate import parse_rate
from ixy.apps.streams import Choice, Stream
from ixy.apps.streamtable import NO_TAIL, NUMBER_BYTES, table_of
from ixy.bench.lockstep import RING_SIZE
from ixy.bench.turns import BATCH, Work, measured
from ixy.device import open_device
from ixy.formats.frames import udp_frame
from ixy.headers import Ipv4Address
from ixy.jit import compiled
from ixy.sim.loop import drain
from ixy.sim.machine import Machine
from ixy.sim.rack import Rack

_MILLION = 1_000_000
_STREAMS = 4


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
        works: dict[str, Work] = {}
        for number, (what, (streams, numbered, pacing)) in enumerate(_works().items()):
            device = stack.enter_context(open_device(f"sim:{number}", ring_size=RING_SIZE, sim=host, link_timeout=0))
            table = table_of(streams, tail=NUMBER_BYTES if numbered else NO_TAIL)
            generator = Generator(device, table, batch=BATCH, pacing=pacing)
            card = host.cards[str(number)].index
            works[what] = Work(generator, _take, (host.rack, card), lambda made=generator: made.sent)
        yield from measured(works, repeat)


@compiled
def _take(given: tuple[Rack, int], _number: int) -> None:
    """The card takes all that it was handed."""
    rack, card = given
    while drain(rack, card) > 0:
        pass
