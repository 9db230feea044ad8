"""`ixy forward`: packets between two devices, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ixy.addresses import by_virtual_clock
from ixy.apps.crew import Crew
from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import chosen_by, confine, open_devices, patiently, repeat
from ixy.apps.signals import stop_on_signals
from ixy.drivers.rules import parse_rule
from ixy.errors import ConfigurationError
from ixy.path import PathCounts, kernel, touch, unchanged
from ixy.record import Record
from ixy.unsafe.filters import accepts_packet
from ixy.verdicts import DROP, FORWARD
from ixy.workers import choose_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ixy.apps.settings import Settings
    from ixy.apps.signals import Stop
    from ixy.device import Device
    from ixy.filters import Filter
    from ixy.packets.batch import Packet

    Ways = Sequence[tuple[Device, Device]]


class Chosen(Record):
    """Which packets are forwarded: those that a filter accepts. It is data, so one kernel does for all filters.

    Attributes:
        address: of the filter.
    """

    address: int


@kernel
def unchanged_if_chosen(packet: Packet, chosen: Chosen) -> int:
    return accepts_packet(chosen.address, packet)


@kernel
def touch_if_chosen(packet: Packet, chosen: Chosen) -> int:
    if not accepts_packet(chosen.address, packet):
        return DROP
    packet[48] += 1
    return FORWARD


def choosing(chosen: Filter) -> Callable[[], Chosen]:
    """What makes the record of a path that forwards what a filter accepts."""

    def record() -> Chosen:
        made = Chosen()
        made.address = chosen.address
        return made

    return record


def forward(
    addresses: tuple[str, str],
    settings: Settings,
    *,
    touched: bool,
    one_way: bool,
    wait: bool = False,
    queues: int | None = None,
    cores: Sequence[int] | None = None,
    rules: Sequence[str] = (),
    expression: str | None = None,
) -> int:
    """Forward between two devices until the limit or a signal; the exit code, 1 if a sink saw that a packet was lost or
    wrong.

    Args:
        touched: raise byte 48 of each packet by one, instead of leaving it as it is.
        one_way: from the first device to the second only.
        wait: sleep while no packets come.
        queues: how many pairs of queues each device has, with a worker for each; None for as many as there are cores,
            or without cores, for one pair that is run by this thread.
        cores: of the workers, see `ixy.Workers`.
        rules: for packets that devices receive, as text; see `ixy.drivers.rules.parse_rule`.
        expression: a filter in tcpdump's language, to forward only what it accepts.

    Raises:
        ConfigurationError: workers poll, and cannot wait.
        FilterError: the filter is malformed.
        Error: as `ixy.open`, `ixy.Path` and `ixy.Workers`.
    """
    chosen = chosen_by(expression)
    function, record = touch if touched else unchanged, None
    if chosen is not None:
        function, record = touch_if_chosen if touched else unchanged_if_chosen, choosing(chosen)
    told = _told if chosen is None else _told_of_filtered
    workers = queues or len(cores or ())
    if workers and wait:
        raise ConfigurationError("--wait: workers poll all the time; leave out --queues and --cores, or --wait")
    # What is refused, is refused before a device is opened.
    wanted = [parse_rule(text) for text in rules]
    _check_queues(wanted, workers or 1)
    if workers and any(map(by_virtual_clock, addresses)):
        raise ConfigurationError("clock=virtual: one thread does all; leave it out, or --queues and --cores")
    if workers:
        choose_cores(cores, workers)
    with stop_on_signals() as stop, open_devices(addresses, settings, queues=workers or 1) as (a, b):
        ways = [(a, b)] if one_way else [(a, b), (b, a)]
        for source, _ in ways:
            for rule in wanted:
                source.rules.add(**rule)
        report = Report([a, b], addresses, as_json=settings.as_json)
        if workers:
            _check_all_get_packets([source for source, _ in ways], workers)
            relays = [Relay(ways, function, settings.batch, queue=queue, record=record) for queue in range(workers)]
            _by_workers(ways, relays, cores, settings, stop, report, told)
        else:
            relay = Relay(ways, function, settings.batch, settings.count, record=record)
            _by_this_thread(relay, settings, stop, report, told, wait=wait)
    return stop.exit_code(settings) or int(not report.sinks_content)


def _check_queues(rules: Sequence[dict[str, Any]], queues: int) -> None:
    """
    Raises:
        ConfigurationError: a rule's queue is none of these.
    """
    highest = max((rule.get("queue", 0) for rule in rules), default=0)
    if highest >= queues:
        raise ConfigurationError(f"--rule: queue {highest}: 0 to {queues - 1} are there; --queues {highest + 1} has it")


def _check_all_get_packets(sources: Sequence[Device], workers: int) -> None:
    """
    Raises:
        ConfigurationError: to some queues of a device neither its spreading nor a rule leads.
    """
    for source in sources:
        spread = set(source.rss.table) if source.rss else set(range(workers))
        if len(spread | {rule.queue for rule in source.rules if rule.queue is not None}) < workers:
            raise ConfigurationError(
                f"{source.address}: --queues {workers}: it spreads packets over {len(spread)} at most; to the others a"
                " --rule must lead"
            )


def _told(counts: PathCounts) -> dict[str, int]:
    """What became of packets, for a report."""
    return counts._asdict()


def _told_of_filtered(counts: PathCounts) -> dict[str, int]:
    """The same where a filter drops packets, and nobody else does."""
    return counts._replace(dropped=0)._asdict() | {"filtered": counts.dropped}


def _by_this_thread(
    relay: Relay,
    settings: Settings,
    stop: Stop,
    report: Report,
    told: Callable[[PathCounts], dict[str, int]],
    *,
    wait: bool,
) -> None:
    work = patiently(relay.run, relay.sources) if wait else relay.run
    with report:
        repeat(work, relay.done, settings, stop, report)
        relay.drain()
        report.results = {**told(relay.counts())}


def _by_workers(
    ways: Ways,
    relays: Sequence[Relay],
    cores: Sequence[int] | None,
    settings: Settings,
    stop: Stop,
    report: Report,
    told: Callable[[PathCounts], dict[str, int]],
) -> None:
    crew = Crew(relays, cores, settings.count)
    _announce(crew, [source for source, _ in ways], report)
    report.confined(confine(settings, report.addresses))  # before workers begin
    with report:
        with crew:
            repeat(crew.watch, crew.done, settings, stop, report)
        crew.drain()
        report.workers = crew.results()
        report.results = {**told(crew.total())}


def _announce(crew: Crew, sources: Sequence[Device], report: Report) -> None:
    """Say which worker carries what, and how packets come to the queues."""
    plan, spread = crew.plan(), {source.address: source.spread for source in sources}
    rules = {source.address: [str(rule) for rule in source.rules] for source in sources}
    lines = [f"{address}: {how}" for address, how in spread.items()]
    lines += [f"{address}: {rule}" for address, own in rules.items() for rule in own]
    for worker in plan:
        ways = ", ".join(f"{path['from']} → {path['to']}" for path in worker["paths"])
        lines.append(f"worker {worker['worker']} on core {worker['core']}: {ways}")
    report.say(lines, {"type": "workers", "workers": plan, "spread": spread, "rules": rules})
