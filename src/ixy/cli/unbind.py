"""`ixy unbind`."""

from __future__ import annotations

import click

from ixy.cli.options import logging_options


@click.command()
@click.argument("address")
@click.option("--force", is_flag=True, help="Even if the card's interface is up with an address or carries a route.")
@logging_options
def unbind(address: str, force: bool) -> None:
    """Undo `ixy bind`: give a card back to its kernel driver.

    \b
    Example:
      sudo ixy unbind 0000:03:00.0
    """
    from ixy.bus.binding import unbind

    driver = unbind(address, force=force)
    click.echo(f"{address}: given back to {driver}" if driver else f"{address}: free; the kernel has no driver for it")
