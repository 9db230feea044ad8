"""`ixy forward`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ixy.apps.settings import MAX_QUEUES
from ixy.cli.options import Cores, Whole, logging_options, offload_option, packet_options, wait_option

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--touch", "touched", is_flag=True, help="Raise byte 48 of each packet by one.")
@click.option("--one-way", is_flag=True, help="From A to B only.")
@click.option(
    "--queues", type=Whole(1, MAX_QUEUES), help="Pairs of queues per device, with a thread each; else one per core."
)
@click.option("--cores", type=Cores(), help="The core of each of these threads; else those that are there, in order.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="RULE",
    help="Put packets that come in into a queue, or drop them: 'udp dst 10.0.0.1:53 queue 2', 'src 10.0.0.0/8 drop'.",
)
@click.option(
    "--filter",
    "expression",
    metavar="EXPR",
    help="Forward only what a filter in tcpdump's language accepts: 'not port 22'.",
)
@offload_option
@wait_option
@packet_options
@logging_options
def forward(
    settings: Settings,
    a: str,
    b: str,
    touched: bool,
    one_way: bool,
    wait: bool,
    queues: int | None,
    cores: list[int] | None,
    rules: tuple[str, ...],
    expression: str | None,
) -> int:
    """Forward packets between devices A and B, both ways, unchanged.

    Runs until Ctrl-C or a limit. Exit code 1 says that a sink saw a packet lost or wrong. Once a second a line per
    device says what goes in and out. With --queues or --cores, each pair of queues has a thread of its own on a core of
    its own, which carries both ways; it is said which, how packets are spread over the queues, and at the end what each
    has done.

    A rule has words such as: tcp, udp or sctp; src and dst, an address or 10.0.0.0/8, with a port behind a colon or
    without; sport and dport; vlan 5; or only ethertype 0x88f7, or syn; and then queue 2, or drop.

    What a filter (man pcap-filter) does not accept is dropped, and counted as filtered. It is looked at in the data
    path, behind the card's rules; behind `vlan` it looks into the tagged packet: "vlan 5 and host 10.0.0.1".

    With --offload, devices do themselves what is else done before: with checksum, packets of a virtual machine get the
    checksums that it has left out; with vlan, tags are taken out and put in; with coalescing, segments of a connection
    are put together while they are received, and with segmentation cut again.

    \b
    Examples:
      sudo ixy forward 0000:03:00.0 0000:03:00.1
      sudo ixy forward xdp:eth1 xdp:eth2
      sudo ixy forward sim:a,tap=ixy0 sim:b,tap=ixy1
      ixy forward sim:a,gen=60 sim:b,sink=a,touch=48 --touch --seconds 5
      sudo ixy forward 0000:03:00.0 0000:03:00.1 --queues 4 --cores 2,3,4,5
      sudo ixy forward 0000:03:00.0 0000:03:00.1 --queues 2 --rule "tcp dport 80 queue 1" --rule "src 10.0.0.0/8 drop"
      sudo ixy forward 0000:03:00.0 0000:03:00.1 --filter "not udp port 53"
      sudo ixy forward 0000:03:00.0 0000:03:00.1 --mtu 9000
      sudo ixy forward 0000:03:00.0 0000:03:00.1 --offload coalescing,segmentation
      ixy forward --one-way sim:a,rx_pcap=in.pcap sim:b,tx_pcap=out.pcap --count 1000
    """
    from ixy.apps.forward import forward

    return forward(
        (a, b),
        settings,
        touched=touched,
        one_way=one_way,
        wait=wait,
        queues=queues,
        cores=cores,
        rules=rules,
        expression=expression,
    )
