"""`ixy setup`."""

from __future__ import annotations

import click

from ixy.cli.options import Whole, logging_options
from ixy.packets.hugepages import MAX_PAGES


@click.command()
@click.option("--pages", type=Whole(1, MAX_PAGES), default=64, show_default=True, help="Huge pages of 2 MiB.")
@logging_options
def setup(pages: int) -> None:
    """Reserve huge pages and mount hugetlbfs, and say what was done. What is there already is kept.

    A device takes about 6 pages. The reservation lasts until the next boot.

    \b
    Examples:
      sudo ixy setup
      sudo ixy setup --pages 512
    """
    from ixy.packets.hugepages import setup

    for line in setup(pages):
        click.echo(line)
