"""`ixy capture`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ixy.apps.settings import MAX_SNAPLEN
from ixy.cli.options import Whole, logging_options, packet_options, wait_option

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


@click.command()
@click.argument("address", metavar="A")
@click.argument("file", metavar="FILE")
@click.option(
    "--snaplen", type=Whole(1, MAX_SNAPLEN), default=65535, show_default=True, help="Bytes of a packet that are kept."
)
@wait_option
@packet_options
@logging_options
def capture(settings: Settings, address: str, file: str, snaplen: int, wait: bool) -> int:
    """Write what device A receives to a pcap FILE, with time stamps in nanoseconds. FILE may be - for standard output.

    Runs until Ctrl-C or a limit. What was written stays readable, whatever happens.

    \b
    Examples:
      sudo ixy capture 0000:03:00.0 out.pcap --count 1000
      sudo ixy capture 0000:03:00.0 - | tcpdump -n -r -
      ixy capture sim:a,gen=60,rate=1000 out.pcap --seconds 2
    """
    from ixy.apps.capture import capture

    return capture(address, file, settings, snaplen=snaplen, wait=wait)
