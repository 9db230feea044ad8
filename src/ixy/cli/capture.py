"""`ixy capture`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from ixy.apps.settings import MAX_COUNT, MAX_QUEUES, MAX_SECONDS, MAX_SNAPLEN
from ixy.arguments import whole_number
from ixy.cli.options import FILE, ParamType, Whole, logging_options, packet_options, wait_option
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.apps.settings import Settings

_MAX_SIZE = 1 << 50  # bytes of a file
_UNITS = {"": 1_000_000, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}  # as tcpdump's -C has them


class FileSize(ParamType):
    """Millions of bytes, or with a k, m or g behind them KiB, MiB or GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        found = re.fullmatch(r"(.+?)([kmg]?)", str(value).lower())
        number, unit = found.groups() if found else (value, "")
        return whole_number("-C", number, 1, _MAX_SIZE // _UNITS[unit]) * _UNITS[unit]


@click.command()
@click.argument("words", metavar="A [B…] FILE [FILTER]", type=FILE, nargs=-1, required=True)
@click.option(
    "-s",
    "--snaplen",
    type=Whole(0, MAX_SNAPLEN),
    default=65535,
    show_default=True,
    help="Bytes of a packet that are kept, 0 for all.",
)
@click.option("-C", "size", type=FileSize(), help="Begin a new file after so many million bytes, or 10k, 10m, 10g.")
@click.option("-G", "interval", type=Whole(1, MAX_SECONDS), help="Begin a new file after so many seconds.")
@click.option("-W", "files", type=Whole(1, MAX_COUNT), help="With -C, write so many files in turn; with -G, end then.")
@click.option(
    "--queues",
    type=Whole(1, MAX_QUEUES),
    default=1,
    show_default=True,
    help="Receive queues of each device, over which it spreads packets.",
)
@wait_option
@packet_options
@logging_options
def capture(
    settings: Settings,
    words: tuple[str, ...],
    snaplen: int,
    size: int | None,
    interval: int | None,
    files: int | None,
    queues: int,
    wait: bool,
) -> int:
    """Write what devices receive to FILE.

    Packets have time stamps in nanoseconds, and come in the order of time. FILE's name says the format: pcapng for
    .pcapng, else pcap; with .gz or .zst behind that it is compressed. pcapng tells from which device a packet came, and
    how many it has dropped. FILE may be - for standard output. FILTER is tcpdump's language. --count counts the packets
    that match it.

    Runs until Ctrl-C or a limit. What was written stays readable, whatever happens. At the end it says how many packets
    were received, matched and captured, and how many were lost because the card, or the file, had no room.

    -C and -W name files as tcpdump does: out.pcap, out.pcap1, out.pcap2; with -W 10, out.pcap0 to out.pcap9, over and
    over. With -G the name is a pattern of strftime; -W ends the capture after so many.

    \b
    Examples:
      sudo ixy capture packet:eth0 out.pcap --count 1000
      sudo ixy capture "xdp:eth1,filter=udp port 4789" tunnels.pcap
      sudo ixy capture 0000:03:00.0 - | tcpdump -n -r -
      sudo ixy capture 0000:03:00.0 jumbo.pcap --mtu 9000
      sudo ixy capture 0000:03:00.0 0000:03:00.1 both.pcapng.zst 'udp port 53 or icmp'
      sudo ixy capture 0000:03:00.0 ring.pcap -C 100 -W 10
      sudo ixy capture 0000:03:00.0 %Y-%m-%d-%H.pcapng.gz -G 3600 -s 128
      ixy capture sim:a,gen=60,rate=1000 out.pcap --seconds 2
    """
    from ixy.addresses import looks_like_address
    from ixy.apps.capture import capture
    from ixy.formats.rotation import Rotation

    number = 1
    while number < len(words) and looks_like_address(words[number]):
        number += 1
    if number == len(words):
        raise ConfigurationError("name a FILE after the device: ixy capture A FILE, or - for standard output")
    return capture(
        words[:number],
        words[number],
        settings,
        snaplen=snaplen,
        wait=wait,
        queues=queues,
        expression=" ".join(words[number + 1 :]),
        rotation=Rotation(size or 0, interval or 0, files or 0),
    )
