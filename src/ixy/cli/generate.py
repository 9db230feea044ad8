"""`ixy generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ixy.cli.options import FILE, ParamType, Whole, logging_options, packet_options
from ixy.errors import CaptureError, ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.rate import Rate
    from ixy.apps.settings import Settings
    from ixy.apps.streamtable import StreamTable


class RateType(ParamType):
    """A rate in packets, bits or hundredths of the line."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rate:  # noqa: ARG002
        from ixy.apps.rate import parse_rate

        return parse_rate("--rate", value) if isinstance(value, str) else value


@click.command()
@click.argument("address", metavar="A")
@click.option(
    "--size", help="Bytes of a packet, without its checksum: 60, or 60,512 in turn, 60-1514 at random, imix.  [60]"
)
@click.option("--rate", type=RateType(), help="1e6 (packets per second), 1.5Mpps, 2Gbps, 80%; else as many as can be.")
@click.option("--poisson", is_flag=True, help="At random moments, by a Poisson process of that rate.")
@click.option("--burst", type=Whole(1, 4096), default=1, help="Packets at once, and then a pause that keeps the rate.")
@click.option("--strict-rate", is_flag=True, help="End with exit code 1 if the rate was not reached.")
@click.option("--streams", metavar="FILE", type=FILE, help="Send the streams that a YAML file describes.")
@click.option("--template", metavar="FILE", type=FILE, help="Send the packets of a pcap file, in turn, over and over.")
@click.option("--scapy", metavar="EXPRESSION", help="Send the packets that a Scapy expression stands for, likewise.")
@click.option("--no-sequence", is_flag=True, help="Do not write a sequence number into the last 4 bytes.")
@click.option("--seed", type=Whole(0, (1 << 32) - 1), default=0, help="Of all that is random.")
@packet_options
@logging_options
def generate(
    settings: Settings,
    address: str,
    rate: Rate | None,
    poisson: bool,
    burst: int,
    strict_rate: bool,
    no_sequence: bool,
    seed: int,
    **sources: str | None,
) -> int:
    """Send packets from device A, at a rate.

    They are UDP packets, or those of a file or of a Scapy expression, or streams. The last 4 bytes of each packet are
    its number, from 0, the highest byte first; checksums are kept right. What the device receives meanwhile is counted
    and thrown away. Packets longer than a buffer (2048 bytes) are left out and counted; with --mtu 9000, jumbo frames
    are sent. Bits per second are those on the wire, with preamble, check sequence and gap.

    Runs until Ctrl-C or a limit.

    A file of streams; examples/streams.yaml explains it:

    \b
      streams:
        - share: 3
          size: imix
          flows: 1000000
          packet:
            ipv4: {src: {random: 10.0.0.0/8}, dst: 192.0.2.1}
            udp: {sport: {random: 1024-65535}, dport: 53}
        - packet:
            vlan: {id: {count: 100-199}}
            ipv6: {dst: "2001:db8::1"}
            tcp: {dport: {count: [80, 443]}}
          size: 128

    \b
    Examples:
      sudo ixy generate 0000:03:00.0 --rate 1e6 --seconds 10
      sudo ixy generate 0000:03:00.0 --rate 80% --size imix --poisson --strict-rate
      ixy generate sim:a,tx_pcap=out.pcap --size 128 --count 1000
      ixy generate sim:a,tx_pcap=out.pcap --size 60,9014 --mtu 9000 --count 1000
      ixy generate sim:a,tx_pcap=out.pcap --template in.pcap --no-sequence --count 1000
      ixy generate sim:a,tx_pcap=out.pcap --count 8 --scapy 'Ether()/IP(dst="10.0.0.0/30")/UDP()/("x" * 18)'
      ixy generate sim:a,tx_pcap=out.pcap --streams examples/streams.yaml --rate 2Gbps --seconds 1
    """
    if rate is None and (poisson or burst > 1 or strict_rate):
        raise ConfigurationError("--poisson, --burst and --strict-rate go with a --rate")
    from ixy.apps.generate import Pacing, generate
    from ixy.apps.streamtable import NO_TAIL, NUMBER_BYTES

    table, left_out, damage = _table(sources, settings, tail=NO_TAIL if no_sequence else NUMBER_BYTES, seed=seed)
    pacing = Pacing(rate, poisson, burst, seed)
    code = generate(address, table, settings, pacing=pacing, strict=strict_rate, left_out=left_out)
    if damage:
        raise CaptureError(damage)
    return code


def _table(
    sources: dict[str, str | None], settings: Settings, *, tail: int, seed: int
) -> tuple[StreamTable, int, str | None]:
    """What the user wants to have sent, how many of his packets cannot be, and why his file ended early, if it did.

    Raises:
        ConfigurationError: he named more than one source, or there can be no such packets.
    """
    from ixy.apps.session import longest_frame
    from ixy.apps.streams import Stream, parse_sizes
    from ixy.apps.streamtable import table_of
    from ixy.apps.templates import from_pcap, from_scapy
    from ixy.formats.frames import MIN_FRAME, udp_frame

    given = {name: text for name, text in sources.items() if text is not None}
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(f'--{name}' for name in given)} exclude each other: give one")
    name, text = next(iter(given.items()), ("size", str(MIN_FRAME)))
    longest = longest_frame(settings)
    if name == "streams":
        from ixy.apps.streamfile import read_streams

        streams = read_streams(text, settings.longest_made)
        return table_of(streams, tail=tail, seed=seed, longest=longest), 0, None
    if name == "size":
        sizes = parse_sizes("--size", text, MIN_FRAME, settings.longest_made)
        made = {size: udp_frame(size) for size in sizes.each}
        stream = Stream("--size", [made[size] for size in sizes.each], random_frames=sizes.random)
        return table_of([stream], tail=tail, seed=seed, longest=longest), 0, None
    templates = from_pcap(text, longest) if name == "template" else from_scapy(text, longest)
    return table_of(templates, tail=tail, seed=seed), templates.left_out, templates.damage
