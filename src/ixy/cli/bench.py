"""`ixy bench`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ixy.arguments import whole_number
from ixy.cli.options import Cores, ParamType, Seconds, Whole, logging_options

# What measures is imported when it is needed, so that `--help` answers at once.
if TYPE_CHECKING:
    from ixy.bench.lockstep import Cost
    from ixy.bench.rates import Rate
    from ixy.bench.start import Start

T = TypeVar("T", bound="Cost | Rate | Start")
F = TypeVar("F", bound=Callable[..., Any])


class Batches(ParamType):
    """Batch sizes, separated by commas, such as 1,8,32."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:  # noqa: ARG002
        from ixy.bench.lockstep import MAX_BATCH

        if not isinstance(value, str):
            return value
        return [whole_number("--batch", size, 1, MAX_BATCH) for size in value.split(",")]


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options for one command."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
_repeat_option = click.option(
    "--repeat", type=Whole(1, 100), default=5, show_default=True, help="How often to measure each figure."
)
_seconds_option = click.option(
    "--seconds", type=Seconds(0.001, 3600), default=1.0, show_default=True, help="Length of a window."
)


@click.group()
def bench() -> None:
    """Measure drivers and tools, beside C and other programs.

    What a packet costs is found in lock step: driver and a simulated card take turns on one core. Close other
    programs: figures suffer from whatever else runs.

    \b
    Examples:
      ixy bench forward --batch 32
      sudo ixy bench xdp
    """


@bench.command()
@click.option(
    "--batch", "batches", type=Batches(), default="1,8,32,64,256", show_default=True, help="Batch sizes to measure."
)
@click.option("--rounds", type=Whole(1, 10**7), help="Batches in one measurement.  [default: 262144 packets' worth]")
@click.option(
    "--metadata", metavar="NAMES", default="", help="Measure besides what it costs to be told of flags,hash,vlan,time."
)
@click.option("--offloads", metavar="NAMES", default="", help="Measure besides what it costs to ask for checksum,vlan.")
@_options(_repeat_option, _json_option)
@logging_options
def forward(batches: list[int], rounds: int | None, metadata: str, offloads: str, repeat: int, as_json: bool) -> None:
    """Cycles per packet to forward it, beside the same algorithm in C.

    It is received, one byte is changed, it is transmitted, and its buffer comes back. Driver and model take turns on
    one core, and only the driver's turns are timed. With a C compiler, ixy's algorithm in plain C is measured in turns
    with the driver, on the same model: with the layout of this driver (packet buffers 2112 bytes apart, one status
    report in 32), and as published (2048 bytes, a report for each packet).

    \b
    Examples:
      ixy bench forward
      ixy bench forward --batch 32,64 --repeat 11 --json
      ixy bench forward --metadata flags,hash,vlan
      ixy bench forward --batch 32 --offloads checksum,vlan
    """
    from ixy.bench import lockstep
    from ixy.bench.report import costs_table

    told, asked = ([name for name in names.split(",") if name] for names in (metadata, offloads))
    with lockstep.lanes(told, asked) as (lanes, missing):
        if missing:
            click.echo(missing, err=True)
        costs = (lockstep.measure(lanes, batch, rounds, repeat) for batch in batches)
        _report(costs, [f"{batch} packets a batch" for batch in batches], as_json, costs_table)


@bench.command()
@click.option("--batch", type=Whole(1, 512), default=32, show_default=True, help="Packets taken at a time.")
@_options(_seconds_option, _repeat_option, _json_option)
@logging_options
def rate(batch: int, seconds: float, repeat: int, as_json: bool) -> None:
    """Packets per second, compiled; the model is on another core.

    \b
    Examples:
      ixy bench rate
      ixy bench rate --batch 256 --json
    """
    _rates(["compiled"], batch, seconds, repeat, as_json)


@bench.command()
@click.option("--batch", type=Whole(1, 512), default=64, show_default=True, help="Packets taken at a time.")
@_options(_seconds_option, _repeat_option, _json_option)
@logging_options
def python(batch: int, seconds: float, repeat: int, as_json: bool) -> None:
    """Packets per second of ordinary Python.

    By NumPy over a batch, and packet by packet.

    \b
    Examples:
      ixy bench python
      ixy bench python --batch 256 --json
    """
    _rates(["numpy", "packets"], batch, seconds, repeat, as_json)


@bench.command()
@click.option("--peer", type=click.Choice(["dpdk"]), help="Compare with DPDK's, against DPDK's other end.")
@click.option(
    "--end",
    type=click.Choice(["front", "back"]),
    default="front",
    show_default=True,
    help="Of vhost-user: the driver, or the back end, vhost-server.",
)
@click.option(
    "--ring",
    type=click.Choice(["split", "packed", "both"]),
    default="both",
    show_default=True,
    help="Kinds of rings to measure.",
)
@_options(_repeat_option, _json_option, logging_options)
def virtio(peer: str | None, end: str, ring: str, repeat: int, as_json: bool) -> None:
    """Cycles per packet on VirtIO, or rates beside DPDK's.

    They are those of the VirtIO driver, in lock step with a model; with --peer, its rates beside DPDK's driver. With
    --end back, those of the back end, in lock step with our driver. The comparison takes turns, and starts each process
    anew for each measurement.

    \b
    Examples:
      ixy bench virtio
      ixy bench virtio --peer dpdk --json
      ixy bench virtio --end back
      ixy bench virtio --end back --peer dpdk --repeat 5
    """
    from ixy.bench.virtio import lock_step_lines, peer_lines

    rings = ("split", "packed") if ring == "both" else (ring,)
    for line in peer_lines(rings, repeat, as_json, end) if peer else lock_step_lines(rings, repeat, as_json, end):
        click.echo(line)


@bench.command()
@click.option(
    "--batch", "batches", type=Batches(), default="1,8,32,64,256", show_default=True, help="Batch sizes to measure."
)
@_options(_repeat_option, _json_option, logging_options)
def e1000(batches: list[int], repeat: int, as_json: bool) -> None:
    """Cycles per packet on gigabit cards, beside an 82599.

    They are those of the driver of the 82574 and of the 82540, in lock step with a partner in the same process, in
    turns with the driver of the 82599.

    \b
    Examples:
      ixy bench e1000
      ixy bench e1000 --batch 32 --repeat 9 --json
    """
    from ixy.bench.e1000 import lines, measure

    results = measure(batches, repeat)
    for line in map(json.dumps, results) if as_json else lines(results):
        click.echo(line)


@bench.command()
@click.option("--batch", type=Whole(1, 256), default=32, show_default=True, help="Packets taken at a time.")
@click.option("--rounds", type=Whole(1, 10**7), help="Batches in one measurement.  [default: 262144 packets' worth]")
@_options(_repeat_option, _json_option, logging_options)
def kernels(batch: int, rounds: int | None, repeat: int, as_json: bool) -> None:
    """Cycles per packet of functions that do real work.

    And how many more those are than of plain forwarding. In lock step with the model, as `ixy bench forward`, in turns.

    \b
    Examples:
      ixy bench kernels
      ixy bench kernels --batch 256 --repeat 9 --json
    """
    from ixy.bench.kernels import lines, measure

    results = measure(batch, rounds, repeat)
    for line in map(json.dumps, results) if as_json else lines(results):
        click.echo(line)


@bench.command()
@click.option("--batch", type=Whole(1, 256), default=32, show_default=True, help="Packets taken at a time.")
@click.option("--cores", type=Cores(), help="Two cores, by default the first.")
@click.option("--rounds", type=Whole(1, 10**7), help="Batches in one measurement.  [default: 262144 packets' worth]")
@_options(_repeat_option, _json_option, logging_options)
def cores(batch: int, cores: list[int] | None, rounds: int | None, repeat: int, as_json: bool) -> None:
    """Cycles per packet to hand it to another core, and of two at once.

    It is handed to another worker through a ring; and two queues are forwarded on two cores. In lock step with the
    model, as `ixy bench forward`. What more queues would do is computed from the cost of two.

    \b
    Examples:
      ixy bench cores
      ixy bench cores --batch 64 --cores 2,3 --json
    """
    from ixy.bench.cores import lines, measure

    results = measure(batch, cores, rounds, repeat)
    for line in map(json.dumps, results) if as_json else lines(results):
        click.echo(line)


@bench.command()
@click.option("--rate", type=Whole(1, 10**7), default=1000, show_default=True, help="Frames a second.")
@_options(_seconds_option, _json_option, logging_options)
def latency(rate: int, seconds: float, as_json: bool) -> None:
    """Latency from wire to wire, polling and waiting.

    How many frames took how long. Time is cut into slices of a millisecond; calm are those in which neither thread
    stood still, since the system or another program had its core.

    \b
    Examples:
      ixy bench latency
      ixy bench latency --rate 100000 --seconds 5 --json
    """
    from ixy.bench.latency import measure
    from ixy.bench.report import latency_table

    found = {
        what: measure(32, rate, max(int(rate * seconds), 10), waits=what == "waits") for what in ("polls", "waits")
    }
    if not as_json:
        from rich.console import Console

        Console().print(latency_table(found))
        return
    for what, passage in found.items():
        result = {"path": what, "rate": rate, "lost": passage.lost, "us": passage.percentiles()}
        calm = passage.only_calm()
        result |= {"calm_us": calm and calm.percentiles(), "calm_share": round(passage.calm_share, 4)}
        click.echo(json.dumps(result | {"histogram": passage.histogram()}))


@bench.command()
@click.argument("sections", nargs=-1)
@_options(_repeat_option, _json_option, logging_options)
def traffic(sections: tuple[str, ...], repeat: int, as_json: bool) -> None:
    """What the tools for traffic cost a packet.

    All of them, or those SECTIONS that are named:

    \b
    filter    a filter in tcpdump's language, on mixed traffic in random order, and where all packets miss;
              seconds until a new one is ready
    record    captures in lock step, 64-byte frames into files in memory and out of them; gigabytes a second into arrays
              of packets, and into columns of their headers' fields
    generate  packets of one stream, of four with random fields, of flows, at a rate, in lock step
    judge     test packets that are received and judged, with latency, in lock step
    beside    as root, on a veth pair: packets per second on two cores, of captures beside tcpdump, Scapy and a socket,
              of what replays and generates beside tcpreplay, Scapy and a socket; what is not installed is named

    \b
    Examples:
      ixy bench traffic
      ixy bench traffic filter --repeat 9 --json
      sudo ixy bench traffic beside
    """
    from ixy.bench.traffic import SECTIONS

    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise click.UsageError(f"no section {unknown[0]!r}: there is {', '.join(SECTIONS)}")
    for name in sections or SECTIONS:
        results = SECTIONS[name].measure(repeat)
        for line in (
            (json.dumps({"section": name} | result) for result in results)
            if as_json
            else (SECTIONS[name].lines(results))
        ):
            click.echo(line)


@bench.command()
@click.argument("works", nargs=-1)
@click.option("--batch", "batches", type=Batches(), default="32,64", show_default=True, help="Batch sizes to measure.")
@_options(_seconds_option, _repeat_option, _json_option, logging_options)
def xdp(works: tuple[str, ...], batches: list[int], seconds: float, repeat: int, as_json: bool) -> None:
    """Interfaces of the kernel, by xdp: and packet:, beside others.

    What the driver of AF_XDP costs, and how fast both are: all WORKS, or receive, transmit, forward. As root, on a veth
    pair in a network namespace of its own. The program under test has one core, the other end of the pair another one.
    Beside DPDK's net_af_xdp and net_af_packet, tcpreplay, an AF_PACKET socket in Python, and Scapy; what is not
    installed is named. All are started --repeat times in turns, and measured for --seconds. Starts fall into a fast and
    a slow group, so they are compared within each. What counts are slices of time in which no program had to wait for
    its core.

    \b
    Examples:
      sudo ixy bench xdp
      sudo ixy bench xdp transmit --batch 64 --repeat 9 --json
    """
    from ixy.bench.contest import Task
    from ixy.bench.xdp import WORKS, lines, measure

    unknown = [name for name in works if name not in WORKS]
    if unknown:
        raise click.UsageError(f"no work {unknown[0]!r}: there is {', '.join(WORKS)}")
    task = Task("drivers", repeat, works or tuple(WORKS), tuple(batches), seconds)
    results = measure(task)
    for line in map(json.dumps, results) if as_json else lines(results):
        click.echo(line)


@bench.command()
@_options(_repeat_option, _json_option, logging_options)
def start(repeat: int, as_json: bool) -> None:
    """Seconds until packets flow: the first start, and later ones.

    The first one compiles. Each start is a process of its own: the demo; a forwarder between two 82599 cards, and one
    between VirtIO devices, both without the simulated cards' own code. The last columns are what one more path costs,
    in processor seconds, with a function that is new, and with one that is known. With --json also the processor
    seconds of each kernel.

    \b
    Examples:
      ixy bench start
      ixy bench start --json
    """
    from ixy.bench.report import starts_table
    from ixy.bench.start import PROGRAMS, measure

    _report((measure(what, repeat) for what in PROGRAMS), list(PROGRAMS), as_json, starts_table)


def _rates(kinds: list[str], batch: int, seconds: float, repeat: int, as_json: bool) -> None:
    from ixy.bench import rates
    from ixy.bench.report import rates_table

    measured = (rates.measure(kind, batch, seconds, repeat) for kind in kinds)
    _report(measured, kinds, as_json, rates_table)


def _report(results: Iterable[T], names: list[str], as_json: bool, table: Callable[[list[T]], Any]) -> None:
    """Print results as they come for programs, all in one table for people; on a terminal, say what is going on."""
    from rich.console import Console

    done: list[T] = []
    with Console(stderr=True).status("") as status:
        remaining = iter(results)
        for name in names:
            status.update(f"measuring: {name}")
            done.append(next(remaining))
            if as_json:
                click.echo(json.dumps(done[-1].as_json()))
    if not as_json:
        Console().print(table(done))
