"""The check of lab 6: the transmit ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.course.checks.common import (
    Lent,
    card_of,
    compare_sent,
    frames,
    lend,
    note_register,
    note_steps,
    nothing_cleaned,
    nothing_sent,
)
from ixy.course.findings import Wrong
from ixy.course.trials import EAGER, LAZY, Labs, need, trial
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.course.bench import Bench
    from ixy.course.watch import Ring

_SHORT = b"\xff" * 12 + b"\x88\xb5short"


def _open(labs: Labs, bench: Bench, size: int, buffers: int) -> tuple[Any, Lent, Ring]:
    """The student's ring, who has his buffers, and the card's view of the ring."""
    where = card_of(bench, labs)
    pool, lent = lend(bench, labs, buffers)
    ring = labs.lab6.open_transmitter(bench.bus, where, pool, size)
    return ring, lent, next(iter(bench.bus.watches.values())).tx[0]


def look_at_registers(bench: Bench, seen: Ring, size: int) -> None:
    """Note what is wrong with a transmit path that was brought up."""
    note_register(bench, seen, seen.length, size * reg.DESCRIPTOR_BYTES, f"bytes of {size} descriptors of 16 bytes")
    if not seen.get(reg.DMATXCTL) & reg.DMATXCTL.mask("TE"):
        bench.note("set DMATXCTL.TE: without it no queue sends", "DMATXCTL", "8.2.3.9.2", placed=False)
    if seen.get(reg.RTTDCS) & reg.RTTDCS.mask("ARBDIS"):
        bench.note("clear RTTDCS.ARBDIS when the packet buffers are set", "RTTDCS", "4.6.8", placed=False)
    note_steps(bench, "transmit arbiter disabled to set packet buffers", "transmit queues enabled")


@trial(EAGER)
def starts(labs: Labs, bench: Bench) -> None:
    """The transmit path is brought up in the datasheet's order."""
    _, _, seen = _open(labs, bench, 32, 16)
    look_at_registers(bench, seen, 32)
    if not bench.findings:
        need(seen.enabled, "the queue is not enabled: set TXDCTL.ENABLE", "TXDCTL", "4.6.8.1")
        need(
            seen.get(seen.head) == seen.get(seen.tail),
            f"TDT is {seen.get(seen.tail)}, and nothing is to be sent",
            "TDT",
            "7.2.3.3",
        )


@trial()
def sends(labs: Labs, bench: Bench) -> None:
    """Packets of all lengths leave as they were given, in order."""
    ring, _, seen = _open(labs, bench, 32, 32)
    wanted = [_SHORT, *frames(12)]
    for packet in wanted:
        need(
            labs.lab6.send(ring, packet) is True,
            "send gives True for a packet that there is room for",
            "TDT",
            "7.2.3.3",
        )
    bench.work()
    compare_sent(bench.ports[0].left, wanted)
    if len(bench.ports[0].left) < len(wanted):
        bench.note_breaches()
        raise Wrong(nothing_sent(bench, seen))
    need(len(bench.ports[0].left) == len(wanted), "more packets left than were given", "TDT", "7.2.3.3")


@trial(LAZY)
def cleans(labs: Labs, bench: Bench) -> None:
    """clean gives buffers back when their packets are sent, and not before."""
    ring, lent, seen = _open(labs, bench, 32, 16)
    for packet in frames(5):
        labs.lab6.send(ring, packet)
    labs.lab6.clean(ring)
    need(
        len(lent.out) == 5,
        f"of 5 packets that the card has not sent yet only {len(lent.out)} buffers are in use after clean: they are "
        "the card's until DD is set",
        "DD",
        "7.2.3.5",
    )
    bench.work()
    labs.lab6.clean(ring)
    bench.work()
    if lent.out:
        raise Wrong(nothing_cleaned(seen))


@trial(LAZY, EAGER)
def goes_on(labs: Labs, bench: Bench) -> None:
    """Many rounds of the ring: when it is full, send gives False, and nothing is lost or leaks."""
    for size, buffers in ((32, 64), (64, 24)):
        ring, lent, seen = _open(labs, bench, size, buffers)
        bench.ports[0].left.clear()
        wanted = frames(5 * size, seed=2)
        given = idle = 0
        while given < len(wanted):
            if labs.lab6.send(ring, wanted[given]):
                given += 1
                idle = 0
                continue
            idle += 1
            bench.work()
            labs.lab6.clean(ring)
            if idle > 2 and len(bench.ports[0].left) < given:
                raise Wrong(nothing_sent(bench, seen))
            if idle > 2:
                raise Wrong(nothing_cleaned(seen))
        bench.work()
        labs.lab6.clean(ring)
        compare_sent(bench.ports[0].left, wanted)
        if len(bench.ports[0].left) < len(wanted):
            raise Wrong(nothing_sent(bench, seen))
        need(len(bench.ports[0].left) == len(wanted), "a packet left twice", "TDT", "7.2.3.3")
        need(len(lent.out) <= 1, f"{len(lent.out)} buffers did not come back to the pool", "DD", "7.2.3.5")
