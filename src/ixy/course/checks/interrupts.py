"""The check of the extra about interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.course.checks.common import card_of, compare_received, frames, lend
from ixy.course.trials import EAGER, Labs, need, trial
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.course.bench import Bench, BenchInterrupt

_LATE = 0.005  # seconds


def _open(labs: Labs, bench: Bench) -> tuple[Any, BenchInterrupt]:
    where = card_of(bench, labs)
    pool, _ = lend(bench, labs, 40)
    ring = labs.lab5.open_receiver(bench.bus, where, pool, 32)
    interrupt = bench.bus.interrupt(where)
    labs.interrupts.set_up(ring.bar)
    return ring, interrupt


def _why(bench: Bench) -> tuple[str, str, str]:
    """Why there was no interrupt."""
    ring = next(iter(bench.bus.watches.values())).rx[0]
    entry = ring.get(reg.IVAR[0]) & 0xFF
    if not entry & reg.IVAR_VALID:
        return (
            "IVAR has no valid entry for receive queue 0: bit 7 of its byte says that it is one",
            "IVAR",
            "8.2.3.5.16",
        )
    if entry & 0x3F:
        return f"IVAR gives receive queue 0 vector {entry & 0x3F}, and 0 is waited for", "IVAR", "8.2.3.5.16"
    if not any(verb == "write" and at in (reg.EIMS.offset, reg.EIMS_EX.offset) for verb, _, at, _ in bench.log):
        return "vector 0 is masked: set its bit in EIMS before you sleep", "EIMS", "8.2.3.5.3"
    if not ring.get(reg.EIAC) & 1 and not any(at == reg.EICR.offset for _, _, at, _ in bench.log):
        return "its cause is never cleared, so it does not interrupt again: set its bit in EIAC", "EIAC", "8.2.3.5.5"
    mask = bench.ports[0].card.read32(reg.EIMS.offset)
    if not mask & 1:
        return "vector 0 is masked, as each message masks it again: set its bit in EIMS each time", "EIMS", "8.2.3.5.3"
    return "the card has not sent it: look at IVAR, EIAC, GPIE and EIMS", "IVAR", "7.3.1"


@trial(EAGER)
def wakes(labs: Labs, bench: Bench) -> None:
    """Who sleeps is woken by each packet."""
    ring, interrupt = _open(labs, bench)
    wanted = frames(20)
    for number, frame in enumerate(wanted):
        bench.later(_LATE, lambda frame=frame: bench.ports[0].arriving.append(frame))
        begun, slept = bench.clock.now, interrupt.slept
        packet = labs.interrupts.receive_or_sleep(ring, interrupt, 1.0)
        late = bench.clock.now - begun > 2 * _LATE * 1e9
        need(
            interrupt.slept > slept,
            "receive_or_sleep does not sleep: wait for the interrupt if there is no packet",
            "EIMS",
            "7.3.1",
        )
        need(packet is not None and not late, f"packet {number} woke nobody: {_why(bench)[0]}", *_why(bench)[1:])
        compare_received([*filter(None, [packet])], [frame])


@trial(EAGER)
def does_not_sleep(labs: Labs, bench: Bench) -> None:
    """Where packets are there, nobody sleeps; where none comes, the sleep ends."""
    ring, interrupt = _open(labs, bench)
    wanted = frames(10)
    bench.ports[0].arriving.extend(wanted)
    bench.work()
    got: list[Any] = [labs.interrupts.receive_or_sleep(ring, interrupt, 1.0) for _ in wanted]
    compare_received(got, wanted)
    need(interrupt.slept == 0, "packets were there, and receive_or_sleep slept: look first", "DD", "7.1.6.2")
    need(
        interrupt.sent <= 1,
        f"{interrupt.sent} interrupts came while nobody slept: let a message mask its vector by EIAM_EX and "
        "GPIE.EIAME, or mask it by EIMC",
        "EIAM_EX",
        "8.2.3.5.10",
    )
    begun = bench.clock.now
    packet = labs.interrupts.receive_or_sleep(ring, interrupt, 0.5)
    need(packet is None, "nothing has arrived, and receive_or_sleep gives a packet", "DD", "7.1.6.2")
    need(bench.clock.now - begun < 1e9, "the sleep took longer than its timeout")


@trial(EAGER)
def misses_none(labs: Labs, bench: Bench) -> None:
    """A packet that comes just before the interrupt is on is not missed, and a storm does not come."""
    ring, interrupt = _open(labs, bench)
    wanted = frames(6)
    for frame in wanted:
        for register in (reg.EIMS, reg.EIMS_EX[0]):
            bench.before[register.offset] = lambda frame=frame: bench.ports[0].arrive(frame)
        begun = bench.clock.now
        packet = labs.interrupts.receive_or_sleep(ring, interrupt, 1.0)
        bench.before.clear()
        need(
            packet == frame and bench.clock.now - begun < 0.5e9,
            "a packet that arrived between the last look and EIMS was not found before the sleep was over: look once "
            "more when the interrupt is on",
            "EIMS",
            "7.3.1",
        )
    interrupt.sent = 0
    for frame in frames(10, seed=1):
        bench.ports[0].arrive(frame)
        bench.work()
    need(
        interrupt.sent <= 1,
        f"10 packets that nobody waited for caused {interrupt.sent} interrupts: let a message mask its vector by "
        "EIAM_EX and GPIE.EIAME, or mask it by EIMC",
        "EIAM_EX",
        "8.2.3.5.10",
    )
