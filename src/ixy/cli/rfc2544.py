"""`ixy test throughput`, `ixy test latency`, `ixy test frame-loss`, `ixy test back-to-back`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ixy.apps.settings import MAX_SECONDS
from ixy.arguments import whole_number
from ixy.cli.generate import RateType
from ixy.cli.options import ParamType, Percent, Seconds, Whole, device_options, logging_options
from ixy.cli.test import stream_options
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.rate import Rate
    from ixy.apps.rfc2544.run import Conditions, Test
    from ixy.apps.settings import Settings
    from ixy.apps.streams import Stream

Made = Callable[["Test"], int]  # makes a test and reports; the exit code

_MAX_SIZE = 1 << 16
_HUNDRED = 100


class Numbers(ParamType):
    """Whole numbers with commas between them, none of them twice."""

    name = "N,N…"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:  # noqa: ARG002
        if not isinstance(value, str):
            return value
        name = max(param.opts, key=len) if param else "the value"
        found = [whole_number(name, text.strip(), self._low, self._high) for text in value.split(",")]
        if again := [number for at, number in enumerate(found) if number in found[:at]]:
            raise ConfigurationError(f"{name} {value}: {again[0]} is there twice")
        return found


_OPTIONS = (  # of all tests, the last one first
    logging_options,
    device_options,
    stream_options,
    click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write a report there: HTML, Markdown, and a directory with CSV, SVG and PNG files.",
    ),
    click.option(
        "--resolution",
        type=Percent(1e-6, 10),
        default=0.1,
        show_default=True,
        help="In %: how much too low a result may be, and how much less than asked for may be offered.",
    ),
    click.option(
        "--seconds",
        type=Seconds(0.001, MAX_SECONDS),
        default=2.0,
        show_default=True,
        help="Of a trial; the RFC has 60.",
    ),
    click.option(
        "--sizes",
        type=Numbers(1, _MAX_SIZE),
        help="Bytes of frames with their check sequence, as RFC 2544 counts: 64 here is 60 elsewhere.  "
        "[64,128,256,512,1024,1280,1518]",
    ),
    click.argument("b"),
    click.argument("a"),
)


def _made(function: Callable[..., int]) -> Callable[..., int]:
    """The arguments and options that all tests have. A command gets what makes a test under the conditions that they
    say, and the resolution, as a share."""

    @wraps(function)
    def command(settings: Settings, a: str, b: str, resolution: float, output: Path | None, **options: Any) -> int:
        conditions = _conditions(settings, options)
        packets = _packets(options)

        def make(test: Test) -> int:
            from ixy.apps.rfc2544.run import run

            return run(test, packets, (a, b), settings, conditions, output)

        return function(make=make, resolution=resolution / _HUNDRED, **options)

    decorated: Callable[..., int] = command
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


def _conditions(settings: Settings, options: dict[str, Any]) -> Conditions:
    """Under which trials are made; takes the options that say so."""
    from ixy.apps.rfc2544.run import Conditions

    assert settings.seconds is not None
    return Conditions(settings.seconds, **{name: options.pop(name) for name in ("settle", "both_ways", "routed")})


def _packets(options: dict[str, Any]) -> dict[str, list[Stream]]:
    """What is sent; takes the options that say so.

    Raises:
        ConfigurationError: they exclude each other, or there can be no such packets.
    """
    from ixy.apps.rfc2544 import kinds

    path = options.pop("streams")
    given = {name: options.pop(name) for name in ("sizes", "ipv6", "vlan", "flows")}
    if not path:
        return kinds.frames(**given)
    if not all(value is None or value is False for value in given.values()):
        raise ConfigurationError("--streams says all of its packets: leave out --sizes, --ipv6, --vlan, --flows")
    return kinds.of_file(path)


_tolerance_option = click.option(
    "--tolerance",
    type=Percent(0, 100),
    default=0.0,
    show_default=True,
    help="In %: how many packets may be lost at the throughput; none by the RFC.",
)


@click.command()
@_tolerance_option
@_made
def throughput(make: Made, resolution: float, tolerance: float) -> int:
    """The highest rate at which nothing is lost between A and B.

    For each size of frames, by RFC 2544, section 26.1. The search begins at the rate of the line, or with as much as
    can be sent if it has none, and halves what lies between a rate without loss and one with loss. What could not be
    offered, as this side is too slow, is told apart from what was lost. A frame with a wrong bit is lost. Trials are of
    2 seconds, where the RFC has 60.

    Sizes are those of the RFC, with the 4 bytes of the frame check sequence that other commands count without. IPv6
    needs 84 bytes, a VLAN 68, both 88: the least of the usual sizes is raised to that.

    On a terminal a bar shows what is tried; elsewhere, or with -v, a line says what came of each trial. Ctrl-C ends the
    search, and what has been measured is reported. Exit code 1 says that there was loss at any rate with one of the
    sizes.

    \b
    Examples:
      sudo ixy test throughput 0000:03:00.0 0000:03:00.1 --seconds 60 --output report
      sudo ixy test throughput 0000:03:00.0 0000:03:00.1 --sizes 64,1518 --both-ways --routed
      ixy test throughput sim:a,cable=b,wire=10G,clock=virtual sim:b,clock=virtual --seconds 0.01
    """
    from ixy.apps.rfc2544.throughput import Throughput

    return make(Throughput(resolution, tolerance / _HUNDRED))


@click.command()
@click.option(
    "--loads",
    type=Numbers(1, _HUNDRED),
    default="100,90,50",
    show_default=True,
    help="In % of the throughput, or of --rate.",
)
@click.option("--rate", type=RateType(), help="Measure at this rate, and look for no throughput.")
@_tolerance_option
@_made
def latency(make: Made, resolution: float, tolerance: float, rate: Rate | None, loads: list[int]) -> int:
    """How long packets take from A to B.

    They do so at the throughput, and at shares of it (RFC 2544, section 26.2). The throughput is looked for first, as
    by ixy test throughput. The latency is that of all packets, from the handing over to the device until a poll has
    found it; the RFC has that of one, in each of 20 trials. Exit code 1 says that there was no throughput with one of
    the sizes.

    \b
    Examples:
      sudo ixy test latency 0000:03:00.0 0000:03:00.1 --loads 100,90,50,10 --output report
      sudo ixy test latency 0000:03:00.0 0000:03:00.1 --rate 1Mpps --loads 100 --sizes 64,512
    """
    from ixy.apps.rfc2544.latency import Latency
    from ixy.apps.rfc2544.throughput import Throughput

    return make(Latency(Throughput(resolution, tolerance / _HUNDRED), rate, loads))


@click.command()
@click.option(
    "--step", type=Whole(1, 10), default=10, show_default=True, help="From one load to the next, in % of the line."
)
@_made
def frame_loss(make: Made, resolution: float, step: int) -> int:
    """What is lost from A to B at which load.

    Loads are 100 % of the line, 90 %, and so on (RFC 2544, section 26.3). It ends when two trials in a row lose
    nothing. Where the line has no rate, 100 % is as much as can be sent. A load that could not be offered has no
    figure.

    \b
    Examples:
      sudo ixy test frame-loss 0000:03:00.0 0000:03:00.1 --step 5 --output report
      ixy test frame-loss sim:a,cable=b,wire=10G,loss=0.01,clock=virtual sim:b,clock=virtual --seconds 0.01
    """
    from ixy.apps.rfc2544.frame_loss import FrameLoss

    return make(FrameLoss(resolution, step))


@click.command()
@click.option("--repeat", type=Whole(1, 1000), default=3, show_default=True, help="Searches; the RFC has 50.")
@_made
def back_to_back(make: Made, resolution: float, repeat: int) -> int:
    """The longest burst from A to B of which nothing is lost.

    By RFC 2544, section 26.4. Packets follow each other as closely as can be, at most for --seconds, which by the RFC
    are 2 at least. Exit code 1 says that of one of the sizes not even one packet arrives.

    \b
    Examples:
      sudo ixy test back-to-back 0000:03:00.0 0000:03:00.1 --repeat 50 --output report
      sudo ixy test back-to-back 0000:03:00.0 0000:03:00.1 --sizes 128 --ipv6 --vlan 5
    """
    from ixy.apps.rfc2544.back_to_back import BackToBack

    return make(BackToBack(resolution, repeat))
