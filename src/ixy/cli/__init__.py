"""The command `ixy`.

A command's module is imported when the command runs, so that `ixy --help` does not wait for NumPy and Numba.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ixy import streams
from ixy.apps.settings import MAX_COUNT, MAX_RATE, MAX_SNAPLEN, Settings
from ixy.apps.signals import stop_on_signals
from ixy.cli import output
from ixy.cli.bench import bench
from ixy.cli.options import Whole, batch_option, json_option, log_to_stderr, logging_options, packet_options
from ixy.cli.sim import sim
from ixy.errors import Error
from ixy.formats.frames import MAX_FRAME, MIN_FRAME
from ixy.packets.hugepages import MAX_PAGES

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
        with stop_on_signals():
            return _dispatch(list(arguments))
    except click.UsageError as error:
        return _complain(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'ixy'} --help)")
    except (Error, click.ClickException) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


def _dispatch(arguments: list[str]) -> int:
    """Run a command. A group of commands without one of them prints its help."""
    try:
        return group.main(arguments, prog_name="ixy", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0


def _complain(message: str) -> int:
    print("ixy:", " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


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
    """A user-space network driver for Intel 82599 cards, real and simulated, and for VirtIO.

    A device is named by its PCI address, such as 0000:03:00.0 (`ixy list` shows them), is a VirtIO device of another
    process, vhost-user:/path/to/socket, or a simulated card:

    \b
    sim:a                                    nothing plugged in
    sim:a,cable=b                            a cable to card b
    sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap   packets from a file, packets into a file
    sim:a,rx_pcap=in.pcap,timing=original    … with the file's gaps between packets
    sim:a,tap=ixy0                           a TAP device of the kernel
    sim:a,gen=60,rate=1e6,count=1000         a generator; rate and count may be left out; what comes back
                                             is checked, addresses swapped or not
    sim:b,sink=a,touch=48                    a sink that checks a's packets, byte 48 raised

    Exit codes: 0 all went well; 1 the job failed, or nobody reads its output any more; 2 bad input, or a device or
    file that cannot be used; 130 and 143 it was stopped by Ctrl-C or SIGTERM, before the run began or before its
    limit. A run without limit ends by these, with 0.
    """


# ---------------------------------------------------------------------------------------------------------------------
# The machine's cards


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@logging_options
def list_devices(as_json: bool) -> None:
    """List the network cards, and say which can be used or why not.

    \b
    Examples:
      ixy list
      ixy list --json | jq -r '.[] | select(.usable).address'
    """
    from ixy.apps.listing import print_devices

    print_devices(as_json=as_json)


@click.command()
@click.option("--pages", type=Whole(1, MAX_PAGES), default=64, show_default=True, help="Huge pages of 2 MiB.")
@logging_options
def setup(pages: int) -> None:
    """Reserve huge pages and mount hugetlbfs, and say what was done. What is there already is kept.

    A device takes about 6 pages. The reservation lasts until the next boot.

    \b
    Examples:
      sudo ixy setup
      sudo ixy setup --pages 512
    """
    from ixy.packets.hugepages import setup

    for line in setup(pages):
        click.echo(line)


@click.command()
@click.argument("address")
@click.option("--driver", default="vfio-pci", show_default=True, help="The kernel driver that gets the card.")
@click.option("--user", metavar="NAME", help="Let this user open the card from now on, without root.")
@click.option("--force", is_flag=True, help="Even if the card's interface is up with an address or carries a route.")
@logging_options
def bind(address: str, driver: str, user: str | None, force: bool) -> None:
    """Take a card from its kernel driver and bind it to another, vfio-pci unless told otherwise.

    Bound to vfio-pci, a card is kept within the process's memory by the IOMMU, and with --user needs no root. A card
    that another driver has is taken from it when it is opened, and reached without IOMMU. `ixy unbind` gives it back.

    \b
    Examples:
      sudo ixy bind 0000:03:00.0
      sudo ixy bind 0000:03:00.0 --driver uio_pci_generic
      sudo ixy bind 0000:03:00.0 --user "$USER"
    """
    from ixy.bus.binding import bind

    bind(address, driver, user, force=force)
    click.echo(f"{address}: bound to {driver}" + (f", for {user} to use" if user else ""))


@click.command()
@click.argument("address")
@click.option("--force", is_flag=True, help="Even if the card's interface is up with an address or carries a route.")
@logging_options
def unbind(address: str, force: bool) -> None:
    """Undo `ixy bind`: give a card back to the kernel driver that knows it.

    \b
    Example:
      sudo ixy unbind 0000:03:00.0
    """
    from ixy.bus.binding import unbind

    driver = unbind(address, force=force)
    click.echo(f"{address}: given back to {driver}" if driver else f"{address}: free; the kernel has no driver for it")


# ---------------------------------------------------------------------------------------------------------------------
# Packets

_SIZES = Whole(MIN_FRAME, MAX_FRAME)


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--touch", "touched", is_flag=True, help="Raise byte 48 of each packet by one.")
@click.option("--one-way", is_flag=True, help="From A to B only.")
@packet_options
@logging_options
def forward(settings: Settings, a: str, b: str, touched: bool, one_way: bool) -> int:
    """Forward packets between devices A and B, both ways, unchanged.

    Runs until Ctrl-C or a limit. Once a second a line per device says what goes in and out.

    \b
    Examples:
      sudo ixy forward 0000:03:00.0 0000:03:00.1
      sudo ixy forward sim:a,tap=ixy0 sim:b,tap=ixy1
      ixy forward sim:a,gen=60 sim:b,sink=a,touch=48 --touch --seconds 5
      ixy forward --one-way sim:a,rx_pcap=in.pcap sim:b,tx_pcap=out.pcap --count 1000
    """
    from ixy.apps.forward import forward

    return forward((a, b), settings, touched=touched, one_way=one_way)


@click.command()
@click.argument("address", metavar="A")
@packet_options
@logging_options
def echo(settings: Settings, address: str) -> int:
    """Send each packet that device A receives back to its sender: its MAC addresses are swapped.

    Runs until Ctrl-C or a limit.

    \b
    Examples:
      sudo ixy echo 0000:03:00.0
      ixy echo sim:a,gen=60 --seconds 5
      ixy echo sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap --count 1000
    """
    from ixy.apps.echo import echo

    return echo(address, settings)


@click.command()
@click.argument("address", metavar="A")
@click.option("--size", type=_SIZES, help="Bytes of a packet, without its checksum; 60 by default.")
@click.option("--rate", type=Whole(1, MAX_RATE), help="Packets per second, else as many as the device takes.")
@click.option("--template", metavar="FILE", help="Send the packets of a pcap file, in turn, over and over.")
@click.option("--scapy", metavar="EXPRESSION", help="Send the packets that a Scapy expression stands for, likewise.")
@click.option("--no-sequence", is_flag=True, help="Do not write a sequence number into the last 4 bytes.")
@packet_options
@logging_options
def generate(
    settings: Settings,
    address: str,
    size: int | None,
    rate: int | None,
    template: str | None,
    scapy: str | None,
    no_sequence: bool,
) -> int:
    """Send packets from device A: UDP packets, or those of a file or of a Scapy expression.

    The last 4 bytes of each packet are its number, from 0, the highest byte first. What the device receives meanwhile
    is counted and thrown away. Packets longer than a buffer (2048 bytes) are left out and counted.

    Runs until Ctrl-C or a limit.

    \b
    Examples:
      sudo ixy generate 0000:03:00.0 --rate 1e6 --seconds 10
      ixy generate sim:a,tx_pcap=out.pcap --size 128 --count 1000
      ixy generate sim:a,cable=b --template in.pcap --no-sequence
      ixy generate sim:a,cable=b --scapy 'Ether()/IP(dst="10.0.0.0/30")/UDP()/("x" * 18)'
    """
    from ixy.apps.generate import generate
    from ixy.apps.templates import templates_from

    templates = templates_from(size, template, scapy)
    return generate(address, templates, settings, rate=rate or 0, numbered=not no_sequence)


@click.command()
@click.argument("address", metavar="A")
@click.argument("file", metavar="FILE")
@click.option(
    "--snaplen", type=Whole(1, MAX_SNAPLEN), default=65535, show_default=True, help="Bytes of a packet that are kept."
)
@packet_options
@logging_options
def capture(settings: Settings, address: str, file: str, snaplen: int) -> int:
    """Write what device A receives to a pcap FILE, with time stamps in nanoseconds. FILE may be - for standard output.

    Runs until Ctrl-C or a limit. What was written stays readable, whatever happens.

    \b
    Examples:
      sudo ixy capture 0000:03:00.0 out.pcap --count 1000
      sudo ixy capture 0000:03:00.0 - | tcpdump -n -r -
      ixy capture sim:a,gen=60,rate=1000 out.pcap --seconds 2
    """
    from ixy.apps.capture import capture

    return capture(address, file, settings, snaplen=snaplen)


@click.command()
@click.option("--count", type=Whole(1, MAX_COUNT), default=10_000_000, help="Packets to send; 10 million by default.")
@click.option("--size", type=_SIZES, default=60, show_default=True, help="Bytes of a packet, without its checksum.")
@batch_option
@json_option
@logging_options
def demo(count: int, size: int, batch: int, as_json: bool) -> int:
    """Show ixy at work, without a network card.

    A generator is plugged into one simulated card, a sink into another; the forwarder between them raises byte 48 of
    every packet by one. Succeeds if packets flowed and all that arrived were complete, in order and changed just so.

    \b
    Examples:
      ixy demo
      ixy demo --count 1e6 --size 1514
    """
    from ixy.apps.demo import demo

    return demo(Settings(count=count, batch=batch, as_json=as_json), count=count, size=size)


COMMANDS = [list_devices, setup, bind, unbind, forward, echo, generate, capture, bench, demo, sim]

for command in COMMANDS:
    group.add_command(command)
