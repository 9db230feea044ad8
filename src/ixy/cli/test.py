"""`ixy test`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ixy.apps.settings import MAX_SECONDS
from ixy.cli.generate import RateType
from ixy.cli.options import FILE, Seconds, Whole, logging_options, packet_options
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.rate import Rate
    from ixy.apps.settings import Settings
    from ixy.apps.streams import Stream

_MAX_FLOWS = 1 << 31
_MAX_VLAN = 4094


class DefaultGroup(click.Group):
    """A group of commands that takes what names none of them for the arguments of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [word for word in args if not word.startswith("-")]
        asks_for_help = bool({"--help"} & set(args)) and not words
        if args and not asks_for_help and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def stream_options(function: Any) -> Any:
    """What is sent, and how: options that trials have in common."""
    for option in (
        click.option("--both-ways", is_flag=True, help="From B to A too, with addresses and ports exchanged."),
        click.option("--routed", is_flag=True, help="Routers lie between: compare only what is behind the headers."),
        click.option(
            "--settle",
            type=Seconds(0, MAX_SECONDS),
            default=0.2,
            show_default=True,
            help="Seconds to learn addresses before a trial, and to wait for packets after it.",
        ),
        click.option("--flows", type=Whole(1, _MAX_FLOWS), help="So many flows in turn, by source address and port."),
        click.option("--vlan", type=Whole(0, _MAX_VLAN), help="Packets have the tag of this VLAN."),
        click.option("--ipv6", is_flag=True, help="Packets are IPv6."),
        click.option(
            "--streams",
            metavar="FILE",
            type=FILE,
            help="Send the streams that a YAML file describes, see ixy generate.",
        ),
    ):
        function = option(function)
    return function


def streams_of(
    size: str | None, streams: str | None, longest: int, *, ipv6: bool, vlan: int | None, flows: int | None
) -> list[Stream]:
    """The streams that options ask for, of frames up to so many bytes long.

    Raises:
        ConfigurationError: they exclude each other, or there can be no such packets.
    """
    from ixy.apps.trial import streams_of_file, usual_stream

    if streams is None:
        return [usual_stream(size, ipv6=ipv6, vlan=vlan, flows=flows, longest=longest)]
    if size or ipv6 or vlan is not None or flows is not None:
        raise ConfigurationError("--streams says all of its packets: leave out --size, --ipv6, --vlan and --flows")
    return streams_of_file(streams, longest)


@click.group(cls=DefaultGroup)
def test() -> None:
    """Measure what lies between devices A and B by test packets.

    They are sent from A, and judged as they arrive at B. `ixy test A B` is one trial, and `ixy test run --help` has its
    options; the other commands are the tests of RFC 2544.

    The last 18 bytes of each packet are its signature: stream, number, time, and sums by which every inverted bit is
    found. For each stream it is said how many packets were sent and received, lost, duplicated, reordered (RFC 4737,
    with their greatest extent) and corrupted, how long they took, and by how much that differed from packet to packet.

    \b
    Examples:
      sudo ixy test 0000:03:00.0 0000:03:00.1 --rate 1Mpps --seconds 60
      sudo ixy test throughput 0000:03:00.0 0000:03:00.1 --sizes 64,1518
      ixy test sim:a,cable=b,wire=10G,loss=0.001,seed=1,clock=virtual sim:b,clock=virtual --rate 1Mpps --count 20000
    """


@test.command()
@click.argument("a")
@click.argument("b")
@click.option("--size", help="Bytes of a frame, without its check sequence: 60, or 60,512 in turn, 60-1514, imix.")
@click.option("--rate", type=RateType(), help="1e6 (packets per second), 1.5Mpps, 2Gbps, 80%; else as many as can be.")
@click.option("--burst", type=Whole(1, 4096), default=1, help="Packets at once, and then a pause that keeps the rate.")
@click.option("--csv", metavar="FILE", type=FILE, help="Write a row a stream into a file, - for standard output.")
@click.option("--no-learning", is_flag=True, help="Begin at once: what lies between knows where packets are to go.")
@stream_options
@packet_options
@logging_options
def run(
    settings: Settings,
    a: str,
    b: str,
    size: str | None,
    rate: Rate | None,
    burst: int,
    csv: str | None,
    no_learning: bool,
    streams: str | None,
    ipv6: bool,
    vlan: int | None,
    flows: int | None,
    both_ways: bool,
    routed: bool,
    settle: float,
) -> int:
    """One trial from A to B.

    It ends by --seconds or --count, else after 10 seconds. UDP packets with checksums go, as small as can be; sizes are
    without frame check sequence, and 60 is the least, 64 in a VLAN, 80 with IPv6, and both 84; the longest 1514, with
    --mtu 9000 9014. Once a second a line
    says how many were sent, received and lost so far, and which latency 50 and 99 % did not exceed. Latencies are from
    the handing over of a packet to the device until a poll has found it. What is no test packet is counted as others.

    Before, the ports to which packets are to come announce their addresses, by ARP (IPv6: neighbour advertisements), so
    that a switch has learned them (RFC 2544, section 23). Who asks for the address of a packet's sender or receiver is
    answered all the time. With --routed each port is reached at its own Ethernet address, and routers get some packets
    first, so that they ask; write a router's own into --streams, as eth: {dst: its one at A, src: its one at B}, which
    is right for both ways.

    Exit code 1 says that packets were lost, duplicated or corrupted. Reordered ones alone are no failure: a device with
    several queues reorders those of different flows.

    The device under test may be another process that forwards between simulated cards: terminal 1 waits for terminal 2.

    \b
    Examples:
      sudo ixy test 0000:03:00.0 0000:03:00.1 --rate 80% --size imix --both-ways
      ixy test sim:a,cable=b,wire=10G,loss=0.001,seed=1,clock=virtual sim:b,clock=virtual --rate 1Mpps --count 20000
    \b
      ixy forward sim:a,cable=unix:/tmp/ixy-a sim:b,cable=unix:/tmp/ixy-b                       # terminal 1
      ixy test sim:c,cable=unix:/tmp/ixy-a sim:d,cable=unix:/tmp/ixy-b --rate 10kpps --ipv6     # terminal 2
    """
    if rate is None and burst > 1:
        raise ConfigurationError("--burst goes with a --rate")
    made = streams_of(size, streams, settings.longest_made, ipv6=ipv6, vlan=vlan, flows=flows)
    from ixy.apps.tester import Trial
    from ixy.apps.trial import run_trial

    seconds = 10.0 if settings.seconds is None and settings.count is None else settings.seconds
    trial = Trial(rate, seconds, settings.count, burst)
    return run_trial(
        (a, b),
        made,
        trial,
        settings,
        both_ways=both_ways,
        routed=routed,
        settle=settle,
        learning=not no_learning,
        table=csv,
    )
