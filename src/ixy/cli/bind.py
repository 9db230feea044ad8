"""`ixy bind`."""

from __future__ import annotations

import click

from ixy.cli.options import logging_options


@click.command()
@click.argument("address")
@click.option("--driver", default="vfio-pci", show_default=True, help="The kernel driver that gets the card.")
@click.option("--user", metavar="NAME", help="Let this user open the card from now on, without root.")
@click.option("--force", is_flag=True, help="Even if the card's interface is up with an address or carries a route.")
@logging_options
def bind(address: str, driver: str, user: str | None, force: bool) -> None:
    """Take a card from its kernel driver, and bind it to vfio-pci.

    Or to another one that --driver names. Bound to vfio-pci, a card is kept within the process's memory by the IOMMU,
    and with --user needs no root. A card that another driver has is taken from it when it is opened, and reached
    without IOMMU. `ixy unbind` gives it back.

    \b
    Examples:
      sudo ixy bind 0000:03:00.0
      sudo ixy bind 0000:03:00.0 --driver uio_pci_generic
      sudo ixy bind 0000:03:00.0 --user "$USER"
    """
    from ixy.bus.binding import bind

    bind(address, driver, user, force=force)
    click.echo(f"{address}: bound to {driver}" + (f", for {user} to use" if user else ""))
