"""`ixy generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ixy.apps.settings import MAX_RATE
from ixy.cli.options import FRAME_SIZE, Whole, logging_options, packet_options

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


@click.command()
@click.argument("address", metavar="A")
@click.option("--size", type=FRAME_SIZE, help="Bytes of a packet, without its checksum; 60 by default.")
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
