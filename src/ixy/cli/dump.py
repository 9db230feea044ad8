"""`ixy dump`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ixy.apps.settings import MAX_SNAPLEN
from ixy.cli.options import FILE, Whole, packet_options, trace_option
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


@click.command()
@click.argument("words", metavar="[A] [FILTER]", nargs=-1)
@click.option(
    "-r", "--read", "source", metavar="FILE", type=FILE, help="Packets of a capture file; - is standard input."
)
@click.option(
    "-w", "--write", "target", metavar="FILE", type=FILE, help="Write packets to a capture file, instead of lines."
)
@click.option("-e", "--link", is_flag=True, help="Print the Ethernet header.")
@click.option("-v", "verbose", count=True, help="Print more: TTL, checksums, options; -vv and -vvv yet more.")
@click.option("-q", "--quiet", is_flag=True, help="Print less.")
@click.option("-x", "hex_", count=True, help="Print the bytes in hexadecimal; -xx with the Ethernet header.")
@click.option("-X", "hex_and_text", count=True, help="Print the bytes in hexadecimal and ASCII; -XX likewise.")
@click.option("-A", "text", count=True, help="Print the bytes as text; -AA likewise.")
@click.option(
    "-t",
    "stamp",
    count=True,
    help="No time; -tt seconds since 1970; -ttt since the packet before; -tttt with the date; -ttttt since the first.",
)
@click.option("--nano", is_flag=True, help="Print nanoseconds.")
@click.option("-S", "--absolute", is_flag=True, help="Print TCP sequence numbers as they are, not from 0 on.")
@click.option("-#", "--number", is_flag=True, help="Print the packets' numbers.")
@click.option(
    "-s", "--snaplen", type=Whole(0, MAX_SNAPLEN), default=0, help="Bytes of a packet that are looked at; 0 for all."
)
@click.option("-l", "--line", is_flag=True, help="Print each line at once.")
@click.option("-n", count=True, expose_value=False, help="Print no names; ixy never does.")
@click.option("--decode", is_flag=True, help="Print what tshark, or Scapy, sees in each packet besides.")
@packet_options
@trace_option
def dump(
    settings: Settings,
    words: tuple[str, ...],
    source: str | None,
    target: str | None,
    link: bool,
    verbose: int,
    quiet: bool,
    hex_: int,
    hex_and_text: int,
    text: int,
    stamp: int,
    nano: bool,
    absolute: bool,
    number: bool,
    snaplen: int,
    line: bool,
    decode: bool,
) -> int:
    """Print what device A receives, or a file, as tcpdump does.

    FILTER is in tcpdump's language (man pcap-filter). A packet's line is that of tcpdump -n for ARP, IPv4, IPv6, ICMP,
    ICMPv6, UDP and TCP. What UDP and TCP carry is not looked at, whatever their ports: DNS is printed as any other UDP,
    and --decode says more. Names are never looked up.

    Runs until Ctrl-C, a limit, or the end of the file. What comes through a pipe (-r -) is printed as it comes.

    \b
    Examples:
      sudo ixy dump packet:eth0
      sudo ixy dump 0000:03:00.0 -c 10
      sudo ixy dump 0000:03:00.0 -ev "udp port 53 and not host 10.0.0.1"
      ixy dump -r in.pcap -ttt tcp port 80
      ixy dump -r in.pcap -w dns.pcap udp port 53
      ssh host tcpdump -i eth0 -U -w - | ixy dump -r - --decode
      ixy dump sim:a,gen=60,rate=1000 --json --seconds 1
    """
    from ixy.apps.dump import Look, dump_device, dump_file
    from ixy.dissect.line import Style
    from ixy.dissect.printer import Layout

    if source is None and not words:
        raise ConfigurationError("name a device, or a file with -r FILE")
    if target is not None and (settings.as_json or decode):
        raise ConfigurationError("-w writes packets to a file, and prints none: leave out --json and --decode")
    if settings.as_json and decode:
        raise ConfigurationError("--json prints headers, and --decode text: leave one of them out")
    if source is not None and settings.seconds is not None:
        raise ConfigurationError("--seconds is for a device: a file ends by itself, or after -c packets")
    look = Look(
        expression=" ".join(words if source is not None else words[1:]),
        style=Style(link=link, verbose=verbose, quiet=quiet, absolute=absolute),
        layout=Layout(min(stamp, 5), nano, number, hex_, hex_and_text, text),
        snaplen=snaplen or MAX_SNAPLEN,
        file=target,
        as_json=settings.as_json,
        decode=decode,
        each=line,
    )
    return dump_device(words[0], settings, look) if source is None else dump_file(source, settings, look)
