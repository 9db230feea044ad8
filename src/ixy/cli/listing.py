"""`ixy list`."""

from __future__ import annotations

import click

from ixy.cli.options import logging_options


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@logging_options
def list_devices(as_json: bool) -> None:
    """List the network cards, and say which can be used or why not.

    \b
    Examples:
      ixy list
      ixy list --json | jq -r '.[] | select(.usable).address'
    """
    from ixy.apps.listing import print_devices

    print_devices(as_json=as_json)
