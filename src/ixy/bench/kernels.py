"""`ixy bench kernels`: what a function costs that does more than to touch a packet, in lock step with the model.

All of them also raise byte 48, so that what they cost more than plain forwarding is what they do besides. They take
turns on the same pair of cards. A packet's flow is a random one, by the sequence number that the generator writes: that
costs a tick or two, as part of the function.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ixy import tables
from ixy.bench.lockstep import MAX_BATCH, PACKETS, RING_SIZE, Lane
from ixy.device import Device, open_device
from ixy.errors import Error
from ixy.functions import now, prefetch
from ixy.headers import adjusted
from ixy.jit import checked
from ixy.packets.batch import Batch, Packet
from ixy.path import Path, batch_kernel, entered, kernel, touch
from ixy.record import Record, array
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Spread
from ixy.sim.machine import Machine
from ixy.verdicts import DROP, FORWARD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.asking import BatchFunction, PacketFunction

OUTPUTS = 8
_TURN = 1 << 13  # packets
_FEW, _MANY = 1000, 60_000  # flows
_AGE = 60 * tables.SECOND


class Flow(Record):
    """32 bytes: two of them lie on a cache line."""

    key0: int
    key1: int
    last: int
    packets: int


class Seen(Record):
    """A packet of the batch at hand: its flow, and where that is looked for first."""

    key0: int
    key1: int
    place: int


class State(Record):
    """What the functions keep."""

    packets: int
    bytes: int
    address: int
    few = array(1 << 14, Flow)
    many = array(1 << 17, Flow)
    seen = array(MAX_BATCH, Seen)


@checked
def flow_number(packet: Packet, flows: int) -> int:
    """Which of so many flows a packet is of: the generator's are all of one, but for the number at their end. The last
    byte is read first: where it is, so are the others, and only it is checked."""
    number = packet[59] | packet[58] << 8 | packet[57] << 16 | packet[56] << 24
    return ((number * 0x9E37_79B1 & 0xFFFF_FFFF) * flows) >> 32


@kernel
def may_drop(packet: Packet) -> int:
    packet[48] += 1
    return FORWARD if packet[47] != 0 else DROP


@kernel
def with_state(packet: Packet, _state: State) -> int:
    packet[48] += 1
    return FORWARD


@kernel
def one_field(packet: Packet) -> int:
    packet[48] += 1 + (packet.ipv4.src == 1)
    return FORWARD


@kernel
def three_fields(packet: Packet) -> int:
    ip = packet.ipv4
    packet[48] += 1 + (ip.src == 1) + (ip.dst == 1) + (ip.ttl == 1)
    return FORWARD


@kernel
def counter(packet: Packet, state: State) -> int:
    packet[48] += 1
    state.packets += 1
    return FORWARD


@kernel
def random_number(packet: Packet) -> int:
    packet[48] += 1 + (flow_number(packet, OUTPUTS) == OUTPUTS)
    return FORWARD


@kernel
def random_output(packet: Packet) -> int:
    packet[48] += 1
    return 1 + flow_number(packet, OUTPUTS)


@kernel
def count_few(packet: Packet, state: State) -> int:
    packet[48] += 1
    ip, udp = packet.ipv4, packet.udp
    if not ip or not udp:
        return DROP
    ports = (udp.sport << 16 | udp.dport) + flow_number(packet, _FEW)
    place = tables.find(state.few, ip.src << 32 | ip.dst, ports, now(), _AGE)
    if place >= 0:
        state.few[place].packets += 1
    return FORWARD


@batch_kernel
def count_many(packets: Batch, state: State) -> None:
    for i in range(len(packets)):
        packet = packets[i]
        packet[48] += 1
        ip, udp, seen = packet.ipv4, packet.udp, state.seen[i]
        seen.place = -1
        if ip and udp:
            seen.key0 = ip.src << 32 | ip.dst
            seen.key1 = (udp.sport << 16 | udp.dport) + flow_number(packet, _MANY)
            seen.place = tables.start(state.many, seen.key0, seen.key1)
            prefetch(state.many, seen.place)
    for i in range(len(packets)):
        seen = state.seen[i]
        if seen.place >= 0:
            place = tables.find(state.many, seen.key0, seen.key1, now(), _AGE, seen.place)
            if place >= 0:
                state.many[place].packets += 1


@kernel
def translate(packet: Packet, state: State) -> int:
    packet[48] += 1
    ip, udp = packet.ipv4, packet.udp
    if not ip or not udp:
        return DROP
    old = ip.src << 16 | udp.sport
    place = tables.find(state.few, old + flow_number(packet, _FEW), ip.protocol, now(), _AGE)
    if place < 0:
        return DROP
    new = state.address << 16 | 4096 + place
    ip.src, udp.sport = new >> 16, new
    ip.checksum = adjusted(ip.checksum, old >> 16, new >> 16)
    if udp.checksum:
        udp.checksum = adjusted(udp.checksum, old, new)
    return FORWARD


class Work(NamedTuple):
    """A function that is measured.

    Attributes:
        what: it does besides touching.
        kept: whether it has a record.
        outputs: how many it chooses from; 0 is one output that is no list.
    """

    what: str
    function: PacketFunction | BatchFunction
    kept: bool = False
    outputs: int = 0


PLAIN = Work("nothing: plain forwarding", touch)
WORKS = (
    Work("a state that is not used", with_state, kept=True),
    Work("a verdict that may be DROP, and never is", may_drop),
    Work("one header field", one_field),
    Work("three header fields", three_fields),
    Work("a counter", counter, kept=True),
    Work("2 outputs, all packets to one", touch, outputs=2),
    Work("a random number by sequence number", random_number),
    Work("8 outputs at random", random_output, outputs=OUTPUTS),
    Work("parse, count in 1,000 flows", count_few, kept=True),
    Work("parse, count in 60,000 flows, by batch", count_many, kept=True),
    Work("NAT of 1,000 flows", translate, kept=True),
)


def measure(batch: int, rounds: int | None, repeat: int) -> Iterator[dict[str, Any]]:
    """An object for each function, plain forwarding first: what a packet costs, and how much more that is.

    Args:
        rounds: batches of each measurement, by default as many as `PACKETS` needs.

    Raises:
        Error: packets were lost.
    """
    rounds = rounds or -(-PACKETS // batch)
    turn = min(rounds, -(-_TURN // batch))
    host = Machine(stepped=True)
    with ExitStack() as stack:
        rx = stack.enter_context(open_device("sim:a,gen=60", ring_size=RING_SIZE, sim=host))
        tx = stack.enter_context(open_device("sim:b,sink=a,touch=48", tx_queues=OUTPUTS, ring_size=RING_SIZE, sim=host))
        lanes = {work: Lane(host, "a", "b", partial(_prepare, _path(work, rx, tx, batch))) for work in (PLAIN, *WORKS)}
        costs = {work: np.zeros((repeat, rounds // turn)) for work in lanes}
        for place in np.ndindex(repeat, rounds // turn):
            for work, lane in lanes.items():
                costs[work][place] = lane.measure(batch, turn)
        report = host.sink_report("a", "b")
        if report.received != report.sent:
            raise Error(f"the benchmark's packets did not arrive as they should: {report}")
    for work, figures in costs.items():
        yield _result(work, batch, figures, figures - costs[PLAIN])


def _path(work: Work, rx: Device, tx: Device, batch: int) -> Path:
    to = tx.tx[: work.outputs] if work.outputs else tx.tx[0]
    return Path(rx.rx[0], to, work.function, State() if work.kept else None, batch=batch)


@contextmanager
def _prepare(path: Path, _batch: int) -> Generator[tuple[Any, Any]]:
    with entered(path):
        yield path.kernels.poll, path.state


def _result(work: Work, batch: int, costs: NDArray[np.float64], more: NDArray[np.float64]) -> dict[str, Any]:
    cost, extra = _spread(costs), _spread(more)
    return {
        "what": work.what,
        "batch": batch,
        **{name: round(value, 2) for name, value in cost._asdict().items()},
        **{f"more_{name}": round(value, 2) for name, value in extra._asdict().items()},
        "unit": tick_unit(),
    }


def _spread(figures: NDArray[np.float64]) -> Spread:
    return Spread(float(np.median(figures)), float(np.min(figures)), float(np.max(figures)))


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for result in results:
        cost = "{what:42} {median:6.1f} ({least:.1f}–{most:.1f})".format(**result)
        yield cost + "  {more_median:+6.1f} ({more_least:+.1f} to {more_most:+.1f}) {unit}".format(**result)
