"""`ixy setup`."""

from __future__ import annotations

import click

from ixy.cli.options import Whole, logging_options
from ixy.packets.hugepages import MAX_PAGES


@click.command()
@click.option("--pages", type=Whole(1, MAX_PAGES), default=64, show_default=True, help="Huge pages of 2 MiB.")
@click.option("--compile", "compiling", is_flag=True, help="Compile what the commands need, and nothing else.")
@logging_options
def setup(pages: int, compiling: bool) -> int:
    """Reserve huge pages and mount hugetlbfs.

    It says what was done, and keeps what is there already. A device takes about 6 pages. The reservation lasts until
    the next boot.

    With --compile, what the commands would compile when they first run is compiled now: for an image, or a machine on
    which nothing can be kept later. Fails if it cannot be kept.

    \b
    Examples:
      sudo ixy setup
      sudo ixy setup --pages 512
      ixy setup --compile
    """
    return _compile() if compiling else _reserve(pages)


def _reserve(pages: int) -> int:
    from ixy.packets.hugepages import setup

    for line in setup(pages):
        click.echo(line)
    return 0


def _compile() -> int:
    from ixy.bench.prepare import Preparation

    preparation = Preparation()
    for line in preparation.run():
        click.echo(line)
    return int(not preparation.complete)
