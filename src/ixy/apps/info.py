"""`ixy info`: what a device is, how it is reached, what it can and what of that is used."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ixy.apps import inside

if TYPE_CHECKING:
    from collections.abc import Iterator


def print_info(address: str, *, process: int | None, as_json: bool) -> None:
    """Print what is known of a device, a line for each thing, or as a JSON object in a line.

    Raises:
        Error: nothing is.
    """
    known = inside.info(address, process)
    if as_json:
        print(json.dumps(known), flush=True)
        return
    print(known["address"])
    for label, text in _info_lines(known):
        if text:
            print(f"  {label:15} {text}")
    for note in known["notes"]:
        print(f"  {note}")
    sys.stdout.flush()


def _info_lines(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What each line is about, and what it says; nothing of what is not known."""
    yield "open by", known["state"]
    yield "driver", known["driver"]
    yield "model", known["model"]
    yield "reached by", known["bus"]
    yield "kernel driver", known["kernel_driver"]
    yield "interfaces", ", ".join(known["interfaces"])
    yield "MAC address", known["mac"]
    yield "link", _link(known["link_up"], known["link_speed"])
    yield "MTU", _text(known["mtu"])
    yield "receive queues", _queues(known, "rx")
    yield "transmit queues", _queues(known, "tx")
    yield "buffers", f"{known['buffers']} for each receive queue" if known["buffers"] else ""
    yield "spread", known["spread"]
    yield "rules", "; ".join(known["rules"])
    yield "metadata", ", ".join(known["metadata"])
    yield "features", ", ".join(known["features"])
    yield "not used", ", ".join(known["refused"])
    yield "offloads", ", ".join(known["rx_offloads"])
    yield "transmit offloads", ", ".join(known["tx_offloads"])
    yield "firmware", known["firmware"]
    yield "NUMA node", _text(known["numa_node"])
    yield "PCI Express", _pcie(known)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _link(up: bool | None, speed: int | None) -> str:
    if up is None:
        return ""
    if not up:
        return "down"
    return f"up, {speed / 1000:g} Gbit/s" if speed else "up"


def _queues(known: dict[str, Any], way: str) -> str:
    count, most, size = known[f"{way}_queues"], known[f"max_{way}_queues"], known[f"{way}_ring"]
    if count is None:
        return f"{most} possible" if most else ""
    return f"{count} of {most}, {size} descriptors each"


def _pcie(known: dict[str, Any]) -> str:
    speed, width = known["pcie_speed"], known["pcie_width"]
    if speed is None:
        return ""
    most = known["pcie_max_speed"], known["pcie_max_width"]
    possible = "" if (speed, width) == most else f", of {most[0]:g} GT/s × {most[1]} that it could have"
    return f"{speed:g} GT/s × {width} lanes{possible}"
