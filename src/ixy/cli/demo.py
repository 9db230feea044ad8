"""`ixy demo`."""

from __future__ import annotations

import click

from ixy.apps.settings import MAX_COUNT, Settings
from ixy.cli.options import FRAME_SIZE, Whole, batch_option, json_option, logging_options, sandbox_option


@click.command()
@click.option("--count", type=Whole(1, MAX_COUNT), default=10_000_000, help="Packets to send; 10 million by default.")
@click.option("--size", type=FRAME_SIZE, default=60, show_default=True, help="Bytes of a packet, without its checksum.")
@batch_option
@sandbox_option
@json_option
@logging_options
def demo(count: int, size: int, batch: int, as_json: bool, sandbox: bool | None) -> int:
    """Show ixy at work, without a network card.

    A generator is plugged into one simulated card, a sink into another; the forwarder between them raises byte 48 of
    every packet by one. Succeeds if packets flowed and all that arrived were complete, in order and changed just so.

    \b
    Examples:
      ixy demo
      ixy demo --count 1e6 --size 1514
    """
    from ixy.apps.demo import demo

    return demo(Settings(count=count, batch=batch, as_json=as_json, sandbox=sandbox), count=count, size=size)
