"""The check of lab 8: statistics, the link, and the forwarder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.course.checks.common import (
    card_of,
    compare_sent,
    frames,
    lend,
    nothing_cleaned,
    nothing_received,
    nothing_sent,
)
from ixy.course.findings import Wrong
from ixy.course.trials import EAGER, Labs, need, trial
from ixy.registers import i82599 as reg
from ixy.sim.card.state import QUEUE_RX_BYTES, QUEUE_TX_BYTES
from ixy.sim.rack import SPEED

if TYPE_CHECKING:
    from ixy.course.bench import Bench

_SIZE = 32
_COUNT = 4 * _SIZE
_TURNS = 2000
_NAMES = ("first", "second")
_JAM = 8 * _COUNT  # packets that arrive meanwhile: more than there are buffers, also where one of ten leaks
_MANY = 5 << 32  # bytes: more than the lower register holds


def _open(labs: Labs, bench: Bench, number: int, pool: Any) -> Any:
    return labs.lab7.open_nic(bench.bus, card_of(bench, labs, number), pool, _SIZE)


@trial(EAGER)
def adds_statistics(labs: Labs, bench: Bench) -> None:
    """add_statistics adds up counters that are cleared when they are read."""
    pool, _ = lend(bench, labs, 2 * _SIZE)
    nic = _open(labs, bench, 0, pool)
    totals: dict[str, int] = dict.fromkeys(("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"), 0)
    wanted = dict(totals)
    card = bench.ports[0].card
    queue = bench.machine.rack.queues[card.index, 0]
    for turn in range(3):
        packets = frames(5 + turn, seed=turn)
        for packet in packets:
            bench.ports[0].arrive(packet)
        batch = labs.lab7.receive_batch(nic.rx, 3)
        labs.lab7.send_batch(nic.tx, batch)
        bench.work()
        if turn == 1:
            queue[QUEUE_RX_BYTES] += _MANY
            queue[QUEUE_TX_BYTES] += 2 * _MANY
        wanted["rx_packets"] += len(packets)
        wanted["rx_bytes"] += sum(map(len, packets)) + (_MANY if turn == 1 else 0)
        wanted["tx_packets"] += len(batch)
        wanted["tx_bytes"] += sum(length + 4 for _, length in batch) + (2 * _MANY if turn == 1 else 0)
        labs.lab8.add_statistics(nic.bar, totals)
        _compare(totals, wanted, turn)


def _compare(totals: dict[str, int], wanted: dict[str, int], turn: int) -> None:
    registers = {"rx_packets": reg.GPRC, "tx_packets": reg.GPTC, "rx_bytes": reg.GORCL, "tx_bytes": reg.GOTCL}
    for name, register in registers.items():
        reason = f"it is in {register.name}"
        if register.name.endswith("L"):
            reason = f"{register.name} is read first, then {register.name[:-1]}H, its upper 4 bits, which clears both"
        if turn:
            reason += "; each time they begin at 0"
        need(
            totals.get(name) == wanted[name],
            f'"{name}" is {totals.get(name)} and not {wanted[name]}: {reason}',
            register.name,
            "8.2.3.23",
        )


@trial(EAGER)
def knows_the_link(labs: Labs, bench: Bench) -> None:
    """link_speed tells of the link."""
    pool, _ = lend(bench, labs, 2 * _SIZE)
    nic = _open(labs, bench, 0, pool)
    for _ in range(8):
        nic.bar.read32(reg.STATUS.offset)  # the link takes its time after a reset
    for up, speed, wanted in ((True, 0, 10_000), (False, 0, 0), (True, 10**9, 1_000), (True, 10**8, 100)):
        card = bench.ports[0].card
        card.set_linked(up)
        bench.machine.rack.outputs[card.index, SPEED] = speed
        found = labs.lab8.link_speed(nic.bar)
        need(
            found == wanted,
            f"link_speed gives {found} and not {wanted}: LINK_UP is bit 30 of LINKS, LINK_SPEED bits 28 and 29",
            "LINKS",
            "8.2.3.22.20",
        )
    bench.machine.rack.outputs[card.index, SPEED] = 0


class _Traffic:
    """Packets that arrive at both cards while the student's loop runs.

    Args:
        patience: turns in which nothing leaves, after which it ends.
    """

    def __init__(self, bench: Bench, packets: list[list[bytes]], patience: int = 12) -> None:
        self._bench = bench
        self._packets = packets
        self._patience = patience
        self._given = 0
        self._turns = 0
        self._still = 0
        self._moved = (0, 0)

    def more(self) -> bool:
        """Whether there is more to do. Meanwhile the cards work, and more packets arrive."""
        bench = self._bench
        self._turns += 1
        if self._turns % 3 == 0:
            for port, packets in zip(bench.ports, self._packets, strict=True):
                port.arriving.extend(packets[self._given : self._given + 10])
            self._given += 10
        bench.work()
        moved = len(bench.ports[0].left), len(bench.ports[1].left)
        self._still = 0 if moved != self._moved else self._still + 1
        self._moved = moved
        return self._turns < _TURNS and self._still < self._patience


@trial(cards=2)
def forwards(labs: Labs, bench: Bench) -> None:
    """forward brings each packet of either card to the other, unchanged and in order."""
    pool, lent = lend(bench, labs, 5 * _SIZE)
    first, second = (_open(labs, bench, number, pool) for number in range(2))
    packets = [frames(_COUNT, seed=6), frames(_COUNT, seed=7)]
    labs.lab8.forward(first, second, _Traffic(bench, packets).more)
    watches = list(bench.bus.watches.values())
    for source, target in ((0, 1), (1, 0)):
        left = bench.ports[target].left
        need(
            bool(left),
            f"nothing that arrived at the {_NAMES[source]} card has left through the other: forward both ways",
            "forward",
        )
        need(left[0] not in packets[target], "packets leave through the card at which they arrived", "forward")
        compare_sent(left, packets[source])
        if len(left) < _COUNT and not watches[target].tx[0].owned() and bench.ports[source].arriving:
            raise Wrong(nothing_received(bench, watches[source].rx[0], source))
        if len(left) < _COUNT and len(lent.out) >= 5 * _SIZE:
            raise Wrong(nothing_cleaned(watches[target].tx[0]))
        if len(left) < _COUNT:
            raise Wrong(nothing_sent(bench, watches[target].tx[0], target))
        need(
            len(left) == _COUNT,
            f"{len(left)} packets have left, and {_COUNT} arrived at the other card",
            "TDT",
            "7.2.3.3",
        )
    rest = len(lent.out) - 2 * _SIZE
    need(rest <= 2 * _SIZE, f"{rest} buffers are neither in a receive ring nor free: they have leaked", "DD", "7.2.3.5")


@trial(EAGER, cards=2)
def bears_a_jam(labs: Labs, bench: Bench) -> None:
    """While a card cannot send, packets may be dropped, no buffer leaks; then it goes on."""
    pool, lent = lend(bench, labs, 5 * _SIZE)
    first, second = (_open(labs, bench, number, pool) for number in range(2))
    bench.ports[1].stalled = True
    labs.lab8.forward(first, second, _Traffic(bench, [frames(_JAM, seed=8), []], _JAM // 3).more)
    bench.ports[0].arriving.clear()
    bench.ports[1].stalled = False
    bench.work()
    bench.ports[1].left.clear()
    labs.lab8.forward(first, second, _Traffic(bench, [[], []]).more)
    bench.ports[1].left.clear()
    wanted = frames(_COUNT, seed=9)
    labs.lab8.forward(first, second, _Traffic(bench, [wanted, wanted]).more)
    for number in (0, 1):
        left = [frame for frame in bench.ports[number].left if frame in wanted]
        need(
            len(left) == _COUNT,
            f"after a jam only {len(left)} of {_COUNT} packets pass: buffers of packets that found no room have to go "
            "back to the pool",
            "DD",
            "7.2.3.5",
        )
    rest = len(lent.out) - 2 * _SIZE
    need(
        rest <= 2 * _SIZE,
        f"{rest} buffers are neither in a receive ring nor free: those of packets without room have leaked",
        "DD",
        "7.2.3.5",
    )


@trial(EAGER)
def stops(labs: Labs, bench: Bench) -> None:
    """stop ends all DMA, so that memory can be freed."""
    pool, _ = lend(bench, labs, 2 * _SIZE)
    nic = _open(labs, bench, 0, pool)
    bench.log.clear()
    labs.lab8.stop(nic)
    watch = next(iter(bench.bus.watches.values()))
    if watch.rx[0].get(reg.RXCTRL) & reg.RXCTRL.mask("RXEN"):
        bench.note("clear RXCTRL.RXEN: no packets are to come in any more", "RXCTRL", "4.6.7.1.2", placed=False)
    for ring in (watch.rx[0], watch.tx[0]):
        name, section = ring.control.name.removesuffix("[0]"), "4.6.7.1.2" if ring.receives else "4.6.8.1"
        seen = [value for verb, _, at, value in bench.log if (verb, at) == ("read", ring.control.offset)]
        if ring.enabled:
            bench.note(f"clear {name}.ENABLE: {ring.name} is still enabled", name, section, placed=False)
        elif not seen or seen[-1] & reg.RXDCTL.mask("ENABLE"):
            bench.note(
                f"wait until {name}.ENABLE reads 0: until then {ring.name} may work", name, section, placed=False
            )
    if not watch.rx[0].get(reg.CTRL) & reg.CTRL.mask("PCIE_MASTER_DISABLE"):
        bench.note("set CTRL.PCIE_MASTER_DISABLE: no new requests to the bus", "CTRL", "5.2.5.3.2", placed=False)
    elif not any(
        (verb, at) == ("read", reg.STATUS.offset) and not value & reg.STATUS.mask("PCIE_MASTER_ENABLE")
        for verb, _, at, value in bench.log
    ):
        bench.note(
            "wait until STATUS.PCIE_MASTER_ENABLE is 0: requests may be on the bus", "STATUS", "5.2.5.3.2", placed=False
        )
    for memory in bench.bus.memories:
        memory.free()
    bench.ports[0].arriving.extend(frames(3))
    bench.work()
