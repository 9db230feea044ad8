"""`ixy list`: the machine's network cards, and which can be used."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ixy.addresses import CARDS
from ixy.bus.listing import network_devices

if TYPE_CHECKING:
    from ixy.bus.listing import PciInfo

_COLUMNS = ("address", "name", "driver", "interface", "NUMA node", "usable")
_WIDE = 1000  # characters


def print_devices(*, as_json: bool) -> None:
    """Print a table of the network cards, or a JSON array of objects: the attributes of `PciInfo`, and `usable`."""
    devices = network_devices(CARDS)
    if as_json:
        print(json.dumps([asdict(device) | {"usable": device.usable} for device in devices], indent=2), flush=True)
    elif devices:
        _print_table([_row(device) for device in devices])
    else:
        print("no PCI network card; simulated cards need none, try: ixy demo", flush=True)


def _row(device: PciInfo) -> tuple[str, ...]:
    return (
        device.address,
        device.name,
        device.driver or "-",
        ", ".join(device.interfaces) or "-",
        "-" if device.numa_node is None else str(device.numa_node),
        "yes" if device.usable else f"no: {device.reason}",
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    # Into a pipe or file each card is one line, however long.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)
