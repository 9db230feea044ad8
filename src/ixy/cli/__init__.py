"""The command `ixy`.

A command is a file beside this one, and its name in `COMMANDS`. What it works with is imported when it runs, so that
`ixy --help` does not wait for NumPy and Numba.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ixy import streams
from ixy.apps import progress
from ixy.apps.signals import stop_on_signals
from ixy.cli import output
from ixy.cli.bench import bench
from ixy.cli.bind import bind
from ixy.cli.capture import capture
from ixy.cli.course import course
from ixy.cli.demo import demo
from ixy.cli.dump import dump
from ixy.cli.echo import echo
from ixy.cli.evaluate import evaluate
from ixy.cli.forward import forward
from ixy.cli.generate import generate
from ixy.cli.inside import info, ps, registers, stats
from ixy.cli.listing import list_devices
from ixy.cli.options import log_to_stderr, logging_options
from ixy.cli.replay import replay
from ixy.cli.rfc2544 import back_to_back, frame_loss, latency, throughput
from ixy.cli.setup import setup
from ixy.cli.sim import sim
from ixy.cli.test import test
from ixy.cli.unbind import unbind
from ixy.errors import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD_INPUT = 2  # exit code


def main() -> None:
    """The entry point: run the command that the arguments name, and exit."""
    streams.occupy()
    output.prepare()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command; its exit code. What is wrong is said in one line on standard error.

    Raises:
        SystemExit: a signal has ended it.
    """
    log_to_stderr()
    try:
        with stop_on_signals(), progress.shown(output.for_programs):
            return _dispatch(list(arguments))
    except click.UsageError as error:
        return _complain(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'ixy'} --help)")
    except (Error, click.ClickException) as error:
        return _complain(str(error), error)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror), error)


def _dispatch(arguments: list[str]) -> int:
    """Run a command. A group of commands without one of them prints its help."""
    try:
        return group.main(arguments, prog_name="ixy", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0


def _complain(message: str, error: BaseException | None = None) -> int:
    print("ixy:", " ".join(f"{message}{_blame(error)}".split()), file=sys.stderr)
    return BAD_INPUT


def _blame(error: BaseException | None) -> str:
    """What to do about a refusal that may be the sandbox's."""
    while error is not None and not isinstance(error, PermissionError):
        error = error.__cause__ or error.__context__
    if error is None or not (sandboxing := sys.modules.get("ixy.sandboxing")) or not sandboxing.active():
        return ""
    return " (the command had given its privileges up by then: --no-sandbox)"


def _print_version(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        click.echo(f"ixy {_version()}")
        context.exit()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ixy")
    except PackageNotFoundError:
        return "(run from its sources, not installed)"


@click.group()
@logging_options
@click.option("--version", is_flag=True, expose_value=False, callback=_print_version, help="Print the version.")
def group() -> None:
    """A user-space network driver for Intel 82599 cards, real and simulated, gigabit cards, VirtIO, Linux interfaces.

    A device is named by its PCI address, such as 0000:03:00.0 (`ixy list` shows them), is a VirtIO device of another
    process, vhost-user:/path/to/socket, or the other end of one, an interface of the kernel (`ip link` shows them), or
    a simulated card:

    \b
    vhost-server:/path/to/socket             the back end of a virtual machine's virtio-net, which connects there
    packet:eth0                              copies of what eth0 receives, by AF_PACKET
    packet:eth0,outgoing                     … and of what this machine sends there
    xdp:eth0                                 its packets themselves, by AF_XDP: the kernel gets none
    xdp:eth0,filter=udp port 4789            … but those that the filter leaves; also mode=driver|generic|zerocopy
    sim:a                                    nothing plugged in
    sim:a,card=x540                          an X540 instead of an 82599
    sim:a.vf0,vfs=2                          a virtual function of card a, which has two: also mac, vlan, spoof, trust
    sim:a,cable=b                            a cable to card b
    sim:a,cable=b,delay=50us,loss=0.01       … that impairs; also jitter, duplicate, reorder, corrupt, seed
    sim:a,cable=unix:/path/to/socket         a cable to a card of another process, or to a virtual machine
    sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap   packets from a file, packets into a file
    sim:a,rx_pcap=in.pcap,timing=original    … with the file's gaps between packets
    sim:a,tap=ixy0                           a TAP device of the kernel
    sim:a,gen=60,rate=1e6,count=1000         a generator; rate and count may be left out; what comes back
                                             is checked, addresses swapped or not
    sim:b,sink=a,touch=48                    a sink that checks a's packets, byte 48 raised
    sim:a,gen=60,wire=10G                    whatever is plugged in: frames take their time, at 10 Gbit/s
    sim:a,gen=60,wire=10G,clock=virtual      … by a virtual clock: a run can be repeated, to the nanosecond
    sim:a,ready=10,seed=7                    of the card: ready bits take 10 register reads; what its tables
                                             hold at first, and what a cable does, follows from the seed

    Exit codes: 0 all went well; 1 the job failed, or nobody reads its output any more; 2 bad input, or a device or
    file that cannot be used; what can be read of a damaged capture file is used before that. 130 and 143 it was stopped
    by Ctrl-C or SIGTERM, before the run began or before its limit. A run without limit ends by these, with 0.
    """


COMMANDS = [
    list_devices,
    info,
    stats,
    registers,
    ps,
    setup,
    bind,
    unbind,
    forward,
    echo,
    generate,
    capture,
    dump,
    replay,
    test,
    bench,
    evaluate,
    demo,
    sim,
    course,
]

for command in COMMANDS:
    group.add_command(command)

for command in (throughput, latency, frame_loss, back_to_back):
    test.add_command(command)
