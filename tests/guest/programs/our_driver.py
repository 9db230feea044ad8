"""Runs in the guest: `our_driver.py WHAT …` drives 82599s by ixy and prints what came of it as JSON."""

from __future__ import annotations

import json
import os
import pwd
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ixy.apps import inside
from ixy.bus.container import container
from ixy.device import Device, open_device
from ixy.errors import Error
from ixy.telemetry.server import serve_telemetry

DEADLINE = 60  # seconds


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit("nothing more happened")


def forward_packets(one: Device, other: Device, count: int) -> None:
    """Forward exactly `count` packets, and wait until all have left."""
    moved = 0

    def move() -> bool:
        nonlocal moved
        with one.rx[0].receive() as batch:
            moved += other.tx[0].send(batch)
        return moved >= count

    until(move)
    sent = 0

    def all_sent() -> bool:
        nonlocal sent
        sent = other.stats().tx_packets
        return sent >= count

    until(all_sent)


def forward(one: str, other: str, count: str) -> dict[str, Any]:
    """Forward between two cards, and give them up."""
    with open_device(one) as first, open_device(other) as second:
        forward_packets(first, second, int(count))
        stats = first.stats(), second.stats()
        return {
            "speed": first.link.speed,
            "mac": first.mac.hex(":"),
            "rx": stats[0].rx_packets,
            "dropped": stats[0].rx_dropped,
            "tx": stats[1].tx_packets,
        }


def forward_as(user: str, limit: str, *rest: str) -> dict[str, Any]:
    """The same as an ordinary user who may lock `limit` bytes of memory."""
    entry = pwd.getpwnam(user)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(limit), int(limit)))
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    return attempt(*rest)


def attempt(*arguments: str) -> dict[str, Any]:
    """Forward, or tell the error."""
    try:
        return forward(*arguments)
    except Error as error:
        return {"error": f"{type(error).__name__}: {error}"}


def wait_for_packets(address: str) -> dict[str, Any]:
    """Take all that is there, then sleep until more comes; a file tells that nothing more is there."""
    with open_device(address) as device:
        return be_woken(device)


def be_woken(device: Device) -> dict[str, Any]:
    queue = device.rx[0]
    until(lambda: receive(device) == 0 and not queue.wait(0.1))
    Path("asleep").touch()
    return {"woken": queue.wait(DEADLINE), "received": receive(device)}


def wait_and_look(address: str) -> dict[str, Any]:
    """As `wait_for_packets`; then what is told of the card that this process has open, and its counters."""
    with serve_telemetry(), open_device(address) as device:
        return be_woken(device) | look_at(address) | {"counters": inside.xstats(address)}


def forward_for_ever(one: str, other: str) -> None:
    """Forward until the process is killed; a file tells that packets flow.

    A large ring, so that the card could still receive much when nobody is left.
    """
    with open_device(one, ring_size=4096, pool_size=8192) as first, open_device(other) as second:
        forward_packets(first, second, 100)
        Path("flowing").touch()
        while True:
            with first.rx[0].receive() as batch:
                second.tx[0].send(batch)


def withdraw_memory(address: str) -> dict[str, Any]:
    """Receive; then take the packet buffers out of the IOMMU behind the driver's back, and let the card go on."""
    with open_device(address) as device:
        until(lambda: receive(device) > 0)
        memory = device.rx[0].pool.memory
        mapping = container().map(memory, address)  # the same as the driver's
        for _ in range(2):
            container().unmap(memory)
        before = device.stats().rx_packets
        until(lambda: receive(device) >= 0 and device.stats().rx_packets > before + 600)  # more than the ring had
        container().map(memory, address)  # for the driver to take away
        return {"first": mapping.address(0, 1), "end": mapping.address(0, 1) + memory.size}


def look_at(address: str) -> dict[str, Any]:
    """What is told of a card, and its registers, or why they are not."""
    report = inside.info(address)
    try:
        report["registers"] = inside.registers(address)
    except Error as error:
        report["error"] = str(error)
    return report


def look_into(address: str) -> dict[str, Any]:
    """The same of a card that this process has open and tells of; and its counters after some packets."""
    with serve_telemetry(), open_device(address) as device:
        until(lambda: receive(device) > 0)
        return look_at(address) | {"counters": inside.xstats(address)}


def receive(device: Device) -> int:
    """Receive and drop a batch; how many packets it had."""
    with device.rx[0].receive() as batch:
        return len(batch)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    print(json.dumps(globals()[what](*arguments)))
