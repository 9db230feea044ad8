"""`ixy replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ixy.apps.settings import MAX_COUNT, MAX_RATE, MAX_SECONDS
from ixy.arguments import quantity
from ixy.cli.options import FILE, ParamType, Seconds, Whole, logging_options, packet_options
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.settings import Settings
    from ixy.pacing import Timing

_MAX_SPEED = 1_000_000
_MAX_VLAN = 4094
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}  # bits per second


class Bits(ParamType):
    """Bits per second, such as 100M or 2.5G."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        return value if isinstance(value, int) else quantity("--bps", value, _UNITS, "1", "400G")


@click.command()
@click.argument("file", type=FILE)
@click.argument("addresses", metavar="A [B]", nargs=-1, required=True)
@click.option("--speed", type=Seconds(1 / _MAX_SPEED, _MAX_SPEED), help="So many times as fast as recorded.")
@click.option("--pps", type=Whole(1, MAX_RATE), help="So many packets per second.")
@click.option("--bps", type=Bits(), help="So many bits of frames per second, such as 100M or 2.5G.")
@click.option("--topspeed", is_flag=True, help="As fast as the device takes them.")
@click.option("--max-gap", type=Seconds(0, MAX_SECONDS), help="The most seconds between two packets, as recorded.")
@click.option("--loop", type=Whole(0, MAX_COUNT), default=1, show_default=True, help="How often, 0 without end.")
@click.option("--limit", type=Whole(1, MAX_COUNT), help="The same as --count.")
@click.option("--filter", "expression", default="", metavar="FILTER", help="Only what matches, in tcpdump's language.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="NETWORK=NETWORK",
    help="Move addresses of IPv4, IPv6 and ARP: 10.1.0.0/16=192.168.0.0/16.",
)
@click.option("--vlan", type=Whole(0, _MAX_VLAN), help="Put each packet into this VLAN.")
@click.option("--no-vlan", is_flag=True, help="Take each packet out of its VLAN.")
@packet_options
@logging_options
def replay(
    settings: Settings,
    file: str,
    addresses: tuple[str, ...],
    loop: int,
    limit: int | None,
    expression: str,
    maps: tuple[str, ...],
    vlan: int | None,
    no_vlan: bool,
    **timing: Any,
) -> int:
    """Send the packets of a capture FILE from device A.

    Between them are the times that it recorded, or what the options say. FILE may be pcap or pcapng, compressed by gzip
    or zstd, and larger than memory; - is standard input. What comes through a pipe is sent as it comes. Packets of raw
    IP, Linux cooked captures and BSD's loopback become Ethernet.

    With B, what clients sent goes out of A, and what servers sent out of B. Of each pair of addresses, the client is
    who sent the first packet, unless that one is a TCP SYN with ACK. Both keep the recorded times.

    Checksums follow what --map changes. Whoever is late catches up with 64 packets, or a millisecond's worth if those
    are more, and moves the rest on. The end tells how late packets were at most, how often that was more than a
    millisecond, what was given up, and by how much gaps between packets differ from what they should be. What the
    devices receive meanwhile is counted and thrown away.

    \b
    Examples:
      sudo ixy replay in.pcap 0000:03:00.0
      sudo ixy replay in.pcapng.zst 0000:03:00.0 --speed 2 --max-gap 1
      sudo ixy replay in.pcap 0000:03:00.0 --topspeed --loop 0 --seconds 10
      sudo ixy replay in.pcap 0000:03:00.0 0000:03:00.1 --filter 'tcp port 80' --map 10.1.0.0/16=192.168.0.0/16
      ixy replay in.pcap sim:a,tx_pcap=out.pcap --pps 1000 --vlan 5
    """
    from dataclasses import replace

    from ixy.addresses import looks_like_address
    from ixy.apps.replay import replay
    from ixy.apps.rewriting import KEEP_VLAN, NO_VLAN, rewriting

    if not all(map(looks_like_address, addresses[1:])):
        words = " ".join(addresses[1:])
        raise ConfigurationError(f"{words}: no device's address; what is to be sent, --filter says: --filter '{words}'")
    if len(addresses) > 2:
        raise ConfigurationError("a recording has two sides: name one device or two")
    if vlan is not None and no_vlan:
        raise ConfigurationError("--vlan and --no-vlan exclude each other: give one")
    rules = rewriting(maps, NO_VLAN if no_vlan else KEEP_VLAN if vlan is None else vlan)
    if limit is not None:
        settings = replace(settings, count=limit)
    return replay(file, addresses, settings, timing=_timing(**timing), loops=loop, expression=expression, rules=rules)


def _timing(speed: float | None, pps: int | None, bps: int | None, topspeed: bool, max_gap: float | None) -> Timing:
    from ixy.pacing import AS_RECORDED, AT_ONCE, BY_BITS, BY_PACKETS, Timing

    if sum([speed is not None, pps is not None, bps is not None, topspeed]) > 1:
        raise ConfigurationError("--speed, --pps, --bps and --topspeed exclude each other: give one")
    kind = BY_PACKETS if pps else BY_BITS if bps else AT_ONCE if topspeed else AS_RECORDED
    return Timing(kind, pps or bps or 0, speed or 1.0, round((max_gap or 0) * 1e9))
