"""The commands that look into a device: `ixy info`, `ixy stats`, `ixy registers`, and `ixy ps`."""

from __future__ import annotations

import click

from ixy.apps.settings import MAX_SECONDS
from ixy.cli.options import FILE, Seconds, Whole, json_option, logging_options
from ixy.errors import ConfigurationError

_MAX_PROCESS = 1 << 22  # proc(5): pid_max
_SHORTEST = 0.1  # seconds

process_option = click.option(
    "--pid", "process", type=Whole(1, _MAX_PROCESS), help="Of that process, if several have one of this name."
)


@click.command()
@click.argument("address", metavar="A")
@process_option
@json_option
@logging_options
def info(address: str, process: int | None, as_json: bool) -> None:
    """Say what device A is, and what it can do.

    That is its driver, link, queues, features, offloads, firmware, NUMA node and PCI Express link. Who has it open is
    asked by a socket, see `ixy ps`. If nobody has, or nobody who tells, the kernel is asked, and as root those
    registers are read whose reading changes nothing. The device is neither taken nor reset.

    \b
    Examples:
      ixy info 0000:03:00.0
      ixy info packet:eth0
      ixy info sim:a --json | jq .features
    """
    from ixy.apps.info import print_info

    print_info(address, process=process, as_json=as_json)


@click.command()
@click.argument("address", metavar="A")
@click.option("--watch", is_flag=True, help="Again each second, with rates, until Ctrl-C.")
@click.option("--interval", type=Seconds(_SHORTEST, MAX_SECONDS), help="Seconds between two looks; with --watch.")
@click.option("--all", "show_all", is_flag=True, help="Also counters that are 0.")
@click.option("--clear", is_flag=True, help="Let them begin at 0 again after this.")
@process_option
@json_option
@logging_options
def stats(
    address: str,
    watch: bool,
    interval: float | None,
    show_all: bool,
    clear: bool,
    process: int | None,
    as_json: bool,
) -> None:
    """Print the counters of device A.

    The card's have the datasheet's names (GPRC, QPRC[0]); beside them are the kernel's and the driver's. They count
    since the device was opened, or cleared; those of an interface of the kernel, since it came to be. There are 16 of
    each kind for queues, which queues 16 apart share. Who has the device open is asked by a socket, see `ixy ps`. With
    --clear, the next look begins at 0; the summary of the command that has it open does not. The counters of a card
    that nobody has open cannot be read without clearing them, so --clear must be said.

    \b
    Examples:
      ixy stats 0000:03:00.0
      ixy stats sim:a --watch
      ixy stats xdp:eth0 --all --json | jq .counters.rx_q0_packets
    """
    from ixy.apps.stats import print_stats

    if interval is not None and not watch:
        raise ConfigurationError("--interval: goes with --watch")
    every = (interval or 1.0) if watch else None
    print_stats(address, process=process, interval=every, show_all=show_all, clear=clear, as_json=as_json)


@click.command()
@click.argument("address", metavar="A")
@click.argument("names", nargs=-1, metavar="[REGISTER]...")
@click.option("--all", "show_all", is_flag=True, help="Of several alike also those that are as after a reset.")
@click.option("--clear", is_flag=True, help="Also those that reading clears: counters, and causes of interrupts.")
@click.option("--diff", type=Seconds(0, MAX_SECONDS), help="Look again after so many seconds, and show what changed.")
@click.option("--since", metavar="FILE", type=FILE, help="Show what changed since --json has written this file.")
@process_option
@json_option
@logging_options
def registers(
    address: str,
    names: tuple[str, ...],
    show_all: bool,
    clear: bool,
    diff: float | None,
    since: str | None,
    process: int | None,
    as_json: bool,
) -> None:
    """Print what the registers of a card hold, decoded.

    For an 82599, X540 or X550: offset, name, value, fields, section of the datasheet. REGISTER is a name such as CTRL,
    RXDCTL for those of all queues, or RXDCTL[3]; * stands for any characters. Who has the card open is asked by a
    socket, see `ixy ps`; else, as root, they are read through sysfs, which neither takes nor resets the card. Registers
    that change when they are read are left out, those of semaphores and time stamps always.

    \b
    Examples:
      ixy registers 0000:03:00.0
      ixy registers sim:a "RXDCTL[0]" "FDIR*"
      ixy registers sim:a --diff 1
      ixy registers sim:a --json > before.json; ixy registers sim:a --since before.json
    """
    from ixy.apps.registers import print_registers

    if diff is not None and since is not None:
        raise ConfigurationError("--diff looks twice, and --since once: leave out one of them")
    print_registers(
        address,
        names,
        process=process,
        show_all=show_all,
        clear=clear,
        diff=diff,
        since=since,
        as_json=as_json,
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a process.")
@logging_options
def ps(as_json: bool) -> None:
    """List the processes that have devices open, and these devices.

    For root it lists those of all users. Commands tell while they run, and programs by ixy.serve_telemetry(). What a
    process has left that was killed is removed. Clients of DPDK's telemetry read the same sockets.

    \b
    Examples:
      ixy ps
      ixy ps --json | jq ".[].devices"
      dpdk-telemetry.py -f ixy.4711
    """
    from ixy.apps.processes import print_processes

    print_processes(as_json=as_json)
