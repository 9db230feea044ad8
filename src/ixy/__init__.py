"""A user-space network driver written in Python, with a data path as fast as C.

    import ixy

    with ixy.open("sim:a,gen=60") as device:
        batch = device.rx[0].receive()
        for packet in batch:
            packet[48] += 1
        device.tx[0].send(batch)

Importing this module costs nothing: what is behind a name is loaded when the name is used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ixy import sim, tables
    from ixy.captures.table import CaptureTable, capture_chunks, read_capture
    from ixy.device import Device, Rules, RxQueue, Stats, TxQueue
    from ixy.device import open_device as open  # noqa: A004
    from ixy.drivers.info import Info
    from ixy.drivers.rules import Rule
    from ixy.errors import Error, FilterError, KernelError, OwnershipError
    from ixy.filters import Filter
    from ixy.filters import compile_filter as filter  # noqa: A004
    from ixy.functions import now, prefetch, random
    from ixy.headers import Ipv4Address, Ipv6Address, MacAddress, adjusted
    from ixy.packets.batch import Batch, Packet
    from ixy.packets.mempool import Mempool
    from ixy.packets.packets import Flags
    from ixy.packets.scapy import to_scapy
    from ixy.path import Path, batch_kernel, kernel
    from ixy.record import Record, array, int8, int16, int32, uint8, uint16, uint32
    from ixy.ring import Ring
    from ixy.sandboxing import Sandbox, sandbox
    from ixy.telemetry.server import Telemetry, serve_telemetry
    from ixy.verdicts import DROP, FORWARD, UP, copy_to
    from ixy.workers import Workers

__all__ = [
    "DROP",
    "FORWARD",
    "UP",
    "Batch",
    "CaptureTable",
    "Device",
    "Error",
    "Filter",
    "FilterError",
    "Flags",
    "Info",
    "Ipv4Address",
    "Ipv6Address",
    "KernelError",
    "MacAddress",
    "Mempool",
    "OwnershipError",
    "Packet",
    "Path",
    "Record",
    "Ring",
    "Rule",
    "Rules",
    "RxQueue",
    "Sandbox",
    "Stats",
    "Telemetry",
    "TxQueue",
    "Workers",
    "adjusted",
    "array",
    "batch_kernel",
    "capture_chunks",
    "copy_to",
    "filter",
    "int8",
    "int16",
    "int32",
    "kernel",
    "now",
    "open",
    "prefetch",
    "random",
    "read_capture",
    "sandbox",
    "serve_telemetry",
    "sim",
    "tables",
    "to_scapy",
    "uint8",
    "uint16",
    "uint32",
]

_HOME = {
    **{name: ("ixy.verdicts", name) for name in ("DROP", "FORWARD", "UP", "copy_to")},
    "Batch": ("ixy.packets.batch", "Batch"),
    "Device": ("ixy.device", "Device"),
    "Error": ("ixy.errors", "Error"),
    "Filter": ("ixy.filters", "Filter"),
    "Info": ("ixy.drivers.info", "Info"),
    "FilterError": ("ixy.errors", "FilterError"),
    "Flags": ("ixy.packets.packets", "Flags"),
    "KernelError": ("ixy.errors", "KernelError"),
    "Mempool": ("ixy.packets.mempool", "Mempool"),
    "OwnershipError": ("ixy.errors", "OwnershipError"),
    "Packet": ("ixy.packets.batch", "Packet"),
    "Path": ("ixy.path", "Path"),
    "Record": ("ixy.record", "Record"),
    "Ring": ("ixy.ring", "Ring"),
    "Rule": ("ixy.drivers.rules", "Rule"),
    "Rules": ("ixy.device", "Rules"),
    "RxQueue": ("ixy.device", "RxQueue"),
    **{name: ("ixy.sandboxing", name) for name in ("Sandbox", "sandbox")},
    "Stats": ("ixy.device", "Stats"),
    "TxQueue": ("ixy.device", "TxQueue"),
    "Workers": ("ixy.workers", "Workers"),
    **{name: ("ixy.headers", name) for name in ("Ipv4Address", "Ipv6Address", "MacAddress", "adjusted")},
    "array": ("ixy.record", "array"),
    **{name: ("ixy.record", name) for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")},
    "batch_kernel": ("ixy.path", "batch_kernel"),
    **{name: ("ixy.captures.table", name) for name in ("CaptureTable", "capture_chunks", "read_capture")},
    "filter": ("ixy.filters", "compile_filter"),
    "kernel": ("ixy.path", "kernel"),
    **{name: ("ixy.functions", name) for name in ("now", "prefetch", "random")},
    "open": ("ixy.device", "open_device"),
    **{name: ("ixy.telemetry.server", name) for name in ("Telemetry", "serve_telemetry")},
    "to_scapy": ("ixy.packets.scapy", "to_scapy"),
}


logging.getLogger("ixy").addHandler(logging.NullHandler())  # silent, unless the program wants to hear


def __getattr__(name: str) -> object:
    if name in ("scapy", "sim", "tables"):
        return import_module(f"ixy.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ixy' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(import_module(module), attribute)
