"""What can be asked: the commands of DPDK's telemetry that make sense here, with DPDK's answers, and some of our own.

An answer is what JSON can hold; None says that there is none. Commands of our own, which begin with `/ixy`, answer with
{"error": TEXT} where the device does not do what is asked.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.device import opened
from ixy.errors import Error
from ixy.packets.buffers import BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.device import Device

MAX_OUTPUT = 192 << 10  # bytes of an answer: a socket holds as much by itself, and all registers take half of it
_MAX_NAME = 56  # characters of a command that are repeated in the answer
_QUEUES = 16  # of which DPDK tells in its counters
_CLEAR = "clear"


class Command(NamedTuple):
    """What answers, given the parameters, and what `/help` says of it."""

    answer: Callable[[str], Any]
    help: str


def answer_to(request: bytes) -> dict[str, Any]:
    """The answer to what a client has sent, under the command's name."""
    name, _, parameters = request.decode(errors="replace").partition(",")
    command = COMMANDS.get(name)
    try:
        return {name[:_MAX_NAME] or "none": command.answer(parameters) if command else None}
    except _NoAnswer:
        return {name: None}
    except Error as error:  # a device that does not do it, or is being closed
        return {name: {"error": str(error)} if name.startswith("/ixy/") else None}


def greeting() -> dict[str, Any]:
    """What a client is told first, and by `/info`."""
    return {"version": f"ixy {_version()}".strip(), "pid": os.getpid(), "max_output_len": MAX_OUTPUT}


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ixy")
    except PackageNotFoundError:
        return ""


class _NoAnswer(Exception):
    """There is none, as parameters make no sense."""


def _device(parameters: str) -> tuple[Device, list[str]]:
    """The device whose number stands first, and the other parameters."""
    number, *others = parameters.split(",")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise _NoAnswer
    device = opened().get(int(number))
    if device is None:
        raise _NoAnswer
    return device, others


def _help(parameters: str) -> dict[str, str]:
    if parameters not in COMMANDS:
        raise _NoAnswer
    return {parameters: COMMANDS[parameters].help}


def _port_info(parameters: str) -> dict[str, Any]:
    device, _ = _device(parameters)
    info = device.info
    return {
        "name": info.address,
        "fw_version": info.firmware or "",
        "state": 1,  # RTE_ETH_DEV_ATTACHED
        "nb_rx_queues": info.rx_queues,
        "nb_tx_queues": info.tx_queues,
        "port_id": device.number,
        "mtu": info.mtu,
        "rx_mbuf_size_min": BUFFER_SIZE,
        "mac_addr": (info.mac or "").upper(),
        "dev_started": 1,
        "dev_configured": 1,
        "rxq_state": [1] * len(device.rx),  # RTE_ETH_QUEUE_STATE_STARTED
        "txq_state": [1] * len(device.tx),
        "numa_node": -1 if info.numa_node is None else info.numa_node,
        "rx_offloads": list(info.rx_offloads),
        "tx_offloads": list(info.tx_offloads),
    }


def _port_stats(parameters: str) -> dict[str, Any]:
    device, _ = _device(parameters)
    stats, counted = device.stats(), device.xstats()

    def queues(*names: str) -> list[int]:
        """A counter of each queue, which has one of these names."""
        return [
            next((counted[key] for key in map(str.format, names, [n] * len(names)) if key in counted), 0)
            for n in range(_QUEUES)
        ]

    return {
        "ipackets": stats.rx_packets,
        "opackets": stats.tx_packets,
        "ibytes": stats.rx_bytes,
        "obytes": stats.tx_bytes,
        "imissed": stats.rx_dropped,
        "ierrors": stats.rx_errors + stats.rx_refused,
        "oerrors": 0,
        "rx_nombuf": stats.rx_starved,
        "q_ipackets": queues("QPRC[{}]", "rx_q{}_packets"),
        "q_opackets": queues("QPTC[{}]", "tx_q{}_packets"),
        "q_ibytes": queues("QBRC[{}]", "rx_q{}_bytes"),
        "q_obytes": queues("QBTC[{}]", "tx_q{}_bytes"),
        "q_errors": queues("QPRDC[{}]", "rx_q{}_refused"),
    }


def _port_xstats(parameters: str) -> dict[str, int]:
    device, others = _device(parameters)
    hide_zero = "hide_zero=true" in others
    return {name: count for name, count in device.xstats().items() if count or not hide_zero}


def _port_link(parameters: str) -> dict[str, Any]:
    link = _device(parameters)[0].link
    return {"status": "UP", "speed": link.speed, "duplex": "full-duplex"} if link.up else {"status": "DOWN"}


def _xstats(parameters: str) -> dict[str, int]:
    device, others = _device(parameters)
    return device.xstats(clear=_CLEAR in others)


def _registers(parameters: str) -> dict[str, int]:
    device, others = _device(parameters)
    return {name: reading.value for name, reading in device.registers(clear=_CLEAR in others).items()}


def _info(parameters: str) -> dict[str, Any]:
    return asdict(_device(parameters)[0].info)


def _devices(_: str) -> dict[int, str]:
    return {number: device.address for number, device in opened().items()}


def _commands(_: str) -> list[str]:
    return sorted(COMMANDS)


def _greeting(_: str) -> dict[str, Any]:
    return greeting()


def _ports(_: str) -> list[int]:
    return sorted(opened())


COMMANDS: dict[str, Command] = {
    "/": Command(_commands, "Returns list of available commands, takes no parameters"),
    "/help": Command(_help, "Returns help text for a command. Parameters: string command"),
    "/info": Command(_greeting, "Returns version and process. Takes no parameters"),
    "/ethdev/list": Command(_ports, "Returns list of devices. Takes no parameters"),
    "/ethdev/info": Command(_port_info, "Returns the device info. Parameters: int port_id"),
    "/ethdev/stats": Command(_port_stats, "Returns the common stats. Parameters: int port_id"),
    "/ethdev/xstats": Command(_port_xstats, "Returns all counters. Parameters: int port_id, hide_zero=true"),
    "/ethdev/link_status": Command(_port_link, "Returns the link status. Parameters: int port_id"),
    "/ixy/devices": Command(_devices, "Returns addresses by port_id. Takes no parameters"),
    "/ixy/info": Command(_info, "Returns all of the info. Parameters: int port_id"),
    "/ixy/xstats": Command(_xstats, "Returns all counters. Parameters: int port_id, clear"),
    "/ixy/registers": Command(_registers, "Returns what registers hold. Parameters: int port_id, clear"),
}
