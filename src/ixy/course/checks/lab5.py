"""The check of lab 5: the receive ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.course.checks.common import (
    card_of,
    compare_received,
    frames,
    lend,
    note_register,
    note_steps,
    nothing_received,
)
from ixy.course.findings import Wrong
from ixy.course.trials import EAGER, Labs, need, trial
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.course.bench import Bench
    from ixy.course.watch import Ring

_SIZES = (32, 64)
_BURST = 7


def _open(labs: Labs, bench: Bench, size: int) -> tuple[Any, Ring]:
    """The student's ring, and the card's view of it."""
    where = card_of(bench, labs)
    pool, _ = lend(bench, labs, size + 8)
    ring = labs.lab5.open_receiver(bench.bus, where, pool, size)
    return ring, next(iter(bench.bus.watches.values())).rx[0]


def look_at_registers(bench: Bench, seen: Ring, size: int) -> None:
    """Note what is wrong with a receive path that was brought up."""
    queue = seen.queue
    note_register(bench, seen, seen.length, size * reg.DESCRIPTOR_BYTES, f"bytes of {size} descriptors of 16 bytes")
    kib = seen.get(reg.SRRCTL[queue]) & reg.SRRCTL.mask("BSIZEPACKET")
    if kib != 2:
        bench.note(
            f"SRRCTL.BSIZEPACKET is {kib} KiB, and buffers have 2: what is more, the card writes into the next one",
            "SRRCTL",
            "8.2.3.8.7",
            placed=False,
        )
    kept = seen.get(reg.DCA_RXCTRL[queue]) & reg.DCA_RXCTRL.mask("MUST_BE_ZERO")
    if kept or not seen.get(reg.CTRL_EXT) & reg.CTRL_EXT.mask("NS_DIS"):
        bench.note(
            "set CTRL_EXT.NS_DIS and clear bit 12 of DCA_RXCTRL: else payloads may be spoilt",
            "CTRL_EXT",
            "4.6.7",
            placed=False,
        )
    if seen.get(reg.SECRXCTRL) & reg.SECRXCTRL.mask("RX_DIS"):
        bench.note(
            "clear SECRXCTRL.RX_DIS when RXCTRL.RXEN is set: until then the receive path is halted",
            "SECRXCTRL",
            "4.6.7",
            placed=False,
        )
    note_steps(
        bench,
        "multicast table cleared",
        "receive buffers' size and descriptors' type set",
        "receive queues enabled",
        "receive path halted",
    )


@trial(EAGER)
def starts(labs: Labs, bench: Bench) -> None:
    """The receive path is brought up in the datasheet's order."""
    _, seen = _open(labs, bench, 32)
    look_at_registers(bench, seen, 32)
    handed = len(seen.owned())
    if not bench.findings:
        need(
            handed > 0,
            "the card has no descriptors: hand them over by RDT once the queue is enabled",
            "RDT",
            "4.6.7",
        )
        need(handed >= 16, f"the card has only {handed} of 32 descriptors: RDT is to be 31", "RDT", "7.1.9")


@trial()
def finds_nothing(labs: Labs, bench: Bench) -> None:
    """receive gives None as long as nothing has arrived."""
    ring, _ = _open(labs, bench, 32)
    for _ in range(3):
        packet = labs.lab5.receive(ring)
        need(
            packet is None,
            f"receive gives {len(packet) if isinstance(packet, bytes) else packet!r} bytes, and nothing has arrived: "
            "look whether DD is set",
            "DD",
            "7.1.6.2",
        )


@trial()
def receives(labs: Labs, bench: Bench) -> None:
    """Packets of all lengths come out as they arrived, in order, for several rounds of the ring."""
    for size in _SIZES if not bench.lazy else _SIZES[:1]:
        ring, seen = _open(labs, bench, size)
        wanted = frames(3 * size + 5)
        got: list[bytes] = []
        for start in range(0, len(wanted), _BURST):
            burst = wanted[start : start + _BURST]
            bench.ports[0].arriving.extend(burst)
            bench.work()
            for _ in range(_BURST + 1):
                packet = labs.lab5.receive(ring)
                if packet is None:
                    break
                got.append(packet)
            compare_received(got, wanted, seen)
            bench.work()
            if len(got) < start + len(burst):
                raise Wrong(nothing_received(bench, seen))
            need(
                len(got) == start + len(burst),
                f"receive gives packet {len(got) - 1} once more: a descriptor is taken again whose DD is still set, or "
                "that was not yours",
                "DD",
                "7.1.6.2",
            )
        look_at_registers(bench, seen, size)


@trial(EAGER)
def bears_overload(labs: Labs, bench: Bench) -> None:
    """When more arrives than the ring holds, the rest is dropped, and receiving goes on."""
    ring, seen = _open(labs, bench, 32)
    wanted = frames(40, seed=1)
    for frame in wanted:
        bench.ports[0].arrive(frame)
    got: list[bytes] = []
    while (packet := labs.lab5.receive(ring)) is not None:
        got.append(packet)
        need(len(got) <= 32, "receive gives more packets than the ring has descriptors", "DD", "7.1.6.2")
    compare_received(got, wanted[: len(got)], seen)
    need(len(got) >= 24, f"of 40 packets only {len(got)} were kept, and the ring has 32 descriptors", "RDT", "7.1.9")
    bench.ports[0].arrive(wanted[-1])
    if labs.lab5.receive(ring) != wanted[-1]:
        raise Wrong(nothing_received(bench, seen))
