"""`ixy echo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ixy.cli.options import logging_options, packet_options, wait_option

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


@click.command()
@click.argument("address", metavar="A")
@wait_option
@packet_options
@logging_options
def echo(settings: Settings, address: str, wait: bool) -> int:
    """Send each packet that device A receives back to its sender.

    Its MAC addresses are swapped. Runs until Ctrl-C or a limit. Exit code 1 says that a sink saw a packet lost or
    wrong.

    \b
    Examples:
      sudo ixy echo 0000:03:00.0
      ixy echo sim:a,gen=60 --seconds 5
      ixy echo sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap --count 1000
    """
    from ixy.apps.echo import echo

    return echo(address, settings, wait=wait)
