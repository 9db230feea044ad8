"""Runs in the guest: `through_vfio.py WHAT ADDRESS…` does one thing through VFIO and prints what came of it as JSON."""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import select
import sys
from pathlib import Path
from typing import Any

from cards import E1000e, VirtioNet, count

from ixy.bus import Irq
from ixy.bus.vfio import VfioFunction
from ixy.errors import Error
from ixy.packets.dma import DmaMemory, allocate_rings

VET = 0x38  # a register of the 82574 that only keeps a value (10.2.2.15)


def locked() -> int:
    """Bytes that are pinned in this process."""
    return int(re.findall(r"VmLck:\s*(\d+)", Path("/proc/self/status").read_text())[0]) << 10


def registers(address: str) -> dict[str, Any]:
    """Identification, register access; what is left after closing; opening again."""
    function = VfioFunction(address)
    bar = function.bar(0)
    bar.write32(VET, 0x1234)
    report: dict[str, Any] = {
        "ids": [function.config_read(0, 2), function.config_read(2, 2)],
        "size": 4 * len(bar.words),
        "written": int(bar.words[VET // 4]),
        "vectors": {kind.value: function.interrupt_vectors(kind) for kind in Irq},
    }
    for name, wrong in {
        "beyond_config": lambda: function.config_read(4096, 4),
        "io_bar": lambda: function.bar(2),
        "too_many_interrupts": lambda: function.interrupts(Irq.MSIX, 6),
    }.items():
        report[name] = message_of(wrong)
    function.close()
    report["after_close"] = bar.read32(VET)
    again = VfioFunction(address)
    report["again"] = again.bar(0).read32(VET)
    again.close()
    return report


def message_of(action: Any) -> str:
    """The kind and the message of the error that `action` ends with."""
    try:
        action()
    except Error as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def dma(address: str) -> dict[str, Any]:
    """Send from memory that is mapped, then from memory that no longer is."""
    function = VfioFunction(address)
    card = E1000e(function)
    ring, buffer = DmaMemory(0, 1), DmaMemory(64 << 20, 1)
    ring_mapping, buffer_mapping = function.map(ring), function.map(buffer)
    places = [ring_mapping.address(0, 4096), buffer_mapping.address(0, 4096)]
    both = locked()
    sent = card.send(ring, *places)
    function.unmap(buffer)
    one = locked()
    Path("/dev/kmsg").write_text("the device is about to read what it may not\n")
    card.send(ring, *places)
    function.close()
    return {
        "page_size": ring.page_size,
        "addresses": places,
        "pointers": [ring.virtual_address, buffer.virtual_address],
        "sent": sent,
        "locked": [both, one, locked()],
    }


def interrupts(address: str) -> dict[str, Any]:
    """MSI-X with two vectors, MSI, then the line: it is masked after each interrupt until it is rearmed."""
    function = VfioFunction(address)
    card = E1000e(function)
    card.bar.write32(card.IVAR, 8 | 0 | (8 | 1) << 16)  # receive queue 0 by vector 0, other causes by vector 1
    on = function.interrupts(Irq.MSIX, 2)
    card.raise_cause(card.RXQ0)
    msix = [count(on.events[0])]
    card.raise_cause(card.LINK_CHANGE | card.OTHER)
    msix.append(count(on.events[1]))
    card.let_throttling_end()
    on.close()
    card.drop_causes()
    on = function.interrupts(Irq.MSI, 1)
    card.raise_cause(card.LINK_CHANGE)
    msi = count(on.events[0])
    on.close()
    card.drop_causes()
    on = function.interrupts(Irq.INTX, 1)
    card.raise_cause(card.LINK_CHANGE)
    line = [count(on.events[0])]
    on.rearm()  # the cause is still there, so it comes again
    line.append(count(on.events[0]))
    card.drop_causes()
    on.rearm()
    line.append(len(select.select(on.events, [], [], 0.2)[0]))
    on.close()
    function.close()
    return {"msix": msix, "msi": msi, "line": line}


def container(e1000e: str, virtio: str) -> dict[str, Any]:
    """Two cards of different kinds use the same memory; the VirtIO one sends from it and interrupts."""
    functions = [VfioFunction(e1000e), VfioFunction(virtio)]
    memory = allocate_rings(4 * 4096)
    mappings = [function.map(memory) for function in functions]
    pinned = [locked()]
    device = VirtioNet(functions[1])
    on = functions[1].interrupts(Irq.MSIX, 1)
    device.start(mappings[1])
    device.send(memory, mappings[1])
    interrupted = count(on.events[0])
    used = device.used(memory)
    status = [int(device.status[0])]
    on.close()
    functions[1].reset()
    status.append(int(device.status[0]))
    for function in functions:
        function.unmap(memory)
        pinned.append(locked())
        function.close()
    memory.close()
    same = bool((mappings[0].pages == mappings[1].pages).all())
    return {"same_addresses": same, "pinned": pinned, "interrupted": interrupted, "used": used, "status": status}


def user(address: str, name: str, limit: str) -> dict[str, Any]:
    """As an ordinary user who may lock `limit` bytes: open, map, send, close."""
    entry = pwd.getpwnam(name)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(limit), int(limit)))
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    report: dict[str, Any] = {}

    def use() -> None:
        function = VfioFunction(address)
        try:
            memory = DmaMemory(0, 4 << 20)
            place = function.map(memory).address(0, 4096)
            report["sent"] = E1000e(function).send(memory, place, place + 4096)
        finally:
            function.close()

    report["error"] = message_of(use)
    return report


def take(address: str) -> dict[str, Any]:
    """Open a card, say so, and keep it busy for ever."""
    function = VfioFunction(address)
    card = E1000e(function)
    memory = DmaMemory(0, 1)
    place = function.map(memory).address(0, 4096)
    assert card.send(memory, place, place + 4096)
    Path("taken").touch()
    while True:
        card.send(memory, place, place + 4096)


def attempt(address: str) -> dict[str, Any]:
    """Open a card once."""
    return {"error": message_of(lambda: VfioFunction(address).close())}


def again(address: str) -> dict[str, Any]:
    """Open a card that was in use until its process was killed, see whether it may do DMA, and send."""
    function = VfioFunction(address)
    may_master = function.config_read(4, 2) >> 2 & 1
    memory = DmaMemory(0, 1)
    place = function.map(memory).address(0, 4096)
    sent = E1000e(function).send(memory, place, place + 4096)
    function.close()
    return {"may_master": may_master, "sent": sent}


what, *arguments = sys.argv[1:]
print(json.dumps(globals()[what](*arguments)))
