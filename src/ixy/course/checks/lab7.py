"""The check of lab 7: batches, and cleaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.course.checks import lab5, lab6
from ixy.course.checks.common import (
    Lent,
    card_of,
    compare_received,
    compare_sent,
    frames,
    lend,
    nothing_cleaned,
    nothing_received,
    nothing_sent,
)
from ixy.course.findings import Wrong
from ixy.course.trials import EAGER, LAZY, Labs, need, trial
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.course.bench import Bench
    from ixy.course.watch import Watch

_SIZE = 64
_BATCH = 16
_MOST_UNREPORTED = 32  # buffers that a ring may keep until a group is full


def _open(labs: Labs, bench: Bench, buffers: int) -> tuple[Any, Any, Lent, Watch]:
    """The student's card, his pool and who has its buffers, and who looks on."""
    where = card_of(bench, labs)
    pool, lent = lend(bench, labs, buffers)
    nic = labs.lab7.open_nic(bench.bus, where, pool, _SIZE)
    watch = next(iter(bench.bus.watches.values()))
    lab5.look_at_registers(bench, watch.rx[0], _SIZE)
    lab6.look_at_registers(bench, watch.tx[0], _SIZE)
    return nic, pool, lent, watch


def _receive(labs: Labs, bench: Bench, nic: Any, limit: int) -> list[tuple[int, int]]:
    """A batch; what it costs is looked at."""
    reads, tails = bench.accesses["read"], bench.accesses["RDT"]
    batch = labs.lab7.receive_batch(nic.rx, limit)
    need(isinstance(batch, list), f"receive_batch gives {batch!r}, and not a list of (buffer, length)")
    need(len(batch) <= limit, f"receive_batch gives {len(batch)} packets, and {limit} were asked for")
    need(
        bench.accesses["RDT"] - tails <= 1,
        f"RDT was written {bench.accesses['RDT'] - tails} times for one batch: once is enough, and each costs as much "
        "as many packets",
        "RDT",
        "7.1.9",
    )
    need(
        bench.accesses["read"] == reads,
        "receive_batch reads a register, for which the processor waits a microsecond: descriptors say all there is",
        "DD",
        "7.1.6.2",
    )
    return batch


@trial()
def receives(labs: Labs, bench: Bench) -> None:
    """receive_batch gives packets in their buffers, with one write of RDT a batch."""
    nic, pool, lent, watch = _open(labs, bench, 2 * _SIZE)
    wanted = frames(4 * _SIZE)
    got: list[bytes] = []
    for start in range(0, len(wanted), 20):
        bench.ports[0].arriving.extend(wanted[start : start + 20])
        bench.work()
        for _ in range(3):
            batch = _receive(labs, bench, nic, _BATCH)
            for buffer, length in batch:
                need(
                    buffer in lent.out,
                    "receive_batch gives a buffer that is free, or is none",
                    "Packet Buffer Address",
                    "7.1.9",
                )
                got.append(pool.memory.read(buffer, length))
            compare_received(got, wanted, watch.rx[0])
            for buffer, _ in batch:
                pool.give(buffer)
            bench.work()
        if len(got) < min(start + 20, len(wanted)):
            raise Wrong(nothing_received(bench, watch.rx[0]))
    need(len(got) == len(wanted), "a packet was received twice: a descriptor is taken again", "DD", "7.1.6.2")
    need(
        len(lent.out) == _SIZE,
        f"{len(lent.out)} buffers are in use, and the ring has {_SIZE} descriptors: the others have leaked",
        "Packet Buffer Address",
        "7.1.9",
    )


@trial(EAGER)
def runs_dry(labs: Labs, bench: Bench) -> None:
    """When no buffer is free, packets wait in the ring, and none is lost."""
    nic, pool, _, watch = _open(labs, bench, _SIZE + 10)
    wanted = frames(30, seed=3)
    bench.ports[0].arriving.extend(wanted)
    bench.work()
    held = _receive(labs, bench, nic, 30)
    need(
        len(held) == 10,
        f"10 buffers are free beyond those in the ring, and receive_batch gives {len(held)} packets: each needs "
        "another buffer in its place",
        "Packet Buffer Address",
        "7.1.9",
    )
    got: list[bytes] = []
    for _ in range(6):
        got += [pool.memory.read(buffer, length) for buffer, length in held]
        for buffer, _ in held:
            pool.give(buffer)
        held = _receive(labs, bench, nic, 30)
    compare_received(got, wanted, watch.rx[0])
    if len(got) < len(wanted):
        raise Wrong(nothing_received(bench, watch.rx[0]))


def _fill(pool: Any, packets: list[bytes]) -> list[tuple[int, int]]:
    """Packets in buffers of the pool, as many as there are."""
    filled: list[tuple[int, int]] = []
    for packet in packets:
        buffer = pool.take()
        if buffer is None:
            break
        pool.memory.write(buffer, packet)
        filled.append((buffer, len(packet)))
    return filled


def _send(labs: Labs, bench: Bench, nic: Any, packets: list[tuple[int, int]]) -> int:
    """Send a batch; what it costs is looked at."""
    tails = bench.accesses["TDT"]
    sent = labs.lab7.send_batch(nic.tx, packets)
    need(
        isinstance(sent, int) and 0 <= sent <= len(packets),
        f"send_batch gives {sent!r} for {len(packets)} packets: how many of them it took",
    )
    need(
        bench.accesses["TDT"] - tails <= 1,
        f"TDT was written {bench.accesses['TDT'] - tails} times for one batch: once is enough",
        "TDT",
        "7.2.3.3",
    )
    return sent


@trial()
def sends(labs: Labs, bench: Bench) -> None:
    """send_batch takes what there is room for, with one write of TDT a batch, and buffers come back."""
    nic, pool, lent, watch = _open(labs, bench, 4 * _SIZE)
    seen = watch.tx[0]
    wanted = frames(6 * _SIZE, seed=4)
    given = idle = 0
    while given < len(wanted):
        batch = _fill(pool, wanted[given : given + 30])
        sent = _send(labs, bench, nic, batch)
        for buffer, _ in batch[sent:]:
            pool.give(buffer)
        given += sent
        if sent < len(batch) or not batch:
            bench.work()
        idle = 0 if sent else idle + 1
        if idle > 3:
            raise Wrong(nothing_sent(bench, seen) if len(bench.ports[0].left) < given else nothing_cleaned(seen))
    bench.work()
    compare_sent(bench.ports[0].left, wanted)
    if len(bench.ports[0].left) < len(wanted):
        raise Wrong(nothing_sent(bench, seen))
    labs.lab7.clean_batch(nic.tx)
    if len(lent.out) > _SIZE + _MOST_UNREPORTED:
        raise Wrong(nothing_cleaned(seen))


@trial(LAZY)
def asks_seldom(labs: Labs, bench: Bench) -> None:
    """The card is asked for few reports, and a full ring takes no more."""
    nic, pool, lent, watch = _open(labs, bench, 3 * _SIZE)
    batch = _fill(pool, frames(2 * _SIZE, seed=5))
    sent = _send(labs, bench, nic, batch)
    need(
        sent < _SIZE,
        f"a ring of {_SIZE} descriptors took {sent} packets: one stays unused, or TDT would be TDH, as when empty",
        "TDT",
        "7.2.3.3",
    )
    need(sent >= _SIZE // 2, f"an empty ring of {_SIZE} descriptors took only {sent} packets", "TDT", "7.2.3.3")
    reports = [slot for slot in watch.tx[0].owned() if (words := watch.tx[0].descriptor(slot)) and words[1] & reg.TX_RS]
    need(
        len(reports) <= sent // 2,
        f"of {sent} descriptors {len(reports)} ask for a report: one of several is enough, and each costs a write of "
        "the card",
        "RS",
        "7.2.3.5.1",
    )
    labs.lab7.clean_batch(nic.tx)
    need(
        len(lent.out) == _SIZE + len(batch),
        "clean_batch gives buffers back that the card has not sent: look for DD in the descriptor that asked for it",
        "DD",
        "7.2.3.5",
    )
    bench.work()
    labs.lab7.clean_batch(nic.tx)
    need(
        len(lent.out) <= _SIZE + len(batch) - sent + _MOST_UNREPORTED,
        "all was sent, and clean_batch gives no buffers back: descriptors with RS have DD when the card is behind them",
        "DD",
        "7.2.3.5.1",
    )
